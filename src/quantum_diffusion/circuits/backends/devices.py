"""Translation of circuits to a device's basis gates and coupling by Qiskit, and their cost there.

The synthesis plugin (`search.qiskit_plugin`) uses it to compare circuits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, SOME_ANGLES

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.circuit import Gate
    from qiskit.transpiler import CouplingMap, Target

DeviceObjective = Literal["two_qubit_gates", "depth", "gates"]

_LEVELS = (3, 1)
"""Qiskit's optimization levels, best first; the high one fails for some bases."""

_Pair = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """Some qubits of a device, numbered from 0.

    Attributes:
        basis: Sorted names of the Qiskit gates it supports.
        pairs: Sorted coupled pairs (a, b) with a < b; None means that all pairs are coupled.
    """

    basis: tuple[str, ...]
    pairs: tuple[_Pair, ...] | None = None

    def translate(self, circuit: Circuit) -> list[QuantumCircuit]:
        """Translate a circuit to the basis, with gates on coupled pairs only and without moving qubits.

        Args:
            circuit: A circuit whose gates act on qubits that the coupling connects.

        Returns:
            The result of each optimization level, best first; a high level may hide a swap that `transpile` could
            leave out. Empty if Qiskit cannot translate the circuit.
        """
        native = QiskitBackend().to_native(self._on_pairs(circuit))
        results: list[QuantumCircuit] = []
        for level in _LEVELS:
            result = _first_result([_translator(self.basis, level)], native)
            if result is not None and self.runs(result) and result not in results:
                results.append(result)
        return results

    def in_basis(self, native: QuantumCircuit) -> QuantumCircuit | None:
        """Return the circuit optimized in the basis, without moving qubits; None if Qiskit fails."""
        return _first_result([_translator(self.basis, level) for level in _LEVELS], native)

    def routed(self, native: QuantumCircuit) -> QuantumCircuit | None:
        """Return the circuit as `transpile` places and routes it on this device; None if Qiskit fails."""
        return _first_result([_transpiler(self.basis, level, self.pairs) for level in _LEVELS], native)

    def runs(self, native: QuantumCircuit) -> bool:
        """Tell whether a circuit has gates of the basis on coupled pairs only."""
        return set(native.count_ops()) <= set(self.basis) and all(
            self._couples(native.find_bit(qubit).index for qubit in step.qubits) for step in native.data
        )

    def costs(self, gates: Iterable[str]) -> dict[str, int]:
        """Return the number of two-qubit gates each gate needs in the basis, on coupled qubits.

        Gates that the basis or the coupling cannot express are left out.
        """
        costs = {name: _cost_in_basis(name, self.basis) for name in gates}
        narrow = {name for name in costs if self.pairs is None or GATES[name].num_qubits < 3 or name == "ccx"}
        return {name: number for name, number in costs.items() if number is not None and name in narrow}

    @cached_property
    def rotates(self) -> bool:
        """Whether the device turns qubits by any angle.

        With t, a lone rz does not count: Qiskit synthesizes blocks for Clifford+T with it and approximates it later.
        """
        gates = [gate for name in self.basis if (gate := _known_gates().get(name)) is not None]
        turns = {gate.name for gate in gates if gate.num_qubits == 1 and gate.params}
        return bool(turns) and not ("t" in self.basis and turns == {"rz"})

    @cached_property
    def _joined(self) -> frozenset[_Pair]:
        return frozenset(self.pairs or ())

    def _couples(self, qubits: Iterable[int]) -> bool:
        return self.pairs is None or all(pair in self._joined for pair in combinations(sorted(qubits), 2))

    def _on_pairs(self, circuit: Circuit) -> Circuit:
        """Replace each ccx whose qubits are not all coupled by gates on coupled pairs."""
        steps: list[Instruction] = []
        for step in circuit.instructions:
            steps += [step] if step.gate != "ccx" or self._couples(step.qubits) else self._ccx_on_line(step)
        return Circuit(circuit.num_qubits, tuple(steps))

    def _ccx_on_line(self, step: Instruction) -> list[Instruction]:
        """Decompose ccx on a line of three qubits into eight cx, the minimum by breadth-first search.

        ccz is a phase of pi/4 on each qubit and on the parity of all three, and of -pi/4 on the parity of each pair;
        the cx compute these parities in place.
        """
        middle = next(q for q in step.qubits if all(q == p or self._couples((p, q)) for p in step.qubits))
        first, last = (q for q in step.qubits if q != middle)
        (target,) = step.targets

        def phase(name: str, qubit: int) -> Instruction:
            return Instruction(name, (), (qubit,))

        def cx(control: int, on: int) -> Instruction:
            return Instruction("cx", (control,), (on,))

        sums = [("tdg", middle), ("t", last), ("", middle), ("tdg", last), ("", middle), ("tdg", last)]
        steps = [phase("h", target), *(phase("t", qubit) for qubit in (first, middle, last))]
        for number, (name, qubit) in enumerate([*sums, ("", middle), ("", last)]):
            steps.append(cx(first, middle) if number % 2 == 0 else cx(middle, last))
            steps += [phase(name, qubit)] if name else []
        return [*steps, phase("h", target)]


