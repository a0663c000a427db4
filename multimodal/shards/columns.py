"""Columns: rows of numbers for each pair of a set, made once and memory-mapped: targets of a text space, features of a trunk.

    with ColumnWriter(shards, "lda40", dim=40, unit="text", dtype="float32", config={...}, made_from={"text-space": "3f9c.."}) as writer:
        for shard in writer.missing():
            writer.write(shard, rows, counts)
    Column.of(shards, "lda40").take(ids)  # (n, 40) float32

A column is a box `<set>/columns/<name>/` with one `000000.npy` (rows, d) per shard, and `000000.offsets.npy` (pairs + 1,) if a pair has
several rows: one per text, or per view of its picture. If single dimensions have a meaning, as topics do, `top_words.json` describes
each by a list of words. The manifest holds the fingerprint that each shard had, so that a column is never
used with other shards, and a shard that is added to the set costs only its own rows. A row of NaN stands for a pair that could not be
computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np

from multimodal.boxes import (
    MANIFEST,
    Manifest,
    State,
    atomic_write,
    box_file,
    check_parts,
    check_values,
    decode_manifest,
    fingerprint_file,
    finished_box,
    is_whole,
    read_manifest,
    reading,
    state_of,
    write_manifest,
)
from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.shards.format import TAR
from multimodal.shards.reader import ShardSet
from multimodal.shards.recent import Recent
from multimodal.shards.tars import Shard

COLUMNS = "columns"
ROWS = ".npy"
OFFSETS = ".offsets.npy"
UNFINISHED = "unfinished.json"
TOP_WORDS = "top_words.json"
FETCHED = ".fetched"
"""Marks a column that was fetched, not made here; it is compared with the one at its set's URL when opened."""
PART = {"num_pairs": int, "num_rows": int, "shard": str, "fingerprint": str}
"""Facts in a manifest about each shard's rows."""
MAX_OPEN_MAPS = 256  # a map keeps a file descriptor

Unit = Literal["pair", "text", "view"]
_MAX_ROWS = 1 << 40
"""Of a shard: above it a manifest is damaged, and sums of such numbers may not fit into 64 bits."""


