"""Pictures alone, without a text or a label: five pretext tasks, what a trunk learns from each, and a shortcut that a lens opens.

    python scripts/reproduce.py pretext --data DIR --out runs/pretext --classes cifar10.npz

Each task trains the network of `reproduce.py scratch` from random weights, on the same pictures. Recipes were chosen by the probe's
cross-validated accuracy on its training labels (`cv`), never by its test pictures.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from multimodal.boxes import is_whole, write_text
from multimodal.data import Colours, DropColours, OneChannel, Pixels, PositionViews, ProjectColours
from multimodal.data.order import random_words
from multimodal.embed.labelled import open_labelled
from multimodal.errors import InputError
from multimodal.evaluate.figures import align
from multimodal.evaluate.page import render
from multimodal.evaluate.probe import ProbeRow, read_right
from multimodal.evaluate.report import Figure, LearningCurve, Report, Table, curves_of
from multimodal.export.run import Run
from multimodal.machine.progress import track
from multimodal.metrics import interval
from multimodal.objectives.relative_position import neighbours
from multimodal.pictures.aberration import colour_shifts, lateral_aberration
from multimodal.pictures.decode import picture
from multimodal.road import Command, run, run_side_by_side
from multimodal.shards import ShardSet, ShardWriter, Split

SIZE = 64
"""Pixels of the probe, as in `reproduce.py scratch`."""
SHARES = ("0.01", "0.1", "1")
"""Of the probe's labels."""
OPEN = ("--data.image.init_args.colours", "null")
"""Leaves the chromatic shortcut open, which the recipe closes by `ProjectColours`."""
PERMUTED = ("--data.image.init_args.permuted", "true", "--preflight.max_steps", "0", "--trainer.callbacks", "null")
"""Nothing can be learned: neither a check before the run nor an alarm in it could pass."""
COLOURS: Mapping[str, Colours | None] = {
    "all": None,
    "one channel of each patch": OneChannel(),
    "one channel and noise": DropColours(),
    "projected": ProjectColours(),
}
"""Ways to see the colours of patches."""
NUM_FRINGED = 500
"""Pictures whose fringes are measured, and as many others that are asked: 40 questions each."""
RANDOM = "random weights"
TERMS = "Flickr8k: M. Hodosh, P. Young and J. Hockenmaier, JAIR 47 (2013). For research; the photographs are their owners'."


@dataclass(frozen=True, slots=True)
class Task:
    """figure: what a run reports of its answers in validation."""

    name: str
    experiment: str
    figure: str = "accuracy"


TASKS = {
    "rotation": Task("rotation", "experiment/pretext_rotation.yaml"),
    "position": Task("position", "experiment/pretext_position.yaml"),
    "jigsaw": Task("jigsaw", "experiment/pretext_jigsaw.yaml"),
    "inpainting": Task("inpainting", "experiment/pretext_inpainting.yaml", "explained"),
    "colour": Task("colour", "experiment/pretext_colour.yaml", "explained"),
}
EVERY = list(TASKS)


@dataclass(frozen=True, slots=True)
class Training:
    """A run of a task.

    lens: on pictures with synthetic chromatic aberration. is_open: the shortcut is left open. control: answers permuted across pictures.
    """

    task: Task
    seed: int
    lens: bool = False
    is_open: bool = False
    control: bool = False

    @property
    def name(self) -> str:
        return f"{self.task.name}{', lens' * self.lens}{', shortcut open' * self.is_open}{', permuted' * self.control}"

    @property
    def slug(self) -> str:
        return f"{self.task.name}{'_lens' * self.lens}{'_open' * self.is_open}{'_permuted' * self.control}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Row:
    """A training, or random weights: how well its task is answered, with chance, and the probe's rows, one for each share of the labels.

    right: test picture -> 1 if the probe on all labels predicts it, else 0.
    """

    name: str
    seed: int
    probes: Sequence[ProbeRow]
    right: Mapping[str, float]
    figure: str = ""
    answered: float | None = None
    chance: float | None = None

    @property
    def whole(self) -> ProbeRow:
        return self.probes[-1]


