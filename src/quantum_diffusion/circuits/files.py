"""Writes circuits as numbered OpenQASM files, each with a comment, and draws the first ones.

Only this module names the files; its callers decide what else goes into the folder.
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
"""Maximum number of circuits in the picture."""

NUMBERED = r"\d{5,}\.qasm"
"""Regular expression for the names given by `numbered`."""

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
    """Write circuits into an existing folder.

    Args:
        folder: The folder.
        circuits: Circuits by file name.
        asked: What was asked for; begins the comment in each file.
        titles: Result of each circuit; ends its comment and is its title in the picture. None: all are verified.
        picture: File name of a PNG of the first circuits; if drawing fails, a warning is logged. None draws none.
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
