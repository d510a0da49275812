"""How many gates above the optimum compiled circuits have: all circuits of few gates are hashed, and two are joined.

    python benchmarks/optimum.py [MODEL [TARGETS [NATURAL [OF_EACH_LENGTH [SECONDS]]]]]

MODEL is a folder or pretrained:NAME, TARGETS a data set of unitaries that training left out; without them the circuits
of datasets=fast_unitary_3q_test are made. Every target may be compiled with all gates of the model. The least number
of gates of a target is exact: a target of n gates is the product of a circuit of at most five and one of n - 5, and
all of those are tried.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.evaluation.metrics import wilson_interval
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pretrained import model_folder
from quantum_diffusion.search.completions import phase_free_keys
from quantum_diffusion.search.exact import Compilation, find_exact
from quantum_diffusion.tasks.targets import TargetTask

TEST_SET = compose("datasets", DatasetConfig, ["datasets=fast_unitary_3q_test"])
DEPTH = 5
BLOCK = 2**15


class Optimum:
    """All unitaries of at most `DEPTH` gates, by their keys."""

    def __init__(self, table: InstructionTable) -> None:
        gates = unitaries(np.arange(1, len(table) + 1, dtype=np.int16)[:, None], table).astype(np.complex64)
        side = gates.shape[1]
        self.levels: list[Matrix] = [np.eye(side, dtype=np.complex64)[None]]
        self.keys: list[NDArray[np.int64]] = [keys_of(self.levels[0])]
        for _ in range(DEPTH):
            longer = np.concatenate(
                [(gates @ block[:, None]).reshape(-1, side, side) for block in blocks(self.levels[-1], 1024)]
            )
            every, first = np.unique(keys_of(longer), return_index=True)
            new = ~np.isin(every, np.concatenate(self.keys))
            self.keys.append(every[new])
            self.levels.append(longer[first[new]])

    def least_gates(self, target: Matrix, own: int) -> int:
        """Return the fewest gates of circuits of a unitary that has one of `own`; -1 where that is beyond the table."""
        key = keys_of(target[None].astype(np.complex64))
        for length, keys in enumerate(self.keys[: own + 1]):
            if np.isin(key, keys)[0]:
                return length
        for length in range(1, min(own - DEPTH, DEPTH + 1)):
            for block in blocks(self.levels[length], BLOCK):
                rest = target.astype(np.complex64) @ block.conj().swapaxes(1, 2)
                if np.isin(keys_of(rest), self.keys[DEPTH]).any():
                    return DEPTH + length
        return own if own <= 2 * DEPTH + 1 else -1


def blocks(matrices: Matrix, size: int) -> Iterator[Matrix]:
    return (matrices[i : i + size] for i in range(0, len(matrices), size))


def keys_of(matrices: Matrix) -> NDArray[np.int64]:
    return np.concatenate(
        [phase_free_keys(torch.from_numpy(as_two_channels(block))) for block in blocks(matrices, BLOCK)]
    )


def report(name: str, results: list[Compilation], own: NDArray[np.int64], optimum: NDArray[np.int64]) -> dict[str, Any]:
    """Print and return the figures of one way of searching."""
    solved = np.array([bool(result.circuits) for result in results])
    gates = np.array([len(result.circuits[0].circuit) if result.circuits else 0 for result in results])
    known = solved & (optimum >= 0)
    above = (gates - optimum)[known]
    assert (above >= 0).all(), "a circuit below the optimum: the table is wrong"
    figures = {
        "what": name,
        "targets": len(solved),
        "solved": float(solved.mean()),
        "solved_95": wilson_interval(int(solved.sum()), len(solved)),
        "seconds": float(np.mean([result.seconds for result in results])),
        "most_seconds": float(max(result.seconds for result in results)),
        "gates": float(gates[solved].mean()),
        "own_gates": float(own[solved].mean()),
        "shorter_than_own": float((gates < own)[solved].mean()),
        "optimum_known": int(known.sum()),
        "above_optimum": float(above.mean()),
        "optimal": float((above == 0).mean()),
    }
    print(
        ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
        )
    )
    sys.stdout.flush()
    return figures


def main() -> None:
    model, data, *numbers = [*sys.argv[1:], *("pretrained:unitary_3q", "")[len(sys.argv) - 1 :]]
    natural, of_each, limit = [*map(float, numbers), *(300, 20, 2)[len(numbers) :]]
    torch.set_num_threads(1)
    pipeline = load_pipeline(model_folder(model, "compile"))
    dataset = DatasetLoader().load_dataset(data) if data else DatasetGenerator(TEST_SET).generate()[0]
    assert isinstance(pipeline.task, TargetTask)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(dataset))
    lengths = dataset.sizes[order, 1].astype(np.int64)
    sets = {
        "natural": order[: int(natural)],
        "balanced": np.concatenate([order[lengths == length][: int(of_each)] for length in np.unique(lengths)]),
    }
    started = time.perf_counter()
    optimum = Optimum(pipeline.table)
    counts = ", ".join(str(len(keys)) for keys in optimum.keys)
    print(f"hashed {counts} unitaries of 0 to {DEPTH} gates in {time.perf_counter() - started:.0f} s", flush=True)
    found = []
    for name, rows in sets.items():
        labelled = dataset.labelled(rows)
        targets = pipeline.task.targets_of(labelled.ids, labelled.table)
        own = dataset.sizes[rows, 1].astype(np.int64)
        least = np.array(
            [optimum.least_gates(target, int(length)) for target, length in zip(targets, own, strict=True)]
        )
        for seconds in (None, limit):
            results = [find_exact(pipeline, target, max_seconds=seconds) for target in targets]
            label = f"{name}, first found" if seconds is None else f"{name}, shortest in {seconds:g} s"
            found.append(report(label, results, own, least))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
