"""The section of evaluation: how many circuits a saved model samples to be judged by, and where the figures go.

`evaluate_model.py` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from quantum_diffusion.config.schema.sampling import SamplingConfig
from quantum_diffusion.config.schema.values import PathText, Positive, Seed, Text
from quantum_diffusion.config.validation import Section


class EvaluationConfig(Section):
    """What `evaluate_model.py` does (keys `evaluation.*`)."""

    dataset: PathText
    """Data set whose prompts are asked for. SRV models: the one trained on, its circuits decide what is novel;
    other models: the targets, best made with datasets.exclude."""
    model_dir: PathText
    """Folder of a saved model; pretrained:NAME of one that comes with the package; or hf://owner/name."""
    num_samples: Positive = 1000
    """Circuits to sample, spread evenly over the prompts (SRV models)."""
    num_targets: Positive = 100
    """Most targets to draw from the data set (models that are asked for unitaries or states)."""
    samples_per_target: Positive = 128
    """Circuits to sample for each target (the same models)."""
    save_folder: PathText | None = None
    """Where results go; null writes to `evaluation` inside model_dir, or in this folder for pretrained models and those
    of a hub."""
    seed: Seed = 0
    """Seed of the samples and of the baselines."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    max_drawings: Annotated[int, Field(ge=0, le=1000)] = 12
    """Circuits drawn in the picture."""
    verbose: bool = True
    """Show the progress bar and the table."""
    model_params: SamplingConfig = SamplingConfig()

    @property
    def results_folder(self) -> Path:
        """Where results go."""
        if self.save_folder:
            return Path(self.save_folder)
        return Path("." if self.model_dir.startswith(("pretrained:", "hf:")) else self.model_dir) / "evaluation"
