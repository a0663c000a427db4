"""Omniglot's twenty one-shot runs: a character of an unknown alphabet, told from nineteen others by one drawing of each.

    python scripts/reproduce.py omniglot --data omniglot --out runs/omniglot

A small network is trained on the drawings of other alphabets alone. The recipe was chosen on alphabets held out of those; the runs were
not looked at before.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from multimodal.boxes import write_text
from multimodal.boxes.trust import Builder
from multimodal.data.decode import centre
from multimodal.errors import InputError
from multimodal.evaluate.figures import align
from multimodal.evaluate.fixed_runs import Runs, hausdorff_accuracies, pixel_rows, read_runs, run_accuracies
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Figure, Neighbours, NeighboursOf, Picture, Report, Table, curves_of
from multimodal.export.model import Export, load_export
from multimodal.export.slots import SLOTS
from multimodal.metrics import unit
from multimodal.pictures.decode import picture
from multimodal.pictures.thumbnails import thumbnail_jpeg
from multimodal.road import Command, run, run_side_by_side
from multimodal.shards import ShardSet
from multimodal.towers import Trunk
from multimodal.towers.augment import affine

EXPERIMENT = "experiment/omniglot.yaml"
ALPHABETS: Mapping[str, tuple[str, ...]] = {
    "eight alphabets": (),
    "five alphabets, small1": ("images_background_small1",),
    "five alphabets, small2": ("images_background_small2",),
}
"""Name in the tables -> the sets to train on; () for all that are there."""
SETS = ("images_background_small1", "images_background_small2")
VIEWS = 8
WHITE = 255
BATCH = 200
NUM_SHOWN = 8
NUM_NEAREST = 5
PX = 96
TERMS = (
    "Omniglot: B. Lake, R. Salakhutdinov and J. Tenenbaum, Human-level concept learning through probabilistic program induction, Science "
    "350 (2015), MIT licence."
)
TRAINED = re.compile(r"^\$ multimodal fit (?:(?!^\$ ).)*^# took \d+ s, (\d+) s of one core", re.MULTILINE | re.DOTALL)
"""In a log: a training, and the seconds of a core that it took."""

Encode = Callable[[Sequence[bytes]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Training:
    """alphabets: a name of ALPHABETS. permuted: labels are permuted across drawings."""

    alphabets: str
    seed: int
    permuted: bool
    folder: Path
    shards: Path

    @property
    def name(self) -> str:
        return f"{self.alphabets}, labels permuted" if self.permuted else self.alphabets

    def commands(self, settings: Sequence[str]) -> list[Command]:
        seed = str(self.seed)
        permuted = (
            *("--data.target.class_path", "multimodal.data.Shuffled", "--data.target.init_args.seed", seed),
            *("--data.target.init_args.side.class_path", "multimodal.data.Labels"),
            *("--preflight.max_steps", "0", "--trainer.callbacks", "null"),  # nothing can be learned: equal rows are the best answer
        )
        return [
            (
                *("multimodal", "fit", "--config", EXPERIMENT, "--run", str(self.folder / "run"), "--data.shards", str(self.shards)),
                *("--seed_everything", seed, "--model.image_tower.init_args.trunk.init_args.weights.init_args.seed", seed),
                *(permuted if self.permuted else ()),
                *settings,
            ),
            ("multimodal", "export", "--run", str(self.folder / "run"), "--output", str(self.folder / "export")),
        ]


@dataclass(frozen=True, slots=True)
class Row:
    """How many of each run's twenty drawings one system has right, in per cent. core_minutes: of its training."""

    system: str
    views: int
    right: tuple[float, ...]
    seed: int | None = None
    core_minutes: float | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.right))


