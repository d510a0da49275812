"""Replays a circuit gate by gate for the page: the remaining unitary, the state or the entanglement after each gate.

Gates are replayed from first to last, regardless of the order in which the model wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import ranks_of_states
from quantum_diffusion.circuits.simulate import apply_step
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, ids_from_circuits
from quantum_diffusion.errors import ConfigError, counted

_MOST_NUMBERS = 2**21
"""Maximum number of entries in all steps together, about 20 MB of JSON."""
_DIGITS = 4


def replay_entanglement(circuit: Circuit) -> dict[str, Any]:
    """Return the Schmidt rank vector after each gate, and the entanglement entropy of each qubit in bits, 0 to 1."""
    _check_size(circuit, 2**circuit.num_qubits)
    states = [columns[:, 0] for columns in _after_each(circuit, _zero(circuit.num_qubits))]
    ranks = ranks_of_states(np.stack(states))
    return {
        "kind": "entanglement",
        "steps": [
            {"srv": row.tolist(), "entropies": _rounded(_entropies(state))}
            for state, row in zip(states, ranks, strict=True)
        ],
    }


def replay_state(circuit: Circuit, target: Matrix) -> dict[str, Any]:
    """Return the amplitudes after each gate, the target's amplitudes, and their overlap.

    Args:
        circuit: The circuit, applied to |0...0>.
        target: The target state, complex128 [D]; its global phase is adjusted to the circuit's.
    """
    _check_size(circuit, len(target))
    states = [columns[:, 0] for columns in _after_each(circuit, _zero(circuit.num_qubits))]
    wanted = target * _phase(complex(np.vdot(target, states[-1])))
    return {
        "kind": "state",
        "wanted": _pairs(wanted),
        "steps": [
            {"values": _pairs(made), "overlap": round(float(abs(np.vdot(wanted, made)) ** 2), 6)} for made in states
        ],
    }


def replay_unitary(circuit: Circuit, target: Matrix) -> dict[str, Any]:
    """Return U V^dagger after each gate, where V is the unitary of the gates so far; it ends as the identity.

    Args:
        circuit: The circuit.
        target: U, complex128 [D, D]; its global phase is adjusted to the circuit's.
    """
    size = len(target)
    _check_size(circuit, size**2)
    lefts = [target @ made.conj().T for made in _after_each(circuit, np.eye(size, dtype=np.complex128))]
    phase = _phase(complex(np.trace(lefts[-1]))).conjugate()
    return {
        "kind": "unitary",
        "steps": [
            {"values": _pairs(left * phase), "overlap": round(float(abs(np.trace(left) / size) ** 2), 6)}
            for left in lefts
        ],
    }


def _check_size(circuit: Circuit, numbers: int) -> None:
    if numbers * (len(circuit) + 1) > _MOST_NUMBERS:
        raise ConfigError(
            f"a circuit of {counted(circuit.num_qubits, 'qubit')} and {counted(len(circuit), 'gate')} is too large to "
            "replay: choose a smaller one"
        )


def _after_each(circuit: Circuit, start: Matrix) -> Iterator[Matrix]:
    """Yield what no gate, the first gate, the first two, ... make of the columns of `start`, complex128 [D, R]."""
    states = start[None].copy()  # [1, D, R]
    yield states[0].copy()
    if not len(circuit):
        return
    table = instruction_table(GatePool(list(circuit.gate_counts)), circuit.num_qubits)
    angles = angles_of_circuits([circuit], table, len(circuit))
    for number, step in enumerate(ids_from_circuits([circuit], table, len(circuit)).T):  # [1]
        apply_step(states, step, table, angles[:, number])
        yield states[0].copy()


def _zero(num_qubits: int) -> Matrix:
    state = np.zeros((2**num_qubits, 1), dtype=np.complex128)
    state[0] = 1
    return state


def _entropies(state: Matrix) -> NDArray[np.float64]:
    """Return the entropy of each qubit's reduced state, in bits: float64 [Q]."""
    entropies = []
    for qubit in range(len(state).bit_length() - 1):
        halves = np.moveaxis(state.reshape(-1, 2, 2**qubit), 1, 0).reshape(2, -1)  # [2, D / 2]
        shares = np.linalg.svd(halves, compute_uv=False) ** 2
        entropies.append(-sum(share * np.log2(share) for share in shares if share > 1e-15))
    return np.abs(np.array(entropies, dtype=np.float64))


def _phase(value: complex) -> complex:
    return value / abs(value) if abs(value) > 1e-9 else 1.0 + 0j


def _pairs(values: Matrix) -> list[Any]:
    """Return complex numbers [...] as [..., 2], real and imaginary parts."""
    return _rounded(np.stack([values.real, values.imag], axis=-1))


def _rounded(values: NDArray[np.float64]) -> list[Any]:
    rounded: list[Any] = (np.round(values, _DIGITS) + 0.0).tolist()  # -0.0 as 0.0
    return rounded
