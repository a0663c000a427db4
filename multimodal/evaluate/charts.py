"""The line charts of a page of figures.

learning_chart([LearningCurve("topic", [750, 1500], [20.0, 24.0], [18.0, 22.0], [22.0, 26.0], chance=1.0)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from markupsafe import Markup

from multimodal.evaluate.report import Curve, LearningCurve, MiningShares, TradeOff
from multimodal.pages import shorten, svg

FAMILIES = ("contrastive", "wordvec", "topic")
"""Families with their own colour in the stylesheet."""
MINED = {"hard": "var(--topic)", "semi-hard": "var(--hue-4)", "easy": "var(--wordvec)"}
"""The kinds of triplets, from below to above, and their colours."""
_LABEL_PX, _LABEL_GAP = 8.6, 16  # width of a character, and distance of lines, at a size readable on a phone
_MAX_LABEL = 20


def hue(name: str) -> str:
    """The colour of a family, or of a recipe that is named after one, as CSS; grey for any other."""
    return f"var(--{next((family for family in FAMILIES if name.startswith(family)), 'other')})"


def training_chart(curve: Curve) -> Markup:
    """One small chart, labelled with its extreme values, and with chance as a dashed line if known."""
    width, height, left, top = 300, 120, 46, 10
    bottom = height - top - 14
    steps, values = np.asarray(curve.steps, dtype=float), np.asarray(curve.values, dtype=float)
    seen = [*values.tolist(), *([] if curve.chance is None else [curve.chance])]
    low, high = min(seen), max(seen)

    def y(value: float) -> float:
        return top + (high - value) / max(high - low, 1e-9) * (bottom - top)

    x = left + (steps - steps.min()) / max(float(np.ptp(steps)), 1e-9) * (width - left - 8)
    parts = [svg.line(left, bottom, width - 8, bottom, class_="axis")]
    if curve.chance is not None:
        parts.append(svg.line(left, y(curve.chance), width - 8, y(curve.chance), class_="dashed"))
    parts += [
        svg.text(left - 6, top + 4, f"{high:.3g}", anchor="end"),
        svg.text(left - 6, bottom, f"{low:.3g}", anchor="end"),
        svg.text(width - 8, height - 6, f"{steps[-1]:.0f} steps", anchor="end"),
        svg.polyline(zip(x, map(y, values), strict=True), hue(curve.recipe)),
    ]
    return svg.drawing(width, height, f"{curve.figure} from {values[0]:.3g} to {values[-1]:.3g}", parts)


def learning_chart(curves: Sequence[LearningCurve]) -> Markup:
    """Curves of one figure on one pair of axes: x the number of training pairs on a log2 scale, y from zero.

    Each line ends in its label; labels that would overlap are moved apart. The band is low to high; chance is dashed.
    """
    nums = sorted({num for curve in curves for num in curve.num_pairs})
    chances = sorted({round(curve.chance, 1) for curve in curves})
    ends = [
        (curve.values[-1], f"{shorten(curve.recipe, _MAX_LABEL)} {curve.values[-1]:.1f}", hue(curve.family or curve.recipe))
        for curve in curves
    ]
    ends += [(chance, f"chance {chance:.1f}", "var(--soft)") for chance in chances]
    width, height, left, top, foot = 480, 260, 40, 12, 42
    right, bottom = width - 16 - _LABEL_PX * max(len(text) for _, text, _ in ends), height - foot
    ticks = svg.ticks(min(0.0, *(min(curve.low) for curve in curves)), max(*chances, *(max(curve.high) for curve in curves), 1e-9))

    def x(num: float) -> float:
        across = math.log2(nums[-1] / nums[0])
        return left + 12 + (math.log2(num / nums[0]) / across if across else 0.5) * (right - left - 24)

    def y(value: float) -> float:
        return bottom - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - top)

    parts = []
    for tick in ticks:
        parts.append(svg.line(left, y(tick), right, y(tick), class_="axis"))
        parts.append(svg.text(left - 6, y(tick) + 4, f"{tick:g}", anchor="end"))
    last = -math.inf
    for num in reversed(nums):  # the whole set is always labelled
        if abs(x(num) - last) < 46:
            continue
        last = x(num)
        parts.append(svg.text(last, bottom + 18, f"{num:,}", anchor="middle"))
        parts.append(svg.text(last, bottom + 34, part_of_all(num, nums[-1]), anchor="middle"))
    parts += [svg.line(left, y(chance), right, y(chance), class_="dashed") for chance in chances]
    for curve in curves:
        parts += _with_band(curve, x, y)
    places = svg.spaced([y(value) for value, _, _ in ends], _LABEL_GAP, top, bottom)
    for (value, text, colour), place in zip(ends, places, strict=True):
        parts.append(svg.line(right - 8, y(value), right + 6, place, style=f"stroke:{colour}", class_="lead"))
        parts.append(svg.text(right + 10, place + 4, text, class_="label", style=f"fill:{colour}"))
    return svg.drawing(width, height, f"{curves[0].figure} against the number of training {curves[0].unit}", parts)


def ranks_chart(curves: Sequence[Curve]) -> Markup:
    """Shares in per cent up to a rank, from 0 to 100, on one pair of axes: x the rank, on a log2 scale, with a label at the end of each."""
    ends = [(curve.values[-1], f"{shorten(curve.recipe, _MAX_LABEL)} {curve.values[-1]:.1f}", hue(curve.recipe)) for curve in curves]
    width, height, left, top, foot = 560, 280, 40, 12, 26
    right, bottom = width - 16 - _LABEL_PX * max(len(text) for _, text, _ in ends), height - foot
    most = max(max(curve.steps) for curve in curves)

    def x(rank: float) -> float:
        return left + math.log2(rank) / max(math.log2(most), 1e-9) * (right - left - 12)

    def y(value: float) -> float:
        return bottom - value / 100 * (bottom - top)

    parts = []
    for tick in range(0, 101, 20):
        parts += [svg.line(left, y(tick), right, y(tick), class_="axis"), svg.text(left - 6, y(tick) + 4, f"{tick}", anchor="end")]
    parts += [svg.text(x(rank), bottom + 18, f"{rank}", anchor="middle") for rank in (1, 2, 5, 10, 20, 50, 100) if rank <= most]
    parts += [svg.polyline([(x(rank), y(value)) for rank, value in zip(c.steps, c.values, strict=True)], hue(c.recipe)) for c in curves]
    places = svg.spaced([y(value) for value, _, _ in ends], _LABEL_GAP, top, bottom)
    for (value, text, colour), place in zip(ends, places, strict=True):
        parts.append(svg.line(right - 8, y(value), right + 6, place, style=f"stroke:{colour}", class_="lead"))
        parts.append(svg.text(right + 10, place + 4, text, class_="label", style=f"fill:{colour}"))
    return svg.drawing(width, height, f"{curves[0].figure} up to rank {most:g}", parts)


def roc_chart(curves: Sequence[Curve]) -> Markup:
    """Receiver operating characteristics, both axes from 0 to 100 per cent; the dashed line is chance."""
    side, left, top, foot = 280, 40, 12, 26
    right, bottom = left + side, top + side

    def place(different: float, same: float) -> tuple[float, float]:
        return left + different / 100 * side, bottom - same / 100 * side

    parts = []
    for tick in range(0, 101, 20):
        x, y = place(tick, tick)
        parts += [svg.line(left, y, right, y, class_="axis"), svg.text(left - 6, y + 4, f"{tick}", anchor="end")]
        parts.append(svg.text(x, bottom + 18, f"{tick}", anchor="middle"))
    parts.append(svg.line(left, bottom, right, top, class_="dashed"))
    names = []
    for curve in curves:
        parts.append(svg.polyline([place(*at) for at in zip(curve.steps, curve.values, strict=True)], hue(curve.recipe)))
        names.append((place(0, float(np.interp(50, curve.steps, curve.values)))[1], shorten(curve.recipe, _MAX_LABEL), hue(curve.recipe)))
    for (_, text, colour), at in zip(names, svg.spaced([y for y, _, _ in names], _LABEL_GAP, top, bottom), strict=True):
        parts.append(svg.text(right + 10, at + 4, text, class_="label", style=f"fill:{colour}"))
    width = round(right + 16 + _LABEL_PX * max(len(text) for _, text, _ in names))
    return svg.drawing(width, bottom + foot, "same pairs accepted against different pairs accepted", parts)


def _with_band(curve: LearningCurve, x: Callable[[float], float], y: Callable[[float], float]) -> list[Markup]:
    """The line of a curve with its band, and a dot for each value that shows it on hover."""
    colour = hue(curve.family or curve.recipe)
    lows, highs = ([*zip(curve.num_pairs, ends, strict=True)] for ends in (curve.low, curve.high))
    edge = [(x(num), y(value)) for num, value in [*lows, *reversed(highs)]]
    line = [(x(num), y(value)) for num, value in zip(curve.num_pairs, curve.values, strict=True)]
    parts = [svg.tag("polygon", points=svg.points(edge), class_="band", style=f"fill:{colour}"), svg.polyline(line, colour)]
    for num, value, low, high in zip(curve.num_pairs, curve.values, curve.low, curve.high, strict=True):
        parts.append(svg.line(x(num), y(low), x(num), y(high), style=f"stroke:{colour}", class_="whisker"))
        said = f"{curve.recipe}, {num:,} {curve.unit}: {value:.1f} ({low:.1f} to {high:.1f}), chance {curve.chance:.1f}"
        parts.append(svg.dot(x(num), y(value), colour, said))
    return parts


def trade_off_chart(one: TradeOff) -> Markup:
    """One figure (x) against the other (y), a labelled point for each model; up and to the right is better, and chance is dashed."""
    width, height, left, top, foot = 480, 340, 56, 16, 40
    right, bottom = width - 36, height - foot
    xs = svg.ticks(0.0, max([one.own_chance, 1.0, *(own for _, own, _ in one.points)]))
    ys = svg.ticks(0.0, max([one.other_chance, 1.0, *(other for _, _, other in one.points)]))

    def x(value: float) -> float:
        return left + value / xs[-1] * (right - left)

    def y(value: float) -> float:
        return bottom - value / ys[-1] * (bottom - top)

    parts = [svg.line(x(tick), top, x(tick), bottom, class_="axis") for tick in xs]
    parts += [svg.text(x(tick), bottom + 14, f"{tick:g}", anchor="middle") for tick in xs]
    parts += [svg.line(left, y(tick), right, y(tick), class_="axis") for tick in ys]
    parts += [svg.text(left - 6, y(tick) + 4, f"{tick:g}", anchor="end") for tick in ys]
    parts += [
        svg.line(x(one.own_chance), top, x(one.own_chance), bottom, class_="dashed"),
        svg.line(left, y(one.other_chance), right, y(one.other_chance), class_="dashed"),
        svg.text((left + right) / 2, height - 6, one.own, anchor="middle"),
        svg.text(14, (top + bottom) / 2, one.other, anchor="middle", transform=f"rotate(-90 14 {svg.at((top + bottom) / 2)})"),
        svg.polyline([(x(own), y(other)) for _, own, other in one.points], hue("contrastive")),
    ]
    for name, own, other in one.points:
        parts.append(svg.dot(x(own), y(other), hue("contrastive"), f"{name}: {one.own} {own:.1f}, {one.other} {other:.1f}"))
    labelled = [one.points[0], one.points[-1]]
    for point in one.points[1:-1]:  # others where there is room
        if all(math.hypot(x(point[1]) - x(own), y(point[2]) - y(other)) >= _LABEL_GAP + 6 for _, own, other in labelled):
            labelled.append(point)
    parts += [svg.text(x(own) + 6, y(other) - 5, name, class_="label") for name, own, other in labelled]
    return svg.drawing(width, height, f"{one.other} against {one.own}", parts)


def mining_chart(one: MiningShares) -> Markup:
    """The shares of easy, semi-hard and hard triplets as areas on top of each other, over steps on a logarithmic scale."""
    width, height, left, top = 480, 200, 52, 10
    right, bottom = width - 10, height - 28
    steps = np.asarray(one.steps, dtype=float)
    across = max(math.log(steps[-1] / steps[0]), 1e-9)
    x = [left + math.log(step / steps[0]) / across * (right - left) for step in steps.tolist()]
    edges = np.cumsum([np.zeros(len(steps)), one.hard, one.semi_hard, one.easy], axis=0)
    y = bottom - edges * (bottom - top)
    parts = []
    for kind, (below, above) in zip(MINED, zip(y, y[1:], strict=False), strict=True):
        edge = [*zip(x, below, strict=True), *zip(reversed(x), reversed(above), strict=True)]
        parts.append(svg.tag("polygon", points=svg.points(edge), class_="area", style=f"fill:{MINED[kind]}"))
    for share in (0, 0.5, 1):
        parts.append(svg.text(left - 6, bottom - share * (bottom - top) + 4, f"{100 * share:.0f} %", anchor="end"))
    parts.append(svg.line(left, bottom, right, bottom, class_="axis"))
    last = -math.inf
    for tick in (base * 10**power for power in range(math.ceil(math.log10(steps[-1])) + 1) for base in (1, 2, 5)):
        if not steps[0] <= tick <= steps[-1]:
            continue
        at = left + math.log(tick / steps[0]) / across * (right - left)
        if at - last >= 44 and at <= right - 14:
            last = at
            parts.append(svg.line(at, bottom, at, bottom + 4, class_="axis"))
            parts.append(svg.text(at, bottom + 18, f"{tick:,}", anchor="middle"))
    said = ", ".join(f"{kind} {100 * shares[0]:.0f} to {100 * shares[-1]:.1f} %" for kind, shares in zip(MINED, _mined(one), strict=True))
    return svg.drawing(width, height, f"{one.recipe}: {said}, over {steps[-1]:,.0f} steps", parts)


def _mined(one: MiningShares) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    return one.hard, one.semi_hard, one.easy


def part_of_all(num: int, whole: int) -> str:
    """A number's share of the whole, as one would say it: "all", "1/8", else "34 %"."""
    if num == whole:
        return "all"
    for near in (Fraction(num, whole).limit_denominator(8), Fraction(1, round(whole / num))):
        if near.denominator <= 64 and abs(near * whole - num) <= num / 100:
            return f"{near.numerator}/{near.denominator}"
    return f"{100 * num / whole:.2g} %"