def omniglot(data: Path, out: Path, seeds: int = 3, five: bool = True, control: bool = True, settings: str = "") -> None:
    """Omniglot's one-shot runs after training on eight alphabets, and on each of the two sets of five; baselines and chance beside them.

    Args:
        data: the folder with images_background_small1.zip, images_background_small2.zip and all_runs.zip, or what is in them.
        out: folder for everything; the page is index.html there, the figures are omniglot.json.
        seeds: how often to repeat each training.
        five: also train on each set of five alphabets.
        control: also train once on labels permuted across drawings.
        settings: more options of each `multimodal fit`, as typed, such as "--trainer.max_epochs 2".
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    done: list[Command] = []
    shards: dict[str, Path] = {}
    for name, sets in ALPHABETS.items():
        if five or not sets:
            shards[name] = out / "shards" / _slug(name)
            chosen = ("--sets", *(sets or SETS))
            done.append(
                ("data-prep", "make-shards", "omniglot", "--input", str(data), *chosen, "--rotations", "--output", str(shards[name]))
            )
            run(done[-1])
    trainings = list(_trainings(out, shards, seeds, control))
    lines = {training: training.commands(shlex.split(settings)) for training in trainings}
    done += [command for line in lines.values() for command in line]
    run_side_by_side({_log(out, training): line for training, line in lines.items()})

    runs = ShardSet(next(iter(shards.values())))
    exports = {training: load_export(training.folder / "export") for training in trainings}
    rows = [row for training, export in exports.items() for row in _judge(training, export, runs, _core_minutes(_log(out, training)))]
    rows += list(_baselines([export for training, export in exports.items() if not training.permuted][:seeds], runs))
    chance = 100 / read_runs(runs).tasks.classes.shape[1]
    printed = as_table(rows, chance) + "\n"
    print(f"\n{printed}")
    best, of_best = trainings[0], exports[trainings[0]]
    spread = "One seed." if seeds == 1 else f"The mean of {seeds} seeds, with the smallest and the largest."
    report = Report(
        title="Omniglot: characters of unknown alphabets, each known by one drawing",
        facts=[
            "Twenty runs of the set's author: in each, twenty drawings are to be classified by one drawing of each of twenty characters of "
            "one alphabet. Every drawing is classified by itself. None of these characters was trained on, nor looked at for the recipe.",
            f"{spread} The drawings below are those of seed {best.seed}, {best.alphabets}.",
            TERMS,
        ],
        rows=[],
        answers=[],
        topics=[],
        curves=curves_of(best.folder / "run", best.name, ("train/loss",)),
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        tables=[_page_table(rows, chance)],
        neighbours=neighbours_of(of_best, runs),
        printed=printed,
    )
    write_text(out / "omniglot.json", json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    write_text(out / "results.txt", printed)
    write_text(out / "index.html", render(report))


def _trainings(out: Path, shards: Mapping[str, Path], seeds: int, control: bool) -> Iterator[Training]:
    for name, path in shards.items():
        for seed in range(seeds):
            yield Training(name, seed, False, out / "runs" / _slug(name) / f"seed{seed}", path)
        if control and not ALPHABETS[name]:
            yield Training(name, 0, True, out / "runs" / _slug(name) / "permuted", path)


def _judge(training: Training, export: Export, runs: ShardSet, minutes: float | None) -> Iterator[Row]:
    for views in (1, VIEWS):
        right = 100 * run_accuracies(encoder(export, views), runs)
        yield Row(training.name, views, tuple(right.tolist()), training.seed, minutes)


def _baselines(exports: Sequence[Export], runs: ShardSet) -> Iterator[Row]:
    for seed, export in enumerate(exports):
        trunk: Trunk = Builder(export.path, SLOTS).build(export.network.trunk.recipe, Trunk)  # its random weights
        trunk.eval()

        def features(images: torch.Tensor, trunk: Trunk = trunk) -> np.ndarray:
            with torch.inference_mode():
                return trunk(images).numpy()

        right = 100 * run_accuracies(_encoder_of(features, export.preprocessing.size), runs)
        yield Row("random weights", 1, tuple(right.tolist()), seed)
    yield Row("modified Hausdorff distance", 1, tuple((100 * hausdorff_accuracies(runs)).tolist()))
    yield Row("pixels", 1, tuple((100 * run_accuracies(pixel_rows, runs)).tolist()))


def encoder(export: Export, views: int = 1) -> Encode:
    """Encoded drawings -> (n, d), the mean direction over some views of each: the drawing as it is, and fixed turns, shears and scales."""
    return _encoder_of(export.embed_images, export.preprocessing.size, views)


def _encoder_of(embed: Callable[[torch.Tensor], np.ndarray], size: int, views: int = 1) -> Encode:
    def encode(encoded: Sequence[bytes]) -> np.ndarray:
        images = torch.from_numpy(np.stack([centre(one, size, crop_share=1.0) for one in encoded]))
        rows = [np.mean([unit(embed(view)) for view in _views(batch, views)], axis=0) for batch in images.split(BATCH)]
        return np.concatenate(rows)

    return encode


def _views(images: torch.Tensor, num: int) -> Iterator[torch.Tensor]:
    """The pictures (b, 3, h, w), and num - 1 fixed views of each: all pictures are changed alike."""
    yield images
    drawn = 2 * torch.rand(num - 1, 6, generator=torch.Generator().manual_seed(0)) - 1
    for chance in drawn:
        angle, factor, move, shear = 10 * chance[0], 1.1 ** chance[1], 0.05 * images.shape[2] * chance[2:4], 10 * chance[4:6]
        num_images = len(images)
        yield affine(
            images, angle.expand(num_images), move.expand(num_images, 2), factor.expand(num_images), shear.expand(num_images, 2), WHITE
        )


# -- tables and page -----------------------------------------------------------------------------------------------------------------------


def as_table(rows: Sequence[Row], chance: float) -> str:
    """A line for each system: the mean over its seeds, their smallest and largest, and the largest time of a training."""
    lines = []
    for (system, views), of in _by_system(rows).items():
        means = [row.mean for row in of]
        spread = f"{min(means):.1f}..{max(means):.1f}" if len(of) > 1 else ""
        minutes = [row.core_minutes for row in of if row.core_minutes is not None]
        lines.append((system, f"{views}", f"{np.mean(means):.1f}", spread, f"{len(of)}", f"{max(minutes):.1f}" if minutes else ""))
    lines.append(("chance", "", f"{chance:.1f}", "", "", ""))
    note = (
        f"Per cent right, the mean of {len(rows[0].right)} runs: each drawing by the nearest of its run's by cosine. Smallest and largest "
        "of several seeds; minutes of one core to train."
    )
    return f"{note}\n{align(('trained on', 'views', 'right', 'seeds', 'of', 'minutes'), lines, num_left=1)}"


def _page_table(rows: Sequence[Row], chance: float) -> Table:
    lines: list[list[str | Figure]] = []
    for (system, views), of in _by_system(rows).items():
        means = [row.mean for row in of]
        spread = (min(means), max(means)) if len(of) > 1 else (None, None)
        lines.append([system, f"{views}", Figure(float(np.mean(means)), chance, *spread)])
    note = "Per cent right. Views: how many fixed, slightly changed copies of each drawing its vector is the mean of. The mark is chance."
    return Table("One drawing of each", note, ("trained on", "views", "right"), lines)


def _by_system(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.system, row.views), []).append(row)
    return found


def neighbours_of(export: Export, shards: ShardSet) -> list[Neighbours]:
    """Some drawings with the nearest of their run, and those that are the most wrong."""
    runs = read_runs(shards)
    encoded = [shards.image_bytes(id) for id in runs.ids.tolist()]
    rows = unit(encoder(export)(encoded))
    cases = [case for number in range(len(runs.tasks)) for case in _cases(runs, number, rows)]
    wrong = sorted((case for case in cases if case.rank > 1), key=lambda case: case.margin)[:NUM_SHOWN]
    num_wrong = sum(case.rank > 1 for case in cases)
    some = cases[:: max(1, len(cases) // NUM_SHOWN)][:NUM_SHOWN]

    def shown(chosen: Sequence[_Case]) -> list[NeighboursOf]:
        def small(place: int, text: str) -> Picture:
            return Picture(thumbnail_jpeg(picture(encoded[place]), PX), text)

        return [
            NeighboursOf(
                small(case.query, case.name),
                [small(place, f"{cosine:.2f}") for place, cosine in case.nearest],
                case.rank - 1 if case.rank <= len(case.nearest) else None,
                f"{case.name}: the right one is number {case.rank}",
            )
            for case in chosen
        ]

    return [
        Neighbours(f"Some of {len(cases)} drawings, with the {NUM_NEAREST} nearest of their run", shown(some)),
        Neighbours(f"The hardest of {num_wrong} that are wrong", shown(wrong)),
    ]


@dataclass(frozen=True, slots=True)
class _Case:
    """query: the place of its drawing. rank: of the right one, from 1. margin: its cosine less that of the nearest other."""

    name: str
    query: int
    rank: int
    margin: float
    nearest: Sequence[tuple[int, float]]


def _cases(runs: Runs, number: int, rows: np.ndarray) -> Iterator[_Case]:
    shots = runs.tasks.shots[number, :, 0]
    for own, query in enumerate(runs.tasks.queries[number, :, 0].tolist()):
        cosines = rows[shots] @ rows[query]
        others = np.delete(cosines, own)
        order = np.argsort(-cosines, kind="stable")[:NUM_NEAREST]
        nearest = [(int(shots[place]), float(cosines[place])) for place in order]
        rank = int((others >= cosines[own]).sum()) + 1
        yield _Case(f"{runs.names[number]}, drawing {own + 1}", query, rank, float(cosines[own] - others.max()), nearest)


# -- files ---------------------------------------------------------------------------------------------------------------------------------


def _core_minutes(log: Path) -> float | None:
    """Of a training, all tries together; None if the log has none that took a second."""
    seconds = sum(int(took) for took in TRAINED.findall(log.read_text(encoding="utf-8")))
    return seconds / 60 if seconds else None


def _log(out: Path, training: Training) -> Path:
    return out / "logs" / f"{_slug(training.alphabets)}-{training.folder.name}.txt"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name).strip("_")
