"""The figures of an evaluation on targets, each a pure function of the samples for every target.

"Exact" means that the circuit is valid and its infidelity with the target is below `EXACT`. The infidelity is
1 - |tr(V^dagger U)|^2 / D^2 for unitaries and 1 - |<v|u>|^2 for states, computed in float64 from the gates; it ignores
the global phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.matrices import EXACT, EXACT_ANGLES
from quantum_diffusion.evaluation.metrics import SampledFigures, wilson_interval

Interval = tuple[float, float]

MOST_CIRCUITS = 10
"""Maximum number of distinct exact circuits to keep per target, shortest first."""

INFIDELITY_EDGES = (0.0, EXACT, *np.linspace(0, 1, 21)[1:].tolist())
"""Bin edges of the infidelity histograms: a bin for exact circuits, then steps of 0.05 up to 1."""

LEVELS = (1e-2, 1e-4, 1e-6, EXACT_ANGLES)
"""Infidelities below which circuits with angles are counted."""

ANGLE_EDGES = (0.0, *LEVELS[::-1], *np.linspace(0, 1, 21)[1:].tolist())
"""The bin edges for circuits with angles: a bin for each of the levels, then steps of 0.05 up to 1."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class GroupFigures:
    """Figures of a group of targets.

    Attributes:
        num_targets: Number of targets.
        exact_rate: Exact share of their samples.
        solved_rate: Share of targets with at least one exact sample.
        baseline_random_solved_rate: The same for an equal number of random circuits.
    """

    num_targets: int
    exact_rate: float
    solved_rate: float
    baseline_random_solved_rate: float


@dataclass(frozen=True)
class GateComparison:
    """Gate counts of the shortest exact circuit found and of another circuit, over the targets that have both.

    The attributes other than `num_targets` are None if no target has both.

    Attributes:
        num_targets: Number of targets with both.
        mean_gates: Mean number of gates of the shortest exact circuit found.
        mean_gates_other: Mean number of gates of the other circuit.
        shorter_rate: Share of these targets for which the circuit found is shorter.
        longer_rate: Share for which it is longer.
    """

    num_targets: int
    mean_gates: float | None
    mean_gates_other: float | None
    shorter_rate: float | None
    longer_rate: float | None


@dataclass(frozen=True)
class AngleFigures:
    """Figures of circuits with angles, which come near any target.

    Attributes:
        solved_below: Share of targets with a sample below each infidelity of `LEVELS`, by that infidelity.
        baseline_random_solved_below: The same for as many random circuits with refined angles.
        empty_solved_below: The same for the circuit without gates.
        mean_empty_infidelity: Mean infidelity of the circuit without gates.
        by_angles: Figures by the number of angles of the targets' own circuits.
    """

    solved_below: dict[str, float]
    baseline_random_solved_below: dict[str, float]
    empty_solved_below: dict[str, float]
    mean_empty_infidelity: float
    by_angles: dict[str, GroupFigures]


def solved_below(infidelities: NDArray[np.float64]) -> dict[str, float]:
    """Return the share of targets with a circuit below each of `LEVELS`, from infidelities [M, n]."""
    least = infidelities.min(axis=1)
    return {f"{level:g}": float((least < level).mean()) for level in LEVELS}


@dataclass(frozen=True, kw_only=True)
class TargetMetrics(SampledFigures):
    """The content of `metrics.json` for a model with targets; all rates are shares in [0, 1].

    Attributes:
        num_targets: Number of distinct requests (a target and its allowed gates).
        samples_per_target: Number of circuits sampled for each.
        exact_below: The infidelity below which a circuit is exact.
        exact_rate: Exact share of all samples.
        exact_rate_interval: 95 % interval of it; see `rate_interval`.
        best_of: Expected share of targets with an exact circuit among k samples, by k; see `best_of_k`.
        best_of_intervals: 95 % Wilson intervals of `best_of` with the targets as trials. They are conservative for k
            below `samples_per_target`, since probabilities between 0 and 1 vary less than successes.
        baseline_random_rate: `exact_rate` of random circuits: the same number for each target, with its allowed gates
            and the length of its own circuit.
        baseline_random_best_of: `best_of` of these random circuits.
        distinct_exact: Mean number of distinct exact circuits (by normal form) per target; 0 for unsolved ones.
        against_own: The shortest exact circuits compared with the targets' own circuits, both in normal form.
        qiskit_rate: Share of targets for which Qiskit finds an exact circuit with the allowed gates; None for states,
            for which Qiskit does not search with chosen gates.
        against_qiskit: The shortest exact circuits compared with Qiskit's.
        against_optimum: The shortest exact circuits compared with the minimum number of gates, using allowed gates
            only, where it is known; see `evaluation.optimum`.
        infidelity_edges: Bin edges of both histograms; a bin includes its lower edge.
        infidelity_counts: Histogram of all samples; invalid ones have infidelity 1.
        best_infidelity_counts: Histogram of the best sample of each target.
        by_length: Figures by the number of gates of the targets' own circuits.
        by_allowed_gates: Figures by the number of kinds of gates that a prompt allows.
        on_training_data: Whether the model was trained on these targets; if so, the figures say nothing about other
            targets. None if the model does not record it.
        not_checked: Why some or all of the training data could not be searched for the targets; None if all of it was
            found, or if the targets are the training data.
        num_known_circuits: Targets whose own circuit (by normal form) is in the training data found; None if no
            training data was found. These and the next are left out of all figures.
        num_known_targets: Targets that occur in this data, with any circuit, up to a global phase; None as above.
        angles: Further figures of circuits with angles; None for gates without.
    """

    num_targets: int
    samples_per_target: int
    exact_below: float
    exact_rate: float
    exact_rate_interval: Interval
    best_of: dict[str, float]
    best_of_intervals: dict[str, Interval]
    baseline_random_rate: float
    baseline_random_best_of: dict[str, float]
    distinct_exact: float
    against_own: GateComparison
    qiskit_rate: float | None
    against_qiskit: GateComparison
    against_optimum: GateComparison
    infidelity_edges: tuple[float, ...]
    infidelity_counts: list[int]
    best_infidelity_counts: list[int]
    by_length: dict[str, GroupFigures]
    by_allowed_gates: dict[str, GroupFigures]
    on_training_data: bool | None
    not_checked: str | None
    num_known_circuits: int | None
    num_known_targets: int | None
    angles: AngleFigures | None = None


