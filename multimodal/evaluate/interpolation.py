"""Both sides of a fine-tuning for weights between the base and the run: WiSE-FT (Wortsman et al., 2022), one line for each alpha.

    multimodal evaluate interpolation --base exports/base --export exports/tuned --shards data/mine --foreign data/flickr8k --html F.html

The own side is retrieval on the pairs that the run was tuned for; the other is what the base could do: retrieval on foreign pairs, or
zero-shot classification. The vectors are those of `multimodal export --interpolate BASE --alpha A`, without writing an export for each.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import nn

from multimodal.boxes import write_output
from multimodal.embed.class_texts import PLAIN, class_weights, judge, names_of, read_templates
from multimodal.embed.labelled import open_labelled
from multimodal.embed.pictures import as_batches, embed_pictures, pick_batch_size, pick_device
from multimodal.embed.stores import features_of
from multimodal.errors import InputError
from multimodal.evaluate.figures import FigureRow, align, groups_of, per_cent, write_rows
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Report, TradeOff
from multimodal.export.interpolation import Interpolation
from multimodal.export.model import Export, ExportNetwork, load_export
from multimodal.machine.progress import track
from multimodal.metrics import chance_recall_at, interval, kept, ranks, recall_at, trade_off
from multimodal.shards import Part, SetPath, ShardSet, Split, open_set
from multimodal.text import EncoderSpace, OpenClipSpace, ProjectedSpace, TextSpace
from multimodal.towers import Preprocessing

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class InterpolationRow(FigureRow):
    """One alpha, and both sides in per cent.

    alpha: the weight of the run. own, other: what is measured on each side. recall_1, recall_5, own_figure: R@1, R@5 and R@10 of the own
    pairs. other_figure: R@10 of the foreign pairs, or top-1 of the classes. Each of the two has a 95 % bootstrap interval over groups (low,
    high) and its chance level. kept: what is left of other_figure above chance, in per cent of the base's. trade_off: the weighted
    geometric mean of own_figure and kept.
    """

    alpha: float
    own: str
    num_own: int
    recall_1: float
    recall_5: float
    own_figure: float
    own_low: float
    own_high: float
    own_chance: float
    other: str
    num_other: int
    other_figure: float
    other_low: float
    other_high: float
    other_chance: float
    kept: float
    trade_off: float

    keys: ClassVar[Mapping[str, str]] = {"recall_1": "own_R@1", "recall_5": "own_R@5", "own_figure": "own_R@10"}


def evaluate(
    base: Path,
    export: Path,
    shards: SetPath,
    foreign: SetPath | None = None,
    classes: Path | None = None,
    part: Part = "test",
    foreign_part: Part = "test",
    split: Split = Split(),  # noqa: B008 (frozen)
    column: str | None = None,
    names: Path | None = None,
    templates: Path | None = None,
    alphas: list[float] = list(ALPHAS),  # noqa: B006 (never changed)
    weight: float = 0.5,
    output: Path | None = None,
    html: Path | None = None,
    batch_size: int | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    max_bad_share: float = 0.05,
    trust: Sequence[str] = (),
) -> list[InterpolationRow]:
    """Measure weights between a base and a run that was tuned from it (WiSE-FT): the run's own pairs against what the base could do.

    Weights are (1 - alpha) * the base's + alpha * the run's. A line for each alpha has R@10 of main texts among the own pictures, R@10 of
    the foreign pairs or the accuracy on the classes, and the trade-off that `multimodal fit` keeps the best checkpoint by. To keep one of
    them: `multimodal export --run R --interpolate BASE --alpha A`. Choose alpha on pairs that you do not report; 0.5 if you have none.

    Args:
        base: the export that the run began from.
        export: the export of the run.
        shards: the own pairs, a shard set that the run was tuned for.
        foreign: foreign pairs, a shard set that the base can search.
        classes: labelled pictures, a .npz or a folder, as in `multimodal evaluate zeroshot`; the train part of them is used.
        part: of the own pairs.
        foreign_part: of the foreign pairs.
        split: how pairs are split; must be as in training.
        column: a feature column of both sets, made by the exports' trunk: then only the heads run.
        names: a file with a name for each class, as in `multimodal evaluate zeroshot`.
        templates: a file with templates for the names, one a line.
        alphas: the weights of the run; 0, the base, is always measured.
        weight: of what is kept in the trade-off, from 0 to 1.
        output: also write the rows to this JSON file.
        html: also draw both sides on this page.
        batch_size: pictures in one batch; by default 8 on a CPU and 256 on an accelerator.
        num_threads: threads that decode pictures (and on a CPU run the network); by default one per core.
        device: cpu, cuda:0 ...; by default the accelerator if there is one.
        max_bad_share: fail if a larger share of the pictures cannot be read.
        trust: your own packages whose classes the exports name. Their code is run.
    """
    if foreign is None and classes is None:
        raise InputError("give what the base could do: --foreign SET, --classes DATA or both")
    if not 0 <= weight <= 1:
        raise InputError(f"--weight {weight}: must be from 0 to 1")
    ends = load_export(base, trust=trust), load_export(export, trust=trust)
    between = [Interpolation(ends[0], alpha) for alpha in sorted({0.0, *alphas})]
    reading = _Reading(ends, pick_device(device), batch_size, num_threads, max_bad_share)
    own = _Pairs("own pairs", open_set(shards), split, part, column, reading)
    others: list[_Pairs | _Classes] = []
    if foreign is not None:
        others.append(_Pairs("foreign pairs", open_set(foreign), split, foreign_part, column, reading))
    if classes is not None:
        others.append(_Classes(classes, split, names, templates, reading))
    rows: list[InterpolationRow] = []
    known: dict[str, _Known] = {}
    for one in track(between, "alphas", unit="alpha"):
        network = one.network(ends[1].network)
        with tempfile.TemporaryDirectory() as scratch:
            query = _remembering(one.query(ends[1].query, Path(scratch)), known, Path(scratch))
            ours = own.measure(network, query)
            for other in others:
                rows.append(_row(one.alpha, ours, other.measure(network, query), rows, weight))
    if output is not None:
        write_rows(output, rows)
    printed = as_table(rows)
    if html is not None:
        with write_output(html) as file:
            file.write(page(rows, printed).encode())
        print(f"{html}: written", file=sys.stderr)
    print(printed)
    return rows


@dataclass(frozen=True, slots=True)
class _Side:
    """What weights do on one side, in per cent, with a 95 % interval. recall_1, recall_5: of pairs."""

    name: str
    num: int
    figure: float
    low: float
    high: float
    chance: float
    recall_1: float = 0.0
    recall_5: float = 0.0


def _row(alpha: float, own: _Side, other: _Side, before: Sequence[InterpolationRow], weight: float) -> InterpolationRow:
    """before: the rows of smaller alphas, the base's first."""
    start = next((row.other_figure for row in before if row.other == other.name), other.figure)
    if start <= other.chance:
        raise InputError(f"{other.name}: the base scores {start:.1f}, no better than chance ({other.chance:.1f}): it has nothing to lose")
    left = kept(other.figure, start, other.chance)
    return InterpolationRow(
        alpha=alpha,
        own=own.name,
        num_own=own.num,
        recall_1=own.recall_1,
        recall_5=own.recall_5,
        own_figure=own.figure,
        own_low=own.low,
        own_high=own.high,
        own_chance=own.chance,
        other=other.name,
        num_other=other.num,
        other_figure=other.figure,
        other_low=other.low,
        other_high=other.high,
        other_chance=other.chance,
        kept=round(left, 2),
        trade_off=round(trade_off(own.figure, left, weight), 2),
    )


