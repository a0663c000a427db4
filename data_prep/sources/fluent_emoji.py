"""Fluent emoji: some 1,400 three-dimensional drawings of things, with a label and keywords each (npm packages, fetched once).

    data-prep make-shards fluent-emoji --output shards/fluent

These are illustrations with keywords, not photographs with captions: enough to see the whole road work. Base drawings only, no skin tones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.emoji import WORDS, pairs_of, read_drawings, read_things
from data_prep.npm import Package
from multimodal.pairs import Pair
from multimodal.shards import Ledger

DRAWINGS = Package(
    "@lobehub/fluent-emoji-3d", "1.1.0", "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
)


def fluent_emoji(packages: Path | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """Fluent emoji with their labels and tags as text, in Unicode's order; man, woman and person of one thing share a group.

    packages: a folder that holds the npm archives already; by default they are fetched with npm into the user's cache.
    """
    yield from pairs_of(read_things(packages), read_fluent(packages), str(DRAWINGS), ".webp", ledger)


def inputs(packages: Path | None) -> list[str]:
    """The pinned releases, wherever their archives lie."""
    return [WORDS.integrity, DRAWINGS.integrity]


def read_fluent(packages: Path | None) -> dict[str, bytes]:
    """drawing key -> WebP bytes."""
    return read_drawings(DRAWINGS, packages, "package/assets/", ".webp")
