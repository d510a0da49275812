"""The interface through which this package exchanges circuits with another quantum library and checks its results.

Backends read, draw and verify single circuits; bulk work stays in `simulate` and `labels`.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit

Native = TypeVar("Native")


class CircuitBackend(Protocol[Native]):
    """Conversion to and from a library's own circuit type `Native`, and simulation by that library."""

    def to_native(self, circuit: Circuit) -> Native:
        """Return the circuit in the library's own type; qubit q stays qubit q."""
        ...

    def from_native(self, native: Native) -> Circuit:
        """Return the library's circuit as a `Circuit`; raises `GateSetError` if that is impossible."""
        ...

    def unitary(self, circuit: Circuit) -> NDArray[np.complex128]:
        """Return the unitary, complex128 [D, D] with D = 2**num_qubits, qubit q as bit q of the index."""
        ...

    def schmidt_rank_vector(self, circuit: Circuit) -> list[int]:
        """Return the rank (1 or 2) of each qubit's reduced state after the circuit ran on |0...0>."""
        ...
