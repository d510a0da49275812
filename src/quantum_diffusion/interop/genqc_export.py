"""Writes data sets as folders that genQC 0.2.5 can open; `genqc_data` reads them.

Both formats have the same tokens; only the files, the names and the padding of mixed data sets differ.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import pad_time
from quantum_diffusion.errors import DatasetFormatError, QuantumDiffusionError
from quantum_diffusion.files import DESCRIPTION, new_folder
from quantum_diffusion.folders import check_nothing_lost, names_in
from quantum_diffusion.interop.genqc_data import MIXED, PREFIXES, SINGLE
from quantum_diffusion.interop.torch_files import KEY
from quantum_diffusion.tasks.srv import SrvTask
from quantum_diffusion.tasks.unitary import UnitaryTask

_PREFIX = PREFIXES[0]
_TIME_MULTIPLE = 4
"""genQC's U-Net halves the time axis twice, so batches must be cut to a multiple of this (`model_scale_factor`)."""


def check_export(path: str | Path, error: type[QuantumDiffusionError]) -> None:
    """Raise an error if an export cannot be written to a path without replacing something.

    Args:
        path: The folder to write.
        error: Type to raise if there is a file or a non-empty folder at the path, or if it cannot be written.
    """
    path = Path(path)
    check_nothing_lost(
        path,
        error,
        "exists and is not an empty folder: choose another one for the export",
        entries=names_in(path) if path.is_dir() else None,
        written=path,
    )


_TASKS = (SrvTask.name, UnitaryTask.name)
"""The tasks that genQC has data sets for."""


def export_dataset(dataset: CircuitDataset, path: str | Path) -> str:
    """Write a data set, in one step, as a folder that genQC 0.2.5 opens with `from_config_file`.

    Circuits of several sizes become a mixed data set of genQC: all cells outside a circuit are padding, time steps are
    padded to a multiple of 4, and `z` holds the numbers of qubits and time steps.

    Args:
        dataset: The data set to write.
        path: A folder that does not exist or is empty. Its `config.yaml` contains its path; if you move the folder,
            give genQC the argument `save_path`.

    Returns:
        The name of genQC's class.

    Raises:
        DatasetFormatError: The folder is not empty or cannot be written, genQC has no such task, or the gates have
            angles.
    """
    check_export(path, DatasetFormatError)
    if dataset.condition_type not in _TASKS:
        raise DatasetFormatError(
            f"genQC has no task for {dataset.task.asked}: export a data set of condition_type {' or '.join(_TASKS)}"
        )
    if dataset.gate_pool.num_angles:
        raise DatasetFormatError(
            "exports have no place for angles, so genQC would read other circuits: export a data set of gates without"
        )
    padding = dataset.gate_pool.padding_token
    is_mixed = bool((np.abs(dataset.tokens) == padding).any() or (dataset.sizes[:, 0] < dataset.num_qubits).any())
    texts = np.array(dataset.prompts)[dataset.prompt_index]
    tensors = _mixed_tensors(dataset) if is_mixed else _single_tensors(dataset)
    params: dict[str, Any] = {
        "store_dict": {key: "numpy" if key == "y" else "tensor" for key in _order(tensors)},
        "dataset_to_gpu": False,
        "optimized": False,
        "random_samples": len(dataset),
        "num_of_qubits": dataset.num_qubits,
        "min_gates": int(dataset.sizes[:, 1].min()),
        "max_gates": int(tensors["x"].shape[2]),
        "max_params": 0,
        "gate_pool": list(dataset.gate_pool.names),
    }
    if is_mixed:
        params |= {
            "pad_constant": padding,
            "collate_fn": "cut_padding_collate_fn" + ("_compilation_params" if "U" in tensors else ""),
            "bucket_batch_size": -1,
            "model_scale_factor": _TIME_MULTIPLE,
        }
    description = {
        "target": MIXED if is_mixed else SINGLE,
        "device": "cpu",
        "comment": "written by quantum_diffusion",
        "save_path": f"{os.path.realpath(path)}/{_PREFIX}",
        "save_type": "safetensors",
        "params": params,
    }
    with new_folder(Path(path), DatasetFormatError) as folder:
        (folder / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
        (folder / _PREFIX).parent.mkdir()
        (folder / f"{_PREFIX}_y.pt").write_bytes(_pickled(texts))
        for key, tensor in tensors.items():
            content = to_safetensors({KEY: np.ascontiguousarray(tensor)})
            (folder / f"{_PREFIX}_{key}.safetensors").write_bytes(content)
    return str(description["target"]).rpartition(".")[2]


def _order(tensors: dict[str, NDArray[Any]]) -> list[str]:
    """Order the keys as genQC's collate functions expect."""
    return [key for key in ("x", "y", "params", "U", "z") if key == "y" or key in tensors]


def _single_tensors(dataset: CircuitDataset) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {"x": dataset.tokens.astype(np.int32)}
    return tensors if dataset.targets is None else tensors | {"U": dataset.targets}


def _mixed_tensors(dataset: CircuitDataset) -> dict[str, NDArray[Any]]:
    padding = dataset.gate_pool.padding_token
    tokens = pad_time(dataset.tokens, _TIME_MULTIPLE, padding)
    qubits, steps = dataset.sizes[:, 0, None], np.maximum(dataset.sizes[:, 1, None], 1)
    absent = np.arange(tokens.shape[1]) >= qubits  # [N, Q]
    ended = np.arange(tokens.shape[2]) >= steps  # [N, T]
    x = np.where(absent[:, :, None] | ended[:, None, :], padding, tokens)
    z = np.hstack([qubits, -(-steps // _TIME_MULTIPLE) * _TIME_MULTIPLE])
    tensors: dict[str, NDArray[Any]] = {"x": x.astype(np.int32), "z": z.astype(np.int32)}
    if dataset.targets is not None:  # genQC can batch unitaries only with parameters: give it empty ones
        parameters = np.zeros((len(dataset), 0, tokens.shape[2]), dtype=np.float32)
        tensors |= {"params": parameters, "U": dataset.targets}
    return tensors


def _pickled(texts: NDArray[np.str_]) -> bytes:
    """Return the file content that genQC's `store_tensor` writes for an array of texts."""
    import torch

    buffer = io.BytesIO()
    torch.save({KEY: texts}, buffer, pickle_protocol=5)
    return buffer.getvalue()
