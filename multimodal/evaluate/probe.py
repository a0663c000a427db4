"""Probes of a trunk: how well its frozen features predict classes, by a linear classifier and by nearest neighbours.

multimodal evaluate probe --data cifar10.npz --export runs/mine/export --size 64 128
multimodal evaluate probe --data photos --trunk.architecture resnet18 --trunk.weights multimodal.towers.NoWeights

The trunk never saw the labels, so what a linear classifier can predict from its features, the trunk learned from something else, such as
texts. Compare it with chance and with an untrained trunk (`NoWeights`). Every trunk gets the same pixels.
"""

from __future__ import annotations

import hashlib
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.boxes import atomic_write
from multimodal.data.decode import Decoded
from multimodal.embed.labelled import LabelledPictures, embed_labelled, open_labelled, pick_size
from multimodal.embed.pictures import pick_batch_size, pick_device
from multimodal.errors import InputError, missing_extra
from multimodal.evaluate.figures import FigureRow, queries_path, write_rows
from multimodal.export.model import load_export
from multimodal.metrics import interval, nearest_classes
from multimodal.shards.split import Split
from multimodal.towers import Trunk

NUM_FOLDS = 5
STRENGTHS = tuple(float(C) for C in 10.0 ** np.arange(-4, 0.5, 0.5))
"""The values of C to choose from. On 2,000 pictures of ten classes, 0.003 is about best for ImageNet's features, 0.03 for random ones."""
MAX_STEPS = 2000
NUM_NEIGHBOURS = 20
NUM_DRAWS = 5
"""So many times a share of the labels is drawn: two pictures of a class may be odd ones."""


@dataclass(frozen=True, slots=True)
class ProbeRow(FigureRow):
    """One line of a table of figures: a trunk on a set of labelled pictures. Shares are of the test pictures, in per cent.

    size: height and width of the trunk's input, in pixels; dim: of its features.
    num_train: with how many of them it was fitted; of a share of the labels, in each draw, and figures are the mean of the draws.
    linear: accuracy of the linear probe, with its 95 % bootstrap interval linear_low, linear_high over test pictures.
    cv_accuracy: its cross-validated accuracy on train alone, by which recipes can be chosen without using test; C: the regularisation with
        that accuracy.
    knn: accuracy of the nearest-neighbour vote. chance: accuracy of predicting the largest class for every picture.
    converged: whether the final fit converged.
    """

    what: str
    data: str
    num_train: int
    num_test: int
    size: int
    dim: int
    linear: float
    linear_low: float
    linear_high: float
    cv_accuracy: float
    knn: float
    chance: float
    C: float
    seed: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class LinearProbe:
    """The predictions of a linear probe: predicted (m,) int64; the C that was chosen, and its cross-validated accuracy in [0, 1].

    unconverged: C -> the number of folds in which its fit did not converge. converged: whether the final fit did.
    """

    predicted: np.ndarray
    C: float
    cv_accuracy: float
    converged: bool
    unconverged: dict[float, int]


def linear_probe(
    rows: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    folds: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    max_steps: int = MAX_STEPS,
) -> LinearProbe:
    """Multinomial logistic regression on rows (n, d) with labels (n,) int, and its predictions for queries (m, d).

    Features are standardised by the training rows. The loss is |W|^2 / 2 + C * (sum over rows of the cross-entropy). C is the smallest of
    the strengths with the best cross-validated accuracy: each of the folds (n,) is predicted by a fit to all others.
    """
    LogisticRegression = logistic_regression()
    strengths = sorted(strengths)
    right = dict.fromkeys(strengths, 0)
    unconverged = dict.fromkeys(strengths, 0)
    for fold in np.unique(folds):
        seen, held_out = _standardised(rows[folds != fold], rows[folds == fold])
        # Each strength starts from the solution of the one before: half the time of ten separate fits.
        model = LogisticRegression(max_iter=max_steps, warm_start=True)
        for C in strengths:
            unconverged[C] += not _fit(model.set_params(C=C), seen, labels[folds != fold])
            right[C] += int((model.predict(held_out) == labels[folds == fold]).sum())
    best = max(strengths, key=lambda C: (right[C], -C))
    seen, asked = _standardised(rows, queries)
    model = LogisticRegression(C=best, max_iter=max_steps)
    converged = _fit(model, seen, labels)
    num_not = {C: num for C, num in unconverged.items() if num}
    return LinearProbe(model.predict(asked).astype(np.int64), best, right[best] / len(rows), converged, num_not)


