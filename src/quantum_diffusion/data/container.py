"""The two containers of circuits: a whole data set in numpy, and one batch of it in torch.

Generation and loading produce data sets, loaders cut them into batches for training. Both are frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.keys import Keys, angle_keys, row_keys
from quantum_diffusion.circuits.tokenizer import DecodeReport, decode_tokens
from quantum_diffusion.data.blocks import row_blocks, take_rows
from quantum_diffusion.errors import ConfigError, counted, unknown_name
from quantum_diffusion.tasks.base import LabelledCircuits, Task
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.srv import SrvTask

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class CircuitDataset:
    """Labelled circuits that share a gate pool.

    Attributes:
        tokens: int8 [N, Q, T], cell tokens; 0 after a circuit's last gate, the padding token on missing qubits and
            beyond the time steps of the data set a circuit came from.
        prompt_index: int32 [N], index of each circuit's prompt in `prompts`.
        prompts: Distinct prompts, sorted.
        sizes: int16 [N, 2], number of qubits and number of gates of each circuit.
        gate_pool: The gates behind the tokens.
        condition_type: Name of the task that labelled the circuits.
        targets: float32 [N, 2, D, R], real and imaginary parts of the circuits' unitaries (R = D) or states (R = 1);
            None for tasks fully described by prompts, and if models compute them from the circuits.
        angles: float64 [N, T, A], angles of the gates in radians, zeros where a gate has fewer than A; None for pools
            without angles.
    """

    tokens: NDArray[np.int8]
    prompt_index: NDArray[np.int32]
    prompts: tuple[str, ...]
    sizes: NDArray[np.int16]
    gate_pool: GatePool
    condition_type: str = SrvTask.name
    targets: NDArray[np.float32] | None = None
    angles: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.condition_type not in TASKS:
            raise ConfigError(unknown_name("condition_type", self.condition_type, TASKS))
        if self.task.array is None and self.targets is not None:
            raise ConfigError(f"targets were given, but condition_type {self.condition_type} has none: give None")

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return (
            f"<CircuitDataset: {len(self):,} circuits of up to {self.num_qubits} qubits and {self.max_gates} gates of "
            f"{', '.join(self.gate_pool.names)}; {counted(len(self.prompts), 'prompt')}, {self.condition_type}>"
        )

    @property
    def task(self) -> Task:
        """The task that labelled the circuits."""
        return TASKS[self.condition_type]

    @property
    def num_qubits(self) -> int:
        """Number of qubits of the widest circuit, Q."""
        return int(self.tokens.shape[1])

    @property
    def max_gates(self) -> int:
        """Number of time steps, T."""
        return int(self.tokens.shape[2])

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """All arrays that are not None."""
        arrays = (self.tokens, self.prompt_index, self.sizes, self.targets, self.angles)
        return [array for array in arrays if array is not None]

    @property
    def length_counts(self) -> dict[int, dict[int, int]]:
        """Number of circuits by number of qubits and gates: {qubits: {gates: count}}."""
        key = self.sizes[:, 0] * np.int32(2**16) + self.sizes[:, 1]  # one integer sorts faster than a pair
        result: dict[int, dict[int, int]] = {}
        for value, count in zip(*(a.tolist() for a in np.unique(key, return_counts=True)), strict=True):
            result.setdefault(value >> 16, {})[value % 2**16] = count
        return result

    @property
    def prompt_counts(self) -> dict[str, int]:
        """Number of circuits of each prompt."""
        counts = np.bincount(self.prompt_index, minlength=len(self.prompts))
        return dict(zip(self.prompts, counts.tolist(), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content, independent of the folder it is stored in."""
        digest = hashlib.sha256(repr((self.gate_pool.names, self.prompts, self.tokens.shape)).encode())
        for array in self.arrays:
            for rows in row_blocks(array):
                digest.update(np.ascontiguousarray(rows).data)
        return digest.hexdigest()

    @property
    def keys(self) -> Keys:
        """A hash of the cells and angles of each circuit, uint64 [N]; rounding of angles does not matter."""
        keys = row_keys(self.tokens)
        return keys if self.angles is None else row_keys(np.column_stack([keys, angle_keys(self.angles)]))

    @property
    def exact_angles(self) -> NDArray[np.float64]:
        """The angles, float64 [N, T, A]; A = 0 for pools without angles."""
        return np.empty((len(self), self.max_gates, 0)) if self.angles is None else self.angles

    def decoded(self, rows: NDArray[np.integer] | slice = slice(None)) -> DecodeReport:
        """Decode circuits to instruction ids, with the nearest angles on the grid."""
        return decode_tokens(self.tokens[rows], self.gate_pool, None if self.angles is None else self.angles[rows])

    def labelled(self, rows: NDArray[np.integer]) -> LabelledCircuits:
        """Decode circuits for their task; unreadable steps become "no gate".

        Args:
            rows: [M], indices of the circuits.
        """
        report = self.decoded(rows)
        return LabelledCircuits(
            prompts=[self.prompts[index] for index in self.prompt_index[rows].tolist()],
            ids=report.ids,
            num_qubits=self.sizes[rows, 0].astype(np.int64),
            table=instruction_table(self.gate_pool, self.num_qubits),
            angles=None if self.angles is None else self.angles[rows],
        )

    def take(self, rows: NDArray[np.integer]) -> CircuitDataset:
        """Return the data set of the given rows, in this order; `prompts` stays the same."""
        return replace(
            self,
            tokens=take_rows(self.tokens, rows),
            prompt_index=self.prompt_index[rows],
            sizes=self.sizes[rows],
            targets=None if self.targets is None else take_rows(self.targets, rows),
            angles=None if self.angles is None else take_rows(self.angles, rows),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """The circuits of one training step.

    Attributes:
        tokens: int8 [B, Q, T], cell tokens as in `CircuitDataset`; like `prompt_ids` and `sizes`, small integers until
            they are on the device.
        prompt_ids: int32 [B], indices of the data set's prompts.
        sizes: int16 [B, 2], number of qubits and gates of each circuit.
        targets: float32 [B, 2, D, R]; None as in `CircuitDataset`.
        ids: int16 [B, T], the circuits as instruction ids of a model, with angles 0; None if not decoded yet.
        conditions: float32 [B, S, E], the encoded prompts; None unless `get_dataloaders` was given a text encoder.
        angles: float32 [B, T, A], in radians; None for pools without angles.
    """

    tokens: torch.Tensor
    prompt_ids: torch.Tensor
    sizes: torch.Tensor
    targets: torch.Tensor | None = None
    ids: torch.Tensor | None = None
    conditions: torch.Tensor | None = None
    angles: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """All tensors, in the order of the attributes."""
        return self.tokens, self.prompt_ids, self.sizes, self.targets, self.ids, self.conditions, self.angles

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._of_each(lambda tensor: tensor.to(device, non_blocking=True))

    def take(self, rows: torch.Tensor | slice) -> Batch:
        """Return some rows: a slice, or int64 [b] on the batch's device."""
        return self._of_each(lambda tensor: tensor[rows])

    def clone(self) -> Batch:
        """Return a copy."""
        return self._of_each(lambda tensor: tensor.clone())

    def pinned(self) -> Batch:
        """Return the batch in pinned memory, from which a CUDA device copies asynchronously."""
        return self._of_each(lambda tensor: tensor.pin_memory())

    def fill(self, other: Batch) -> None:
        """Copy the values of a batch of the same shapes into this one."""
        for own, given in zip(self.tensors, other.tensors, strict=True):
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)

    def _of_each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        tokens, prompt_ids, sizes = map(function, (self.tokens, self.prompt_ids, self.sizes))
        others = (None if part is None else function(part) for part in self.tensors[3:])
        return Batch(tokens, prompt_ids, sizes, *others)
