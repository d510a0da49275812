"""The result of a search for circuits for one target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import counted
from quantum_diffusion.search.found import MODEL, CompiledCircuit
from quantum_diffusion.search.results import CircuitTable
from quantum_diffusion.tasks.targets import Measure, TargetTask


@dataclass(frozen=True, kw_only=True, repr=False)
class Compilation(CircuitTable):
    """The result of a search for circuits for one target.

    Attributes:
        circuits: Distinct circuits that implement the target up to a global phase (infidelity below `EXACT`, or at most
            the requested tolerance), cheapest first; at most the requested number.
        best: The first of these; if there is none, the valid circuit with the lowest infidelity. None if no sample was
            a circuit of at most `max_gates` gates.
        gates: The allowed gates.
        num_sampled: Number of circuits sampled, of partial circuits kept by a beam, or of circuits refined.
        num_exact: Number of samples, or of completed circuits of a beam, that were exact, of any length.
        num_invalid: Number of samples that were not circuits of the allowed gates.
        num_too_long: Number of exact circuits dropped because they had more than `max_gates` gates when simplified.
        search: "beam", "sampling", or for gates with angles "refinement"; "angles" for those of a given circuit.
        seconds: Duration of the search in seconds.
        kept: Result of the fixed gates at the start, in words; None if there are none.
        interrupted: Whether the search was interrupted, so that this is the best result until then.
        tolerance: Accepted infidelity.
        measure: How the infidelities of circuits are told.
        never_exact: Whether the target's entries prove that no circuit of these gates is exact.
        model: Name or folder of the model that was asked; empty if unknown.
    """

    circuits: tuple[CompiledCircuit, ...]
    best: CompiledCircuit | None
    gates: tuple[str, ...]
    num_sampled: int
    num_exact: int
    num_invalid: int
    num_too_long: int
    search: str = "sampling"
    seconds: float = 0.0
    kept: str | None = None
    interrupted: bool = False
    tolerance: float = 0.0
    measure: Measure = TargetTask.measure
    never_exact: bool = False
    model: str = ""

    @property
    def found(self) -> Sequence[Circuit]:
        """The circuits without their infidelities."""
        return [compiled.circuit for compiled in self.circuits]

    def figures(self, row: int) -> Mapping[str, Any]:
        """Return a circuit's infidelity, whether it is exact, and its source if not all are the model's."""
        compiled = self.circuits[row]
        figures: dict[str, Any] = {**compiled.figures, "exact": compiled.is_exact}
        all_alike = all(each.source == MODEL for each in self.circuits)
        return figures if all_alike else figures | {"source": compiled.source}

    @property
    def effort(self) -> str:
        """How much the search tried, in a few words."""
        if self.search == "sampling":
            return f"{self.num_exact} of {self.num_sampled} samples were exact, {self.num_invalid} invalid"
        if self.search == "refinement":
            return f"{counted(self.num_sampled, 'circuit')} refined"
        if self.search == "angles":
            return f"refined from {counted(self.num_sampled, 'start')}"
        return f"beam search, {counted(self.num_sampled, 'partial circuit')} tried"

    @property
    def summary(self) -> str:
        """The result in one line."""
        found = counted(len(self.circuits), "distinct circuit")
        nearest = ""
        if not self.circuits and self.best is not None:
            nearest = f"; the closest has {self.best.words}"
        return f"{found} for the target{nearest} ({self.effort}; {self.seconds:.1f} s)"
