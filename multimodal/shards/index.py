"""Make tars that somebody else wrote (img2dataset, a WebDataset from the hub) readable by id, without rewriting them.

index_tars(Path("laion/"), output=Path("laion-index/"))
ShardSet("laion/", index="laion-index/")
"""

from __future__ import annotations

import sys
from pathlib import Path

from multimodal.boxes import Manifest, fingerprint_file, is_whole, read_manifest, write_manifest
from multimodal.errors import InputError
from multimodal.progress import track
from multimodal.shards.format import TAR
from multimodal.shards.ledger import Ledger
from multimodal.shards.scan import scan_tar
from multimodal.shards.table import INDEX, IndexTable, make_table, merge, write_table
from multimodal.shards.writer import shards_manifest, with_index


def index_tars(path: Path, output: Path | None = None, max_bad_share: float = 0.05) -> Manifest:
    """Write `index.arrow` and `manifest.json` for the tars in a folder, and `bad.csv` where pairs had to be left out.

    Reads every tar once, headers and texts to find the pairs and the whole file for its fingerprint.

    path: the folder of the tars; each picture needs a text beside it, `<key>.txt`, or a caption in `<key>.json`.
    output: where the index goes where the folder itself cannot be written; `ShardSet(path, index=output)` then reads it.
    max_bad_share: fail where a larger share of the pairs has no text, no picture, or is cut off.
    Of a set of ours it makes the lost index again and keeps the manifest's config.
    """
    path = Path(path)
    output = Path(path if output is None else output)
    tars = sorted(path.glob(f"*{TAR}"))
    if not tars:
        raise InputError(f"{path}: holds no .tar" if path.is_dir() else f"{path}: is no folder. Give the folder that holds the tars")
    config = read_manifest(path, kind="shards").config if is_whole(path) else {"indexed": True}
    tables: dict[str, IndexTable] = {}
    num_passed_over = 0
    with Ledger(output / "bad.csv", max_bad_share) as ledger:
        for tar in track(tars, f"indexing {path.name}", unit="shard"):
            scan = scan_tar(tar)
            for entry in scan.bad:
                ledger.bad(entry.where, entry.key, entry.reason)
            ledger.good(len(scan.rows))
            num_passed_over += len(scan.passed_over)
            tables[tar.name.removesuffix(TAR)] = make_table(scan.rows, tar.stat().st_size, fingerprint_file(tar))
    if num_passed_over:
        print(f"{path}: {num_passed_over} members that a system left behind (__MACOSX, @eaDir, ._*) are passed over", file=sys.stderr)
    manifest = shards_manifest(tables.items(), config)
    manifest = with_index(manifest, write_table(output / INDEX, merge(tables.values())))
    write_manifest(output, manifest)
    return manifest
