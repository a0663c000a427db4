"""Made already? A box that is asked for again is kept, one that is asked for otherwise is refused by name, one that was killed goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.boxes import State, differences, finished_box, flat, read_manifest, state_of
from multimodal.errors import InputError
from multimodal.search.writing import create_store
from multimodal.shards import ColumnWriter, ShardSet

if TYPE_CHECKING:
    from tests.conftest import Road

GOLDEN = Path(__file__).parent / "data"
REMEDIES = ("choose another --output", "replace it with --overwrite")

LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text("ab", max_size=3) | st.lists(st.integers(0, 3), max_size=2)
SETTINGS = st.dictionaries(st.text("xyz", min_size=1, max_size=3), LEAVES | st.dictionaries(st.sampled_from("uvw"), LEAVES, max_size=2))


def state(asked: dict[str, Any], finished: Any = None, unfinished: Any = None, **more: Any) -> State:
    return state_of("spaces/lda", asked, finished, unfinished, remedies=REMEDIES, **more)


@given(SETTINGS)
def test_what_was_made_with_the_settings_asked_for_is_kept_and_what_was_begun_with_them_goes_on(settings: dict[str, Any]) -> None:
    assert state(settings) is State.FRESH
    for strict in (True, False):
        assert state(settings, finished=dict(settings), null_is_absent=not strict) is State.FINISHED
        assert state(settings, unfinished=dict(settings), null_is_absent=not strict) is State.UNFINISHED


@given(SETTINGS, st.data())
def test_a_setting_that_differs_is_refused_and_named_unless_it_may_be_overwritten(settings: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["new", *settings]))
    asked = {**settings, name: "another"}
    for there in ({"finished": settings}, {"unfinished": settings}):
        with pytest.raises(InputError) as refused:
            state(asked, **there)
        assert f"{name} was " in str(refused.value) or f"{name}." in str(refused.value)
        assert "and is 'another' now" in str(refused.value)
        assert str(refused.value).endswith(". Choose another --output, or replace it with --overwrite")
        assert state(asked, **there, overwrite=True) is State.FRESH
    assert state(asked, unfinished=settings, begins_again=True) is State.FRESH
    with pytest.raises(InputError):
        state(asked, finished=settings, begins_again=True)


@given(SETTINGS, SETTINGS)
def test_the_differences_are_the_leaves_that_differ_with_both_values(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = differences(one, other, null_is_absent=False)
    then, now = flat(one), flat(other)
    assert [name for name, *_ in found] == sorted(
        name
        for name in then.keys() | now.keys()
        if repr(then.get(name, "absent")) != repr(now.get(name, "absent")) and not same(then, now, name)
    )
    assert [name for name, *_ in differences(other, one, null_is_absent=False)] == [name for name, *_ in found]
    told_once = {name for name, before, after in differences(one, other)}
    assert told_once <= {name for name, *_ in found} and all(
        then.get(name) in (None, {}) and now.get(name) in (None, {}) for name, *_ in found if name not in told_once
    )


def same(then: dict[str, Any], now: dict[str, Any], name: str) -> bool:
    return name in then and name in now and then[name] == now[name]  # 1, 1.0 and True


def test_a_setting_newer_than_a_box_is_null_where_it_is_off() -> None:
    assert state({"passes": 5, "max_words": None}, finished={"passes": 5}) is State.FINISHED
    with pytest.raises(InputError, match="max_words was not set and is 9 now"):
        state({"passes": 5, "max_words": 9}, finished={"passes": 5})
    with pytest.raises(InputError, match="max_words was not set and is not set now"):
        state({"passes": 5, "max_words": None}, finished={"passes": 5}, null_is_absent=False)


def test_settings_are_compared_as_a_manifest_gives_them_back() -> None:
    assert state({"names": ("a", "b"), "loss": float("nan")}, finished={"names": ["a", "b"], "loss": float("nan")}) is State.FINISHED


def test_very_many_differences_are_counted_and_fingerprints_shortened() -> None:
    with pytest.raises(InputError, match=r"s00 was 0 and is 1 now; .* and 5 more\. ") as refused:
        state({f"s{number:02d}": 1 for number in range(15)}, finished={f"s{number:02d}": 0 for number in range(15)})
    assert "s10" not in str(refused.value)
    with pytest.raises(InputError, match=r"shards was aaaaaaaaaaaa\.\. and is bbbbbbbbbbbb\.\. now"):
        state({"shards": "b" * 64}, finished={"shards": "a" * 64})


def test_a_box_of_another_kind_is_never_the_one_that_is_asked_for(tmp_path: Path) -> None:
    assert finished_box(tmp_path, "store") is None
    with pytest.raises(InputError, match="expected a text space here, but this is a store"):
        finished_box(GOLDEN / "store" / "golden", "text-space")


# -- one box of each kind, through the door ------------------------------------------------------------------------------------------------


def test_one_setting_that_changed_is_named_by_every_command(own_road: Road, road_commands: dict[str, str]) -> None:
    """That the same command keeps each box is a test of the road."""
    before = {path: path.read_bytes() for path in own_road.folder.rglob("*") if path.is_file()}
    for box, more, told in (
        ("set", "--max-pairs 40", "set: was made with other settings or inputs: max_pairs was not set and is 40 now. "),
        ("space", "--window 2", "space: was made with other settings or inputs: window was 5 and is 2 now. "),
        ("set/columns/words", "--dtype float32", "dtype was 'float16' and is 'float32' now. Choose another name for the column, or remove"),
        ("set/columns/trunk", "--seed 1", "set/columns/trunk: was made with other settings or inputs: seed was 0 and is 1 now. "),
        (
            "run",
            "--model.optimiser.lr 0.5",
            "was made with other settings or inputs: model.optimiser.init_args.lr was 0.01 and is 0.5 now. ",
        ),
    ):
        said = own_road.run(f"{road_commands[box]} {more}")
        assert said.status == 2 and told in said.err, (box, said.err)
    assert {path: path.read_bytes() for path in own_road.folder.rglob("*") if path.is_file()} == before

    assert own_road.run(f"{road_commands['run']} --seed_everything 1 --overwrite").status == 0
    said = own_road.run(road_commands["export"])
    assert said.status == 2 and "export: was made with other settings or inputs: " in said.err
    assert "parts.weights.safetensors.fingerprint was " in said.err and "Choose another --output, or delete this export" in said.err
    assert own_road.run("multimodal export --run run --space space --output export2").status == 0
    said = own_road.run(road_commands["store"].replace("--export export", "--export export2"))
    assert said.status == 2 and "store: was made with other settings or inputs: export was " in said.err


@pytest.mark.parametrize("box", ["set", "space", "set/columns/words", "set/columns/trunk", "run", "export", "store"])
def test_a_command_killed_before_its_last_step_goes_on_to_the_same_bytes(
    own_road: Road, road: Road, road_commands: dict[str, str], box: str
) -> None:
    (own_road.folder / box / "manifest.json").unlink()
    said = own_road.run(road_commands[box])
    assert said.status == 0 and "already" not in said.err, said.err
    one, other = ({path.name: path.read_bytes() for path in (of.folder / box).rglob("*") if path.is_file()} for of in (own_road, road))
    assert one == other


def test_boxes_of_earlier_releases_are_known_again(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "data")
    store = tmp_path / "data" / "store" / "golden"
    made_from = read_manifest(store, "store").made_from
    create_store(store, store / "query", "wordvec", made_from["export"])
    assert read_manifest(store, "store").counts["rows"] == 3
    shards = ShardSet(tmp_path / "data" / "shards" / "golden")
    with ColumnWriter(shards, "tiny", 3, "text", "float16", {"what": "id, text, 0.5"}, {"text-space": "none"}) as writer:
        assert writer.missing() == []
    with pytest.raises(InputError, match="columns/tiny: was made with other settings or inputs: what was 'id, text, 0.5' and is 'id' now"):
        ColumnWriter(shards, "tiny", 3, "text", "float16", {"what": "id"}, {"text-space": "none"})
