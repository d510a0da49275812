"""The table of known gates, and the ordered pool of gates that a data set or model uses.

Tokens, prompts, simulation, labels, simplification, refinement, drawings and OpenQASM read this table and hard-code no
gate.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum_diffusion.arguments import shown
from quantum_diffusion.errors import GateSetError, unknown_name

Matrix = NDArray[np.complex128]

TURN = 2 * math.pi
"""A full turn in radians."""

SOME_ANGLES = (1.0, 0.6, 0.3)
"""Angles at which a gate has no property by coincidence, such as commuting with another."""

_STEPS = {0: 1, 1: 32, 3: 4}
"""By a gate's number of angles: values that each angle takes on its grid."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One kind of gate.

    The order of the controls, and that of the targets, must not matter: tokens do not record it.

    Attributes:
        name: Lower-case letters only, as prompts require; Qiskit's name if Qiskit has the gate.
        num_controls: Number of control qubits; the gate acts if all are 1.
        num_targets: Number of qubits the target matrix acts on.
        target_matrix: Returns the complex128 matrix [..., 2**num_targets, 2**num_targets] on the targets, as a function
            of the gate's angles, each a float or an array [...].
        inverse: Name of the inverse gate; it takes the negated angles, in the order `undo`.
        is_clifford: Whether a stabilizer tableau can simulate the gate, whatever its angles.
        qasm2: Its OpenQASM 2 definition, without "gate" and the name, in terms of the originally published header; None
            if the header has the gate. Qiskit reads it for gates that Qiskit lacks.
        num_angles: Number of angles, in radians.
        period: Period of the angles; an angle plus the period is the same gate up to a global phase.
        undo: For each angle of the inverse, which of the gate's angles it negates.
        made_of: For gates of several angles, an equal sequence of gates of one angle on the same qubit, each with the
            number of its angle.
    """

    name: str
    num_controls: int
    num_targets: int
    target_matrix: Callable[..., Matrix]
    inverse: str
    is_clifford: bool
    qasm2: str | None = None
    num_angles: int = 0
    period: float = TURN
    undo: tuple[int, ...] = (0,)
    made_of: tuple[tuple[str, int], ...] = ()

    @property
    def num_qubits(self) -> int:
        """Number of qubits the gate acts on, controls included."""
        return self.num_controls + self.num_targets

    @property
    def is_symmetric(self) -> bool:
        """Whether permuting its qubits, controls and targets alike, leaves the unitary unchanged."""
        return _is_symmetric(self)

    def matrix(self, *angles: float) -> Matrix:
        """Return the matrix on all its qubits, complex128 [D, D]; the first control is bit 0 of the index."""
        controls = 2**self.num_controls
        matrix = np.eye(2**self.num_qubits, dtype=np.complex128)
        rows = np.arange(2**self.num_targets) * controls + controls - 1  # all controls 1
        matrix[np.ix_(rows, rows)] = self.target_matrix(*angles)
        return matrix

    def example(self) -> Matrix:
        """Return the matrix on all its qubits at angles at which it has no property by coincidence."""
        return self.matrix(*SOME_ANGLES[: self.num_angles])

    @property
    def num_steps(self) -> int:
        """Number of values that each angle takes on the grid on which models write angles."""
        return _STEPS[self.num_angles]

    @property
    def step(self) -> float:
        """Distance of neighbouring angles on the grid, in radians."""
        return self.period / self.num_steps

    @property
    def grid(self) -> list[tuple[float, ...]]:
        """All combinations of angles on the grid, those of the last angle next to each other; [()] without angles."""
        values = [number * self.step for number in range(self.num_steps)]
        return list(itertools.product(*[values] * self.num_angles))

    def inverse_angles(self, angles: Iterable[float]) -> tuple[float, ...]:
        """Return the angles of the inverse gate, in [0, period)."""
        given = tuple(angles)
        return tuple(self.reduced(-given[number]) for number in self.undo[: self.num_angles])

    def reduced(self, angle: float) -> float:
        """Return the same angle in [0, period), up to a global phase of the gate."""
        rest = angle % self.period
        return 0.0 if rest == self.period else rest  # a tiny negative angle rounds up to the period


@cache
def _is_symmetric(gate: Gate) -> bool:
    matrix, num_qubits = gate.example(), gate.num_qubits
    axes = matrix.reshape((2,) * (2 * num_qubits))
    return all(
        np.allclose(axes.swapaxes(k, k + 1).swapaxes(num_qubits + k, num_qubits + k + 1), axes)
        for k in range(num_qubits - 1)
    )


def _constant(rows: list[list[complex]]) -> Callable[..., Matrix]:
    def matrix() -> Matrix:
        return np.array(rows, dtype=np.complex128)

    return matrix


_R = 1 / math.sqrt(2)
_X = _constant([[0, 1], [1, 0]])
_Y = _constant([[0, -1j], [1j, 0]])
_Z = _constant([[1, 0], [0, -1]])
_H = _constant([[_R, _R], [_R, -_R]])
_S = _constant([[1, 0], [0, 1j]])
_SDG = _constant([[1, 0], [0, -1j]])
_T = _constant([[1, 0], [0, cmath.exp(1j * math.pi / 4)]])
_TDG = _constant([[1, 0], [0, cmath.exp(-1j * math.pi / 4)]])
_SX = _constant([[0.5 + 0.5j, 0.5 - 0.5j], [0.5 - 0.5j, 0.5 + 0.5j]])
_SXDG = _constant([[0.5 - 0.5j, 0.5 + 0.5j], [0.5 + 0.5j, 0.5 - 0.5j]])
_SWAP = _constant([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def _of_entries(*rows: tuple[ArrayLike, ...]) -> Matrix:
    """Return the matrices [..., d, d] whose entries are numbers or arrays [...]."""
    entries = np.broadcast_arrays(*itertools.chain.from_iterable(rows))
    flat = np.stack(entries, axis=-1).astype(np.complex128)
    return flat.reshape(*flat.shape[:-1], len(rows), len(rows))


def _rx(angle: ArrayLike) -> Matrix:
    cos, sin = np.cos(np.divide(angle, 2)), np.sin(np.divide(angle, 2))
    return _of_entries((cos, -1j * sin), (-1j * sin, cos))


def _ry(angle: ArrayLike) -> Matrix:
    cos, sin = np.cos(np.divide(angle, 2)), np.sin(np.divide(angle, 2))
    return _of_entries((cos, -sin), (sin, cos))


def _rz(angle: ArrayLike) -> Matrix:
    turn = np.exp(np.multiply(angle, 0.5j))
    return _of_entries((turn.conj(), 0), (0, turn))


def _p(angle: ArrayLike) -> Matrix:
    return _of_entries((1, 0), (0, np.exp(np.multiply(angle, 1j))))


def _cp(angle: ArrayLike) -> Matrix:
    return _of_entries((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, np.exp(np.multiply(angle, 1j))))


def _rzz(angle: ArrayLike) -> Matrix:
    turn = np.exp(np.multiply(angle, 0.5j))
    back = turn.conj()
    return _of_entries((back, 0, 0, 0), (0, turn, 0, 0), (0, 0, turn, 0), (0, 0, 0, back))


def _u(theta: ArrayLike, phi: ArrayLike, lam: ArrayLike) -> Matrix:
    return _p(phi) @ _ry(theta) @ _p(lam)


GATES: dict[str, Gate] = {
    gate.name: gate
    for gate in (
        Gate("h", 0, 1, _H, "h", True),
        Gate("x", 0, 1, _X, "x", True),
        Gate("y", 0, 1, _Y, "y", True),
        Gate("z", 0, 1, _Z, "z", True),
        Gate("s", 0, 1, _S, "sdg", True),
        Gate("t", 0, 1, _T, "tdg", False),
        Gate("sdg", 0, 1, _SDG, "s", True),
        Gate("tdg", 0, 1, _TDG, "t", False),
        Gate("cx", 1, 1, _X, "cx", True),
        Gate("cy", 1, 1, _Y, "cy", True),
        Gate("cz", 1, 1, _Z, "cz", True),
        Gate("swap", 0, 2, _SWAP, "swap", True, "a,b { cx a,b; cx b,a; cx a,b; }"),
        Gate("ccx", 2, 1, _X, "ccx", False),
        Gate("cswap", 1, 2, _SWAP, "cswap", False, "c,a,b { cx b,a; ccx c,a,b; cx b,a; }"),
        Gate("sx", 0, 1, _SX, "sxdg", True, "a { h a; s a; h a; }"),
        Gate("sxdg", 0, 1, _SXDG, "sx", True, "a { h a; sdg a; h a; }"),
        Gate("rx", 0, 1, _rx, "rx", False, None, 1),
        Gate("ry", 0, 1, _ry, "ry", False, None, 1),
        Gate("rz", 0, 1, _rz, "rz", False, None, 1),
        Gate("p", 0, 1, _p, "p", False, "(t) a { u1(t) a; }", 1),
        # Of two targets, as its qubits may be exchanged; genQC writes it like this, too.
        Gate("cp", 0, 2, _cp, "cp", False, "(t) a,b { cu1(t) a,b; }", 1),
        Gate("crz", 1, 1, _rz, "crz", False, None, 1, 2 * TURN),
        Gate("rzz", 0, 2, _rzz, "rzz", False, "(t) a,b { cx a,b; rz(t) b; cx a,b; }", 1),
        Gate(
            *("u", 0, 1, _u, "u", False, "(t,f,l) a { u3(t,f,l) a; }", 3),
            undo=(0, 2, 1),
            made_of=(("p", 2), ("ry", 0), ("p", 1)),
        ),
    )
}


def have_angles(names: object) -> bool:
    """Tell whether a list of gates names some with angles; whatever else was given has none."""
    known = tuple(GATES)  # unlike a dict, `in` also works for unhashable values
    return isinstance(names, Iterable) and any(GATES[name].num_angles for name in names if name in known)


class GatePool:
    """An ordered set of gates; gate number k of the pool (from 1) is token k.

    Args:
        names: Gate names in token order.

    Raises:
        GateSetError: The pool is empty, repeats a gate or names an unknown one.

    Example:
        >>> pool = GatePool(["h", "cx"])
        >>> pool.padding_token, pool.vocabulary_size
        (3, 4)
    """

    def __init__(self, names: Iterable[str] | GatePool) -> None:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise GateSetError(f"the gate set is {shown(names)}: give a list of names such as ['h', 'cx']")
        self.names: tuple[str, ...] = names.names if isinstance(names, GatePool) else tuple(names)
        if not self.names:
            raise GateSetError("the gate set is empty: name at least one gate, e.g. ['h', 'cx']")
        known = tuple(GATES)  # unlike a dict, `in` also works for unhashable values
        for name in self.names:
            if name not in known:
                raise GateSetError(unknown_name("gate", name, GATES))
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise GateSetError(f"the gate set {list(self.names)} repeats {repeated}: name each gate once")

    def __iter__(self) -> Iterator[Gate]:
        return (GATES[name] for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GatePool) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"GatePool({list(self.names)})"

    @property
    def padding_token(self) -> int:
        """The token of cells outside the circuit, one more than that of the last gate."""
        return len(self.names) + 1

    @property
    def vocabulary_size(self) -> int:
        """Number of unsigned tokens: no gate, the gates, padding."""
        return len(self.names) + 2

    @property
    def is_clifford(self) -> bool:
        """Whether every gate is Clifford, in which case labels need no state vector."""
        return all(gate.is_clifford for gate in self)

    @property
    def num_angles(self) -> int:
        """Number of angles of the gate with the most, A; 0 if no gate has any."""
        return max(gate.num_angles for gate in self)

    def check_fits(self, num_qubits: int) -> None:
        """Raise `GateSetError` if a gate needs more qubits than there are."""
        for gate in self:
            if gate.num_qubits > num_qubits:
                raise GateSetError(
                    f"gate {gate.name!r} acts on {gate.num_qubits} qubits, but the circuits have {num_qubits}: "
                    f"remove it from the gate set or set num_qubits to {gate.num_qubits} or more"
                )
