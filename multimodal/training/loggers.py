"""Where a run's figures go: always to metrics.csv in its folder, and to Weights & Biases where the config asks for it.

    trainer:
      logger: {class_path: multimodal.training.WeightsAndBiases, init_args: {project: pairs}}

metrics.csv has one row for each step at which something was logged, `epoch` and `step` first; a figure that was not logged then is empty.
"""

from __future__ import annotations

import csv
import io
import math
import netrc
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from multimodal.boxes import atomic_write
from multimodal.training.panels import Panel, View

METRICS = "metrics.csv"
WANDB_ID = "wandb-id"
STEP, PAIRS_SEEN, EPOCH = "trainer/global_step", "trainer/pairs_seen", "epoch"
BEST = {"val/R@*": "max", "val/loss": "min", "val/median_rank": "min", "train/loss": "min"}
"""What a table of W&B runs shows of a figure: its best value. Of others the last one."""


class MetricsFile(Logger):
    """`<run>/metrics.csv`. A run that goes on from a checkpoint forgets the rows after it, and appends.

    Lightning's own CSVLogger deletes the file of a run that goes on, and writes training and validation figures of one step as two rows.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / METRICS
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._num_whole = 0
        """Rows on disk that nothing can be added to."""
        self._end_of_whole = 0
        """Where in the file they end."""

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(metrics)
        else:
            self._rows.append({**metrics, "step": step})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml is in the same folder."""

    def forget_from(self, step: int) -> dict[int, set[str]]:
        """Take up the file again where the run goes on with this optimiser step. Returns what it forgets: step -> names of the figures."""
        if not self.path.is_file():
            return {}
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = {int(row["step"]): {key: value for key, value in row.items() if value and key != "step"} for row in csv.DictReader(file)}
        self._rows = [{**row, "step": at} for at, row in rows.items() if at < step]
        self._write_all()
        return {at: row.keys() - {"epoch"} for at, row in rows.items() if at >= step}

    @rank_zero_only
    def save(self) -> None:
        """Bring what was logged since to disk: appended, or the file written anew where a column is new."""
        new = self._rows[self._num_whole :]
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


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a run gets with each optimiser step. pairs_per_epoch, pairs_per_step: those of all ranks."""

    pairs_per_epoch: int
    pairs_per_step: int

    def pairs_seen(self, step: int) -> int:
        """Pairs trained on when this step, counted from 0, is done. The last step of an epoch takes what is left of it."""
        epoch, within = divmod(step, math.ceil(self.pairs_per_epoch / self.pairs_per_step))
        return epoch * self.pairs_per_epoch + min((within + 1) * self.pairs_per_step, self.pairs_per_epoch)


class WeightsAndBiases(Logger):
    """W&B: live where this machine is logged in or has a key, and otherwise offline in the run's folder, which it says.

    project, entity, name, group, tags: as W&B has them; the name is by default that of the run's folder. WANDB_MODE wins, where it is set.
    panels: name -> what is shown of each validation (`multimodal.training.panels`): a table `<name>/table`, and composed pictures with
    captions, `<name>/pictures`. Logged under the same two names each time, both have a slider over the validations in the browser.
    Pictures are no cells of the table: W&B keeps those of an offline run as artifacts alone, and nobody can look at them before it is sent.

    Figures are drawn over optimiser steps; `trainer/pairs_seen` and `epoch` come with each of them, to be chosen as axes.
    A run that goes on from a checkpoint keeps its W&B id, and what it computes again is not told again: the figures are the same ones.
    Lightning's WandbLogger waits for a login, which nobody can give a batch job.
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
        super().__init__()
        self.panels: Mapping[str, Panel] = panels or {}
        self.pace: Pace | None = None
        """Set when the run's loaders are there, before anything is logged."""
        self._settings: dict[str, Any] = {"project": project, "entity": entity, "name": name, "group": group, "tags": tags}
        self._folder: Path | None = None
        self._run: Any = None
        self._told: Mapping[int, set[str]] = {}
        self._axes: dict[str, int] = {}
        self.listens = False
        """Whether the figures that came last were news to W&B."""

    def place(self, run: Path) -> None:
        """Write into `<run>/wandb`; the door says so before anything is logged."""
        self._folder = run

    def leave_out(self, figures: Mapping[int, set[str]]) -> None:
        """Do not tell these again, step -> names, if W&B was told of the run before it stopped."""
        assert self._folder is not None
        if (self._folder / WANDB_ID).is_file():
            self._told = figures

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None and self.pace is not None
        self._axes = {STEP: step, PAIRS_SEEN: self.pace.pairs_seen(step), EPOCH: int(metrics[EPOCH])}
        news = {name: value for name, value in metrics.items() if name != EPOCH and name not in self._told.get(step, ())}
        self.listens = bool(news)
        if news:
            self._started().log({**news, **self._axes})

    @rank_zero_only
    def log_views(self, views: Mapping[str, View]) -> None:
        """Log what panels show, by their names, at the step of the figures that came last."""
        import wandb

        assert self._folder is not None
        media: dict[str, Any] = {}
        for name, view in views.items():
            media[f"{name}/table"] = wandb.Table(columns=list(view.columns), data=[list(row) for row in view.rows])
            media[f"{name}/pictures"] = [wandb.Image(shown.picture, caption=shown.caption, file_type="jpg") for shown in view.pictures]
        with _staged_in(self._folder / "wandb"):
            self._started().log({**media, **self._axes})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._started().config.update(params, allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None

    def _started(self) -> Any:
        if self._run is None:
            assert self._folder is not None, "the door places a logger before it is used"
            import wandb

            self._folder.mkdir(parents=True, exist_ok=True)
            id_file = self._folder / WANDB_ID
            if not id_file.is_file():
                with atomic_write(id_file) as file:
                    file.write(f"{uuid.uuid4().hex[:12]}\n".encode())
            settings = {**self._settings, "name": self._settings["name"] or self._folder.resolve().name}
            mode: Any = os.environ.get("WANDB_MODE") or ("online" if _is_logged_in(wandb.setup().settings) else "offline")
            if mode == "offline":
                print(
                    f"W&B: offline, kept in {self._folder / 'wandb'}. Send it later: wandb sync {self._folder}/wandb/offline-run-*",
                    file=sys.stderr,
                )
            self._run = wandb.init(
                **settings,
                dir=self._folder,
                id=id_file.read_text().strip(),
                resume="allow",
                mode=mode,
                settings=wandb.Settings(silent=True, disable_git=True),  # the repository of the current folder need not be that of the code
            )
            for axis in (STEP, PAIRS_SEEN, EPOCH):
                self._run.define_metric(axis)
            self._run.define_metric("*", step_metric=STEP, step_sync=True)
            for figure, best in BEST.items():
                self._run.define_metric(figure, step_metric=STEP, step_sync=True, summary=best)
        return self._run


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let W&B keep what it has yet to send of tables in this folder, instead of in the user's home, which a batch job may not write to."""
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
