from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Column, ColumnWriter, ShardSet, ShardWriter, column_names, columns, finish, write_shard
from multimodal.shards.index import index_tars
from multimodal.shards.recent import Recent
from multimodal.shards.verify import find_problems

NUM_PAIRS = 11


def pair(number: int) -> Pair:
    return Pair(f"{number}", b"\xff\xd8\xff", "jpg", tuple(f"{number} {text}" for text in range(1 + number % 3)), f"{number}")


def make_set(path: Path, num_pairs: int = NUM_PAIRS) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=3) as writer:
        for number in range(num_pairs):
            writer.write(pair(number))
    return ShardSet(path)


def rows_of(shards: ShardSet, id: int, unit: str) -> np.ndarray:
    """What a column of these tests holds for a pair: (id, number of the text)."""
    return np.array([[id, text] for text in range(len(shards.texts(id)) if unit == "text" else 1)], np.float32)


def writer_of(shards: ShardSet, name: str = "made", unit: str = "text", **changes: object) -> ColumnWriter:
    settings = {"dim": 2, "dtype": "float32", "config": {"pooling": "mean"}, "made_from": {"text-space": "3f9c"}} | changes
    return ColumnWriter(shards, name, unit=unit, **settings)


def fill(writer: ColumnWriter, limit: int | None = None) -> list[str]:
    """Write the missing shards, at most `limit`, and tell which."""
    missing = writer.missing()[:limit]
    for shard in missing:
        rows = [rows_of(writer.shards, id, writer.unit) for id in shard.ids]
        writer.write(shard, np.concatenate(rows), np.array([len(row) for row in rows]) if writer.unit == "text" else None)
    return [shard.name for shard in missing]


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return make_set(tmp_path / "set")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Column]:
    shards = make_set(tmp_path_factory.mktemp("made") / "set")
    for unit in ("pair", "text"):
        with writer_of(shards, unit, unit) as writer:
            fill(writer)
    return {unit: Column.of(shards, unit) for unit in ("pair", "text")}


@settings(max_examples=50, deadline=None)
@given(data=st.data(), unit=st.sampled_from(["pair", "text"]), chosen=st.booleans())
def test_take_is_the_loop_over_rows(made: dict[str, Column], data: st.DataObject, unit: str, chosen: bool) -> None:
    ids = data.draw(st.lists(st.integers(0, NUM_PAIRS - 1), max_size=20))
    words = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(ids), max_size=len(ids))) if chosen else [0] * len(ids)
    expected = []
    for id, word in zip(ids, words, strict=True):
        rows = made[unit].rows(id)
        expected.append(rows[word % len(rows)])
    taken = made[unit].take(np.array(ids, np.int64), np.array(words, np.uint64) if chosen else None)
    assert taken.dtype == np.float32
    assert taken.shape == (len(ids), 2)
    assert taken.tolist() == [row.tolist() for row in expected]


@pytest.mark.parametrize(("unit", "num_rows"), [("pair", 11), ("text", 21)])
def test_rows_are_those_that_were_written(made: dict[str, Column], unit: str, num_rows: int) -> None:
    column = made[unit]
    assert (column.unit, column.dim, column.name, column.num_rows, len(column)) == (unit, 2, unit, num_rows, NUM_PAIRS)
    for id in range(NUM_PAIRS):
        texts = 1 + id % 3 if unit == "text" else 1
        assert column.rows(id).tolist() == [[id, text] for text in range(texts)]


@pytest.mark.parametrize("ids", [[-1], [0, NUM_PAIRS]])
def test_ids_outside_are_an_index_error(made: dict[str, Column], ids: list[int]) -> None:
    with pytest.raises(IndexError, match="are outside 0..10"):
        made["pair"].take(np.array(ids))


def test_a_column_pickles_as_its_path(made: dict[str, Column]) -> None:
    made["text"].take(np.arange(NUM_PAIRS))
    packed = pickle.dumps(made["text"])
    assert len(packed) < 1000
    assert pickle.loads(packed).rows(5).tolist() == made["text"].rows(5).tolist()


