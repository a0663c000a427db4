from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from multimodal.boxes import State, atomic_write, read_manifest
from multimodal.data import ColumnRows
from multimodal.errors import InputError
from multimodal.metrics.retrieval import ranks, recall_at
from multimodal.shards import Column, ColumnWriter, ShardSet, Split, write_leave_out
from multimodal.towers import Head
from multimodal.training.datamodule import PairData
from multimodal.training.door import fit
from multimodal.training.runs import MADE_FROM, look_at

Arguments = Callable[..., list[str]]


def checkpoint(run: Path, name: str = "last") -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return loaded


def metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(pairs: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run, and the command that made it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    command = ["--config", str(recipe), "--data.shards", str(pairs), "--run", str(run), "--trainer.max_epochs", "6"]
    return fit(command), command


def test_a_finished_run_holds_what_it_was_given_what_it_learnt_and_how_it_went(finished: tuple[Path, list[str]], pairs: Path) -> None:
    run, _ = finished
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=0.2)
    data.setup("fit")
    steps_per_epoch = math.ceil(len(data.train_ids) / 16)
    manifest = read_manifest(run, kind="run")
    assert manifest.counts == {
        "epochs": 6,
        "steps": 6 * steps_per_epoch,
        "pairs": len(data.train_ids),
        "validation_pairs": len(data.validation_ids),
    }
    assert manifest.made_from == data.made_from()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["optimiser"]["init_args"]["lr"] == 0.01 and config["data"]["shards"] == str(pairs)
    assert config["trainer"]["precision"] == "32-true"  # what was left open is resolved
    assert str(pairs) not in json.dumps(manifest.config) and str(run) not in json.dumps(manifest.config)
    rows = metrics(run)
    assert [int(row["step"]) for row in rows] == list(range(6 * steps_per_epoch))
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    assert float(rows[-1]["train/lr"]) < 1e-4
    assert checkpoint(run)["global_step"] == 6 * steps_per_epoch
    assert not (run / "bad.csv").exists()


def test_the_best_checkpoint_gives_the_figure_that_was_logged_for_it(finished: tuple[Path, list[str]], pairs: Path) -> None:
    run, _ = finished
    data = PairData(pairs, ColumnRows("features"), ColumnRows("topics"), Split(), validation_share=0.2)
    data.setup("fit")
    head = Head(6, 4, dropout=0.1, standardise=True).eval()
    state = checkpoint(run, "best")
    head.load_state_dict({key.removeprefix("image_tower."): value for key, value in state["state_dict"].items() if "image_tower" in key})
    shards = ShardSet(pairs)
    with torch.no_grad():
        image = torch.softmax(head(torch.from_numpy(Column.of(shards, "features").take(data.validation_ids))), dim=1)
    text = Column.of(shards, "topics").take(data.validation_ids)
    first = ranks(text, image.numpy(), np.arange(len(text)))
    logged = {int(row["step"]): row for row in metrics(run)}[state["global_step"] - 1]
    for k in (1, 5, 10):
        assert float(logged[f"val/R@{k}"]) == pytest.approx(100 * recall_at(first, k))
        assert float(logged[f"val/chance_R@{k}"]) == pytest.approx(100 * k / len(text))
    assert float(logged["val/median_rank"]) == np.median(first)
    best = max(float(row["val/R@10"]) for row in metrics(run) if row["val/R@10"])
    assert float(logged["val/R@10"]) == best


def test_a_checkpoint_holds_tensors_and_plain_values_alone(finished: tuple[Path, list[str]]) -> None:
    run, _ = finished
    for name in ("best", "last"):
        loaded = checkpoint(run, name)  # weights_only=True refuses anything else
        assert "hyper_parameters" not in loaded and "datamodule_hyper_parameters" not in loaded


