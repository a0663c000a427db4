"""What `Store.search` does: queries by words, by pictures in memory, and by vectors.

store.search(Image.open("me.jpg"), model=mm.open("exports/topic"))
store.search("image:me + snow", images={"me": picture}, model="exports/topic")
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from multimodal.boxes import Manifest, read_manifest
from multimodal.errors import InputError, needing
from multimodal.export.hub import local
from multimodal.search.choosing import BY_SCORE
from multimodal.search.fusion import Fusion
from multimodal.search.hits import Hits
from multimodal.search.query import Searchable, answer
from multimodal.search.where import Where

if TYPE_CHECKING:
    from PIL import Image

    from multimodal.export.light import LightTower
    from multimodal.export.model import Export


class StoreOfExport(Searchable, Protocol):
    """A `Store`, which knows which export it was made from."""

    @property
    def path(self) -> Path: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def trust(self) -> Sequence[str]: ...


PICTURE = "picture"
"""The name of the picture in a query that is one picture."""


def ask(
    store: StoreOfExport,
    query: str | Image.Image | np.ndarray,
    k: int = 10,
    model: Export | str | Path | None = None,
    where: Where | None = None,
    images: Mapping[str, Any] | None = None,
    fusion: str | Fusion | None = None,
    joined: Mapping[str, Searchable] | None = None,
    order: str = BY_SCORE,
    cut_off: float | None = None,
    fold: bool = False,
) -> Hits:
    """The k pictures of a store nearest to a query; see `Store.search`."""
    named = dict(images or {})
    if not isinstance(query, str):
        named, query = {**named, PICTURE: query}, f"image:{PICTURE}"
    encoder = None if model is None else PictureEncoder(store, model)
    vectors = {name: _vector(store, name, value, encoder) for name, value in named.items()}
    found = answer(store, query, k, None if encoder is None else encoder.files, where, vectors, fusion, joined, order, cut_off, fold)
    if found.notes:
        warnings.warn(found.notes, stacklevel=3)
    return Hits(found.hits, query, found)


def image_encoder(store: StoreOfExport, model: Export | str | Path) -> Callable[[Sequence[Path]], np.ndarray]:
    """What encodes `image:<path>`: the image tower of the export that the store was made from, loaded at the first picture.

    InputError if the model is another export.
    """
    return PictureEncoder(store, model).files


class PictureEncoder:
    """The image tower of the export that a store was made from, loaded at the first picture: by ONNX if it has that, else by torch."""

    def __init__(self, store: StoreOfExport, model: Export | str | Path) -> None:
        """InputError if the model is another export."""
        self._store = store
        self._model: Export | LightTower | Path = local(model) if isinstance(model, str | Path) else model
        path = self._model if isinstance(self._model, Path) else self._model.path
        found = read_manifest(path, kind="export").fingerprint if isinstance(model, str | Path) else model.fingerprint
        wanted = store.manifest.made_from["export"]
        self.fingerprint = found
        """Of the export."""
        if found != wanted:
            raise InputError(
                f"{path}: this export is {found[:12]} and {store.path} was made from {wanted[:12]}. Their vectors cannot be compared"
            )

    @property
    def opened(self) -> Export | LightTower:
        if isinstance(self._model, Path):
            from multimodal.export.light import light_tower  # imported here: most queries decode no picture

            self._model = light_tower(self._model) or self._load(self._model)
        return self._model

    def _load(self, path: Path) -> Export:
        onnx = f"where torch is installed, give it ONNX: multimodal export --output {path} --onnx"
        with needing("train", "image:<path> runs the image tower, which", onnx):
            from multimodal.export.model import load_export
        return load_export(path, trust=self._store.trust)

    def files(self, paths: Sequence[Path]) -> np.ndarray:
        """(b, d) float32 of picture files."""
        return self.opened.embed_image_files(paths)

    def picture(self, image: Image.Image) -> np.ndarray:
        """(d,) float32 of a decoded picture."""
        return self.opened.encode_image([image])[0]


def _vector(store: StoreOfExport, name: str, value: Any, encoder: PictureEncoder | None) -> np.ndarray:
    """(d,) of a term that was given as a vector or as a picture."""
    if isinstance(value, np.ndarray) and value.dtype != np.uint8:
        vector = np.squeeze(value)
        if vector.dtype.kind not in "fiu":
            raise InputError(f"image:{name}: expected a vector of {store.dim} numbers, and it holds {vector.dtype}")
        if vector.shape != (store.dim,) or not (np.isfinite(vector).all() and vector.any()):
            raise InputError(
                f"image:{name}: wanted a vector of {store.dim} finite numbers, not all 0, and it has shape {value.shape} and is "
                f"{'finite' if np.isfinite(value).all() else 'not finite'}"
            )
        return vector
    if encoder is None:
        raise InputError(f"image:{name} is a picture, and a store has no image tower. Give the export that it was made from: model=...")
    return encoder.opened.encode_image([value])[0]
