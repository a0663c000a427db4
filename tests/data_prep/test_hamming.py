from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import hamming
from data_prep.hamming import Band, choose_bands, near_pairs


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


def as_rows(hashes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    found = near_pairs(hashes, radius)
    return list(zip(found.first.tolist(), found.second.tolist(), found.distance.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(num=st.integers(0, 60), num_words=st.sampled_from([1, 4]), radius=st.integers(0, 40), seed=st.integers(0, 99))
def test_the_pairs_are_those_of_comparing_each_with_each(num: int, num_words: int, radius: int, seed: int) -> None:
    hashes = some_hashes(num, num_words, seed, most_flipped=30)
    assert as_rows(hashes, radius) == each_with_each(hashes, radius)


@pytest.mark.parametrize(("num_words", "radius"), [(1, 0), (1, 5), (1, 12), (4, 3), (4, 20)])
def test_however_many_bands_there_are_no_pair_is_missed_or_told_twice(monkeypatch: pytest.MonkeyPatch, num_words: int, radius: int) -> None:
    hashes = some_hashes(120, num_words, seed=1, most_flipped=20)
    wanted = each_with_each(hashes, radius)
    assert wanted
    for num_bands in {-(-64 * num_words // 12), 7 * num_words, 11 * num_words, 64}:
        bands = hamming._cut(64 * num_words, radius, num_bands)
        if sum(band.num_masks for band in bands) < 10_000:
            monkeypatch.setattr(hamming, "choose_bands", lambda *_, bands=bands: bands)
            assert as_rows(hashes, radius) == wanted


def test_pairs_are_the_same_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = some_hashes(100, 1, seed=2, most_flipped=8)
    wanted = as_rows(hashes, 8)
    monkeypatch.setattr(hamming, "AT_ONCE", 7)
    assert as_rows(hashes, 8) == wanted


def test_few_hashes_are_compared_each_with_each_and_many_are_not() -> None:
    assert choose_bands(100, 256, 48) == [Band(0, 0, 0)]
    many = choose_bands(1_000_000, 256, 32)
    asked = sum(band.num_masks * 1_000_000 * (1 + 1_000_000 / 2 ** (band.stop - band.start)) for band in many)
    assert asked < 1e12 / 50
