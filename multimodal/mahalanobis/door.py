"""`multimodal metric fit`: a metric from labels or from judged pairs, as another export.

multimodal metric fit --export E --shards S --label identity --output E2
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from multimodal.boxes import is_whole
from multimodal.embed.pictures import as_batches, embed_pictures, pick_batch_size, pick_device
from multimodal.embed.stores import features_of
from multimodal.errors import InputError
from multimodal.export.model import Export, load_export
from multimodal.machine.progress import track
from multimodal.mahalanobis.choosing import Chosen, choose_by_labels, choose_by_pairs
from multimodal.mahalanobis.folding import check_foldable, fold
from multimodal.mahalanobis.pairs import Pairs
from multimodal.shards.labels import in_order, read_labels
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.split import Part, Split
from multimodal.text import NoTexts

COLUMNS = ("a", "b", "same")
SAME = {"1": True, "true": True, "yes": True, "same": True, "0": False, "false": False, "no": False, "different": False}
NUM_NAMED = 3


def fit(
    export: Path,
    shards: SetPath,
    output: Path,
    label: str | None = None,
    pairs: Path | None = None,
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
    multimodal metric fit --export E --shards S --pairs S/judgements/pairs.csv --output E2

    Whitening within classes and KISSME are fitted in several numbers of dimensions and with several ridges, and judged on what was held
    out. If none is clearly better than the cosine of the vectors as they are, the new export is a copy of the old one, and it is said so.
    docs/metric.md has figures.

    Args:
        export: the export whose vectors are compared.
        shards: the set whose pictures something is known of.
        output: the export to make.
        label: the name in the pairs' metadata whose value is a picture's class, such as identity.
        pairs: instead of a label, a CSV with the columns a, b and same: two pictures by name, key or id, and 1 or 0 (also yes and no).
        new: with a label, what will be compared later: classes, pictures of classes that were not there; or pictures, new pictures of
            these classes. It decides what is held out.
        part: the part of the set that is used.
        split: how the set is split where it has no split of its own.
        column: a column of the export's trunk's features, which saves running it.
        batch_size: pictures at once; by default as many as the device takes.
        device: where the export runs.
        seed: of the held-out parts.
        trust: your own packages whose classes the export names. Their code is run.
    """
    if (label is None) == (pairs is None):
        raise InputError("give --label NAME, the metadata that says what a picture is of, or --pairs FILE; one of the two")
    if is_whole(output):
        raise InputError(f"{output}: is there already. Choose another --output, or delete it")
    opened, source = load_export(export, pick_device(device), trust), open_set(shards)
    check_foldable(opened)
    ids = split.ids(source, part)
    if not len(ids):
        raise InputError(f"{source.place}: no pair is in {part!r}. Choose another --part or --split")
    centred = isinstance(opened.query, NoTexts)  # texts have another mean than pictures, so only a map without one keeps them comparable
    if label is not None:
        known = read_labels(source, ids, label)
        if known.reasons:
            first = next(iter(known.reasons))
            told = f"{len(known.reasons)} of {len(ids)} pictures have no label; {source.key(first)}: {known.reasons[first]}"
            if len(known.reasons) == len(ids):
                raise InputError(f"{source.place}: {told}. Choose another --label")
            print(f"{told}. They are left out", file=sys.stderr)
        numbers = {value: number for number, value in enumerate(in_order(known.values))}
        labels = np.array([-1 if value is None else numbers[value] for value in known.values])
        rows, good = head_outputs(opened, source, ids[labels >= 0], column, batch_size)
        found = choose_by_labels(rows[good], labels[labels >= 0][good], new == "classes", centred, seed=seed)
    else:
        assert pairs is not None
        named, both = read_pairs(pairs, source, ids)
        rows, good = head_outputs(opened, source, named, column, batch_size)
        both, places = both[good[both.first] & good[both.second]], np.cumsum(good) - 1
        found = choose_by_pairs(rows[good], Pairs(places[both.first], places[both.second], both.same), centred, seed=seed)
    print(found, file=sys.stderr)
    if not found.is_better:
        shutil.copytree(export, output, dirs_exist_ok=True)
        print(f"{output}: a copy of {export}", file=sys.stderr)
        return output
    return fold(opened, found, figures_of(found), output)


def figures_of(found: Chosen) -> dict[str, float]:
    """What a card keeps of a fit: the figure with the metric, and as it was before, both on held-out pictures."""
    scale = 100 if found.figure == "mAP" else 1
    return {f"metric/{found.figure}": scale * found.after, f"metric/{found.figure} before": scale * found.before}


def head_outputs(
    opened: Export, source: ShardSet, ids: np.ndarray, column: str | None, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float32, what the export's head gives for pictures; and (n,) bool, which of them could be read. The first others are named."""
    network = nn.Sequential(opened.network.trunk, opened.network.head)
    batches = list(as_batches(ids, pick_batch_size(batch_size, opened.device)))
    if column is None:
        embedded = embed_pictures(source.image_bytes, batches, network, opened.preprocessing)
        found = list(track(embedded, f"embedding {source.name}", unit="picture", total=len(ids), weight=len(batches[0])))
        rows = np.concatenate([batch.rows for batch in found])
    else:
        features = features_of(opened, source, column)
        with torch.inference_mode():
            parts = [torch.from_numpy(np.stack([features.rows(id)[0] for id in some.tolist()]).astype(np.float32)) for some in batches]
            rows = np.concatenate([opened.network.head(one.to(opened.device)).float().cpu().numpy() for one in parts])
    good = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    if bad := ids[~good].tolist():
        named = ", ".join(source.key(id) for id in bad[:NUM_NAMED])
        print(f"{source.place}: {len(bad)} of {len(ids)} pictures cannot be read, and are left out: {named}", file=sys.stderr)
    return rows, good


def read_pairs(path: Path, source: ShardSet, ids: np.ndarray) -> tuple[np.ndarray, Pairs]:
    """The ids that a CSV of pairs names, ascending, and the pairs as places among them. InputError that names file and line."""
    allowed = set(ids.tolist())
    by_name: dict[str, int] = {source.names[id]: id for id in ids.tolist()}
    both: list[tuple[int, int]] = []
    same: list[bool] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
            for line in lines:
                where = f"{path}, line {lines.line_num}"
                value = (line["same"] or "").strip().lower()
                if value not in SAME:
                    raise InputError(f"{where}: same is {line['same']!r}; expected 1 or 0")
                pair = [_picture(line[name] or "", by_name, source, allowed, where) for name in ("a", "b")]
                if pair[0] != pair[1]:
                    both.append((pair[0], pair[1]))
                    same.append(SAME[value])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV in UTF-8: {error}") from None
    named, places = np.unique(np.array(both, np.int64).reshape(-1, 2), return_inverse=True)
    places = places.reshape(-1, 2)
    return named, Pairs(places[:, 0], places[:, 1], np.array(same, bool))


def _picture(written: str, by_name: dict[str, int], source: ShardSet, allowed: set[int], where: str) -> int:
    """The id of a picture by its name, its key, or the id itself."""
    found = by_name.get(written)
    if found is None:
        found = source.find(written)
    if found is None and written.isascii() and written.isdigit() and int(written) < len(source):
        found = int(written)
    if found is None or found not in allowed:
        raise InputError(f"{where}: {written!r} is no picture of this part of {source.place}, by its name, its key or its id")
    return found
