"""Folders that say what they are: every artefact on disk is a box with a `manifest.json`, and a file is whole or absent.

with atomic_write(box / "weights.bin") as file: file.write(payload)
write_manifest(box, Manifest(kind="store", config={...}, counts={"rows": 3}, made_from={"export": "3f9c..."}))
read_manifest(box, kind="store").counts["rows"]
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

from multimodal.errors import InputError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
STALE_S = 86_400
"""A temporary file that another host began so long ago, and has not written to since, is nobody's."""
KINDS = {
    "shards": ("a shard set", "data-prep make-shards"),
    "text-space": ("a text space", "data-prep fit-text-space"),
    "column": ("a column", "data-prep make-columns, or multimodal embed"),
    "run": ("a finished run", "multimodal fit"),
    "export": ("an export", "multimodal export"),
    "store": ("a store", "multimodal index"),
}
"""Kind of a box -> what a message calls it, and the commands that make one. Boxes of other kinds, of other people, are as welcome."""

MAX_DEPTH = 100
"""Of values in values in a manifest. Python's own limit, which a fingerprint would run into, is a few hundred."""

_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{6})-\w{8}\.part", re.DOTALL)  # `.name.host-random.part`


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
    return decode_manifest(_read(box, *_called(kind)), str(box), kind)


def read_any_manifest(box: str | Path) -> Manifest:
    """The manifest of a box of whatever kind; InputError where there is none, or it is of a newer format."""
    return _decode(_read(box, "a box", ""), str(box))


def decode_manifest(content: bytes, box: str, kind: str) -> Manifest:
    """The manifest from its file's content; InputError, which calls the box as given, where it is another kind or a newer format."""
    manifest = _decode(content, box)
    if manifest.kind != kind:
        raise InputError(f"{box}: wanted {_called(kind)[0]} here, and this is {KINDS.get(manifest.kind, (f'a {manifest.kind}', ''))[0]}")
    return manifest


