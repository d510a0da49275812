"""The loader that training and evaluation use: native data sets, genQC's folders, and those on the Hugging Face Hub.

`hf://owner/name[/folder]` names a data set repository there; it is downloaded once into the Hub's own cache.
"""

from __future__ import annotations

import os
from pathlib import Path

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.errors import DatasetFormatError
from quantum_diffusion.hub import download, hub_address
from quantum_diffusion.interop.genqc_data import read_dataset

DATASET_FILES = ("*.yaml", "*.safetensors", "*.pt", "*prompts.json", "README.md")
"""All that a data set of ours or of genQC needs; nothing else is downloaded."""


def dataset_loader(seed: int = 0) -> DatasetLoader:
    """Return a `DatasetLoader` that also reads genQC's data sets, and `hf://owner/name[/folder]`.

    Args:
        seed: Decides balancing, the train/validation split and the order of batches.
    """
    return DatasetLoader(seed, readers=(read_hub, read_folder))


def read_folder(path: Path) -> CircuitDataset | None:
    """Read a data set folder of genQC, also one in the Hub's cache; see `read_dataset`.

    There it holds links to files that lie beside the snapshots: CACHE/{blobs,snapshots/REVISION}.
    """
    real = Path(os.path.realpath(path))
    caches = (folder.parents[1] for folder in (real, *real.parents) if folder.parent.name == "snapshots")
    return read_dataset(path, root=next((cache for cache in caches if (cache / "blobs").is_dir()), None))


def read_hub(path: Path) -> CircuitDataset | None:
    """Read a data set, of ours or of genQC, or a folder of data sets from the Hugging Face Hub.

    Args:
        path: `hf://owner/name[/folder]`; as a `Path` has single slashes, `hf:/owner/name` is the same.

    Returns:
        The circuits; None where the path does not begin with `hf:`.

    Raises:
        DatasetFormatError: The address is wrong, nothing can be downloaded, or what is there cannot be read.
        IncompatibleDatasetsError: The data sets of the folder have different gate pools.
    """
    address = hub_address(str(path), DatasetFormatError)
    if address is None:
        return None
    folder = download(address, "dataset", DATASET_FILES, DatasetFormatError)
    if not folder.is_dir():
        raise DatasetFormatError(f"{str(address)!r} has no YAML or tensors: expected a data set that genQC saved")
    return DatasetLoader(readers=[read_folder]).load_dataset(folder)
