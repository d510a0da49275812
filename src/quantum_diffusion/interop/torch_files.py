"""Reads files saved with `torch.save` without running any code in them; `genqc_data` uses it.

Every name in a pickle becomes an inert record of its call, and the array is built from these records. (torch's own
`weights_only` reads neither protocol 5 pickles, which genQC writes, nor text.)
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.errors import DatasetFormatError, first_line

KEY = "0"
"""The key under which genQC stores every tensor, array and list."""

_LARGEST_SIZE = 2**48
_LONGEST_TEXT = 10_000


def read_stored(file: Path) -> NDArray[Any]:
    """Read a tensor, a numpy array, a list of texts, or a dictionary with one of these under "0".

    Args:
        file: A file in the format of `torch.save` since torch 1.6.

    Returns:
        Numbers (bfloat16 as float32), or texts: a numpy string dtype, or dtype object if Python's `str` were stored.
        May be read-only.

    Raises:
        DatasetFormatError: The file is damaged or holds something else.
        OSError: The file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:  # reading an entry verifies its checksum
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed")  # the content may be much larger than the file
            if sum(entry.file_size for entry in entries) > file.stat().st_size:
                raise ValueError("its entries overlap")
            (name,) = (entry.filename for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl")
            content = _Unpickler(io.BytesIO(archive.read(name))).load()
            if isinstance(content, dict):
                if KEY not in content:
                    raise _NotReadError(f"nothing under the key {KEY!r}")
                content = content[KEY]
            return _array(content, archive, name.removesuffix("data.pkl"))
    except OSError:
        raise
    except _NotReadError as problem:
        raise not_read(file, str(problem)) from None
    except Exception as problem:  # broken or hostile files raise all kinds of exceptions
        raise damaged(file, problem) from None


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Convert bfloat16, given as uint16 of any shape, to float32, of which it is the upper half."""
    return (bits.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)


def damaged(file: Path, problem: Exception) -> DatasetFormatError:
    """Return the error for a broken file, in one line whatever the library's own message."""
    return DatasetFormatError(
        f"{str(file)!r} is damaged ({first_line(problem)}): copy it again, or save it again with genQC"
    )


def not_read(file: Path, what: str) -> DatasetFormatError:
    """Return the error for an intact file with other content."""
    return DatasetFormatError(
        f"{str(file)!r} holds {what}, which is not read: expected a tensor, a numpy array of numbers or texts, or a "
        f"list of texts, alone or under the key {KEY!r}"
    )


class _NotReadError(Exception):
    """Names the unsupported content of a file that may be intact."""


# ------------------------------------------------------------------------------------------------- pickles

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""torch's storage types => numpy's dtypes."""

_NUMPY = ("numpy.core", "numpy._core")  # numpy 1 and 2
_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("collections", "OrderedDict"),  # a tensor's hooks, always empty
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("_codecs", "encode"),
    *(("torch", name) for name in _STORAGES),
    *((f"{core}.multiarray", name) for core in _NUMPY for name in ("_reconstruct", "scalar")),
    *((f"{core}.numeric", "_frombuffer") for core in _NUMPY),
}
"""All names in pickled tensors, arrays and texts. None of them is called here: see `_Record`."""

_OPCODES = {
    getattr(pickle, name)[0]
    for name in (
        *("PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
        *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        *("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    )
}
"""All opcodes in such pickles since protocol 2: no sets, whose members would be hashed, and no instances."""


class _Record:
    """Stores the arguments and the state given to a name in a pickle, and does nothing with them."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _TextDict(dict[str, Any]):
    """A dictionary with only texts as keys, because hashing a million nested tuples crashes Python."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(_text(key), value)


class _Unpickler(pickle._Unpickler):  # pure Python: the C version allocates a table of the size in the file
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code in _OPCODES
    } | {
        pickle.EMPTY_DICT[0]: lambda self: self.append(_TextDict()),
        # Python's own allocates as many bytes as the file states before reading them.
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _NotReadError(repr(f"{module}.{name}"[:80]))
        return type(name, (_Record,), {})  # a new class each time, so that no file affects the next

    def persistent_load(self, pid: Any) -> Any:
        return type("storage", (_Record,), {})(*pid)


def _kind(value: Any) -> str:
    return type(value).__name__ if isinstance(value, _Record) else ""


def _array(content: Any, archive: zipfile.ZipFile, root: str) -> NDArray[Any]:
    kind = _kind(content)
    if kind == "_rebuild_tensor_v2":
        return _tensor(content, archive, root)
    if kind == "_frombuffer":
        data, dtype, shape, order = content.arguments[:4]
        return _numpy_array(data, dtype, shape, order)
    if kind == "_reconstruct":
        _, shape, dtype, by_columns, data = content.state
        return _numpy_array(data, dtype, shape, "F" if by_columns else "C")
    if type(content) is list:
        return _texts(content)
    raise _NotReadError(f"an object of kind {kind or type(content).__name__!r}")


def _tensor(content: Any, archive: zipfile.ZipFile, root: str) -> NDArray[Any]:
    storage, offset, shape, strides = content.arguments[:4]
    _, numbers, key, *_ = storage.arguments
    data = archive.read(f"{root}data/{_text(key)}")
    is_big_endian = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big"
    dtype = np.dtype((">" if is_big_endian else "<") + _STORAGES[numbers.__name__])
    if math.prod(_sizes(shape)) * dtype.itemsize > len(data):
        raise ValueError("a tensor is larger than its file")
    (start,), steps = _sizes((offset,)), [stride * dtype.itemsize for stride in _sizes(strides)]
    array = np.ndarray(shape, dtype, data, start * dtype.itemsize, steps)  # raises an error if it exceeds the data
    return from_bfloat16(array) if numbers.__name__ == "BFloat16Storage" else array


def _numpy_array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if isinstance(data, _Record):  # older protocols store bytes as text
        data = _text(data.arguments[0]).encode("latin1")
    array = _texts(data) if type(data) is list else np.frombuffer(data, _numpy_dtype(dtype))
    return array.reshape(_sizes(shape), order="F" if order == "F" else "C")


def _numpy_dtype(record: Any) -> np.dtype[Any]:
    name = _text(record.state[1]) + _text(record.arguments[0])
    if not re.fullmatch(r"[<>|](U[1-9]\d{0,5}|[iu][1248]|f[248]|b1)", name):
        raise _NotReadError(f"a numpy array of {name[:80]!r}")
    return np.dtype(name)


def _texts(items: list[Any]) -> NDArray[np.object_]:
    texts = [_scalar(item) if _kind(item) == "scalar" else item for item in items]
    for text in texts:
        if type(text) is not str:
            raise _NotReadError(f"a list or array of {_kind(text) or type(text).__name__!r}")
        if len(text) > _LONGEST_TEXT:
            raise ValueError("a text is too long for a prompt")
    return np.array(texts, dtype=object)


def _scalar(record: Any) -> Any:
    """Return a single numpy text or number."""
    dtype, data = record.arguments
    return _numpy_array(data, dtype, (), "C").item()


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("no text where one is expected")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(value) is int and 0 <= value < _LARGEST_SIZE for value in values):
        raise TypeError("no shape where one is expected")
    return values
