"""Draws Qiskit circuits with matplotlib in a grid, all at the same scale.

`QiskitBackend` uses it for figures of one circuit and for pages of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from qiskit import QuantumCircuit

# Lengths are in inches, except the fold (layers of gates per line).
_FOLD = 24
_INCHES_A_UNIT = 0.52  # in Qiskit's drawings a layer and a wire each take one unit
_INCHES_A_LETTER = 0.08
_PAGE_WIDTH = 14.0
_GAP = 0.3
_TITLE_HEIGHT = 0.2
_STYLE = {"name": "iqp", "margin": [1.5, 0.1, 0.1, 0.1]}


def draw_grid(
    figure: Figure, natives: Sequence[QuantumCircuit], titles: Sequence[str] | None, max_columns: int | None
) -> None:
    """Draw circuits in a grid and resize the figure to fit."""
    from matplotlib.figure import Figure

    # Qiskit derives its font size from the width of the axes. A first drawing measures each circuit, so that
    # the second one can draw all gates and letters at the same size.
    sizes = [_draw(native, Figure().add_axes((0, 0, 1, 1))) for native in natives]
    header = _TITLE_HEIGHT if titles is not None else 0.0
    widths = [
        max(width, _INCHES_A_LETTER * len(title))
        for (width, _), title in zip(sizes, titles or [""] * len(sizes), strict=True)
    ]
    columns = _column_widths(widths, max_columns or len(widths))
    num_columns = len(columns)
    row_heights = [
        header + max(height for _, height in sizes[start : start + num_columns])
        for start in range(0, len(sizes), num_columns)
    ]
    page_width = sum(columns) + _GAP * (num_columns + 1)
    page_height = sum(row_heights) + _GAP * (len(row_heights) + 1)

    figure.set_layout_engine("none")
    figure.set_size_inches(page_width, page_height)
    for position, (native, (width, height)) in enumerate(zip(natives, sizes, strict=True)):
        row, column = divmod(position, num_columns)
        left = sum(columns[:column]) + _GAP * (column + 1)
        top = page_height - sum(row_heights[:row]) - _GAP * (row + 1)
        box = (left, top - header - height, width, height)
        _draw(native, figure.add_axes(tuple(np.divide(box, [page_width, page_height] * 2))))
        if titles is not None:
            figure.text(left / page_width, top / page_height, titles[position], fontsize=10, va="top")


def _draw(native: QuantumCircuit, axes: Axes) -> tuple[float, float]:
    """Draw on the axes and return the natural width and height of the drawing, in inches."""
    native.draw(output="mpl", ax=axes, fold=_FOLD, style=_STYLE)
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    return (right - left) * _INCHES_A_UNIT, (top - bottom) * _INCHES_A_UNIT


def _column_widths(widths: Sequence[float], most: int) -> list[float]:
    """Return the widths of as many columns as fit the page, at most `most`, for items laid out row by row."""
    for num_columns in range(min(most, len(widths)), 1, -1):
        columns = [max(widths[column::num_columns]) for column in range(num_columns)]
        if sum(columns) + _GAP * (num_columns + 1) <= _PAGE_WIDTH:
            return columns
    return [max(widths)]
