"""`multimodal index` and `multimodal rescan`: pictures through an export, into a store that can be searched without them.

    multimodal index --export exports/topic --shards data/wiki --output stores/topic
    multimodal index --export exports/clip --pictures ~/Photos --output stores/photos
    multimodal rescan stores/photos

Of a shard set, there is one segment per shard: a stopped job continues at the first missing shard, and the same command indexes what was
added to a set. Of folders, see `multimodal.embed.photos`. This module loads no torch: a rescan that finds nothing new needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multimodal.errors import InputError
from multimodal.search.engine import EngineRecipe
from multimodal.search.making_map import check_map_can_be_made, store_map
from multimodal.shards.remote import SetPath
from multimodal.shards.split import Part, Split


def index_verb(
    export: str | Path,
    output: Path,
    shards: SetPath | None = None,
    pictures: Sequence[Path] = (),
    part: Part = "all",
    split: Split = Split(),  # noqa: B008 (frozen)
    column: str | None = None,
    thumbnails: bool = True,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    engine: EngineRecipe | None = None,
    template: str | None = None,
    metadata: bool | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
    views: int = 1,
    segment_size: int | None = None,
    map: bool = False,
) -> None:
    """Embed the pictures of a shard set, or of your own folders, with an export, and keep vectors, names, texts and thumbnails as a store.

    With --pictures, folders are read at any depth, and never written to: JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and, with the extra heic,
    HEIC. A name is no caption. Each picture has its path, size, EXIF date, camera and place as columns. Hidden files and folders, those of
    NAS and operating systems (@eaDir, .thumbnails, recycle bins), videos and other files are skipped; links to folders are not followed.
    Run it again, or `multimodal rescan`, for what has changed. Unreadable pictures are left out, and listed in the store's bad.csv.

      multimodal index --export exports/topic --shards data/wiki --output stores/topic
      multimodal index --export exports/clip --pictures ~/Photos --output stores/photos

    Args:
        export: the trained model that turns pictures and queries into vectors; see `multimodal export`. A folder, or hf://user/name.
        output: folder of the store; an existing store is added to if it was made from the same export.
        shards: the shard set, a folder or a URL. Ids in the store are its ids.
        pictures: instead of a shard set, folders of pictures, none of them inside another.
        part: with shards, which split to index: train, test or all.
        split: with shards, how pairs are split; by default with seed 0, and a fifth held out.
        column: with shards, a feature column made by the export's own trunk (this is checked): then only the head runs.
        thumbnails: keep a small JPEG of each picture, so that hits can be shown without the pictures.
        batch_size: pictures in one batch; by default 8 on a CPU and 256 on an accelerator.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        max_bad_share: with shards, fail if a larger share of the pictures cannot be read.
        engine: a search engine of your own, by its class path: --engine mypackage.HNSW --engine.links 16 (see
            multimodal.search.engine). The store names it, so that opening it needs --trust mypackage. By default search is exact, and
            approximate from 500,000 pictures on (multimodal.search.ivf.IvfEngine).
            `multimodal store build-index` changes it later.
        template: what a short query is embedded in, with {} in its place; by default "a photo of {}" for contrastive models, and {}
            alone for others. `multimodal evaluate arithmetic --fit` chooses it by measuring.
        metadata: with shards, keep what came with each picture beside its texts (class, date, camera, licence, split ...) as columns, for
            --where. By default a new store keeps it, and an existing one continues as it was begun.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
        trust: your own packages whose classes the export names. Their code is run; without this option, nothing is imported because a
            folder names it.
        views: how many crops of each picture to embed: the centre crop, then random ones, as in `multimodal embed`. The picture's vector is
            the mean of theirs, which finds more for as many times the work; with a column, whose views they are, for none.
        segment_size: with pictures, how many files are kept at a time, which is what a stopped job may lose; by default 1,024.
        map: place all pictures on a map at the end, by UMAP (the extra map), as `multimodal store map` does.
    """
    if (shards is None) == (not pictures):
        both = "--shards and --pictures exclude each other" if pictures else "--shards or --pictures is missing"
        raise InputError(f"{both}: give a shard set, or folders of pictures. See: multimodal index --help")
    trusted = [*trust, *([] if engine is None else [engine.package])]  # whoever names a class means it to be run
    if map:
        check_map_can_be_made()
    if shards is not None:
        if segment_size is not None:
            raise InputError("--segment-size is for --pictures: of a shard set, each shard is a segment. Leave it out")
        from multimodal.embed.stores import index

        index(
            export,
            shards,
            output,
            part=part,
            split=split,
            column=column,
            thumbnails=thumbnails,
            batch_size=batch_size,
            num_threads=num_threads,
            device=device,
            max_bad_share=max_bad_share,
            engine=engine,
            template=template,
            metadata=metadata,
            cache=cache,
            cache_bytes=cache_bytes,
            trust=trust,
            views=views,
        )
        if map:
            store_map(output, trust=trusted)
        return
    defaults = {"part": "all", "split": Split(), "max_bad_share": 0.05}
    given = {"part": part, "split": split, "column": column, "max_bad_share": max_bad_share, "metadata": metadata}
    for name, value in {**given, "cache": cache, "cache_bytes": cache_bytes}.items():
        if value != defaults.get(name):
            raise InputError(f"--{name.replace('_', '-')} is for --shards. Leave it out, or see: multimodal index --help")
    from multimodal.embed.photos import SEGMENT_SIZE, index_pictures

    index_pictures(
        export,
        pictures,
        output,
        thumbnails=thumbnails,
        batch_size=batch_size,
        num_threads=num_threads,
        device=device,
        engine=engine,
        template=template,
        trust=trust,
        views=views,
        segment_size=SEGMENT_SIZE if segment_size is None else segment_size,
    )
    if map:
        store_map(output, trust=trusted)


def rescan_verb(
    store: Path,
    export: str | None = None,
    remove_missing_folders: bool = False,
    restore: bool = False,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    template: str | None = None,
    trust: Sequence[str] = (),
    segment_size: int = 1024,
) -> None:
    """Make a store of folders (`multimodal index --pictures`) equal to them again.

    New and changed pictures are embedded, and those that are gone are removed. A picture that was moved or renamed is known by its content:
    it keeps its id and vector. A folder that is not there, or has no picture any more, keeps its pictures, since its disk may not be
    connected. Files are compared by path, size and modification time; the content decides if only the time differs.
    A running `multimodal serve` shows the result without a restart.

      multimodal rescan stores/photos

    Args:
        store: the store's folder.
        export: the export that the store was made from, if it is not where it was.
        remove_missing_folders: remove the pictures of folders that are not there.
        restore: take pictures again that were deleted by `multimodal store delete`.
        batch_size: pictures in one batch; by default 8 on a CPU and 256 on an accelerator.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        template: what a short query is embedded in, see `multimodal index`; by default as it is.
        trust: your own packages whose classes the export or the store names. Their code is run.
        segment_size: how many new files are kept at a time, which is what a stopped job may lose.
    """
    from multimodal.embed.photos import rescan

    rescan(store, export, remove_missing_folders, restore, batch_size, num_threads, device, template, trust, segment_size)
