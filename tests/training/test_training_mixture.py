"""A run over several sets: exact and resumable as over one, and each set is named where something is said of it."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from multimodal.boxes import read_manifest
from multimodal.data import ColumnRows, Mixture, Shuffled
from multimodal.data.conformance import assert_exact_mixture, assert_exact_resume
from multimodal.errors import InputError
from multimodal.objectives import SoftCrossEntropy
from multimodal.shards import ShardSet, Split, write_leave_out
from multimodal.towers import Head
from multimodal.training import HeldOut, PairModule
from multimodal.training.conformance import loaders_of
from multimodal.training.datamodule import PairData, cut
from multimodal.training.door import fit
from multimodal.training.panels import Queries

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

PER_EPOCH = 60
WEIGHTS = {"some": 1.0, "more": 1.0}


@pytest.fixture
def command(pairs: Path, more_pairs: Path, recipe: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a run over the two sets in equal parts; more options come last."""

    def of(name: str, *more: str) -> list[str]:
        sets = ["--data.shards.some", str(pairs), "--data.shards.more", str(more_pairs)]
        weights = ["--data.mixture.weights", json.dumps(WEIGHTS), "--data.mixture.num_pairs", str(PER_EPOCH)]
        return ["--config", str(recipe), *sets, *weights, "--run", str(tmp_path / name), *more]

    return of


def mixed(pairs: Path, more_pairs: Path, batch_size: int = 16, **settings: Any) -> PairData:
    data = PairData(
        {"some": pairs, "more": more_pairs}, ColumnRows("features"), ColumnRows("topics"), Split(), batch_size=batch_size, **settings
    )
    data.setup("fit")
    return data


def joined(ranks: list[list[dict[str, Any]]]) -> list[list[int]]:
    """The ids of each global batch, of which ranks take one in turn."""
    steps = [zip_longest(*(part["ids"] for part in parts)) for parts in zip(*ranks, strict=True)]
    return [[id for turn in step for id in turn if id is not None] for step in steps]


