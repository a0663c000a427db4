"""The texts that a space is fitted on: those of a part of a shard set and, before them, extra ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_prep.spaces.extra_texts import documents, text_files, texts_fingerprint
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set

Document = Literal["pair", "text"]

_HELD_OUT_DOCUMENTS = 2000
_SPLIT = Split()


def read_texts(
    shards: SetPath,
    part: Part = "train",
    split: Split = _SPLIT,
    document: Document = "pair",
    extra_texts: Path | None = None,
    held_out: Part | None = "test",
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Texts:
    """The texts of a shard set, opened; InputError if there is none in that part.

    Args:
        shards: the shard set whose texts are read, a folder or a URL.
        part: which part of the set: train, test, all, or one of the source's own splits.
        split: which pairs are in which part, if the source does not say.
        document: what counts as one document: pair, all its texts together; or text, each by itself.
        extra_texts: more documents, without pictures: JSON Lines with the field text (a title is put before it), or .txt with
            one document per line, plain or .gz; a MediaWiki dump (.xml.bz2); or a folder of such files.
        held_out: the part that nothing is fitted on and whose perplexity is reported, by at most 2,000 of its documents; null for none.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
    """
    return Texts(open_set(shards, cache, cache_bytes), part, split, document, extra_texts, held_out)


class Texts:
    """The documents of a part of a shard set and, before them, extra ones; as often as they are asked for, with progress.

    Extra ones come first: gensim's online updates of topics weigh the last documents of a pass most, and those have pictures.
    The article around several pictures is stored with each of them, but is one document: a group's equal documents count once.

    settings, made_from: which texts they are, as the manifest of what is fitted on them has it.
    """

    def __init__(
        self, shards: ShardSet, part: Part, split: Split, document: Document, extra_texts: Path | None, held_out: Part | None
    ) -> None:
        self.shards = shards
        self.settings: dict[str, Any] = {"part": part, "split": asdict(split), "document": document}
        self.made_from = {"shards": shards.fingerprint}
        self._split, self._held_out = split, held_out
        self._joined = document == "pair"
        self._ids: np.ndarray = split.ids(shards, part)
        self._extra_files: list[Path] = []
        if not len(self._ids):
            raise InputError(
                f"{shards.place}: no pair is in part {part!r} of {len(shards)}; choose another --part, or another --split.seed"
            )
        if not shards.num_texts[self._ids].any():
            shards.need_texts(self._ids, "a text space")
        if extra_texts is not None:
            self._extra_files = text_files(extra_texts)
            self.made_from["extra texts"] = texts_fingerprint(self._extra_files)

    def __iter__(self) -> Iterator[str]:
        if self._extra_files:
            yield from track(documents(self._extra_files), "extra texts", unit="document")
        yield from self._documents(track(self._ids.tolist(), f"texts of {self.shards.name}", unit="pair"))

    def held_out(self) -> Iterator[str]:
        """At most 2,000 documents of the held-out part, evenly drawn; none that is in the fitted part.

        InputError if there is no such part: at once, not when the first document is read.
        """
        if self._held_out is None:
            return iter(())
        ids = np.setdiff1d(self._split.ids(self.shards, self._held_out), self._ids)
        if not len(ids):
            print(f"{self.shards.name}: no pair of part {self._held_out!r} is held out, so no perplexity is reported", file=sys.stderr)
        return self._documents(ids[:: -(-len(ids) // _HELD_OUT_DOCUMENTS) or 1].tolist())

    def _documents(self, ids: Iterable[int]) -> Iterator[str]:
        read: set[bytes] = set()  # 8 bytes a document: a million of them in some 60 MB
        for id in ids:
            texts = self.shards.texts(id)
            for document in ["\n".join(texts)] if self._joined and texts else texts:
                digest = blake2b(f"{self.shards.groups[id]}\0{document}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
                if digest not in read:
                    read.add(digest)
                    yield document
