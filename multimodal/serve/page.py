"""The search page: a search field, a line of help, and the hits as pictures that link to the next query. HTML and CSS, no script.

search_page(Asked("cat + heart"), num_pictures=1376, columns=store.columns, found=found, has_thumbnail=[True, False])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from multimodal.errors import InputError
from multimodal.pages import render
from multimodal.search.page import Card

if TYPE_CHECKING:
    from multimodal.search.answer import Answer

EXAMPLES = ("red heart", "woman + scientist without man", "between summer and winter in 5", '"traffic light" + car')


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for, as it was typed; "" for what it does not name. docs/page.md says what each name means."""

    q: str
    where: str = ""
    order: str = ""
    cut_off: str = ""
    fold: str = ""
    store: str = ""
    fusion: str = ""
    view: str = ""
    columns: str = ""

    @property
    def query(self) -> str:
        return self.q

    @property
    def share(self) -> float | None:
        """The cut-off. InputError if it is no number."""
        try:
            return float(self.cut_off) if self.cut_off.strip() else None
        except ValueError:
            raise InputError(f"cut-off {self.cut_off[:30]!r}: a share of the random queries, such as 0.5") from None

    @property
    def is_folded(self) -> bool:
        """InputError if it is neither yes nor no."""
        if self.fold.lower() not in ("", "true", "false", "on"):
            raise InputError(f"fold {self.fold[:30]!r}: true or false")
        return self.fold.lower() in ("true", "on")

    def address(self, query: str) -> str:
        """The page of another query with all else the same, as a link relative to any other page."""
        return "?" + urlencode({name: value for name, value in (asdict(self) | {"q": query}).items() if value})


def search_page(
    asked: Asked,
    num_pictures: int,
    columns: Sequence[str],
    found: Answer | None = None,
    has_thumbnail: Sequence[bool] = (),
    error: str = "",
) -> str:
    """The whole page.

    num_pictures, columns: of the store. has_thumbnail: one for each hit of found. error: why the query failed.
    Each picture links to a query of that picture plus this query, or plus its own step of a series.
    """
    hits = found.hits if found else []
    of_store = f"?{urlencode({'store': asked.store})}" if asked.store else ""
    steps = [asked.query] * len(hits) if found is None or len(found.steps) == 1 else [str(step) for step in found.steps[: len(hits)]]
    cards = [
        Card(hit, f"thumbnails/{hit.id}{of_store}" if there else None, asked.address(_with_picture(hit.id, step)))
        for hit, step, there in zip(hits, steps, has_thumbnail, strict=True)
    ]
    return render(
        "search.html.jinja",
        title=asked.query or "Search pictures in words",
        asked=asked,
        num_pictures=num_pictures,
        columns=columns,
        examples=[(example, asked.address(example)) for example in EXAMPLES],
        found=found is not None,
        cards=cards,
        notes=found.notes.splitlines() if found else [],
        is_product=found is not None and found.is_product,
        error=error,
    )


def _with_picture(id: int, query: str) -> str:
    """A picture and a query. What begins by excluding something cannot follow a sign."""
    return f"image:{id} + ({query})" if query.lstrip().lower().startswith("without") else f"image:{id} + {query}"
