"""Writes the folder of an evaluation: figures, pictures, and verified and some failed circuits as OpenQASM 2.

Only an earlier evaluation is ever replaced; this is checked before the work starts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.files import NUMBERED, numbered, write_circuits
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import CheckpointError, only_warn
from quantum_diffusion.evaluation.metrics import SampledFigures
from quantum_diffusion.evaluation.report.tables import Row, markdown_table
from quantum_diffusion.files import new_entries
from quantum_diffusion.folders import check_nothing_lost
from quantum_diffusion.pipeline.provenance import provenance

METRICS_FILE = "metrics.json"
CIRCUITS_FOLDER = "circuits"
FAILED_FOLDER = "failed"
FOLDERS = (CIRCUITS_FOLDER, FAILED_FOLDER)
RESULTS = (METRICS_FILE, "metrics.md", "accuracy.png", "success.png", "circuits.png", *FOLDERS)

MOST_FAILED = 12
"""Maximum number of failed circuits to keep."""

_KEYS = {"valid_rate", "reasons", "seed", "evaluation"}
"""Keys in every evaluation's `metrics.json`, unlikely in any other file of that name."""

_CIRCUITS = re.compile(rf"{CIRCUITS_FOLDER}/(srv|target)_\d+(/{NUMBERED})?|{FAILED_FOLDER}/{NUMBERED}")


def check_results_folder(folder: Path) -> None:
    """Raise an error if the folder cannot be written, or if results would replace files not from an evaluation.

    Raises:
        CheckpointError: The message says what is in the way.
    """
    is_evaluation = is_evaluation_file(folder / METRICS_FILE)
    refusal = "holds {!r}, but no earlier evaluation that might be replaced: choose another evaluation.save_folder"
    if is_evaluation:
        refusal = (
            "holds {!r}, which no evaluation wrote and a new one would remove: move it elsewhere, or choose another "
            "evaluation.save_folder"
        )
    check_nothing_lost(
        folder,
        CheckpointError,
        refusal,
        entries=_present(folder),
        is_ours=lambda name: is_evaluation and _is_result(folder, name),
        written=folder / CIRCUITS_FOLDER,
    )


def _present(folder: Path) -> Iterator[str]:
    """Yield what a new evaluation would replace or remove."""
    yield from (name for name in RESULTS if os.path.lexists(folder / name))
    for written in FOLDERS:
        yield from (path.relative_to(folder).as_posix() for path in sorted((folder / written).rglob("*")))


def _is_result(folder: Path, name: str) -> bool:
    if "/" in name:
        return bool(_CIRCUITS.fullmatch(name))
    return (folder / name).is_dir() == (name in FOLDERS)


def is_evaluation_file(path: Path) -> bool:
    """Return whether a file holds the figures of an evaluation, of any version."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(figures, dict) and figures.keys() >= _KEYS


def content(metrics: SampledFigures, config: EvaluationConfig) -> dict[str, Any]:
    """Return the content of `metrics.json`: the figures, the settings, and the software used."""
    settings, device = config.model_dump(mode="json"), select_device(config.device)
    return metrics.to_dict() | {"evaluation": settings, "provenance": provenance(device)}


def write_results_folder(
    folder: Path,
    figures: Mapping[str, Any],
    rows: Sequence[Row],
    verified: Mapping[str, Sequence[Circuit]],
    comments: Mapping[str, str],
    pictures: Mapping[str, Callable[[Path], None]],
    failed: Sequence[tuple[str, Circuit]],
) -> None:
    """Write results, replacing those of an earlier evaluation.

    Args:
        folder: The folder to write to.
        figures: The content of `metrics.json`: plain values.
        rows: The content of `metrics.md`.
        verified: Circuits by folder name, written as `circuits/NAME/00001.qasm`, ...
        comments: One line per name, written above its circuits.
        pictures: A function that draws each picture, by name; pictures that cannot be drawn are skipped with a warning.
        failed: Some failed circuits, each with its request and outcome, written as `failed/00001.qasm`, ...

    Raises:
        CheckpointError: The folder cannot be written; its previous contents are unchanged.
    """
    with new_entries(folder, METRICS_FILE, CheckpointError) as staging:
        (staging / METRICS_FILE).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (staging / "metrics.md").write_text(markdown_table(rows), encoding="utf-8")
        for name, draw in pictures.items():
            with only_warn(f"the picture {name!r}"):
                draw(staging / name)
        (staging / CIRCUITS_FOLDER).mkdir()  # even without circuits, to replace earlier ones
        for name, circuits in verified.items():
            (staging / CIRCUITS_FOLDER / name).mkdir()
            if circuits:
                write_circuits(staging / CIRCUITS_FOLDER / name, numbered(circuits), comments[name])
        (staging / FAILED_FOLDER).mkdir()
        titles = [title for title, _ in failed]
        write_circuits(staging / FAILED_FOLDER, numbered(circuit for _, circuit in failed), "failed", titles)
        left_out = [name for name in RESULTS if not (staging / name).exists()]
    for name in left_out:
        (folder / name).unlink(missing_ok=True)  # left by an earlier evaluation
