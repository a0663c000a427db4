"""Figures as pure functions of arrays: retrieval ranks and what is read off them, with chance and intervals beside."""

from multimodal.metrics.bootstrap import Interval, interval
from multimodal.metrics.retrieval import average_precision, chance_recall_at, nearest, ranks, recall_at

__all__ = ["Interval", "average_precision", "chance_recall_at", "interval", "nearest", "ranks", "recall_at"]
