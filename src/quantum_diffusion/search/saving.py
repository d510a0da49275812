"""Writes the result of a search: circuits as OpenQASM, a picture of them, and a machine-readable summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.files import write_circuits
from quantum_diffusion.config.schema import Language
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.files import new_folder
from quantum_diffusion.folders import check_nothing_lost

SUMMARY_FILE, PICTURE_FILE = "summary.json", "circuits.png"


def check_save_folder(folder: str | None, key: str) -> None:
    """Raise early if a folder exists or cannot be written.

    Args:
        folder: Folder to be created; None checks nothing.
        key: Key of the setting, for the message.

    Raises:
        CheckpointError: The folder exists or cannot be written.
    """
    if folder is not None:
        check_nothing_lost(folder, CheckpointError, f"already exists: choose another {key}", written=Path(folder))


def save_circuits(
    folder: str | Path,
    circuits: Mapping[str, Circuit],
    *,
    asked: str,
    titles: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    language: Language,
) -> None:
    """Write circuits, a picture and a summary into a new folder.

    Args:
        folder: The folder.
        circuits: Circuits by file name.
        asked: What was asked for.
        titles: Result of each circuit in one line.
        rows: Result of each circuit as plain values.
        summary: Further values for the summary.
        language: "qasm2" or "qasm3".

    Raises:
        CheckpointError: The folder cannot be written.
    """
    each = [{"file": name, **row} for name, row in zip(circuits, rows, strict=True)]
    with new_folder(Path(folder), CheckpointError) as staging:
        write_circuits(staging, circuits, asked, titles, PICTURE_FILE, language)
        text = json.dumps({"circuits": each, **summary}, indent=2)
        (staging / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")
