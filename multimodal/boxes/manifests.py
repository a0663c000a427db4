"""Self-describing folders: every artefact on disk is a box with a `manifest.json`, and each file is whole or absent.

with atomic_write(box / "weights.bin") as file: file.write(payload)
write_manifest(box, Manifest(kind="store", config={...}, counts={"rows": 3}, made_from={"export": "3f9c..."}))
read_manifest(box, kind="store").counts["rows"]
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multimodal.boxes.files import atomic_write, box_file, fingerprint_file, fingerprint_json, link_or_copy
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
    "onnx": ("a network as ONNX", "multimodal export --onnx"),
}
"""Kind of a box -> its name in messages, and the commands that make one. Users may have other kinds."""

_CHECKED_BYTES = 1 << 24  # when a box is opened, smaller files are checked by hash, larger ones by size
MAX_DEPTH = 100
"""Nesting of values in a manifest. Python's own limit, which a fingerprint would reach, is a few hundred."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a box is, its settings, and what it was made from. Nothing in it differs between two equal jobs: no times, and no paths but the
    folders that a store of people's own pictures is compared with.

    kind: "shards", "text-space", "column", "run", "export", "store" or "onnx".
    config: the settings that made it, JSON values.
    counts: what was counted -> the number.
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
        """Of the manifest's whole content: two boxes with equal content have equal fingerprints."""
        return fingerprint_json(asdict(self))


def read_manifest(box: str | Path, kind: str) -> Manifest:
    """The manifest of a box of the expected kind; InputError if there is none, or it is of another kind or a newer format."""
    return decode_manifest(_read(box, *_called(kind)), str(box), kind)


def read_any_manifest(box: str | Path) -> Manifest:
    """The manifest of a box of any kind; InputError if there is none, or it is of a newer format."""
    return _decode(_read(box, "a box", ""), str(box))


def decode_manifest(content: bytes, box: str, kind: str | None) -> Manifest:
    """The manifest from its file's content; InputError if it is of another kind or a newer format.

    box: its name in the message. kind: None for any.
    """
    manifest = _decode(content, box)
    if kind is not None and manifest.kind != kind:
        raise InputError(f"{box}: expected {_called(kind)[0]} here, but this is {KINDS.get(manifest.kind, (f'a {manifest.kind}', ''))[0]}")
    return manifest


