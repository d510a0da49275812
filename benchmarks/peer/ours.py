"""This package's side: each case returns a function that does the work once and returns (count, seconds).

The cases mirror those of theirs.py, with the same parameters.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.circuits.tokenizer import decode_tokens
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import load_dataset_folder
from quantum_diffusion.device import select_device
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import fit
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.tasks.targets import TargetTask
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers

Measure = Callable[[], tuple[float, float]]

DEVICE = select_device("auto")
PRESETS = {"SRV": "paper_srv_stage_1", "UNITARY": "paper_unitary"}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that work takes, including the device's."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def generation(data: dict[str, Any], num_samples: int, **_: Any) -> Measure:
    """Generate distinct, simplified, labelled circuits on every core."""
    seeds = itertools.count()

    def measure() -> tuple[float, float]:
        config = DatasetConfig.model_validate(data | {"num_samples": num_samples, "seed": next(seeds)})
        started = time.perf_counter()
        dataset, _ = DatasetGenerator(config).generate()
        seconds = time.perf_counter() - started
        assert len(np.unique(row_keys(dataset.tokens))) == len(dataset)
        return len(dataset), seconds

    return measure


def _config(kind: str, precision: str = "auto") -> TrainingConfig:
    overrides = [f"training={PRESETS[kind]}", "training.general.dataset=none", "training.training.num_epochs=1000"]
    return compose("training", TrainingConfig, [*overrides, f"training.training.precision={precision}"])


def training(folder: str, kind: str, batch: int, steps: int, precision: str, **_: Any) -> Measure:
    """Train the paper's U-Net with our loop."""
    dataset, config = load_dataset_folder(Path(folder)), _config(kind, precision)
    pipeline = make_pipeline(pipeline_config(config, dataset)).to(DEVICE)
    loader = DatasetLoader().get_dataloaders(dataset, batch, 0.0, time_multiple=pipeline.time_multiple)[0]
    if DEVICE.type == "cuda":
        loader.keep_on(DEVICE, pipeline.decode)
    loop = config.training
    optimizers = make_optimizers(pipeline.network, loop.optimizer, loop.learning_rate, 0.0)
    schedules = make_lr_schedules(optimizers, loop.lr_scheduler, 10_000, loop.warmup_fraction)
    state = TrainingState(pipeline.network, optimizers, schedules, None)

    def measure() -> tuple[float, float]:
        settings = loop.model_copy(update={"max_steps": state.step + steps, "batch_size": batch})
        return batch * steps, timed(lambda: fit(pipeline, loader, None, state, settings, 0))

    measure()
    return measure


def _untrained(
    kind: str, num_qubits: int, max_gates: int, gates: list[str]
) -> tuple[DiffusionPipeline, CircuitDataset]:
    """Return the paper's U-Net with random weights, and a few circuits to take requests from."""
    data = {"num_qubits": num_qubits, "max_gates": max_gates, "gate_set": gates, "condition_type": kind}
    dataset, _ = DatasetGenerator(DatasetConfig.model_validate(data | {"num_samples": 500, "n_jobs": 1})).generate()
    pipeline = make_pipeline(pipeline_config(_config(kind), dataset)).to(DEVICE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the last layer of blocks starts at zero
        for weight in pipeline.network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator).to(DEVICE)
    pipeline.network.eval()
    return pipeline, dataset


def _requests(pipeline: DiffusionPipeline, dataset: CircuitDataset, count: int) -> Requests:
    known = dataset.labelled(np.resize(np.arange(len(dataset)), count))
    return pipeline.task.validation_requests(count, dataset.prompts, lambda _: known, pipeline.table)


def sampling(
    kind: str, num_qubits: int, max_gates: int, gates: list[str], count: int, steps: int, scale: float, **_: Any
) -> Measure:
    """Sample with the paper's U-Net, including decoding and verification."""
    pipeline, dataset = _untrained(kind, num_qubits, max_gates, gates)
    requests = _requests(pipeline, dataset, count)
    options = SamplingConfig(guidance_scale=scale, sample_steps=steps, auto_batch_size=count)
    pipeline.sample(requests, 0, options)
    return lambda: (count, timed(lambda: pipeline.sample(requests, 0, options)))


def evaluation(folder: str, kind: str, **_: Any) -> Measure:
    """Decode circuits, simulate them and compare them with their labels."""
    dataset = load_dataset_folder(Path(folder))
    task, table = TASKS[kind], instruction_table(dataset.gate_pool, dataset.num_qubits)
    known = dataset.labelled(np.arange(len(dataset)))
    allowed = np.ones((len(dataset), len(table) + 1), bool)
    targets = task.targets_of(known.ids, table) if isinstance(task, TargetTask) else None
    requests = Requests(tuple(known.prompts), known.num_qubits, allowed, targets)

    def work() -> None:
        samples = task.verify(requests, decode_tokens(dataset.tokens, dataset.gate_pool), table)
        assert samples.matches.all()

    return lambda: (len(dataset), timed(work))


def verified(model: str, folder: str, kind: str, ours: int, **_: Any) -> Measure:
    """Sample circuits with a shipped model at its defaults and verify them; only exact ones count."""
    pipeline = load_pipeline(model).to(DEVICE)
    seeds = itertools.count()
    dataset = load_dataset_folder(Path(folder))
    known = dataset.labelled(np.arange(ours))
    targets = pipeline.task.targets_of(known.ids, known.table) if isinstance(pipeline.task, TargetTask) else None
    requests = pipeline.requests(known.prompts, targets)

    def measure() -> tuple[float, float]:
        started = time.perf_counter()
        matches = pipeline.sample(requests, next(seeds)).matches
        return float(matches.sum()), time.perf_counter() - started

    measure()
    return measure


def loading(ours: str, batch: int, **_: Any) -> Measure:
    """Load data sets, merge them, and take the first batch."""

    def work() -> None:
        loader = dataset_loader(0)
        dataset = loader.combine_datasets([loader.load_dataset(ours)])
        batches, _ = loader.get_dataloaders(dataset, batch, 0.05)
        next(iter(batches.epoch(0)))

    return lambda: (1, timed(work))


def importing(**_: Any) -> Measure:
    """Import what training and sampling need, in a process of its own."""
    modules = (
        "quantum_diffusion.training.training, quantum_diffusion.interop.opening, quantum_diffusion.interop.loading, "
        "quantum_diffusion.circuits.backends.qiskit"
    )
    return lambda: (1, timed(lambda: subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)))
