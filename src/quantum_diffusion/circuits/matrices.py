"""Compares, pads, encodes and checks unitaries [N, D, D] and states [N, D, 1].

Tasks, data sets and searches use it. Code for both is written once, for matrices of D = 2^n rows and any number of
columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.keys import Keys, row_keys
from quantum_diffusion.errors import ConfigError, first_line

EXACT = 1e-6
"""A circuit is exact if its infidelity with the target, computed in float64, is below this."""

EXACT_ANGLES = 1e-10
"""The same for circuits with angles, which come near any target that they do not implement."""

STORED_TOLERANCE = 1e-4
"""Maximum infidelity of a stored matrix with its circuit; float16 causes about 1e-6, a wrong circuit 0.1 or more."""

UNITARY_TOLERANCE = 1e-5
"""Maximum entry of |U^dagger U - 1| for a unitary, and error of the norm for a state; float32 data sets reach 1e-6."""

_PIECE_BYTES = 2**23
"""Memory of one piece: simulating circuits in pieces that fit the cache is three times as fast."""

_NOT_ZERO = 1e-3
_KEY_STEPS = 2.0**12
_KEY_SHIFT = 0.27


def exact_below(pool: GatePool) -> float:
    """Return the infidelity below which circuits of a pool are exact."""
    return EXACT_ANGLES if pool.num_angles else EXACT


def pieces(count: int, entries: int) -> list[slice]:
    """Split circuits into pieces to simulate one after the other; the results do not depend on the split.

    Args:
        count: Number of circuits; 0 gives one empty piece.
        entries: Complex numbers per circuit, D^2 for a unitary.
    """
    size = max(1, _PIECE_BYTES // (16 * entries))
    return [slice(start, min(start + size, count)) for start in range(0, max(count, 1), size)]


def infidelities(matrices: Matrix, targets: Matrix) -> NDArray[np.float64]:
    """Return the infidelities of matrices with targets, up to a global phase.

    1 - |tr(V^dagger U)|^2 / (|V|^2 |U|^2) with Frobenius norms; for states it is 1 - |<v|u>|^2. Dividing by the squared
    norms (D for exact unitaries, 1 for states) ignores rounding of the targets' scale, as in float32 data sets.

    Args:
        matrices: complex128 [N, D, R].
        targets: complex128 [N, D, R].

    Returns:
        float64 [N] in [0, 1].
    """
    overlap = np.abs(np.einsum("nij,nij->n", matrices.conj(), targets)) ** 2
    norms = [np.einsum("nij,nij->n", x.conj(), x).real for x in (matrices, targets)]
    clipped: NDArray[np.float64] = np.maximum(1 - overlap / (norms[0] * norms[1]), 0.0)
    return clipped


def matrix_keys(matrices: NDArray[np.complexfloating]) -> Keys:
    """Return a 64-bit hash of each matrix, the same for matrices equal up to a global phase and rounding.

    Args:
        matrices: complex [N, D, R]; single precision is enough.

    Returns:
        uint64 [N].
    """
    flat = matrices.reshape(len(matrices), math.prod(matrices.shape[1:]))
    first = np.argmax(np.abs(flat) > _NOT_ZERO, axis=1)  # becomes real and positive
    pivot = flat[np.arange(len(flat)), first]
    turned = flat * (pivot.conj() / np.abs(pivot))[:, None]
    # Entries of small circuits are multiples of powers of 1/sqrt(2): the shift keeps them away from rounding edges.
    numbers = np.stack([turned.real, turned.imag], axis=1) * _KEY_STEPS + _KEY_SHIFT
    return row_keys(np.floor(numbers).astype(np.int32))


def as_two_channels(matrices: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Complex [..., D, R] => real and imaginary parts float32 [..., 2, D, R]."""
    return np.stack([matrices.real, matrices.imag], axis=-3, dtype=np.float32, casting="same_kind")


def from_two_channels(parts: NDArray[np.floating]) -> Matrix:
    """Real and imaginary parts [..., 2, D, R] => complex128 [..., D, R]."""
    real, imaginary = np.moveaxis(np.asarray(parts, dtype=np.float64), -3, 0)
    whole: Matrix = real + 1j * imaginary
    return whole


