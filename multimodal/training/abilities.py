"""What a model can do besides the pairs that it is trained on: retrieval among foreign pairs, and zero-shot classification.

    abilities = [ForeignPairs(shards, ids, data), Classes(...)]
    with evaluating(module):
        measured = abilities[0].measure(module)     # Measured(name="val/foreign_R@10", value=64.7, chance=1.0, num=1000)

Each is a figure of the module's weights as they are, the same on every rank and for every number of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.boxes import MANIFEST, read_any_manifest
from multimodal.data import Captions, ColumnRows, PairLoader, Pixels, Shuffled, Side
from multimodal.data.decode import BadPicture
from multimodal.data.sides import column_names
from multimodal.embed.class_texts import PLAIN, class_weights, judge, names_of, read_templates
from multimodal.embed.labelled import LabelledPictures, embed_labelled, open_labelled, pick_size
from multimodal.embed.pictures import as_batches, pick_batch_size
from multimodal.errors import InputError
from multimodal.export.trained import trunk_of
from multimodal.machine.cores import map_in_threads
from multimodal.objectives.base import rank, world_size
from multimodal.pairs import Batch
from multimodal.pictures.preprocessing import height_width
from multimodal.shards import JoinedShards, ShardSet
from multimodal.text import open_space
from multimodal.training.datamodule import PairData, rows_per_rank
from multimodal.training.module import Encoded, HeldOut, PairModule, retrieval_figures

FOREIGN, ZERO_SHOT = "val/foreign_R@10", "val/zero_shot"
TEXTS_PER_BATCH = 256


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure in per cent, by its name in metrics.csv. chance: of a model that knows nothing. num: of queries or pictures."""

    name: str
    value: float
    chance: float
    num: int

    @property
    def chance_name(self) -> str:
        return self.name.replace("val/", "val/chance_")


class Ability(ABC):
    """One thing that a model can do."""

    @abstractmethod
    def measure(self, module: PairModule) -> Measured:
        """The figure of the module's weights; called on every rank, inside `evaluating`."""


class ForeignPairs(Ability):
    """R@10 of the main text of each pair among the pictures of all of them: pairs that the run is not trained on.

    shards, ids (n,): the pairs. data: the run's, whose sides they are read as; columns must mean the same. InputError if they do not.
    """

    def __init__(self, shards: ShardSet, ids: np.ndarray, data: PairData) -> None:
        self.place = shards.place
        shards.need_texts(ids, "forgetting.pairs, retrieval by text,")
        image, target = plain(data.image), plain(data.target)
        for name in (*column_names(image), *column_names(target)):
            JoinedShards({**JoinedShards.of(data.shards).sets, "": shards}).columns(name)
        self._loader = _loader(shards, ids, image, target, data)

    def measure(self, module: PairModule) -> Measured:
        figures = retrieval_figures(encode_pairs(module, self._loader))
        if not figures:
            raise InputError(f"forgetting.pairs: none of the {self._loader.num_pairs} pairs of {self.place} can be read")
        return Measured(FOREIGN, figures["R@10"], figures["chance_R@10"], int(figures["num_pairs"]))


class Classes(Ability):
    """Top-1 accuracy of pictures by the nearest class, each its name in templates, as in `multimodal evaluate zeroshot`.

    pictures: gives this rank's batches. labels: (n,) int64, of each picture by its place. names: of the c classes.
    embed_texts: texts -> what the target side takes.
    """

    def __init__(
        self,
        pictures: Callable[[], Iterator[Batch]],
        labels: np.ndarray,
        names: Sequence[str],
        templates: Sequence[str],
        embed_texts: Callable[[Sequence[str]], Tensor | Sequence[str]],
    ) -> None:
        self.pictures, self.labels, self.names, self.templates, self.embed_texts = pictures, labels, names, templates, embed_texts

    def measure(self, module: PairModule) -> Measured:
        encoded = []
        for batch in _moved(module, self.pictures()):
            image = module(batch.image).float()
            encoded.append(Encoded(batch.id, image, image, batch.valid))
        found = module.held_out_of(encoded)
        weights = class_weights(lambda texts: self._vectors(module, texts), self.names, self.templates)
        if weights.any(axis=1).sum() < 2:
            raise InputError(
                f"forgetting.classes: the text space knows no word of all but one of {len(self.names)} classes. Give other names"
            )
        labels = self.labels[found.ids]
        right = judge(found.image, weights, labels).right
        return Measured(ZERO_SHOT, 100 * float(right.mean()), 100 * float(np.bincount(labels).max() / len(labels)), len(labels))

    def _vectors(self, module: PairModule, texts: Sequence[str]) -> np.ndarray:
        """(t, d) float32; zeros for a text without a known word."""
        rows = []
        for start in range(0, len(texts), TEXTS_PER_BATCH):
            given = self.embed_texts(texts[start : start + TEXTS_PER_BATCH])
            vectors = module.target_side(_converted(module, given)).float().cpu().numpy()
            rows.append(np.where(given.any(dim=1, keepdim=True).numpy(), vectors, 0) if isinstance(given, Tensor) else vectors)
        return np.concatenate(rows)


