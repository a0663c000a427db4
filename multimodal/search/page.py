"""The hits of a query as one HTML page with its pictures inside: it opens anywhere, without a network.

Path("hits.html").write_text(render("beach - people", found, store.thumbnails([hit.id for hit in found.hits])))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multimodal.pages import data_uri
from multimodal.pages import render as render_page
from multimodal.pairs import Hit

if TYPE_CHECKING:
    from multimodal.search.answer import Answer


@dataclass(frozen=True, slots=True)
class Card:
    """A hit on a page. address: of its picture, or None; link: where a click on it leads, or None."""

    hit: Hit
    address: str | None
    link: str | None = None


def render(query: str, found: Answer, thumbnails: Sequence[bytes | None]) -> str:
    """The page as HTML text. thumbnails: one encoded picture per hit, or None, for which text is shown instead."""
    cards = [Card(hit, None if thumbnail is None else data_uri(thumbnail)) for hit, thumbnail in zip(found.hits, thumbnails, strict=True)]
    return render_page("hits.html.jinja", title=query, notes=found.notes.splitlines(), is_product=found.is_product, cards=cards)
