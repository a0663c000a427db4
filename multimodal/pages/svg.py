"""Charts as SVG, drawn by hand, because a page of figures should not need a plotting library.

    drawing(300, 120, "R@10 over steps", [line(46, 106, 292, 106, class_="axis"), polyline([(46, 100), (292, 20)], "var(--wordvec)")])

Colours and fonts are those of pages.css, so an SVG belongs into a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup


def tag(name: str, *content: str, **attributes: object) -> Markup:
    """An element. Attributes (class_ is class, text_anchor is text-anchor) and content are escaped, except content that is Markup."""
    written = Markup("").join(
        Markup(' {}="{}"').format(attribute.rstrip("_").replace("_", "-"), value) for attribute, value in attributes.items()
    )
    if not content:
        return Markup("<{}{}/>").format(name, written)
    return Markup("<{}{}>{}</{}>").format(name, written, Markup("").join(content), name)


def drawing(width: int, height: int, label: str, parts: Sequence[Markup]) -> Markup:
    """The whole picture, in pixels of its own; label: what it shows, for those who cannot see it."""
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str) -> Markup:
    """A straight line between two places."""
    return tag("line", x1=at(x1), y1=at(y1), x2=at(x2), y2=at(y2), **attributes)


def polyline(places: Iterable[tuple[float, float]], colour: str) -> Markup:
    """A line through (x, y) places."""
    return tag("polyline", points=points(places), fill="none", style=f"stroke:{colour}", stroke_width=2)


def text(x: float, y: float, shown: str, anchor: str = "start", **attributes: str) -> Markup:
    """A line of text that starts, ends or has its middle (anchor) at a place."""
    return tag("text", shown, x=at(x), y=at(y), text_anchor=anchor, **attributes)


def dot(x: float, y: float, colour: str, said: str) -> Markup:
    """A point that says something when it is hovered over."""
    return tag("circle", tag("title", said), cx=at(x), cy=at(y), r=3.5, style=f"fill:{colour}")


def points(places: Iterable[tuple[float, float]]) -> str:
    """(x, y) places as the attribute of a polyline or polygon."""
    return " ".join(f"{at(x)},{at(y)}" for x, y in places)


def at(place: float) -> str:
    """A coordinate, in tenths of a pixel."""
    return f"{place:.1f}"


# -- Places -------------------------------------------------------------------------------------------------------------------------------


def spaced(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions on a line, moved as little as possible to keep their order, a `gap` between neighbours, and the ends low and high.

    Least squares: minus its share of the gaps, each position must not be smaller than the previous one. This is an isotonic regression,
    solved by pooling neighbours that are out of order. If there is not enough room, the gap is kept and high is exceeded.
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


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most low to at least high, four to seven of them."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(times for times in (1, 2, 2.5, 5, 10) if times * unit >= rough)
    return [round(step * number, 12) for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
