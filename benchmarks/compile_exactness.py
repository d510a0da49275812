"""Whether what `find_exact` calls exact is exact by Qiskit: written as OpenQASM 2, read back, multiplied out.

Run: python benchmarks/compile_exactness.py [MODEL_FOLDER] [--outputs 1000]; exits with status 1 when anything differs.
Targets are random circuits of the model's gates, of any number of qubits, each with a random choice of gates and, half
of them, a bound on the gates.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from qiskit import qasm2
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.pretrained import model_folder
from quantum_diffusion.search.exact import find_exact


def draw_target(rng: np.random.Generator, pipeline: CompilationDiffusionPipeline) -> tuple[Circuit, list[str]]:
    """Return a random circuit and the gates it was drawn from."""
    num_qubits = pipeline.config.num_qubits
    if rng.random() < 0.25:
        num_qubits = int(rng.integers(1, num_qubits + 1))
    fitting = [name for name in pipeline.gate_pool.names if GATES[name].num_qubits <= num_qubits]
    gates = sorted(rng.choice(fitting, rng.integers(1, len(fitting) + 1), replace=False).tolist())
    table = instruction_table(GatePool(gates), num_qubits)
    return circuits_from_ids(random_ids(rng, table, 1, 1, pipeline.config.max_gates), table)[0], gates


def main() -> int:
    """Compile, check and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=model_folder(None, "compile"))
    parser.add_argument("--outputs", type=int, default=1000)
    parser.add_argument("--tries", type=int, default=256)
    arguments = parser.parse_args()
    pipeline = load_pipeline(arguments.model)
    if not isinstance(pipeline, CompilationDiffusionPipeline):
        parser.error(f"{arguments.model} is no model of unitaries")
    rng = np.random.default_rng(0)
    targets = solved = outputs = wrong = missed = misfits = sampled = exact = 0
    worst, before, after, started = 0.0, [], [], time.perf_counter()
    while outputs < arguments.outputs:
        circuit, gates = draw_target(rng, pipeline)
        bound = len(circuit) if rng.random() < 0.5 else None
        target = Operator(QiskitBackend().to_native(circuit))
        result = find_exact(
            pipeline, target.data, gates=gates, max_gates=bound, max_tries=arguments.tries, num_circuits=3, seed=targets
        )
        targets, solved = targets + 1, solved + bool(result.circuits)
        sampled, exact = sampled + result.num_sampled, exact + result.num_exact
        outputs += len(result.circuits)
        for compiled in result.circuits:
            found = qasm2.loads(compiled.circuit.to_qasm2())
            overlap = abs(np.trace(target.adjoint().data @ Operator(found).data)) / len(target.data)
            worst = max(worst, 1 - overlap**2)
            wrong += not Operator(found).equiv(target)
            misfits += not set(found.count_ops()) <= set(gates) or found.size() > (bound or pipeline.config.max_gates)
        misfits += len({compiled.circuit for compiled in result.circuits}) < len(result.circuits)
        if result.circuits:
            before.append(len(circuit))
            after.append(len(result.circuits[0].circuit))
        elif result.best is not None:
            missed += Operator(qasm2.loads(result.best.circuit.to_qasm2())).equiv(target)
    print(
        f"| targets | solved in {arguments.tries} tries | samples | exact samples | circuits called exact "
        "| not exact by Qiskit | worst infidelity | exact, but not called so | gates not allowed, too long or repeated "
        "| gates of targets, of the shortest circuits | seconds |\n|" + "---:|" * 11 + "\n"
        f"| {targets} | {solved} | {sampled} | {exact / sampled:.1%} | {outputs} | {wrong} | {worst:.0e} | {missed} "
        f"| {misfits} | {np.mean(before):.2f}, {np.mean(after):.2f} | {time.perf_counter() - started:.0f} |"
    )
    return int(wrong + missed + misfits > 0)


if __name__ == "__main__":
    sys.exit(main())
