"""The search for circuits of one target: sample, simplify, simulate what is left, until enough exact ones are found.

A circuit is called exact only by the simulation of the very form in which it is returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_count, check_kind, check_whole
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import EXACT
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.phases import drop_phases
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.errors import ConfigError, GateSetError, counted, memory_for
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.reach import check_target_reach
from quantum_diffusion.tasks.targets import TargetTask

_MOST_AT_ONCE = 256
"""Circuits sampled before the search looks again whether it has enough; of 8 qubits their unitaries take 256 MB,
and their comparison with the target a conjugated copy as large."""


@dataclass(frozen=True)
class CompiledCircuit:
    """A simplified circuit and how far it is from its target.

    Attributes:
        circuit: The circuit, over the gates that were allowed.
        infidelity: 1 - |tr(V^dagger U)|^2 / D^2 of this circuit's V and the target U (1 - |<v|u>|^2 of states), by
            simulation in float64.
    """

    circuit: Circuit
    infidelity: float

    @property
    def is_exact(self) -> bool:
        """Whether the circuit is the target up to a global phase."""
        return self.infidelity < EXACT


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What a search for circuits of one target gave.

    Attributes:
        circuits: Distinct circuits that are the target up to a global phase (infidelity below `EXACT`), fewest gates
            first; at most as many as were wanted.
        best: The first of these; if there is none, the valid circuit of least infidelity. None if no sample was a
            circuit of at most `max_gates` gates.
        gates: The gates that were allowed.
        num_sampled: Circuits sampled.
        num_exact: Samples that were exact, of any length.
        num_invalid: Samples that were no circuit, or none of the allowed gates.
        num_too_long: Exact samples that were dropped for having more than `max_gates` gates when simplified.
        seconds: Duration of the search.
    """

    circuits: tuple[CompiledCircuit, ...]
    best: CompiledCircuit | None
    gates: tuple[str, ...]
    num_sampled: int
    num_exact: int
    num_invalid: int
    num_too_long: int
    seconds: float


