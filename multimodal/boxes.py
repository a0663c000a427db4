"""Folders that say what they are: every artefact on disk is a box with a `manifest.json`, and a file is whole or absent.

with atomic_write(box / "weights.bin") as file: file.write(payload)
write_manifest(box, Manifest(kind="store", config={...}, counts={"rows": 3}, made_from={"export": "3f9c..."}))
read_manifest(box, kind="store").counts["rows"]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from multimodal.errors import InputError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
KINDS = {
    "shards": ("a shard set", "data-prep make-shards"),
    "text-space": ("a text space", "data-prep fit-text-space"),
    "column": ("a column", "data-prep make-columns, or multimodal embed"),
    "run": ("a finished run", "multimodal fit"),
    "export": ("an export", "multimodal export"),
    "store": ("a store", "multimodal index"),
}
"""Kind of a box -> what a message calls it, and the commands that make one. Boxes of other kinds, of other people, are as welcome."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a box is, what it was made with, and from what. Holds nothing that changes between two equal jobs: no times, no paths.

    kind: "shards", "text-space", "column", "run", "export" or "store".
    config: the settings that made it, JSON values.
    counts: how many of what.
    made_from: part name -> fingerprint of each box, or part of a box, that this one was made from.
    parts: file name -> facts about that file (a shard's pairs, bytes and fingerprint).
    """

    kind: str
    config: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """Of the manifest's whole content: two boxes of equal config, counts and parts have equal ones."""
        return fingerprint_json(asdict(self))


def read_manifest(box: str | Path, kind: str) -> Manifest:
    """The manifest of a box of the kind wanted; InputError where there is none, or it is another kind or a newer format."""
    try:
        content = (Path(box) / MANIFEST).read_bytes()
    except FileNotFoundError:
        called, command = _called(kind)
        state = "holds no manifest.json (unfinished, or not a box of ours)" if Path(box).is_dir() else "does not exist"
        raise InputError(f"{box}: wanted {called} here, and the folder {state}{command and f'. One is made by: {command}'}") from None
    return decode_manifest(content, str(box), kind)


def decode_manifest(content: bytes, box: str, kind: str) -> Manifest:
    """The manifest from its file's content; InputError, which calls the box as given, where it is another kind or a newer format."""
    try:
        manifest = Manifest(**json.loads(content.decode()))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise InputError(f"{box}/{MANIFEST}: not a manifest of ours: {error}") from None
    if manifest.kind != kind:
        raise InputError(f"{box}: wanted {_called(kind)[0]} here, and this is {KINDS.get(manifest.kind, (f'a {manifest.kind}', ''))[0]}")
    if manifest.format_version > FORMAT_VERSION:
        raise InputError(f"{box}: format version {manifest.format_version}; this release reads up to {FORMAT_VERSION}. Install a newer one")
    return manifest


def _called(kind: str) -> tuple[str, str]:
    """What a message calls a kind of box, and the commands that make one."""
    return KINDS.get(kind, (f"a box of kind {kind}", ""))


def write_manifest(box: str | Path, manifest: Manifest) -> None:
    """Write it last: what has a manifest is whole."""
    with atomic_write(Path(box) / MANIFEST) as file:
        file.write(encode_manifest(manifest))


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of its file."""
    return (json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def is_whole(box: str | Path) -> bool:
    """Whether the box was finished."""
    return (Path(box) / MANIFEST).is_file()


def box_file(box: str | Path, name: Any, may_link: bool = False) -> Path:
    """The path of a file, or folder, that a box names, such as a part of its manifest; InputError where it would lie outside of the box.

    A name is relative, with `/` between folders. may_link: the file may be a link to somewhere else, as tars on another disk are; otherwise
    a link that leads out of the box is refused, whatever it leads to.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or any(part in ("", ".", "..") for part in parts) or re.search(r"[\0\\]|^[A-Za-z]:", name):
        raise InputError(f"{box}: names the file {name!r}, which may lie outside of it. Nothing was read; do not use this folder")
    path = Path(box, name)
    if not may_link and not path.resolve().is_relative_to(Path(box).resolve()):
        raise InputError(
            f"{path}: is a link that leads out of {box}, to {path.resolve()}. A box holds its own files: copy what it leads to in its place"
        )
    return path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when it is whole and on disk; on any error nothing is left behind.

    Makes the parent folder. The temporary file lies beside the target, so the rename never crosses file systems.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; others read our boxes too
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a write on a full disk knows no name
            error.filename = str(path)
        raise


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config without its nesting, to name what differs: {"split": {"seed": 0}} -> {"split.seed": 0}."""
    flattened: dict[str, Any] = {}
    for name, value in config.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flattened


def is_unfinished(path: Path) -> bool:
    """Whether this is the temporary file of an `atomic_write` that goes on, or was killed."""
    return path.name.startswith(".") and path.suffix == ".part"


def copy_box(source: str | Path, target: str | Path) -> None:
    """Make target a box equal to source, its manifest last. What lay under the names of its files before is replaced.

    InputError, and nothing copied, where a file of source is a link to one outside of it.
    """
    source, target = Path(source), Path(target)
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for relative in files:
        box_file(source, relative.as_posix())
    (target / MANIFEST).unlink(missing_ok=True)
    for relative in sorted(files, key=lambda path: path == Path(MANIFEST)):
        link_or_copy(source / relative, target / relative)


def link_or_copy(source: Path, target: Path) -> None:
    """Make target a file equal to source: hard-linked where the file system allows it, since files of boxes are never changed in place."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with open(source, "rb") as original, atomic_write(target) as copy:
            shutil.copyfileobj(original, copy)


def fingerprint_bytes(*chunks: bytes) -> str:
    """sha256 of the chunks one after the other, as hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def fingerprint_file(path: str | Path) -> str:
    """sha256 of a file's content, as hex, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_json(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return fingerprint_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
