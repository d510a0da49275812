"""How a picture is written: as PNG, whole or not at all, and as we draw it whatever is set for the user's own."""

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
    """Yield an empty figure to draw on, and write it when that is done.

    matplotlib is imported here, not before. Its settings are its own defaults: a `matplotlibrc` may ask for TeX, which
    is not there, or for another file format. No figure is registered with pyplot, so nothing is shown in a notebook.

    Args:
        path: The PNG file; one that is there is replaced.
        size: Width and height in inches.
        error: Raised in place of an `OSError`, with a message for users.
    """
    with blank_figure(size) as figure:
        yield figure
        with new_file(path, error) as staging:
            figure.savefig(staging, dpi=_DPI, format="png")


@contextmanager
def blank_figure(size: tuple[float, float]) -> Iterator[Figure]:
    """Yield an empty figure, with matplotlib's default settings as long as it is drawn on; see `new_picture`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