def test_many_shards_do_not_mean_many_open_maps(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_OPEN_MAPS", 2)
    with writer_of(shards) as writer:
        fill(writer)
    column = Column.of(shards, "made")
    assert column.take(np.arange(NUM_PAIRS))[:, 0].tolist() == list(range(NUM_PAIRS))
    assert len(column._maps) == 2


def test_float16_rows_come_back_as_float32_and_nan_is_kept(shards: ShardSet) -> None:
    with writer_of(shards, unit="pair", dtype="float16") as writer:
        for shard in writer.missing():
            writer.write(shard, np.full((shard.num_pairs, 2), [np.nan, 1 / 3]))
    column = Column.of(shards, "made")
    assert column.rows(0).dtype == np.float16
    taken = column.take(np.array([4]))
    assert taken.dtype == np.float32 and np.isnan(taken[0, 0]) and taken[0, 1] == np.float32(np.float16(1 / 3))


def test_a_pair_may_have_as_many_rows_as_views_of_its_picture(shards: ShardSet) -> None:
    num_views = np.array([1 + (id * 7) % 4 for id in range(NUM_PAIRS)])
    expected = [np.array([[id, view] for view in range(num_views[id])], np.float32) for id in range(NUM_PAIRS)]
    with writer_of(shards, unit="view") as writer:
        for shard in writer.missing():
            with pytest.raises(ValueError, match="at least 1"):
                writer.write(shard, np.zeros((0, 2)), np.zeros(shard.num_pairs, int))
            writer.write(shard, np.concatenate([expected[id] for id in shard.ids]), num_views[list(shard.ids)])
    column = Column.of(shards, "made")
    assert column.unit == "view" and column.num_rows == num_views.sum()
    assert all(np.array_equal(column.rows(id), expected[id]) for id in range(NUM_PAIRS))
    choice = np.arange(NUM_PAIRS, dtype=np.uint64) + np.uint64(2**63)
    assert column.take(np.arange(NUM_PAIRS), choice).tolist() == [
        rows[int(word) % len(rows)].tolist() for rows, word in zip(expected, choice, strict=True)
    ]


def test_values_beyond_float16_are_refused(shards: ShardSet) -> None:
    with pytest.raises(InputError, match="shard 000000 has values too large for float16; write them as float32"):
        with writer_of(shards, unit="pair", dtype="float16") as writer:
            writer.write(shards.shards[0], np.full((3, 2), 1e5))


def test_a_column_of_changed_shards_is_refused_and_names_both_fingerprints_and_the_command(shards: ShardSet) -> None:
    with writer_of(shards) as writer:
        fill(writer)
    was = shards.fingerprints["000001"]
    write_shard(shards.path, 1, [pair(number) for number in (3, 4)], first_key=3)
    finish(shards.path, {})
    changed = ShardSet(shards.path)
    now = changed.fingerprints["000001"]
    message = (
        rf"columns .*/set/columns/made: shard 000001 was {was[:12]}\.\. when they were made and is {now[:12]}\.\. now\. "
        rf"Run: data-prep make-columns --space SPACE --shards {shards.path} --name made"
    )
    with pytest.raises(InputError, match=message):
        Column.of(changed, "made")


def test_a_trunk_column_says_to_embed_again(shards: ShardSet) -> None:
    with writer_of(shards, unit="pair", made_from={"trunk": "1"}) as writer:
        fill(writer)
    (shards.path / "000003.tar").unlink()
    (shards.path / "000003.arrow").unlink()
    finish(shards.path, {})
    with pytest.raises(InputError, match=rf"shard 000003 was .* is gone now. Run: multimodal embed --shards {shards.path} --name made"):
        Column.of(ShardSet(shards.path), "made")


def test_a_shard_that_is_added_costs_its_own_rows_only(shards: ShardSet) -> None:
    with writer_of(shards) as writer:
        fill(writer)
    before = {path.name: path.stat().st_mtime_ns for path in (shards.path / "columns" / "made").glob("*.npy")}
    write_shard(shards.path, 4, [pair(number) for number in (11, 12)], first_key=11)
    finish(shards.path, {})
    larger = ShardSet(shards.path)
    with pytest.raises(InputError, match="shard 000004 was added after they were made"):
        Column.of(larger, "made")
    with writer_of(larger) as writer:
        assert fill(writer) == ["000004"]
    assert Column.of(larger, "made").take(np.arange(13))[:, 0].tolist() == list(range(13))
    after = {path.name: path.stat().st_mtime_ns for path in (shards.path / "columns" / "made").glob("*.npy")}
    assert {name: after[name] for name in before} == before


def test_a_stopped_job_goes_on_and_ends_on_the_same_bytes(shards: ShardSet) -> None:
    with pytest.raises(KeyboardInterrupt), writer_of(shards) as writer:
        fill(writer, limit=2)
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="was not finished. Run: data-prep make-columns"):
        Column.of(shards, "made")
    with writer_of(shards) as writer:
        assert fill(writer) == ["000002", "000003"]
    with writer_of(shards, "at_once") as writer:
        fill(writer)
    one, two = ({path.name: path.read_bytes() for path in (shards.path / "columns" / name).iterdir()} for name in ("made", "at_once"))
    assert one == two
    assert column_names(shards) == ["at_once", "made"]


