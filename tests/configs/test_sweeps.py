"""Sweeps of W&B: what its agent would run is a command of ours, and every value that it may choose reaches the setting that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from multimodal.doors import recipes
from multimodal.training.door import fit

utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils", reason="wandb is not installed (extra train)")

SWEEPS = sorted((recipes.folder() / "sweep").glob("*.yaml"))


def composed(sweep: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """The command as `wandb agent` composes it for these values."""
    macros = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros |= {"env": ["/usr/bin/env"]}
    parts = utils.create_sweep_command(list(sweep["command"]))
    return [one for part in parts for one in (macros[part[2:-1]] if part.startswith("${") and part.endswith("}") else [part])]


def choices(parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each value of a list once, and both ends of each range."""
    lists = {name: one.get("values") or [one["min"], one["max"]] for name, one in parameters.items()}
    for at in range(max(map(len, lists.values()))):
        yield {name: of[at % len(of)] for name, of in lists.items()}


def test_there_are_sweeps_and_they_are_no_recipes_of_fit() -> None:
    assert SWEEPS and not [name for name in recipes.names() if "sweep" in name]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_value_of_a_sweep_reaches_the_setting_that_it_names(path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text()
    sweep = yaml.safe_load(text)
    assert f"#   wandb sweep configs/sweep/{path.name}" in text
    assert sweep["method"] in ("bayes", "grid", "random") and sweep["metric"]["name"].startswith("val/")
    for values in choices(sweep["parameters"]):
        env, shell, _, script, _, *args = composed(sweep, values)
        assert (env, shell) == ("/usr/bin/env", "sh") and script.startswith("exec multimodal fit ") and script.endswith('"$@"')
        with pytest.raises(SystemExit):
            fit([*args, "--run=run", "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        for name, value in values.items():
            found = config
            for key in name.split("."):
                found = found[key] if key in found else found["init_args"][key]
            assert (found["class_path"] if isinstance(found, dict) else found) == value, name
