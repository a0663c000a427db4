"""Noto emoji: the things of fluent-emoji in another drawing style, to search in a style that a model has never seen (npm packages).

    data-prep make-shards noto-emoji --output shards/noto

Texts, groups and the metadata `hexcode` equal those of `fluent-emoji`, so that the two sets can be joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.sources import cut
from data_prep.sources._emoji import WORDS, DrawnThings, read_drawings, read_things
from data_prep.sources._npm import Package
from data_prep.sources.fluent_emoji import DRAWINGS as FLUENT
from data_prep.sources.fluent_emoji import read_fluent
from multimodal.pairs import Pair
from multimodal.shards import Ledger

DRAWINGS = Package(
    "asturur-noto-emoji", "3.0.3", "sha512-Dx2Ua2sd/s1sGl4gPJve3QeZXf7MmnMp/xbw+TT3nC3xC6K+62G0GmvdSSVqARCHpb0QtFbZcerwMOGduPI3Gg=="
)


def noto_emoji(packages: Path | None = None, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """Noto's drawings of the things that fluent-emoji has, in Unicode's order.

    packages: a folder that holds the npm archives already; by default npm downloads them into the user's cache.
    """
    yield from _drawn(packages).pairs(part, ledger)


def plan(pairs_per_shard: int, packages: Path | None) -> list[dict[str, Any]]:
    """Ranges of the drawn things."""
    return cut(len(_drawn(packages).things), pairs_per_shard)


def inputs(packages: Path | None) -> list[str]:
    """The pinned releases, independent of where their archives are."""
    return [WORDS.integrity, FLUENT.integrity, DRAWINGS.integrity]


@lru_cache(maxsize=1)  # archives that are checked against a pinned hash do not change
def _drawn(packages: Path | None) -> DrawnThings:
    fluent = read_fluent(packages)
    things = {key: thing for key, thing in read_things(packages).items() if key in fluent}
    return DrawnThings.of(str(DRAWINGS), ".png", things, read_drawings(DRAWINGS, packages, "package/png/128/emoji_u", ".png"))
