"""Reads the unitary to compile: from a matrix, a circuit, a file, or the name of a well-known unitary.

The command `compile` uses it; `search.states` is the same for states.
"""

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
from quantum_diffusion.circuits.matrices import check_unmasked, from_two_channels, qubits_of_unitary
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.errors import (
    ConfigError,
    QuantumDiffusionError,
    TooManyQubitsError,
    counted,
    quoted,
    quoted_path,
    unknown_name,
)
from quantum_diffusion.search.files import is_path, read_target_file
from quantum_diffusion.search.hamiltonians import CHAINS, PauliSum, evolution, evolved, read_parameters, read_time
from quantum_diffusion.seeding import numpy_generator

OF_THREE_QUBITS = {"toffoli": 3, "ccz": 3}
"""Names that stand for a three-qubit gate unless a number of qubits is given."""


def target_unitary(
    target: object, num_qubits: int, *, gates: Sequence[str] = ("h", "cx"), num_gates: int = 8, seed: int = 0
) -> Matrix:
    """Return a target unitary as a matrix.

    Args:
        target: A matrix (complex [d, d], or real and imaginary parts [2, d, d] as in data sets), a `Circuit`, a Qiskit
            `QuantumCircuit`; the path of a file with a matrix (`.npy`, or `.npz` with one array) or with an OpenQASM
            program (`.qasm`; version 2, or 3 with the extra `qasm3`); or one of

            - `qft:Q`: the quantum Fourier transform on Q qubits,
            - `toffoli:Q`: x on the last qubit if all others are 1; three qubits unless Q is given,
            - `ghz:Q`: h on qubit 0, then cx from each qubit to the next, which prepares a GHZ state,
            - `ccz:Q`: a factor of -1 if all qubits are 1; three qubits unless Q is given,
            - `fredkin`: swap of qubits 1 and 2 if qubit 0 is 1,
            - `peres`: ccx from qubits 0 and 1 to 2, then cx from 0 to 1,
            - `adder`: the sum of qubits 0 to 2 replaces qubit 2, their carry is added to qubit 3, and the sum of qubits
              0 and 1 replaces qubit 1,
            - `random:Q:G`: G random gates on Q qubits,
            - `ising:Q:J1:h1:t1`, `xxz:Q:J1:delta0.5:h0:t1`, `heisenberg:Q:Jx1:Jy1:Jz1:h0:t1`: exp(-i H t) of an open
              spin chain, whose Hamiltonians are given in `evolution`,
            - `pauli:0.5*XXI-0.3*IZZ:t0.25`: exp(-i H t) of a sum H of Pauli operators, the last letter for qubit 0.

            Hardly any evolution is exactly a circuit of gates without angles, so give a tolerance.

            Missing numbers (`qft`) are taken from the other arguments.
        num_qubits: Maximum number of qubits of the target, and the number for a name without one.
        gates: Gates of `random`; those wider than the target are left out.
        num_gates: Number of gates of `random` if the name does not give it.
        seed: Seed of `random`.

    Returns:
        complex128 [d, d] with d = 2**q; qubit 0 is the lowest bit of the basis index.

    Raises:
        ConfigError: The name is unknown, the file unreadable, the matrix not unitary, or it has too many qubits.
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
            raise type(problem)(f"{quoted_path(target)}: {problem}") from problem
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
        check_size(size, num_qubits)  # before computing its matrix
        matrix = backend.native_unitary(target)
    check_unmasked(matrix)
    has_channels = matrix.ndim == 3 and len(matrix) == 2 and matrix.dtype.kind in "iuf"
    if has_channels:
        matrix = from_two_channels(matrix)
    try:
        size = qubits_of_unitary(matrix)
    except ConfigError as problem:
        if not has_channels:
            raise
        raise ConfigError(
            f"{problem} (a real array [2, D, D] holds the real and imaginary parts of one matrix)"
        ) from None
    check_size(size, num_qubits)
    return np.asarray(matrix, dtype=np.complex128)


def check_size(given: int, most: int) -> None:
    """Raise `TooManyQubitsError` if a target has more qubits than a model."""
    if given > most:
        raise TooManyQubitsError(
            f"the target has {given} qubits, but the model writes circuits of at most {most}: give a smaller target, "
            "or train on more qubits"
        )


def _named_unitary(text: str, num_qubits: int, gates: Sequence[str], num_gates: int, seed: int) -> Matrix:
    name, words = split_name(text, NAMES)
    if name in CHAINS:
        given, parameters = read_parameters(text, name, words)
        check_size(given or num_qubits, num_qubits)
        return evolution(name, given or num_qubits, parameters)
    if name == "pauli":
        time = read_time(text, words[1] if len(words) == 2 else "")
        hamiltonian = PauliSum.parse(words[0])
        check_size(hamiltonian.num_qubits, num_qubits)
        return evolved(hamiltonian.matrix(), time)
    example = "random:3:8 (qubits, gates)" if name == "random" else f"{name}:3 (qubits)"
    form = name if name in _CIRCUITS else f"{name}, or e.g. {example}"
    if len(words) > (2 if name == "random" else 0 if name in _CIRCUITS else 1):
        raise unreadable(text, form)
    numbers = read_numbers(text, words, form, num_qubits)
    if name in _CIRCUITS:
        check_size(_CIRCUITS[name].num_qubits, num_qubits)
        return QiskitBackend().unitary(_CIRCUITS[name])
    default = OF_THREE_QUBITS.get(name, num_qubits)
    width, length = [*numbers, *(default, num_gates)[len(numbers) :]]
    check_size(width, num_qubits)
    if name == "random":
        check_length(length)
        return QiskitBackend().unitary(random_circuit(width, length, gates, seed))
    return _FORMULAS[name](width)


def split_name(text: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """Split the name of a well-known target from what follows it, e.g. "random:3:8" => "random", ["3", "8"].

    Raises:
        ConfigError: The text is empty, or the name is unknown.
    """
    if not text.strip():
        raise ConfigError(f"the target is empty: give a name ({', '.join(sorted(names))}) or the path of a file")
    name, *words = text.split(":")
    if name not in names:
        raise ConfigError(f"{unknown_name('target', text, names)}; or give the path of a .npy or .qasm file")
    return name, words


def read_numbers(text: str, words: Sequence[str], form: str, most_qubits: int) -> list[int]:
    """Return the numbers that follow the name of a well-known target.

    Args:
        text: The whole target, for the message.
        words: The numbers as texts.
        form: How the target is written, for the message.
        most_qubits: Maximum number of qubits, for the message.

    Raises:
        ConfigError: A text is not a number, or out of range; a `TooManyQubitsError` if it is too large.
    """
    for word in words:
        if not re.fullmatch(r"0|[1-9]\d*", word, re.ASCII):
            raise unreadable(text, form)
        if word == "0" or len(word) > _MOST_DIGITS:
            error = ConfigError if word == "0" else TooManyQubitsError  # a larger model says how many it has
            raise error(
                f"the target {quoted(text)} is out of range: give numbers of at least 1, and at most {most_qubits} "
                "qubits"
            )
    return [int(word) for word in words]


def check_length(num_gates: int) -> None:
    """Raise `ConfigError` if a random target has too many gates."""
    if num_gates > _MOST_RANDOM_GATES:
        raise ConfigError(f"the target has {num_gates:,} random gates: give 1 to {_MOST_RANDOM_GATES:,}")


def unreadable(text: str, form: str) -> ConfigError:
    """Return the error for a well-known target in a wrong form."""
    return ConfigError(f"cannot read the target {quoted(text)}: expected {form}")


_MOST_DIGITS = 18
"""Maximum digits of a number in a target: longer ones are too large to print."""

_MOST_RANDOM_GATES = 9999


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
    """Return controlled x gates, given the qubits of each, target last."""
    names = {2: "cx", 3: "ccx"}
    return tuple(Instruction(names[len(qubits)], qubits[:-1], qubits[-1:]) for qubits in steps)


_FORMULAS: dict[str, Callable[[int], Matrix]] = {"qft": _qft, "toffoli": _toffoli, "ccz": _ccz, "ghz": _ghz}
_CIRCUITS = {
    "fredkin": Circuit(3, (Instruction("cswap", (0,), (1, 2)),)),
    "peres": Circuit(3, _controlled((0, 1, 2), (0, 1))),
    "adder": Circuit(4, _controlled((0, 1, 3), (0, 1), (1, 2, 3), (1, 2))),
}
"""Targets with a fixed number of qubits, each as a circuit."""

NAMES = (*_FORMULAS, *_CIRCUITS, "random", *CHAINS, "pauli")
"""Names of well-known unitaries; see `target_unitary` for what may follow them."""


def random_circuit(num_qubits: int, num_gates: int, gates: Sequence[str], seed: int) -> Circuit:
    """Draw a random circuit from the gates that fit `num_qubits`, with random angles.

    Raises:
        ConfigError: None of the gates fits.
    """
    fitting = [gate.name for gate in GatePool(gates) if gate.num_qubits <= num_qubits]
    if not fitting:
        raise ConfigError(
            f"none of the gates {list(gates)} fits a random circuit of {counted(num_qubits, 'qubit')}: give more "
            "qubits or other gates"
        )
    table = instruction_table(GatePool(fitting), num_qubits)
    rng = numpy_generator(seed, "target")
    ids = random_ids(rng, table, 1, num_gates, num_gates)
    if not table.pool.num_angles:
        return circuits_from_ids(ids, table)[0]
    return circuits_from_ids(ids, table, angles=table.random_angles(ids, rng))[0]
