"""Reads and checks the figures and circuits in an evaluation's folder; a damaged file gives a one-line error."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import GateSetError, SourceError, first_line
from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.results import CIRCUITS_FOLDER, FAILED_FOLDER, METRICS_FILE
from quantum_diffusion.evaluation.report.tables import Row, summary_rows
from quantum_diffusion.evaluation.target_metrics import GateComparison, TargetMetrics
from quantum_diffusion.files import describe

_LARGEST_METRICS, _LARGEST_CIRCUIT = 2**26, 2**16
"""Maximum file sizes in bytes; larger files are not ours."""

_LARGEST_FIGURE = 2 * 10**19
"""Largest absolute value of a figure, enough for any seed."""


@dataclass(frozen=True)
class DrawnCircuit:
    """A circuit of an evaluation.

    Attributes:
        title: The comment above it: the request and the outcome.
        circuit: The circuit.
        file: Its path, relative to the evaluation's folder.
    """

    title: str
    circuit: Circuit
    file: str


@dataclass(frozen=True)
class EvaluationSource:
    """An evaluation.

    Attributes:
        name: Its name on the page: its path as given.
        folder: Its folder.
        metrics: The figures.
        rows: The figures in words.
        settings: Its settings; empty if not recorded.
        num_verified: Number of files of verified circuits.
        verified: The shortest verified circuit of each prompt or target, for some of them.
        failed: Some failed circuits.
        keeps_failed: Whether the evaluation keeps failed circuits; earlier versions did not.
    """

    name: str
    folder: Path
    metrics: EvaluationMetrics | TargetMetrics
    rows: list[Row]
    settings: dict[str, Any]
    num_verified: int
    verified: list[DrawnCircuit]
    failed: list[DrawnCircuit]
    keeps_failed: bool


def read_evaluation_folder(name: str, folder: Path, max_circuits: int) -> EvaluationSource:
    """Read the results of an evaluation.

    Args:
        name: Its name on the page.
        folder: Its folder.
        max_circuits: Maximum number of circuits to read, for verified and failed ones each.

    Raises:
        SourceError: A file is damaged or not ours.
    """
    path = folder / METRICS_FILE
    values = _read_json(path)
    metrics = _metrics(values, path)
    try:
        rows = summary_rows(metrics)
    except (KeyError, ValueError, TypeError, OverflowError) as problem:
        raise _damaged(path, f"its figures do not belong together: {first_line(problem)}") from problem
    settings = values.get("evaluation")
    verified = sorted((folder / CIRCUITS_FOLDER).glob("*/*.qasm"))
    shortest = {file.parent: file for file in reversed(verified)}
    failed = sorted((folder / FAILED_FOLDER).glob("*.qasm"))
    return EvaluationSource(
        name=name,
        folder=folder,
        metrics=metrics,
        rows=rows,
        settings=settings if isinstance(settings, dict) else {},
        num_verified=len(verified),
        verified=[_read_circuit(shortest[place], folder) for place in sorted(shortest)[:max_circuits]],
        failed=[_read_circuit(file, folder) for file in failed[:max_circuits]],
        keeps_failed=(folder / FAILED_FOLDER).is_dir(),
    )


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path, _LARGEST_METRICS)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise _damaged(path, first_line(problem)) from problem
    if not isinstance(values, dict):
        raise _damaged(path, "it holds no figures by name")
    return values


def _metrics(values: dict[str, Any], path: Path) -> EvaluationMetrics | TargetMetrics:
    """Return the figures, including those of earlier versions; optional figures that are missing become None."""
    kinds: dict[str, type[EvaluationMetrics | TargetMetrics]] = {
        "srv_accuracy": EvaluationMetrics,
        "exact_rate": TargetMetrics,
    }
    kind = next((kind for key, kind in kinds.items() if key in values), None)
    if kind is None:
        raise _damaged(path, f"it has neither {' nor '.join(kinds)}")
    hints = get_type_hints(kind)
    filled = {field.name: values.get(field.name, _unknown(hints[field.name])) for field in fields(kind)}
    given = {name: value for name, value in filled.items() if value is not ...}
    try:
        metrics = TypeAdapter(kind).validate_python(given)
    except (ValidationError, RecursionError) as problem:
        raise _damaged(path, _first_error(problem)) from None
    if not _is_sensible(metrics.to_dict()):
        raise _damaged(path, "a figure is no number that occurs")
    if isinstance(metrics, TargetMetrics):
        tries = metrics.best_of.keys() & metrics.best_of_intervals.keys()
        if str(metrics.samples_per_target) not in tries or not all(map(str.isdecimal, metrics.best_of)):
            raise _damaged(path, "best_of is not by numbers of tries")
        bins = len(metrics.infidelity_edges) - 1
        if {len(metrics.infidelity_counts), len(metrics.best_infidelity_counts)} != {bins}:
            raise _damaged(path, "its histograms have not as many counts as bins")
    return metrics


def _unknown(hint: Any) -> Any:
    """Return the default for a figure that earlier versions lack; `...` if there is none."""
    if hint is GateComparison:
        return GateComparison(0, None, None, None, None)
    if NoneType in get_args(hint):
        return None
    return {} if get_origin(hint) is dict else ...


def _is_sensible(value: Any) -> bool:
    """Return whether all numbers in plain values are finite and of plausible size."""
    if isinstance(value, dict):
        return all(map(_is_sensible, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_sensible, value))
    return not isinstance(value, int | float) or abs(value) <= _LARGEST_FIGURE  # False for NaN


def _first_error(problem: ValidationError | RecursionError) -> str:
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    error = problem.errors(include_url=False)[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


def _read_circuit(file: Path, folder: Path) -> DrawnCircuit:
    text = _read_text(file, _LARGEST_CIRCUIT)
    comment, _, _ = text.partition("\n")
    try:
        backend = QiskitBackend()
        circuit = backend.from_native(backend.read_qasm(text))
    except GateSetError as problem:
        raise SourceError(f"{str(file)!r}: {problem}") from None
    return DrawnCircuit(
        comment.removeprefix("//").strip().removeprefix("failed: "), circuit, file.relative_to(folder).as_posix()
    )


def _read_text(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as problem:
        raise SourceError(f"cannot read {str(path)!r}: {describe(problem)}") from problem
    if len(content) > most:
        raise _damaged(path, f"it is larger than {most:,} bytes")
    return content.decode("utf-8", "replace")


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(f"{str(path)!r} is not what an evaluation writes ({why}): evaluate again, or leave it out")
