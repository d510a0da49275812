"""Reads the state to prepare: from a vector, a circuit, a file, or the name of a well-known state.

The command `prepare` uses it; `search.unitaries` is the same for unitaries.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_count
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.matrices import check_unmasked, qubits_of_state
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, quoted, quoted_path
from quantum_diffusion.search.files import is_path, read_target_file
from quantum_diffusion.search.hamiltonians import PauliSum, ground_state
from quantum_diffusion.search.unitaries import (
    check_length,
    check_size,
    random_circuit,
    read_numbers,
    split_name,
    unreadable,
)

NAMES = ("ghz", "w", "dicke", "basis", "ground", "random")
"""Names of well-known states; see `target_state` for what may follow them."""

_FORMS = {
    "ghz": "ghz:3 (qubits)",
    "w": "w:3 (qubits)",
    "dicke": "dicke:1 (ones), dicke:4:2 (qubits, ones)",
    "basis": "basis:101 (one bit per qubit, the last qubit first; at most 20)",
    "random": "random:3:8 (qubits, gates)",
}


def target_state(
    target: object, num_qubits: int, *, gates: Sequence[str] = ("h", "cx"), num_gates: int = 8, seed: int = 0
) -> Matrix:
    """Return a target state as a vector.

    Args:
        target: A vector (complex [d], or real and imaginary parts [2, d, 1] as in data sets), a `Circuit` or a Qiskit
            `QuantumCircuit` that prepares the state from |0...0>; the path of a file with a vector (`.npy`, or `.npz`
            with one array) or with an OpenQASM program (`.qasm`); or one of

            - `ghz:Q`: (|0...0> + |1...1>) / sqrt(2),
            - `w:Q`: the equal superposition of all basis states with a single 1,
            - `dicke:K` or `dicke:Q:K`: the equal superposition of all basis states with K ones,
            - `basis:BITS`: a basis state, written as in Qiskit, qubit 0 last,
            - `ground:0.5*XXI-0.3*IZZ`: a ground state of a sum of Pauli operators, the last letter for qubit 0,
            - `random:Q:G`: the state prepared by G random gates.

            Missing numbers (`ghz`) are taken from the other arguments.
        num_qubits: Maximum number of qubits of the target, and the number for a name without one.
        gates: Gates of `random`; those wider than the target are left out.
        num_gates: Number of gates of `random` if the name does not give it.
        seed: Seed of `random`.

    Returns:
        complex128 [d] with d = 2**q; qubit 0 is the lowest bit of the basis index.

    Raises:
        ConfigError: The name is unknown, the file unreadable, the vector not a state, or it has too many qubits.
        GateSetError: The circuit does not prepare a pure state.

    Example:
        >>> target_state("basis:10", 3).real.tolist()
        [0.0, 0.0, 1.0, 0.0]
    """
    num_qubits = check_count(num_qubits, "num_qubits", 1)
    if isinstance(target, str) and not is_path(target, NAMES):
        return _named_state(target, num_qubits, gates, num_gates, seed)
    if isinstance(target, str | Path):
        try:
            return target_state(read_target_file(Path(target)), num_qubits)
        except QuantumDiffusionError as problem:
            raise type(problem)(f"{quoted_path(target)}: {problem}") from problem
    if isinstance(target, np.ndarray):
        return _checked(target, num_qubits)
    native = QiskitBackend().to_native(target) if isinstance(target, Circuit) else target
    size = getattr(native, "num_qubits", None)
    if not isinstance(size, int):
        raise ConfigError(f"the target is a {type(target).__name__}: give a numpy array, a circuit, a path or a name")
    check_size(size, num_qubits)  # before computing its amplitudes
    return QiskitBackend().native_state(native)


def _checked(array: NDArray[Any], num_qubits: int) -> Matrix:
    check_unmasked(array)
    if array.ndim == 3 and array.shape[::2] == (2, 1) and array.dtype.kind in "iuf":
        array = array[0] + 1j * array[1]
    check_size(qubits_of_state(array), num_qubits)
    return np.asarray(array, dtype=np.complex128).reshape(-1)


def _named_state(text: str, num_qubits: int, gates: Sequence[str], num_gates: int, seed: int) -> Matrix:
    name, words = split_name(text, NAMES)
    if name == "basis":
        if len(words) > 1 or not re.fullmatch("[01]{1,20}", "".join(words), re.ASCII):
            raise unreadable(text, f"e.g. {_FORMS[name]}")
        return _uniform([int(words[0], 2)], _sized(len(words[0]), num_qubits))
    if name == "ground":
        hamiltonian = PauliSum.parse(":".join(words))
        _sized(hamiltonian.num_qubits, num_qubits)
        return ground_state(hamiltonian.matrix())
    if len(words) > (2 if name in ("dicke", "random") else 1) or (name == "dicke" and not words):
        raise unreadable(text, f"e.g. {_FORMS[name]}")
    numbers = read_numbers(text, words, f"e.g. {_FORMS[name]}", num_qubits)
    if name == "dicke":
        width, ones = _sized(numbers[0] if len(numbers) == 2 else num_qubits, num_qubits), numbers[-1]
        if ones > width:
            raise ConfigError(f"the target {quoted(text)} has {ones} ones on {width} qubits: give 1 to {width}")
        return _uniform(
            [sum(1 << qubit for qubit in chosen) for chosen in itertools.combinations(range(width), ones)], width
        )
    width, length = [*numbers, *(num_qubits, num_gates)[len(numbers) :]]
    width = _sized(width, num_qubits)
    if name == "random":
        check_length(length)
        return target_state(random_circuit(width, length, gates, seed), width)
    return _uniform([0, 2**width - 1] if name == "ghz" else [1 << qubit for qubit in range(width)], width)


def _sized(given: int, most: int) -> int:
    check_size(given, most)
    return given


def _uniform(basis: Sequence[int], num_qubits: int) -> Matrix:
    """Return the equal superposition of some basis states, complex128 [D]."""
    state = np.zeros(2**num_qubits, dtype=np.complex128)
    state[list(basis)] = len(basis) ** -0.5
    return state