def pad_unitary(matrix: NDArray[Any], num_qubits: int) -> Matrix:
    """Extend unitaries to more qubits by the identity on the added qubits.

    Args:
        matrix: Complex [..., d, d] with d = 2**q; qubit 0 is the lowest bit of the basis index.
        num_qubits: At least q.

    Returns:
        complex128 [..., D, D] with D = 2**num_qubits.
    """
    padded: Matrix = np.kron(np.eye(2**num_qubits // matrix.shape[-1]), matrix).astype(np.complex128)
    return padded


def qubits_of_unitary(matrix: NDArray[Any]) -> int:
    """Return the number of qubits of a unitary.

    Raises:
        ConfigError: It is not one square matrix of 2**n rows, or not unitary.
    """
    array = finite_array(matrix, "a complex matrix", "a unitary matrix", "search.unitaries.target_unitary")
    if array.ndim > 2:
        raise ConfigError(
            f"the target has shape {array.shape}: give one matrix [D, D] with D = 2, 4, 8, ..., not a stack"
        )
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < 2 or array.shape[0].bit_count() != 1:
        raise ConfigError(f"the target has shape {array.shape}: give a square matrix of 2, 4, 8, ... rows")
    with np.errstate(over="ignore", invalid="ignore"):  # huge entries give inf or nan, which the comparison refuses
        error = np.abs(array.conj().T @ array.astype(np.complex128) - np.eye(len(array))).max()
    if not error <= UNITARY_TOLERANCE:
        is_rounded = error < 0.1
        nearest = ", e.g. the nearest one, scipy.linalg.polar(matrix.astype(complex))[0]" if is_rounded else ""
        raise ConfigError(
            f"the target is not unitary: U^dagger U differs from the identity by {error:.2g}, more than "
            f"{UNITARY_TOLERANCE:g}; give a unitary matrix{nearest}"
        )
    return int(array.shape[0]).bit_length() - 1


def pad_state(state: NDArray[Any], num_qubits: int) -> Matrix:
    """Extend states to more qubits by |0> on the added qubits.

    Args:
        state: Complex [..., d, 1] with d = 2**q; qubit 0 is the lowest bit of the basis index.
        num_qubits: At least q.

    Returns:
        complex128 [..., D, 1] with D = 2**num_qubits.
    """
    missing = 2**num_qubits - state.shape[-2]
    return np.pad(state.astype(np.complex128), [(0, 0)] * (state.ndim - 2) + [(0, missing), (0, 0)])


def qubits_of_state(state: NDArray[Any]) -> int:
    """Return the number of qubits of a state.

    Args:
        state: Complex [d] or [d, 1].

    Raises:
        ConfigError: It is not one vector of 2**n amplitudes, or not normalised.
    """
    array = finite_array(state, "a complex vector", "a normalised vector", "search.states.target_state")
    rows = array.shape[0] if array.ndim else 0
    if array.shape not in ((rows,), (rows, 1)) or rows < 2 or rows.bit_count() != 1:
        raise ConfigError(f"the target has shape {array.shape}: give a vector of 2, 4, 8, ... amplitudes")
    with np.errstate(over="ignore", invalid="ignore"):
        error = abs(float(np.linalg.norm(array.astype(np.complex128))) - 1)
    if not error <= UNITARY_TOLERANCE:
        raise ConfigError(
            f"the target is not normalised: its norm differs from 1 by {error:.2g}, more than "
            f"{UNITARY_TOLERANCE:g}; divide it by numpy.linalg.norm(vector)"
        )
    return int(rows).bit_length() - 1


def check_unmasked(values: object) -> None:
    """Raise `ConfigError` if a numpy masked array has masked entries, which conversions would silently unmask."""
    if np.ma.is_masked(values):
        raise ConfigError("the target is a numpy array with masked entries: give an array without a mask")


def finite_array(values: Any, expected: str, wanted: str, maker: str) -> NDArray[Any]:
    """Return a caller's value as an array of finite numbers.

    Args:
        values: Any value.
        expected: What to give instead of a value that is not an array of numbers, for the message.
        wanted: What to give instead of an array with entries that are not finite.
        maker: The function that makes such an array from a name, a file or a circuit.

    Raises:
        ConfigError: It is not an array of finite numbers, or has masked entries.
    """
    check_unmasked(values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as problem:  # rows of different lengths, a tensor on a GPU
        raise ConfigError(f"the target is not an array ({first_line(problem)}): give {expected}") from None
    if array.dtype.kind not in "biufc":
        raise ConfigError(
            f"the target holds {array.dtype}, not numbers: give {expected}; {maker} makes one from a name, a file or "
            "a circuit"
        )
    if array.ndim and array.size and not np.isfinite(array).all():
        raise ConfigError(f"the target has entries that are not finite: give {wanted}")
    return array