def pretext(
    data: Path,
    out: Path,
    classes: Path,
    seeds: int = 3,
    tasks: list[str] = EVERY,  # noqa: B006 (never changed)
    shortcut: bool = True,
    shift: float = 2.0,
    settings: str = "",
) -> None:
    """Train a small network from random weights on pictures alone by each pretext task, and probe how well its features predict classes.

    Then the shortcut: relative position on pictures through a synthetic lens that shifts red and blue outwards, with all colours and with
    those that tell nothing of the lens.

    Args:
        data: the folder with captions.tsv (columns file, split, caption) and the pictures, or tars of them; no caption is read in training.
        out: folder for everything; the page is index.html there, the figures are pretext.json.
        classes: labelled pictures for the probe (see multimodal evaluate probe); nothing trains on them.
        seeds: how often to repeat each run.
        tasks: which tasks to train: rotation, position, jigsaw, inpainting, colour.
        shortcut: also the runs that show the chromatic shortcut: as often, three for each seed.
        shift: by how many pixels the lens moves red and blue at the corners of a picture.
        settings: more options of each `multimodal fit`, as typed, such as "--trainer.max_epochs 2".
    """
    if unknown := set(tasks) - set(TASKS):
        raise InputError(f"--tasks {' '.join(sorted(unknown))}: unknown. Known: {', '.join(TASKS)}")
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    open_labelled(classes, Split())
    shards, through_lens = out / "shards", out / "shards_lens"
    done: list[Command] = [("data-prep", "make-shards", "captions", "--input", str(data / "captions.tsv"), "--output", str(shards))]
    run(done[0])
    if shortcut:
        photograph(shards, through_lens, shift)
    trainings = list(_trainings(tasks, seeds, shortcut))
    lines = {one.slug: _commands(one, out, through_lens if one.lens else shards, classes, settings) for one in trainings}
    lines |= {f"random-seed{seed}": [_random(seed, out, classes)] for seed in range(seeds)}
    run_side_by_side({out / "logs" / f"{name}.txt": line for name, line in lines.items()})
    done += [command for line in lines.values() for command in line]

    rows = [row_of(out, one) for one in trainings]
    rows += [Row(RANDOM, seed, *_probed(out, f"random-seed{seed}")) for seed in range(seeds)]
    printed = as_table(rows) + "\n"
    if shortcut:
        printed += f"\n{shortcut_table(rows)}\n\n{_fringes(out, shards, through_lens)}\n"
    print(f"\n{printed}")
    opened = ShardSet(shards)
    report = Report(
        title="What pictures teach by themselves",
        facts=[
            f"{len(Split().ids(opened, 'train')):,} pictures, without any text or label, of which a tenth is validated on. {seeds} seeds; "
            "curves are those of seed 0.",
            "Answered: how well a run answers its own task in evaluation mode after its last epoch, on pictures that it was not trained "
            "on; the probe is of its best one. What is explained of answers is 0 for the plainest ones.",
            *([f"The lens: red and blue moved outwards, by {shift:g} pixels at the corners of pictures of 224."] if shortcut else []),
            TERMS,
        ],
        rows=[],
        answers=[],
        topics=[],
        curves=[
            curve
            for one in trainings
            if one.seed == 0
            for curve in curves_of(_folder(out, one) / "run", one.name, ("train/loss", f"val/{one.task.figure}"))
        ],
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        tables=[_page_table(rows)],
        learning=[_curve(name, of) for name, of in _by_name(rows).items()],
        printed=printed,
    )
    write_text(out / "pretext.json", json.dumps([_as_json(row) for row in rows], indent=1) + "\n")
    write_text(out / "results.txt", printed)
    write_text(out / "index.html", render(report))