def test_a_killed_run_over_two_sets_goes_on_as_if_nothing_had_happened_also_on_two_ranks(
    command: Callable[..., list[str]],
    pairs: Path,
    more_pairs: Path,
    witness: Witnessed,
    launch: Callable[..., list[int]],
    tmp_path: Path,
) -> None:
    more = ["--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "3", "--model.image_tower.init_args.dropout", "0"]
    whole = fit(command("whole", *more))
    ranks = witness.take()
    expected = joined(ranks)
    assert len(expected) == 3 * -(-PER_EPOCH // 16)
    data = mixed(pairs, more_pairs, validation_share=0.2)
    is_more = data.train_ids[data.train_ids < 19], data.train_ids[data.train_ids >= 19]  # in the order of the sets' names
    times = Counter(id for step in expected for id in step)
    for ids in is_more:
        assert sum(times[id] for id in ids.tolist()) == 3 * PER_EPOCH / 2
        assert max(times[id] for id in ids.tolist()) - min(times[id] for id in ids.tolist()) <= 1

    witness.die_after(8)
    assert launch(command("killed", *more)) == [-signal.SIGKILL]
    witness.take()
    witness.die_after(None)
    saved = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert saved == 6  # in the second epoch
    shutil.copytree(tmp_path / "killed", tmp_path / "killed2")
    killed = fit(command("killed", *more))
    assert witness.take() == [ranks[0][saved:]]
    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, killed)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert (whole / "metrics.csv").read_text() == (killed / "metrics.csv").read_text()

    assert launch(command("killed2", *more), num_ranks=2) == [0, 0]
    assert joined(witness.take(2)) == expected[saved:]
    for run in (killed, tmp_path / "killed2"):
        assert read_manifest(run, kind="run") == read_manifest(whole, kind="run")


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_data_module_of_two_sets_is_exact_and_goes_on_on_other_ranks(pairs: Path, more_pairs: Path, world_size: int) -> None:
    def data(batch_size: int) -> PairData:
        return mixed(pairs, more_pairs, batch_size, mixture=Mixture(WEIGHTS, PER_EPOCH))

    ids = data(18).train_ids
    assert_exact_mixture(loaders_of(data), [ids[ids < 19], ids[ids >= 19]], 18 // world_size, world_size, num_epochs=3)
    for world_size_after in (1, 2, 3):
        assert_exact_resume(loaders_of(data), 18 // world_size, world_size, world_size_after)


def test_each_set_is_cut_as_it_is_when_it_is_alone(pairs: Path, more_pairs: Path) -> None:
    data = mixed(pairs, more_pairs, validation_share=0.3, train_share=0.5)
    for first, folder in ((0, more_pairs), (19, pairs)):
        alone = ShardSet(folder)
        here = [ids[(first <= ids) & (ids < first + len(alone))] - first for ids in (data.train_ids, data.validation_ids)]
        assert all(np.array_equal(*both) for both in zip(here, cut(alone, Split(), 0.3, 0.5), strict=True))


def test_a_run_is_made_from_each_set_and_its_columns(pairs: Path, more_pairs: Path) -> None:
    made_from = mixed(pairs, more_pairs).made_from()
    expected = {}
    for name, folder in (("more", more_pairs), ("some", pairs)):
        alone = PairData(folder, ColumnRows("features"), Shuffled(ColumnRows("topics")), Split()).made_from()
        expected |= {f"{what} of {name}": fingerprint for what, fingerprint in alone.items()}
    assert made_from == expected


def test_pairs_of_a_preflight_are_drawn_by_the_weights_and_shared_among_ranks(pairs: Path, more_pairs: Path) -> None:
    data = mixed(pairs, more_pairs, mixture=Mixture({"some": 1, "more": 2}))
    ids = np.concatenate([data.some_pairs(12, rank, 2)[0].id.numpy() for rank in range(2)])
    assert set(ids.tolist()) - {-1} <= set(data.train_ids.tolist())
    assert (ids < 19).sum() > 5  # of 12, though they are an eighth of all


def test_a_run_goes_on_with_sets_elsewhere_and_not_with_other_weights_or_other_pairs(
    command: Callable[..., list[str]], pairs: Path, more_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(command("run", "--trainer.max_epochs", "1"))
    shutil.copytree(more_pairs, tmp_path / "moved")
    at_url = ["--data.shards.more", (tmp_path / "moved").as_uri(), "--data.cache", str(tmp_path / "cache")]
    for elsewhere in (["--data.shards.more", str(tmp_path / "moved")], at_url):
        fit(command("run", "--trainer.max_epochs", "1", *elsewhere))
    assert "is finished, with the same config" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"was made with other settings or inputs: data.mixture.weights.more was"):
        fit(command("run", "--trainer.max_epochs", "1", "--data.mixture.weights.more", "2"))
    with pytest.raises(InputError, match="column features of more was .* and is .* now"):
        fit(command("run", "--trainer.max_epochs", "1", "--data.shards.more", str(pairs)))


def test_queries_show_pairs_of_all_sets(pairs: Path, more_pairs: Path) -> None:
    data = mixed(pairs, more_pairs, validation_share=0.3)
    ids, rows = data.validation_ids, np.eye(len(data.validation_ids), dtype=np.float32)
    show = Queries(1000, k=1, size_px=8).open(PairModule(Head(6, 4), nn.Identity(), SoftCrossEntropy()), data)
    assert show is not None
    view = show(HeldOut(ids, rows, rows))
    assert ids.min() < 19 <= ids.max()
    assert [row[:2] for row in view.rows] == [(id, f"thing {id if id < 19 else id - 19}") for id in ids.tolist()]
    assert all(shown.picture.getpixel((8, 8)) != (211, 211, 211) for shown in view.pictures)  # the grey of what cannot be read


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--data.mixture.weights.more", "0"], "weights.more=0.* must be above 0"),
        (["--data.mixture.weights.other", "1"], "there are weights for more, other, some, and the sets are more, some. Give each"),
        (["--data.mixture.weight.more", "1"], "weight"),
        (["--data.shards", "SOME"], "data.mixture needs several sets, but data.shards=.* is one. Name them: {NAME: FOLDER, ...}"),
        (["--data.shards.more", "nowhere"], "nowhere: expected a shard set here, but the folder does not exist"),
        (["--data.split.held_out", "0.96"], "none of its 19 pairs is left to train on"),
        (["--data.image.init_args.name", "some_bad"], "more_shards.*/columns/some_bad: does not exist. Finished ones: features, topics"),
    ],
)
def test_what_cannot_be_mixed_is_refused(command: Callable[..., list[str]], pairs: Path, options: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        fit(command("run", *(option.replace("SOME", str(pairs)) for option in options)))


@pytest.mark.parametrize("how", ["options", "config"])
def test_each_set_may_have_a_list_of_pairs_to_leave_out(
    command: Callable[..., list[str]], pairs: Path, more_pairs: Path, tmp_path: Path, how: str
) -> None:
    """`more` comes first in the order of names."""
    data = mixed(pairs, more_pairs)
    listed = {"some": data.train_ids[data.train_ids >= 19][:7] - 19, "more": data.train_ids[:2]}
    files = {name: tmp_path / f"{name}.json" for name in listed}
    for name, folder in (("some", pairs), ("more", more_pairs)):
        write_leave_out(files[name], ShardSet(folder), listed[name], "for a test")
    options = [word for name, file in files.items() for word in (f"--data.leave_out.{name}", str(file))]
    if how == "config":
        (tmp_path / "lists.yaml").write_text(json.dumps({"data": {"leave_out": {name: str(file) for name, file in files.items()}}}))
        options = ["--config", str(tmp_path / "lists.yaml")]
    run = fit(command("run", *options, "--trainer.max_epochs", "1"))
    counts = read_manifest(run, kind="run").counts
    assert counts["pairs"] + counts["validation_pairs"] == len(data.train_ids) + len(data.validation_ids) - 9
    left = mixed(pairs, more_pairs, leave_out=files)
    assert left.train_ids.tolist() == sorted({*data.train_ids.tolist()} - {*listed["more"].tolist(), *(listed["some"] + 19).tolist()})
    assert {"leave_out of more", "leave_out of some"} < read_manifest(run, kind="run").made_from.keys()
    write_leave_out(files["some"], ShardSet(pairs), listed["some"][:3], "for a test")
    with pytest.raises(InputError, match="leave_out of some was"):
        fit(command("run", *options, "--trainer.max_epochs", "1"))
    write_leave_out(files["some"], ShardSet(pairs), listed["some"], "for a test")
    with pytest.raises(InputError, match="leave_out of more was .* and is not set now"):
        fit(command("run", "--data.leave_out.some", str(files["some"]), "--trainer.max_epochs", "1"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--data.leave_out", "LIST"], r"is a list of one set's pairs, but data.shards names several. Name the set: \{more: FILE\}"),
        (["--data.leave_out.other", "LIST"], "has a list for other, but the sets are more, some"),
        (["--data.leave_out.more", "LIST"], "shard 000000 was .* when it was written and is .* now in .*more_shards"),
        (
            ["--data.leave_out.some", "nowhere.json"],
            "nowhere.json: does not exist. Lists of pairs to leave out are made by: data-prep dedup",
        ),
    ],
)
def test_lists_that_are_not_of_these_sets_are_refused(
    command: Callable[..., list[str]], pairs: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    write_leave_out(tmp_path / "list.json", ShardSet(pairs), [0], "for a test")
    filled = [option.replace("LIST", str(tmp_path / "list.json")) for option in options]
    with pytest.raises(InputError, match=told):
        fit(command("run", *filled))


def test_lists_by_name_are_refused_for_one_set(pairs: Path, tmp_path: Path) -> None:
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), leave_out={"some": tmp_path / "list.json"})
    with pytest.raises(InputError, match="names lists for some, .* is one set. Give one FILE"):
        data.setup("fit")