@memory_for("looking for circuits of the target", "end other programs, or use a computer with more memory")
def find_exact(
    pipeline: DiffusionPipeline,
    target: NDArray[Any],
    *,
    gates: Sequence[str] | None = None,
    max_gates: int | None = None,
    max_tries: int = 1024,
    num_circuits: int = 1,
    seed: int = 0,
    options: SamplingConfig | None = None,
    edit: Edit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Compilation:
    """Sample until enough distinct circuits are exactly the target, up to a global phase.

    Every circuit is simplified and simulated in its final form. `search.unitaries.target_unitary` and
    `search.states.target_state` make a target from a circuit, a file or a name.

    Args:
        pipeline: A model that is asked for targets.
        target: Unitary, complex [d, d], or state, complex [d], with d = 2**q for at most the pipeline's qubits;
            little-endian.
        gates: Gates that circuits may use; None allows all of the model's that fit the target.
        max_gates: Longer circuits are dropped, counted after they are simplified; None keeps all.
        max_tries: Most circuits to sample.
        num_circuits: Distinct circuits wanted; the search ends when they are found.
        seed: Seed of the samples.
        options: How to sample; None takes the model's defaults.
        edit: What sampling may not choose freely; with gates to keep or a least number of them, circuits are not
            simplified. None leaves all of it free.
        progress: Called with (circuits sampled, `max_tries`).

    Raises:
        ConfigError: The model is asked for something else, the target is none of its qubits, a number is out of range,
            or an option or an edit is not for this model.
        GateSetError: A gate is unknown, none of the model's, or wider than the target.
    """
    started = time.perf_counter()
    task = check_kind(pipeline, DiffusionPipeline, "pipeline", "load_pipeline reads one").task
    if not isinstance(task, TargetTask):
        raise ConfigError(
            f"this model answers {task.asked}, not targets: use `quantum-diffusion {task.command}`, or train on a data "
            "set of datasets.condition_type=UNITARY"
        )
    num_qubits = task.check_target(target, pipeline.config.num_qubits)
    target = np.asarray(target, dtype=np.complex128)
    pool = choose_gates(pipeline.gate_pool, gates, num_qubits)
    most_gates = _check_counts(pipeline.config.max_gates, max_gates, max_tries, num_circuits)

    # Simplified circuits keep to a coupling and to fixed qubits, but their gates move and go.
    edit = Edit() if edit is None else check_kind(edit, Edit, "edit")
    may_simplify = not (edit.keep or edit.min_gates)
    bounded = replace(edit, max_gates=min(most_gates, edit.max_gates or most_gates))
    check_target_reach(task, target, pool.names, bounded, pipeline.table, pipeline.config.max_gates)
    if not may_simplify:
        edit = bounded  # what is not simplified stays as long as it is written, so the bound holds for writing, too
    request = pipeline.requests([task.prompt(pool.names, pipeline.gate_pool)], [target])
    columns = target.reshape(1, len(target), -1)
    found: dict[Circuit, CompiledCircuit] = {}
    best: CompiledCircuit | None = None
    sampled = exact = invalid = too_long = 0
    while len(found) < num_circuits and sampled < max_tries:
        count = next_batch(num_circuits - len(found), sampled, max_tries)
        samples = pipeline.sample(request.repeated(count), seed, options, edit=edit, first_sample=sampled)
        valid = samples.circuits(samples.report.valid.nonzero()[0])
        results = _verify(valid, pool, num_qubits, partial(task.distances, targets=columns), may_simplify)
        sampled, invalid = sampled + count, invalid + count - len(results)
        for result in results:
            exact += result.is_exact
            if len(result.circuit) > most_gates:
                too_long += result.is_exact
                continue
            if result.is_exact:
                found.setdefault(result.circuit, result)
            if best is None or result.infidelity < best.infidelity:
                best = result
        if progress:
            progress(sampled, max_tries)
    shortest = sorted(found.values(), key=lambda one: (len(one.circuit), one.infidelity))[:num_circuits]
    return Compilation(
        circuits=tuple(shortest),
        best=shortest[0] if shortest else best,
        gates=pool.names,
        num_sampled=sampled,
        num_exact=exact,
        num_invalid=invalid,
        num_too_long=too_long,
        seconds=time.perf_counter() - started,
    )


def next_batch(missing: int, sampled: int, max_tries: int) -> int:
    """Return how many circuits a search samples before it looks again whether it has enough.

    Args:
        missing: Circuits still to be found.
        sampled: Circuits sampled so far.
        max_tries: Most circuits to sample.
    """
    # As many again as before, so that rare circuits are not looked for in small batches.
    return min(max(2 * missing + 6, sampled), _MOST_AT_ONCE, max_tries - sampled)


def _verify(
    circuits: Sequence[Circuit],
    pool: GatePool,
    num_qubits: int,
    distances: Callable[..., NDArray[np.float64]],
    may_simplify: bool,
) -> list[CompiledCircuit]:
    """Simulate circuits over a pool's gates, simplified where they may be, which brings in no other gate.

    Results are equal where their normal forms are. `distances` returns the infidelity of circuits by their ids.
    """
    table = instruction_table(pool, num_qubits)
    ids = ids_from_circuits(circuits, table, max(map(len, circuits), default=0))
    simplified = normal_form(optimize(ids, table), table) if may_simplify else ids
    ids, origin = np.unique(simplified, axis=0, return_inverse=True)
    if may_simplify:
        exact = distances(ids, table=table) < EXACT  # only these are worth the dearer rule
        ids[exact] = normal_form(optimize(drop_phases(ids[exact], table), table), table)
    results = [
        CompiledCircuit(circuit, infidelity)
        for circuit, infidelity in zip(circuits_from_ids(ids, table), distances(ids, table=table).tolist(), strict=True)
    ]
    return [results[row] for row in origin.reshape(-1)]


def choose_gates(pool: GatePool, gates: Sequence[str] | None, num_qubits: int) -> GatePool:
    """Return the gates that circuits of a target may use.

    Args:
        pool: The model's gates.
        gates: Those to allow; None allows all that fit the target.
        num_qubits: Qubits of the target.

    Raises:
        GateSetError: A gate is unknown, repeated, none of the model's, or wider than the target; or none is left.
    """
    if gates is None:
        gates = [gate.name for gate in pool if gate.num_qubits <= num_qubits]
        if not gates:
            raise GateSetError(
                f"every gate of the model {list(pool.names)} acts on more than the target's qubits ({num_qubits}): "
                "give a larger target"
            )
    chosen = GatePool(gates)
    for gate in chosen:
        if gate.name not in pool.names:
            raise GateSetError(
                f"gate {gate.name!r} is none of the model's: choose gates among {list(pool.names)}, or train on others"
            )
        if gate.num_qubits > num_qubits:
            raise GateSetError(
                f"gate {gate.name!r} acts on {gate.num_qubits} qubits, but the target has {num_qubits}: "
                "leave it out of the gates"
            )
    return chosen


def _check_counts(most_gates: int, max_gates: int | None, max_tries: int, num_circuits: int) -> int:
    """Return the most gates a circuit may have, `most_gates` being the model's limit."""
    if max_gates is not None and not 1 <= check_whole(max_gates, "max_gates") <= most_gates:
        raise ConfigError(
            f"max_gates is {max_gates}, but the model writes circuits of at most {counted(most_gates, 'gate')}: give 1 "
            f"to {most_gates}, or null for no bound"
        )
    check_count(max_tries, "max_tries", 1)
    check_count(num_circuits, "num_circuits", 1)
    return max_gates or most_gates
