"""A run that is killed goes on from its last checkpoint as if nothing had happened: the same steps, pairs, weights and figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multimodal.boxes import is_whole
from multimodal.errors import InputError
from multimodal.training.door import fit

STEPS_PER_EPOCH = 5

WITNESS = '''
import json, os, signal
from lightning.pytorch.callbacks import Callback

class Witness(Callback):
    """Writes down what each step sees, and ends the process after the step that DIES_AT names: killed, or as by Ctrl-C."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        seen = {"step": trainer.global_step, "epoch": trainer.current_epoch, "ids": batch.id[batch.valid].tolist()}
        with open(os.environ["WITNESS"] + f".rank{trainer.global_rank}", "a") as file:
            file.write(json.dumps(seen) + "\\n")
        if str(trainer.global_step) == os.environ.get("DIES_AT"):
            os.kill(os.getpid(), signal.Signals[os.environ["DIES_OF"]])
'''


def steps(path: Path, rank: int = 0) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(f"{path}.rank{rank}").read_text().splitlines()]


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WITNESS", str(tmp_path / "seen"))
    return tmp_path / "seen"


@pytest.fixture
def command(arguments: Callable[..., list[str]], witness: Path) -> Callable[[str], list[str]]:
    return lambda name: arguments(name, "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "2")


def state(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return loaded


def assert_equal_runs(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        left, right = state(one, name), state(other, name)
        assert left["global_step"] == right["global_step"] and left["epoch"] == right["epoch"]
        assert all(torch.equal(value, right["state_dict"][key]) for key, value in left["state_dict"].items())
        for (_, moments), (_, other_moments) in zip(
            left["optimizer_states"][0]["state"].items(), right["optimizer_states"][0]["state"].items(), strict=True
        ):
            assert all(torch.equal(moments[key], other_moments[key]) for key in moments)
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert json.loads((one / "manifest.json").read_text()) == json.loads((other / "manifest.json").read_text())


@pytest.mark.parametrize(
    "dies_at", [1, 5, 6, 9, 15]
)  # before there is a checkpoint, at the end of an epoch, after it, inside one, at the very end
def test_a_run_stopped_anywhere_goes_on_as_if_nothing_had_happened(
    command: Callable[[str], list[str]], witness: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    whole = fit(command("whole"))
    expected = steps(witness)
    Path(f"{witness}.rank0").unlink()
    monkeypatch.setenv("DIES_AT", str(dies_at))
    monkeypatch.setenv("DIES_OF", "SIGINT")
    with pytest.raises(KeyboardInterrupt):
        fit(command("stopped"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # Ctrl-C works again
    assert not is_whole(whole.parent / "stopped")
    monkeypatch.delenv("DIES_AT")
    stopped = fit(command("stopped"))
    assert_equal_runs(whole, stopped)
    went_on_after = max(step for step in range(dies_at) if step % 2 == 0 or step % STEPS_PER_EPOCH == 0)
    assert steps(witness) == expected[:dies_at] + expected[went_on_after:]


def test_a_killed_process_goes_on_in_another_one(command: Callable[[str], list[str]], witness: Path, tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(tmp_path),
        "DIES_AT": "8",
        "DIES_OF": "SIGKILL",
    }
    killed = subprocess.run(
        [sys.executable, "-m", "multimodal.cli", "fit", *command("killed")], env=environment, timeout=150, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert state(tmp_path / "killed")["global_step"] == 6
    fit(command("killed"))
    assert [step["step"] for step in steps(witness)] == [*range(1, 9), *range(7, 16)]
    Path(f"{witness}.rank0").unlink()
    assert_equal_runs(fit(command("whole")), tmp_path / "killed")


def test_a_run_whose_column_has_changed_since_does_not_go_on(
    command: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIES_AT", "6")
    monkeypatch.setenv("DIES_OF", "SIGINT")
    with pytest.raises(KeyboardInterrupt):
        fit(command("run"))
    begun = tmp_path / "run" / "made_from.json"
    begun.write_text(begun.read_text().replace(json.loads(begun.read_text())["column topics"], "0" * 64))
    with pytest.raises(InputError, match=r"its column topics was 000000000000\.\. when it was begun and is .* now"):
        fit(command("run"))
