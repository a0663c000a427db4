"""What a user of Lightning types: weights to begin with, options and files in any order, strategies, help, validate."""

from __future__ import annotations

import csv
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import multimodal.data
import multimodal.objectives
from multimodal.boxes import flat
from multimodal.cli import main
from multimodal.doors import recipes
from multimodal.errors import InputError
from multimodal.training.beginnings import beginning
from multimodal.training.door import build, fit
from multimodal.training.help import FULL, MOST_USED, OPTIONS, by_name, short_help
from multimodal.training.help_of_parts import SECTIONS, parts
from multimodal.training.options import configs_first
from multimodal.training.validate import validate

Arguments = Callable[..., list[str]]


def weights(run: Path, name: str = "best") -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return loaded


STILL = ("--model.optimiser", "multimodal.training.SGDSteps", "--model.optimiser.lr", "1e-12", "--preflight.max_steps", "0")
"""A run whose weights stay where they begin."""


def test_a_run_begins_with_the_best_weights_of_another(arguments: Arguments) -> None:
    first = fit(arguments("first"))
    run = fit(arguments("run", *STILL, "--init_from", str(first), "--trainer.max_epochs", "1"))
    learnt = {name: value for name, value in weights(first).items() if "standardise" not in name}
    assert all(torch.allclose(weights(run, "last")[name], value, atol=1e-6) for name, value in learnt.items() if "running" not in name)
    assert fit(arguments("run", *STILL, "--init_from", str(first), "--trainer.max_epochs", "1")) == run
    with pytest.raises(InputError, match="init_from"):
        fit(arguments("run", *STILL, "--trainer.max_epochs", "1"))


def test_weights_of_another_shape_are_refused_and_parts_of_them_can_be_taken(arguments: Arguments, tmp_path: Path) -> None:
    pixels = ["--data.image", "multimodal.data.Pixels", "--data.image.size", "32"]
    (tmp_path / "pixels.yaml").write_text(
        "model:\n  image_tower:\n    class_path: multimodal.towers.ImageTower\n    init_args:\n"
        "      trunk: {class_path: multimodal.towers.Trunk, init_args: {architecture: test_vit, size: 32, "
        "weights: {class_path: multimodal.towers.NoWeights, init_args: {seed: SEED}}}}\n"
        "      head: {class_path: multimodal.towers.Head, init_args: {dim_in: 64, dim_out: 4, hidden: HIDDEN}}\n"
    )
    text = (tmp_path / "pixels.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text.replace("SEED", "1").replace("HIDDEN", "null"))
    (tmp_path / "two.yaml").write_text(text.replace("SEED", "2").replace("HIDDEN", "8"))
    more = [*STILL, *pixels, "--trainer.max_epochs", "1"]
    first = fit(arguments("first", "--config", str(tmp_path / "one.yaml"), *more))
    command = arguments("run", "--config", str(tmp_path / "two.yaml"), *more, "--init_from", str(first))
    with pytest.raises(InputError, match=r"\d+ of \d+ tensors do not fit.*--init_parts '\[image_tower.trunk\]'"):
        fit(command)
    run = fit([*command, "--init_parts", "[image_tower.trunk]"])
    trunk = {name: value for name, value in weights(first).items() if name.startswith("image_tower.trunk.")}
    assert trunk and all(torch.equal(weights(run)[name], value) for name, value in trunk.items())
    with pytest.raises(InputError, match="the run has no tensors called image_tower.trnk. It has: image_tower.trunk, image_tower.head"):
        fit([*command, "--init_parts", "[image_tower.trnk]", "--overwrite"])


@pytest.mark.parametrize("has_trunk", [False, True])
def test_an_export_offers_its_tensors_under_the_names_of_a_run(tmp_path: Path, has_trunk: bool) -> None:
    tensors = {name: torch.rand(2) for name in ("trunk.model.a", "head.output.weight", "objective.log_scale")}
    save_file(tensors, tmp_path / "weights.safetensors")
    found = beginning(tmp_path, has_trunk).state
    head = "image_tower.head" if has_trunk else "image_tower"
    expected = {"image_tower.trunk.model.a": "trunk.model.a", f"{head}.output.weight": "head.output.weight"}
    for name, theirs in (expected | {"objective.log_scale": "objective.log_scale"}).items():
        assert torch.equal(found[name], tensors[theirs])


def test_a_folder_without_weights_is_no_beginning(arguments: Arguments, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--init_from {tmp_path}: is neither a run, .* nor an export"):
        fit(arguments("run", "--init_from", str(tmp_path)))


def test_an_option_wins_over_a_file_that_stands_behind_it(arguments: Arguments, tmp_path: Path) -> None:
    (tmp_path / "late.yaml").write_text("model: {optimiser: {lr: 0.5, warmup_steps: 7}}\n")
    module, _ = build([*arguments("run", "--model.optimiser.lr", "0.25"), "--config", str(tmp_path / "late.yaml")])
    assert (module.optimiser.lr, module.optimiser.warmup_steps) == (0.25, 7)  # type: ignore[attr-defined]


def test_files_come_first_and_keep_their_order() -> None:
    given = ["--a", "1", "--config", "x", "--b=2", "-c", "y", "--config=z", "--c", "3"]
    assert configs_first(given) == ["--config", "x", "-c", "y", "--config=z", "--a", "1", "--b=2", "--c", "3"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--ckpt_path", "last.ckpt"], "To start from the weights of another run or an export: --init_from FOLDER"),
        (["--init_parts", "[image_tower]"], "needs --init_from FOLDER, whose weights these are parts of"),
        (["--trainer.strategy", "ddp_spawn"], "trainer.strategy=ddp_spawn: its ranks are forks of one process"),
        (["--trainer.strategy", "ddpp"], "trainer: You selected an invalid strategy name: `strategy='ddpp'`"),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.evry", "3"],
            "ModelCheckpoint: Option 'evry' is not accepted. It takes",
        ),
        (["--model.optimiser", "TorchOptimiser"], "model.optimiser: TorchOptimiser: the following arguments are required: optimizer"),
    ],
)
def test_what_a_user_of_lightning_may_try_is_refused_with_the_remedy(
    arguments: Arguments, tmp_path: Path, settings: list[str], said: str
) -> None:
    with pytest.raises(InputError) as told:
        fit(arguments("run", *settings))
    assert said in str(told.value) and "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


