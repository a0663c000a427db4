"""The index that a store's engine keeps: made once, added to, opened with the store, and a part of its generations.

    with StoreWriter("S") as writer: writer.build_index()      # `multimodal store build-index S`; `multimodal index` does it at its end
    Store("S").engine                                          # the index, with exact search beside it over what it does not cover

The manifest says which segments an index covers. Pictures that are added later are searched exactly beside it, deleted ones are dropped;
an index that covers a segment which is gone is refused, with the command that makes it again. A store without a kept engine has none.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from multimodal.boxes import box_file, fingerprint_file, fingerprint_json, reading
from multimodal.errors import InputError
from multimodal.machine.progress import track
from multimodal.search.calibration import frequent_words
from multimodal.search.engine import Coarse, Engine, EngineRecipe, IndexGoneError, Kept, MapsRows, Retains, Trains, Tunes
from multimodal.search.generation import is_index, is_segment, segment_name
from multimodal.search.layered import Layered, Rescored, RowNumbers, row_numbers
from multimodal.search.segments import SegmentReader, unit_rows
from multimodal.text import NoTexts

if TYPE_CHECKING:
    from multimodal.search.store import Store

MAX_DEAD_SHARE, MAX_GROWTH = 0.25, 2
"""An index is made anew if a larger share of it was deleted, or if it would have more than so many times the rows that it was made with;
not if its engine removes rows.
"""
_ROWS_AT_ONCE = 1 << 16
APPROXIMATE = EngineRecipe("multimodal.search.ivf.IvfEngine")
APPROXIMATE_FROM = 500_000
"""With so many pictures, a store that names no engine gets an approximate one at the end of `multimodal index`."""
NUM_TUNED, NUM_NEIGHBOURS = 256, 10
"""Captions that an approximate index is tuned with, beside as many words; and how many neighbours of each it is to find."""

Covered = Sequence[tuple[SegmentReader, np.ndarray]]
"""Segments, each with the positions of its live rows."""


def recipe_of(config: Mapping[str, Any]) -> EngineRecipe | None:
    """The engine that a store names in its config; None for exact search."""
    described = config.get("engine")
    return None if described is None else EngineRecipe(**described)


def recipe_for(store: Store) -> EngineRecipe | None:
    """The engine that a store names, or that it gets for its size; None for exact search."""
    named = recipe_of(store.manifest.config)
    return APPROXIMATE if named is None and len(store) >= APPROXIMATE_FROM else named


def describe_index(store: Store) -> str | None:
    """What was measured of a store's index, in a sentence; None if there are no figures."""
    found = index_part(store.manifest.parts)
    figures = {} if found is None else found[1]["figures"]
    if "recall" not in figures:
        return None
    return (
        f"search is approximate: it finds {100 * figures['recall']:.1f} % of the {figures['neighbours']} nearest pictures, by "
        f"{figures['queries']} queries in words. For exact search: multimodal store build-index {shlex.quote(str(store.path))} "
        "--engine multimodal.search.flat.FlatEngine"
    )


def index_part(parts: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]] | None:
    """The name and the facts of the index among the parts of a generation."""
    return next(((name, facts) for name, facts in parts.items() if is_index(name)), None)


def build_command(store: Store) -> str:
    """The command that makes the index of a store, with the trust that it was opened with."""
    return " ".join(["multimodal store build-index", shlex.quote(str(store.path)), *(f"--trust {package}" for package in store.trust)])


def open_engine(store: Store) -> Engine:
    """The engine over the live pictures of a store. InputError: not trusted, its index is not made yet, is stale or is damaged."""
    recipe = recipe_of(store.manifest.config)
    if recipe is None:
        return exact_engine(store.dim, store.live_positions, store.once)
    empty = recipe.make(store.dim, store.path, store.trust)
    if not isinstance(empty, Kept):
        _add(empty, store.live_positions, store.once)
        return empty
    found = index_part(store.manifest.parts)
    if found is None:
        if len(store):
            raise InputError(f"{store.path}: the index of its engine is not made yet. Run: {build_command(store)}")
        return exact_engine(store.dim, [])
    name, facts = found
    _check_is_covered(store, facts)
    covered = [(segment, live) for segment, live in store.live_positions if segment_name(segment.number) in facts["segments"]]
    others = [(segment, live) for segment, live in store.live_positions if segment_name(segment.number) not in facts["segments"]]
    numbers = RowNumbers(covered, store.once)
    try:
        index = _load(empty, box_file(store.path, name))
    except IndexGoneError as error:
        raise _gone(store, error) from None
    if len(index) < numbers.num_live:
        raise _gone(store, f"its index has {len(index):,} rows, and covers {numbers.num_live:,} pictures: some were removed from it")
    beside = exact_engine(store.dim, others, store.once)
    if isinstance(index, Coarse):
        return Layered(Rescored(index, numbers.vectors), numbers, beside, exact_engine(store.dim, store.live_positions, store.once))
    return Layered(index, numbers, beside)


