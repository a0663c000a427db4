"""Hand the tars of a set to webdataset: `shards.webdataset().shuffle(1000).decode("pil").to_tuple("jpg;png;webp", "txt")`.

webdataset itself would open URLs by running commands (`curl`, `aws`). Here it gets open files: local tars, or tars at a URL from the cache,
checked by their hash.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multimodal.errors import needing
from multimodal.shards.tars import Tar

if TYPE_CHECKING:
    from multimodal.shards.reader import ShardSet

BUFFER_BYTES = 1 << 20


def pipeline(shards: ShardSet, seed: int | None = None) -> Any:
    """See `ShardSet.webdataset`."""
    with needing("train", f"{shards.place}: a webdataset pipeline"):
        import webdataset as wds
        from webdataset.tariterators import group_by_keys, tar_file_expander
    tars = wds.SimpleShardList([shard.name for shard in shards.shards], seed=seed)
    stages = wds.split_by_node, wds.split_by_worker, _Opened(shards), tar_file_expander, group_by_keys
    return wds.FluidWrapper(tars).compose(*stages)


@dataclass(frozen=True)
class _Opened:
    """The stage between names of tars and their members."""

    shards: ShardSet

    def __call__(self, names: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        by_name = {shard.name: shard for shard in self.shards.shards}
        for name in names:
            with self.shards.tars.opened(by_name[name["url"]]) as tar:
                yield {**name, "stream": io.BufferedReader(_File(tar), BUFFER_BYTES)}


class _File(io.RawIOBase):
    """A tar as a file with a position of its own: that of its descriptor is shared with other processes and threads."""

    def __init__(self, tar: Tar) -> None:
        self._tar, self._offset = tar, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._tar.read(self._offset, len(buffer))
        buffer[: len(content)] = content
        self._offset += len(content)
        return len(content)
