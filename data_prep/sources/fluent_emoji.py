"""Fluent emoji: some 1,400 three-dimensional drawings of things, with a label and keywords each (npm packages, fetched once).

    data-prep make-shards fluent-emoji --output shards/fluent

These are illustrations with keywords, not photographs with captions: enough to see the whole road work. Base drawings only, no skin tones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.emoji import WORDS, drawing_key, read_things
from data_prep.npm import Package, fetch, read_members
from data_prep.pictures import offer
from multimodal.pairs import Pair
from multimodal.shards import Ledger

DRAWINGS = Package(
    "@lobehub/fluent-emoji-3d", "1.1.0", "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
)


def fluent_emoji(packages: Path | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """Fluent emoji with their labels and tags as text, in Unicode's order; man, woman and person of one thing share a group.

    packages: a folder that holds the npm archives already; by default they are fetched with npm into the user's cache.
    """
    things = read_things(packages)
    drawings = read_fluent(packages)
    for key, thing in things.items():
        if key in drawings:
            yield from offer(
                ledger, str(DRAWINGS), f"{thing.hexcode}.webp", drawings[key], [thing.text], thing.group, metadata=thing.metadata
            )


def inputs(packages: Path | None) -> list[str]:
    """The pinned releases, wherever their archives lie."""
    return [WORDS.integrity, DRAWINGS.integrity]


def read_fluent(packages: Path | None) -> dict[str, bytes]:
    """drawing key -> WebP bytes. Of two files that draw one sequence, with and without variation selectors, the later name is taken."""
    members = read_members(fetch(DRAWINGS, packages), lambda name: name.endswith(".webp"))
    return {drawing_key(Path(name).stem): content for name, content in sorted(members.items())}
