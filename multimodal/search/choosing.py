"""Which of the pictures that meet a query are shown, and in what order: near duplicates folded, and an order by any column.

    places, like = fold(store, rank_of, k, engine)          # like[0]: ids of pictures that nearly equal the first one shown
    by_column(store, ids, "-date")                          # places of ids, the newest first

Hits are always chosen by their score; an order by a column is one in which the chosen ones are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from multimodal.errors import InputError, near_names
from multimodal.search.engine import Engine
from multimodal.search.pausing import may_pause
from multimodal.search.ranking import Ranking
from multimodal.search.segments import unit_rows

if TYPE_CHECKING:
    from multimodal.search.filters import FilterColumns

BY_SCORE = "score"
NEARLY_EQUAL = {"contrastive": 0.95, "wordvec": 0.985, "topic": 0.998}
"""Family -> the least cosine between the rows of two pictures of which one is folded into the other. Chosen so that of photographs that are
no copies, fewer than 1 in 1,000 has such a neighbour; docs/queries.md has what is folded then."""
_FIRST = 16


class Shown(Protocol):
    """A store, whose hits are folded and ordered."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def family(self) -> str: ...
    @property
    def columns(self) -> list[str]: ...
    @property
    def filter_columns(self) -> FilterColumns: ...
    def take(self, ids: Sequence[int] | np.ndarray) -> np.ndarray: ...


def fold(store: Shown, rank_of: Callable[[int], Ranking], k: int, engine: Engine) -> tuple[Ranking, list[int], list[tuple[int, ...]]]:
    """The ranking, the places in it of the best k pictures of which none nearly equals a better one, and what nearly equals each.

    rank_of: k -> the ranking of so many pictures, which begins like that of fewer. engine: searches those that may be shown.
    """
    near: dict[int, list[int]] = {}
    wanted = 2 * k
    while True:
        ranking = rank_of(wanted)
        places, like = list[int](), list[tuple[int, ...]]()
        gone: set[int] = set()
        for place, id in enumerate(ranking.ids.tolist()):
            if id in gone:
                continue
            if id not in near:
                near[id] = _nearly_equal(store, engine, id)
            gone.add(id)
            places.append(place)
            like.append(tuple(other for other in near[id] if other not in gone))
            gone.update(like[-1])
            if len(places) == k:
                return ranking, places, like
        if len(ranking.ids) < wanted:
            return ranking, places, like
        wanted *= 2


def _nearly_equal(store: Shown, engine: Engine, id: int) -> list[int]:
    """The other pictures that nearly equal one, best first."""
    bar = NEARLY_EQUAL.get(store.family, max(NEARLY_EQUAL.values()))
    row = unit_rows(store.take([id]), np.array([id]))
    depth = min(_FIRST, len(engine))
    while True:
        may_pause()
        found = engine.search(row, depth)
        if depth >= len(engine) or found.scores[0, -1] < bar:
            return [other for other in found.ids[0][found.scores[0] >= bar].tolist() if other != id]
        depth = min(4 * depth, len(engine))


def check_order(store: Shown, order: str) -> str:
    """The column that an order names; InputError if there is none."""
    name = order.removeprefix("-").strip("`")
    if name not in store.columns and len(store.ids):
        raise InputError(f"order: there is no column {name}. {near_names(name, [BY_SCORE, *store.columns])}")
    return name


def by_column(store: Shown, ids: Sequence[int], order: str) -> list[int]:
    """The places of some ids in the order of a column, those without a value last, equal ones as they are.

    order: the name of the column, after a minus from the largest to the smallest; its values are compared as filters compare them.
    """
    if not len(ids):
        return []
    values = _values_of(store, check_order(store, order), ids)
    present = [place for place, value in enumerate(values) if value is not None]
    missing = [place for place, value in enumerate(values) if value is None]
    return [*sorted(present, key=values.__getitem__, reverse=order.startswith("-")), *missing]


def _values_of(store: Shown, name: str, ids: Sequence[int]) -> list:
    """What a column holds for some ids, None where it is missing."""
    places = np.flatnonzero(np.isin(store.ids, np.asarray(ids, dtype=np.int64)))
    values = store.filter_columns.column(name).values.take(places).to_pylist()
    value_of = dict(zip(store.ids[places].tolist(), values, strict=True))
    return [value_of[id] for id in ids]
