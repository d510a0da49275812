"""Sinks for the metrics and texts of a run: CSV, JSON lines, TensorBoard, Weights & Biases, MLflow.

All implement one protocol, and reopening one on a resumed run leaves no duplicate values. Their packages load slowly
and two of them are extras, so they are imported only when used.
"""

from __future__ import annotations

import csv
import html
import json
import logging
import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from quantum_diffusion.config.schema import Logger, WandbMode
from quantum_diffusion.errors import ConfigError, first_line, unknown_name
from quantum_diffusion.files import Lock, new_file, yaml_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_FILE = "metrics.csv"
RECORDS_FILE = "metrics.jsonl"
MLFLOW_FILE = "mlflow.db"

Status = Literal["finished", "interrupted", "failed"]
"""How a run ended."""

_SQLITE = "sqlite:///"
_LONGEST_OPENING = 120.0
"""Seconds that runs wait for one that is making the file; it takes a few."""


@dataclass(frozen=True)
class RunStart:
    """Information for a sink when a run starts or resumes.

    Attributes:
        folder: The existing folder of the run's record.
        name: Name of the experiment, which may have several runs.
        config: The resolved configuration, as plain values.
        run_id: Unique id of the run, kept when it is resumed.
        first_step: Steps done before this start; later steps will be recorded again.
        wandb_mode: "offline" or "online".
        mlflow_uri: MLflow's store; None is the SQLite file `mlflow.db` in the folder.
        run_name: Name of the run among those of its experiment; None is the name of the model's folder.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    run_id: str
    first_step: int = 0
    wandb_mode: WandbMode = "offline"
    mlflow_uri: str | None = None
    run_name: str | None = None

    @property
    def title(self) -> str:
        """What to call the run among those of its experiment."""
        return self.run_name or self.folder.absolute().parent.name


class Sink(Protocol):
    """A destination of metrics and texts."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    def text(self, step: int, name: str, text: str) -> None:
        """Take a text of several lines, e.g. drawn circuits."""

    def close(self, status: Status) -> None:
        """Write what is left, and how the run ended."""