class Column:
    """The rows of a finished column, by id of the pair. Opened by path it is not compared with any shards; `Column.of` compares.

    shards: the set that it was compared with, or None. A column pickles as its path alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.shards: ShardSet | None = None
        self.manifest = read_manifest(self.path, kind="column")
        _check_manifest(self.path, self.manifest)
        self.name = self.path.name
        self.unit: Unit = self.manifest.config["unit"]
        self.dim: int = self.manifest.config["dim"]
        self.num_rows: int = self.manifest.counts["rows"]
        # In the order of the tars' names, as ids are: "a.s.tar" comes before "a.tar", and "a.s.npy" after "a.npy".
        parts = sorted(self.manifest.parts.items(), key=lambda part: f"{_shard_of(part[0])}{TAR}")
        self._files = [_shard_of(name) for name, _ in parts]
        self._starts = np.cumsum([0, *(part["num_pairs"] for _, part in parts)], dtype=np.int64)
        self._maps: Recent[int, _Rows] = Recent(MAX_OPEN_MAPS)

    @classmethod
    def of(cls, shards: ShardSet, name: str) -> Column:
        """The column of that name in the set. InputError if there is none, or if its shards have changed since it was made."""
        path = box_file(shards.index / COLUMNS, name, may_link=True)  # a run's config names it too
        _fetch_column(shards, name, path)
        if not is_whole(path):
            absent = "does not exist" if shards.remote is None else f"does not exist, nor does {shards.place}/{COLUMNS}/{name}"
            state = f"was not finished. Run: {command_of(path, shards)}" if path.is_dir() else absent
            raise InputError(
                f"columns {path}: {state}. Finished ones: {', '.join(column_names(shards)) or 'none'}. "
                "Columns are made by: data-prep make-columns (of texts), multimodal embed (of pictures)"
            )
        column = cls(path)
        column.check(shards)
        column.shards = shards
        return column

    def check(self, shards: ShardSet) -> None:
        """InputError, naming the first shard that differs and what to run, if the column belongs to other shards."""
        pairs = {shard.name: shard.num_pairs for shard in shards.shards}
        for name, part in self.manifest.parts.items():
            shard = _shard_of(name)
            if part["shard"] == shards.fingerprints.get(shard) and part["num_pairs"] != pairs[shard]:
                raise InputError(
                    f"{self.path}/{MANIFEST}: is damaged: it says that {name} has {part['num_pairs']} pairs, and its shard has "
                    f"{pairs[shard]}. Run: {command_of(self.path, shards)}"
                )
        made = {_shard_of(name): part["shard"] for name, part in self.manifest.parts.items()}
        now = shards.fingerprints
        for name in sorted(made.keys() | now.keys()):
            if made.get(name) == now.get(name):
                continue
            if name not in made:
                change = f"was added after they were made, as {_short(now[name])}"
            elif name not in now:
                change = f"was {_short(made[name])} when they were made and is gone now"
            else:
                change = f"was {_short(made[name])} when they were made and is {_short(now[name])} now"
            raise InputError(f"columns {self.path}: shard {name} {change}. Run: {command_of(self.path, shards)}")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"Column({str(self.path)!r}: {self.num_rows} rows of {self.dim} for {len(self)} pairs, one per {self.unit})"

    def top_words(self) -> list[list[str]] | None:
        """For each of the d dimensions, the words that best describe it; None if the column has none."""
        path = box_file(self.path, TOP_WORDS)
        if not path.is_file():
            return None
        with reading(path):
            words: list[list[str]] = json.loads(path.read_text(encoding="utf-8"))
            if not all(isinstance(word, str) for of_one in words for word in of_one):
                raise ValueError("it is not a list of lists of words")
        if len(words) != self.dim:
            raise InputError(f"{path}: words for {len(words)} dimensions, but the column has {self.dim}. Make the column again")
        return words

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self.path,)

    def rows(self, id: int) -> np.ndarray:
        """(r, d) in the dtype on disk: r = 1 for unit pair, else the number of the pair's texts or views."""
        self._check(np.array([id]))
        number = int(np.searchsorted(self._starts, id, side="right")) - 1
        rows = self._maps.get(number, self._open)
        first, count = rows.span(np.array([id - self._starts[number]]))
        return rows.values[int(first[0]) : int(first[0] + count[0])]

    def take(self, ids: np.ndarray, choice: np.ndarray | None = None) -> np.ndarray:
        """(n, d) float32, one row for each of ids (n,), in their order; an id may come more than once.

        choice: (n,) uint64 random words; of a pair's r rows, row choice % r is taken. None takes row 0.
        """
        ids = np.asarray(ids, np.int64)
        self._check(ids)
        taken = np.empty((len(ids), self.dim), np.float32)
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            rows = self._maps.get(int(number), self._open)
            first, count = rows.span(ids[places] - self._starts[number])
            if choice is not None:
                first = first + (np.asarray(choice, np.uint64)[places] % count.astype(np.uint64)).astype(np.int64)
            taken[places] = rows.values[first]
        return taken

    def _open(self, number: int) -> _Rows:
        name = self._files[number]
        try:
            values = read_array(box_file(self.path, f"{name}{ROWS}"), mapped=True)
            offsets = read_array(box_file(self.path, f"{name}{OFFSETS}"), mapped=True) if self.unit != "pair" else None
        except InputError:
            raise
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"columns {self.path}: {name} cannot be read ({error}). Remove the folder and make the column again") from None
        facts = self.manifest.parts[f"{name}{ROWS}"]
        if values.shape != (facts["num_rows"], self.dim) or values.dtype not in (np.float16, np.float32):
            raise InputError(
                f"columns {self.path}: {name}{ROWS} is {values.dtype} {values.shape}, not what its manifest says. Make the column again"
            )
        if offsets is not None and not _are_offsets(offsets, facts["num_pairs"], facts["num_rows"]):
            raise InputError(f"columns {self.path}: {name}{OFFSETS} does not match the rows of its pairs. Make the column again")
        return _Rows(values, offsets)

    def _check(self, ids: np.ndarray) -> None:
        if len(ids) and not (0 <= ids.min() and ids.max() < len(self)):
            raise IndexError(f"ids {ids.min()}..{ids.max()} are outside 0..{len(self) - 1} of column {self.path}")


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows (r, d) of one shard, and offsets (pairs + 1,) into them if a pair has several."""

    values: np.ndarray
    offsets: np.ndarray | None

    def span(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First row and number of rows (n,) of the pairs at these positions of the shard."""
        if self.offsets is None:
            return positions, np.ones_like(positions)
        return self.offsets[positions], self.offsets[positions + 1] - self.offsets[positions]


