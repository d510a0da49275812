"""Locates models: in a folder, on the Hub, or in `weights/`, which holds the pretrained models of the package.

Commands use a pretrained model by default. Each has a card, README.md, with its data, recipe, figures and limits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quantum_diffusion.errors import CheckpointError, ConfigError, unknown_name
from quantum_diffusion.hub import download, hub_address

WEIGHTS = Path(__file__).parent / "weights"
PREFIX = "pretrained:"
DEFAULTS = {"sample": ("srv",), "compile": ("unitary_3q", "unitary_4q", "unitary_5q"), "prepare": ("state",)}
"""The default models of each command; it uses the first with enough qubits."""

WITH_ANGLES = {"compile": ("angles_3q",), "prepare": ("angles_state",)}
"""The default models of a command for gates with angles."""

QUBITS_WITH_ANGLES = {"compile": 3, "prepare": 4}
"""Maximum number of qubits of these."""

MODEL_FILES = ("*.yaml", "*.safetensors", "README.md", "model.pt", "embedder.pt")
"""The files of a model on the Hub, ours or genQC's; nothing else is downloaded or uploaded."""


def pretrained_names() -> Sequence[str]:
    """Return the names of the models that come with the package, those of gates with angles last."""
    names = [folder.name for folder in WEIGHTS.iterdir() if (folder / "config.yaml").is_file()]
    with_angles = {name for models in WITH_ANGLES.values() for name in models}
    return sorted(names, key=lambda name: (name in with_angles, name))


def model_folder(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, which need not exist.

    Args:
        model: A folder; `pretrained:NAME`; or `hf://owner/name[/folder]`, which is downloaded once.

    Raises:
        ConfigError: The package has no model of that name.
        CheckpointError: The address is wrong, or the download failed.
    """
    text = os.fspath(model)
    if text.startswith(PREFIX):
        name = text.removeprefix(PREFIX)
        if name not in pretrained_names():
            raise ConfigError(f"{unknown_name('pretrained model', name, pretrained_names())}; or give a model's folder")
        return WEIGHTS / name
    address = hub_address(text, CheckpointError)
    return Path(text) if address is None else download(address, "model", MODEL_FILES, CheckpointError)


def model_name(folder: Path) -> str:
    """Return what `model_folder` takes for a folder: `pretrained:NAME` for the models of the package."""
    return PREFIX + folder.name if folder.parent == WEIGHTS else os.fspath(folder)


def model_folders(model: str | None, command: str, with_angles: bool = False) -> Sequence[Path]:
    """Return the folders of the models that a command may use, those with fewer qubits first.

    Args:
        model: See `model_folder`; None gives the pretrained models.
        command: The command.
        with_angles: Whether the pretrained models are those of gates with angles.
    """
    if model is not None:
        return [model_folder(model)]
    return [WEIGHTS / name for name in (WITH_ANGLES if with_angles else DEFAULTS)[command]]
