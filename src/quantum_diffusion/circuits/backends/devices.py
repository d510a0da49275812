"""What circuits cost on a device that Qiskit compiles for: its gates, its coupling, exact translation into both.

The synthesis plugin (`search.qiskit_plugin`) compares circuits in this form.
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
from quantum_diffusion.circuits.gates import GATES

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.transpiler import CouplingMap, Target

DeviceObjective = Literal["two_qubit_gates", "depth", "gates"]

_LEVELS = (3, 1)
"""Optimization levels, best first; high ones fail for some bases."""

_Pair = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """Some qubits of a device, numbered from 0.

    Attributes:
        basis: Names of Qiskit's gates that it runs, in order.
        pairs: Its coupled pairs (a, b) with a < b, in order; None where all are coupled.
    """

    basis: tuple[str, ...]
    pairs: tuple[_Pair, ...] | None = None

    def translate(self, circuit: Circuit) -> list[QuantumCircuit]:
        """Return a circuit in the basis, with gates on coupled pairs only, qubits where they are; as Qiskit can do it.

        Args:
            circuit: Its gates join qubits that the coupling connects.

        Returns:
            What the optimization levels make of it, best first: a high one may hide a swap, which `transpile` could
            leave out. Empty where it cannot be done.
        """
        native = QiskitBackend().to_native(self._on_pairs(circuit))
        results: list[QuantumCircuit] = []
        for level in _LEVELS:
            result = _first_result([_translator(self.basis, level)], native)
            if result is not None and self.runs(result) and result not in results:
                results.append(result)
        return results

    def in_basis(self, native: QuantumCircuit) -> QuantumCircuit | None:
        """Return a circuit in the basis, optimized, its qubits where they are; None where Qiskit finds none."""
        return _first_result([_translator(self.basis, level) for level in _LEVELS], native)

    def routed(self, native: QuantumCircuit) -> QuantumCircuit | None:
        """Return what `transpile` makes of a circuit on this device, its qubits placed anywhere; None if it fails."""
        return _first_result([_transpiler(self.basis, level, self.pairs) for level in _LEVELS], native)

    def runs(self, native: QuantumCircuit) -> bool:
        """Tell whether a circuit has gates of the basis on coupled pairs only."""
        return set(native.count_ops()) <= set(self.basis) and all(
            self._couples(native.find_bit(qubit).index for qubit in step.qubits) for step in native.data
        )

    def costs(self, gates: Iterable[str]) -> dict[str, int]:
        """Return what each of some gates takes of two-qubit gates, where the basis can do it, coupled at best."""
        costs = {name: _cost_in_basis(name, self.basis) for name in gates}
        narrow = {name for name in costs if self.pairs is None or GATES[name].num_qubits < 3 or name == "ccx"}
        return {name: number for name, number in costs.items() if number is not None and name in narrow}

    @cached_property
    def _joined(self) -> frozenset[_Pair]:
        return frozenset(self.pairs or ())

    def _couples(self, qubits: Iterable[int]) -> bool:
        return self.pairs is None or all(pair in self._joined for pair in combinations(sorted(qubits), 2))

    def _on_pairs(self, circuit: Circuit) -> Circuit:
        """Write each ccx whose qubits lie on a line by gates on its pairs."""
        steps: list[Instruction] = []
        for step in circuit.instructions:
            steps += [step] if step.gate != "ccx" or self._couples(step.qubits) else self._ccx_on_line(step)
        return Circuit(circuit.num_qubits, tuple(steps))

    def _ccx_on_line(self, step: Instruction) -> list[Instruction]:
        """Write ccx on a line by eight cx; a breadth-first search finds no fewer.

        A phase of pi/4 on each qubit and on the sum of all three, and of -pi/4 on the sums of two, is ccz; the cx put
        these sums on the wires.
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
    """Return what a synthesis plugin is told of the qubits of a block.

    A coupling that does not connect the qubits is left out: then the circuit has not been placed yet, or is to be
    routed later.

    Args:
        target: Qiskit's target; None goes by the other arguments.
        basis_gates: Names of gates.
        coupling: The coupling of the whole device; None couples all.
        qubits: The block's qubits on it.
    """
    names = _gates_of(target) if target is not None else basis_gates or ()
    basis = tuple(sorted(set(names) & _known_gates()))
    if coupling is None:
        return Device(basis)
    edges = {frozenset(edge) for edge in coupling.get_edges()}
    every = tuple(combinations(range(len(qubits)), 2))
    pairs = tuple(pair for pair in every if frozenset(qubits[number] for number in pair) in edges)
    return Device(basis, pairs if pairs != every and _connects(pairs, len(qubits)) else None)


def cost(native: QuantumCircuit, objective: DeviceObjective) -> tuple[int, ...]:
    """Return what a circuit costs, what counts most first."""
    costs = {"two_qubit_gates": two_qubit_gates(native), "depth": native.depth(), "gates": native.size()}
    return costs.pop(objective), *costs.values()


def two_qubit_gates(native: QuantumCircuit) -> int:
    """Return the gates on two qubits or more, one of k qubits counted k - 1 times."""
    return sum(len(step.qubits) - 1 for step in native.data)


def _gates_of(target: Target) -> list[str]:
    """Return the gates of a target; one of a fixed angle is not what its name says."""
    from qiskit.circuit import Gate, Parameter

    operations = {name: target.operation_from_name(name) for name in target.operation_names}
    return [
        name
        for name, operation in operations.items()
        if isinstance(operation, Gate) and all(isinstance(angle, Parameter) for angle in operation.params)
    ]


@cache
def _known_gates() -> frozenset[str]:
    """Return the names of Qiskit's own unitary gates."""
    from qiskit.circuit import Gate
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return frozenset(name for name, gate in get_standard_gate_name_mapping().items() if isinstance(gate, Gate))


@lru_cache(maxsize=1024)
def _cost_in_basis(name: str, basis: tuple[str, ...]) -> int | None:
    """Return the two-qubit gates that a gate takes in a basis; None where that cannot be done."""
    gate = GATES[name]
    qubits = tuple(range(gate.num_qubits))
    step = Instruction(name, qubits[: gate.num_controls], qubits[gate.num_controls :])
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
    """Return Qiskit's compiler for a basis, which leaves all qubits where they are."""
    from qiskit.transpiler import generate_preset_pass_manager

    # Routing would leave out swaps and return the permutation beside the circuit.
    return generate_preset_pass_manager(level, basis_gates=list(basis), routing_method="none", seed_transpiler=0)


@lru_cache(maxsize=64)
def _transpiler(basis: tuple[str, ...], level: int, pairs: tuple[_Pair, ...] | None) -> Any:
    """Return Qiskit's compiler for a basis and a coupling."""
    from qiskit.transpiler import CouplingMap, generate_preset_pass_manager

    coupling = None if pairs is None else CouplingMap([edge for a, b in pairs for edge in ((a, b), (b, a))])
    return generate_preset_pass_manager(level, basis_gates=list(basis), coupling_map=coupling, seed_transpiler=0)