def photograph(shards: Path, output: Path, shift: float) -> None:
    """A set with the same pictures through a lens that moves red and blue outwards by shift pixels at the corners; kept if it is there.

    JPEG as it is usually written halves the resolution of colours, and with it that of the fringes: here it does not.
    """
    opened = ShardSet(shards)
    config = {"made_from": opened.fingerprint, "shift": shift}
    if is_whole(output):
        if not config.items() <= ShardSet(output).manifest.config.items():
            raise InputError(f"{output}: holds pictures through another lens, or of another set. Delete it, or choose another --out")
        return
    with ShardWriter(output, config=config) as writer:
        for pair in track(opened, "lens", unit="picture", total=len(opened)):
            file = BytesIO()
            seen = Image.fromarray(lateral_aberration(np.asarray(picture(pair.image)), shift, shift))
            seen.save(file, "JPEG", quality=95, subsampling=0)
            writer.write(replace(pair, image=file.getvalue(), extension="jpg"))


def _trainings(tasks: Sequence[str], seeds: int, shortcut: bool) -> Iterator[Training]:
    """The first seed of all before the second of any: a study that is stopped has something of each."""
    for seed in range(seeds):
        for name in tasks:
            yield Training(TASKS[name], seed)
        if seed == 0 and tasks:  # only one, because it costs as much as the run
            yield Training(TASKS[tasks[0]], seed, control=True)
        if shortcut:
            position = TASKS["position"]
            if "position" not in tasks:
                yield Training(position, seed)
            yield Training(position, seed, is_open=True)
            yield Training(position, seed, lens=True, is_open=True)
            yield Training(position, seed, lens=True)


def _commands(training: Training, out: Path, shards: Path, classes: Path, settings: str) -> list[Command]:
    folder, seed = _folder(out, training), str(training.seed)
    return [
        (
            *("multimodal", "fit", "--config", training.task.experiment, "--run", str(folder / "run"), "--data.shards", str(shards)),
            *("--data.split.seed", seed, "--seed_everything", seed),
            *("--model.image_tower.init_args.trunk.init_args.weights.init_args.seed", seed),
            *(OPEN if training.is_open else ()),
            *(PERMUTED if training.control else ()),
            *shlex.split(settings),
        ),
        ("multimodal", "export", "--run", str(folder / "run"), "--output", str(folder / "export")),
        (*_probe(out, training.slug, training.seed, training.name, classes), "--export", str(folder / "export")),
    ]


def _random(seed: int, out: Path, classes: Path) -> Command:
    trunk = ("--trunk.architecture", "resnet10t", "--trunk.weights", "multimodal.towers.NoWeights", "--trunk.weights.seed", str(seed))
    return (*_probe(out, f"random-seed{seed}", seed, RANDOM, classes), *trunk)


def _probe(out: Path, slug: str, seed: int, name: str, classes: Path) -> Command:
    return (
        *("multimodal", "evaluate", "probe", "--data", str(classes), "--size", str(SIZE), "--shares", *SHARES),
        *("--split.seed", str(seed), "--recipe", name, "--output", str(_probe_file(out, slug))),
    )


# -- figures -------------------------------------------------------------------------------------------------------------------------------


def row_of(out: Path, training: Training) -> Row:
    """What a finished training has reached: of its task after the last epoch, since the best one is the luckiest by this very figure."""
    figure = training.task.figure
    last = next(row for row in reversed(Run(_folder(out, training) / "run").metrics) if f"val/{figure}" in row)
    answered, chance = last[f"val/{figure}"], last[f"val/chance_{figure}"]
    return Row(training.name, training.seed, *_probed(out, training.slug), figure, answered, chance)


