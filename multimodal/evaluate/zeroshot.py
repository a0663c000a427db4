"""Zero-shot classification: pictures go to the class whose text is nearest, with a model that saw no label.

    multimodal evaluate zeroshot --export runs/mine/export --data cifar10.npz
    multimodal evaluate zeroshot --export E --data photos --templates templates.txt       # its lines: a photo of a {}.
    multimodal evaluate zeroshot --export E --data photos --sentences sentences.txt       # its lines: deer: a deer stands in the woods

Every export has a text side, so every family can be asked: contrastive, word vectors, topics. The classifier is open_clip's
(`multimodal.embed.class_texts`), and so is the protocol (Radford et al., 2021): each picture by cosine to each class, top-1 and top-5.
To evaluate a model of your own, two functions of arrays are enough:

    weights = class_weights(embed_texts, names, templates)       # (c, d)
    found = judge(image_rows, weights, labels, picture_names)
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write, write_output
from multimodal.embed.class_texts import (
    PLAIN,
    Predictions,
    class_weights,
    judge,
    names_of,
    read_class_texts,
    read_templates,
    text_weights,
)
from multimodal.embed.labelled import Embedded, embed_labelled, open_labelled, pick_size
from multimodal.embed.pictures import pick_batch_size, pick_device
from multimodal.errors import InputError
from multimodal.evaluate.classes import Confusion
from multimodal.evaluate.figures import FigureRow, Line, align, lines_of, per_cent, queries_path, write_rows
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Figure, HeatMap, Report, Table
from multimodal.export.model import Export, load_export
from multimodal.machine.progress import track
from multimodal.metrics import interval
from multimodal.shards.split import Split
from multimodal.text import TextSpace

TOP = 5
NUM_PERMUTATIONS = 1000
NUM_SHOWN = 40
"""Classes in the printed table by class; of more, those with the smallest accuracy. All are in the JSON file."""
TEXTS_PER_BATCH = 512


def permuted_accuracies(found: Predictions, num: int = NUM_PERMUTATIONS, seed: int = 0) -> np.ndarray:
    """(num,): the accuracies in [0, 1] of the same predictions if the class texts are permuted at random among the known classes.

    Over all permutations their mean is the share of the pictures that are of a known class, over the number of known classes. Their spread
    says how far from it an assignment of texts to classes comes that means nothing.
    """
    certain = ~found.tied  # a picture between several classes is wrong whatever their texts are called
    c = len(found.known)
    counts = np.bincount(found.labels[certain] * c + found.predicted[certain], minlength=c * c).reshape(c, c)
    known = np.flatnonzero(found.known)
    generator = np.random.default_rng(seed)
    right = [counts[generator.permutation(known), known].sum() for _ in range(num)]
    return np.array(right, np.float64) / max(1, len(found))


# -- figures -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ZeroShotRow(FigureRow):
    """One line of a table of figures: an export on labelled pictures. Shares are in per cent.

    data, part: which pictures; size: height and width of the network's input, in pixels; None if the caller embedded them.
    texts: what stands for a class: "names", "1 template", "18 templates", or the name of a file of sentences. centred: whether their
    mean was subtracted.
    top_1, top_5: share of the pictures whose class is the nearest, or among the nearest five; None with at most five classes.
    per_class: the mean over classes of top_1. low, high: the 95 % bootstrap interval of top_1 over pictures.
    chance: top_1 of the largest class for every picture. permuted, permuted_low, permuted_high: the mean and the middle 95 % of top_1 with
    class texts permuted among the classes.
    unknown: classes that are never predicted, because the text space knows no word of their texts.
    classes: the names of all c classes. by_class: top_1 of the pictures of each class that has some. confusion: for each of these, a list
    of c counts: what its pictures were taken for.
    seed: the export's place in the command. control: whether the run was trained with texts shuffled across pictures.
    """

    recipe: str
    family: str
    data: str
    part: str
    size: int | None
    texts: str
    centred: bool
    num_classes: int
    num_pictures: int
    top_1: float
    top_5: float | None
    per_class: float
    low: float
    high: float
    chance: float
    permuted: float
    permuted_low: float
    permuted_high: float
    unknown: list[str]
    classes: list[str]
    by_class: dict[str, float]
    confusion: dict[str, list[int]]
    seed: int
    control: bool

    keys: ClassVar[Mapping[str, str]] = {
        "top_1": "top-1",
        "top_5": "top-5",
        "per_class": "per_class_top-1",
        "low": "top-1_low",
        "high": "top-1_high",
        "chance": "chance_top-1",
        "permuted": "permuted_top-1",
        "permuted_low": "permuted_top-1_low",
        "permuted_high": "permuted_top-1_high",
    }

    @classmethod
    def of(
        cls,
        found: Predictions,
        classes: Sequence[str],
        recipe: str,
        family: str,
        data: str,
        texts: str,
        part: str = "test",
        size: int | None = None,
        centred: bool = False,
        seed: int = 0,
        control: bool = False,
    ) -> ZeroShotRow:
        """From what pictures were taken for; see `judge`."""
        counts, in_class = found.counts(), np.bincount(found.labels, minlength=len(classes))
        shares = np.divide(counts.diagonal(), in_class, out=np.full(len(classes), np.nan), where=in_class > 0)
        low, high = interval(found.right, found.groups)
        permuted = permuted_accuracies(found)
        permuted_low, permuted_high = np.quantile(permuted, [0.025, 0.975]).tolist()
        return cls(
            recipe=recipe,
            family=family,
            data=data,
            part=part,
            size=size,
            texts=texts,
            centred=centred,
            num_classes=len(classes),
            num_pictures=len(found),
            top_1=per_cent(float(found.right.mean())),
            top_5=per_cent(float((found.ranks <= TOP).mean())) if len(classes) > TOP else None,
            per_class=per_cent(float(np.nanmean(shares))),
            low=per_cent(low),
            high=per_cent(high),
            chance=per_cent(float(in_class.max() / len(found))),
            permuted=per_cent(float(permuted.mean())),
            permuted_low=per_cent(permuted_low),
            permuted_high=per_cent(permuted_high),
            unknown=[name for name, known in zip(classes, found.known, strict=True) if not known],
            classes=list(classes),
            by_class={name: per_cent(share) for name, share in zip(classes, shares.tolist(), strict=True) if not np.isnan(share)},
            confusion={name: line for name, line, num in zip(classes, counts.tolist(), in_class, strict=True) if num},
            seed=seed,
            control=control,
        )


def evaluate(
    data: Path,
    export: list[str | Path],
    names: Path | None = None,
    templates: Path | None = None,
    sentences: list[Path] | None = None,
    centre: bool = False,
    part: Literal["train", "test"] = "test",
    size: int | None = None,
    split: Split = Split(),  # noqa: B008 (frozen)
    recipe: str | None = None,
    control: bool = False,
    output: Path | None = None,
    html: Path | None = None,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    trust: Sequence[str] = (),
) -> list[ZeroShotRow]:
    """Classify labelled pictures by the class whose text is nearest, and print the accuracy, chance and a permuted control, and each class.

    A class is its name, and if you give them, on further lines, its name in templates, and sentences of its own; several texts are averaged
    at unit length, as open_clip does. Nothing is trained, and no label is used but to count. Choose texts on --part train, and report
    --part test once.

    A picture's shorter side is scaled to `size`, up or down (bicubic, antialiased), and the centre square is taken, as in `evaluate probe`.
    `permuted` is the accuracy with the class texts permuted among the classes, mean and middle 95 % of 1,000 permutations: texts that say
    nothing of the pictures score in that range. `chance` is the accuracy of predicting the largest class for every picture.

    Args:
        data: labelled pictures: a .npz with x_train, y_train, x_test, y_test and names; a folder train/<class>/<picture> with
            test/<class>/<picture> beside it; or a folder <class>/<picture>.
        export: made by `multimodal export`, a folder or hf://user/name; several are the seeds of one recipe, and become one line.
        names: a text file with a name for each class, one a line: `automobile: car`, or only names, in the order of the classes. By
            default the names are the classes themselves, with spaces for underscores.
        templates: a text file with one template a line, with {} for the name: `a photo of a {}.`
        sentences: a text file with texts of each class, one a line: `deer: a deer stands in the woods`. A class may have several. Several
            files are several lines of the table, named after them.
        centre: subtract the mean of the classes' vectors from each. It uses no picture; try it on --part train before you use it.
        part: which pictures to classify.
        size: height and width of the network's input in pixels; by default the size it was made for.
        split: how a folder <class>/<picture> is split, by picture.
        recipe: the name of the run in the table; by default its family.
        control: mark the rows as a control, trained with texts shuffled across pictures.
        output: also write the rows, with the confusions, to this JSON file, and each picture's prediction to a .queries.parquet beside it.
        html: also write the tables and the confusions to this page.
        batch_size: pictures in one batch; by default 8 on a CPU and 256 on an accelerator.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        max_bad_share: fail if a larger share of the pictures cannot be read.
        trust: your own packages whose classes the exports name. Their code is run; without this option, nothing is imported because a
            folder names it.
    """
    on = pick_device(device)
    pictures = open_labelled(data, split)
    _check_classes(pictures.classes, data)
    forms = _forms(pictures.classes, names, templates, sentences or ())
    exports = [load_export(one, trust=trust) for one in export]
    _check_one_recipe(exports)
    ids = np.flatnonzero(pictures.is_test == (part == "test"))
    data = Path(data).resolve()
    features: dict[tuple[str, int], Embedded] = {}
    rows, found, said = [], [], set[str]()
    for seed, one in enumerate(exports):
        weights = _weights(one, forms, centre, said)
        trunk = one.network.to(on).trunk
        px = pick_size(trunk, size)
        shared = trunk.fingerprint, px  # seeds of one recipe share a frozen trunk, and its features are most of the work
        if shared not in features:
            features[shared] = embed_labelled(pictures, ids, trunk, px, pick_batch_size(batch_size, on), num_threads, max_bad_share)
        read = features[shared].is_readable
        if read.sum() < 2:
            raise InputError(f"{data}: {read.sum()} picture of {part} can be read, and an interval needs at least 2. Add pictures")
        vectors = one.embed_features(features[shared].rows[read])
        if broken := int((~np.isfinite(vectors).all(axis=1)).sum()):
            print(f"{one.path}: {broken} of {len(vectors)} pictures have vectors that are not finite, and count as wrong", file=sys.stderr)
        labels, of_pictures = pictures.labels[ids][read], [pictures.names[id] for id in ids[read].tolist()]
        family, named = one.card.family, data.name if data.is_dir() else data.stem
        for texts, of_form in weights.items():
            judged = judge(vectors, of_form, labels, of_pictures)
            rows.append(ZeroShotRow.of(judged, pictures.classes, recipe or family, family, named, texts, part, px, centre, seed, control))
            found.append(judged)
    if output is not None:
        write_predictions(output, rows, found)
    printed = as_table(rows, found) + "\n\n" + class_table(rows)
    if html is not None:
        with write_output(html) as file:
            file.write(page(rows, found, printed).encode())
        print(f"{html}: written", file=sys.stderr)
    print(printed)
    return rows


# -- inputs --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """What stands for c classes: their names in templates; or, with empty templates, texts of each class."""

    described: str
    texts: Sequence[Sequence[str]]
    templates: tuple[str, ...] = ()

    def weights(self, space: TextSpace, centre: bool) -> np.ndarray:
        """(c, d), see `class_weights`."""

        def embed(texts: Sequence[str]) -> np.ndarray:
            if len(texts) <= TEXTS_PER_BATCH:
                return space.embed(texts)
            starts = range(0, len(texts), TEXTS_PER_BATCH)
            batches = track(starts, "embedding class texts", unit="text", total=len(texts), weight=TEXTS_PER_BATCH)
            return np.concatenate([space.embed(texts[start : start + TEXTS_PER_BATCH]) for start in batches])

        if self.templates:
            return class_weights(embed, [name for (name,) in self.texts], self.templates, centre)
        return text_weights(embed, self.texts, centre)


def _forms(classes: Sequence[str], names: Path | None, templates: Path | None, sentences: Sequence[Path]) -> list[_Form]:
    """Names first; then what was given."""
    named = [(name,) for name in names_of(classes, names)]
    forms = [_Form("names", named, PLAIN)]
    if templates is not None:
        given = read_templates(templates)
        forms.append(_Form("1 template" if len(given) == 1 else f"{len(given)} templates", named, given))
    for path in sentences:
        if path.stem in [form.described for form in forms]:
            raise InputError(f"--sentences {path}: another line of the table is called {path.stem!r} too. Rename the file")
        forms.append(_Form(path.stem, read_class_texts(path, classes)))
    return forms


def _weights(export: Export, forms: Sequence[_Form], centre: bool, said: set[str]) -> dict[str, np.ndarray]:
    """Form as described -> its class vectors (c, d), for the forms of which at least 2 classes are known; InputError if there is none.

    Unknown classes and classes of equal vectors are named on stderr; said: what has been printed, for the seeds before.
    """
    weights: dict[str, np.ndarray] = {}
    notes = []
    for form in forms:
        of_form = form.weights(export.query, centre)
        known = np.asarray(of_form.any(axis=1))
        unknown = [form.texts[number][0] for number in np.flatnonzero(~known).tolist()]
        if len(known) - len(unknown) < 2:
            notes.append(f"of {_listed(unknown)}, and at least 2 classes must be known: there are no figures for {form.described}")
            continue
        weights[form.described] = of_form
        if unknown:
            notes.append(f"of {_listed(unknown)}: never predicted, and their pictures count as wrong. To use other words: --names")
        _, which, sizes = np.unique(of_form[known], axis=0, return_inverse=True, return_counts=True)
        if equal := np.flatnonzero(known)[sizes[which.reshape(-1)] > 1].tolist():
            alike = _listed([form.texts[number][0] for number in equal])
            notes.append(f"that tells these classes apart, so none of them is ever right: {alike}")
    if not weights:
        raise InputError(f"{export.path}: its text space knows no word {notes[-1]}. Give other --names, or --sentences")
    for note in dict.fromkeys(notes):
        if note not in said:
            print(f"{export.path}: its text space knows no word {note}", file=sys.stderr)
    said.update(notes)
    return weights


def _listed(texts: Sequence[str], num: int = 8) -> str:
    return ", ".join(map(repr, texts[:num])) + (f" and {len(texts) - num} more" if len(texts) > num else "")


def _check_classes(classes: Sequence[str], data: Path) -> None:
    if len(classes) < 2:
        raise InputError(f"{data}: has pictures of {len(classes)} class, and at least 2 classes are needed")
    if repeated := [name for name, num in Counter(classes).items() if num > 1]:
        raise InputError(
            f"{data}: several classes are called {_listed(repeated)}. Name each class differently; what is embedded can be given by --names"
        )


def _check_one_recipe(exports: Sequence[Export]) -> None:
    """InputError if the exports cannot be the seeds of one recipe, whose mean would then mean nothing."""
    first = exports[0].card
    for one in exports[1:]:
        if (one.card.family, one.card.architecture) != (first.family, first.architecture):
            raise InputError(
                f"{one.path}: is another model ({one.card.family}) than {exports[0].path} ({first.family}), and several exports are "
                "averaged as the seeds of one recipe. Evaluate them one at a time"
            )


# -- files ---------------------------------------------------------------------------------------------------------------------------------


def write_predictions(output: Path, rows: Sequence[ZeroShotRow], found: Sequence[Predictions]) -> None:
    """Write the rows as JSON, and a Parquet table beside it: one line for each row and picture, with the names of classes."""
    lines = [_lines_of(number, row, one) for number, (row, one) in enumerate(zip(rows, found, strict=True))]
    with atomic_write(queries_path(output)) as file:
        pq.write_table(pa.concat_tables(lines), file)
    write_rows(output, rows)  # last: if the rows exist, so does the table of predictions


def _lines_of(number: int, row: ZeroShotRow, found: Predictions) -> pa.Table:
    classes = pa.array(row.classes, pa.string())
    return pa.table(
        {
            "row": np.full(len(found), number),
            "picture": pa.array(found.groups.tolist(), pa.string()),
            "class": classes.take(pa.array(found.labels)),
            "predicted": classes.take(pa.array(found.predicted)),
            "rank": found.ranks,
            "cosine": found.cosine,
            "tied": found.tied,
        }
    )


def read_predictions(output: Path) -> tuple[list[ZeroShotRow], list[Predictions]]:
    """The rows in `output`, and what each was made from. InputError if the table of predictions is missing."""
    path = queries_path(output)
    if not path.is_file():
        raise InputError(f"{path}: is missing; it holds the predictions of each row of {output}. Run again the command that wrote {output}")
    rows = [ZeroShotRow.from_json(values) for values in json.loads(Path(output).read_text(encoding="utf-8"))]
    table = pq.read_table(path)
    found = []
    for number, row in enumerate(rows):
        columns = table.filter(pc.equal(table["row"], number)).to_pydict()
        places = {name: place for place, name in enumerate(row.classes)}
        found.append(
            Predictions(
                groups=np.array(columns["picture"]),
                labels=np.array([places[name] for name in columns["class"]], np.int64),
                predicted=np.array([places[name] for name in columns["predicted"]], np.int64),
                ranks=np.array(columns["rank"], np.int64),
                cosine=np.array(columns["cosine"], np.float64),
                tied=np.array(columns["tied"], bool),
                known=np.array([name not in row.unknown for name in row.classes]),
            )
        )
    return rows, found


# -- tables --------------------------------------------------------------------------------------------------------------------------------


def as_table(rows: Sequence[ZeroShotRow], found: Sequence[Predictions]) -> str:
    """The rows as text; rows that differ only in seed and figures become one line, with the smallest and largest top-1 of the seeds.

    found: the predictions of each row, from which the interval of a line's mean top-1 is computed (see `lines_of`).
    """
    header = [
        "recipe",
        "data",
        "part",
        "class texts",
        "pictures",
        "classes",
        "unknown",
        "top-1",
        "95 % interval",
        "seeds",
        "top-5",
        "per class",
    ]
    header += ["permuted", "middle 95 %", "chance"]
    return align(header, [_cells(line) for line in pooled(rows, found)], num_left=4)


def pooled(rows: Sequence[ZeroShotRow], found: Sequence[Predictions]) -> list[Line[ZeroShotRow]]:
    """The lines of a table: rows that differ only in seed and figures, together."""
    return lines_of(rows, found, _without_seed, lambda one: one.right)


def _cells(line: Line[ZeroShotRow]) -> list[str]:
    row = line.rows[0]
    return [
        _named(row),
        row.data,
        row.part,
        _texts(row),
        f"{line.mean('num_pictures'):.0f}",
        f"{row.num_classes}",
        f"{max(len(one.unknown) for one in line.rows) or ''}",
        f"{line.mean('top_1'):.1f}",
        f"[{line.interval.low:.1f}, {line.interval.high:.1f}]",
        line.between("top_1"),
        "" if row.top_5 is None else f"{line.mean('top_5'):.1f}",
        f"{line.mean('per_class'):.1f}",
        f"{line.mean('permuted'):.1f}",
        f"[{line.mean('permuted_low'):.1f}, {line.mean('permuted_high'):.1f}]",
        f"{line.mean('chance'):.1f}",
    ]


def class_table(rows: Sequence[ZeroShotRow]) -> str:
    """Top-1 of each class as text, one column for each line of `as_table`; for a single line also what its pictures are taken for most.

    The mean over seeds. Of more than NUM_SHOWN classes, those with the smallest accuracy in the first line.
    """
    members = _members(rows)
    means = [_by_class(of_line) for of_line in members.values()]
    names = list(dict.fromkeys(name for of_line in means for name in of_line))
    left_out = ""
    if len(names) > NUM_SHOWN:
        left_out = f"\nthe {NUM_SHOWN} worst of {len(names)} classes; all are in the file of --output"
        names = sorted(names, key=lambda name: means[0].get(name, np.inf))[:NUM_SHOWN]
    alone = len(members) == 1
    firsts = [of_line[0] for of_line in members.values()]
    heads = ["top-1", "taken for"] if alone else _told_apart(firsts)
    lines = []
    for name in names:
        cells = [name, f"{sum(rows[0].confusion.get(name, []))}", *("" if name not in mean else f"{mean[name]:.1f}" for mean in means)]
        lines.append([*cells, _taken_for(rows, name)] if alone else cells)
    return align(["class", "pictures", *heads], lines, num_left=1) + left_out


def _told_apart(firsts: Sequence[ZeroShotRow]) -> list[str]:
    """A short name for each line: its recipe, and its texts if they are not the same everywhere."""
    texts = [_texts(row) for row in firsts]
    return [_named(row) + (f", {own}" if len(set(texts)) > 1 else "") for row, own in zip(firsts, texts, strict=True)]


def _by_class(rows: Sequence[ZeroShotRow]) -> dict[str, float]:
    """The mean over seeds of each class's top-1."""
    return {name: float(np.mean([row.by_class[name] for row in rows if name in row.by_class])) for row in rows for name in row.by_class}


