"""Figures as pure functions of arrays: retrieval ranks and what is read off them, votes of neighbours, with chance and intervals beside."""

from multimodal.metrics.bootstrap import Interval, interval
from multimodal.metrics.confusion import confusion, shares_among_first
from multimodal.metrics.neighbours import nearest_classes
from multimodal.metrics.retrieval import (
    average_precision,
    chance_average_precision,
    chance_recall_at,
    dealt_average_precision,
    nearest,
    ranks,
    recall_at,
    relevant_ranks,
    score_blocks,
    unit,
)

__all__ = [
    "Interval",
    "average_precision",
    "chance_average_precision",
    "chance_recall_at",
    "confusion",
    "dealt_average_precision",
    "interval",
    "nearest",
    "nearest_classes",
    "ranks",
    "recall_at",
    "relevant_ranks",
    "score_blocks",
    "shares_among_first",
    "unit",
]
