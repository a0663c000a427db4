"""The original file of a picture: only one that the store names, inside its folder, with the content that was indexed.

found = original(store, 17)        # Original(content, "image/jpeg"), or None

A store may be somebody else's, and a folder may change under it. So a path must stay inside the folder after all links are followed, the
file must be a plain one of the size that was indexed, its hash must be the indexed one, and its bytes must begin as those of a picture
do: what is sent is a picture that was indexed, or nothing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from multimodal.boxes import box_file, fingerprint_bytes
from multimodal.errors import InputError
from multimodal.machine.portable import BINARY
from multimodal.pictures.formats import AVIF_BRANDS, HEIF_BRANDS
from multimodal.search.store import Store

MAX_BYTES = 256 << 20
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | BINARY
"""O_NONBLOCK: a pipe that took a picture's place would otherwise be waited for."""


@dataclass(frozen=True, slots=True)
class Original:
    """A file as it is, and its media type by its first bytes."""

    content: bytes
    media_type: str


def original(store: Store, id: int) -> Original | None:
    """The picture's own file, or None where there is none that may be sent. InputError if the store has no such picture."""
    if store.folders:
        content = _of_folder(store, id)
    elif store.shards is not None:
        try:
            content = store.picture_bytes(id)
        except (InputError, OSError):
            store.records([id], ("name",))  # InputError if there is no such picture; else its shard has changed
            content = None
    else:
        store.records([id], ("name",))
        content = None
    media_type = "" if content is None else picture_type(content)
    return None if content is None or not media_type else Original(content, media_type)


def has_originals(store: Store) -> bool:
    """Whether any of its pictures may have a file."""
    return bool(store.folders) or store.shards is not None


def picture_type(content: bytes) -> str:
    """The media type of a picture by its first bytes; "" for anything else, such as HTML or SVG."""
    for signature, media_type in _SIGNATURES:
        if content.startswith(signature):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:8] == b"ftyp" and content[8:12] in AVIF_BRANDS:
        return "image/avif"
    if content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
        return "image/heic"
    return ""


def _of_folder(store: Store, id: int) -> bytes | None:
    [record] = store.records([id], ("folder", "path", "content", "size"))
    place = store.folders.get(record["folder"])
    if place is None or not isinstance(record["content"], str):
        return None
    try:
        path = box_file(place, record["path"])  # no link may lead out of the folder
        content = _read(path, record["size"])
    except (InputError, OSError):
        return None
    return content if content is not None and fingerprint_bytes(content) == record["content"] else None


def _read(path: Path, size: int | None) -> bytes | None:
    """A plain file of that size; None for another one."""
    descriptor = os.open(path.resolve(), _FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES or size not in (None, facts.st_size):
            return None
        return file.read(facts.st_size + 1)
