"""Sampled circuits with their true labels: what sampling returns after everything was simulated.

Invalid samples are data, not errors; a sample counts as a match only if simulation says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_wholes
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, compact, gate_count
from quantum_diffusion.circuits.labels import SchmidtRanks, schmidt_rank_vectors
from quantum_diffusion.circuits.simulate import infidelities, unitaries
from quantum_diffusion.circuits.tokenizer import DecodeReport, circuits_from_ids
from quantum_diffusion.errors import ConfigError

EXACT = 1e-6
"""A circuit is its target when the infidelity, computed in float64, is below this."""

_UNITARY_BYTES = 64 * 2**20
"""Memory for one block of unitaries."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledCircuits(ABC):
    """Sampled circuits after decoding; what makes one exact is told by the kind of request.

    Attributes:
        prompts: What was asked for, one a sample.
        report: Which samples are circuits, and what is wrong with the others.
        ids: int16 [N, T], instructions, gates moved to the front.
        num_qubits: int64 [N], qubits asked for.
        table: The instructions the ids number.
    """

    prompts: tuple[str, ...]
    report: DecodeReport
    ids: Ids
    num_qubits: NDArray[np.int64]
    table: InstructionTable

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def gate_pool(self) -> GatePool:
        """The gates of the circuits."""
        return self.table.pool

    @property
    def gate_counts(self) -> NDArray[np.int64]:
        """Gates of each sample, int64 [N]."""
        return gate_count(self.ids)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Valid circuits without any gate, bool [N]: they are never novel."""
        empty: NDArray[np.bool_] = self.report.valid & (self.gate_counts == 0)
        return empty

    @property
    @abstractmethod
    def matches(self) -> NDArray[np.bool_]:
        """Valid circuits that are exactly what was asked for, bool [N]."""

    @abstractmethod
    def outcome(self, row: int) -> str:
        """Say in a few words what was asked for and what came."""

    def circuits(self, rows: Sequence[int] | NDArray[np.integer]) -> list[Circuit]:
        """Return samples as circuits.

        Args:
            rows: Which, by number; `samples.matches.nonzero()[0]` are those that are exact.

        Raises:
            ConfigError: A row is none of them.
        """
        chosen = np.asarray(check_wholes(rows, "rows", "[0, 1], or samples.matches.nonzero()[0]"), dtype=np.int64)
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise ConfigError(f"rows has {chosen.max()}, but there are {len(self)} samples: give 0 to {len(self) - 1}")
        return circuits_from_ids(self.ids[chosen], self.table, self.num_qubits[chosen].tolist())


@dataclass(frozen=True, eq=False, kw_only=True)
class SrvSamples(SampledCircuits):
    """Circuits sampled for Schmidt rank vectors, with the true ones found by simulation.

    Attributes:
        labels: The Schmidt rank vector in each prompt.
        ranks: int8 [N, Q], the true Schmidt rank vector; 0 for invalid samples and on qubits a sample was not asked
            to have.
        wanted: int8 [N, Q], `labels` as an array; 0 on qubits a sample was not asked to have.
    """

    labels: tuple[tuple[int, ...], ...]
    ranks: SchmidtRanks
    wanted: SchmidtRanks

    @cached_property
    def matches(self) -> NDArray[np.bool_]:
        """Valid circuits with exactly the Schmidt rank vector asked for, bool [N]; see `exact_matches`."""
        return exact_matches(self.ids, self.ranks, self.wanted)

    def outcome(self, row: int) -> str:
        """Say in a few words what was asked for and what came."""
        asked = list(self.labels[row])
        got = self.ranks[row, : len(asked)].tolist() if self.report.valid[row] else self.report.reasons[row]
        return f"asked {asked}: got {got}"


@dataclass(frozen=True, eq=False, kw_only=True)
class CompiledSamples(SampledCircuits):
    """Circuits sampled for unitaries, with the infidelity found by simulation.

    Attributes:
        infidelities: float64 [N], 1 - |tr(V^dagger U)|^2 / D^2 of the circuit's V and the target U; 1 for invalid
            samples.
    """

    infidelities: NDArray[np.float64]

    @cached_property
    def matches(self) -> NDArray[np.bool_]:
        """Valid circuits that are their target up to a global phase, bool [N]: infidelity below `EXACT`."""
        exact: NDArray[np.bool_] = self.report.valid & (self.infidelities < EXACT)
        return exact

    def outcome(self, row: int) -> str:
        """Say in a few words what was asked for and what came."""
        got = f"infidelity {self.infidelities[row]:.2g}" if self.report.valid[row] else self.report.reasons[row]
        return f"{self.prompts[row]}: {got}"


def exact_matches(ids: Ids, ranks: SchmidtRanks, wanted: SchmidtRanks) -> NDArray[np.bool_]:
    """Tell which circuits have exactly the Schmidt rank vector asked for, bool [N].

    An empty circuit never does: it has [1, 1, ...] without a model having made anything.

    Args:
        ids: int16 [N, T].
        ranks: int8 [N, Q], found by simulation; 0 for invalid samples, so that they never match.
        wanted: int8 [N, Q], asked for.
    """
    exact: NDArray[np.bool_] = (gate_count(ids) > 0) & (ranks == wanted).all(axis=1)
    return exact


def verify_srv(
    prompts: Sequence[str], labels: Sequence[tuple[int, ...]], report: DecodeReport, table: InstructionTable
) -> SrvSamples:
    """Simulate decoded samples and compare them with the Schmidt rank vectors asked for.

    Args:
        prompts: N prompts.
        labels: The Schmidt rank vector in each prompt, one entry a qubit asked for.
        report: The decoded samples, ids int16 [N, T].
        table: The instructions the ids number.
    """
    widths = np.array([len(label) for label in labels])
    ids = compact(report.ids)
    ranks = schmidt_rank_vectors(ids, table)
    wanted = np.zeros_like(ranks)
    for row, label in enumerate(labels):
        wanted[row, : len(label)] = label
    ranks[~report.valid] = 0
    ranks[np.arange(ranks.shape[1]) >= widths[:, None]] = 0
    return SrvSamples(
        prompts=tuple(prompts),
        report=report,
        ids=ids,
        num_qubits=widths,
        table=table,
        labels=tuple(labels),
        ranks=ranks,
        wanted=wanted,
    )


def verify_unitaries(
    prompts: Sequence[str],
    targets: NDArray[np.complex128],
    widths: NDArray[np.int64],
    report: DecodeReport,
    table: InstructionTable,
) -> CompiledSamples:
    """Simulate decoded samples and compare them with the unitaries asked for.

    Args:
        prompts: N prompts.
        targets: complex128 [N, D, D], the identity on qubits a sample was not asked to have.
        widths: int64 [N], qubits asked for.
        report: The decoded samples, ids int16 [N, T].
        table: The instructions the ids number.
    """
    ids = compact(report.ids)
    block = max(1, _UNITARY_BYTES // (16 * 4**table.num_qubits))
    parts = [
        infidelities(unitaries(ids[i : i + block], table), targets[i : i + block]) for i in range(0, len(ids), block)
    ]
    return CompiledSamples(
        prompts=tuple(prompts),
        report=report,
        ids=ids,
        num_qubits=widths,
        table=table,
        infidelities=np.where(report.valid, np.concatenate([np.empty(0), *parts]), 1.0),
    )
