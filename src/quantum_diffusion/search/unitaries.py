"""Unitaries to compile, from whatever users have: a matrix, a circuit, a file, or the name of a well-known one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_count
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import from_two_channels, qubits_of_unitary
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, TooManyQubitsError, unknown_name
from quantum_diffusion.search.files import is_path, read_target_file
from quantum_diffusion.search.hamiltonians import CHAINS, evolution, read_parameters
from quantum_diffusion.seeding import numpy_generator

OF_THREE_QUBITS = {"toffoli": 3, "ccz": 3}
"""Names that stand for a gate of three qubits, unless a number of qubits is given."""


def target_unitary(
    target: object, num_qubits: int, *, gates: Sequence[str] = ("h", "cx"), num_gates: int = 8, seed: int = 0
) -> Matrix:
    """Return the unitary that something stands for.

    Args:
        target: A matrix (complex, or real and imaginary parts [2, d, d] as in data sets), a `Circuit`, a Qiskit
            `QuantumCircuit`; the path of a file with a matrix (`.npy`, or `.npz` of one array) or with an OpenQASM
            program (`.qasm`; version 2, or 3 with the extra `qasm3`); or one of

            - `qft:Q`: the quantum Fourier transform of Q qubits,
            - `toffoli:Q`: x on the last qubit where all others are 1; of three qubits unless Q is given,
            - `ghz:Q`: h on qubit 0, then cx from each qubit to the next, which prepares a GHZ state,
            - `ccz:Q`: -1 where all qubits are 1; of three qubits unless Q is given,
            - `fredkin`: qubits 1 and 2 swapped where qubit 0 is 1,
            - `peres`: ccx from qubits 0 and 1 to 2, then cx from 0 to 1,
            - `adder`: of the bits of qubits 0 to 2, their sum in qubit 2 and their carry added to qubit 3; qubit 1 gets
              the sum of the first two,
            - `random:Q:G`: G random gates,
            - `ising:Q:J1:h1:t1`, `xxz:Q:J1:delta0.5:h0:t1`: exp(-i H t) of an open chain of spins, whose Hamiltonians
              are in `evolution`. Hardly any is exactly a circuit of discrete gates, so give a tolerance.

            What is not given (`qft`) is taken from the other arguments.
        num_qubits: Most qubits of the target; qubits of a name that gives none.
        gates: Gates of `random`; those wider than the target are left out.
        num_gates: Gates of `random` where the name gives none.
        seed: Seed of `random`.

    Returns:
        complex128 [d, d] with d = 2**q; qubit 0 is the lowest bit of the basis index.

    Raises:
        ConfigError: The name or file is unknown, unreadable, or no unitary, or it has too many qubits.
        GateSetError: The circuit has no unitary.

    Example:
        >>> target_unitary("toffoli:2", 3).real.argmax(axis=0)  # control 0, target 1
        array([0, 3, 2, 1])
    """
    num_qubits = check_count(num_qubits, "num_qubits", 1)
    if isinstance(target, str) and not is_path(target, NAMES):
        return _named_unitary(target, num_qubits, gates, num_gates, seed)
    if isinstance(target, str | Path):
        try:
            return target_unitary(read_target_file(Path(target)), num_qubits)
        except QuantumDiffusionError as problem:
            raise type(problem)(f"{str(target)!r}: {problem}") from problem
    backend = QiskitBackend()
    if isinstance(target, Circuit):
        target = backend.to_native(target)
    if isinstance(target, np.ndarray):
        matrix: NDArray[Any] = target
    else:
        size = getattr(target, "num_qubits", None)
        if not isinstance(size, int):
            raise ConfigError(
                f"the target is a {type(target).__name__}: give a numpy array, a circuit, a path or a name"
            )
        check_size(size, num_qubits)  # before its matrix is made
        matrix = backend.native_unitary(target)
    if matrix.ndim == 3 and len(matrix) == 2 and matrix.dtype.kind in "iuf":
        matrix = from_two_channels(matrix)
    check_size(qubits_of_unitary(matrix), num_qubits)
    return np.asarray(matrix, dtype=np.complex128)


def check_size(given: int, most: int) -> None:
    """Refuse a target of more qubits than a model has.

    Raises:
        TooManyQubitsError: It has.
    """
    if given > most:
        raise TooManyQubitsError(
            f"the target has {given} qubits, but the model writes circuits of at most {most}: give a smaller target, "
            "or train on more qubits"
        )


def _named_unitary(text: str, num_qubits: int, gates: Sequence[str], num_gates: int, seed: int) -> Matrix:
    name, *numbers = text.split(":")
    if name not in NAMES:
        raise ConfigError(f"{unknown_name('target', text, NAMES)}; or the path of a .npy or .qasm file")
    if name in CHAINS:
        given, parameters = read_parameters(text, name, numbers)
        check_size(given or num_qubits, num_qubits)
        return evolution(name, given or num_qubits, parameters)
    most_numbers = 2 if name == "random" else 0 if name in _CIRCUITS else 1
    if len(numbers) > most_numbers or not all(re.fullmatch(r"[1-9]\d{0,3}", number, re.ASCII) for number in numbers):
        forms = [name, "e.g. random:3:8 (qubits, gates)", f"e.g. {name}:3 (qubits)"]
        expected = forms[0] if name in _CIRCUITS else f"{name} or {forms[1 if name == 'random' else 2]}"
        raise ConfigError(f"cannot read the target {text!r}: expected {expected}")
    if name in _CIRCUITS:
        check_size(_CIRCUITS[name].num_qubits, num_qubits)
        return QiskitBackend().unitary(_CIRCUITS[name])
    default = OF_THREE_QUBITS.get(name, num_qubits)
    width, length = [*map(int, numbers), *(default, num_gates)[len(numbers) :]]
    check_size(width, num_qubits)
    if name == "random":
        return QiskitBackend().unitary(random_circuit(width, length, gates, seed))
    return _FORMULAS[name](width)


def _qft(num_qubits: int) -> Matrix:
    index = np.arange(2**num_qubits)
    return np.asarray(np.exp(2j * np.pi * np.outer(index, index) / len(index)) / np.sqrt(len(index)))


def _toffoli(num_qubits: int) -> Matrix:
    matrix = np.eye(2**num_qubits, dtype=np.complex128)
    ones = [2 ** (num_qubits - 1) - 1, 2**num_qubits - 1]  # all controls 1, the last qubit 0 or 1
    matrix[:, ones] = matrix[:, ones[::-1]]
    return matrix


def _ccz(num_qubits: int) -> Matrix:
    return np.diag(np.where(np.arange(2**num_qubits) == 2**num_qubits - 1, -1, 1)).astype(np.complex128)


def _ghz(num_qubits: int) -> Matrix:
    return QiskitBackend().unitary(ghz_circuit(num_qubits))


def ghz_circuit(num_qubits: int) -> Circuit:
    """Return h on qubit 0, then cx from each qubit to the next."""
    chain = (Instruction("cx", (qubit,), (qubit + 1,)) for qubit in range(num_qubits - 1))
    return Circuit(num_qubits, (Instruction("h", (), (0,)), *chain))


def _controlled(*steps: tuple[int, ...]) -> tuple[Instruction, ...]:
    """Return x gates by their qubits, the target last."""
    names = {2: "cx", 3: "ccx"}
    return tuple(Instruction(names[len(qubits)], qubits[:-1], qubits[-1:]) for qubits in steps)


_FORMULAS: dict[str, Callable[[int], Matrix]] = {"qft": _qft, "toffoli": _toffoli, "ccz": _ccz, "ghz": _ghz}
_CIRCUITS = {
    "fredkin": Circuit(3, (Instruction("cswap", (0,), (1, 2)),)),
    "peres": Circuit(3, _controlled((0, 1, 2), (0, 1))),
    "adder": Circuit(4, _controlled((0, 1, 3), (0, 1), (1, 2, 3), (1, 2))),
}
"""Targets of a fixed number of qubits, by a circuit that is one of them."""

NAMES = (*_FORMULAS, *_CIRCUITS, "random", *CHAINS)
"""Of well-known unitaries; what may follow one is in `target_unitary`."""


def random_circuit(num_qubits: int, num_gates: int, gates: Sequence[str], seed: int) -> Circuit:
    """Draw a circuit of so many gates, those that are wider left out.

    Raises:
        ConfigError: None of the gates fits.
    """
    fitting = [gate.name for gate in GatePool(gates) if gate.num_qubits <= num_qubits]
    if not fitting:
        raise ConfigError(f"none of the gates {list(gates)} fits a random circuit of {num_qubits} qubits")
    table = instruction_table(GatePool(fitting), num_qubits)
    ids = random_ids(numpy_generator(seed, "target"), table, 1, num_gates, num_gates)
    return circuits_from_ids(ids, table)[0]
