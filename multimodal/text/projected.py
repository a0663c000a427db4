"""A text space with the layers that a run trained on top of its rows: affine maps, with GELU between them.

    space = ProjectedSpace(open_space("spaces/words"), [Projection(weight, bias)])
    space.embed(["a dog on the beach"])         # (1, e), unit length

The box contains the space below as a box of its own, in `space/`; it may have any class. Opening and using it needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.boxes import box_file
from multimodal.errors import InputError
from multimodal.text.encoder import PROJECTION, Projection
from multimodal.text.space import BoxedSpace, CutsTexts, Origin, TextSpace, open_box, open_tensors

SPACE = "space"
_erf = np.frompyfunc(math.erf, 1, 1)  # numpy has none, but GELU is defined by it


class ProjectedSpace(BoxedSpace):
    """Rows of a space through layers, at unit length; a text without a known word keeps a row of zeros.

    space: any text space. layers: at least one, with GELU between them (Hendrycks and Gimpel, 2016), as in a head with a hidden
    layer.
    """

    family: ClassVar[str] = "contrastive"
    setting_types = {"layers": int}

    def __init__(self, space: TextSpace, layers: Sequence[Projection]) -> None:
        width = space.dim
        for layer in layers:
            if layer.weight.shape != (len(layer.bias), width):
                raise InputError(
                    f"a layer's weight is {layer.weight.shape}; on top of {width} numbers it must be ({len(layer.bias)}, {width})"
                )
            width = len(layer.bias)
        self.space = space
        self.layers = tuple(layers)
        self.origin = Origin({}, {SPACE: space.fingerprint})

    @property
    def dim(self) -> int:
        return len(self.layers[-1].bias)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, rows of unit length; each depends bitwise only on its own text if those of the space below do."""
        rows = self.space.embed(texts).astype(np.float64)
        found = np.zeros((len(texts), self.dim))
        for at in np.flatnonzero(rows.any(axis=1)).tolist():
            row = rows[at]
            for number, layer in enumerate(self.layers):
                # a sum per row, not a matrix product: BLAS may round a row differently depending on its place among the others
                row = (layer.weight * (_gelu(row) if number else row)).sum(axis=1) + layer.bias
            found[at] = row / max(float(np.linalg.norm(row)), np.finfo(np.float64).tiny)
        return found.astype(np.float32)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """The unknown words of the space below."""
        return self.space.unknown_words(text)

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the space below reads."""
        return self.space.num_cut(texts) if isinstance(self.space, CutsTexts) else 0

    def save(self, path: Path) -> None:
        """Write the box, with the box of the space below in it."""
        self.space.save(Path(path) / SPACE)
        super().save(path)

    def _files(self) -> Mapping[str, bytes | Path]:
        tensors = {f"{name}.{number}": getattr(layer, name) for number, layer in enumerate(self.layers) for name in ("weight", "bias")}
        return {PROJECTION: to_safetensors({name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()})}

    def _settings(self) -> Mapping[str, Any]:
        return {"layers": len(self.layers)}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path, open_below: Callable[[Path], TextSpace] | None = None) -> Self:
        """From a box that `save` wrote; open_below: opens the space below, as `open_space` does. InputError if it is not one."""
        path = Path(path)
        if open_below is None:
            raise InputError(f"{path}: holds another space, of any class. Open it with multimodal.text.open_space")
        manifest = open_box(path, cls)
        tensors = open_tensors(path / PROJECTION)
        layers = [Projection(tensors[f"weight.{number}"], tensors[f"bias.{number}"]) for number in range(manifest.config["layers"])]
        space = open_below(box_file(path, SPACE))
        if space.fingerprint != manifest.made_from.get(SPACE):
            raise InputError(f"{path / SPACE}: is not the text space that this one was saved with. Restore it, or make the export again")
        return cls(space, layers)._loaded_from(manifest)


def _gelu(row: np.ndarray) -> np.ndarray:
    """(d,) -> (d,), the exact GELU: x times the share of a normal distribution below x."""
    return row * 0.5 * (1 + np.asarray(_erf(row / math.sqrt(2)), np.float64))
