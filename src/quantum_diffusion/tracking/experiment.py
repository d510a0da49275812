"""The record of a run: its configuration, its metrics over time, and how it ended.

Metrics and texts go to the sinks of `tracking.sinks`. A failing sink (e.g. on a full disk) is reported once and then
dropped; it never ends a training run.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from quantum_diffusion.config.schema import Logger, WandbMode
from quantum_diffusion.errors import QuantumDiffusionError, first_line
from quantum_diffusion.files import new_file, yaml_text
from quantum_diffusion.tracking.processes import this_process
from quantum_diffusion.tracking.sinks import METRICS_FILE, SINKS, RunStart, Sink, Status, check_sinks

logger = logging.getLogger(__name__)

RUN_FILE = "run.yaml"
EVALUATION_FILE = Path("evaluation", "metrics.json")
"""Default path of an evaluation's figures inside a model's folder."""

_END_BYTES = 2**14
"""The end of a metrics file that holds the last value of each metric: 250 rows and more."""


class ExperimentLogger:
    """Logs one run; a context manager that always records how the run ended.

    Args:
        folder: Folder of the record.
        name: Name of the experiment.
        config: The resolved configuration, as plain values.
        sinks: Which of `SINKS` to use.
        first_step: Steps done before this start, for a resumed run.
        run_id: Unique id of the run, kept when it is resumed; None makes a new one.
        total_steps: Steps of the whole run, None if unknown.
        wandb_mode: "offline" or "online", for the sink "wandb".
        mlflow_uri: The store of the sink "mlflow"; None is an SQLite file in the folder.
        run_name: Name of the run among those of its experiment; None is the name of the model's folder.

    Raises:
        ConfigError: A sink is unknown, or its package is not installed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with ExperimentLogger(folder, "try", {"rate": 0.1}, sinks=["csv"]) as log:
        ...     log.log(1, {"loss": 0.5})
        >>> read_metrics(folder), read_run(folder)["status"]
        ([(1, 'loss', 0.5)], 'finished')
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        sinks: Sequence[Logger] = ("csv", "jsonl", "tensorboard"),
        first_step: int = 0,
        *,
        run_id: str | None = None,
        total_steps: int | None = None,
        wandb_mode: WandbMode = "offline",
        mlflow_uri: str | None = None,
        run_name: str | None = None,
    ) -> None:
        check_sinks(sinks)
        self.folder = folder
        self.name = name
        self.config = dict(config)
        self._start = RunStart(
            folder, name, self.config, run_id or uuid.uuid4().hex, first_step, wandb_mode, mlflow_uri, run_name
        )
        self._total_steps = total_steps
        self._sink_names = tuple(dict.fromkeys(sinks))
        self._sinks: dict[str, Sink] = {}
        self._started = 0.0
        self._ended = False
        self._last: dict[str, float] = {}

    def start(self) -> ExperimentLogger:
        """Write `run.yaml` and open the sinks; returns the logger itself."""
        self._started = time.time()
        self._write_run("running")  # first, to mark the folder as ours even after a kill
        for name in self._sink_names:
            self._guard(name, lambda name=name: self._open(name))  # type: ignore[misc]
        return self

    def _open(self, name: Logger) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sinks[name] = SINKS[name](self._start)

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Record metrics of a step; None values are left out."""
        values = {name: float(value) for name, value in metrics.items() if value is not None}
        self._last.update(values)
        for name, sink in list(self._sinks.items()):
            self._guard(name, lambda sink=sink: sink.log(step, values))  # type: ignore[misc]

    def text(self, step: int, name: str, text: str) -> None:
        """Record a text of several lines, e.g. drawn circuits."""
        for sink_name, sink in list(self._sinks.items()):
            self._guard(sink_name, lambda sink=sink: sink.text(step, name, text))  # type: ignore[misc]

    def end(self, status: Status = "finished") -> None:
        """Close the sinks and record how the run ended; only once."""
        if self._ended:
            return
        self._ended = True
        while self._sinks:  # each is closed only once, even if that fails
            name, sink = self._sinks.popitem()
            self._guard(name, lambda sink=sink: sink.close(status))  # type: ignore[misc]
        self._write_run(status)

    def __enter__(self) -> ExperimentLogger:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("finished" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed")

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as problem:
            logger.warning("metrics are no longer written to %s: %s", name, first_line(problem))
            sink = self._sinks.pop(name, None)
            with suppress(Exception):  # release its file, process or server run
                if sink is not None:
                    sink.close("failed")

    def _write_run(self, status: str) -> None:
        record = {
            "name": self.name,
            "status": status,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "seconds": round(time.time() - self._started, 1),
            "total_steps": self._total_steps,
            "process": this_process(),
            "last_metrics": {key: value for key, value in self._last.items() if math.isfinite(value)},
            "config": self.config,
        }
        try:
            with new_file(self.folder / RUN_FILE, QuantumDiffusionError) as staging:
                staging.write_text(yaml_text(record), encoding="utf-8")
        except (QuantumDiffusionError, OSError) as problem:
            logger.warning("%s", problem)


def read_metrics(folder: Path) -> list[tuple[int, str, float]]:
    """Read `metrics.csv` as (step, metric, value) rows; a last line cut short by a crash is left out."""
    path = folder / METRICS_FILE
    return _rows_of(path.read_bytes()) if path.is_file() else []


def read_last_metrics(folder: Path) -> tuple[int, dict[str, float]]:
    """Return the last step in `metrics.csv`, 0 where there is none, and the last values, from the end of the file."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return 0, {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        rows = _rows_of(file.read())
    return max((step for step, _, _ in rows), default=0), {name: value for _, name, value in rows}


def _rows_of(content: bytes) -> list[tuple[int, str, float]]:
    complete, _, _ = content.decode(errors="replace").rpartition("\n")
    rows = []
    for row in csv.reader(complete.splitlines()):
        try:
            rows.append((int(row[0]), row[1], float(row[2])))
        except (ValueError, IndexError):
            continue  # the header, or a damaged line
    return rows


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.yaml`: name, status, started, seconds, total_steps, process, last_metrics, config.

    Earlier versions wrote no `total_steps` and no `process`.
    """
    record: dict[str, Any] = yaml.safe_load((folder / RUN_FILE).read_text(encoding="utf-8"))
    return record


def read_evaluation(model: Path) -> dict[str, float]:
    """Return the single figures of the evaluation in a model's folder; of "best of k" those of the largest k.

    Raises:
        OSError, ValueError: There is one, but it cannot be read.
    """
    path = model / EVALUATION_FILE
    if not path.is_file():
        return {}
    figures = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(figures, dict):
        raise ValueError("it holds no figures by name")
    best_of = figures.pop("best_of", None)
    if isinstance(best_of, dict) and best_of:
        tries = max(best_of, key=int)
        figures[f"best_of_{tries}"] = best_of[tries]
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
