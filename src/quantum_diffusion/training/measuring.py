"""Samples circuits during training to measure accuracy, and draws a few of them.

Every measurement makes the same requests, so that only the weights change the result.
"""

from __future__ import annotations

import numpy as np

from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.base import LabelledCircuits
from quantum_diffusion.tasks.samples import SampledCircuits
from quantum_diffusion.training.source import Loaders


def sample_evenly(pipeline: DiffusionPipeline, loaders: Loaders, count: int, seed: int) -> SampledCircuits:
    """Sample circuits for the task's validation requests, spread evenly over prompts or known circuits.

    Args:
        pipeline: The pipeline, with the weights to measure.
        loaders: Batches of the run; requests come from validation circuits, or from training circuits without any.
        count: Total number of circuits.
        seed: Seed of the run.
    """
    loader = loaders[1] or loaders[0]

    def known(number: int) -> LabelledCircuits:
        return loader.dataset.labelled(np.resize(loader.rows[:: max(1, len(loader.rows) // number)], number))

    requests = pipeline.task.validation_requests(count, pipeline.config.prompts, known, pipeline.table)
    return pipeline.sample(requests, seed)


def draw_samples(samples: SampledCircuits, num_prompts: int, count: int = 4) -> str:
    """Draw a few samples of prompts as different as possible, each under its request and outcome."""
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    backend = QiskitBackend()
    last = min(max(num_prompts, count), len(samples)) - 1
    rows = np.unique(np.linspace(0, last, count, dtype=np.int64))
    parts = []
    for row in rows.tolist():
        drawing = backend.draw_text(samples.circuits([row])[0]) if samples.report.valid[row] else ""
        parts.append(f"{samples.outcome(row)}\n{drawing}")
    return "\n\n".join(parts)