def device_of(
    target: Target | None, basis_gates: Iterable[str] | None, coupling: CouplingMap | None, qubits: Sequence[int]
) -> Device:
    """Return the part of a device that a block of a circuit acts on.

    A coupling that does not connect the block's qubits is ignored: the circuit is not placed yet, or will be routed
    later.

    Args:
        target: Qiskit's target, which has precedence over `basis_gates`; None uses `basis_gates`.
        basis_gates: Names of gates.
        coupling: The coupling of the whole device; None means that all pairs are coupled.
        qubits: The block's qubits on the device.
    """
    names = _gates_of(target) if target is not None else basis_gates or ()
    basis = tuple(sorted(set(names) & _known_gates().keys()))
    if coupling is None:
        return Device(basis)
    edges = {frozenset(edge) for edge in coupling.get_edges()}
    every = tuple(combinations(range(len(qubits)), 2))
    pairs = tuple(pair for pair in every if frozenset(qubits[number] for number in pair) in edges)
    return Device(basis, pairs if pairs != every and _connects(pairs, len(qubits)) else None)


def cost(native: QuantumCircuit, objective: DeviceObjective) -> tuple[int, ...]:
    """Return the costs of a circuit as a sort key that begins with the objective."""
    costs = {"two_qubit_gates": two_qubit_gates(native), "depth": native.depth(), "gates": native.size()}
    return costs.pop(objective), *costs.values()


def two_qubit_gates(native: QuantumCircuit) -> int:
    """Return the number of gates on two or more qubits; a gate on k qubits counts k - 1 times."""
    return sum(len(step.qubits) - 1 for step in native.data)


def _gates_of(target: Target) -> list[str]:
    """Return the names of a target's gates, except those limited to fixed angles."""
    from qiskit.circuit import Gate, Parameter

    operations = {name: target.operation_from_name(name) for name in target.operation_names}
    return [
        name
        for name, operation in operations.items()
        if isinstance(operation, Gate) and all(isinstance(angle, Parameter) for angle in operation.params)
    ]


@cache
def _known_gates() -> dict[str, Gate]:
    """Return Qiskit's own unitary gates by their names, with parameters for angles."""
    from qiskit.circuit import Gate
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return {name: gate for name, gate in get_standard_gate_name_mapping().items() if isinstance(gate, Gate)}


@lru_cache(maxsize=1024)
def _cost_in_basis(name: str, basis: tuple[str, ...]) -> int | None:
    """Return the number of two-qubit gates that a gate needs in a basis; None if the basis cannot express it."""
    gate = GATES[name]
    qubits = tuple(range(gate.num_qubits))
    angles = SOME_ANGLES[: gate.num_angles]
    step = Instruction(name, qubits[: gate.num_controls], qubits[gate.num_controls :], angles)
    translated = Device(basis).translate(Circuit(gate.num_qubits, (step,)))
    return two_qubit_gates(translated[0]) if translated else None


def _connects(pairs: Iterable[_Pair], num_qubits: int) -> bool:
    reached = {0}
    for _ in range(num_qubits):
        reached |= {qubit for pair in pairs if reached & {*pair} for qubit in pair}
    return len(reached) == num_qubits


def _first_result(compilers: Iterable[Any], native: QuantumCircuit) -> QuantumCircuit | None:
    from qiskit.exceptions import QiskitError

    for compiler in compilers:
        with suppress(QiskitError):
            return compiler.run(native)
    return None


@lru_cache(maxsize=64)
def _translator(basis: tuple[str, ...], level: int) -> Any:
    """Return Qiskit's compiler for a basis, without routing."""
    from qiskit.transpiler import generate_preset_pass_manager

    # Routing would drop swaps and return a permutation next to the circuit.
    return generate_preset_pass_manager(level, basis_gates=list(basis), routing_method="none", seed_transpiler=0)


@lru_cache(maxsize=64)
def _transpiler(basis: tuple[str, ...], level: int, pairs: tuple[_Pair, ...] | None) -> Any:
    """Return Qiskit's compiler for a basis and a coupling."""
    from qiskit.transpiler import CouplingMap, generate_preset_pass_manager

    coupling = None if pairs is None else CouplingMap([edge for a, b in pairs for edge in ((a, b), (b, a))])
    return generate_preset_pass_manager(level, basis_gates=list(basis), coupling_map=coupling, seed_transpiler=0)
