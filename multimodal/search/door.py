"""The verb `multimodal search`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from multimodal.boxes import write_output
from multimodal.doors.printable import printable
from multimodal.errors import InputError
from multimodal.pairs import Hit
from multimodal.search.asking import image_encoder
from multimodal.search.choosing import BY_SCORE
from multimodal.search.query import answer, as_json, as_json_lines
from multimodal.search.store import Store


def search_verb(
    query: str,
    store: Path,
    k: int = 10,
    why: bool = False,
    where: list[str] | None = None,
    order: str = BY_SCORE,
    cut_off: float | None = None,
    fold: bool = False,
    json: bool = False,
    jsonl: bool = False,
    paths: bool = False,
    null: bool = False,
    html: Path | None = None,
    pictures: bool | Literal["kitty", "sixel", "blocks"] = False,
    export: str | Path | None = None,
    fusion: str | None = None,
    join: Sequence[str] = (),
    trust: Sequence[str] = (),
) -> None:
    """Search a store of pictures in words, with arithmetic.

    multimodal search --store S "red dress"                           adjacent words are one phrase
    multimodal search --store S "dog + beach"                         both
    multimodal search --store S "beach without people"                exclude; "beach - people" is the same
    multimodal search --store S "image:7 + woman instead of man"      swap: like picture 7, with a woman for the man
    multimodal search --store S "between summer and winter in 5"      five pictures on the way from one to the other
    multimodal search --store S "2*beach - 0.5*people"                weights come first
    multimodal search --store S "2*(dog + ball) - t-shirt"            and distribute; a hyphen inside a word is not a minus
    multimodal search --store S "near:17 + snow"                      the pictures around picture 17, as one example of what is meant
    multimodal search --store S "topic:3 + beach"                     topic number 3, in a store of topics or with one that is joined
    multimodal search --store S 'dog + export:topic:sport' --join T   a term that another store of the same pictures scores
    multimodal search --store S '"rock + roll" + guitar'              quote a phrase that has signs in it
    multimodal search --store S "image:17 + snow"                     from a picture of the store, by its id
    multimodal search --store S "image:me.jpg - hat" --export E       from your own picture; write image:./17 for a file named 17

    multimodal search --store S beach --k 200 --cut-off 0.5 --fold --order=-date --paths --null | xargs -0 cp -t FOLDER
    multimodal search --store S beach --where 'date >= 2024-06 and not path like "Screenshots/%"'
                                                                      only pictures whose columns say so; docs/queries.md has the operators

    A word that the store's text space does not know is left out and reported on stderr with near spellings;
    the other terms keep their weights.

    Args:
        query: what to look for, see above.
        store: the store's folder.
        k: how many pictures.
        why: print what each term does to a picture's score: its factor, or what it adds with --fusion sum.
        where: only pictures that meet this filter of their metadata, see above; several filters must all be met.
        order: show the hits in the order of this column, as date, name or any other; after a minus, -date, from the newest to the oldest.
            They are chosen by score, which is also the order they have without this.
        cut_off: hide the pictures that this share of random queries for something finds as good ones of. 0.5 often answers "nothing" to
            what is not there, and a smaller one more often; it means the same for each query and in each store.
        fold: show pictures that nearly equal a better one, as copies and bursts do, as "+3 like it" there.
        json: print one JSON object instead of a table.
        jsonl: print each hit as JSON on a line of its own.
        paths: print the hits' files alone, one a line, from a store of a folder of pictures.
        null: end each with NUL in place of a new line, for xargs -0.
        html: also write the hits as pictures to this file, one self-contained page.
        pictures: draw the hits' thumbnails in the terminal, above the table: as kitty's graphics or as sixels where it says that it
            can, else as coloured half blocks. After =, the way that you want.
        export: the export that the store was made from, a folder or hf://user/name; image:<path> needs its image tower.
        fusion: how terms are combined: product (a picture has to meet every term), sum (of vectors), or a class of your own by its
            path. By default as the store keeps it.
        join: another store of the same pictures, which scores terms written export:<name>:<term>. Its name is its family, or give
            NAME=STORE. Several may be given.
        trust: your own packages whose classes the store or the export names. Their code is run; without this option, nothing is
            imported because a folder names it. Give it after the query, or as --trust=mypackage.
    """
    if sum((json, jsonl, paths)) > 1 or (null and not paths):
        raise InputError("give one of --json, --jsonl and --paths; --null is for --paths")
    if pictures and (json or jsonl or paths):
        raise InputError("--pictures is for people, and --json, --jsonl and --paths are for programs: give one of them")
    if pictures and not sys.stdout.isatty():
        raise InputError("--pictures draws in a terminal, and the output goes to a file or a program. See --html for a page with pictures")
    opened = Store(store, trust=trust, once=True)
    if paths and not opened.has_files:
        raise InputError(f"{store}: its pictures came from shards, and are no files of their own, so there are no paths. See --jsonl")
    encoder = None if export is None else image_encoder(opened, export)
    joined = _joined(join, trust)
    found = answer(opened, query, k, encoder, where, fusion=fusion, joined=joined, order=order, cut_off=cut_off, fold=fold)
    if found.notes:
        print(printable(found.notes), file=sys.stderr)
    if not found.hits and not found.remark:
        meets = "meets --where (= is exact; like ignores case, and has % for any text)" if where else "is there to show"
        print(f"{store}: none of its {len(opened):,} pictures {meets}", file=sys.stderr)
    if json:
        print(as_json(query, found))
    elif jsonl:
        print(as_json_lines(found), end="")
    elif paths:
        _print_paths([hit.path for hit in found.hits if hit.path is not None], "\0" if null else "\n")
    else:
        if pictures:
            _draw(opened, found.hits, None if pictures is True else pictures)
        print(printable(_as_table(found.hits, why, "x" if found.is_product else "+")), end="")
    if html is not None:
        from multimodal.search.page import render  # imported here: the templates take a tenth of a second, and most queries want no page

        with write_output(html) as file:
            file.write(render(query, found, opened.thumbnails([hit.id for hit in found.hits])).encode())
        print(f"wrote {html}", file=sys.stderr)


def _draw(store: Store, hits: Sequence[Hit], way: Literal["kitty", "sixel", "blocks"] | None) -> None:
    """The hits' thumbnails on the terminal, in the way that is wanted or else that it says it can."""
    from multimodal.search.terminal import Tile, draw, screen_of, way_of  # imported here: Pillow takes as long as a query

    thumbnails = store.thumbnails([hit.id for hit in hits])
    tiles = [Tile(thumbnail, f"{hit.rank} {hit.text or hit.name}") for hit, thumbnail in zip(hits, thumbnails, strict=True)]
    sys.stdout.write(draw(tiles, way or way_of(sys.stdin, sys.stdout), screen_of(sys.stdout)))


