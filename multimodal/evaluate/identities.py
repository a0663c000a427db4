"""Re-identification: is a person, or a thing, found again among the pictures of other cameras? CMC, mAP and mINP.

    multimodal evaluate identities --export E --shards market --part test
    multimodal evaluate identities --store T --shards market --rerank

The protocol of Market-1501 (Zheng et al., 2015): pictures of the query's identity by its own camera are left out of the ranking, neither
right nor wrong. Queries are the pictures whose metadata has the `role` "query" or "both"; where no picture has a role, the first by name
of each identity in each camera. The gallery is every picture but those whose role is "query". A picture without an identity is wrong for
every query.

Without cameras, or with a single one, this is plain retrieval: the query itself is all that is left out, and without roles every picture
is a query.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from multimodal.embed.rows import vectors_of
from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, Found, Line, align, lines_of, per_cent, write_figures, write_rows
from multimodal.evaluate.identities_page import page_of_identities, page_of_pairs
from multimodal.evaluate.judged_pairs import PairsRow, judge_pairs
from multimodal.evaluate.judged_pairs import as_table as table_of_pairs
from multimodal.evaluate.page import write_page
from multimodal.metrics import chance_average_precision, chance_recall_at, interval, score_blocks, unit
from multimodal.metrics.identities import Identities, identity_figures, identity_masks
from multimodal.metrics.reranking import MOST, k_reciprocal
from multimodal.metrics.retrieval import Block
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.shards.judged import PAIR, read_places
from multimodal.shards.labels import in_order, label_of

QUERY, BOTH = "query", "both"
NUM_NAMED = 3
NUM_PERMUTATIONS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """Who asks and who is found, as places among n pictures.

    pictures: their identities, numbers from 0, and cameras; a picture of nobody has an identity below 0 of its own. queries: (q,), gallery:
    (g,), places. names: of the identities.
    """

    pictures: Identities
    queries: np.ndarray
    gallery: np.ndarray
    names: Sequence[str]

    @property
    def has_cameras(self) -> bool:
        return self.pictures.cameras is not None


@dataclass(frozen=True, slots=True, eq=False)
class Identified:
    """What the queries found; m of them have a match.

    found: first, precision and num_relevant of these. penalty: (m,) mINP of each. num_ranked: (m,) pictures that were ranked for each.
    without: (u,) places of the queries that have no match. permuted_cmc_1, permuted_map: with the identities of the gallery permuted.
    """

    found: Found
    penalty: np.ndarray
    num_ranked: np.ndarray
    without: np.ndarray
    permuted_cmc_1: float
    permuted_map: float


@dataclass(frozen=True, slots=True)
class IdentityRow(FigureRow):
    """One line of a table of figures. Shares are in per cent.

    num_queries: that have a match; num_without: that have none. cameras: how many; 0: unknown, or one alone, so that the query itself is
    all that is left out. cmc_k: queries with a match among the first k. minp: mean inverse negative penalty (Ye et al., 2021).
    low, high: the 95 % bootstrap interval of mAP, cmc_1_low, cmc_1_high: of CMC-1, identities resampled with all their queries.
    chance_*: of a random order, exactly. permuted_*: of the same rankings with the identities of the gallery permuted.
    reranked: by k-reciprocal neighbours.
    """

    recipe: str
    family: str
    gallery: str
    num_queries: int
    num_without: int
    num_gallery: int
    num_identities: int
    cameras: int
    cmc_1: float
    cmc_5: float
    cmc_10: float
    mean_average_precision: float
    minp: float
    low: float
    high: float
    cmc_1_low: float
    cmc_1_high: float
    chance_cmc_1: float
    chance_average_precision: float
    permuted_cmc_1: float
    permuted_average_precision: float
    reranked: bool
    seed: int

    keys: ClassVar[Mapping[str, str]] = {
        "cmc_1": "CMC-1",
        "cmc_5": "CMC-5",
        "cmc_10": "CMC-10",
        "mean_average_precision": "mAP",
        "minp": "mINP",
        "low": "mAP_low",
        "high": "mAP_high",
        "cmc_1_low": "CMC-1_low",
        "cmc_1_high": "CMC-1_high",
        "chance_cmc_1": "chance_CMC-1",
        "chance_average_precision": "chance_mAP",
        "permuted_cmc_1": "permuted_CMC-1",
        "permuted_average_precision": "permuted_mAP",
    }

    @classmethod
    def of(
        cls, judged: Identified, protocol: Protocol, recipe: str, family: str, gallery: str, reranked: bool = False, seed: int = 0
    ) -> IdentityRow:
        """From what the queries found; see `identify`."""
        found = judged.found
        both, counts = np.unique(np.stack([judged.num_ranked, found.num_relevant]), axis=1, return_counts=True)
        by_chance = [(chance_recall_at(n, 1, r), chance_average_precision(n, r)) for n, r in both.T.tolist()]
        chance_cmc_1, chance_map = np.average(by_chance, axis=0, weights=counts).tolist()
        of_map, of_cmc = interval(found.precision, found.groups), interval(found.first <= 1, found.groups)
        cameras = protocol.pictures.cameras
        return cls(
            recipe=recipe,
            family=family,
            gallery=gallery,
            num_queries=len(found),
            num_without=len(judged.without),
            num_gallery=found.num_gallery,
            num_identities=len(np.unique(found.groups)),
            cameras=0 if cameras is None else len(np.unique(cameras)),
            **{f"cmc_{k}": per_cent(float(np.mean(found.first <= k))) for k in (1, 5, 10)},
            mean_average_precision=per_cent(float(found.precision.mean())),
            minp=per_cent(float(judged.penalty.mean())),
            low=per_cent(of_map.low),
            high=per_cent(of_map.high),
            cmc_1_low=per_cent(of_cmc.low),
            cmc_1_high=per_cent(of_cmc.high),
            chance_cmc_1=per_cent(chance_cmc_1),
            chance_average_precision=per_cent(chance_map),
            permuted_cmc_1=per_cent(judged.permuted_cmc_1),
            permuted_average_precision=per_cent(judged.permuted_map),
            reranked=reranked,
            seed=seed,
        )


def evaluate(
    shards: SetPath,
    export: str | Path | None = None,
    store: Path | None = None,
    identity: str = "identity",
    camera: str | None = "camera",
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    rerank: bool = False,
    pairs: Path | None = None,
    gallery: str | None = None,
    recipe: str | None = None,
    output: Path | None = None,
    html: Path | None = None,
    column: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> list[IdentityRow] | list[PairsRow]:
    """Look for each query's identity among the pictures of other cameras, and print CMC, mAP and mINP beside chance.

    multimodal evaluate identities --export E --shards market --part test
    multimodal evaluate identities --export E --shards market --pairs judged.csv

    Args:
        shards: the shard set, a folder or a URL.
        export: the model, a folder or hf://user/name, which is run on the pictures.
        store: instead of an export, the store that holds the pictures' vectors.
        identity: the name in the pairs' metadata of who or what a picture shows. A picture without one is wrong for every query.
        camera: the name in the metadata of what took it; null: do not look at cameras.
        part: which part of the set; "test" was held out from all training.
        split: how the set is split where it has no split of its own; as in training.
        rerank: add a line with rankings improved by k-reciprocal neighbours (Zhong et al., 2017, with their k1 = 20, k2 = 6, lambda = 0.3).
        pairs: instead of identities, a CSV with the columns a, b and same: two pictures by name, key or id, and 1 or 0 (also yes and no).
            Printed are the area under the ROC curve, the equal error rate, and the share of same pairs that are accepted (TAR) where a
            tenth, a hundredth or a thousandth of the different ones is.
        gallery: the name of these pictures in the table; by default the set's.
        recipe: the name of the run in the table; by default the model's family.
        output: also write the rows to this JSON file, and what each query found to a .queries.parquet beside it.
        html: also write a page with the curve, the hardest queries with what was found for them, and the hardest triplets; its pictures are
            inside it.
        column: with export, a column of its trunk's features, which saves running it.
        batch_size: pictures in one batch; by default 8 of 224 pixels on a CPU, or more smaller ones, and 256 on an accelerator.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
        trust: your own packages whose classes the export or the store names. Their code is run.
    """
    source = open_set(shards, cache, cache_bytes)
    ids = split.ids(source, part)
    if not len(ids):
        raise InputError(f"{source.place}: no pair is in {part!r}. Choose another --part or --split")
    if pairs is not None:
        if rerank:
            raise InputError("--rerank improves rankings, and --pairs has none. Leave it out")
        of_pairs, places, same = read_places(pairs, source, ids, PAIR)
        vectors = vectors_of(source, of_pairs, export, store, column, batch_size, device, trust)
        there = np.isin(of_pairs, vectors.ids)
        kept = there[places].all(axis=1)
        places = (np.cumsum(there) - 1)[places[kept]]
        row = judge_pairs(vectors.rows, places, same[kept], recipe or vectors.family, vectors.family, gallery or source.name)
        if output is not None:
            write_rows(output, [row])
        if html is not None:
            write_page(html, page_of_pairs(row))
        print(table_of_pairs(row))
        return [row]
    asked = protocol_of(source, ids, identity, camera)  # what is wrong with the set is said before its pictures are embedded
    if rerank and (num := len(asked.queries) + len(asked.gallery)) > MOST:
        raise InputError(f"--rerank compares all pictures with each other, {MOST:,} at most, and here are {num:,}. Leave it out")
    vectors = vectors_of(source, ids, export, store, column, batch_size, device, trust)
    protocol = protocol_of(source, vectors.ids, identity, camera)
    rows, every = [], []
    for reranked in (False, True) if rerank else (False,):
        judged = identify(vectors.rows, protocol, vectors.ids, reranked)
        rows.append(
            IdentityRow.of(judged, protocol, recipe or vectors.family, vectors.family, gallery or source.name, reranked, split.seed)
        )
        every.append(judged)
    _tell(protocol, every[0], source, vectors.ids, camera)
    if output is not None:
        write_figures(output, [row.as_json() for row in rows], [one.found for one in every])
    found = [one.found for one in every]
    printed = as_table(rows, found)
    if html is not None:
        write_page(html, page_of_identities(source, vectors.ids, vectors.rows, protocol, rows, found, identity, printed))
    print(printed)
    return rows


def protocol_of(source: ShardSet, ids: np.ndarray, identity: str = "identity", camera: str | None = "camera") -> Protocol:
    """Who asks and who is found, of the pairs ids (n,); see the module. InputError: no identity, or some pictures without a camera."""
    names, cameras, roles, reasons = [], [], [], {}
    for id in ids.tolist():
        metadata = source.record(id)["metadata"]
        names.append(_label(metadata, identity))
        cameras.append(None if camera is None else _label(metadata, camera))
        roles.append(metadata.get("role"))
        if names[-1] is None:
            reasons[id] = metadata
    if len(reasons) == len(ids):
        has = ", ".join(sorted(next(iter(reasons.values())))) or "nothing"
        raise InputError(f"{source.place}: no pair has {identity} in its metadata, which has {has}. Give its name: --identity NAME")
    if lacking := [id for id, name in zip(ids.tolist(), cameras, strict=True) if name is None]:
        if camera is not None and len(lacking) < len(ids):
            raise InputError(
                f"{source.place}: {len(lacking)} of {len(ids)} pictures have no {camera}, such as {source.key(lacking[0])}, so nothing "
                "says which ones to leave out. Add it to their metadata, or compare without cameras: --camera null"
            )
    known = in_order(names)
    numbers = {name: number for number, name in enumerate(known)}
    identities = np.array([-1 - place if name is None else numbers[name] for place, name in enumerate(names)])
    several = in_order(cameras)
    of_camera = {name: number for number, name in enumerate(several)}
    taken_by = np.array([of_camera[name] for name in cameras if name is not None]) if len(several) > 1 else None
    gallery = np.array([role != QUERY for role in roles])
    if any(role in (QUERY, BOTH) for role in roles):
        asks = np.array([role in (QUERY, BOTH) for role in roles]) & (identities >= 0)
    elif taken_by is None:
        asks = identities >= 0
    else:
        asks = np.zeros(len(ids), bool)
        seen: set[tuple[int, int]] = set()
        for place in sorted(range(len(ids)), key=lambda place: source.names[int(ids[place])]):
            key = int(identities[place]), int(taken_by[place])
            asks[place] = key[0] >= 0 and key not in seen
            seen.add(key)
    return Protocol(Identities(identities, taken_by), np.flatnonzero(asks), np.flatnonzero(gallery), known)


def identify(rows: np.ndarray, protocol: Protocol, ids: np.ndarray | None = None, reranked: bool = False) -> Identified:
    """Rank the gallery for each query by cosine. rows: (n, d) of the pictures, of any length; ids: (n,) theirs, for `Found`.

    InputError: no query has a match, or all that have one are of one identity.
    """
    ids = np.arange(len(rows)) if ids is None else ids
    identities = protocol.pictures.identities
    permuted = [identities.copy() for _ in range(NUM_PERMUTATIONS)]
    generator = np.random.default_rng(0)
    for one in permuted:
        one[protocol.gallery] = generator.permutation(identities[protocol.gallery])
    own, *others = _ranked(rows, protocol, [identities, *permuted], reranked)
    matched = protocol.queries[own.has_match]
    groups = identities[matched]
    if len(np.unique(groups)) < 2:
        raise InputError(
            f"{len(matched)} of {len(protocol.queries)} queries have a match in the gallery, of {len(np.unique(groups))} identities; "
            "figures with intervals need queries of two. Choose another --part, or look at the metadata with: multimodal shards cat"
        )
    found = Found(
        direction="picture->picture" + (" re-ranked" if reranked else ""),
        num_gallery=len(protocol.gallery),
        ids=ids[matched],
        groups=np.array([protocol.names[number] for number in groups.tolist()]),
        first=own.first,
        precision=own.precision,
        num_relevant=own.num_relevant,
    )
    return Identified(
        found,
        own.penalty,
        own.num_ranked,
        protocol.queries[~own.has_match],
        float(np.mean(np.concatenate([one.first <= 1 for one in others]))),
        float(np.mean(np.concatenate([one.precision for one in others]))),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """has_match: (q,) bool. Of the m queries that have one: see `Identified`."""

    has_match: np.ndarray
    first: np.ndarray
    precision: np.ndarray
    penalty: np.ndarray
    num_relevant: np.ndarray
    num_ranked: np.ndarray


def _ranked(rows: np.ndarray, protocol: Protocol, identities: Sequence[np.ndarray], reranked: bool) -> list[_Ranked]:
    """The figures of the same rankings by several assignments of identities (n,)."""
    queries, gallery, cameras = protocol.queries, protocol.gallery, protocol.pictures.cameras
    place = np.full(len(rows), -1)
    place[gallery] = np.arange(len(gallery))
    own = place[queries] if cameras is None else None
    units = unit(rows)
    blocks = [Block(0, -k_reciprocal(units[queries], units[gallery]))] if reranked else score_blocks(units[queries], units[gallery])
    parts: list[list[_Ranked]] = [[] for _ in identities]
    for start, scores in blocks:
        chosen = slice(start, start + len(scores))
        for of_one, assigned in zip(parts, identities, strict=True):
            asking, found = (
                Identities(assigned[places], None if cameras is None else cameras[places]) for places in (queries[chosen], gallery)
            )
            relevant, ranked = identity_masks(asking, found, None if own is None else own[chosen])
            of_one.append(_of_block(scores, relevant, ranked))
    return [_Ranked(*(np.concatenate([getattr(one, name) for one in of_one]) for name in _Ranked.__slots__)) for of_one in parts]


def _of_block(scores: np.ndarray, relevant: np.ndarray, ranked: np.ndarray) -> _Ranked:
    has_match = np.asarray(relevant.any(axis=1))
    if not has_match.any():
        return _Ranked(has_match, *(np.empty(0, kind) for kind in (np.int64, float, float, np.int64, np.int64)))
    figures = identity_figures(scores, relevant, ranked)
    counts = (relevant[has_match].sum(axis=1), ranked[has_match].sum(axis=1))
    return _Ranked(has_match, figures.first, figures.average_precision, figures.inverse_negative_penalty, *counts)


def as_table(rows: Sequence[IdentityRow], found: Sequence[Found]) -> str:
    """The rows as text; rows that differ only in seed and figures become one line. found: the query results of each row."""
    header = ["recipe", "pictures", "queries", "gallery", "identities", "CMC-1", "CMC-5", "CMC-10", "mAP", "95 % interval", "seeds", "mINP"]
    header += ["chance CMC-1", "chance mAP", "permuted CMC-1", "permuted mAP"]
    return align(header, [_cells(line) for line in lines_of(rows, found, _without_seed, lambda one: one.precision)], num_left=2)


def _cells(line: Line[IdentityRow]) -> list[str]:
    row = line.rows[0]
    counts = [f"{line.mean(name):.0f}" for name in ("num_queries", "num_gallery", "num_identities")]
    cmc = [f"{line.mean(f'cmc_{k}'):.1f}" for k in (1, 5, 10)]
    between = f"[{line.interval.low:.1f}, {line.interval.high:.1f}]"
    compared = ("chance_cmc_1", "chance_average_precision", "permuted_cmc_1", "permuted_average_precision")
    return [
        *(row.recipe + (" re-ranked" if row.reranked else ""), row.gallery, *counts, *cmc),
        *(f"{line.mean('mean_average_precision'):.1f}", between, line.between("mean_average_precision"), f"{line.mean('minp'):.1f}"),
        *(f"{line.mean(name):.1f}" for name in compared),
    ]


def _without_seed(row: IdentityRow) -> tuple[str, str, bool]:
    return row.recipe, row.gallery, row.reranked


def _tell(protocol: Protocol, judged: Identified, source: ShardSet, ids: np.ndarray, camera: str | None) -> None:
    """What the figures are of, on stderr, where that is not the whole protocol."""
    if not protocol.has_cameras:
        reason = "cameras are not looked at" if camera is None else f"all pictures have one {camera}, or none"
        print(f"{source.place}: {reason}, so these are figures of plain retrieval: each query among all other pictures", file=sys.stderr)
    if len(judged.without):
        named = ", ".join(source.key(id) for id in ids[judged.without[:NUM_NAMED]].tolist())
        print(
            f"{source.place}: {len(judged.without)} of {len(protocol.queries)} queries have no match in the gallery, such as {named}; no "
            "figure counts them",
            file=sys.stderr,
        )
    if len(nobody := np.flatnonzero(protocol.pictures.identities < 0)):
        print(f"{source.place}: {len(nobody)} of {len(ids)} pictures have no identity, and are wrong for every query", file=sys.stderr)


def _label(metadata: Mapping[str, Any], name: str) -> str | None:
    try:
        return label_of(metadata, name)
    except ValueError:
        return None
