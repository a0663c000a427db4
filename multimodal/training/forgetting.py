"""What a fine-tuning forgets: figures of what the weights could do before the first step, beside those of the run's own pairs.

    multimodal fit ... --init_from runs/base --forgetting.pairs data/flickr8k --forgetting.part dev

Measured before the first step and at each validation. val/kept is how much is left of what the weights could do, val/trade_off weighs it
against val/R@10 and decides which checkpoint is the best, and a run of which too little is left stops and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from multimodal.boxes import atomic_write, fingerprint_file, fingerprint_json
from multimodal.errors import InputError
from multimodal.metrics import kept, trade_off
from multimodal.pages import render
from multimodal.pages.both_sides import Curve, both_sides
from multimodal.shards import Part, SetPath, ShardSet, open_set
from multimodal.training.abilities import (
    FOREIGN,
    ZERO_SHOT,
    Ability,
    ForeignPairs,
    Measured,
    encode_pairs,
    evaluating,
    is_shards,
    open_classes,
    some,
)
from multimodal.training.datamodule import PairData
from multimodal.training.module import PairModule, retrieval_figures

OWN, KEPT, TRADE_OFF = "val/R@10", "val/kept", "val/trade_off"
OF_CLASSES = "val/mAP@R"
"""What decides which epoch is best if the target is a label."""
OF_VIEWS = "val/accuracy"
"""What decides it if the picture asks about itself."""
PAGE = "forgetting.html"
BEFORE = -1
"""The epoch, and the step in metrics.csv, of what is measured before the first step."""
MIN_ERRORS = 3
"""How many standard errors above chance the weights must be before the first step, so that there is something to forget."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One validation, or what was measured before the first step. step: optimiser steps done. figures: by their names in metrics.csv."""

    epoch: int
    step: int
    figures: Mapping[str, float]


