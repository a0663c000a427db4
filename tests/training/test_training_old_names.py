"""Runs of release 0.1, which called a pair's target its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from multimodal.errors import InputError
from multimodal.training.door import fit
from multimodal.training.validate import validate


def test_a_run_of_release_0_1_is_validated_but_not_resumed(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    command = arguments("run", "--trainer.max_epochs", "1", "--preflight.max_steps", "0")
    run = fit(command)
    figures = validate(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["text"], config["model"]["text_side"] = config["data"].pop("target"), config["model"].pop("target_side")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert validate(run) == figures
    with pytest.raises(InputError, match="was begun by release 0.1, which called data.target data.text.*--overwrite"):
        fit(command)
    with pytest.raises(InputError, match="data.text is data.target since 0.2"):
        fit(["--config", str(run / "config.yaml"), "--run", str(tmp_path / "again")])
