"""The folder an evaluation writes: figures as JSON and Markdown, pictures, and verified circuits as OpenQASM 2.

An earlier evaluation is replaced, but nothing else: that is checked before the work is done, by the names we write.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import CheckpointError, only_warn
from quantum_diffusion.evaluation.report.tables import Row, markdown_table
from quantum_diffusion.files import check_can_write, new_entries

METRICS_FILE = "metrics.json"
CIRCUITS_FOLDER = "circuits"
RESULTS = (METRICS_FILE, "metrics.md", "accuracy.png", "success.png", "circuits.png", CIRCUITS_FOLDER)


_KEYS = {"valid_rate", "reasons", "seed", "evaluation"}
"""What `metrics.json` of every evaluation has, and hardly another file of that name."""

_CIRCUITS = re.compile(rf"{CIRCUITS_FOLDER}(/(srv|target)_\d+(/\d{{5,}}\.qasm)?)?")


def check_results_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or where results would replace what no evaluation wrote.

    Raises:
        CheckpointError: The message says what is in the way.
    """
    check_can_write(folder / CIRCUITS_FOLDER, CheckpointError)
    present = [name for name in RESULTS if os.path.lexists(folder / name)]
    if present and not _is_evaluation(folder / METRICS_FILE):
        raise CheckpointError(
            f"{str(folder)!r} holds {present[0]!r}, but no earlier evaluation that might be replaced: "
            "choose another evaluation.save_folder"
        )
    inside = [path.relative_to(folder).as_posix() for path in sorted((folder / CIRCUITS_FOLDER).rglob("*"))]
    foreign = [name for name in present if (folder / name).is_dir() != (name == CIRCUITS_FOLDER)]
    foreign += [name for name in inside if not _CIRCUITS.fullmatch(name)]
    if foreign:
        raise CheckpointError(
            f"{str(folder)!r} holds {foreign[0]!r}, which no evaluation wrote and a new one would remove: move it "
            "elsewhere, or choose another evaluation.save_folder"
        )


def _is_evaluation(path: Path) -> bool:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(figures, dict) and figures.keys() >= _KEYS


def write_results_folder(
    folder: Path,
    figures: Mapping[str, Any],
    rows: Sequence[Row],
    verified: Mapping[str, Sequence[Circuit]],
    comments: Mapping[str, str],
    pictures: Mapping[str, Callable[[Path], None]],
) -> None:
    """Write results; those of an earlier evaluation are replaced.

    Args:
        folder: Where.
        figures: The content of `metrics.json`: plain values.
        rows: The content of `metrics.md`.
        verified: Circuits by the name of their folder, written as `circuits/NAME/00001.qasm`, ...
        comments: One line a name, above the circuits.
        pictures: What draws each picture, by its name; one that cannot be drawn is left out with a warning.

    Raises:
        CheckpointError: The folder cannot be written; what was there before is unchanged.
    """
    with new_entries(folder, METRICS_FILE, CheckpointError) as staging:
        (staging / METRICS_FILE).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (staging / "metrics.md").write_text(markdown_table(rows), encoding="utf-8")
        for name, draw in pictures.items():
            with only_warn(f"the picture {name!r}"):
                draw(staging / name)
        (staging / CIRCUITS_FOLDER).mkdir()  # even for no circuit, so that earlier ones go
        for name, circuits in verified.items():
            (staging / CIRCUITS_FOLDER / name).mkdir()
            for number, circuit in enumerate(circuits, start=1):
                text = f"// {comments[name]}: verified by simulation\n{circuit.to_qasm2()}"
                (staging / CIRCUITS_FOLDER / name / f"{number:05d}.qasm").write_text(text, encoding="utf-8")
        left_out = [name for name in RESULTS if not (staging / name).exists()]
    for name in left_out:
        (folder / name).unlink(missing_ok=True)  # an earlier evaluation's
