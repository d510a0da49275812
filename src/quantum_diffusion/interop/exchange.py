"""Uploads models and data sets to the Hugging Face Hub, and downloads them to a new folder after checking them."""

from __future__ import annotations

import shutil
from pathlib import Path

from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.storage import is_dataset_folder
from quantum_diffusion.errors import CheckpointError, ConfigError, DatasetFormatError, counted
from quantum_diffusion.files import new_folder
from quantum_diffusion.folders import check_nothing_lost
from quantum_diffusion.hub import HubAddress, Kind, download, hub_address, upload
from quantum_diffusion.interop.genqc_pipeline import is_genqc_pipeline
from quantum_diffusion.interop.loading import DATASET_FILES, read_folder
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.pipeline.checkpoint import is_finished_model
from quantum_diffusion.pretrained import MODEL_FILES


def push_folder(folder: str, address: str, private: bool) -> str:
    """Upload a saved model or a data set and return the web address of the upload.

    Args:
        folder: Folder of the model or data set.
        address: hf://owner/name.
        private: Whether the repository is private if it has to be created.

    Raises:
        ConfigError: The folder holds neither, the address is invalid, or the upload failed.
    """
    place, path = _address(address), Path(folder)
    kind = kind_of(path)
    if kind is None:
        raise ConfigError(f"{folder!r} is neither a saved model nor a data set: give the folder of one")
    return upload(path, place, kind, MODEL_FILES if kind == "model" else DATASET_FILES, private)


def kind_of(folder: Path) -> Kind | None:
    """Return what a folder holds, or None for neither a finished model nor a data set."""
    try:
        if is_genqc_pipeline(folder) or is_finished_model(folder):
            return "model"
    except CheckpointError:
        pass
    return "dataset" if is_dataset_folder(folder) else None


def pull_folder(address: str, kind: Kind, output_path: str) -> str:
    """Download a model or a data set, check that it opens, copy it to a new folder and return a description of it.

    Args:
        address: hf://owner/name[/folder].
        kind: What to expect there.
        output_path: The new folder, which must not exist.

    Raises:
        ConfigError: The address is invalid.
        CheckpointError, DatasetFormatError: It cannot be downloaded or opened, or the new folder exists or cannot be
            written.
    """
    place, path = _address(address), Path(output_path)
    error = CheckpointError if kind == "model" else DatasetFormatError
    check_nothing_lost(path, error, "exists: choose another pull.output_path", written=path)
    patterns = MODEL_FILES if kind == "model" else DATASET_FILES
    source = download(place, kind, patterns, error)
    if kind == "model":
        pipeline = load_pipeline(source)
        what = f"a model of {pipeline.task.asked} of up to {pipeline.config.num_qubits} qubits"
    else:
        what = counted(len(DatasetLoader(readers=[read_folder]).load_dataset(source)), "circuit")
    with new_folder(path, error) as staging:
        for file in sorted({file for pattern in patterns for file in source.rglob(pattern) if file.is_file()}):
            target = staging / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)  # follows the links in the Hub's cache
    return what


def _address(text: str) -> HubAddress:
    address = hub_address(text, ConfigError)
    if address is None:
        raise ConfigError(f"cannot read the address {text!r}: expected hf://owner/name")
    return address