@pytest.mark.parametrize(
    "change", [{"config": {"pooling": "tfidf"}}, {"made_from": {"text-space": "81be"}}, {"dtype": "float16"}, {"dim": 2, "unit": "pair"}]
)
def test_rows_of_other_settings_are_never_taken_over(shards: ShardSet, change: dict) -> None:
    with pytest.raises(KeyboardInterrupt), writer_of(shards) as writer:
        fill(writer, limit=2)
        raise KeyboardInterrupt
    with writer_of(shards, **change) as writer:  # an unfinished column starts again
        assert fill(writer) == ["000000", "000001", "000002", "000003"]
    before = {path.name: path.read_bytes() for path in (shards.path / "columns" / "made").iterdir()}
    with pytest.raises(
        InputError,
        match=r"columns/made: was made with other .* was .* and is .* now.* Choose another name .* or remove",
    ):
        writer_of(shards)
    assert {path.name: path.read_bytes() for path in (shards.path / "columns" / "made").iterdir()} == before


def test_rows_of_a_shard_that_changed_since_the_stop_are_made_again(shards: ShardSet) -> None:
    with pytest.raises(KeyboardInterrupt), writer_of(shards) as writer:
        fill(writer, limit=2)
        raise KeyboardInterrupt
    write_shard(shards.path, 1, [pair(number) for number in (3, 4)], first_key=3)
    finish(shards.path, {})
    changed = ShardSet(shards.path)
    with writer_of(changed) as writer:
        assert fill(writer) == ["000001", "000002", "000003"]
    assert Column.of(changed, "made").num_rows == sum(len(changed.texts(id)) for id in range(len(changed)))


def test_a_finished_column_is_left_as_it_is(shards: ShardSet) -> None:
    with writer_of(shards) as writer:
        fill(writer)
    folder = shards.path / "columns" / "made"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with writer_of(shards) as writer:
        assert writer.missing() == []
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "000002.npy").unlink()
    with writer_of(shards) as writer:
        assert fill(writer) == ["000002"]


def test_leaving_shards_out_is_an_error_and_no_column(shards: ShardSet) -> None:
    with pytest.raises(ValueError, match="3 shards were not written, first 000001"), writer_of(shards) as writer:
        fill(writer, limit=1)
    assert column_names(shards) == []