def exact_engine(dim: int, segments: Covered, once: bool = False) -> Engine:
    """Exact search over the live rows of segments, at unit length in float32: float16's rounding leaves lengths off by up to 1e-3.

    once: see `FlatEngine.add_mapped`.
    """
    from multimodal.search.flat import FlatEngine  # imported here: reading a store for something else loads no kernels

    engine = FlatEngine(dim)
    _add(engine, segments, once)
    return engine


def _add(engine: Engine, segments: Covered, once: bool) -> None:
    for segment, live in segments:
        if isinstance(engine, MapsRows):
            engine.add_mapped(segment.ids[live], segment.rows(), None if len(live) == len(segment.ids) else live, once)
        else:
            engine.add(segment.ids[live], unit_rows(segment.rows()[live], segment.ids[live]))


def _check_is_covered(store: Store, facts: Mapping[str, Any]) -> None:
    parts = store.manifest.parts
    gone = [name for name, fingerprint in facts["segments"].items() if parts.get(name, {}).get("fingerprint") != fingerprint]
    if gone:
        raise InputError(
            f"{store.path}: its index was made of {gone[0]}, which is no longer in the store. Make it again: {build_command(store)}"
        )


def _gone(store: Store, why: object) -> InputError:
    return InputError(f"{store.path}: {why}. Make it again: {build_command(store)} --anew")


def _load(empty: Engine, folder: Path) -> Engine:
    assert isinstance(empty, Kept)
    if not folder.is_dir():
        raise InputError(f"{folder}: the store changed twice since it was opened, and this index is gone. Open it again")
    with reading(folder):
        return cast(Engine, empty.load(folder))


def is_needed(store: Store) -> bool:
    """Whether `StoreWriter.build_index` would change something. InputError if the engine is not trusted."""
    recipe = recipe_for(store)
    if recipe is None or not isinstance(made := recipe.make(store.dim, store.path, store.trust), Kept):
        return False
    found = index_part(store.manifest.parts)
    if found is None:
        return True
    _, facts = found
    names = {name: part["fingerprint"] for name, part in store.manifest.parts.items() if is_segment(name)}
    if facts["segments"] != names:
        return True
    dead = facts["rows"] - len(store)
    return bool(dead) if isinstance(made, Retains) else dead > MAX_DEAD_SHARE * facts["rows"]


