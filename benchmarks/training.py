"""Training steps a second of the shipped backbones, with each switch that claims to pay.

Run: python benchmarks/training.py [repetitions]; cases are interleaved, each repetition runs for about three seconds.
The whole loop, and genQC's beside it, are in fit.py.
"""

import statistics
import sys
import time
from collections.abc import Callable
from unittest.mock import patch

import torch

from quantum_diffusion.config.schema import DatasetConfig, LoopConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import step_generator
from quantum_diffusion.pipeline.state import MovingAverage, TrainingState
from quantum_diffusion.pipeline.step import low_precision
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers

Step = Callable[[], int]
"""Makes one training step and returns its circuits."""


def our_step(preset: str, threads: int, overrides: tuple[str, ...] = (), max_gates: int = 8) -> Step:
    """A training step of a preset on random data of its shape, with everything `fit` does but logging."""
    config = compose("training", TrainingConfig, [f"training={preset}", "training.general.dataset=none", *overrides])
    data = DatasetConfig(num_qubits=3, max_gates=max_gates, num_samples=4096, n_jobs=1)
    dataset, _ = DatasetGenerator(data).generate()
    loop: LoopConfig = config.training
    pipeline = DiffusionPipeline(pipeline_config(config, dataset))
    loader: BatchLoader = DatasetLoader().get_dataloaders(
        dataset, loop.batch_size, 0.0, time_multiple=pipeline.time_multiple
    )[0]
    optimizers = make_optimizers(pipeline.network, loop.optimizer, loop.learning_rate, loop.weight_decay)
    schedules = make_lr_schedules(optimizers, loop.lr_scheduler, 10_000, loop.warmup_fraction)
    average = None if loop.ema_decay is None else MovingAverage(pipeline.network, loop.ema_decay)
    state = TrainingState(pipeline.network, optimizers, schedules, average)
    batches = [batch for batch in loader.epoch(0) if len(batch) == loop.batch_size]
    dtype = low_precision(loop, pipeline.device)
    autocast = torch.autocast("cpu", dtype, enabled=dtype is not None)

    def step() -> int:
        torch.set_num_threads(threads)
        batch = batches[state.step % len(batches)]
        with autocast:
            terms = pipeline.training_loss(
                batch,
                Noise(step_generator(0, "step", state.step, pipeline.device)),
                condition_dropout=loop.condition_dropout,
                prefix_weight=loop.prefix_head_weight,
            )
        for optimizer in state.optimizers:
            optimizer.zero_grad()
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), loop.gradient_clip or float("inf"))
        for optimizer, schedule in zip(state.optimizers, state.schedules, strict=True):
            optimizer.step()
            schedule.step()
        if state.average is not None:
            state.average.update_parameters(state.network)
        state.step += 1
        return len(batch)

    return step


def channels_first(step: Step) -> Step:
    """The same step with feature maps in torch's usual layout instead of channels last."""

    def run() -> int:
        with patch.object(torch, "channels_last", torch.contiguous_format):
            return step()

    return run


def unfused(preset: str, threads: int, overrides: tuple[str, ...], max_gates: int) -> Step:
    """`our_step` with the optimizer's loop over weights instead of its fused kernel."""
    with patch("quantum_diffusion.training.optim._can_fuse", return_value=False):
        return our_step(preset, threads, overrides, max_gates)


def torch_muon(preset: str, threads: int) -> Step:
    """`our_step` with torch's Muon, which computes in bfloat16, a matrix at a time."""
    with patch("quantum_diffusion.training.optim.Muon", torch.optim.Muon):
        return our_step(preset, threads)


def main(repetitions: int, seconds: float = 3.0) -> None:
    """Measure all cases in turn and print medians."""
    threads = torch.get_num_threads()
    f32, bf16 = ("training.training.precision=32",), ("training.training.precision=bf16",)
    cases: dict[str, Step] = {
        "quick_test_srv (auto precision, 1 thread)": our_step("quick_test_srv", 1),
        "quick_test_srv (float32, 1 thread)": our_step("quick_test_srv", 1, f32),
        "the same with torch's own Muon (auto precision)": torch_muon("quick_test_srv", 1),
        f"quick_test_srv (auto precision, {threads} threads)": our_step("quick_test_srv", threads),
        f"quick_test_unet (auto precision, {threads} threads)": our_step("quick_test_unet", threads),
        f"quick_test_unet (float32, {threads} threads)": our_step("quick_test_unet", threads, f32),
        f"paper U-Net, 3x16 (float32, {threads} threads)": our_step("paper_srv_stage_1", threads, f32, 16),
        f"paper U-Net, 3x16 (bfloat16, {threads} threads)": our_step("paper_srv_stage_1", threads, bf16, 16),
        "the same, channels first": channels_first(our_step("paper_srv_stage_1", threads, bf16, 16)),
        "the same, optimizer not fused": unfused("paper_srv_stage_1", threads, bf16, 16),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, step in cases.items():
            step()
            started, circuits = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                circuits += step()
            rates[name].append(circuits / (time.perf_counter() - started))
    print("| case | circuits a second, median | least | most |\n|---|---:|---:|---:|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
