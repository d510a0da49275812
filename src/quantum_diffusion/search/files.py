"""Files of users that hold a target: a matrix, a vector or a circuit.

They are data of others: they are bounded in size, and none of them can run code or name further files.
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
"""Size of a file that is read; a complex128 matrix of 8 qubits takes a quarter of it."""


def is_path(text: str, names: Collection[str]) -> bool:
    """Tell whether a text names a file rather than one of the well-known targets; a file `qft` is given as `./qft`."""
    if text.partition(":")[0] in names:
        return False
    return bool(Path(text).suffix) or os.sep in text or os.path.exists(text)


def read_target_file(path: Path) -> Any:
    """Read an array or a `QuantumCircuit`, whichever a file holds.

    Raises:
        ConfigError: There is no such file, or it cannot be read, is too large, or holds neither.
        GateSetError: It is no OpenQASM program, or one that asks for too much.
    """
    return read_target(_content(path), path.suffix)


def read_target(content: bytes, suffix: str) -> Any:
    """Read an array or a `QuantumCircuit` from the bytes of a file, whichever it holds.

    Args:
        content: The bytes.
        suffix: How the file's name ends, e.g. ".npy".

    Raises:
        ConfigError: They are too many, or hold neither; the message goes on from the file's name.
        GateSetError: They are no OpenQASM program, or one that asks for too much.
    """
    _check_bytes(content)
    suffix = suffix.lower()
    if suffix in (".npy", ".npz") or content.startswith((_NPY, _NPZ)):
        return _array_of(content)
    text = _text_of(content)
    if suffix in (".qasm", ".qasm2", ".qasm3") or re.search(r"\b(OPENQASM|qreg|qubit)\b", text or ""):
        return _circuit_of(text)
    raise ConfigError(
        "is of no kind that is read: save the array with numpy.save (.npy), or the circuit as OpenQASM (.qasm)"
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
    _check_bytes(content)
    return content


def _check_bytes(content: bytes) -> None:
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"has more than {_MOST_BYTES // 2**20} MiB: give a smaller one")


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
    except Exception as problem:  # numpy parses the header as Python text: it raises all kinds
        words = first_line(problem)
        if "pickle" in words:  # numpy takes what it does not know for a pickle, and says how to load one unsafely
            words = "it holds objects, or nothing of numpy's"
        raise ConfigError(f"is no array of numbers ({words}): write a complex array with numpy.save") from problem
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
