"""Measures the circuits per second of training steps of our backbones, with each performance option on and off.

Run: python benchmarks/training.py [repetitions]; it uses CUDA if available. The cases take turns, and each repetition
runs for about three seconds. The results include the rate of arithmetic and, for comparison, the device's rate of
matrix products. fit.py measures the whole loop, and peer/ compares it with genQC's.
"""

import statistics
import sys
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from rates import matrix_rate, operations, wait

from quantum_diffusion.config.schema import DatasetConfig, LoopConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.device import multiplies_in_bfloat16, select_device
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.graphs import WARM_UP, make_steps
from quantum_diffusion.pipeline.state import MovingAverage, TrainingState
from quantum_diffusion.pipeline.step import LossModule
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers

DEVICE = select_device("auto")

Step = Callable[[], int]
"""Takes one training step and returns its number of circuits."""

GRAPHS_OFF = "training.training.cuda_graphs=false"


def our_step(
    preset: str, threads: int, overrides: tuple[str, ...] = (), num_qubits: int = 3, max_gates: int = 8
) -> Step:
    """Return a training step of a preset on random data, with everything that `fit` does except logging."""
    config = compose("training", TrainingConfig, [f"training={preset}", "training.general.dataset=none", *overrides])
    data = DatasetConfig(num_qubits=num_qubits, max_gates=max_gates, num_samples=4096, n_jobs=1)
    dataset, _ = DatasetGenerator(data).generate()
    loop: LoopConfig = config.training
    pipeline = DiffusionPipeline(pipeline_config(config, dataset)).to(DEVICE)
    loader: BatchLoader = DatasetLoader().get_dataloaders(
        dataset, loop.batch_size, 0.0, time_multiple=pipeline.time_multiple
    )[0]
    optimizers = make_optimizers(pipeline.network, loop.optimizer, loop.learning_rate, loop.weight_decay)
    schedules = make_lr_schedules(optimizers, loop.lr_scheduler, 10_000, loop.warmup_fraction)
    average = None if loop.ema_decay is None else MovingAverage(pipeline.network, loop.ema_decay)
    state = TrainingState(pipeline.network, optimizers, schedules, average)
    batches = [batch.to(DEVICE) for batch in loader.epoch(0) if len(batch) == loop.batch_size]
    steps = make_steps(LossModule(pipeline, loop), state, loop, Team(), DEVICE)

    def step() -> int:
        torch.set_num_threads(threads)
        batch = batches[state.step % len(batches)]
        steps.make([batch], 0, stop=False)
        steps.finish(overflowed=False)
        state.step += 1
        return len(batch)

    return step


def channels_first(step: Step) -> Step:
    """Return the same step with feature maps in torch's default memory format instead of channels last."""

    def run() -> int:
        with patch.object(torch, "channels_last", torch.contiguous_format):
            return step()

    return run


def unfused(preset: str, threads: int, overrides: tuple[str, ...], max_gates: int) -> Step:
    """Return `our_step` with the optimizer's loop over the weights instead of its fused kernel."""
    with patch("quantum_diffusion.training.optim._can_fuse", return_value=False):
        return our_step(preset, threads, overrides, max_gates=max_gates)


def torch_muon(preset: str, threads: int) -> Step:
    """Return `our_step` with torch's Muon, which computes in bfloat16, one matrix at a time."""
    with patch("quantum_diffusion.training.optim.Muon", torch.optim.Muon):
        return our_step(preset, threads)


def cases_on_cpu() -> dict[str, Step]:
    """Return steps that run on a laptop, with each performance option on and off."""
    threads = torch.get_num_threads()
    f32, auto = ("training.training.precision=32",), ("training.training.precision=auto",)
    return {
        "quick_test_srv (auto precision, 1 thread)": our_step("quick_test_srv", 1),
        "quick_test_srv (float32, 1 thread)": our_step("quick_test_srv", 1, f32),
        "the same with torch's own Muon (auto precision)": torch_muon("quick_test_srv", 1),
        f"quick_test_srv (auto precision, {threads} threads)": our_step("quick_test_srv", threads),
        f"quick_test_unet (auto precision, {threads} threads)": our_step("quick_test_unet", threads),
        f"quick_test_unet (float32, {threads} threads)": our_step("quick_test_unet", threads, f32),
        f"paper U-Net, 3x16 (float32, {threads} threads)": our_step("paper_srv_stage_1", threads, f32, max_gates=16),
        f"paper U-Net, 3x16 (auto precision, {threads} threads)": our_step(
            "paper_srv_stage_1", threads, auto, max_gates=16
        ),
        "the same, channels first": channels_first(our_step("paper_srv_stage_1", threads, auto, max_gates=16)),
        "the same, optimizer not fused": unfused("paper_srv_stage_1", threads, auto, 16),
    }


def cases_on_cuda() -> dict[str, Step]:
    """Return steps for a GPU, each as one CUDA graph and as separate kernels."""
    threads = torch.get_num_threads()
    shapes = {
        "quick_test_srv": ("quick_test_srv", 3, 8),
        "quick_test_unet": ("quick_test_unet", 3, 8),
        "paper U-Net, 3x16": ("paper_srv_stage_1", 3, 16),
        "paper U-Net, 8x52": ("paper_srv_stage_1", 8, 52),
    }
    return {
        f"{name} ({how}auto precision)": our_step(preset, threads, overrides, qubits, gates)
        for name, (preset, qubits, gates) in shapes.items()
        for how, overrides in (("", ()), ("no graphs, ", (GRAPHS_OFF,)))
    }


def main(repetitions: int, seconds: float = 3.0) -> None:
    """Measure all cases in turn and print medians."""
    cases = cases_on_cuda() if DEVICE.type == "cuda" else cases_on_cpu()
    arithmetic = {name: operations(step) for name, step in cases.items()}
    for step in cases.values():
        for _ in range(WARM_UP + 1):
            circuits = step()
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, step in cases.items():
            step()
            wait(DEVICE)
            started, circuits = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                circuits += sum(step() for _ in range(20 if DEVICE.type == "cuda" else 1))
                wait(DEVICE)
            rates[name].append(circuits / (time.perf_counter() - started))
    for dtype in (torch.float32, *([torch.bfloat16] if multiplies_in_bfloat16(DEVICE) else [])):
        print(f"{DEVICE}: {matrix_rate(DEVICE, dtype) / 1e12:,.3f} TFLOP/s in products of matrices of {dtype}")
    print("| case | circuits a second, median | least | most | TFLOP/s |\n|---|---:|---:|---:|---:|")
    for name, values in rates.items():
        median, step = statistics.median(values), cases[name]
        done = arithmetic[name] / step() * median / 1e12
        print(f"| {name} | {median:,.0f} | {min(values):,.0f} | {max(values):,.0f} | {done:,.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
