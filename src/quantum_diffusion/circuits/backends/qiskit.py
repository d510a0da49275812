"""Qiskit as a backend: exchange of circuits, independent unitaries and labels, transpilation and drawings.

Only this module, its neighbours `synthesis` and `devices`, and the plugin that Qiskit loads (`search.qiskit_plugin`)
import qiskit; they do so inside functions, because the import takes most of a second.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_kind
from quantum_diffusion.circuits.backends.drawing import draw_grid
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, Gate
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, compact
from quantum_diffusion.circuits.simulate import random_images
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.errors import GateSetError, counted, first_line, quoted
from quantum_diffusion.pictures import blank_figure, new_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from qiskit import QuantumCircuit

_RANK_TOLERANCE = 1e-7
"""Smaller singular values count as 0; rounding of amplitudes in float64 is about 1e-16."""

OVERLAP_TOLERANCE = 1e-9
"""Unitaries are equal up to a global phase if |tr(V^dagger U)| / D differs from 1 by less than this."""

_STATE_BYTES = 64 * 2**20
"""Memory for one block of state vectors."""

# Limits on OpenQASM programs: Qiskit creates an object for every qubit and expands every custom gate.
_MOST_DECLARED = 64
_MOST_OPERATIONS = 100_000

_NARROWEST = 20
"""Minimum width of a text drawing, in characters: wire names and one gate between the continuation marks."""


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
            if instruction.gate in _standard_gates():
                # Qiskit's methods have the same names as its gates and ours, and are faster than append.
                getattr(native, instruction.gate)(*instruction.angles, *instruction.qubits)
            else:
                native.append(_own_gate(GATES[instruction.gate], instruction.angles), instruction.qubits)
        return native

    def from_native(self, native: QuantumCircuit) -> Circuit:
        """Read a `QuantumCircuit`.

        Barriers and the global phase are dropped; qubits are numbered across all registers.

        Args:
            native: A circuit over the gates of `GATES`, without measurements.

        Raises:
            GateSetError: The circuit measures or resets a qubit, has an unknown gate, or redefines one of ours.
            ConfigError: `native` is not a `QuantumCircuit`.
        """
        from qiskit import QuantumCircuit

        check_kind(native, QuantumCircuit, "the circuit")
        instructions = []
        for position, item in enumerate(native.data):
            operation = item.operation
            name = operation.name
            if name == "barrier":
                continue
            if name in ("measure", "reset"):
                raise GateSetError(
                    f"operation {position} of the circuit is {name!r}, but only unitary circuits can be read: "
                    "remove it first, e.g. with QuantumCircuit.remove_final_measurements()"
                )
            if name not in GATES:
                raise GateSetError(
                    f"operation {position} of the circuit is {quoted(name)}, expected one of "
                    f"{', '.join(sorted(GATES))}: rewrite the circuit first, "
                    "e.g. with qiskit.transpile(circuit, basis_gates=[...])"
                )
            angles = _angles(operation, name)
            _check_meaning(operation, name, angles)
            qubits = tuple(native.find_bit(qubit).index for qubit in item.qubits)
            split = GATES[name].num_controls
            instructions.append(Instruction(name, qubits[:split], qubits[split:], angles))
        return Circuit(native.num_qubits, tuple(instructions))

    def unitary(self, circuit: Circuit) -> NDArray[np.complex128]:
        """Return Qiskit's unitary of the circuit, complex128 [D, D]."""
        from qiskit.quantum_info import Operator

        return np.asarray(Operator(self.to_native(circuit)).data, dtype=np.complex128)

    def native_unitary(self, native: QuantumCircuit) -> NDArray[np.complex128]:
        """Return the unitary of a `QuantumCircuit` with any gates, simulated by Qiskit, complex128 [D, D].

        Raises:
            GateSetError: The circuit measures, resets or branches, or has an unbound parameter.
        """
        from qiskit.quantum_info import Operator

        return _simulated(Operator, native, "has no unitary")

    def native_state(self, native: QuantumCircuit) -> NDArray[np.complex128]:
        """Return the output state of a `QuantumCircuit` with any gates on |0...0>, simulated by Qiskit, complex128 [D].

        Raises:
            GateSetError: The circuit measures, resets or branches, or has an unbound parameter.
        """
        from qiskit.quantum_info import Statevector

        return _simulated(Statevector, native, "does not prepare a pure state")

    def read_qasm(self, text: str) -> QuantumCircuit:
        """Read an OpenQASM 2 program, or, with the extra `qasm3`, an OpenQASM 3 program.

        The version of a program without a version line is inferred from its declarations. Files other than the standard
        headers cannot be included.

        Raises:
            GateSetError: The text is empty or not a valid program, the program is too large, or the extra is missing.
        """
        if not text.strip():
            raise GateSetError("the OpenQASM text is empty: give one whole program")
        # Qiskit's OpenQASM 2 reader rejects multi-line comments. Blanks keep the positions in error messages.
        text = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), re.sub(r"\r\n?", "\n", text))
        version = _version(text)
        _check_extent(text)
        from qiskit import qasm2, qasm3
        from qiskit.exceptions import MissingOptionalLibraryError

        try:
            if version == 3:
                with contextlib.redirect_stderr(io.StringIO()):  # its parser also prints the errors that it raises
                    return qasm3.loads(text)
            # LEGACY_CUSTOM_INSTRUCTIONS: gates that Qiskit writes without a definition but the header lacks.
            return qasm2.loads(text, include_path=(), custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
        except MissingOptionalLibraryError:
            # Qiskit's own experimental reader does not support gate definitions, and prints to the terminal.
            raise GateSetError(
                "OpenQASM 3 needs qiskit-qasm3-import, which is not installed: run pip install "
                "'quantum-diffusion[qasm3]', or give OpenQASM 2"
            ) from None
        except Exception as problem:  # the parsers raise many types, RecursionError among them
            raise GateSetError(
                f"cannot read the text as OpenQASM {version} ({_located(problem)}): give one whole program"
            ) from problem

    def to_qasm3(self, circuit: Circuit) -> str:
        """Return the circuit as an OpenQASM 3 program over `stdgates.inc`, defining the gates it lacks."""
        from qiskit import qasm3

        text: str = qasm3.dumps(self.to_native(circuit))
        return text

    def schmidt_rank_vector(self, circuit: Circuit) -> list[int]:
        """Return each qubit's Schmidt rank, from the singular values of Qiskit's state vector."""
        from qiskit.quantum_info import Statevector

        state = np.asarray(Statevector(self.to_native(circuit)).data)
        ranks = []
        for qubit in range(circuit.num_qubits):
            split = state.reshape(-1, 2, 2**qubit).swapaxes(0, 1).reshape(2, -1)  # [2, D/2]
            ranks.append(int(np.linalg.matrix_rank(split, tol=_RANK_TOLERANCE)))
        return ranks

    def draw_text(self, circuit: Circuit, width: int | None = None) -> str:
        """Return the circuit drawn as text.

        Args:
            circuit: The circuit to draw.
            width: Maximum characters per line, after which the drawing continues below; None never wraps.
        """
        drawing = self.to_native(circuit).draw(output="text", fold=-1 if width is None else max(width, _NARROWEST))
        return "\n".join(line.rstrip() for line in drawing.lines())  # str() depends on the encoding of stdout

    def draw_figure(self, circuit: Circuit) -> Figure:
        """Return the circuit drawn with matplotlib, on a figure of the size of the drawing."""
        with blank_figure((1.0, 1.0)) as figure:
            draw_grid(figure, [self.to_native(circuit)], None, None)
        return figure

    def save_drawing(
        self,
        circuits: Sequence[Circuit],
        path: str | Path,
        titles: Sequence[str] | None = None,
        max_columns: int | None = None,
    ) -> None:
        """Draw circuits in a grid and save them as one PNG file.

        Args:
            circuits: At least one circuit.
            path: File to write; its folder must exist.
            titles: One line above each circuit, e.g. "asked [1, 2, 2]: got [1, 2, 2]"; None draws no titles.
            max_columns: Maximum circuits per row; None uses as many as fit the page.

        Raises:
            ValueError: There are no circuits, or the number of titles differs from that of circuits.
        """
        if not circuits:
            raise ValueError("there is nothing to draw: give at least one circuit")
        if titles is not None and len(titles) != len(circuits):
            raise ValueError(f"expected one title per circuit, given {len(titles)} titles for {len(circuits)} circuits")

        with new_picture(Path(path), (1.0, 1.0)) as figure:
            draw_grid(figure, [self.to_native(circuit) for circuit in circuits], titles, max_columns)


def optimize(ids: Ids, table: InstructionTable, level: int = 3) -> Ids:
    """Shorten circuits with Qiskit's transpiler, with the table's gate pool as basis, one process and a fixed seed.

    Levels 2 and 3 can fail for pools that are not universal; then the next lower level is tried. A result replaces the
    circuit only if it uses only gates of the pool, has at most as many gates, has multi-qubit gates only on sets of
    qubits that already had one, and has the same unitary up to a global phase. Here, unlike elsewhere, the global phase
    is ignored: Qiskit stores it next to the circuit, and ids cannot hold it.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number; up to about 24 qubits, because state vectors verify the results.
        level: Qiskit's optimization level, 1 to 3.

    Returns:
        int16 [N, T], gates at the start of each circuit, zeros at the end.

    Raises:
        ValueError: The level is not 1, 2 or 3.
    """
    from qiskit.exceptions import QiskitError
    from qiskit.transpiler import generate_preset_pass_manager

    if level not in (1, 2, 3):
        raise ValueError(f"expected optimization level 1, 2 or 3, given {level}")
    # Routing would drop swaps and return a permutation next to the circuit.
    settings = {"basis_gates": basis_gates(table.pool.names), "routing_method": "none", "seed_transpiler": 0}
    levels = [generate_preset_pass_manager(optimization_level=lower, **settings) for lower in range(level, 0, -1)]
    backend = QiskitBackend()
    number = {_key(instruction): row for row, instruction in reversed([*enumerate(table.instructions, start=1)])}
    given = compact(ids)
    result = given.copy()
    for row, circuit in enumerate(circuits_from_ids(given, table)):
        native = backend.to_native(circuit)
        joined = {frozenset(instruction.qubits) for instruction in circuit.instructions}
        for transpiler in levels:
            try:
                steps = _instructions(transpiler.run(native))
            except QiskitError:
                continue
            if len(steps) <= len(circuit) and all(
                _key(step) in number and (len(step.qubits) == 1 or frozenset(step.qubits) in joined) for step in steps
            ):
                result[row] = 0
                result[row, : len(steps)] = [number[_key(step)] for step in steps]
                break
    return np.where(_act_alike(result, given, table)[:, None], result, given)


def _simulated(kind: Callable[[QuantumCircuit], Any], native: QuantumCircuit, fault: str) -> NDArray[np.complex128]:
    """Simulate a circuit with a class of `qiskit.quantum_info`; raise a one-line error if that fails."""
    from qiskit.exceptions import QiskitError

    try:
        return np.asarray(kind(native).data, dtype=np.complex128)
    except (QiskitError, TypeError) as problem:
        raise GateSetError(
            f"the circuit {fault} ({_reason(problem)}): remove measurements, resets and conditions, and give every "
            "parameter a value"
        ) from problem


def _reason(problem: Exception) -> str:
    """Return the first line of an error without the quotes that Qiskit adds."""
    return first_line(problem).strip("'\"")


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def _version(text: str) -> int:
    """Return the OpenQASM version (2 or 3) of a program without comments; if it states none, infer it from keywords."""
    given = re.match(r"\s*OPENQASM\s+(\d{1,9})", text)
    if given is None:
        return 3 if re.search(r"(^|[;}])\s*(qubit|bit)\b|stdgates\.inc", text) else 2
    if given[1] not in ("2", "3"):
        raise GateSetError(f"the program is in OpenQASM {given[1]}, which is not supported: give OpenQASM 2 or 3")
    return int(given[1])


def _located(problem: Exception) -> str:
    """Return the first line of a parser's error with its position in words; the parser counts columns from 0."""
    reason = _reason(problem)
    place = re.match(r"(?:<input>:|L)?(\d+)(?:,|:C)(\d+): (.*)", reason)
    if place:
        return f"line {place[1]}, column {int(place[2]) + 1}: {place[3]}"
    cause: Any = problem.__cause__  # the OpenQASM 3 reader raises a position without a message
    token = getattr(cause.args[0], "offendingToken", None) if cause is not None and cause.args else None
    return reason if token is None else f"line {token.line}, column {token.column + 1}: unexpected {token.text!r}"


def _check_extent(text: str) -> None:
    """Refuse programs with huge registers or huge expanded custom gates before Qiskit reads them.

    The count is an upper bound: every name in a statement may be that of a gate.

    Args:
        text: The program, without comments.
    """
    declared = total = depth = 0
    operations: dict[str, int] = {}  # of each custom gate, fully expanded
    gate = ""  # the gate being defined
    for statement, end in re.findall(r"([^;{}]*)([;{}]|\Z)", text):
        words = re.findall(r"\w+", statement)
        if {"qreg", "creg", "qubit", "bit"} & {*words}:
            declared += _register_size(statement)
        if "gate" in words[:-1] and not gate:
            gate = words[words.index("gate") + 1]
            operations[gate] = 0
        else:
            count = sum(operations.get(word, 0) for word in words)
            if gate:
                operations[gate] += count + 1
            total = max(total + (0 if gate else count), operations.get(gate, 0))
        depth += (end == "{") - (end == "}")
        if depth == 0:
            gate = ""
        if declared > _MOST_DECLARED:
            raise GateSetError(
                f"the program declares registers of {declared} bits or more: give at most {_MOST_DECLARED}"
            )
        if total > _MOST_OPERATIONS:
            raise GateSetError(
                f"the custom gates of the program expand to more than {_MOST_OPERATIONS:,} operations: "
                "give a smaller program"
            )


def _register_size(statement: str) -> int:
    """Return the first size in a declaration, or 1 if it has none."""
    size = re.search(r"\[([^\[\]]*)\]", statement)
    if size is None:
        return 1
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", size[1]):
        raise GateSetError(
            f"the program declares a register of size {quoted(size[1])}: write the size as a plain number"
        )
    return int(size[1])


def _instructions(native: QuantumCircuit) -> list[Instruction]:
    """Return the operations of a circuit by name; for gates unknown to us all qubits are targets."""
    steps = []
    for item in native.data:
        name = item.operation.name
        qubits = tuple(native.find_bit(qubit).index for qubit in item.qubits)
        split = GATES[name].num_controls if name in GATES else 0
        steps.append(Instruction(name, qubits[:split], qubits[split:], tuple(map(float, item.operation.params))))
    return steps


def _key(instruction: Instruction) -> tuple[str, frozenset[int], frozenset[int]]:
    """Return a key that ignores the order of controls and of targets, and angles."""
    return instruction.gate, frozenset(instruction.controls), frozenset(instruction.targets)


def _act_alike(one: Ids, other: Ids, table: InstructionTable) -> NDArray[np.bool_]:
    """Tell which circuits [N, T] have the same unitary up to a global phase, tested on a random state; bool [N]."""
    alike = np.empty(len(one), dtype=np.bool_)
    block = max(1, _STATE_BYTES // (16 * 2**table.num_qubits))
    for start in range(0, len(one), block):
        part = slice(start, start + block)
        overlap = np.einsum("nd,nd->n", random_images(one[part], table).conj(), random_images(other[part], table))
        alike[part] = np.abs(overlap) > 1 - OVERLAP_TOLERANCE
    return alike


@cache
def _standard_gates() -> dict[str, Any]:
    """Return Qiskit's standard gates by name."""
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return dict(get_standard_gate_name_mapping())


@cache
def _own_gate(gate: Gate, angles: tuple[float, ...]) -> Any:
    """Return a gate that Qiskit lacks, made by Qiskit from its OpenQASM definition."""
    from qiskit import qasm2

    qubits = tuple(range(gate.num_qubits))
    instruction = Instruction(gate.name, qubits[: gate.num_controls], qubits[gate.num_controls :], angles)
    return qasm2.loads(Circuit(gate.num_qubits, (instruction,)).to_qasm2()).data[0].operation


def basis_gates(names: Iterable[str]) -> list[str]:
    """Return the gates that Qiskit's transpiler accepts as a basis: its own standard gates."""
    return [name for name in names if name in _standard_gates()]


def _angles(operation: Any, name: str) -> tuple[float, ...]:
    """Return the angles of an operation that has the name of one of our gates."""
    try:
        angles = tuple(float(angle) for angle in operation.params)
    except (TypeError, ValueError):  # a parameter without a value
        raise GateSetError(
            f"an angle of {name!r} has no value: give every parameter one, e.g. with QuantumCircuit.assign_parameters"
        ) from None
    if len(angles) != GATES[name].num_angles:
        raise GateSetError(
            f"the circuit redefines gate {name!r} with {counted(len(angles), 'angle')}: give its gate another name"
        )
    return angles


def _check_meaning(operation: Any, name: str, angles: tuple[float, ...]) -> None:
    """Refuse a custom gate that has the name of one of ours but another matrix, up to a global phase."""
    from qiskit.quantum_info import Operator

    standard = _standard_gates().get(name)
    if operation == standard or (angles and type(operation) is type(standard)):
        return
    gate = GATES[name]
    same = operation.num_qubits == gate.num_qubits
    if not same or abs(np.vdot(Operator(operation), gate.matrix(*angles))) < 2**gate.num_qubits * (
        1 - OVERLAP_TOLERANCE
    ):
        raise GateSetError(f"the circuit redefines gate {name!r} with another matrix: give its gate another name")