def open_classes(
    classes: Path,
    label: str | None,
    part: str,
    names: Path | None,
    templates: Path | None,
    space: Path | None,
    max_pairs: int,
    data: PairData,
) -> Classes:
    """Labelled pictures, read as the run reads its own: shards with a label, or a .npz or folder of `multimodal evaluate zeroshot`.

    InputError if the run's pictures or texts cannot be made from them.
    """
    embed_texts = _texts(data, space)
    if is_shards(classes):
        if label is None:
            raise InputError(f"forgetting.classes={classes}: is a shard set; give its column of metadata too: --forgetting.label NAME")
        pictures, labels, of = _of_shards(ShardSet(classes), label, part, max_pairs, data)
    else:
        if label is not None:
            raise InputError(f"forgetting.label={label}: is for a shard set, and forgetting.classes={classes} is not one. Leave it out")
        pictures, labels, of = _of_files(open_labelled(classes, data.split), max_pairs, data)
    if len(of) < 2:
        raise InputError(f"forgetting.classes={classes}: has pictures of {len(of)} class, and at least 2 are needed")
    return Classes(pictures, labels, names_of(of, names), PLAIN if templates is None else read_templates(templates), embed_texts)


def is_shards(path: Path) -> bool:
    """Whether a folder is a shard set."""
    return (Path(path) / MANIFEST).is_file() and read_any_manifest(path).kind == "shards"


