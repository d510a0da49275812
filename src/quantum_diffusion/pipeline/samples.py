"""Sampled circuits with their true labels: what sampling returns after everything was simulated.

Invalid samples are data, not errors; a sample counts as a match only if simulation says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, compact, gate_count, instruction_table
from quantum_diffusion.circuits.labels import SchmidtRanks, schmidt_rank_vectors
from quantum_diffusion.circuits.tokenizer import DecodeReport, circuits_from_ids
from quantum_diffusion.errors import ConfigError


@dataclass(frozen=True)
class SampledCircuits:
    """Sampled circuits after decoding and simulation.

    Attributes:
        prompts: What was asked for, one a sample.
        labels: The Schmidt rank vector in each prompt.
        report: Which samples are circuits, and what is wrong with the others.
        ids: int16 [N, T], instructions, gates moved to the front.
        ranks: int8 [N, Q], the true Schmidt rank vector found by simulation; 0 for invalid samples and on qubits a
            sample was not asked to have.
        wanted: int8 [N, Q], `labels` as an array; 0 on qubits a sample was not asked to have.
        num_qubits: int64 [N], qubits asked for.
        gate_pool: The gates of the circuits.
    """

    prompts: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    report: DecodeReport
    ids: Ids
    ranks: SchmidtRanks
    wanted: SchmidtRanks
    num_qubits: NDArray[np.int64]
    gate_pool: GatePool

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def gate_counts(self) -> NDArray[np.int64]:
        """Gates of each sample, int64 [N]."""
        return gate_count(self.ids)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Valid circuits without any gate, bool [N]: they are never exact (see `exact_matches`) and never novel."""
        empty: NDArray[np.bool_] = self.report.valid & (self.gate_counts == 0)
        return empty

    @cached_property
    def matches(self) -> NDArray[np.bool_]:
        """Valid circuits with exactly the Schmidt rank vector asked for, bool [N]; see `exact_matches`."""
        return exact_matches(self.ids, self.ranks, self.wanted)

    def circuits(self, rows: Sequence[int] | NDArray[np.integer]) -> list[Circuit]:
        """Return samples as circuits."""
        table = instruction_table(self.gate_pool, self.ranks.shape[1])
        chosen = np.asarray(rows, dtype=np.int64)
        return circuits_from_ids(self.ids[chosen], table, self.num_qubits[chosen].tolist())


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


def verify(
    prompts: Sequence[str], labels: Sequence[tuple[int, ...]], report: DecodeReport, table: InstructionTable
) -> SampledCircuits:
    """Simulate decoded samples and compare them with what was asked for.

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
    return SampledCircuits(tuple(prompts), tuple(labels), report, ids, ranks, wanted, widths, table.pool)


def parse_srv_prompt(prompt: str, num_qubits: int) -> tuple[int, ...]:
    """Read the Schmidt rank vector from a prompt.

    Args:
        prompt: E.g. "Generate SRV: [1, 2, 2]".
        num_qubits: Most entries allowed.

    Raises:
        ConfigError: The prompt is of another form, too long, or no pure state has that vector.
    """
    match = re.fullmatch(r"Generate SRV: \[([12](?:, [12])*)\]", prompt)
    if match is None:
        raise ConfigError(f"prompt {prompt!r} is not of the form 'Generate SRV: [1, 2, 2]'")
    label = tuple(int(entry) for entry in match[1].split(", "))
    if len(label) > num_qubits:
        raise ConfigError(f"prompt {prompt!r} asks for {len(label)} qubits, the model has {num_qubits}")
    if sum(entry == 2 for entry in label) == 1:
        raise ConfigError(f"prompt {prompt!r} entangles a single qubit: no state does, ask for none or at least two")
    return label
