"""What a query found, and how it was understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multimodal.pairs import Hit
from multimodal.search.algebra import describe_unknown
from multimodal.search.grammar import Expression, Term


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a query found, and how it was understood.

    steps: its expression, or those of a series (`between`), which has one hit for each.
    left_out: phrases with no known word. unknown: each unknown word, also in phrases with known words -> near spellings.
    candidates: in words, which pictures were scored. is_product: whether scores are products of what the terms do to them, else sums.
    remark: why there are no hits, if a cut-off hides them all. num_found: how many pictures pass the filter and the cut-off; None where
    near duplicates are folded, which are counted only as far as they are looked at.
    """

    steps: tuple[Expression, ...]
    hits: list[Hit]
    left_out: tuple[Term, ...]
    unknown: Mapping[str, list[str]]
    candidates: str
    is_product: bool
    remark: str = ""
    num_found: int | None = None

    @property
    def notes(self) -> str:
        """What to know beside the hits: unknown words, terms left out because of them, what a cut-off hides. "" if nothing."""
        left_out = ", ".join(term.label for term in self.left_out)
        lines = [f"not known to the text space: {', '.join(self.unknown)}"] if self.unknown else []
        lines += [f"left out: {left_out}. The other terms keep their weights"] if left_out else []
        return "\n".join([*lines, *filter(None, [describe_unknown(self.unknown), self.remark])])
