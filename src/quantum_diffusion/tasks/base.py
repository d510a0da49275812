"""The interface of a task: the label a circuit carries, what may be asked, and whether a circuit answers it.

A task is a module here and its entry in `tasks.registry`; the rest of the house calls this interface and never asks
which task it has. Nothing here loads torch: what a task computes on the device is in `tasks.left_to_do`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Ids, InstructionTable
from quantum_diffusion.circuits.keys import Keys, row_keys
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.tokenizer import DecodeReport
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.tasks.samples import Requests, SampledCircuits

Labels = NDArray[np.uint32]
"""One number a circuit, [N]; each task says what its bits mean."""


@dataclass(frozen=True, eq=False)
class LabelledCircuits:
    """Circuits of a data set, as a task needs them.

    Attributes:
        prompts: N texts.
        ids: int16 [N, T].
        num_qubits: int64 [N].
        table: The instructions the ids number.
    """

    prompts: Sequence[str]
    ids: Ids
    num_qubits: NDArray[np.int64]
    table: InstructionTable


class Task(ABC):
    """What circuits are asked for.

    Attributes:
        name: Value of `datasets.condition_type`.
        asked: What is asked for, in the plural, for messages: "unitaries".
        command: The command that answers such requests.
        encoder: Key of `training`, and name among a model's weights, of the encoder of targets; None for tasks whose
            prompts say everything.
        step_encoder: The same of the encoder of what is left to do; that of targets where there are some.
        array: Name of the file that data sets keep targets in; None without.
        symmetries: Names of `training.training.augment` that keep labels right.
        words: Words of its prompts beyond those that every model knows.
        labels_prefixes: Whether the beginning of a circuit has a label, which the prefix head learns.
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
        """Return how many random circuits a shard draws."""

    @abstractmethod
    def draw(self, config: DatasetConfig, rng: np.random.Generator) -> tuple[Ids, Labels]:
        """Draw, simplify and label one shard of candidates.

        Returns:
            ids int16 [N, T] over the whole `gate_set`, and their labels uint32 [N].
        """

    @abstractmethod
    def label_prompt(self, label: int, config: DatasetConfig) -> str:
        """Return the prompt of a label."""

    @abstractmethod
    def check_prompt(self, prompt: str, pool: GatePool, num_qubits: int) -> None:
        """Refuse a prompt that is not of this task or not for these gates and qubits.

        Raises:
            ConfigError: The message says what is wrong.
        """

    def columns(self, num_qubits: int) -> int:
        """Return R of the targets that data sets store, [N, 2, 2^num_qubits, R]; 0 for tasks without."""
        return 0

    def targets_of(self, ids: Ids, table: InstructionTable) -> Matrix:
        """Return what circuits do, complex128 [N, D, R]; of no columns for tasks without targets."""
        return np.empty((len(ids), 2**table.num_qubits, 0), dtype=np.complex128)

    def keys_of(self, ids: Ids, table: InstructionTable) -> Keys:
        """Return a key a circuit, uint64 [N]: who knows a circuit knows an answer to what those of equal keys ask.

        Args:
            ids: int16 [N, T], gates at the front.
            table: The instructions the ids number.
        """
        return row_keys(ids)

    def pad(self, targets: NDArray[Any], num_qubits: int) -> Matrix:
        """Extend targets complex [..., d, r] to more qubits, [..., D, R]; of no columns for tasks without."""
        return np.empty((*targets.shape[:-2], 2**num_qubits, 0), dtype=np.complex128)

    def simplify(self, ids: Ids, table: InstructionTable) -> Ids:
        """Return circuits int16 [N, T] with fewer gates that do the same of what the task asks for; see `optimize`."""
        return optimize(ids, table)

    # --------------------------------------------------------------------------------------------- sampling

    @abstractmethod
    def requests(self, prompts: Sequence[str], targets: Sequence[Any] | None, table: InstructionTable) -> Requests:
        """Check what is asked for and put it into the form that sampling takes.

        Args:
            prompts: N texts.
            targets: N of them for tasks with targets, else None.
            table: The model's instructions.

        Raises:
            ConfigError: A prompt or a target is not for this task or this model.
        """

    @abstractmethod
    def validation_requests(
        self, count: int, prompts: Sequence[str], known: Callable[[int], LabelledCircuits], table: InstructionTable
    ) -> Requests:
        """Return what a model is asked while it is trained.

        Args:
            count: How many requests.
            prompts: All prompts of the training.
            known: Returns so many circuits that validate, or else that train.
            table: The model's instructions.
        """

    @abstractmethod
    def verify(self, requests: Requests, report: DecodeReport, table: InstructionTable) -> SampledCircuits:
        """Simulate decoded samples and compare them with what was asked for.

        Args:
            requests: N of them.
            report: The decoded samples, ids int16 [N, T].
            table: The instructions the ids number.
        """

    @abstractmethod
    def outcome_of(self, ids: Ids, num_qubits: int, target: Matrix | None, table: InstructionTable) -> str:
        """Say in a few words what a circuit does of what is asked for.

        Args:
            ids: int16 [T].
            num_qubits: Qubits that it was asked to have.
            target: complex128 [D, R]; None for tasks without.
            table: The instructions the ids number.
        """


def on_qubits(num_qubits: NDArray[np.int64], table: InstructionTable) -> NDArray[np.bool_]:
    """Tell which instructions stay on the first qubits that each circuit has, bool [N, K+1]."""
    highest = np.where(table.uses_qubit, np.arange(1, table.num_qubits + 1), 0).max(axis=1)
    allowed: NDArray[np.bool_] = highest[None, :] <= num_qubits[:, None]
    return allowed