def _read(box: str | Path, called: str, command: str) -> bytes:
    """The content of its file. called: the expected kind in a message. command: the commands that make one."""
    try:
        return (Path(box) / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        state = (
            "the folder holds no manifest.json (unfinished, or not a box of ours)" if Path(box).is_dir() else "the folder does not exist"
        )
        raise InputError(f"{box}: expected {called} here, but {state}{command and f'. One is made by: {command}'}") from None


def _decode(content: bytes, box: str) -> Manifest:
    try:
        values = json.loads(content.decode())
        if _is_deeper(values, MAX_DEPTH):
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if b"\\u" in content:  # half of a surrogate pair is JSON, and no text: no fingerprint can be made of it
            json.dumps(values, ensure_ascii=False).encode()
        manifest = Manifest(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{box}/{MANIFEST}: not a valid manifest: {error}") from None
    _check_types(manifest, box)
    if manifest.format_version > FORMAT_VERSION:
        raise InputError(f"{box}: format version {manifest.format_version}; this release reads up to {FORMAT_VERSION}. Install a newer one")
    return manifest


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects in a JSON value are nested deeper than this."""
    level = [value]
    for _ in range(depth):
        level = [inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)


def check_values(box: str | Path, where: str, values: Mapping[str, Any], wanted: Mapping[str, type | tuple[type, ...]]) -> None:
    """InputError, naming the manifest and the entry, if a required one is missing or of another type.

    where: the values' place in the manifest, "config" or "parts.000000.tar". wanted: name -> its type or types; a bool is not an int here,
    and an int is at least 0.
    """
    for name, types in wanted.items():
        value = values.get(name)
        types = types if isinstance(types, tuple) else (types,)
        if name not in values:
            problem = "is missing"
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            problem = f"is {_shortened(value)}; expected {' or '.join(each.__name__ for each in types)}"
        elif isinstance(value, int) and value < 0:
            problem = f"is {value}, which is below 0"
        else:
            continue
        raise InputError(f"{box}/{MANIFEST}: {where}.{name} {problem}. {_DAMAGED}")


def check_parts(box: str | Path, parts: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, type | tuple[type, ...]]) -> None:
    """`check_values` of the facts on each part."""
    for name, facts in parts.items():
        check_values(box, f"parts.{name}", facts, wanted)


def check_part_files(box: str | Path, parts: Mapping[str, Mapping[str, Any]], again: str, called: str = "this box") -> None:
    """InputError if a file that the manifest lists is missing, or is not the one that was written: large ones are checked by size only.

    parts: with size_bytes and fingerprint of each. again: what to do if the file cannot be restored. called: the box, in a message.
    """
    check_parts(box, parts, {"size_bytes": int, "fingerprint": str})
    for name, facts in parts.items():
        file = box_file(box, name)
        if not file.is_file():
            raise InputError(f"{box}: {name} is in the manifest but missing. Restore the file, or {again}")
        size_bytes = file.stat().st_size
        same = size_bytes == facts["size_bytes"]
        if same and size_bytes <= _CHECKED_BYTES:
            same = fingerprint_file(file) == facts["fingerprint"]
        if not same:
            raise InputError(f"{file}: not the file that {called} was saved with; they do not belong together. Restore it, or {again}")


@contextmanager
def reading(path: str | Path, *more: type[Exception]) -> Iterator[None]:
    """Around code that parses a file of a box: the errors that it raises for a damaged file become an InputError that names the file.

    more: other exceptions of the parsing library, if they are not subclasses of those that Python's own parsers raise.
    A file that is missing, or cannot be opened, keeps its OSError, which says so.
    """
    try:
        yield
    except (InputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
        raise
    except OSError as error:
        if error.errno is not None:  # from the system; libraries raise OSError without a number for unreadable content
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
"""What json, numpy, pyarrow, torch and our own code raise for invalid content."""
_DAMAGED = "The file is damaged, or from another program. Restore it, or make it again"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"cannot be read ({type(error).__name__}{': ' + _shortened(lines[0], 200) if lines else ''})"


def _shortened(value: Any, length: int = 60) -> str:
    shown = value if isinstance(value, str) and length > 60 else repr(value)
    return shown if len(shown) <= length else f"{shown[:length]}..."


def _check_types(manifest: Manifest, box: str) -> None:
    """Check the types of a manifest's own fields, so that code that opens one can rely on them."""
    mappings = dict.fromkeys(("config", "counts", "made_from", "parts"), dict)
    for name, kind in {"kind": str, "format_version": int, **mappings}.items():
        value = getattr(manifest, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{box}/{MANIFEST}: {name} is {_shortened(value)}; expected {kind.__name__}. {_DAMAGED}")
    check_values(box, "counts", manifest.counts, dict.fromkeys(manifest.counts, int))
    check_values(box, "made_from", manifest.made_from, dict.fromkeys(manifest.made_from, str))
    check_values(box, "parts", manifest.parts, dict.fromkeys(manifest.parts, dict))


def _called(kind: str) -> tuple[str, str]:
    """The name of a kind of box in messages, and the commands that make one."""
    return KINDS.get(kind, (f"a box of kind {kind}", ""))


def write_manifest(box: str | Path, manifest: Manifest) -> None:
    """Write it last: a box with a manifest is finished."""
    with atomic_write(Path(box) / MANIFEST) as file:
        file.write(encode_manifest(manifest))


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of its file."""
    return (json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def is_whole(box: str | Path) -> bool:
    """Whether the box was finished."""
    return (Path(box) / MANIFEST).is_file()


def copy_box(source: str | Path, target: str | Path) -> None:
    """Make target a box equal to source, its manifest last. Existing files of the same names are replaced.

    InputError, and nothing copied, if a file of source is a link that leads outside it.
    """
    source, target = Path(source), Path(target)
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for relative in files:
        box_file(source, relative.as_posix())
    (target / MANIFEST).unlink(missing_ok=True)
    for relative in sorted(files, key=lambda path: path == Path(MANIFEST)):
        link_or_copy(source / relative, target / relative)
