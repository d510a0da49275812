"""The figures of an evaluation on targets, each a pure function of what was sampled for every target.

"Exact" means: the circuit is valid and its infidelity with the target, 1 - |tr(V^dagger U)|^2 / D^2 of unitaries and
1 - |<v|u>|^2 of states, computed in float64 from the gates, is below `EXACT`; so a global phase does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.matrices import EXACT
from quantum_diffusion.evaluation.metrics import SampledFigures, wilson_interval

Interval = tuple[float, float]

MOST_CIRCUITS = 10
"""Distinct exact circuits of a target that are kept, shortest first."""

INFIDELITY_EDGES = (0.0, EXACT, *np.linspace(0, 1, 21)[1:].tolist())
"""Bounds of the histograms of infidelities: the exact ones, then steps of 0.05 up to 1."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class GroupFigures:
    """Figures of some of the targets.

    Attributes:
        num_targets: How many they are.
        exact_rate: Exact share of their samples.
        solved_rate: Share of them with at least one exact sample.
        baseline_random_solved_rate: The same for as many random circuits.
    """

    num_targets: int
    exact_rate: float
    solved_rate: float
    baseline_random_solved_rate: float


@dataclass(frozen=True)
class GateComparison:
    """Gates of the shortest exact circuit found against those of another circuit, where there are both.

    Attributes:
        num_targets: Targets with both.
        mean_gates: Mean gates of the shortest found; None without such targets, as for the rest.
        mean_gates_other: Mean gates of the other circuit.
        shorter_rate: Share of the targets where the one found is shorter.
        longer_rate: Share where it is longer.
    """

    num_targets: int
    mean_gates: float | None
    mean_gates_other: float | None
    shorter_rate: float | None
    longer_rate: float | None


@dataclass(frozen=True, kw_only=True)
class TargetMetrics(SampledFigures):
    """The content of `metrics.json` for a model with targets; all rates are shares in [0, 1].

    Attributes:
        num_targets: Distinct requested pairs of a target and allowed gates.
        samples_per_target: Circuits sampled for each.
        exact_below: The infidelity below which a circuit is exact.
        exact_rate: Exact share of all samples.
        exact_rate_interval: 95 % interval of it; see `rate_interval`.
        best_of: Expected share of the targets with an exact circuit among k samples, by k; see `best_of_k`.
        best_of_intervals: 95 % Wilson intervals of `best_of` with the targets as trials: for k below
            `samples_per_target` wider than need be, since chances between 0 and 1 vary less than successes.
        baseline_random_rate: `exact_rate` of random circuits, as many for each target, of the gates it allows and of
            its own circuit's length.
        baseline_random_best_of: `best_of` of those.
        distinct_exact: Mean number of distinct exact circuits (by normal form) of a target; 0 for unsolved ones.
        against_own: The shortest exact circuits beside the circuits the targets were made with, both in normal form.
        qiskit_rate: Share of the targets for which Qiskit finds an exact circuit of the allowed gates; None for states,
            for which it does not look with chosen gates.
        against_qiskit: The shortest exact circuits beside Qiskit's.
        against_optimum: The shortest exact circuits beside the fewest gates that circuits of the allowed gates need,
            where these are known; see `evaluation.optimum`.
        infidelity_edges: Bounds of the bins of both histograms; a bin has its lower bound.
        infidelity_counts: Histogram of all samples; invalid ones have infidelity 1.
        best_infidelity_counts: Histogram of the best sample of each target.
        by_length: Figures by the gates of the targets' own circuits.
        by_allowed_gates: Figures by how many kinds of gates a prompt allows.
        on_training_data: Whether the targets are those the model was trained on: then the figures say nothing about
            other targets. None when the model does not say.
        not_checked: Why it is not known whether training had the targets, or for which of several training data it is
            not; None where all were found, or are the targets themselves.
        num_known_circuits: Targets whose own circuit (by normal form) is in the training data that were found; None
            where there are none. Like the next, they are left out of all figures.
        num_known_targets: Targets that are in these data, of whatever circuit, up to a global phase; None as above.
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


def tries(samples_per_target: int) -> list[int]:
    """Return the k of `best_of`: 1, 2, 4, ... and the number of samples itself."""
    powers = [2**power for power in range(samples_per_target.bit_length())]
    return sorted({*powers, samples_per_target})


def best_of_k(successes: NDArray[np.int64], samples: int, k: int) -> NDArray[np.float64]:
    """Return each target's chance that k samples, drawn from its own without replacement, have an exact one.

    This uses all samples, where looking at the first k would throw most of them away, and has the same mean.

    Args:
        successes: int64 [M], exact samples of each target.
        samples: Samples of each target.
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
    return 1 - np.array(misses)  # where k samples cannot all fail, one factor is 0


def rate_interval(shares: NDArray[np.float64]) -> Interval:
    """Confidence interval (95 %) of the mean of one share a target.

    Samples of a target are not independent of each other, targets are. So this is Wilson's interval for as many trials
    as would give the variance seen between targets: the number of targets when every share is 0 or 1, more when the
    shares differ less.

    Args:
        shares: float64 [M] in [0, 1].

    Reference:
        Kish, Survey Sampling (1965): the design effect.
    """
    mean, variance = float(shares.mean()), float(shares.var())
    trials = len(shares) * mean * (1 - mean) / variance if variance > _ROUNDING else len(shares)
    return wilson_interval(mean * trials, trials)


def histogram(infidelities: NDArray[np.float64]) -> list[int]:
    """Count infidelities in [0, 1] between `INFIDELITY_EDGES`."""
    counts, _ = np.histogram(infidelities, INFIDELITY_EDGES)
    numbers: list[int] = counts.tolist()
    return numbers


def by_group(
    groups: NDArray[np.integer],
    successes: NDArray[np.int64],
    random_successes: NDArray[np.int64],
    samples: int,
) -> dict[str, GroupFigures]:
    """Return the figures of each group of targets, groups in rising order.

    Args:
        groups: [M], a number a target.
        successes: int64 [M], exact samples of each target.
        random_successes: int64 [M], exact ones of the random circuits.
        samples: Samples of each target.
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
    """Compare gate counts, target by target; None where there is no circuit."""
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
