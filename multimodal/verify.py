"""`multimodal verify`: read every byte of a box of any kind again, and compare it with its manifest.

multimodal verify runs/demo/wordvec/store
multimodal verify spaces/lda40 --json
multimodal store verify stores/photos

Large files (rows of a store or a column, word vectors, tars) are opened without reading every byte; here every byte is read.
Nothing is computed, and torch is not loaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from multimodal.boxes import (
    KINDS,
    MANIFEST,
    Manifest,
    box_file,
    check_parts,
    fingerprint_file,
    is_whole,
    read_any_manifest,
    read_manifest,
    reading,
)
from multimodal.doors.printable import json_text, printable
from multimodal.errors import InputError
from multimodal.export.card import read_card
from multimodal.machine.progress import track
from multimodal.onnx import FOLDER, KIND, OnnxNetwork, describe_networks
from multimodal.onnx.safety import check_graph
from multimodal.search.folders import left_out
from multimodal.search.fusion import make_fusion
from multimodal.search.generation import LEFT_OUT, QUERY, is_fusion, is_index, is_map, is_segment
from multimodal.search.kept import index_fingerprint
from multimodal.search.segments import fingerprint_segment
from multimodal.search.store import Store
from multimodal.shards import Column, ShardSet
from multimodal.shards.ledger import Bad
from multimodal.shards.verify import column_problems, find_problems
from multimodal.text import open_space
from multimodal.text.joined import SPACES
from multimodal.text.projected import SPACE

NUM_PROBLEMS_SHOWN = 20
NO_HASHES = {"run": "a run keeps no hashes: its config and figures were read, and its checkpoints by the sums that they carry themselves"}
"""Kind -> what is not checked."""


def verify(path: Path, json: bool = False, trust: Sequence[str] = ()) -> None:
    """Check a shard set, text space, column, run, export, store or ONNX: every file exists, is complete, and is as it was written.

    The text space in a store or export is checked too. Fails if anything is broken, and names it. A shard set at a URL is
    checked by: multimodal shards verify

    Args:
        path: the folder of the box.
        json: print {"kind", "path", "problems": [{"where", "key", "reason"}]} instead of lines.
        trust: your own package, or packages, whose classes the box names, so that they are opened too. Their code is run.
    """
    kind = read_any_manifest(path).kind
    problems = list(problems_of(path, trust))
    if json:
        found = {"kind": kind, "path": str(path), "problems": [asdict(problem) for problem in problems]}
        print(json_text(found, indent=1))
    else:
        state = f"broken in {_places(problems)}" if problems else "all well"
        print(f"{path}: {KINDS[kind][0]}, {_size(path):,} bytes: {state}")
        for problem in problems[:NUM_PROBLEMS_SHOWN]:
            print(printable(f"  {problem}"))
        if kind in NO_HASHES:
            print(f"  ({NO_HASHES[kind]})")
        for line in [] if problems else describe_networks(path):
            print(printable(f"  {line}"))
    if problems:
        raise InputError(f"{path} is broken in {_places(problems)}: {problems[0]}. Restore it, or make it again with: {KINDS[kind][1]}")


def problems_of(path: Path, trust: Sequence[str] = ()) -> Iterator[Bad]:
    """Everything missing, damaged or changed in a box, by file. InputError if it is not a box of a known kind.

    trust: packages whose classes it may name. A text space of another class is compared with its hashes, and not opened.
    """
    manifest = read_any_manifest(path)
    check = _CHECKS.get(manifest.kind)
    if check is None:
        raise InputError(f"{path}: is a {manifest.kind}; boxes that can be verified are: {', '.join(_CHECKS)}")
    try:
        yield from check(Path(path), manifest, trust)
    except InputError as error:  # it cannot even be opened: that is the problem
        yield Bad(str(path), "", str(error).removeprefix(f"{path}: "))


def _shards(path: Path, _: Manifest, __: Sequence[str]) -> Iterator[Bad]:
    yield from find_problems(ShardSet(path))


def _column(path: Path, _: Manifest, __: Sequence[str]) -> Iterator[Bad]:
    yield from column_problems(Column(path))


def _text_space(path: Path, manifest: Manifest, trust: Sequence[str]) -> Iterator[Bad]:
    if {named.partition(".")[0] for named in _classes(path)} <= {"multimodal", *(package.partition(".")[0] for package in trust)}:
        open_space(path, trust)
    yield from _changed(path, manifest)
    for place in _below(path):
        for problem in problems_of(box_file(path, place), trust):
            yield Bad(f"{place}/{problem.where}", problem.key, problem.reason)
    yield from _network(path, {"text-space": manifest.fingerprint})


def _below(path: Path) -> list[str]:
    """The places of the spaces that a projected or a joined space contains; they may have any class."""
    joined = box_file(path, SPACES)
    places = [SPACE, *(sorted(f"{SPACES}/{one.name}" for one in joined.iterdir()) if joined.is_dir() else [])]
    return [place for place in places if box_file(path, place).is_dir()]


def _classes(path: Path) -> Iterator[str]:
    yield str(read_manifest(path, "text-space").config.get("class"))
    for place in _below(path):
        yield from _classes(box_file(path, place))


def _export(path: Path, manifest: Manifest, trust: Sequence[str]) -> Iterator[Bad]:
    card = read_card(path)
    if not manifest.parts:
        yield Bad(MANIFEST, "", "lists no weights")
    yield from _changed(path, manifest)
    yield from _query_side(path, card.query_fingerprint, trust)
    yield from _network(path, {"export": manifest.fingerprint})


def _network(path: Path, made_from: Mapping[str, str]) -> Iterator[Bad]:
    """Check the ONNX in a box, if it has any."""
    folder = box_file(path, FOLDER)
    if not is_whole(folder):
        return
    try:
        OnnxNetwork(folder, made_from)
    except InputError as error:
        yield Bad(FOLDER, "", str(error).removeprefix(f"{folder}: "))
        return
    for problem in _onnx(folder, read_manifest(folder, KIND), ()):
        yield Bad(f"{FOLDER}/{problem.where}", problem.key, problem.reason)


def _onnx(path: Path, manifest: Manifest, _: Sequence[str]) -> Iterator[Bad]:
    network = OnnxNetwork(path, manifest.made_from)
    check_graph(network.graph)
    yield from _changed(path, manifest)


def _store(path: Path, manifest: Manifest, trust: Sequence[str]) -> Iterator[Bad]:
    store = Store(path)
    for segment in track(store.segments, f"verifying {path.name}", unit="segment"):
        name = f"segments/{segment.folder.name}"
        if fingerprint_segment(segment.folder) != manifest.parts[name]["fingerprint"]:
            yield Bad(name, "", "its files are not those that were written")
            continue
        for read in (segment.rows, segment.metadata):
            try:
                read()
            except InputError as error:
                yield Bad(name, "", str(error))
    rows = sum(facts["rows"] for part, facts in manifest.parts.items() if is_segment(part))
    if (len(store), rows - len(store)) != (manifest.counts["rows"], manifest.counts["deleted"]):
        yield Bad(MANIFEST, "", f"says {manifest.counts['rows']} pictures, and there are {len(store)}")
    for name, facts in manifest.parts.items():
        if is_index(name) and index_fingerprint(box_file(path, name), facts) != facts["fingerprint"]:
            yield Bad(name, "", f"its files are not those that were written. Run: multimodal store build-index {path} --anew")
        if is_map(name):
            try:
                _ = store.map
            except InputError as error:
                yield Bad(name, "", str(error).removeprefix(f"{box_file(path, name, may_link=True)}: "))
    try:
        left_out(store)
    except InputError as error:
        yield Bad(LEFT_OUT.rstrip("/"), "", str(error))
    if store.fitted is not None:
        yield from _combining(store, manifest, trust)
    yield from _query_side(path, manifest.made_from[QUERY], trust)


def _combining(store: Store, manifest: Manifest, trust: Sequence[str]) -> Iterator[Bad]:
    """Check the calibration of a store and its way to combine terms; one of another package is only made if that is trusted."""
    name = next(part for part in manifest.parts if is_fusion(part))
    described = {key: manifest.parts[name][key] for key in ("class_path", "init_args")}
    try:
        _ = store.calibration
        package, dot, _ = described["class_path"].partition(".")
        if not (package.isidentifier() and dot) or package in {"multimodal", *(one.partition(".")[0] for one in trust)}:
            make_fusion(described, store.path, trust)
    except InputError as error:
        yield Bad(name, "", str(error).removeprefix(f"{box_file(store.path, name, may_link=True)}: "))


def _run(path: Path, _: Manifest, __: Sequence[str]) -> Iterator[Bad]:
    for checkpoint in sorted((path / "checkpoints").glob("*.ckpt")):
        try:
            with reading(checkpoint), zipfile.ZipFile(checkpoint) as archive:
                damaged = archive.testzip()
        except (InputError, zipfile.BadZipFile) as error:
            yield Bad(f"checkpoints/{checkpoint.name}", "", str(error))
        else:
            if damaged is not None:
                yield Bad(f"checkpoints/{checkpoint.name}", "", f"{damaged} in it is damaged")
    for name in ("config.yaml", "metrics.csv"):
        if not (path / name).is_file():
            yield Bad(name, "", "is missing")


def _query_side(path: Path, fingerprint: str, trust: Sequence[str]) -> Iterator[Bad]:
    """Check that the text space of an export or a store is the one that it was made with."""
    query = box_file(path, QUERY)
    found = read_manifest(query, kind="text-space").fingerprint
    if found != fingerprint:
        yield Bad(QUERY, "", f"expected the text space {fingerprint[:12]}, got {found[:12]}")
    for problem in problems_of(query, trust):
        yield Bad(f"{QUERY}/{problem.where}", problem.key, problem.reason)


def _changed(path: Path, manifest: Manifest) -> Iterator[Bad]:
    """Files listed in the manifest that are missing or have other content."""
    check_parts(path, manifest.parts, {"fingerprint": str})
    for name, fingerprint in {name: facts["fingerprint"] for name, facts in manifest.parts.items()}.items():
        file = box_file(path, name)
        if not file.is_file():
            yield Bad(name, "", "is missing")
        elif fingerprint_file(file) != fingerprint:
            yield Bad(name, "", "is not the file that was written")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def _places(problems: Sequence[Bad]) -> str:
    return "1 place" if len(problems) == 1 else f"{len(problems)} places"


_CHECKS: Mapping[str, Callable[[Path, Manifest, Sequence[str]], Iterator[Bad]]] = {
    "shards": _shards,
    "text-space": _text_space,
    "column": _column,
    "run": _run,
    "export": _export,
    "store": _store,
    "onnx": _onnx,
}
