"""Qiskit's synthesis of a unitary from given gates, the baseline for compiling models.

Qiskit decomposes a unitary into one-qubit gates and cx, and approximates one-qubit gates outside the basis by thousands
of gates. So its result is used only if every one-qubit gate in it is a short circuit of the given gates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
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

_FORMULAS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Orders and numbers of steps of product formulas, shorter circuits first."""

_TERMS_PER_QUBIT = 6
"""Maximum number of Pauli terms: chains of spins have four for each qubit, random unitaries nearly all 4^n."""

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
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import UnitaryGate
    from qiskit.exceptions import QiskitError
    from qiskit.quantum_info import Clifford, Operator
    from qiskit.synthesis import synth_clifford_full, synth_clifford_greedy
    from qiskit.transpiler import generate_preset_pass_manager

    num_qubits = len(unitary).bit_length() - 1
    whole = QuantumCircuit(num_qubits)
    whole.append(UnitaryGate(unitary, check_input=False), range(num_qubits))
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
    whatever their global phase. Nothing is yielded for other unitaries, or if Qiskit needs other gates.

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
    terms = SparsePauliOp(terms.paulis, terms.coeffs.real)[(terms.paulis.x | terms.paulis.z).any(axis=1)]
    if not 0 < len(terms) <= _TERMS_PER_QUBIT * num_qubits or not any(GATES[name].num_angles for name in gates):
        return
    transpiler = generate_preset_pass_manager(optimization_level=3, basis_gates=basis_gates(gates), seed_transpiler=0)
    for order, steps in _FORMULAS:
        whole = QuantumCircuit(num_qubits)
        whole.append(PauliEvolutionGate(terms, synthesis=SuzukiTrotter(order, steps)), range(num_qubits))
        try:
            circuit = QiskitBackend().from_native(transpiler.run(whole.decompose()))
        except (QiskitError, GateSetError):  # it needs other gates
            return
        if set(circuit.gate_counts) <= set(gates):
            yield circuit


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
