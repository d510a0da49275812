"""Time evolution, exp(-i H t), as target unitaries: of spin chains by name, and of a user's own sum of Pauli operators.

`search.unitaries` uses these names and parameters. Signs and axes of ising and xxz are those of genQC's benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.errors import ConfigError, quoted, unknown_name

_PAULI: dict[str, Matrix] = {
    "X": np.array([[0, 1], [1, 0]], dtype=np.complex128),
    "Y": np.array([[0, -1j], [1j, 0]], dtype=np.complex128),
    "Z": np.array([[1, 0], [0, -1]], dtype=np.complex128),
}

CHAINS: dict[str, dict[str, float]] = {
    "ising": {"J": 1.0, "h": 1.0, "t": 1.0},
    "xxz": {"J": 1.0, "delta": 0.5, "h": 0.0, "t": 1.0},
    "heisenberg": {"Jx": 1.0, "Jy": 1.0, "Jz": 1.0, "h": 0.0, "t": 1.0},
}
"""Parameters of each chain with their default values; t is the time."""

FORMS = {
    "ising": "ising:3:J0.4:h0.2:t0.25 (qubits, coupling, field, time)",
    "xxz": "xxz:3:J0.4:delta1.5:h0.2:t0.25 (qubits, coupling, anisotropy, field, time)",
    "heisenberg": "heisenberg:3:Jx0.4:Jy0.3:Jz0.2:h0.1:t0.25 (qubits, couplings, field, time)",
}
"""The full form of each name; parameters left out have the default values of `CHAINS`."""

_DIGITS = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

_LARGEST = 1000.0
"""Maximum absolute value of a parameter; beyond it, rounding errors in the phases blur the unitary."""


def evolution(name: str, num_qubits: int, parameters: Mapping[str, float]) -> Matrix:
    """Return exp(-i H t) for an open chain, complex128 [D, D] with D = 2**num_qubits.

    - `ising`: H = -J sum Z_k Z_(k+1) - h sum X_k
    - `xxz`: H = -J sum (X_k X_(k+1) + Y_k Y_(k+1) + delta Z_k Z_(k+1)) - h sum X_k
    - `heisenberg`: H = -sum (Jx X_k X_(k+1) + Jy Y_k Y_(k+1) + Jz Z_k Z_(k+1)) - h sum Z_k

    Args:
        name: One of `CHAINS`.
        num_qubits: Length of the chain.
        parameters: All parameters of the chain; t is in inverse units of J and h, with hbar = 1.

    Reference:
        genQC 0.2.5, `IsingHamiltonian` and `XXZHamiltonian` with periodic_boundary=False.
    """
    return evolved(hamiltonian(name, num_qubits, parameters), parameters["t"])


def evolved(total: Matrix, time: float) -> Matrix:
    """Return exp(-i H t) for a Hamiltonian H, complex128 [D, D]."""
    energies, vectors = np.linalg.eigh(total)
    matrix: Matrix = (vectors * np.exp(-1j * time * energies)) @ vectors.conj().T
    return matrix


def hamiltonian(name: str, num_qubits: int, parameters: Mapping[str, float]) -> Matrix:
    """Return the Hamiltonian H, complex128 [D, D]; see `evolution`."""
    coupling = parameters.get("J", 1.0)
    bonds = {
        "ising": {"Z": coupling},
        "xxz": {"X": coupling, "Y": coupling, "Z": coupling * parameters.get("delta", 1.0)},
        "heisenberg": {axis: parameters.get(f"J{axis.lower()}", 1.0) for axis in "XYZ"},
    }[name]
    field = "Z" if name == "heisenberg" else "X"
    total = np.zeros((2**num_qubits, 2**num_qubits), dtype=np.complex128)
    for qubit in range(num_qubits):
        total -= parameters["h"] * _on(num_qubits, {qubit: field})
        if qubit + 1 < num_qubits:
            for axis, weight in bonds.items():
                total -= weight * _on(num_qubits, {qubit: axis, qubit + 1: axis})
    return total


PAULI_FORM = "0.5*XXI-0.3*IZZ (Pauli operators, the last letter for qubit 0)"
"""The form of a user's own Hamiltonian."""

_TERM = re.compile(rf"([+-]*)(?:({_DIGITS})\*)?([IXYZ]+)")


