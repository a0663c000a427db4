"""Which pairs a shard takes: those whose picture decodes, whose name is new and whose texts can be stored.

for pair in sound(source(input=path, ledger=ledger), "photos", ledger): ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from data_prep.pictures import BadPicture, checked
from multimodal.cores import usable_cores
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger
from multimodal.shards.table import string_digest
from multimodal.shards.writer import encode_members

DECODE_AHEAD = 64  # pictures on their way through the decoder; bounds the memory, not the speed


def sound(
    pairs: Iterable[Pair], where: str, ledger: Ledger, prepare: Callable[[Pair], Pair] = checked, num_threads: int | None = None
) -> Iterator[Pair]:
    """The pairs that a shard can take, in their order; the others go to the ledger, with the reason.

    prepare: what is done to each; BadPicture where it cannot be, because the picture does not decode.
    num_threads: how many decode; by default as many as there are cores, since Pillow lets go of the interpreter while it decodes.
    """
    seen: set[bytes] = set()
    with ThreadPoolExecutor(num_threads or len(usable_cores())) as threads:
        waiting: deque[tuple[Pair, Future[Pair]]] = deque()

        def finished() -> Iterator[Pair]:
            pair, prepared = waiting.popleft()
            try:
                ready = prepared.result()
            except (BadPicture, InputError) as error:
                ledger.bad(where, pair.name, str(error))
            else:
                yield ready

        for pair in pairs:
            digest = string_digest(pair.name)  # of a million names some 60 MB in a set
            if digest in seen:
                ledger.bad(where, pair.name, "a pair of this name came before")
                continue
            seen.add(digest)
            waiting.append((pair, threads.submit(_ready, pair, prepare)))
            if len(waiting) >= DECODE_AHEAD:
                yield from finished()
        while waiting:
            yield from finished()


def _ready(pair: Pair, prepare: Callable[[Pair], Pair]) -> Pair:
    pair = prepare(pair)
    encode_members(pair)
    return pair
