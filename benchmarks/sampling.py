"""Measures the circuits per second of masked models with cached steps and with full passes, and how many agree.

Run: python benchmarks/sampling.py [repetitions] [circuits]; both variants take turns on the same requests and seeds,
on CUDA if available. The results include the rate of arithmetic and, for comparison, the device's rate of matrix
products, measured in the same run.
"""

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from rates import matrix_rate, operations, timed

from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.device import select_device
from quantum_diffusion.diffusion.masked import of_wanted_steps
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.guided import Guided
from quantum_diffusion.tasks.samples import Requests, SampledCircuits

CASES = {
    "SRV, 3 qubits x 16 steps": ("quick_test_srv", {"num_qubits": 3, "max_gates": 16}),
    "SRV, 8 qubits x 52 steps": ("quick_test_srv", {"num_qubits": 8, "max_gates": 52}),
    "unitaries, 3 qubits x 12 steps": (
        "compile_3q",
        {
            "num_qubits": 3,
            "max_gates": 12,
            "condition_type": "UNITARY",
            "gate_set": ("h", "cx", "z", "x", "ccx", "swap"),
        },
    ),
    "states, 4 qubits x 6 steps": (
        "quick_test_state",
        {"num_qubits": 4, "max_gates": 6, "condition_type": "STATE", "gate_set": ("h", "cx", "z", "x", "ccx", "swap")},
    ),
}


def build(preset: str, data: dict[str, object], count: int, device: torch.device) -> tuple[DiffusionPipeline, Requests]:
    """Return an untrained pipeline with perturbed weights, and requests taken from circuits of its data."""
    dataset, _ = DatasetGenerator(DatasetConfig(num_samples=500, n_jobs=1, **data)).generate()
    config = compose("training", TrainingConfig, [f"training={preset}", "training.general.dataset=none"])
    pipeline = make_pipeline(pipeline_config(config, dataset)).to(device)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in pipeline.network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator).to(device)
    known = dataset.labelled(np.resize(np.arange(len(dataset)), count))
    return pipeline, pipeline.task.validation_requests(count, dataset.prompts, lambda _: known, pipeline.table)


@contextmanager
def whole_passes() -> Iterator[None]:
    """Predict every step by a pass over all steps."""
    with patch.object(Guided, "reader", lambda self, num_steps: of_wanted_steps(self)):
        yield


def draw(
    pipeline: DiffusionPipeline, requests: Requests, options: SamplingConfig, device: torch.device
) -> tuple[float, SampledCircuits]:
    """Return the seconds that sampling takes, and the samples."""
    made: list[SampledCircuits] = []
    seconds = timed(lambda: made.append(pipeline.sample(requests, 0, options)), device)
    return seconds, made[0]


def main(repetitions: int, count: int) -> None:
    """Measure all cases in turn and print medians."""
    device = select_device("auto")
    options = SamplingConfig(order="left_to_right", guidance_scale=3.0, auto_batch_size=count)
    print(f"{count} circuits on {device}, guidance 3; {matrix_rate(device) / 1e9:,.0f} GFLOP/s in products of matrices")
    titles = ["case", "with a memory", "whole passes", "ratio", "same circuits", "time that verifies", "GFLOP/s"]
    print("|", " | ".join(titles), "|\n|---|" + (len(titles) - 1) * "---:|")
    for name, (preset, data) in CASES.items():
        pipeline, requests = build(preset, data, count, device)
        arithmetic = operations(partial(pipeline.sample, requests, 0, options))
        times: list[tuple[float, float]] = []
        shares: list[float] = []
        same = 1.0
        for _ in range(repetitions):
            fast, circuits = draw(pipeline, requests, options, device)
            with whole_passes():
                slow, others = draw(pipeline, requests, options, device)
            times.append((fast, slow))
            same = min(same, float((circuits.ids == others.ids).all(axis=1).mean()))
            verified = timed(partial(pipeline.task.verify, requests, circuits.report, pipeline.table), device)
            shares.append(verified / fast)
        fast, slow = (statistics.median(side) for side in zip(*times, strict=True))
        ratio = statistics.median(one / other for other, one in times)
        done = arithmetic / fast / 1e9
        print(
            f"| {name} | {count / fast:,.0f} | {count / slow:,.0f} | {ratio:.1f} | {same:.2%} "
            f"| {statistics.median(shares):.1%} | {done:,.1f} |"
        )


if __name__ == "__main__":
    main(*(int(x) for x in (sys.argv[1:] + ["3", "128"][len(sys.argv) - 1 :])))
