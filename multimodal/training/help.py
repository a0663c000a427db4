"""`multimodal fit --help`: what a recipe is, the common options and what can be named, on two screens.

`--help.PART` says all about a part (help_of_parts.py); `--help_all` lists every option of every part.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import multimodal.data
import multimodal.objectives
import multimodal.towers
from multimodal.data import Shuffle, Side
from multimodal.doors import recipes
from multimodal.objectives import Miner, Objective
from multimodal.towers import ClipTextTower, Head, ImageTower, TextTower, Tuning, Weights
from multimodal.training.optimisers import Optimiser

FULL = "--help_all"
WIDTH, COLUMN = 130, 38

HEAD = """usage: multimodal fit --config RECIPE --run FOLDER [options]

Train from a recipe, a YAML file with three parts: `model` (an image tower, a target side, an objective, an optimiser: each a class, named
by its path, with its arguments), `data` (where the two sides of a pair are read) and `trainer` (Lightning's Trainer).

  multimodal fit --config experiment/topic_emoji.yaml --data.shards data/emoji --run runs/topic
  multimodal fit --config experiment/topic_emoji.yaml --data.shards data/emoji --run runs/slow --model.optimiser.lr 1e-4
  multimodal fit --config experiment/topic_emoji.yaml --config trainer/gpu8.yaml --data.shards data/emoji --run runs/topic8

Every value has a name, its path in the recipe, by which it can be set here. A later --config overrides an earlier one, and an option
overrides all files. The same command again resumes a run that was stopped. A recipe is code: every class that it names is imported and
called, so read other people's first. One that is not a file here is looked up among the shipped ones, which are, less their .yaml:
"""
MOST_USED = {
    "--data.shards SET": "a folder, a URL, several: '{NAME: FOLDER, ...}', or tars: 's3://b/{000..042}.tar'",
    "--run FOLDER": "everything that the run writes; made by this command",
    "--trainer.max_epochs N": "how often each pair is seen [60]",
    "--model.optimiser.lr X": "the peak learning rate [0.001]",
    "--data.batch_size N": "pairs per step, of all ranks together [64]",
}
OPTIONS = {
    "the run": {
        "--overwrite": "train again if the folder holds a run",
        "--extend": "train a run further, to a larger --trainer.max_epochs; the cosine is the longer run's",
        "--clip MODEL": "the towers' CLIP model, as for export --pretrained; for random weights NAME alone [null]",
        "--init_from FOLDER": "start from the weights of another run or an export",
        "--init_parts '[PART, ...]'": "use only these parts of them: image_tower.trunk, image_tower.head, target_side, objective",
        "--seed_everything N": "seed of weights, order, crops, captions and dropout [0]",
        "--num_threads N": "threads of torch on a CPU; for heads over columns, 1 is fastest [null]",
        "--checkpoint_every_s S": "seconds between checkpoints: the most that a kill costs [600.0]",
        "--print_config": "print the full config of this command, and exit",
    },
    "how long, and where": {
        "--trainer.max_time DD:HH:MM:SS": "pause after this time; the same command resumes, as after SIGUSR1 or SIGTERM [null]",
        "--trainer.accelerator NAME": "cpu, gpu [auto]",
        "--trainer.devices N": "ranks on this machine [1]; --config trainer/gpu8.yaml",
        "--trainer.precision P": "32-true, bf16-mixed, ...; null: the best for the device [null]",
        "--trainer.accumulate_grad_batches N": "batches per step; with Clip and SigLip use --model.micro_batch_size [1]",
        "--trainer.gradient_clip_val X": "[null]",
        "--trainer.fast_dev_run true": "one batch of each kind, and no run; limit_train_batches and overfit_batches make one",
        "--trainer.callbacks+=CLASS": "Lightning's by name, others by path; for an average of weights: --config trainer/ema.yaml",
        "--config trainer/wandb.yaml": "log to Weights & Biases too",
    },
    "how well": {
        "--model.optimiser.rates '{PART: X}'": "factors on the rate of parts: '{image_tower.trunk: 0.1}' [null]",
        "--selection.monitor NAME": "what decides which epoch is best.ckpt; null: val/R@10, val/mAP@R for labels, val/accuracy of a "
        "pretext task, or val/trade_off [null]; "
        "--selection.mode min or max [max]",
        "--selection.patience N": "stop early after this many epochs without a better figure; null: never [null]",
        "--preflight.max_steps N": "steps to overfit 32 pairs before the first epoch; 0: only inspect them [100]",
    },
    "what a fine-tuning forgets": {
        "--forgetting.pairs SET": "foreign pairs; their retrieval is measured at the start and at each validation [null]",
        "--forgetting.part NAME": "of them: test, all, or a split of the source's own, such as dev [test]",
        "--forgetting.classes DATA": "labelled pictures, for zero-shot; --forgetting.space SPACE if texts are a column [null]",
        "--forgetting.weight W": "best.ckpt has the best val/R@10^(1-W) * val/kept^W; kept: what is left, in per cent [0.5]",
        "--forgetting.min_kept P": "stop when less than so many per cent is left, above chance; 0: never [50.0]",
    },
    "the pairs": {
        "--data.stream.num_pairs N": "for streamed tars, the pairs of an epoch; --config data/stream.yaml [null]",
        "--model.micro_batch_size N": "pairs encoded at a time on each rank, for a batch larger than memory; same gradient [null]",
        "--data.num_workers N": "processes per rank that prepare batches; columns need none [0]",
        "--data.validation_share X": "the share of training groups to validate on; 0: none [0.1]",
        "--data.train_share X": "the share of the remaining groups to train on [1.0]",
        "--data.split.held_out X": "the share of groups held out for the test [0.2]",
        "--data.leave_out FILE": "pairs to leave out, as listed by data-prep dedup [null]",
    },
}
"""Title -> option -> what it does, with its default in brackets."""
MORE = (
    "More: --help.PART says what a part may be, with all its arguments, such as --help.model.objective, --help.data or --help.trainer. "
    "The parts: {parts}."
)
THEN = (
    f"{FULL} lists every option of every part. A class of your own: PYTHONPATH=. multimodal fit ... --model.objective mine.huber.Huber",
    "Afterwards: multimodal validate --run FOLDER, multimodal export --run FOLDER --output EXPORT.",
)


def short_help(parts: Iterable[str]) -> str:
    """parts: those that `--help.PART` knows."""
    lines = [HEAD, *_recipes()]
    for title, options in {"the five most used": MOST_USED, **OPTIONS}.items():
        lines += ["", f"{title}:", *(line for option, meaning in options.items() for line in row(option, meaning))]
    lines += ["", "classes, named by their path:"]
    for title, found in by_name().items():
        lines += row(title, _names_of(found))
    lines += ["", *textwrap.wrap(MORE.format(parts=", ".join(parts)), WIDTH), *THEN]
    return "\n".join(lines)


def by_name() -> dict[str, dict[str, str]]:
    """Title -> class path -> the first sentence of its docstring."""
    ours = multimodal.towers
    return {
        "--model.image_tower": _described(ours, (ImageTower, Head)),
        "--model.target_side": {
            "torch.nn.Identity": "if the target is a column",
            **_described(ours, (Head, TextTower, ClipTextTower)),
        },
        "--model.objective": _described(multimodal.objectives, (Objective,)),
        "miner of a triplet objective": _described(multimodal.objectives, (Miner,)),
        "--model.optimiser": _described(multimodal.training, (Optimiser,)),
        "--data.image, --data.target": _described(multimodal.data, (Side,)),
        "--data.order": _described(multimodal.data, (Shuffle,)),
        "weights of a trunk": _described(ours, (Weights,)),
        "tuning of a CLIP model's tower": _described(ours, (Tuning,)),
    }


def _described(room: ModuleType, kinds: Sequence[type]) -> dict[str, str]:
    """A room's classes of these kinds from which no other one derives."""
    classes = [one for one in vars(room).values() if isinstance(one, type) and one.__name__ in room.__all__]
    found = [one for one in classes if one not in kinds and any(_fits(one, kind) for kind in kinds) and not inspect.isabstract(one)]
    found += [kind for kind in kinds if kind in classes and not inspect.isabstract(kind) and not getattr(kind, "_is_protocol", False)]
    bases = {base for one in found for base in one.__mro__[1:]}
    return {f"{room.__name__}.{one.__name__}": _first_sentence(one) for one in found if one not in bases}


def _fits(one: type, kind: type) -> bool:
    """Whether a class is of a kind; for a protocol, whether it has its methods, with the same parameters."""
    if not getattr(kind, "_is_protocol", False):
        return issubclass(one, kind)
    wanted = {name: value for name, value in vars(kind).items() if callable(value) and name[0] != "_"}
    has = {name: getattr(one, name, None) for name in wanted}
    return all(value is not None and _names(value) == _names(wanted[name]) for name, value in has.items())


def _names(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _first_sentence(of: type) -> str:
    opening = " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())
    return opening.split(". ")[0].removesuffix(".")


def row(left: str, meaning: str) -> list[str]:
    """An option and its meaning, as lines of help."""
    indent = " " * (COLUMN + 2)
    wrapped = textwrap.wrap(meaning, WIDTH - len(indent)) or [""]
    first = f"  {left:<{COLUMN}}" if len(left) < COLUMN else f"  {left}  "
    if len(left) >= COLUMN:
        wrapped = textwrap.wrap(meaning, WIDTH - len(first)) or [""]
    return [(first + wrapped[0]).rstrip(), *(indent + line for line in wrapped[1:])]


def _recipes() -> Iterator[str]:
    """The shipped recipes: a folder, and the names in it."""
    folders: dict[str, list[str]] = {}
    for name in recipes.names():
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, []).append(file.removesuffix(".yaml"))
    for folder, files in folders.items():
        yield from textwrap.wrap(
            f"{folder}/  {'  '.join(files)}", WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )


def _names_of(classes: Mapping[str, str]) -> str:
    """ "multimodal.objectives. Clip, SigLip": the module once, before its classes."""
    modules: dict[str, list[str]] = {}
    for path in classes:
        module, _, name = path.rpartition(".")
        modules.setdefault(module, []).append(name)
    return "; ".join(f"{module}.{{{', '.join(names)}}}" if len(names) > 1 else f"{module}.{names[0]}" for module, names in modules.items())
