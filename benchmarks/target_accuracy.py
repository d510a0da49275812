"""Measures how often circuits match their targets exactly, by length: one sample, the best of several, and by search.

    python benchmarks/target_accuracy.py MODEL TARGETS [--natural 1000] [--each 100] [--samples 16] [--searched 200]
        [--temperatures 1,0.4] [--orders surer_end] [--line] [--json FILE]

MODEL is a model of unitaries or states (a folder or pretrained:NAME), TARGETS a data set excluded from training.
The natural set has at most --natural targets with the lengths of the data set, the balanced set at most --each targets
of each length; 0 leaves a set out. Targets that are equal up to a global phase count once. Samples may use the gates in
their target's prompt, searches all gates of the model. With --line, gates act only on neighbours on the line 0, 1, ...
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantum_diffusion.circuits.matrices import matrix_keys
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.evaluation.metrics import wilson_interval
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.targets import TargetTask


def percent(share: float, interval: tuple[float, float]) -> str:
    """Format a share and its interval in percent."""
    return f"{100 * share:.1f} % ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def by_length(values: NDArray[Any], lengths: NDArray[np.int64]) -> dict[int, float]:
    """Return the mean of values [..., N] for each length, over the N targets and the leading axes."""
    return {int(length): round(float(values[..., lengths == length].mean()), 4) for length in np.unique(lengths)}


def sampled(
    pipeline: DiffusionPipeline,
    dataset: CircuitDataset,
    rows: NDArray[np.int64],
    count: int,
    options: SamplingConfig,
    edit: Edit,
) -> dict[str, Any]:
    """Sample `count` circuits for each target; intervals treat all samples of a target as one trial."""
    labelled = dataset.labelled(rows)
    assert isinstance(pipeline.task, TargetTask)
    requests = pipeline.requests(labelled.prompts, list(pipeline.task.targets_of(labelled.ids, labelled.table)))
    started = time.perf_counter()
    exact = np.stack([pipeline.sample(requests, seed, options, edit=edit).matches for seed in range(count)])
    seconds = time.perf_counter() - started
    lengths = dataset.sizes[rows, 1].astype(np.int64)
    share, best = float(exact.mean()), exact.any(axis=0)
    return {
        "targets": len(rows),
        "samples": count,
        "exact": share,
        "exact_95": wilson_interval(round(share * len(rows)), len(rows)),
        "best_of": float(best.mean()),
        "best_of_95": wilson_interval(int(best.sum()), len(rows)),
        "by_length": by_length(exact, lengths),
        "milliseconds": 1000 * seconds / exact.size,
    }


def searched(
    pipeline: DiffusionPipeline, dataset: CircuitDataset, rows: NDArray[np.int64], order: str, edit: Edit
) -> dict[str, Any]:
    """Search for the first circuit of each target."""
    labelled = dataset.labelled(rows)
    assert isinstance(pipeline.task, TargetTask)
    options = SamplingConfig.model_validate({"order": order})
    results = [
        find_exact(pipeline, target, options=options, edit=edit)
        for target in pipeline.task.targets_of(labelled.ids, labelled.table)
    ]
    lengths = dataset.sizes[rows, 1].astype(np.int64)
    solved = np.array([bool(result.circuits) for result in results])
    gates = np.array([len(result.circuits[0].circuit) if result.circuits else 0 for result in results])
    seconds = [result.seconds for result in results]
    return {
        "targets": len(rows),
        "solved": float(solved.mean()),
        "solved_95": wilson_interval(int(solved.sum()), len(rows)),
        "seconds": float(np.mean(seconds)),
        "most_seconds": float(max(seconds)),
        "parts_looked_at": float(np.mean([result.num_sampled for result in results])),
        "gates": float(gates[solved].mean()),
        "own_gates": float(lengths[solved].mean()),
        "by_length": by_length(solved, lengths),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("targets")
    parser.add_argument("--natural", type=int, default=1000)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--searched", type=int, default=200, help="of either set; 0 searches none")
    parser.add_argument("--temperatures", default="1,0.4")
    parser.add_argument("--orders", default="", help="separated by commas; the model's own where none is given")
    parser.add_argument("--line", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(1)
    pipeline = load_pipeline(args.model)
    dataset = DatasetLoader().load_dataset(args.targets)
    task, rng = pipeline.task, np.random.default_rng(0)
    assert isinstance(task, TargetTask)
    order = rng.permutation(len(dataset))
    every = dataset.labelled(order)
    _, first = np.unique(matrix_keys(task.targets_of(every.ids, every.table)), return_index=True)
    order = order[np.sort(first)]
    lengths = dataset.sizes[order, 1].astype(np.int64)
    balanced = [order[lengths == length][: args.each] for length in np.unique(lengths)]
    sets = {"natural": order[: args.natural], "balanced": rng.permutation(np.concatenate(balanced))}
    pairs = tuple((qubit, qubit + 1) for qubit in range(pipeline.config.num_qubits - 1))
    edit = Edit(coupling=pairs if args.line else None)
    orders = args.orders.split(",") if args.orders else [pipeline.resolved(SamplingConfig()).order]

    figures: list[dict[str, Any]] = []
    for name, rows in sets.items():
        if not len(rows):
            continue
        for chosen in orders:
            for temperature in map(float, args.temperatures.split(",")):
                options = SamplingConfig.model_validate({"order": chosen, "temperature": temperature})
                found = sampled(pipeline, dataset, rows, args.samples, options, edit)
                figures.append({"set": name, "order": chosen, "temperature": temperature} | found)
                print(
                    f"{name}, {chosen}, temperature {temperature:g}: {len(rows)} targets, a sample "
                    f"{percent(found['exact'], found['exact_95'])}, best of {args.samples} "
                    f"{percent(found['best_of'], found['best_of_95'])}, {found['milliseconds']:.1f} ms a sample\n"
                    f"  by gates {found['by_length']}",
                    flush=True,
                )
            if args.searched:
                found = searched(pipeline, dataset, rows[: args.searched], chosen, edit)
                figures.append({"set": name, "order": chosen, "search": "beam"} | found)
                print(
                    f"{name}, {chosen}, beam: {found['targets']} targets, solved "
                    f"{percent(found['solved'], found['solved_95'])} in {found['seconds']:.3f} s (at most "
                    f"{found['most_seconds']:.1f}), {found['gates']:.2f} gates of {found['own_gates']:.2f}\n"
                    f"  by gates {found['by_length']}",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
