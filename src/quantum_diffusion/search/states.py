"""States to prepare, from whatever users have: a vector, a circuit, a file, or the name of a well-known one."""

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
from quantum_diffusion.circuits.matrices import qubits_of_state
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, unknown_name
from quantum_diffusion.search.files import is_path, read_target_file
from quantum_diffusion.search.unitaries import check_size, random_circuit

NAMES = ("ghz", "w", "dicke", "basis", "random")
"""Of well-known states; what may follow one is in `target_state`."""

_FORMS = {
    "ghz": "ghz:3 (qubits)",
    "w": "w:3 (qubits)",
    "dicke": "dicke:1 (ones), dicke:4:2 (qubits, ones)",
    "basis": "basis:101 (a bit a qubit, the last one first)",
    "random": "random:3:8 (qubits, gates)",
}


def target_state(
    target: object, num_qubits: int, *, gates: Sequence[str] = ("h", "cx"), num_gates: int = 8, seed: int = 0
) -> Matrix:
    """Return the state that something stands for.

    Args:
        target: A vector (complex [d], or real and imaginary parts [2, d, 1] as in data sets), a `Circuit` or a Qiskit
            `QuantumCircuit` that makes it of |0...0>; the path of a file with a vector (`.npy`, or `.npz` of one
            array) or with an OpenQASM program (`.qasm`); or one of

            - `ghz:Q`: (|0...0> + |1...1>) / sqrt(2),
            - `w:Q`: all basis states with a single 1, equally,
            - `dicke:K` or `dicke:Q:K`: all basis states with K ones, equally,
            - `basis:BITS`: a basis state, written as Qiskit does, qubit 0 last,
            - `random:Q:G`: what G random gates make of |0...0>.

            What is not given (`ghz`) is taken from the other arguments.
        num_qubits: Most qubits of the target; qubits of a name that gives none.
        gates: Gates of `random`; those wider than the target are left out.
        num_gates: Gates of `random` where the name gives none.
        seed: Seed of `random`.

    Returns:
        complex128 [d] with d = 2**q; qubit 0 is the lowest bit of the basis index.

    Raises:
        ConfigError: The name or file is unknown, unreadable, or no state, or it has too many qubits.
        GateSetError: The circuit makes no pure state.

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
            raise type(problem)(f"{str(target)!r}: {problem}") from problem
    if isinstance(target, np.ndarray):
        return _checked(target, num_qubits)
    native = QiskitBackend().to_native(target) if isinstance(target, Circuit) else target
    size = getattr(native, "num_qubits", None)
    if not isinstance(size, int):
        raise ConfigError(f"the target is a {type(target).__name__}: give a numpy array, a circuit, a path or a name")
    check_size(size, num_qubits)  # before its amplitudes are made
    return QiskitBackend().native_state(native)


def _checked(array: NDArray[Any], num_qubits: int) -> Matrix:
    if array.ndim == 3 and array.shape[::2] == (2, 1) and array.dtype.kind in "iuf":
        array = array[0] + 1j * array[1]
    check_size(qubits_of_state(array), num_qubits)
    return np.asarray(array, dtype=np.complex128).reshape(-1)


def _named_state(text: str, num_qubits: int, gates: Sequence[str], num_gates: int, seed: int) -> Matrix:
    name, *words = text.split(":")
    if name not in NAMES:
        raise ConfigError(f"{unknown_name('target', text, NAMES)}; or the path of a .npy or .qasm file")
    if name == "basis":
        if len(words) > 1 or not re.fullmatch("[01]{1,20}", "".join(words), re.ASCII):
            raise _unreadable(text, name)
        return _uniform([int(words[0], 2)], _sized(len(words[0]), num_qubits))
    if len(words) > (2 if name in ("dicke", "random") else 1) or (name == "dicke" and not words):
        raise _unreadable(text, name)
    if not all(re.fullmatch(r"[1-9]\d{0,3}", word, re.ASCII) for word in words):
        raise _unreadable(text, name)
    numbers = [int(word) for word in words]
    if name == "dicke":
        width, ones = _sized(numbers[0] if len(numbers) == 2 else num_qubits, num_qubits), numbers[-1]
        if ones > width:
            raise ConfigError(f"the target {text!r} has {ones} ones on {width} qubits: give {width} or fewer")
        return _uniform(
            [sum(1 << qubit for qubit in chosen) for chosen in itertools.combinations(range(width), ones)], width
        )
    width, length = [*numbers, *(num_qubits, num_gates)[len(numbers) :]]
    width = _sized(width, num_qubits)
    if name == "random":
        return target_state(random_circuit(width, length, gates, seed), width)
    return _uniform([0, 2**width - 1] if name == "ghz" else [1 << qubit for qubit in range(width)], width)


def _unreadable(text: str, name: str) -> ConfigError:
    return ConfigError(f"cannot read the target {text!r}: expected e.g. {_FORMS[name]}")


def _sized(given: int, most: int) -> int:
    check_size(given, most)
    return given


def _uniform(basis: Sequence[int], num_qubits: int) -> Matrix:
    """Return the equal superposition of some basis states, complex128 [D]."""
    state = np.zeros(2**num_qubits, dtype=np.complex128)
    state[list(basis)] = len(basis) ** -0.5
    return state
