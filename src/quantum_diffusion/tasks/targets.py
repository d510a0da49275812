"""Tasks whose target is a matrix: circuits of chosen gates that implement it exactly.

The tasks of unitaries and states build on it; they only differ in simulation, padding and checks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_list, check_texts
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable, compact, gates_first
from quantum_diffusion.circuits.invariants import Invariant
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import exact_below, infidelities, matrix_keys, pieces
from quantum_diffusion.circuits.prompts import gates_prompt, parse_gates_prompt
from quantum_diffusion.circuits.tokenizer import DecodeReport
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.tasks.base import Candidates, LabelledCircuits, Task, on_qubits
from quantum_diffusion.tasks.candidates import CANDIDATES, draw_with_angles, draw_with_subsets
from quantum_diffusion.tasks.samples import Requests, SampledCircuits

_MOST_CANDIDATES = 2**18
"""Circuits are drawn in one group per gate subset; many candidates per shard keep these groups from being tiny."""


@dataclass(frozen=True)
class Measure:
    """How the distance of a circuit from its target is told: as its infidelity, unless a task measures otherwise.

    Attributes:
        name: What it is called.
        best_effort: Whether a circuit that falls short is an answer, too: then no target is refused as out of reach.
    """

    name: ClassVar[str] = "infidelity"
    best_effort: ClassVar[bool] = False

    def figures(self, distance: float) -> dict[str, float]:
        """Return the figures of a circuit by name, for tables and programs."""
        return {"infidelity": distance}

    def words(self, distance: float) -> str:
        """Return them in a few words."""
        return f"infidelity {distance:.2g}"


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetSamples(SampledCircuits):
    """Circuits sampled for targets, with their infidelities from simulation.

    Attributes:
        infidelities: float64 [N], 1 - |tr(V^dagger U)|^2 / D^2 of the circuit's V and the target U, or
            1 - |<v|u>|^2 for states, or what the task measures instead (`TargetTask.distances`); 1 for invalid samples.
    """

    infidelities: NDArray[np.float64]

    @cached_property
    def matches(self) -> NDArray[np.bool_]:
        """Which samples are valid circuits with an infidelity below `exact_below`, bool [N]."""
        exact: NDArray[np.bool_] = self.report.valid & (self.infidelities < exact_below(self.gate_pool))
        return exact

    def outcome(self, row: int) -> str:
        """Describe a sample's request and result in a few words."""
        got = f"infidelity {self.infidelities[row]:.2g}" if self.report.valid[row] else self.report.reasons[row]
        return f"{self.prompts[row]}: {got}"


