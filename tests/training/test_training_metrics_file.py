from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.training.loggers import MetricsFile


def read(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_figures_of_one_step_are_one_row_also_where_it_was_on_disk_already(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"train/loss": 3.0, "epoch": 0}, step=0)
    log.save()
    log.log_metrics({"val/loss": 4.0, "epoch": 0}, step=0)
    log.save()
    log.log_metrics({"train/loss": 2.0, "epoch": 1}, step=1)
    log.save()
    assert read(tmp_path) == [
        {"epoch": "0", "step": "0", "train/loss": "3.0", "val/loss": "4.0"},
        {"epoch": "1", "step": "1", "train/loss": "2.0", "val/loss": ""},
    ]


def test_a_file_taken_up_at_a_step_says_which_figures_it_had(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    figures = [{"train/loss": 3.0}, {"train/loss": 2.0, "val/loss": 2.5}, {"train/loss": 1.0}]
    for step, of_step in enumerate(figures):
        log.log_metrics({**of_step, "epoch": 0}, step)
    log.save()
    assert MetricsFile(tmp_path).forget_from(1) == {step: {**of_step, "epoch": 0} for step, of_step in enumerate(figures)}
    assert [row["step"] for row in read(tmp_path)] == ["0"]
    assert MetricsFile(tmp_path / "none").forget_from(0) == {}


@settings(max_examples=30, deadline=None)
@given(
    figures=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=12),
    stops_after=st.integers(0, 12),
)
def test_a_file_taken_up_at_a_step_ends_as_if_it_had_never_been_left(
    figures: list[tuple[int, str, bool]], stops_after: int, tmp_path_factory: object
) -> None:
    tmp_path = tmp_path_factory.mktemp("metrics")  # type: ignore[attr-defined]
    step, logged = 0, []
    for forward, name, saves in figures:
        step += forward
        logged.append((step, name, saves))
    for run in ("whole", "stopped"):
        (tmp_path / run).mkdir()
    whole = MetricsFile(tmp_path / "whole")
    for step, name, saves in logged:
        whole.log_metrics({name: float(step)}, step)
        if saves:
            whole.save()
    whole.finalize("success")
    stopped = MetricsFile(tmp_path / "stopped")
    for step, name, _ in logged[:stops_after]:
        stopped.log_metrics({name: float(step)}, step)
        stopped.save()
    goes_on_with = logged[stops_after // 2][0] if logged[stops_after // 2 :] else 0
    taken_up = MetricsFile(tmp_path / "stopped")
    taken_up.forget_from(goes_on_with)
    for step, name, _ in logged:
        if step >= goes_on_with:
            taken_up.log_metrics({name: float(step)}, step)
    taken_up.finalize("success")
    if logged:
        filled = [[{key: value for key, value in row.items() if value} for row in read(tmp_path / run)] for run in ("whole", "stopped")]
        assert filled[0] == filled[1]


@settings(max_examples=30, deadline=None)
@given(logged=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["a", "b/c (%)", "d"]), st.booleans()), min_size=1, max_size=12))
def test_figures_logged_in_any_order_of_steps_are_one_row_a_step(
    logged: list[tuple[int, str, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("metrics")
    log, expected = MetricsFile(tmp_path), {}
    for number, (step, name, saves) in enumerate(logged):
        log.log_metrics({name: torch.tensor(number)}, step)
        expected.setdefault(step, {"step": str(step)})[name] = str(number)
        if saves:
            log.save()
    log.finalize("success")
    assert [{key: value for key, value in row.items() if value} for row in read(tmp_path)] == [expected[step] for step in sorted(expected)]


def test_figures_without_a_step_are_those_of_the_last_one(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"first": 1.0})
    log.log_metrics({"train/loss": 3.0}, step=4)
    log.log_metrics({"mine": 2.0})
    log.save()
    assert [(row["step"], row["mine"]) for row in read(tmp_path)] == [("0", ""), ("4", "2.0")]
