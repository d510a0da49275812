"""Compares compilation by a shipped model with Qiskit's synthesis, on the same targets, with the same gates.

Qiskit's circuits are rewritten in these gates and count only if they are exact; each target is given to every method in
turn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend, basis_gates
from quantum_diffusion.circuits.backends.synthesis import synthesize
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import GateSetError
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.unitary import UnitaryTask

Method = Callable[[NDArray[np.complex128]], Circuit | None]

POOL = ("h", "cx", "z", "x", "ccx", "swap")
TARGETS = {
    "unitaries, {h,cx,z,x,ccx,swap}, 2-12 gates": POOL,
    "Cliffords, {h,cx,z,x,swap}, 2-12 gates": ("h", "cx", "z", "x", "swap"),
}


def draw(gates: tuple[str, ...], count: int) -> NDArray[np.complex128]:
    """Return the unitaries of distinct random circuits of 3 qubits, complex128 [count, 8, 8]."""
    values = {"gate_set": gates, "condition_type": "UNITARY", "num_qubits": 3, "min_gates": 2, "max_gates": 12}
    config = DatasetConfig.model_validate(values | {"num_samples": count, "seed": 2026, "n_jobs": 1})
    dataset, _ = DatasetGenerator(config).generate()
    known = dataset.labelled(np.arange(len(dataset)))
    return UnitaryTask().targets_of(known.ids, known.table)


def by_bravyi_maslov(target: NDArray[np.complex128], gates: tuple[str, ...]) -> Circuit | None:
    """Return the circuit of `synth_clifford_bm`, rewritten in the gates; None if that is impossible."""
    from qiskit.exceptions import QiskitError
    from qiskit.quantum_info import Clifford, Operator
    from qiskit.synthesis import synth_clifford_bm
    from qiskit.transpiler import generate_preset_pass_manager

    with contextlib.suppress(QiskitError, GateSetError):  # not a Clifford, or in need of other gates
        found = synth_clifford_bm(Clifford.from_operator(Operator(target)))
        manager = generate_preset_pass_manager(1, basis_gates=basis_gates(gates), seed_transpiler=0)
        circuit = QiskitBackend().from_native(manager.run(found))
        if set(circuit.gate_counts) <= set(gates):
            assert abs(np.vdot(QiskitBackend().unitary(circuit), target)) / len(target) > 1 - 1e-9
            return circuit
    return None


def compare_synthesis(count: int) -> list[dict[str, Any]]:
    """Print and return success, gates and seconds of every method; gates are means over what all methods solve."""
    pipeline = load_pipeline("pretrained:unitary_3q")
    rows: list[dict[str, Any]] = []
    print("\n| targets | method | solved | gates | gates where all solve | seconds |\n|---|---|---:|---:|---:|---:|")
    for title, gates in TARGETS.items():

        def ours(target: NDArray[np.complex128], gates: tuple[str, ...] = gates) -> Circuit | None:
            found = find_exact(pipeline, target, gates=gates, stop_at_first=True).circuits
            return found[0].circuit if found else None

        methods: dict[str, Method] = {"ours": ours, "Qiskit": lambda target, gates=gates: synthesize(target, gates)}
        if "ccx" not in gates:
            methods["synth_clifford_bm"] = lambda target, gates=gates: by_bravyi_maslov(target, gates)
        lengths = {name: np.zeros(count, np.int64) for name in methods}  # 0: not solved
        seconds = dict.fromkeys(methods, 0.0)
        for row, target in enumerate(draw(gates, count)):
            for name, method in methods.items():
                started = time.perf_counter()
                circuit = method(target)
                seconds[name] += time.perf_counter() - started
                lengths[name][row] = 0 if circuit is None else len(circuit)
        common = np.logical_and.reduce([found > 0 for found in lengths.values()])
        for name, found in lengths.items():
            figures = {
                "targets": title,
                "method": name,
                "solved": float((found > 0).mean()),
                "gates": float(found[found > 0].mean()) if found.any() else None,
                "common_gates": float(found[common].mean()) if common.any() else None,
                "common": int(common.sum()),
                "seconds": seconds[name] / count,
            }
            rows.append(figures)
            shown = [f"{figures[key]:.2f}" if figures[key] is not None else "-" for key in ("gates", "common_gates")]
            print(
                f"| {title} | {name} | {figures['solved']:.0%} | {' | '.join(shown)} | {figures['seconds']:.3f} |",
                flush=True,
            )
    return rows