def stratified_folds(labels: np.ndarray, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """The fold (n,) of each row: the rows of a class go to the folds in turn, so that its counts in the folds differ by at most one."""
    folds = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        folds[of_class] = np.arange(len(of_class)) % num_folds
    return folds


def draw_share(labels: np.ndarray, share: float, draw: int) -> np.ndarray:
    """The places, ascending, of a share of labels (n,) int64: of each class as many, rounded up, at least two.

    The draws of a class follow each other in its order, and begin again at its end, so that as few as possible have a picture in common.
    """
    chosen = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        num = min(max(2, math.ceil(share * len(of_class))), len(of_class))
        chosen.append(of_class[(draw * num + np.arange(num)) % len(of_class)])
    return np.sort(np.concatenate(chosen))


def probe(
    data: Path,
    export: str | Path | None = None,
    trunk: Trunk | None = None,
    size: list[int] | None = None,
    split: Split = Split(),  # noqa: B008 (frozen)
    recipe: str | None = None,
    output: Path | None = None,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    trust: Sequence[str] = (),
    shares: Sequence[float] = (1.0,),
) -> list[ProbeRow]:
    """Predict classes from a trunk's frozen features, and print the accuracy on test pictures and its chance level.

    A picture's shorter side is scaled to `size`, up or down (bicubic, antialiased), and the centre square is taken (all of a square
    picture): the same pixels for every trunk. `linear` is multinomial logistic regression on standardised features, with C chosen by 5-fold
    cross-validation on train (`cv`); `kNN` is a vote of the 20 nearest pictures by cosine, each with weight exp(cosine / 0.07).

    Args:
        data: labelled pictures: a .npz with x_train, y_train, x_test, y_test and names; a folder train/<class>/<picture> with
            test/<class>/<picture> beside it; or a folder <class>/<picture>.
        export: made by `multimodal export`, a folder or hf://user/name; its trunk is probed, not its head.
        trunk: instead of an export, a trunk by its arguments (`--trunk.architecture resnet18 --trunk.weights multimodal.towers.NoWeights`).
        size: height and width of the trunk's input in pixels, one or several, one row each; by default the size it was made for.
        split: how a folder <class>/<picture> is split, by picture; its seed also determines the folds.
        recipe: the name of the trunk in the table; by default the export's folder or the architecture.
        output: also write the rows to this JSON file, and beside it a table of which test pictures are predicted right.
        batch_size: pictures in one batch; by default 8 on a CPU and 256 on an accelerator.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        max_bad_share: fail if a larger share of the pictures cannot be read.
        trust: your own packages whose classes the export names. Their code is run; without this option, nothing is imported because a
            folder names it.
        shares: of the training labels, one row each, such as 0.01 0.1 1: the same share of every class, at least two pictures. Below 1 it
            is drawn five times, and the figures are means.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(f"--shares {share:g}: must be above 0 and at most 1")
    on = pick_device(device)
    if (export is None) == (trunk is None):
        raise InputError("nothing to probe: give either an export (--export E), or a trunk by its arguments (--trunk.architecture ...)")
    probed = load_export(export, trust=trust).network.trunk if export is not None else trunk
    assert probed is not None
    sizes = [pick_size(probed, one) for one in ([None] if size is None else size)]
    pictures = open_labelled(data, split)
    _check_classes(pictures.labels, pictures.is_test, pictures.classes, data)
    data = Path(data).resolve()
    what = recipe or (Path(export).resolve().name if export is not None else probed.architecture)
    probed = probed.to(on)
    rows, rights, asked = [], [], []
    for one in sizes:
        features = _embed(pictures, probed, one, split.seed, pick_batch_size(batch_size, on), num_threads, max_bad_share)
        _check_classes(features.labels, features.is_test, pictures.classes, data)  # again: unreadable pictures have been left out
        named = data.name if data.is_dir() else data.stem
        for share in shares:
            row, right = _row(features, what, named, one, split.seed, share)
            rows.append(row)
            rights.append(right)
            asked.append([pictures.names[id] for id in features.ids[features.is_test]])
    if output is not None:
        _write(output, rows, asked, rights)
    print(as_table(rows))
    return rows


def as_table(rows: Sequence[ProbeRow]) -> str:
    """One line per row."""
    what, data = (max((len(getattr(row, name)) for row in rows), default=0) + 2 for name in ("what", "data"))
    what, data = max(what, len("trunk") + 2), max(data, len("pictures") + 2)
    lines = [
        f"{'trunk':<{what}}{'pictures':<{data}}{'train':>7}{'test':>7}{'px':>5}{'dim':>6}{'linear':>8}  {'95 % interval':<14}"
        f"{'cv':>6}{'kNN':>7}{'chance':>8}{'C':>9}"
    ]
    for row in rows:
        between = f"[{row.linear_low:.1f}, {row.linear_high:.1f}]"
        lines.append(
            f"{row.what:<{what}}{row.data:<{data}}{row.num_train:>7}{row.num_test:>7}{row.size:>5}{row.dim:>6}{row.linear:>8.1f}  "
            f"{between:<14}{row.cv_accuracy:>6.1f}{row.knn:>7.1f}{row.chance:>8.1f}{row.C:>9.2g}{'' if row.converged else ' not converged'}"
        )
    return "\n".join(lines)


def read_right(output: Path) -> list[Mapping[str, float]]:
    """Of each row in `output`: which test pictures are predicted right, by name; the share of the draws. InputError if it is missing."""
    path = queries_path(output)
    if not path.is_file():
        raise InputError(f"{path}: is missing; it holds the pictures of {output}. Run again the command that wrote {output}")
    table = pq.read_table(path, columns=["row", "picture", "right"])
    of_row, pictures, right = (table[name].to_pylist() for name in table.column_names)
    return [{name: value for name, value, its in zip(pictures, right, of_row, strict=True) if its == row} for row in dict.fromkeys(of_row)]


def _write(output: Path, rows: Sequence[ProbeRow], asked: Sequence[Sequence[str]], rights: Sequence[np.ndarray]) -> None:
    """The rows as JSON, and beside them a table of their test pictures."""
    table = pa.table(
        {
            "row": np.concatenate([np.full(len(names), row) for row, names in enumerate(asked)]),
            "size": np.concatenate([np.full(len(names), row.size) for row, names in zip(rows, asked, strict=True)]),
            "num_train": np.concatenate([np.full(len(names), row.num_train) for row, names in zip(rows, asked, strict=True)]),
            "picture": pa.array([name for names in asked for name in names], pa.string()),
            "right": np.concatenate(rights),
        }
    )
    with atomic_write(queries_path(output)) as file:
        pq.write_table(table, file)
    write_rows(output, rows)  # last: if the rows exist, so does the table


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """ids (n,) of the pictures that could be read; rows (n, d) float32, labels (n,) int64, is_test (n,) bool."""

    ids: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray


def _embed(
    pictures: LabelledPictures, trunk: Trunk, size: int, seed: int, batch_size: int, num_threads: int | None, max_bad_share: float
) -> _Features:
    """The features, in an order that depends only on the seed and on the pixels, not on the pictures' places or names.

    Folds follow that order, so arrays and files of the same pictures have the same figures.
    """

    def place(decoded: Decoded) -> bytes:
        image = decoded.image
        shape = f"{image.width} {image.height} ".encode()
        return hashlib.blake2b(shape + image.tobytes(), digest_size=16, key=str(seed).encode()).digest()

    embedded = embed_labelled(pictures, np.arange(len(pictures)), trunk, size, batch_size, num_threads, max_bad_share, also=place)
    rows, places = embedded.rows, embedded.extras
    order = np.array(sorted(np.flatnonzero(embedded.is_readable).tolist(), key=lambda id: places[id]))
    broken = [id for id in order.tolist() if not np.isfinite(rows[id]).all()]
    if broken:
        raise InputError(
            f"{pictures.names[broken[0]]}: its features are not finite; {len(broken)} pictures have such features. "
            "Its training may have diverged; choose another export or trunk"
        )
    return _Features(order, rows[order], pictures.labels[order], pictures.is_test[order])


def _row(features: _Features, what: str, data: str, size: int, seed: int, share: float) -> tuple[ProbeRow, np.ndarray]:
    """A line of the table, and of each test picture the share of the draws in which it is predicted right."""
    train, test = ~features.is_test, features.is_test
    rows, labels, queries, wanted = features.rows[train], features.labels[train], features.rows[test], features.labels[test]
    probes, votes = [], []
    draws = [draw_share(labels, share, draw) for draw in range(NUM_DRAWS if share < 1 else 1)]
    for drawn in draws:
        found = linear_probe(rows[drawn], labels[drawn], queries, stratified_folds(labels[drawn], _num_folds(labels[drawn])))
        probes.append(found)
        votes.append(nearest_classes(rows[drawn], labels[drawn], queries, NUM_NEIGHBOURS) == wanted)
        for C, num in found.unconverged.items():
            print(f"{what} at {size} px, C={C:.2g}: {num} of {NUM_FOLDS} folds did not converge in {MAX_STEPS} steps", file=sys.stderr)
        if not found.converged:
            print(f"{what} at {size} px: the probe itself did not converge in {MAX_STEPS} steps", file=sys.stderr)
        if share == 1 and found.C in (STRENGTHS[0], STRENGTHS[-1]) and found.cv_accuracy < 1:
            print(f"{what} at {size} px: C={found.C:.2g} is at the end of the range tried; one beyond it may be better", file=sys.stderr)
    right = np.mean([found.predicted == wanted for found in probes], axis=0)
    low, high = interval(right)
    row = ProbeRow(
        what=what,
        data=data,
        num_train=len(draws[0]),
        num_test=len(queries),
        size=size,
        dim=rows.shape[1],
        linear=_per_cent(right.mean()),
        linear_low=_per_cent(low),
        linear_high=_per_cent(high),
        cv_accuracy=_per_cent(float(np.mean([found.cv_accuracy for found in probes]))),
        knn=_per_cent(float(np.mean(votes))),
        chance=_per_cent(np.bincount(wanted).max() / len(wanted)),
        C=float(np.median([found.C for found in probes])),
        seed=seed,
        converged=all(found.converged for found in probes),
    )
    return row, right


def logistic_regression() -> Any:
    """scikit-learn's class, imported here because the other protocols do not need it."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError:
        raise missing_extra("train", "a probe needs scikit-learn") from None
    return LogisticRegression


def _fit(model: Any, rows: np.ndarray, labels: np.ndarray) -> bool:
    """Fit, and return whether it converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rows, labels)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _standardised(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, float64, standardised so that each feature of `rows` has mean 0 and deviation 1; a constant feature becomes 0."""
    rows, others = rows.astype(np.float64), others.astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    varies = deviation > 1e-6 * np.abs(mean)  # features are float32: a smaller deviation is rounding
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    return (rows - mean) * scale, (others - mean) * scale


def _num_folds(labels: np.ndarray) -> int:
    """Of cross-validation: fewer where a class has few pictures."""
    return min(NUM_FOLDS, int(np.unique(labels, return_counts=True)[1].min()))


def _check_classes(labels: np.ndarray, is_test: np.ndarray, classes: Sequence[str], data: Path) -> None:
    """InputError unless train has enough pictures of each class."""
    present, num = np.unique(labels[~is_test], return_counts=True)
    if len(present) < 2:
        raise InputError(f"{data}: train has pictures of {len(present)} class; a probe needs at least 2 classes")
    if not is_test.any():
        raise InputError(f"{data}: no picture is in test")
    unseen = np.setdiff1d(labels[is_test], present)
    if len(unseen):
        raise InputError(f"{data}: test has pictures of class {classes[unseen[0]]!r} and train has none. Add some to train")
    if num.min() < NUM_FOLDS:
        raise InputError(
            f"{data}: train has {num.min()} pictures of class {classes[present[num.argmin()]]!r}; "
            f"cross-validation needs at least {NUM_FOLDS}"
        )


def _per_cent(share: float) -> float:
    return round(100 * float(share), 2)
