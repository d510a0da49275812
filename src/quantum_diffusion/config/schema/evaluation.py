"""The section of evaluation: how many circuits to sample from a saved model, and where the results go.

`quantum-diffusion evaluate` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from quantum_diffusion.config.schema.sampling import SamplingConfig
from quantum_diffusion.config.schema.values import PathText, Positive, Seed, Text
from quantum_diffusion.config.validation import Section


class EvaluationConfig(Section):
    """What `quantum-diffusion evaluate` does (keys `evaluation.*`)."""

    dataset: PathText
    """Data set to take prompts from. SRV models: the training data, which also decides which circuits are novel;
    other models: a data set of targets, best generated with datasets.exclude."""
    model_dir: PathText
    """Folder of a saved model, pretrained:NAME or hf://owner/name."""
    num_samples: Positive = 1000
    """Circuits to sample, spread evenly over the prompts (SRV models)."""
    num_targets: Positive = 100
    """Maximum number of targets to draw from the data set (models of unitaries or states)."""
    samples_per_target: Positive = 128
    """Circuits to sample for each target (models of unitaries or states)."""
    save_folder: PathText | None = None
    """Folder for the results; null writes to `evaluation` inside model_dir, or inside the current folder for pretrained
    and Hub models."""
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
        """Folder for the results."""
        if self.save_folder:
            return Path(self.save_folder)
        return Path("." if self.model_dir.startswith(("pretrained:", "hf:")) else self.model_dir) / "evaluation"
