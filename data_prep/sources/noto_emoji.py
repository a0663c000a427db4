"""Noto emoji: the things of fluent-emoji in another drawing style, to search in what a model has never seen (npm packages).

    data-prep make-shards noto-emoji --output shards/noto

Texts, groups and the metadata `hexcode` equal those of `fluent-emoji`, so that the two sets can be joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.emoji import WORDS, pairs_of, read_drawings, read_things
from data_prep.npm import Package
from data_prep.sources.fluent_emoji import DRAWINGS as FLUENT
from data_prep.sources.fluent_emoji import read_fluent
from multimodal.pairs import Pair
from multimodal.shards import Ledger

DRAWINGS = Package(
    "asturur-noto-emoji", "3.0.3", "sha512-Dx2Ua2sd/s1sGl4gPJve3QeZXf7MmnMp/xbw+TT3nC3xC6K+62G0GmvdSSVqARCHpb0QtFbZcerwMOGduPI3Gg=="
)


def noto_emoji(packages: Path | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """Noto's drawings of the things that fluent-emoji has, in Unicode's order.

    packages: a folder that holds the npm archives already; by default they are fetched with npm into the user's cache.
    """
    fluent = read_fluent(packages)
    things = {key: thing for key, thing in read_things(packages).items() if key in fluent}
    drawings = read_drawings(DRAWINGS, packages, "package/png/128/emoji_u", ".png")
    yield from pairs_of(things, drawings, str(DRAWINGS), ".png", ledger)


def inputs(packages: Path | None) -> list[str]:
    """The pinned releases, wherever their archives lie."""
    return [WORDS.integrity, FLUENT.integrity, DRAWINGS.integrity]
