"""Read a tar that may be damaged or malicious, and find the complete pairs in it.

    scan = scan_tar(Path("00000.tar"))
    scan.rows, scan.bad      # where each complete pair is, and which are left out and why

Python's tarfile stops silently at a broken header in the middle of a file. Here only the members that it hides are lost, and it is
reported. What a header claims is checked against the file before it is used.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from multimodal.machine.system_files import is_system_file
from multimodal.pictures.formats import PICTURE_SUFFIXES, picture_format, why_unsupported
from multimodal.shards.format import BLOCK, decode_record, split_member
from multimodal.shards.ledger import Bad
from multimodal.shards.table import Row
from multimodal.shards.tars import OwnTar, Readable

WEBDATASET_META = re.compile(r"__[^/]*__($|/)")  # webdataset skips these members, and so does this reader
_CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 1 << 20
"""The limit for a header with a long name or pax records; a path has at most 4,096 bytes."""
MAX_TEXT_BYTES = 1 << 26
"""The limit for a pair's JSON, and for its text."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The complete pairs of a tar in order, and what is left out; an entry of `bad` without a key is about the tar itself.

    passed_over: the names of members in system folders such as `__MACOSX`.
    """

    rows: list[Row]
    bad: list[Bad]
    passed_over: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its name, and the offset and size of its content in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The adjacent members with one key, by lower-case extension."""

    key: str
    members: Mapping[str, Member]


class OpenTar:
    """A tar that is read member by member: `with OpenTar(path) as tar: for sample in tar.samples(): tar.picture(sample)`.

    bad, passed_over: what was found so far, see `Scan`. OSError if the file cannot be opened.
    """

    def __init__(self, tar: Path | Readable) -> None:
        self._tar: Readable = OwnTar(tar) if isinstance(tar, Path) else tar
        self.name = self._tar.name
        self.bad: list[Bad] = []
        self.passed_over: list[str] = []
        self._size_bytes = self._tar.size_bytes

    def __enter__(self) -> OpenTar:
        return self

    def __exit__(self, *error: object) -> None:
        del self._tar  # an OwnTar closes with its last reference

    def samples(self) -> Iterator[Sample]:
        """The samples in tar order, without the members of webdataset and of operating systems."""
        named = ((*split_member(member.name), member) for member in self._pictures_and_texts())
        for key, members in groupby(named, key=itemgetter(0)):
            by_extension: dict[str, Member] = {}
            for _, extension, member in members:
                by_extension.setdefault(extension, member)
            yield Sample(key, by_extension)
            # Of the last member, not behind it: if it is cut, reading continues at its start.
            self._tar.forget(max(member.offset for member in by_extension.values()))

    def picture(self, sample: Sample) -> tuple[Member, str]:
        """The picture among the members, and the extension for its actual format. ValueError says why there is none."""
        for extension, member in sample.members.items():
            if member.offset + member.size > self._size_bytes:
                missing = member.offset + member.size - self._size_bytes
                raise ValueError(f"its {extension} is cut off: the tar ends {missing} bytes too early")
        meant = [(extension, member) for extension, member in sample.members.items() if extension in PICTURE_SUFFIXES and member.size]
        if not meant:
            raise ValueError(f"has no picture; its members are {', '.join(sorted(sample.members))}")
        for _, member in meant:
            if format := picture_format(self.read(member, 64)):
                return member, format
        extension, first = meant[0]
        raise ValueError(f"its {extension}: {why_unsupported(self.read(first, 64))}")

    def record(self, sample: Sample, name: str) -> dict[str, Any]:
        """Texts, group, name, split and metadata, see `decode_record`; name: used if the JSON has none. ValueError says what is wrong."""
        members = {extension: sample.members.get(extension, _NOTHING) for extension in ("json", "txt")}
        for extension, member in members.items():
            if member.size > MAX_TEXT_BYTES:
                raise ValueError(f"its {extension} has {member.size:,} bytes; at most {MAX_TEXT_BYTES:,} are read")
        record = decode_record(self.read(members["json"]), lambda: self.read(members["txt"]), name=name, group=sample.key)
        for value in (sample.key, record["group"], record["name"], record["split"]):
            value.encode()  # a name from another encoding is a ValueError
        return record

    def read(self, member: Member, size: int | None = None) -> bytes:
        """The first `size` bytes of a member, by default all."""
        return self._tar.read(member.offset, member.size if size is None else min(size, member.size))

    def _is_zero_from(self, offset: int) -> bool:
        """Whether only zeros follow: writers pad the end of a tar to a multiple of 10,240 bytes, or of another size."""
        for start in range(offset, self._size_bytes, _CHUNK_BYTES):
            chunk = self._tar.read(start, _CHUNK_BYTES)
            if chunk.count(0) < len(chunk):
                return False
        return True

    def _pictures_and_texts(self) -> Iterator[Member]:
        for member in self.files():
            if is_system_file(member.name):
                self.passed_over.append(member.name)
            elif not WEBDATASET_META.match(member.name):
                yield member

    def _report(self, reason: str) -> None:
        self.bad.append(Bad(self.name, "", reason))

    def files(self) -> Iterator[Member]:
        """The regular files (USTAR, GNU and pax names); after a broken header, reading continues at the next block that is a header."""
        offset = 0
        name, size = "", None  # from a GNU or pax header, for the member that follows it
        in_damage = is_cut = False
        while offset + BLOCK <= self._size_bytes:
            block = self._tar.read(offset, BLOCK)
            if not any(block) and not is_cut:
                if not self._is_zero_from(offset):
                    self._report(f"{self._size_bytes - offset} bytes lie behind the end mark at byte {offset}, and are not read")
                return
            content = offset + BLOCK
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                if info.size < 0:
                    raise tarfile.HeaderError("a negative size")
                is_name = info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE)
                if is_name and (info.size > MAX_NAME_BYTES or content + info.size > self._size_bytes):
                    raise tarfile.HeaderError(f"a name of {info.size} bytes")
                pax = _pax(self._tar.read(content, info.size)) if info.type == tarfile.XHDTYPE else {}
            except tarfile.HeaderError as error:
                if not in_damage and not is_cut:
                    self._report(f"broken header at byte {offset} ({error}); the member behind it is lost")
                in_damage = True
                name, size = "", None
                offset = content
                continue
            if is_cut:  # the last member did not reach beyond the end of the file: its header was wrong
                self._report(f"a member claims more bytes than the file has; the next one is at byte {offset}")
            in_damage = is_cut = False
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = self._tar.read(content, info.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
                length = info.size
            elif info.type == tarfile.XHDTYPE:
                name, size = pax.get("path", name), int(pax["size"]) if "size" in pax else size
                length = info.size
            elif info.isreg():
                length = info.size if size is None else size
                yield Member(name or info.name, content, length)
                name, size = "", None
            else:  # a folder or a link has no content; other headers (global pax, link names) have
                has_content = info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK, tarfile.SOLARIS_XHDTYPE)
                length = info.size if has_content else 0
                if not has_content:
                    name, size = "", None
            is_cut = content + length > self._size_bytes
            offset = content if is_cut else content + length + -length % BLOCK
        if not in_damage or is_cut:
            self._report("ends without an end mark: it was cut, and what came after is lost")


