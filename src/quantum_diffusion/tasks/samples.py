"""Requests for circuits and sampled circuits with their true labels: the input and output of sampling.

Invalid samples are data, not errors; only simulation decides whether a sample matches its request.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_wholes
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, gate_count
from quantum_diffusion.circuits.tokenizer import DecodeReport, circuits_from_ids
from quantum_diffusion.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Unwanted:
    """What guidance leads away from, one row a circuit; a part that is None is "nothing asked", as it is without this.

    Attributes:
        prompts: N texts.
        targets: complex128 [N, D, R], as in `Requests`.
    """

    prompts: tuple[str, ...] | None = None
    targets: Matrix | None = None

    def take(self, rows: NDArray[np.integer]) -> Unwanted:
        """Return some of the rows; see `Requests.take`."""
        prompts = None if self.prompts is None else tuple(self.prompts[row] for row in rows.tolist())
        return Unwanted(prompts, None if self.targets is None else self.targets[rows])

    def repeated(self, count: int) -> Unwanted:
        """Return a single row so many times; see `Requests.repeated`."""
        prompts = None if self.prompts is None else self.prompts * count
        return Unwanted(prompts, _repeated(self.targets, count))


def _repeated(targets: Matrix | None, count: int) -> Matrix | None:
    """Return a single target so many times, as a view."""
    return None if targets is None else np.broadcast_to(targets, (count, *targets.shape[1:]))


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests for circuits, one row per circuit; a task makes them.

    Attributes:
        prompts: N texts.
        num_qubits: int64 [N], number of qubits of each circuit.
        allowed: bool [N, K+1], instructions that each circuit may use.
        targets: complex128 [N, D, R], on all qubits of the model: unitaries (R = D) or states (R = 1); may be a
            broadcast view. None for tasks fully described by prompts.
        negative: What guidance leads away from; None leads away from no prompt and no target.
    """

    prompts: tuple[str, ...]
    num_qubits: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    targets: Matrix | None = None
    negative: Unwanted | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: NDArray[np.integer]) -> Requests:
        """Return the requests with the given indices, which may repeat."""
        prompts = tuple(self.prompts[row] for row in rows.tolist())
        targets = None if self.targets is None else self.targets[rows]
        negative = None if self.negative is None else self.negative.take(rows)
        return Requests(prompts, self.num_qubits[rows], self.allowed[rows], targets, negative)

    def repeated(self, count: int) -> Requests:
        """Repeat a single request `count` times; its target is not copied."""
        assert len(self) == 1
        return Requests(
            self.prompts * count,
            np.repeat(self.num_qubits, count),
            np.repeat(self.allowed, count, 0),
            _repeated(self.targets, count),
            None if self.negative is None else self.negative.repeated(count),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledCircuits(ABC):
    """Sampled circuits after decoding; each task's subclass defines which are exact.

    Attributes:
        prompts: One prompt per sample.
        report: Which samples are valid circuits, and what is wrong with the others.
        ids: int16 [N, T], instructions, gates moved to the front.
        num_qubits: int64 [N], requested number of qubits.
        table: The instructions the ids number.
        angles: float64 [N, T, A], refined angles; None for gates without angles.
    """

    prompts: tuple[str, ...]
    report: DecodeReport
    ids: Ids
    num_qubits: NDArray[np.int64]
    table: InstructionTable
    angles: Angles | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def gate_pool(self) -> GatePool:
        """The pool of gates of the circuits."""
        return self.table.pool

    @property
    def gate_counts(self) -> NDArray[np.int64]:
        """Number of gates of each sample, int64 [N]."""
        return gate_count(self.ids)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which samples are valid circuits without gates, bool [N]; they are never novel."""
        empty: NDArray[np.bool_] = self.report.valid & (self.gate_counts == 0)
        return empty

    @property
    @abstractmethod
    def matches(self) -> NDArray[np.bool_]:
        """Which samples are valid circuits that answer their request exactly, bool [N]."""

    @abstractmethod
    def outcome(self, row: int) -> str:
        """Describe a sample's request and result in a few words."""

    def circuits(self, rows: Sequence[int] | NDArray[np.integer]) -> list[Circuit]:
        """Return samples as circuits.

        Args:
            rows: Indices of samples, e.g. `samples.matches.nonzero()[0]` for the exact ones.

        Raises:
            ConfigError: An index is out of range.
        """
        chosen = np.asarray(check_wholes(rows, "rows", "[0, 1], or samples.matches.nonzero()[0]"), dtype=np.int64)
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise ConfigError(f"rows has {chosen.max()}, but there are {len(self)} samples: give 0 to {len(self) - 1}")
        angles = None if self.angles is None else self.angles[chosen]
        return circuits_from_ids(self.ids[chosen], self.table, self.num_qubits[chosen].tolist(), angles)


PartT = TypeVar("PartT", SampledCircuits, DecodeReport)


def joined(parts: Sequence[PartT]) -> PartT:
    """Concatenate samples of the same model and task.

    Args:
        parts: At least one.
    """
    values: dict[str, Any] = {}
    for name in [field.name for field in fields(parts[0])]:
        of_parts = [getattr(part, name) for part in parts]
        if isinstance(of_parts[0], np.ndarray):
            values[name] = np.concatenate(of_parts)
        elif isinstance(of_parts[0], tuple):
            values[name] = tuple(itertools.chain.from_iterable(of_parts))
        else:
            values[name] = joined(of_parts) if isinstance(of_parts[0], DecodeReport) else of_parts[0]
    return type(parts[0])(**values)
