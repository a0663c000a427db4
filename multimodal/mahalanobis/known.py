"""What is known of rows, in one of three forms, as the ways to fit a metric take it.

known = Known(rows, pairs=pairs)
known.scatters.within, known.of_first(64).rows
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from multimodal.errors import InputError
from multimodal.mahalanobis.pairs import Pairs, Triplets
from multimodal.mahalanobis.scatters import Scatters, scatters_of_labels, scatters_of_pairs


@dataclass(frozen=True, eq=False)
class Known:
    """rows (n, d), and one of: labels (n,) int64, below 0 where unknown; pairs; triplets, which are pairs too: an anchor's two.

    InputError: rows of another shape, or not finite; none or several of the three; labels that are not n whole numbers, or places beyond n.
    """

    rows: np.ndarray
    labels: np.ndarray | None = None
    pairs: Pairs | None = None
    triplets: Triplets | None = None

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not np.isfinite(self.rows).all():
            raise InputError(f"rows of shape {self.rows.shape}: expected (n, d) finite numbers")
        if sum(one is not None for one in (self.labels, self.pairs, self.triplets)) != 1:
            raise InputError("what is known of the rows is one of: labels, pairs, triplets")
        if self.labels is not None and (np.shape(self.labels) != (len(self.rows),) or self.labels.dtype.kind not in "iu"):
            raise InputError(
                f"labels: expected ({len(self.rows)},) whole numbers, one for each row; multimodal.shards.labels numbers texts"
            )
        places = () if self.labels is not None else self._places()
        if any(len(one) and not (one.min() >= 0 and one.max() < len(self.rows)) for one in places):
            raise InputError(f"places of pictures must be from 0 to {len(self.rows) - 1}, of {len(self.rows)} rows")

    def _places(self) -> tuple[np.ndarray, ...]:
        if self.triplets is not None:
            return self.triplets.anchor, self.triplets.same, self.triplets.different
        assert self.pairs is not None, "one of the three is given"
        return self.pairs.first, self.pairs.second

    @cached_property
    def scatters(self) -> Scatters:
        """ValueError if nothing is the same, or nothing different."""
        if self.labels is not None:
            return scatters_of_labels(self.rows, self.labels)
        pairs = self.pairs if self.triplets is None else self.triplets.pairs
        assert pairs is not None, "one of the three is given"
        return scatters_of_pairs(self.rows, pairs)

    def of_first(self, num: int) -> Known:
        """Of the first num dimensions."""
        if num == self.rows.shape[1]:
            return self
        found = replace(self, rows=self.rows[:, :num])
        found.__dict__["scatters"] = self.scatters.of_first(num)  # computed once, for all numbers of dimensions
        return found
