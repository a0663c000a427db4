from __future__ import annotations

import csv
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodal.training import recipes
from multimodal.training.door import fit

BLOCK, HEADER = 32 * 1024, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(path: Path) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format, blocks of 32 KiB, crc32, length and type before each fragment."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, fragments = HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        fragment = content[position + HEADER : position + HEADER + length]
        assert zlib.crc32(fragment, zlib.crc32(bytes([kind]))) & 0xFFFFFFFF == checksum
        position += HEADER + length
        fragments += fragment
        if kind in (FULL, LAST):
            yield fragments
            fragments = b""


def read_offline_run(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What W&B would be sent: the history, one row a step, and the config."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is not installed (extra train)")
    [path] = run.glob("wandb/offline-run-*/run-*.wandb")
    history: dict[int, dict[str, Any]] = {}
    config: dict[str, Any] = {}
    for payload in payloads(path):
        record = pb.Record.FromString(payload)
        if record.HasField("history"):
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            history.setdefault(int(row["trainer/global_step"]), {}).update(row)
        for update in (record.run.config.update, record.config.update):
            config.update({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in update})
    return [history[step] for step in sorted(history)], config


def test_an_offline_run_holds_the_figures_of_metrics_csv_and_the_config(
    arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_login"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    run = fit(arguments("run", "--config", str(recipes.find("trainer/wandb.yaml")), "--trainer.max_epochs", "2"))
    assert "W&B: offline" in capsys.readouterr().err  # said, not silent
    history, config = read_offline_run(run)
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    assert [row["trainer/global_step"] for row in history] == [row["step"] for row in rows]
    for sent, written in zip(history, rows, strict=True):
        assert {key: sent[key] for key in written if key != "step"} == pytest.approx(
            {key: value for key, value in written.items() if key != "step"}
        )
    assert config["model"]["optimiser"]["lr"] == 0.01
    assert config["data"]["image"]["class_path"] == "multimodal.data.ColumnRows"
