"""A learned Mahalanobis metric, M = L'L, over the vectors of pictures: how it is fitted, chosen, and folded into an export.

    found = choose(Known(rows, labels=labels))         # the best of several on held-out rows, or the metric as it was
    found.apply(rows)                                  # compared by cosine, as stores compare

The square of the distance is (x - y)' M (x - y) = |Lx - Ly|^2, so a metric is a linear map of the vectors, and no store or engine changes.
"""

from multimodal.mahalanobis.choosing import Chosen, choose
from multimodal.mahalanobis.known import Known
from multimodal.mahalanobis.pairs import Pairs, Triplets

__all__ = ["Chosen", "Known", "Pairs", "Triplets", "choose"]
