"""A damaged index is an error that names it: it never ends a process by a signal, and never gives other pairs in silence."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.shards import ShardSet, ShardWriter
from multimodal.shards.index import index_tars

DATA = Path(__file__).resolve().parents[1] / "data" / "shards"


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, zeroed, cut off or added."""
    start, size = int(random.integers(len(content))), int(random.integers(1, 9))
    made = [
        content[:start] + random.bytes(size) + content[start + size :],
        content[:start] + bytes(size) + content[start + size :],
        content[:start],
        content + random.bytes(size),
    ]
    return made[int(random.integers(len(made)))]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "set", pairs_per_shard=2) as writer:
        for pair in runpy.run_path(str(DATA / "make_golden.py"))["golden_pairs"]():
            writer.write(pair)
    return tmp_path / "set"


def content_of(box: Path) -> list[tuple[object, ...]]:
    shards = ShardSet(box)
    return [(shards.pair(id), shards.groups[id], shards.splits[id], shards.key(id)) for id in range(len(shards))]


def test_a_damaged_index_is_named_and_made_again(made: Path) -> None:
    before, whole = content_of(made), (made / "index.arrow").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        changed = damaged(whole, random)
        (made / "index.arrow").write_bytes(changed)
        if changed == whole:
            continue
        with pytest.raises(InputError, match="index.arrow: the index is damaged or was replaced"):
            ShardSet(made)
    index_tars(made)
    assert content_of(made) == before


def test_a_damaged_index_of_an_older_release_never_leads_out_of_its_tars(tmp_path: Path) -> None:
    box = Path(shutil.copytree(DATA / "golden", tmp_path / "golden"))
    whole, random = (box / "index.arrow").read_bytes(), np.random.default_rng(1)
    num_refused = 0
    for _ in range(300):
        (box / "index.arrow").write_bytes(damaged(whole, random))
        try:
            content_of(box)
        except InputError:
            num_refused += 1
    assert num_refused > 100  # the others changed what is padding, or letters of a name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"num_pairs": "2", "size_bytes": 1, "fingerprint": "0"}, "num_pairs is '2'; expected int"),
        ({"num_pairs": 2, "fingerprint": "0"}, "size_bytes is missing"),
        ({"num_pairs": -2, "size_bytes": 1, "fingerprint": "0"}, "num_pairs is -2, which is below 0"),
        ([1], "parts.000000.tar is .1.; expected dict"),
    ],
)
def test_a_manifest_with_other_types_is_named(made: Path, value: object, message: str) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["parts"]["000000.tar"] = value
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        ShardSet(made)


def test_a_tar_outside_of_the_set_is_refused(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["parts"]["../000000.tar"] = manifest["parts"].pop("000000.tar")
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="may be outside this folder"):
        ShardSet(made)
