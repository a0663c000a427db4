from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any

import pytest

from multimodal.machine import progress
from multimodal.machine.progress import track


@pytest.fixture
def every_item_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], items: Iterable[int], seconds_each: float, **settings: Any
) -> list[str]:
    """The plain lines, of items that each take so long by the clock."""
    clock = itertools.count(0.0, seconds_each)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        for _ in track(items, "shards of photos", **settings):
            pass
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("every_item_is_told")
def test_a_plain_line_says_how_far_how_fast_how_long_and_what_was_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(monkeypatch, capsys, range(4), 0.5, unit="shard", note=lambda: "3 left out")
    assert lines[0] == "shards of photos: 1/4 shards, 2.0/s, 2 s left, 3 left out"
    assert lines[3] == "shards of photos: 4/4 shards, 2.0/s, done, 3 left out"


@pytest.mark.usefixtures("every_item_is_told")
@pytest.mark.parametrize(
    ("seconds_each", "pace", "left"), [(1.5, "40.0/min", "90 s"), (20, "3.0/min", "20 min"), (600, "0.1/min", "10.0 h")]
)
def test_slow_items_are_reported_in_minutes_and_hours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds_each: float, pace: str, left: str
) -> None:
    lines = told(monkeypatch, capsys, range(61), seconds_each)
    assert lines[0] == f"shards of photos: 1/61 items, {pace}, {left} left"


@pytest.mark.usefixtures("every_item_is_told")
def test_without_a_total_no_end_is_predicted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(monkeypatch, capsys, iter(range(2)), 0.25, unit="pair", weight=10)
    assert lines[0] == "shards of photos: 10 pairs, 40.0/s"
