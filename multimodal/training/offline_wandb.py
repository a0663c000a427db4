"""What an offline W&B run would send, read from the run's folder without W&B's server. `scripts/wandb_report.py` prints it.

sent = read_offline(Path("runs/topic"))
sent.history()[-1]["val/R@10"], sent.config["made_from"], sent.table("queries/table", step=439).rows
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal.errors import InputError

STEP = "trainer/global_step"
MAGIC = b":W&B"
BLOCK, HEADER = 32 * 1024, 7
FULL, LAST = 1, 4


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was logged. rows: a cell for each of columns."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Logged:
    """What one call logged: name -> a figure, or the path of a table or of pictures. files: the folder of those paths."""

    values: Mapping[str, Any]
    files: Path

    @property
    def step(self) -> int:
        """The optimiser step."""
        return int(self.values[STEP])


@dataclass(frozen=True, slots=True)
class OfflineRun:
    """All that a run logged, in order, also across stops and resumes.

    config: nested, as it was at the end. summaries: name, or a prefix and `*` -> "max" or "min": which of its values summarises a figure.
    is_finished: whether the end was written. W&B's own process (0.31) writes the last records a moment after `finish` returns.
    """

    config: Mapping[str, Any]
    logged: list[Logged]
    summaries: Mapping[str, str]
    is_finished: bool

    def history(self) -> list[dict[str, Any]]:
        """One row of figures, tables and pictures for each step, steps ascending."""
        rows: dict[int, dict[str, Any]] = {}
        for call in self.logged:
            rows.setdefault(call.step, {}).update(call.values)
        return [rows[step] for step in sorted(rows)]

    def steps(self, name: str) -> list[int]:
        """The steps at which this name was logged, once for each time."""
        return [call.step for call in self.logged if name in call.values]

    def names(self) -> dict[int, set[str]]:
        """Step -> the names that were logged at it."""
        return {row[STEP]: {*row} for row in self.history()}

    def table(self, name: str, step: int) -> Table:
        """The table that was logged under this name at a step. KeyError if there is none."""
        call = self._call(name, step)
        content = json.loads((call.files / call.values[name]["path"]).read_text(encoding="utf-8"))
        return Table(content["columns"], content["data"])

    def pictures(self, name: str, step: int) -> dict[str, Path]:
        """Caption -> file of the pictures that were logged under this name at a step. KeyError if there are none."""
        call = self._call(name, step)
        value = call.values[name]
        return {caption: call.files / file for caption, file in zip(value["captions"], value["filenames"], strict=True)}

    def _call(self, name: str, step: int) -> Logged:
        for call in self.logged:
            if call.step == step and name in call.values:
                return call
        raise KeyError(f"{name} at step {step}")


def read_offline(run: Path) -> OfflineRun:
    """Read `<run>/wandb/offline-run-*`, one for each time that the run was started or resumed. InputError if there is none."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # defined at import time

    files = offline_files(run)
    if not files:
        raise InputError(
            f"{run}: holds no offline W&B run. One is made by a machine without a login: multimodal fit ... --config trainer/wandb.yaml"
        )
    config: dict[str, Any] = {}
    summaries: dict[str, str] = {}
    logged: list[Logged] = []
    is_finished = False
    for file in files:
        is_finished = False
        for payload in records(file):
            record = Record.FromString(payload)
            is_finished = record.HasField("exit")
            config.update(_nested(record.run.config.update))
            config.update(_nested(record.config.update))
            if record.HasField("history"):
                # A record without a step belongs to the step before it.
                before = {STEP: logged[-1].step} if logged else {STEP: 0}
                logged.append(Logged(before | _nested(record.history.item), file.parent / "files"))
            for best in ("max", "min"):
                if getattr(record.metric.summary, best):
                    summaries[record.metric.name or record.metric.glob_name] = best
    return OfflineRun(config, logged, summaries, is_finished)


def offline_files(run: Path) -> list[Path]:
    """The files that W&B's own process wrote, one for each time that the run was started or resumed; empty if it was logged in."""
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"))


def _nested(items: Iterable[Any]) -> dict[str, Any]:
    """Protocol items, each with a key or a path of keys, as a nested mapping."""
    nested: dict[str, Any] = {}
    for item in items:
        *outer, name = item.nested_key or [item.key]
        place = nested
        for key in outer:
            place = place.setdefault(key, {})
        place[name] = json.loads(item.value_json)
    return nested


def records(path: Path) -> Iterator[bytes]:
    """The records of a run's file: LevelDB's log format, blocks of 32 KiB, crc32, length and type before each fragment.

    A run that was killed leaves a torn record at the end, which is skipped. InputError if the file is of another kind or damaged.
    """
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise InputError(f"{path}: is not a file of a W&B run: it begins with {content[:4]!r}")
    position, fragments = HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:  # too short for a header, padded with zeros
            position += BLOCK - position % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        fragment = content[position + HEADER : position + HEADER + length]
        if len(fragment) < length:
            return
        if zlib.crc32(fragment, zlib.crc32(bytes([kind]))) != checksum:
            raise InputError(f"{path}: is damaged at byte {position}: a record's checksum is wrong")
        position += HEADER + length
        fragments += fragment
        if kind in (FULL, LAST):
            yield fragments
            fragments = b""
