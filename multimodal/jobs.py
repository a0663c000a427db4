"""The verbs of `multimodal` and `data-prep`, from Python: they take opened boxes or paths, and return the box they made, opened.

    import multimodal as mm
    run = mm.fit("experiment/topic_emoji.yaml", shards=shards, run="runs/mine/topic")
    export = mm.export(run, "runs/mine/export", space="spaces/lda40")
    store = mm.index(export, shards, "runs/mine/store", column="trunk")

Each calls the verb's own function, and takes its other settings by name, as in `multimodal index --help`, with underscores. A box that is
made already is found and opened, as by the command. They are reached as `multimodal.fit`; some share their name with a room, see
`multimodal/__init__.py`.
"""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.boxes import Manifest
from multimodal.errors import InputError, near_names, needing
from multimodal.opening import open as open_box
from multimodal.urls import is_url

if TYPE_CHECKING:
    from multimodal.embed.photos import Changes
    from multimodal.evaluate.classes import ClassRow
    from multimodal.evaluate.retrieval import RetrievalRow
    from multimodal.export.model import Export
    from multimodal.export.run import Run
    from multimodal.search.store import Store
    from multimodal.shards import Column, SetPath, ShardSet
    from multimodal.shards.ledger import Bad
    from multimodal.text import TextSpace

    AnySet = ShardSet | SetPath

PathLike = str | os.PathLike[str]


def make_shards(source: str, *inputs: Any, output: PathLike, **settings: Any) -> ShardSet:
    """Write the pairs of a source as shards, every picture checked to decode: `data-prep make-shards SOURCE INPUT ... --output OUTPUT`.

    source: "folder", "captions", "wikipedia" ..., or your own as "package.module:function". inputs: what it reads.
    output: the folder of the set, or a URL as a string. settings: of the source and of make-shards, such as resize=256.
    """
    with needing("prep", "making shards"):
        from data_prep.shards.job import make_shards_verb
    make_shards_verb([source, *map(str, inputs), *_options({"output": output, **settings})])
    return _opened_set(str(output) if is_url(output) else Path(output))


def make_columns(space: TextSpace | PathLike, shards: AnySet, name: str, **settings: Any) -> Column:
    """Write the texts of a set as rows of a text space: `data-prep make-columns`. A space that was just fitted is saved first."""
    with needing("prep", "making columns"):
        from data_prep.spaces.columns import make_columns as verb
    return _column(_call(verb, space=space, shards=shards, name=name, **settings), shards, settings)


def embed(shards: AnySet, name: str, **settings: Any) -> Column:
    """Run a frozen trunk over the pictures of a set, once, and keep its features as a column: `multimodal embed`."""
    with needing("train", "embedding pictures"):
        from multimodal.embed.columns import embed as verb
    return _column(_call(verb, shards=shards, name=name, **settings), shards, settings)


