"""What a query returns in Python: a list of hits that displays itself in a notebook.

hits = store.search("beach - people", k=5)
hits[0].image, hits[0].name, hits.notes       # in a notebook `hits` itself is the page of `multimodal search --html`
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any, SupportsIndex, overload

from multimodal.pairs import Hit
from multimodal.search.answer import Answer

ROW_PX, MAX_PX = 330, 720
"""Of a notebook's output: the greatest height of a row of cards, and of the whole before it scrolls."""
CARDS_A_ROW = 4


class Hits(list[Hit]):
    """The hits of a query, best first. A list of `Hit`; a slice of it is one too.

    query: as it was given. answer: the hits with how the query was understood, what each term does, and the unknown words.
    """

    def __init__(self, hits: Iterable[Hit], query: str, answer: Answer) -> None:
        super().__init__(hits)
        self.query = query
        self.answer = answer

    @property
    def notes(self) -> str:
        """What to know beside the hits: unknown words, and terms that were left out. "" if there is nothing to say."""
        return self.answer.notes

    @overload
    def __getitem__(self, at: SupportsIndex) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> Hits: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Hit | Hits:
        return Hits(super().__getitem__(at), self.query, self.answer) if isinstance(at, slice) else super().__getitem__(at)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hits, (list(self), self.query, self.answer)

    def _repr_html_(self) -> str:
        """The page of `multimodal search --html`, in a frame, so that its styles and the notebook's do not mix."""
        from dataclasses import replace

        from multimodal.search.page import render

        page = render(self.query, replace(self.answer, hits=list(self)), [hit.thumbnail for hit in self])
        height = min(MAX_PX, 130 + ROW_PX * -(-len(self) // CARDS_A_ROW))
        return f'<iframe srcdoc="{escape(page)}" style="width: 100%; height: {height}px; border: 0" loading="lazy"></iframe>'
