"""Qiskit's synthesis of a unitary from given gates, the baseline for compiling models.

Qiskit decomposes a unitary into one-qubit gates and cx, and approximates one-qubit gates outside the basis by thousands
of gates. So its result is used only if every one-qubit gate in it is a short circuit of the given gates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import schur

from quantum_diffusion.circuits.backends.qiskit import OVERLAP_TOLERANCE, QiskitBackend, basis_gates
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import matrix_keys
from quantum_diffusion.circuits.reachable import reach
from quantum_diffusion.errors import GateSetError

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import SparsePauliOp

_FORMULAS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Orders and numbers of steps of product formulas, shorter circuits first."""

_TERMS_PER_QUBIT = 6
"""Maximum number of Pauli terms: chains of spins have four for each qubit, random unitaries nearly all 4^n."""

_ROUNDING = 1e-9
"""Entries of a diagonal unitary beside the diagonal are smaller."""

_NO_TERM = 1e-9
_SAME_PHASE = 1e-9
"""Rounding errors of the phase that begins the arc must not send it once around."""

_LONGEST = 14
"""Maximum length of the one-qubit circuits tried: some 8,000 unitaries for h, s, t and their inverses."""


def synthesize(unitary: NDArray[np.complex128], gates: Sequence[str]) -> Circuit | None:
    """Return Qiskit's circuit for a unitary, up to a global phase, from given gates.

    This works for some Clifford unitaries, and for others if the gates include t. The result is verified.

    Args:
        unitary: complex128 [D, D].
        gates: Names of the gates that may be used.

    Returns:
        The shortest of Qiskit's exact circuits; None if there is none.
    """
    from qiskit.exceptions import QiskitError
    from qiskit.quantum_info import Clifford, Operator
    from qiskit.synthesis import synth_clifford_full, synth_clifford_greedy
    from qiskit.transpiler import generate_preset_pass_manager

    whole = _as_a_gate(unitary)
    turns = any(GATES[name].num_angles for name in gates)
    candidates = [whole] if turns or _is_within(whole, tuple(gates)) else []
    with contextlib.suppress(QiskitError):  # raised if the unitary is not Clifford
        clifford = Clifford.from_operator(Operator(unitary))
        candidates += [synth_clifford_full(clifford), synth_clifford_greedy(clifford)]
    # Higher levels drop swaps and return a permutation next to the circuit.
    transpiler = generate_preset_pass_manager(optimization_level=1, basis_gates=basis_gates(gates), seed_transpiler=0)
    found = []
    for candidate in candidates:
        with contextlib.suppress(QiskitError, GateSetError):  # raised if it needs other gates
            circuit = QiskitBackend().from_native(transpiler.run(candidate))
            overlap = abs(np.vdot(QiskitBackend().unitary(circuit), unitary)) / len(unitary)
            if overlap > 1 - OVERLAP_TOLERANCE and set(circuit.gate_counts) <= set(gates):
                found.append(circuit)
    return min(found, key=len, default=None)


def trotterize(unitary: NDArray[np.complex128], gates: Sequence[str]) -> Iterator[Circuit]:
    """Yield Qiskit's product formulas for a unitary exp(-iH) whose H is a sum of few Pauli operators, from given gates.

    H is the logarithm with the eigenvalues on the shortest arc, so that evolutions for a short time have few terms,
    whatever their global phase. If one-qubit gates make it diagonal, an exact circuit comes first. Nothing is yielded
    for other unitaries, or if Qiskit needs other gates.

    Args:
        unitary: complex128 [D, D].
        gates: Names of the gates that may be used.

    Yields:
        Approximations, shorter ones first.

    Reference:
        Suzuki, J. Math. Phys. 32, 400 (1991): formulas of first and second order.
    """
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import PauliEvolutionGate
    from qiskit.exceptions import QiskitError
    from qiskit.quantum_info import SparsePauliOp
    from qiskit.synthesis import SuzukiTrotter
    from qiskit.transpiler import generate_preset_pass_manager

    num_qubits = len(unitary).bit_length() - 1
    terms = SparsePauliOp.from_operator(_logarithm(unitary), atol=_NO_TERM)
    acts = terms.paulis.x | terms.paulis.z
    order = np.lexsort(acts.T)  # terms on the same qubits follow each other, so that Qiskit merges them
    terms = SparsePauliOp(terms.paulis[order], terms.coeffs.real[order])[acts[order].any(axis=1)]
    if not 0 < len(terms) <= _TERMS_PER_QUBIT * num_qubits or not any(GATES[name].num_angles for name in gates):
        return
    formulas = []
    for degree, steps in _FORMULAS:
        formula = QuantumCircuit(num_qubits)
        formula.append(PauliEvolutionGate(terms, synthesis=SuzukiTrotter(degree, steps)), range(num_qubits))
        formulas.append([formula.decompose()])
    for parts in filter(None, [_by_a_diagonal(unitary, terms), *formulas]):
        # Translated one by one and at level 1, the parts of the first stay as they are.
        level = 1 if len(parts) > 1 else 3
        transpiler = generate_preset_pass_manager(level, basis_gates=basis_gates(gates), seed_transpiler=0)
        try:
            whole = reduce(QuantumCircuit.compose, map(transpiler.run, parts))
            circuit = QiskitBackend().from_native(whole)
        except (QiskitError, GateSetError):  # it needs other gates
            return
        if set(circuit.gate_counts) <= set(gates):
            yield circuit


