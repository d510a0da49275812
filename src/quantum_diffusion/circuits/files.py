"""How circuits are written: as OpenQASM in numbered files, each below a comment, and drawn in a picture.

This is the only place that names the files; what else is in their folder is up to who writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.config.schema import Language
from quantum_diffusion.errors import only_warn

MOST_DRAWN = 24
"""Circuits in the picture."""

NUMBERED = r"\d{5,}\.qasm"
"""Regular expression of the names that `numbered` gives."""

Anything = TypeVar("Anything")


def numbered(circuits: Iterable[Anything]) -> dict[str, Anything]:
    """Name the file of each circuit: `00001.qasm`, ..."""
    return {f"{number:05d}.qasm": circuit for number, circuit in enumerate(circuits, start=1)}


def write_circuits(
    folder: Path,
    circuits: Mapping[str, Circuit],
    asked: str,
    titles: Sequence[str] | None = None,
    picture: str | None = None,
    language: Language = "qasm2",
) -> None:
    """Write circuits into a folder that is there.

    Args:
        folder: Where.
        circuits: By the names of their files.
        asked: What they were made for; begins the comment in each file.
        titles: What each one is worth; ends the comment, and stands above it in the picture. None says that they are
            verified.
        picture: Name of a picture of the first ones (PNG), which is left out with a warning when it cannot be drawn;
            None for none.
        language: "qasm2" or "qasm3".

    Raises:
        OSError: A file cannot be written.
    """
    titles = ["verified by simulation"] * len(circuits) if titles is None else titles
    for (name, circuit), title in zip(circuits.items(), titles, strict=True):
        program = circuit.to_qasm2() if language == "qasm2" else circuit.to_qasm3()
        (folder / name).write_text(f"// {asked}: {title}\n{program}", encoding="utf-8")
    if picture is not None and circuits:
        with only_warn(f"the picture {picture!r}"):
            drawn = list(circuits.values())[:MOST_DRAWN]
            QiskitBackend().save_drawing(drawn, folder / picture, titles[:MOST_DRAWN])
