"""Closed groups of unitaries that contain all circuits of certain gates, to prove that a target is out of reach.

If all allowed gates are in a group and the target is far from it, no circuit of any length compiles the target. Gate
sets in none of the groups, such as h, t and cx, approximate every unitary, so nothing can be proven for them. `search`
uses this to stop before a hopeless search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GATES, Matrix

_SURE = 1e-5
"""A misfit above this is not due to rounding; that of a group's gates is about 1e-16."""

_OUTSIDE = 1.0
"""The misfit of a matrix that differs from all members in a discrete property."""


@dataclass(frozen=True)
class Invariant:
    """A closed group of unitaries, global phases included.

    Attributes:
        members: The members, as in "circuits of these gates are always ...".
        misfit: Takes a complex128 matrix [D, D] of squared Frobenius norm D. Returns 0 for members, and more than 2e-6
            only if the infidelity with every member is above 1e-6.
        states: The states that members prepare from |0...0>, in words; None if they have nothing in common.
        misfit_of_state: Like `misfit`, for states, complex128 [D] of norm 1; None if `states` is.
    """

    members: str
    misfit: Callable[[Matrix], float]
    states: str | None = None
    misfit_of_state: Callable[[Matrix], float] | None = None

    def has(self, gate: str, num_qubits: int) -> bool:
        """Tell whether a gate on any of the qubits is a member; circuits of such gates then are members, too."""
        return _is_member(self, gate, num_qubits > GATES[gate].num_qubits)


def broken_invariants(target: Matrix, gates: Sequence[str]) -> list[Invariant]:
    """Return the groups that contain all circuits of the gates, but not the target.

    Args:
        target: complex [D, D], unitary up to rounding.
        gates: Names of gates that may act on the target's qubits.

    Returns:
        The groups; each proves that the target is out of reach. An empty list proves nothing.
    """
    num_qubits = len(target).bit_length() - 1
    scaled = target * (np.sqrt(len(target)) / np.linalg.norm(target))
    return [group for group in _common(gates, num_qubits) if group.misfit(scaled) > _SURE]


def broken_by_state(state: Matrix, gates: Sequence[str]) -> list[Invariant]:
    """Return the groups that contain all circuits of the gates, but none that prepares the state from |0...0>.

    Args:
        state: complex [D].
        gates: Names of gates that may act on the state's qubits.

    Returns:
        The groups; see `broken_invariants`.
    """
    num_qubits = len(state).bit_length() - 1
    scaled = state / np.linalg.norm(state)
    common = _common(gates, num_qubits)
    return [group for group in common if group.misfit_of_state and group.misfit_of_state(scaled) > _SURE]


def may_be_exact(target: Matrix, gates: Sequence[str], max_gates: int, blur: float | None = None) -> bool:
    """Tell by the target's entries whether some circuit may implement it exactly; True proves nothing.

    Each h, sx and sxdg divides by sqrt(2), up to a global phase, and the other gates of `_OVER_ROOTS_OF_TWO` only
    permute and add Gaussian integers. So the squared magnitudes of all entries are integers divided by a power of two.
    With t and tdg they are (a + b sqrt(2)) / 2^k, and so is each with the sign of sqrt(2) flipped, since a unitary
    stays one: both lie between 0 and 1.

    Args:
        target: complex [D, D] of a unitary, or [D] of a normalized state.
        gates: Names of the gates of the circuit.
        max_gates: Maximum number of gates.
        blur: How far off squared magnitudes may be; None assumes no more digits than are certain.

    Reference:
        Giles, Selinger, "Exact synthesis of multiqubit Clifford+T circuits", Phys. Rev. A 87, 032332 (2013).
    """
    if not {*gates} <= {*_OVER_ROOTS_OF_TWO, *_TURN_BY_EIGHTHS}:
        return True
    target = target.astype(np.complex128)
    with_roots = not _TURN_BY_EIGHTHS.isdisjoint(gates)
    shares = np.unique(np.abs(target) ** 2)
    shares = shares[np.diff(shares, prepend=-1.0) > 1e-9]  # alike but for rounding
    if blur is None:
        blur = _blur(target) if with_roots else 1e-6
    most = min(max_gates, _MOST_POWERS)
    return any(all(_is_over(2**power, share, blur, with_roots) for share in shares) for power in range(most + 1))


