"""Compares how many distinct, optimised, labelled circuits this package and genQC 0.2.5 generate per second.

Run: python benchmarks/generation_vs_genqc.py [--repetitions 5] [--seconds 10]; both sides of a case take turns. genQC
generates circuits for unitaries in parallel, but for Schmidt rank vectors in only one process; a second figure is for
one such process per core. genQC's loop for Schmidt rank vectors fails with an undefined name, so the benchmark calls
its function for a single circuit.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np

from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator

PAPER_POOL = ("h", "cx", "z", "x", "ccx", "swap")
CASES: dict[str, dict[str, Any]] = {
    "SRV, 3 qubits, {h,cx}, 2-16 gates": {"num_qubits": 3, "min_gates": 2, "max_gates": 16, "num_samples": 200_000},
    "SRV, 5 qubits, {h,cx}, 4-28 gates": {"num_qubits": 5, "min_gates": 4, "max_gates": 28, "num_samples": 200_000},
    "SRV, 8 qubits, {h,cx}, 7-52 gates": {"num_qubits": 8, "min_gates": 7, "max_gates": 52, "num_samples": 200_000},
    "unitaries, 3 qubits, {h,cx,z,x,ccx,swap}, 2-12 gates": {
        "gate_set": PAPER_POOL,
        "condition_type": "UNITARY",
        "num_qubits": 3,
        "min_gates": 2,
        "max_gates": 12,
        "num_samples": 1_000_000,
    },
}


def genqc_circuits(config: DatasetConfig, seed: int, seconds: float) -> list[bytes]:
    """Generate circuits with genQC for the given time; return their tokens."""
    import torch
    from genQC.platform.backends.circuits_qiskit import CircuitsQiskitBackend
    from genQC.platform.circuits_generation import CircuitConditionType, get_rnd_encoded_circuit
    from genQC.platform.tokenizer.circuits_tokenizer import CircuitTokenizer

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    backend = CircuitsQiskitBackend()
    tokenizer = CircuitTokenizer({gate: number for number, gate in enumerate(config.gate_set, start=1)})
    kind = CircuitConditionType[config.condition_type]
    made = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pool = list(config.gate_set)
        if config.condition_type == "UNITARY":
            pool = [pool[i] for i in np.sort(rng.choice(len(pool), rng.integers(1, len(pool) + 1), replace=False))]
        tokens = get_rnd_encoded_circuit(
            backend, tokenizer, kind, config.num_qubits, pool, config.min_gates, config.max_gates, rng
        )[2]
        made.append(tokens.numpy().tobytes())
    return made


def genqc_rate(config: DatasetConfig, seeds: Iterator[int], seconds: float, processes: int) -> float:
    """Return the distinct circuits per second of genQC."""
    jobs = [joblib.delayed(genqc_circuits)(config, next(seeds), seconds) for _ in range(processes)]
    started = time.perf_counter()
    made = joblib.Parallel(n_jobs=processes)(jobs)
    return len(set(itertools.chain(*made))) / (time.perf_counter() - started)


def our_rate(config: DatasetConfig, seed: int) -> float:
    """Return the distinct circuits per second of this package, including unitaries."""
    started = time.perf_counter()
    dataset, _ = DatasetGenerator(config.model_copy(update={"seed": seed})).generate()
    seconds = time.perf_counter() - started
    assert len(np.unique(row_keys(dataset.tokens))) == len(dataset)
    return len(dataset) / seconds


def main() -> None:
    """Measure every case on both sides, taking turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of genQC's work in each repetition")
    arguments = parser.parse_args()
    seeds = itertools.count()
    cores = joblib.cpu_count()
    print(
        "| case | ours, a second | genQC, as it is | ratio | least ratio | genQC, a process a core | ratio |\n"
        "|---|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    for name, values in CASES.items():
        config = DatasetConfig.model_validate(values)
        usual = cores if config.condition_type == "UNITARY" else 1
        genqc_rate(config, seeds, 0.1, cores)  # starts the workers and their imports
        ours, theirs, everywhere = [], [], []
        for _ in range(arguments.repetitions):
            theirs.append(genqc_rate(config, seeds, arguments.seconds, usual))
            ours.append(our_rate(config, next(seeds)))
            everywhere.append(theirs[-1] if usual == cores else genqc_rate(config, seeds, arguments.seconds, cores))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        hardest = statistics.median(a / b for a, b in zip(ours, everywhere, strict=True))
        print(
            f"| {name} | {statistics.median(ours):,.0f} | {statistics.median(theirs):,.0f} "
            f"| {statistics.median(ratios):,.0f} | {min(ratios):,.0f} "
            f"| {statistics.median(everywhere):,.0f} | {hardest:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
