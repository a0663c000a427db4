"""All pairs of hashes that differ in few bits, without comparing each with each.

    found = near_pairs(hashes, radius=48)        # hashes (n, w) uint64
    found.first, found.second, found.distance    # (p,) each; first < second, every pair once

Norouzi, Punjani and Fleet (2012), "Fast search in Hamming space with multi-index hashing": the bits are cut into m bands. Of two hashes
that differ in at most r = q m + a bits, one of the first a + 1 bands differs in at most q, or one of the others in at most q - 1: else they
would differ in (a + 1)(q + 1) + (m - a - 1) q = r + 1. So each band is a table, which is asked for the hashes whose band differs in so few
bits, and those are compared as wholes. Nothing within the radius is missed. How many bands are best depends on n; for few it is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

WORD_BITS = 64
MAX_BAND_BITS = 20  # a table of a million starts
AT_ONCE = 1 << 20  # pairs that are compared in one go: some 100 MB
LOOKUP_COST = 20  # of asking a table for one hash, where comparing two costs 1; measured at n = 10,000 to 200,000


@dataclass(frozen=True, slots=True)
class NearPairs:
    """first, second (p,) int64, rows of the hashes, first < second, ascending; distance (p,) int64 in bits."""

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True, slots=True)
class Band:
    """Bits start .. stop-1, in which two hashes may differ by `radius`. No bits: any two may."""

    start: int
    stop: int
    radius: int

    @property
    def masks(self) -> Iterator[int]:
        """Every way to differ in this band."""
        for num in range(self.radius + 1):
            for bits in combinations(range(self.stop - self.start), num):
                yield sum(1 << bit for bit in bits)

    @property
    def num_masks(self) -> int:
        return sum(comb(self.stop - self.start, num) for num in range(self.radius + 1))


def near_pairs(hashes: np.ndarray, radius: int) -> NearPairs:
    """Every pair of rows of hashes (n, w) uint64 that differ in at most `radius` bits. Memory is bounded, but for the pairs found."""
    bands = choose_bands(len(hashes), WORD_BITS * hashes.shape[1], radius)
    values = [_band_values(hashes, band) for band in bands]
    found = [np.empty((0, 3), np.int64)]
    for number, band in enumerate(bands):
        order = np.argsort(values[number], kind="stable")
        starts = np.searchsorted(values[number][order], np.arange((1 << (band.stop - band.start)) + 1))
        for mask in band.masks:
            asked = values[number] ^ mask
            for first, second in _candidates(starts[asked], starts[asked + 1], order):
                distance = np.bitwise_count(hashes[first] ^ hashes[second]).sum(axis=1, dtype=np.int64)
                near = distance <= radius
                first, second, distance = first[near], second[near], distance[near]
                for earlier, other in zip(bands[:number], values[:number], strict=True):  # it was found there already
                    new = np.bitwise_count(other[first] ^ other[second]) > earlier.radius
                    first, second, distance = first[new], second[new], distance[new]
                found.append(np.stack([first, second, distance], axis=1))
    rows = np.concatenate(found)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    return NearPairs(rows[:, 0], rows[:, 1], rows[:, 2])


def choose_bands(num: int, num_bits: int, radius: int) -> list[Band]:
    """The bands that cost least for `num` hashes that are spread evenly; one of no bits, which compares each with each, for few hashes."""
    fewest = -(-num_bits // MAX_BAND_BITS)
    choices = [_cut(num_bits, radius, num_bands) for num_bands in range(fewest, max(fewest, min(num_bits, radius + 1)) + 1)]

    def cost(bands: list[Band]) -> float:
        return sum(band.num_masks * num * (LOOKUP_COST + num / 2 ** (band.stop - band.start)) for band in bands)

    return min([[Band(0, 0, 0)], *choices], key=cost)


def _cut(num_bits: int, radius: int, num_bands: int) -> list[Band]:
    edges = [num_bits * number // num_bands for number in range(num_bands + 1)]
    least, more = divmod(radius, num_bands)
    radii = [least if number <= more else least - 1 for number in range(num_bands)]
    return [Band(edges[number], edges[number + 1], radii[number]) for number in range(num_bands) if radii[number] >= 0]


def _band_values(hashes: np.ndarray, band: Band) -> np.ndarray:
    """(n,) int64: the bits of a band as a number, which may lie in two words."""
    values = np.zeros(len(hashes), np.int64)
    for bit in range(band.start, band.stop):
        one = (hashes[:, bit // WORD_BITS] >> np.uint64(bit % WORD_BITS)) & np.uint64(1)
        values |= one.astype(np.int64) << (bit - band.start)
    return values


def _candidates(begin: np.ndarray, end: np.ndarray, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(first, second): each row i with the rows order[begin[i]:end[i]] after it, some at a time."""
    counts = end - begin
    asking = np.flatnonzero(counts)
    counts, begin = counts[asking], begin[asking]
    totals = np.cumsum(counts)
    start = 0
    while start < len(asking):
        before = totals[start] - counts[start]
        stop = max(int(np.searchsorted(totals, before + AT_ONCE, side="right")), start + 1)
        some = counts[start:stop]
        first = np.repeat(asking[start:stop], some)
        within = np.arange(len(first)) - np.repeat(totals[start:stop] - some - before, some)
        second = order[np.repeat(begin[start:stop], some) + within]
        later = first < second
        yield first[later], second[later]
        start = stop
