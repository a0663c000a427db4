"""Valid pairs: those whose picture decodes, whose name is new, and whose texts can be stored.

for pair in valid_pairs(source(input=path, ledger=ledger), "photos", ledger): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from data_prep.pictures.formats import BadPicture, checked
from multimodal.errors import InputError
from multimodal.machine.cores import map_in_threads
from multimodal.pairs import Pair
from multimodal.shards import Ledger
from multimodal.shards.table import string_digest
from multimodal.shards.writer import encode_members


def valid_pairs(
    pairs: Iterable[Pair], where: str, ledger: Ledger, prepare: Callable[[Pair], Pair] = checked, num_threads: int | None = None
) -> Iterator[Pair]:
    """The pairs that a shard can store, in their order; the others go to the ledger, with the reason.

    prepare: applied to each pair; raises BadPicture if the picture does not decode.
    num_threads: threads that decode; by default one per core, since Pillow releases the interpreter lock while it decodes.
    """
    seen: set[bytes] = set()

    def new() -> Iterator[Pair]:
        for pair in pairs:
            digest = string_digest(pair.name)  # a set of a million takes some 60 MB
            if digest in seen:
                ledger.bad(where, pair.name, "a pair of this name came before")
            else:
                seen.add(digest)
                yield pair

    for prepared in map_in_threads(partial(_ready, prepare=prepare), new(), num_threads):
        if isinstance(prepared, _Unfit):
            ledger.bad(where, prepared.name, prepared.reason)
        else:
            yield prepared


class _Unfit(NamedTuple):
    """A pair that a shard cannot store."""

    name: str
    reason: str


def _ready(pair: Pair, prepare: Callable[[Pair], Pair]) -> Pair | _Unfit:
    try:
        prepared = prepare(pair)
        encode_members(prepared)
    except (BadPicture, InputError) as error:
        return _Unfit(pair.name, str(error))
    return prepared
