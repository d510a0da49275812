"""Reads genQC 0.2.5 data set folders in all their layouts; `genqc_export` writes them.

Nothing in a folder is trusted: class names are looked up in tables and never imported, files must lie inside the
folder, and arrays must be consistent circuits. Loading never writes.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import deserialize
from safetensors.numpy import load

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.prompts import SRV_PROMPT, srv_prompt
from quantum_diffusion.circuits.tokenizer import decode_tokens
from quantum_diffusion.config.known_names import gate_name
from quantum_diffusion.config.presets import check_extent
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import DatasetFormatError, GateSetError
from quantum_diffusion.files import DESCRIPTION, describe
from quantum_diffusion.interop.torch_files import KEY, damaged, from_bfloat16, not_read, read_stored
from quantum_diffusion.tasks.unitary import UnitaryTask

logger = logging.getLogger(__name__)

SINGLE = "genQC.dataset.circuits_dataset.CircuitsConfigDataset"
MIXED = "genQC.dataset.circuits_dataset.MixedCircuitsConfigDataset"
_LEGACY_TARGETS = (  # from genQC 0.1; genQC 0.2 opens them under their new names
    "genQC.dataset.qc_dataset.Qc_Config_Dataset",
    "genQC.dataset.cached_qc_dataset.Cached_OpenClip_Dataset",
    "genQC.dataset.mixed_cached_qc_dataset.Mixed_Cached_OpenClip_Dataset",
)
_TARGETS = (SINGLE, MIXED, *_LEGACY_TARGETS)

PREFIXES = ("dataset/ds", "dataset")
"""Prefixes of the tensor files next to a `config.yaml`: as usually passed to `save_dataset`, and on the Hub."""

_SUFFIXES = ("safetensors", "pt", "ckpt")
_KEYS = ("x", "y", "params", "U", "z")
_MOST_QUBITS, _MOST_STEPS = 64, 2**15 - 1
_LARGEST_DESCRIPTION = 2**20
_ROWS_AT_ONCE = 2**16


class _Place(NamedTuple):
    """A data set in a folder: its YAML file and the prefix of its tensor files ("" if only the YAML file names it)."""

    description: str
    prefix: str


def read_dataset(path: Path, root: Path | None = None) -> CircuitDataset | None:
    """Read a genQC data set folder.

    Args:
        path: The folder. It holds `config.yaml` with `dataset/ds_x.safetensors` ... (genQC's `save_dataset`), or
            `config.yaml` with `dataset_x.safetensors` ..., or `NAME.yaml` with `NAME_x.safetensors` ... (the Hub);
            tensor files may end in `.pt` or `.ckpt` instead.
        root: The folder that links must not lead out of; None means `path` itself.

    Returns:
        The circuits in genQC's order, with unitaries as float32; None if the folder is not genQC's. If a data set mixes
        circuits for Schmidt rank vectors and for unitaries, only the latter are read.

    Raises:
        DatasetFormatError: The folder is genQC's, but damaged, hostile, or its circuits cannot be used here.
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
            if re.search(
                rb"^(?:\xef\xbb\xbf)?(?:\{ *)?(['\"]?)target\1\s*:", file.read(_LARGEST_DESCRIPTION), re.MULTILINE
            ):
                return _Place(DESCRIPTION, "")
    return found[0] if found else None


def _beginnings(places: list[_Place]) -> str:
    return " and ".join(f"{place.prefix}_x" for place in places[:3])


class _Reader:
    """Reads one data set; every reading method also validates."""

    def __init__(self, folder: Path, root: Path, place: _Place) -> None:
        self.folder = folder
        self.root = root
        self.place = place

    def read(self) -> CircuitDataset:
        """Return the data set."""
        description = self._description()
        params = self._mapping(description, "params")
        stored = self._mapping(params, "store_dict")
        self._require("x" in stored and "y" in stored, "params.store_dict", sorted(stored), "x and y in it")
        pool = self._gate_pool(params.get("gate_pool"))
        padding = params.get("pad_constant", pool.padding_token)
        self._require(
            _is_count(padding) and padding == pool.padding_token,
            "params.pad_constant",
            padding,
            f"{pool.padding_token}, one more than the gates",
        )

        prefix = self.place.prefix or self._prefix_of(description.get("save_path"))
        save_type = description.get("save_type")
        arrays = {key: self._stored(prefix, key, stored[key], save_type) for key in _KEYS if key in stored}
        tokens = self._tokens(arrays["x"], pool)
        for key, size in (("num_of_qubits", tokens.shape[1]), ("max_gates", tokens.shape[2])):
            given = params.get(key)
            expected_size = f"{size}, as x of shape {arrays['x'].shape} has"
            self._require(_is_count(given) and given == size, f"params.{key}", given, expected_size)
        lead = arrays["x"].shape[:-2]  # (N,), or (batches, batch size) of a bucketed data set
        sizes = self._sizes(tokens, pool, arrays.get("z"), lead)
        prompts, prompt_index = self._prompts(arrays["y"], lead, tokens.shape[1])
        angles = self._angles(arrays.get("params"), tokens, pool, lead)
        dataset = CircuitDataset(tokens, prompt_index, prompts, sizes, pool, angles=angles)
        return dataset if "U" not in arrays else self._with_unitaries(dataset, arrays["U"], lead)

    # ------------------------------------------------------------------------------------------- files

    def _file(self, name: str) -> Path:
        """Return the real path of a file in the folder; links may lead anywhere below the root."""
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
            text = file.read_text(encoding="utf-8-sig")
            check_extent(text)
            description = yaml.safe_load(text)
        except OSError:
            raise
        except Exception as problem:  # PyYAML raises many other types, such as KeyError for `!!bool x`
            raise damaged(file, problem) from None
        target = description.get("target") if isinstance(description, dict) else None
        if not isinstance(target, str) or target not in _TARGETS:
            raise DatasetFormatError(
                f"{str(file)!r} does not describe a data set of genQC: target is {shown(target)}, expected "
                f"{SINGLE!r} or {MIXED!r}"
            )
        return dict(description)

    def _mapping(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key)
        self._require(isinstance(value, dict), key, value, "a mapping")
        return dict(value or {})

    def _prefix_of(self, save_path: Any) -> str:
        """Return the prefix of the tensor files in this folder; only the last two parts of `save_path` matter."""
        path = PurePosixPath(save_path if isinstance(save_path, str) else "")
        parts = [part for part in path.parts[-2:] if part not in ("..", "/")]
        for prefix in ("/".join(parts), *parts[-1:]):
            if any(os.path.lexists(self.folder / f"{prefix}_x.{suffix}") for suffix in _SUFFIXES):
                return prefix
        raise DatasetFormatError(
            f"genQC's data set {str(self.folder)!r} has no tensors: expected dataset/ds_x.safetensors or "
            "dataset_x.safetensors beside its config.yaml; copy the whole folder"
        )

    def _stored(self, prefix: str, key: str, kind: Any, save_type: Any) -> NDArray[Any]:
        """Read the array stored under a key; `kind` only determines its likely suffix, the file itself its content."""
        first = "pt" if kind == "numpy" and save_type == "safetensors" else save_type
        suffixes = sorted(_SUFFIXES, key=lambda suffix: suffix != first)
        present = [suffix for suffix in suffixes if os.path.lexists(self.folder / f"{prefix}_{key}.{suffix}")]
        suffix = (present or suffixes)[0]
        file = self._file(f"{prefix}_{key}.{suffix}")
        return _read_safetensors(file) if suffix == "safetensors" else read_stored(file)

    # ------------------------------------------------------------------------------------------ content

    def _require(self, condition: bool, what: str, given: Any, expected: str) -> None:
        if not condition:
            raise DatasetFormatError(
                f"genQC's data set {str(self.folder)!r} cannot be used: {what} is {shown(given)}, "
                f"expected {expected}; correct that, or copy the folder again"
            )

    def _not_read(self, what: str, instead: str) -> DatasetFormatError:
        """Return the error for a feature of genQC that this package lacks."""
        return DatasetFormatError(f"genQC's data set {str(self.folder)!r} holds {what}, which is not read: {instead}")

    def _gate_pool(self, names: Any) -> GatePool:
        given = isinstance(names, list) and all(isinstance(name, str) and len(name) < 80 for name in names)
        self._require(given and len(names) < 50, "params.gate_pool", names, "a list of names of gates")
        names = [gate_name(name) for name in names]
        unknown = [name for name in names if name not in GATES]
        if unknown:
            raise self._not_read(
                f"circuits of the gate {unknown[0]!r}", f"give one whose gates are among {', '.join(GATES)}"
            )
        try:
            return GatePool(names)
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

    def _angles(
        self, codes: NDArray[Any] | None, tokens: NDArray[np.int8], pool: GatePool, lead: tuple[int, ...]
    ) -> NDArray[np.float64] | None:
        """Return the angles float64 [N, T, A] that genQC stores as numbers from -1 (0) to 1 (4 pi), [..., A, T]."""
        if not pool.num_angles:
            none = codes is None or not codes.any()
            self._require(none, "params", "not zero", f"zeros for {list(pool.names)}, gates without angles")
            return None
        shape = (*lead, pool.num_angles, tokens.shape[2])
        given = "missing" if codes is None else (str(codes.dtype), *codes.shape)
        fits = codes is not None and codes.dtype.kind == "f" and codes.shape == shape and np.isfinite(codes).all()
        self._require(bool(fits), "params", given, f"finite floats {shape}")
        assert codes is not None
        angles = (codes.reshape(-1, *shape[-2:]).swapaxes(1, 2).astype(np.float64) + 1) * (2 * np.pi)
        table = instruction_table(pool, tokens.shape[1])
        ids = decode_tokens(tokens, pool).ids
        angles = table.in_period(ids, angles)
        angles[np.arange(pool.num_angles) >= table.num_angles[ids][..., None]] = 0.0
        return angles

    def _sizes(
        self, tokens: NDArray[np.int8], pool: GatePool, z: NDArray[Any] | None, lead: tuple[int, ...]
    ) -> NDArray[np.int16]:
        """Count qubits and time steps, int16 [N, 2]; genQC's `z`, which may round time steps up, must agree."""
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

    def _prompts(
        self, y: NDArray[Any], lead: tuple[int, ...], num_qubits: int
    ) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """Return the distinct prompts and each circuit's index; integers in `y` are Schmidt rank vectors."""
        if y.dtype.kind in "iu":
            is_label = y.shape == (*lead, num_qubits) and bool(((y == 1) | (y == 2)).all())
            self._require(is_label, "y", ("integers", *y.shape), f"texts, or ranks 1 and 2 {(*lead, num_qubits)}")
            labels, index = np.unique(y.reshape(-1, num_qubits), axis=0, return_inverse=True)
            return tuple(map(srv_prompt, labels)), index.reshape(-1).astype(np.int32)
        if y.dtype.kind not in "UO":
            raise self._not_read(
                f"{y.dtype} numbers as y", "store prompts (texts) or Schmidt rank vectors (integers) there"
            )
        self._require(y.shape == lead, "y", y.shape, f"{lead}, a text a circuit")
        distinct, index = np.unique(y.reshape(-1), return_inverse=True)
        try:
            prompts = tuple(distinct.tolist())
            "".join(prompts).encode()
        except (ValueError, SystemError):  # surrogates, or code points beyond Unicode
            raise DatasetFormatError(
                f"genQC's data set {str(self.folder)!r} has prompts that are no Unicode text: copy it again"
            ) from None
        return prompts, index.reshape(-1).astype(np.int32)

    def _with_unitaries(self, dataset: CircuitDataset, U: NDArray[Any], lead: tuple[int, ...]) -> CircuitDataset:
        """Add unitaries; in mixed data sets genQC stores zeros for the circuits for Schmidt rank vectors."""
        side = 2**dataset.num_qubits
        shape = (*lead, 2, side, side)  # real and imaginary parts first, as in this package
        self._require(U.dtype.kind == "f" and U.shape == shape, "U", (str(U.dtype), *U.shape), f"floats {shape}")
        with np.errstate(over="ignore", invalid="ignore"):  # overflow fails the check below
            unitaries = np.ascontiguousarray(U.reshape(-1, *shape[-3:]), dtype=np.float32)
            errors = _distance_from_unitary(unitaries)
            asks_srv = np.array([prompt.startswith(SRV_PROMPT) for prompt in dataset.prompts])[dataset.prompt_index]
            has_none = asks_srv & ~unitaries.any(axis=(1, 2, 3))
            # bfloat16 causes errors up to 4e-3, genQC's float16 up to 5e-4; NaN fails too.
            is_unitary = (errors < 0.01) | has_none
        if not is_unitary.all():
            row = int(np.flatnonzero(~is_unitary)[0])
            self._require(False, f"U of circuit {row}", "not unitary", "orthogonal columns of length 1")
        rows = np.flatnonzero(~has_none)
        if not len(rows):
            return dataset
        if len(rows) < len(dataset):
            logger.warning(
                "%r mixes %d circuits that have unitaries with %d for Schmidt rank vectors, another task: only the "
                "former are used; for the latter give the data set that they come from",
                str(self.folder),
                len(rows),
                len(dataset) - len(rows),
            )
        numbers, index = np.unique(dataset.prompt_index[rows], return_inverse=True)
        prompts = tuple(dataset.prompts[number] for number in numbers)
        return replace(
            dataset.take(rows),
            prompts=prompts,
            prompt_index=index.astype(np.int32),
            condition_type=UnitaryTask.name,
            targets=unitaries[rows],
        )


def _read_safetensors(file: Path) -> NDArray[Any]:
    """Read genQC's tensor from a file; bfloat16, which numpy lacks, is widened to float32."""
    data = file.read_bytes()  # not memory-mapped, which some file systems do not support
    try:
        stored = dict(deserialize(data))  # type: ignore[no-untyped-call]
        if KEY not in stored:
            raise ValueError(f"no tensor {KEY!r} in it")
        kind = stored[KEY]["dtype"]
        if kind == "BF16":
            return from_bfloat16(np.frombuffer(stored[KEY]["data"], "<u2").reshape(stored[KEY]["shape"]))
        array: NDArray[Any] = load(data)[KEY]
        return array
    except (AttributeError, KeyError, TypeError):  # numpy has no such type
        raise not_read(file, f"numbers of kind {kind}") from None
    except Exception as problem:
        raise damaged(file, problem) from None


def _distance_from_unitary(unitaries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest entry of U^dagger U - 1 for float32 [N, 2, D, D], float32 [N]."""
    side = unitaries.shape[-1]
    errors = np.empty(len(unitaries), np.float32)
    rows = max(1, 2**22 // side**2)  # the products need memory, too
    for start in range(0, len(unitaries), rows):
        some = unitaries[start : start + rows]
        matrices = some[:, 0] + 1j * some[:, 1]
        products = matrices.conj().transpose(0, 2, 1) @ matrices
        errors[start : start + rows] = np.abs(products - np.eye(side, dtype=np.complex64)).max(axis=(1, 2))
    return errors


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Format a value from a file for a message, short and on one line; `check_extent` has bounded its extent."""
    try:
        text = str(value) if isinstance(value, np.dtype) else repr(value)
    except ValueError:  # Python writes no integers of thousands of digits
        return f"a {type(value).__name__}"
    return " ".join(text[:120].split())


def _last(used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the position after the last True in each row of bool [N, M], int64 [N]; 0 if there is none."""
    positions: NDArray[np.int64] = np.where(used.any(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1), 0)
    return positions
