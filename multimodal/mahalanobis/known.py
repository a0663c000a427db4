"""What is known of rows, in one of three forms, as the ways to fit a metric take it.

known = Known(rows, pairs=pairs)
known.scatters.within, known.of_first(64).rows
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from multimodal.mahalanobis.pairs import Pairs, Triplets
from multimodal.mahalanobis.scatters import Scatters, scatters_of_labels, scatters_of_pairs


@dataclass(frozen=True, eq=False)
class Known:
    """rows (n, d), and one of: labels (n,) int64, below 0 where unknown; pairs; triplets, which are pairs too: an anchor's two."""

    rows: np.ndarray
    labels: np.ndarray | None = None
    pairs: Pairs | None = None
    triplets: Triplets | None = None

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