def likely_exact(target: Matrix, gates: Sequence[str]) -> bool:
    """Tell whether `may_be_exact` holds closely enough not to be chance, for a target of float64.

    Of random targets one in a million passes; but exact ones of few digits, or of long circuits, may not pass.
    """
    return may_be_exact(target, gates, _LIKELY_POWERS, _LIKELY_BLUR)


_LIKELY_POWERS, _LIKELY_BLUR = 9, 1e-9

_OVER_ROOTS_OF_TWO = {"h", "x", "y", "z", "s", "sdg", "sx", "sxdg", "cx", "cy", "cz", "swap", "ccx", "cswap"}
_TURN_BY_EIGHTHS = {"t", "tdg"}
_MOST_POWERS = 16
"""For higher powers, rounding hides the distance from an integer."""


def _is_over(power: int, share: float, blur: float, with_roots: bool) -> bool:
    """Tell whether a squared magnitude may be a whole number, or a + b sqrt(2), over a power of two."""
    most = int(power / np.sqrt(8)) + 1 if with_roots else 0  # b sqrt(2) is at most half of the power
    roots = np.arange(-most, most + 1) * np.sqrt(2)
    whole = np.rint(power * share - roots)
    slack = blur * power
    is_near = np.abs(whole + roots - power * share) < slack
    turned = whole - roots
    return bool((is_near & (turned > -slack) & (turned < power + slack)).any())


def _blur(target: Matrix) -> float:
    """Return how far off squared magnitudes may be: as far as a matrix is from a unitary, with some room."""
    if target.ndim == 1:
        return 1e-6
    return max(1e-12, 100 * float(np.abs(target.conj().T @ target - np.eye(len(target))).max()))


def _common(gates: Sequence[str], num_qubits: int) -> list[Invariant]:
    """Return the groups that contain all circuits of the gates."""
    return [group for group in INVARIANTS if all(group.has(gate, num_qubits) for gate in gates)]


def may_entangle(gates: Sequence[str], num_qubits: int) -> bool:
    """Tell whether circuits of the gates can entangle qubits that start in |0...0>."""
    return not any(all(group.has(gate, num_qubits) for gate in gates) for group in (_LOCAL, _MONOMIAL))


@cache
def _is_member(invariant: Invariant, gate: str, among_others: bool) -> bool:
    return invariant.misfit(_embedded(gate, among_others)) < 1e-9


def _embedded(gate: str, among_others: bool) -> Matrix:
    """Return a gate's matrix, extended by an idle qubit if there are others; their number makes no difference."""
    matrix = GATES[gate].example()  # its powers come near to all angles
    return np.asarray(np.kron(np.eye(2), matrix) if among_others else matrix)


# ----------------------------------------------------------------- misfits of matrices


def _real(matrix: Matrix) -> float:
    # From the best overlap with a real matrix of the same norm, over all global phases.
    return float(1 - abs((matrix**2).sum()) / len(matrix)) / 2


def _rotation(matrix: Matrix) -> float:
    phase = np.exp(-0.5j * np.angle((matrix**2).sum()))
    sign, _ = np.linalg.slogdet((phase * matrix).real)  # the same for both signs of the phase: D is even
    return _real(matrix) if sign > 0 else _OUTSIDE


def _diagonal(matrix: Matrix) -> float:
    return float(1 - (abs(matrix.diagonal()).sum() / len(matrix)) ** 2)


def _monomial(matrix: Matrix) -> float:
    return float(1 - (abs(matrix).max(axis=0).sum() / len(matrix)) ** 2)