class Forgetting(Callback):
    """Measures what the weights could do before the run, and stops it when that is lost. Off unless pairs or classes are given.

    pairs: foreign pairs, a shard set that has the columns that this run reads; their retrieval is val/foreign_R@10, measured as val/R@10.
    part: of the foreign pairs, or of a shard set of classes: test (by the run's split), all, or a split of the source's own, such as dev.
    max_pairs: at most so many pairs or pictures of each, evenly spread over the part.
    classes: labelled pictures, a .npz or a folder as for `multimodal evaluate zeroshot`, whose train part is used, or a shard set; the
    share of pictures whose class is the nearest is val/zero_shot. label: for a shard set, its column of metadata with the class.
    names, templates: files with a name for each class, and with texts such as `a photo of a {}.`; as for `multimodal evaluate zeroshot`.
    space: for a text column, the text space that made it, to read the names.
    weight: of what is kept in val/trade_off = val/R@10 ^ (1 - weight) * val/kept ^ weight; 0.5 is the geometric mean. val/kept is the share
    of what the weights could do before the first step, in per cent above chance; of several figures the smallest. The initial weights are a
    candidate for the best checkpoint too.
    min_kept: the run stops when val/kept falls below it; 0: never.
    """

    def __init__(
        self,
        pairs: SetPath | None = None,
        part: Part = "test",
        max_pairs: int = 1000,
        classes: Path | None = None,
        label: str | None = None,
        names: Path | None = None,
        templates: Path | None = None,
        space: Path | None = None,
        weight: float = 0.5,
        min_kept: float = 50.0,
    ) -> None:
        if not 0 <= weight <= 1:
            raise InputError(f"forgetting.weight={weight} must be from 0, only the own pairs count, to 1, only what is kept")
        if not 0 <= min_kept <= 100:
            raise InputError(f"forgetting.min_kept={min_kept} must be a share in per cent, from 0 (never stop) to 100")
        if max_pairs < 2:
            raise InputError(f"forgetting.max_pairs={max_pairs} must be at least 2")
        for name, given in {"label": label, "names": names, "templates": templates, "space": space}.items():
            if given is not None and classes is None:
                raise InputError(f"forgetting.{name}={given}: needs --forgetting.classes, the pictures that it is for")
        self.pairs, self.part, self.max_pairs, self.classes = pairs, part, max_pairs, classes
        self.label, self.names, self.templates, self.space = label, names, templates, space
        self.weight, self.min_kept = weight, min_kept
        self.run: Path | None = None
        """Where the page is written; set by the door."""
        self.measured: list[Measurement] = []
        self._abilities: list[Ability] = []
        self._collapse = ""

    @property
    def is_on(self) -> bool:
        return self.pairs is not None or self.classes is not None

    def made_from(self, data: PairData) -> dict[str, str]:
        """Fingerprints of what is measured on, so that a run resumes only with the same."""
        given = {"classes": self.classes, "names": self.names, "templates": self.templates}
        made_from = {f"forgetting {name}": _fingerprint(path) for name, path in given.items() if path is not None}
        if self.pairs is not None:
            made_from["forgetting pairs"] = open_set(self.pairs, data.cache, data.cache_bytes).fingerprint
        return made_from

    def state_dict(self) -> dict[str, Any]:
        return {"measured": [asdict(one) for one in self.measured]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.measured = [Measurement(**one) for one in state_dict["measured"]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        data: PairData = trainer.datamodule  # type: ignore[attr-defined]
        self._abilities = self._opened(data)
        if not self.measured:
            self._begin(trainer, pl_module, data)
        self._judge()  # again: a run that has stopped for it would go on otherwise

    def _opened(self, data: PairData) -> list[Ability]:
        abilities: list[Ability] = []
        if self.pairs is not None:
            shards = open_set(self.pairs, data.cache, data.cache_bytes)
            ids = some(data.split.ids(shards, self.part), self.max_pairs)
            if len(ids) < 2:
                raise InputError(
                    f"forgetting.pairs: {len(ids)} pairs of {shards.place} are in part {self.part!r}. Give another --forgetting.part: "
                    f"{', '.join(shards.part_names)}"
                )
            abilities.append(ForeignPairs(shards, ids, data))
        if self.classes is not None:
            files = self.names, self.templates, self.space
            abilities.append(open_classes(self.classes, self.label, self.part, *files, self.max_pairs, data))
        return abilities

    def _begin(self, trainer: L.Trainer, module: PairModule, data: PairData) -> None:
        """Measure before the first step."""
        limit = next(iter(trainer.num_val_batches), None)
        loader: Any = data.val_dataloader()
        with evaluating(module):
            own = retrieval_figures(encode_pairs(module, islice(loader, None if limit is None or math.isinf(limit) else int(limit))))
            others = [ability.measure(module) for ability in self._abilities]
        for one in others:
            error = 100 * math.sqrt(max(one.chance, 1e-9) / 100 * (1 - one.chance / 100) / one.num)
            if one.value < one.chance + MIN_ERRORS * error:
                raise InputError(
                    f"forgetting: before the first step {one.name} is {one.value:.1f}, no better than chance ({one.chance:.1f}), "
                    "so there is nothing to forget. Start from weights that can do it (--init_from FOLDER, --clip NAME), or measure "
                    "something else"
                )
        figures = self._figures({f"val/{name}": value for name, value in own.items()}, others)
        self.measured.append(Measurement(BEFORE, 0, figures))
        for logger in trainer.loggers:
            logger.log_metrics({**figures, "epoch": BEFORE}, step=BEFORE)
            logger.save()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairModule)
        if trainer.sanity_checking:
            return
        own = pl_module.end_validation()
        with evaluating(pl_module):
            others = [ability.measure(pl_module) for ability in self._abilities]
        figures = self._figures(own, others)
        pl_module.log_dict(
            {name: value for name, value in figures.items() if name not in own}, rank_zero_only=False, sync_dist=False
        )  # the same on all ranks
        self.measured.append(Measurement(trainer.current_epoch, trainer.global_step, figures))
        self._judge()

    def _figures(self, own: Mapping[str, float], others: Sequence[Measured]) -> dict[str, float]:
        before = self.measured[0].figures if self.measured else {one.name: one.value for one in others}
        left = min(kept(one.value, before[one.name], one.chance) for one in others)
        return {
            **own,
            **{one.name: one.value for one in others},
            **{one.chance_name: one.chance for one in others},
            KEPT: left,
            TRADE_OFF: trade_off(own.get(OWN, 0.0), left, self.weight),
        }

    # -- the end of a run that forgets -----------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        last = self.measured[-1]
        if last.figures[KEPT] < self.min_kept:
            self._collapse = (
                f"after epoch {last.epoch}, {KEPT} is {last.figures[KEPT]:.1f}, below forgetting.min_kept={self.min_kept:g}: "
                + ", ".join(self.changes(last, own=False))
            )

    def changes(self, to: Measurement, own: bool = True) -> list[str]:
        """Each figure before the first step and then, with chance. own: of the own pairs too."""
        first = self.measured[0].figures
        return [
            f"{name} went from {first[name]:.1f} to {to.figures[name]:.1f} (chance {to.figures[_chance_of(name)]:.1f})"
            for name in self._names()
            if own or name != OWN
        ]

    def measured_in(self, epoch: int) -> Measurement:
        """The last measurement of an epoch that has one."""
        return next(one for one in reversed(self.measured) if one.epoch == epoch)

    def _names(self) -> list[str]:
        return [OWN, *(name for name in (FOREIGN, ZERO_SHOT) if name in self.measured[0].figures)]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        self._stop(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(pl_module)

    def _stop(self, module: L.LightningModule) -> None:
        """Done here, not when it is found: the checkpoints and figures of that epoch are written in between."""
        if self._collapse:
            raise InputError(
                f"{self.run}: stopped {self._collapse}. checkpoints/best.ckpt has the weights with the best trade-off, and can be "
                "exported. Train with a lower --model.optimiser.lr; to train this run further anyway, lower --forgetting.min_kept"
            )

    # -- the page --------------------------------------------------------------------------------------------------------------------------

    def draw(self, best_epoch: int | None) -> None:
        """Write the page. best_epoch: that of best.ckpt."""
        if self.run is None or not self.measured:
            return
        steps = [one.step for one in self.measured]
        best = None if best_epoch is None else self.measured_in(best_epoch)
        curves = [self._curve(name) for name in self._names()]
        lines = [
            "Before the first step and at each validation, in per cent; dashed: chance, by colour.",
            *([f"best.ckpt: {self._best(best)}."] if best is not None else []),
            *([f"Stopped: {self._collapse}."] if self._collapse else []),
        ]
        names = [*self._names(), KEPT, TRADE_OFF]
        page = render(
            "forgetting.html.jinja",
            title=f"{self.run.resolve().name}: learned and forgotten",
            lines=lines,
            chart=both_sides(steps, curves, None if best is None else best.step),
            header=["epoch", "steps", *names],
            rows=[
                ["before" if one.epoch == BEFORE else f"{one.epoch}", f"{one.step:,}", *(f"{one.figures[name]:.1f}" for name in names)]
                for one in self.measured
            ],
        )
        with atomic_write(self.run / PAGE) as file:
            file.write(page.encode())

    def _best(self, best: Measurement) -> str:
        if best.epoch == BEFORE:
            return "the weights that the run began with"
        return f"{when(best.epoch)}, {'; '.join(self.changes(best))}"

    def _curve(self, name: str) -> Curve:
        values = [one.figures[name] for one in self.measured]
        chance = self.measured[0].figures[_chance_of(name)]
        floor = chance + self.min_kept / 100 * (values[0] - chance) if name != OWN and self.min_kept else None
        return Curve(name, values, chance, floor)


def when(epoch: int) -> str:
    """The epoch of a measurement, for a person."""
    return "before the first step" if epoch == BEFORE else f"after epoch {epoch}"


def _fingerprint(path: Path) -> str:
    """Of a file, a shard set, or a folder of pictures by their names and sizes. InputError if there is nothing."""
    if is_shards(path):
        return ShardSet(path).fingerprint
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint_json({file.relative_to(path).as_posix(): file.stat().st_size for file in files})
    if not path.is_file():
        raise InputError(f"forgetting: {path} does not exist")
    return fingerprint_file(path)


def _chance_of(name: str) -> str:
    return name.replace("val/", "val/chance_")
