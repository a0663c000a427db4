"""The interface of text spaces, and their form on disk.

    space = open_space("spaces/lda40")
    space.embed(["a dog on the beach"])          # (1, 40) float32
    space.unknown_words("a dgo on the beach")    # {"dgo": ["dog"]}

A space of your own implements `TextSpace`; `BoxedSpace` does saving and loading, and `multimodal.text.conformance` checks it. The box names
the class by its path; to open it, one must trust its package: `open_space(path, trust=["mypackage"])`, or `--trust mypackage`.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from multimodal.boxes import (
    MANIFEST,
    Manifest,
    atomic_write,
    box_file,
    check_part_files,
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

KIND = "text-space"
VOCABULARY = "vocab.txt"
NORMALISER = "normaliser.json"
WEIGHTS = "weights.safetensors"
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_NUM_SPELT = 8  # at most this many words of a text get near spellings, some 20 ms each


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
        """A fingerprint of the whole space: settings, words and weights."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32. Row i depends only on text i. A text with no known word gives a row of zeros."""
        ...

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """The words that the space does not know and leaves out -> near spellings, [] if there are none."""
        ...

    def save(self, path: Path) -> None:
        """Write a box of kind "text-space". A space that is loaded and saved again gives an equal box."""
        ...

    @classmethod
    def load(cls, path: Path) -> Self:
        """From such a box. InputError if it is not one, or is incomplete."""
        ...


@runtime_checkable
class NamesDimensions(Protocol):
    """A space whose dimensions each have a meaning, as topics do, and words that describe it."""

    def top_words(self, k: int) -> list[list[str]]:
        """For each of the d dimensions, the k words that describe it best, the best first."""
        ...


@runtime_checkable
class EmbedsMany(Protocol):
    """A space whose `embed` uses one core, so that very many texts are worth one process per core."""

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """Like `embed`, up to 1e-6; it may take some seconds at first (for example, to compile) if that makes many texts faster."""
        ...


@runtime_checkable
class CutsTexts(Protocol):
    """A space that reads only the beginning of a long text."""

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than it reads."""
        ...


def report_cut(space: TextSpace, texts: Iterable[str]) -> None:
    """Print to stderr how many of the texts a space does not read to their end, if any. They are gone through only if it may cut some."""
    if not isinstance(space, CutsTexts):
        return
    num = num_cut = 0
    for text in texts:
        num, num_cut = num + 1, num_cut + space.num_cut([text])
    if num_cut:
        print(f"{num_cut:,} of {num:,} texts are longer than the text space reads; only their beginnings count", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Origin:
    """How a space was made, kept in its manifest. config: the settings of the fit, JSON values. made_from: part -> fingerprint."""

    config: Mapping[str, Any] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)


class BoxedSpace(ABC):
    """A space as a box: `save` and `fingerprint` from the files and settings that a subclass names."""

    origin: Origin
    path: Path | None = None
    """Its box: the folder that it was opened from or first saved in; None before that."""
    setting_types: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """The types of what `_settings` always has, by name; a manifest must match them."""

    @abstractmethod
    def _files(self) -> Mapping[str, bytes | Path]:
        """Name in the box -> content, or a file with that content."""

    @abstractmethod
    def _settings(self) -> Mapping[str, Any]:
        """What the class needs, beside the files, to be opened again; JSON values."""

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
        """A fingerprint of settings, words and weights: that of the manifest, which holds each file's hash."""
        return self.manifest.fingerprint

    def __repr__(self) -> str:
        facts = [self.family, f"{self.dim} dimensions"]  # type: ignore[attr-defined]
        facts += [f"{count:,} {what}" for what, count in self._counts().items() if count != self.dim]  # type: ignore[attr-defined]
        return f"{type(self).__name__}({str(self.path) if self.path else 'not saved'!r}: {', '.join(facts)})"

    def save(self, path: Path) -> None:
        """Write the box; weights that are in files already are hard-linked if the file system allows it."""
        path = Path(path)
        (path / MANIFEST).unlink(missing_ok=True)
        for name, content in self._files().items():
            if isinstance(content, Path):
                link_or_copy(content, path / name)
            else:
                with atomic_write(path / name) as file:
                    file.write(content)
        write_manifest(path, self.manifest)
        self.path = self.path or path

    def _loaded_from(self, manifest: Manifest) -> Self:
        """Use the manifest as read, so that nothing is hashed again."""
        self.manifest = manifest
        return self


