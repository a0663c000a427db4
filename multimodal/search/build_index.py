"""`multimodal store build-index`: make the index that a store's engine keeps, or change the engine of a store.

multimodal store build-index stores/topic
multimodal store build-index stores/topic --engine mypackage.HNSW --engine.links 16
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from multimodal.search.engine import EngineRecipe
from multimodal.search.kept import describe_index, index_part
from multimodal.search.writing import StoreWriter


def build_index(store: Path, engine: EngineRecipe | None = None, anew: bool = False, trust: Sequence[str] = ()) -> None:
    """Make the index that a store's engine keeps, or add the pictures that it does not cover yet. No picture is embedded again.

    multimodal store build-index S                                                        what is new, after pictures were added in Python
    multimodal store build-index S --engine mypackage.HNSW --engine.links 16              from now on, this engine searches the store
    multimodal store build-index S --engine multimodal.search.flat.FlatEngine             back to exact search, which keeps no index
    multimodal store build-index S --engine multimodal.search.ivf.IvfEngine               approximate: finds 98 % of what exact search does
    multimodal store build-index S --engine multimodal.search.ivf.IvfEngine --engine.recall 0.995

    `multimodal index` does this at its end.

    Args:
        store: the store's folder.
        engine: change to this search engine, by its class path, with its settings as --engine.NAME VALUE.
        anew: make the index from nothing, even if only a part is missing.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported because a
            folder names it.
    """
    trusted = [*trust, *([] if engine is None else [engine.package])]  # whoever names a class means it to be run
    with StoreWriter(store, trusted) as writer:
        before = writer.store.manifest
        writer.build_index(engine, anew)
        found = index_part(writer.store.manifest.parts)
        if found is None:
            print(f"{store}: its engine keeps no index; {len(writer.store):,} pictures are searched without one", file=sys.stderr)
        else:
            done = "is up to date" if writer.store.manifest == before else "is made"
            print(f"{store}: the index of {len(writer.store):,} pictures {done}", file=sys.stderr)
        if told := describe_index(writer.store):
            print(f"{store}: {told}", file=sys.stderr)
