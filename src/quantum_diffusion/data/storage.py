"""The native data set folder: a readable `config.yaml` with checksums, arrays as safetensors, prompts as JSON.

Generation writes it and loaders read it. It is written atomically, checked completely before use, and cannot run code.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

import quantum_diffusion
from quantum_diffusion.cards import CARD_FILE, may_write_card
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.data.blocks import row_blocks
from quantum_diffusion.data.card import dataset_card
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import DatasetFormatError, GateSetError, first_line, quoted, quoted_path
from quantum_diffusion.files import DESCRIPTION, describe, is_sealed, new_folder, sealed, sha256_of
from quantum_diffusion.folders import check_nothing_lost
from quantum_diffusion.tasks.base import Task
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.srv import SrvTask

FORMAT = "quantum_diffusion.dataset"
FORMAT_VERSION = 1

_TARGETS = {task.array: task.name for task in TASKS.values() if task.array is not None}
_ARRAYS = {"x": "tokens", "y": "prompt_index", "z": "sizes", **dict.fromkeys(_TARGETS, "targets"), "angles": "angles"}
_KINDS = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F64": np.float64}
_DTYPES = {"x": np.int8, "y": np.int32, "z": np.int16, **dict.fromkeys(_TARGETS, np.float32), "angles": np.float64}
ARRAYS_FOLDER = "dataset/ds"
_PROMPTS = f"{ARRAYS_FOLDER}/prompts.json"


def is_dataset_folder(path: Path) -> bool:
    """Tell whether a folder looks like a data set, damaged or not."""
    # Unlike pathlib's methods, these never raise.
    return os.path.isfile(path / DESCRIPTION) or os.path.isdir(path / ARRAYS_FOLDER)


def check_replaceable(path: Path) -> None:
    """Raise unless the path is free, an empty folder or just a data set, so that replacing it loses nothing else.

    Raises:
        DatasetFormatError: It is not a folder, or contains files that do not belong to a data set.
    """
    if os.path.exists(path) and not path.is_dir():
        raise DatasetFormatError(f"{quoted_path(path)} is not a folder: give a folder for the data set")
    check_nothing_lost(
        path,
        DatasetFormatError,
        "contains {!r} and is not just a data set, so nothing was written there: choose another folder, or empty this "
        "one",
        entries=_files_in(path),
        is_ours={
            DESCRIPTION,
            _PROMPTS,
            *map(_array_file, _ARRAYS),
            *([CARD_FILE] if may_write_card(path) else []),
        }.__contains__,
        known_by=_PROMPTS,
    )


def _files_in(folder: Path) -> Iterator[str]:
    """Yield all entries below a folder except plain folders, without following links."""
    for entry in folder.rglob("*"):
        if entry.is_symlink() or not entry.is_dir():
            yield entry.relative_to(folder).as_posix()


def save_dataset(dataset: CircuitDataset, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a data set folder, replacing an existing data set; see `save_blocks`."""
    save_blocks([dataset], len(dataset), path, settings)


