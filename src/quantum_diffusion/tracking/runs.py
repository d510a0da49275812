"""Runs side by side: how they ended, in which settings they differ, and their curves in one picture.

All of it is read from the `run/` folders that training leaves; nothing is written but the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantum_diffusion.config.schema import SAME_MODEL
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pictures import new_picture
from quantum_diffusion.tracking.experiment import RUN_FILE, read_metrics, read_run
from quantum_diffusion.tracking.sinks import flat

COLUMNS = ("loss", "validation_loss", "sampled_accuracy")
"""Metrics shown beside each run."""

_MOST_DRAWN = 10
"""Curves in a picture: matplotlib has as many colours."""

_MOST_LISTED = 6
"""Runs whose values of a setting are written one by one."""

_PNG = b"\x89PNG\r\n\x1a\n"
"""Begins every PNG file."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: Path of its model folder below the folder that was searched.
        folder: Its `run/` folder.
        status: "finished", "interrupted", "failed", or "running" (also after a kill).
        started: When it began or was last continued, ISO 8601 in UTC.
        seconds: Since then.
        metrics: The last value of each metric.
        settings: The configuration, by dotted key.
    """

    name: str
    folder: Path
    status: str
    started: str
    seconds: float
    metrics: dict[str, float]
    settings: dict[str, Any]


def find_runs(folder: Path) -> list[Run]:
    """Return the runs below a folder, oldest first; records that cannot be read are left out.

    Raises:
        ConfigError: The folder does not exist, or there is no run in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"no folder {str(folder)!r}: give the folder that holds trained models")
    runs = []
    for file in folder.rglob(f"run/{RUN_FILE}"):
        try:
            record = read_run(file.parent)
            run = Run(
                name=str(file.parent.parent.relative_to(folder)),
                folder=file.parent,
                status=str(record["status"]),
                started=str(record["started"]),
                seconds=float(record["seconds"]),
                metrics={str(key): float(value) for key, value in record["last_metrics"].items()},
                settings=flat(record["config"]),
            )
        except Exception:  # a record of another software, or one cut short
            continue
        runs.append(run)
    if not runs:
        raise ConfigError(
            f"no run in {str(folder)!r}: expected model folders with run/{RUN_FILE}, as training leaves them"
        )
    return sorted(runs, key=lambda run: (run.started, run.name))


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings that make models differ, each with its value in every run (None where a run lacks it)."""
    keys = sorted({key for run in runs for key in run.settings} - set(SAME_MODEL))
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def values_of_runs(values: Sequence[str]) -> str:
    """Write a setting's value in every run; of many runs each distinct value, with how many have it.

    Example:
        >>> values_of_runs(["1", "2"]), values_of_runs(["1", "2", "1", "1", "1", "1", "1"])
        ('1 | 2', '1 (6 runs) | 2 (1 run)')
    """
    if len(values) <= _MOST_LISTED:
        return " | ".join(values)
    return " | ".join(f"{value} ({count} run{'s' * (count > 1)})" for value, count in Counter(values).items())


def save_curves(runs: Sequence[Run], metric: str, path: Path) -> int:
    """Draw a metric over the steps of the runs that have it (PNG), of many runs the newest.

    Returns:
        How many runs are drawn.

    Raises:
        ConfigError: No run has the metric, or the picture cannot be written, or would replace something else.
    """
    _check_picture(path)
    curves, known = {}, set[str]()
    for run in runs:
        rows = read_metrics(run.folder)
        known |= {name for _, name, _ in rows}
        points = [(step, value) for step, name, value in rows if name == metric and np.isfinite(value)]
        if points:
            curves[run.name] = np.array(points)
    if not curves:
        raise ConfigError(f"no run has the metric {metric!r}: there are {', '.join(sorted(known)) or 'none'}")
    curves = dict(list(curves.items())[-_MOST_DRAWN:])
    with new_picture(path, (7.0, 4.0 + 0.2 * ((len(curves) + 1) // 2)), ConfigError) as figure:
        axes = figure.add_subplot()
        for name, curve in curves.items():
            marker = "o" if len(curve) < 30 else ""
            axes.plot(*curve.T, linewidth=1.4, marker=marker, markersize=3, label=_shortened(name))
        axes.set_xlabel("step")
        axes.set_ylabel(metric.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        figure.legend(loc="outside lower center", ncols=min(2, len(curves)), fontsize=8, frameon=False)
    return len(curves)


def _shortened(name: str) -> str:
    return name if len(name) <= 50 else f"...{name[-47:]}"


def _check_picture(path: Path) -> None:
    """Refuse a path at which something other than a picture would be lost."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"no picture can be drawn in {str(path)!r}: give a name that ends in .png")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            is_picture = file.read(len(_PNG)) == _PNG
    except OSError:  # a folder, or nothing we may read: not a picture of ours in any case
        is_picture = False
    if not is_picture:
        raise ConfigError(f"{str(path)!r} is there and is no PNG picture: give another name")
