"""One-shot runs that come with a set: who drew it decided which drawings are compared, so that all methods answer the same questions.

    accuracy = run_accuracies(encode, shards)             # (20,) for Omniglot's runs; encode: encoded pictures -> (n, d)
    100 * accuracy.mean()                                 # per cent right, each drawing by the nearest of 20 by cosine

A set has runs if the metadata of pairs names a `run`, a `role` ("training" or "test") and a `label`, as the source omniglot writes them.
Every picture is classified by itself: that each label is right once is no knowledge that may be used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.errors import InputError
from multimodal.metrics.episodes import Episodes, Scores, accuracies, nearest_shot, share_right
from multimodal.metrics.hausdorff import centred_ink, modified_hausdorff
from multimodal.pictures.decode import picture
from multimodal.shards.labels import label_of
from multimodal.shards.reader import ShardSet

ROLES = TRAINING, TEST = "training", "test"


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """names: of the e runs. ids: (n,) the pictures of the set that are in them. tasks: places among these."""

    names: Sequence[str]
    ids: np.ndarray
    tasks: Episodes


def read_runs(shards: ShardSet) -> Runs:
    """The runs of a set. InputError: it has none, or in one of them the classes have different numbers of pictures."""
    found: dict[str, dict[str, dict[str, list[int]]]] = {}  # run -> role -> label -> places
    ids: list[int] = []
    for id in range(len(shards)):
        metadata = shards.record(id)["metadata"]
        if metadata.get("role") in ROLES and "run" in metadata:
            try:
                run, label = label_of(metadata, "run"), label_of(metadata, "label")
            except ValueError as reason:
                raise InputError(
                    f"{shards.place}: {shards.key(id)} {reason}. Make the set again, with data-prep make-shards omniglot"
                ) from None
            found.setdefault(run, {role: {} for role in ROLES})[metadata["role"]].setdefault(label, []).append(len(ids))
            ids.append(id)
    if not found:
        raise InputError(
            f"{shards.place}: has no runs: no pair's metadata has run and role. Omniglot's are in the set if all_runs.zip was beside its "
            "other archives; without runs, leave --runs out, and episodes are drawn"
        )
    shots, queries = ([list(run[role].items()) for run in found.values()] for role in ROLES)
    for name, asked, known in zip(found, queries, shots, strict=True):
        if sorted(label for label, _ in asked) != sorted(label for label, _ in known):
            raise InputError(f"{shards.place}: the pictures to classify in {name} are of other labels than those to learn from")
    sizes = {(len(run), *(len(places) for _, places in run)) for role in (shots, queries) for run in role}
    if any(len(set(size[1:])) > 1 for size in sizes) or len({size[0] for size in sizes}) > 1:
        raise InputError(f"{shards.place}: its runs differ in their numbers of labels, or labels in their numbers of pictures")
    numbers = {label: number for number, label in enumerate(label for run in shots for label, _ in run)}
    order = [[label for label, _ in run] for run in shots]
    by_label = [dict(run) for run in queries]
    tasks = Episodes(
        classes=np.array([[numbers[label] for label in run] for run in order]),
        shots=np.array([[places for _, places in run] for run in shots]),
        queries=np.array([[asked[label] for label in run] for run, asked in zip(order, by_label, strict=True)]),
    )
    return Runs(list(found), np.array(ids), tasks)


def run_accuracies(encode: Callable[[Sequence[bytes]], np.ndarray], shards: ShardSet, scores: Scores = nearest_shot) -> np.ndarray:
    """(e,) the share of right answers in each run. encode: n encoded pictures -> (n, d), called once."""
    runs = read_runs(shards)
    return accuracies(np.asarray(encode([shards.image_bytes(id) for id in runs.ids.tolist()])), runs.tasks, scores)


def pixel_rows(encoded: Sequence[bytes]) -> np.ndarray:
    """Pictures as vectors of their grey values from 0 (white) to 1 (black), (n, h * w): the baseline that knows nothing."""
    return np.stack([1 - np.asarray(picture(one).convert("L"), np.float32).reshape(-1) / 255 for one in encoded])


def hausdorff_accuracies(shards: ShardSet) -> np.ndarray:
    """(e,) by the modified Hausdorff distance between drawings, the baseline of Omniglot's author."""
    runs = read_runs(shards)
    ink = [centred_ink(np.asarray(picture(shards.image_bytes(id)).convert("L"))) for id in runs.ids.tolist()]
    right = []
    for shots, queries in zip(runs.tasks.shots, runs.tasks.queries, strict=True):
        near = [[-min(modified_hausdorff(ink[query], ink[one]) for one in of_class) for of_class in shots] for query in queries.reshape(-1)]
        right.append(share_right(np.array(near), np.repeat(np.arange(len(shots)), queries.shape[1])))
    return np.array(right)
