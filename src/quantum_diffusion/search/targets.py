"""Unitaries to compile, from whatever users have: a matrix, a circuit, a file, or the name of a well-known one.

Files are data of others: they are bounded in size, and none of them can run code or name further files.
"""

from __future__ import annotations

import codecs
import io
import os
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
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, first_line, unknown_name
from quantum_diffusion.seeding import numpy_generator

_MOST_BYTES = 4 * 2**20
"""Size of a file that is read; a complex128 matrix of 8 qubits takes a quarter of it."""

TOFFOLI_QUBITS = 3


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
            - `random:Q:G`: G random gates.

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
    if isinstance(target, str) and not _is_path(target):
        return _named_unitary(target, num_qubits, gates, num_gates, seed)
    if isinstance(target, str | Path):
        try:
            return target_unitary(_read_file(Path(target)), num_qubits)
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
        _check_size(size, num_qubits)  # before its matrix is made
        matrix = backend.native_unitary(target)
    if matrix.ndim == 3 and len(matrix) == 2 and matrix.dtype.kind in "iuf":
        matrix = from_two_channels(matrix)
    _check_size(qubits_of_unitary(matrix), num_qubits)
    return np.asarray(matrix, dtype=np.complex128)


def _check_size(given: int, most: int) -> None:
    if given > most:
        raise ConfigError(
            f"the target has {given} qubits, but the model writes circuits of at most {most}: give a smaller target, "
            "or train on more qubits"
        )


# --------------------------------------------------------------------------------------------------- files


def _is_path(text: str) -> bool:
    """Tell whether a text names a file rather than a well-known unitary; a file `qft` is given as `./qft`."""
    if text.partition(":")[0] in _NAMES:
        return False
    return bool(Path(text).suffix) or os.sep in text or os.path.exists(text)


def _read_file(path: Path) -> Any:
    """Read a matrix or a circuit, whichever a file holds."""
    content = _content(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz") or content.startswith((_NPY, _NPZ)):
        return _matrix_of(content)
    text = _text_of(content)
    if suffix in (".qasm", ".qasm2", ".qasm3") or re.search(r"\b(OPENQASM|qreg|qubit)\b", text or ""):
        return _circuit_of(text)
    raise ConfigError(
        "is of no kind that is read: save the matrix with numpy.save (.npy), or the circuit as OpenQASM (.qasm)"
    )


_NPY, _NPZ = b"\x93NUMPY", b"PK\x03\x04"
"""What the files of `numpy.save` and `numpy.savez` begin with."""


def _content(path: Path) -> bytes:
    """Return what is in a file of bounded size."""
    try:
        if path.is_dir():
            raise ConfigError("is a folder: give a file")
        if not path.is_file():  # a device or pipe may never end
            raise ConfigError("there is no such file: check the path")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise ConfigError(f"cannot be read ({problem.strerror}): make it readable, or give another file") from problem
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"has more than {_MOST_BYTES // 2**20} MiB: give a smaller one")
    return content


def _matrix_of(content: bytes) -> NDArray[Any]:
    """Read the one array of a `.npy` or `.npz` file; objects (pickles) are refused."""
    try:
        with np.errstate(over="ignore"):
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if sum(entry.file_size for entry in loaded.zip.infolist()) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES // 2**20} MiB when unpacked")
            (array,) = loaded.values() if len(loaded) == 1 else (None,)
    except Exception as problem:  # numpy parses the header as Python text: it raises all kinds
        raise ConfigError(
            f"is no array of numbers ({first_line(problem)}): write a complex matrix with numpy.save"
        ) from problem
    if array is None:
        raise ConfigError(f"holds {len(loaded)} arrays: write the one that is meant with numpy.save")
    return np.asarray(array)


def read_circuit(path: Path) -> Any:
    """Read an OpenQASM file as a `QuantumCircuit`, whatever its name ends in.

    Raises:
        ConfigError: There is no such file, or it cannot be read, is too large, or declares no qubits.
        GateSetError: It is no OpenQASM program, or one that asks for too much.
    """
    return _circuit_of(_text_of(_content(path)))


def _circuit_of(text: str | None) -> Any:
    if text is None:
        raise ConfigError("is no text: give an OpenQASM program")
    circuit = QiskitBackend().read_qasm(text)
    if not circuit.num_qubits:
        raise ConfigError("declares no qubits: give a circuit of one or more, e.g. qreg q[2];")
    return circuit


def _text_of(content: bytes) -> str | None:
    """Decode a text as editors write it: UTF-8 (or UTF-16) with a byte-order mark, UTF-8 or Latin-1 without."""
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
        return None if re.search(r"[^\s -~\xa0-\xff]", text) else text


# --------------------------------------------------------------------------------------------------- names


def _named_unitary(text: str, num_qubits: int, gates: Sequence[str], num_gates: int, seed: int) -> Matrix:
    name, *numbers = text.split(":")
    if name not in _NAMES:
        raise ConfigError(f"{unknown_name('target', text, _NAMES)}; or the path of a .npy or .qasm file")
    most_numbers = 2 if name == "random" else 1
    if len(numbers) > most_numbers or not all(re.fullmatch(r"[1-9]\d{0,3}", number, re.ASCII) for number in numbers):
        form = "random:3:8 (qubits, gates)" if name == "random" else f"{name}:3 (qubits)"
        raise ConfigError(f"cannot read the target {text!r}: expected {name} or e.g. {form}")
    default = TOFFOLI_QUBITS if name == "toffoli" else num_qubits
    width, length = [*map(int, numbers), *(default, num_gates)[len(numbers) :]]
    _check_size(width, num_qubits)
    if name == "random":
        return QiskitBackend().unitary(_random_circuit(width, length, gates, seed))
    return _FORMULAS[name](width)


def _qft(num_qubits: int) -> Matrix:
    index = np.arange(2**num_qubits)
    return np.asarray(np.exp(2j * np.pi * np.outer(index, index) / len(index)) / np.sqrt(len(index)))


def _toffoli(num_qubits: int) -> Matrix:
    matrix = np.eye(2**num_qubits, dtype=np.complex128)
    ones = [2 ** (num_qubits - 1) - 1, 2**num_qubits - 1]  # all controls 1, the last qubit 0 or 1
    matrix[:, ones] = matrix[:, ones[::-1]]
    return matrix


def _ghz(num_qubits: int) -> Matrix:
    chain = (Instruction("cx", (qubit,), (qubit + 1,)) for qubit in range(num_qubits - 1))
    return QiskitBackend().unitary(Circuit(num_qubits, (Instruction("h", (), (0,)), *chain)))


_FORMULAS: dict[str, Callable[[int], Matrix]] = {"qft": _qft, "toffoli": _toffoli, "ghz": _ghz}
_NAMES = (*_FORMULAS, "random")


def _random_circuit(num_qubits: int, num_gates: int, gates: Sequence[str], seed: int) -> Circuit:
    fitting = [gate.name for gate in GatePool(gates) if gate.num_qubits <= num_qubits]
    if not fitting:
        raise ConfigError(f"none of the gates {list(gates)} fits a random circuit of {num_qubits} qubits")
    table = instruction_table(GatePool(fitting), num_qubits)
    ids = random_ids(numpy_generator(seed, "target"), table, 1, num_gates, num_gates)
    return circuits_from_ids(ids, table)[0]
