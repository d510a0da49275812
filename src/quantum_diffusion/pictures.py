"""Writes pictures as PNG files, atomically, with matplotlib's default settings instead of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quantum_diffusion.errors import QuantumDiffusionError
from quantum_diffusion.files import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


@contextmanager
def new_picture(
    path: Path, size: tuple[float, float], error: type[QuantumDiffusionError] = QuantumDiffusionError
) -> Iterator[Figure]:
    """Yield an empty figure to draw on, and write it at the end.

    matplotlib is imported only here, and with its default settings: a `matplotlibrc` may request TeX, which may be
    missing, or another file format. No figure is registered with pyplot, so none appears in a notebook.

    Args:
        path: The PNG file; an existing one is replaced.
        size: Width and height in inches.
        error: Raised instead of an `OSError`, with a message for users.
    """
    with blank_figure(size) as figure:
        yield figure
        with new_file(path, error) as staging:
            figure.savefig(staging, dpi=_DPI, format="png")


@contextmanager
def blank_figure(size: tuple[float, float]) -> Iterator[Figure]:
    """Yield an empty figure, with matplotlib's default settings while it is drawn; see `new_picture`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
