"""Few-shot, one-shot and zero-shot classification: classes told apart by a few pictures of each, by one, or by their names alone.

    multimodal evaluate fewshot --export E --shards cifar --part test
    multimodal evaluate fewshot --export E --shards omniglot --runs

Many small tasks (episodes) are drawn: `ways` classes, `shots` pictures of each to learn from, `queries` pictures of each to classify. All
numbers of shots and all ways to classify are asked the same queries. Nothing is trained but a logistic regression on a task's pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from multimodal.embed.class_texts import class_scores, class_weights, names_of, read_class_texts, text_weights
from multimodal.embed.rows import vectors_of
from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, align, per_cent, write_rows
from multimodal.evaluate.fixed_runs import hausdorff_accuracies, pixel_rows, read_runs
from multimodal.evaluate.probe import logistic_regression
from multimodal.export.model import load_export
from multimodal.machine.progress import track
from multimodal.metrics import interval, unit
from multimodal.metrics.episodes import (
    Episodes,
    Scores,
    accuracies,
    draw_episodes,
    nearest_shot,
    nearest_shot_euclidean,
    prototypes,
    prototypes_euclidean,
    share_right,
)
from multimodal.search.store import Store
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.shards.labels import known_labels
from multimodal.text import NoTexts, TextSpace

C = 10.0
"""Of the logistic regression on unit rows: on train pictures of CIFAR-10, 1 and 10 were best of 0.1 to 1000, by at most half a point."""
NUM_PERMUTED = 200
"""Episodes that are asked again with pictures permuted."""


def logistic(shots: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """By a logistic regression on unit rows (Tian et al., 2020, "Rethinking few-shot image classification")."""
    known, asked = unit(shots.reshape(-1, shots.shape[-1])).astype(np.float64), unit(queries).astype(np.float64)
    labels = np.repeat(np.arange(len(shots)), shots.shape[1])
    # with a penalty on |w|^2 the solution is a sum of the pictures: in their span it is the same, and a hundredth of the work
    basis = np.linalg.qr(known.T)[0]
    model = logistic_regression()(C=C, max_iter=1000).fit(known @ basis, labels)
    scores = model.decision_function(asked @ basis)
    return np.asarray(scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1))


WAYS: Mapping[str, Scores] = {
    "prototypes": prototypes,
    "prototypes, Euclidean": prototypes_euclidean,
    "nearest": nearest_shot,
    "nearest, Euclidean": nearest_shot_euclidean,
    "logistic regression": logistic,
}


@dataclass(frozen=True, slots=True)
class FewShotRow(FigureRow):
    """One line of a table of figures. Shares are in per cent.

    by: how classes were told apart; a way of `WAYS`, "names", or the name of a file of sentences. shots: 0 for texts.
    accuracy: the mean over tasks. low, high: its 95 % bootstrap interval over tasks: the pictures are the same ones.
    chance: one over the number of classes. permuted: with the pictures permuted, over the first tasks; None if it was not measured.
    """

    recipe: str
    family: str
    data: str
    by: str
    ways: int
    shots: int
    num_queries: int
    num_tasks: int
    accuracy: float
    low: float
    high: float
    chance: float
    permuted: float | None
    seed: int

    keys: ClassVar[Mapping[str, str]] = {"low": "accuracy_low", "high": "accuracy_high"}

    @classmethod
    def of(
        cls, right: np.ndarray, tasks: Episodes, by: str, recipe: str, family: str, data: str, shots: int, permuted: float | None, seed: int
    ) -> FewShotRow:
        """From the accuracy of each task, (e,)."""
        low, high = interval(right)
        num_classes, num_queries = tasks.queries.shape[1:]
        return cls(
            recipe=recipe,
            family=family,
            data=data,
            by=by,
            ways=num_classes,
            shots=shots,
            num_queries=num_queries,
            num_tasks=len(tasks),
            accuracy=per_cent(float(right.mean())),
            low=per_cent(low),
            high=per_cent(high),
            chance=per_cent(1 / num_classes),
            permuted=None if permuted is None else per_cent(permuted),
            seed=seed,
        )


def evaluate(
    shards: SetPath,
    export: str | Path | None = None,
    store: Path | None = None,
    label: str = "label",
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    ways: int = 5,
    shots: Sequence[int] = (1, 5, 20),
    queries: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    runs: bool = False,
    names: Path | None = None,
    sentences: Sequence[Path] = (),
    recipe: str | None = None,
    output: Path | None = None,
    column: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> list[FewShotRow]:
    """Tell classes apart by a few pictures of each, in many small tasks, and print the accuracy beside chance.

    If the model has a text side, the same queries are also classified by the names of the classes alone (0 shots).

    multimodal evaluate fewshot --export E --shards cifar --shots 1 5
    multimodal evaluate fewshot --export E --shards omniglot --runs

    Args:
        shards: the shard set, a folder or a URL.
        export: the model, a folder or hf://user/name, which is run on the pictures.
        store: instead of an export, the store that holds the pictures' vectors, of length one.
        label: the name in the pairs' metadata of a picture's class.
        part: which part of the set; "test" was held out from all training.
        split: how the set is split where it has no split of its own; as in training.
        ways: classes in a task.
        shots: pictures of each class to learn from, one or several numbers.
        queries: pictures of each class to classify.
        episodes: how many tasks.
        seed: of the tasks.
        runs: instead of drawn tasks, those that the set itself has, such as Omniglot's twenty: pairs with run and role in their metadata.
            Beside the model stand the pixels, and the modified Hausdorff distance between drawings.
        names: a text file with a name for each class, one a line: `automobile: car`; by default the classes as they are called.
        sentences: text files with texts of each class, one a line: `deer: a deer stands in the woods`; each file is a line of the table.
        recipe: the name of the model in the table; by default its family.
        output: also write the rows to this JSON file.
        column: with export, a column of its trunk's features, which saves running it.
        batch_size: pictures in one batch; by default 8 of 224 pixels on a CPU, or more smaller ones, and 256 on an accelerator.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
        trust: your own packages whose classes the export or the store names. Their code is run.
    """
    for name, number in {"ways": ways - 1, "shots": min(shots, default=0), "queries": queries, "episodes": episodes - 1}.items():
        if number < 1:
            raise InputError(f"--{name} is too small: at least 2 ways, 1 shot, 1 query and 2 episodes")
    source = open_set(shards, cache, cache_bytes)
    given = (export, store, column, batch_size, device, trust)
    if runs:
        rows = _of_runs(source, recipe, split.seed, *given)
    else:
        drawn = _drawn(source, split.ids(source, part), label, part)
        tasks = _tasks(source, drawn, ways, max(shots), queries, episodes, seed)
        vectors = vectors_of(source, drawn.ids, *given)
        if len(vectors.ids) < len(drawn.ids):  # some cannot be read: other tasks, of those that can
            drawn = drawn.of(vectors.ids)
            tasks = _tasks(source, drawn, ways, max(shots), queries, episodes, seed)
        named = recipe or vectors.family, vectors.family, source.name
        rows = []
        for by, weights in _texts(drawn.classes, names, sentences, export, store, trust).items():
            right = by_texts(vectors.rows, weights, tasks)
            rows.append(FewShotRow.of(right, tasks, by, *named, 0, None, seed))
        shuffled = vectors.rows[np.random.default_rng(seed).permutation(len(vectors.rows))]
        few = Episodes(tasks.classes[:NUM_PERMUTED], tasks.shots[:NUM_PERMUTED], tasks.queries[:NUM_PERMUTED])
        for by, num in track([(by, num) for num in sorted(set(shots)) for by in WAYS], "classifying", unit="row"):
            right = accuracies(vectors.rows, tasks.with_shots(num), WAYS[by])
            permuted = float(accuracies(shuffled, few.with_shots(num), WAYS[by]).mean())
            rows.append(FewShotRow.of(right, tasks, by, *named, num, permuted, seed))
    if output is not None:
        write_rows(output, rows)
    print(as_table(rows))
    return rows


def by_texts(rows: np.ndarray, weights: np.ndarray, tasks: Episodes) -> np.ndarray:
    """(e,) the accuracy of each task by the cosine to its classes' texts. rows: (n, d); weights: (c, d), zeros: never predicted."""
    scores = np.concatenate([block.scores for block in class_scores(rows, weights)])
    own = np.repeat(np.arange(tasks.queries.shape[1]), tasks.queries.shape[2])
    asked = zip(tasks.classes, tasks.queries, strict=True)
    right = [share_right(scores[np.ix_(queries.reshape(-1), of_task)], own) for of_task, queries in asked]
    return np.array(right)


