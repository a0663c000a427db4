from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.dedup.hamming import NearPairs, near_pairs


def some_hashes(num: int, num_words: int, seed: int, most_flipped: int) -> np.ndarray:
    """(num, num_words): half of them random, each of the others one of those with some bits flipped."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, (num, num_words), np.uint64)
    for row in range(num // 2, num):
        hashes[row] = hashes[generator.integers(num // 2)] if num > 1 else hashes[row]
        for bit in generator.integers(0, 64 * num_words, generator.integers(0, most_flipped + 1)):
            hashes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return hashes


def each_with_each(hashes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    """The slow twin."""
    bits = [sum(int(word) << (64 * place) for place, word in enumerate(row)) for row in hashes]
    distances = [(one, other, (bits[one] ^ bits[other]).bit_count()) for one, other in combinations(range(len(bits)), 2)]
    return [found for found in distances if found[2] <= radius]


def as_rows(found: NearPairs) -> list[tuple[int, int, int]]:
    return list(zip(found.first.tolist(), found.second.tolist(), found.distance.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(
    num=st.integers(0, 60),
    num_words=st.sampled_from([1, 4]),
    radius=st.integers(0, 40),
    seed=st.integers(0, 99),
    rows_at_once=st.sampled_from([1, 7, 4096]),
)
def test_the_pairs_are_those_of_comparing_each_with_each(num: int, num_words: int, radius: int, seed: int, rows_at_once: int) -> None:
    hashes = some_hashes(num, num_words, seed, most_flipped=30)
    assert as_rows(near_pairs(hashes, radius, rows_at_once)) == each_with_each(hashes, radius)


@pytest.mark.parametrize("radius", [0, 5, 12, 48])
def test_pairs_at_the_radius_are_near_and_one_bit_beyond_it_are_not(radius: int) -> None:
    hashes = np.zeros((3, 4), np.uint64)
    for row, num in ((1, radius), (2, 2 * radius + 1)):  # so many bits from the first; the two are radius + 1 apart
        for bit in range(num):
            hashes[row, bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
    assert as_rows(near_pairs(hashes, radius)) == [(0, 1, radius)]


def test_rows_are_numbered_the_same_however_many_are_looked_up_in_one_go() -> None:
    hashes = some_hashes(300, 4, seed=1, most_flipped=20)
    wanted = each_with_each(hashes, 20)
    assert len(wanted) > 100
    assert all(as_rows(near_pairs(hashes, 20, rows_at_once)) == wanted for rows_at_once in (1, 50, 299, 300, 301))
