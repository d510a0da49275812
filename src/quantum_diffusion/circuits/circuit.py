"""A quantum circuit as plain frozen data that can be printed, drawn and converted for other libraries.

Bulk code works on arrays of ids and returns circuits in this form. `circuits.backends` does the work that needs another
library, and is imported when a method needs it.
"""

from __future__ import annotations

import html
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, overload

from quantum_diffusion.arguments import check_count, check_finite, check_kind, check_list, check_wholes
from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.errors import ConfigError, GateSetError, counted, quoted, unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pennylane.tape import QuantumScript
    from qiskit import QuantumCircuit

    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend


@dataclass(frozen=True, slots=True)
class Instruction:
    """One gate on given qubits.

    Attributes:
        gate: Name of the gate.
        controls: Control qubits, from 0.
        targets: Target qubits, from 0.
        angles: Its angles in radians, reduced to [0, 2 pi) ([0, 4 pi) for crz), which only changes the global phase.
    """

    gate: str
    controls: tuple[int, ...]
    targets: tuple[int, ...]
    angles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_kind(self.gate, str, "the gate of an instruction")
        for name in ("controls", "targets"):
            qubits = check_wholes(getattr(self, name), f"Instruction({self.gate!r}).{name}", "(0,)")
            object.__setattr__(self, name, qubits)
        if len(self.angles):
            given = check_list(self.angles, f"Instruction({self.gate!r}).angles", "(0.5,)")
            angles = tuple(check_finite(angle, f"an angle of {self.gate!r}") for angle in given)
            gate = GATES.get(self.gate)
            object.__setattr__(self, "angles", angles if gate is None else tuple(map(gate.reduced, angles)))

    @property
    def qubits(self) -> tuple[int, ...]:
        """Controls, then targets, as in Qiskit's argument order."""
        return self.controls + self.targets


@dataclass(frozen=True, slots=True)
class Circuit:
    """A sequence of instructions on `num_qubits` qubits that start in |0...0>.

    Example:
        >>> bell = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
        >>> bell.gate_counts
        {'h': 1, 'cx': 1}
        >>> print(bell)
             ┌───┐
        q_0: ┤ H ├──■──
             └───┘┌─┴─┐
        q_1: ─────┤ X ├
                  └───┘
    """

    num_qubits: int
    instructions: tuple[Instruction, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_qubits", check_count(self.num_qubits, "num_qubits", 1))
        given = check_list(self.instructions, "instructions", "(Instruction('h', (), (0,)),)")
        object.__setattr__(self, "instructions", tuple(given))
        for instruction in self.instructions:
            check_kind(instruction, Instruction, "an instruction")
            if instruction.gate not in GATES:
                raise GateSetError(unknown_name("gate", instruction.gate, GATES))
            gate = GATES[instruction.gate]
            qubits = instruction.qubits
            if (len(instruction.controls), len(instruction.targets)) != (gate.num_controls, gate.num_targets):
                raise GateSetError(
                    f"{gate.name!r} takes {counted(gate.num_controls, 'control')} and "
                    f"{counted(gate.num_targets, 'target')}, given {quoted(instruction)}"
                )
            if len(instruction.angles) != gate.num_angles:
                raise GateSetError(
                    f"{gate.name!r} takes {counted(gate.num_angles, 'angle')}, given {quoted(instruction)}"
                )
            if len(set(qubits)) != len(qubits) or not all(0 <= q < self.num_qubits for q in qubits):
                raise GateSetError(
                    f"{instruction} does not fit a circuit of {counted(self.num_qubits, 'qubit')}: "
                    f"give different qubits from 0 to {self.num_qubits - 1}"
                )

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def gate_counts(self) -> dict[str, int]:
        """Number of occurrences of each gate, in order of first use."""
        return dict(Counter(instruction.gate for instruction in self.instructions))

    def to_qasm2(self) -> str:
        """Return the circuit as an OpenQASM 2.0 program over `qelib1.inc`."""
        lines = ["OPENQASM 2.0;", 'include "qelib1.inc";']
        definitions = {name: GATES[name].qasm2 for name in self.gate_counts}
        lines += [f"gate {name} {definition}" for name, definition in definitions.items() if definition is not None]
        lines.append(f"qreg q[{self.num_qubits}];")
        for instruction in self.instructions:
            operands = ",".join(f"q[{qubit}]" for qubit in instruction.qubits)
            angles = f"({','.join(map(repr, instruction.angles))})" if instruction.angles else ""
            lines.append(f"{instruction.gate}{angles} {operands};")
        return "\n".join(lines) + "\n"

    def to_qasm3(self) -> str:
        """Return the circuit as an OpenQASM 3 program, as Qiskit writes it."""
        return _qiskit().to_qasm3(self)

    def to_qiskit(self) -> QuantumCircuit:
        """Return the circuit as a Qiskit `QuantumCircuit` with the same qubit numbers."""
        return _qiskit().to_native(self)

    def to_pennylane(self) -> QuantumScript:
        """Return the circuit as a PennyLane `QuantumScript`, whose wire q is qubit q.

        PennyLane counts the first wire as the highest bit of a basis index, this package (like Qiskit) as the lowest.

        Raises:
            ConfigError: PennyLane is not installed.
        """
        from quantum_diffusion.circuits.backends.pennylane import to_script

        return to_script(self)

    @classmethod
    def from_qiskit(cls, circuit: QuantumCircuit) -> Circuit:
        """Convert a Qiskit `QuantumCircuit` over the gates of `GATES`.

        Raises:
            GateSetError: The circuit measures or resets, or has another gate.
        """
        return _qiskit().from_native(circuit)

    @classmethod
    def from_qasm(cls, program: str) -> Circuit:
        """Read the text of an OpenQASM 2 program, or, with the extra `qasm3`, of an OpenQASM 3 program.

        Raises:
            GateSetError: The text is empty or not a valid program, or has a gate that is not in `GATES`.
        """
        return cls.from_qiskit(_qiskit().read_qasm(check_kind(program, str, "program")))

    # --------------------------------------------------------------------------------------------- drawings

    @overload
    def draw(self, output: Literal["text"] = "text", width: int | None = None) -> str: ...

    @overload
    def draw(self, output: Literal["mpl"], width: int | None = None) -> Figure: ...

    def draw(self, output: str = "text", width: int | None = None) -> str | Figure:
        """Draw the circuit.

        Args:
            output: "text", or "mpl" for a matplotlib figure.
            width: Maximum characters per line of text; None never wraps. Ignored for figures.

        Raises:
            ConfigError: `output` has another value.
        """
        if output not in ("text", "mpl"):
            raise ConfigError(unknown_name("output", output, ("text", "mpl")))
        return _qiskit().draw_figure(self) if output == "mpl" else _qiskit().draw_text(self, width)

    def __str__(self) -> str:
        return self.draw()

    def _repr_html_(self) -> str:
        """Return the drawing for notebooks; a wide one scrolls."""
        style = "line-height: 1.15; overflow-x: auto; white-space: pre; font-family: monospace"
        return f'<pre style="{style}">{html.escape(self.draw())}</pre>'

    def _repr_png_(self) -> bytes:
        """Return a picture for frontends without HTML."""
        picture = io.BytesIO()
        self.draw("mpl").savefig(picture, format="png", dpi=100)
        return picture.getvalue()


def _qiskit() -> QiskitBackend:
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    return QiskitBackend()
