"""Storage that breaks off in the middle of an upload, and a source whose processes know it. Processes import both by their name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import made_source
from fsspec.implementations.local import LocalFileSystem

from multimodal.pairs import Pair
from multimodal.shards import Ledger

BREAKS_AT = "FAULTY_STORAGE_BREAKS_AT"
"""Variable of the environment: the name of the file whose uploads end half-way, with an error."""
BREAKS = "FAULTY_STORAGE_BREAKS"
"""How many of them, of one process; all by default."""


class FaultyStorage(LocalFileSystem):
    """faulty:///folder: files of this machine."""

    protocol = "faulty"
    num_broken: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(os.fspath(path).removeprefix("faulty://"))

    def put_file(self, path1: str, path2: str, callback: object = None, **kwargs: Any) -> None:
        """Upload, or half of it."""
        super().put_file(path1, path2, **kwargs)
        name = os.environ.get(BREAKS_AT)
        if name and name in Path(path2).name and FaultyStorage.num_broken < int(os.environ.get(BREAKS, 1000)):
            FaultyStorage.num_broken += 1
            os.truncate(path2, os.path.getsize(path2) // 2)
            raise ConnectionResetError("the line went down")


class FaultyStore(FaultyStorage):
    """oss:///folder: an object store. What broke off is not there, and what was listed is believed as by s3fs, until it is told not to."""

    protocol = "oss"
    listed: ClassVar[dict[str, Any]] = {}

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        """A listing, once."""
        key = self._strip_protocol(path)
        if key not in self.listed:
            self.listed[key] = super().ls(path, detail=True, **kwargs)
        return self.listed[key] if detail else [entry["name"] for entry in self.listed[key]]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """What a listing does not have is not there."""
        path = self._strip_protocol(path)
        parent = self._parent(path)
        if parent in self.listed and path not in [entry["name"] for entry in self.listed[parent]]:
            raise FileNotFoundError(path)
        return super().cat_file(path, start, end, **kwargs)

    def invalidate_cache(self, path: str | None = None) -> None:
        """List anew."""
        self.listed.clear()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(os.fspath(path).removeprefix("oss://"))

    def put_file(self, path1: str, path2: str, callback: object = None, **kwargs: Any) -> None:
        """Upload, or nothing."""
        self.makedirs(self._parent(path2), exist_ok=True)  # a store has no folders that could be missing
        try:
            super().put_file(path1, path2, **kwargs)
        except ConnectionResetError:
            self.rm_file(path2)
            raise


fsspec.register_implementation("faulty", FaultyStorage, clobber=True)
fsspec.register_implementation("oss", FaultyStore, clobber=True)


def made(num: int, delay_s: float = 0.0, repeat: int = 0, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """As made_source."""
    return made_source.made(num, delay_s, repeat, part, ledger=ledger)


def plan(pairs_per_shard: int, num: int, delay_s: float, repeat: int) -> list[dict[str, Any]]:
    """As made_source."""
    return made_source.plan(pairs_per_shard, num, delay_s, repeat)
