"""The hits of a query as one HTML page with its pictures inside: it opens anywhere, without a network.

Path("hits.html").write_text(render("beach - people", found, store.thumbnails([hit.id for hit in found.hits])))
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multimodal.pages import data_uri
from multimodal.pages import render as render_page
from multimodal.pairs import Hit

if TYPE_CHECKING:
    from multimodal.search.answer import Answer

NUM_HUES = 8
"""Colours in pages.css that tell the terms of a query from each other; a ninth term has the first again."""


@dataclass(frozen=True, slots=True)
class Card:
    """A hit on a page. address: of its picture, or None; link: where a click on it leads, or None."""

    hit: Hit
    address: str | None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Chip:
    """A term on a page. weight: as it is written, "" for 1; hue: a class of pages.css."""

    label: str
    weight: str
    hue: str


def chips_of(found: Answer) -> list[Chip]:
    """The terms of a query, excluded ones in the colour of minus; [] for a series, whose terms change from step to step."""
    if len(found.steps) > 1:
        return []
    [step] = found.steps
    weights = [*(abs(term.weight) for term in (*step.terms, *step.without)), *(swap.weight for swap in step.swaps)]
    excluded = [*(term.weight < 0 for term in step.terms), *(True for _ in step.without), *(False for _ in step.swaps)]
    return [
        Chip(label, "" if weight == 1 else f"{weight:.4g}", "hue-minus" if is_excluded else f"hue-{number % NUM_HUES}")
        for number, (label, weight, is_excluded) in enumerate(zip(step.labels, weights, excluded, strict=True))
    ]


def hues_of(chips: Sequence[Chip]) -> Mapping[str, str]:
    """From a term's label to its class; terms that have no chip share one."""
    return defaultdict(lambda: "hue-0", {chip.label: chip.hue for chip in chips})


def render(query: str, found: Answer, thumbnails: Sequence[bytes | None]) -> str:
    """The page as HTML text. thumbnails: one encoded picture per hit, or None, for which text is shown instead."""
    cards = [Card(hit, None if thumbnail is None else data_uri(thumbnail)) for hit, thumbnail in zip(found.hits, thumbnails, strict=True)]
    chips = chips_of(found)
    given = {"title": query, "notes": found.notes.splitlines(), "is_product": found.is_product, "cards": cards}
    return render_page("hits.html.jinja", **given, chips=chips, hues=hues_of(chips))
