"""`multimodal fit`: train from a recipe, on a laptop or on eight GPUs, and resume a run that was stopped.

    multimodal fit --config experiment/topic_emoji.yaml --data.shards data/emoji --run runs/topic
    multimodal fit --config experiment/topic_emoji.yaml --config trainer/gpu8.yaml --data.shards data/emoji --run runs/topic8

From Python, as often as one likes in one process: `fit(["--config", "experiment/topic_emoji.yaml", "--data.shards", "data/emoji", ...])`.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ProgressBar, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from multimodal.boxes import MANIFEST, State, write_manifest
from multimodal.data import Labels, Side, ViewsTarget
from multimodal.doors import recipes
from multimodal.errors import InputError
from multimodal.export.renamed import current_settings
from multimodal.machine.heap import freed_memory_kept
from multimodal.shards.ledger import NO_WORDS_FILE
from multimodal.towers import Trunk
from multimodal.towers.pretrained import read_once
from multimodal.training import runs, stock
from multimodal.training.beginnings import begin_where_towers_did, beginning, clip_towers, fingerprint_of, name_clip, tuned_clip
from multimodal.training.callbacks import (
    CHECKPOINTS,
    CLASSES,
    LAST,
    BadPairs,
    Dashboard,
    KeepCheckpoints,
    KeepsClasses,
    Pause,
    Progress,
    SeedSteps,
    Selection,
    SetEpoch,
    Stopped,
    StopsDiverged,
    WholeCheckpoints,
)
from multimodal.training.datamodule import BAD, PairData, rows_per_rank
from multimodal.training.forgetting import OF_CLASSES, OF_VIEWS, OWN, PAGE, TRADE_OFF, Forgetting, when
from multimodal.training.help import FULL, short_help
from multimodal.training.help_of_parts import help_of, parts
from multimodal.training.loggers import MetricsFile, WeightsAndBiases
from multimodal.training.long_texts import LongTexts
from multimodal.training.module import PairModule
from multimodal.training.options import CKPT_PATH, TRAINER_DEFAULTS, FitParser, add_options_of_a_run, configs_first, natural_precision
from multimodal.training.preflight import Preflight
from multimodal.training.refusals import refusal
from multimodal.training.runs import StaysThere
from multimodal.training.surroundings import pausing, quiet, threads

BEST_BY: dict[type[Side], str] = {Labels: OF_CLASSES, ViewsTarget: OF_VIEWS}
"""What decides which epoch is best, by the kind of the target; `OWN` for the others."""


def fit(args: Sequence[str] | None = None) -> Path:
    """Train, and return the run's folder; args: as on the command line, by default the process's own.

    InputError if the input is wrong: an unknown key, a column that does not exist, a folder of another run, pairs from which nothing can
    be learned. KeyboardInterrupt if it was stopped; the same command resumes it. A run whose `trainer.max_time` is up returns without a
    manifest.json, and the same command resumes it too.
    """
    args = list(sys.argv[1:] if args is None else args)
    if any(arg in ("-h", "--help") for arg in args):
        print(short_help(parts()))
        raise SystemExit(0)
    if asked := [arg.removeprefix("--help.") for arg in args if arg.startswith("--help.")]:
        print("\n\n".join(help_of(part, TRAINER_DEFAULTS if part == "trainer" else {}) for part in asked))
        raise SystemExit(0)
    with ExitStack() as until_the_end, quiet(), isolate_rng(include_cuda=False):  # GPU states would need a context on each
        return _FitCLI(args, until_the_end).fit()


def build(args: Sequence[str]) -> tuple[PairModule, PairData]:
    """What a command would train, and on what: to inspect a recipe from Python. It touches no folder and needs no device."""
    with quiet(), isolate_rng(include_cuda=False):
        cli = _BuildCLI(list(args))
        return cli.model, cli.datamodule


class _FitCLI(LightningCLI):
    """LightningCLI for one verb, with a run's folder and the parts that every run has."""

    def __init__(self, args: list[str], until_the_end: ExitStack | None = None) -> None:
        self.args = args
        self.until_the_end = until_the_end or ExitStack()
        self.longer = ""
        """How this command makes an existing run longer; "" if it does not."""
        super().__init__(
            PairModule,
            PairData,
            args=["--help" if arg == FULL else arg for arg in configs_first(recipes.with_found_recipes(args))],
            run=False,
            parser_class=FitParser,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_options_of_a_run(parser)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(PairModule, "model")
        parser.add_lightning_class_args(PairData, "data")
        parser.add_class_arguments(Selection, "selection")
        parser.add_class_arguments(Forgetting, "forgetting")
        parser.add_class_arguments(Preflight, "preflight")
        parser.add_lightning_class_args(L.Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except argparse.ArgumentError as error:
            if "ckpt_path" in str(error):
                raise InputError(CKPT_PATH) from None
            known = set(re.findall(r"(?<![\w-])--([\w.]*\w)", parser.format_help()))
            raise InputError(refusal(error, known)) from None
        if self.config.clip is not None:
            name_clip(self.config.model, self.config.clip)
            self.config.clip = None  # config.yaml has it where it belongs

    def before_instantiate_classes(self) -> None:
        """Set what the command leaves open, then check the run's folder, before anything is built."""
        if self.config.trainer.precision is None:
            self.config.trainer.precision = natural_precision(self.config.trainer.accelerator)
        if self.config.selection.monitor is None:
            measures = self.config.forgetting.pairs is not None or self.config.forgetting.classes is not None
            of_target = next((figure for kind, figure in BEST_BY.items() if _gives(kind, self.config.data.target)), OWN)
            self.config.selection.monitor = TRADE_OFF if measures else of_target
        if self.config.init_parts is not None and self.config.init_from is None:
            raise InputError(f"--init_parts {self.config.init_parts}: needs --init_from FOLDER, whose weights these are parts of")
        self.only_tries = bool(self.config.trainer.fast_dev_run)
        if self.only_tries:  # a few batches make no run, and leave an existing one alone
            scratch = self.until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="multimodal-fit-"))
            self.config.run = Path(scratch, "run")
        run: Path = self.config.run
        elsewhere = self.config.trainer.default_root_dir
        if elsewhere is not None and os.path.realpath(elsewhere) != os.path.realpath(run):
            raise InputError(f"trainer.default_root_dir={elsewhere}: a run writes only into its folder, --run {run}. Leave it out")
        self.config.trainer.callbacks = stock.plain(self.config.trainer.callbacks)
        self.resolved = self.parser.dump(self.config, skip_unset=False)
        self.settings: dict[str, Any] = yaml.safe_load(self.resolved)
        self.state = runs.look_at(run, self.settings, self.config.overwrite, self._begun_with)
        if self.longer and self.state is State.FINISHED:
            self.state = State.UNFINISHED
        stock.place(self.config.trainer, run)

    def _begun_with(self, text: str) -> dict[str, Any]:
        """The config.yaml of a run as this release would write it: with newer options at their defaults.

        If this command makes the run longer, with the longer run's length.
        """
        run = self.config.run
        if (then := yaml.safe_load(text)) != current_settings(then):
            raise InputError(
                f"{run}: was begun by release 0.1, which called data.target data.text, and can be resumed by that release alone. "
                "multimodal export and validate read it as it is. Choose another --run, or train again with --overwrite"
            )
        try:
            begun = self.parser.parse_string(text)
        except argparse.ArgumentError as error:
            shown = refusal(error, [])
            raise InputError(f"{run}: holds a run whose config this release cannot read: {shown}. Choose another --run") from None
        begun.trainer.callbacks = stock.plain(begun.trainer.callbacks)
        settings: dict[str, Any] = yaml.safe_load(self.parser.dump(begun, skip_unset=False))
        then, now = (_epochs(config["trainer"]["max_epochs"]) for config in (settings, self.settings))
        if now > then:
            shown = f"trainer.max_epochs was {then:g} and is {now:g}"
            if not self.config.extend:
                raise InputError(f"{run}: {shown}. To train this run further, add --extend. To train another one, choose another --run")
            self.longer = shown
            settings["trainer"]["max_epochs"] = self.settings["trainer"]["max_epochs"]
        return settings

    def instantiate_classes(self) -> None:
        try:
            with read_once():
                super().instantiate_classes()
        except ValueError as error:  # jsonargparse's own message lists every class that would fit
            found = re.search(r"Problem with given class_path '([\w.]+)':\s*(.*?)\s*(?:\n\s*- |\nGiven |$)", str(error), re.DOTALL)
            if isinstance(error, InputError) or not found:
                raise
            raise InputError(f"{found[1]}: {' '.join(found[2].split())}") from None
        self.datamodule.prepare_for(self.model.image_tower)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        run: Path = self.config.run
        given, has_validation = self.config_init.trainer, self.datamodule.validation_share > 0
        stock.refuse_what_cannot_work(_as_list(given.callbacks), self.model.objective, given.accumulate_grad_batches, given.strategy)
        selection: Selection | None = self.config_init.selection if has_validation else None
        if selection is None and self.config_init.selection.patience is not None:
            raise InputError("selection.patience needs validation, but data.validation_share=0 turns it off. Change one of them")
        forgetting: Forgetting = self.config_init.forgetting
        self.forgetting = forgetting if forgetting.is_on else None
        if self.forgetting is not None and not has_validation:
            raise InputError("forgetting is measured at each validation, but data.validation_share=0 turns it off. Change one of them")
        if self.forgetting is not None and not self.model.objective.compares_with_texts:
            raise InputError("forgetting is measured by texts, and this run reads none. Leave forgetting.* out")
        forgetting.run = run
        self.metrics = MetricsFile(run)
        try:
            self.pause = Pause(Timer(given.max_time).time_remaining())
        except (MisconfigurationException, TypeError) as error:
            raise InputError(f"trainer.max_time={given.max_time}: {' '.join(str(error).split())}") from None
        every = self.config.checkpoint_every_n_steps, self.config.checkpoint_every_s
        self.keep = KeepCheckpoints(run / CHECKPOINTS, selection, *every, self.pause, self.forgetting)
        # The configured loggers come first: a callback's `trainer.logger` is the first one.
        asked_for = [] if self.only_tries else _as_list(given.logger)
        loggers: list[Logger] = [*(logger for logger in asked_for if isinstance(logger, Logger)), self.metrics]
        self.dashboards = [logger for logger in loggers if isinstance(logger, WeightsAndBiases)]
        for dashboard in self.dashboards:
            dashboard.place(run)
        self.bad_pairs = BadPairs(run / BAD, self.datamodule.max_bad_share)
        self.stays_there = StaysThere(run)
        has_bar = given.enable_progress_bar or any(isinstance(callback, ProgressBar) for callback in _as_list(given.callbacks))
        callbacks: list[Callback] = [
            self.stays_there,
            KeepsClasses(run / CLASSES),
            SetEpoch(),
            SeedSteps(self.config.seed_everything),
            *(Dashboard(dashboard) for dashboard in self.dashboards),
            self.config_init.preflight,
            LongTexts(),
            *([self.forgetting] if self.forgetting else []),  # before those that average weights, which end a validation with the average
            self.bad_pairs,
            StopsDiverged(run / CHECKPOINTS),
            *([] if has_bar else [Progress(self.bad_pairs)]),
            *(selection.early_stopping() if selection else []),
            *_as_list(given.callbacks),
            self.keep,
        ]
        ours: dict[str, Any] = {"callbacks": callbacks, "logger": loggers, "plugins": [*_as_list(given.plugins), WholeCheckpoints()]}
        ours |= {"default_root_dir": run, "enable_progress_bar": has_bar, "max_time": None}  # Lightning would end the run at max_time
        if not has_validation:
            ours["limit_val_batches"] = 0
        try:
            trainer = super().instantiate_trainer(**ours, **kwargs)
        # A device that this machine does not have, settings that exclude each other, an unknown or uninstalled strategy.
        except (MisconfigurationException, ValueError, ImportError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from None
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise InputError(
                f"trainer.strategy={given.strategy}: its ranks are forks of one process, which pass on a run's state by pickle. "
                "Use ddp, which runs this command again for each rank"
            )
        return trainer

    def fit(self) -> Path:
        """Train what remains to be trained."""
        run: Path = self.config.run
        made_from = self.datamodule.made_from()
        if self.config.init_from is not None:
            made_from["init_from"] = fingerprint_of(self.config.init_from)
        self.clip_models = {part: tower.found for part, tower in clip_towers(self.model).items()}
        made_from |= {f"clip {part}": found.fingerprint for part, found in self.clip_models.items()}
        if self.forgetting is not None:
            made_from |= self.forgetting.made_from(self.datamodule)
        if self.state is not State.FRESH:
            runs.check_made_from(run, made_from)
        if self.state is State.FINISHED:
            _say(
                f"{run}: is finished, with the same config. --overwrite trains it again, and a larger --trainer.max_epochs with --extend "
                "trains it further"
            )
            return run
        last = run / CHECKPOINTS / LAST
        resumes = self.state is State.UNFINISHED and last.is_file()
        if self.longer and not resumes:
            raise InputError(f"{run}: has no {CHECKPOINTS}/{LAST} to resume from. To train it from the start: --overwrite")
        rows_per_rank(self.datamodule.batch_size, self.trainer.world_size)  # checked here, before other ranks are started
        self._refuse_launch_from_python()
        remark = begin_where_towers_did(self.model)
        if remark is not None and not resumes:
            _say(f"{run}: {remark}")
        if self.config.init_from is not None and not resumes:
            has_trunk = any(isinstance(part, Trunk) for part in self.model.image_tower.modules())
            beginning(self.config.init_from, has_trunk).fill(self.model, self.config.init_parts)
        base = self.config.init_from or tuned_clip(self.model)
        if base is not None and self.forgetting is None and not resumes:
            _say(
                f"{run}: nothing measures what is forgotten of {base}. To see it, and to stop if it is lost: "
                "--forgetting.pairs SET or --forgetting.classes DATA"
            )
        try:
            self._begin(run, made_from, last if resumes else None)
            on_cpu = self.trainer.strategy.root_device.type == "cpu"
            with threads(self.config.num_threads), freed_memory_kept() if on_cpu else nullcontext(), pausing(signal.SIGUSR1, self.pause):
                self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=last if resumes else None, weights_only=True)
        except Stopped as why:
            _say(
                f"{run}: stopped at step {self.trainer.global_step}, in epoch {self.trainer.current_epoch} of "
                f"{self.trainer.max_epochs}: {why}. "
                "It is not finished; run the same command to resume"
            )
            if self.pause.signal is not None:
                raise KeyboardInterrupt from None
            return run
        except SystemExit as stopped:  # how Lightning ends after Ctrl-C and SIGTERM
            if not isinstance(stopped, SIGTERMException) and not isinstance(stopped.__context__, KeyboardInterrupt):
                raise
            _say(f"{run}: stopped. Run the same command to resume from its last checkpoint")
            raise KeyboardInterrupt from None
        except Exception as error:  # Lightning's parts raise errors of all kinds; all are raised again
            self.stays_there.check()
            if stock.raised_by_an_optimiser(error, self.trainer.optimizers):
                raise self._optimiser_failed(error) from error
            if reason := stock.reason_of(error):
                raise InputError(reason) from error
            raise
        if self.only_tries:
            _say(f"trainer.fast_dev_run: trained and validated {self.trainer.global_step} steps without an error. Nothing was saved")
            return run
        if self.trainer.is_global_zero:
            self.stays_there.check()
            steps = {"epochs": self.trainer.current_epoch, "steps": self.trainer.global_step}
            counts = {**steps, "pairs": self.datamodule.num_read_by(0), "validation_pairs": len(self.datamodule.validation_ids)}
            if num := self.bad_pairs.num_without_words:
                counts["pairs_without_words"] = num
                _say(f"{run}: {num} of {counts['pairs']} pairs have no word that the space knows: {run / NO_WORDS_FILE}")
            write_manifest(run, runs.run_manifest(self.settings, made_from, counts))
            _say(f"{run}: {self._outcome()}")
        return run

    def _begin(self, run: Path, made_from: dict[str, str], last: Path | None) -> None:
        """Prepare the folder, on rank 0; last: the checkpoint to resume from. What other ranks read in it is not touched here."""
        if not self.trainer.is_global_zero:
            return
        if last is None:
            runs.clear(run)
        else:
            step = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["global_step"]
            _say(f"{run}: resumes after step {step}, from {last}")
            if self.longer:
                (run / MANIFEST).unlink(missing_ok=True)
                _say(f"{run}: {self.longer}. A rate that falls until the end follows the longer run's schedule from here")
            figures = self.metrics.forget_from(step)
            for dashboard in self.dashboards:
                dashboard.take_up(step, figures)
        runs.write_beginning(run, self.resolved, made_from, self.clip_models)
        for logger in self.trainer.loggers:
            logger.log_hyperparams({**self.settings, "made_from": made_from})

    def _optimiser_failed(self, error: Exception) -> InputError:
        """What to do after a step that could not be made; the rates are those of the failed step."""
        rates = sorted({f"{group['lr']:g}" for one in self.trainer.optimizers for group in one.param_groups})
        where = f"at step {self.trainer.global_step}, in epoch {self.trainer.current_epoch}, at a rate of {' and '.join(rates)}"
        return InputError(
            f"{self.config.run}: model.optimiser failed {where}: {' '.join(str(error).split()).rstrip('.')}. "
            "Lower --model.optimiser.lr, or change what the message names, and add --overwrite"
        )

    def _refuse_launch_from_python(self) -> None:
        """Lightning starts other ranks by running this process's command again, which would be the user's script under Python."""
        strategy = self.trainer.strategy
        launcher, cluster = strategy.launcher, getattr(strategy, "cluster_environment", None)
        if cluster is not None and cluster.creates_processes_externally:
            return  # started by torchrun or SLURM, from any script
        if launcher is not None and not launcher.is_interactive_compatible and sys.argv[-len(self.args) :] != self.args:
            raise InputError(
                "trainer.devices: several ranks can only be started from the command line, by multimodal fit or torchrun. "
                "From Python, set trainer.devices: 1"
            )

    def _outcome(self) -> str:
        keep, figures = self.keep, self.trainer.callback_metrics
        shown = f"trained {self.trainer.current_epoch} epochs, {self.trainer.global_step} steps"
        if keep.selection is None or keep.best_value is None:
            return shown
        assert keep.best_epoch is not None
        name, num = keep.selection.figure, int(figures.get("val/num_pairs", 0))
        chance = figures.get(name.replace("val/", "val/chance_"))
        among = f", among {num} pairs" if num else ""
        beside = f" (chance {float(chance):.1f}{among})" if chance is not None else ""
        shown = f"{shown}; best {name} {keep.best_value:.4g}{beside} {when(keep.best_epoch)}"
        if self.forgetting is None:
            return shown
        best = self.forgetting.measured_in(keep.best_epoch)
        return f"{shown}: {', '.join(self.forgetting.changes(best))}. Both curves: {self.config.run / PAGE}"


class _BuildCLI(_FitCLI):
    """Everything except the trainer and the run's folder."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None


def _gives(kind: type[Side], side: Any) -> bool:
    """Whether the config of a side names one of this kind, also in a control."""
    if side is None or "class_path" not in side:
        return False
    inner = (side.get("init_args") or {}).get("side")
    if inner is not None:
        return _gives(kind, inner)
    module, _, name = side.class_path.rpartition(".")
    return issubclass(getattr(importlib.import_module(module), name), kind)  # the parser has imported it already


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _epochs(limit: int | None) -> float:
    return math.inf if limit is None or limit < 0 else limit


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    from multimodal.cli import main

    sys.exit(main(["fit", *sys.argv[1:]]))
