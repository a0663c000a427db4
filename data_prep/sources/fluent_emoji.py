"""Fluent emoji: some 1,400 three-dimensional drawings of things, with a label and keywords each (npm packages, downloaded once).

    data-prep make-shards fluent-emoji --output shards/fluent

These are illustrations with keywords, not photographs with captions: enough to try the whole road. Base drawings only, no skin tones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.sources import cut
from data_prep.sources._emoji import WORDS, DrawnThings, read_drawings, read_things
from data_prep.sources._npm import Package
from multimodal.pairs import Pair
from multimodal.shards import Ledger

DRAWINGS = Package(
    "@lobehub/fluent-emoji-3d", "1.1.0", "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
)


def fluent_emoji(packages: Path | None = None, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """Fluent emoji with their labels and tags as text, in Unicode's order; man, woman and person of one thing share a group.

    packages: a folder that holds the npm archives already; by default npm downloads them into the user's cache.
    """
    yield from _drawn(packages).pairs(part, ledger)


def plan(pairs_per_shard: int, packages: Path | None) -> list[dict[str, Any]]:
    """Ranges of the drawn things."""
    return cut(len(_drawn(packages).things), pairs_per_shard)


def inputs(packages: Path | None) -> list[str]:
    """The pinned releases, independent of where their archives are."""
    return [WORDS.integrity, DRAWINGS.integrity]


def read_fluent(packages: Path | None) -> dict[str, bytes]:
    """drawing key -> WebP bytes."""
    return read_drawings(DRAWINGS, packages, "package/assets/", ".webp")


@lru_cache(maxsize=1)  # archives that are checked against a pinned hash do not change
def _drawn(packages: Path | None) -> DrawnThings:
    return DrawnThings.of(str(DRAWINGS), ".webp", read_things(packages), read_fluent(packages))
