"""A protocol of your own: a function of a store, its shards and the ids of a part, run and printed like the built-in ones.

    multimodal evaluate mypackage.figures:by_length --store S --shards D --part test --longest 20

    def by_length(store: Store, shards: ShardSet, ids: np.ndarray, longest: int = 12) -> list[Found]:
        "Retrieval with texts of a limited length.

        longest: the most words of a text."
        ids = judged_ids(store, shards, ids)      # those in the store; see multimodal.evaluate.figures
        ...

The parameters after the first three are its options, by name, type and default. It returns one `Found` or several, from which recall, mAP,
chance and intervals are computed as in `evaluate retrieval`; or rows of figures, as dictionaries or dataclasses of numbers and texts.
"""

from __future__ import annotations

import inspect
import json
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from multimodal.boxes import write_output
from multimodal.doors.arguments import Filled, parse
from multimodal.doors.dispatch import OWN, load
from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, Found, align, write_figures
from multimodal.evaluate.retrieval import RetrievalRow, as_table
from multimodal.search.store import Store
from multimodal.shards import Part, SetPath, Split, open_set

Row = Mapping[str, Any]
NUM_GIVEN = 3
"""Parameters of a protocol that are not options: the store, the shard set and the ids."""


def evaluate(args: Sequence[str]) -> list[Row]:
    """Run the protocol that the first argument names with the others as options, print its table and return its rows."""
    if not args or args[0].startswith("-"):
        print(f"usage: multimodal evaluate {OWN} --store STORE --shards SHARDS [options]\n\n{(__doc__ or '').strip()}")
        return []
    protocol = load(args[0])
    options = _options(protocol, args[0])
    try:
        settings, common = parse(f"multimodal evaluate {args[0]}", args[1:], options, Filled(run, ("protocol", "settings")))
    except SystemExit:  # after printing the help
        return []
    return run(**common, protocol=protocol, settings=settings)


def run(
    store: Path,
    shards: SetPath,
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    gallery: str = "unseen",
    recipe: str | None = None,
    trunk: str = "pretrained",
    control: bool = False,
    output: Path | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
    *,
    protocol: Callable[..., Any],
    settings: Mapping[str, Any],
) -> list[Row]:
    """Run a protocol on one part of a shard set, print its figures, and return its rows.

    Args:
        store: made by `multimodal index` from the shard set.
        shards: the shard set, a folder or a URL.
        part: which part of it; the pairs of "test" were held out from all fitting and training.
        split: how the set is split; give the one that training used.
        gallery: the name of these pictures in a table of recall.
        recipe: the name of the run there; the family's name by default.
        trunk: the name of the weights that made the run's features, such as imagenet or random.
        control: mark the rows as a control, trained with texts shuffled between pictures.
        output: also write the rows to this JSON file, and each query's results to a .queries.parquet beside it.
        cache: the folder for the tars and columns of a set at a URL; by default one in the user's cache folder.
        cache_bytes: the most that these tars take; by default 20 GiB.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported
            because a folder names it.
    """
    opened, source = Store(store, trust=trust), open_set(shards, cache, cache_bytes)
    given = protocol(opened, source, split.ids(source, part), **settings)
    found = [given] if isinstance(given, Found) else list(given)
    if found and all(isinstance(one, Found) for one in found):
        rows = [RetrievalRow.of(one, recipe or opened.family, opened.family, gallery, trunk, split.seed, control) for one in found]
        figures: list[Row] = [row.as_json() for row in rows]
        if output is not None:
            write_figures(output, figures, found)
        print(as_table(rows, found))
        return figures
    figures = [_row(one, protocol) for one in found]
    if output is not None:
        with write_output(output) as file:
            file.write((json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode())
    print(_table(figures))
    return figures


def _options(protocol: Callable[..., Any], named: str) -> Callable[..., Any]:
    """The protocol as a function of only its options, from which the command line is made."""
    every = list(inspect.signature(protocol).parameters.values())
    hints, ours = typing.get_type_hints(protocol), inspect.signature(run).parameters
    if len(every) < NUM_GIVEN:
        raise InputError(f"{named}: takes {len(every)} parameters; a protocol takes store, shards and ids, then its options")
    for parameter in every[NUM_GIVEN:]:
        if parameter.name not in hints:
            raise InputError(f"{named}: its option {parameter.name} has no type. Annotate it, for example {parameter.name}: int")
        if parameter.name in ours:
            raise InputError(f"{named}: its option {parameter.name} is one that every protocol has. Rename it")

    @wraps(protocol)
    def options(**_: Any) -> None: ...

    options.__signature__ = inspect.Signature(every[NUM_GIVEN:])  # type: ignore[attr-defined]
    return options


def _row(given: Any, protocol: Callable[..., Any]) -> Row:
    """A row as JSON values; InputError that names anything else."""
    if isinstance(given, FigureRow):
        row: Row = given.as_json()
    elif is_dataclass(given) and not isinstance(given, type):
        row = asdict(given)
    elif isinstance(given, Mapping):
        row = given
    else:
        raise InputError(
            f"{protocol.__module__}:{protocol.__name__} returned a {type(given).__name__}; it must return Found, a dict or a dataclass"
        )
    plain = {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}  # numpy's numbers
    if odd := [name for name, value in plain.items() if not isinstance(value, str | numbers.Real | None)]:
        raise InputError(f"{protocol.__module__}:{protocol.__name__} returned {odd[0]}={plain[odd[0]]!r}; figures are numbers or texts")
    return plain


def _table(rows: Sequence[Row]) -> str:
    """The rows as text: columns in order of appearance, but texts first."""
    if not rows:
        return "no rows"
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=lambda name: not all(isinstance(row.get(name, ""), str) for row in rows))  # texts first; the sort is stable
    num_texts = sum(all(isinstance(row.get(name, ""), str) for row in rows) for name in names)
    return align(names, [[_cell(row.get(name)) for name in names] for row in rows], num_texts)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