def _by_a_diagonal(unitary: NDArray[np.complex128], terms: SparsePauliOp) -> list[QuantumCircuit]:
    """Return one-qubit gates, a diagonal and one-qubit gates, unless a qubit has several kinds of Pauli operators."""
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import Operator

    turn = QuantumCircuit(terms.num_qubits)
    for qubit, (x, z) in enumerate(zip(terms.paulis.x.T, terms.paulis.z.T, strict=True)):
        if len(np.unique(np.stack([x, z], axis=1)[x | z], axis=0)) > 1:
            return []
        if (x & z).any():  # y
            turn.sdg(qubit)
        if x.any():
            turn.h(qubit)
    turned = Operator(turn).data
    return [turn, _as_a_gate(turned @ unitary @ turned.conj().T), turn.inverse()]


def _as_a_gate(unitary: NDArray[np.complex128]) -> QuantumCircuit:
    """Return a circuit of one gate: Qiskit finds far shorter circuits for what it is told to be diagonal."""
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import DiagonalGate, UnitaryGate

    diagonal = np.diag(unitary)
    if np.abs(unitary - np.diag(diagonal)).max() < _ROUNDING:
        gate = DiagonalGate(list(np.exp(1j * np.angle(diagonal))))
    else:
        gate = UnitaryGate(unitary, check_input=False)
    whole = QuantumCircuit(gate.num_qubits)
    whole.append(gate, range(gate.num_qubits))
    return whole


def _logarithm(unitary: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return H of exp(-iH), up to a multiple of the identity; the eigenvalues lie on the shortest arc of the circle."""
    triangle, vectors = schur(unitary, output="complex")
    phases = np.angle(np.diag(triangle))
    ordered = np.sort(phases)
    gaps = np.diff(ordered, append=ordered[0] + 2 * np.pi)
    start = ordered[(gaps.argmax() + 1) % len(ordered)]  # the arc begins after the widest gap
    energies = -((phases - start + _SAME_PHASE) % (2 * np.pi))
    total: NDArray[np.complex128] = (vectors * energies) @ vectors.conj().T
    return total


def _is_within(circuit: QuantumCircuit, gates: tuple[str, ...]) -> bool:
    """Tell whether every one-qubit gate of Qiskit's decomposition is a short circuit of the given gates."""
    from qiskit.quantum_info import Operator
    from qiskit.transpiler import generate_preset_pass_manager

    decomposed = generate_preset_pass_manager(1, basis_gates=["u", "cx"], seed_transpiler=0).run(circuit)
    needed = [Operator(step.operation).data for step in decomposed.data if step.operation.num_qubits == 1]
    return not needed or bool(np.isin(matrix_keys(np.stack(needed)), _on_one_qubit(gates)).all())


@lru_cache(maxsize=64)
def _on_one_qubit(gates: tuple[str, ...]) -> Keys:
    """Return the keys of the one-qubit unitaries of short circuits of the given gates."""
    matrices = [GATES[name].matrix() for name in gates if GATES[name].num_qubits == 1 and not GATES[name].num_angles]
    made = reach(np.eye(2, dtype=np.complex128), np.array(matrices, np.complex128).reshape(-1, 2, 2), 2**24)
    return np.concatenate([length.keys for length in islice(made, _LONGEST + 1)])
