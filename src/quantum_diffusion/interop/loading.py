"""The loader that training and evaluation use: native data sets, genQC's folders, and those on the Hugging Face Hub.

`hf://owner/name[/folder]` names a data set repository there; it is downloaded once into the Hub's own cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.errors import DatasetFormatError, first_line
from quantum_diffusion.interop.genqc_data import read_dataset

_PATTERNS = ("*.yaml", "*.safetensors", "*.pt", "*prompts.json")
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
    if path.parts[:1] != ("hf:",):
        return None
    names = path.parts[1:]
    if len(names) < 2 or not all(re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) for name in names):
        raise DatasetFormatError(
            f"cannot read the address {_address(path)!r}: expected hf://owner/name or hf://owner/name/folder"
        )
    snapshot = _download("/".join(names[:2]), "/".join(names[2:]), _address(path))
    folder = snapshot.joinpath(*names[2:])
    if not folder.is_dir():
        raise DatasetFormatError(f"{_address(path)!r} has no YAML or tensors: expected a data set that genQC saved")
    return DatasetLoader(readers=[read_folder]).load_dataset(folder)


def _address(path: Path) -> str:
    return "hf://" + "/".join(path.parts[1:])


def _download(repository: str, folder: str, address: str) -> Path:
    """Download the files of a data set repository, or take them from the cache; returns the folder of all of it."""
    from huggingface_hub import constants, errors, snapshot_download

    patterns = [f"{folder}/{pattern}" if folder else pattern for pattern in _PATTERNS]
    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))
    except errors.GatedRepoError:
        what = "its owner wants to be asked: ask on its page, then run `hf auth login`"
    except errors.RepositoryNotFoundError:
        what = "there is no such data set, or it is private: check the name, or run `hf auth login`"
    except errors.LocalEntryNotFoundError:
        reason = "HF_HUB_OFFLINE=1 is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        what = f"{reason} and not all of it was downloaded before: connect, or give a folder on this machine"
    except Exception as problem:  # the network has more ways to fail than the library has names for
        what = f"{first_line(problem)}; try again, or give a folder on this machine"
    raise DatasetFormatError(f"cannot download {address!r}: {what}")