def _print_paths(paths: Sequence[str], end: str) -> None:
    """As they are, for another program; on a terminal without the signs that would steer it."""
    for path in paths:
        print(printable(path) if sys.stdout.isatty() else path, end=end)


def _joined(join: Sequence[str], trust: Sequence[str]) -> dict[str, Store]:
    """Name -> store, from `STORE` or `NAME=STORE` texts."""
    joined: dict[str, Store] = {}
    for given in join:
        name, equals, path = given.partition("=")
        store = Store(path if equals else given, trust=trust, once=True)
        name = name if equals else store.family
        if name in joined:
            raise InputError(f"--join {given}: {joined[name].path} is joined as {name} already. Give names: --join NAME={store.path}")
        joined[name] = store
    return joined


def _as_table(hits: Sequence[Hit], why: bool, joint: str) -> str:
    """rank, score, id, file or name, text; with why, one more line below each hit. joint: + for terms that add, x for factors.

    A picture of a folder has its path, since cameras give the same name in every folder; no line end in it ends the row.
    """
    id_width = max([2, *(len(str(hit.id)) for hit in hits)])
    names = [hit.name if hit.path is None else hit.path.replace("\n", "\\n") for hit in hits]
    name_width = max([4, *(len(name) for name, hit in zip(names, hits, strict=True) if hit.text or hit.like)])
    lines = []
    for hit, name in zip(hits, names, strict=True):
        score = f"{hit.score:+.4f}" if joint == "+" else f"{hit.score:.4f}"
        like = f"  +{len(hit.like)} like it" if hit.like else ""
        lines.append(f"{hit.rank:>4}  {score}  {hit.id:>{id_width}}  {name:<{name_width}}  {' '.join(hit.text.split())}{like}")
        if why:
            lines.append(" " * 14 + "  ".join(f"{label} {_shown(value, joint)}" for label, value in hit.why.items()))
    return "".join(line.rstrip() + "\n" for line in lines)


def _shown(value: float, joint: str) -> str:
    return f"{value:+.4f}" if joint == "+" else f"{joint}{value:.4f}"
