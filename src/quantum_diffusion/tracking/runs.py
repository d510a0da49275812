"""Compares runs: status, settings that differ, and curves in one picture.

Everything is read from the `run/` folders that training leaves; only the picture is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from quantum_diffusion.config.schema import SAME_MODEL
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.files import DESCRIPTION
from quantum_diffusion.pictures import new_picture
from quantum_diffusion.tracking.experiment import (
    RUN_FILE,
    read_evaluation,
    read_last_metrics,
    read_metrics,
    read_run,
)
from quantum_diffusion.tracking.processes import is_running
from quantum_diffusion.tracking.sinks import METRICS_FILE, flat

COLUMNS = ("loss", "validation_loss", "sampled_accuracy", "srv_accuracy", "exact_rate", "best_of_*")
"""Metrics shown beside each run; those of the evaluation of its model come last."""

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
        name: Path of its model folder relative to the searched folder.
        folder: Its `run/` folder.
        status: "finished", "interrupted", "failed", "running", "stopped" (killed), or "unknown": it runs or was killed
            on another host.
        started: When it began or was last resumed, ISO 8601 in UTC.
        seconds: Seconds from then to its end or last metrics.
        step: The last step that was logged.
        total_steps: Steps of the whole run, None in records of earlier versions.
        checkpoint: The step at which the training command resumes it, None without checkpoint.
        host: The computer it was started on; empty in records of earlier versions.
        metrics: The last value of each metric, and the figures of its model's evaluation.
        settings: The configuration, by dotted key.
    """

    name: str
    folder: Path
    status: str
    started: str
    seconds: float
    step: int
    total_steps: int | None
    checkpoint: int | None
    host: str
    metrics: dict[str, float]
    settings: dict[str, Any]

    @property
    def state(self) -> str:
        """Its status in words, with the host and what continues it."""
        step = f"step {self.step}" + (f" of {self.total_steps}" if self.total_steps else "")
        if self.status == "finished":
            return "finished"
        if self.status == "running":
            return f"running, {step}"
        if self.status == "unknown":
            return f"unknown (on host {self.host or '?'}), {step}"
        mend = "starts anew" if self.checkpoint is None else f"continues it from step {self.checkpoint}"
        return f"{self.status} at {step} (the same training command {mend})"

    @property
    def figures(self) -> dict[str, float]:
        """The metrics shown in the list of runs."""
        return {name: value for column in COLUMNS for name, value in self.metrics.items() if fnmatchcase(name, column)}


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
            run = describe_run(file.parent, str(file.parent.parent.relative_to(folder)))
        except Exception:  # a record of another software, or one cut short
            continue
        runs.append(run)
    if not runs:
        raise ConfigError(
            f"no run in {str(folder)!r}: expected model folders with run/{RUN_FILE}, as training leaves them"
        )
    return sorted(runs, key=lambda run: (run.started, run.name))


def describe_run(folder: Path, name: str) -> Run:
    """Return the run whose record is in a folder; raises whatever a record that cannot be read leads to.

    Args:
        folder: The `run/` folder.
        name: What to call it.
    """
    record = read_run(folder)
    status, seconds, process = str(record["status"]), float(record["seconds"]), record.get("process") or {}
    step, last = read_last_metrics(folder)
    checkpoint = max((int(path.stem) for path in (folder / "checkpoints").glob("[0-9]*.pt")), default=None)
    if status == "running":  # as far as the record knows
        status = {True: "running", False: "stopped", None: "unknown"}[is_running(process)]
        seconds = max(0.0, _last_change(folder) - datetime.fromisoformat(str(record["started"])).timestamp())
    if status == "finished" and checkpoint is not None and not (folder.parent / DESCRIPTION).is_file():
        status = "stopped"  # before the model was saved
    with suppress(OSError, ValueError, TypeError):  # figures of another software, or cut short
        last |= read_evaluation(folder.parent)
    return Run(
        name=name,
        folder=folder,
        status=status,
        started=str(record["started"]),
        seconds=seconds,
        step=max(step, checkpoint or 0),
        total_steps=record.get("total_steps"),
        checkpoint=checkpoint,
        host=str(process.get("host") or ""),
        metrics={str(key): float(value) for key, value in record["last_metrics"].items()} | last,
        settings=flat(record["config"]),
    )


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder / RUN_FILE, folder / METRICS_FILE) if path.is_file())


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return settings that affect the model and differ, each with its value in every run (None if a run lacks it)."""
    return differing_settings([run.settings for run in runs])


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings, by dotted key, that make models differ; see `differences`."""
    keys = sorted({key for one in settings for key in one} - set(SAME_MODEL))
    values = {key: [one.get(key) for one in settings] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def values_of_runs(values: Sequence[str]) -> str:
    """Format a setting's value in every run; for many runs, each distinct value with its number of runs.

    Example:
        >>> values_of_runs(["1", "2"]), values_of_runs(["1", "2", "1", "1", "1", "1", "1"])
        ('1 | 2', '1 (6 runs) | 2 (1 run)')
    """
    if len(values) <= _MOST_LISTED:
        return " | ".join(values)
    return " | ".join(f"{value} ({counted(count, 'run')})" for value, count in Counter(values).items())


def save_curves(runs: Sequence[Run], metric: str, path: Path) -> int:
    """Draw a metric over the steps of the newest runs that have it (PNG).

    Returns:
        How many runs are drawn.

    Raises:
        ConfigError: No run has the metric, or the picture cannot be written, or would replace something else.
    """
    check_picture(path)
    curves, known = {}, set[str]()
    for run in runs:
        rows = read_metrics(run.folder)
        known |= {name for _, name, _ in rows}
        points = [(step, value) for step, name, value in rows if name == metric and np.isfinite(value)]
        if points:
            curves[run.name] = np.array(points)
    if not curves:
        raise ConfigError(f"no run has the metric {metric!r}: choose one of {', '.join(sorted(known)) or 'none'}")
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


def check_picture(path: Path) -> None:
    """Refuse a path that cannot be written, or that holds something other than a picture.

    Raises:
        ConfigError: The message says why.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"cannot draw a picture in {str(path)!r}: give a name that ends in .png")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder {str(path.parent)!r} for the picture does not exist: create it, or give another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"no picture can be written to {str(path.parent)!r} (permission denied): give another folder")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            is_picture = file.read(len(_PNG)) == _PNG
    except OSError:  # a folder, or nothing we may read: not a picture of ours in any case
        is_picture = False
    if not is_picture:
        raise ConfigError(f"{str(path)!r} exists and is not a PNG picture: give another name")