@pytest.mark.parametrize(
    ("rows", "counts", "reason"),
    [
        (np.zeros((6, 3)), np.array([1, 2, 3]), r"rows must be \(6, 2\) and are \(6, 3\)"),
        (np.zeros((5, 2)), np.array([1, 2, 3]), r"rows must be \(6, 2\)"),
        (np.zeros((6, 2)), np.array([2, 2, 2]), "how many texts each of its 3 pairs has"),
        (np.zeros((6, 2)), None, "unit text is written with counts"),
    ],
)
def test_rows_that_do_not_fit_the_shard_are_refused(shards: ShardSet, rows: np.ndarray, counts: np.ndarray | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason), writer_of(shards) as writer:
        writer.write(shards.shards[0], rows, counts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unit": "words"}, "is not one of pair, text, view"),
        ({"dtype": "float64"}, "neither 'float16'"),
        ({"name": "a/b"}, "cannot be the name of a column"),
    ],
)
def test_settings_that_make_no_column_are_refused(shards: ShardSet, change: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        writer_of(shards, **change)


def test_a_column_that_is_not_there_names_those_that_are(shards: ShardSet) -> None:
    with writer_of(shards, "lda40") as writer:
        fill(writer)
    with pytest.raises(InputError, match="columns/lda50: does not exist. Finished ones: lda40"):
        Column.of(shards, "lda50")


def test_a_cut_file_of_a_column_is_named(shards: ShardSet) -> None:
    with writer_of(shards) as writer:
        fill(writer)
    os.truncate(shards.path / "columns" / "made" / "000001.npy", 140)
    with pytest.raises(InputError, match="columns .*made: 000001 cannot be read"):
        Column.of(shards, "made").take(np.array([4]))


def test_columns_of_a_read_only_set_lie_beside_its_index(shards: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    for name in ("index.arrow", "manifest.json"):
        shutil.move(shards.path / name, tmp_path / "index" / name)
    apart = ShardSet(shards.path, index=tmp_path / "index")
    with writer_of(apart) as writer:
        fill(writer)
    assert Column.of(apart, "made").path == tmp_path / "index" / "columns" / "made"


def test_an_empty_shard_has_an_empty_file(tmp_path: Path) -> None:
    for number, size in enumerate((2, 0, 1)):
        write_shard(tmp_path, number, [pair(number * 2 + one) for one in range(size)], first_key=number * 2)
    finish(tmp_path, {})
    shards = ShardSet(tmp_path)
    with writer_of(shards, unit="pair") as writer:
        for shard in writer.missing():
            writer.write(shard, np.array([[id, 0] for id in shard.ids]).reshape(-1, 2))
    assert Column.of(shards, "made").take(np.arange(3))[:, 0].tolist() == [0, 1, 2]


def test_a_column_killed_with_its_manifest_written_is_finished_and_not_replaced(shards: ShardSet) -> None:
    with writer_of(shards) as writer:
        note = (writer.path / columns.UNFINISHED).read_bytes()
        fill(writer)
    (writer.path / columns.UNFINISHED).write_bytes(note)
    with pytest.raises(InputError, match="pooling was .* and is .* now"):
        writer_of(shards, config={"pooling": "tfidf"})
    with writer_of(shards) as writer:
        assert fill(writer) == []
    assert not (writer.path / columns.UNFINISHED).exists() and len(Column.of(shards, "made")) == NUM_PAIRS


@pytest.fixture
def dotted(tmp_path: Path) -> ShardSet:
    """Tars of somebody else, with dots in their names; the first in their order is a.s.tar, of pairs 3 to 5."""
    ours = make_set(tmp_path / "ours", 9)
    names = {"000000": "a", "000001": "a.s", "000002": "b"}
    (tmp_path / "theirs").mkdir()
    for shard in ours.shards:
        shutil.copy(ours.path / f"{shard.name}.tar", tmp_path / "theirs" / f"{names[shard.name]}.tar")
    index_tars(tmp_path / "theirs")
    return ShardSet(tmp_path / "theirs")


def test_rows_follow_the_order_of_the_tars_also_where_names_have_dots(dotted: ShardSet) -> None:
    with writer_of(dotted) as writer:
        fill(writer)
    assert [shard.name for shard in dotted.shards] == ["a.s", "a", "b"]
    assert Column.of(dotted, "made").take(np.arange(9))[:, 0].tolist() == list(range(9))


def test_a_stopped_column_of_tars_with_dotted_names_goes_on(dotted: ShardSet) -> None:
    with pytest.raises(KeyboardInterrupt), writer_of(dotted) as writer:
        fill(writer, limit=1)
        raise KeyboardInterrupt
    with writer_of(dotted) as writer:
        assert fill(writer) == ["a", "b"]
    assert Column.of(dotted, "made").take(np.arange(9))[:, 0].tolist() == list(range(9))


def test_threads_that_ask_for_a_column_at_once_open_it_once(tmp_path: Path) -> None:
    opened: list[int] = []
    started = threading.Barrier(8)
    recent: Recent[int, str] = Recent(4)

    def open_one(key: int) -> str:
        opened.append(key)
        time.sleep(0.01)
        return f"value {key}"

    def ask(_: int) -> str:
        started.wait()
        return recent.get(7, open_one)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"value 7"}
    assert opened == [7]


@pytest.mark.parametrize("linked", ["columns", "columns/made"])
def test_a_column_whose_folder_is_a_link_is_never_written_and_nothing_there_removed(shards: ShardSet, tmp_path: Path, linked: str) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "made").mkdir(parents=True)
    for file in (theirs / "life.npy", theirs / "made" / "life.npy", theirs / "made" / "top_words.json"):
        file.write_bytes(b"work")
    (shards.index / linked).parent.mkdir(parents=True, exist_ok=True)
    (shards.index / linked).symlink_to(theirs if linked == "columns" else theirs / "made")
    with pytest.raises(InputError, match=f"{linked}: is a link to .*theirs"):
        writer_of(shards)
    assert sorted(path.name for path in theirs.rglob("*")) == ["life.npy", "life.npy", "made", "top_words.json"]


