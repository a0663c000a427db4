"""Tars anywhere, read from front to back without an index: what a pattern names, a tar at a URL, and the pairs in a tar.

    tars = tars_of("s3://bucket/cc12m/{00000..01242}.tar")
    for streamed in pairs_in(opened := OpenTar(open_tar(tars[0]))): streamed.pair     # what is no pair is in opened.bad

A pattern is a local path or a URL with braces as in a shell (`{00000..00042}`, `{a,b}`), or several of them with `::` between; local ones
may also have `*`. Nothing that a pattern or a tar names is run: webdataset's `pipe:` is refused, and URLs are read by `multimodal.urls`.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multimodal.errors import InputError, needing
from multimodal.machine.cores import map_in_threads
from multimodal.pairs import Pair
from multimodal.shards.format import TAR
from multimodal.shards.ledger import Bad
from multimodal.shards.scan import OpenTar
from multimodal.shards.tars import OwnTar, Readable
from multimodal.shards.writer import ShardWriter
from multimodal.urls import PIECE_BYTES, Transport, is_url

PIPE = "pipe:"
BETWEEN = "::"
PIECES_AHEAD = 4
NUM_TOLD = 3


def is_pattern(where: object) -> bool:
    """Whether it names tars, one or many, and not the folder of a set."""
    if not isinstance(where, str | Path):
        return False
    return str(where).startswith(PIPE) or (str(where).endswith(TAR) and not Path(where).is_dir())


def tars_of(pattern: str | Path) -> list[str]:
    """The paths or URLs of the tars that a pattern names, in its order. InputError if it names none, or a local one is missing."""
    with needing("train", f"{pattern}: a pattern of tars"):
        from braceexpand import braceexpand
    tars: list[str] = []
    for part in str(pattern).split(BETWEEN):
        if part.startswith(PIPE):
            raise InputError(
                f"{pattern}: {PIPE} runs a shell command, and none is run here. Give the tars by their URL: s3://bucket/{{00000..00042}}.tar"
            )
        try:
            expanded = list(braceexpand(part))
        except ValueError as error:  # UnbalancedBracesError
            raise InputError(f"{pattern}: its braces cannot be read: {error}. An example: {{00000..00042}}.tar") from None
        for one in expanded:
            tars += _matches(one) if "*" in one else [one]
    strange = next((tar for tar in tars if not tar.endswith(TAR)), None)
    if strange is not None:
        raise InputError(f"{pattern}: names {strange}, which does not end in {TAR}")
    missing = [tar for tar in tars if not is_url(tar) and not Path(tar).is_file()]
    if len(missing) == len(tars):
        raise InputError(f"{pattern}: there is no such tar")
    if missing:
        more = f" and {len(missing) - NUM_TOLD} more" if len(missing) > NUM_TOLD else ""
        raise InputError(f"{pattern}: {len(missing)} of {len(tars)} tars are missing: {', '.join(missing[:NUM_TOLD])}{more}")
    return tars


def _matches(path: str) -> list[str]:
    if is_url(path):
        raise InputError(f"{path}: * matches local files only. Use braces: {{00000..00042}}.tar")
    found = sorted(glob.glob(path))
    if not found:
        raise InputError(f"{path}: there is no such tar")
    return found


class StreamedTar:
    """A tar at a URL, read once from front to back; see `Readable`. A thread fetches pieces of 4 MiB ahead, and each is retried.

    Only what may still be read is held: `forget` what is not. Raises `Unreachable` if the tar cannot be read, and InputError if the server
    does not report its size.
    """

    def __init__(self, url: str, transport: Transport | None = None) -> None:
        transport = transport or Transport()
        self.url, self.name = url, url.rpartition("/")[2]
        size_bytes = transport.info(url)["size"]
        if size_bytes is None:
            raise InputError(f"{url}: the server does not report its size, which is needed for range requests. Use another server")
        self.size_bytes = int(size_bytes)
        self._start, self._held = 0, bytearray()
        self._digest = hashlib.sha256()
        pieces = transport.pieces(url, self.size_bytes)
        # A server without range requests sends all at once: the other pieces are empty then.
        turns = range(-(-self.size_bytes // PIECE_BYTES))
        self._ahead = map_in_threads(lambda _: next(pieces, b""), turns, num_threads=1, ahead=PIECES_AHEAD)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer only at the end of the tar; nothing before what was forgotten."""
        if not size:
            return b""
        if offset < self._start:
            raise IndexError(f"{self.url}: byte {offset} was read already, and forgotten up to {self._start}")
        while self._start + len(self._held) < min(offset + size, self.size_bytes):
            piece = next(self._ahead)
            self._digest.update(piece)
            self._held += piece
        return bytes(self._held[offset - self._start : offset - self._start + size])

    def forget(self, before: int) -> None:
        """Nothing before this offset will be read any more."""
        if (num := min(before - self._start, len(self._held))) > 0:
            del self._held[:num]
            self._start += num

    def fingerprint(self) -> str:
        """The sha256 of the whole tar, as hex digits: reads the rest of it."""
        for offset in range(self._start + len(self._held), self.size_bytes, PIECE_BYTES):
            self.read(offset, PIECE_BYTES)
            self.forget(offset)
        return self._digest.hexdigest()


