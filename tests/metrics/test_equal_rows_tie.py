"""Equal rows have equal scores: wherever they are, on any kernel of BLAS, with any number of threads and in blocks of any size."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.metrics import nearest, nearest_classes, ranks, relevant_ranks, score_blocks, shares_among_first, unit

KERNELS = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "NEOVERSEN1", "ARMV8")
DIGEST = """
import hashlib, numpy as np
from multimodal.metrics import score_blocks, unit
random, digest = np.random.default_rng(0), hashlib.sha256()
for num, dim in [(1, 1), (7, 3), (33, 50), (130, 384), (257, 31)]:
    queries, gallery = unit(random.normal(size=(num, dim))), unit(random.normal(size=(2 * num + 1, dim)))
    digest.update(b"".join(scores.tobytes() for _, scores in score_blocks(queries, gallery)))
print(digest.hexdigest())
"""


def scores_of(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return np.concatenate([scores for _, scores in score_blocks(queries, gallery)])


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 200), st.integers(1, 400))
@settings(max_examples=100, deadline=None)
def test_equal_rows_have_equal_scores_wherever_they_are(seed: int, num_queries: int, num_gallery: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    of_query, of_item = random.integers(max(1, num_queries // 2), size=num_queries), random.integers(num_gallery // 2 + 1, size=num_gallery)
    queries, gallery = random.normal(size=(num_queries, dim))[of_query], 10 * random.normal(size=(num_gallery, dim))[of_item]
    scores = scores_of(queries, gallery)
    _, first_query = np.unique(of_query, return_index=True)
    _, first_item = np.unique(of_item, return_index=True)
    one_of_each = scores[np.ix_(first_query, first_item)]
    assert (scores == one_of_each[np.ix_(np.unique(of_query, return_inverse=True)[1], np.unique(of_item, return_inverse=True)[1])]).all()


@pytest.mark.parametrize("max_scores", [1, 37, 1000])
def test_the_size_of_a_block_changes_no_bit(monkeypatch: pytest.MonkeyPatch, max_scores: int) -> None:
    random = np.random.default_rng(0)
    queries, gallery = unit(random.normal(size=(45, 96))), unit(random.normal(size=(37, 96)))
    whole = scores_of(queries, gallery)
    monkeypatch.setattr("multimodal.metrics.retrieval.MAX_SCORES", max_scores)
    assert (scores_of(queries, gallery) == whole).all()


def test_the_number_of_threads_changes_no_bit() -> None:
    limits = pytest.importorskip("threadpoolctl", reason="it sets the number of BLAS's threads").threadpool_limits
    random = np.random.default_rng(1)
    queries, gallery = unit(random.normal(size=(300, 200))), unit(random.normal(size=(301, 200)))
    with limits(1, user_api="blas"):
        one = scores_of(queries, gallery)
    with limits(4, user_api="blas"):
        assert (scores_of(queries, gallery) == one).all()


def test_every_kernel_of_blas_gives_the_same_bits() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    started = {
        kernel: subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment | {"OPENBLAS_CORETYPE": kernel}, capture_output=True, text=True, timeout=300
        )
        for kernel in KERNELS
    }
    # a kernel that this processor lacks the instructions for ends by a signal; one that this build lacks is another one's name
    digests = {kernel: done.stdout for kernel, done in started.items() if done.returncode == 0}
    assert len(digests) >= 2, {kernel: done.stderr for kernel, done in started.items()}
    assert len(set(digests.values())) == 1, digests


def test_scores_are_as_near_to_the_exact_products_as_they_say() -> None:
    random = np.random.default_rng(2)
    queries, gallery = random.normal(size=(4, 60)) * 0.1, random.normal(size=(5, 60)) * 0.1
    exact = [[float(sum(Fraction(a) * Fraction(b) for a, b in zip(query, item, strict=True))) for item in gallery] for query in queries]
    lengths = np.linalg.norm(queries, axis=1).max() * np.linalg.norm(gallery, axis=1).max()
    assert np.abs(scores_of(queries, gallery) - exact).max() < lengths * 2.0**-44 * np.sqrt(60)


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_a_copy_of_the_own_item_counts_against_it_wherever_it_is(seed: int, num: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    gallery, queries = random.normal(size=(num, dim)), random.normal(size=(num, dim))
    copies, place = np.concatenate([gallery] * 3), random.permutation(3 * num)
    once, thrice = ranks(queries, gallery, np.arange(num)), ranks(queries, copies[place], np.argsort(place)[num : 2 * num])
    assert (thrice == 3 * once).all()
    for line, own in zip(scores_of(unit(queries), unit(copies[place])), np.argsort(place)[:num], strict=True):
        own_and_copies = (copies[place] == copies[place][own]).all(axis=1)
        assert np.unique(line[own_and_copies]).size == 1
        assert relevant_ranks(line, own_and_copies)[-1] - relevant_ranks(line, own_and_copies)[0] == 2  # side by side


def test_copies_are_found_in_the_order_of_the_gallery_and_share_what_they_tie_for() -> None:
    random = np.random.default_rng(3)
    rows, queries = np.tile(random.normal(size=(40, 24)), (7, 1)), random.normal(size=(50, 24))
    found, cosines = nearest(queries, rows, k=7)
    assert (found == found[:, :1] + 40 * np.arange(7)).all() and (cosines == cosines[:, :1]).all()
    classes = np.repeat(np.arange(7), 40)  # every copy is of another class
    assert np.allclose(shares_among_first(scores_of(unit(queries), unit(rows)), classes, 7, k=3), 1 / 7)
    assert (nearest_classes(rows, classes, queries, k=1) == 0).all()  # of equally near rows the first


def test_vectors_that_are_not_finite_rank_last_and_are_never_near() -> None:
    rows = np.eye(5)
    rows[2] = np.nan
    rows[3, 0] = np.inf
    assert ranks(rows, rows, np.arange(5)).tolist() == [1, 1, 5, 5, 1]
    assert nearest(rows[:1], rows, k=5)[1].tolist() == [[1, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="not finite"):
        scores_of(rows, rows)
