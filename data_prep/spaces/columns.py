"""Turn the texts of a shard set into rows of a text space: a column, which training reads as targets.

data-prep make-columns --space spaces/lda40 --shards shards/emoji --name lda40
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from multimodal.boxes import fingerprint_file, read_manifest
from multimodal.boxes.arrays import read_array
from multimodal.errors import InputError
from multimodal.machine.cores import usable_cores
from multimodal.machine.progress import track
from multimodal.shards import ColumnWriter, Ledger, SetPath, Shard, ShardSet, open_set
from multimodal.shards.columns import ROWS, column_path
from multimodal.shards.ledger import NO_WORDS, NO_WORDS_FILE
from multimodal.shards.reader import SetParts
from multimodal.text import TextSpace, open_space
from multimodal.text.space import KIND, VOCABULARY, EmbedsMany, NamesDimensions, report_cut

_PAIRS_AT_ONCE = 512
_PAIRS_A_PROCESS = 8192  # a process takes some seconds to start: below this many pairs, one is as fast as two
_TEXT_SHOWN = 60
_WORDS_A_DIMENSION = 10

_COUNTING = ("topics", "word2vec", "fasttext", "doc2vec")  # jobs of fit-text-space with --min-count

Unit = Literal["pair", "text"]


def make_columns(
    space: Path,
    shards: SetPath,
    name: str,
    unit: Unit = "pair",
    dtype: Literal["float16", "float32"] = "float16",
    num_processes: int | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Embed each pair's texts with a text space, write the rows as a column of the set, and return its folder.

    A text without a word that the space knows gets a row of NaN, which loaders mark invalid, and a line in the column's `no_words.csv`.
    Shards that already have rows are not computed again, so a job that was stopped resumes, and new shards add their own
    rows.
    If the space can describe each dimension in words (topics can), so does the column, in `top_words.json`. How words are
    pooled and rows scaled belongs to the space, since queries must be treated alike: fit-text-space has --pooling and --scaling.

    Args:
        space: the folder of the text space.
        shards: the shard set, a folder or a URL.
        name: name of the column, made in `<shards>/columns/<name>`; for a set at a URL, in the cache, where other commands look.
        unit: pair, one row from the main text of each pair (the first); text, one row from each of its texts.
        dtype: data type of the rows on disk.
        num_processes: number of processes; by default one per core, and fewer for few pairs. The rows are the same
            with any number. A sentence encoder uses all cores in one process.
        cache: for a set at a URL, the folder for its tars and columns; by default in the user's cache folder.
        cache_bytes: the most bytes that tars take there; by default 20 GiB.
        trust: your own package, or packages, whose classes the text space names. Their code is run; without this option nothing is imported
            because a folder names it.
    """
    opened, source = open_space(space, trust), open_set(shards, cache, cache_bytes)
    if num_processes is not None and num_processes < 1:
        raise InputError(f"num_processes is {num_processes}; it must be above 0")
    if num_processes is not None and num_processes > 1 and not isinstance(opened, EmbedsMany):
        raise InputError(f"{space}: a {type(opened).__name__} runs in one process, whose threads use all cores. Omit --num-processes")
    source.need_texts(np.arange(len(source)), "a column of a text space")
    made_from = {"text-space": opened.fingerprint}
    if (space / VOCABULARY).is_file():
        made_from["vocabulary"] = fingerprint_file(space / VOCABULARY)
    folder = column_path(source, name)
    with (
        ColumnWriter(source, name, opened.dim, unit, dtype, {"family": opened.family}, made_from) as writer,
        Ledger(folder / "bad.csv") as ledger,
    ):
        if isinstance(opened, NamesDimensions):
            writer.name_dimensions(opened.top_words(_WORDS_A_DIMENSION))
        missing = writer.missing()
        if num_processes is None and isinstance(opened, EmbedsMany):
            num_processes = min(len(usable_cores()), 1 + sum(shard.num_pairs for shard in missing) // _PAIRS_A_PROCESS)
        for shard, rows in _rows(opened, space, tuple(trust), source, missing, unit, num_processes or 1, f"column {name}"):
            counts = source.num_texts[shard.start : shard.start + shard.num_pairs]
            writer.write(shard, rows, counts if unit == "text" else None)
        report_cut(opened, (text for shard in missing for id in shard.ids for text in _texts(source, id, unit)))
        if not missing:
            print(f"{folder}: is there already", file=sys.stderr)
        for shard in source.shards:
            _judge(source, shard, unit, folder, ledger)
        if not ledger.num_good:
            raise InputError(_nothing_known(space, shards, ledger))
    if num := ledger.num_without_words:
        listed = folder / NO_WORDS_FILE
        print(f"{folder}: {num} of {num + ledger.num_good} texts have no word that {space} knows, and no row: {listed}", file=sys.stderr)
    return folder


def _nothing_known(space: Path, shards: SetPath, ledger: Ledger) -> str:
    said = f"{space}: knows no word of any of {ledger.num_without_words} texts ({ledger.entries[0]}). "
    job = read_manifest(space, KIND).config.get("fit", {}).get("job")
    if job is None:  # an encoder, or a custom space, which no command of ours fits
        return said + "Use a text space for the language of these texts"
    to_all = f"--shards {shlex.quote(str(shards))} --output SPACE --part all"
    if job == "vectors":
        return said + f"Use word vectors for the language of these texts: data-prep fit-text-space vectors --file FILE {to_all}"
    again = f"data-prep fit-text-space {job} {to_all}" + (" --min-count 1" if job in _COUNTING else "")
    return said + f"Fit it on texts like these: {again}"


def _texts(source: ShardSet, id: int, unit: Unit) -> tuple[str, ...]:
    texts = source.texts(id)
    return texts[:1] if unit == "pair" else texts


def _rows(
    opened: TextSpace,
    space: Path,
    trust: tuple[str, ...],
    source: ShardSet,
    shards: Sequence[Shard],
    unit: Unit,
    num_processes: int,
    label: str,
) -> Iterator[tuple[Shard, np.ndarray]]:
    """Each shard with its rows (r, d) float32, NaN if the space knows no word, in the shards' order."""
    if not shards:
        return
    portions = {
        shard: [shard.ids[start : start + _PAIRS_AT_ONCE] for start in range(0, shard.num_pairs, _PAIRS_AT_ONCE)] for shard in shards
    }
    num_pairs = sum(shard.num_pairs for shard in shards)
    with _mapping(opened, space, trust, source, unit, num_processes) as rows_of:
        made = track(rows_of(list(chain(*portions.values()))), label, unit="pair", total=num_pairs, weight=_PAIRS_AT_ONCE)
        for shard in shards:
            rows = [np.empty((0, opened.dim), np.float32), *(next(made) for _ in portions[shard])]
            yield shard, np.concatenate(rows)
        next(made, None)  # lets it report that it is done


@contextmanager
def _mapping(
    opened: TextSpace, space: Path, trust: tuple[str, ...], source: ShardSet, unit: Unit, num_processes: int
) -> Iterator[Callable[[Sequence[range]], Iterator[np.ndarray]]]:
    """A function from portions of ids to their rows, one after the other, computed here or in processes."""
    if num_processes == 1:
        yield partial(map, partial(_rows_of, opened, source, unit))
        return
    context = multiprocessing.get_context("spawn")  # imported libraries may have threads, which a fork would lose
    with _one_thread_each(), ProcessPoolExecutor(num_processes, context) as pool:
        try:
            yield partial(pool.map, partial(_rows_in_process, space, trust, source.parts, unit))
        except BrokenProcessPool:
            raise InputError("a process was killed (by the system, out of memory?). Run it again, or with --num-processes 1") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # without this, waiting tasks would still run


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in here use one thread each for numpy's linear algebra, which would otherwise take all cores in every process."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _rows_in_process(space: Path, trust: tuple[str, ...], shards: SetParts, unit: Unit, ids: range) -> np.ndarray:
    return _rows_of(*_opened(space, trust, shards), unit, ids)


@cache
def _opened(space: Path, trust: tuple[str, ...], shards: SetParts) -> tuple[TextSpace, ShardSet]:
    return open_space(space, trust), ShardSet(*shards)


def _rows_of(space: TextSpace, source: ShardSet, unit: Unit, ids: range) -> np.ndarray:
    texts = [text for id in ids for text in _texts(source, id, unit)]
    rows = space.embed_many(texts) if isinstance(space, EmbedsMany) else space.embed(texts)
    return np.where(rows.any(axis=1, keepdims=True), rows, np.float32(np.nan))


def _judge(source: ShardSet, shard: Shard, unit: Unit, folder: Path, ledger: Ledger) -> None:
    """Find the unknown texts from the finished rows, so that the ledger is complete even after a job that was stopped."""
    lost = np.isnan(read_array(folder / f"{shard.name}{ROWS}", mapped=True)[:, 0])
    ledger.good(int((~lost).sum()))
    if not lost.any():
        return
    row = 0
    for id in shard.ids:
        for text in _texts(source, id, unit):
            if lost[row]:
                shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."
                ledger.bad(shard.name, source.key(id), f"{NO_WORDS}{shown!r}")
            row += 1