def _read(box: str | Path, called: str, command: str) -> bytes:
    """The content of its file; what a message calls the kind that is wanted, and the commands that make one."""
    try:
        return (Path(box) / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        state = (
            "the folder holds no manifest.json (unfinished, or not a box of ours)" if Path(box).is_dir() else "the folder does not exist"
        )
        raise InputError(f"{box}: wanted {called} here, and {state}{command and f'. One is made by: {command}'}") from None


def _decode(content: bytes, box: str) -> Manifest:
    try:
        values = json.loads(content.decode())
        if _is_deeper(values, MAX_DEPTH):
            raise ValueError(f"more than {MAX_DEPTH} values in one another")
        manifest = Manifest(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{box}/{MANIFEST}: not a manifest of ours: {error}") from None
    _check_types(manifest, box)
    if manifest.format_version > FORMAT_VERSION:
        raise InputError(f"{box}: format version {manifest.format_version}; this release reads up to {FORMAT_VERSION}. Install a newer one")
    return manifest


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether a JSON value has more than so many lists and objects in one another."""
    level = [value]
    for _ in range(depth):
        level = [inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)


def check_values(box: str | Path, where: str, values: Mapping[str, Any], wanted: Mapping[str, type | tuple[type, ...]]) -> None:
    """InputError, naming the manifest and the entry, where one that is wanted is missing or of another type.

    where: how the manifest calls the values, "config" or "parts.000000.tar". wanted: name -> its type or types; a bool is no int here, and
    an int is no less than 0.
    """
    for name, types in wanted.items():
        value = values.get(name)
        types = types if isinstance(types, tuple) else (types,)
        if name not in values:
            problem = "is missing"
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            problem = f"is {_shortened(value)}, and {' or '.join(each.__name__ for each in types)} is wanted"
        elif isinstance(value, int) and value < 0:
            problem = f"is {value}, which is below 0"
        else:
            continue
        raise InputError(f"{box}/{MANIFEST}: {where}.{name} {problem}. {_DAMAGED}")


def check_parts(box: str | Path, parts: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, type | tuple[type, ...]]) -> None:
    """`check_values` of the facts on each part."""
    for name, facts in parts.items():
        check_values(box, f"parts.{name}", facts, wanted)


@contextmanager
def reading(path: str | Path, *more: type[Exception]) -> Iterator[None]:
    """Around the code that parses a file of a box: what it raises where the file is damaged becomes an InputError that names the file.

    more: what the library that parses it raises besides, where that is no subclass of what Python's own parsers raise.
    A file that is missing, or cannot be opened, keeps its OSError, which says so.
    """
    try:
        yield
    except (InputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
        raise
    except OSError as error:
        if error.errno is not None:  # the system's own; libraries raise OSError without a number for content that they cannot read
            raise
        raise InputError(f"{path}: {_first_line(error)}. {_DAMAGED}") from error
    except (*_PARSING, *more) as error:
        raise InputError(f"{path}: {_first_line(error)}. {_DAMAGED}") from error


_PARSING: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
)
"""What json, numpy, pyarrow, torch and our own code raise over content that is not what it should be."""
_DAMAGED = "The file is damaged, or another program's. Restore it, or make it again"


def _first_line(error: Exception) -> str:
    told = str(error).strip().splitlines()
    return f"cannot be read ({type(error).__name__}{': ' + _shortened(told[0], 200) if told else ''})"


def _shortened(value: Any, length: int = 60) -> str:
    shown = value if isinstance(value, str) and length > 60 else repr(value)
    return shown if len(shown) <= length else f"{shown[:length]}..."


def _check_types(manifest: Manifest, box: str) -> None:
    """Every manifest's own fields, so that whoever opens one finds mappings where it looks for them."""
    mappings = dict.fromkeys(("config", "counts", "made_from", "parts"), dict)
    for name, kind in {"kind": str, "format_version": int, **mappings}.items():
        value = getattr(manifest, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{box}/{MANIFEST}: {name} is {_shortened(value)}, and {kind.__name__} is wanted. {_DAMAGED}")
    check_values(box, "counts", manifest.counts, dict.fromkeys(manifest.counts, int))
    check_values(box, "made_from", manifest.made_from, dict.fromkeys(manifest.made_from, str))
    check_values(box, "parts", manifest.parts, dict.fromkeys(manifest.parts, dict))


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

    Makes the parent folder. The temporary file lies beside the target, so the rename never crosses file systems. The first one that a
    process writes in a folder takes away those that killed processes left there. A link, or whatever else is there, is replaced: in a box
    that was received it may lead to a device.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_once(path.parent.resolve())
    descriptor, temporary = _locked_temporary(path)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp gives 0600; others read our boxes too
            os.replace(temporary, path)  # while it is open, and with that locked
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a write on a full disk knows no name
            error.filename = str(path)
        raise


@contextmanager
def write_output(path: str | Path) -> Iterator[IO[bytes]]:
    """`atomic_write` to a path that the user typed.

    What is there and is no regular file (/dev/stdout, a pipe, a device) is written to as it is: a rename would put a file in its place.
    """
    path = Path(path)
    with open(path, "wb") if _is_special(path) else atomic_write(path) as file:
        yield file


def _is_special(path: Path) -> bool:
    """Whether the path leads to something that is neither a regular file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:  # not there, or not to be reached: opening it will say so
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _locked_temporary(path: Path) -> tuple[int, str]:
    """A new file beside path, whose name says on which host it is written, and which is locked for as long as it is open."""
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{_host()}-", suffix=".part")
        with suppress(OSError):  # a file system without locks, where `remove_stale` gets none either and leaves the file
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # it was taken for a stale one before it was locked


@cache
def _host() -> str:
    return fingerprint_bytes(socket.gethostname().encode())[:6]


@cache
def remove_stale_once(folder: Path) -> None:
    """`remove_stale`, the first time that this process is asked."""
    remove_stale(folder)


def remove_stale(folder: Path) -> None:
    """Take away the temporary files of `atomic_write` in a folder that no living process is writing.

    Those of this host are known by their lock. Another host's locks may not be seen here, so its files have to be a day old as well.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(".part")]
    for name in names:
        made = _TEMPORARY.fullmatch(name)
        if made is None:
            continue
        with suppress(OSError):  # gone meanwhile, locked by who writes it, or not ours to remove
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if made[1] == _host() or time.time() - os.fstat(descriptor).st_mtime > STALE_S:
                    os.unlink(folder / name)
            finally:
                os.close(descriptor)


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