def tries(samples_per_target: int) -> list[int]:
    """Return the values of k for `best_of`: 1, 2, 4, ... and the number of samples itself."""
    powers = [2**power for power in range(samples_per_target.bit_length())]
    return sorted({*powers, samples_per_target})


def best_of_k(successes: NDArray[np.int64], samples: int, k: int) -> NDArray[np.float64]:
    """Return, for each target, the probability that k of its samples, drawn without replacement, include an exact one.

    This has the same mean as checking only the first k samples, but uses all of them.

    Args:
        successes: int64 [M], number of exact samples for each target.
        samples: Number of samples for each target.
        k: From 1 to `samples`; 1 gives the exact share, `samples` gives 0 or 1.

    Returns:
        float64 [M].

    Reference:
        Chen et al., arXiv 2107.03374, equation 1.

    Example:
        >>> best_of_k(np.array([0, 1, 3]), 4, 2).tolist()
        [0.0, 0.5, 1.0]
    """
    misses = [np.prod(1 - k / np.arange(samples - count + 1, samples + 1)) for count in successes.tolist()]
    return 1 - np.array(misses)  # if k samples cannot all fail, one factor is 0


def rate_interval(shares: NDArray[np.float64]) -> Interval:
    """Return the 95 % confidence interval of the mean of per-target shares.

    Targets are independent, but samples for the same target are not. This is therefore Wilson's interval with the
    number of trials that matches the variance between targets: the number of targets if every share is 0 or 1, and more
    if the shares differ less.

    Args:
        shares: float64 [M] in [0, 1].

    Reference:
        Kish, Survey Sampling (1965): the design effect.
    """
    mean, variance = float(shares.mean()), float(shares.var())
    trials = len(shares) * mean * (1 - mean) / variance if variance > _ROUNDING else len(shares)
    return wilson_interval(mean * trials, trials)


def histogram(infidelities: NDArray[np.float64], edges: Sequence[float] = INFIDELITY_EDGES) -> list[int]:
    """Count infidelities in [0, 1] between edges."""
    counts, _ = np.histogram(infidelities, edges)
    numbers: list[int] = counts.tolist()
    return numbers


def by_group(
    groups: NDArray[np.integer],
    successes: NDArray[np.int64],
    random_successes: NDArray[np.int64],
    samples: int,
) -> dict[str, GroupFigures]:
    """Return the figures of each group of targets, in ascending order of group.

    Args:
        groups: [M], the group number of each target.
        successes: int64 [M], number of exact samples for each target.
        random_successes: int64 [M], the same for the random circuits.
        samples: Number of samples for each target.
    """
    return {
        str(group): GroupFigures(
            num_targets=int((groups == group).sum()),
            exact_rate=float(successes[groups == group].mean() / samples),
            solved_rate=float((successes[groups == group] > 0).mean()),
            baseline_random_solved_rate=float((random_successes[groups == group] > 0).mean()),
        )
        for group in np.unique(groups).tolist()
    }


def compare_gates(found: Sequence[int | None], other: Sequence[int | None]) -> GateComparison:
    """Compare gate counts target by target; a count is None where there is no circuit."""
    pairs = [(a, b) for a, b in zip(found, other, strict=True) if a is not None and b is not None]
    if not pairs:
        return GateComparison(0, None, None, None, None)
    mine, others = np.array(pairs).T
    return GateComparison(
        num_targets=len(pairs),
        mean_gates=float(mine.mean()),
        mean_gates_other=float(others.mean()),
        shorter_rate=float((mine < others).mean()),
        longer_rate=float((mine > others).mean()),
    )
