"""Several text spaces side by side: what one does not tell apart, another may.

    space = JoinedSpace([open_space("spaces/minilm"), open_space("spaces/wordllama")])
    space.embed(["a dog on the beach"])         # (1, 384 + 256)

A sentence encoder knows what a text is about, a space of word vectors which words it has. The box contains the spaces, which may have any
class, as boxes of their own in `spaces/0`, `spaces/1`, ... Opening it needs what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from multimodal.boxes import box_file
from multimodal.errors import InputError
from multimodal.text.space import BoxedSpace, CutsTexts, Origin, TextSpace, open_box, unit_rows

SPACES = "spaces"


class JoinedSpace(BoxedSpace):
    """The rows of several spaces, each at unit length, one after the other: so all count the same in a cosine.

    spaces: at least two, of any class. A text that none of them has a word for has a row of zeros; one that some have no word for has
    zeros in their place.
    """

    family: ClassVar[str] = "contrastive"
    setting_types = {"spaces": int}

    def __init__(self, spaces: Sequence[TextSpace]) -> None:
        if len(spaces) < 2:
            raise InputError(f"{len(spaces)} text space to join; give at least two")
        self.spaces = tuple(spaces)
        self.origin = Origin({}, {place_of(number): space.fingerprint for number, space in enumerate(spaces)})

    @property
    def dim(self) -> int:
        return sum(space.dim for space in self.spaces)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32; the squared length of a row is the number of spaces that have a word for the text."""
        return np.concatenate([unit_rows(space.embed(texts)) for space in self.spaces], axis=1).astype(np.float32)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """The words that all spaces leave out, with the near spellings of each."""
        named = [(word, near) for space in self.spaces for word, near in space.unknown_words(text).items()]
        words = list(dict.fromkeys(word for word, _ in named))
        unknown = [word for word, row in zip(words, self.embed(words), strict=True) if not row.any()]
        return {word: list(dict.fromkeys(one for name, near in named if name == word for one in near)) for word in unknown}

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than some space reads, at most."""
        return max(space.num_cut(texts) if isinstance(space, CutsTexts) else 0 for space in self.spaces)

    def save(self, path: Path) -> None:
        """Write the box, with the boxes of the spaces in it."""
        for number, space in enumerate(self.spaces):
            space.save(Path(path) / place_of(number))
        super().save(path)

    def _files(self) -> Mapping[str, bytes | Path]:
        return {}

    def _settings(self) -> Mapping[str, Any]:
        return {"spaces": len(self.spaces)}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path, open_below: Callable[[Path], TextSpace] | None = None) -> Self:
        """From a box that `save` wrote; open_below: opens each of the spaces, as `open_space` does. InputError if it is not one."""
        path = Path(path)
        if open_below is None:
            raise InputError(f"{path}: holds other spaces, of any class. Open it with multimodal.text.open_space")
        manifest = open_box(path, cls)
        spaces = [open_below(box_file(path, place_of(number))) for number in range(manifest.config["spaces"])]
        for number, space in enumerate(spaces):
            if space.fingerprint != manifest.made_from.get(place_of(number)):
                raise InputError(f"{path / place_of(number)}: is not the text space that was joined here. Join the spaces again")
        return cls(spaces)._loaded_from(manifest)


def place_of(number: int) -> str:
    """The folder of a space, in the box."""
    return f"{SPACES}/{number}"
