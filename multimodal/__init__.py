"""Learn to see from the text that comes free with pictures. Importing this package does no work: a name is loaded when it is first used.

import multimodal as mm

store = mm.open("runs/demo/contrastive/store")
store.search("beach - people", k=5)

docs/python.md shows all of it.
"""

# Neither `typing` nor `__future__` is imported here: a program that uses nothing pays for nothing. Type checkers recognise TYPE_CHECKING.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from data_prep.spaces import fit_doc2vec as fit_doc2vec
    from data_prep.spaces import fit_fasttext as fit_fasttext
    from data_prep.spaces import fit_topics as fit_topics
    from data_prep.spaces import fit_word2vec as fit_word2vec
    from data_prep.spaces import from_vector_file as from_vector_file
    from data_prep.spaces import from_wordllama as from_wordllama
    from multimodal.errors import InputError as InputError
    from multimodal.export.model import Export as Export
    from multimodal.export.run import Run as Run
    from multimodal.jobs import embed as embed
    from multimodal.jobs import evaluate as evaluate
    from multimodal.jobs import evaluate_classes as evaluate_classes
    from multimodal.jobs import export as export
    from multimodal.jobs import export_pretrained as export_pretrained
    from multimodal.jobs import fit as fit
    from multimodal.jobs import index as index
    from multimodal.jobs import index_pictures as index_pictures
    from multimodal.jobs import make_columns as make_columns
    from multimodal.jobs import make_shards as make_shards
    from multimodal.jobs import push as push
    from multimodal.jobs import rescan as rescan
    from multimodal.jobs import verify as verify
    from multimodal.opening import open as open
    from multimodal.pairs import Hit as Hit
    from multimodal.pairs import Pair as Pair
    from multimodal.search.hits import Hits as Hits
    from multimodal.search.store import Store as Store
    from multimodal.shards import Column as Column
    from multimodal.shards import ShardSet as ShardSet
    from multimodal.shards import Split as Split
    from multimodal.text import EncoderSpace as EncoderSpace
    from multimodal.text import Normaliser as Normaliser
    from multimodal.text import TextSpace as TextSpace

_NAMES = {
    "data_prep.spaces": ("fit_doc2vec", "fit_fasttext", "fit_topics", "fit_word2vec", "from_vector_file", "from_wordllama"),
    "multimodal.errors": ("InputError",),
    "multimodal.export.model": ("Export",),
    "multimodal.export.run": ("Run",),
    "multimodal.jobs": (
        "embed",
        "evaluate",
        "evaluate_classes",
        "export",
        "export_pretrained",
        "fit",
        "index",
        "index_pictures",
        "make_columns",
        "make_shards",
        "push",
        "rescan",
        "verify",
    ),
    "multimodal.opening": ("open",),
    "multimodal.pairs": ("Hit", "Pair"),
    "multimodal.search.hits": ("Hits",),
    "multimodal.search.store": ("Store",),
    "multimodal.shards": ("Column", "ShardSet", "Split"),
    "multimodal.text": ("EncoderSpace", "Normaliser", "TextSpace"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_EXTRAS = {"data_prep.spaces": "prep", "multimodal.export.model": "train"}
"""Module -> the extra that installs what it imports; "search" for modules not listed."""
_ROOMS = ("embed", "evaluate", "export", "verify")
"""Jobs that have the name of the room they are in. Python puts a room here under its name when it is imported, so the room
itself is made callable: `multimodal.export(...)` beside `multimodal.export.model`.
"""


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from multimodal.errors import needing

    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    home = _HOME[name]
    with needing(_EXTRAS.get(home, "search"), f"multimodal.{name}"):
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def _make_rooms_callable() -> None:
    """From now on each room in `_ROOMS` is made callable when it is imported, which is when Python puts it here."""
    import sys

    here = sys.modules[__name__]

    class Room(type(here)):  # type: ignore[misc]
        """A room that can be called as its job."""

        @property
        def __wrapped__(self) -> "Any":
            from importlib import import_module

            return getattr(import_module(f"{__name__}.jobs"), self.__name__.rpartition(".")[2])

        def __call__(self, *args: object, **settings: object) -> object:
            return self.__wrapped__(*args, **settings)

    class House(type(here)):  # type: ignore[misc]
        def __setattr__(self, name: str, value: object) -> None:
            if name in _ROOMS:
                value.__class__ = Room
            super().__setattr__(name, value)

    here.__class__ = House


_make_rooms_callable()
