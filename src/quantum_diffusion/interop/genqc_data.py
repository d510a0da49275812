"""Reading data set folders of genQC 0.2.5, in every layout it has; `genqc_export` writes them.

Nothing in a folder is trusted: names of classes are compared with tables, never imported, files lie in the folder, and
arrays must be circuits that fit together. Loading never writes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import load_file

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.tokenizer import decode_tokens
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import DatasetFormatError, GateSetError
from quantum_diffusion.files import DESCRIPTION, describe
from quantum_diffusion.interop.torch_files import KEY, read_tensor, read_texts, unreadable

SINGLE = "genQC.dataset.circuits_dataset.CircuitsConfigDataset"
MIXED = "genQC.dataset.circuits_dataset.MixedCircuitsConfigDataset"
_LEGACY_TARGETS = (  # of genQC 0.1; genQC 0.2 opens these under its new names
    "genQC.dataset.qc_dataset.Qc_Config_Dataset",
    "genQC.dataset.cached_qc_dataset.Cached_OpenClip_Dataset",
    "genQC.dataset.mixed_cached_qc_dataset.Mixed_Cached_OpenClip_Dataset",
)
_TARGETS = (SINGLE, MIXED, *_LEGACY_TARGETS)

_LEGACY_GATES = {
    f"qiskit.circuit.library.standard_gates.{module}.{name}Gate": name.lower()
    for module, names in (
        ("h", "H"),
        ("x", "X CX CCX"),
        ("y", "Y CY"),
        ("z", "Z CZ"),
        ("s", "S Sdg"),
        ("t", "T Tdg"),
        ("swap", "Swap CSwap"),
    )
    for name in names.split()
}
"""genQC 0.1 names gates by the path of Qiskit's class."""

PREFIXES = ("dataset/ds", "dataset")
"""Where tensors lie beside a `config.yaml`: as `save_dataset` is mostly called, and on the Hub."""

_SUFFIXES = ("safetensors", "pt")
_MOST_QUBITS, _MOST_STEPS = 64, 2**15 - 1
_LARGEST_DESCRIPTION = 2**20
_ROWS_AT_ONCE = 2**16


class _Place(NamedTuple):
    """A data set in a folder: its YAML file, and how the names of its tensors begin ("" where only the YAML knows)."""

    description: str
    prefix: str


def read_dataset(path: Path, root: Path | None = None) -> CircuitDataset | None:
    """Read a data set folder of genQC.

    Args:
        path: The folder. It holds `config.yaml` with `dataset/ds_x.safetensors` ... (genQC's `save_dataset`), or
            `config.yaml` with `dataset_x.safetensors` ..., or `NAME.yaml` with `NAME_x.safetensors` ... (the Hub);
            tensors may end in `.pt` instead.
        root: The folder that links may not lead out of; None is `path` itself.

    Returns:
        The circuits in genQC's order, unitaries as float32; None where the folder is not genQC's.

    Raises:
        DatasetFormatError: The folder is genQC's, but damaged, hostile, or of circuits that cannot be used here.
    """
    folder = Path(os.path.realpath(path))
    root = folder if root is None else Path(os.path.realpath(root))
    try:
        place = _find(folder)
        return None if place is None else _Reader(folder, root, place).read()
    except OSError as problem:
        raise DatasetFormatError(f"cannot read the data set {str(path)!r}: {describe(problem)}") from problem


def _find(folder: Path) -> _Place | None:
    if not os.path.isdir(folder) or not os.access(folder, os.R_OK | os.X_OK):
        return None
    names = sorted(name for name in os.listdir(folder) if name.endswith(".yaml") and not name.startswith("."))
    found = [
        _Place(name, prefix)
        for name in names
        for prefix in (PREFIXES if name == DESCRIPTION else (name.removesuffix(".yaml"),))
        if any(os.path.lexists(folder / f"{prefix}_x.{suffix}") for suffix in _SUFFIXES)
    ]
    if len(found) > 1:
        raise DatasetFormatError(
            f"{str(folder)!r} holds several data sets of genQC, {_beginnings(found)}: give each a folder of its own"
        )
    if not found and DESCRIPTION in names and os.path.isfile(folder / DESCRIPTION):
        with (folder / DESCRIPTION).open("rb") as file:
            if re.search(rb"^target *:", file.read(_LARGEST_DESCRIPTION), re.MULTILINE):
                return _Place(DESCRIPTION, "")
    return found[0] if found else None


def _beginnings(places: list[_Place]) -> str:
    return " and ".join(f"{place.prefix}_x" for place in places[:3])