PANELS = {"q": {"class_path": "multimodal.training.panels.Queries", "init_args": {"kk": 3}}}


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        (
            {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitr": 3}}]},
            "EarlyStopping: Option 'monitr' is not accepted. Did you",
        ),
        ({"callbacks": [{"class_path": "NoSuch"}]}, "trainer.callbacks: there is no class NoSuch; expected the name of one of Lightning's"),
        (
            {"callbacks": [{"class_path": "my_package.Mine"}]},
            "No module named 'my_package'. Install my_package, or put PYTHONPATH=FOLDER",
        ),
        (
            {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "x", "prefx": 3}}},
            "CSVLogger: Option 'prefx' is not accepted. Did you mean prefix?",
        ),
        (
            {"logger": {"class_path": "multimodal.training.WeightsAndBiases", "init_args": {"panels": PANELS}}},
            "trainer.logger.panels: Queries: Option 'kk' is not accepted. Did you mean k?",
        ),
    ],
)
def test_the_reason_why_a_callback_a_logger_or_a_panel_is_refused_is_reported(
    arguments: Arguments, tmp_path: Path, trainer: dict, said: str
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    with pytest.raises(InputError) as told:
        fit(arguments("run", "--config", str(tmp_path / "more.yaml")))
    assert said in str(told.value) and "\n" not in str(told.value)


BASES = {"Objective", "RowObjective", "LabelObjective", "PretextObjective", "PretextClasses", "PretextRegression", "Miner"}


def test_the_help_fits_on_two_screens_and_names_what_there_is() -> None:
    told = short_help(parts())
    assert len(told.splitlines()) <= 100
    assert all(name in told for name in {*multimodal.objectives.__all__, *parts(), *MOST_USED} - BASES)
    for room in by_name().values():
        for path in room:
            module, _, name = path.rpartition(".")
            assert hasattr(__import__(module, fromlist=[name]), name)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What help prints."""

    def ask(*args: str) -> str:
        with pytest.raises(SystemExit) as ended:
            fit(args)
        assert ended.value.code == 0
        return capsys.readouterr().out

    return ask


@pytest.mark.parametrize("part", parts())
def test_the_help_of_a_part_names_its_classes_or_settings(part: str, shown: Callable[..., str]) -> None:
    told = shown(f"--help.{part}")
    if part in SECTIONS:
        settings = set(inspect.signature(SECTIONS[part].__init__).parameters) - {"self", "seed"}
        assert all(f"--{part}.{name} " in told for name in settings) and "LazyInstance" not in told
    else:
        assert all(f"\n{path}\n  " in told for path in by_name()[parts()[part]])


def test_the_help_of_a_part_has_arguments_with_their_defaults(shown: Callable[..., str]) -> None:
    told = shown("--config", "x", "--help.model.optimiser", "--help.trainer")
    assert re.search(r"^multimodal.training.AdamWCosine\n.*\n    lr +the peak rate \[0.001\]$", told, re.MULTILINE)
    assert re.search(r"^  --trainer.max_epochs .*(\n  .*)*\[60\]$", told, re.MULTILINE)
    with pytest.raises(InputError, match="--help.model.objectve: there is no such part. Did you mean model.objective"):
        fit(["--help.model.objectve"])


def test_the_help_shows_the_true_defaults_of_existing_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit(["--config", "experiment/topic_emoji.yaml", "--data.shards", "x", "--run", "y", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        fit([FULL])
    every = capsys.readouterr().out
    given = {*dict(flat(yaml.safe_load(recipes.find("experiment/topic_emoji.yaml").read_text()))), "trainer.precision"}
    assert len(every.splitlines()) > 1000
    for option, meaning in (row for options in [MOST_USED, *OPTIONS.values()] for row in options.items()):
        name = re.split(r"[ +]", option)[0].removeprefix("--")
        if name in ("config", "print_config", "model.optimiser.lr", "model.optimiser.rates", "data.shards"):
            continue
        assert f"--{name}" in every
        if told := re.search(r"\[([^\]]*)\]", meaning):
            value = config
            for key in name.split("."):
                value = value[key]
            if name not in given:
                assert str(yaml.safe_load(told[1])) == str(value), name


def test_validate_prints_the_figures_of_the_kept_weights(arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(arguments("run"))
    capsys.readouterr()
    assert main(["validate", "--run", str(run), "--accelerator", "cpu"]) == 0
    told = capsys.readouterr().out
    step = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        logged = {int(row["step"]): row for row in csv.DictReader(file)}[step - 1]
    assert f"{float(logged['val/R@10']):.4g}   (chance {float(logged['val/chance_R@10']):.4g})" in told
    figures = validate(run, accelerator="cpu")
    assert figures == {name: float(logged[name]) for name in figures} and "val/loss" in figures


def test_validate_refuses_what_it_cannot_report(arguments: Arguments, tmp_path: Path) -> None:
    run = fit(arguments("run", "--data.validation_share", "0", "--trainer.max_epochs", "1"))
    with pytest.raises(InputError, match="there are no pairs to validate on"):
        validate(run, accelerator="cpu")
    config = run / "config.yaml"
    config.write_text(re.sub("  shards: .*", "  shards: http://localhost:1/pairs", config.read_text()))
    with pytest.raises(
        InputError, match=r"is not fetched just because a run names it. To fetch it, add: --shards http://localhost:1/pairs"
    ):
        validate(run, accelerator="cpu")
    config.write_text(config.read_text().replace("torch.nn.Identity", "os.system"))
    with pytest.raises(InputError, match="neither imported nor run"):
        validate(run, accelerator="cpu")


@pytest.mark.parametrize(("verb", "said"), [("predict", "multimodal index"), ("test", "multimodal evaluate"), ("train", "multimodal fit")])
def test_verbs_of_lightning_s_command_line_are_pointed_to_ours(capsys: pytest.CaptureFixture[str], verb: str, said: str) -> None:
    assert main([verb, "--config", "x.yaml"]) == 2
    assert said in capsys.readouterr().err
