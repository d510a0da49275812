"""A quantum circuit as plain frozen data, and its OpenQASM 2 text.

This is the form in which circuits leave the arrays: to be read, drawn, exported or handed to another library.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from quantum_diffusion.arguments import check_count, check_kind, check_list, check_wholes
from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.errors import GateSetError, counted, unknown_name


@dataclass(frozen=True, slots=True)
class Instruction:
    """One gate on given qubits.

    Attributes:
        gate: Name of the gate.
        controls: Control qubits, from 0.
        targets: Target qubits, from 0.
    """

    gate: str
    controls: tuple[int, ...]
    targets: tuple[int, ...]

    def __post_init__(self) -> None:
        check_kind(self.gate, str, "the gate of an instruction")
        for name in ("controls", "targets"):
            qubits = check_wholes(getattr(self, name), f"Instruction({self.gate!r}).{name}", "(0,)")
            object.__setattr__(self, name, qubits)

    @property
    def qubits(self) -> tuple[int, ...]:
        """Controls, then targets: Qiskit's order of arguments."""
        return self.controls + self.targets


@dataclass(frozen=True, slots=True)
class Circuit:
    """A sequence of instructions on `num_qubits` qubits that start in |0...0>.

    Example:
        >>> bell = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
        >>> bell.gate_counts
        {'h': 1, 'cx': 1}
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
                    f"{counted(gate.num_targets, 'target')}, given {instruction}"
                )
            if len(set(qubits)) != len(qubits) or not all(0 <= q < self.num_qubits for q in qubits):
                raise GateSetError(f"{instruction} does not fit a circuit of {self.num_qubits} qubits")

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def gate_counts(self) -> dict[str, int]:
        """How often each gate occurs, in order of first use."""
        return dict(Counter(instruction.gate for instruction in self.instructions))

    def to_qasm2(self) -> str:
        """Return the circuit as an OpenQASM 2.0 program over `qelib1.inc`."""
        lines = ["OPENQASM 2.0;", 'include "qelib1.inc";']
        definitions = {name: GATES[name].qasm2 for name in self.gate_counts}
        lines += [f"gate {name} {definition}" for name, definition in definitions.items() if definition is not None]
        lines.append(f"qreg q[{self.num_qubits}];")
        for instruction in self.instructions:
            operands = ",".join(f"q[{qubit}]" for qubit in instruction.qubits)
            lines.append(f"{instruction.gate} {operands};")
        return "\n".join(lines) + "\n"