def test_a_column_is_read_through_a_link(shards: ShardSet, tmp_path: Path) -> None:
    with writer_of(shards) as writer:
        fill(writer)
    shutil.move(writer.path, tmp_path / "elsewhere")
    writer.path.symlink_to(tmp_path / "elsewhere")
    assert len(Column.of(shards, "made")) == NUM_PAIRS


@pytest.mark.parametrize("content", [b'{"config": {', b"[]", b"{}", b'{"config": 1, "made_from": {}, "shards": {}, "parts": {}}', b"\xff"])
def test_a_damaged_note_of_an_unfinished_column_says_what_to_remove(shards: ShardSet, content: bytes) -> None:
    with pytest.raises(ValueError, match="were not written"), writer_of(shards) as writer:
        fill(writer, 1)
    (writer.path / "unfinished.json").write_bytes(content)
    for use in (lambda: writer_of(shards), lambda: Column.of(shards, "made")):
        with pytest.raises(InputError, match=r"unfinished.json: is damaged.* Remove .*made and make"):
            use()
    shutil.rmtree(writer.path)
    with writer_of(shards) as writer:
        fill(writer)
    assert len(Column.of(shards, "made")) == NUM_PAIRS


def test_a_finished_column_whose_manifest_lacks_a_fact_is_not_made_anew(shards: ShardSet) -> None:
    with writer_of(shards) as writer:
        fill(writer)
    manifest = json.loads((writer.path / "manifest.json").read_text())
    manifest["parts"] = dict.fromkeys(manifest["parts"], {})
    (writer.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="num_pairs is missing"):
        writer_of(shards)


@pytest.mark.parametrize("unit", ["pair", "text"])
@pytest.mark.parametrize("nums", [(0,), (2, 4), (3, 3, 3, 3), (10**30,), (-1,), (10**7,)])
def test_pairs_that_a_manifest_counts_wrongly_are_an_error_and_never_another_pair_s_rows(
    shards: ShardSet, unit: str, nums: tuple[int, ...]
) -> None:
    with writer_of(shards, unit=unit) as writer:
        fill(writer)
    path = writer.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for facts, num in zip(manifest["parts"].values(), nums, strict=False):
        facts["num_pairs"] = num
        if unit == "pair" and len(nums) > 1:
            facts["num_rows"] = num  # so that the two agree
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"{path}.* damaged"):
        Column.of(shards, "made")
    assert [problem.reason for problem in find_problems(shards) if "damaged" in problem.reason]
