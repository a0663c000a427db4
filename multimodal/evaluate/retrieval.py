"""Text to image retrieval: each pair's own text looks for its own picture among the pictures of one part of a shard set.

multimodal evaluate --store runs/demo/wordvec/store --shards runs/demo/shards/fluent --part test
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.metrics import average_precision, chance_recall_at, interval, ranks, recall_at
from multimodal.search.store import Store
from multimodal.shards import Part, ShardSet, Split

_KEYS = {
    "recall_1": "R@1",
    "recall_5": "R@5",
    "recall_10": "R@10",
    "mean_average_precision": "mAP",
    "chance_recall_10": "chance_R@10",
    "low": "R@10_low",
    "high": "R@10_high",
}
"""Field -> its key in results.json, where that differs."""


@dataclass(frozen=True, slots=True)
class RetrievalRow:
    """One line of a table of figures. Shares are in per cent, as `as_json` writes them.

    low, high: the 95 % bootstrap interval over queries of R@10.
    control: whether the run was trained with texts shuffled between pictures, so that it should stay at chance.
    direction: what looks for what, "text->image" or "image->text". num_queries: how many looked; None: as many as there are pairs.
    trunk: "pretrained", or "random" where the trunk's weights were drawn and never trained.
    """

    recipe: str
    family: str
    gallery: str
    num_pairs: int
    recall_1: float
    recall_5: float
    recall_10: float
    median_rank: float
    mean_average_precision: float
    chance_recall_10: float
    low: float
    high: float
    seed: int
    control: bool
    direction: str = "text->image"
    num_queries: int | None = None
    trunk: str = "pretrained"

    def as_json(self) -> dict[str, Any]:
        """By the keys that results.json uses."""
        return {_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RetrievalRow:
        """The way back from `as_json`; a field that has a default may be absent."""
        keys = {field.name: _KEYS.get(field.name, field.name) for field in fields(cls)}
        return cls(**{name: values[key] for name, key in keys.items() if key in values})

    @classmethod
    def of(cls, first: np.ndarray, recipe: str, family: str, gallery: str, seed: int = 0, control: bool = False) -> RetrievalRow:
        """From the 1-based ranks (n,) of n pairs searched among themselves."""
        low, high = interval(first <= 10)
        return cls(
            recipe=recipe,
            family=family,
            gallery=gallery,
            num_pairs=len(first),
            recall_1=_per_cent(recall_at(first, 1)),
            recall_5=_per_cent(recall_at(first, 5)),
            recall_10=_per_cent(recall_at(first, 10)),
            median_rank=float(np.median(first)),
            mean_average_precision=_per_cent(average_precision(first)),
            chance_recall_10=_per_cent(chance_recall_at(len(first), 10)),
            low=_per_cent(low),
            high=_per_cent(high),
            seed=seed,
            control=control,
            num_queries=len(first),
        )


def text_to_image_ranks(store: Store, shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    """The rank (m,) of each pair's picture among the pictures of `ids` (n,) for the query `texts[0]`.

    The pictures' rows are the store's, the query goes through the store's own text space. The m pairs are those of `judged_ids`.
    """
    ids = judged_ids(store, shards, ids)
    queries = store.query_space.embed([shards.texts(int(id))[0] for id in ids])
    return ranks(queries, store.take(ids), relevant=np.arange(len(ids)))


def judged_ids(store: Store, shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    """Those of ids (n,) whose picture is in the store, (m,) in their order: the gallery that their texts are looked up in.

    A picture that could not be read is named in the store's ledger, and is no part of the gallery.
    InputError: the store was made of other shards, or of another part of them, or there are fewer than 2 pairs.
    """
    unseen = [shard.name for shard in shards.shards if shard.fingerprint not in set(store.sources.values())]
    if unseen:
        raise InputError(
            f"{store.path}: has no pictures of {shards.path}'s shard {unseen[0]}. Run: multimodal index --shards {shards.path}"
        )
    if len(ids) < 2:
        raise InputError(
            f"{shards.path}: {len(ids)} pairs in this part; retrieval needs at least 2. Which splits its {len(shards)} pairs came with: "
            f"multimodal shards stats {shards.path}"
        )
    num_asked = len(ids)
    ids = ids[np.isin(ids, store.ids)]
    if len(ids) < 2:
        raise InputError(
            f"{store.path}: holds {len(ids)} of the {num_asked} pictures of this part of {shards.path}. Index that part, "
            "or give the --part and --split that the store was made with"
        )
    for id, record in zip(ids.tolist(), store.records(ids, ["name"]), strict=True):
        if record["name"] != shards.names[id]:
            raise InputError(
                f"{store.path}: picture {id} is {record['name']} there and {shards.names[id]} in {shards.path}, whose shards have changed "
                "places since. Make the store again"
            )
    return ids


def evaluate(
    store: Path,
    shards: Path,
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    gallery: str = "unseen",
    recipe: str | None = None,
    control: bool = False,
    output: Path | None = None,
) -> RetrievalRow:
    """Look every pair up by its own text among the pictures of its part, and print recall beside chance.

    Args:
        store: made by `multimodal index` from the shard set.
        shards: the shard set whose texts are the queries.
        part: which part of it; pairs of "test" were held out of everything fitted.
        split: how the parts were cut; the one that training used.
        gallery: what to call these pictures in the table.
        recipe: what to call the run in the table; the family's name by default.
        control: mark the row as a control, whose texts were shuffled between pictures in training.
        output: also write the row into this JSON file.
    """
    opened, source = Store(store), ShardSet(shards)
    ids = split.ids(source, part)
    first = text_to_image_ranks(opened, source, ids)
    if len(first) < len(ids):
        print(f"{store}: {len(ids) - len(first)} of {len(ids)} pictures are not in it; the others are searched", file=sys.stderr)
    row = RetrievalRow.of(first, recipe or opened.family, opened.family, gallery, split.seed, control)
    if output is not None:
        with atomic_write(output) as file:
            file.write((json.dumps([row.as_json()], indent=1) + "\n").encode())
    print(as_table([row]))
    return row


def as_table(rows: list[RetrievalRow]) -> str:
    """Rows of equal recipe, gallery and control become one line: the mean over seeds, and the spread of R@10; of one seed, the interval."""
    spread = "seeds" if len({row.seed for row in rows}) > 1 else "95 % interval"
    width = max((len(row.recipe) for row in rows), default=0) + len(" shuffled ")
    lines = [
        f"{'recipe':<{width}}{'gallery':<9}{'pairs':>6}{'R@1':>7}{'R@5':>7}{'R@10':>7}  {spread:<17}{'chance':>7}{'median':>8}{'mAP':>7}"
    ]
    groups: dict[tuple[str, str, bool], list[RetrievalRow]] = {}
    for row in rows:
        groups.setdefault((row.recipe, row.gallery, row.control), []).append(row)
    for (recipe, gallery, control), members in groups.items():
        tens = [row.recall_10 for row in members]
        between = f"{min(tens):.1f}..{max(tens):.1f} of {len(tens)}" if len(tens) > 1 else f"[{members[0].low:.1f}, {members[0].high:.1f}]"
        lines.append(
            f"{recipe + (' shuffled' if control else ''):<{width}}{gallery:<9}{np.mean([row.num_pairs for row in members]):>6.0f}"
            f"{np.mean([row.recall_1 for row in members]):>7.1f}{np.mean([row.recall_5 for row in members]):>7.1f}{np.mean(tens):>7.1f}"
            f"  {between:<17}{np.mean([row.chance_recall_10 for row in members]):>7.1f}"
            f"{np.mean([row.median_rank for row in members]):>8.1f}{np.mean([row.mean_average_precision for row in members]):>7.1f}"
        )
    return "\n".join(lines)


def _per_cent(share: float) -> float:
    return round(100 * share, 2)
