"""The stores that are served, by name.

    stores = Stores.open(["a=stores/topic", "stores/clip"], exports=["exports/clip"])
    stores.find("a").newest.current()

Of several stores the first is the one that is meant where a request names none. An export belongs to the store that was made from it, and a
shard set to the stores that were made from its shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multimodal.errors import InputError, near_names
from multimodal.search.asking import PictureEncoder
from multimodal.search.folders import folders_of
from multimodal.search.store import Store
from multimodal.serve.generations import Newest
from multimodal.serve.limits import Refused
from multimodal.shards import open_set

_NAME = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True)
class Served:
    """A store under its name. pictures: what encodes uploaded pictures, None without the store's export."""

    name: str
    newest: Newest
    pictures: PictureEncoder | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        return self.newest.path


class Stores:
    """By name, in the order in which they were given."""

    def __init__(self, stores: Mapping[str, Store], exports: Mapping[str, PictureEncoder] | None = None) -> None:
        """exports: name of a store -> what encodes its pictures."""
        self._served = {name: Served(name, Newest(store), (exports or {}).get(name)) for name, store in stores.items()}

    @classmethod
    def open(
        cls,
        given: Sequence[str],
        exports: Sequence[str | Path] = (),
        shards: Sequence[str | Path] = (),
        originals: bool = True,
        trust: Sequence[str] = (),
    ) -> Stores:
        """From the command line: STORE or NAME=STORE each. InputError: a name twice, or an export or a set that no store was made from."""
        stores: dict[str, Store] = {}
        for one in given:
            name, path = _named(one)
            if name in stores:
                raise InputError(f"--store {one}: {stores[name].path} is called {name} already. Give names: --store other={path}")
            stores[name] = Store(path, trust=trust)
        if not stores:
            raise InputError("which store? Give --store, a folder; of several, each with its own")
        if originals:
            for store in stores.values():
                _attach_folders(store)
            for one_set in shards:
                _attach_shards(stores, one_set)
        return cls(stores, _encoders(stores, exports))

    def find(self, name: str = "") -> Served:
        """The store of that name, the first one for "". Refused (404) if there is none."""
        if not name:
            return next(iter(self))
        if name not in self._served:
            raise Refused(404, f"no store is served as {name[:64]}. {near_names(name[:64], self._served)}")
        return self._served[name]

    def make_ready(self) -> None:
        """Load what the first query would load, such as a text tower, which takes longer than a query may."""
        for served in self:
            store = served.newest.current()
            store.query_space.embed(["picture"])
            _ = store.engine, store.fusion, store.calibration

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    def without_paths(self, message: str) -> str:
        """A message with the stores' names in place of their folders; a relative one tells nothing of this machine."""
        for served in sorted(self, key=lambda served: -len(str(served.path))):
            if served.path.is_absolute():
                message = message.replace(str(served.path), served.name)
        return message

    def others(self, served: Served) -> dict[str, Store]:
        """The newest generations of the other stores, which score terms such as `export:<name>:beach`."""
        return {one.name: one.newest.current() for one in self if one is not served}


def _named(given: str) -> tuple[str, str]:
    """(name, path): a name before = is one only if it looks like one, since a path may hold = too."""
    name, equals, path = given.partition("=")
    if equals and path and _NAME.fullmatch(name):
        return name, path
    folder = re.sub(r"[^\w.-]", "_", Path(given).resolve().name)[:64]
    return folder or "store", given


def _attach_folders(store: Store) -> None:
    """Those of the store's own folders that are there, so that its pictures are shown as they are."""
    if store.has_files:
        there = {folder: folder for folder in folders_of(store) if Path(folder).is_dir()}
        if there:
            store.attach(folder=there)


def _attach_shards(stores: Mapping[str, Store], path: str | Path) -> None:
    one_set = open_set(path)
    there = set(one_set.fingerprints.values())
    fitting = [store for store in stores.values() if not store.has_files and store.sources and set(store.sources.values()) <= there]
    if not fitting:
        raise InputError(f"--shards {path}: no store that is served was made from this set, or its shards have changed since")
    for store in fitting:
        store.attach(one_set)


def _encoders(stores: Mapping[str, Store], exports: Sequence[str | Path]) -> dict[str, PictureEncoder]:
    found: dict[str, PictureEncoder] = {}
    for export in exports:
        errors = []
        for name, store in stores.items():
            try:
                found[name] = PictureEncoder(store, export)
            except InputError as error:
                errors.append(str(error))
        if len(errors) == len(stores):
            raise InputError(f"--export {export}: no store that is served was made from this export. {errors[0]}")
    return found