def as_table(rows: Sequence[FewShotRow]) -> str:
    """One line per row."""
    header = ["recipe", "pictures", "by", "ways", "shots", "queries", "tasks", "accuracy", "95 % interval", "chance", "permuted"]
    lines = [
        [
            *(row.recipe, row.data, row.by, str(row.ways), str(row.shots), str(row.num_queries), str(row.num_tasks)),
            *(f"{row.accuracy:.1f}", f"[{row.low:.1f}, {row.high:.1f}]", f"{row.chance:.1f}"),
            "" if row.permuted is None else f"{row.permuted:.1f}",
        ]
        for row in rows
    ]
    return align(header, lines, num_left=3)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Pictures of a known class. ids: (n,). labels: (n,) int, indices into the classes."""

    ids: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]

    def of(self, ids: np.ndarray) -> _Drawn:
        """Those of some ids."""
        return _Drawn(ids, self.labels[np.isin(self.ids, ids)], self.classes)


def _drawn(source: ShardSet, ids: np.ndarray, label: str, part: Part) -> _Drawn:
    if not len(ids):
        raise InputError(f"{source.place}: no pair is in {part!r}. Choose another --part or --split")
    known = known_labels(source, ids, label)
    kept = known.numbers >= 0
    return _Drawn(ids[kept], known.numbers[kept], known.names)


def _tasks(source: ShardSet, drawn: _Drawn, ways: int, shots: int, queries: int, episodes: int, seed: int) -> Episodes:
    try:
        return draw_episodes(drawn.labels, ways, shots, queries, episodes, seed)
    except ValueError as reason:
        raise InputError(f"{source.place}: {reason}. Give fewer --ways, --shots or --queries, or another --part") from None


def _texts(
    classes: Sequence[str],
    names: Path | None,
    sentences: Sequence[Path],
    export: str | Path | None,
    store: Path | None,
    trust: Sequence[str],
) -> dict[str, np.ndarray]:
    """What stands for classes -> their vectors (c, d); nothing if the model reads no texts."""
    if export is not None:
        space: TextSpace = load_export(export, trust=trust).query
    else:
        assert store is not None  # mypy
        space = Store(store, trust=trust).query_space
    if isinstance(space, NoTexts):
        if names is not None or sentences:
            raise InputError("--names and --sentences need a model with a text side, and this one has none. Leave them out")
        return {}
    found = {"names": class_weights(space.embed, names_of(classes, names))}
    for path in sentences:
        found[path.stem] = text_weights(space.embed, read_class_texts(path, classes))
    return found


def _of_runs(
    source: ShardSet,
    recipe: str | None,
    seed: int,
    export: str | Path | None,
    store: Path | None,
    column: str | None,
    batch_size: int | None,
    device: str | None,
    trust: Sequence[str],
) -> list[FewShotRow]:
    runs = read_runs(source)
    vectors = vectors_of(source, runs.ids, export, store, column, batch_size, device, trust)
    if len(vectors.ids) < len(runs.ids):
        raise InputError(
            f"{source.place}: {len(runs.ids) - len(vectors.ids)} pictures of its runs are missing, and a run needs all of them"
        )
    shots = runs.tasks.shots.shape[2]
    named = recipe or vectors.family, vectors.family, source.name
    pixels = pixel_rows([source.image_bytes(id) for id in runs.ids.tolist()])
    rows = []
    for name, given in ((named, vectors.rows), (("pixels", "none", source.name), pixels)):
        for by in ("nearest", "nearest, Euclidean"):
            rows.append(FewShotRow.of(accuracies(given, runs.tasks, WAYS[by]), runs.tasks, by, *name, shots, None, seed))
    by_ink = hausdorff_accuracies(source)
    return [*rows, FewShotRow.of(by_ink, runs.tasks, "modified Hausdorff", "ink", "none", source.name, shots, None, seed)]
