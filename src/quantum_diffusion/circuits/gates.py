"""The table of known gates, and the ordered pool of gates that a data set or model uses.

Tokens, prompts, simulation, labels, simplification, drawings and OpenQASM read this table and hard-code no gate.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import shown
from quantum_diffusion.errors import GateSetError, unknown_name

Matrix = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Gate:
    """One kind of gate.

    The order of the controls, and that of the targets, must not matter: tokens do not record it.

    Attributes:
        name: Lower-case letters only, as prompts require; Qiskit's name if Qiskit has the gate.
        num_controls: Number of control qubits; the gate acts if all are 1.
        num_targets: Number of qubits the target matrix acts on.
        target_matrix: Returns the complex128 matrix [2**num_targets, 2**num_targets] on the targets, as a function
            of the gate's parameters (no current gate has any).
        inverse: Name of the inverse gate.
        is_clifford: Whether a stabilizer tableau can simulate the gate.
        qasm2: Its OpenQASM 2 definition, without "gate" and the name, in terms of the originally published header; None
            if the header has the gate. Qiskit reads it for gates that Qiskit lacks.
    """

    name: str
    num_controls: int
    num_targets: int
    target_matrix: Callable[..., Matrix]
    inverse: str
    is_clifford: bool
    qasm2: str | None = None

    @property
    def num_qubits(self) -> int:
        """Number of qubits the gate acts on, controls included."""
        return self.num_controls + self.num_targets

    @property
    def is_symmetric(self) -> bool:
        """Whether permuting its qubits, controls and targets alike, leaves the unitary unchanged."""
        return _is_symmetric(self)

    def matrix(self) -> Matrix:
        """Return the matrix on all its qubits, complex128 [D, D]; the first control is bit 0 of the index."""
        controls = 2**self.num_controls
        matrix = np.eye(2**self.num_qubits, dtype=np.complex128)
        rows = np.arange(2**self.num_targets) * controls + controls - 1  # all controls 1
        matrix[np.ix_(rows, rows)] = self.target_matrix()
        return matrix


@cache
def _is_symmetric(gate: Gate) -> bool:
    matrix, num_qubits = gate.matrix(), gate.num_qubits
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
_SWAP = _constant([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])

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
    )
}


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

    def check_fits(self, num_qubits: int) -> None:
        """Raise `GateSetError` if a gate needs more qubits than there are."""
        for gate in self:
            if gate.num_qubits > num_qubits:
                raise GateSetError(
                    f"gate {gate.name!r} acts on {gate.num_qubits} qubits, but the circuits have {num_qubits}: "
                    f"remove it from the gate set or set num_qubits to {gate.num_qubits} or more"
                )
