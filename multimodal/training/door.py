"""`multimodal fit`: train from a recipe, on a laptop or on eight GPUs, and go on where it was stopped.

    multimodal fit --config experiment/topic_emoji.yaml --data.shards data/emoji --run runs/topic
    multimodal fit --config experiment/topic_emoji.yaml --config trainer/gpu8.yaml --data.shards data/emoji --run runs/topic8

From Python, as often as one likes in one process: `fit(["--config", "experiment/topic_emoji.yaml", "--data.shards", "data/emoji", ...])`.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from multimodal import recipes
from multimodal.boxes import write_manifest
from multimodal.errors import InputError
from multimodal.heap import freed_memory_kept
from multimodal.shards.ledger import NO_WORDS_FILE
from multimodal.training import runs, stock
from multimodal.training.callbacks import (
    CHECKPOINTS,
    LAST,
    BadPairs,
    Dashboard,
    KeepCheckpoints,
    Progress,
    SeedSteps,
    Selection,
    SetEpoch,
    WholeCheckpoints,
)
from multimodal.training.datamodule import BAD, PairData, rows_per_rank
from multimodal.training.loggers import MetricsFile, WeightsAndBiases
from multimodal.training.module import PairModule
from multimodal.training.preflight import Preflight
from multimodal.training.runs import State, StaysThere

DESCRIPTION = """Train from a recipe.

  multimodal fit --config experiment/topic_emoji.yaml --data.shards data/emoji --run runs/topic

A recipe names an image tower, a text side and an objective by class path, and where the two sides of a pair come from.
It is code: whatever class it names is imported and called. Read a recipe of somebody else's before you use it.
Give --config several times: a later file, and then the options, change what an earlier one says.
A recipe that is not a file here is looked for among the shipped ones:
{recipes}
Run the same command again to go on with a run that was stopped; a finished one says so.
--print_config shows all that a command would use."""


CHECKPOINT_EVERY_S = 600.0
"""What a kill costs at most, by default."""
USAGE = "multimodal fit --config RECIPE --run FOLDER [options]"
TRAINER_DEFAULTS = {
    "devices": 1,  # a laptop; trainer/gpu8.yaml asks for more
    "max_epochs": 60,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # the preflight looks at more
    "enable_progress_bar": False,  # ours is a callback
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # a PairLoader knows its rank
}
ON_PURPOSE = (
    r"\s*By default only one JsonargparseDeprecationWarning.*",  # of calls that Lightning makes
    r"\s*``\w+`` was deprecated in v4.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 beside torch 2.15
    ".*does not have many workers.*",  # columns need none
    ".*smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # frozen trunks
    ".*It is recommended to use `self.log.*sync_dist=True.*",  # figures are those of all ranks already
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Total length of `CombinedLoader` across ranks is zero.*",
)


def fit(args: Sequence[str] | None = None) -> Path:
    """Train, and return the run's folder; args as on the command line, by default the process's own.

    InputError where something a person gave is wrong: an unknown key, a column that is not there, a folder of another run, pairs that
    nothing can be learnt from. KeyboardInterrupt where it was stopped; the same command goes on.
    """
    args = list(sys.argv[1:] if args is None else args)
    with _quiet(), isolate_rng(include_cuda=False):  # the GPUs' states would be read by a context on each of them
        return _FitCLI(args).fit()


def build(args: Sequence[str]) -> tuple[PairModule, PairData]:
    """What a command would train, and on what: to look at a recipe from Python. Touches no folder and needs no device."""
    with _quiet(), isolate_rng(include_cuda=False):
        cli = _BuildCLI(list(args))
        return cli.model, cli.datamodule


class _Parser(LightningArgumentParser):
    """LightningCLI's parser, that raises instead of exiting and says how to begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        description = DESCRIPTION.format(recipes="".join(f"  {name}\n" for name in recipes.names()))
        ours = {"prog": "multimodal fit", "usage": USAGE, "description": description, "exit_on_error": False, "allow_abbrev": False}
        super().__init__(*args, **{**kwargs, **ours})
        self.formatter_class = type("_Help", (argparse.RawDescriptionHelpFormatter, self.formatter_class), {})


