"""The search page: a search field, a line of help, and the hits as pictures that link to the next query. HTML and CSS, no script.

search_page("cat + heart", num_pictures=1376, found=found, has_thumbnail=[True, False])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from multimodal.pages import render
from multimodal.search.page import Card

if TYPE_CHECKING:
    from multimodal.search.answer import Answer

EXAMPLES = ("red heart", "woman + scientist without man", "between summer and winter in 5", '"traffic light" + car')


def search_page(query: str, num_pictures: int, found: Answer | None = None, has_thumbnail: Sequence[bool] = (), error: str = "") -> str:
    """The whole page. num_pictures: how many the store holds. has_thumbnail: one for each hit of found. error: why the query failed.

    Each picture links to a query of that picture plus this query, or plus its own step of a series.
    """
    hits = found.hits if found else []
    asked = [query] * len(hits) if found is None or len(found.steps) == 1 else [str(step) for step in found.steps[: len(hits)]]
    cards = [
        Card(hit, f"thumbnails/{hit.id}" if there else None, address(_with_picture(hit.id, one)))
        for hit, one, there in zip(hits, asked, has_thumbnail, strict=True)
    ]
    return render(
        "search.html.jinja",
        title=query or "Search pictures in words",
        query=query,
        num_pictures=num_pictures,
        examples=[(example, address(example)) for example in EXAMPLES],
        found=found is not None,
        cards=cards,
        notes=found.notes.splitlines() if found else [],
        is_product=found is not None and found.is_product,
        error=error,
    )


def _with_picture(id: int, query: str) -> str:
    """A picture and a query. What begins by excluding something cannot follow a sign."""
    return f"image:{id} + ({query})" if query.lstrip().lower().startswith("without") else f"image:{id} + {query}"


def address(query: str) -> str:
    """The page of a query, as a link relative to any other page."""
    return "?" + urlencode({"q": query})
