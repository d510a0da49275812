"""Finds circuits with angles for named targets, beside genQC's published infidelities: by refinement, and by search.

    python benchmarks/named_angles.py [--starts 64] [--seed 0] [--seconds 10] [--model-4q FOLDER]

First the angles of known structures, from random starts; then circuits by `compile`, within --seconds, which names
those that are Qiskit's. Targets of four qubits need a model of `parameterised_4q`.
Structures: the textbook's quantum Fourier transforms and Toffoli gate (h, cx, p), and one bond gate of three cx for
each bond of an XXZ chain, with fields, repeated. The angles of all of them are unknown to the search.
"""

from __future__ import annotations

import argparse

from qiskit.quantum_info import Operator

import quantum_diffusion as qd
from quantum_diffusion.circuits.matrices import infidelities
from quantum_diffusion.search.unitaries import target_unitary

XXZ = "xxz:3:J0.4:delta0.4:h0.2:t0.25"


def written(num_qubits: int, gates: str) -> qd.Circuit:
    """Return a circuit of gates such as "h 0; cp 0,1; rz 2", all angles 1."""
    lines = [f"qreg q[{num_qubits}];"]
    for gate in filter(None, map(str.strip, gates.split(";"))):
        name, qubits = gate.split()
        angle = "(1)" if name in ("rx", "ry", "rz", "p", "cp") else ""
        lines.append(f"{name}{angle} {','.join(f'q[{qubit}]' for qubit in qubits.split(','))};")
    return qd.Circuit.from_qasm('OPENQASM 2.0; include "qelib1.inc";\n' + "\n".join(lines))


def fourier(num_qubits: int) -> qd.Circuit:
    """Return the structure of the quantum Fourier transform."""
    gates = [
        "; ".join([f"h {qubit}", *(f"cp {other},{qubit}" for other in reversed(range(qubit)))])
        for qubit in reversed(range(num_qubits))
    ]
    swaps = [f"swap {qubit},{num_qubits - 1 - qubit}" for qubit in range(num_qubits // 2)]
    return written(num_qubits, "; ".join(gates + swaps))


def toffoli() -> qd.Circuit:
    """Return the structure of the Toffoli gate from h, cx and p (Nielsen and Chuang, figure 4.9)."""
    return written(
        3,
        "h 2; cx 1,2; p 2; cx 0,2; p 2; cx 1,2; p 2; cx 0,2; p 1; p 2; h 2; cx 0,1; p 0; p 1; cx 0,1",
    )


def chain(bonds: str) -> qd.Circuit:
    """Return fields, bond gates ("01 12" or another order), and fields, on three qubits."""
    fields = "rx 0; rx 1; rx 2; "
    parts = []
    for first, second in bonds.split():
        parts.append(
            f"rz {second}; cx {second},{first}; rz {first}; ry {second}; cx {first},{second}; ry {second}; "
            f"cx {second},{first}; rz {first}; "
        )
    return written(3, fields + "".join(parts) + fields)


CASES: list[tuple[str, str, qd.Circuit, float, str]] = [
    ("QFT-3", "qft:3", fourier(3), 0.0, "-"),
    ("QFT-4", "qft:4", fourier(4), 0.0, "1.6e-2"),
    ("Toffoli from h, cx, p", "toffoli", toffoli(), 0.0, "-"),
    ("XXZ, two bonds", XXZ, chain("01 12"), 1e-3, "3.5e-2"),
    ("XXZ, three bonds", XXZ, chain("01 12 01"), 1e-4, "3.5e-2"),
    ("XXZ, three bonds", XXZ, chain("01 12 01"), 1e-6, "3.5e-2"),
    ("XXZ, four bonds", XXZ, chain("01 12 01 12"), 1e-7, "3.5e-2"),
]
"""Name, target, structure, accepted infidelity (0 is exact), and genQC's infidelity (best of 64; arXiv 2506.01666)."""


GENQC = ["h", "cx", "ccx", "swap", "rx", "ry", "rz", "cp"]

SEARCHES: list[tuple[str, list[str], float, str]] = [
    ("qft:3", ["h", "cp", "swap"], 0.0, "-"),
    ("qft:3", GENQC, 0.0, "-"),
    ("toffoli", ["h", "cx", "cp"], 0.0, "-"),
    ("toffoli", ["h", "cx", "rz"], 0.0, "-"),
    (XXZ, GENQC, 1e-4, "3.5e-2"),
    (XXZ, GENQC, 1e-6, "3.5e-2"),
    ("qft:4", ["h", "cp", "swap"], 0.0, "1.6e-2"),
    ("qft:4", GENQC, 0.0, "1.6e-2"),
]
"""Target, gates, accepted infidelity and genQC's; the last two need a model of four qubits."""


def search(seconds: float, seed: int, wide: str | None) -> None:
    """Compile each case and print a line for it."""
    print(
        "\ntarget                        gates allowed                     gates  infidelity  by Qiskit  from   genQC"
    )
    for target, gates, tolerance, published in SEARCHES:
        if target == "qft:4" and wide is None:
            continue
        model = qd.load(wide if target == "qft:4" and wide else "pretrained:angles_3q", device="cpu")
        found = model.compile(target, gates=gates, tolerance=tolerance, max_seconds=seconds, seed=seed)
        assert found.best is not None
        unitary = target_unitary(target, found.best.circuit.num_qubits)
        qiskit = infidelities(Operator(found.best.circuit.to_qiskit()).data[None], unitary[None])[0]
        print(
            f"{target:30s}  {','.join(gates):25s}  {len(found.best.circuit):5d}  {found.best.infidelity:10.1e}"
            f"  {qiskit:9.1e}  {found.best.source:6s}  {published}",
            flush=True,
        )


def main() -> None:
    """Refine each case and print a line for it, then search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model-4q")
    options = parser.parse_args()
    print("target                  gates  shortened  infidelity  by Qiskit  starts exact  seconds  genQC")
    for name, target, structure, tolerance, published in CASES:
        found = qd.refine(
            structure, target, starts=options.starts, tolerance=tolerance, shorten=True, seed=options.seed
        )
        assert found.best is not None
        unitary = target_unitary(target, structure.num_qubits)
        qiskit = infidelities(Operator(found.best.circuit.to_qiskit()).data[None], unitary[None])[0]
        print(
            f"{name:22s}  {len(structure):5d}  {len(found.best.circuit):9d}  {found.best.infidelity:10.1e}"
            f"  {qiskit:9.1e}  {found.num_exact:12d}  {found.seconds:7.2f}  {published}",
            flush=True,
        )
    search(options.seconds, options.seed, options.model_4q)


if __name__ == "__main__":
    main()
