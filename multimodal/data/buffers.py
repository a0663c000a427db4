"""Shared memory that workers write rows into and the training process reads. A buffer is reused once nothing refers to its contents.

    buffers = Buffers(num=8, num_bytes=batch_size * reader.row_bytes)
    number = buffers.take()                             # a free buffer, to send to a worker; None if all are in use
    buffers.memory(number)[:] = ...                     # in the worker
    array = buffers.lend(number, reader.rows_in)        # here; free again when nothing holds the array or a tensor made of it

Fresh shared memory would be as quick to allocate but slow to write to: the kernel clears and maps each page at its first use, which took
0.8 of the time of decoding the pictures (at 224 pixels).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from multiprocessing.heap import Arena

import numpy as np


class Buffers:
    """`num` buffers of num_bytes each. Pickling keeps the memory shared; only the process that made it may take and lend buffers."""

    def __init__(self, num: int, num_bytes: int) -> None:
        # What multiprocessing's own arrays are allocated from. torch clears its shared tensors as a whole when it makes them.
        self._share(Arena(num * num_bytes), num)

    def _share(self, arena: Arena, num: int) -> None:
        self._arena, self._memory = arena, np.frombuffer(arena.buffer, np.uint8).reshape(num, -1)
        self._taken: set[int] = set()
        # A buffer may be released in another thread, or by the garbage collector at any moment: that is one atomic step, leaving this set.
        self._lent: set[int] = set()

    def __getstate__(self) -> tuple[Arena, int]:
        return self._arena, len(self._memory)

    def __setstate__(self, state: tuple[Arena, int]) -> None:
        self._share(*state)

    def memory(self, number: int) -> np.ndarray:
        """(num_bytes,) uint8."""
        return self._memory[number]

    def take(self) -> int | None:
        """The lowest free number, so that buffers that are never needed never use memory; None if all are in use."""
        number = next((one for one in range(len(self._memory)) if one not in self._taken and one not in self._lent), None)
        if number is not None:
            self._taken.add(number)
        return number

    def lend(self, number: int, view: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """view(memory). The buffer stays in use until the array is freed, and every tensor made from it, and every view of those."""
        array = view(self.memory(number))
        self._lent.add(number)
        self._taken.discard(number)
        weakref.finalize(array, self._lent.discard, number).atexit = False
        return array

    def reclaim(self) -> None:
        """Free the buffers that were taken but never lent: their steps were abandoned."""
        self._taken.clear()