def _taken_for(rows: Sequence[ZeroShotRow], name: str) -> str:
    """The wrong classes that a class's pictures are taken for most often, with their share of them."""
    counts = np.sum([row.confusion[name] for row in rows if name in row.confusion], axis=0)
    shares = counts / counts.sum()
    wrong = [number for number in np.argsort(-shares, kind="stable").tolist() if rows[0].classes[number] != name and shares[number] > 0]
    return ", ".join(f"{rows[0].classes[number]} {100 * shares[number]:.0f}" for number in wrong[:2])


def _texts(row: ZeroShotRow) -> str:
    return row.texts + (", centred" if row.centred else "")


def _named(row: ZeroShotRow) -> str:
    return row.recipe + (" shuffled" if row.control else "")


def _members(rows: Sequence[ZeroShotRow]) -> dict[Hashable, list[ZeroShotRow]]:
    members: dict[Hashable, list[ZeroShotRow]] = {}
    for row in rows:
        members.setdefault(_without_seed(row), []).append(row)
    return members


def _without_seed(row: ZeroShotRow) -> tuple[Hashable, ...]:
    return row.recipe, row.family, row.data, row.part, row.size, row.texts, row.centred, row.control


# -- page ----------------------------------------------------------------------------------------------------------------------------------


def page(rows: Sequence[ZeroShotRow], found: Sequence[Predictions], printed: str = "", commands: Sequence[str] = ()) -> str:
    """An HTML page with a bar for each line, and its confusion: what share of the pictures of a class was taken for each class."""
    lines = pooled(rows, found)
    header = ("recipe", "class texts", "pictures", "top-1")
    cells = [
        (
            _named(line.rows[0]),
            _texts(line.rows[0]),
            f"{line.mean('num_pictures'):.0f}",
            Figure(line.mean("top_1"), line.mean("chance"), line.interval.low, line.interval.high, family=line.rows[0].family),
        )
        for line in lines
    ]
    note = (
        "The share of the pictures whose class has the nearest text, in per cent, with its 95 % interval over pictures. The mark is chance."
    )
    return render(
        Report(
            title="Zero-shot classification",
            facts=[f"{row.data}, {row.part}: {row.num_classes} classes." for row in {(row.data, row.part): row for row in rows}.values()],
            rows=[],
            answers=[],
            topics=[],
            curves=[],
            commands=commands,
            tables=[Table("Accuracy", note, header, cells)],
            heat_maps=[_heat_map(of_line) for of_line in _members(rows).values()],
            printed=printed,
        )
    )


def _heat_map(rows: Sequence[ZeroShotRow]) -> HeatMap:
    """Of the predictions of all seeds, over the classes that have pictures or were predicted."""
    first = rows[0]
    c = len(first.classes)
    none = [0] * c
    counts = np.sum([[row.confusion.get(name, none) for name in first.classes] for row in rows], axis=0, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    known = np.array([name not in first.unknown for name in first.classes])
    title = f"{_named(first)}, {_texts(first)}"
    return HeatMap(title, Confusion(tuple(first.classes), shares), "the class of the picture", "what it is taken for", known / known.sum())
