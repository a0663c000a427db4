"""Arrays on disk, read by many threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from multimodal.boxes import arrays
from multimodal.boxes.arrays import read_array, write_array


@pytest.mark.parametrize("mapped", [False, True])
def test_what_was_written_is_read(tmp_path: Path, mapped: bool) -> None:
    rows = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_array(tmp_path / "rows.npy", rows)
    read = read_array(tmp_path / "rows.npy", mapped)
    assert read.dtype == rows.dtype and np.array_equal(read, rows)
    assert isinstance(read, np.memmap) == mapped


def test_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    pickled = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "rows.npy", pickled)
    assert not list(tmp_path.iterdir())
    np.save(tmp_path / "rows.npy", pickled, allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_array(tmp_path / "rows.npy")


def test_one_thread_reads_a_header_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in numpy's header parser at once are a SystemError on CPython 3.11, now and then: what is tested is that there are never two."""
    write_array(tmp_path / "rows.npy", np.zeros(3))
    load, inside, most = np.load, threading.Semaphore(1), []

    def watched(*args: object, **kwargs: object) -> object:
        alone = inside.acquire(blocking=False)
        most.append(alone)
        threading.Event().wait(0.002)  # long enough for the others to come
        try:
            return load(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            if alone:
                inside.release()

    monkeypatch.setattr(arrays.np, "load", watched)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_array(tmp_path / "rows.npy"), range(40)))
    assert len(most) == 40 and all(most)


@pytest.mark.parametrize("start", range(10, 128, 3))
def test_a_header_with_a_hole_is_a_value_error(start: int, tmp_path: Path) -> None:
    path = tmp_path / "ids.npy"
    write_array(path, np.arange(40))
    content = bytearray(path.read_bytes())
    content[start : start + 64] = bytes(min(64, len(content) - start))
    path.write_bytes(content)
    try:
        read = read_array(path)
    except ValueError:
        return
    assert read.dtype == np.int64 and read.shape == (40,), "padding alone was lost"
