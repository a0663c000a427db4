"""Figures of re-identification against their definitions, written as loops over one query's ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics.identities import Identities, identity_figures, identity_masks


def by_loop(scores: list[float], identity: int, camera: int, gallery: list[tuple[int, int]]) -> tuple[int, float, float] | None:
    """(rank of the first match, average precision, matches by the rank of the last); None without a match."""
    listed = [
        (score, own == identity) for score, (own, taken_by) in zip(scores, gallery, strict=True) if (own, taken_by) != (identity, camera)
    ]
    listed.sort(key=lambda one: (-one[0], one[1]))
    ranks = [rank for rank, (_, is_match) in enumerate(listed, start=1) if is_match]
    if not ranks:
        return None
    return ranks[0], float(np.mean([(nth + 1) / rank for nth, rank in enumerate(ranks)])), len(ranks) / ranks[-1]


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 25), st.booleans())
@settings(max_examples=60)
def test_figures_equal_a_loop_with_and_without_ties(seed: int, num_queries: int, num_gallery: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = (Identities(rng.integers(0, 4, num), rng.integers(0, 3, num)) for num in (num_queries, num_gallery))
    scores = rng.integers(0, 4, (num_queries, num_gallery)).astype(float) if ties else rng.normal(size=(num_queries, num_gallery))
    pictures = list(zip(gallery.identities.tolist(), gallery.cameras.tolist(), strict=True))
    each = [
        by_loop(line.tolist(), identity, camera, pictures)
        for line, identity, camera in zip(scores, queries.identities, queries.cameras, strict=True)
    ]
    relevant, ranked = identity_masks(queries, gallery)
    wanted = [one for one in each if one is not None]
    if not wanted:
        with pytest.raises(ValueError, match="no query has a match"):
            identity_figures(scores, relevant, ranked)
        return
    found = identity_figures(scores, relevant, ranked)
    assert found.has_match.tolist() == [one is not None for one in each]
    figures = [found.first, found.average_precision, found.inverse_negative_penalty]
    np.testing.assert_allclose(np.stack(figures, axis=1), wanted, rtol=1e-12)
    assert found.cmc(2) == np.mean([first <= 2 for first, _, _ in wanted])


def test_without_cameras_a_query_alone_is_left_out() -> None:
    pictures = Identities(np.array([0, 0, 1, 1]))
    relevant, ranked = identity_masks(pictures, pictures, own=np.array([0, 1, -1, 3]))
    assert ranked.sum() == 13 and not ranked[[0, 1, 3], [0, 1, 3]].any()
    assert relevant.tolist() == [
        [False, True, False, False],
        [True, False, False, False],
        [False, False, True, True],
        [False, False, True, False],
    ]
