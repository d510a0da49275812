"""The record of a run: its configuration, its metrics over time, and how it ended.

Metrics and texts go to the sinks of `tracking.sinks`. A failing sink (a full disk, say) is reported once and then left
out: it never ends a training run.
"""

from __future__ import annotations

import csv
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import yaml

from quantum_diffusion.errors import QuantumDiffusionError, first_line
from quantum_diffusion.files import new_file
from quantum_diffusion.tracking.sinks import METRICS_FILE, SINKS, RunStart, Sink, Status, check_sinks

logger = logging.getLogger(__name__)

RUN_FILE = "run.yaml"


class ExperimentLogger:
    """Logs one run; a context manager that records the end whatever happens.

    Args:
        folder: Where the record is written.
        name: Name of the experiment.
        config: The resolved configuration, as plain values.
        sinks: Which of `SINKS` to use.
        first_step: Steps done before this start, for a resumed run.
        run_id: Tells this run from others, also when it is resumed; None makes one.
        wandb_mode: "offline" or "online", for the sink "wandb".
        mlflow_uri: The store of the sink "mlflow"; None is an SQLite file in the folder.

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
        sinks: Sequence[str] = ("csv", "jsonl", "tensorboard"),
        first_step: int = 0,
        *,
        run_id: str | None = None,
        wandb_mode: Literal["offline", "online"] = "offline",
        mlflow_uri: str | None = None,
    ) -> None:
        check_sinks(sinks)
        self.folder = folder
        self.name = name
        self.config = dict(config)
        self._start = RunStart(
            folder, name, self.config, run_id or uuid.uuid4().hex, first_step, wandb_mode, mlflow_uri
        )
        self._sink_names = tuple(dict.fromkeys(sinks))
        self._sinks: dict[str, Sink] = {}
        self._started = 0.0
        self._ended = False
        self._last: dict[str, float] = {}

    def start(self) -> ExperimentLogger:
        """Write `run.yaml` and open the sinks; returns the logger itself."""
        self._started = time.time()
        self._write_run("running")  # first: it says whose folder this is, also after a kill
        for name in self._sink_names:
            self._guard(name, lambda name=name: self._open(name))  # type: ignore[misc]
        return self

    def _open(self, name: str) -> None:
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
        while self._sinks:  # one that cannot be closed is not closed again
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
            with suppress(Exception):  # it may hold a file, a process or a run on a server
                if sink is not None:
                    sink.close("failed")

    def _write_run(self, status: str) -> None:
        record = {
            "name": self.name,
            "status": status,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "seconds": round(time.time() - self._started, 1),
            "last_metrics": {key: value for key, value in self._last.items() if math.isfinite(value)},
            "config": self.config,
        }
        try:
            with new_file(self.folder / RUN_FILE, QuantumDiffusionError) as staging:
                staging.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")
        except (QuantumDiffusionError, OSError) as problem:
            logger.warning("%s", problem)


def read_metrics(folder: Path) -> list[tuple[int, str, float]]:
    """Read `metrics.csv` as (step, metric, value) rows; a last line cut short by a crash is left out."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    complete, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    rows = []
    for row in csv.reader(complete.splitlines()):
        try:
            rows.append((int(row[0]), row[1], float(row[2])))
        except (ValueError, IndexError):
            continue  # the header, or a damaged line
    return rows


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.yaml`: name, status, started, seconds, last_metrics, config."""
    record: dict[str, Any] = yaml.safe_load((folder / RUN_FILE).read_text(encoding="utf-8"))
    return record