class TargetTask(Task):
    """Circuits that implement a matrix with the gates that a prompt lists; bit k of a label allows gate k.

    Attributes:
        prompt_begin: Prefix of its prompts.
        qiskit_competes: Whether Qiskit can also find circuits for such targets, as a baseline; see `by_qiskit`.
        measure: How `distances` are told.
    """

    prompt_begin: ClassVar[str]
    qiskit_competes: ClassVar[bool] = False
    measure: Measure = Measure()

    @abstractmethod
    def qubits_of(self, target: Any) -> int:
        """Return the number of qubits of a user's target.

        Raises:
            ConfigError: It is not a valid target.
        """

    # ------------------------------------------------------------------------------------------------- data

    def num_candidates(self, config: DatasetConfig) -> int:
        """Return the number of random circuits drawn for a shard."""
        return int(np.clip(2 ** (config.num_samples.bit_length() - 1), CANDIDATES, _MOST_CANDIDATES))

    def draw(self, config: DatasetConfig, rng: np.random.Generator) -> Candidates:
        """Draw each circuit from a random subset of the gates; see `Task.draw`."""
        count = self.num_candidates(config)
        if GatePool(config.gate_set).num_angles:
            return Candidates(*draw_with_angles(config, rng, count))
        return Candidates.without_angles(*draw_with_subsets(config, rng, count))

    def label_prompt(self, label: int, config: DatasetConfig) -> str:
        """Return the prompt that lists the gates a label allows."""
        pool = GatePool(config.gate_set)
        return self.prompt([name for k, name in enumerate(pool.names) if label >> k & 1], pool)

    def prompt(self, gates: Sequence[str], pool: GatePool) -> str:
        """Return the prompt that allows some gates of a pool, listed in the pool's order."""
        return gates_prompt(gates, pool, self.prompt_begin)

    def gates_of(self, prompt: str, pool: GatePool) -> tuple[str, ...]:
        """Read the gates from a prompt; see `parse_gates_prompt`."""
        return parse_gates_prompt(prompt, pool, self.prompt_begin)

    def check_prompt(self, prompt: str, pool: GatePool, num_qubits: int) -> None:
        """Refuse a prompt that lists no gates of the pool; see `Task.check_prompt`."""
        self.gates_of(prompt, pool)

    def keys_of(self, ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Keys:
        """Return a hash of each circuit's unitary or state, up to a global phase; see `Task.keys_of`."""
        return matrix_keys(self.targets_of(ids, table, angles))

    # --------------------------------------------------------------------------------------------- sampling

    def requests(self, prompts: Sequence[str], targets: Sequence[Any] | None, table: InstructionTable) -> Requests:
        """Check prompts and targets against a model; see `Task.requests`.

        Args:
            prompts: N prompts such as "Compile using: ['h', 'cx']".
            targets: N targets with at most the model's number of qubits.
            table: The model's instructions.

        Raises:
            ConfigError: Their numbers differ, or one does not fit the model.
        """
        prompts = check_texts(prompts, "prompts", f"[\"{self.prompt_begin}['h', 'cx']\"]")
        targets = check_list(targets, "targets", "[target]; pipeline.requests takes them")
        if len(prompts) != len(targets):
            raise ConfigError(
                f"given {counted(len(prompts), 'prompt')} for {counted(len(targets), 'target')}: give one prompt per "
                "target"
            )
        num_qubits = np.array([self.check_target(target, table.num_qubits) for target in targets], dtype=np.int64)
        side = 2**table.num_qubits
        padded = np.zeros((len(targets), side, self.columns(table.num_qubits)), dtype=np.complex128)
        for row, target in enumerate(targets):
            columns = np.asarray(target).reshape(2 ** int(num_qubits[row]), -1)
            padded[row] = self.pad(columns, table.num_qubits)
        chosen = {prompt: self._instructions_of(prompt, table) for prompt in set(prompts)}
        allowed = on_qubits(num_qubits, table)
        for row, prompt in enumerate(prompts):
            allowed[row] &= chosen[prompt]
        return Requests(tuple(prompts), num_qubits, allowed, padded)

    def check_target(self, target: Any, most_qubits: int) -> int:
        """Return the number of qubits of a target.

        Raises:
            ConfigError: It is not a valid target, or has more than `most_qubits` qubits.
        """
        num_qubits = self.qubits_of(target)
        if num_qubits > most_qubits:
            raise ConfigError(
                f"the target has {num_qubits} qubits, but the model writes circuits of at most {most_qubits}: give a "
                "smaller target, or train on more qubits"
            )
        return num_qubits

    def _instructions_of(self, prompt: str, table: InstructionTable) -> NDArray[np.bool_]:
        numbers = [table.pool.names.index(gate) for gate in self.gates_of(prompt, table.pool)]
        allowed: NDArray[np.bool_] = np.isin(table.gate_index, [*numbers, table.gate_index[NO_GATE]])
        return allowed

    def validation_requests(
        self, count: int, prompts: Sequence[str], known: Callable[[int], LabelledCircuits], table: InstructionTable
    ) -> Requests:
        """Request the unitaries or states of known circuits; see `Task.validation_requests`."""
        circuits = known(count)
        targets = self.targets_of(circuits.ids, circuits.table, circuits.angles)
        corners = [self.corner(*pair) for pair in zip(targets, circuits.num_qubits.tolist(), strict=True)]
        return self.requests(circuits.prompts, corners, table)

    @abstractmethod
    def completing(self, unitaries: Matrix, target: Matrix) -> Matrix:
        """Return the remainders of a target that each of several short circuits completes.

        Args:
            unitaries: complex128 [N, D, D], of the short circuits.
            target: complex128 [D, R].

        Returns:
            complex128 [N, D, R], to compare with `Remainder.missing` up to a global phase.
        """

    @abstractmethod
    def corner(self, target: Matrix, num_qubits: int) -> Matrix:
        """Return the part of a padded target [D, R] on its own qubits, the first ones: a view [d, r]."""

    def distances(
        self, ids: Ids, targets: Matrix, table: InstructionTable, angles: Angles | None = None
    ) -> NDArray[np.float64]:
        """Simulate circuits and return their infidelities with targets, float64 [N].

        Args:
            ids: int16 [N, T].
            targets: complex128 [N, D, R], or [1, D, R] for the same target for all circuits.
            table: The instructions the ids number.
            angles: float64 [N, T, A]; None takes those of the ids.
        """
        targets = np.broadcast_to(targets, (len(ids), *targets.shape[1:]))
        parts = [
            infidelities(self.targets_of(ids[piece], table, None if angles is None else angles[piece]), targets[piece])
            for piece in pieces(len(ids), targets.shape[1] * targets.shape[2])
        ]
        return np.concatenate(parts)

    def exact_below(self, pool: GatePool) -> float:
        """Return the distance below which circuits of a pool are exact."""
        return exact_below(pool)

    def refine(
        self,
        ids: Ids,
        angles: Angles,
        targets: Matrix,
        table: InstructionTable,
        *,
        fixed: NDArray[np.bool_] | None = None,
        iterations: int | None = None,
        device: Any = None,
    ) -> tuple[Angles, NDArray[np.float64]]:
        """Move the angles of circuits to a local minimum of their `distances`.

        Args:
            ids: int16 [N, T]; their angles are ignored.
            angles: float64 [N, T, A], where to start.
            targets: complex128 [N, D, R], or [1, D, R] for the same target for all circuits.
            table: The instructions the ids number.
            fixed: bool [N, T, A], angles to leave as they are; None leaves none.
            iterations: Maximum number of steps; None chooses it.
            device: Where to compute, a `torch.device`; None computes on the CPU.

        Returns:
            Angles float64 [N, T, A], and distances float64 [N] from the search; verify them by simulation.
        """
        from quantum_diffusion.tasks.refinement import refine  # needs torch

        most = {} if iterations is None else {"iterations": iterations}
        return refine(ids, angles, targets, table, fixed=fixed, device=device, **most)

    # ------------------------------------------------------------------------------------------------ reach

    @abstractmethod
    def acts_on(self, target: Matrix, qubit: int) -> bool:
        """Tell whether every circuit for the target must act on a qubit; False if unknown."""

    @abstractmethod
    def joins(self, target: Matrix, part: NDArray[np.integer]) -> bool:
        """Tell whether every circuit for the target must have gates between `part` and the rest; False if unknown."""

    def broken_invariants(self, target: Matrix, gates: Sequence[str]) -> list[Invariant]:
        """Return known properties that all circuits of the gates have and the target lacks."""
        return []

    def words_of(self, group: Invariant) -> str:
        """Describe the circuits of a group from `broken_invariants`, for messages."""
        return f"all of them are {group.members}"

    def by_qiskit(self, target: Matrix, gates: Sequence[str]) -> Circuit | None:
        """Return Qiskit's circuit of the gates for a target; None if it finds none or does not support the task."""
        return None

    def product_formulas(self, target: Matrix, gates: Sequence[str]) -> Iterator[Circuit]:
        """Yield approximate circuits of the gates for a target that is a time evolution, the shortest first."""
        return iter(())

    # ---------------------------------------------------------------------------------------------- verifying

    def verify(
        self, requests: Requests, report: DecodeReport, table: InstructionTable, angles: Angles | None = None
    ) -> TargetSamples:
        """Simulate samples and compare them with their targets; see `Task.verify`."""
        assert requests.targets is not None
        ids = compact(report.ids)
        if angles is not None:
            ids, angles = gates_first(report.ids, angles)
        return TargetSamples(
            prompts=requests.prompts,
            report=report,
            ids=ids,
            num_qubits=requests.num_qubits,
            table=table,
            angles=angles,
            infidelities=np.where(report.valid, self.distances(ids, requests.targets, table, angles), 1.0),
        )

    def outcome_of(
        self, ids: Ids, num_qubits: int, target: Matrix | None, table: InstructionTable, angles: Angles | None = None
    ) -> str:
        """Describe a circuit by its infidelity with the target; see `Task.outcome_of`."""
        assert target is not None
        exact = None if angles is None else angles[None]
        return f"are at infidelity {self.distances(ids[None], target[None], table, exact)[0]:.3g} from the target"
