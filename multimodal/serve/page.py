"""The search page: its shell with the hits of its address in it, so that it paints at once, is shared by its address, and works without
script. The modules in `web/` then take it over.

search_page(Asked("cat + heart"), num_pictures=1376, columns=store.columns, found=found, has_thumbnail=[True, False])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from multimodal.errors import InputError
from multimodal.pages import render
from multimodal.search.page import Card, chips_of, hues_of

if TYPE_CHECKING:
    from multimodal.search.answer import Answer

EXAMPLES = (
    "dog + beach",
    "red car",
    "child + water without dog",
    "between summer and winter in 5",
    "cat + heart",
    "night + city",
    "woman + scientist without man",
    '"traffic light" + car',
    "2*snow + person",
    "red heart",
)
"""The page shows those for which a store has something."""
LATER = ("camera.js", "columns.js", "early.js", "labels.js", "lasso.js", "map.js", "points.js")
"""Modules that are fetched when they are first needed, and the script in the head."""


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
    version: str = "",
) -> str:
    """The whole page.

    num_pictures, columns, version: of the store. has_thumbnail: one for each hit of found. error: why the query failed.
    Each picture links to a query of that picture plus this query, or plus its own step of a series.
    """
    hits = found.hits if found else []
    same = {name: value for name, value in (("store", asked.store), ("v", version)) if value}  # as state.js writes it: fetched once
    of_store = f"?{urlencode(same)}" if same else ""
    steps = [asked.query] * len(hits) if found is None or len(found.steps) == 1 else [str(step) for step in found.steps[: len(hits)]]
    same = {name: value for name, value in (("store", asked.store), ("v", version)) if value}  # as state.js writes it: fetched once
    of_store = f"?{urlencode(same)}" if same else ""
    cards = [
        Card(hit, f"thumbnails/{hit.id}{of_store}" if there else None, asked.address(_with_picture(hit.id, step)))
        for hit, step, there in zip(hits, steps, has_thumbnail, strict=True)
    ]
    chips = chips_of(found) if found else []
    return render(
        "search.html.jinja",
        title=asked.query or "Search pictures in words",
        asked=asked,
        num_pictures=num_pictures,
        columns=columns,
        examples=[(example, asked.address(example)) for example in EXAMPLES],
        modules=modules(),
        found=found is not None,
        chips=chips,
        hues=hues_of(chips),
        cards=cards,
        notes=found.notes.splitlines() if found else [],
        is_product=found is not None and found.is_product,
        error=error,
    )


@cache
def modules() -> list[str]:
    """The modules that the page needs at once, so that a browser fetches them together and not one after the other."""
    folder = files("multimodal.serve") / "web"
    return sorted(file.name for file in folder.iterdir() if file.name.endswith(".js") and file.name not in LATER)


def _with_picture(id: int, query: str) -> str:
    """A picture and a query. What begins by excluding something cannot follow a sign."""
    return f"image:{id} + ({query})" if query.lstrip().lower().startswith("without") else f"image:{id} + {query}"
