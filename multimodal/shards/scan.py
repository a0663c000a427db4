"""Walk a tar that may be damaged, or made to do damage, and find the whole pairs in it.

    scan = scan_tar(Path("00000.tar"))
    scan.rows, scan.bad      # where each whole pair lies, and which are left out and why

Python's tarfile stops without a word at a broken header in the middle of a file; here it costs the members that it hides, and is named.
Nothing that a header claims is believed before it is held against the file.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from multimodal.picture_files import PICTURE_SUFFIXES, picture_format, why_unsupported
from multimodal.shards.format import BLOCK, decode_record, split_member
from multimodal.shards.ledger import Bad
from multimodal.shards.table import Row
from multimodal.system_files import is_system_file

WEBDATASET_META = re.compile(r"__[^/]*__($|/)")  # webdataset leaves these members out, and so do we
_CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 1 << 20
"""Of a header that holds a long name or pax records; a path has 4,096 bytes at most."""
MAX_TEXT_BYTES = 1 << 26
"""Of a pair's JSON, and of its text."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The whole pairs of a tar in order, and what is left out; an entry without a key is of the tar itself.

    passed_over: members in folders that a system left behind, `__MACOSX` and the like.
    """

    rows: list[Row]
    bad: list[Bad]
    passed_over: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Adjacent members of one key, by extension in lower case."""

    key: str
    members: Mapping[str, Member]


class OpenTar:
    """A tar that is read by its members: `with OpenTar(path) as tar: for sample in tar.samples(): tar.picture(sample)`.

    bad, passed_over: what the walk met so far, see `Scan`. OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.bad: list[Bad] = []
        self.passed_over: list[str] = []
        self._descriptor = os.open(path, os.O_RDONLY)
        self._size_bytes = os.fstat(self._descriptor).st_size

    def __enter__(self) -> OpenTar:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def samples(self) -> Iterator[Sample]:
        """In the order of the tar, without what webdataset or a system put there."""
        for key, members in groupby(self._pictures_and_texts(), key=lambda member: split_member(member.name)[0]):
            by_extension: dict[str, Member] = {}
            for member in members:
                by_extension.setdefault(split_member(member.name)[1], member)
            yield Sample(key, by_extension)

    def picture(self, sample: Sample) -> tuple[Member, str]:
        """The picture among the members, and our extension for what its bytes are. ValueError says why there is none."""
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
        """Texts, group, name, split and metadata, see `decode_record`; name: where the JSON has none. ValueError says what is wrong."""
        members = {extension: sample.members.get(extension, _NOTHING) for extension in ("json", "txt")}
        for extension, member in members.items():
            if member.size > MAX_TEXT_BYTES:
                raise ValueError(f"its {extension} has {member.size:,} bytes; at most {MAX_TEXT_BYTES:,} are read")
        record = decode_record(self.read(members["json"]), lambda: self.read(members["txt"]), name=name, group=sample.key)
        for value in (sample.key, record["group"], record["name"], record["split"]):
            value.encode()  # a name from another encoding is a ValueError
        return record

    def read(self, member: Member, size: int | None = None) -> bytes:
        """The bytes of a member that is whole, or its first ones."""
        return os.pread(self._descriptor, member.size if size is None else min(size, member.size), member.offset)

    def _is_zero_from(self, offset: int) -> bool:
        """Whether nothing but zeros follows: writers fill the end of a tar up to 10,240 bytes, or to as many as they were asked for."""
        for start in range(offset, self._size_bytes, _CHUNK_BYTES):
            chunk = os.pread(self._descriptor, _CHUNK_BYTES, start)
            if chunk.count(0) < len(chunk):
                return False
        return True

    def _pictures_and_texts(self) -> Iterator[Member]:
        for member in self.files():
            if is_system_file(member.name):
                self.passed_over.append(member.name)
            elif not WEBDATASET_META.match(member.name):
                yield member

    def _tell(self, reason: str) -> None:
        self.bad.append(Bad(self.name, "", reason))

    def files(self) -> Iterator[Member]:
        """The regular files (USTAR, GNU and pax names); after a broken header the walk goes on at the next block that is a header."""
        offset = 0
        name, size = "", None  # from a GNU or pax header, for the member that follows it
        in_damage = is_cut = False
        while offset + BLOCK <= self._size_bytes:
            block = os.pread(self._descriptor, BLOCK, offset)
            if not any(block) and not is_cut:
                if not self._is_zero_from(offset):
                    self._tell(f"{self._size_bytes - offset} bytes lie behind the end mark at byte {offset}, and are not read")
                return
            content = offset + BLOCK
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                if info.size < 0:
                    raise tarfile.HeaderError("a negative size")
                is_name = info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE)
                if is_name and (info.size > MAX_NAME_BYTES or content + info.size > self._size_bytes):
                    raise tarfile.HeaderError(f"a name of {info.size} bytes")
                pax = _pax(os.pread(self._descriptor, info.size, content)) if info.type == tarfile.XHDTYPE else {}
            except tarfile.HeaderError as error:
                if not in_damage and not is_cut:
                    self._tell(f"broken header at byte {offset} ({error}); the member behind it is lost")
                in_damage = True
                name, size = "", None
                offset = content
                continue
            if is_cut:  # what seemed to reach beyond the end of the file did not: its header was wrong
                self._tell(f"a member claims more bytes than the file has; the next one is at byte {offset}")
            in_damage = is_cut = False
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = os.pread(self._descriptor, info.size, content).rstrip(b"\0").decode("utf-8", "surrogateescape")
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
            self._tell("ends without an end mark: it was cut, and what came after is lost")


_NOTHING = Member("", 0, 0)


def scan_tar(path: Path) -> Scan:
    """Read the headers, JSON and texts of a tar, and the first bytes of its pictures. OSError where the file cannot be opened."""
    with OpenTar(path) as tar:
        rows = []
        bad = []
        for sample in tar.samples():
            try:
                rows.append(_row(tar, sample))
            except ValueError as error:
                bad.append(Bad(tar.name, sample.key, str(error)))
        return Scan(rows, tar.bad + bad, tar.passed_over)


def _row(tar: OpenTar, sample: Sample) -> Row:
    """The index of one pair; ValueError says why it is none."""
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
    """The records `<length> <key>=<value>\\n` of a pax header. HeaderError where a length or the size is none."""
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
