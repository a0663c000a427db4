"""A list of pairs to exclude from training, by key, such as near duplicates of held-out pairs. A file that people can read and write.

    write_leave_out(Path("leave_out.json"), shards, ids, "near duplicates of held-out pictures")
    read_leave_out(Path("leave_out.json"), shards)                # the ids, for `data.leave_out` of a run

    {"kind": "leave-out", "reason": "...", "shards": {"000002": {"fingerprint": "3f9c...", "keys": ["000002007", "000002031"]}}}

A key may mean another pair after its shard is made again, so the list has each shard's fingerprint; added shards change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.shards.reader import ShardSet

KIND = "leave-out"


def write_leave_out(path: Path, shards: ShardSet, ids: Iterable[int], reason: str) -> None:
    """Write the keys of these pairs, shard by shard; the same ids in any order make the same file."""
    keys: dict[str, list[str]] = {}
    for id in sorted(set(map(int, ids))):
        keys.setdefault(shards.shard_of(id).name, []).append(shards.key(id))
    listed = {name: {"fingerprint": shards.fingerprints[name], "keys": of_shard} for name, of_shard in keys.items()}
    with atomic_write(path) as file:
        file.write((json.dumps({"kind": KIND, "reason": reason, "shards": listed}, indent=1, ensure_ascii=False) + "\n").encode())


def read_leave_out(path: Path, shards: ShardSet) -> np.ndarray:
    """(n,) int64 ids of the pairs listed, ascending. InputError: no such list, one for other shards, or a key that is not in its shard."""
    by_name = {shard.name: shard for shard in shards.shards}
    ids: list[int] = []
    for name, listed in _listed(path).items():
        shard = by_name.get(name)
        if shard is None:
            raise InputError(f"{path}: lists pairs of shard {name}, which {shards.place} does not have. It was made for another set")
        if listed["fingerprint"] != shard.fingerprint:
            raise InputError(
                f"{path}: shard {name} was {listed['fingerprint'][:8]}.. when it was written and is {shard.fingerprint[:8]}.. now in "
                f"{shards.place}. Make the list again: data-prep dedup"
            )
        id_of = {shards.key(id): id for id in shard.ids}
        unknown = [key for key in listed["keys"] if key not in id_of]
        if unknown:
            raise InputError(f"{path}: no pair of shard {name} has the key {unknown[0]!r}; its keys go from {min(id_of)} to {max(id_of)}")
        ids += [id_of[key] for key in listed["keys"]]
    return np.unique(np.array(ids, np.int64))


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """Shard -> its fingerprint and keys."""
    try:
        told = json.loads(path.read_bytes())
        if told["kind"] == KIND and all(isinstance(one["fingerprint"], str) and _is_keys(one["keys"]) for one in told["shards"].values()):
            return told["shards"]
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist. Lists of pairs to leave out are made by: data-prep dedup") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise InputError(
        f'{path}: is not a list of pairs to leave out. Expected: {{"kind": "{KIND}", "shards": {{NAME: {{"fingerprint", "keys"}}}}}}'
    )


def _is_keys(keys: Any) -> bool:
    return isinstance(keys, list) and all(isinstance(key, str) for key in keys)