_NOTHING = Member("", 0, 0)


def scan_tar(tar: Path | Readable) -> Scan:
    """Read the headers, JSON and texts of a tar, and the first bytes of its pictures. OSError if the file cannot be opened."""
    with OpenTar(tar) as opened:
        rows = []
        bad = []
        for sample in opened.samples():
            try:
                rows.append(_row(opened, sample))
            except ValueError as error:
                bad.append(Bad(opened.name, sample.key, str(error)))
        return Scan(rows, opened.bad + bad, opened.passed_over)


def _row(tar: OpenTar, sample: Sample) -> Row:
    """The index row of one pair; ValueError says why it is not a valid pair."""
    picture, extension = tar.picture(sample)
    fields = tar.record(sample, picture.name)
    record, text = (sample.members.get(extension, _NOTHING) for extension in ("json", "txt"))
    return Row(
        key=sample.key,
        group=fields["group"],
        split=fields["split"],
        name=fields["name"],
        extension=extension,
        num_texts=len(fields["texts"]),
        image_offset=picture.offset,
        image_size=picture.size,
        json_offset=record.offset,
        json_size=record.size,
        txt_offset=text.offset,
        txt_size=text.size,
    )


def _pax(content: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n` of a pax header. HeaderError if a length or the size is invalid."""
    records: dict[str, str] = {}
    while content.strip(b"\0"):
        match = re.match(rb"(\d{1,10}) ([^=]+)=", content)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(content):
            raise tarfile.HeaderError("a pax record without its length")
        records[match[2].decode("utf-8", "surrogateescape")] = content[match.end() : length - 1].decode("utf-8", "surrogateescape")
        content = content[length:]
    if not re.fullmatch(r"[0-9]{1,19}", records.get("size", "0")):
        raise tarfile.HeaderError("a pax size that is no number")
    return records
