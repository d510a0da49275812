"""Draws the loss curve of a run from its `metrics.csv`; training saves it beside the model.

Step losses are pale, their running mean strong, and validation losses are dots.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantum_diffusion.pictures import new_picture
from quantum_diffusion.tracking.experiment import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_loss_curve(run_folder: Path, path: Path) -> bool:
    """Write the loss curve of a run as PNG.

    Args:
        run_folder: The folder that holds `metrics.csv`.
        path: The picture.

    Returns:
        Whether there was anything to draw.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for step, name, value in read_metrics(run_folder):
        if np.isfinite(value):
            series.setdefault(name, []).append((step, value))
    if "loss" not in series:
        return False

    with new_picture(path, (6.0, 3.4)) as figure:
        _draw(figure.add_subplot(), series)
    return True


def _draw(axes: Axes, series: dict[str, list[tuple[int, float]]]) -> None:
    steps, losses = np.array(series["loss"]).T
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps, losses, color="#4063d8", alpha=0.25, linewidth=0.8)
    axes.plot(steps[window - 1 :], smooth, color="#4063d8", linewidth=1.6, label="training")
    if "validation_loss" in series:
        at, values = np.array(series["validation_loss"]).T
        axes.plot(at, values, "o-", color="#cb3c33", markersize=3, linewidth=1, label="validation (averaged weights)")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title("Training", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8, frameon=False)