def _keeps_zero(matrix: Matrix) -> float:
    size, corner = len(matrix), abs(matrix[0, 0])
    cross = np.linalg.norm(matrix[0]) ** 2 + np.linalg.norm(matrix[:, 0]) ** 2 - corner**2
    return float(1 - ((corner + np.sqrt((size - 1) * max(size - cross, 0))) / size) ** 2)


def _keeps_weight(matrix: Matrix) -> float:
    weights = np.bitwise_count(np.arange(len(matrix)))
    return float(1 - (abs(matrix[weights[:, None] == weights]) ** 2).sum() / len(matrix))


def _local(matrix: Matrix) -> float:
    """One-qubit gates and swaps: conjugation maps the operators of each qubit to those of one qubit."""
    num_qubits = len(matrix).bit_length() - 1
    axes = matrix.reshape((2,) * (2 * num_qubits))

    def misfit(output: int, source: int) -> float:
        pair = np.moveaxis(axes, (output, num_qubits + source), (0, 1)).reshape(4, -1)
        return 1 - float(np.linalg.eigvalsh(pair @ pair.conj().T)[-1]) / len(matrix)

    return max(min(misfit(output, source) for output in range(num_qubits)) for source in range(num_qubits))


def clifford_misfit(matrix: Matrix) -> float:
    """Return how far conjugation is from mapping every X and Z to a product of Paulis; 0 for Clifford gates."""
    size = len(matrix)
    index, worst = np.arange(size), 0.0
    for bit in 2 ** np.arange(size.bit_length() - 1):
        for source in (matrix[:, index ^ bit], matrix * np.where(index & bit, -1, 1)):  # with x, with z
            worst = max(worst, _pauli_misfit(source @ matrix.conj().T) / 2)
            if worst > _SURE:
                return worst
    return worst


def _pauli_misfit(matrix: Matrix) -> float:
    index = np.arange(len(matrix))
    entries = matrix[index ^ abs(matrix[:, 0]).argmax(), index]
    signs = _from_bits(_turns(entries, 2))
    return float(1 - abs((entries * (1 - 2 * signs)).sum()) / len(matrix))


# ----------------------------------------------------------------- misfits of states


def _real_state(state: Matrix) -> float:
    return float(1 - abs((state**2).sum())) / 2


def _basis_state(state: Matrix) -> float:
    return float(1 - abs(state).max() ** 2)


def _zero_state(state: Matrix) -> float:
    return float(1 - abs(state[0]) ** 2)


def _product_state(state: Matrix) -> float:
    num_qubits = len(state).bit_length() - 1
    halves = [np.moveaxis(state.reshape((2,) * num_qubits), axis, 0).reshape(2, -1) for axis in range(num_qubits)]
    # The overlap with a product is at most the largest Schmidt coefficient.
    return max(1 - float(np.linalg.norm(half, 2)) ** 2 for half in halves)


# ----------------------------------------------------------------- permutations of the basis states, with phases


def _moves(matrix: Matrix) -> tuple[NDArray[np.intp], Matrix]:
    """Return the row that each basis state is mapped to, int [D], and the entries there."""
    rows = abs(matrix).argmax(axis=0)
    return rows, matrix[rows, np.arange(len(matrix))]


def _permutation(matrix: Matrix) -> float:
    return float(1 - (abs(_moves(matrix)[1].sum()) / len(matrix)) ** 2)


