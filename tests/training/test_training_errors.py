from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multimodal.cli import main
from multimodal.data import ColumnRows, Side
from multimodal.doors import recipes
from multimodal.errors import InputError
from multimodal.training.door import build, fit
from multimodal.training.panels import Panel

Arguments = Callable[..., list[str]]


class UnderivedSide:
    def open(self, shards: object, ids: object) -> None: ...


class OwnSide(Side):
    """Calls its parameters as it likes."""

    def open(self, pairs, which):  # type: ignore[no-untyped-def]
        return ColumnRows("features").open(pairs, which)


class OwnPanel(Panel):
    def open(self, trained, read):  # type: ignore[no-untyped-def]
        return None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--model.optimiser.lrr", "3"], "model.optimiser: AdamWCosine: Option 'lrr' is not accepted. Did you mean lr?"),
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch 3. Did you mean trainer.max_epochs?"),
        (["--model.optimiser.lr", "fast"], "model.optimiser.lr: expected float, got fast. See"),
        (["--model.optimiser.lr", "-1"], "optimiser.lr=-1.0 must be above 0"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs: expected one of int, NoneType, got many. See"),
        (
            ["--model.objective", "my_package.Huber"],
            "Install my_package, or put PYTHONPATH=FOLDER in front of the command",
        ),
        (["--data.image", f"{__name__}.UnderivedSide"], "UnderivedSide: is not a subclass of Side. Derive your class from Side"),
        (["--model.image_tower.init_args.dim_inn", "3"], "Option 'dim_inn' is not accepted"),
        (["--model.objective", "multimodal.objectives.Nope"], "module 'multimodal.objectives' has no attribute 'Nope'"),
        (["--data.validation_share", "2"], "data.validation_share=2.0 must be a share"),
        (["--data.target.init_args.name", "lda41"], "columns/lda41: does not exist. Finished ones: "),
        (
            ["--data.text.init_args.name", "topics"],
            "data.text is data.target since 0.2",
        ),
        (["--model.text_side", "torch.nn.Identity"], "model.text_side is model.target_side since 0.2"),
        (["--data.shards", "nowhere"], "nowhere: expected a shard set here, but the folder does not exist"),
        (["--data.batch_size", "0"], "data.batch_size=0 must be at least 1"),
        (["--selection.monitor", "val/R@100"], "selection.monitor=val/R@100 is not among the figures of this run: "),
        (["--trainer.accelerator", "gpu", "--trainer.devices", "100"], "trainer: "),
        (["--config", "experiment/topic_emoj.yaml"], "no shipped recipe of that name. Did you mean experiment/topic_emoji.yaml"),
        (["--trainer.devices", "2", "--data.batch_size", "15"], "data.batch_size=15 does not divide by 2 ranks; 14 and 16 do"),
        (["--trainer.devices", "2"], "several ranks can only be started from the command line"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_status_2(
    arguments: Arguments, capsys: pytest.CaptureFixture[str], settings: list[str], said: str
) -> None:
    status = main(["fit", *arguments("run", "--trainer.max_epochs", "1", "--preflight.max_steps", "0", *settings)])
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("training:")]
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert said in lines[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modell: {optimiser: {lr: 3}}", "Option 'modell.optimiser.lr' is not accepted"),
        ("model: {optimiser: {lrr: 3}}", "AdamWCosine: Option 'lrr' is not accepted. Did you mean lr?"),
        ("model: {optimiser: {lr: 3}", "expected ',' or '}'"),
    ],
)
def test_an_unknown_key_of_a_config_file_is_named(arguments: Arguments, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "typo.yaml").write_text(text)
    with pytest.raises(InputError) as told:
        fit(arguments("run", "--config", str(tmp_path / "typo.yaml")))
    assert said in str(told.value) and "\n" not in str(told.value)


def test_help_teaches_the_command_and_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fit(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert "multimodal fit --config experiment/topic_emoji.yaml --data.shards" in told
    assert all(name.rpartition("/")[2].removesuffix(".yaml") in told for name in recipes.names())


def test_a_file_of_the_user_wins_over_a_shipped_recipe_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "experiment/topic_emoji.yaml"
    assert recipes.find(name) == recipes.find(f"configs/{name}") == recipes.folder() / name
    (tmp_path / "experiment").mkdir()
    (tmp_path / name).write_text("model: {}")
    assert recipes.find(name) == Path(name)
    assert recipes.with_found_recipes(["-c", name, f"--config={name}", "--run", "x"]) == ["-c", name, f"--config={name}", "--run", "x"]


def test_a_side_and_a_panel_of_ones_own_call_their_parameters_as_they_like(arguments: Arguments) -> None:
    panel = f'{{"mine": {{"class_path": "{__name__}.OwnPanel"}}}}'
    wandb = ["--config", "trainer/wandb.yaml", "--trainer.logger.init_args.panels", panel]
    _, data = build(arguments("run", "--data.image", f"{__name__}.OwnSide", *wandb))
    assert isinstance(data.image, OwnSide)
