"""Measures how many gates compiled circuits have above the optimum, which is found by meet-in-the-middle search.

    python benchmarks/optimum.py [MODEL [TARGETS [NATURAL [OF_EACH_LENGTH [SECONDS]]]]]

MODEL is a folder or pretrained:NAME, TARGETS a data set excluded from training; by default the circuits of
datasets=fast_unitary_3q_test are generated. All gates of the model may be used for every target. The minimum number of
gates of a target is exact, but not always known: `evaluation.optimum` searches from both ends, to a limited depth. The
search is compared with Qiskit's synthesis (for Cliffords of up to three qubits including synth_clifford_bm, with the
fewest cx) and with random circuits of the targets' own lengths.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.matrices import EXACT
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.evaluation.metrics import wilson_interval
from quantum_diffusion.evaluation.optimum import Optimum
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.targets import TargetTask

TEST_SET = compose("datasets", DatasetConfig, ["datasets=fast_unitary_3q_test"])
MOST_ENTRIES = 2**26
"""See `Optimum`; on 3 qubits this allows up to five gates from each side."""
RANDOM_TRIES = 1024


@dataclass(frozen=True)
class Answer:
    """The shortest exact circuit found for a target (None if none was found) and the time it took."""

    circuit: Circuit | None
    seconds: float


def searched(pipeline: DiffusionPipeline, target: Matrix, max_seconds: float | None) -> Answer:
    """Search with the model."""
    result = find_exact(pipeline, target, max_seconds=max_seconds)
    return Answer(result.circuits[0].circuit if result.circuits else None, result.seconds)


def synthesized(task: TargetTask, target: Matrix, gates: Sequence[str]) -> Answer:
    """Synthesise with Qiskit."""
    started = time.perf_counter()
    circuit = task.by_qiskit(target, gates)
    return Answer(circuit, time.perf_counter() - started)


def report(name: str, answers: list[Answer], own: NDArray[np.int64], optimum: NDArray[np.int64]) -> dict[str, Any]:
    """Print and return the figures of one method; `optimum` is -1 where it is unknown."""
    solved = np.array([answer.circuit is not None for answer in answers])
    gates = np.array([0 if answer.circuit is None else len(answer.circuit) for answer in answers])
    known = solved & (optimum >= 0)
    above = (gates - optimum)[known]
    assert (above >= 0).all(), "a circuit below the optimum: the table is wrong"
    figures = {
        "what": name,
        "targets": len(solved),
        "solved": float(solved.mean()),
        "solved_95": wilson_interval(int(solved.sum()), len(solved)),
        "seconds": float(np.mean([answer.seconds for answer in answers])),
        "most_seconds": float(max(answer.seconds for answer in answers)),
    }
    if solved.any():
        figures |= {
            "gates": float(gates[solved].mean()),
            "own_gates": float(own[solved].mean()),
            "shorter_than_own": float((gates < own)[solved].mean()),
        }
    if known.any():
        figures |= {
            "optimum_known": int(known.sum()),
            "above_optimum": float(above.mean()),
            "optimal": float((above == 0).mean()),
        }
    print(
        ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
        ),
        flush=True,
    )
    return figures


def main() -> None:
    model, data, *numbers = [*sys.argv[1:], *("pretrained:unitary_3q", "")[len(sys.argv) - 1 :]]
    natural, of_each, limit = [*map(float, numbers), *(300, 20, 2)[len(numbers) :]]
    torch.set_num_threads(1)
    pipeline = load_pipeline(model)
    dataset = DatasetLoader().load_dataset(data) if data else DatasetGenerator(TEST_SET).generate()[0]
    task, table = pipeline.task, dataset.labelled(np.arange(0)).table
    assert isinstance(task, TargetTask)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(dataset))
    lengths = dataset.sizes[order, 1].astype(np.int64)
    sets = {
        "natural": order[: int(natural)],
        "balanced": np.concatenate([order[lengths == length][: int(of_each)] for length in np.unique(lengths)]),
    }
    started = time.perf_counter()
    optimum = Optimum(task, table, np.ones(len(table) + 1, dtype=np.bool_), MOST_ENTRIES)
    counts = ", ".join(map(str, optimum.sizes))
    print(
        f"0 to {optimum.depth} gates make {counts} others, hashed in {time.perf_counter() - started:.0f} s", flush=True
    )
    found = []
    for name, rows in sets.items():
        labelled = dataset.labelled(rows)
        targets = task.targets_of(labelled.ids, labelled.table)
        own = dataset.sizes[rows, 1].astype(np.int64)
        least = [optimum.least_gates(target, length) for target, length in zip(targets, own.tolist(), strict=True)]
        optima = np.array([-1 if gates is None else gates for gates in least])
        for seconds, label in ((None, "first found"), (limit, f"shortest in {limit:g} s")):
            answers = [searched(pipeline, target, seconds) for target in targets]
            found.append(report(f"{name}, {label}", answers, own, optima))
        if task.qiskit_competes:
            answers = [synthesized(task, target, pipeline.gate_pool.names) for target in targets]
            found.append(report(f"{name}, Qiskit", answers, own, optima))
        solved = 0
        for target, length in zip(targets, own.tolist(), strict=True):
            tries = random_ids(rng, table, RANDOM_TRIES, length, length)
            solved += bool((task.distances(tries, target[None], table) < EXACT).any())
        print(f"{name}, {RANDOM_TRIES} random circuits: solved {solved / len(targets):.3g}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
