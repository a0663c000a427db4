"""Memory that workers write rows into and the training process reads, used again as soon as nobody holds what lies in it.

    buffers = Buffers(num=8, num_bytes=batch_size * reader.row_bytes)
    number = buffers.take()                             # a free one, to be sent to a worker; None where all are in use
    buffers.memory(number)[:] = ...                     # in the worker
    array = buffers.lend(number, reader.rows_in)        # here; free again when nothing holds the array or a tensor made of it

Fresh shared memory would be as quick to allocate, and slow to write to: each of its pages is cleared and mapped by the kernel at the first
touch, which took as long as decoding the pictures (0.8 of it at 224 pixels).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from multiprocessing.heap import Arena

import numpy as np


class Buffers:
    """num of them, num_bytes each. Pickles as its memory, which stays shared; taking and lending is for the process that made it."""

    def __init__(self, num: int, num_bytes: int) -> None:
        # What multiprocessing's own arrays lie in. torch's shared tensors are cleared as a whole when they are made.
        self._share(Arena(num * num_bytes), num)

    def _share(self, arena: Arena, num: int) -> None:
        self._arena, self._memory = arena, np.frombuffer(arena.buffer, np.uint8).reshape(num, -1)
        self._taken: set[int] = set()
        # What is let go of in another thread, or by the garbage collector in the middle of a line here, is one step: it leaves this set.
        self._lent: set[int] = set()

    def __getstate__(self) -> tuple[Arena, int]:
        return self._arena, len(self._memory)

    def __setstate__(self, state: tuple[Arena, int]) -> None:
        self._share(*state)

    def memory(self, number: int) -> np.ndarray:
        """(num_bytes,) uint8."""
        return self._memory[number]

    def take(self) -> int | None:
        """The number of a free one, the lowest: those that are never needed never become memory."""
        number = next((one for one in range(len(self._memory)) if one not in self._taken and one not in self._lent), None)
        if number is not None:
            self._taken.add(number)
        return number

    def lend(self, number: int, view: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """view(memory), until whose end the buffer is in use. A tensor made of it, and any view of that tensor, hold it too."""
        array = view(self.memory(number))
        self._lent.add(number)
        self._taken.discard(number)
        weakref.finalize(array, self._lent.discard, number).atexit = False
        return array

    def reclaim(self) -> None:
        """Those that were taken and never lent are free again: their step was given up."""
        self._taken.clear()
