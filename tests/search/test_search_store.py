"""A store is searched by itself, changes in whole generations, and keeps what it was given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multimodal.boxes import read_manifest
from multimodal.errors import InputError
from multimodal.search.segments import METADATA_GROUP, Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.verify import problems_of


@pytest.fixture(scope="module")
def space_box(space_boxes) -> Path:
    """One family is enough here: what a store keeps does not depend on what its vectors mean."""
    return space_boxes["wordvec"]


def _state(path: Path) -> dict[int, tuple]:
    """Everything that a store says about each picture."""
    store = Store(path)
    records, thumbnails = store.records(store.ids, store.columns), store.thumbnails(store.ids)
    return {
        id: (row.tobytes(), tuple(sorted(record.items())), thumbnail)
        for id, row, record, thumbnail in zip(store.ids.tolist(), store.rows, records, thumbnails, strict=True)
    }


def _one(row: np.ndarray) -> Segment:
    return Segment(np.array([7]), row, {"name": ["a"], "text": ["b"]})


def test_an_empty_store_is_whole_and_has_nothing(empty_store):
    store = Store(empty_store)
    assert len(store) == 0 and store.rows.shape == (0, 8) and store.ids.dtype == np.int64
    assert store.records([]) == [] and store.columns == [] and store.column("name") == []
    assert (store.dim, store.family) == (8, "wordvec")


def test_rows_come_back_at_unit_length_and_metadata_as_given(empty_store, segment):
    given_ = segment([4, 2, 9], year=[1999, None, 2001], fine=[True, False, None], score=[0.5, 1.5, None])
    with StoreWriter(empty_store) as writer:
        writer.append(given_)
    store = Store(empty_store)
    assert store.ids.tolist() == [4, 2, 9]
    unit = given_.rows / np.linalg.norm(given_.rows, axis=1, keepdims=True)
    assert store.rows.dtype == np.float16
    np.testing.assert_allclose(store.rows, unit, atol=2**-11)  # half a float16 step below 1
    assert store.take([9, 4]).tolist() == [store.rows[2].tolist(), store.rows[0].tolist()]
    assert store.records([9, 2], ["name", "year", "fine", "score"]) == [
        {"name": "9.png", "year": 2001, "fine": None, "score": None},
        {"name": "2.png", "year": None, "fine": False, "score": 1.5},
    ]


def test_the_text_space_inside_is_the_one_that_was_given(empty_store, space_box):
    from multimodal.text import open_space

    texts = ["beach sunset", "zxqv", ""]
    np.testing.assert_array_equal(Store(empty_store).query_space.embed(texts), open_space(space_box).embed(texts))


def test_metadata_is_found_across_row_groups(empty_store, segment):
    count = METADATA_GROUP + 50
    with StoreWriter(empty_store) as writer:
        writer.append(segment(list(range(count)), thumbnails=True))
    ids = [count - 1, 0, METADATA_GROUP, METADATA_GROUP - 1, 7, 7]
    store = Store(empty_store)
    assert [record["name"] for record in store.records(ids)] == [f"{id}.png" for id in ids]
    assert store.thumbnails(ids) == [None if id % 3 == 0 else b"\x89PNG" + bytes([id % 251]) for id in ids]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sequence_of_changes_leaves_what_a_dictionary_would(data, tmp_path_factory, space_box, segment):
    path = tmp_path_factory.mktemp("any") / "store"
    create_store(path, space_box, family="wordvec", export="e" * 64)
    model: dict[int, int] = {}  # id -> the seed of its row
    with StoreWriter(path) as writer:
        for step in range(data.draw(st.integers(1, 6))):
            change = data.draw(st.sampled_from(["append", "append", "delete", "compact"]))
            if change == "append":
                ids = data.draw(st.lists(st.sampled_from(sorted(set(range(30)) - set(model))), unique=True, max_size=6))
                writer.append(segment(ids, seed=step, thumbnails=step % 2 == 0), made_from={f"shard{step}": str(step)})
                model |= dict.fromkeys(ids, step)
            elif change == "delete" and model:
                going = data.draw(st.lists(st.sampled_from(sorted(model)), unique=True))
                writer.delete(going)
                model = {id: seed for id, seed in model.items() if id not in going}
            elif change == "compact":
                before = _state(path)
                writer.compact()
                assert _state(path) == before
    store = Store(path)
    assert sorted(store.ids.tolist()) == sorted(model)
    assert store.manifest.counts["rows"] == len(model)
    for id, row in zip(store.ids.tolist(), store.rows, strict=True):
        wanted = segment([id], seed=model[id]).rows[0]
        np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), atol=2**-11)
    assert not list(problems_of(path))


def test_an_id_comes_back_after_it_was_deleted(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1, 2], seed=0))
        writer.delete([1])
        writer.append(segment([1], seed=7))
    store = Store(empty_store)
    assert store.ids.tolist() == [2, 1]
    wanted = segment([1], seed=7).rows[0]
    np.testing.assert_allclose(store.take([1])[0], wanted / np.linalg.norm(wanted), atol=2**-11)


def test_equal_jobs_make_equal_stores(tmp_path, space_box, segment):
    for name in ("one", "two"):
        create_store(tmp_path / name, space_box, family="wordvec", export="e" * 64)
        with StoreWriter(tmp_path / name) as writer:
            writer.append(segment([1, 2], thumbnails=True), made_from={"emoji/000000": "a"})
            writer.delete([1])
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


def test_what_segments_were_made_from_survives_compaction(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1]), made_from={"emoji/000000": "aa"})
        writer.append(segment([2]), made_from={"emoji/000001": "bb"})
        writer.compact()
    assert Store(empty_store).sources == {"emoji/000000": "aa", "emoji/000001": "bb"}


def test_a_reader_keeps_its_generation_while_the_store_changes(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1, 2], thumbnails=True))
        reader = Store(empty_store)
        writer.compact()
        assert reader.ids.tolist() == [1, 2] and not reader.is_current()
        assert reader.rows.shape == (2, 8) and reader.thumbnails([2]) == [b"\x89PNG\x02"]
        writer.delete([1])
        with pytest.raises(InputError, match="Open it again"):
            reader.records([1])
    assert Store(empty_store).ids.tolist() == [2]


def test_what_no_generation_names_is_removed(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        for number in range(4):
            writer.append(segment([number]))
        writer.delete([0])
        writer.compact()
        writer.append(segment([9]))
    assert sorted(path.name for path in (empty_store / "segments").iterdir()) == ["000004", "000005"]
    assert list((empty_store / "tombstones").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda writer, make: writer.append(make([1, 5])), "in it already: 1$"),
        (lambda writer, make: writer.append(make([7, 7])), "come twice: 7"),
        (
            lambda writer, make: writer.append(_one(np.ones((1, 5)))),
            "5 dimensions.* has 8",
        ),
        (
            lambda writer, make: writer.append(_one(np.zeros((1, 8)))),
            "zero or not finite.*7",
        ),
        (lambda writer, make: writer.append(_one(np.full((1, 8), np.nan))), "finite.*7"),
        (lambda writer, make: writer.append(Segment(np.array([7]), np.ones((1, 8)), {"name": ["a"]})), "metadata without text"),
        (lambda writer, make: writer.append(make([7], set=["a", "b"])), "1 ids and 2 values of set"),
        (lambda writer, make: writer.append(make([7], tags=[["a"]])), "column tags.*scalars"),
        (lambda writer, make: writer.append(make([7, 8], year=[1, "b"])), "column year"),
        (lambda writer, make: writer.append(make([7], set=[3])), "set is int64 here and string in segments/000000"),
        (lambda writer, make: writer.delete([1, 99]), "no picture with id 99"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_leaves_the_store_as_it_was(empty_store, segment, change, problem):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1, 2], set=["x", "y"]))
    before, manifest = _state(empty_store), (empty_store / "manifest.json").read_bytes()
    with StoreWriter(empty_store) as writer, pytest.raises(InputError, match=problem):
        change(writer, segment)
    assert _state(empty_store) == before
    assert (empty_store / "manifest.json").read_bytes() == manifest
    assert [path.name for path in (empty_store / "segments").iterdir()] == ["000000"]


def test_a_filter_names_the_ids_whose_metadata_fits(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1, 2, 3], set=["noto", "emoji", "noto"], year=[1, 1, 2]))
        writer.append(segment([4]))  # has no `set` at all
    store = Store(empty_store)
    assert store.select({"set": "noto"}).tolist() == [1, 3]
    assert store.select({"set": "noto", "year": (2, 3)}).tolist() == [3]
    assert store.select({"set": None}).tolist() == store.select("set is missing").tolist() == [4]
    assert store.select({"set": ["noto", None], "name": '3"'}).tolist() == store.select({"set": []}).tolist() == []
    assert store.select(["set = noto", "year >= 2"]).tolist() == store.select("set = noto and year >= 2").tolist() == [3]
    assert store.select({}).tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match="there is no column colour"):
        store.select({"colour": "red"})


def test_an_id_that_is_not_there_is_named(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1, 2]))
    with pytest.raises(InputError, match="no picture with id 3, 77; it has 2"):
        Store(empty_store).take([1, 3, 77])


def test_making_the_same_store_again_keeps_it_and_another_is_refused(empty_store, space_box, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1]))
    create_store(empty_store, space_box, family="wordvec", export="e" * 64)
    assert Store(empty_store).ids.tolist() == [1]
    with pytest.raises(InputError, match="export was e{12}.. and is f{12}.. now. Choose another --output, or delete"):
        create_store(empty_store, space_box, family="wordvec", export="f" * 64)


def test_two_writers_at_once_are_refused(empty_store):
    with StoreWriter(empty_store), pytest.raises(InputError, match="another process is writing"), StoreWriter(empty_store):
        pass
    with StoreWriter(empty_store):
        pass


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a store"):
        Store(tmp_path)


def test_a_segment_that_went_missing_is_named(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1]))
    (empty_store / "segments/000000/ids.npy").unlink()
    with pytest.raises(InputError, match="segments/000000/ids.npy is named in the manifest but does not exist"):
        Store(empty_store)


def test_a_flipped_byte_is_found(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1]))
    rows = empty_store / "segments/000000/rows.npy"
    content = bytearray(rows.read_bytes())
    content[-1] ^= 1
    rows.write_bytes(bytes(content))
    assert [(problem.where, problem.reason) for problem in problems_of(empty_store)] == [
        ("segments/000000", "its files are not those that were written")
    ]


@pytest.mark.parametrize("change", ["append", "compact"])
def test_a_new_segment_is_never_written_through_a_link(empty_store, segment, tmp_path, change):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1]))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "rows.npy").write_bytes(b"work")
    (empty_store / "segments/000001").symlink_to(theirs)
    with StoreWriter(empty_store) as writer, pytest.raises(InputError, match="segments/000001: is a link to .*theirs"):
        writer.append(segment([2])) if change == "append" else writer.compact()
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == {"rows.npy": b"work"}
    (empty_store / "segments/000001").unlink()
    (empty_store / "segments/000007").symlink_to(theirs)
    with StoreWriter(empty_store) as writer:
        writer.append(segment([2]))
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == {"rows.npy": b"work"}
    assert Store(empty_store).ids.tolist() == [1, 2]


KILLED_MID_APPEND = """
import sys, numpy as np
from multimodal.search import writing as module
from multimodal.search.segments import Segment
real = module.write_manifest
def tell_and_wait(*arguments):  # everything of the segment is on disk, the manifest is not
    print("written", flush=True)
    sys.stdin.read()
