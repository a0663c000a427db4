"""k-reciprocal re-ranking against the paper's sets and sums, one picture at a time."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.metrics import reranking
from multimodal.metrics.reranking import k_reciprocal


def by_the_paper(queries: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Equations 2 to 12, with Python's sets. The nearest k of a picture are beside itself, which is at distance 0."""
    rows = np.concatenate([queries, gallery])
    everyone = range(len(rows))
    distance = np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows])
    distance /= distance.max(axis=1, keepdims=True)

    def nearest(p: int, k: int) -> list[int]:
        return sorted(everyone, key=lambda g: distance[p, g])[: k + 1]

    def reciprocal(p: int, k: int) -> set[int]:
        return {g for g in nearest(p, k) if p in nearest(g, k)}

    def encoded(p: int) -> dict[int, float]:
        near = reciprocal(p, k1)
        grown = set(near)
        for q in near:
            candidates = reciprocal(q, round(k1 / 2))
            if len(near & candidates) > 2 / 3 * len(candidates):
                grown |= candidates
        weights = {g: np.exp(-distance[p, g]) for g in grown}
        return {g: value / sum(weights.values()) for g, value in weights.items()}

    alone = [encoded(p) for p in everyone]
    expanded = [{g: np.mean([alone[q].get(g, 0) for q in nearest(p, k2 - 1)]) for g in everyone} for p in everyone]
    return np.array(
        [
            [
                (1 - weight) * (1 - sum(min(expanded[p][g], expanded[o][g]) for g in everyone)
                                / sum(max(expanded[p][g], expanded[o][g]) for g in everyone))
                + weight * distance[p, o]
                for o in everyone[len(queries) :]
            ]
            for p in everyone[: len(queries)]
        ]
    )  # fmt: skip


@pytest.mark.parametrize("k1, k2, weight", [(8, 3, 0.3), (5, 1, 0.0), (6, 4, 1.0)])
def test_distances_are_those_of_the_paper(k1: int, k2: int, weight: float) -> None:
    rng = np.random.default_rng(k1)
    centres = rng.normal(size=(6, 5))
    queries, gallery = (centres[rng.integers(0, 6, num)] + 0.5 * rng.normal(size=(num, 5)) for num in (5, 25))
    found = k_reciprocal(queries, gallery, k1, k2, weight)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_the_paper(queries, gallery, k1, k2, weight), atol=1e-6)


def test_too_many_pictures_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "MOST", 9)
    with pytest.raises(ValueError, match="10 pictures are compared"):
        k_reciprocal(np.ones((4, 2)), np.ones((6, 2)))
