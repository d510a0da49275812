"""How what a search found is written: circuits as OpenQASM, a picture of them, and a summary for programs."""

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
    """Refuse a folder that exists or cannot be written, before the work is done.

    Args:
        folder: Folder to be created; None writes nothing.
        key: Where the user set it.

    Raises:
        CheckpointError: Nothing can be written there.
    """
    if folder is not None:
        check_nothing_lost(folder, CheckpointError, f"exists: choose another {key}", written=Path(folder))


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
        circuits: By the names of their files.
        asked: What they were made for.
        titles: What each one is worth, in a line.
        rows: The same as plain values.
        summary: What else the summary says.
        language: How circuits are written.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    each = [{"file": name, **row} for name, row in zip(circuits, rows, strict=True)]
    with new_folder(Path(folder), CheckpointError) as staging:
        write_circuits(staging, circuits, asked, titles, PICTURE_FILE, language)
        text = json.dumps({"circuits": each, **summary}, indent=2)
        (staging / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")