def open_box(path: Path, space_class: type[BoxedSpace]) -> Manifest:
    """The manifest of the class's box. InputError if it is another class's, or if a file is missing or was changed."""
    manifest = read_manifest(path, kind=KIND)
    wanted = f"{space_class.__module__}.{space_class.__qualname__}"
    if manifest.config.get("class") != wanted:
        raise InputError(f"{path}: this is a {manifest.config.get('class')}, not a {wanted}. Open it with multimodal.text.open_space")
    check_values(path, "config", manifest.config, {"family": str, **space_class.setting_types})
    check_values(path, "config", {"fit": {}, **manifest.config}, {"fit": dict})
    for file in path.iterdir():  # files that the manifest does not list would be read too
        box_file(path, file.name)
    check_part_files(path, manifest.parts, "fit the space again", "this space")
    return manifest


def origin_of(manifest: Manifest) -> Origin:
    """A space's origin, from what `BoxedSpace.manifest` wrote."""
    return Origin(manifest.config.get("fit", {}), manifest.made_from)


def word_files(normaliser: Normaliser, vocabulary: Vocabulary) -> dict[str, bytes | Path]:
    """The files of a space over words, except the weights."""
    settings = json.dumps(normaliser.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return {NORMALISER: settings.encode(), VOCABULARY: vocabulary.to_text()}


def read_normaliser(path: Path) -> Normaliser:
    """The normaliser of a box written with `word_files`."""
    with reading(path / NORMALISER):
        return Normaliser.from_json(json.loads((path / NORMALISER).read_text(encoding="utf-8")))


def read_vocabulary(path: Path, document_frequencies: np.ndarray, num_documents: int) -> Vocabulary:
    """The vocabulary of a box written with `word_files`; its frequencies are with the weights."""
    with reading(path / VOCABULARY):
        return Vocabulary(Vocabulary.words_of((path / VOCABULARY).read_bytes()), document_frequencies, num_documents)


def unknown_words(text: str, normaliser: Normaliser, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Words of a text that are not in the vocabulary -> near spellings; if none is known, also those that the normaliser drops.

    Near spellings are searched only for the first words: otherwise a long text without a known word would block other queries.
    """
    words = normaliser.tokens(text)
    named = [word for word in dict.fromkeys(words) if word not in vocabulary]
    unknown = {word: vocabulary.near(word) if number < _NUM_SPELT else [] for number, word in enumerate(named)}
    if len(unknown) == len(set(words)):
        unknown |= {dropped: [] for dropped in text.split() if not normaliser.tokens(dropped)}
    return unknown


def open_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name, memory-mapped and read-only: unused ones are not read.

    The safetensors library copies each tensor; with 400,000 vectors of 300 dimensions, a search would start 0.3 s later.
    """
    with reading(path), open(path, "rb") as file:
        size_bytes = path.stat().st_size
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if header_bytes > min(size_bytes, _MAX_HEADER_BYTES):
            raise ValueError(f"its header has an invalid length of {header_bytes:,} bytes")
        header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        return {name: _tensor(path, entry, 8 + header_bytes, size_bytes) for name, entry in header.items()}


def _tensor(path: Path, entry: Mapping[str, Any], start: int, size_bytes: int) -> np.ndarray:
    """One tensor of a safetensors file, from its entry in the header; data begin at start. ValueError if it is not in the file."""
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


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """(n, d) -> (n, d) float64 at unit length; rows of zeros stay zero."""
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.divide(exact, norms, out=np.zeros_like(exact), where=norms > 0)
