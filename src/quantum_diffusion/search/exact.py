"""Searches for exact circuits for one target, by beam search or by sampling.

Beam search needs a model that is conditioned on what is left to do. Both produce candidates, which `search.found`
simplifies and verifies; `search.compiling` and the Qiskit plugin call this module.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_count, check_kind, check_number, check_whole
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE
from quantum_diffusion.circuits.invariants import may_be_exact
from quantum_diffusion.circuits.matrices import EXACT, EXACT_ANGLES, infidelities
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import SamplingConfig, SearchMethod, SearchObjective
from quantum_diffusion.device import one_thread
from quantum_diffusion.errors import ConfigError, GateSetError, counted, memory_for, unknown_name
from quantum_diffusion.pipeline.condition import check_guided
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit, EditPlan, plan_edit
from quantum_diffusion.search.beam import beam_search
from quantum_diffusion.search.bounds import Bound
from quantum_diffusion.search.budget import Budget, outcome_of_kept, sample_batches
from quantum_diffusion.search.closed_forms import closed_forms
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.completions import Completions
from quantum_diffusion.search.found import MODEL, Found
from quantum_diffusion.search.reach import check_target_reach
from quantum_diffusion.search.refining import RefinedRounds
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.tasks.targets import TargetTask

_MOST_OF_CLOSED_FORMS = 1000
"""Maximum number of gates of a circuit in closed form, which may be longer than those that the model writes."""

_FIRST_WIDTH, _WIDENING = 8, 8
"""Width of the first beam, and the factor by which each next one is wider."""

_FIRST_ROUNDS = (("beam", 16), ("beam", 64), ("sampling", 64), ("beam", 256))
_NEXT_ROUNDS = (("sampling", 64), ("noisy beam", 256))
"""Kinds and sizes of the rounds of a search with angles, at first and then again and again."""

_TEMPERATURES = (1.0, 1.5, 2.0)
"""Factors of the temperature of samples, in turn: hotter ones find unusual circuits."""


@dataclass(frozen=True, eq=False)
class _Round:
    """Some candidates of a search.

    Attributes:
        circuits: Valid circuits, not verified yet.
        num_sampled: Number of circuits sampled for them, of partial circuits kept by a beam, or of circuits refined.
        progress: Used part of `max_tries`.
        num_invalid: Number of samples that were not circuits.
        source: See `CompiledCircuit`.
    """

    circuits: Sequence[Circuit]
    num_sampled: int
    progress: int
    num_invalid: int = 0
    source: str = MODEL


@dataclass(frozen=True, eq=False)
class _Search:
    """A validated search: the model, the request, its options, and the circuits found so far.

    Attributes:
        kinds: "beam", "sampling" or both: where circuits may come from.
    """

    pipeline: DiffusionPipeline
    request: Requests
    found: Found
    options: SamplingConfig
    edit: Edit
    plan: EditPlan
    seed: int
    budget: Budget
    kinds: Sequence[str]

    @cached_property
    def bound(self) -> Bound:
        """What further circuits may cost: with a deadline, no more than those found."""
        wanted = self.budget.wanted if self.budget.is_timed else None
        return Bound(self.found, self.pipeline.table, self.plan.max_gates, wanted)

    @property
    def may_use_closed_forms(self) -> bool:
        """Whether circuits that the model does not write are wanted, too."""
        return not self.edit.keep and not self.edit.min_gates

    def allows(self, circuit: Circuit) -> bool:
        """Tell whether a circuit keeps to the coupling and leaves the fixed qubits alone."""
        ids = ids_from_circuits([circuit], self.pipeline.table, len(circuit))
        return bool((self.plan.allowed | (np.arange(len(self.plan.allowed)) == NO_GATE))[ids].all())


@memory_for("searching for circuits for the target", "close other programs, or use a computer with more memory")
def find_exact(
    pipeline: DiffusionPipeline,
    target: NDArray[Any],
    *,
    negative: NDArray[Any] | None = None,
    gates: Sequence[str] | None = None,
    max_gates: int | None = None,
    max_tries: int = 1024,
    num_circuits: int = 1,
    seed: int = 0,
    search: SearchMethod = "auto",
    max_seconds: float | None = None,
    stop_at_first: bool = False,
    give_up: float | None = None,
    tolerance: float = 0.0,
    objective: SearchObjective = "gates",
    options: SamplingConfig | None = None,
    edit: Edit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Compilation:
    """Search until enough distinct circuits implement the target exactly, up to a global phase.

    Every circuit is simplified and simulated in its final form. `search.unitaries.target_unitary` and
    `search.states.target_state` make a target from a circuit, a file or a name. Ctrl-C ends the search and returns what
    it has found.

    Args:
        pipeline: A model for targets.
        target: Unitary, complex [d, d], or state, complex [d], with d = 2**q and at most the model's number of qubits;
            little-endian.
        negative: Target that guidance leads away from, of at most as many qubits; None leads away from none in
            particular.
        gates: Gates that circuits may use; None allows all of the model's that fit the target.
        max_gates: Maximum number of gates after simplification; longer circuits are dropped. None means no limit.
        max_tries: Maximum number of circuits to sample, without `max_seconds`; for beams, the maximum width.
        num_circuits: Number of distinct circuits to find; without `max_seconds` the search then ends.
        seed: Seed of the samples.
        search: "beam" (masked models conditioned on what is left to do), "sampling", or "auto": a beam if possible.
        max_seconds: Duration of the search, which looks for cheaper circuits until then; None ends it when enough are
            found.
        stop_at_first: Whether to end the search as soon as it has found a circuit, even if `max_seconds` or
            `num_circuits` ask for more.
        give_up: Share of `max_seconds` after which a search that has found nothing ends; None does not.
        tolerance: Accepted infidelity, in [0, 1); 0 requires an infidelity below `EXACT`.
        objective: The cost to minimize: "gates", "two_qubit_gates", "t_count" or "depth", or several with weights.
        options: Sampling options; None uses the model's defaults.
        edit: Constraints on the circuits; with kept gates or a minimum number of gates, circuits are not simplified.
            None means no constraints.
        progress: Called with (used part of `max_tries`, `max_tries`).

    Raises:
        ConfigError: The model takes no such targets, the target does not fit it, a number is out of range, the
            objective is unknown, or an option or edit does not fit the model.
        GateSetError: A gate is unknown, not in the model's pool, or wider than the target.
    """
    started = time.perf_counter()
    task = check_kind(pipeline, DiffusionPipeline, "pipeline", "load_pipeline reads one").task
    if not isinstance(task, TargetTask):
        raise ConfigError(
            f"this model takes {task.asked}, not targets: use `quantum-diffusion {task.command}`, or train on a data "
            "set with datasets.condition_type=UNITARY"
        )
    num_qubits = task.check_target(target, pipeline.config.num_qubits)
    target = np.asarray(target, dtype=np.complex128)
    pool = choose_gates(pipeline.gate_pool, gates, num_qubits)
    longest = _MOST_OF_CLOSED_FORMS if pool.num_angles else pipeline.config.max_gates
    _check_counts(longest, max_gates, max_tries, num_circuits)
    most_gates = min(pipeline.config.max_gates, max_gates or longest)
    _check_tolerance(tolerance)
    budget = Budget.from_now(num_circuits, max_tries, max_seconds, stop_at_first, give_up)
    check_count(seed, "seed")
    if search not in get_args(SearchMethod):
        raise ConfigError(unknown_name("search", search, get_args(SearchMethod)))

    # Simplification respects a coupling and fixed qubits, but moves and removes gates.
    edit = Edit() if edit is None else check_kind(edit, Edit, "edit")
    may_simplify = not (edit.keep or edit.min_gates)
    bounded = replace(edit, max_gates=min(most_gates, edit.max_gates or most_gates))
    if tolerance <= EXACT and not task.measure.best_effort:  # others may have circuits that are good enough
        check_target_reach(task, target, pool.names, bounded, pipeline.table, pipeline.config.max_gates)
    if not may_simplify:
        edit = bounded  # without simplification, the model itself must keep to the maximum length
    options = SamplingConfig() if options is None else check_kind(options, SamplingConfig, "options")
    pipeline.check_sampling(options)
    kind = _beam_or_sampling(search, pipeline, options, edit)
    method = "refinement" if pool.num_angles else kind
    found = Found(
        task=task,
        target=target,
        pool=pool,
        num_qubits=num_qubits,
        most_gates=max_gates or longest,
        tolerance=tolerance,
        objective=objective,
        may_simplify=may_simplify,
    )
    unwanted = None if negative is None else [negative]
    if unwanted and task.qubits_of(negative) > num_qubits:
        raise ConfigError(
            f"the negative target has {task.qubits_of(negative)} qubits, but the target {num_qubits}: give one of as "
            "many or fewer"
        )
    prompt = task.prompt(pool.names, pipeline.gate_pool)
    request = pipeline.requests([prompt], [target], negative_targets=unwanted)
    _check_negative(request)
    check_guided(request, pipeline.resolved(options))
    plan = plan_edit(edit, pipeline.table, pipeline.config.max_gates)
    kept = outcome_of_kept(pipeline, request, plan)
    kinds = ("beam", "sampling") if (search, kind) == ("auto", "beam") else (kind,)
    state = _Search(pipeline, request, found, options, edit, plan, seed, budget, kinds)
    with one_thread() if pool.num_angles else nullcontext():
        result = _run(_METHODS[method](state), found, budget, progress)
    return replace(
        result,
        search=method,
        kept=kept,
        seconds=time.perf_counter() - started,
        tolerance=tolerance,
        measure=task.measure,
        never_exact=not (result.circuits or task.measure.best_effort or may_be_exact(target, pool.names, most_gates)),
    )


def _check_negative(request: Requests) -> None:
    """Refuse a target that is wanted and not wanted at once.

    Raises:
        ConfigError: It is, up to a global phase.
    """
    if request.negative is None or request.negative.targets is None or request.targets is None:
        return
    if infidelities(request.negative.targets, request.targets)[0] < EXACT:
        raise ConfigError("the negative target is the target that is asked for: give another one")


def _run(
    rounds: Iterator[_Round], found: Found, budget: Budget, progress: Callable[[int, int], None] | None
) -> Compilation:
    """Verify candidates until the budget is spent or the search is interrupted."""
    sampled = invalid = 0
    interrupted = True
    with suppress(KeyboardInterrupt):
        for candidates in rounds:
            valid = found.add(candidates.circuits, candidates.source)
            sampled += candidates.num_sampled
            invalid += candidates.num_invalid + len(candidates.circuits) - valid
            if progress:
                progress(min(candidates.progress, budget.max_tries), budget.max_tries)
            if budget.is_spent(found):
                break
        interrupted = False
    cheapest = found.cheapest(budget.wanted)
    return Compilation(
        circuits=cheapest,
        best=cheapest[0] if cheapest else found.best,
        gates=found.pool.names,
        num_sampled=sampled,
        num_exact=found.num_exact,
        num_invalid=invalid,
        num_too_long=found.num_too_long,
        interrupted=interrupted,
    )


def _beam_or_sampling(search: SearchMethod, pipeline: DiffusionPipeline, options: SamplingConfig, edit: Edit) -> str:
    """Return "beam" or "sampling".

    Raises:
        ConfigError: Beam search is requested but impossible.
    """
    if search == "sampling":
        return search
    keeps_prefix = sorted({*edit.keep}) == list(range(len({*edit.keep})))  # kept gates, if any, are the first ones
    edits = bool(not keeps_prefix or edit.min_gates or edit.strength < 1)
    if search == "beam" and edits:
        raise ConfigError(
            "search=beam writes circuits from the start: leave out edit.strength and edit.min_gates and keep only the "
            "first gates, or use search=sampling"
        )
    if search == "beam" and not pipeline.config.shows_remaining:
        raise ConfigError(
            "search=beam needs a model that is conditioned on what is left to do (scheduler.type=masked with "
            f"{pipeline.task.step_encoder}.params.remaining=true): use search=sampling, or another model"
        )
    return "beam" if pipeline.config.shows_remaining and not edits else "sampling"


def _beams(search: _Search) -> Iterator[_Round]:
    """Search with wider and wider beams; with a deadline, continue with noisy beams without end."""
    pipeline, found, budget = search.pipeline, search.found, search.budget
    plan = search.plan
    request = replace(search.request, allowed=search.request.allowed & plan.allowed)
    assert request.targets is not None
    instructions = np.flatnonzero(request.allowed[0])
    usable = tuple(instructions[instructions != NO_GATE].tolist())
    completions = Completions(found.task, request.targets[0], usable, pipeline.table)
    widths = [_FIRST_WIDTH]
    while widths[-1] < budget.max_tries:
        widths.append(widths[-1] * _WIDENING)
    noisy = ((width, number) for number in itertools.count() for width in widths[:-1] or widths)
    for width, number in itertools.chain(((width, None) for width in widths), noisy if budget.is_timed else ()):
        if search.bound.most_gates() < 0:
            return
        noise = None if number is None else numpy_generator(search.seed, "beam", number, width)
        levels = beam_search(
            pipeline,
            request,
            completions,
            search.options,
            width=min(width, budget.max_tries),
            bound=search.bound,
            tolerance=found.tolerance,
            beginning=plan.beginning,
            noise=noise,
        )
        for level in levels:
            circuits = circuits_from_ids(level.ids, pipeline.table, [found.num_qubits] * len(level.ids))
            yield _Round(circuits, level.looked_at, min(width, budget.max_tries))


def _samples(search: _Search) -> Iterator[_Round]:
    """Search by sampling in growing batches."""
    sampled = 0
    for samples in sample_batches(
        search.pipeline, search.request, search.options, search.edit, search.seed, search.budget, search.found
    ):
        sampled += len(samples)
        valid = samples.circuits(samples.report.valid.nonzero()[0])
        yield _Round(valid, len(samples), sampled, len(samples) - len(valid))


def _refined(search: _Search) -> Iterator[_Round]:
    """Refine the angles of circuits from beams and samples; see `search.refining`."""
    found, budget = search.found, search.budget
    accepted = max(EXACT_ANGLES, found.tolerance)
    rounds = RefinedRounds(
        search.pipeline,
        search.request,
        search.options,
        search.edit,
        search.plan,
        search.seed,
        accepted,
        search.bound,
    )
    tried = 0
    for number, (kind, size) in enumerate(_rounds(search.kinds)):
        size = size if budget.is_timed else min(size, budget.max_tries - tried)
        if not size:
            break
        tried += size
        if kind == "sampling":
            temperature = _TEMPERATURES[number % len(_TEMPERATURES)]
            yield _Round(*rounds.sample(size, temperature), tried)
        else:
            noise = numpy_generator(search.seed, "structures", number) if kind == "noisy beam" else None
            for circuits, refined in rounds.beam(size, noise):
                yield _Round(circuits, refined, tried)
        if not number and search.may_use_closed_forms:  # the model has had a first round
            goal = found.target, found.pool, found.num_qubits, accepted
            for circuits in closed_forms(found.task, *goal, budget.deadline, search.allows):
                yield _Round(circuits, 0, tried, source="Qiskit")


def _rounds(kinds: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield the kinds and sizes of the rounds of a search with angles, without end."""
    endless = itertools.chain(_FIRST_ROUNDS, itertools.cycle(_NEXT_ROUNDS))
    return ((kind, size) for kind, size in endless if kind.endswith(tuple(kinds)))