class ColumnWriter:
    """Writes a column shard by shard, each file whole or absent, the manifest last; resumes where an earlier run stopped.

    Shards that already have rows, made with equal settings from the same content, are not requested again: neither after a run that
    was stopped, nor when shards were added to the set of a finished column.

    unit: "pair" (one row per pair), "text" or "view" (a row for each text or view of the picture; counts gives their number).
    dtype: "float16" or "float32".
    config: JSON values, how the rows are made. made_from: what they are made with (a text space, a trunk) -> its fingerprint.
    InputError if a finished column of that name was made with other settings, or if its folder is a link: the target of a link may belong
    to somebody else, and a writer removes old files.
    """

    def __init__(
        self, shards: ShardSet, name: str, dim: int, unit: str, dtype: str, config: Mapping[str, Any], made_from: Mapping[str, str]
    ) -> None:
        if not name or Path(name).name != name:
            raise InputError(f"{name!r} cannot be the name of a column, which becomes a folder in {shards.index / COLUMNS}")
        if unit not in get_args(Unit):
            raise InputError(f"column {name}: unit {unit!r} is not one of {', '.join(get_args(Unit))}")
        if dtype not in ("float16", "float32"):
            raise InputError(f"column {name}: dtype {dtype!r} is neither 'float16' nor 'float32'")
        self.shards, self.unit, self.dim, self.dtype = shards, unit, dim, np.dtype(dtype)
        self.path = column_path(shards, name)
        _refuse_links(self.path)
        settings = {"config": {**config, "dim": dim, "unit": unit, "dtype": dtype}, "made_from": dict(made_from)}
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))  # as read back from a manifest: tuples are lists
        self._known = self._known_parts()
        self._finished = self._is_finished()

    def missing(self) -> list[Shard]:
        """The shards whose rows are still to be written, in order."""
        return [shard for shard in self.shards.shards if shard.name not in self._known]

    def write(self, shard: Shard, rows: np.ndarray, counts: np.ndarray | None = None) -> None:
        """Write the rows (r, d) of one shard. counts (pairs,): how many rows each pair has, one per text or view; None for unit pair."""
        rows = np.asarray(rows)
        self._check(shard, rows, counts)
        with np.errstate(over="ignore"):  # found below, with a message
            stored = np.ascontiguousarray(rows, self.dtype)
        if np.isinf(stored).any():
            raise InputError(f"columns {self.path}: shard {shard.name} has values too large for {self.dtype}; write them as float32")
        if counts is not None:  # the rows come last: where they are, the shard is done
            write_array(self._file(shard.name, OFFSETS), np.cumsum([0, *counts], dtype=np.int64))
        write_array(self._file(shard.name, ROWS), stored)
        self._known[shard.name] = {}

    def name_dimensions(self, words: Sequence[Sequence[str]]) -> None:
        """Write, for each dimension, the words that best describe it.

        They follow from what the column is made from, so they are beside its manifest, not in it: a column that was made without them
        gets them from the same command, and keeps its fingerprint, which runs refer to.
        """
        content = (json.dumps(words, ensure_ascii=False) + "\n").encode()
        path = self.path / TOP_WORDS
        if not path.is_file() or path.read_bytes() != content:
            with atomic_write(path) as file:
                file.write(content)

    def __enter__(self) -> ColumnWriter:
        """Remove rows of other content or settings, and record what the remaining and coming rows are made from."""
        if self._finished:
            return self
        for path in sorted(self.path.glob(f"*{ROWS}")):
            if _shard_of(path.name) not in self._known:
                path.unlink()
        for name in (TOP_WORDS, FETCHED):
            (self.path / name).unlink(missing_ok=True)
        note = {**self._settings, "shards": self.shards.fingerprints, "parts": self._known}
        with atomic_write(self.path / UNFINISHED) as file:
            file.write(json.dumps(note, sort_keys=True, ensure_ascii=False).encode())
        (self.path / MANIFEST).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None or self._finished:
            return
        missing = self.missing()
        if missing:
            raise ValueError(f"columns {self.path}: {len(missing)} shards were not written, first {missing[0].name}")
        parts = {f"{shard.name}{ROWS}": self._known[shard.name] or self._facts(shard) for shard in self.shards.shards}
        counts = {"pairs": len(self.shards), "rows": sum(part["num_rows"] for part in parts.values()), "shards": len(parts)}
        write_manifest(self.path, Manifest(kind="column", counts=counts, parts=parts, **self._settings))
        (self.path / UNFINISHED).unlink(missing_ok=True)

    def _known_parts(self) -> dict[str, dict[str, Any]]:
        """Name of a shard that has rows -> their facts in the manifest, {} if an unfinished run wrote them."""
        note_path = self.path / UNFINISHED
        manifest = finished_box(self.path, kind="column")
        note = _read_note(note_path) if note_path.is_file() else None
        state = state_of(
            f"columns {self.path}",
            _compared(**self._settings),
            None if manifest is None else _compared(manifest.config, manifest.made_from),
            None if note is None else _compared(note["config"], note["made_from"]),
            remedies=("choose another name for the column", "remove the folder"),
            begins_again=True,
        )
        if state is State.FRESH:
            return {}
        if note is not None:  # beside a manifest if a run was killed between the two
            made, facts = note["shards"], note["parts"]
        else:
            assert manifest is not None
            _check_manifest(self.path, manifest)
            facts = {_shard_of(name): dict(part) for name, part in manifest.parts.items()}
            made = {name: part["shard"] for name, part in facts.items()}
        now = self.shards.fingerprints
        return {
            name: facts.get(name, {})
            for name, fingerprint in made.items()
            if now.get(name) == fingerprint and self._file(name, ROWS).is_file()
        }

    def _is_finished(self) -> bool:
        if not is_whole(self.path) or (self.path / UNFINISHED).is_file():
            return False
        made = read_manifest(self.path, kind="column").parts
        return {_shard_of(name) for name in made} == self._known.keys() == self.shards.fingerprints.keys()

    def _check(self, shard: Shard, rows: np.ndarray, counts: np.ndarray | None) -> None:
        where = f"columns {self.path}: shard {shard.name}"
        if self.shards.fingerprints.get(shard.name) != shard.fingerprint:
            raise ValueError(f"{where} is not one of {self.shards!r}")
        if (counts is None) != (self.unit == "pair"):
            raise ValueError(f"{where}: unit {self.unit} is written {'without' if self.unit == 'pair' else 'with'} counts")
        if counts is not None and (np.shape(counts) != (shard.num_pairs,) or np.min(counts, initial=1) < 1):
            raise ValueError(f"{where}: counts must be {shard.num_pairs} numbers, one per pair, at least 1")
        num_texts = self.shards.num_texts[shard.start : shard.start + shard.num_pairs]
        if counts is not None and self.unit == "text" and not np.array_equal(counts, num_texts):
            raise ValueError(f"{where}: counts must be how many texts each of its {shard.num_pairs} pairs has")
        num_rows = shard.num_pairs if counts is None else int(np.sum(counts))
        if rows.shape != (num_rows, self.dim):
            raise ValueError(f"{where}: rows must be ({num_rows}, {self.dim}) and are {rows.shape}")

    def _facts(self, shard: Shard) -> dict[str, Any]:
        file = self._file(shard.name, ROWS)
        num_rows = read_array(file, mapped=True).shape[0]
        facts = {"num_pairs": shard.num_pairs, "num_rows": num_rows, "shard": shard.fingerprint, "fingerprint": fingerprint_file(file)}
        return facts | ({"offsets": fingerprint_file(self._file(shard.name, OFFSETS))} if self.unit != "pair" else {})

    def _file(self, shard: str, suffix: str) -> Path:
        return self.path / f"{shard}{suffix}"


