"""Training steps a second of the shipped backbones, with each switch that claims to pay, and of genQC's U-Net.

Run: python benchmarks/training.py [repetitions]; cases are interleaved, each repetition runs for about three seconds.
genQC's side needs the parity requirements (`make install-dev`); it is left out where they are missing.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from quantum_diffusion.config.schema import DatasetConfig, LoopConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import TrainingState, average_weights, low_precision, step_generator
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
    average = None if loop.ema_decay is None else average_weights(pipeline.network, loop.ema_decay)
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


def genqc_step(threads: int, batch_size: int = 256, max_gates: int = 16) -> Step | None:
    """A training step of genQC's U-Net in the paper's configuration, as its pipeline makes it; None without genQC."""
    try:
        from genQC.models.unet_qc import QC_Cond_UNet
    except ImportError:
        return None
    model = QC_Cond_UNet(
        model_features=[128, 128, 256],
        clr_dim=4,
        num_clrs=4,
        t_emb_size=256,
        cond_emb_size=512,
        num_heads=[8, 8, 2],
        num_res_blocks=[2, 2, 4],
        transformer_depths=[1, 2, 1],
    )
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    tokens = torch.randint(-2, 3, (batch_size, 3, max_gates))
    condition = torch.randn(batch_size, 5, 512)

    def step() -> int:
        torch.set_num_threads(threads)
        x0 = model.embed(tokens)
        noise = torch.randn_like(x0)
        prediction = model(x0 + noise, torch.randint(0, 1000, (batch_size,)), condition)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(prediction, noise).backward()
        optimizer.step()
        return batch_size

    return step


def main(repetitions: int, seconds: float = 3.0) -> None:
    """Measure all cases in turn and print medians."""
    threads = torch.get_num_threads()
    f32 = ("training.training.precision=32",)
    cases: dict[str, Step | None] = {
        "quick_test_srv (auto precision, 1 thread)": our_step("quick_test_srv", 1),
        "quick_test_srv (float32, 1 thread)": our_step("quick_test_srv", 1, f32),
        f"quick_test_srv (auto precision, {threads} threads)": our_step("quick_test_srv", threads),
        f"quick_test_unet (auto precision, {threads} threads)": our_step("quick_test_unet", threads),
        f"quick_test_unet (float32, {threads} threads)": our_step("quick_test_unet", threads, f32),
        f"paper U-Net, 3x16 (auto precision, {threads} threads)": our_step("paper_srv_stage_1", threads, max_gates=16),
        f"paper U-Net, 3x16 (float32, {threads} threads)": our_step("paper_srv_stage_1", threads, f32, 16),
        f"paper U-Net, 3x16, genQC (float32, {threads} threads)": genqc_step(threads),
    }
    rates: dict[str, list[float]] = {name: [] for name, step in cases.items() if step is not None}
    for _ in range(repetitions):
        for name, step in cases.items():
            if step is None:
                continue
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