def save_blocks(blocks: Iterable[CircuitDataset], num_circuits: int, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a data set folder block by block, replacing an existing data set.

    Args:
        blocks: At least one block of the data set, in order; all share shape, gate pool and prompts.
        num_circuits: Total number of circuits.
        path: The folder.
        settings: Plain values that describe how the data was made; stored in `config.yaml`.

    Raises:
        DatasetFormatError: The folder cannot be written (disk full, no permission) or has other content, or the
            circuits lack the targets that data sets of their task store.
    """
    check_replaceable(path)
    rest = iter(blocks)
    first = next(rest)
    if first.task.array is not None and first.targets is None:
        raise DatasetFormatError(
            f"the circuits have no targets, but data sets of condition_type {first.condition_type} store one per "
            "circuit: give the targets"
        )
    with new_folder(path, DatasetFormatError) as folder, contextlib.ExitStack() as open_files:
        (folder / ARRAYS_FOLDER).mkdir(parents=True)
        (folder / _PROMPTS).write_text(json.dumps(list(first.prompts), indent=0), encoding="utf-8")
        files: dict[str, BinaryIO] = {}
        for key in ("x", "y", "z", first.task.array, "angles"):
            array: NDArray[Any] | None = None if key is None else getattr(first, _ARRAYS[key])
            if key is not None and array is not None:
                files[key] = open_files.enter_context((folder / _array_file(key)).open("wb"))
                files[key].write(_safetensors_header(key, (num_circuits, *array.shape[1:])))
        written = 0
        for block in itertools.chain([first], rest):
            for key, file in files.items():
                file.write(np.ascontiguousarray(getattr(block, _ARRAYS[key]), dtype=_DTYPES[key]).data)
            written += len(block)
        assert written == num_circuits
        open_files.close()
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "software": f"quantum_diffusion {quantum_diffusion.__version__}",
            "gate_pool": list(first.gate_pool.names),
            "num_circuits": num_circuits,
            "num_qubits": first.num_qubits,
            "max_gates": first.max_gates,
            "num_prompts": len(first.prompts),
            "condition_type": first.condition_type,
            "settings": dict(settings),
        }
        names = [_PROMPTS, *map(_array_file, files)]
        (folder / CARD_FILE).write_text(dataset_card(description), encoding="utf-8")
        (folder / DESCRIPTION).write_text(sealed(description, folder, names), encoding="utf-8")


def _array_file(key: str) -> str:
    return f"{ARRAYS_FOLDER}/{key}.safetensors"


def _safetensors_header(key: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of a safetensors file with one array; safetensors itself cannot write in blocks."""
    dtype = np.dtype(_DTYPES[key])
    size = math.prod(shape) * dtype.itemsize
    name = f"{'F' if dtype.kind == 'f' else 'I'}{8 * dtype.itemsize}"
    header = json.dumps({key: {"dtype": name, "shape": shape, "data_offsets": [0, size]}}, separators=(",", ":"))
    padded = header.encode().ljust(-(-len(header) // 8) * 8)
    return len(padded).to_bytes(8, "little") + padded


def read_description(path: Path) -> dict[str, Any]:
    """Read and check the `config.yaml` of a native data set folder, without its arrays.

    Raises:
        DatasetFormatError: The folder or file is missing, unreadable, damaged, or of another format or version.
    """
    file = path / DESCRIPTION
    try:
        if not path.is_dir():
            found = "is not a folder" if path.exists() else "does not exist"
            raise DatasetFormatError(
                f"the data set {quoted_path(path)} {found}: make one with `quantum-diffusion generate`"
            )
        if not file.is_file():
            found = f"has no {DESCRIPTION}" if any(path.iterdir()) else "is empty"
            raise DatasetFormatError(
                f"{quoted_path(path)} {found}: give a data set ({DESCRIPTION} and {ARRAYS_FOLDER}) or a folder of "
                "data sets"
            )
        text = file.read_bytes().decode()
        description = yaml.safe_load(text)
    except OSError as problem:
        raise DatasetFormatError(f"cannot read {quoted_path(file)}: {describe(problem)}") from problem
    except DatasetFormatError:
        raise
    except Exception as problem:  # PyYAML raises many types: `!!bool x` a KeyError, `!!int ''` an IndexError
        raise DatasetFormatError(
            f"{quoted_path(file)} is not valid YAML ({first_line(problem)}): generate the data set again"
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DatasetFormatError(
            f"{quoted_path(file)} does not describe a {FORMAT}: give a folder written by `quantum-diffusion generate`"
        )
    version, checksums = description.get("format_version"), description.get("sha256")
    if version != FORMAT_VERSION:
        shown = quoted(version) if isinstance(version, int | float | str) else "none"
        raise DatasetFormatError(
            f"{quoted_path(path)} has format version {shown}, but this software reads {FORMAT_VERSION}: "
            "update quantum_diffusion, or generate the data set again"
        )
    if not is_sealed(text, checksums):
        raise DatasetFormatError(
            f"{quoted_path(file)} is damaged or was edited (its checksum is wrong): copy or generate the data set again"
        )
    return description


def load_dataset_folder(path: Path) -> CircuitDataset:
    """Read one native data set folder and check that it is complete and consistent.

    Raises:
        DatasetFormatError: A file is missing, truncated or changed, or the arrays do not fit together.
    """
    description = read_description(path)
    checksums, names = description["sha256"], description.get("gate_pool")
    required = {DESCRIPTION, _PROMPTS, *map(_array_file, "xyz")}
    targets = {_array_file(key): name for key, name in _TARGETS.items() if _array_file(key) in checksums}
    if set(checksums) - {_array_file("angles")} != required | set(targets) or len(targets) > 1:
        raise DatasetFormatError(
            f"{quoted_path(path / DESCRIPTION)} does not list the checksums of exactly its files: generate the data "
            "set again"
        )
    try:
        for name in sorted(set(checksums) - {DESCRIPTION}):
            if not (path / name).is_file():
                raise DatasetFormatError(f"the data set {quoted_path(path)} lacks {name}: copy or generate it again")
            if sha256_of(path / name) != checksums[name]:
                raise DatasetFormatError(
                    f"{quoted_path(path / name)} is damaged (its checksum is wrong): copy or generate the data set "
                    "again"
                )
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("gate_pool is not a list of names")
        pool = GatePool(names)
        prompts = json.loads((path / _PROMPTS).read_text(encoding="utf-8"))
        arrays = {key: _map_array(path / _array_file(key), key) for key in _ARRAYS if _array_file(key) in checksums}
    except OSError as problem:
        raise DatasetFormatError(f"cannot read the data set {quoted_path(path)}: {describe(problem)}") from problem
    except (GateSetError, ValueError, KeyError, SafetensorError, RecursionError) as problem:
        raise DatasetFormatError(
            f"the data set {quoted_path(path)} cannot be read: {problem!r}; generate it again"
        ) from None
    # An earlier version wrote no condition_type, but its arrays determine it.
    task = TASKS.get(str(description.get("condition_type", next(iter(targets.values()), SrvTask.name))))
    _check_arrays(path, arrays, prompts, pool, task)
    assert task is not None
    return CircuitDataset(
        tokens=arrays["x"],
        prompt_index=arrays["y"],
        prompts=tuple(prompts),
        sizes=arrays["z"],
        gate_pool=pool,
        condition_type=task.name,
        targets=None if task.array is None else arrays[task.array],
        angles=arrays.get("angles"),
    )


def _map_array(file: Path, key: str) -> NDArray[Any]:
    """Memory-map the array of a safetensors file; if that is impossible, read it."""
    try:
        with safe_open(file, framework="numpy") as content:  # checks the header and the length of the file
            part = content.get_slice(key)
            shape, dtype = tuple(part.get_shape()), _KINDS.get(part.get_dtype())
        if dtype is not None and 0 not in shape:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                begin = json.loads(opened.read(length))[key]["data_offsets"][0]
            return np.memmap(file, dtype, "r", 8 + length + begin, shape).view(np.ndarray)
    except OSError:
        pass  # the file system cannot map files, or the file is unreadable, in which case the next line raises
    array: NDArray[Any] = load(file.read_bytes())[key]
    return array


def _check_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], prompts: Any, pool: GatePool, task: Task | None
) -> None:
    def require(condition: bool, what: str) -> None:
        if not condition:
            raise DatasetFormatError(f"the data set {quoted_path(path)} is inconsistent: {what}; generate it again")

    x, y, z = arrays["x"], arrays["y"], arrays["z"]
    for key, array in arrays.items():
        require(array.dtype == _DTYPES[key], f"{key} has dtype {array.dtype}, expected {np.dtype(_DTYPES[key])}")
    require(x.ndim == 3 and min(x.shape) > 0, f"x has shape {x.shape}, expected [circuits, qubits, time steps]")
    require(y.shape == (len(x),), f"y has shape {y.shape}, expected ({len(x)},)")
    require(z.shape == (len(x), 2), f"z has shape {z.shape}, expected ({len(x)}, 2)")
    require(
        isinstance(prompts, list) and all(isinstance(p, str) for p in prompts) and len(set(prompts)) == len(prompts),
        "prompts.json is not a list of distinct texts",
    )
    require(bool((y >= 0).all() and (y < len(prompts)).all()), "y refers to prompts that do not exist")
    inside = (-pool.padding_token <= rows.min() and rows.max() <= pool.padding_token for rows in row_blocks(x))
    require(all(inside), f"x has tokens outside the pool {list(pool.names)}")
    fits = (z >= [1, 0]).all() and (z <= x.shape[1:]).all()
    require(bool(fits), f"z has sizes outside {x.shape[1]} qubits and {x.shape[2]} time steps")
    require(task is not None, f"condition_type is not one of {', '.join(TASKS)}")
    assert task is not None
    expected = {*"xyz", *filter(None, [task.array]), *(["angles"] if pool.num_angles else [])}
    require(set(arrays) == expected, f"its arrays are not those of condition_type {task.name} and its gates")
    if pool.num_angles:
        angles, shape = arrays["angles"], (len(x), x.shape[2], pool.num_angles)
        require(angles.shape == shape, f"angles has shape {angles.shape}, expected {shape}")
        require(all(np.isfinite(rows).all() for rows in row_blocks(angles)), "angles has values that are not finite")
    if task.array is not None:
        targets, size = arrays[task.array], (len(x), 2, 2 ** x.shape[1], task.columns(x.shape[1]))
        require(targets.shape == size, f"{task.array} has shape {targets.shape}, expected {size}")
        finite = (np.isfinite(rows).all() for rows in row_blocks(targets))
        require(all(finite), f"{task.array} has values that are not finite")