module.write_manifest = tell_and_wait
with module.StoreWriter(sys.argv[1]) as writer:
    writer.append(Segment(np.array([50]), np.ones((1, 8)), {"name": ["a"], "text": ["b"]}))
"""


def test_a_writer_killed_mid_append_leaves_the_earlier_generation_and_no_lock(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1, 2]))
    before = _state(empty_store)
    process = subprocess.Popen([sys.executable, "-c", KILLED_MID_APPEND, str(empty_store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"written\n"
    assert (empty_store / "segments/000001").is_dir()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert _state(empty_store) == before
    with StoreWriter(empty_store) as writer:
        writer.append(segment([3]))
    assert sorted(_state(empty_store)) == [1, 2, 3]
    assert read_manifest(empty_store, kind="store").counts["rows"] == 3


READER = """
import sys
from multimodal.search.store import Store
print("open", flush=True)
seen = set()
while not seen or max(seen) < 30:
    store = Store(sys.argv[1])
    ids = store.ids.tolist()
    assert ids == list(range(len(ids))), ids  # each generation holds 0..n-1, none is seen half
    assert len(store.rows) == len(store.records(ids)) == len(ids)
    seen.add(len(ids))
print("read", flush=True)
"""


def test_a_reader_beside_a_writer_sees_whole_generations_only(empty_store, segment):
    process = subprocess.Popen([sys.executable, "-c", READER, str(empty_store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"open\n"
    with StoreWriter(empty_store) as writer:
        for id in range(30):
            writer.append(segment([id]))
            time.sleep(0.005)  # lets the reader in between; what it sees is whole with or without
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and out == b"read\n", err.decode()


def test_a_full_disk_leaves_the_earlier_generation(empty_store, segment):
    with StoreWriter(empty_store) as writer:
        writer.append(segment([1]))
    before = _state(empty_store)
    code = f"""
import resource, signal, numpy as np
from multimodal.search.segments import Segment
from multimodal.search.writing import StoreWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no file may grow past 4 kB: what a full disk does to a write
with StoreWriter({str(empty_store)!r}) as writer:
    writer.append(Segment(np.arange(10, 1010), np.ones((1000, 8)), {{"name": ["a"] * 1000, "text": ["b"] * 1000}}))
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # Python itself leaves a .pyc that is cut at the limit, and then reads it
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "OSError" in done.stderr
    assert _state(empty_store) == before
    assert [path.name for path in (empty_store / "segments").iterdir()] == ["000000"]


@pytest.mark.parametrize("dim", [0, 10**12, 10**30])
def test_a_dimension_that_no_store_has_is_an_error_before_memory_is_taken(empty_store, dim):
    manifest = json.loads((empty_store / "manifest.json").read_text())
    manifest["config"]["dim"] = dim
    (empty_store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"config.dim is {dim}; expected 1 to 1,000,000"):
        Store(empty_store)
