"""Finds and reads the sources of a report: folders recognised as runs, evaluations and data sets.

All sources are found, and all small files read, before the first data set is verified, which may take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantum_diffusion.config.presets import read_yaml
from quantum_diffusion.data.storage import ARRAYS_FOLDER, is_dataset_folder, read_description
from quantum_diffusion.errors import ConfigError, DatasetFormatError, SourceError, counted, first_line, unknown_name
from quantum_diffusion.evaluation.inspection import InspectionReport, inspect_dataset
from quantum_diffusion.evaluation.report.figures import EvaluationSource, read_evaluation_folder
from quantum_diffusion.evaluation.report.results import METRICS_FILE, is_evaluation_file
from quantum_diffusion.files import describe
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.pipeline.checkpoint import METADATA, TRAINING_CONFIG
from quantum_diffusion.pipeline.checkpoint import WEIGHTS as WEIGHTS_FILE
from quantum_diffusion.pretrained import PREFIX, WEIGHTS, pretrained_names
from quantum_diffusion.tracking.experiment import EVALUATION_FILE, RUN_FILE, read_metrics
from quantum_diffusion.tracking.runs import Run, describe_run
from quantum_diffusion.tracking.sinks import flat

Kind = Literal["run", "evaluation", "data set"]

_RUN = "run"
_HUB = "hf:"


@dataclass(frozen=True)
class RunSource:
    """A training run, or a model without one.

    Attributes:
        name: Its name on the page: its path as given.
        folder: The folder of the model.
        run: The state of the run; None for a model without a `run/` folder.
        settings: The nested configuration; None if it is missing.
        metadata: The content of `metadata.yaml`; empty for an unfinished run.
        metrics: (step, metric, value) in the order written.
    """

    name: str
    folder: Path
    run: Run | None
    settings: dict[str, Any] | None
    metadata: dict[str, Any]
    metrics: list[tuple[int, str, float]]

    @property
    def flat_settings(self) -> dict[str, Any]:
        """The configuration by dotted key."""
        return flat(self.settings or {})

    def series(self, metric: str) -> list[tuple[float, float]]:
        """Return the (step, value) points of a metric."""
        return [(float(step), value) for step, name, value in self.metrics if name == metric]


@dataclass(frozen=True)
class DatasetSource:
    """A data set.

    Attributes:
        name: Its name on the page: its path as given.
        folder: Its folder; for a data set on the Hub, this is not a local folder.
        description: The content of its `config.yaml`; empty for data sets in other formats.
        inspection: The inspection report, with every circuit verified.
    """

    name: str
    folder: Path
    description: dict[str, Any]
    inspection: InspectionReport


@dataclass(frozen=True)
class Sources:
    """All sources of a report, in the order given."""

    runs: list[RunSource]
    evaluations: list[EvaluationSource]
    datasets: list[DatasetSource]

    @property
    def in_words(self) -> str:
        """The number of each kind, e.g. "2 training runs, 1 evaluation"."""
        numbers = {
            "training run": len(self.runs),
            "evaluation": len(self.evaluations),
            "data set": len(self.datasets),
        }
        return ", ".join(counted(number, what) for what, number in numbers.items() if number)


def read_sources(
    given: Sequence[str], max_circuits: int, progress: Callable[[int, int], None] | None = None
) -> Sources:
    """Find and read all sources.

    Args:
        given: Paths, pretrained:NAME or hf://owner/name.
        max_circuits: Maximum number of circuits of each kind to read from an evaluation.
        progress: Called with (circuits so far, circuits in total) for each data set.

    Raises:
        SourceError: A source is missing, damaged or not ours.
        DatasetFormatError, IncompatibleDatasetsError: A data set cannot be read.
    """
    found: dict[tuple[Kind, str], tuple[str, Path]] = {}
    for text in given:
        for kind, name, folder in _find(text):
            found.setdefault((kind, os.path.realpath(folder)), (name, folder))
    of_kind = {kind: [pair for (other, _), pair in found.items() if other == kind] for kind in _KINDS}
    runs = [_read_run(*pair) for pair in of_kind["run"]]
    evaluations = [read_evaluation_folder(*pair, max_circuits) for pair in of_kind["evaluation"]]
    described = [(*pair, _description(pair[1])) for pair in of_kind["data set"]]
    return Sources(runs, evaluations, [_inspected(*one, progress) for one in described])


_KINDS: tuple[Kind, ...] = ("run", "evaluation", "data set")


# ------------------------------------------------------------------------------------------------- finding


def _find(text: str) -> Iterator[tuple[Kind, str, Path]]:
    """Yield the kind, name and folder of everything that a source is or contains."""
    if text.startswith(_HUB):
        yield "data set", text, Path(text)
        return
    if text.startswith(PREFIX):
        name = text.removeprefix(PREFIX)
        if name not in pretrained_names():
            raise SourceError(unknown_name("model that comes with the package", name, pretrained_names()))
        yield "run", text, WEIGHTS / name
        return
    folder = Path(text)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SourceError(f"the source {text!r} {what}: give the folder of a model, an evaluation or a data set")
    if folder.name == _RUN and (folder / RUN_FILE).is_file():
        folder, text = folder.absolute().parent, str(Path(text).parent)
    own = list(_recognised(folder, text))
    if not own and is_dataset_folder(folder):
        own = [("data set", text, folder)]  # in another format, or damaged: its reader reports details
    yield from own
    if not own:
        below = list(_found_below(folder))
        if not below:
            raise SourceError(
                f"nothing to report on in {text!r}: expected a model (with {_RUN}/{RUN_FILE} or {TRAINING_CONFIG}), an "
                f"evaluation ({METRICS_FILE}), a data set ({ARRAYS_FOLDER}), or a folder that holds some"
            )
        yield from below


def _recognised(folder: Path, name: str, strict: bool = True) -> Iterator[tuple[Kind, str, Path]]:
    """Yield what a folder is; with `strict`, any `metrics.json` counts as an evaluation, even a damaged one."""
    if any((folder / name).is_file() for name in (f"{_RUN}/{RUN_FILE}", TRAINING_CONFIG, WEIGHTS_FILE)):
        yield "run", name, folder
        if (folder / EVALUATION_FILE).is_file():
            yield "evaluation", os.path.join(name, EVALUATION_FILE.parent), folder / EVALUATION_FILE.parent
    metrics = folder / METRICS_FILE
    if metrics.is_file() and (strict or is_evaluation_file(metrics)):
        yield "evaluation", name, folder
    if (folder / ARRAYS_FOLDER).is_dir():
        yield "data set", name, folder


def _found_below(folder: Path) -> Iterator[tuple[Kind, str, Path]]:
    """Yield what the subfolders are, in order of their names; the search does not enter models and data sets."""
    for path, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        own = [] if path == str(folder) else list(_recognised(Path(path), path, strict=False))
        yield from own
        if any(kind != "evaluation" for kind, _, _ in own):
            names.clear()


# ------------------------------------------------------------------------------------------------- reading


def _read_run(name: str, folder: Path) -> RunSource:
    run = settings = None
    run_file = folder / _RUN / RUN_FILE
    try:
        if run_file.is_file():
            record = read_yaml(run_file)  # safe against alias expansion
            settings = record.get("config")
            run = describe_run(folder / _RUN, name)
        elif (folder / TRAINING_CONFIG).is_file():
            settings = read_yaml(folder / TRAINING_CONFIG)
        metadata = read_yaml(folder / METADATA) if (folder / METADATA).is_file() else {}
        metrics = read_metrics(folder / _RUN)
    except ConfigError as problem:
        raise SourceError(f"{problem}: train again, or leave the source out") from None
    except OSError as problem:
        raise SourceError(f"cannot read the run in {str(folder)!r}: {describe(problem)}") from problem
    except Exception as problem:  # written by other software, or truncated
        raise SourceError(
            f"{str(run_file)!r} is no record of a run ({first_line(problem)}): train again, or leave the source out"
        ) from problem
    return RunSource(name, folder, run, settings if isinstance(settings, dict) else None, metadata, metrics)


def _description(folder: Path) -> dict[str, Any]:
    """Return the description of a native data set; empty for other formats, which are read elsewhere."""
    try:
        return read_description(folder)
    except DatasetFormatError:
        if (folder / ARRAYS_FOLDER).is_dir():
            raise  # a native data set
        return {}


def _inspected(
    name: str, folder: Path, description: dict[str, Any], progress: Callable[[int, int], None] | None
) -> DatasetSource:
    return DatasetSource(name, folder, description, inspect_dataset(dataset_loader().load_dataset(str(name)), progress))