# -- the two sides -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """How pictures are read, and what for. ends: the exports of alpha 0 and 1."""

    ends: tuple[Export, Export]
    device: torch.device
    batch_size: int | None
    num_threads: int | None
    max_bad_share: float

    @property
    def has_one_trunk(self) -> bool:
        """Whether the trunk was frozen in the run: its features are most of the work, and the same for every alpha."""
        base, run = self.ends
        return base.network.trunk.fingerprint == run.network.trunk.fingerprint

    def embed(self, name: str, read: Callable[[int], bytes], ids: np.ndarray, network: nn.Module, of: Preprocessing) -> np.ndarray:
        """(n, d) float32; NaN for pictures that cannot be read. InputError if they are too many."""
        size = pick_batch_size(self.batch_size, self.device)
        embedded = embed_pictures(read, as_batches(ids, size), network.to(self.device), of, self.num_threads)
        done = track(embedded, f"embedding {name}", unit="picture", total=len(ids), weight=size)
        rows = np.concatenate([batch.rows for batch in done])
        self.check(name, rows)
        return rows

    def check(self, name: str, rows: np.ndarray) -> None:
        num_bad = int((~np.isfinite(rows).all(axis=1)).sum())
        if num_bad > self.max_bad_share * len(rows):
            raise InputError(f"{name}: {num_bad} of {len(rows)} pictures cannot be read, more than --max-bad-share {self.max_bad_share}")


