"""Where models lie: in a folder, on the Hub, or in `weights/`, among those that come with the package.

What a command takes where no model is named is one of the last. Each has its card, README.md: data, recipe, figures and
limits.
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
"""The models that a command takes where none is named: the first that has the qubits of what is asked for."""

MODEL_FILES = ("*.yaml", "*.safetensors", "README.md", "model.pt", "embedder.pt")
"""What a model's folder on the Hub has, of ours or of genQC; nothing else is downloaded or uploaded."""


def pretrained_names() -> Sequence[str]:
    """Return the names of the models that come with the package."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if (folder / "config.yaml").is_file())


def model_folder(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, which may not be there.

    Args:
        model: A folder; `pretrained:NAME`; or `hf://owner/name[/folder]`, which is downloaded once.

    Raises:
        ConfigError: No model of that name comes with the package.
        CheckpointError: The address cannot be read, or nothing can be downloaded.
    """
    text = os.fspath(model)
    if text.startswith(PREFIX):
        name = text.removeprefix(PREFIX)
        if name not in pretrained_names():
            raise ConfigError(f"{unknown_name('pretrained model', name, pretrained_names())}; or give a model's folder")
        return WEIGHTS / name
    address = hub_address(text, CheckpointError)
    return Path(text) if address is None else download(address, "model", MODEL_FILES, CheckpointError)


def model_folders(model: str | None, command: str) -> Sequence[Path]:
    """Return where the models that a command may take lie, those of fewer qubits first.

    Args:
        model: See `model_folder`; None takes those that come with the package.
        command: The command.
    """
    return [WEIGHTS / name for name in DEFAULTS[command]] if model is None else [model_folder(model)]