class _Reader:
    """Reads one data set; every method that reads also checks."""

    def __init__(self, folder: Path, root: Path, place: _Place) -> None:
        self.folder = folder
        self.root = root
        self.place = place

    def read(self) -> CircuitDataset:
        """Return the data set."""
        description = self._description()
        params = self._mapping(description, "params")
        stored = self._mapping(params, "store_dict")
        expected = {"x": "tensor", "y": "numpy", "U": "tensor", "z": "tensor"}
        for key, kind in expected.items():
            if key in "xy" or key in stored:
                self._require(stored.get(key) == kind, f"params.store_dict.{key}", stored.get(key), repr(kind))
        pool = self._gate_pool(params.get("gate_pool"))
        padding = params.get("pad_constant", pool.padding_token)
        self._require(
            _is_count(padding) and padding == pool.padding_token,
            "params.pad_constant",
            padding,
            f"{pool.padding_token}, one more than the gates",
        )

        prefix = self.place.prefix or self._prefix_of(description.get("save_path"))
        suffixes = sorted(_SUFFIXES, key=lambda suffix: suffix != description.get("save_type"))
        arrays = {key: self._tensor(prefix, key, suffixes) for key in expected if key in stored and key != "y"}
        texts = read_texts(self._file(f"{prefix}_y.pt"))

        tokens = self._tokens(arrays["x"], pool)
        for key, size in (("num_of_qubits", tokens.shape[1]), ("max_gates", tokens.shape[2])):
            given = params.get(key)
            expected_size = f"{size}, as x of shape {arrays['x'].shape} has"
            self._require(_is_count(given) and given == size, f"params.{key}", given, expected_size)
        lead = arrays["x"].shape[:-2]  # (N,), or (batches, batch size) of a bucketed data set
        sizes = self._sizes(tokens, pool, arrays.get("z"), lead)
        prompts, prompt_index = self._prompts(texts, lead)
        unitaries = None if "U" not in arrays else self._unitaries(arrays["U"], lead, tokens.shape[1])
        return CircuitDataset(tokens, prompt_index, prompts, sizes, pool, unitaries)

    # ------------------------------------------------------------------------------------------- files

    def _file(self, name: str) -> Path:
        """Return a file of the folder, wherever below the root it lies."""
        file = Path(os.path.realpath(self.folder / name))
        if not file.is_relative_to(self.root):
            raise DatasetFormatError(
                f"{name!r} of the data set {str(self.folder)!r} is a link out of the folder: copy the file itself there"
            )
        if not os.path.isfile(file):
            raise DatasetFormatError(
                f"genQC's data set {str(self.folder)!r} lacks the file {name}: copy it again, or save it again with "
                "genQC"
            )
        return file

    def _description(self) -> dict[str, Any]:
        file = self._file(self.place.description)
        try:
            if file.stat().st_size > _LARGEST_DESCRIPTION:
                raise ValueError("it is larger than 1 MiB")
            description = yaml.safe_load(file.read_bytes())
        except OSError:
            raise
        except Exception as problem:  # PyYAML lets many kinds escape, such as a KeyError for `!!bool x`
            raise unreadable(file, "plain YAML", problem) from None
        target = description.get("target") if isinstance(description, dict) else None
        if not isinstance(target, str) or target not in _TARGETS:
            raise DatasetFormatError(
                f"{str(file)!r} does not describe a data set of genQC: target is {_shown(target)}, expected "
                f"{SINGLE!r} or {MIXED!r}"
            )
        return dict(description)

    def _mapping(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key)
        self._require(isinstance(value, dict), key, value, "a mapping")
        return dict(value or {})

    def _prefix_of(self, save_path: Any) -> str:
        """Look for what `save_path` names in this folder; where else it leads is of no interest."""
        path = PurePosixPath(save_path if isinstance(save_path, str) else "")
        parts = [part for part in path.parts[-2:] if part not in ("..", "/")]
        for prefix in ("/".join(parts), *parts[-1:]):
            if any(os.path.lexists(self.folder / f"{prefix}_x.{suffix}") for suffix in _SUFFIXES):
                return prefix
        raise DatasetFormatError(
            f"genQC's data set {str(self.folder)!r} has no tensors: expected dataset/ds_x.safetensors or "
            "dataset_x.safetensors beside its config.yaml; copy the whole folder"
        )

    def _tensor(self, prefix: str, key: str, suffixes: list[str]) -> NDArray[Any]:
        present = [suffix for suffix in suffixes if os.path.lexists(self.folder / f"{prefix}_{key}.{suffix}")]
        suffix = (present or suffixes)[0]
        file = self._file(f"{prefix}_{key}.{suffix}")
        if suffix == "pt":
            return read_tensor(file)
        try:
            array: NDArray[Any] = load_file(file)[KEY]
            return array
        except OSError:
            raise
        except Exception as problem:  # not only SafetensorError: a kind of number unknown to numpy is a KeyError
            raise unreadable(file, f"a tensor under the key {KEY!r}", problem) from None

    # ------------------------------------------------------------------------------------------ content

    def _require(self, condition: bool, what: str, given: Any, expected: str) -> None:
        if not condition:
            raise DatasetFormatError(
                f"genQC's data set {str(self.folder)!r} cannot be used: {what} is {_shown(given)}, "
                f"expected {expected}; save it again with genQC 0.2.5"
            )

    def _gate_pool(self, names: Any) -> GatePool:
        given = isinstance(names, list) and all(isinstance(name, str) and len(name) < 80 for name in names)
        self._require(given and len(names) < 20, "params.gate_pool", names, "a list of names of gates")
        try:
            return GatePool(_LEGACY_GATES.get(name, name) for name in names)
        except GateSetError as problem:
            raise self._unusable(problem) from None

    def _unusable(self, problem: GateSetError) -> DatasetFormatError:
        return DatasetFormatError(f"genQC's data set {str(self.folder)!r} cannot be used: {str(problem)[:300]}")

    def _tokens(self, x: NDArray[Any], pool: GatePool) -> NDArray[np.int8]:
        self._require(x.dtype.kind in "iu", "x", x.dtype, "integers")
        self._require(
            x.ndim in (3, 4) and min(x.shape) > 0 and x.shape[-2] <= _MOST_QUBITS and x.shape[-1] <= _MOST_STEPS,
            "x",
            x.shape,
            f"[circuits, qubits, time steps] with at most {_MOST_QUBITS} qubits and {_MOST_STEPS} steps",
        )
        largest = max(int(x.max()), -int(x.min()))
        self._require(
            largest <= pool.padding_token,
            "a token of x",
            largest,
            f"{pool.padding_token} or less for the gate pool {list(pool.names)}",
        )
        tokens = np.ascontiguousarray(x.reshape(-1, *x.shape[-2:]), dtype=np.int8)
        for start in range(0, len(tokens), _ROWS_AT_ONCE):
            try:
                report = decode_tokens(tokens[start : start + _ROWS_AT_ONCE], pool)
            except GateSetError as problem:
                raise self._unusable(problem) from None
            if not report.valid.all():
                row = int(np.flatnonzero(~report.valid)[0])
                self._require(False, f"circuit {start + row} of x", report.reasons[row], "one gate a time step")
        return tokens

    def _sizes(
        self, tokens: NDArray[np.int8], pool: GatePool, z: NDArray[Any] | None, lead: tuple[int, ...]
    ) -> NDArray[np.int16]:
        """Count qubits and time steps; genQC's own `z` must agree, but rounds time steps up."""
        padding = np.abs(tokens) == pool.padding_token
        qubits = np.maximum(_last(~padding.all(axis=2)), 1)
        gates = _last(((tokens != 0) & ~padding).any(axis=1))
        if z is not None:
            self._require(
                z.dtype.kind in "iu" and z.shape == (*lead, 2), "z", (str(z.dtype), *z.shape), f"integers {(*lead, 2)}"
            )
            theirs = z.reshape(-1, 2)
            agree = (theirs[:, 0] == qubits) & (theirs[:, 1] >= gates) & (theirs[:, 1] <= tokens.shape[2])
            if not agree.all():
                row = int(np.flatnonzero(~agree)[0])
                self._require(
                    False,
                    f"z of circuit {row}",
                    tuple(theirs[row].tolist()),
                    f"{qubits[row]} qubits and {gates[row]} to {tokens.shape[2]} time steps, as x has",
                )
        return np.stack([qubits, gates], axis=1).astype(np.int16)

    def _prompts(self, texts: NDArray[np.str_], lead: tuple[int, ...]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        self._require(texts.shape == lead, "y", texts.shape, f"{lead}, a text a circuit")
        distinct, index = np.unique(texts.reshape(-1), return_inverse=True)
        try:
            prompts = tuple(distinct.tolist())
            "".join(prompts).encode()
        except (ValueError, SystemError):  # there are no such characters
            raise DatasetFormatError(
                f"genQC's data set {str(self.folder)!r} has prompts that are no Unicode text: save it again with genQC"
            ) from None
        return prompts, index.reshape(-1).astype(np.int32)

    def _unitaries(self, U: NDArray[Any], lead: tuple[int, ...], num_qubits: int) -> NDArray[np.float32]:
        shape = (*lead, 2, 2**num_qubits, 2**num_qubits)  # real and imaginary parts first, as here
        self._require(U.dtype.kind == "f" and U.shape == shape, "U", (str(U.dtype), *U.shape), f"floats {shape}")
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows has no length of 1
            unitaries = np.ascontiguousarray(U.reshape(-1, *shape[-3:]), dtype=np.float32)
            lengths = np.einsum("ncij,ncij->nj", unitaries, unitaries)  # squared, of columns
            # genQC's float16 leaves an error of 1e-3; NaN is not near either.
            self._require(bool((np.abs(lengths - 1) < 0.01).all()), "U", "not unitary", "columns of length 1")
        return unitaries


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Show a value from a file in a message: on one line, and only kinds that cannot be longer than the file."""
    if isinstance(value, str | float | None) or (isinstance(value, int) and abs(value) < 10**18):
        return " ".join(repr(value)[:120].split())
    return str(value) if isinstance(value, np.dtype | tuple) else f"a {type(value).__name__}"


def _last(used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the position after the last True of each row, int64 [N], of bool [N, M]."""
    positions: NDArray[np.int64] = np.where(used.any(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1), 0)
    return positions
