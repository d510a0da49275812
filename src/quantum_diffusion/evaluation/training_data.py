"""Locates a model's training data by content, so that evaluation can leave out targets that occur there.

A model initialised from another model's weights has learned from the training data of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.storage import is_dataset_folder, read_description
from quantum_diffusion.errors import CheckpointError, DatasetFormatError, QuantumDiffusionError
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.interop.opening import read_metadata
from quantum_diffusion.pipeline.checkpoint import TRAINING_CONFIG
from quantum_diffusion.pretrained import PREFIX, model_folder


@dataclass(frozen=True)
class TrainingData:
    """The data sets a model was trained on.

    Attributes:
        datasets: Those found unchanged.
        missing: Why the others were not found, in words; None if all were found.
    """

    datasets: tuple[CircuitDataset, ...]
    missing: str | None = None


def find_training_data(model_dir: Path, near: Path | None = None) -> TrainingData:
    """Return the data sets used to train a model and the models it was initialised from.

    Each is searched for at its original path, then by its given path relative to the current folder and the model's
    parent folders, then next to another data set. A data set counts only if it holds exactly the same circuits.

    Args:
        model_dir: Folder of the model.
        near: A data set folder whose siblings are searched, too.
    """
    found: dict[str, CircuitDataset] = {}
    models, missing = set[Path](), list[str]()
    model: Path | None = model_dir
    while model is not None and model.resolve() not in models:
        models.add(model.resolve())
        try:
            metadata = read_metadata(model)
        except CheckpointError:
            missing.append(f"the model {str(model)!r}, from which it began, is gone")
            break
        fingerprint = str(metadata.get("dataset_sha256"))
        if fingerprint not in found:
            dataset = _find(metadata, model, near)
            if isinstance(dataset, str):
                missing.append(dataset)
            else:
                found[fingerprint] = dataset
        model = _origin(metadata, model)
    return TrainingData(tuple(found.values()), "; ".join(missing) or None)


def _find(metadata: dict[str, Any], model: Path, near: Path | None) -> CircuitDataset | str:
    """Return the data set named in a model's metadata, or the reason why it was not found."""
    given, fingerprint = metadata.get("dataset"), metadata.get("dataset_sha256")
    if not given or not fingerprint:
        return "the model does not record its training data"
    given = str(given)
    if given.startswith("stream:"):
        return f"it was trained on {given!r}, whose circuits were not kept"
    changed = False
    for path in _places(given, metadata, model, near):
        try:
            dataset = dataset_loader().load_dataset(path)
        except QuantumDiffusionError:  # missing, or not a data set
            continue
        if dataset.fingerprint == fingerprint:
            return dataset
        changed = True
    if changed:
        return f"{given!r} no longer holds the circuits it was trained on"
    return f"its training data {given!r} were not found: restore them, or put them beside the targets"


def _places(given: str, metadata: dict[str, Any], model: Path, near: Path | None) -> Iterator[str | Path]:
    if given.startswith("hf:"):
        yield given
        return
    places = dict.fromkeys([Path(metadata.get("dataset_path") or given), *_around(given, model)])
    yield from (place for place in places if place.is_dir())
    if near is not None and near.absolute().parent.is_dir():
        for neighbour in sorted(near.absolute().parent.iterdir()):
            if neighbour not in places and _may_be(neighbour, metadata):
                yield neighbour


def _around(given: str, model: Path) -> list[Path]:
    """Return a training path resolved against the current folder and each parent folder of the model."""
    return [folder / given for folder in (Path.cwd(), *model.absolute().parents)]


def _may_be(folder: Path, metadata: dict[str, Any]) -> bool:
    """Return whether a folder is a data set of the right number of circuits, a quick check before reading it all."""
    try:
        return is_dataset_folder(folder) and read_description(folder).get("num_circuits") == metadata.get(
            "num_circuits"
        )
    except (DatasetFormatError, OSError):
        return False


def _origin(metadata: dict[str, Any], model: Path) -> Path | None:
    """Return the model that a model was initialised from; None if it started from random weights."""
    if "init_from" in metadata:
        given = metadata["init_from"]
    else:  # written by an earlier version
        try:
            values = yaml.safe_load((model / TRAINING_CONFIG).read_text(encoding="utf-8"))
            given = values["general"]["init_from_pipeline_dir"]
        except Exception:  # PyYAML raises many kinds of exception
            given = None
    if not given:
        return None
    if str(given).startswith(PREFIX):
        return model_folder(str(given))
    return next((place for place in _around(str(given), model) if place.is_dir()), Path(given))
