"""Checks with Qiskit that circuits returned as exact by `sample`, `compile` and `prepare` are exact.

    python benchmarks/returned_exactness.py [MODEL ...] [--outputs 3334] [--tries 64]

MODEL is a folder or pretrained:NAME; by default all models of the package are checked. The circuits are written as
OpenQASM 2, read back and simulated by Qiskit. A model of unitaries or states returns at least --outputs circuits: its
targets come from random circuits of a random subset of its gates, a quarter of them on a random number of qubits, half
of them with a bound on the number of gates. A model of Schmidt rank vectors gets --outputs requests, its prompts in
turn. Exits with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit, qasm2
from qiskit.quantum_info import Operator, Statevector, entropy, partial_trace

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import pretrained_names
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.srv import SrvSamples

ENTANGLED = 1e-6
"""Entropy of a qubit's reduced state above which it counts as entangled; in these circuits it is 0 or far above."""


@dataclass
class Counts:
    """The results for one model.

    Attributes:
        requests: Number of requests.
        answered: Requests with at least one circuit.
        outputs: Circuits returned as exact.
        wrong: Returned circuits that do not match their request according to Qiskit.
        misfits: Returned circuits with disallowed or too many gates, and requests with repeated circuits.
        missed: Unanswered requests whose nearest circuit is exact according to Qiskit.
    """

    requests: int = 0
    answered: int = 0
    outputs: int = 0
    wrong: int = 0
    misfits: int = 0
    missed: int = 0


def draw_circuit(rng: np.random.Generator, pipeline: DiffusionPipeline) -> tuple[Circuit, list[str]]:
    """Return a random circuit and the gates allowed in it."""
    num_qubits = pipeline.config.num_qubits
    if rng.random() < 0.25:
        num_qubits = int(rng.integers(1, num_qubits + 1))
    fitting = [name for name in pipeline.gate_pool.names if GATES[name].num_qubits <= num_qubits]
    gates = sorted(rng.choice(fitting, rng.integers(1, len(fitting) + 1), replace=False).tolist())
    table = instruction_table(GatePool(gates), num_qubits)
    return circuits_from_ids(random_ids(rng, table, 1, 1, pipeline.config.max_gates), table)[0], gates


def read_back(circuit: Circuit) -> QuantumCircuit:
    """Write a circuit as OpenQASM 2 and read it with Qiskit."""
    return qasm2.loads(circuit.to_qasm2())


def check_targets(pipeline: DiffusionPipeline, outputs: int, tries: int) -> Counts:
    """Compile unitaries or prepare states, and check the circuits."""
    rng, counts = np.random.default_rng(0), Counts()
    form = Operator if pipeline.task.name == "UNITARY" else Statevector
    while counts.outputs < outputs:
        circuit, gates = draw_circuit(rng, pipeline)
        bound = len(circuit) if rng.random() < 0.5 else None
        target = form(read_back(circuit))
        result = find_exact(
            pipeline, target.data, gates=gates, max_gates=bound, max_tries=tries, num_circuits=2, seed=counts.requests
        )
        counts.requests += 1
        counts.answered += bool(result.circuits)
        counts.outputs += len(result.circuits)
        most = bound or pipeline.config.max_gates
        for compiled in result.circuits:
            found = read_back(compiled.circuit)
            counts.wrong += not form(found).equiv(target)
            counts.misfits += not set(found.count_ops()) <= set(gates) or found.size() > most
        counts.misfits += len({compiled.circuit for compiled in result.circuits}) < len(result.circuits)
        if not result.circuits and result.best is not None:
            counts.missed += form(read_back(result.best.circuit)).equiv(target)
    return counts


def check_samples(pipeline: DiffusionPipeline, outputs: int) -> Counts:
    """Sample circuits for Schmidt rank vectors and check those that match."""
    prompts = pipeline.config.prompts
    samples = pipeline.sample([prompts[number % len(prompts)] for number in range(outputs)], 0)
    assert isinstance(samples, SrvSamples)
    rows = np.flatnonzero(samples.matches)
    counts = Counts(requests=outputs, answered=len(rows), outputs=len(rows))
    for row, circuit in zip(rows.tolist(), samples.circuits(rows), strict=True):
        state, qubits = Statevector(read_back(circuit)), range(circuit.num_qubits)
        mixed = [entropy(partial_trace(state, [q for q in qubits if q != qubit])) > ENTANGLED for qubit in qubits]
        counts.wrong += [1 + entangled for entangled in mixed] != list(samples.labels[row])
        counts.misfits += not {step.gate for step in circuit.instructions} <= set(pipeline.gate_pool.names)
    return counts


def main() -> int:
    """Check every model and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[f"pretrained:{name}" for name in pretrained_names()])
    parser.add_argument("--outputs", type=int, default=3334)
    parser.add_argument("--tries", type=int, default=64)
    arguments = parser.parse_args()
    print(
        "| model | requests | answered | circuits called exact | not exact by Qiskit | gates not allowed, too long or",
        end="",
    )
    print(" repeated | exact, but not called so | seconds |\n|---|" + "---:|" * 7)
    failures = 0
    for model in arguments.models:
        started = time.perf_counter()
        pipeline = load_pipeline(model)
        if pipeline.task.encoder is None:
            counts = check_samples(pipeline, arguments.outputs)
        else:
            counts = check_targets(pipeline, arguments.outputs, arguments.tries)
        print(
            f"| {model} | {counts.requests} | {counts.answered} | {counts.outputs} | {counts.wrong} "
            f"| {counts.misfits} | {counts.missed} | {time.perf_counter() - started:.0f} |",
            flush=True,
        )
        failures += counts.wrong + counts.misfits + counts.missed
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
