"""Conversion of circuits to PennyLane, for `Circuit.to_pennylane`.

PennyLane is an optional extra; only this module imports it, and only when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import ConfigError, GateSetError

if TYPE_CHECKING:
    from pennylane.tape import QuantumScript

_NAMES = {
    "h": "Hadamard",
    "x": "PauliX",
    "y": "PauliY",
    "z": "PauliZ",
    "s": "S",
    "t": "T",
    "cx": "CNOT",
    "cy": "CY",
    "cz": "CZ",
    "swap": "SWAP",
    "ccx": "Toffoli",
    "cswap": "CSWAP",
    "sx": "SX",
    "rx": "RX",
    "ry": "RY",
    "rz": "RZ",
    "p": "PhaseShift",
    "cp": "ControlledPhaseShift",
    "crz": "CRZ",
    "rzz": "IsingZZ",
    "u": "U3",
}
_ADJOINTS = {"sdg": "S", "tdg": "T", "sxdg": "SX"}


def to_script(circuit: Circuit) -> QuantumScript:
    """Return a circuit as a PennyLane `QuantumScript`; see `Circuit.to_pennylane`.

    Raises:
        ConfigError: PennyLane is not installed.
        GateSetError: PennyLane lacks one of the circuit's gates.
    """
    try:
        import pennylane
    except ImportError:
        raise ConfigError(
            "to_pennylane needs PennyLane, which is not installed: run pip install 'quantum-diffusion[pennylane]'"
        ) from None

    operations = []
    for instruction in circuit.instructions:
        name = instruction.gate
        if name in _ADJOINTS:
            gate = pennylane.adjoint(getattr(pennylane, _ADJOINTS[name]))
        elif name in _NAMES:
            gate = getattr(pennylane, _NAMES[name])
        else:
            raise GateSetError(f"PennyLane has no gate {name!r}: expected one of {', '.join([*_NAMES, *_ADJOINTS])}")
        operations.append(gate(*instruction.angles, wires=instruction.qubits))
    return pennylane.tape.QuantumScript(operations)