@dataclass(frozen=True)
class PauliSum:
    """A Hamiltonian: a sum of products of Pauli operators.

    Attributes:
        terms: The weight of each product, and its letters, the last one for qubit 0.
    """

    terms: tuple[tuple[float, str], ...]

    @classmethod
    def parse(cls, text: str) -> PauliSum:
        """Read a sum such as "0.5*XXI-0.3*IZZ".

        Raises:
            ConfigError: It is malformed, or its operators act on different numbers of qubits.
        """
        total = text.replace(" ", "")
        found = [*_TERM.finditer(total)]
        if not found or "".join(term[0] for term in found) != total or not all(term[1] for term in found[1:]):
            raise ConfigError(f"cannot read the Hamiltonian {quoted(text)}: expected e.g. {PAULI_FORM}")
        terms = [((-1) ** term[1].count("-") * float(term[2] or 1), term[3]) for term in found]
        widths = sorted({len(letters) for _, letters in terms})
        if len(widths) > 1:
            raise ConfigError(
                f"the Hamiltonian {quoted(text)} has operators on {' and '.join(map(str, widths))} qubits: give each "
                "one letter for every qubit, I where it does nothing"
            )
        if max(abs(weight) for weight, _ in terms) > _LARGEST:
            raise ConfigError(f"the Hamiltonian {quoted(text)} has a number beyond {_LARGEST:g}: give smaller ones")
        return cls(tuple(terms))

    @property
    def num_qubits(self) -> int:
        """Number of qubits it acts on."""
        return len(self.terms[0][1])

    def matrix(self) -> Matrix:
        """Return H, complex128 [D, D]."""
        total = np.zeros((2**self.num_qubits, 2**self.num_qubits), dtype=np.complex128)
        for weight, letters in self.terms:
            axes = {qubit: axis for qubit, axis in enumerate(reversed(letters)) if axis != "I"}
            total += weight * _on(self.num_qubits, axes)
        return total


def ground_state(hamiltonian: Matrix) -> Matrix:
    """Return the eigenvector of the lowest energy, complex128 [D]; if it is degenerate, one of them."""
    vectors: Matrix = np.linalg.eigh(hamiltonian)[1]
    return vectors[:, 0]


def read_time(text: str, word: str) -> float:
    """Return the time of an evolution, written t0.25.

    Raises:
        ConfigError: It is malformed or too large.
    """
    given = re.fullmatch(rf"t=?([-+]?{_DIGITS})", word, re.ASCII)
    if given is None or abs(float(given[1])) > _LARGEST:
        raise ConfigError(f"cannot read the target {quoted(text)}: expected e.g. pauli:0.5*XXI-0.3*IZZ:t0.25")
    return float(given[1])


def _on(num_qubits: int, axes: Mapping[int, str]) -> Matrix:
    """Return the product of Pauli matrices on some qubits; qubit 0 is the lowest bit of the index."""
    product: Matrix = np.eye(1, dtype=np.complex128)
    for qubit in reversed(range(num_qubits)):
        product = np.kron(product, _PAULI[axes[qubit]] if qubit in axes else np.eye(2)).astype(np.complex128)
    return product


def read_parameters(text: str, name: str, words: list[str]) -> tuple[int | None, dict[str, float]]:
    """Parse what follows the name of a chain: the number of qubits, then a name and a number for each parameter.

    Args:
        text: The whole name, for messages.
        name: One of `CHAINS`.
        words: The rest of the name, split at colons. `h=0.2` means `h0.2`, and a comma is read like a colon.

    Returns:
        The number of qubits (None if not given) and all parameters.

    Raises:
        ConfigError: A word is malformed, repeats a parameter, names an unknown one, or gives a value beyond
            -1000 to 1000; the message shows the expected form or range.
    """
    words = [word for part in words for word in part.split(",")]
    num_qubits = None
    if words and re.fullmatch(r"[1-9]\d{0,3}", words[0], re.ASCII):
        num_qubits = int(words.pop(0))
    given: dict[str, float] = {}
    for word in words:
        found = re.fullmatch(rf"([A-Za-z]+?)=?([-+]?{_DIGITS})", word, re.ASCII)
        if found is None or found[1] in given:
            raise ConfigError(f"cannot read the target {text!r}: expected {name} or e.g. {FORMS[name]}")
        if found[1] not in CHAINS[name]:
            raise ConfigError(
                f"{unknown_name(f'parameter of {name}', found[1], CHAINS[name])}: expected e.g. {FORMS[name]}"
            )
        given[found[1]] = float(found[2])
        if abs(given[found[1]]) > _LARGEST:
            raise ConfigError(f"the target {text!r} has {word}: give a number from -{_LARGEST:g} to {_LARGEST:g}")
    return num_qubits, CHAINS[name] | given
