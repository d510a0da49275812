"""Measures the circuits per second of training the paper's U-Net: the whole loop and its bare steps.

Run: python benchmarks/fit.py [--repetitions 7] [--steps 4] [--qubits 3] [--gates 16] [--compile]. It uses CUDA if
available; give more steps then. All cases take turns on the same circuits. The results include the rate of arithmetic
and, for comparison, the device's rate of matrix products. peer/ compares training with genQC's.
"""

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rates import matrix_rate, operations, timed

from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.device import multiplies_in_bfloat16, select_device
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import fit, step_generator
from quantum_diffusion.pipeline.graphs import WARM_UP
from quantum_diffusion.pipeline.state import MovingAverage, TrainingState
from quantum_diffusion.tracking.experiment import ExperimentLogger
from quantum_diffusion.training.metrics_log import MetricsLog
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers

DEVICE = select_device("auto")
BATCH = 256
Run = Callable[[int], None]
"""Takes the given number of training steps."""


class Ours:
    """The preset paper_srv_stage_1 in our training loop; overrides add averaged weights, clipping or compilation."""

    def __init__(self, dataset: CircuitDataset, overrides: list[str]) -> None:
        fixed = ["training=paper_srv_stage_1", "training.general.dataset=none", "training.training.num_epochs=1000"]
        self.loop = compose("training", TrainingConfig, [*fixed, *overrides]).training
        config = compose("training", TrainingConfig, [*fixed, *overrides])
        self.pipeline = DiffusionPipeline(pipeline_config(config, dataset)).to(DEVICE)
        self.loader = DatasetLoader().get_dataloaders(
            dataset, BATCH, 0.0, time_multiple=self.pipeline.time_multiple, num_workers=self.loop.num_workers
        )[0]
        if DEVICE.type == "cuda":
            self.loader.keep_on(DEVICE, self.pipeline.decode)
        if self.loop.compile:
            self.pipeline.network["backbone"].compile()
        optimizers = make_optimizers(self.pipeline.network, self.loop.optimizer, self.loop.learning_rate, 0.0)
        schedules = make_lr_schedules(optimizers, self.loop.lr_scheduler, 10_000, self.loop.warmup_fraction)
        average = None if self.loop.ema_decay is None else MovingAverage(self.pipeline.network, self.loop.ema_decay)
        self.state = TrainingState(self.pipeline.network, optimizers, schedules, average)

    def fit(self, steps: int) -> None:
        """Train with the loop, including the metrics log of every run."""
        settings = self.loop.model_copy(update={"max_steps": self.state.step + steps, "log_every": 1})
        with tempfile.TemporaryDirectory() as folder, ExperimentLogger(Path(folder), "benchmark", {}) as experiment:
            logged = [MetricsLog(experiment)]
            self.seconds = timed(
                lambda: fit(self.pipeline, self.loader, None, self.state, settings, 0, observers=logged), DEVICE
            )


class BareSteps(Ours):
    """Only forward pass, backward pass and optimizer step, on prepared batches."""

    def __init__(self, dataset: CircuitDataset, overrides: list[str]) -> None:
        super().__init__(dataset, overrides)
        self.batches = [batch.to(DEVICE) for batch, _ in zip(self.loader.epoch(0), range(8), strict=False)]

    def fit(self, steps: int) -> None:
        """Take the steps."""
        self.seconds = timed(lambda: self._steps(steps), DEVICE)

    def _steps(self, steps: int) -> None:
        (optimizer,) = self.state.optimizers
        dtype = torch.bfloat16 if self.loop.precision == "bf16" else None
        for _ in range(steps):
            batch: Batch = self.batches[self.state.step % len(self.batches)]
            noise = Noise(step_generator(0, "step", self.state.step, self.pipeline.device))
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(DEVICE.type, dtype, enabled=dtype is not None):
                loss = self.pipeline.training_loss(batch, noise, condition_dropout=0.1, low_variance=False).total
            loss.backward()
            optimizer.step()
            self.state.step += 1


def main() -> None:
    """Measure all cases in turn; print medians of rates and of the ratios within each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--qubits", type=int, default=3)
    parser.add_argument("--gates", type=int, default=16)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too (two minutes more)")
    options = parser.parse_args()
    size = {"num_qubits": options.qubits, "max_gates": options.gates}
    data = DatasetConfig.model_validate(size | {"min_gates": 2, "num_samples": 8192, "n_jobs": 1})
    dataset, _ = DatasetGenerator(data).generate()
    has_bfloat16 = multiplies_in_bfloat16(DEVICE)  # without it a step takes minutes
    f32, bf16 = "training.training.precision=32", "training.training.precision=bf16"
    whole = ["training.training.ema_decay=0.9995", "training.training.gradient_clip=1.0"]
    cases: dict[str, Ours] = {
        "bare steps, float32": BareSteps(dataset, [f32]),
        "fit, float32": Ours(dataset, [f32]),
        "fit, float32, averaged weights, clipping": Ours(dataset, [f32, *whole]),
    }
    if has_bfloat16:
        cases |= {
            "bare steps, bfloat16": BareSteps(dataset, [bf16]),
            "fit, bfloat16": Ours(dataset, [bf16]),
            "fit, bfloat16, averaged weights, clipping": Ours(dataset, [bf16, *whole]),
        }
    if options.compile:
        precision = "bfloat16" if has_bfloat16 else "float32"
        arithmetic = bf16 if has_bfloat16 else f32
        cases[f"fit, {precision}, compiled"] = Ours(dataset, [arithmetic, "training.training.compile=true"])
    done = operations(lambda: cases["bare steps, float32"].fit(1))
    for case in cases.values():
        case.fit(WARM_UP + 1)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.repetitions):
        for name, case in cases.items():
            gc.collect()
            case.fit(options.steps)
            seconds[name].append(case.seconds)
    print(
        f"{options.qubits} qubits x {options.gates} steps on {DEVICE}, {torch.get_num_threads()} threads, "
        f"batch {BATCH}, {options.steps} steps a round, medians of a round's ratios"
    )
    for dtype in (torch.float32, *([torch.bfloat16] if has_bfloat16 else [])):
        print(f"{matrix_rate(DEVICE, dtype) / 1e12:,.3f} TFLOP/s in products of matrices of {dtype}")
    print("| case | circuits a second | TFLOP/s | time by bare steps' |\n|---|---:|---:|---:|")
    for name, values in seconds.items():
        rate = options.steps * BATCH / statistics.median(values)
        own = seconds["bare steps, bfloat16" if "bfloat16" in name else "bare steps, float32"]
        against_bare = statistics.median(mine / other for mine, other in zip(values, own, strict=True))
        print(f"| {name} | {rate:,.0f} | {done * rate / BATCH / 1e12:.3f} | {against_bare:.3f} |")


if __name__ == "__main__":
    main()