def _through(network: ExportNetwork, features: np.ndarray) -> np.ndarray:
    """features (n, d) of the network's trunk, NaN for pictures that cannot be read -> (n, e)."""
    readable = np.isfinite(features).all(axis=1)
    with torch.inference_mode():
        rows = network.of_features(torch.from_numpy(np.where(readable[:, None], features, 0)).float().to(network.trunk.mean.device))
    return np.where(readable[:, None], rows.float().cpu().numpy(), np.nan)


class _Pairs:
    """Main texts that look for their own pictures among all of a part."""

    def __init__(self, what: str, shards: ShardSet, split: Split, part: Part, column: str | None, reading: _Reading) -> None:
        self.name, self.shards, self.reading = f"{what}: {shards.name}, {part}", shards, reading
        self.ids = split.ids(shards, part)
        if len({shards.groups[id] for id in self.ids.tolist()}) < 2:
            raise InputError(f"{shards.place}: {len(self.ids)} pairs are in part {part!r}, and 2 groups are needed. Choose another part")
        shards.need_texts(self.ids, "retrieval by text")
        self.texts = [shards.texts(id)[0] for id in self.ids.tolist()]
        self.features: np.ndarray | None = None
        if column is not None:
            self.features = [features_of(end, shards, column) for end in reading.ends][0].take(self.ids)
            reading.check(self.name, self.features)
        elif reading.has_one_trunk:
            self.features = self._embed(reading.ends[0].network.trunk)

    def measure(self, network: ExportNetwork, query: TextSpace) -> _Side:
        image = self._embed(network) if self.features is None else _through(network, self.features)
        readable = np.flatnonzero(np.isfinite(image).all(axis=1))
        first = ranks(query.embed([self.texts[row] for row in readable.tolist()]), image[readable], np.arange(len(readable)))
        within = interval(first <= 10, groups_of(self.shards, self.ids[readable]))
        one, five, ten = (per_cent(recall_at(first, k)) for k in (1, 5, 10))
        chance = per_cent(chance_recall_at(len(first), 10))
        return _Side(self.name, len(first), ten, per_cent(within.low), per_cent(within.high), chance, one, five)

    def _embed(self, network: nn.Module) -> np.ndarray:
        return self.reading.embed(self.shards.name, self.shards.image_bytes, self.ids, network, self.reading.ends[1].preprocessing)


class _Classes:
    """Labelled pictures whose class should be the nearest: those of the train part, so that the test part can be reported."""

    def __init__(self, data: Path, split: Split, names: Path | None, templates: Path | None, reading: _Reading) -> None:
        self.pictures, self.reading = open_labelled(data, split), reading
        self.name = f"zero-shot: {data.stem}"
        self.ids = np.flatnonzero(~self.pictures.is_test)
        self.names = names_of(self.pictures.classes, names)
        self.templates = PLAIN if templates is None else read_templates(templates)
        self.features = self._embed(reading.ends[0].network.trunk) if reading.has_one_trunk else None

    def measure(self, network: ExportNetwork, query: TextSpace) -> _Side:
        image = self._embed(network) if self.features is None else _through(network, self.features)
        readable = np.isfinite(image).all(axis=1)
        labels = self.pictures.labels[self.ids[readable]]
        found = judge(image[readable], class_weights(query.embed, self.names, self.templates), labels)
        within, chance = interval(found.right, found.groups), np.bincount(labels).max() / len(labels)
        ends = per_cent(within.low), per_cent(within.high)
        return _Side(self.name, len(found), per_cent(float(found.right.mean())), *ends, per_cent(float(chance)))

    def _embed(self, network: nn.Module) -> np.ndarray:
        whole = replace(self.reading.ends[1].preprocessing, crop_share=1.0, interpolation="bicubic")  # as `embed_labelled`
        return self.reading.embed(self.name, self.pictures.read, self.ids, network, whole)


