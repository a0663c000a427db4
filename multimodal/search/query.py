"""From a query in words to hits, in Python and as the verb `multimodal search`.

multimodal search --store runs/demo/wordvec/store "woman + scientist - man"
search(Store("runs/demo/wordvec/store"), "2*beach - people", k=20)
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import read_manifest, write_output
from multimodal.errors import InputError, missing_extra
from multimodal.pairs import Hit
from multimodal.printable import json_text, printable
from multimodal.search.algebra import QueryVector, combine, describe_unknown
from multimodal.search.grammar import Expression, parse
from multimodal.search.segments import unit_rows
from multimodal.search.store import Store

ImageEncoder = Callable[[Sequence[Path]], np.ndarray]
"""Paths of p pictures -> (p, d) float32, in the space of the store's rows."""

MAX_DIGITS = 30
"""Of an id in a query; 64 bits have 19, and Python converts no more than 4,300."""
SCORE_DECIMALS = 6  # float16 rows carry three or four; at six, what should tie ties


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a query found, and what it was understood to mean."""

    expression: Expression
    query: QueryVector
    hits: list[Hit]

    @property
    def notes(self) -> str:
        """What a person has to know beside the hits, "" where there is nothing: words that are unknown, terms that were left out for it."""
        left_out = ", ".join(term.label for term in self.query.left_out)
        lines = [f"not known to the text space: {', '.join(self.query.unknown)}"] if self.query.unknown else []
        lines += [f"left out: {left_out}. The other terms keep their weights"] if left_out else []
        return "\n".join([*lines, *filter(None, [describe_unknown(self.query.unknown)])])


def search(
    store: Store, query: str, k: int = 10, image_encoder: ImageEncoder | None = None, where: Mapping[str, Any] | None = None
) -> list[Hit]:
    """The k pictures nearest to a query, best first; see `multimodal.search.grammar` for how a query is written.

    image_encoder: what `image:<path>` goes through; `image:<id>` needs none. where: column -> value or values that a hit must have.
    Words that the text space does not know are left out and warned about; `answer` gives them as data.
    InputError: the query does not parse, nothing in it is known, its terms cancel, an id or a column is not there.
    """
    found = answer(store, query, k, image_encoder, where)
    if found.notes:
        warnings.warn(found.notes, stacklevel=2)
    return found.hits


def answer(
    store: Store, query: str, k: int = 10, image_encoder: ImageEncoder | None = None, where: Mapping[str, Any] | None = None
) -> Answer:
    """As `search`, with the query's vector and the unknown words beside the hits."""
    if k < 1:
        raise InputError(f"k = {k}; at least 1 hit is wanted")
    expression = parse(query)
    named = {term.content: _id_of(term.content) for term in expression.terms if term.kind == "image" and is_id(term.content)}
    paths = [term.content for term in expression.terms if term.kind == "image" and term.content not in named]
    images = dict(zip(named, store.take(list(named.values())), strict=True)) | _encode(store, paths, image_encoder)
    vector = combine(expression, store.query_space, images)
    return Answer(expression, vector, _hits(store, vector, k, set(named.values()), where))


def search_verb(
    query: str,
    store: Path,
    k: int = 10,
    why: bool = False,
    where: list[str] | None = None,
    json: bool = False,
    html: Path | None = None,
    export: Path | None = None,
    trust: Sequence[str] = (),
) -> None:
    """Search a store of pictures in words, with arithmetic.

    multimodal search --store S "red dress"                           words side by side are one phrase
    multimodal search --store S "woman + scientist - man"             add and take away
    multimodal search --store S "2*beach - 0.5*people"                weights stand in front
    multimodal search --store S "2*(dog + ball) - t-shirt"            and distribute; a hyphen inside a word is no minus
    multimodal search --store S '"rock + roll" + guitar'              quotes for a phrase with signs in it
    multimodal search --store S "image:17 + snow"                     from a picture of the store, by its id
    multimodal search --store S "image:me.jpg - hat" --export E       from a picture of yours; a file named by digits is image:./17

    A word that the store's text space does not know is named on stderr with near spellings and left out;
    the other terms keep their weights.

    Args:
        query: what to look for, see above.
        store: the store's folder.
        k: how many pictures.
        why: print what each term adds to a picture's score.
        where: only pictures whose metadata has these values, as column=value; several values of one column mean any of them.
        json: print one JSON object instead of a table.
        html: also write the hits as pictures into this file, one page with everything inside.
        export: the export that the store was made from; image:<path> needs its image tower.
        trust: your own package, or packages, whose classes the store or the export names. Their code is run; without this nothing is
            imported because a folder names it. Give it behind the query, or as --trust=mypackage.
    """
    opened = Store(store, trust=trust)
    encoder = None if export is None else _lazy_encoder(opened, export)
    found = answer(opened, query, k, encoder, _conditions(opened, where or []))
    if found.notes:
        print(printable(found.notes), file=sys.stderr)
    if not found.hits:
        print(f"{store}: no picture to show; {len(opened):,} in the store", file=sys.stderr)
    if json:
        print(as_json(query, found))
    else:
        print(printable(_as_table(found.hits, why)), end="")
    if html is not None:
        from multimodal.search.page import render

        with write_output(html) as file:
            file.write(render(query, found, opened.thumbnails([hit.id for hit in found.hits])).encode())
        print(f"wrote {html}", file=sys.stderr)


def is_id(content: str) -> bool:
    """Whether `image:<content>` names a picture of the store; else it names a file."""
    return content.isascii() and content.isdigit()


