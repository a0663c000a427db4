"""What a text space is, how it lies on disk, and how one is opened without knowing which.

    space = open_space("spaces/lda40")
    space.embed(["a dog on the beach"])          # (1, 40) float32
    space.unknown_words("a dgo on the beach")    # {"dgo": ["dog"]}

A space of your own implements `TextSpace`; `BoxedSpace` does the part of it that concerns the disk, and `multimodal.text.conformance`
checks it. The box names the class by its path; whoever opens it says that they trust its package:
`open_space(path, trust=["mypackage"])`, or `--trust mypackage`.
"""

from __future__ import annotations

import json
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np

from multimodal.boxes import (
    MANIFEST,
    Manifest,
    atomic_write,
    box_file,
    check_parts,
    check_values,
    fingerprint_bytes,
    fingerprint_file,
    link_or_copy,
    read_manifest,
    reading,
    write_manifest,
)
from multimodal.errors import InputError
from multimodal.text.normalise import Normaliser
from multimodal.text.vocabulary import Vocabulary
from multimodal.trust import classes_of, find_class

KIND = "text-space"
VOCABULARY = "vocab.txt"
NORMALISER = "normaliser.json"
WEIGHTS = "weights.safetensors"
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}
_MAX_HEADER_BYTES = 100_000_000  # what the safetensors library takes
_NUM_SPELT = 8  # words of a text whose near spellings are looked for, some 20 ms each
_CHECKED_BYTES = 1 << 24  # smaller files are compared with the manifest when a space is opened; larger ones by size


@runtime_checkable
class TextSpace(Protocol):
    """Texts to vectors: numpy in, numpy out. The text side of a column, and the query side of every export and store.

    family: "topic", "wordvec" or "contrastive". dim: of the vectors.
    """

    family: ClassVar[str]

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Of all that the space is: settings, words and weights."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32. Row i depends on text i alone, whatever stands beside it. A text with no known word gives a row of zeros."""
        ...

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """The words that the space cannot place and leaves out -> near spellings, [] where there are none."""
        ...

    def save(self, path: Path) -> None:
        """Write a box of kind "text-space". A space that was loaded and is saved again gives an equal box."""
        ...

    @classmethod
    def load(cls, path: Path) -> Self:
        """From such a box. InputError where it is not one, or not whole."""
        ...


@runtime_checkable
class NamesDimensions(Protocol):
    """A space each of whose dimensions means something by itself, as a topic does, and can say in words what."""

    def top_words(self, k: int) -> list[list[str]]:
        """For each of the d dimensions the k words that say most of what it means, the first one most."""
        ...


@runtime_checkable
class EmbedsMany(Protocol):
    """A space whose `embed` keeps one core busy, so that very many texts are worth a process for each core."""

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """What `embed` gives, to within 1e-6; it may take some seconds once (to compile, say) where that makes many texts faster."""
        ...


def open_space(path: str | Path, trust: Sequence[str] = ()) -> TextSpace:
    """The text space of a box, by the class path in its manifest: one of ours, or of a package that the user trusts.

    InputError where there is none, or where that class is another or no text space. A class that is not ours is imported only where its
    package is in trust.
    """
    from multimodal import text

    path = Path(path)
    named = read_manifest(path, kind=KIND).config.get("class")
    if not isinstance(named, str) or "." not in named:
        raise InputError(f"{path / MANIFEST}: config.class is {named!r}; it must be the path of a text space's class. Fit the space again")
    space_class = find_class(named, classes_of(text, BoxedSpace), object, path, trust)
    missing = [
        part for part in ("family", "dim", "fingerprint", "embed", "unknown_words", "save", "load") if not hasattr(space_class, part)
    ]
    if missing:
        raise InputError(f"{path}: {named} is no text space: it has no {', '.join(missing)}")
    with reading(path):
        return cast(TextSpace, cast(Any, space_class).load(path))


@dataclass(frozen=True, slots=True)
class Origin:
    """How a space came about, kept in its manifest. config: the settings of the fit, JSON values. made_from: part -> fingerprint."""

    config: Mapping[str, Any] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)


class BoxedSpace(ABC):
    """A space as a box: `save` and `fingerprint` from the files and settings that a subclass names."""

    origin: Origin
    setting_types: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """Of what `_settings` always has: name -> type or types, which a manifest is held to."""

    @abstractmethod
    def _files(self) -> Mapping[str, bytes | Path]:
        """Name in the box -> content, or the file that has it."""

    @abstractmethod
    def _settings(self) -> Mapping[str, Any]:
        """What the class needs beside the files to be opened again; JSON values."""

    @abstractmethod
    def _counts(self) -> Mapping[str, int]: ...

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest that the space's box has or will have."""
        named = f"{type(self).__module__}.{type(self).__qualname__}"
        config = {"class": named, "family": self.family, **self._settings(), "fit": dict(self.origin.config)}  # type: ignore[attr-defined]
        parts = {name: _facts(content) for name, content in sorted(self._files().items())}
        # Through JSON, so that a space just fitted and the same one loaded have equal manifests (tuples are lists).
        config, made_from = json.loads(json.dumps([config, dict(self.origin.made_from)]))
        return Manifest(kind=KIND, config=config, counts=dict(self._counts()), made_from=made_from, parts=parts)

    @property
    def fingerprint(self) -> str:
        """Of settings, words and weights, by the manifest, which holds each file's hash."""
        return self.manifest.fingerprint

    def save(self, path: Path) -> None:
        """Write the box; weights that lie in files already are hard-linked where the file system allows it."""
        path = Path(path)
        (path / MANIFEST).unlink(missing_ok=True)
        for name, content in self._files().items():
            if isinstance(content, Path):
                link_or_copy(content, path / name)
            else:
                with atomic_write(path / name) as file:
                    file.write(content)
        write_manifest(path, self.manifest)

    def _loaded_from(self, manifest: Manifest) -> Self:
        """Take the manifest as read, so that nothing is hashed again."""
        self.manifest = manifest
        return self


