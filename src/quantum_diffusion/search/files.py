"""Reads target files of users: a matrix, a vector or a circuit.

`search.unitaries`, `search.states` and edits use it. The files are untrusted: their size is limited, and they can
neither run code nor refer to other files.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.errors import ConfigError, first_line

_MOST_BYTES = 4 * 2**20
"""Maximum size of a file; a complex128 matrix of 8 qubits takes a quarter of it."""


def is_path(text: str, names: Collection[str]) -> bool:
    """Tell whether a text is a path rather than the name of a well-known target; a file `qft` is given as `./qft`."""
    if text.partition(":")[0] in names:
        return False
    return bool(Path(text).suffix) or os.sep in text or os.path.exists(text)


def read_target_file(path: Path) -> Any:
    """Read an array or a `QuantumCircuit` from a file.

    Raises:
        ConfigError: The file is missing, unreadable, too large or of an unknown kind.
        GateSetError: It is not a valid OpenQASM program, or a too large one.
    """
    return read_target(_content(path), path.suffix)


def read_target(content: bytes, suffix: str) -> Any:
    """Read an array or a `QuantumCircuit` from the bytes of a file.

    Args:
        content: The bytes.
        suffix: Suffix of the file's name, e.g. ".npy".

    Raises:
        ConfigError: The content is too large or of an unknown kind; the caller puts the file's name before the message.
        GateSetError: It is not a valid OpenQASM program, or a too large one.
    """
    _check_bytes(content)
    suffix = suffix.lower()
    if suffix in (".npy", ".npz") or content.startswith((_NPY, _NPZ)):
        return _array_of(content)
    text = _text_of(content)
    if suffix in (".qasm", ".qasm2", ".qasm3") or re.search(r"\b(OPENQASM|qreg|qubit)\b", text or ""):
        return _circuit_of(text)
    raise ConfigError(
        "the file is of an unknown kind: save an array with numpy.save (.npy), or a circuit as OpenQASM (.qasm)"
    )


_NPY, _NPZ = b"\x93NUMPY", b"PK\x03\x04"
"""First bytes of files written by `numpy.save` and `numpy.savez`."""


def _content(path: Path) -> bytes:
    """Return the content of a file of limited size."""
    try:
        if path.is_dir():
            raise ConfigError("the path is a folder: give a file")
        if not path.is_file():  # reading a device or pipe may never end
            fault = "the path is a device or pipe" if path.exists() else "there is no such file"
            raise ConfigError(f"{fault}: give the path of a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise ConfigError(
            f"the file cannot be read ({problem.strerror}): make it readable, or give another one"
        ) from problem
    _check_bytes(content)
    return content


def _check_bytes(content: bytes) -> None:
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"the file has more than {_MOST_BYTES // 2**20} MiB: give a smaller one")


def _array_of(content: bytes) -> NDArray[Any]:
    """Read the one array of a `.npy` or `.npz` file; objects (pickles) are refused."""
    try:
        with np.errstate(over="ignore"):
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if sum(entry.file_size for entry in loaded.zip.infolist()) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES // 2**20} MiB when unpacked")
            (array,) = loaded.values() if len(loaded) == 1 else (None,)
    except Exception as problem:  # numpy parses the header as Python text and raises many types
        words = first_line(problem)
        if "pickle" in words:  # numpy takes unknown content for a pickle, and suggests loading it unsafely
            words = "it holds Python objects, or was not written by numpy"
        raise ConfigError(
            f"the file is not an array of numbers ({words}): save a complex array with numpy.save"
        ) from problem
    if array is None:
        raise ConfigError(f"the file holds {len(loaded)} arrays: save a single one with numpy.save")
    return np.asarray(array)


def read_circuit(path: Path) -> Any:
    """Read an OpenQASM file with any suffix as a `QuantumCircuit`.

    Raises:
        ConfigError: The file is missing, unreadable, too large or declares no qubits.
        GateSetError: It is not a valid OpenQASM program, or a too large one.
    """
    return _circuit_of(_text_of(_content(path)))


def _circuit_of(text: str | None) -> Any:
    if text is None:
        raise ConfigError("the file is not a text: give an OpenQASM program")
    circuit = QiskitBackend().read_qasm(text)
    if not circuit.num_qubits:
        raise ConfigError("the program declares no qubits: declare at least one, e.g. qreg q[2];")
    return circuit


def _text_of(content: bytes) -> str | None:
    """Decode a text file: UTF-8 or UTF-16 with a byte-order mark, UTF-8 or Latin-1 without; None if it is binary."""
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
        return None if re.search(r"[^\s -~\xa0-\xff]", text) else text
