"""Time evolution of spin chains, exp(-i H t), as target unitaries named after their Hamiltonian.

`search.unitaries` uses these names and parameters. Signs and axes are those of genQC's benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.errors import ConfigError, unknown_name

_PAULI: dict[str, Matrix] = {
    "X": np.array([[0, 1], [1, 0]], dtype=np.complex128),
    "Y": np.array([[0, -1j], [1j, 0]], dtype=np.complex128),
    "Z": np.array([[1, 0], [0, -1]], dtype=np.complex128),
}

CHAINS: dict[str, dict[str, float]] = {
    "ising": {"J": 1.0, "h": 1.0, "t": 1.0},
    "xxz": {"J": 1.0, "delta": 0.5, "h": 0.0, "t": 1.0},
}
"""Parameters of each chain with their default values; t is the time."""

FORMS = {
    "ising": "ising:3:J0.4:h0.2:t0.25 (qubits, coupling, field, time)",
    "xxz": "xxz:3:J0.4:delta1.5:h0.2:t0.25 (qubits, coupling, anisotropy, field, time)",
}
"""The full form of each name; parameters left out have the default values of `CHAINS`."""

_LARGEST = 1000.0
"""Maximum absolute value of a parameter; beyond it, rounding errors in the phases blur the unitary."""


def evolution(name: str, num_qubits: int, parameters: Mapping[str, float]) -> Matrix:
    """Return exp(-i H t) for an open chain, complex128 [D, D] with D = 2**num_qubits.

    - `ising`: H = -J sum Z_k Z_(k+1) - h sum X_k
    - `xxz`: H = -J sum (X_k X_(k+1) + Y_k Y_(k+1) + delta Z_k Z_(k+1)) - h sum X_k

    Args:
        name: One of `CHAINS`.
        num_qubits: Length of the chain.
        parameters: All parameters of the chain; t is in inverse units of J and h, with hbar = 1.

    Reference:
        genQC 0.2.5, `IsingHamiltonian` and `XXZHamiltonian` with periodic_boundary=False.
    """
    energies, vectors = np.linalg.eigh(hamiltonian(name, num_qubits, parameters))
    matrix: Matrix = (vectors * np.exp(-1j * parameters["t"] * energies)) @ vectors.conj().T
    return matrix


def hamiltonian(name: str, num_qubits: int, parameters: Mapping[str, float]) -> Matrix:
    """Return the Hamiltonian H, complex128 [D, D]; see `evolution`."""
    bonds = {"Z": 1.0} if name == "ising" else {"X": 1.0, "Y": 1.0, "Z": parameters["delta"]}
    total = np.zeros((2**num_qubits, 2**num_qubits), dtype=np.complex128)
    for qubit in range(num_qubits):
        total -= parameters["h"] * _on(num_qubits, {qubit: "X"})
        if qubit + 1 < num_qubits:
            for axis, weight in bonds.items():
                total -= parameters["J"] * weight * _on(num_qubits, {qubit: axis, qubit + 1: axis})
    return total


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
        found = re.fullmatch(r"([A-Za-z]+?)=?([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", word, re.ASCII)
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
