"""A run that is killed goes on from its last checkpoint as if nothing had happened: the same steps, pairs, weights and figures."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.boxes import is_whole
from multimodal.errors import InputError
from multimodal.training.callbacks import SharedClock
from multimodal.training.door import fit

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

STEPS_PER_EPOCH = 5


@pytest.fixture
def command(arguments: Callable[..., list[str]], witness: Witnessed) -> Callable[..., list[str]]:
    return lambda name, *more: arguments(name, "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "2", *more)


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


@pytest.mark.parametrize("dies_at", [6, 9])  # after an epoch, inside one
def test_a_run_stopped_by_ctrl_c_goes_on_as_if_nothing_had_happened(
    command: Callable[..., list[str]], witness: Witnessed, dies_at: int
) -> None:
    whole = fit(command("whole"))
    ((*expected,),) = witness.take()
    witness.die_after(dies_at, of="SIGINT")
    with pytest.raises(KeyboardInterrupt):
        fit(command("stopped"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # Ctrl-C works again
    assert not is_whole(whole.parent / "stopped")
    witness.die_after(None)
    stopped = fit(command("stopped"))
    assert_equal_runs(whole, stopped)
    assert witness.steps() == expected[:dies_at] + expected[last_saved(dies_at) :]


def test_a_run_killed_after_any_step_goes_on_as_if_nothing_had_happened(
    command: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]]
) -> None:
    whole = fit(command("whole"))
    ((*expected,),) = witness.take()
    assert [step["step"] for step in expected] == list(range(1, 16))
    for dies_at in (1, *range(STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 1), 15):  # before there is a checkpoint, all of an epoch, the very end
        witness.die_after(dies_at)
        assert launch(command(f"killed{dies_at}")) == [-signal.SIGKILL]
        witness.die_after(None)
        assert_equal_runs(whole, fit(command(f"killed{dies_at}")))
        assert witness.take() == [expected[:dies_at] + expected[last_saved(dies_at) :]], f"killed after step {dies_at}"


def last_saved(step: int) -> int:
    """The step of the checkpoint that a run has when it dies at the end of this step, before it saves again."""
    return max(before for before in range(step) if before % 2 == 0 or before % STEPS_PER_EPOCH == 0)


def test_with_a_checkpoint_every_so_many_seconds_a_kill_costs_those(
    arguments: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    command = lambda name, *more: arguments(name, "--trainer.callbacks+=witness.Witness", *more)  # noqa: E731
    whole = fit(command("whole"))
    ((*expected,),) = witness.take()
    witness.die_after(9)
    assert launch(command("killed", "--checkpoint_every_s", "1e-9")) == [-signal.SIGKILL]
    assert state(tmp_path / "killed")["global_step"] == 8
    witness.die_after(None)
    assert_equal_runs(whole, fit(command("killed", "--checkpoint_every_s", "1e9")))
    assert witness.steps() == [*expected[:9], *expected[8:]]


def test_a_run_that_accumulates_gradients_goes_on_from_whole_steps_alone(
    command: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    accumulate = ["--trainer.accumulate_grad_batches", "2", "--checkpoint_every_n_steps", "1"]  # of the 5 batches of an epoch
    whole = fit(command("whole", *accumulate))
    witness.die_after(6)
    assert launch(command("killed", *accumulate)) == [-signal.SIGKILL]
    assert state(tmp_path / "killed")["global_step"] == 5
    witness.die_after(None)
    assert_equal_runs(whole, fit(command("killed", *accumulate)))


def test_a_run_in_micro_batches_with_averaged_weights_goes_on_as_if_nothing_had_happened(
    command: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]]
) -> None:
    contrastive = ["--model.objective", "multimodal.objectives.Clip", "--model.image_tower.init_args.standardise", "false"]
    average = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.5"]
    parts = [*contrastive, *average, "--model.image_tower.init_args.dropout", "0.5", "--model.micro_batch_size", "3"]
    whole = fit(command("whole", *parts))
    ((*expected,),) = witness.take()
    witness.die_after(9)
    assert launch(command("killed", *parts)) == [-signal.SIGKILL]
    witness.die_after(None)
    killed = fit(command("killed", *parts))
    assert_equal_runs(whole, killed)
    trained, again = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"] for run in (whole, killed))
    assert all(torch.equal(value, again[name]) for name, value in trained.items())
    assert witness.steps() == expected[:9] + expected[last_saved(9) :]


@given(
    every_s=st.floats(1, 1e4),
    steps_s=st.lists(st.floats(1e-3, 10), min_size=1, max_size=300),
    skew=st.floats(-1e5, 1e5),
)
def test_ranks_find_the_time_over_at_one_step_and_none_too_early(every_s: float, steps_s: list[float], skew: float) -> None:
    now: list[float] = [0.0]
    told: list[object] = [None]

    def tells(value: object) -> object:
        told[0] = value
        return value

    zero, other = SharedClock(every_s, now=lambda: now[0]), SharedClock(every_s, now=lambda: skew * now[0])
    saved_s = 0.0
    for step, step_s in enumerate(steps_s, start=1):
        now[0] += step_s
        due = zero.is_due(step, tells)
        assert other.is_due(step, lambda _: told[0]) == due
        if due:
            assert now[0] - saved_s >= every_s
            saved_s = now[0]
            zero.start(step)
            other.start(step)


@given(num_steps=st.integers(1, 5000))
def test_even_steps_are_timed_to_the_step_with_few_questions(num_steps: int) -> None:
    now, num_asked, due_at = [0.0], 0, 0
    clock = SharedClock(every_s=float(num_steps), now=lambda: now[0])

    def asks(value: tuple[bool, int]) -> tuple[bool, int]:
        nonlocal num_asked
        num_asked += 1
        return value

    while not due_at:
        now[0] += 1
        due_at = int(now[0]) if clock.is_due(int(now[0]), asks) else 0
    assert due_at == num_steps
    assert num_asked <= 2 + 2 * np.log2(num_steps + 1)


@pytest.mark.parametrize("option", ["--checkpoint_every_s", "--checkpoint_every_n_steps"])
def test_a_checkpoint_every_nothing_is_refused(arguments: Callable[..., list[str]], option: str) -> None:
    with pytest.raises(InputError, match=f"{option[2:]}=0.* must be .*, or null"):
        fit(arguments("run", option, "0"))


def test_a_run_whose_column_has_changed_since_does_not_go_on(command: Callable[..., list[str]], witness: Witnessed, tmp_path: Path) -> None:
    witness.die_after(6, of="SIGINT")
    with pytest.raises(KeyboardInterrupt):
        fit(command("run"))
    begun = tmp_path / "run" / "made_from.json"
    begun.write_text(begun.read_text().replace(json.loads(begun.read_text())["column topics"], "0" * 64))
    with pytest.raises(InputError, match=r"column topics was 000000000000\.\. and is .* now"):
        fit(command("run"))