def as_table(rows: Sequence[Row]) -> str:
    """A line for each task: means over its seeds, and the probe on all labels beside that of random weights."""
    lines, by_name = [], _by_name(rows)
    for name, of in by_name.items():
        means = [float(np.mean([row.probes[place].linear for row in of])) for place in range(len(SHARES))]
        whole = [row.whole for row in of]
        linear = [row.linear for row in whole]
        task = ("", "", "")
        if of[0].figure:
            answered = [row.answered for row in of if row.answered is not None]
            task = (of[0].figure, f"{np.mean(answered):.1f}", f"{of[0].chance:.1f}")
        right, random = _right(of), _right(by_name[RANDOM])
        gain = "" if name == RANDOM else f"{100 * (right - random).mean():+.1f} {_between(right - random)}"
        spread = f"{min(linear):.1f}..{max(linear):.1f} of {len(of)}"
        cv, knn = (float(np.mean([getattr(row, field) for row in whole])) for field in ("cv_accuracy", "knn"))
        cells = (*(f"{mean:.1f}" for mean in means), _between(right), spread, gain, f"{cv:.1f}", f"{knn:.1f}", f"{whole[0].chance:.1f}")
        lines.append((name, *task, *cells))
    shares = [f"{100 * float(share):g} %" for share in SHARES]
    one = rows[0].whole
    note = (
        "answered: the task itself in validation after the last epoch, beside its chance; the probe is of the best one. "
        f"Linear probe of {one.data} at {SIZE} pixels, per cent right, with shares of its {one.num_train:,} labels.\n"
        f"95 %: of the mean of the seeds, and of its gain over random weights, with the {one.num_test:,} test pictures resampled; "
        "seeds: smallest..largest"
    )
    header = ("task", "figure", "answered", "chance", *shares, "95 %", "seeds", "over random", "cv", "kNN", "chance")
    return f"{note}\n{align(header, lines, num_left=2)}"


def _right(rows: Sequence[Row]) -> np.ndarray:
    """(m,) the share of the seeds whose probe predicts each test picture, in the order of their names."""
    return np.mean([[row.right[name] for name in sorted(row.right)] for row in rows], axis=0)


def _between(values: np.ndarray) -> str:
    """The 95 % interval of their mean, in per cent."""
    low, high = interval(values)
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def shortcut_table(rows: Sequence[Row]) -> str:
    """Relative position on pictures as they are and through the lens, with the shortcut open and shut."""
    position, of = TASKS["position"], _by_name(rows)
    lines = []
    for lens in (False, True):
        for is_open in (True, False):
            ours = of[Training(position, 0, lens, is_open).name]
            answered, linear = [row.answered or 0.0 for row in ours], [row.whole.linear for row in ours]
            lines.append(
                (
                    *("through the lens" if lens else "as they are", "all" if is_open else "projected"),
                    *(f"{np.mean(answered):.1f}", f"{min(answered):.1f}..{max(answered):.1f}", f"{ours[0].chance:.1f}"),
                    *(f"{np.mean(linear):.1f}", f"{min(linear):.1f}..{max(linear):.1f}", f"{ours[0].whole.chance:.1f}"),
                )
            )
    header = ("pictures", "colours", "answered", "seeds", "chance", "probe", "seeds", "chance")
    return (
        f"The chromatic shortcut: relative position, per cent right in validation, and the linear probe\n{align(header, lines, num_left=2)}"
    )


def _fringes(out: Path, shards: Path, through_lens: Path) -> str:
    """The table of `told_by_fringes` for both sets, as it was written, or made now."""
    opened, kept = [ShardSet(path) for path in (shards, through_lens)], out / "fringes.json"
    made_from = [one.fingerprint for one in opened]
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if found.get("made_from") != made_from:
        right = [[told_by_fringes(one, colours) for colours in COLOURS.values()] for one in opened]
        found = {"made_from": made_from, "right": right}
        write_text(kept, json.dumps(found))
    lines = [(name, *(f"{100 * right[place]:.1f}" for right in found["right"]), "15.0") for place, name in enumerate(COLOURS)]
    note = (
        "Fringes alone: relative position, per cent right, by logistic regression of eight numbers: the shifts of red and blue against "
        "green in both patches"
    )
    return f"{note}\n{align(('colours', 'as they are', 'through the lens', 'chance'), lines, num_left=1)}"


