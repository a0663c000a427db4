"""What has changed in folders of pictures since a store was made of them: names, sizes and times are compared, and few files are read.

    found = scan(["/home/me/Photos"], leave_out=[store.path])
    todo = compare(store, found)        # todo.new, todo.deleted, todo.described, ...

A picture is known by its path, size and modification time. If only the time is another, the content decides. A new file with the content of
one that is gone is that picture, moved; only files of the same size are read for that. No torch is loaded.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from multimodal.boxes import fingerprint_file
from multimodal.machine.progress import track
from multimodal.pictures.decode import NEEDS_HEIF
from multimodal.pictures.folders import PictureWalk
from multimodal.search.folders import COLUMNS, DELETED, known, left_out, places

if TYPE_CHECKING:
    from multimodal.search.store import Store

CANNOT_READ = "cannot be read: "
"""How the reason begins where the system refused to read a file, which it may not do the next time."""
_BLOCK = 8192
_TELL_EVERY_S = 10.0
_FILES = pa.schema({name: COLUMNS[name] for name in ("path", "folder", "size", "modified")})


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """The pictures in some folders, in the order of the folders and of the walk.

    table: path, folder, size, modified; size is null for a file whose facts the system does not tell, as for a broken link.
    absent: folders that do not exist or hold no picture. unreadable: folders that cannot be listed, absolute.
    notes: what was skipped, a line for each folder.
    """

    folders: Sequence[str]
    table: pa.Table
    absent: list[str]
    unreadable: list[str]
    notes: list[str]


def scan(folders: Sequence[str], leave_out: Collection[Path] = ()) -> Scan:
    """Walk the folders, and stat every picture in them. leave_out: see `PictureWalk`."""
    blocks: list[pa.RecordBatch] = []
    absent, unreadable, notes = [], [], []
    told = time.monotonic()
    for folder in folders:
        walk = PictureWalk(Path(folder), leave_out)
        rows: list[tuple[str, str, int | None, int | None]] = []
        num, unnamed = 0, list[str]()
        for name in walk:
            try:
                name.encode()
                facts = os.stat(os.path.join(folder, name))
            except UnicodeEncodeError:
                unnamed.append(name)
                continue
            except OSError:
                rows.append((name, folder, None, None))
            else:
                if not stat.S_ISREG(facts.st_mode):  # a pipe is read for ever
                    walk.others["other files"] += 1
                    continue
                rows.append((name, folder, facts.st_size, facts.st_mtime_ns // 1000))
            num += 1
            if len(rows) == _BLOCK:
                blocks.append(_block(rows))
                rows = []
                if time.monotonic() - told > _TELL_EVERY_S:
                    told = time.monotonic()
                    print(f"{folder}: {num:,} pictures found so far", file=sys.stderr, flush=True)
        blocks.append(_block(rows))
        if not num:
            absent.append(folder)
        closed = [f"{folder}/{below}" for below in walk.unreadable if below != "."]
        unreadable += closed
        if skipped := walk.skipped():
            notes.append(f"{folder}: skipped {skipped}")
        if unnamed:
            pictures = "picture whose name is" if len(unnamed) == 1 else "pictures whose names are"
            notes.append(f"{folder}: skipped {len(unnamed):,} {pictures} not UTF-8, such as {unnamed[0]!r}. Rename those to keep")
        notes += [f"{one}: cannot be listed, so it is not known what has changed in it" for one in closed]
    return Scan(folders, pa.Table.from_batches(blocks, _FILES).combine_chunks(), absent, unreadable, notes)


@dataclass(slots=True, eq=False)
class ToDo:
    """What makes a store equal to its folders.

    new: places in the scan's table of pictures to embed, ascending: new and changed ones, and files that were left out and may work now.
    deleted: ids of pictures that are gone or have changed. described: id, and the columns that are others for a moved or touched picture.
    left_out: the files that stay left out; has_other_left_out: whether they are others than before.
    away: folder that is not there -> its pictures, which are kept.
    """

    new: np.ndarray
    deleted: list[int]
    described: pa.Table
    left_out: pa.Table
    has_other_left_out: bool
    num_changed: int = 0
    num_removed: int = 0
    num_moved: int = 0
    away: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(len(self.new) or self.deleted or len(self.described) or self.has_other_left_out)


def compare(store: Store, found: Scan, remove_missing_folders: bool = False, restore: bool = False) -> ToDo:
    """What to do so that the store has the pictures of the scan.

    remove_missing_folders: also remove the pictures of a folder that is not there or has no picture any more: it may be on a disk that is
    not connected. restore: take pictures again that were deleted from the store by hand.
    """
    import pyarrow.compute as pc

    before, out = known(store), left_out(store)
    before = before.filter(pc.is_in(before["folder"], pa.array(found.folders, pa.string())))
    files = found.table
    at = _find(places(files), places(before))
    is_known = at >= 0
    size, modified = _numbers(files["size"]), _numbers(files["modified"])
    size_then, modified_then = _numbers(before["size"]), _numbers(before["modified"])
    there = np.flatnonzero(is_known)
    is_told = size[there] >= 0  # of others, nothing is known, so they stay
    same_size = size[there] == size_then[at[there]]
    same_time = modified[there] == modified_then[at[there]]
    changed = there[is_told & ~same_size]
    touched = there[is_told & same_size & ~same_time]

    described: list[tuple[int, int]] = []  # id, place in the scan
    content_then, ids = before["content"], before["id"].to_numpy()
    was_changed = []
    for place in _hashing(touched, "hashing touched files"):
        content = _content(files, place)
        if content == content_then[int(at[place])].as_py():
            described.append((int(ids[at[place]]), place))
        elif content is not None:
            was_changed.append(place)
    changed = np.sort(np.concatenate([changed, np.array(was_changed, np.int64)]))

    gone, away = _gone(before, at[there], found, remove_missing_folders)
    fresh = np.flatnonzero(~is_known)
    stays, taken = _still_left_out(out, files, fresh, found, restore)
    fresh = fresh[~taken]
    moved = _moved(before, gone, files, fresh, size)
    described += [(int(ids[row]), place) for place, row in moved.items()]
    removed = sorted(set(gone.tolist()) - set(moved.values()))
    fresh = fresh[~np.isin(fresh, list(moved))]
    deleted = sorted([*ids[removed].tolist(), *ids[at[changed]].tolist()])
    return ToDo(
        new=np.sort(np.concatenate([fresh, changed])),
        deleted=deleted,
        described=_description(described, files),
        left_out=stays,
        has_other_left_out=len(stays) != len(out),
        num_changed=len(changed),
        num_removed=len(removed),
        num_moved=len(moved),
        away=away,
    )


def place_of(files: pa.Table, row: int) -> str:
    """The absolute path of a file in a scan's table."""
    return f"{files['folder'][row].as_py()}/{files['path'][row].as_py()}"