class _FitCLI(LightningCLI):
    """LightningCLI for one verb, with a run's folder and with what every run has."""

    def __init__(self, args: list[str]) -> None:
        self.args = args
        super().__init__(
            PairModule,
            PairData,
            args=recipes.with_found_recipes(args),
            run=False,
            parser_class=_Parser,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=Path, required=True, help="the folder of the run; made by this command")
        parser.add_argument("--overwrite", action="store_true", help="train again where the folder holds a run already")
        parser.add_argument("--seed_everything", type=int, default=0, help="of weights, order, crops, captions and dropout")
        parser.add_argument(
            "--num_threads", type=int | None, default=None, help="of torch on a CPU; null: one a core. Heads over columns want 1"
        )
        parser.add_argument(
            "--checkpoint_every_n_steps", type=int | None, default=None, help="write last.ckpt every so many steps inside epochs too"
        )
        parser.add_argument(
            "--checkpoint_every_s",
            type=float | None,
            default=CHECKPOINT_EVERY_S,
            help="and when so many seconds have passed since the last one; null, like null steps: after each epoch alone",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(PairModule, "model")
        parser.add_lightning_class_args(PairData, "data")
        parser.add_class_arguments(Selection, "selection")
        parser.add_class_arguments(Preflight, "preflight")
        parser.add_lightning_class_args(L.Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except argparse.ArgumentError as error:
            raise InputError(_told(error, parser)) from None

    def before_instantiate_classes(self) -> None:
        """Decide what the command leaves open, then look at the run's folder, before anything is built."""
        if self.config.trainer.precision is None:
            self.config.trainer.precision = natural_precision(self.config.trainer.accelerator)
        run: Path = self.config.run
        elsewhere = self.config.trainer.default_root_dir
        if elsewhere is not None and os.path.realpath(elsewhere) != os.path.realpath(run):
            raise InputError(f"trainer.default_root_dir={elsewhere}: all that a run writes lies in its folder, --run {run}. Leave it out")
        self.config.trainer.callbacks = stock.plain(self.config.trainer.callbacks)
        self.resolved = self.parser.dump(self.config, skip_unset=False)
        self.settings: dict[str, Any] = yaml.safe_load(self.resolved)
        self.state = runs.look_at(run, self.settings, self.config.overwrite)
        stock.place(self.config.trainer, run)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:  # jsonargparse's own, which lists every class that a slot could have had
            found = re.search(r"Problem with given class_path '([\w.]+)':\s*(.*?)\s*(?:\n\s*- |\nGiven |$)", str(error), re.DOTALL)
            if isinstance(error, InputError) or not found:
                raise
            raise InputError(f"{found[1]}: {' '.join(found[2].split())}") from None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        run: Path = self.config.run
        given, has_validation = self.config_init.trainer, self.datamodule.validation_share > 0
        stock.refuse_what_cannot_work(_as_list(given.callbacks), self.model.objective, given.accumulate_grad_batches)
        selection: Selection | None = self.config_init.selection if has_validation else None
        if selection is None and self.config_init.selection.patience is not None:
            raise InputError(
                "selection.patience stops a run by its validation, and data.validation_share=0 leaves none. Set one of them otherwise"
            )
        self.metrics = MetricsFile(run)
        self.keep = KeepCheckpoints(run / CHECKPOINTS, selection, self.config.checkpoint_every_n_steps, self.config.checkpoint_every_s)
        # Those that were asked for come first: a callback's `trainer.logger` is the first of them.
        loggers: list[Logger] = [*(logger for logger in _as_list(given.logger) if isinstance(logger, Logger)), self.metrics]
        self.dashboards = [logger for logger in loggers if isinstance(logger, WeightsAndBiases)]
        for dashboard in self.dashboards:
            dashboard.place(run)
        self.bad_pairs = BadPairs(run / BAD, self.datamodule.max_bad_share)
        self.stays_there = StaysThere(run)
        has_bar = given.enable_progress_bar or any(isinstance(callback, ProgressBar) for callback in _as_list(given.callbacks))
        callbacks: list[Callback] = [
            self.stays_there,
            SetEpoch(),
            SeedSteps(self.config.seed_everything),
            *(Dashboard(dashboard) for dashboard in self.dashboards),
            self.config_init.preflight,
            self.bad_pairs,
            *([] if has_bar else [Progress(self.bad_pairs)]),
            *(selection.early_stopping() if selection else []),
            *_as_list(given.callbacks),
            self.keep,
        ]
        ours: dict[str, Any] = {"callbacks": callbacks, "logger": loggers, "plugins": [*_as_list(given.plugins), WholeCheckpoints()]}
        ours |= {"default_root_dir": run, "enable_progress_bar": has_bar}
        if not has_validation:
            ours["limit_val_batches"] = 0
        try:
            return super().instantiate_trainer(**ours, **kwargs)
        except MisconfigurationException as error:  # a device that this machine does not have, settings that exclude each other
            raise InputError(f"trainer: {' '.join(str(error).split())}") from None

    def fit(self) -> Path:
        """Train what is left to train."""
        run: Path = self.config.run
        made_from = self.datamodule.made_from()
        if self.state is not State.FRESH:
            runs.check_made_from(run, made_from)
        if self.state is State.FINISHED:
            _say(f"{run}: is finished, with this very config. --overwrite trains it again")
            return run
        last = run / CHECKPOINTS / LAST
        resumes = self.state is State.UNFINISHED and last.is_file()
        rows_per_rank(self.datamodule.batch_size, self.trainer.world_size)  # said here, before other ranks are started
        self._refuse_launch_from_python()
        try:
            self._begin(run, made_from, last if resumes else None)
            on_cpu = self.trainer.strategy.root_device.type == "cpu"
            with _threads(self.config.num_threads), freed_memory_kept() if on_cpu else nullcontext():
                self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=last if resumes else None, weights_only=True)
        except SystemExit as stopped:  # what Lightning makes of Ctrl-C, having told everyone
            if not isinstance(stopped.__context__, KeyboardInterrupt):
                raise
            _say(f"{run}: stopped. The same command goes on from its last checkpoint")
            raise KeyboardInterrupt from None
        except Exception as error:  # Lightning's parts raise what they like, and all of it is raised again
            self.stays_there.check()
            if reason := stock.reason_of(error):
                raise InputError(reason) from error
            raise
        if self.trainer.is_global_zero:
            self.stays_there.check()
            steps = {"epochs": self.trainer.current_epoch, "steps": self.trainer.global_step}
            counts = {**steps, "pairs": len(self.datamodule.train_ids), "validation_pairs": len(self.datamodule.validation_ids)}
            if num := self.bad_pairs.num_without_words:
                counts["pairs_without_words"] = num
                _say(f"{run}: {num} of {counts['pairs']} pairs have no word that the space knows: {run / NO_WORDS_FILE}")
            write_manifest(run, runs.run_manifest(self.settings, made_from, counts))
            _say(f"{run}: {self._outcome()}")
        return run

    def _begin(self, run: Path, made_from: dict[str, str], last: Path | None) -> None:
        """Make the folder ready, on rank 0; last is the checkpoint to go on from. What other ranks look for in it is not touched here."""
        if not self.trainer.is_global_zero:
            return
        if last is None:
            runs.clear(run)
        else:
            step = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["global_step"]
            _say(f"{run}: goes on after step {step}, from {last}")
            figures = self.metrics.forget_from(step)
            for dashboard in self.dashboards:
                dashboard.take_up(step, figures)
        runs.write_beginning(run, self.resolved, made_from)
        for logger in self.trainer.loggers:
            logger.log_hyperparams({**self.settings, "made_from": made_from})

    def _refuse_launch_from_python(self) -> None:
        """Lightning starts other ranks by running this process's own command again, which is none of ours under Python."""
        strategy = self.trainer.strategy
        launcher, cluster = strategy.launcher, getattr(strategy, "cluster_environment", None)
        if cluster is not None and cluster.creates_processes_externally:
            return  # by torchrun or SLURM, of whatever script
        if launcher is not None and not launcher.is_interactive_compatible and sys.argv[-len(self.args) :] != self.args:
            raise InputError(
                "trainer.devices: several ranks are started from the command line alone, by multimodal fit or torchrun. "
                "From Python, set trainer.devices: 1"
            )

    def _outcome(self) -> str:
        keep, figures = self.keep, self.trainer.callback_metrics
        told = f"trained {self.trainer.current_epoch} epochs, {self.trainer.global_step} steps"
        if keep.selection is None or keep.best_value is None:
            return told
        name, num = keep.selection.monitor, int(figures.get("val/num_pairs", 0))
        chance = figures.get(name.replace("val/", "val/chance_"))
        beside = f" (chance {float(chance):.1f}, among {num} pairs)" if chance is not None else ""
        return f"{told}; best {name} {keep.best_value:.4g}{beside} after epoch {keep.best_epoch}"


class _BuildCLI(_FitCLI):
    """All but the trainer and the run's folder."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None


def natural_precision(accelerator: str | Any) -> str:
    """ "bf16-mixed" on a GPU that computes in it natively (from Ampere on), else "32-true": emulated bf16 is many times slower."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    own = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))  # a rank asks its own GPU alone
    return "bf16-mixed" if torch.version.hip is not None or torch.cuda.get_device_capability(own) >= (8, 0) else "32-true"


def _told(error: Exception, parser: LightningArgumentParser) -> str:
    """jsonargparse's error in one line, with the nearest key where it is about an unknown one."""
    text = re.sub(r"\s*\n[\s-]*", " ", str(error)).strip().rstrip(".")
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    union = r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .*? Given value type: \w+ Given value: "
    text = re.sub(union, r"wanted one of \1 and got ", text)
    if homeless := re.search(r"class_path='lightning\.pytorch\.\w+\.(\w+)', init_args=Namespace\((save_dir|dirpath)=None", text):
        return f"{homeless[1]} needs a folder: give it {homeless[2]}. A relative one starts from the run's folder"
    if missing := re.search(r"No module named '([\w.]+)'$", text):
        text += f". Install {missing[1]}, or name the folder it lies in: PYTHONPATH=<folder> multimodal fit ..."
        return text
    unknown = re.search(r"unrecognized arguments: --([\w.]+)|[Oo]ption '([\w.]+)'", text)
    if not unknown:
        return f"{text}. See: multimodal fit --help"
    key = next(name for name in unknown.groups() if name)
    known = [action.dest for action in parser._actions]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"{text}. {f'Did you mean {near[0]}? ' if near else ''}See: multimodal fit --help"


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _threads(num: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and without warnings of things that are so on purpose; what concerns the user is still said."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    asked_for = [logging.getLogger(f"lightning.pytorch.{name}") for name in ("callbacks", "profilers")]
    """ModelSummary and the profilers say what they found as logs."""
    levels = [logger.level for logger in loggers + asked_for]
    interrupt = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    with warnings.catch_warnings():
        for message in ON_PURPOSE:
            warnings.filterwarnings("ignore", message=message)
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            for logger in asked_for:
                logger.setLevel(logging.INFO)
            yield
        finally:
            for logger, level in zip(loggers + asked_for, levels, strict=True):
                logger.setLevel(level)
            if interrupt is not None:  # Lightning leaves Ctrl-C switched off after the first one
                signal.signal(signal.SIGINT, interrupt)


if __name__ == "__main__":
    from multimodal.cli import main

    sys.exit(main(["fit", *sys.argv[1:]]))
