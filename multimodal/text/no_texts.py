"""The query side of an export that labels taught, or pictures alone, or nothing: it has their dimension, and reads no texts.

NoTexts(128).embed(["a dog"])          # InputError, which says how else to ask
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from multimodal.errors import InputError
from multimodal.text.space import BoxedSpace, Origin, open_box


class NoTexts(BoxedSpace):
    """Where a text space is wanted and there is none. dim: of the pictures' vectors."""

    family: ClassVar[str] = "metric"
    setting_types = {"dim": int}

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self.origin = Origin()

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """InputError, unless there is no text."""
        if len(texts):
            raise self._refusal(texts[0])
        return np.zeros((0, self.dim), np.float32)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """InputError, as `embed`."""
        raise self._refusal(text)

    def _refusal(self, text: str) -> InputError:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        return InputError(
            f"{shown!r} cannot be compared with these pictures: their model was taught without texts, so it has no text side. Ask with "
            'pictures, such as multimodal search --store S --export E "image:photo.jpg", or image:17 for the one with the id 17; to judge '
            "it: multimodal evaluate identities, evaluate fewshot or evaluate probe"
        )

    def _files(self) -> Mapping[str, bytes | Path]:
        return {}

    def _settings(self) -> Mapping[str, Any]:
        return {"dim": self.dim}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError if it is not one."""
        manifest = open_box(Path(path), cls)
        if manifest.config["dim"] < 1:
            raise InputError(f"{path}: its dim is {manifest.config['dim']}; it must be at least 1. Make the export again")
        return cls(manifest.config["dim"])._loaded_from(manifest)
