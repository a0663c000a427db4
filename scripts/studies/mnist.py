"""MNIST in two dimensions, from same and different alone: Siamese and triplet, with two digits left out, and what goes wrong.

    python scripts/reproduce.py mnist --data mnist --out runs/mnist

The recipes were chosen on a tenth of the 60,000 training digits. The runs here train on all of them, and the 10,000 test digits are asked
once.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.boxes import write_text
from multimodal.embed.rows import embedded
from multimodal.errors import InputError
from multimodal.evaluate.figures import align
from multimodal.evaluate.neighbours import NeighboursRow, as_table, grouped
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Figure, HardTriplets, Report, Table, curves_of, hard_triplets_of, mining_of
from multimodal.evaluate.scatter import course_of
from multimodal.export.model import load_export
from multimodal.export.run import read_embeddings
from multimodal.road import FINAL, Command, attempt, run, run_side_by_side
from multimodal.shards import ShardSet, Split, write_leave_out
from multimodal.shards.labels import read_labels

LOSSES = {"triplet": "experiment/mnist_triplet.yaml", "siamese": "experiment/mnist_siamese.yaml"}
LEFT_OUT = ("8", "9")
PICTURES_OF_EACH = 20
"""Of a digit in a batch of the recipes."""
WITHIN_STEPS, HIGH = 300, 0.01
"""Of runs at a rate that is too high."""
TERMS = "MNIST: Y. LeCun, C. Cortes and C. Burges, CC BY-SA 3.0."
CIRCLE = "triplet, length one"
RANDOM = "random weights"
PIXELS = "pixels"
NOTES = {
    "triplet": "p + max(0, 1 - n) of semi-hard triplets, at distances p and n.",
    "siamese": "d of pairs that are the same, max(0, 1 - d) of those that differ, each with half of the weight.",
    CIRCLE: "The same run with rows scaled to length one, as pytorch-metric-learning does by default: ten digits on a circle.",
    "triplet without 8 and 9": "Taught the digits 0 to 7 alone.",
    "batch-hard": "From random weights at a rate of 0.01, until CollapseAlarm stops it.",
    "semi-hard": "The same batches at the same rate.",
}


@dataclass(frozen=True, slots=True)
class Training:
    """A run of the study. settings: options beside those of its recipe. among: the labels to tell apart, if not all.

    control: taught by permuted labels; it is judged by them, which must be chance, and by the true ones, which says what the network sees
    in digits without having been taught anything about them.
    """

    recipe: str
    experiment: str
    folder: Path
    shards: Path
    seed: int
    settings: tuple[str, ...] = ()
    control: bool = False
    among: tuple[str, ...] = ()

    @property
    def fit(self) -> Command:
        """The command that trains it, on all training digits."""
        seed = str(self.seed)
        return (
            *("multimodal", "fit", "--config", self.experiment, "--config", FINAL, "--run", str(self.folder / "run")),
            *("--data.shards", str(self.shards), "--seed_everything", seed),
            *("--model.image_tower.init_args.trunk.init_args.weights.init_args.seed", seed),
            *self.settings,
        )

    def commands(self) -> Iterator[Command]:
        """Train, export, and ask the test digits: among the training digits; two that were left out also among themselves."""
        yield self.fit
        export = str(self.folder / "export")
        yield ("multimodal", "export", "--run", str(self.folder / "run"), "--output", export)
        for file, options in self.asked().items():
            among = ("--among", *self.among) if self.among else ()
            yield (
                *("multimodal", "evaluate", "neighbours", "--export", export, "--shards", str(self.shards), *among, *options),
                *("--split.seed", str(self.seed), "--recipe", f"{self.recipe}{', taught permuted labels' * self.control}"),
                *("--output", str(file)),
            )

    def asked(self) -> dict[Path, tuple[str, ...]]:
        """File of figures -> among which pictures the test digits look, and by which labels."""
        found: dict[Path, tuple[str, ...]] = {self.folder / "neighbours.json": ()}
        if self.among:
            found[self.folder / "among-test.json"] = ("--gallery", "test")
        if self.control:
            found[self.folder / "permuted.json"] = ("--permuted", "0")
        return found


def mnist(data: Path, out: Path, seeds: int = 3, epochs: int | None = None) -> None:
    """Digits as points of a plane: Siamese and triplet, judged by nearest neighbours, beside pixels, random weights and permuted labels.

    Also how well two digits are separated that were left out of training, what normalised rows do in a plane, and a run that collapses.

    Args:
        data: the folder of MNIST's four files.
        out: folder for everything; the page is index.html there, the figures are neighbours.json and results.txt.
        seeds: how often to repeat each run.
        epochs: number of epochs, instead of the recipes' own.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    made: Command = ("data-prep", "make-shards", "mnist", "--input", str(data), "--output", str(out / "shards"))
    run(made)
    shards = ShardSet(out / "shards")
    leave_out = out / "leave_out.json"
    _leave_out(leave_out, shards)
    trainings = [*_trainings(out, leave_out, seeds, () if epochs is None else ("--trainer.max_epochs", str(epochs)))]
    baselines = _baselines(out, seeds)
    lines = {f"{_slug(one.recipe)}-seed{one.seed}{'-permuted' * one.control}": [*one.commands()] for one in trainings}
    lines |= {file.stem: [command] for file, command in baselines.items()}
    run_side_by_side({out / "logs" / f"{name}.txt": line for name, line in lines.items()})
    stops = [one for seed in range(seeds) for one in _collapses(out, seed)]
    done = [made, *(command for line in lines.values() for command in line), *(one.command for one in stops)]

    files = [*baselines, *(file for one in trainings for file in one.asked())]
    rows = [NeighboursRow.from_json(values) for file in files for values in json.loads(file.read_text(encoding="utf-8"))]
    whole, apart = [row for row in rows if not row.among], [row for row in rows if row.among]
    printed = "\n\n".join(
        [
            f"10,000 test digits, mean of the seeds, smallest..largest\n{as_table(whole)}",
            f"trained on 0 to 7 alone: the 8s and 9s of the test digits, told apart among those of train, and among themselves\n"
            f"{as_table(apart)}",
            f"{WITHIN_STEPS} steps at a constant rate of {HIGH:g}, batches of 10 x 12, margin 1\n"
            f"{align(_HEADER, _lines_of(stops), num_left=1)}",
            *sorted({one.reason.partition(". ")[2].partition(". Add --overwrite")[0] for one in stops if one.reason}),
        ]
    )
    printed += "\n"
    print(f"\n{printed}")
    first = {one.recipe: one for one in reversed(trainings) if not one.control}
    report = Report(
        title="MNIST: digits in a plane",
        facts=[
            "Taught by which digits are the same and which are different, and by nothing else: two convolutions and three dense layers, of "
            "which the last has two units.",
            f"Trained on 60,000 digits, {seeds} seeds; the recipes were chosen on a tenth of them. 10,000 others are asked: each gets the "
            "label of its nearest training digits, in the plane. Pictures, curves and triplets are those of seed 0.",
            TERMS,
        ],
        rows=[],
        answers=[],
        topics=[],
        curves=[curve for name in LOSSES for curve in curves_of(first[name].folder / "run", name, ("train/loss",))],
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        tables=[
            _figures("Nearest neighbours", f"The mean of {seeds} seeds, with the smallest and the largest.", whole),
            _figures(
                "Digits that were not taught",
                "Trained on 0 to 7. Of the 8s and 9s alone: each test digit looks among those of train, and among the other ones of test.",
                apart,
            ),
            Table(
                "Collapse",
                f"Batches of 10 x 12, margin 1, a constant rate of {HIGH:g}, {WITHIN_STEPS} steps. "
                + next((f"What CollapseAlarm says: {one.reason}." for one in stops if one.reason), ""),
                _HEADER,
                _lines_of(stops),
            ),
        ],
        scatters=[
            *(course_of(first[name].folder / "run", shards, "label", name, NOTES[name], ink=True) for name in NOTES if name in first),
            *(course_of(one.run, shards, "label", one.name, NOTES[one.name], ink=True) for one in stops if one.seed == 0),
        ],
        mining=[
            shares
            for name, folder in (
                *((name, first[name].folder / "run") for name in NOTES if name in first),
                *((one.name, one.run) for one in stops if one.seed == 0),
            )
            if (shares := mining_of(folder, name)) is not None
        ],
        hard_triplets=[_hard_triplets(first[name], shards) for name in LOSSES],
        printed=printed,
    )
    write_text(out / "neighbours.json", json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    write_text(out / "results.txt", printed)
    write_text(out / "index.html", render(report))


def _trainings(out: Path, leave_out: Path, seeds: int, length: tuple[str, ...]) -> Iterator[Training]:
    """Every run, those of the first seed first."""
    shards, of_each = out / "shards", str(PICTURES_OF_EACH)
    num = 10 - len(LEFT_OUT)
    without = (
        *("--data.leave_out", str(leave_out), "--data.order.init_args.labels", str(num), "--data.order.init_args.pictures", of_each),
        *("--data.batch_size", str(num * PICTURES_OF_EACH)),
    )
    permuted = (
        *("--data.target", "multimodal.data.Shuffled", "--data.target.side", "multimodal.data.Labels", "--preflight.max_steps", "0"),
        *("--trainer.callbacks", "null"),  # nothing can be learned: equal rows are the best answer
    )
    for seed in range(seeds):
        folders = {name: out / "runs" / name / f"seed{seed}" for name in LOSSES}
        for name, experiment in LOSSES.items():
            yield Training(name, experiment, folders[name], shards, seed, length)
        for name, experiment in LOSSES.items():
            recipe, folder = f"{name} without {' and '.join(LEFT_OUT)}", folders[name] / "without_8_9"
            yield Training(recipe, experiment, folder, shards, seed, (*without, *length), among=LEFT_OUT)
        circle = ("--model.objective.init_args.normalise", "true", "--preflight.max_steps", "0", *length)
        yield Training(CIRCLE, LOSSES["triplet"], out / "runs" / "circle" / f"seed{seed}", shards, seed, circle)
        if seed == 0:  # only one of each, because it costs as much as the run
            for name, experiment in LOSSES.items():
                yield Training(name, experiment, folders[name] / "permuted", shards, seed, (*permuted, *length), control=True)


def _baselines(out: Path, seeds: int) -> Mapping[Path, Command]:
    """File of figures -> command: pictures as they are, and the network before its first step."""
    line = ("multimodal", "evaluate", "neighbours", "--shards", str(out / "shards"))
    found: dict[Path, Command] = {out / "pixels.json": (*line, "--pixels", "28", "--recipe", PIXELS)}
    for seed in range(seeds):
        random = ("--trunk", "multimodal.towers.LeNet", "--trunk.weights", "multimodal.towers.NoWeights", "--trunk.weights.seed", str(seed))
        found[out / f"random-seed{seed}.json"] = (*line, *random, "--split.seed", str(seed), "--recipe", RANDOM)
    return {file: (*command, "--output", str(file)) for file, command in found.items()}


@dataclass(frozen=True, slots=True)
class _Stopped:
    """A run at a high rate. reason: why it was stopped; "" if it was not."""

    name: str
    seed: int
    run: Path
    command: Command
    reason: str

    @property
    def step(self) -> int:
        """The last one."""
        return int(read_embeddings(self.run).steps[-1])


def _collapses(out: Path, seed: int) -> Iterator[_Stopped]:
    """The hardest and the semi-hard triplets of the same batches, at a rate at which the former collapse."""
    for name in ("batch-hard", "semi-hard"):
        folder = out / "collapse" / name / f"seed{seed}"
        miner = "multimodal.objectives.BatchHard" if name == "batch-hard" else "multimodal.objectives.SemiHard"
        settings = (
            *("--model.objective", "multimodal.objectives.Triplet", "--model.objective.margin", "1.0", "--model.objective.miner", miner),
            *("--model.optimiser", "multimodal.training.TorchOptimiser", "--model.optimiser.optimizer", "torch.optim.AdamW"),
            *("--model.optimiser.optimizer.lr", f"{HIGH:g}"),
            *("--data.order.init_args.pictures", "12", "--data.batch_size", "120", "--preflight.max_steps", "0"),
            *("--trainer.max_steps", str(WITHIN_STEPS), "--num_threads", "1"),
        )
        command = Training(name, LOSSES["triplet"], folder, out / "shards", seed, settings).fit
        try:
            attempt(command)
        except InputError as reason:
            if "has collapsed" not in str(reason):
                raise
            yield _Stopped(name, seed, folder / "run", command, str(reason))
        else:
            yield _Stopped(name, seed, folder / "run", command, "")


_HEADER = ("triplets", "seed", "last step", "the loss and that of equal rows", "spread", "stopped")


def _lines_of(stops: Sequence[_Stopped]) -> list[tuple[str, ...]]:
    lines = []
    for one in stops:
        seen = re.search(r"the loss is (\S+), and equal rows cost (\S+); the spread is (\S+), from (\S+) at first", one.reason)
        losses, spread = ("", "") if seen is None else (f"{seen[1]}, {seen[2]}", f"{seen[3]}, from {seen[4]}")
        lines.append((one.name, f"{one.seed}", f"{one.step}", losses, spread, "a point" if one.reason else "no"))
    return lines


def _figures(title: str, note: str, rows: Sequence[NeighboursRow]) -> Table:
    """A line for each recipe, with the mean of its seeds as bars."""
    header = ("recipe", "looks among", "dimensions", "1-NN", "5-NN", "silhouette", "violated triplets")
    lines = []
    for group in grouped(rows):
        one = group[0]
        chance = float(np.mean([row.chance for row in group]))

        def figure(name: str, mark: float, group: Sequence[NeighboursRow] = group) -> Figure:
            values = [getattr(row, name) for row in group]
            ends = (min(values), max(values)) if len(values) > 1 else (None, None)
            return Figure(float(np.mean(values)), mark, *ends)

        silhouette = f"{np.mean([row.silhouette for row in group if row.silhouette is not None]):.2f}"
        lines.append(
            (
                *(f"{one.recipe}{', and judged by them' * one.control}", f"{one.num_gallery:,} of {one.gallery}", f"{one.dim}"),
                *(figure("nearest_1", chance), figure("nearest_5", chance), silhouette, figure("violated", 50.0)),
            )
        )
    return Table(title, note, header, lines)


def _hard_triplets(training: Training, shards: ShardSet) -> HardTriplets:
    opened = load_export(training.folder / "export")
    test = embedded(shards, Split().ids(shards, "test"), opened.network, opened.preprocessing)
    distance = opened.network.objective.distance
    return hard_triplets_of(test.rows, test.ids, shards, "label", training.recipe, "test", distance=distance)


def _leave_out(path: Path, shards: ShardSet) -> None:
    """The list of training digits that are not to be taught."""
    ids = Split().ids(shards, "train")
    values = read_labels(shards, ids, "label").values
    listed = [id for id, value in zip(ids.tolist(), values, strict=True) if value in LEFT_OUT]
    write_leave_out(path, shards, listed, f"the digits {' and '.join(LEFT_OUT)}, to be told apart without having been taught")


def _slug(recipe: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", recipe.lower()).strip("_")
