"""Turn the texts of a shard set into rows of a text space: a column, which training reads as targets.

data-prep make-columns --space spaces/lda40 --shards shards/emoji --name lda40
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from multimodal.arrays import read_array
from multimodal.boxes import fingerprint_file
from multimodal.progress import track
from multimodal.shards import ColumnWriter, Ledger, RemoteShards, Shard, ShardSet, open_shards
from multimodal.shards.columns import ROWS, column_path
from multimodal.text import TextSpace, open_space
from multimodal.text.space import VOCABULARY, NamesDimensions

_TEXTS_AT_ONCE = 512
_TEXT_SHOWN = 60
_WORDS_A_DIMENSION = 10


def make_columns(
    space: Path,
    shards: Path | RemoteShards,
    name: str,
    unit: Literal["pair", "text"] = "pair",
    dtype: Literal["float16", "float32"] = "float16",
    max_bad_share: float = 0.5,
) -> Path:
    """Write what a text space makes of every pair's texts as a column of the shard set, and return its folder.

    A text of which the space knows no word gets a row of NaN, which loaders mark as not valid, and a line in the column's `bad.csv`. Shards
    whose rows are there already are not computed again, so a job that was stopped goes on where it was, and new shards add their own rows.
    Where the space can say in words what each dimension means (topics can), the column says it too, in `top_words.json`.

    Args:
        space: the folder of the text space.
        shards: the shard set; or one at a URL, whose columns lie in its cache, in a file of `--config` or by itself:
            `--shards '{class_path: multimodal.shards.RemoteShards, init_args: {url: "s3://bucket/set", cache: /scratch/cache}}'`.
        name: of the column, made in `<shards>/columns/<name>`.
        unit: pair, one row from the main text of each pair (the first); text, one row from each of its texts.
        dtype: of the rows on disk.
        max_bad_share: fail where more than this share of the texts holds no word that the space knows.
    """
    opened, source = open_space(space), open_shards(shards)
    made_from = {"text-space": opened.fingerprint}
    if (space / VOCABULARY).is_file():
        made_from["vocabulary"] = fingerprint_file(space / VOCABULARY)
    folder = column_path(source, name)
    with (
        ColumnWriter(source, name, opened.dim, unit, dtype, {"family": opened.family}, made_from) as writer,
        Ledger(folder / "bad.csv", max_bad_share) as ledger,
    ):
        if isinstance(opened, NamesDimensions):
            writer.name_dimensions(opened.top_words(_WORDS_A_DIMENSION))
        missing = writer.missing()
        for shard in missing:
            texts = [_texts(source, id, unit) for id in shard.ids]
            rows = _rows(opened, [text for of_pair in texts for text in of_pair], f"{name} of shard {shard.name}")
            writer.write(shard, rows, np.array([len(of_pair) for of_pair in texts]) if unit == "text" else None)
        if not missing:
            print(f"{folder}: is there already", file=sys.stderr)
        for shard in source.shards:
            _judge(source, shard, unit, folder, ledger)
    return folder


def _texts(source: ShardSet, id: int, unit: str) -> tuple[str, ...]:
    texts = source.texts(id)
    return texts[:1] if unit == "pair" else texts


def _rows(space: TextSpace, texts: Sequence[str], label: str) -> np.ndarray:
    """(n, d) float32, NaN where the space knows no word."""
    rows = np.empty((len(texts), space.dim), np.float32)
    for start in track(range(0, len(texts), _TEXTS_AT_ONCE), label, unit="text", total=len(texts), weight=_TEXTS_AT_ONCE):
        rows[start : start + _TEXTS_AT_ONCE] = space.embed(texts[start : start + _TEXTS_AT_ONCE])
    rows[~rows.any(axis=1)] = np.nan
    return rows


def _judge(source: ShardSet, shard: Shard, unit: str, folder: Path, ledger: Ledger) -> None:
    """Read from the finished rows which texts are unknown, so that the ledger is whole after a job that was stopped, too."""
    lost = np.isnan(read_array(folder / f"{shard.name}{ROWS}", mapped=True)[:, 0])
    ledger.good(int((~lost).sum()))
    if not lost.any():
        return
    row = 0
    for id in shard.ids:
        for text in _texts(source, id, unit):
            if lost[row]:
                shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."
                ledger.bad(shard.name, source.key(id), f"the space knows no word of {shown!r}")
            row += 1
