"""Diffusion models that write quantum circuits: data, training, verified sampling, evaluation.

`import quantum_diffusion as qd` has no side effects and loads nothing heavy: each name is imported on first use.
docs/python.md shows how to use it, docs/architecture.md maps the code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from quantum_diffusion.api import Model, compile, evaluate, generate, load, prepare, refine, sample, train
    from quantum_diffusion.circuits.circuit import Circuit, Instruction
    from quantum_diffusion.data.dataset import DatasetLoader
    from quantum_diffusion.errors import QuantumDiffusionError
    from quantum_diffusion.pipeline.editing import Edit
    from quantum_diffusion.training.training import DiffusionTrainer, ModelManager

__all__ = [
    "Circuit",
    "DatasetLoader",
    "DiffusionTrainer",
    "Edit",
    "Instruction",
    "Model",
    "ModelManager",
    "QuantumDiffusionError",
    "compile",
    "evaluate",
    "generate",
    "load",
    "prepare",
    "refine",
    "sample",
    "train",
]

_MODULES = {
    "Circuit": "circuits.circuit",
    "Instruction": "circuits.circuit",
    "DatasetLoader": "data.dataset",
    "Edit": "pipeline.editing",
    "QuantumDiffusionError": "errors",
    "DiffusionTrainer": "training.training",
    "ModelManager": "training.training",
}
"""The module of each name; the other names come from `api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