def fit(
    recipe: PathLike | Sequence[PathLike],
    shards: AnySet | Mapping[str, AnySet],
    run: PathLike,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Run:
    """Train from a recipe: `multimodal fit --config RECIPE --data.shards SHARDS --run RUN`.

    recipe: a file, or the name of a shipped one; of several, later ones override earlier ones.
    shards: the set; or name -> set, of several that are trained on together.
    run: the folder of the run. A stopped run resumes, and a finished one is opened.
    settings: by dotted name, as on the command line: {"trainer.max_epochs": 5, "seed_everything": 1}.
    overwrite: train again if the folder holds another run.
    """
    with needing("train", "training"):
        from multimodal.training.door import fit as verb
    recipes = [recipe] if isinstance(recipe, str | os.PathLike) else recipe
    given = {"run": run, **_data(shards), **(settings or {})}
    verb([*(f"--config={os.fspath(one)}" for one in recipes), *_options(given, dashes=False), *(["--overwrite"] if overwrite else [])])
    return typing.cast("Run", open_box(Path(run)))


def export(run: Run | PathLike, output: PathLike, space: TextSpace | PathLike | None = None, **settings: Any) -> Export:
    """Turn a finished run into weights, a card and the side that reads queries: `multimodal export`.

    space: the text space that the run's text column was made with; not needed if the run trained a text tower.
    """
    with needing("train", "an export"):
        from multimodal.export.model import export as verb
    return typing.cast("Export", open_box(_call(verb, run=run, output=output, space=space, **settings), settings.get("trust", ())))


def export_pretrained(named: str | PathLike, output: PathLike, long_texts: str = "cut") -> Export:
    """Make an export of a pretrained CLIP model, without training: `multimodal export --pretrained NAMED`.

    named: a folder of open_clip or transformers; NAME/FILE, an architecture of open_clip and a checkpoint; or NAME/TAG, a download.
    long_texts: "pool" to read a text that is longer than the model's context in pieces, whose unit vectors are averaged.
    """
    with needing("train", "an export"):
        from multimodal.export.model import export_pretrained as verb
    return typing.cast("Export", open_box(_call(verb, named=os.fspath(named), output=Path(output), long_texts=long_texts)))


def push(export: Export | PathLike, repository: str, licence: str, data: str, **settings: Any) -> str:
    """Put an export on the Hugging Face hub, with a model card: `multimodal push`. Returns the commit's URL, or the folder of a dry run.

    repository: "user/name"; `multimodal.open("hf://user/name")` opens it. licence, data: of the model, and what it learned from.
    """
    with needing("search", "verifying an export"):
        from multimodal.pushing import push as verb
    return str(_call(verb, export=export, repository=repository, licence=licence, data=data, **settings))


def index(export: Export | PathLike, shards: AnySet, output: PathLike, **settings: Any) -> Store:
    """Run an export over the pictures of a set and keep the vectors as a store, whose hits then show whole pictures: `multimodal index`."""
    with needing("train", "indexing pictures"):
        from multimodal.embed.stores import index as verb
    made = _call(verb, export=export, shards=shards, output=output, **settings)
    store = typing.cast("Store", open_box(made, settings.get("trust", ())))
    store.attach(_opened_set(shards, settings))
    return store


def index_pictures(export: Export | PathLike, pictures: PathLike | Sequence[PathLike], output: PathLike, **settings: Any) -> Store:
    """Run an export over the pictures in folders, without captions, and keep the vectors as a store: `multimodal index --pictures`.

    pictures: a folder, or several. Hits show whole pictures, from these folders. A store that exists gets what has changed in them.
    """
    with needing("train", "indexing pictures"):
        from multimodal.embed.photos import index_pictures as verb
    folders = [Path(one) for one in ([pictures] if isinstance(pictures, str | os.PathLike) else pictures)]
    made = _call(verb, export=export, pictures=folders, output=output, **settings)
    store = typing.cast("Store", open_box(made, settings.get("trust", ())))
    store.attach(folder={name: name for name in map(os.path.abspath, map(os.path.expanduser, folders))})
    return store


def rescan(store: Store | PathLike, **settings: Any) -> Changes:
    """Make a store of folders equal to them again: `multimodal rescan`. Returns the numbers of what was done; open the store again."""
    with needing("search", "scanning pictures"):
        from multimodal.embed.photos import rescan as verb
    return typing.cast("Changes", _call(verb, store=store, **settings))


def evaluate(store: Store | PathLike, shards: AnySet, **settings: Any) -> list[RetrievalRow]:
    """Search each picture by its text and each text by its picture: `multimodal evaluate retrieval`. Returns the printed rows."""
    with needing("train", "evaluating"):
        from multimodal.evaluate.retrieval import evaluate as verb
    return typing.cast("list[RetrievalRow]", _call(verb, store=store, shards=shards, **settings))


def evaluate_classes(store: Store | PathLike, shards: AnySet, label: str, **settings: Any) -> list[ClassRow]:
    """Search articles and pictures by their class, an entry of the pairs' metadata: `multimodal evaluate classes`."""
    with needing("train", "evaluating"):
        from multimodal.evaluate.classes import evaluate as verb
    return typing.cast("list[ClassRow]", _call(verb, store=store, shards=shards, label=label, **settings))


def verify(box: ShardSet | Column | Run | Export | Store | TextSpace | PathLike, trust: Sequence[str] = ()) -> list[Bad]:
    """Read every byte of a box of any kind again; returns what is missing, damaged or changed, empty if nothing is."""
    with needing("search", "verifying a box"):
        from multimodal.verify import problems_of
    place = _place(box)
    if not isinstance(place, str | os.PathLike):
        raise InputError(f"{place.url}: is a set at a URL. Verify it with: multimodal shards verify {place.as_argument()}")
    return list(problems_of(Path(place), trust))


def _call(verb: Callable[..., Any], **given: Any) -> Any:
    """Call the verb with opened boxes as their places, and paths in the types it takes. InputError if it has no such setting."""
    hints = typing.get_type_hints(verb)
    for name in given:
        if name not in hints or name == "return":
            raise InputError(f"{verb.__name__} has no setting {name!r}. {near_names(name, hints.keys() - {'return'})}")
    return verb(**{name: _as_wanted(_place(value), hints[name]) for name, value in given.items()})


def _as_wanted(value: Any, hint: Any) -> Any:
    """A string as a Path, if the verb takes a Path and it is not a URL."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return Path(value) if Path in choices and isinstance(value, str | os.PathLike) and not is_url(value) else value


def _place(value: Any) -> Any:
    """The place of an opened box, as a verb takes it; anything else unchanged."""
    from multimodal.shards import ShardSet
    from multimodal.text.space import BoxedSpace

    if isinstance(value, ShardSet):
        if value.remote is None and value.index != value.path:
            raise InputError(
                f"{value.place}: its index is in {value.index}, and a job needs both in one folder. Link its tars into that folder"
            )
        return value.remote or value.path
    if isinstance(value, BoxedSpace):
        if value.path is None:
            raise InputError(f"{value!r}: is not saved yet, and a job reads it from a folder. Save it first: space.save(folder)")
        return value.path
    return value.path if isinstance(getattr(value, "manifest", None), Manifest) else value


def _options(settings: Mapping[str, Any], dashes: bool = True) -> list[str]:
    """Settings as options of a command line: strings and paths as they are, everything else as JSON.

    dashes: instead of underscores, in names without dots.
    """
    options = []
    for name, value in settings.items():
        shown = os.fspath(value) if isinstance(value, str | os.PathLike) else json.dumps(value)
        option = f"--{name.replace('_', '-') if dashes and '.' not in name else name}"
        several = isinstance(value, list | tuple) and dashes
        options += [option, *map(str, value)] if several else [f"{option}={shown}"]
    return options


def _data(shards: AnySet | Mapping[str, AnySet]) -> dict[str, Any]:
    """`data.shards` of a run."""
    if isinstance(shards, Mapping):
        return {"data.shards": {name: _described(one) for name, one in shards.items()}}
    return {"data.shards": _described(shards)}


def _described(shards: AnySet) -> Any:
    """A set as a run's config names it."""
    place = _place(shards)
    if isinstance(place, str | os.PathLike):
        return os.fspath(place)
    return place.described()


def _opened_set(shards: AnySet, settings: Mapping[str, Any] | None = None) -> ShardSet:
    from multimodal.shards import ShardSet, open_set

    if isinstance(shards, ShardSet):
        return shards
    cache = {name: value for name, value in (settings or {}).items() if name in ("cache", "cache_bytes")}
    return open_set(shards, **cache)


def _column(path: Path, shards: AnySet, settings: Mapping[str, Any]) -> Column:
    from multimodal.shards import Column

    return Column.of(_opened_set(shards, settings), path.name)
