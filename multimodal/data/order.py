"""The order of an epoch, and every random choice in it, as arithmetic: no shuffled list is stored, no generator has a state.

    order = Order(seed=0, num=31_014)
    order.ids(epoch=3, start=512, stop=768)                  # the ids at 256 positions of epoch 3, the same everywhere, in constant memory
    random_words(seed=0, epoch=3, ids=np.arange(10))         # 64 random bits for each of ten pairs

So any rank, worker or resumed run computes just what it needs. Golden files pin the numbers: changing them changes every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 6
"""Rounds of the Feistel network. Four make a good pseudo-random permutation (Luby and Rackoff, 1988); two more cost little and help at tiny
sizes.
"""
MIN_HALF_BITS = 3
"""With fewer the network reaches few permutations and the orders of 4 or 5 ids are not equally likely (chi square 1402 of 119 degrees; 109
with 3).
"""
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Order:
    """A permutation of the ids 0 .. num-1 for each epoch, as a function of (seed, epoch, position)."""

    seed: int
    num: int

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ValueError(f"Order: num={self.num} must not be negative")

    def ids(self, epoch: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """The ids at every step-th position of start .. stop-1 of an epoch, int64; positions beyond the end are an error.

        A Feistel network permutes the numbers of 2h bits, the fewest that hold num. A result of num or more goes through the network again
        until it is below num ("cycle walking"; Black and Rogaway, 2002), which keeps the map a permutation. As 4**h < 4 * num, that takes
        fewer than four passes on average.
        """
        positions = positions_within(self.num, start, stop, step)
        if self.num < 2:
            return positions
        return permuted(positions, np.array(self.num), words_from(epoch_key(self.seed, epoch), ROUNDS)[:, None])


def positions_within(num: int, start: int, stop: int, step: int) -> np.ndarray:
    """start, start + step, .. below stop, int64; ValueError unless they are positions of an order of num ids."""
    if not 0 <= start <= stop <= num or step < 1:
        raise ValueError(f"order: positions {start} to {stop} by {step} are not within 0 to {num}")
    return np.arange(start, stop, step, dtype=np.int64)


def permuted(values: np.ndarray, nums: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Each value (n,) under the permutation of 0 .. num-1 that its keys select; see `Order.ids`.

    nums (n,) or (): each above its value, and below 2**53. keys (ROUNDS, n) or (ROUNDS, 1) uint64.
    """
    nums, keys = np.broadcast_to(nums, values.shape), np.broadcast_to(keys, (ROUNDS, len(values)))
    num_bits = np.frexp((nums - 1).astype(np.float64))[1]
    half_bits = np.maximum(MIN_HALF_BITS, (num_bits + 1) // 2).astype(np.uint64)
    results = _feistel(values.astype(np.uint64), half_bits, keys)
    beyond = np.flatnonzero(results >= nums.astype(np.uint64))
    while len(beyond):
        results[beyond] = _feistel(results[beyond], half_bits[beyond], keys[:, beyond])
        beyond = beyond[results[beyond] >= nums[beyond].astype(np.uint64)]
    return results.astype(np.int64)


def random_words(seed: int, epoch: int | np.ndarray, ids: np.ndarray, purpose: int = 0) -> np.ndarray:
    """64 random bits for each id in an epoch: ids (n,) int -> (n,) uint64, each a function of (seed, epoch, id, purpose) alone.

    For the random choices about a sample: its crop, its caption. Choices that must be independent have different purposes. `word_from` and
    `uniform` draw several numbers from one word. epoch: one for all ids, or (n,) int64, one for each.
    """
    keys = epoch_keys(seed, epoch) if isinstance(epoch, np.ndarray) else epoch_key(seed, epoch)
    return _mix(_mix(np.asarray(ids).astype(np.uint64) * _GAMMA + keys) + np.array([purpose + 1], dtype=np.uint64) * _GAMMA)


def uniform(word: int | np.uint64, number: int) -> float:
    """The number-th (from 0) of the uniform numbers in [0, 1) that one word generates."""
    return (word_from(word, number) >> 11) * 2.0**-53


def word_from(word: int | np.uint64, number: int) -> int:
    """`words_from(word, number + 1)[number]` in Python integers: for a few words of one picture an array takes ten times as long."""
    value = (int(word) + (number + 1) * int(_GAMMA)) & _MASK
    value = ((value ^ (value >> 30)) * int(_FIRST)) & _MASK
    value = ((value ^ (value >> 27)) * int(_SECOND)) & _MASK
    return value ^ (value >> 31)


def words_from(word: int | np.uint64, num: int) -> np.ndarray:
    """(num,) uint64, the words that one word generates: the first outputs of SplitMix64 (Steele, Lea and Flood, 2014) seeded with it."""
    return _mix(np.arange(1, num + 1, dtype=np.uint64) * _GAMMA + np.uint64(word))


def round_keys(seed: int, epoch: int, parts: np.ndarray) -> np.ndarray:
    """(ROUNDS, n) uint64, the keys with which `permuted` gives each part (n,) of an epoch its own permutation."""
    keys = epoch_keys(int(epoch_key(seed, epoch)), parts)
    return _mix(np.arange(1, ROUNDS + 1, dtype=np.uint64)[:, None] * _GAMMA + keys)


def _feistel(values: np.ndarray, half_bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right * _GAMMA + key) & mask)
    return (left << half_bits) | right


def epoch_key(seed: int, epoch: int) -> np.uint64:
    """One word from (seed, epoch), any ints; (0, 1) and (1, 0) give unrelated words."""
    return epoch_keys(seed, np.array([epoch % 2**64], np.uint64))[0]


def epoch_keys(seed: int, epochs: np.ndarray) -> np.ndarray:
    """`epoch_key` of each of epochs (n,) -> (n,) uint64."""
    return _mix(_mix(np.array([seed % 2**64], np.uint64) + _GAMMA) ^ (epochs.astype(np.uint64) * _GAMMA + np.uint64(1)))


def _mix(words: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of 64 bits in which every input bit flips about half of the output bits. (n,) uint64 -> (n,)
    uint64.
    """
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
