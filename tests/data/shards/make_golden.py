"""Make the golden shard set beside this file: python tests/data/shards/make_golden.py

It pins the format. Its tars and manifests change on purpose only, in a commit of their own; index files may differ in bytes between
releases of Arrow, so tests compare what they say. The pictures are 4 by 3 pixels, written once by Pillow 13.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, ShardSet, ShardWriter

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"


def golden_pairs() -> list[Pair]:
    """Every format, one and several texts, more than ASCII, an own split, metadata of each JSON type."""
    pictures = {path.suffix[1:]: path.read_bytes() for path in sorted((HERE / "pictures").iterdir())}
    metadata = {"credit": "Ü", "likes": 7, "ratio": 0.5, "tags": ["a", "b"], "where": {"lat": None}, "public": True}
    return [
        Pair("street.jpg", pictures["jpg"], "jpg", ("a wet street", "rain, at night"), group="article-1", split="train"),
        Pair("sign.png", pictures["png"], "png", ("Schild „Halt“\nzweite Zeile",), group="article-1", split="train", metadata=metadata),
        Pair("1f469-200d-1f52c.webp", pictures["webp"], "webp", ("woman scientist", "👩‍🔬"), group="scientist"),
        Pair("a.b.c.avif", pictures["avif"], "avif", ("dots in the name",), group="a.b.c", split="test"),
        Pair("sub/folder/last.jpg", pictures["jpg"], "jpg", ("last",), group="scientist"),
    ]


def write_golden(path: Path) -> ShardSet:
    """Three shards of two, two and one pair, and a column of one row a text."""
    with ShardWriter(path, pairs_per_shard=2, config={"source": "golden"}) as writer:
        for pair in golden_pairs():
            writer.write(pair)
    shards = ShardSet(path)
    with ColumnWriter(shards, "tiny", 3, "text", "float16", config={"what": "id, text, 0.5"}, made_from={"text-space": "none"}) as columns:
        for shard in columns.missing():
            rows = [[id, text, 0.5] for id in shard.ids for text in range(len(shards.texts(id)))]
            columns.write(shard, np.array(rows), np.array([len(shards.texts(id)) for id in shard.ids]))
    return shards


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    print(write_golden(GOLDEN))
