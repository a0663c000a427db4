"""Open a box by what its manifest says it is: `multimodal.open`.

    import multimodal as mm
    mm.open("shards/photos"), mm.open("runs/mine/export", device="cuda"), mm.open("runs/mine/store").search("beach - people")

Only the room of that kind is imported: a store opens without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from multimodal.boxes import KINDS, MANIFEST, read_any_manifest
from multimodal.errors import InputError, needing
from multimodal.export.hub import fetch, is_on_hub
from multimodal.urls import is_url, url_in

if TYPE_CHECKING:
    from multimodal.export.model import Export
    from multimodal.export.run import Run
    from multimodal.onnx import OnnxNetwork
    from multimodal.search.store import Store
    from multimodal.shards import Column, ShardSet
    from multimodal.text import TextSpace

    Box: TypeAlias = ShardSet | TextSpace | Column | Run | Export | Store | OnnxNetwork

NUM_SUGGESTED = 6


def open(
    path: str | Path,
    trust: Sequence[str] = (),
    device: str = "cpu",
    cache: Path | None = None,
    cache_bytes: int | None = None,
    index: Path | None = None,
) -> Box:
    """The ShardSet, TextSpace, Column, Run, Export, Store or OnnxNetwork in a folder, the set at a URL or Export at hf://user/name.

    A column that is in a shard set comes with that set (`column.shards`), and is compared with it.

    trust: your own package, or packages, whose classes the box may name. Their code is run; without trust nothing is imported because a
    folder names it. device: where an export's network computes, such as "cuda"; other boxes have none.
    cache, cache_bytes: for what is not on this machine, the folder that keeps what is fetched, and the most that tars take there; by
    default in the user's cache folder, and 20 GiB. index: of a shard set, the folder of its index, if that is elsewhere.
    InputError: there is no box, or it is not finished, damaged, or of a kind that this release does not know.
    """
    if is_on_hub(url_in(path) or path):  # hf://user/name@v1: a branch, a tag or a commit
        path = fetch(url_in(path) or path, cache)
    elif is_url(path) or url_in(path) or index is not None:
        with needing("search", f"{path}: a shard set"):
            from multimodal.shards import open_set
        return open_set(path, cache, cache_bytes, index)
    folder, trust = Path(path), (trust,) if isinstance(trust, str) else tuple(trust)
    kind = _kind(folder)
    return _OPENERS[kind](folder, trust, device)


def _kind(folder: Path) -> str:
    if folder.is_file():
        raise InputError(f"{folder}: is a file; a box is a folder with a {MANIFEST}")
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: {_absent(folder)}")
    kind = read_any_manifest(folder).kind
    if kind not in _OPENERS:
        raise InputError(f"{folder}: is a box of kind {kind!r}; this release opens {', '.join(_OPENERS)}. Was it made by a newer release?")
    return kind


def _absent(folder: Path) -> str:
    """Why a folder without a manifest is not a box, and what to do."""
    if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
        again = f"multimodal fit --config {folder / 'config.yaml'} --run {folder}"
        return f"is a run that was not finished. To resume it: {again}"
    if any(folder.glob("*.tar")):
        with needing("search", f"{folder}: a shard set"):
            from multimodal.shards import ShardSet
        ShardSet(folder)  # reports which: unfinished, or tars of others without an index
    if any((folder / name).is_file() for name in ("unfinished.json", "unfinished.npz", "weights.safetensors")):
        return f"the command that makes this box has not finished: there is no {MANIFEST}. Run it again"
    inside = [path.parent for depth in ("*", "*/*") for path in islice(folder.glob(f"{depth}/{MANIFEST}"), NUM_SUGGESTED)]
    found = [f"{box} ({KINDS.get(read_any_manifest(box).kind, ('',))[0] or 'a box'})" for box in inside[:NUM_SUGGESTED]]
    return f"is not a box: it has no {MANIFEST}" + (f". Boxes in it: {', '.join(found)}" if found else ", and no folder in it has one")


def _shards(folder: Path, trust: Sequence[str], device: str) -> ShardSet:
    with needing("search", f"{folder}: a shard set"):
        from multimodal.shards import ShardSet
    return ShardSet(folder)


def _space(folder: Path, trust: Sequence[str], device: str) -> TextSpace:
    with needing("search", f"{folder}: a text space"):
        from multimodal.text import open_space
    return open_space(folder, trust)


def _column(folder: Path, trust: Sequence[str], device: str) -> Column:
    with needing("search", f"{folder}: a column"):
        from multimodal.shards import Column, ShardSet
    index = (folder if len(folder.parts) > 2 else folder.absolute()).parent.parent
    if (index / MANIFEST).is_file() and read_any_manifest(index).kind == "shards":
        return Column.of(ShardSet(index), folder.name)
    return Column(folder)


def _run(folder: Path, trust: Sequence[str], device: str) -> Run:
    from multimodal.export.run import Run

    return Run(folder)


def _export(folder: Path, trust: Sequence[str], device: str) -> Export:
    with needing("train", f"{folder}: the network of an export"):
        from multimodal.export.model import load_export
    return load_export(folder, device, trust)


def _store(folder: Path, trust: Sequence[str], device: str) -> Store:
    with needing("search", f"{folder}: a store"):
        from multimodal.search.store import Store
    return Store(folder, trust=trust)


def _onnx(folder: Path, trust: Sequence[str], device: str) -> OnnxNetwork:
    with needing("search", f"{folder}: a network as ONNX"):
        import onnxruntime  # noqa: F401
    from multimodal.onnx import OnnxNetwork

    return OnnxNetwork(folder, {})


_OPENERS: dict[str, Callable[[Path, Sequence[str], str], Box]] = {
    "shards": _shards,
    "text-space": _space,
    "column": _column,
    "run": _run,
    "export": _export,
    "store": _store,
    "onnx": _onnx,
}