def _id_of(content: str) -> int:
    if len(content) > MAX_DIGITS:
        raise InputError(f"image:{content[:MAX_DIGITS]}...: no picture has an id of {len(content):,} digits")
    return int(content)


def _file_of(path: str) -> Path | None:
    """The picture file that a query names, or None if no such file exists."""
    try:
        file = Path(path).expanduser()  # RuntimeError: the home of somebody whom the machine does not know
        return file if file.is_file() else None
    except (RuntimeError, ValueError, OSError):  # a name that holds NUL, is longer than the system takes, or may not be looked at
        return None


def _encode(store: Store, paths: Sequence[str], image_encoder: ImageEncoder | None) -> dict[str, np.ndarray]:
    """Content of each `image:<path>` term -> its vector (d,)."""
    if not paths:
        return {}
    files = [_file_of(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if file is None:
            raise InputError(
                f"image:{path} is no id of the store and no file. Ids are whole numbers; quote a path that has spaces or signs in it"
            )
    if image_encoder is None:
        raise InputError(
            f"image:{paths[0]} needs the image tower that the store was made with, and a store has none. Add --export <folder>"
        )
    vectors = np.asarray(image_encoder([file for file in files if file is not None]))
    if vectors.shape != (len(paths), store.dim):
        raise InputError(f"the image encoder gave shape {vectors.shape}; this store wants ({len(paths)}, {store.dim})")
    for path, vector in zip(paths, vectors, strict=True):
        if not (np.isfinite(vector).all() and vector.any()):
            raise InputError(f"image:{path}: the image encoder's vector is zero or not finite")
    return dict(zip(paths, vectors, strict=True))


def _hits(store: Store, query: QueryVector, k: int, named: set[int], where: Mapping[str, Any] | None) -> list[Hit]:
    """Ordered by score at `SCORE_DECIMALS`; among equals the pictures that the query names come first, then the smaller id."""
    engine = store.engine
    if where:
        allowed = store.select(where)
        engine, named = engine.filter(allowed), named & set(allowed.tolist())
    wanted = k
    while True:  # until what is left out is clearly worse than the k-th hit, so that k hits are the first k of any longer list
        wanted = min(wanted + 16, max(len(engine), 1))
        found = engine.search(query.vector[None], wanted)
        ids = np.union1d(found.ids[0], sorted(named)).astype(np.int64)
        if not len(ids):
            return []
        rows = unit_rows(store.take(ids), ids).astype(np.float64)
        # a sum a row, not a matrix product: BLAS rounds a row by where it is among the others, and a filter changes that
        parts = np.stack([(rows * part).sum(axis=1) for part in query.parts], axis=1)  # (candidates, t)
        scores = np.round(parts.sum(axis=1), SCORE_DECIMALS) + 0.0  # + 0.0: no -0.0
        order = np.lexsort((ids, ~np.isin(ids, sorted(named)), -scores))[:k]
        if wanted >= len(engine) or found.scores[0, -1] < scores[order[-1]] - 2 * 10**-SCORE_DECIMALS:
            break
        wanted *= 2
    labels = [term.label for term in query.used]
    records = store.records(ids[order])
    return [
        Hit(int(ids[at]), float(scores[at]), record["name"], record["text"], dict(zip(labels, parts[at].tolist(), strict=True)))
        for at, record in zip(order.tolist(), records, strict=True)
    ]


def _lazy_encoder(store: Store, export: Path) -> ImageEncoder:
    """The export's image tower, loaded at the first picture; InputError when it is not the export that the store was made from."""
    found, wanted = read_manifest(export, kind="export").fingerprint, store.manifest.made_from["export"]
    if found != wanted:
        raise InputError(
            f"{export}: this export is {found[:12]} and {store.path} was made from {wanted[:12]}. Their vectors do not compare"
        )

    def encode(paths: Sequence[Path]) -> np.ndarray:
        try:
            from multimodal.export.model import load_export
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("multimodal"):
                raise
            raise missing_extra("train", f"image:<path> runs the image tower, which needs {error.name}") from None
        return load_export(export, trust=store.trust).embed_image_files(paths)

    return encode


def _conditions(store: Store, where: Sequence[str]) -> dict[str, list[Any]]:
    """`column=value` texts as a filter. A value is compared as the column writes it, so 7 finds the integer 7."""
    conditions: dict[str, list[Any]] = {}
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise InputError(f"--where {condition}: wanted column=value; columns are {', '.join(store.columns)}")
        conditions.setdefault(name, []).append(value)
    return {name: [value for value in set(store.column(name)) if str(value) in wanted] for name, wanted in conditions.items()}


def _as_table(hits: Sequence[Hit], why: bool) -> str:
    """rank, score, id, name, text; with why, a line a hit below it."""
    id_width = max([2, *(len(str(hit.id)) for hit in hits)])
    name_width = max([4, *(len(hit.name) for hit in hits)])
    lines = []
    for rank, hit in enumerate(hits, start=1):
        lines.append(f"{rank:>4}  {hit.score:+.4f}  {hit.id:>{id_width}}  {hit.name:<{name_width}}  {' '.join(hit.text.split())}")
        if why:
            lines.append(" " * 14 + "  ".join(f"{label} {value:+.4f}" for label, value in hit.why.items()))
    return "".join(line.rstrip() + "\n" for line in lines)


def as_json(query: str, found: Answer) -> str:
    """One JSON object: query, means, unknown, left_out, hits."""
    hits = [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(found.hits, start=1)]
    left_out = [term.label for term in found.query.left_out]
    whole = {"query": query, "means": str(found.expression), "unknown": dict(found.query.unknown), "left_out": left_out, "hits": hits}
    return json_text(whole, indent=1)
