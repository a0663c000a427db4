"""Index tars from other programs (img2dataset, a WebDataset from the hub), to read them by id without rewriting them.

index_tars(Path("laion/"), output=Path("laion-index/"))
ShardSet("laion/", index="laion-index/")
index_tars("s3://bucket/cc12m/{00000..01242}.tar")     # into the cache, where open_set("s3://bucket/cc12m") finds it
"""

from __future__ import annotations

import sys
from pathlib import Path

from multimodal.boxes import Manifest, is_whole, read_manifest, write_manifest
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.shards.format import TAR
from multimodal.shards.ledger import Ledger
from multimodal.shards.remote import RemoteShards
from multimodal.shards.scan import scan_tar
from multimodal.shards.streamed import is_pattern, open_tar, tars_of
from multimodal.shards.table import INDEX, IndexTable, make_table, merge, write_table
from multimodal.shards.writer import shards_manifest, with_index
from multimodal.urls import is_url

INDEXED = {"indexed": True}


def index_tars(path: str | Path, output: Path | None = None, max_bad_share: float = 0.05, cache: Path | None = None) -> Manifest:
    """Write `index.arrow` and `manifest.json` for the tars in a folder, and `bad.csv` if pairs had to be left out.

    Reads every tar once, headers and texts to find the pairs and the whole file for its fingerprint. Of a tar at a URL nothing is kept.

    path: the folder of the tars, a URL, or a pattern of tars (`streamed.tars_of`) in one place; each picture needs a text beside it,
    `<key>.txt`, or a caption in `<key>.json`.
    output: folder for the index, if the folder of the tars is read-only; `ShardSet(path, index=output)` then reads it. By default that of
    the tars; for a URL, the set's folder in the cache, where every command finds it that is given the URL and the cache.
    max_bad_share: fail if a larger share of the pairs has no text, no picture, or is cut off.
    For a set of ours it rebuilds a lost index and keeps the manifest's config.
    """
    tars = _tars(path)
    place = place_of(path)
    output = folder_of_index(place, cache) if output is None else Path(output)
    config = read_manifest(Path(place), kind="shards").config if not is_url(place) and is_whole(Path(place)) else INDEXED
    tables: dict[str, IndexTable] = {}
    num_passed_over = 0
    with Ledger(output / "bad.csv", max_bad_share) as ledger:
        for where in track(tars, f"indexing {place.rstrip('/').rpartition('/')[2]}", unit="shard"):
            tar = open_tar(where)
            scan = scan_tar(tar)
            for entry in scan.bad:
                ledger.bad(entry.where, entry.key, entry.reason)
            ledger.good(len(scan.rows))
            num_passed_over += len(scan.passed_over)
            tables[tar.name.removesuffix(TAR)] = make_table(scan.rows, tar.size_bytes, tar.fingerprint())
    if num_passed_over:
        print(f"{place}: {num_passed_over} members of the system (__MACOSX, @eaDir, ._*) are skipped", file=sys.stderr)
    manifest = shards_manifest(tables.items(), config)
    manifest = with_index(manifest, write_table(output / INDEX, merge(tables.values())))
    write_manifest(output, manifest)
    return manifest


def folder_of_index(place: str, cache: Path | None = None) -> Path:
    """The folder for the index of the tars in a folder or at a URL, where commands look for it."""
    if not is_url(place):
        return Path(place)
    return (RemoteShards(place) if cache is None else RemoteShards(place, cache)).folder


def _tars(path: str | Path) -> list[str]:
    """The tars of a folder, a URL or a pattern, by ascending name."""
    if is_pattern(path):
        return sorted(set(tars_of(path)))
    if not is_url(path):
        found = sorted(map(str, Path(path).glob(f"*{TAR}")))
        if not found:
            raise InputError(f"{path}: holds no .tar" if Path(path).is_dir() else f"{path}: is not a folder. Give the folder with the tars")
        return found
    remote = RemoteShards(str(path))
    names = sorted(name for name in remote.transport.files(remote.url) if name.endswith(TAR))
    if not names:
        raise InputError(f"{path}: no .tar is listed there. Name them by a pattern: {remote.url_of('{00000..00042}.tar')}")
    return [remote.url_of(name) for name in names]


def place_of(path: str | Path) -> str:
    """The folder or URL that holds the tars of a folder, a URL or a pattern."""
    if not is_pattern(path):
        return str(path)
    folders = sorted({tar.rpartition("/")[0] or "." for tar in tars_of(path)})
    if len(folders) > 1:
        raise InputError(f"{path}: names tars in {len(folders)} folders, {folders[0]} and others. An index is of one folder: index each")
    return folders[0]
