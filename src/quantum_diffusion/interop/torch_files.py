"""Reading what others saved with `torch.save`, so that nothing in a file can run.

Every name in a pickle becomes an inert record of what the file wants done with it, and the array is made from the
records. (torch's own `weights_only` reads no pickles of protocol 5, which genQC writes, and no texts.)
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.errors import DatasetFormatError, first_line

KEY = "0"
"""Under this key genQC stores every tensor and array."""


def read_tensor(file: Path) -> NDArray[Any]:
    """Read a tensor, or a dictionary that holds one under "0".

    Args:
        file: As `torch.save` writes it since torch 1.6.

    Returns:
        The array, which may be read-only.

    Raises:
        DatasetFormatError: The file is damaged or holds anything else.
        OSError: It cannot be read.
    """
    return _read(file, "a tensor", _tensor)


def read_texts(file: Path) -> NDArray[np.str_]:
    """Read a numpy array of texts, or a dictionary that holds one under "0"; see `read_tensor`."""
    return _read(file, "an array of texts", _text_array)


def unreadable(file: Path, expected: str, problem: Exception) -> DatasetFormatError:
    """Word the refusal of a file in one line, however the library at fault words it."""
    return DatasetFormatError(
        f"{str(file)!r} is damaged or does not hold {expected} ({first_line(problem)}): copy it again, "
        "or save it again with genQC"
    )


def _read(file: Path, expected: str, convert: Callable[[Any, zipfile.ZipFile, str], NDArray[Any]]) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(file) as archive:  # reading an entry checks its checksum
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed")  # and may be much larger than it looks
            if sum(entry.file_size for entry in entries) > file.stat().st_size:
                raise ValueError("its entries overlap")
            (name,) = (entry.filename for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl")
            content = _Unpickler(io.BytesIO(archive.read(name))).load()
            if isinstance(content, dict):
                content = content.get(KEY)
            return convert(content, archive, name.removesuffix("data.pkl"))
    except OSError:
        raise
    except Exception as problem:  # whatever a broken or hostile file leads to, the answer is the same
        raise unreadable(file, expected, problem) from None


# ------------------------------------------------------------------------------------------------- pickles

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""torch's names of kinds of numbers => numpy's."""

_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("collections", "OrderedDict"),  # of hooks, always empty
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("_codecs", "encode"),
    *(("torch", name) for name in _STORAGES),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),  # numpy 1 and 2
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}
"""All that pickled tensors and arrays of texts name. None of it is called here: see `_Record`."""


class _Record:
    """Keeps what a name in a pickle was called with and what state it was given, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle._Unpickler):  # in Python: the one in C takes the size of a table from the file
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {f'{module}.{name}'[:80]}")
        return type(name, (_Record,), {})  # a class of its own, which no later file sees

    def persistent_load(self, pid: Any) -> Any:
        return type("storage", (_Record,), {})(*pid)


def _kind(value: Any) -> str:
    return type(value).__name__ if isinstance(value, _Record) else ""


def _tensor(content: Any, archive: zipfile.ZipFile, root: str) -> NDArray[Any]:
    if _kind(content) != "_rebuild_tensor_v2" or _kind(content.arguments[0]) != "storage":
        raise TypeError("no tensor in it")
    storage, offset, shape, strides = content.arguments[:4]
    _, numbers, key, *_ = storage.arguments
    data = archive.read(f"{root}data/{key}")
    is_big_endian = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big"
    dtype = np.dtype((">" if is_big_endian else "<") + _STORAGES[numbers.__name__])
    if math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError("a tensor is larger than its file")
    steps = [stride * dtype.itemsize for stride in strides]
    return np.ndarray(shape, dtype, data, offset * dtype.itemsize, steps)  # which checks that all lies inside


def _text_array(content: Any, archive: zipfile.ZipFile, root: str) -> NDArray[np.str_]:
    if _kind(content) == "_frombuffer":
        data, dtype, shape, order = content.arguments[:4]
    elif _kind(content) == "_reconstruct":
        _, shape, dtype, by_columns, data = content.state
        order = "F" if by_columns else "C"
    else:
        raise TypeError("no array of numpy in it")
    if isinstance(data, _Record):  # older pickles have no bytes and write them as text
        data = data.arguments[0].encode("latin1")
    if not re.fullmatch(r"U[1-9]\d{0,5}", dtype.arguments[0]) or dtype.state[1] not in ("<", ">"):
        raise TypeError("its numpy array is not of texts")
    array: NDArray[np.str_] = np.frombuffer(data, dtype=dtype.state[1] + dtype.arguments[0])
    return array.reshape(shape, order=order)
