"""The data set loader of training and evaluation, for native data sets, genQC's folders and the Hugging Face Hub.

`hf://owner/name[/folder]` is a data set repository on the Hub; it is downloaded once into the Hub's own cache.
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
"""The files of a data set on the Hub, ours or genQC's; nothing else is downloaded or uploaded."""


def dataset_loader(seed: int = 0) -> DatasetLoader:
    """Return a `DatasetLoader` that also reads genQC's data sets, and `hf://owner/name[/folder]`.

    Args:
        seed: Determines balancing, the train/validation split and the order of batches.
    """
    return DatasetLoader(seed, readers=(read_hub, read_folder))


def read_folder(path: Path) -> CircuitDataset | None:
    """Read a genQC data set folder, possibly in the Hub's cache; see `read_dataset`.

    In the cache, CACHE/{blobs,snapshots/REVISION}, the files of a snapshot are links to `blobs`.
    """
    real = Path(os.path.realpath(path))
    caches = (folder.parents[1] for folder in (real, *real.parents) if folder.parent.name == "snapshots")
    return read_dataset(path, root=next((cache for cache in caches if (cache / "blobs").is_dir()), None))


def read_hub(path: Path) -> CircuitDataset | None:
    """Read a data set, ours or genQC's, or a folder of data sets from the Hugging Face Hub.

    Args:
        path: `hf://owner/name[/folder]`; `hf:/owner/name` is the same, because `Path` merges slashes.

    Returns:
        The circuits; None if the path does not begin with `hf:`.

    Raises:
        DatasetFormatError: The address is invalid, or the data set cannot be downloaded or read.
        IncompatibleDatasetsError: The data sets in the folder have different gate pools.
    """
    address = hub_address(str(path), DatasetFormatError)
    if address is None:
        return None
    folder = download(address, "dataset", DATASET_FILES, DatasetFormatError)
    if not folder.is_dir():
        raise DatasetFormatError(f"{str(address)!r} has no YAML or tensors: expected a data set that genQC saved")
    return DatasetLoader(readers=[read_folder]).load_dataset(folder)