def _compared(config: Mapping[str, Any], made_from: Mapping[str, str]) -> dict[str, Any]:
    """The settings that identify a column: for a trunk, what its features depend on, not where it came from, as its recipe has it."""
    return {**config, **made_from}


def column_path(shards: ShardSet, name: str) -> Path:
    """The folder of a column: beside the index, which for a read-only set is apart from the tars."""
    return shards.index / COLUMNS / name


def column_files(manifest: Manifest) -> dict[str, str]:
    """Name -> sha256 of the files that hold a column's rows, and offsets if it has them."""
    offsets = {f"{_shard_of(file)}{OFFSETS}": part["offsets"] for file, part in manifest.parts.items() if "offsets" in part}
    return offsets | {file: part["fingerprint"] for file, part in manifest.parts.items()}


def _fetch_column(shards: ShardSet, name: str, path: Path) -> None:
    """For a set at a URL, fetch the column from there, unless one was made, or begun, here."""
    is_own = (path / UNFINISHED).is_file() or (is_whole(path) and not (path / FETCHED).is_file())
    if shards.remote is None or shards.remote.offline or is_own:
        return
    at = f"{COLUMNS}/{name}"
    content = shards.remote.read_file(f"{at}/{MANIFEST}")
    if content is None or (is_whole(path) and (path / MANIFEST).read_bytes() == content):
        return
    manifest = decode_manifest(content, f"{shards.place}/{at}", "column")
    _check_manifest(f"{shards.place}/{at}", manifest)
    files = column_files(manifest)
    for file in files:
        if Path(file).name != file:
            raise InputError(f"{shards.place}/{at}/{MANIFEST}: lists {file!r}, which is not a file of a column")
    (path / MANIFEST).unlink(missing_ok=True)
    with atomic_write(path / FETCHED):
        pass
    for file, fingerprint in files.items():
        if not (path / file).is_file() or fingerprint_file(path / file) != fingerprint:  # else left by a fetch that was stopped
            shards.remote.fetch_file(f"{at}/{file}", path / file, fingerprint)
    for file, whole in ((TOP_WORDS, shards.remote.read_file(f"{at}/{TOP_WORDS}")), (MANIFEST, content)):  # the manifest last
        if whole is not None:
            with atomic_write(path / file) as target:
                target.write(whole)