def _block(rows: Sequence[tuple[str, str, int | None, int | None]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(_FILES)
    return pa.record_batch([pa.array(column, one.type) for column, one in zip(columns, _FILES, strict=True)], schema=_FILES)


def _find(wanted: pa.Array, among: pa.Array) -> np.ndarray:
    """(w,) int64: where each is among the others, -1 if nowhere."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.index_in(wanted, value_set=among), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64 of a size or a time, -1 where it is null. No file is from that microsecond of 1969."""
    return column.cast(pa.int64()).fill_null(-1).to_numpy()


def _content(files: pa.Table, place: int) -> str | None:
    """None if the file cannot be read now."""
    try:
        return fingerprint_file(place_of(files, place))
    except OSError:
        return None


def _hashing(rows: np.ndarray, label: str) -> Sequence[int]:
    return list(track(rows.tolist(), label, unit="file")) if len(rows) > _BLOCK else rows.tolist()


def _gone(before: pa.Table, seen: np.ndarray, found: Scan, remove_missing_folders: bool) -> tuple[np.ndarray, dict[str, int]]:
    """Rows of `before` whose files are gone; and the folders that are not there, with the number of pictures kept."""
    import pyarrow.compute as pc

    is_gone = np.ones(len(before), dtype=bool)
    is_gone[seen] = False
    away = {}
    for folder in () if remove_missing_folders else found.absent:
        of_it = pc.equal(before["folder"], folder).to_numpy()
        if of_it.any():
            away[folder] = int(of_it.sum())
            is_gone &= ~of_it
    where = places(before)
    for folder in found.unreadable:
        is_gone &= ~pc.starts_with(where, pattern=f"{folder}/").to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_gone), away


def _still_left_out(out: pa.Table, files: pa.Table, fresh: np.ndarray, found: Scan, restore: bool) -> tuple[pa.Table, np.ndarray]:
    """The files that stay left out, with those of other folders; and (f,) whether each fresh one is among them."""
    import pyarrow.compute as pc

    at = _find(places(files.take(pa.array(fresh))), places(out))
    is_listed = at >= 0
    equal = is_listed.copy()
    for name in ("size", "modified"):
        equal[is_listed] &= _numbers(files[name])[fresh[is_listed]] == _numbers(out[name])[at[is_listed]]
    reasons = out["reason"]
    has_heif = find_spec("pillow_heif") is not None
    for number in np.flatnonzero(equal).tolist():
        reason = reasons[int(at[number])].as_py()
        if reason == DELETED:
            equal[number] = not restore
        elif reason.startswith(NEEDS_HEIF):
            equal[number] = not has_heif
        elif reason.startswith(CANNOT_READ):
            equal[number] = not _opens(place_of(files, int(fresh[number])))
    elsewhere = ~pc.is_in(out["folder"], pa.array(found.folders, pa.string())).to_numpy()
    # Of a folder that is not there now, and of one that cannot be listed, it is not known whether they still are
    away = pc.is_in(out["folder"], pa.array(found.absent, pa.string())).to_numpy()
    stays = elsewhere | away
    stays[at[equal]] = True
    return out.filter(pa.array(stays)), equal


def _opens(place: str) -> bool:
    try:
        with open(place, "rb"):
            return True
    except OSError:
        return False


def _moved(before: pa.Table, gone: np.ndarray, files: pa.Table, fresh: np.ndarray, size: np.ndarray) -> dict[int, int]:
    """Place in the scan -> row of `before` whose content it has. Of equal pictures, the first in the scan has the smallest id."""
    sizes = _numbers(before["size"])
    by_content = defaultdict(list)
    for row in sorted(gone.tolist(), key=lambda row: -before["id"][row].as_py()):
        by_content[before["content"][row].as_py()].append(row)
    candidates = fresh[np.isin(size[fresh], sizes[gone])]
    moved = {}
    for place in _hashing(candidates, "hashing files that may have moved"):
        rows = by_content.get(_content(files, place) or "", [])
        if rows:
            moved[place] = rows.pop()
    return moved


def _description(described: Sequence[tuple[int, int]], files: pa.Table) -> pa.Table:
    described = sorted(described)
    of_them = files.take(pa.array([place for _, place in described], pa.int64()))
    names = [PurePosixPath(path).name for path in of_them["path"].to_pylist()]
    columns = {"id": pa.array([id for id, _ in described], pa.int64()), "name": pa.array(names, pa.string())}
    return pa.table({**columns, **{name: of_them[name] for name in _FILES.names}})
