"""Metrics as pure functions of arrays: ranks, recall and average precision, nearest-neighbour classes; with chance levels and
intervals; and the room that an embedding takes.
"""

from multimodal.metrics.bootstrap import Interval, interval, word_intervals
from multimodal.metrics.confusion import confusion, shares_among_first
from multimodal.metrics.distances import Distance
from multimodal.metrics.judged import average_precisions, shares_among
from multimodal.metrics.neighbours import majority_classes, nearest_classes
from multimodal.metrics.retrieval import (
    average_precision,
    chance_average_precision,
    chance_recall_at,
    nearest,
    permuted_average_precision,
    ranks,
    recall_at,
    relevant_ranks,
    score_blocks,
    unit,
)
from multimodal.metrics.same_class import SameClass, same_class
from multimodal.metrics.silhouette import silhouette
from multimodal.metrics.spread import effective_rank, spread
from multimodal.metrics.trade_off import kept, trade_off
from multimodal.metrics.triplets import HardestTriplets, hardest_triplets, share_violated

__all__ = [
    "Distance",
    "HardestTriplets",
    "Interval",
    "SameClass",
    "average_precision",
    "average_precisions",
    "chance_average_precision",
    "chance_recall_at",
    "confusion",
    "effective_rank",
    "hardest_triplets",
    "interval",
    "kept",
    "majority_classes",
    "nearest",
    "nearest_classes",
    "permuted_average_precision",
    "ranks",
    "recall_at",
    "relevant_ranks",
    "same_class",
    "score_blocks",
    "share_violated",
    "shares_among",
    "shares_among_first",
    "silhouette",
    "spread",
    "trade_off",
    "unit",
    "word_intervals",
]