def open_box(path: Path, space_class: type[BoxedSpace]) -> Manifest:
    """The manifest of the class's box. InputError where it is another class's, or where a file is missing or was changed."""
    manifest = read_manifest(path, kind=KIND)
    wanted = f"{space_class.__module__}.{space_class.__qualname__}"
    if manifest.config.get("class") != wanted:
        raise InputError(f"{path}: this is a {manifest.config.get('class')} and not a {wanted}. Open it with multimodal.text.open_space")
    check_values(path, "config", manifest.config, {"family": str, **space_class.setting_types})
    check_values(path, "config", {"fit": {}, **manifest.config}, {"fit": dict})
    check_parts(path, manifest.parts, {"size_bytes": int, "fingerprint": str})
    for file in path.iterdir():  # those that the manifest does not list are read too
        box_file(path, file.name)
    for name, facts in manifest.parts.items():
        file = box_file(path, name)
        if not file.is_file():
            raise InputError(f"{path}: {name} is missing, and the manifest lists it. Restore the file, or fit the space again")
        size_bytes = file.stat().st_size
        same = size_bytes == facts["size_bytes"]
        if same and size_bytes <= _CHECKED_BYTES:
            same = fingerprint_file(file) == facts["fingerprint"]
        if not same:
            raise InputError(
                f"{file}: not the file that this space was saved with; they do not belong together. Restore it, or fit the space again"
            )
    return manifest


def origin_of(manifest: Manifest) -> Origin:
    """What `BoxedSpace.manifest` made of a space's origin, back."""
    return Origin(manifest.config.get("fit", {}), manifest.made_from)


def word_files(normaliser: Normaliser, vocabulary: Vocabulary) -> dict[str, bytes | Path]:
    """The files of a space over words, but for the weights."""
    settings = json.dumps(normaliser.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return {NORMALISER: settings.encode(), VOCABULARY: vocabulary.to_text()}


def read_normaliser(path: Path) -> Normaliser:
    """The normaliser of a box written with `word_files`."""
    with reading(path / NORMALISER):
        return Normaliser.from_json(json.loads((path / NORMALISER).read_text(encoding="utf-8")))


def read_vocabulary(path: Path, document_frequencies: np.ndarray, num_documents: int) -> Vocabulary:
    """The vocabulary of a box written with `word_files`; its frequencies lie with the weights."""
    with reading(path / VOCABULARY):
        return Vocabulary(Vocabulary.words_of((path / VOCABULARY).read_bytes()), document_frequencies, num_documents)


def unknown_words(text: str, normaliser: Normaliser, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Words of a text that are not in the vocabulary -> near spellings; where none is known, those that the normaliser drops too.

    Near spellings are looked for of the first words alone: a text without a known word would hold up whoever else is waiting.
    """
    words = normaliser.tokens(text)
    named = [word for word in dict.fromkeys(words) if word not in vocabulary]
    unknown = {word: vocabulary.near(word) if number < _NUM_SPELT else [] for number, word in enumerate(named)}
    if len(unknown) == len(set(words)):
        unknown |= {dropped: [] for dropped in text.split() if not normaliser.tokens(dropped)}
    return unknown


def open_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name, memory-mapped and read-only: what is not used is not read.

    The safetensors library copies each tensor it gives; 400,000 vectors of 300 dimensions would cost a search 0.3 s before its first word.
    """
    with reading(path), open(path, "rb") as file:
        size_bytes = path.stat().st_size
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if header_bytes > min(size_bytes, _MAX_HEADER_BYTES):
            raise ValueError(f"its header says that it is {header_bytes:,} bytes long")
        header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        return {name: _tensor(path, entry, 8 + header_bytes, size_bytes) for name, entry in header.items()}


def _tensor(path: Path, entry: Mapping[str, Any], start: int, size_bytes: int) -> np.ndarray:
    """One tensor of a safetensors file, whose data begin at start, by its entry in the header. ValueError where it is not in the file."""
    dtype, shape, (first, end) = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, first, end)):
        raise ValueError(f"a tensor of shape {shape} at {first}")
    if end - first != math.prod(shape) * dtype.itemsize or start + end > size_bytes:
        raise ValueError(f"a tensor of shape {shape} in the bytes {first} to {end}, of {size_bytes - start}")
    return np.memmap(path, dtype, "r", start + first, shape).view(np.ndarray) if end > first else np.zeros(shape, dtype)


def _facts(content: bytes | Path) -> dict[str, Any]:
    if isinstance(content, Path):
        return {"size_bytes": content.stat().st_size, "fingerprint": fingerprint_file(content)}
    return {"size_bytes": len(content), "fingerprint": fingerprint_bytes(content)}
