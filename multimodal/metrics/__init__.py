"""Figures as pure functions of arrays: retrieval ranks and what is read off them, votes of neighbours, with chance and intervals beside."""

from multimodal.metrics.bootstrap import Interval, interval
from multimodal.metrics.neighbours import nearest_classes
from multimodal.metrics.retrieval import average_precision, chance_recall_at, ranks, recall_at

__all__ = ["Interval", "average_precision", "chance_recall_at", "interval", "nearest_classes", "ranks", "recall_at"]
