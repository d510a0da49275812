"""Measuring while training: circuits are sampled, and a few of them drawn.

What is asked for is the same each time, so that only the weights make a difference.
"""

from __future__ import annotations

import numpy as np

from quantum_diffusion.circuits.simulate import Complex, corners
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.samples import SampledCircuits
from quantum_diffusion.training.source import Loaders


def sample_evenly(pipeline: DiffusionPipeline, loaders: Loaders, count: int, seed: int) -> SampledCircuits:
    """Sample circuits, spread evenly over the prompts; for unitaries, over those of known circuits.

    Args:
        pipeline: Computes with the weights that are measured.
        loaders: Those of the run; their circuits' unitaries are asked for.
        count: Circuits in all.
        seed: Seed of the run.
    """
    if isinstance(pipeline, CompilationDiffusionPipeline):
        asked, targets = _known_targets(loaders[1] or loaders[0], count)
        return pipeline.sample(asked, targets, seed)
    prompts = pipeline.config.prompts
    return pipeline.sample([prompts[number % len(prompts)] for number in range(count)], seed)


def _known_targets(loader: BatchLoader, count: int) -> tuple[list[str], list[Complex]]:
    """Return prompts and unitaries of circuits, spread evenly over those of a loader."""
    data = loader.dataset
    rows = np.resize(loader.rows[:: max(1, len(loader.rows) // count)], count)
    _, matrices = data.simulate(rows)
    return [data.prompts[number] for number in data.prompt_index[rows]], corners(matrices, data.sizes[rows, 0])


def draw_samples(samples: SampledCircuits, num_prompts: int, count: int = 4) -> str:
    """Draw a few samples, of prompts as different as may be, under what was asked for and what they are."""
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    backend = QiskitBackend()
    last = min(max(num_prompts, count), len(samples)) - 1
    rows = np.unique(np.linspace(0, last, count, dtype=np.int64))
    parts = []
    for row in rows.tolist():
        drawing = backend.draw_text(samples.circuits([row])[0]) if samples.report.valid[row] else ""
        parts.append(f"{samples.outcome(row)}\n{drawing}")
    return "\n\n".join(parts)
