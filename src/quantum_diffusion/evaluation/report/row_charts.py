"""Charts of horizontal bars, each under its label: for prompts and other long names."""

from __future__ import annotations

from collections.abc import Sequence

from quantum_diffusion.evaluation.report.axes import Axis
from quantum_diffusion.evaluation.report.charts import (
    WIDTH,
    Bars,
    Curve,
    colour_class,
    figure,
    legend,
    value_text,
    whisker,
)
from quantum_diffusion.evaluation.report.markup import Markup, element

_LEFT, _RIGHT, _ROW, _BAR = 2.0, WIDTH - 8, 34.0, 10.0
_MOST_LETTERS = 48

Reference = tuple[str, float]
"""Name and value of a mark to compare with."""


def row_chart(
    title: str,
    labels: Sequence[str],
    bars: Bars,
    *,
    percent: bool = False,
    references: Sequence[Reference] = (),
    note: str = "",
) -> Markup | None:
    """Draw horizontal bars, each with its label above it and its value.

    Args:
        title: Text above the chart.
        labels: Labels of the bars.
        bars: Their values.
        percent: Whether the values are shares.
        references: Marks drawn on every bar.
        note: Text beside the title.

    Returns:
        The chart; None if there is nothing to draw.
    """
    if not labels:
        return None
    axis = Axis(0.0, 1.0 if percent else max(bars.values) or 1.0, _LEFT, _RIGHT, False)
    shown = [value_text(value, percent) for value in bars.values]
    rows = []
    for k, (label, text) in enumerate(zip(labels, shown, strict=True)):
        top = _ROW * k + 18
        marks = [_mark(axis.place(value), top, number) for number, (_, value) in enumerate(references, start=1)]
        rows.append(element("g", element("title", f"{label}: {text}"), _row(bars, k, label, text, axis, top), marks))
    compared = [f"{name} {value_text(value, percent)}" for name, value in references]
    said = "; ".join([", ".join(f"{label} {text}" for label, text in zip(labels, shown, strict=True)), *compared])
    names = legend([bars, *(Curve(name, (), number) for number, name in enumerate(compared, start=1))])
    return figure(title, f"{title}: {said}", rows, _ROW * len(labels) + 8, note, names)


def _row(bars: Bars, k: int, label: str, text: str, axis: Axis, top: float) -> Markup:
    name = label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…"
    whole = {"x": _LEFT, "y": top, "height": _BAR}
    parts = [
        element("text", name, x=_LEFT, y=top - 4),
        element("text", text, x=_RIGHT, y=top - 4, class_="end"),
        element("rect", width=_RIGHT - _LEFT, class_="track", **whole),
        element("rect", width=axis.place(bars.values[k]) - _LEFT, class_="bar", **whole),
    ]
    if bars.intervals:
        parts.append(whisker(top + _BAR / 2, axis, bars.intervals[k], upright=False))
    return element("g", parts, class_=colour_class(bars.colour))


def _mark(x: float, top: float, number: int) -> Markup:
    """Draw a reference from the middle of a bar, alternately up and down, so that two equal ones are both visible."""
    middle = top + _BAR / 2
    line = element("line", x1=x, y1=middle, x2=x, y2=middle + (9 if number % 2 else -9), class_="reference")
    return element("g", line, class_=colour_class(number))
