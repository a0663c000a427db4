"""The command line of `multimodal fit` beside what its parts take: a run's own options, Lightning's defaults here, the order of --config.

parser = FitParser()
add_options_of_a_run(parser)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from multimodal.doors import recipes

DESCRIPTION = "Train from a recipe: all options of all parts. `multimodal fit --help` shows the common ones."

CKPT_PATH = (
    "--ckpt_path: a run resumes from its own checkpoints/last.ckpt when the same command is run again. To start from the weights "
    "of another run or an export: --init_from FOLDER. To train a finished run further: --trainer.max_epochs N --extend"
)
CHECKPOINT_EVERY_S = 600.0
"""The most time that a kill costs, by default."""
USAGE = "multimodal fit --config RECIPE --run FOLDER [options]"
TRAINER_DEFAULTS = {
    "devices": 1,  # for a laptop; trainer/gpu8.yaml sets more
    "max_epochs": 60,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # the preflight checks more
    "enable_progress_bar": False,  # ours is a callback
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # a PairLoader knows its rank
}


class FitParser(LightningArgumentParser):
    """LightningCLI's parser, which raises instead of exiting, and shows how to start."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ours = {"prog": "multimodal fit", "usage": USAGE, "description": DESCRIPTION, "exit_on_error": False, "allow_abbrev": False}
        super().__init__(*args, **{**kwargs, **ours})
        self.formatter_class = type("_Help", (argparse.RawDescriptionHelpFormatter, self.formatter_class), {})


def add_options_of_a_run(parser: LightningArgumentParser) -> None:
    """The options that belong to no class."""
    parser.add_argument("--run", type=Path, required=True, help="the folder of the run; made by this command")
    parser.add_argument("--overwrite", action="store_true", help="train again if the folder holds a run already")
    parser.add_argument("--extend", action="store_true", help="train an existing run further, if only trainer.max_epochs is larger")
    parser.add_argument(
        "--clip",
        type=str | None,
        default=None,
        help="the CLIP model of those towers of the recipe that name none: NAME/TAG, NAME/FILE, a folder; for random weights, NAME",
    )
    parser.add_argument("--init_from", type=Path | None, default=None, help="a run or an export whose weights this run starts from")
    parser.add_argument(
        "--init_parts",
        type=list[str] | None,
        default=None,
        help="the parts of those weights to use, such as [image_tower.trunk]; null: all, and all must fit",
    )
    parser.add_argument("--seed_everything", type=int, default=0, help="seed of weights, order, crops, captions and dropout")
    parser.add_argument(
        "--num_threads", type=int | None, default=None, help="of torch on a CPU; null: one per core. 1 is best for heads over columns"
    )
    parser.add_argument(
        "--checkpoint_every_n_steps", type=int | None, default=None, help="also write last.ckpt within epochs, after this many steps"
    )
    parser.add_argument(
        "--checkpoint_every_s",
        type=float | None,
        default=CHECKPOINT_EVERY_S,
        help="and when this many seconds have passed since the last one; null for both: only after each epoch",
    )


def configs_first(args: Sequence[str]) -> list[str]:
    """The arguments with each --config FILE before the options, in their order: an option overrides any file, wherever it is given."""
    files: list[str] = []
    options: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg in recipes.OPTIONS:
            files += [arg, *rest[:1]]
            rest = rest[1:]
        else:
            (files if arg.partition("=")[0] in recipes.OPTIONS else options).append(arg)
    return files + options


def natural_precision(accelerator: str | Any) -> str:
    """ "bf16-mixed" on a GPU that computes in it natively (from Ampere on), else "32-true": emulated bf16 is many times slower."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    own = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))  # a rank asks only its own GPU
    return "bf16-mixed" if torch.version.hip is not None or torch.cuda.get_device_capability(own) >= (8, 0) else "32-true"
