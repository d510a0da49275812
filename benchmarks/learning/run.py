"""Compares what presets learn within a budget on the same data and requests; writes a plot, a table and JSON.

    python benchmarks/learning/run.py SIZE PRESET=BUDGET [PRESET=BUDGET ...] [--seeds 0,1,2] [--folder FOLDER]

SIZE is tiny (Schmidt rank vectors, 3 qubits), small (3 to 5), paper (3 to 8), compile (unitaries, 3 qubits) or angles
(unitaries of gates with angles, 3 qubits; samples are refined).
PRESET is a name in conf/training or a YAML file; BUDGET is a time of training (300s) or a number of circuits (100000c).
Sampling time does not count. The data sets are generated once in FOLDER with the presets fast_srv_3q ...,
fast_unitary_3q and parameterised_3q; the requested unitaries are those of a test set, which are excluded from training.
A short trial converts a time into a number of steps, so that each learning rate schedule ends with its budget. Run it
on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.device import select_device
from quantum_diffusion.evaluation.metrics import circuit_keys, dataset_keys, wilson_interval
from quantum_diffusion.pipeline.callbacks import FitObserver, StepRecord
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.state import using_network
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.training.training import DiffusionTrainer

matplotlib.use("Agg")

SIZES = {
    "tiny": ["fast_srv_3q"],
    "small": [f"fast_srv_{qubits}q" for qubits in range(3, 6)],
    "paper": [f"fast_srv_{qubits}q" for qubits in range(3, 9)],
    "compile": ["fast_unitary_3q"],
    "angles": ["parameterised_3q"],
}
TESTS = {
    "compile": ["datasets=fast_unitary_3q_test"],
    "angles": ["datasets=parameterised_3q", "datasets.num_samples=4000", "datasets.seed=1000"],
}
"""The data sets of the requested unitaries; other sizes ask for prompts."""
POINTS = (0.1, 0.2, 0.4, 0.7, 1.0)
"""Fractions of the budget at which to measure."""
TRIALS = {"cpu": (12, 4), "cuda": (120, 40)}
"""Number of trial steps and how many of them to skip when timing a step; on CUDA, steps are reported in bursts."""


@dataclass(frozen=True)
class Competitor:
    """A preset and its budget: seconds of training or circuits; the other is None."""

    preset: str
    seconds: float | None
    circuits: int | None

    @classmethod
    def parse(cls, text: str) -> Competitor:
        """Read PRESET=300s or PRESET=100000c."""
        preset, _, budget = text.rpartition("=")
        if not preset or budget[-1:] not in ("s", "c"):
            raise argparse.ArgumentTypeError(f"{text!r}: give PRESET=300s (seconds) or PRESET=100000c (circuits)")
        amount = float(budget[:-1])
        return cls(preset, *((amount, None) if budget[-1] == "s" else (None, int(amount))))

    @property
    def name(self) -> str:
        """The preset and its budget, for tables and plots."""
        return f"{Path(self.preset).stem}, " + (
            f"{self.seconds:g} s" if self.seconds is not None else f"{self.circuits:,} circuits"
        )


@dataclass(frozen=True)
class Point:
    """The measurements at one time of a run.

    Attributes:
        seconds: Seconds of training, excluding sampling.
        circuits: Number of circuits trained on.
        requests: Number of requests, with one sample each.
        exact: Share of samples that match their request exactly.
        interval: 95 % confidence interval of `exact`.
        new_exact: The share among valid samples that are not in the training data; None if there are none.
        gates: Mean number of gates of a sample.
    """

    seconds: float
    circuits: int
    requests: int
    exact: float
    interval: tuple[float, float]
    new_exact: float | None
    gates: float


class Clock(FitObserver):
    """Counts seconds of training, and measures after each fraction in `POINTS` of a number of steps."""

    def __init__(self, num_steps: int, measure: Callable[[float, int, bool], None]) -> None:
        self.marks = sorted({max(1, round(share * num_steps)) for share in POINTS})
        self.last, self.measure, self.seconds = num_steps, measure, 0.0

    def on_start(self, step: int, total_steps: int) -> None:
        self.resumed = time.perf_counter()

    def on_step(self, record: StepRecord) -> None:
        self.seconds += time.perf_counter() - self.resumed
        if record.step in self.marks:
            self.measure(self.seconds, record.samples_seen, record.step == self.last)
        self.resumed = time.perf_counter()


class Steps(FitObserver):
    """Records the time of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        self.times.append(time.perf_counter())


