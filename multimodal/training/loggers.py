"""Where a run's figures go: always to metrics.csv in its folder, and to Weights & Biases if the config says so.

    trainer:
      logger: {class_path: multimodal.training.WeightsAndBiases, init_args: {project: pairs}}

metrics.csv has one row for each step at which something was logged, `epoch` and `step` first; a figure that was not logged at it is empty.
"""

from __future__ import annotations

import bisect
import csv
import errno
import io
import math
import netrc
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from multimodal.boxes import atomic_write
from multimodal.training.offline_wandb import STEP, offline_files, read_offline
from multimodal.training.panels import Panel, View

METRICS = "metrics.csv"
WANDB_ID = "wandb-id"
PAIRS_SEEN, EPOCH = "trainer/pairs_seen", "epoch"
BEST = {"val/R@*": "max", "val/loss": "min", "val/median_rank": "min", "val/trade_off": "max", "train/loss": "min"}
"""Figures of which a table of W&B runs shows the best value; of others it shows the last."""


class MetricsFile(Logger):
    """`<run>/metrics.csv`. A run that resumes from a checkpoint drops the rows after it, and appends.

    Figures of one step are one row, in whatever order they are logged; the default step is the last one.
    Lightning's own CSVLogger deletes the file of a resumed run, and writes training and validation figures of one step as two rows.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / METRICS
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._num_whole = 0
        """Rows on disk that are complete."""
        self._end_of_whole = 0
        """The offset in the file at which they end."""

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder, where Lightning's profilers write too."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        figures = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        if step is None:
            step = self._rows[-1]["step"] if self._rows else 0
        place = bisect.bisect_left(self._rows, step, key=_step_of)
        if place < self._num_whole:  # the next `save` rewrites the file
            self._columns = []
        if place < len(self._rows) and self._rows[place]["step"] == step:
            self._rows[place].update(figures)
        else:
            self._rows.insert(place, {**figures, "step": step})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml is in the same folder."""

    def forget_from(self, step: int) -> dict[int, dict[str, Any]]:
        """Continue the file from this optimiser step. Returns all that it held: step -> the figures."""
        if not self.path.is_file():
            return {}
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = {int(row["step"]): {key: value for key, value in row.items() if value and key != "step"} for row in csv.DictReader(file)}
        self._rows = [{**row, "step": at} for at, row in rows.items() if at < step]
        self._write_all()
        return {at: {name: _value(text) for name, text in row.items()} for at, row in rows.items()}

    @rank_zero_only
    def save(self) -> None:
        """Write to disk what was logged since: appended, or the whole file if a column is new."""
        new = self._rows[self._num_whole :]
        if new and not self.path.parent.is_dir():  # never recreated: the folder holds the run
            raise FileNotFoundError(errno.ENOENT, "the run's folder is gone", str(self.path.parent))
        if any(key not in self._columns for row in new for key in row):
            self._write_all()
        elif new:
            with open(self.path, "r+b") as file:
                file.seek(self._end_of_whole)
                file.write(self._lines(new[:-1]))
                self._end_of_whole = file.tell()
                file.write(self._lines(new[-1:]))
                file.truncate()
            self._num_whole = len(self._rows) - 1

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _write_all(self) -> None:
        names = {key for row in self._rows for key in row if key not in ("epoch", "step")}
        self._columns = ["epoch", "step", *sorted(names)]
        with atomic_write(self.path) as file:
            file.write((",".join(self._columns) + "\n").encode() + self._lines(self._rows[:-1]))
            self._end_of_whole = file.tell()
            file.write(self._lines(self._rows[-1:]))
        self._num_whole = max(0, len(self._rows) - 1)

    def _lines(self, rows: list[dict[str, Any]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue().encode()


def _value(text: str) -> Any:
    """A cell's value as it was logged: nearly always a number."""
    try:
        return float(text)
    except ValueError:
        return text


def _step_of(row: Mapping[str, Any]) -> int:
    return int(row["step"])


@dataclass(frozen=True, slots=True)
class Pace:
    """A run's progress per optimiser step. pairs_per_epoch, pairs_per_step: of all ranks."""

    pairs_per_epoch: int
    pairs_per_step: int

    def pairs_seen(self, step: int) -> int:
        """Pairs trained on after this step, counted from 0. The last step of an epoch takes the rest of it."""
        epoch, within = divmod(step, self._steps_per_epoch)
        return epoch * self.pairs_per_epoch + min((within + 1) * self.pairs_per_step, self.pairs_per_epoch)

    def epoch(self, step: int) -> int:
        """The epoch, counted from 0, that this step is in."""
        return step // self._steps_per_epoch

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(self.pairs_per_epoch / self.pairs_per_step)


class WeightsAndBiases(WandbLogger):
    """W&B: live if this machine is logged in or has a key, else offline in the run's folder; a line on stderr says so.

    project, entity, name, group, tags: as in W&B; by default, the name is that of the run's folder. WANDB_MODE, if set, takes precedence.
    panels: name -> what is shown of each validation (`multimodal.training.panels`): a table `<name>/table`, and composed pictures with
    captions, `<name>/pictures`. Since the two names stay the same, both have a slider over the validations in the browser.
    Pictures are not cells of the table: for an offline run, W&B keeps those only as artifacts, which cannot be viewed before it is sent.

    Figures are plotted over optimiser steps; `trainer/pairs_seen` and `epoch` are logged with each, and can be chosen as axes.
    A resumed run keeps its W&B id, and what it computes again is not logged again: the figures are the same.
    W&B's own process writes an offline run 32 KiB at a time; figures that it lost when it was killed are logged again, from metrics.csv.
    Panels of validations before the checkpoint are not.
    Otherwise it is Lightning's WandbLogger (`experiment`, `log_image`, `watch` ...), but it never waits for a login, which a batch job
    cannot give.
    """

    def __init__(
        self,
        project: str = "multimodal",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        panels: dict[str, Panel] | None = None,
    ) -> None:
        super().__init__(project=project, name=name, entity=entity, group=group, tags=tags)
        self.panels: Mapping[str, Panel] = panels or {}
        self.pace: Pace | None = None
        """Known once the run's loaders exist."""
        self._logged_before: Mapping[int, set[str]] = {}
        self._lost: Mapping[int, Mapping[str, Any]] = {}
        self._axes: dict[str, int] = {}
        self._open = ExitStack()

    def place(self, run: Path) -> None:
        """Write into `<run>/wandb`; called by the door before anything is logged."""
        self._save_dir = str(run)

    def take_up(self, step: int, figures: Mapping[int, Mapping[str, Any]]) -> None:
        """Resume a run at this optimiser step; figures: step -> all that metrics.csv held when it was stopped."""
        if not (self._folder / WANDB_ID).is_file():
            return
        if offline_files(self._folder):
            has = read_offline(self._folder).names()
            self._lost = {
                at: {name: value for name, value in row.items() if name not in has.get(at, ())} for at, row in figures.items() if at < step
            }
        else:  # live: what was logged has been sent, panels with the figures of their validation
            panels = {_table(name) for name in self.panels}
            has = {at: {*row, *(panels if "val/loss" in row else ())} for at, row in figures.items()}
        self._logged_before = {at: names for at, names in has.items() if at >= step}

    def begin(self, pace: Pace) -> None:
        """Called when the run's loaders exist."""
        self.pace = pace
        for step, figures in self._lost.items():
            self.log_metrics(figures, step)
        self._lost = {}

    def lacks(self, panel: str) -> bool:
        """Whether W&B still lacks this panel of the last validation."""
        return _table(panel) not in self._logged_before.get(self._axes.get(STEP, -1), ())

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's own run, started at first use."""
        if self._experiment is None:
            self._experiment = self._begun()
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log with the axes of that optimiser step; by default that of the last figures."""
        if step is not None:
            self._axes = {STEP: step}
            if self.pace is not None:
                self._axes |= {PAIRS_SEEN: self.pace.pairs_seen(step), EPOCH: self.pace.epoch(step)}
        if EPOCH in metrics:
            self._axes[EPOCH] = int(metrics[EPOCH])
        before = self._logged_before.get(self._axes.get(STEP, -1), ())
        news = {name: value for name, value in metrics.items() if name != EPOCH and name not in before}
        if news:
            self.experiment.log({**news, **self._axes})

    @rank_zero_only
    def log_views(self, views: Mapping[str, View]) -> None:
        """Log what panels show, by their names, at the step of the last figures."""
        import wandb

        media: dict[str, Any] = {}
        for name, view in views.items():
            media[_table(name)] = wandb.Table(columns=list(view.columns), data=[list(row) for row in view.rows])
            media[f"{name}/pictures"] = [wandb.Image(shown.picture, caption=shown.caption, file_type="jpg") for shown in view.pictures]
        self.experiment.log({**media, **self._axes})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None
        self._open.close()

    @property
    def _folder(self) -> Path:
        assert self._save_dir is not None
        return Path(self._save_dir)

    def _begun(self) -> Any:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        id_file = self._folder / WANDB_ID
        if not id_file.is_file():
            given = os.environ.get("WANDB_RUN_ID")  # set by the agent of a sweep, which waits for figures of that id
            with atomic_write(id_file) as file:
                file.write(f"{given or uuid.uuid4().hex[:12]}\n".encode())
        self._id = id_file.read_text().strip()
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if _is_logged_in(wandb.setup().settings) else "offline")
        if mode == "offline":
            kept = self._folder / "wandb"
            print(f"W&B: offline, kept in {kept}. Send it later: wandb sync {kept}/offline-run-*", file=sys.stderr)
        self._open.enter_context(_staged_in(self._folder / "wandb"))
        settings = {name: self._wandb_init[name] for name in ("project", "entity", "group", "tags")}
        run = wandb.init(
            **settings,
            name=self._name or self._folder.resolve().name,
            dir=self._folder,
            id=self._id,
            resume="allow",
            mode=mode,
            settings=wandb.Settings(silent=True, disable_git=True),  # the current folder's repository need not be that of the code
        )
        for axis in (STEP, PAIRS_SEEN, EPOCH):
            run.define_metric(axis)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        for figure, best in BEST.items():
            run.define_metric(figure, step_metric=STEP, step_sync=True, summary=best)
        return run


def _table(panel: str) -> str:
    """The name of a panel's table in W&B."""
    return f"{panel}/table"


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Make W&B keep tables to be sent in this folder instead of the user's home, which a batch job may not write to."""
    name = "WANDB_DATA_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ[name]


def _is_logged_in(settings: Any) -> bool:
    """Whether W&B would find a key without asking: in its settings or environment, or in the netrc file that `wandb login` writes."""
    if settings.api_key or settings.identity_token_file:
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(settings.base_url).hostname or "") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
