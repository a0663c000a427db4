"""How well vectors tell labels apart as they are: by nearest neighbours, silhouette and triplets, in the export's own distance.

    multimodal evaluate neighbours --export E --shards S --label label
    multimodal evaluate neighbours --export E --shards S --among 8 9         # two labels alone, perhaps ones that it never saw
    multimodal evaluate neighbours --pixels 28 --shards S                    # the simplest baseline

Nothing is fitted to the vectors. A store compares by cosine, so for a model whose distance is Euclidean, as of a triplet loss that does not
normalise, this protocol and not a search says what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.data import Labels, Shuffled
from multimodal.embed.pictures import pick_device
from multimodal.embed.rows import embedded
from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, align, per_cent, write_rows
from multimodal.export.model import load_export
from multimodal.metrics import Distance, interval, majority_classes, share_violated, silhouette
from multimodal.shards import ShardSet, Split
from multimodal.shards.labels import in_order, known_labels
from multimodal.shards.remote import SetPath, open_set
from multimodal.towers import Preprocessing, Trunk

KS = (1, 5)
MAX_ANCHORS = 1000
"""Queries that are anchors of triplets, evenly drawn; each with all positives and negatives among the queries."""


@dataclass(frozen=True, slots=True)
class NeighboursRow(FigureRow):
    """One line of a table of figures: a model among labelled pictures. Shares are in per cent.

    part, gallery: the splits of the queries and of the pictures among which they look; if these are one, a query leaves itself out. label:
    the name in the metadata; among: the labels that were looked at, if not all.
    nearest_1, nearest_5: the share of queries whose label is that of the majority of the nearest 1 or 5; low, high: the 95 % bootstrap
    interval of the former over queries. chance: of a random picture of the gallery.
    silhouette: of the queries, in [-1, 1]; None if all have one label. violated: the share of the queries' triplets whose positive is no
    nearer than the negative, 50 by chance; None if there is no triplet. control: whether the gallery's labels are permuted.
    """

    recipe: str
    part: str
    gallery: str
    label: str
    among: list[str]
    num_labels: int
    num_queries: int
    num_gallery: int
    dim: int
    distance: str
    nearest_1: float
    nearest_5: float
    low: float
    high: float
    chance: float
    silhouette: float | None
    violated: float | None
    seed: int
    control: bool

    keys: ClassVar[Mapping[str, str]] = {"nearest_1": "1-NN", "nearest_5": "5-NN", "low": "1-NN_low", "high": "1-NN_high"}

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        labels: np.ndarray,
        queries: np.ndarray,
        wanted: np.ndarray,
        distance: Distance,
        own: np.ndarray | None = None,
        recipe: str = "",
        part: str = "test",
        gallery: str = "train",
        label: str = "label",
        among: Sequence[str] = (),
        seed: int = 0,
        control: bool = False,
    ) -> NeighboursRow:
        """rows (n, d) with labels (n,), the gallery; queries (m, d) whose labels are wanted (m,); own: see `majority_classes`."""
        found = majority_classes(rows, labels, queries, wanted, KS, distance, own)
        right = {k: found[k] == wanted for k in KS}
        low, high = interval(right[1])
        num = np.bincount(labels, minlength=int(max(labels.max(), wanted.max())) + 1)
        others = len(labels) - (own is not None)
        compact, violated = silhouette(queries, wanted, distance), share_violated(queries, wanted, distance, MAX_ANCHORS)
        chance = np.mean((num[wanted] - (own is not None)) / max(1, others))
        return cls(
            recipe=recipe,
            part=part,
            gallery=gallery,
            label=label,
            among=list(among),
            num_labels=len(np.unique(wanted)),
            num_queries=len(queries),
            num_gallery=len(rows),
            dim=rows.shape[1],
            distance=distance,
            nearest_1=per_cent(float(right[1].mean())),
            nearest_5=per_cent(float(right[5].mean())),
            low=per_cent(low),
            high=per_cent(high),
            chance=per_cent(float(chance)),
            silhouette=None if np.isnan(compact) else round(compact, 4),
            violated=None if np.isnan(violated) else per_cent(violated),
            seed=seed,
            control=control,
        )


def evaluate(
    shards: SetPath,
    export: str | Path | None = None,
    trunk: Trunk | None = None,
    pixels: int | None = None,
    label: str = "label",
    part: str = "test",
    gallery: str = "train",
    among: list[str] | None = None,
    distance: str | None = None,
    split: Split = Split(),  # noqa: B008 (frozen)
    recipe: str | None = None,
    permuted: int | None = None,
    output: Path | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    trust: Sequence[str] = (),
) -> list[NeighboursRow]:
    """Pictures get the label of their nearest neighbours, and the table says how often it is theirs: 1-NN and 5-NN, beside chance.

    Also how compact the labels are (silhouette, from -1 to 1), and the share of triplets with the positive no nearer than the negative
    (`violated`, 50 by chance). Equally near pictures count against the model.

    Args:
        shards: the shard set, a folder or a URL, whose metadata holds the labels.
        export: made by `multimodal export`, a folder or hf://user/name; its vectors are compared.
        trunk: instead of an export, the features of a trunk by its arguments (`--trunk multimodal.towers.LeNet`).
        pixels: instead of either, the grey values of pictures of so many pixels' height and width.
        label: the name in the metadata: label, identity, or any other.
        part: the split whose pictures ask: test, or another.
        gallery: the split among whose pictures they look; if it is the same, each leaves itself out.
        among: only pictures of these labels, in both.
        distance: cosine or euclidean; by default the one that an export was trained by, and euclidean for others.
        split: how the set is split, where it does not say so itself.
        recipe: the name in the table; by default the export's folder, or the trunk.
        permuted: a control, which must be at chance: the gallery's labels are permuted among its pictures, by this seed, as
            multimodal.data.Shuffled permutes those of a run that trains on the whole of that part.
        output: also write the row to this JSON file.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        max_bad_share: fail if a larger share of the pictures cannot be read.
        trust: your own packages whose classes the export names. Their code is run.
    """
    if sum(one is not None for one in (export, trunk, pixels)) != 1:
        raise InputError("nothing to compare: give one of --export E, a trunk by its arguments (--trunk ...), and --pixels SIZE")
    if distance is not None and distance not in get_args(Distance):
        raise InputError(f"--distance {distance}: is unknown. Give one of {', '.join(get_args(Distance))}")
    on = pick_device(device)
    source = open_set(shards)
    asked, found = (_ids_and_labels(source, split, one, label, among) for one in (part, gallery))
    if permuted is not None:
        found = _permuted(source, found, label, permuted)
    network, preprocessing, own_distance, name = _network(export, trunk, pixels, trust)
    numbers = {value: number for number, value in enumerate(in_order(found.labels + asked.labels))}
    ids = np.union1d(asked.ids, found.ids)
    vectors = embedded(source, ids, network.to(on), preprocessing, None, num_threads, max_bad_share)
    places = {id: place for place, id in enumerate(vectors.ids.tolist())}

    def rows_of(one: _Labelled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids, rows and numbered labels of those that could be read."""
        kept = [(id, numbers[value]) for id, value in zip(one.ids.tolist(), one.labels, strict=True) if id in places]
        if not kept:
            raise InputError(f"{source.place}: no picture of {part if one is asked else gallery} can be read")
        of_ids, of_labels = (np.array(column, np.int64) for column in zip(*kept, strict=True))
        return of_ids, vectors.rows[[places[id] for id in of_ids.tolist()]], of_labels

    (asked_ids, queries, wanted), (found_ids, rows, labels) = rows_of(asked), rows_of(found)
    own = np.searchsorted(found_ids, asked_ids) if part == gallery else None
    if len(rows) <= (own is not None):
        raise InputError(f"{source.place}: {part} has one picture, which has no neighbour. Add pictures")
    if len(queries) < 2:
        raise InputError(f"{source.place}: {part} has one picture with {label}, and an interval needs two. Choose another --part")
    row = NeighboursRow.of(
        rows,
        labels,
        queries,
        wanted,
        distance or own_distance,  # type: ignore[arg-type]  # checked above
        own,
        recipe or name,
        part,
        gallery,
        label,
        among or (),
        split.seed,
        permuted is not None,
    )
    if output is not None:
        write_rows(output, [row])
    print(as_table([row]))
    return [row]


