"""Line charts as SVG text, from numbers alone: drawn by hand, because a page of figures should not need a plotting library.

learning_chart([LearningCurve("topic", [750, 1500], [20.0, 24.0], [18.0, 22.0], [22.0, 26.0], chance=1.0)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from html import escape

import numpy as np

from multimodal.evaluate.report import Curve, LearningCurve
from multimodal.evaluate.style import hue

_LABEL_PX, _LABEL_GAP = 8.6, 16  # of a character, and between lines, in the size that a phone needs
_MAX_LABEL = 20


def shorten(text: str, width: int) -> str:
    """A text cut to at most `width` characters, at a blank where there is one."""
    if len(text) <= width:
        return text
    kept, blank, _ = text[:width].rpartition(" ")
    return (kept if blank and len(kept) > width // 2 else text[: width - 1]).rstrip(" ,.;:") + "…"


def training_chart(curve: Curve) -> str:
    """One small chart with its last and extreme values written out, and chance as a dashed line where it is known."""
    width, height, left, top = 300, 120, 46, 10
    bottom = height - top - 14
    steps, values = np.asarray(curve.steps, dtype=float), np.asarray(curve.values, dtype=float)
    seen = [*values.tolist(), *([] if curve.chance is None else [curve.chance])]
    low, high = min(seen), max(seen)

    def y(value: float) -> float:
        return top + (high - value) / max(high - low, 1e-9) * (bottom - top)

    x = left + (steps - steps.min()) / max(float(np.ptp(steps)), 1e-9) * (width - left - 8)
    points = " ".join(f"{a:.1f},{y(b):.1f}" for a, b in zip(x, values, strict=True))
    chance = dashed = ""
    if curve.chance is not None:
        chance, at = f", chance {curve.chance:.3g}", f"{y(curve.chance):.1f}"
        dashed = f'<line x1="{left}" x2="{width - 8}" y1="{at}" y2="{at}" class="dashed"/>'
    return f"""<figure><figcaption title="{escape(curve.recipe)}">{escape(shorten(curve.recipe, _MAX_LABEL))}: {escape(curve.figure)}
<b>{values[-1]:.3g}</b>{chance}</figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(curve.figure)} from {values[0]:.3g} to {values[-1]:.3g}">
<line x1="{left}" y1="{bottom}" x2="{width - 8}" y2="{bottom}" class="axis"/>{dashed}
<text x="{left - 6}" y="{top + 4}" text-anchor="end">{high:.3g}</text>
<text x="{left - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>
<text x="{width - 8}" y="{height - 6}" text-anchor="end">{steps[-1]:.0f} steps</text>
<polyline points="{points}" fill="none" style="stroke:{hue(curve.recipe)}" stroke-width="2"/></svg></figure>"""


def learning_chart(curves: Sequence[LearningCurve]) -> str:
    """Curves of one figure on one pair of axes: x the number of training pairs on a log2 scale, y from zero.

    Each line ends in its own label, moved apart where they would meet; the band is low to high; chance is dashed.
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
    ticks = _ticks(min(0.0, *(min(curve.low) for curve in curves)), max(*chances, *(max(curve.high) for curve in curves), 1e-9))

    def x(num: float) -> float:
        across = math.log2(nums[-1] / nums[0])
        return left + 12 + (math.log2(num / nums[0]) / across if across else 0.5) * (right - left - 24)

    def y(value: float) -> float:
        return bottom - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - top)

    parts = [
        f'<line x1="{left}" x2="{right:.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="axis"/>'
        f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    ]
    last = -math.inf
    for num in reversed(nums):  # the whole set is named whatever else has room
        if abs(x(num) - last) < 46:
            continue
        last = x(num)
        parts.append(f'<text x="{last:.1f}" y="{bottom + 18}" text-anchor="middle">{num:,}</text>')
        parts.append(f'<text x="{last:.1f}" y="{bottom + 34}" text-anchor="middle">{part_of_all(num, nums[-1])}</text>')
    parts += [f'<line x1="{left}" x2="{right:.1f}" y1="{y(chance):.1f}" y2="{y(chance):.1f}" class="dashed"/>' for chance in chances]
    parts += [_with_band(curve, x, y) for curve in curves]
    places = spaced([y(value) for value, _, _ in ends], _LABEL_GAP, top, bottom)
    for (value, text, colour), place in zip(ends, places, strict=True):
        parts.append(
            f'<line x1="{right - 8:.1f}" x2="{right + 6:.1f}" y1="{y(value):.1f}" y2="{place:.1f}" style="stroke:{colour}" class="lead"/>'
        )
        parts.append(f'<text x="{right + 10:.1f}" y="{place + 4:.1f}" class="label" style="fill:{colour}">{escape(text)}</text>')
    told = f"{curves[0].figure} against the number of training pairs"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg>'


def _with_band(curve: LearningCurve, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """The line of a curve with its band, and a dot for each value that says it to the pointer."""
    colour = hue(curve.family or curve.recipe)
    lows, highs = ([*zip(curve.num_pairs, ends, strict=True)] for ends in (curve.low, curve.high))
    edge = " ".join(f"{x(num):.1f},{y(value):.1f}" for num, value in [*lows, *reversed(highs)])
    line = " ".join(f"{x(num):.1f},{y(value):.1f}" for num, value in zip(curve.num_pairs, curve.values, strict=True))
    parts = [
        f'<polygon points="{edge}" class="band" style="fill:{colour}"/>',
        f'<polyline points="{line}" fill="none" style="stroke:{colour}" stroke-width="2"/>',
    ]
    for num, value, low, high in zip(curve.num_pairs, curve.values, curve.low, curve.high, strict=True):
        at = f"{x(num):.1f}"
        parts.append(f'<line x1="{at}" x2="{at}" y1="{y(low):.1f}" y2="{y(high):.1f}" style="stroke:{colour}" class="whisker"/>')
        said = f"{curve.recipe}, {num:,} pairs: {value:.1f} ({low:.1f} to {high:.1f}), chance {curve.chance:.1f}"
        parts.append(f'<circle cx="{at}" cy="{y(value):.1f}" r="3.5" style="fill:{colour}"><title>{escape(said)}</title></circle>')
    return "".join(parts)


def part_of_all(num: int, whole: int) -> str:
    """What share of the whole a number is, as a person would say it: "all", "1/8", else "34 %"."""
    if num == whole:
        return "all"
    for near in (Fraction(num, whole).limit_denominator(8), Fraction(1, round(whole / num))):
        if near.denominator <= 64 and abs(near * whole - num) <= num / 100:
            return f"{near.numerator}/{near.denominator}"
    return f"{100 * num / whole:.2g} %"


def spaced(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places on a line moved as little as their order, `gap` between neighbours, and the ends low and high allow.

    Least squares: without its share of the gaps each place must not be smaller than the one before it, which is an isotonic regression,
    solved by pooling neighbours that are out of order. Where there is no room for all, the gap is kept and high is passed.
    """
    order = np.argsort(places, kind="stable")
    share = gap * np.arange(len(order))
    pools: list[list[float]] = []
    for place in np.asarray(places, dtype=float)[order] - share:
        pools.append([place])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = np.array([np.mean(pool) for pool in pools for _ in pool])
    moved = np.empty(len(order))
    moved[order] = np.clip(level, low, max(low, high - share[-1])) + share if len(order) else level
    return moved.tolist()


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most low to at least high, four to seven of them."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(times for times in (1, 2, 2.5, 5, 10) if times * unit >= rough)
    return [round(step * number, 12) for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
