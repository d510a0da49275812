"""The record of a run: its configuration, its metrics over time, and how it ended.

Metrics go to a CSV file and to TensorBoard. A failing sink (a full disk, say) is reported once and then left out: it
never ends a training run.
"""

from __future__ import annotations

import csv
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import yaml

from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, unknown_name
from quantum_diffusion.files import new_file

logger = logging.getLogger(__name__)

RUN_FILE = "run.yaml"
METRICS_FILE = "metrics.csv"


class Sink(Protocol):
    """A place metrics go to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    def close(self) -> None:
        """Write what is left."""


class CsvSink:
    """Long-format CSV: one row a value (step, metric, value), readable while the run goes on.

    Args:
        folder: Where `metrics.csv` is written.
        first_step: Rows of later steps are dropped: a resumed run makes them again.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.path = folder / METRICS_FILE
        kept = [row for row in read_metrics(folder) if row[0] <= first_step] if first_step else []
        self._file = self.path.open("w", newline="", encoding="utf-8", buffering=1)
        self._writer = csv.writer(self._file)
        self._writer.writerow(["step", "metric", "value"])
        self._writer.writerows([step, metric, repr(value)] for step, metric, value in kept)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row a value."""
        self._writer.writerows([step, name, repr(float(value))] for name, value in metrics.items())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Scalars for `tensorboard --logdir`."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if not first_step:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)  # curves of an earlier run would mix in
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else None)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a point a value."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


SINKS: dict[str, Callable[[Path, int], Sink]] = {"csv": CsvSink, "tensorboard": TensorBoardSink}


class ExperimentLogger:
    """Logs one run; a context manager that records the end whatever happens.

    Args:
        folder: Where the record is written.
        name: Name of the experiment.
        config: The resolved configuration, as plain values.
        sinks: Which of `SINKS` to use.
        first_step: Steps done before this start, for a resumed run.

    Raises:
        ConfigError: A sink is unknown.

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
        sinks: Sequence[str] = ("csv", "tensorboard"),
        first_step: int = 0,
    ) -> None:
        for sink in sinks:
            if sink not in SINKS:
                raise ConfigError(unknown_name("metrics sink", sink, SINKS))
        self.folder = folder
        self.name = name
        self.config = dict(config)
        self.first_step = first_step
        self._sink_names = tuple(sinks)
        self._sinks: dict[str, Sink] = {}
        self._started = 0.0
        self._ended = False
        self._last: dict[str, float] = {}

    def start(self) -> ExperimentLogger:
        """Open the sinks and write `run.yaml`; returns the logger itself."""
        self._started = time.time()
        for name in self._sink_names:
            self._guard(name, lambda name=name: self._open(name))  # type: ignore[misc]
        self._write_run("running")
        return self

    def _open(self, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sinks[name] = SINKS[name](self.folder, self.first_step)

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Record metrics of a step; None values are left out."""
        values = {name: float(value) for name, value in metrics.items() if value is not None}
        self._last.update(values)
        for name, sink in list(self._sinks.items()):
            self._guard(name, lambda sink=sink: sink.log(step, values))  # type: ignore[misc]

    def end(self, status: str = "finished") -> None:
        """Close the sinks and record how the run ended ("finished", "interrupted" or "failed"); only once."""
        if self._ended:
            return
        self._ended = True
        for name, sink in list(self._sinks.items()):
            self._guard(name, sink.close)
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
            self._sinks.pop(name, None)
            logger.warning("metrics are no longer written to %s: %s", name, problem)

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