class CsvSink:
    """Scalars as long-format CSV, one row per value (step, metric, value), readable during the run."""

    def __init__(self, start: RunStart) -> None:
        header = "step,metric,value\r\n"
        self._file = _reopened(start.folder / METRICS_FILE, start, lambda row: int(row.partition(",")[0]), header)
        self._writer = csv.writer(self._file)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row per value."""
        self._writer.writerows([step, name, repr(value)] for name, value in metrics.items())

    def text(self, step: int, name: str, text: str) -> None:
        """Ignore texts: a row holds a number."""

    def close(self, status: Status) -> None:
        """Close the file."""
        self._file.close()


class JsonlSink:
    """One JSON object per record, with its step and metrics or a text; null stands for a value that is not finite."""

    def __init__(self, start: RunStart) -> None:
        self._file = _reopened(start.folder / RECORDS_FILE, start, lambda record: int(json.loads(record)["step"]))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics as one record."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")

    def text(self, step: int, name: str, text: str) -> None:
        """Append a record with the text under its name."""
        self._file.write(json.dumps({"step": step, name: text}, ensure_ascii=False) + "\n")

    def close(self, status: Status) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Scalars, texts and the configuration for `tensorboard --logdir`."""

    def __init__(self, start: RunStart) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder, step = start.folder / "tensorboard", start.first_step
        if not step:
            shutil.rmtree(folder, ignore_errors=True)  # curves of an earlier run would mix in
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self.text(step, "configuration", yaml_text(start.config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a point a value."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        """Append a text, as Markdown that keeps its lines."""
        self._writer.add_text(name, textwrap.indent(text, "    ", lambda line: True), step)

    def close(self, status: Status) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbSink:
    """Weights & Biases: the experiment is the project, and a resumed run keeps its id.

    Files are in `wandb/` of the run's folder. Offline, each start adds a folder there, and `wandb sync` joins them.
    Online, the server ignores steps that it already has; repeated steps have the same values.
    """

    def __init__(self, start: RunStart) -> None:
        self._wandb = wandb = _import_wandb()
        online = start.wandb_mode == "online"
        own = sys.exit, sys.excepthook
        self._run = wandb.init(
            project=re.sub(r"[/\\#?%:]", "-", start.name)[:128],  # what W&B takes as a name
            name=start.title,
            id=start.run_id,
            resume="allow" if online else None,
            config=dict(start.config),
            dir=str(start.folder),
            reinit="create_new",  # a run that the caller has open stays as it is
            settings=wandb.Settings(
                mode=start.wandb_mode, silent=True, console="off", disable_git=True, disable_code=True
            ),
        )
        sys.exit, sys.excepthook = own  # wandb replaces them, and would not put them back  # type: ignore[assignment]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics to the history."""
        self._run.log(dict(metrics), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        """Add a text to the history, as HTML that keeps its lines."""
        self._run.log({name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def close(self, status: Status) -> None:
        """Finish the run, with the exit status that goes with it."""
        self._run.finish(exit_code={"finished": 0, "interrupted": 130, "failed": 1}[status])


class MlflowSink:
    """MLflow: parameters are the configuration, texts are artifacts, and a resumed run keeps its id."""

    _RUN_ID = "quantum_diffusion.run_id"
    _LONGEST_VALUE = 6000
    _MOST_PARAMETERS = 100  # at once

    def __init__(self, start: RunStart) -> None:
        self._mlflow = _import_mlflow()
        uri = start.mlflow_uri or sqlite_uri(start.folder)
        if uri.startswith(_SQLITE):
            path = Path(uri.removeprefix(_SQLITE)).absolute()
            if re.search("[%?]", str(path.parent)):  # read as part of an address, it would lie elsewhere
                raise ConfigError(f"its file cannot lie below {str(path.parent)!r}: give training.general.mlflow_uri")
            # MLflow breaks a file that two runs of a sweep make at once; and artifacts would lie where we are called.
            with Lock(path.with_name(f"{path.name}.lock")).hold(_LONGEST_OPENING):
                if not path.exists():
                    with new_file(path, ConfigError) as staging:
                        staging.touch()  # SQLite would forbid it to the user's group
                        self._mlflow.MlflowClient(f"{_SQLITE}{staging}").search_experiments()
                experiment = self._open(uri, start.name, (path.parent / "mlartifacts").as_uri())
        else:
            experiment = self._open(uri, start.name, None)
        self._done: dict[str, int] = {}
        found = self._client.search_runs([experiment], f"tags.`{self._RUN_ID}` = '{start.run_id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            for name in found[0].data.metrics:
                self._done[name] = max(point.step for point in self._client.get_metric_history(self._run, name))
        else:
            tags = {self._RUN_ID: start.run_id}
            self._run = self._client.create_run(experiment, run_name=start.title, tags=tags).info.run_id
            self._log_parameters(flat(start.config))

    def _open(self, uri: str, name: str, artifacts: str | None) -> str:
        """Connect to the store and return the id of the experiment, which is made if it is new."""
        self._client: MlflowClient = self._mlflow.MlflowClient(uri)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def _log_parameters(self, values: Mapping[str, Any]) -> None:
        parameters = [
            self._mlflow.entities.Param(key, str(value)[: self._LONGEST_VALUE]) for key, value in values.items()
        ]
        for first in range(0, len(parameters), self._MOST_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[first : first + self._MOST_PARAMETERS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add points that the run does not have yet: MLflow cannot remove points and would show duplicates."""
        now = round(1000 * time.time())
        new = {name: value for name, value in metrics.items() if step > self._done.get(name, -1)}
        self._client.log_batch(
            self._run, metrics=[self._mlflow.entities.Metric(name, value, now, step) for name, value in new.items()]
        )

    def text(self, step: int, name: str, text: str) -> None:
        """Write the text as an artifact; one of the same step is replaced."""
        self._client.log_text(self._run, text, f"{name}/step_{step:08d}.txt")

    def close(self, status: Status) -> None:
        """Record how the run ended, in MLflow's words."""
        words = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
        self._client.set_terminated(self._run, words[status])


SINKS: dict[Logger, Callable[[RunStart], Sink]] = {
    "csv": CsvSink,
    "jsonl": JsonlSink,
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "mlflow": MlflowSink,
}


def check_sinks(names: Iterable[str]) -> None:
    """Refuse sinks that cannot be used.

    Raises:
        ConfigError: A name is unknown, or its package is not installed or cannot be loaded.
    """
    for name in names:
        if name not in SINKS:
            raise ConfigError(unknown_name("metrics sink", name, SINKS))
        try:
            if name in _EXTRAS:
                _EXTRAS[name]()
        except ImportError:
            raise ConfigError(
                f"training.general.loggers has {name!r}, which is not installed: "
                f"pip install 'quantum-diffusion[{name}]'"
            ) from None
        except Exception as problem:  # of MLflow where there is no home folder, for one
            raise ConfigError(
                f"training.general.loggers has {name!r}, which cannot be loaded: {first_line(problem)}; fix that, or "
                "leave it out"
            ) from None


def sqlite_uri(folder: Path) -> str:
    """Return the URI of the SQLite file that MLflow keeps in a folder."""
    return f"{_SQLITE}{folder.absolute() / MLFLOW_FILE}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key.

    Example:
        >>> flat({"general": {"seed": 0}})
        {'general.seed': 0}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def _import_wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it looks for its makers' server even offline
    import wandb
    from wandb import Settings  # noqa: F401  (a folder wandb/ of earlier runs can be imported, too)

    logging.getLogger("wandb").setLevel(logging.CRITICAL)  # it would log what it raises
    return wandb


def _import_mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # else it waits minutes for a server that is away
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every further try
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells each table it makes, and mlflow that it begins
    import alembic  # noqa: F401
    import mlflow.entities
    import sqlalchemy  # noqa: F401  (these two are not part of mlflow-skinny, but of its SQLite store)
    from mlflow import MlflowClient  # noqa: F401

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


_EXTRAS: dict[str, Callable[[], object]] = {"wandb": _import_wandb, "mlflow": _import_mlflow}


def _reopened(path: Path, start: RunStart, step_of: Callable[[str], int], header: str = "") -> TextIO:
    """Open a file of lines to write on; whole lines of an earlier start stay, but for steps that are made again."""
    kept = []
    if start.first_step and path.is_file():
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if line.endswith("\n") and step_of(line) <= start.first_step:
                        kept.append(line)
                except (ValueError, LookupError, TypeError):
                    continue  # the header, or a damaged line
    with new_file(path, ConfigError) as staging:  # a kill here, or a full disk, leaves what was recorded
        staging.write_text("".join([header, *kept]), encoding="utf-8", newline="")
    return path.open("a", newline="", encoding="utf-8", buffering=1)