def open_tar(where: str, transport: Transport | None = None) -> Readable:
    """A tar at a path or a URL, to be read from front to back. `Unreachable` or OSError if it cannot be opened."""
    return StreamedTar(where, transport) if is_url(where) else OwnTar(Path(where))


@dataclass(frozen=True, slots=True)
class Streamed:
    """A pair on its way through a stream. key: its name in the tar. place: which sample of the tar it is, counted from 0."""

    key: str
    place: int
    pair: Pair


Wanted = Callable[[str, str], bool]
"""(group, split in the source) -> whether the pair is wanted."""


def every_pair(group: str, split: str) -> bool:
    """A `Wanted`."""
    return True


def pairs_in(tar: OpenTar, wanted: Wanted = every_pair) -> Iterator[Streamed | None]:
    """The pairs that `shards index` would find, in their order; what it would leave out is added to `tar.bad`.

    None in place of a pair that is not wanted; its picture is not read.
    """
    for place, sample in enumerate(tar.samples()):
        try:
            picture, extension = tar.picture(sample)
            fields = tar.record(sample, picture.name)
            if not wanted(fields["group"], fields["split"]):
                yield None
                continue
            pair = Pair(
                fields["name"], tar.read(picture), extension, tuple(fields["texts"]), fields["group"], fields["split"], fields["metadata"]
            )
        except ValueError as error:
            if isinstance(error, InputError):  # the tar itself can no longer be read
                raise
            tar.bad.append(Bad(tar.name, sample.key, str(error)))
        else:
            yield Streamed(sample.key, place, pair)


def copy_first(tars: Sequence[str], output: Path, part_of: Callable[[str, str], str], nums: Mapping[str, int], most: int) -> None:
    """Copy the first pairs of some parts into a shard set, in the order of the tars; InputError if a part has none.

    part_of: (group, split in the source) -> part. nums: part -> how many of its pairs, or fewer if there are not so many among the first
    `most` of the tars.
    """
    left, bad, num_seen = dict(nums), [], 0
    with ShardWriter(output) as writer:
        for where in tars:
            if num_seen >= most or not any(left.values()):
                break
            tar = OpenTar(open_tar(where))
            for streamed in pairs_in(tar, lambda group, split: left.get(part_of(group, split), 0) > 0):
                num_seen += 1
                if streamed is not None:
                    writer.write(streamed.pair)
                    left[part_of(streamed.pair.group, streamed.pair.split)] -= 1
                if num_seen >= most or not any(left.values()):
                    break
            bad += tar.bad
        for part, num in nums.items():
            if num and left[part] == num:
                why = f"; {len(bad)} others are no pairs, for example {bad[0]}" if bad else ""
                raise InputError(f"{tars[0]} and those after it: none of the first {num_seen} pairs is in the part {part!r}{why}")
