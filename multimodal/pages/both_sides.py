"""What a model learns and what it forgets, in one chart: figures of its own pairs and of what it could do before, over the steps.

both_sides([0, 120, 240], [Curve("val/R@10", [12, 30, 41], chance=1.0), Curve("val/foreign_R@10", [65, 60, 58], 1.0, floor=33)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from multimodal.pages import svg

COLOURS = ("var(--topic)", "var(--contrastive)", "var(--wordvec)", "var(--other)")
"""Of the curves, in their order: the own pairs first."""
_LABEL_PX, _LABEL_GAP = 6.6, 13


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure in per cent after each measurement. chance: its chance level. floor: the value below which the run stops, if it does."""

    name: str
    values: Sequence[float]
    chance: float
    floor: float | None = None


def both_sides(steps: Sequence[int], curves: Sequence[Curve], best: int | None = None) -> Markup:
    """A line for each of at most four curves, labelled at its end, with chance dashed and the floor dotted in its colour.

    steps: optimiser steps done at each measurement, ascending. best: those of the checkpoint that was kept, which is marked.
    """
    width, height, left, top, foot = 640, 320, 40, 20, 34
    ends = [f"{curve.name} {curve.values[-1]:.1f}" for curve in curves]
    right, bottom = width - 20 - _LABEL_PX * max(map(len, ends)), height - foot
    ticks = svg.ticks(0.0, max(value for curve in curves for value in (*curve.values, curve.chance, 1.0)))

    def x(step: int) -> float:
        return left + 8 + step / max(steps[-1], 1) * (right - left - 16)

    def y(value: float) -> float:
        return bottom - value / ticks[-1] * (bottom - top)

    parts = []
    for tick in ticks:
        parts += [
            svg.line(left, y(tick), right, y(tick), class_="axis"),
            svg.text(left - 6, y(tick) + 4, f"{tick:g}", anchor="end"),
        ]
    parts += [
        svg.text(x(0), height - 14, "before the first step", anchor="start"),
        svg.text(right, height - 14, f"{steps[-1]:,} steps", anchor="end"),
    ]
    if best is not None:
        parts += [
            svg.line(x(best), top, x(best), bottom, class_="dashed"),
            svg.text(x(best) + 3, top - 6, "best.ckpt", anchor="start"),
        ]
    for curve, colour in zip(curves, COLOURS, strict=False):
        parts.append(svg.line(left, y(curve.chance), right, y(curve.chance), class_="dashed", style=f"stroke:{colour}"))
        if curve.floor is not None:
            parts += [
                svg.line(left, y(curve.floor), right, y(curve.floor), class_="floor", style=f"stroke:{colour}"),
                svg.text(right - 4, y(curve.floor) - 4, f"stops below {curve.floor:.1f}", anchor="end", style=f"fill:{colour}"),
            ]
        places = [(x(step), y(value)) for step, value in zip(steps, curve.values, strict=True)]
        parts.append(svg.polyline(places, colour))
        for step, value, place in zip(steps, curve.values, places, strict=True):
            parts.append(svg.dot(*place, colour, f"{curve.name} {value:.1f} after {step:,} steps, chance {curve.chance:.1f}"))
    at_ends = svg.spaced([y(curve.values[-1]) for curve in curves], _LABEL_GAP, top, bottom)
    for label, end, colour in zip(ends, at_ends, COLOURS, strict=False):
        parts.append(svg.text(right + 8, end + 4, label, class_="label", style=f"fill:{colour}"))
    return svg.drawing(width, height, f"{' and '.join(curve.name for curve in curves)} over {steps[-1]:,} steps", parts)