def test_the_same_command_on_a_finished_run_says_so_and_does_nothing(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, command = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert fit(command) == run
    assert "is finished, with the same config" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_another_config_for_a_run_that_is_there_is_refused_and_named(finished: tuple[Path, list[str]]) -> None:
    run, command = finished
    with pytest.raises(
        InputError, match=r"with other settings or inputs: model.optimiser.init_args.lr was .* and is 0.5 now. .*--overwrite"
    ):
        fit([*command, "--model.optimiser.lr", "0.5"])
    elsewhere = ["--data.num_workers", "1", "--num_threads", "1", "--preflight.max_steps", "3"]
    assert fit([*command, *elsewhere]) == run  # where it is computed is not what is computed


def test_a_run_that_was_refused_before_its_first_step_leaves_its_folder_to_the_corrected_command(
    arguments: Arguments, tmp_path: Path
) -> None:
    command = arguments(tmp_path / "run")
    with pytest.raises(InputError, match="dim_in"):
        fit([*command, "--model.image_tower.init_args.dim_in", "999"])
    assert (tmp_path / "run" / MADE_FROM).is_file(), "the folder is taken before data is looked at"
    assert fit(command) == tmp_path / "run"


def test_a_folder_that_another_rank_is_just_beginning_is_a_fresh_run(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "run" / MADE_FROM) as file:
        file.write(b"{}")
        assert look_at(tmp_path / "run", {}, overwrite=False) is State.FRESH
    assert look_at(tmp_path / "run", {}, overwrite=False) is State.FRESH


def test_a_folder_that_is_no_run_is_left_alone(arguments: Arguments, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists but is not a run"):
        fit(arguments("thesis"))
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_folder_that_holds_something_else_stays_as_it_is(arguments: Arguments, overwrite: list[str]) -> None:
    shards = Path(next(arg for arg in arguments("run") if (Path(arg) / "index.arrow").is_file()))
    before = {path.name: path.read_bytes() for path in shards.iterdir() if path.is_file()}
    given = arguments("run", "--trainer.max_epochs", "1", *overwrite)
    given[given.index("--run") + 1] = str(shards)
    with pytest.raises(InputError, match="expected a finished run here, but this is a shard set"):
        fit(given)
    assert before == {path.name: path.read_bytes() for path in shards.iterdir() if path.is_file()}


def test_overwrite_trains_again_from_nothing(arguments: Arguments) -> None:
    run = fit(arguments("run", "--trainer.max_epochs", "2"))
    once = metrics(run)
    assert fit(arguments("run", "--trainer.max_epochs", "1", "--overwrite")) == run
    assert len(metrics(run)) == len(once) // 2
    assert read_manifest(run, kind="run").counts["epochs"] == 1


def test_equal_seeds_give_equal_weights_and_another_seed_others(arguments: Arguments) -> None:
    torch.manual_seed(1)
    one = checkpoint(fit(arguments("one", "--trainer.max_epochs", "2")))["state_dict"]
    torch.manual_seed(2)  # what happened before in the process is irrelevant
    same = checkpoint(fit(arguments("same", "--trainer.max_epochs", "2")))["state_dict"]
    other = checkpoint(fit(arguments("other", "--trainer.max_epochs", "2", "--seed_everything", "1")))["state_dict"]
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["image_tower.output.weight"], other["image_tower.output.weight"])


def test_fit_leaves_the_random_numbers_of_its_caller_alone(arguments: Arguments) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(arguments("run", "--trainer.max_epochs", "1"))
    assert torch.equal(torch.rand(3), expected)


def test_a_quiet_run_says_only_how_far_it_is_and_how_it_ended(arguments: Arguments, capfd: pytest.CaptureFixture[str]) -> None:
    run = fit(arguments("run", "--trainer.max_epochs", "1"))
    said = capfd.readouterr()
    lines = said.err.strip().splitlines()
    assert said.out == ""
    assert [line.split(":")[0] for line in lines] == ["training", str(run)], said.err
    assert "best val/R@10" in lines[1] and "chance" in lines[1]


def test_without_validation_a_run_keeps_its_last_epoch_alone(arguments: Arguments) -> None:
    run = fit(arguments("run", "--trainer.max_epochs", "1", "--data.validation_share", "0"))
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert not any(key.startswith("val/") for key in metrics(run)[0])
    assert read_manifest(run, kind="run").counts["validation_pairs"] == 0


def test_patience_stops_a_run_whose_figure_gets_no_better(arguments: Arguments) -> None:
    command = arguments("run", "--trainer.max_epochs", "40", "--selection.patience", "2", "--preflight.max_steps", "0")
    epochs = read_manifest(fit(command), kind="run").counts["epochs"]
    assert 3 <= epochs < 40


def test_patience_without_validation_is_refused(arguments: Arguments) -> None:
    with pytest.raises(InputError, match="selection.patience"):
        fit(arguments("run", "--selection.patience", "2", "--data.validation_share", "0"))


def test_pairs_that_cannot_be_read_cost_themselves_and_are_named(arguments: Arguments) -> None:
    features = [
        "--data.image.init_args.name",
        "some_bad",
        "--trainer.max_epochs",
        "2",
        "--data.validation_share",
        "0",
        "--data.split.held_out",
        "0",
    ]
    run = fit(arguments("run", *features))
    with open(run / "bad.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["key"]) for row in rows] == [3, 40]
    assert all("some_bad" in row["reason"] for row in rows)
    per_epoch = sum(float(row["train/rows"]) for row in metrics(run)) / 2
    assert per_epoch == 121 - 2
    with pytest.raises(InputError, match=r"2 of 121 are bad .*more than .*0.01"):
        fit(arguments("strict", *features, "--data.max_bad_share", "0.01"))


def test_a_set_at_a_url_trains_the_same_run_as_its_folder(arguments: Arguments, pairs: Path, tmp_path: Path) -> None:
    here = fit(arguments("here"))
    at_url = {"url": pairs.as_uri(), "cache": str(tmp_path / "cache"), "index": str(pairs)}
    (tmp_path / "remote.yaml").write_text(
        yaml.safe_dump({"data": {"shards": {"class_path": "multimodal.shards.RemoteShards", "init_args": at_url}}})
    )
    command = [part for part in arguments("there") if part not in ("--data.shards", str(pairs))]
    there = fit([*command, "--config", str(tmp_path / "remote.yaml")])
    assert checkpoint(there)["state_dict"].keys() == checkpoint(here)["state_dict"].keys()
    for key, value in checkpoint(there)["state_dict"].items():
        assert torch.equal(value, checkpoint(here)["state_dict"][key])
    assert read_manifest(there, kind="run") == read_manifest(here, kind="run"), "where the pairs lie is not part of what a run is"


def test_a_set_at_a_plain_url_trains_the_same_run_with_the_columns_that_lie_there(
    arguments: Arguments, pairs: Path, tmp_path: Path
) -> None:
    here, *there = (
        fit(arguments(name, "--trainer.max_epochs", "1", *more))
        for name, more in (
            ("here", []),
            ("there", ["--data.shards", pairs.as_uri(), "--data.cache", str(tmp_path / "cache"), "--data.num_workers", "2"]),
            ("there", ["--data.shards", pairs.as_uri(), "--data.cache", str(tmp_path / "other"), "--data.cache_bytes", "10000000"]),
        )
    )
    assert there[0] == there[1] and read_manifest(there[0], kind="run") == read_manifest(here, kind="run")
    assert list((tmp_path / "cache").glob("*/columns/*/manifest.json")) and list((tmp_path / "other").glob("*/columns/*/manifest.json"))


def test_a_run_at_a_url_is_refused_and_makes_no_folder(arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--run s3://bucket/run: is a URL; give a folder on this machine"):
        fit(arguments("run", "--run", "s3://bucket/run"))
    assert not (tmp_path / "s3:").exists()


def test_a_run_leaves_out_what_a_list_says_and_notices_another_list(arguments: Arguments, pairs: Path, tmp_path: Path) -> None:
    listed = Split().ids(ShardSet(pairs), "train")[:10]
    path = tmp_path / "leave_out.json"
    write_leave_out(path, ShardSet(pairs), listed, "for a test")
    command = arguments("run", "--data.leave_out", str(path), "--trainer.max_epochs", "1")
    counts = read_manifest(fit(command), kind="run").counts
    assert counts["pairs"] + counts["validation_pairs"] == len(Split().ids(ShardSet(pairs), "train")) - 10
    write_leave_out(path, ShardSet(pairs), listed[:5], "for a test")
    with pytest.raises(InputError, match="inputs: leave_out was"):
        fit(command)


def test_pairs_without_a_known_word_are_counted_apart_and_are_never_too_many(
    arguments: Arguments, pairs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards = ShardSet(pairs)
    rows = np.eye(4, dtype=np.float32)[np.arange(len(shards)) % 4]
    rows[np.arange(len(shards)) % 3 > 0] = np.nan  # what make-columns writes where no word is known
    with ColumnWriter(shards, "rare", 4, "pair", "float32", {}, {"text-space": "of titles"}) as writer:
        for shard in writer.missing():
            writer.write(shard, rows[shard.start : shard.start + shard.num_pairs])
    run = fit(arguments("run", "--data.target.init_args.name", "rare", "--data.max_bad_share", "0", "--data.validation_share", "0"))
    without = [id for id in Split().ids(shards, "train").tolist() if id % 3]
    with open(run / "no_words.csv", newline="") as file:
        assert sorted(int(row["key"]) for row in csv.DictReader(file)) == without
    assert not (run / "bad.csv").exists() and float(metrics(run)[-1]["train/bad_pairs"]) == 0
    assert read_manifest(run, kind="run").counts["pairs_without_words"] == len(without)
    said = capfd.readouterr().err
    assert f"{len(without)} without a known word" in said and "have no word that the space knows" in said and " bad" not in said


def test_too_few_validation_pairs_to_choose_an_epoch_are_reported(
    arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--trainer.max_epochs", "1", "--data.validation_share", "0.1"]
    fit(arguments("few", *few))
    said = re.search(
        r"(\d+) validation pairs are too few to choose the best epoch by val/R@10: chance alone finds (\d+) % of them",
        capsys.readouterr().err,
    )
    assert said is not None and int(said[2]) == round(100 * min(1, 10 / int(said[1])))
    for other in (["--selection.monitor", "val/loss", "--selection.mode", "min"], ["--data.validation_share", "0.5"]):
        fit(arguments(other[-1], *few, *other))
        assert "too few" not in capsys.readouterr().err
