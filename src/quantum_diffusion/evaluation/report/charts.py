"""Charts as inline SVG: curves and columns; `row_charts` has horizontal bars.

A chart fills the width of its container and has a text alternative. Its colours and dashes are CSS classes of the page,
for light and dark themes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from quantum_diffusion.evaluation.report.axes import Axis, number
from quantum_diffusion.evaluation.report.markup import Markup, element

Point = tuple[float, float]

WIDTH, HEIGHT = 420.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 10.0, 42.0
NUM_COLOURS = 8

MOST_POINTS = 300
"""Maximum number of points to draw; longer curves are thinned to every n-th point."""


_LARGEST = 1e100
"""Numbers of this size or larger are left out of curves, since their differences may overflow."""

_MOST_SAID = 12
"""Maximum number of points that the text alternative lists one by one."""


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: Its name in the legend.
        points: (x, y), with x ascending; points that are not finite are left out.
        colour: Index of one of the page's colours.
        style: "line", "pale" (noise behind another line) or "dots" (a line with a dot at each point).
        band: (x, low, high) of a shaded band.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    style: str = "line"
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Bars:
    """A bar for each label of a chart.

    Attributes:
        name: Their name in the legend.
        values: One value per label.
        colour: Index of one of the page's colours.
        intervals: (low, high) of each value; empty for no intervals.
    """

    name: str
    values: Sequence[float]
    colour: int = 0
    intervals: Sequence[tuple[float, float]] = ()


# ------------------------------------------------------------------------------------------------- curves


def line_chart(
    title: str,
    curves: Sequence[Curve],
    x_label: str,
    note: str = "",
    *,
    x_ticks: Sequence[tuple[float, str]] = (),
    percent: bool = False,
) -> Markup | None:
    """Draw curves; the y axis is logarithmic if the values are positive and span more than two decades.

    Args:
        title: Text above the chart.
        curves: The curves to draw.
        x_label: Text below the x axis.
        note: Text beside the title.
        x_ticks: (value, label) of the x axis; empty chooses round numbers.
        percent: Whether y is a share, drawn from 0 to 100 %.

    Returns:
        The chart; None if there is nothing to draw.
    """
    drawn = [(curve, [point for point in curve.points if all(map(_is_drawable, point))]) for curve in curves]
    drawn = [(curve, points) for curve, points in drawn if points]
    if not drawn:
        return None
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for curve, points in drawn for y in [*(y for _, y in points), *(e for _, *b in curve.band for e in b)]]
    horizontal = Axis.over(xs, _LEFT, WIDTH - _RIGHT, ticks=x_ticks)
    vertical = (
        Axis.share(HEIGHT - _BOTTOM, _TOP)
        if percent
        else Axis.over(ys, HEIGHT - _BOTTOM, _TOP, padded=True, logarithmic=min(ys) > 0 and max(ys) > 100 * min(ys))
    )
    lines = element(
        "g",
        [_curve(curve, points, horizontal, vertical) for curve, points in drawn],
        class_="alone" if len(drawn) == 1 else None,
    )
    said = "; ".join(_in_words(curve.name, points, x_ticks, percent) for curve, points in drawn)
    body = [_frame(horizontal, vertical, x_label), lines]
    return figure(title, f"{title} by {x_label}: {said}", body, HEIGHT, note, legend(curves))


def _is_drawable(value: float) -> bool:
    return math.isfinite(value) and abs(value) < _LARGEST


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Return the running mean of a curve over a twentieth of its points; each mean is at the end of its window."""
    drawable = [point for point in points if all(map(_is_drawable, point))]  # one NaN would spoil all later means
    window = max(1, len(drawable) // 20)
    if window == 1:
        return drawable
    means = np.convolve([y for _, y in drawable], np.ones(window) / window, mode="valid").tolist()
    return [(x, mean) for (x, _), mean in zip(drawable[window - 1 :], means, strict=True)]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    step = -(-len(points) // MOST_POINTS)
    return points if step == 1 else [*points[:-1:step], points[-1]]


def _curve(curve: Curve, points: Sequence[Point], horizontal: Axis, vertical: Axis) -> Markup:
    places = [(horizontal.place(x), vertical.place(y)) for x, y in _thinned(points)]
    parts = []
    if curve.band:
        upper = [(horizontal.place(x), vertical.place(high)) for x, _, high in curve.band]
        lower = [(horizontal.place(x), vertical.place(low)) for x, low, _ in curve.band]
        parts.append(element("path", d=_path([*upper, *reversed(lower)]) + "z", class_="band"))
    if len(places) > 1:
        parts.append(element("path", d=_path(places), class_="pale" if curve.style == "pale" else "line"))
    if curve.style == "dots" or len(places) == 1:
        parts += [element("circle", cx=x, cy=y, r=3, class_="point") for x, y in places]
    return element("g", parts, class_=colour_class(curve.colour))


def _path(places: Iterable[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _in_words(name: str, points: Sequence[Point], x_ticks: Sequence[tuple[float, str]], percent: bool) -> str:
    """Describe a curve in words: every point if there are few, otherwise the first and the last."""
    labels = dict(x_ticks)
    told = [f"{value_text(y, percent, 4)} at {labels.get(x) or number(x)}" for x, y in points]
    if len(told) > _MOST_SAID:
        return f"{name} from {told[0]} to {told[-1]}"
    return f"{name} {', '.join(told)}"


# --------------------------------------------------------------------------------------------------- bars


def bar_chart(
    title: str,
    labels: Sequence[str],
    bars: Sequence[Bars],
    x_label: str,
    note: str = "",
    *,
    percent: bool = False,
    stacked: bool = False,
) -> Markup | None:
    """Draw columns, side by side or stacked, with their values if there are few. See `line_chart`."""
    if not labels:
        return None
    totals = [sum(one.values[k] for one in bars) for k in range(len(labels))] if stacked else []
    highest = max(totals or [value for one in bars for value in one.values], default=0.0)
    vertical = (
        Axis.share(HEIGHT - _BOTTOM, _TOP)
        if percent
        else Axis.over([0.0, highest or 1.0], HEIGHT - _BOTTOM, _TOP, padded=True)
    )
    slot = (WIDTH - _LEFT - _RIGHT) / len(labels)
    letters = max(1, *map(len, labels))  # each letter takes about 7 units
    every = -(-len(labels) * letters * 7 // int(WIDTH - _LEFT - _RIGHT))
    ticks = [(_LEFT + slot * (k + 0.5), label) for k, label in enumerate(labels) if k % every == 0]
    width = 0.8 * slot / (1 if stacked else len(bars))
    parts: list[Markup] = [_frame(ticks, vertical, x_label)]
    for row, one in enumerate(bars):
        columns = []
        for k, value in enumerate(one.values):
            below = sum(other.values[k] for other in bars[:row]) if stacked else 0.0
            left = _LEFT + slot * (k + 0.1) + (0 if stacked else row * width)
            told = f"{labels[k]}: {value_text(value, percent)}" + (f" ({one.name})" if len(bars) > 1 else "")
            columns.append(_column(left, width, vertical, (below, below + value), told))
            if one.intervals:
                columns.append(whisker(left + width / 2, vertical, one.intervals[k]))
            elif width >= 20 and not stacked:
                places = {"x": left + width / 2, "y": vertical.place(value) - 3}
                columns.append(element("text", value_text(value, percent), class_="value", **places))
        parts.append(element("g", columns, class_=colour_class(one.colour)))
    said = "; ".join(
        f"{one.name}: "
        + ", ".join(f"{label} {value_text(v, percent)}" for label, v in zip(labels, one.values, strict=True))
        for one in bars
    )
    return figure(title, f"{title} by {x_label}: {said}", parts, HEIGHT, note, legend(bars))


def _column(left: float, width: float, axis: Axis, ends: Point, told: str) -> Markup:
    low, high = (axis.place(end) for end in ends)
    bar = element("rect", x=left, y=high, width=max(width - 1, 0.5), height=max(low - high, 0.0), class_="bar")
    return element("g", element("title", told), bar)


def whisker(across: float, axis: Axis, ends: Point, upright: bool = True) -> Markup:
    """Draw an interval over a bar; `across` is its position on the other axis."""
    low, high = (axis.place(end) for end in ends)
    start, end = ((across, low), (across, high)) if upright else ((low, across), (high, across))
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_="whisker")


def value_text(value: float, percent: bool, digits: int = 3) -> str:
    """Format a value for its bar or for the text of a curve."""
    return f"{100 * value:.1f} %" if percent else number(value, digits)


# -------------------------------------------------------------------------------------------------- parts


def colour_class(colour: int) -> str:
    """Return the CSS class for one of the page's colours, and its dash for lines."""
    return f"c{colour % NUM_COLOURS}"


def _frame(horizontal: Axis | Sequence[tuple[float, str]], vertical: Axis, x_label: str) -> Markup:
    """Draw the grid lines, the tick labels of both axes and the label of the x axis."""
    across = horizontal.ticks if isinstance(horizontal, Axis) else horizontal
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts: list[Markup] = []
    for place, label in vertical.ticks:
        parts.append(element("line", x1=_LEFT, x2=right, y1=place, y2=place, class_="grid"))
        parts.append(element("text", label, x=_LEFT - 6, y=place + 4, class_="tick end"))
    parts += [element("text", label, x=place, y=bottom + 16, class_="tick middle") for place, label in across]
    parts.append(element("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts.append(element("text", x_label, x=(_LEFT + right) / 2, y=HEIGHT - 8, class_="tick middle"))
    return element("g", parts)


def legend(parts: Sequence[Curve | Bars]) -> Markup | None:
    """Return the legend of a chart: names with their colours; None if nothing has a name."""
    named = [(one.name, one.colour) for one in parts if one.name]
    if not named:
        return None
    swatches = [
        element("li", element("span", class_=f"swatch {colour_class(colour)}"), name)
        for (name, colour), following in pairwise([*named, ("", -1)])
        if (name, colour) != following
    ]
    return element("ul", swatches, class_="legend")


def figure(title: str, said: str, parts: Iterable[Markup], height: float, note: str, names: Markup | None) -> Markup:
    """Return a chart.

    Args:
        title: Text above the chart.
        said: Text alternative of the chart.
        parts: The drawn elements.
        height: Height in units of the drawing, which is `WIDTH` wide.
        note: Text beside the title.
        names: The legend; see `legend`.
    """
    svg = element("svg", parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=said)
    caption = element("figcaption", element("b", title), f" {note}" if note else None)
    return element("figure", caption, svg, names, class_="chart")
