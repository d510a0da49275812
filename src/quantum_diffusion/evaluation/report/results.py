"""The folder an evaluation writes: figures as JSON and Markdown, pictures, and verified circuits as OpenQASM 2.

An earlier evaluation is replaced, but nothing else: that is checked before the work is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.evaluation.report.tables import Row, markdown_table
from quantum_diffusion.files import check_can_write, new_entries

METRICS_FILE = "metrics.json"
CIRCUITS_FOLDER = "circuits"
RESULTS = (METRICS_FILE, "metrics.md", "accuracy.png", "success.png", "circuits.png", CIRCUITS_FOLDER)


def check_results_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or where results would replace what is no evaluation.

    Raises:
        CheckpointError: The message says what is in the way.
    """
    check_can_write(folder / CIRCUITS_FOLDER, CheckpointError)
    foreign = [name for name in RESULTS if (folder / name).exists()]
    if foreign and METRICS_FILE not in foreign:
        raise CheckpointError(
            f"{str(folder)!r} holds {foreign[0]!r}, but no earlier evaluation that might be replaced: "
            "choose another evaluation.save_folder"
        )


def write_results_folder(
    folder: Path,
    figures: Mapping[str, Any],
    rows: Sequence[Row],
    verified: Mapping[str, Sequence[Circuit]],
    comments: Mapping[str, str],
    draw: Callable[[Path], None],
) -> None:
    """Write results; those of an earlier evaluation are replaced.

    Args:
        folder: Where.
        figures: The content of `metrics.json`: plain values.
        rows: The content of `metrics.md`.
        verified: Circuits by the name of their folder, written as `circuits/NAME/00001.qasm`, ...
        comments: One line a name, above the circuits.
        draw: Writes pictures into the folder it is given.

    Raises:
        CheckpointError: The folder cannot be written; what was there before is unchanged.
    """
    with new_entries(folder, METRICS_FILE, CheckpointError) as staging:
        (staging / METRICS_FILE).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (staging / "metrics.md").write_text(markdown_table(rows), encoding="utf-8")
        draw(staging)
        (staging / CIRCUITS_FOLDER).mkdir()  # even for no circuit, so that earlier ones go
        for name, circuits in verified.items():
            (staging / CIRCUITS_FOLDER / name).mkdir()
            for number, circuit in enumerate(circuits, start=1):
                text = f"// {comments[name]}: verified by simulation\n{circuit.to_qasm2()}"
                (staging / CIRCUITS_FOLDER / name / f"{number:05d}.qasm").write_text(text, encoding="utf-8")