def told_by_fringes(shards: ShardSet, colours: Colours | None, num: int = NUM_FRINGED) -> float:
    """How much of relative position the fringes of patches tell, whatever they show: the share of all questions that is right.

    num: of training pictures, and of others that are asked.
    """
    views = PositionViews(Pixels(size=180, scale=(0.5, 1.0)), colours=colours)
    trained, asked = Split().ids(shards, "train")[:num], np.flatnonzero(np.array(list(shards.splits)) == "dev")[:num]
    ids = np.concatenate([trained, asked])
    firsts, seconds, places = neighbours()
    patches, rows = np.zeros(views.shape, np.uint8), []
    for id, word in zip(ids.tolist(), random_words(0, 0, ids).tolist(), strict=True):
        cells = views.ask(views.pixels.of(shards.image_bytes(id), word), word, patches)
        shifts = np.array([colour_shifts(patch.transpose(1, 2, 0)) for patch in patches[np.argsort(cells)]])
        rows += [*np.concatenate([shifts[firsts], shifts[seconds]], axis=1)]
    shifts, wanted, end = np.array(rows), np.array(places * len(ids)), len(trained) * len(places)
    low, high = np.percentile(shifts[:end], [2, 98], axis=0)  # colourful patches have some that are none
    shifts = np.clip(shifts, low, high)
    scaled = (shifts - shifts[:end].mean(axis=0)) / (shifts[:end].std(axis=0) + 1e-9)
    model = LogisticRegression(max_iter=1000).fit(scaled[:end], wanted[:end])
    return float((model.predict(scaled[end:]) == wanted[end:]).mean())


def _as_json(row: Row) -> Mapping[str, Any]:
    """Its figures; which pictures are predicted stays beside the probe's rows."""
    return {name: value for name, value in asdict(row).items() if name != "right"}


def _page_table(rows: Sequence[Row]) -> Table:
    lines: list[list[str | Figure]] = []
    for name, of in _by_name(rows).items():
        linear, whole = [row.whole.linear for row in of], of[0].whole
        low, high = (min(linear), max(linear)) if len(of) > 1 else (whole.linear_low, whole.linear_high)
        answered: str | Figure = ""
        if of[0].chance is not None:
            answered = Figure(float(np.mean([row.answered or 0.0 for row in of])), of[0].chance, family=name)
        lines.append([name, of[0].figure, answered, Figure(float(np.mean(linear)), whole.chance, low, high, family=name)])
    note = (
        "Answered: the task itself, in validation. Linear probe: predicting classes from frozen features with all labels; the mean, "
        "smallest and largest seed, or the interval of a single one. The mark is chance."
    )
    return Table("What the task is answered, and what the trunk has learned", note, ("task", "figure", "answered", "linear probe"), lines)


def _curve(name: str, of: Sequence[Row]) -> LearningCurve:
    """The probe over the number of its labels."""
    nums = [one.num_train for one in of[0].probes]  # of few labels, two shares may be as many
    by_share = [[row.probes[place] for row in of] for place, num in enumerate(nums) if num not in nums[:place]]
    linear = [[row.linear for row in rows] for rows in by_share]
    ends = (linear, linear) if len(of) > 1 else ([[rows[0].linear_low] for rows in by_share], [[rows[0].linear_high] for rows in by_share])
    return LearningCurve(
        name,
        [rows[0].num_train for rows in by_share],
        [float(np.mean(values)) for values in linear],
        [min(values) for values in ends[0]],
        [max(values) for values in ends[1]],
        by_share[-1][0].chance,
        figure="Linear probe",
        unit="labels",
    )


def _by_name(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


def _probed(out: Path, slug: str) -> tuple[list[ProbeRow], Mapping[str, float]]:
    """The probe's rows, and which test pictures the last one predicts."""
    file = _probe_file(out, slug)
    return [ProbeRow.from_json(values) for values in json.loads(file.read_text(encoding="utf-8"))], read_right(file)[-1]


def _probe_file(out: Path, slug: str) -> Path:
    return out / "probes" / f"{slug}.json"


def _folder(out: Path, training: Training) -> Path:
    return out / "runs" / training.slug
