"""The interface of a task: how circuits are labelled, what can be requested, and which circuits are exact.

A task is a module here and an entry in `tasks.registry`; all other code uses this interface and does not depend on the
task. Nothing here loads torch: computations on the device are in `tasks.left_to_do`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable
from quantum_diffusion.circuits.keys import Keys, row_keys
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.tokenizer import DecodeReport
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.tasks.samples import Requests, SampledCircuits

Labels = NDArray[np.uint32]
"""One number per circuit, [N]; each task defines the meaning of its bits."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Random circuits with their labels, in the order they were drawn.

    Attributes:
        ids: int16 [N, T], over the whole `gate_set`.
        labels: uint32 [N].
        angles: float64 [N, T, A]; A = 0 for gates without angles.
    """

    ids: Ids
    labels: Labels
    angles: Angles

    @classmethod
    def without_angles(cls, ids: Ids, labels: Labels) -> Candidates:
        """Return circuits of gates without angles."""
        return cls(ids, labels, np.empty((*ids.shape, 0)))

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Candidates:
        """Return some of the circuits."""
        return Candidates(self.ids[rows], self.labels[rows], self.angles[rows])


@dataclass(frozen=True, eq=False)
class LabelledCircuits:
    """Circuits of a data set, in the form that tasks use.

    Attributes:
        prompts: N texts.
        ids: int16 [N, T].
        num_qubits: int64 [N].
        table: The instructions the ids number.
        angles: float64 [N, T, A]; None for gates without angles.
    """

    prompts: Sequence[str]
    ids: Ids
    num_qubits: NDArray[np.int64]
    table: InstructionTable
    angles: Angles | None = None


class Task(ABC):
    """A kind of target for circuits, such as unitaries.

    Attributes:
        name: Value of `datasets.condition_type`.
        asked: Name of its targets, in the plural, for messages: "unitaries".
        command: The command for such requests.
        encoder: Name of the target encoder, as a key of `training` and among a model's weights; None for tasks fully
            described by prompts.
        step_encoder: Name of the encoder of what is left to do; the same as `encoder` for tasks with targets.
        array: Name of the file in which data sets store targets; None for tasks without targets.
        symmetries: Values of `training.training.augment` that preserve labels.
        words: Words of its prompts beyond those of every model.
        labels_prefixes: Whether prefixes of circuits have labels, which the prefix head learns.
    """

    name: ClassVar[str]
    asked: ClassVar[str]
    command: ClassVar[str]
    encoder: ClassVar[str | None] = None
    step_encoder: ClassVar[str]
    array: ClassVar[str | None] = None
    symmetries: ClassVar[tuple[str, ...]] = ()
    labels_prefixes: ClassVar[bool] = False
    words: ClassVar[tuple[str, ...]] = ()

    # ------------------------------------------------------------------------------------------------- data

    @abstractmethod
    def num_candidates(self, config: DatasetConfig) -> int:
        """Return the number of random circuits drawn for a shard."""

    @abstractmethod
    def draw(self, config: DatasetConfig, rng: np.random.Generator) -> Candidates:
        """Draw, simplify and label one shard of candidates."""

    @abstractmethod
    def label_prompt(self, label: int, config: DatasetConfig) -> str:
        """Return the prompt of a label."""

    @abstractmethod
    def check_prompt(self, prompt: str, pool: GatePool, num_qubits: int) -> None:
        """Refuse a prompt that is not for this task, these gates and this number of qubits.

        Raises:
            ConfigError: The prompt does not fit.
        """

    def columns(self, num_qubits: int) -> int:
        """Return R of the targets that data sets store, [N, 2, 2^num_qubits, R]; 0 for tasks without targets."""
        return 0

    def targets_of(self, ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Matrix:
        """Return the targets that circuits implement, complex128 [N, D, R]; R = 0 for tasks without targets.

        Args:
            ids: int16 [N, T].
            table: The instructions the ids number.
            angles: float64 [N, T, A]; None takes those of the ids.
        """
        return np.empty((len(ids), 2**table.num_qubits, 0), dtype=np.complex128)

    def keys_of(self, ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Keys:
        """Return a key for each circuit; circuits with the same key answer the same request.

        Args:
            ids: int16 [N, T], gates at the front.
            table: The instructions the ids number.
            angles: float64 [N, T, A]; None takes those of the ids.

        Returns:
            uint64 [N].
        """
        return row_keys(ids)

    def pad(self, targets: NDArray[Any], num_qubits: int) -> Matrix:
        """Extend targets complex [..., d, r] to more qubits, [..., D, R]; R = 0 for tasks without targets."""
        return np.empty((*targets.shape[:-2], 2**num_qubits, 0), dtype=np.complex128)

    def simplify(self, ids: Ids, table: InstructionTable) -> Ids:
        """Return circuits int16 [N, T] with fewer gates that answer the same requests; see `optimize`."""
        return optimize(ids, table)

    # --------------------------------------------------------------------------------------------- sampling

    @abstractmethod
    def requests(self, prompts: Sequence[str], targets: Sequence[Any] | None, table: InstructionTable) -> Requests:
        """Check prompts and targets and convert them to requests for sampling.

        Args:
            prompts: N texts.
            targets: N targets; None for tasks without targets.
            table: The model's instructions.

        Raises:
            ConfigError: A prompt or target does not fit the task or the model.
        """

    @abstractmethod
    def validation_requests(
        self, count: int, prompts: Sequence[str], known: Callable[[int], LabelledCircuits], table: InstructionTable
    ) -> Requests:
        """Return the requests used to validate a model during training.

        Args:
            count: Number of requests.
            prompts: All prompts of the training.
            known: Returns a given number of circuits from the validation data, or from the training data without it.
            table: The model's instructions.
        """

    @abstractmethod
    def verify(
        self, requests: Requests, report: DecodeReport, table: InstructionTable, angles: Angles | None = None
    ) -> SampledCircuits:
        """Simulate decoded samples and compare them with the requests.

        Args:
            requests: N requests.
            report: The decoded samples, ids int16 [N, T].
            table: The instructions the ids number.
            angles: float64 [N, T, A], refined angles; None for gates without angles.
        """

    @abstractmethod
    def outcome_of(
        self, ids: Ids, num_qubits: int, target: Matrix | None, table: InstructionTable, angles: Angles | None = None
    ) -> str:
        """Describe a circuit's result in a few words.

        Args:
            ids: int16 [T].
            num_qubits: Requested number of qubits.
            target: complex128 [D, R]; None for tasks without targets.
            table: The instructions the ids number.
            angles: float64 [T, A]; None takes those of the ids.
        """


def on_qubits(num_qubits: NDArray[np.int64], table: InstructionTable) -> NDArray[np.bool_]:
    """Return which instructions act only on the first `num_qubits` [N] qubits of each circuit, bool [N, K+1]."""
    highest = np.where(table.uses_qubit, np.arange(1, table.num_qubits + 1), 0).max(axis=1)
    allowed: NDArray[np.bool_] = highest[None, :] <= num_qubits[:, None]
    return allowed
