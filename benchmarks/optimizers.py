"""Compares circuit optimisers on the same random circuits: remaining gates and circuits per second.

Run: python benchmarks/optimizers.py [--circuits N] [--qiskit-circuits N] [--repetitions N]; it runs on one core.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from quantum_diffusion.circuits.backends import qiskit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours

SETTINGS = [
    (("h", "cx"), 3, 2, 16),
    (("h", "cx"), 5, 4, 28),
    (("h", "cx"), 8, 7, 52),
    (("h", "cx", "z", "x", "ccx", "swap"), 3, 2, 12),
    (("h", "s", "t", "sdg", "tdg", "z", "cx", "cz"), 4, 4, 24),
]
OWN: dict[str, Callable[[Ids, InstructionTable], Ids]] = {
    "cancel_inverse_neighbours": cancel_inverse_neighbours,
    "peephole": optimize,
}
QISKIT = {f"Qiskit {level}": partial(qiskit.optimize, level=level) for level in (1, 2, 3)}


def measure(
    method: Callable[[Ids, InstructionTable], Ids], ids: Ids, table: InstructionTable, repetitions: int
) -> tuple[Ids, float]:
    """Return the result and the best rate in circuits per second of CPU time; a first call builds the tables."""
    method(ids[:2], table)
    rates = []
    for _ in range(repetitions):
        started = time.process_time()
        result = method(ids, table)
        rates.append(len(ids) / (time.process_time() - started))
    return result, max(rates)


def main(num_circuits: int, num_qiskit: int, repetitions: int) -> None:
    """Print one row for each setting and method."""
    print("| setting | method | circuits | gates before | gates after | left | circuits a second |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for names, num_qubits, min_gates, max_gates in SETTINGS:
        table = instruction_table(GatePool(names), num_qubits)
        ids = random_ids(np.random.default_rng(0), table, num_circuits, min_gates, max_gates)
        setting = f"{{{','.join(names)}}}, {num_qubits} qubits, {min_gates}-{max_gates} gates"
        for name, method in {**OWN, **QISKIT}.items():
            given = ids[:num_qiskit] if name in QISKIT else ids
            result, rate = measure(method, given, table, 1 if name in QISKIT else repetitions)
            before, after = gate_count(given).mean(), gate_count(result).mean()
            row = [setting, name, f"{len(given):,}", f"{before:.2f}", f"{after:.2f}", f"{after / before:.1%}"]
            print("|", " | ".join([*row, f"{rate:,.0f}"]), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--circuits", type=int, default=10_000, help="random circuits a setting (default: 10000)")
    parser.add_argument(
        "--qiskit-circuits", type=int, default=10_000, help="how many of these Qiskit gets (default: all 10000)"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="of our own methods; the best counts (default: 3)")
    arguments = parser.parse_args()
    main(arguments.circuits, min(arguments.circuits, arguments.qiskit_circuits), arguments.repetitions)
