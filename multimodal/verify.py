"""`multimodal verify`: read every byte of a box of any kind again, and compare it with what its manifest says.

multimodal verify runs/demo/wordvec/store
multimodal verify spaces/lda40 --json

What is opened without a look at each byte, because it is large (rows of a store or a column, word vectors, tars), is looked at here.
Nothing is computed and nothing of torch is loaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from multimodal.boxes import KINDS, MANIFEST, Manifest, box_file, check_parts, fingerprint_file, read_any_manifest, read_manifest, reading
from multimodal.errors import InputError
from multimodal.export.card import read_card
from multimodal.printable import json_text, printable
from multimodal.progress import track
from multimodal.search.segments import fingerprint_segment
from multimodal.search.store import QUERY, Store, is_segment
from multimodal.shards import Column, ShardSet
from multimodal.shards.ledger import Bad
from multimodal.shards.verify import column_problems, find_problems
from multimodal.text import open_space

NUM_PROBLEMS_SHOWN = 20
NO_HASHES = {"run": "a run keeps no hashes: its config and figures were read, and its checkpoints by the sums that they carry themselves"}
"""Kind -> what is not checked of it."""


def verify(path: Path, json: bool = False, trust: Sequence[str] = ()) -> None:
    """Check a shard set, text space, column, run, export or store: all that it holds is there, whole, and what was written.

    A store's and an export's text space are checked with them. Fails where anything is broken, and names it. A shard set at a URL is
    checked by: multimodal shards verify

    Args:
        path: the folder of the box.
        json: print {"kind", "path", "problems": [{"where", "key", "reason"}]} instead of lines.
        trust: your own package, or packages, whose classes the box names, so that they are opened as well. Their code is run.
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
    if problems:
        raise InputError(f"{path} is broken in {_places(problems)}: {problems[0]}. Restore it, or make it again with: {KINDS[kind][1]}")


def problems_of(path: Path, trust: Sequence[str] = ()) -> Iterator[Bad]:
    """All that is missing, damaged or changed in a box, by file. InputError where it is no box of a kind that is known.

    trust: packages whose classes it may name. A text space of another class is compared with its hashes, and not opened.
    """
    manifest = read_any_manifest(path)
    check = _CHECKS.get(manifest.kind)
    if check is None:
        raise InputError(f"{path}: is a {manifest.kind}, and what can be verified is: {', '.join(_CHECKS)}")
    try:
        yield from check(Path(path), manifest, trust)
    except InputError as error:  # it cannot even be opened: that is what is wrong with it
        yield Bad(str(path), "", str(error).removeprefix(f"{path}: "))


def _shards(path: Path, _: Manifest, __: Sequence[str]) -> Iterator[Bad]:
    yield from find_problems(ShardSet(path))


def _column(path: Path, _: Manifest, __: Sequence[str]) -> Iterator[Bad]:
    yield from column_problems(Column(path))


def _text_space(path: Path, manifest: Manifest, trust: Sequence[str]) -> Iterator[Bad]:
    named = str(manifest.config.get("class"))
    if named.startswith("multimodal.") or named.partition(".")[0] in {package.partition(".")[0] for package in trust}:
        open_space(path, trust)
    yield from _changed(path, manifest)


def _export(path: Path, manifest: Manifest, trust: Sequence[str]) -> Iterator[Bad]:
    card = read_card(path)
    if not manifest.parts:
        yield Bad(MANIFEST, "", "lists no weights")
    yield from _changed(path, manifest)
    yield from _query_side(path, card.query_fingerprint, trust)


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
    yield from _query_side(path, manifest.made_from[QUERY], trust)


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
    """The text space of an export or a store, which is to be the one that it was made with."""
    query = box_file(path, QUERY)
    found = read_manifest(query, kind="text-space").fingerprint
    if found != fingerprint:
        yield Bad(QUERY, "", f"is the text space {found[:12]}, and {fingerprint[:12]} is wanted")
    for problem in problems_of(query, trust):
        yield Bad(f"{QUERY}/{problem.where}", problem.key, problem.reason)


def _changed(path: Path, manifest: Manifest) -> Iterator[Bad]:
    """The files that the manifest lists and that are missing, or have other content."""
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
}