def some(ids: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the ids (n,), evenly spread over their order."""
    return ids if len(ids) <= most else ids[np.arange(most) * len(ids) // most]


def plain(side: Side) -> Side:
    """A side that gives each pair its own row: a control's, as it is without the control."""
    return plain(side.side) if isinstance(side, Shuffled) else side


@contextmanager
def evaluating(module: PairModule) -> Iterator[None]:
    """Evaluation mode, no gradients, and the run's precision. The mode of each part is what it was before at the end."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def encode_pairs(module: PairModule, batches: Iterable[Batch]) -> HeldOut:
    """The vectors of pairs, of all ranks; inside `evaluating`."""
    return module.held_out_of([module.encode(batch) for batch in _moved(module, batches)])


def _moved(module: PairModule, batches: Iterable[Batch]) -> Iterator[Batch]:
    return (_converted(module, batch) for batch in batches)


def _converted(module: PairModule, given: Any) -> Any:
    """A batch or a tensor on the module's device, in the run's precision."""
    return module.trainer.precision_plugin.convert_input(module.trainer.strategy.batch_to_device(given, module.device))


# -- pictures and texts of classes ---------------------------------------------------------------------------------------------------------

Opened = tuple[Callable[[], Iterator[Batch]], np.ndarray, tuple[str, ...]]
"""This rank's batches, the label of each picture by its place, and the classes."""


def _of_shards(shards: ShardSet, label: str, part: str, most: int, data: PairData) -> Opened:
    ids = some(data.split.ids(shards, part), most)
    metadata = [shards.record(id)["metadata"] for id in ids.tolist()]
    named = [None if one.get(label) is None else str(one[label]) for one in metadata]
    if not any(named):
        there = ", ".join(sorted({name for one in metadata for name in one})) or "none"
        raise InputError(f"forgetting.label={label}: no pair of {shards.place}, part {part}, has it. Its metadata: {there}")
    classes = tuple(sorted({name for name in named if name is not None}))
    labels = np.zeros(len(shards), np.int64)
    labels[ids] = [0 if name is None else classes.index(name) for name in named]
    kept = ids[np.array([name is not None for name in named])]
    image = plain(data.image)
    for name in column_names(image):
        JoinedShards({**JoinedShards.of(data.shards).sets, "": shards}).columns(name)
    loader = _loader(shards, kept, image, Captions(), data)
    return lambda: iter(loader), labels, classes


def _of_files(pictures: LabelledPictures, most: int, data: PairData) -> Opened:
    """Those of the train part, so that the test part can be reported."""
    ids = some(np.flatnonzero(~pictures.is_test), most)
    image = plain(data.image)
    rows = rows_per_rank(data.batch_size, world_size())
    padded = np.concatenate([ids, np.full(-len(ids) % (rows * world_size()), -1)])  # equal batches on all ranks
    own = as_batches(padded[rank() :: world_size()], rows)
    if isinstance(image, Pixels):
        image = replace(image, crop_share=1.0, interpolation="bicubic")  # as `embed_labelled`
        return lambda: map_in_threads(lambda batch: _decoded(pictures, batch, image), own, ahead=4), pictures.labels, pictures.classes
    column = next((next(iter(JoinedShards.of(data.shards).columns(name).values())) for name in column_names(image)), None)
    if column is None:
        raise InputError(f"forgetting.classes: pictures cannot be read as data.image ({image}). Use Pixels or a column of features")
    trunk = trunk_of(column)
    features = embed_labelled(pictures, ids, trunk, pick_size(trunk, None), pick_batch_size(None, torch.device("cpu")))
    return lambda: iter([_of_features(features.rows, features.is_readable, ids, batch) for batch in own]), pictures.labels, pictures.classes


def _decoded(pictures: LabelledPictures, places: np.ndarray, pixels: Pixels) -> Batch:
    image, valid = np.zeros((len(places), 3, *height_width(pixels.size)), np.uint8), places >= 0
    for row, place in enumerate(places.tolist()):
        if place >= 0:
            try:
                pixels.of(pictures.read(place), None, image[row])
            except BadPicture:
                image[row], valid[row] = 0, False
    return _batch(places, torch.from_numpy(image), valid)


def _of_features(features: np.ndarray, readable: np.ndarray, ids: np.ndarray, places: np.ndarray) -> Batch:
    """features (n, d) and readable (n,) of ids (n,), ascending; places (b,): some of them, or -1 for padding."""
    at = np.minimum(np.searchsorted(ids, places), len(ids) - 1)
    valid = (places >= 0) & readable[at]
    return _batch(places, torch.from_numpy(np.where(valid[:, None], features[at], 0)), valid)


def _batch(places: np.ndarray, image: Tensor, valid: np.ndarray) -> Batch:
    return Batch(torch.from_numpy(places), image, [""] * len(places), torch.from_numpy(valid))


def _texts(data: PairData, space: Path | None) -> Callable[[Sequence[str]], Tensor | Sequence[str]]:
    """Texts -> what the run's target side takes: the texts, or their rows in the space of its text column."""
    target = plain(data.target)
    if isinstance(target, Captions):
        return lambda texts: list(texts)
    if not isinstance(target, ColumnRows):
        raise InputError(f"forgetting.classes: names of classes cannot be read as data.target ({target}). Use Captions or a text column")
    column = next(iter(JoinedShards.of(data.shards).columns(target.name).values()))
    if space is None:
        raise InputError(f"forgetting.classes: names of classes need the space that made {column.path}. Give it: --forgetting.space FOLDER")
    opened, wanted = open_space(space), column.manifest.made_from.get("text-space", "none")
    if opened.fingerprint != wanted:
        raise InputError(
            f"forgetting.space={space}: is the text space {opened.fingerprint[:12]}, but {column.path} was made with {wanted[:12]}. "
            "Give that space"
        )
    known: dict[str, np.ndarray] = {}

    def embed(texts: Sequence[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, opened.embed(new), strict=True) if new else ())
        return torch.from_numpy(np.stack([known[text] for text in texts]))

    return embed


def _loader(shards: ShardSet, ids: np.ndarray, image: Side, target: Side, data: PairData) -> PairLoader:
    rows = rows_per_rank(data.batch_size, world_size())
    return PairLoader(
        shards, ids, image, target, rows, data.seed, False, num_workers=data.num_workers, rank=rank(), world_size=world_size()
    )