def write_index(
    store: Store,
    recipe: EngineRecipe,
    segments: Mapping[str, str],
    live: Covered,
    folder: Path,
    anew: bool = False,
) -> dict[str, Any] | None:
    """Write the index of a coming generation into a new folder; the facts for its manifest, or None for an engine that keeps none.

    store: the generation before. segments: name -> fingerprint of the segments of the coming one; live: its rows.
    """
    empty = recipe.make(store.dim, store.path, store.trust)
    if not isinstance(empty, Kept):
        return None
    engine, covered, made_with = _begun(store, recipe, empty, segments, live, anew)
    rest = [(segment, positions) for segment, positions in live if segment_name(segment.number) not in covered]
    num_new = sum(len(positions) for _, positions in rest)
    if isinstance(engine, Trains) and not len(engine):
        engine.train(_sample(rest, engine.sample_size(num_new), store.dim), num_new)
    blocks = _blocks(rest)
    for numbers, rows in track(blocks, f"index of {store.path.name}", unit="block") if num_new > _ROWS_AT_ONCE else blocks:
        engine.add(numbers, rows)
    figures = _tuned(engine, store, live) if isinstance(engine, Tunes) and len(engine) else {}
    if folder.exists():
        shutil.rmtree(folder)  # of a writer that was killed
    folder.mkdir(parents=True)
    try:
        cast(Kept, engine).save(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    facts = {"rows": len(engine), "made_with": made_with or num_new, "segments": dict(segments), "figures": figures}
    return {**facts, "fingerprint": index_fingerprint(folder, facts)}


def _sample(segments: Covered, size: int, dim: int) -> np.ndarray:
    """(size, d) float32 of unit length: rows evenly from all segments."""
    every = np.linspace(0, sum(len(live) for _, live in segments) - 1, size).round().astype(np.int64)
    rows, start = np.empty((size, dim), np.float32), 0
    for segment, live in segments:
        places = np.flatnonzero((every >= start) & (every < start + len(live)))
        positions = live[every[places] - start]
        rows[places] = unit_rows(segment.rows()[positions], segment.ids[positions])
        start += len(live)
    return rows


def _tuned(engine: Tunes, store: Store, live: Covered) -> dict[str, Any]:
    """Figures against exact search. Queries are what people write: captions of the store, and frequent words, as a search embeds them.

    Its own pictures, where it reads no texts.
    """
    from multimodal.search.flat import FlatEngine

    if isinstance(store.query_space, NoTexts):
        queries = _sample(live, min(NUM_TUNED, len(store)), store.dim)
    else:
        texts = _some_texts(live, NUM_TUNED)
        words = frequent_words(texts, store.query_space, is_slow=True)
        asked = [*texts, *words]
        embedded = [store.calibration.embed(text, store.query_space) for text in track(asked, "trying the index", unit="text")]
        queries = np.stack([vector for vector in embedded if vector.any()]).astype(np.float32)
    exact = FlatEngine(store.dim)
    for segment, positions in live:
        exact.add_mapped(row_numbers(segment.number, positions), segment.rows(), positions)
    return engine.tune(queries, exact.search(queries, NUM_NEIGHBOURS).ids)


def _some_texts(live: Covered, num: int) -> list[str]:
    """Texts of pictures evenly from all segments; fewer, or none, if few pictures have one."""
    step = max(sum(len(positions) for _, positions in live) // num, 1)
    found: list[str] = []
    for segment, positions in live:
        found += [text for text in segment.metadata(["text"], positions[::step])["text"] if text and text.strip()]
    return found[:num]


def index_fingerprint(folder: Path, facts: Mapping[str, Any]) -> str:
    """Of the files of an index, and of what the manifest says of it."""
    files = {path.relative_to(folder).as_posix(): fingerprint_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return fingerprint_json([files, {name: value for name, value in facts.items() if name != "fingerprint"}])


def _begun(
    store: Store, recipe: EngineRecipe, empty: Engine, segments: Mapping[str, str], live: Covered, anew: bool
) -> tuple[Engine, set[str], int]:
    """The engine to add to, the segments that it covers, and how many rows it was made with."""
    found = index_part(store.manifest.parts)
    before = recipe_of(store.manifest.config)
    if found is None or before is None or before.as_json() != recipe.as_json():
        return empty, set(), 0
    name, facts = found
    covered = {name for name, fingerprint in facts["segments"].items() if segments.get(name) == fingerprint}
    if isinstance(empty, Retains):
        try:
            engine = _load(empty, box_file(store.path, name))
        except IndexGoneError as error:
            if anew:
                return empty, set(), 0
            raise _gone(store, error) from None
        if anew:
            cast(Retains, engine).retain(np.empty(0, np.int64))
            return engine, set(), 0
        # the rows of the present generation stay, for its readers; others are of an older one, or of a writer that was killed
        of_present = [pair for pair in store.live_positions if segment_name(pair[0].number) in facts["segments"]]
        held = np.concatenate([np.empty(0, np.int64), *(row_numbers(segment.number, positions) for segment, positions in of_present)])
        if len(engine) != len(held):
            cast(Retains, engine).retain(held)
        if len(engine) != len(held):
            raise _gone(store, f"its index has {len(engine):,} of {len(held):,} rows: some were removed from it")
        return engine, covered, facts["made_with"]
    num_live = sum(len(positions) for segment, positions in live if segment_name(segment.number) in covered)
    num_rows = sum(len(positions) for _, positions in live)
    is_worn = facts["rows"] - num_live > MAX_DEAD_SHARE * facts["rows"] or num_rows > MAX_GROWTH * facts["made_with"]
    if anew or is_worn or len(covered) < len(facts["segments"]):
        return empty, set(), 0
    return _load(empty, box_file(store.path, name)), covered, facts["made_with"]


def _blocks(segments: Covered) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and rows (n, d) of unit length, so many at once that they fit into memory."""
    for segment, live in segments:
        for start in range(0, len(live), _ROWS_AT_ONCE):
            positions = live[start : start + _ROWS_AT_ONCE]
            yield row_numbers(segment.number, positions), unit_rows(segment.rows()[positions], segment.ids[positions])
