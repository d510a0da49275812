"""Measures how many labelled, simplified, distinct SRV circuits are generated per second, at several sizes.

Run: python benchmarks/generation.py [repetitions]; the cases take turns, and the table gives medians and extremes.
"""

import statistics
import sys
import time

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator

CASES = {
    "3 qubits, 2-8 gates": {"num_qubits": 3, "min_gates": 2, "max_gates": 8, "num_samples": 100_000},
    "3 qubits, 2-8 gates, balanced": {
        "num_qubits": 3,
        "min_gates": 2,
        "max_gates": 8,
        "num_samples": 100_000,
        "balance_max": 20_000,
    },
    "3 qubits, 2-16 gates": {"num_qubits": 3, "min_gates": 2, "max_gates": 16, "num_samples": 200_000},
    "5 qubits, 4-28 gates": {"num_qubits": 5, "min_gates": 4, "max_gates": 28, "num_samples": 200_000},
    "8 qubits, 7-52 gates": {"num_qubits": 8, "min_gates": 7, "max_gates": 52, "num_samples": 200_000},
    "3 qubits, 2-12 gates, {h,t,cx,ccx} (state vector)": {
        "gate_set": ("h", "t", "cx", "ccx"),
        "num_qubits": 3,
        "min_gates": 2,
        "max_gates": 12,
        "num_samples": 100_000,
    },
}


def main(repetitions: int) -> None:
    """Measure every case `repetitions` times, taking turns."""
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    for repetition in range(repetitions):
        for name, values in CASES.items():
            config = DatasetConfig.model_validate({**values, "seed": repetition})
            started = time.perf_counter()
            dataset, _ = DatasetGenerator(config).generate()
            rates[name].append(len(dataset) / (time.perf_counter() - started))
    print("| case | circuits a second, median | least | most |\n|---|---:|---:|---:|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
