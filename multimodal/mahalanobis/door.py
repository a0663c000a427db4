"""`multimodal metric fit`: a metric from labels, from judged pairs or from triplets, as another export.

multimodal metric fit --export E --shards S --label identity --output E2
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from multimodal.boxes import is_whole
from multimodal.embed.pictures import pick_device
from multimodal.embed.rows import Embedded, embedded, embedded_column
from multimodal.errors import InputError
from multimodal.export.model import Export, load_export
from multimodal.mahalanobis.choosing import Chosen, choose
from multimodal.mahalanobis.folding import check_foldable, fold
from multimodal.mahalanobis.known import Known
from multimodal.mahalanobis.pairs import Pairs, Triplets
from multimodal.shards.judged import PAIR, TRIPLET, read_places
from multimodal.shards.labels import known_labels
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.split import Part, Split
from multimodal.text import NoTexts


def fit(
    export: Path,
    shards: SetPath,
    output: Path,
    label: str | None = None,
    pairs: Path | None = None,
    triplets: Path | None = None,
    methods: list[str] | None = None,
    false_accept: float | None = None,
    new: Literal["classes", "pictures"] = "classes",
    part: Part = "train",
    split: Split = Split(),  # noqa: B008 (frozen)
    column: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    seed: int = 0,
    trust: Sequence[str] = (),
) -> Path:
    """Fit a metric on what is known of pictures, and make an export whose vectors it compares.

    multimodal metric fit --export E --shards S --label identity --output E2
    multimodal metric fit --export E --shards S --pairs STORE/judgements/pairs.csv --output E2 --false-accept 0.01

    Several methods are fitted, in several numbers of dimensions and with several ridges, and judged on what was held out. If none is
    clearly better than the cosine of the vectors as they are, the new export has the vectors of the old one, and it is said so.
    docs/metric.md has figures.

    Args:
        export: the export whose vectors are compared.
        shards: the set whose pictures something is known of.
        output: the export to make.
        label: the name in the pairs' metadata whose value is a picture's class, such as identity.
        pairs: instead of a label, a CSV with the columns a, b and same: two pictures by name, key or id, and 1 or 0 (also yes and no). Of
            several lines for two pictures, the last one counts.
        triplets: instead of those, a CSV with the columns anchor, same and different: three pictures, the first two more alike than the
            first and the third.
        methods: what to try: pca, rca (whitening within classes), kissme, lda and nca (both need labels), triplets (a map trained by them).
            By default all closed forms, which take seconds; nca and triplets take minutes.
        false_accept: also find the cosine from which on two pictures count as the same, so that this share of held-out different pairs
            does; from labels or pairs.
        new: what will be compared later: classes, pictures of classes that nothing is known of; or pictures, new pictures of these
            classes. It decides what is held out: classes (of pairs and triplets, regions of the vectors), or pictures.
        part: the part of the set that is used.
        split: how the set is split where it has no split of its own.
        column: a column of the export's trunk's features, which saves running it.
        batch_size: pictures at once; by default as many as the device takes.
        device: where the export runs.
        seed: of the held-out parts.
        trust: your own packages whose classes the export names. Their code is run.
    """
    if sum(given is not None for given in (label, pairs, triplets)) != 1:
        raise InputError(
            "give --label NAME, the metadata that says what a picture is of, --pairs FILE, or --triplets FILE; one of the three"
        )
    if is_whole(output):
        raise InputError(f"{output}: is there already. Choose another --output, or delete it")
    opened, source = load_export(export, pick_device(device), trust), open_set(shards)
    check_foldable(opened)
    ids = split.ids(source, part)
    if not len(ids):
        raise InputError(f"{source.place}: no pair is in {part!r}. Choose another --part or --split")
    centred = isinstance(opened.query, NoTexts)  # texts have another mean than pictures, so only a map without one keeps them comparable
    known = _known(opened, source, ids, label, pairs, triplets, column, batch_size)
    found = choose(known, new, centred, methods, false_accept, seed)
    print(found, file=sys.stderr)
    if not found.is_better and found.same is None:
        shutil.copytree(export, output, dirs_exist_ok=True)
        print(f"{output}: a copy of {export}", file=sys.stderr)
        return output
    return fold(opened, found, figures_of(found) if found.is_better else {}, output)


def _known(
    opened: Export,
    source: ShardSet,
    ids: np.ndarray,
    label: str | None,
    pairs: Path | None,
    triplets: Path | None,
    column: str | None,
    batch_size: int | None,
) -> Known:
    """What is known of the pictures that can be read, with the export's vectors of them."""
    if label is not None:
        labels = known_labels(source, ids, label).numbers
        found = head_outputs(opened, source, ids[labels >= 0], column, batch_size)
        return Known(found.rows, labels=labels[np.isin(ids, found.ids)])
    file = pairs or triplets
    assert file is not None, "one of the three is given"
    named, places, same = read_places(file, source, ids, PAIR if pairs is not None else TRIPLET)
    found = head_outputs(opened, source, named, column, batch_size)
    good = np.isin(named, found.ids)
    readable = good[places].all(axis=1)
    columns = (np.cumsum(good) - 1)[places[readable]].T
    if pairs is None:
        return Known(found.rows, triplets=Triplets(*columns))
    return Known(found.rows, pairs=Pairs(columns[0], columns[1], same[readable]))


def figures_of(found: Chosen) -> dict[str, float]:
    """What a card keeps of a fit: the figure with the metric, and as it was before, both on held-out pictures."""
    scale = 1 if found.figure == "AUC" else 100
    return {f"metric/{found.figure}": scale * found.after, f"metric/{found.figure} before": scale * found.before}


def head_outputs(opened: Export, source: ShardSet, ids: np.ndarray, column: str | None, batch_size: int | None) -> Embedded:
    """(n, d) float32, what the export's head gives for the pictures that can be read; see `multimodal.embed.rows`."""
    if column is None:
        network = nn.Sequential(opened.network.trunk, opened.network.head)
        return embedded(source, ids, network, opened.preprocessing, batch_size)

    def head(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows: np.ndarray = opened.network.head(torch.from_numpy(features).to(opened.device)).float().cpu().numpy()
        return rows

    return embedded_column(opened, source, ids, column, head, batch_size)