_METHODS: dict[str, Callable[[_Search], Iterator[_Round]]] = {
    "beam": _beams,
    "sampling": _samples,
    "refinement": _refined,
}


def choose_gates(pool: GatePool, gates: Sequence[str] | None, num_qubits: int) -> GatePool:
    """Return the gates that circuits for a target may use.

    Args:
        pool: The model's gates.
        gates: The gates to allow; None allows all that fit the target.
        num_qubits: Number of qubits of the target.

    Raises:
        GateSetError: A gate is unknown, repeated, not in the model's pool, or wider than the target; or none fits.
    """
    if gates is None:
        gates = [gate.name for gate in pool if gate.num_qubits <= num_qubits]
        if not gates:
            raise GateSetError(
                f"every gate of the model {list(pool.names)} acts on more qubits than the target has ({num_qubits}): "
                "give a larger target"
            )
    chosen = GatePool(gates)
    for gate in chosen:
        if gate.name not in pool.names:
            raise GateSetError(
                f"gate {gate.name!r} is not in the model's gate pool: choose from {list(pool.names)}, or train with it"
            )
        if gate.num_qubits > num_qubits:
            raise GateSetError(
                f"gate {gate.name!r} acts on {gate.num_qubits} qubits, but the target has {num_qubits}: "
                "remove it from the gates"
            )
    return chosen


def _check_counts(most_gates: int, max_gates: int | None, max_tries: int, num_circuits: int) -> None:
    """Refuse numbers that are out of range, given the maximum number of gates of a circuit in its final form."""
    if max_gates is not None and not 1 <= check_whole(max_gates, "max_gates") <= most_gates:
        raise ConfigError(
            f"max_gates is {max_gates}, but the model writes circuits of at most {counted(most_gates, 'gate')}: give 1 "
            f"to {most_gates}, or null for no limit"
        )
    check_count(max_tries, "max_tries", 1)
    check_count(num_circuits, "num_circuits", 1)


def _check_tolerance(tolerance: float) -> None:
    check_number(tolerance, "tolerance")
    if not 0 <= tolerance < 1:
        raise ConfigError(f"tolerance is {tolerance}: give an infidelity of at least 0 and below 1, e.g. 0.01")
