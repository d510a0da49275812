"""A register of trained models, to list them, find the best by a metric, and load it.

It lives in memory and can be filled from a folder of models.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from quantum_diffusion.arguments import check_kind, check_path
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import CheckpointError, ConfigError, unknown_name
from quantum_diffusion.files import DESCRIPTION
from quantum_diffusion.interop import opening
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tracking.experiment import EVALUATION_FILE, read_evaluation


@dataclass(frozen=True)
class ModelEntry:
    """One registered model.

    Attributes:
        name: Its name in the register.
        folder: Where it is saved.
        metrics: Scalars to compare models by, e.g. {"srv_accuracy": 0.97}.
    """

    name: str
    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)


class ModelManager:
    """The register of trained models: lists them, finds the best, loads it.

    Example:
        >>> models = ModelManager()
        >>> models.register("small", "models/small", {"srv_accuracy": 0.9})
        >>> models.register("large", "models/large", {"srv_accuracy": 0.95})
        >>> models.best("srv_accuracy").name
        'large'
    """

    def __init__(self) -> None:
        self._entries: dict[str, ModelEntry] = {}

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelManager:
        """Register every saved model below a folder, named by its relative path.

        The metrics are the numbers of its `metadata.yaml`, and of `evaluation/metrics.json` where there is one.

        Raises:
            CheckpointError: The folder does not exist.
        """
        root, manager = check_path(folder, "the folder of models"), cls()
        if not os.path.isdir(root):  # which, unlike pathlib's, never raises
            raise CheckpointError(f"no folder {str(root)!r}: give the folder that holds trained models")
        for config in sorted(root.rglob(DESCRIPTION)):
            model = config.parent
            half_saved = any(part.startswith(".") for part in model.relative_to(root).parts)
            if (model / checkpoint.METADATA).is_file() and (model / checkpoint.WEIGHTS).is_file() and not half_saved:
                name = str(model.relative_to(root)) if model != root else root.resolve().name
                manager.register(name, model, _numbers_of(model))
        return manager

    def register(self, name: str, folder: str | Path, metrics: dict[str, float] | None = None) -> None:
        """Add a model, or replace the one of the same name."""
        place = check_path(folder, "the folder of the model")
        numbers = check_kind({} if metrics is None else metrics, dict, "metrics")
        self._entries[name] = ModelEntry(check_kind(name, str, "the name of the model"), place, dict(numbers))

    def list(self) -> list[ModelEntry]:
        """Return all models, sorted by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def get(self, name: str) -> ModelEntry:
        """Return a model by name.

        Raises:
            CheckpointError: There is none of that name.
        """
        if name not in self._entries:
            raise CheckpointError(unknown_name("model", name, self._entries))
        return self._entries[name]

    def best(self, metric: str, mode: str = "max") -> ModelEntry:
        """Return the model with the largest ("max") or smallest ("min") value of a metric.

        Raises:
            ConfigError: The mode is unknown.
            CheckpointError: No model has that metric.
        """
        if mode not in ("max", "min"):
            raise ConfigError(unknown_name("mode", mode, ("max", "min")))
        entries = [entry for entry in self.list() if metric in entry.metrics]
        if not entries:
            known = {name for entry in self.list() for name in entry.metrics}
            raise CheckpointError(f"no model to choose from: {unknown_name('metric', metric, known)}")
        choose = max if mode == "max" else min
        return choose(entries, key=lambda entry: entry.metrics[metric])

    def load(self, name: str, device: str = "auto") -> DiffusionPipeline:
        """Load a model by name; raises CheckpointError as `get` and `load_pipeline` do."""
        return opening.load_pipeline(self.get(name).folder, select_device(device))

    def load_best(self, metric: str, mode: str = "max", device: str = "auto") -> DiffusionPipeline:
        """Load the best model by a metric; see `best`."""
        return opening.load_pipeline(self.best(metric, mode).folder, select_device(device))


def _numbers_of(model: Path) -> dict[str, float]:
    try:
        evaluated = read_evaluation(model)
    except (OSError, ValueError, TypeError) as problem:
        path = str(model / EVALUATION_FILE)
        raise CheckpointError(f"cannot read {path!r} ({problem}): evaluate the model again") from None
    numbers = checkpoint.read_metadata(model).items()
    own = {
        key: float(value) for key, value in numbers if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {key: value for key, value in own.items() if math.isfinite(value)} | evaluated