class _Known:
    """A text space that embeds each text once."""

    family: ClassVar[str] = "contrastive"

    def __init__(self, space: TextSpace) -> None:
        self.space = space
        self.rows: dict[str, np.ndarray] = {}

    @property
    def dim(self) -> int:
        return self.space.dim

    @property
    def fingerprint(self) -> str:
        return self.space.fingerprint

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        self.rows.update(zip(new, self.space.embed(new), strict=True) if new else ())
        return np.stack([self.rows[text] for text in texts])

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        return self.space.unknown_words(text)

    def save(self, path: Path) -> None:
        self.space.save(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        raise NotImplementedError("it lives as long as a command")


def _remembering(space: TextSpace, known: dict[str, _Known], scratch: Path) -> TextSpace:
    """The same space, in which what lies below its layers embeds each text once for all alphas.

    scratch: the folder of one alpha; a tower with weights in it was trained, and is another one for each alpha.
    """
    if isinstance(space, ProjectedSpace):
        return ProjectedSpace(_remembering(space.space, known, scratch), space.layers)
    if isinstance(space, EncoderSpace) and space.projection is not None:
        return ProjectedSpace(_remembering(space.without_projection(), known, scratch), [space.projection])
    if not isinstance(space, EncoderSpace | OpenClipSpace):
        return known.setdefault(space.fingerprint, _Known(space))
    return space if space.folder.is_relative_to(scratch) else known.setdefault(str(space.folder), _Known(space))


# -- tables and the page -------------------------------------------------------------------------------------------------------------------


def as_table(rows: Sequence[InterpolationRow]) -> str:
    """The rows as text, a block for each thing on the other side."""
    blocks = []
    for other in dict.fromkeys(row.other for row in rows):
        lines = [row for row in rows if row.other == other]
        header = ["alpha", "own R@1", "R@5", "R@10", "95 % interval", "other", "95 % interval", "kept", "trade-off"]
        cells = [
            (
                *(f"{row.alpha:g}", f"{row.recall_1:.1f}", f"{row.recall_5:.1f}", f"{row.own_figure:.1f}"),
                *(f"[{row.own_low:.1f}, {row.own_high:.1f}]", f"{row.other_figure:.1f}", f"[{row.other_low:.1f}, {row.other_high:.1f}]"),
                *(f"{row.kept:.1f}", f"{row.trade_off:.1f}"),
            )
            for row in lines
        ]
        blocks.append(f"{_note(lines[0])}\n{align(header, cells, num_left=1)}")
    return "\n\n".join(blocks)


def _note(row: InterpolationRow) -> str:
    return (
        f"own: R@10 of {row.own}, {row.num_own} pictures, chance {row.own_chance:.1f}; "
        f"other: {_figure_of(row.other)}, {row.num_other} pictures, chance {row.other_chance:.1f}"
    )


def _figure_of(other: str) -> str:
    return f"{'top-1' if other.startswith('zero-shot') else 'R@10'} of {other}"


def page(rows: Sequence[InterpolationRow], printed: str, commands: Sequence[str] = ()) -> str:
    """The rows as a page: for each thing on the other side a chart with a point for each alpha, and the table."""
    return render(
        Report(
            title="Between a base and its fine-tuned run",
            facts=["Weights are (1 - alpha) times the base's plus alpha times the run's (WiSE-FT, Wortsman et al., 2022)."],
            rows=[],
            answers=[],
            topics=[],
            curves=[],
            commands=commands,
            trade_offs=trade_offs_of(rows),
            printed=printed,
        )
    )


def trade_offs_of(rows: Sequence[InterpolationRow], title: str = "") -> list[TradeOff]:
    """The charts of the rows, with a point for each alpha. title: in front of what is measured."""
    charts = []
    for other in dict.fromkeys(row.other for row in rows):
        lines = [row for row in rows if row.other == other]
        one = lines[0]
        points = [(f"{row.alpha:g}", row.own_figure, row.other_figure) for row in lines]
        sides = f"R@10 of {one.own}", _figure_of(other)
        charts.append(TradeOff(title, *sides, points, one.own_chance, one.other_chance, _note(one)))
    return charts
