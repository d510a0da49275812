"""The trained models that come with the package, in `weights/`: what a command takes where none is named.

Each folder has its card, README.md: data, recipe, figures and limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantum_diffusion.errors import ConfigError, unknown_name

WEIGHTS = Path(__file__).parent / "weights"
PREFIX = "pretrained:"
DEFAULTS = {"sample": ("srv",), "compile": ("unitary_3q", "unitary_4q", "unitary_5q"), "prepare": ("state",)}
"""The models that a command takes where none is named: the first that has the qubits of what is asked for."""


def pretrained_names() -> Sequence[str]:
    """Return the names of the models that come with the package."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if (folder / "config.yaml").is_file())


def model_folder(model_dir: str | None, command: str) -> Path:
    """Return where the model of a command lies; of several that it may take, the first. See `model_folders`."""
    return model_folders(model_dir, command)[0]


def model_folders(model_dir: str | None, command: str) -> Sequence[Path]:
    """Return where the models of a command lie, those of fewer qubits first.

    Args:
        model_dir: A folder, or pretrained:NAME; None takes those that come with the package.
        command: The command, whose name is that of its section, too.

    Raises:
        ConfigError: There is no model of that name.
    """
    if model_dir is None:
        return [WEIGHTS / name for name in DEFAULTS[command]]
    if not model_dir.startswith(PREFIX):
        return [Path(model_dir)]
    name = model_dir.removeprefix(PREFIX)
    if name not in pretrained_names():
        raise ConfigError(
            f"{command}.model_dir: {unknown_name('model', name, pretrained_names())}; or give the folder of a model"
        )
    return [WEIGHTS / name]