def _from_bits(values: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the XOR-linear function that agrees with values [D] (D = 2**n) on single bits, as a table [D]."""
    sums = np.zeros(1, dtype=np.intp)
    for bit in 2 ** np.arange(len(values).bit_length() - 1):
        sums = np.concatenate([sums, sums ^ values[bit] ^ values[0]])
    return sums


def _affine(matrix: Matrix) -> float:
    rows, _ = _moves(matrix)
    return _monomial(matrix) if np.array_equal(_from_bits(rows), rows ^ rows[0]) else _OUTSIDE


def _flips(matrix: Matrix) -> float:
    rows, _ = _moves(matrix)
    return _monomial(matrix) if np.array_equal(np.arange(len(matrix)), rows ^ rows[0]) else _OUTSIDE


def _moves_bits(matrix: Matrix) -> float:
    rows, _ = _moves(matrix)
    images = rows[2 ** np.arange(len(matrix).bit_length() - 1)] ^ rows[0]
    return _affine(matrix) if (np.bitwise_count(images) == 1).all() else _OUTSIDE


def _phases_of(steps: int) -> Callable[[Matrix], float]:
    """Return the misfit of permutations whose phases differ by multiples of 2 pi / steps."""

    def misfit(matrix: Matrix) -> float:
        _, entries = _moves(matrix)
        turned = entries * np.exp(-2j * np.pi * _turns(entries, steps) / steps)
        return float(1 - (abs(turned.sum()) / len(matrix)) ** 2)

    return misfit


def _turns(entries: Matrix, steps: int) -> NDArray[np.intp]:
    """Return the phases [D] relative to the first one, rounded to integer multiples of 2 pi / steps."""
    turns: NDArray[np.intp] = np.rint(np.angle(entries * entries[0].conj()) * steps / (2 * np.pi)).astype(np.intp)
    return turns % steps


def _phases_of_sums(steps: int) -> Callable[[Matrix], float]:
    """Return the misfit of circuits of cx and a phase gate: their phases are sums of phases of parities of bits.

    As a polynomial in the bits, such a phase has integer multiples of 2**(degree - 1) as coefficients.

    Reference:
        Amy, Mosca, "T-count optimization and Reed-Muller codes", IEEE Trans. Inf. Theory 65 (2019).
    """

    def misfit(matrix: Matrix) -> float:
        coefficients = _turns(_moves(matrix)[1], steps).reshape((2,) * (len(matrix).bit_length() - 1)).copy()
        for axis in range(coefficients.ndim):
            view = np.moveaxis(coefficients, axis, 0)
            view[1] -= view[0]
        degrees = np.bitwise_count(np.arange(len(matrix)))
        wrong = coefficients.reshape(-1) % np.minimum(2 ** np.maximum(degrees.astype(np.int64) - 1, 0), steps) != 0
        return _OUTSIDE if wrong[1:].any() else max(_affine(matrix), _phases_of(steps)(matrix))

    return misfit


_BASIS, _ZERO, _REAL = ("basis states", _basis_state), ("|0...0>", _zero_state), ("real states", _real_state)
"""`states` and `misfit_of_state` of an `Invariant`."""

_LOCAL = Invariant(
    "products of gates on single qubits, up to swaps", _local, "products of single qubits", _product_state
)
_MONOMIAL = Invariant("permutations of the basis states, up to phases", _monomial, *_BASIS)

ROTATIONS = Invariant("real with determinant 1, up to a global phase", _rotation, *_REAL)
INVARIANTS = (
    _LOCAL,
    Invariant("diagonal", _diagonal, *_ZERO),
    _MONOMIAL,
    Invariant("permutations of the basis states without phases", _permutation, *_BASIS),
    Invariant("flips of bits, up to phases", _flips, *_BASIS),
    Invariant("flips and swaps of bits, up to phases", _moves_bits, *_BASIS),
    Invariant("permutations whose output bits are sums (XOR) of input bits, up to phases", _affine, *_BASIS),
    Invariant("such that |0...0> is unchanged", _keeps_zero, *_ZERO),
    Invariant("such that the number of qubits in 1 is unchanged", _keeps_weight, *_ZERO),
    Invariant("real, up to a global phase", _real, *_REAL),
    ROTATIONS,
    Invariant("Clifford", clifford_misfit),
    Invariant("permutations with signs that are sums (XOR) of bits", _phases_of_sums(2)),
    Invariant("permutations with phases that cx and t can produce", _phases_of_sums(8)),
    Invariant("permutations with phases that are multiples of 90 degrees", _phases_of(4)),
    Invariant("permutations with phases that are multiples of 45 degrees", _phases_of(8)),
)
