"""A report as one HTML page with every picture inside: it opens anywhere, without a network.

Path("index.html").write_text(render(Report(title="demo", rows=rows, answers=answers, topics=topics, curves=curves, ...)))

This module prepares the content; the layout is in `multimodal/pages/report.html.jinja`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from multimodal.boxes import write_output
from multimodal.evaluate.charts import (
    MINED,
    hue,
    learning_chart,
    mining_chart,
    part_of_all,
    ranks_chart,
    roc_chart,
    trade_off_chart,
    training_chart,
)
from multimodal.evaluate.report import Answered, Curve, HeatMap, LearningCurve, Report, Scatter, Spread, spread_of
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.pages import render as render_page
from multimodal.pages import shorten
from multimodal.pages.both_sides import both_sides

SHOWN_CHARACTERS = 120
"""Characters shown of a text; hovering over it shows the rest."""
_CONTROLS = {
    "shuffled": "the same training with captions permuted across images. It should score at chance",
    "random trunk": "the same training on an untrained trunk",
}
_TASKS = {"text->image": "a picture by its own text", "image->text": "a text by its own picture"}


def render(report: Report) -> str:
    """The page as HTML text."""
    answers_to: dict[str, list[Answered]] = {}
    for one in report.answers:
        answers_to.setdefault(one.query, []).append(one)
    return render_page(
        "report.html.jinja",
        title=report.title,
        report=report,
        figures=_figures(report.rows),
        learning=_learning(report.learning),
        answers_to=answers_to,
        heat_maps=[_heat_map(one) for one in report.heat_maps],
        trade_offs=[(one, trade_off_chart(one)) for one in report.trade_offs],
        forgotten=[(one, both_sides(one.steps, one.curves, one.best)) for one in report.forgotten],
        scatters=_scatters(report.scatters),
        mining=[(one, mining_chart(one)) for one in report.mining],
        mined=MINED,
        cmc=ranks_chart(report.cmc) if report.cmc else None,
        roc=roc_chart(report.roc) if report.roc else None,
        training=[_Training(curve, training_chart(curve)) for curve in report.curves],
        hue=hue,
        shown_characters=SHOWN_CHARACTERS,
    )


def write_page(path: Path, report: Report) -> None:
    """Write the page to a file, which is reported on stderr."""
    with write_output(path) as file:
        file.write(render(report).encode())
    print(f"{path}: written", file=sys.stderr)


# -- figures -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Measured:
    """Means over the rows of one recipe in one direction, in per cent, and R@10 with its range."""

    family: str
    recall_1: float
    recall_5: float
    recall_10: Spread
    chance: float
    median_rank: float


@dataclass(frozen=True, slots=True)
class _Side:
    """One direction of one recipe; R@10 of each control. None if there are no rows."""

    measured: _Measured | None
    controls: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    num_pairs: float
    sides: Sequence[_Side]


@dataclass(frozen=True, slots=True)
class _Gallery:
    """asked: the number of queries in each direction, if the rows have it."""

    name: str
    asked: str
    lines: Sequence[_Line]


@dataclass(frozen=True, slots=True)
class _Figures:
    """The table of figures. of_what: the meaning of a figure and its range; controls: name -> description."""

    task: str
    of_what: str
    controls: dict[str, str]
    directions: Sequence[str]
    galleries: Sequence[_Gallery]


def _figures(rows: Sequence[RetrievalRow]) -> _Figures | None:
    """A line per recipe and gallery, with the directions side by side: recall, chance, and any controls."""
    judged = [row for row in rows if not row.control]
    if not judged:
        return None
    directions = list(dict.fromkeys(row.direction for row in judged))
    shuffled = [row for row in rows if row.control and row.trunk != "random"]
    controls = {"shuffled": shuffled} if shuffled else {}
    if random := [row for row in judged if row.trunk == "random"]:
        controls["random trunk"] = random
    galleries = []
    for gallery in dict.fromkeys(row.gallery for row in judged):
        members = [row for row in judged if row.gallery == gallery]
        trained = [row for row in members if row.trunk != "random"] or members
        lines = []
        for recipe, trunk in dict.fromkeys((row.recipe, row.trunk) for row in trained):
            ours = [row for row in members if (row.recipe, row.trunk) == (recipe, trunk)]
            sides = []
            for direction in directions:
                where = (recipe, gallery, direction)
                beside = [[row for row in kind if (row.recipe, row.gallery, row.direction) == where] for kind in controls.values()]
                own = [row for row in ours if row.direction == direction]
                sides.append(_Side(_measured(own) if own else None, [_mean_recall_10(kind) if kind else None for kind in beside]))
            name = recipe if len({row.trunk for row in trained}) == 1 else f"{recipe} ({trunk})"
            lines.append(_Line(name, float(np.mean([row.num_pairs for row in ours])), sides))
        asked = "; ".join(filter(None, (_num_queries(members, direction) for direction in directions)))
        galleries.append(_Gallery(gallery, asked, lines))
    return _Figures(
        ", and ".join(_TASKS.get(direction, direction) for direction in directions),
        _of_what(judged),
        {name: _CONTROLS[name] for name in controls},
        [_arrow(direction) for direction in directions],
        galleries,
    )


def _measured(rows: Sequence[RetrievalRow]) -> _Measured:
    return _Measured(
        rows[0].family,
        float(np.mean([row.recall_1 for row in rows])),
        float(np.mean([row.recall_5 for row in rows])),
        spread_of(rows),
        float(np.mean([row.chance_recall_10 for row in rows])),
        float(np.mean([row.median_rank for row in rows])),
    )


def _mean_recall_10(rows: Sequence[RetrievalRow]) -> float:
    return float(np.mean([row.recall_10 for row in rows]))


def _of_what(rows: Sequence[RetrievalRow]) -> str:
    """The meaning of a figure and the range beside it."""
    lines: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = (row.recipe, row.gallery, row.direction, row.trunk)
        lines[key] = lines.get(key, 0) + 1
    fewest, most = min(lines.values()), max(lines.values())
    if most == 1:
        return "one seed, with its 95 % interval over queries"
    if fewest == most:
        return f"mean over {most} seeds, with the smallest and largest"
    return "mean over seeds, with the smallest and largest; for a single seed, its 95 % interval over queries"


def _num_queries(rows: Sequence[RetrievalRow], direction: str) -> str:
    """The number of queries in a direction, if the rows have it."""
    nums = sorted({row.num_queries for row in rows if row.direction == direction and row.num_queries is not None})
    return f"{_arrow(direction)}: {'–'.join(f'{num:,}' for num in dict.fromkeys((nums[0], nums[-1])))} queries" if nums else ""


def _arrow(direction: str) -> str:
    return direction.replace("->", " → ")


# -- scatters ------------------------------------------------------------------------------------------------------------------------------

NUM_HUES = 8
"""Distinct colours in the stylesheet; with more classes than that, colours repeat."""
STEP_S, LAST_S = 0.9, 2.7
"""How long the moving picture takes for a moment, and for the last one."""


@dataclass(frozen=True, slots=True)
class _Dot:
    """A picture in a scatter. number: of its thumbnail on the page. hue: of its class. places: of each moment, in per cent of the side."""

    number: int
    hue: int
    name: str
    places: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Scatter:
    """spreads: of each moment, as they are shown. num_classes: of all its pictures."""

    one: Scatter
    dots: Sequence[_Dot]
    spreads: Sequence[str]
    num_classes: int


@dataclass(frozen=True, slots=True)
class _Scatters:
    """Those of a page. thumbnails: each once, however many scatters show it. moves: the numbers of moments between which some move."""

    scatters: Sequence[_Scatter]
    thumbnails: Sequence[bytes]
    moves: Sequence[_Moves]


@dataclass(frozen=True, slots=True)
class _Moves:
    """The moving picture of num moments. duration_s: of one round. at: for each moment, the per cents of the round when it is reached and
    left. shown: for how many per cent a moment is the current one.
    """

    num: int
    duration_s: float
    at: Sequence[tuple[float, float]]
    shown: float


def _scatters(scatters: Sequence[Scatter]) -> _Scatters:
    numbers: dict[bytes, int] = {}
    drawn = []
    for one in scatters:
        hues = {at: at % NUM_HUES for at in one.classes}
        percent = np.stack([100 * one.places[..., 0], 100 * (1 - one.places[..., 1])], axis=-1).round(1)
        dots = [
            _Dot(numbers.setdefault(small, len(numbers)), hues[at], shown.text, [(x, y) for x, y in percent[:, place].tolist()])
            for place, (shown, at) in enumerate(zip(one.pictures, one.classes, strict=True))
            if (small := shown.thumbnail) is not None
        ]
        spreads = [f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in one.spreads]
        drawn.append(_Scatter(one, dots, spreads, len(set(one.classes))))
    nums = sorted({len(one.moments) for one in scatters} - {1})
    return _Scatters(drawn, list(numbers), [_moves(num) for num in nums])


def _moves(num: int) -> _Moves:
    duration = STEP_S * (num - 1) + LAST_S
    begins = [100 * STEP_S * at / duration for at in range(num)]
    ends = [begin + 25 * STEP_S / duration for begin in begins[:-1]]  # rests for a quarter of its time, and then moves on
    return _Moves(num, duration, [*zip(begins[:-1], ends, strict=True), (begins[-1], 100.0)], 100 * STEP_S / duration)


# -- curves and heat maps ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Training:
    curve: Curve
    chart: Markup


@dataclass(frozen=True, slots=True)
class _Learning:
    """The chart of one figure. caption: its final values, and the gain for each doubling of the pairs."""

    caption: str
    chart: Markup


def _learning(curves: Sequence[LearningCurve]) -> list[_Learning]:
    """A chart a figure."""
    charts = []
    for figure in dict.fromkeys(curve.figure for curve in curves):
        ours = [curve for curve in curves if curve.figure == figure]
        charts.append(_Learning(_learning_caption(ours), learning_chart(ours)))
    return charts


def _learning_caption(curves: Sequence[LearningCurve]) -> str:
    nums = sorted({num for curve in curves for num in curve.num_pairs})
    shares = [part_of_all(num, nums[-1]) for num in nums]
    listed = f"{', '.join(shares[:-1])}{' and ' if shares[:-1] else ''}{shares[-1]}"
    of = f"{curves[0].figure} at {listed} of {nums[-1]:,} training {curves[0].unit}."
    gained: dict[tuple[int, int], list[str]] = {}
    for curve in curves:
        if len(curve.num_pairs) > 1:
            since, until = curve.num_pairs[-2:]
            a_doubling = (curve.values[-1] - curve.values[-2]) / np.log2(until / since)
            gained.setdefault((since, until), []).append(f"{shorten(curve.recipe, 40)} {a_doubling:+.1f}")
    return of + "".join(
        f" From {since:,} to {until:,}, for each doubling: {', '.join(of_each)}." for (since, until), of_each in gained.items()
    )


@dataclass(frozen=True, slots=True)
class _Heat:
    """A heat map as Python numbers. lines: the name of each row and its shares; largest: of all shares, for the darkest cell."""

    title: str
    rows: str
    columns: str
    names: Sequence[str]
    lines: Sequence[tuple[str, Sequence[float]]]
    chance: Sequence[float]
    largest: float
    mean_own: float
    mean_chance: float


def _heat_map(one: HeatMap) -> _Heat:
    names, shares, chance = one.confusion.names, np.asarray(one.confusion.shares, dtype=float), np.asarray(one.chance, dtype=float)
    return _Heat(
        one.title,
        one.rows,
        one.columns,
        names,
        list(zip(names, shares.tolist(), strict=True)),
        chance.tolist(),
        max(float(shares.max(initial=0)), 1e-9),
        float(np.mean(np.diag(shares))),
        float(np.mean(chance)),
    )