def as_table(rows: Sequence[NeighboursRow]) -> str:
    """One line for each recipe, part, gallery and labels: the mean of its seeds, with the smallest and the largest of several."""
    lines = []
    for group in grouped(rows):
        one = group[0]

        def figure(name: str, form: str = ".2f", group: Sequence[NeighboursRow] = group) -> str:
            values = [value for row in group if (value := getattr(row, name)) is not None]
            if not values:
                return ""
            between = f" {min(values):{form}}..{max(values):{form}}" if len(values) > 1 else ""
            return f"{np.mean(values):{form}}{between}"

        lines.append(
            (
                *(f"{one.recipe}{', labels permuted' * one.control}", one.part, one.gallery, " ".join(one.among)),
                *(f"{one.num_queries:,}", f"{one.num_gallery:,}", f"{one.dim}", one.distance, figure("nearest_1"), figure("nearest_5")),
                *(f"{np.mean([row.chance for row in group]):.1f}", figure("silhouette", ".3f"), figure("violated")),
            )
        )
    header = ("recipe", "part", "gallery", "among", "queries", "of", "dim", "distance", "1-NN", "5-NN", "chance", "silhouette", "violated")
    return align(header, lines, num_left=4)


def grouped(rows: Sequence[NeighboursRow]) -> list[list[NeighboursRow]]:
    """Rows that differ in seed alone, together, in the order of their first."""
    groups: dict[tuple[object, ...], list[NeighboursRow]] = {}
    for row in rows:
        groups.setdefault((row.recipe, row.control, row.part, row.gallery, row.label, *row.among), []).append(row)
    return list(groups.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """ids (n,) int64, ascending, and their labels."""

    ids: np.ndarray
    labels: list[str]


def _ids_and_labels(source: ShardSet, split: Split, part: str, label: str, among: Sequence[str] | None) -> _Labelled:
    """The pictures of a part that have a label, one of these if they are given."""
    ids = split.ids(source, part)
    if not len(ids):
        raise InputError(f"{source.place}: no pair is in {part!r}. Choose another --part, --gallery or --split")
    values = known_labels(source, ids, label).values
    if among is not None and (unknown := sorted(set(among) - set(values))):
        known = in_order(values)
        raise InputError(
            f"--among {' '.join(among)}: no picture of {part} has the {label} {', '.join(unknown)}. There are {', '.join(known[:8])}"
            f"{f' and {len(known) - 8} more' if len(known) > 8 else ''}"
        )
    kept = [(id, value) for id, value in zip(ids.tolist(), values, strict=True) if value is not None and (not among or value in among)]
    return _Labelled(np.array([id for id, _ in kept], np.int64), [value for _, value in kept])


def _permuted(source: ShardSet, found: _Labelled, label: str, seed: int) -> _Labelled:
    """The same pictures with permuted labels."""
    names = in_order(found.labels)
    numbers = Shuffled(Labels(label), seed).open(source, found.ids)(found.ids, None).values
    return _Labelled(found.ids, [names[number] for number in np.asarray(numbers).tolist()])


def _network(
    export: str | Path | None, trunk: Trunk | None, pixels: int | None, trust: Sequence[str]
) -> tuple[nn.Module, Preprocessing, Distance, str]:
    """What makes the vectors, what it expects of a picture, the distance that it was trained by, and its name."""
    if export is not None:
        opened = load_export(export, trust=trust)
        return opened.network, opened.preprocessing, opened.network.objective.distance, Path(export).resolve().name
    if trunk is not None:
        return trunk, trunk.preprocessing, "euclidean", trunk.architecture
    assert pixels is not None
    try:
        whole = Preprocessing(pixels, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    except ValueError as error:
        raise InputError(f"--pixels {pixels}: {error}") from None
    return _Grey(), whole, "euclidean", f"pixels {pixels}"


class _Grey(nn.Module):
    """Pictures as they are, (b, 3, h, w) uint8 -> (b, h w) float, the mean of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # `embed_pictures` runs a network where its parameters are

    def forward(self, image: Tensor) -> Tensor:
        return image.to(self.place.dtype).mean(dim=1).flatten(1)
