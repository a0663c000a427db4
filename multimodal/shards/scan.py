"""Walk a tar that may be damaged, and find the whole pairs in it.

    scan = scan_tar(Path("00000.tar"))
    scan.rows, scan.bad      # where each whole pair lies, and which are left out and why

Python's tarfile stops without a word at a broken header in the middle of a file; here it costs the members that it hides, and is named.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from multimodal.shards.format import BLOCK, PICTURE_SPELLINGS, decode_record, split_member
from multimodal.shards.ledger import Bad
from multimodal.shards.table import Row

WEBDATASET_META = re.compile(r"__[^/]*__($|/)")  # webdataset leaves these members out, and so do we
FILLING = 2 * tarfile.RECORDSIZE  # writers pad the end of a tar to 10,240 bytes, some to twice that


@dataclass(frozen=True, slots=True)
class Scan:
    """The whole pairs of a tar in order, and what is left out; an entry without a key is of the tar itself."""

    rows: list[Row]
    bad: list[Bad]


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int


def scan_tar(path: Path) -> Scan:
    """Read the headers, JSON and texts of a tar, not its pictures. OSError where the file cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size_bytes = os.fstat(descriptor).st_size
        scan = Scan([], [])
        members = [member for member in _members(descriptor, size_bytes, path.name, scan.bad) if not WEBDATASET_META.match(member.name)]
        for key, of_key in groupby(members, key=lambda member: split_member(member.name)[0]):
            try:
                scan.rows.append(_row(descriptor, size_bytes, key, list(of_key)))
            except ValueError as error:
                scan.bad.append(Bad(path.name, key, str(error)))
        return scan
    finally:
        os.close(descriptor)


def _row(descriptor: int, size_bytes: int, key: str, members: list[_Member]) -> Row:
    """The index of one pair; ValueError says why it is none."""
    by_extension: dict[str, _Member] = {}
    for member in members:
        by_extension.setdefault(split_member(member.name)[1], member)
    for extension, member in by_extension.items():
        if member.offset + member.size > size_bytes:
            raise ValueError(f"its {extension} is cut off: the tar ends {member.offset + member.size - size_bytes} bytes too early")
    picture = next((member for extension, member in by_extension.items() if extension in PICTURE_SPELLINGS), None)
    if picture is None or not picture.size:
        raise ValueError(f"has no picture; its members are {', '.join(sorted(by_extension))}")
    nothing = _Member("", 0, 0)
    record, text = by_extension.get("json", nothing), by_extension.get("txt", nothing)
    content = os.pread(descriptor, record.size, record.offset)
    fields = decode_record(content, lambda: os.pread(descriptor, text.size, text.offset), name=picture.name, group=key)
    for value in (key, fields["group"], fields["name"], fields["split"]):
        value.encode()  # a name from another encoding, or half a surrogate pair from JSON, is a ValueError
    return Row(
        key=key,
        group=fields["group"],
        split=fields["split"],
        name=fields["name"],
        extension=PICTURE_SPELLINGS[split_member(picture.name)[1]],
        num_texts=len(fields["texts"]),
        image_offset=picture.offset,
        image_size=picture.size,
        json_offset=record.offset,
        json_size=record.size,
        txt_offset=text.offset,
        txt_size=text.size,
    )


def _members(descriptor: int, size_bytes: int, where: str, bad: list[Bad]) -> Iterator[_Member]:
    """The regular files of a tar (USTAR, GNU and pax names); after a broken header the walk goes on at the next block that is a header."""
    offset = 0
    name, size = "", None  # from a GNU or pax header, for the member that follows it
    in_damage = False
    while offset + BLOCK <= size_bytes:
        block = os.pread(descriptor, BLOCK, offset)
        if not any(block):
            if size_bytes - offset > FILLING:
                bad.append(Bad(where, "", f"{size_bytes - offset} bytes lie behind the end mark at byte {offset}, and are not read"))
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if not in_damage:
                bad.append(Bad(where, "", f"broken header at byte {offset} ({error}); the member behind it is lost"))
            in_damage = True
            offset += BLOCK
            continue
        in_damage = False
        content = offset + BLOCK
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = os.pread(descriptor, info.size, content).rstrip(b"\0").decode("utf-8", "surrogateescape")
            length = info.size
        elif info.type == tarfile.XHDTYPE:
            pax = _pax(os.pread(descriptor, info.size, content))
            name, size = pax.get("path", name), int(pax["size"]) if "size" in pax else size
            length = info.size
        elif info.isreg():
            length = info.size if size is None else size
            yield _Member(name or info.name, content, length)
            name, size = "", None
        else:  # a folder or a link has no content; other headers (global pax, link names) have
            has_content = info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK, tarfile.SOLARIS_XHDTYPE)
            length = info.size if has_content else 0
            if not has_content:
                name, size = "", None
        offset = content + length + -length % BLOCK
    if not in_damage:
        bad.append(Bad(where, "", "ends without an end mark: it was cut, and what came after is lost"))


def _pax(content: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n` of a pax header."""
    records: dict[str, str] = {}
    while match := re.match(rb"(\d+) ([^=]+)=", content):
        length = int(match[1])
        records[match[2].decode("utf-8", "surrogateescape")] = content[match.end() : length - 1].decode("utf-8", "surrogateescape")
        content = content[length:]
    return records
