"""Checks labels, unitaries and simplification of 10,000 random circuits of each gate pool against Qiskit and stim.

Run: python benchmarks/exactness.py [--circuits 10000]; exits with status 1 if anything differs.
"""

import argparse
import sys
import time

import numpy as np
import stim
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids

CLIFFORD = tuple(name for name, gate in GATES.items() if gate.is_clifford)
POOLS = {
    "{h,cx}": (("h", "cx"), 4, 20),
    "{h,cx,z,x,ccx,swap} (paper)": (("h", "cx", "z", "x", "ccx", "swap"), 3, 12),
    "Clifford": (CLIFFORD, 4, 20),
    "{h,t,cx}": (("h", "t", "cx"), 3, 20),
    "{h,s,t,sdg,tdg,z,cx,cz}": (("h", "s", "t", "sdg", "tdg", "z", "cx", "cz"), 4, 24),
    "{h,ccx,cswap}": (("h", "ccx", "cswap"), 4, 16),
    "all gates": (tuple(GATES), 4, 20),
}


def qiskit_unitaries(ids: Ids, table: InstructionTable) -> np.ndarray:
    """Return the unitaries from Qiskit's Operator, complex128 [N, D, D]."""
    backend = QiskitBackend()
    return np.array([Operator(backend.to_native(circuit)).data for circuit in circuits_from_ids(ids, table)])


def singular_value_ranks(states: np.ndarray) -> np.ndarray:
    """Return Schmidt ranks from singular values, int64 [N, Q]; states complex [N, D]."""
    num_qubits = states.shape[1].bit_length() - 1
    ranks = []
    for qubit in range(num_qubits):
        halves = states.reshape(len(states), -1, 2, 2**qubit).swapaxes(1, 2).reshape(len(states), 2, -1)
        ranks.append((np.linalg.svd(halves, compute_uv=False) > 1e-8).sum(axis=1))
    return np.stack(ranks, axis=1)


def stim_ranks(ids: Ids, table: InstructionTable) -> np.ndarray:
    """Return Schmidt ranks from stim, int8 [N, Q]: a qubit is separable if and only if its Bloch vector is nonzero."""
    tableaux = {gate.name: stim.Tableau.from_unitary_matrix(gate.matrix(), endian="little") for gate in table.pool}
    ranks = np.empty((len(ids), table.num_qubits), dtype=np.int8)
    for row, circuit in enumerate(ids.tolist()):
        simulator = stim.TableauSimulator()
        simulator.set_num_qubits(table.num_qubits)
        for step in (table.instructions[number - 1] for number in circuit if number):
            simulator.do_tableau(tableaux[step.gate], step.qubits)
        ranks[row] = [1 if simulator.peek_bloch(qubit)[0] else 2 for qubit in range(table.num_qubits)]
    return ranks


def main() -> int:
    """Check every pool and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--circuits", type=int, default=10_000)
    count = parser.parse_args().circuits
    wrong = 0
    print(
        "| pool | qubits | gates | wrong labels (Qiskit) | wrong labels (stim) | worst unitary | worst simplified "
        "| longer | gates before, after | seconds |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, (gates, num_qubits, max_gates) in POOLS.items():
        started = time.perf_counter()
        table = instruction_table(GatePool(gates), num_qubits)
        ids = random_ids(np.random.default_rng(1), table, count, 0, max_gates)
        ours, exact = unitaries(ids, table), qiskit_unitaries(ids, table)
        worst = np.abs(ours - exact).max()
        ranks = schmidt_rank_vectors(ids, table)
        by_qiskit = int((ranks != singular_value_ranks(exact[:, :, 0])).any(axis=1).sum())
        by_stim = int((ranks != stim_ranks(ids, table)).any(axis=1).sum()) if table.pool.is_clifford else 0
        simple = optimize(ids, table)
        worst_simple = np.abs(unitaries(simple, table) - exact).max()
        longer = int((gate_count(simple) > gate_count(ids)).sum())
        wrong += by_qiskit + by_stim + longer + (worst > 1e-10) + (worst_simple > 1e-10)
        stim_shown = by_stim if table.pool.is_clifford else "-"
        print(
            f"| {name} | {num_qubits} | 0-{max_gates} | {by_qiskit} | {stim_shown} | {worst:.0e} | {worst_simple:.0e} "
            f"| {longer} | {gate_count(ids).mean():.2f}, {gate_count(simple).mean():.2f} "
            f"| {time.perf_counter() - started:.0f} |",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
