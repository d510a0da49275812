"""Qiskit as a backend: exchange of circuits, independent unitaries and labels, drawings.

The only module that imports qiskit, and only inside functions, since that takes most of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.errors import GateSetError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from qiskit import QuantumCircuit

_RANK_TOLERANCE = 1e-7
"""Singular values below this are rounding: they are amplitudes, so float64 leaves about 1e-16."""

# Drawings: all lengths in inches, but for the fold (layers of gates before a new line).
_FOLD = 24
_INCHES_A_UNIT = 0.52  # Qiskit draws one layer, and one wire, a unit of length
_INCHES_A_LETTER = 0.08
_PAGE_WIDTH = 14.0
_GAP = 0.3
_TITLE_HEIGHT = 0.2
_DPI = 150
_STYLE = {"name": "iqp", "margin": [1.5, 0.1, 0.1, 0.1]}


class QiskitBackend:
    """Qiskit behind the `CircuitBackend` protocol.

    Example:
        >>> bell = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
        >>> QiskitBackend().schmidt_rank_vector(bell)
        [2, 2]
    """

    def to_native(self, circuit: Circuit) -> QuantumCircuit:
        """Return the circuit as a `QuantumCircuit`."""
        from qiskit import QuantumCircuit

        native = QuantumCircuit(circuit.num_qubits)
        for instruction in circuit.instructions:
            # Qiskit's methods have the names of its gates, which are ours.
            getattr(native, instruction.gate)(*instruction.qubits)
        return native

    def from_native(self, native: QuantumCircuit) -> Circuit:
        """Read a `QuantumCircuit`.

        Barriers and the global phase are dropped; qubits are numbered across all registers.

        Args:
            native: A circuit over the gates of `GATES`, without measurements.

        Raises:
            GateSetError: The circuit measures or resets a qubit, uses a gate that is unknown here, or gives
                the name of one of our gates to something else.
        """
        instructions = []
        for position, item in enumerate(native.data):
            operation = item.operation
            name = operation.name
            if name == "barrier":
                continue
            if name in ("measure", "reset"):
                raise GateSetError(
                    f"operation {position} of the circuit is {name!r}, but only unitary circuits are read: "
                    "remove it first, e.g. with QuantumCircuit.remove_final_measurements()"
                )
            if name not in GATES:
                raise GateSetError(
                    f"operation {position} of the circuit is {name!r}, expected one of "
                    f"{', '.join(sorted(GATES))}: rewrite the circuit first, "
                    "e.g. with qiskit.transpile(circuit, basis_gates=[...])"
                )
            _check_meaning(operation, name)
            qubits = tuple(native.find_bit(qubit).index for qubit in item.qubits)
            split = GATES[name].num_controls
            instructions.append(Instruction(name, qubits[:split], qubits[split:]))
        return Circuit(native.num_qubits, tuple(instructions))

    def unitary(self, circuit: Circuit) -> NDArray[np.complex128]:
        """Return Qiskit's unitary of the circuit, complex128 [D, D]."""
        from qiskit.quantum_info import Operator

        return np.asarray(Operator(self.to_native(circuit)).data, dtype=np.complex128)

    def schmidt_rank_vector(self, circuit: Circuit) -> list[int]:
        """Return the rank of each qubit against the rest, from singular values of Qiskit's state vector."""
        from qiskit.quantum_info import Statevector

        state = np.asarray(Statevector(self.to_native(circuit)).data)
        ranks = []
        for qubit in range(circuit.num_qubits):
            split = state.reshape(-1, 2, 2**qubit).swapaxes(0, 1).reshape(2, -1)  # [2, D/2]
            ranks.append(int(np.linalg.matrix_rank(split, tol=_RANK_TOLERANCE)))
        return ranks

    def draw_text(self, circuit: Circuit) -> str:
        """Return the circuit drawn in text on one line of layers, one row of wires a qubit."""
        return str(self.to_native(circuit).draw(output="text", fold=-1))

    def save_drawing(self, circuits: Sequence[Circuit], path: str | Path, titles: Sequence[str] | None = None) -> None:
        """Draw circuits in a grid and write them as one PNG.

        Args:
            circuits: At least one circuit.
            path: File to write; its folder must exist.
            titles: One line above each circuit, e.g. "asked [1, 2, 2]: got [1, 2, 2]"; None draws no titles.

        Raises:
            ValueError: There is no circuit, or not one title a circuit.
        """
        from matplotlib.figure import Figure

        if not circuits:
            raise ValueError("there is nothing to draw: give at least one circuit")
        if titles is not None and len(titles) != len(circuits):
            raise ValueError(f"expected one title a circuit, given {len(titles)} titles for {len(circuits)} circuits")

        # Qiskit fixes its font size by the width of the axes it is given. A first drawing tells the size of
        # each circuit, so that the second one has all gates and letters equally large.
        natives = [self.to_native(circuit) for circuit in circuits]
        sizes = [_draw(native, Figure().add_axes((0, 0, 1, 1))) for native in natives]
        header = _TITLE_HEIGHT if titles is not None else 0.0
        widths = [
            max(width, _INCHES_A_LETTER * len(title))
            for (width, _), title in zip(sizes, titles or [""] * len(sizes), strict=True)
        ]
        columns = _column_widths(widths)
        num_columns = len(columns)
        row_heights = [
            header + max(height for _, height in sizes[start : start + num_columns])
            for start in range(0, len(sizes), num_columns)
        ]
        page_width = sum(columns) + _GAP * (num_columns + 1)
        page_height = sum(row_heights) + _GAP * (len(row_heights) + 1)

        figure = Figure(figsize=(page_width, page_height), facecolor="white")
        for position, (native, (width, height)) in enumerate(zip(natives, sizes, strict=True)):
            row, column = divmod(position, num_columns)
            left = sum(columns[:column]) + _GAP * (column + 1)
            top = page_height - sum(row_heights[:row]) - _GAP * (row + 1)
            box = (left, top - header - height, width, height)
            _draw(native, figure.add_axes(tuple(np.divide(box, [page_width, page_height] * 2))))
            if titles is not None:
                figure.text(left / page_width, top / page_height, titles[position], fontsize=10, va="top")
        figure.savefig(path, dpi=_DPI, format="png")


def _column_widths(widths: Sequence[float]) -> list[float]:
    """Return the widths of as many columns as the page takes, for items that fill it row by row."""
    for num_columns in range(len(widths), 1, -1):
        columns = [max(widths[column::num_columns]) for column in range(num_columns)]
        if sum(columns) + _GAP * (num_columns + 1) <= _PAGE_WIDTH:
            return columns
    return [max(widths)]


def _check_meaning(operation: Any, name: str) -> None:
    """Refuse a gate that a user (or a QASM file) defined under one of our names with another matrix."""
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.quantum_info import Operator

    standard = get_standard_gate_name_mapping()[name]
    if operation == standard:
        return
    if operation.num_qubits != standard.num_qubits or not np.allclose(Operator(operation), Operator(standard)):
        raise GateSetError(f"the circuit defines its own gate {name!r} with another meaning: give it another name")


def _draw(native: QuantumCircuit, axes: Axes) -> tuple[float, float]:
    """Draw on the axes and return the width and height, in inches, that the drawing wants."""
    native.draw(output="mpl", ax=axes, fold=_FOLD, style=_STYLE)
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    return (right - left) * _INCHES_A_UNIT, (top - bottom) * _INCHES_A_UNIT