def column_names(shards: ShardSet) -> list[str]:
    """The finished columns of a set."""
    return sorted(path.parent.name for path in (shards.index / COLUMNS).glob(f"*/{MANIFEST}"))


def _refuse_links(path: Path) -> None:
    """InputError if a column's folder, or the folder of a set's columns, is a link."""
    for folder in (path.parent, path):
        if folder.is_symlink():
            raise InputError(
                f"{folder}: is a link to {folder.resolve()}, and nothing is written or removed there. "
                "Replace the link with a folder, such as a copy of its target"
            )


def _read_note(path: Path) -> dict[str, Any]:
    """The note of an unfinished column; InputError, with what to do, if it cannot be read."""
    try:
        with reading(path):
            note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not all(isinstance(note[name], dict) for name in ("config", "made_from", "shards", "parts")):
                raise ValueError("it is not a note of an unfinished column")
            check_parts(path.parent, {name: facts for name, facts in note["parts"].items() if facts != {}}, PART)
    except InputError as error:
        raise InputError(
            f"{path}: is damaged, so the origin of the rows beside it is unknown. Remove {path.parent} and make the column again"
        ) from error
    return note


def _check_manifest(path: str | Path, manifest: Manifest) -> None:
    """InputError, naming the entry, if something that a column reads from its manifest is missing or of another type."""
    for name in manifest.parts:
        box_file(path, name)
        if not name.endswith(ROWS):
            raise InputError(f"{path}/{MANIFEST}: lists {name!r}, which is not the name of a file of rows")
    check_values(path, "config", manifest.config, {"unit": str, "dim": int})
    check_values(path, "counts", manifest.counts, {"rows": int})
    check_parts(path, manifest.parts, PART)
    check_parts(path, {name: facts for name, facts in manifest.parts.items() if "offsets" in facts}, {"offsets": str})
    for name, facts in manifest.parts.items():
        num_pairs, num_rows = facts["num_pairs"], facts["num_rows"]
        is_possible = num_pairs == num_rows if manifest.config["unit"] == "pair" else 0 <= num_pairs <= num_rows
        if not is_possible or not 0 <= num_rows <= _MAX_ROWS:
            raise InputError(f"{path}/{MANIFEST}: says that {name} has {num_pairs} pairs and {num_rows} rows: it is damaged")
    if manifest.config["unit"] not in get_args(Unit):
        raise InputError(f"{path}/{MANIFEST}: config.unit is {manifest.config['unit']!r}, not one of {', '.join(get_args(Unit))}")


def _are_offsets(offsets: np.ndarray, num_pairs: int, num_rows: int) -> bool:
    """Whether the offsets divide the rows among the pairs, with at least one row each."""
    if offsets.shape != (num_pairs + 1,) or offsets.dtype != np.int64:
        return False
    return bool(offsets[0] == 0 and offsets[-1] == num_rows and (np.diff(offsets) > 0).all())


def _shard_of(file: str) -> str:
    """The shard whose rows or offsets a file of a column holds; tars of others may have dots in their names."""
    return file.removesuffix(OFFSETS if file.endswith(OFFSETS) else ROWS)


def command_of(path: Path, shards: ShardSet) -> str:
    """The command that makes the column at path again."""
    made_from: Mapping[str, Any] = {}
    if (path / UNFINISHED).is_file():
        made_from = _read_note(path / UNFINISHED)["made_from"]
    elif is_whole(path):
        made_from = read_manifest(path, kind="column").made_from
    if "trunk" in made_from:
        return f"multimodal embed --shards {shards.argument} --name {path.name}"
    return f"data-prep make-columns --space SPACE --shards {shards.argument} --name {path.name}"


def _short(fingerprint: str) -> str:
    return f"{fingerprint[:12]}.."
