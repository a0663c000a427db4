"""The page of `multimodal evaluate identities --html`: how far down the first match is, the hardest queries, the hardest triplets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from multimodal.evaluate.figures import Found
from multimodal.evaluate.judged_pairs import PairsRow, as_table
from multimodal.evaluate.report import (
    Curve,
    Figure,
    Neighbours,
    NeighboursOf,
    Picture,
    Report,
    Table,
    hard_triplets_of,
    small_picture,
)
from multimodal.metrics import unit
from multimodal.metrics.identities import Identities, identity_masks
from multimodal.shards import ShardSet

if TYPE_CHECKING:
    from multimodal.evaluate.identities import IdentityRow, Protocol

NUM_SHOWN, NUM_NEAREST = 8, 6
"""Queries of each kind, and the nearest pictures of each."""
NUM_RANKS = 50
"""Of the curve."""


def page_of_identities(
    source: ShardSet,
    ids: np.ndarray,
    rows: np.ndarray,
    protocol: Protocol,
    judged: Sequence[IdentityRow],
    found: Sequence[Found],
    identity: str,
    printed: str,
) -> Report:
    """rows (n, d), the vectors of the pictures ids (n,) that the protocol is of. judged, found: by cosine first, then re-ranked.

    identity: the name of it in the metadata. printed: the figures as text.
    """
    first = judged[0]
    return Report(
        title=f"Identities: {first.recipe}, {first.gallery}",
        facts=[
            f"{first.num_queries:,} queries of {first.num_identities:,} identities among {first.num_gallery:,} pictures"
            + (f" of {first.cameras} cameras; a query's own camera's pictures of its identity are left out." if first.cameras else ".")
        ],
        rows=[],
        answers=[],
        topics=[],
        curves=[],
        commands=[],
        tables=[_table(judged)],
        cmc=[_curve(row, one) for row, one in zip(judged, found, strict=True)],
        neighbours=_neighbours(source, ids, rows, protocol, found[0]),
        hard_triplets=[hard_triplets_of(rows, ids, source, identity, first.recipe, first.gallery)],
        photographs=True,
        printed=printed,
    )


def page_of_pairs(row: PairsRow) -> Report:
    """Judged pairs as a curve."""
    return Report(
        title=f"The same or different: {row.recipe}, {row.gallery}",
        facts=[f"{row.num_pairs:,} judged pairs, of which {row.num_same:,} are the same."],
        rows=[],
        answers=[],
        topics=[],
        curves=[],
        commands=[],
        roc=[Curve(row.recipe, "accepted", row.false_accepts_curve, row.true_accepts_curve)],
        printed=as_table(row),
    )


def _table(judged: Sequence[IdentityRow]) -> Table:
    lines = []
    for row in judged:
        cmc = Figure(row.cmc_1, row.chance_cmc_1, row.cmc_1_low, row.cmc_1_high)
        precision = Figure(row.mean_average_precision, row.chance_average_precision, row.low, row.high)
        name = f"{row.recipe}{', re-ranked' * row.reranked}"
        lines.append((name, cmc, f"{row.cmc_5:.1f}", f"{row.cmc_10:.1f}", precision, f"{row.minp:.1f}"))
    note = "Per cent, with 95 % intervals over identities. The mark is chance."
    return Table("Found again", note, ("by", "CMC-1", "CMC-5", "CMC-10", "mAP", "mINP"), lines)


def _curve(row: IdentityRow, found: Found) -> Curve:
    ranks = range(1, min(NUM_RANKS, row.num_gallery) + 1)
    name = f"{row.recipe}{', re-ranked' * row.reranked}"
    return Curve(name, "CMC", ranks, [100 * float(np.mean(found.first <= rank)) for rank in ranks])


def _neighbours(source: ShardSet, ids: np.ndarray, rows: np.ndarray, protocol: Protocol, found: Found) -> list[Neighbours]:
    """Queries of the lowest average precision, and some of all, evenly drawn."""
    hardest = np.argsort(found.precision, kind="stable")[:NUM_SHOWN]
    some = np.unique(np.linspace(0, len(found) - 1, NUM_SHOWN).astype(int))
    units, cameras = unit(rows), protocol.pictures.cameras

    def people(places: np.ndarray) -> Identities:
        return Identities(protocol.pictures.identities[places], None if cameras is None else cameras[places])

    def named(place: int) -> str:
        number = int(protocol.pictures.identities[place])
        return protocol.names[number] if number >= 0 else source.key(int(ids[place]))

    def small(place: int, text: str) -> Picture:
        return Picture(small_picture(source, int(ids[place])), text)

    def shown(number: int) -> NeighboursOf:
        query = int(np.searchsorted(ids, found.ids[number]))
        own = np.array([int(np.flatnonzero(protocol.gallery == query)[0])]) if cameras is None and query in protocol.gallery else None
        relevant, ranked = identity_masks(people(np.array([query])), people(protocol.gallery), own)
        cosines = np.where(ranked[0], units[protocol.gallery] @ units[query], -np.inf)
        nearest = np.argsort(-cosines, kind="stable")[: min(NUM_NEAREST, int(ranked.sum()))]
        right = np.flatnonzero(relevant[0][nearest])
        return NeighboursOf(
            small(query, named(query)),
            [small(int(protocol.gallery[at]), f"{named(int(protocol.gallery[at]))} {cosines[at]:.2f}") for at in nearest.tolist()],
            int(right[0]) if len(right) else None,
            f"{named(query)}: the first of {found.num_relevant[number]} matches is number {found.first[number]}",
        )

    return [
        Neighbours(f"The hardest of {len(found):,} queries", [shown(number) for number in hardest.tolist()]),
        Neighbours("Some of all", [shown(number) for number in some.tolist()]),
    ]