def trainer_of(preset: str, data: Path, folder: str, seed: int, max_steps: int) -> DiffusionTrainer:
    """Return a trainer that trains a preset for `max_steps` steps on all circuits in `data`."""
    overrides = [
        f"training={preset}",
        f"training.general.dataset={data}",
        f"training.general.output_path={folder}",
        f"training.general.seed={seed}",
        "training.general.loggers=[csv]",
        "training.general.overwrite=true",
        "training.training.validation_fraction=0",
        "training.training.num_epochs=1000000",
        f"training.training.max_steps={max_steps}",
        "training.training.log_every=1",
        "training.training.num_threads=1",
    ]
    return DiffusionTrainer(compose("training", TrainingConfig, overrides))


def num_steps(competitor: Competitor, data: Path) -> int:
    """Return the number of steps within the budget."""
    steps = Steps()
    with tempfile.TemporaryDirectory() as folder:
        num_trials, warm_up = TRIALS[select_device("auto").type]
        trainer = trainer_of(competitor.preset, data, folder, 0, num_trials)
        batch = trainer.config.training.batch_size * trainer.config.training.accumulate_batches
        if competitor.circuits is not None:
            return max(1, competitor.circuits // batch)
        trainer.observers.append(steps)
        trainer.setup_model()
        trainer.compile_model()
        trainer.train()
    assert competitor.seconds is not None
    lasting = (steps.times[-1] - steps.times[warm_up - 1]) / (num_trials - warm_up)
    return max(1, int(competitor.seconds / lasting))


def learn(competitor: Competitor, size: str, data: Path, seed: int, requests: int, at_end: int) -> dict[str, Any]:
    """Train one preset and return its curve."""
    points: list[Point] = []
    total = num_steps(competitor, data)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(competitor.preset, data, folder, seed, total)
        pipeline = trainer.setup_model()
        shape = pipeline.config.num_qubits, pipeline.config.max_gates
        parts = [DatasetLoader().load_dataset(part) for part in sorted(data.iterdir())]
        known = np.concatenate([dataset_keys(part, *shape) for part in parts])
        state = trainer.compile_model()

        def measure(seconds: float, circuits: int, is_last: bool) -> None:
            asked = ask(pipeline, size, data, at_end if is_last else requests)
            with using_network(pipeline, state.averaged_network):
                points.append(measured(pipeline, asked, known, seconds, circuits))
            print(f"{competitor.name}, seed {seed}: {points[-1]}", flush=True)

        trainer.observers.append(Clock(total, measure))
        trainer.train()
    return {
        "competitor": asdict(competitor) | {"name": competitor.name},
        "seed": seed,
        "steps": total,
        "weights": pipeline.num_parameters,
        "points": [asdict(point) for point in points],
    }


def ask(pipeline: DiffusionPipeline, size: str, data: Path, count: int) -> Requests:
    """Return the requests: all prompts in turn, or unitaries excluded from training."""
    if size not in TESTS:
        prompts = pipeline.config.prompts
        return pipeline.requests([prompts[number % len(prompts)] for number in range(count)])
    tests = DatasetLoader().load_dataset(data.parent / "test")
    circuits = tests.labelled(np.arange(min(count, len(tests))))
    targets = pipeline.task.targets_of(circuits.ids, circuits.table, circuits.angles)
    return pipeline.requests(circuits.prompts, list(targets))


def measured(pipeline: DiffusionPipeline, asked: Requests, known: Keys, seconds: float, circuits: int) -> Point:
    """Sample once for every request and return the figures."""
    samples = pipeline.sample(asked, 0)
    exact, count = samples.matches, len(samples)
    keys = circuit_keys(samples.ids, pipeline.table, samples.num_qubits, samples.angles)
    new = samples.report.valid & ~np.isin(keys, known)
    return Point(
        seconds=round(seconds, 2),
        circuits=circuits,
        requests=count,
        exact=float(exact.mean()),
        interval=wilson_interval(int(exact.sum()), count),
        new_exact=float(exact[new].mean()) if new.any() else None,
        gates=float(samples.gate_counts.mean()),
    )


def make_data(size: str, folder: Path) -> Path:
    """Generate the data sets of a size unless they exist; return their folder."""
    data = folder / size / "data"
    wanted = {data / name: [f"datasets={name}"] for name in SIZES[size]}
    if size in TESTS:
        tests = data.parent / "test"
        wanted = {
            tests: TESTS[size],
            **{place: [*words, f"datasets.exclude={tests}"] for place, words in wanted.items()},
        }
    for place, words in wanted.items():
        if not place.exists():
            config = compose("datasets", DatasetConfig, [*words, f"datasets.output_path={place}"])
            dataset, _ = DatasetGenerator(config).generate()
            save_dataset(dataset, place, {})
    return data


def summary(runs: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of the last points of every competitor, averaged over seeds."""
    lines = [
        "| preset, budget | seeds | seconds | circuits | exact (mean; of each seed) | of new circuits | gates |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for name in dict.fromkeys(run["competitor"]["name"] for run in runs):
        ends = [run["points"][-1] for run in runs if run["competitor"]["name"] == name]
        each = ", ".join(f"{100 * end['exact']:.1f}" for end in ends)
        new = [end["new_exact"] for end in ends if end["new_exact"] is not None]
        lines.append(
            f"| {name} | {len(ends)} | {np.mean([end['seconds'] for end in ends]):.1f} "
            f"| {np.mean([end['circuits'] for end in ends]):,.0f} "
            f"| {100 * np.mean([end['exact'] for end in ends]):.1f} % ({each}) "
            f"| {100 * np.mean(new) if new else float('nan'):.1f} % | {np.mean([end['gates'] for end in ends]):.1f} |"
        )
    return "\n".join(lines) + "\n"


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot all curves against seconds and against circuits."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    names = list(dict.fromkeys(run["competitor"]["name"] for run in runs))
    for axis, key in zip(axes, ("seconds", "circuits"), strict=True):
        for run in runs:
            name, points = run["competitor"]["name"], run["points"]
            x, y = [point[key] for point in points], np.array([100 * point["exact"] for point in points])
            bounds = 100 * np.array([point["interval"] for point in points]).T
            first = run is next(other for other in runs if other["competitor"]["name"] == name)
            style = {"color": f"C{names.index(name)}", "marker": "o", "markersize": 3, "capsize": 2}
            axis.errorbar(x, y, abs(bounds - y), label=name if first else None, **style)
        axis.set(xscale="log", xlabel=f"{key} of training", ylim=(0, 102))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("exact circuits (%)")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("competitors", type=Competitor.parse, nargs="+", metavar="PRESET=BUDGET")
    parser.add_argument("--seeds", default="0", help="seeds of the runs, with commas")
    parser.add_argument("--folder", type=Path, default=Path("learning"), help="where data and results go")
    parser.add_argument("--requests", type=int, default=200, help="requests of a point")
    parser.add_argument("--last-requests", type=int, default=1000, help="requests of the last point of a run")
    options = parser.parse_args()
    data = make_data(options.size, options.folder)
    runs = []
    for seed in map(int, options.seeds.split(",")):
        for competitor in options.competitors:
            runs.append(learn(competitor, options.size, data, seed, options.requests, options.last_requests))
            results = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "runs": runs}
            folder = options.folder / options.size
            (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            (folder / "results.md").write_text(summary(runs))
            draw(runs, folder / "results.png")
    print(summary(runs))


if __name__ == "__main__":
    main()
