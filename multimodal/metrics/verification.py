"""Are two pictures of the same thing? Scores of pairs, of which some are the same, as a receiver operating characteristic.

    curve = roc(scores, same)
    curve.equal_error_rate, curve.at_false_accepts(0.01)          # 0.083, Operating(threshold=0.61, true_accepts=0.87, ...)

scores (m,), larger is more alike; same (m,) bool. A pair is accepted as the same if its score is at least the threshold, so that pairs of
equal scores are accepted together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Operating:
    """A threshold, and the shares of the different pairs and of the same pairs that it accepts."""

    threshold: float
    false_accepts: float
    true_accepts: float


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """The t + 1 operating points of m pairs with t different scores, from accepting nothing (threshold infinity) to accepting all.

    thresholds: (t + 1,) descending. false_accepts, true_accepts: (t + 1,) ascending shares.
    """

    thresholds: np.ndarray
    false_accepts: np.ndarray
    true_accepts: np.ndarray

    @property
    def area(self) -> float:
        """The chance that a same pair scores higher than a different one, equal scores counting half: the area under the curve."""
        return float(np.trapezoid(self.true_accepts, self.false_accepts))

    @property
    def equal_error_rate(self) -> float:
        """The share of errors where as many different pairs are accepted as same pairs are refused, between the two nearest points."""
        refused = 1 - self.true_accepts
        after = int(np.argmax(self.false_accepts >= refused))  # there is one: the last point accepts all
        if after == 0:
            return 0.0
        gap = refused - self.false_accepts
        share = gap[after - 1] / (gap[after - 1] - gap[after])
        return float(self.false_accepts[after - 1] + share * (self.false_accepts[after] - self.false_accepts[after - 1]))

    def at_false_accepts(self, most: float) -> Operating:
        """The point that accepts the most same pairs while it accepts at most this share of the different ones."""
        place = int(np.searchsorted(self.false_accepts, most, side="right")) - 1
        return Operating(float(self.thresholds[place]), float(self.false_accepts[place]), float(self.true_accepts[place]))


def roc(scores: np.ndarray, same: np.ndarray) -> Roc:
    """The curve of pairs. ValueError if all pairs are the same, or all different, or a score is not a number."""
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape or np.isnan(scores).any():
        raise ValueError(f"scores {scores.shape} and same {same.shape}: wanted one number, and whether it is the same, for each pair")
    if same.all() or not same.any():
        raise ValueError(f"of {len(same)} pairs {int(same.sum())} are the same; a curve needs both kinds")
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))  # of each run of equal scores
    accepted = np.cumsum(same[order])[last]
    shares = [np.concatenate([[0.0], counts / total]) for counts, total in ((last + 1 - accepted, (~same).sum()), (accepted, same.sum()))]
    return Roc(np.concatenate([[np.inf], scores[order][last]]), *shares)
