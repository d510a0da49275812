"""Compares our synthesis plugin in Qiskit's transpile with Qiskit's own synthesis of the same blocks.

    python benchmarks/qiskit_plugin.py [BLOCKS [SECONDS [SEED [KIND]]]]

There are BLOCKS uniformly random circuits of h, cx, ccx, swap, x and z on 3 qubits (4 to 12 gates) and as many on 4
qubits (4 to 14 gates), each given as one UnitaryGate, and a tenth as many Haar-random unitaries of each size, which
the plugin leaves to Qiskit. A fifth as many circuits of 4, of 6 and of 8 of these gates and rx, ry, rz and cp, with
uniform angles, follow. All are transpiled at optimization level 3 to rz, sx, x and cx, those with angles also to ecr,
with full connectivity and on a line, with SECONDS for each block. Loading the models does not count. For Clifford
blocks the table includes Qiskit's method "clifford". "Exact" counts results equal to the block by Qiskit's Operator,
including the global phase. KIND "discrete" or "angles" measures only those without angles, or with them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import UnitaryGate
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford, Operator, random_unitary
from qiskit.transpiler import CouplingMap

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.search.unitaries import random_circuit
from quantum_diffusion.seeding import numpy_generator

ROTATIONS = ["rz", "sx", "x"]
POOL = ["h", "cx", "ccx", "swap", "x", "z"]
WITH_ANGLES = ["h", "cx", "ccx", "swap", "rx", "ry", "rz", "cp"]
ANGLE_GATES = (4, 6, 8)
MOST_GATES = {3: 12, 4: 14}
METHODS = ("default", "quantum_diffusion", "clifford")


@dataclass(frozen=True)
class Outcome:
    """A transpiled block."""

    two_qubit_gates: int
    depth: int
    seconds: float
    is_exact: bool


def blocks(num_qubits: int, count: int, seed: int) -> list[Operator]:
    rng = numpy_generator(seed, "blocks", num_qubits)
    lengths = rng.integers(4, MOST_GATES[num_qubits] + 1, count).tolist()
    circuits = [random_circuit(num_qubits, length, POOL, seed + 1000 * row) for row, length in enumerate(lengths)]
    return [Operator(QiskitBackend().unitary(circuit)) for circuit in circuits]


def blocks_with_angles(length: int, count: int, seed: int) -> list[Operator]:
    circuits = [random_circuit(3, length, WITH_ANGLES, seed + 1000 * row + length) for row in range(count)]
    return [Operator(QiskitBackend().unitary(circuit)) for circuit in circuits]


def transpiled(block: Operator, method: str, on_line: bool, max_seconds: float, entangler: str = "cx") -> Outcome:
    """Transpile a block and check whether its unitary is unchanged, including the global phase."""
    circuit = QuantumCircuit(block.num_qubits)
    circuit.append(UnitaryGate(block), range(block.num_qubits))
    basis = [*ROTATIONS, entangler]
    started = time.perf_counter()
    result = transpile(
        circuit,
        basis_gates=basis,
        coupling_map=CouplingMap.from_line(block.num_qubits) if on_line else None,
        optimization_level=3,
        seed_transpiler=0,
        unitary_synthesis_method=method,
        unitary_synthesis_plugin_config={"max_seconds": max_seconds} if method == "quantum_diffusion" else None,
    )
    seconds = time.perf_counter() - started
    assert set(result.count_ops()) <= set(basis)
    return Outcome(result.num_nonlocal_gates(), result.depth(), seconds, Operator.from_circuit(result) == block)


def is_clifford(block: Operator) -> bool:
    try:
        Clifford.from_operator(block)
    except QiskitError:
        return False
    return True


def report(name: str, answers: dict[str, list[Outcome]]) -> None:
    """Print a table row for each method: medians, means, and how often it is better than the default."""
    for method, outcomes in answers.items():
        cells = [name, f"{method} ({len(outcomes)})"]
        for field in ("two_qubit_gates", "depth", "seconds"):
            values = [getattr(outcome, field) for outcome in outcomes]
            digits = 3 if field == "seconds" else 1
            cells.append(f"{np.median(values):.{digits}f} / {np.mean(values):.{digits}f}")
        cells.append(str(sum(outcome.is_exact for outcome in outcomes)))
        for field in ("two_qubit_gates", "depth"):
            cells.append("" if method == "default" else compared(outcomes, answers["default"], field))
        if method == "clifford":
            cells[-1] += f"; the plugin beside it {compared(answers[METHODS[1]], outcomes, 'two_qubit_gates')}"
        print("| " + " | ".join(cells) + " |", flush=True)


def compared(ours: Sequence[Outcome], theirs: Sequence[Outcome], field: str) -> str:
    """Return how often ours is better, equal and worse."""
    signs = [np.sign(getattr(b, field) - getattr(a, field)) for a, b in zip(ours, theirs, strict=True)]
    return " / ".join(str(signs.count(sign)) for sign in (1, 0, -1))


def measure(
    name: str, some: Sequence[Operator], methods: Sequence[str], max_seconds: float, entangler: str = "cx"
) -> None:
    for on_line in (False, True):
        answers = {
            method: [transpiled(block, method, on_line, max_seconds, entangler) for block in some]
            for method in methods
            if some
        }
        report(f"{name}, {'line' if on_line else 'all pairs'}", answers)


def measure_discrete(count: int, max_seconds: float, seed: int) -> None:
    for num_qubits in MOST_GATES:
        drawn = blocks(num_qubits, count, seed)
        transpiled(drawn[0], METHODS[1], False, max_seconds)  # loads the model
        clifford = [block for block in drawn if is_clifford(block)]
        others = [block for block in drawn if not is_clifford(block)]
        measure(f"{num_qubits} qubits, Clifford", clifford, METHODS, max_seconds)
        measure(f"{num_qubits} qubits, others", others, METHODS[:2], max_seconds)
        haar = [random_unitary(2**num_qubits, seed=seed + row) for row in range(count // 10)]
        measure(f"{num_qubits} qubits, Haar-random", haar, METHODS[:2], max_seconds)


def measure_angles(count: int, max_seconds: float, seed: int) -> None:
    transpiled(blocks_with_angles(2, 1, seed)[0], METHODS[1], False, max_seconds)
    for length in ANGLE_GATES:
        drawn = blocks_with_angles(length, count, seed)
        for entangler in ("cx", "ecr"):
            name = f"3 qubits, {length} gates with angles, {entangler}"
            measure(name, drawn, METHODS[:2], max_seconds, entangler)


def main(count: int = 100, max_seconds: float = 0.5, seed: int = 0, kind: str = "both") -> None:
    print("| blocks | method (blocks) | two-qubit gates, median / mean | depth | seconds | exact | ", end="")
    print("two-qubit gates: better / equal / worse than default | depth |\n|---|---|---|---|---|---|---|---|")
    if kind != "angles":
        measure_discrete(count, max_seconds, seed)
    if kind != "discrete":
        measure_angles(count // 5, max_seconds, seed)


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float, int, str), sys.argv[1:], strict=False)))
