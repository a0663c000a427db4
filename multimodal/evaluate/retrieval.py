"""Retrieval of pairs: each text is a query for its own picture among the pictures of a split, and each picture for its text.

    multimodal evaluate retrieval --store runs/demo/wordvec/store --shards runs/demo/shards/fluent --part test
    multimodal evaluate retrieval --store S --shards flickr8k --part dev --queries all       # five captions per photo: 5,000 queries

If pictures have several texts, text->image asks with each of them, and image->text counts the best of the picture's own, as is usual for
Flickr8k (Hodosh, Young and Hockenmaier, 2013) and COCO (Karpathy and Fei-Fei, 2015). Chance is that of a random order. The texts of one
picture are near each other, so the first 10 texts belong to fewer pictures: a run that learned nothing may score below chance in
image->text.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from multimodal.evaluate.figures import FigureRow, Found, Line, align, groups_of, judged_ids, lines_of, look_up, per_cent, write_figures
from multimodal.metrics import chance_recall_at, interval, recall_at, unit
from multimodal.search.store import Store
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.text.space import report_cut

Direction = Literal["text->image", "image->text"]
Queries = Literal["main", "all"]


@dataclass(frozen=True, slots=True)
class RetrievalRow(FigureRow):
    """One line of a table of figures. Shares are in per cent, as `as_json` writes them.

    trunk: the weights of the run's trunk, such as "imagenet" or "random".
    num_pairs: the number of pictures. num_queries: the number of their texts in text->image, of pictures in image->text.
    low, high: the 95 % bootstrap interval of R@10 over the queries, groups of pairs resampled as wholes.
    control: whether the run was trained with texts shuffled across pictures, so that it should score at chance.
    """

    recipe: str
    family: str
    trunk: str
    gallery: str
    direction: Direction
    num_pairs: int
    num_queries: int
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

    keys: ClassVar[Mapping[str, str]] = {
        "recall_1": "R@1",
        "recall_5": "R@5",
        "recall_10": "R@10",
        "mean_average_precision": "mAP",
        "chance_recall_10": "chance_R@10",
        "low": "R@10_low",
        "high": "R@10_high",
    }

    @classmethod
    def of(
        cls,
        found: Found,
        recipe: str,
        family: str,
        gallery: str,
        trunk: str = "pretrained",
        seed: int = 0,
        control: bool = False,
    ) -> RetrievalRow:
        """From what the queries of one direction found; see `retrieve`."""
        low, high = interval(found.first <= 10, found.groups)
        return cls(
            recipe=recipe,
            family=family,
            trunk=trunk,
            gallery=gallery,
            direction=found.direction,  # type: ignore[arg-type]
            num_pairs=len(np.unique(found.ids)),
            num_queries=len(found),
            recall_1=per_cent(recall_at(found.first, 1)),
            recall_5=per_cent(recall_at(found.first, 5)),
            recall_10=per_cent(recall_at(found.first, 10)),
            median_rank=float(np.median(found.first)),
            mean_average_precision=per_cent(float(found.precision.mean())),
            chance_recall_10=per_cent(chance_recall_at(found.num_gallery, 10, found.num_relevant)),
            low=per_cent(low),
            high=per_cent(high),
            seed=seed,
            control=control,
        )


def retrieve(
    store: Store,
    shards: ShardSet,
    ids: np.ndarray,
    queries: Queries = "main",
    directions: Sequence[Direction] = ("text->image", "image->text"),
) -> list[Found]:
    """What the texts of the pairs `ids` (n,) find among their pictures, and the pictures among the texts; one `Found` per direction.

    The pictures' rows are the store's; the texts are embedded in the store's text space; the nearest by cosine come first. Pairs whose
    picture is not in the store (see `judged_ids`) are left out. queries: the main text of each pair, or all its texts; in image->text these
    are the gallery, and all texts of a picture are relevant to it. Equal texts of two pictures are a tie, which counts against both.
    InputError: as `judged_ids`, or a pair has no text.
    """
    ids = judged_ids(store, shards, ids)
    shards.need_texts(ids, "retrieval by text")
    texts = [shards.texts(id)[: None if queries == "all" else 1] for id in ids.tolist()]
    owners = np.repeat(np.arange(len(ids)), [len(of_one) for of_one in texts])  # (t,) the picture of each text
    every = [text for of_one in texts for text in of_one]
    report_cut(store.query_space, every)
    text_rows = unit(store.query_space.embed(every))
    image_rows, groups = unit(store.take(ids)), groups_of(shards, ids)
    found = []
    for direction in dict.fromkeys(directions):  # each once
        if direction == "text->image":
            found.append(look_up(direction, text_rows, image_rows, owners, np.arange(len(ids)), ids[owners], groups[owners]))
        else:
            found.append(look_up(direction, image_rows, text_rows, np.arange(len(ids)), owners, ids, groups))
    return found


def evaluate(
    store: Path,
    shards: SetPath,
    part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    queries: Queries = "main",
    directions: Sequence[Direction] = ("text->image", "image->text"),
    gallery: str = "unseen",
    recipe: str | None = None,
    trunk: str = "pretrained",
    control: bool = False,
    output: Path | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust: Sequence[str] = (),
) -> list[RetrievalRow]:
    """Retrieve every pair among the pairs of its split, by its text and by its picture, and print recall and its chance level.

    Args:
        store: made by `multimodal index` from the shard set.
        shards: the shard set, a folder or a URL, whose texts are the queries.
        part: which split to evaluate; pairs of "test" were held out of all fitting.
        split: how pairs are split; must be as in training.
        queries: main: the main text of each pair; all: all its texts.
        directions: "text->image", "image->text" or both, one row each; quote them, because > is special in a shell.
        gallery: the name of these pictures in the table.
        recipe: the name of the run in the table; by default its family.
        trunk: the name of the trunk's weights in the table, such as imagenet or random.
        control: mark the rows as a control, trained with texts shuffled across pictures.
        output: also write the rows to this JSON file, and what each query found to a .queries.parquet beside it.
        cache: for a set at a URL, the folder for its tars and columns; by default one in the user's cache folder.
        cache_bytes: the most bytes that tars may take there; by default 20 GiB.
        trust: your own packages whose classes the store names. Their code is run; without this option, nothing is imported because a
            folder names it.
    """
    opened, source = Store(store, trust=trust), open_set(shards, cache, cache_bytes)
    ids = split.ids(source, part)
    found = retrieve(opened, source, ids, queries, directions)
    rows = [RetrievalRow.of(one, recipe or opened.family, opened.family, gallery, trunk, split.seed, control) for one in found]
    if any(row.num_pairs < len(ids) for row in rows):
        missing = len(ids) - rows[0].num_pairs
        print(f"{store}: lacks {missing} of {len(ids)} pictures, which are left out", file=sys.stderr)
    if output is not None:
        write_figures(output, [row.as_json() for row in rows], found)
    print(as_table(rows, found))
    return rows


def as_table(rows: Sequence[RetrievalRow], found: Sequence[Found]) -> str:
    """The rows as text; rows that differ only in seed and figures become one line.

    found: the query results of each row, from which the interval of a line is computed. A line of several seeds shows their mean, the
    smallest and largest R@10, and the 95 % interval of the mean R@10 (see `lines_of`): a control whose interval contains chance is at
    chance.
    """
    header = ["recipe", "trunk", "gallery", "direction", "queries", "pictures", "R@1", "R@5", "R@10"]
    header += ["95 % interval", "seeds", "chance", "median", "mAP"]
    return align(header, [_cells(line) for line in lines_of(rows, found, _without_seed, lambda one: one.first <= 10)], num_left=4)


def _cells(line: Line[RetrievalRow]) -> list[str]:
    row = line.rows[0]
    return [
        row.recipe + (" shuffled" if row.control else ""),
        row.trunk,
        row.gallery,
        row.direction,
        f"{line.mean('num_queries'):.0f}",
        f"{line.mean('num_pairs'):.0f}",
        f"{line.mean('recall_1'):.1f}",
        f"{line.mean('recall_5'):.1f}",
        f"{line.mean('recall_10'):.1f}",
        f"[{line.interval.low:.1f}, {line.interval.high:.1f}]",
        line.between("recall_10"),
        f"{line.mean('chance_recall_10'):.1f}",
        f"{line.mean('median_rank'):.1f}",
        f"{line.mean('mean_average_precision'):.1f}",
    ]


def _without_seed(row: RetrievalRow) -> tuple[str, str, str, str, bool]:
    return row.recipe, row.trunk, row.gallery, row.direction, row.control
