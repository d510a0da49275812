"""Pictures of an evaluation on targets: success by number of tries, infidelities, and circuits side by side.

matplotlib and Qiskit are imported when a picture is made, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation.target_metrics import TargetMetrics
from quantum_diffusion.pictures import new_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELLED = 6
"""Maximum number of groups of bars with room for their values."""
_MODEL, _SAMPLE, _RANDOM = "#4063d8", "#9bb0ee", "#7f7f7f"


def save_success_chart(metrics: TargetMetrics, path: Path) -> None:
    """Write a picture (PNG) with three charts: success by tries, infidelities, success by length."""
    with new_picture(path, (13, 4.2)) as figure:
        tries, infidelities, lengths = figure.subplots(1, 3)
        _draw_tries(tries, metrics)
        _draw_infidelities(infidelities, metrics)
        _draw_lengths(lengths, metrics)
        for axes in (tries, infidelities, lengths):
            axes.set_ylim(0, 108)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            # Below, where it hides nothing.
            axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        where = ", on training data" if metrics.on_training_data else ""
        figure.suptitle(
            f"{counted(metrics.num_targets, 'target')}, {counted(metrics.samples_per_target, 'sample')} each{where}; "
            f"exact: infidelity below {metrics.exact_below:g}",
            fontsize=10,
        )


_NARROW = 0.05
"""Upper edge of the first bin of the infidelity histogram that is as wide as the others."""


def _draw_tries(axes: Axes, metrics: TargetMetrics) -> None:
    tries = [int(k) for k in metrics.best_of]
    low, high = 100 * np.array(list(metrics.best_of_intervals.values())).T
    axes.fill_between(tries, low, high, color=_MODEL, alpha=0.18, linewidth=0)
    axes.plot(tries, [100 * rate for rate in metrics.best_of.values()], "o-", color=_MODEL, markersize=4, label="model")
    random = [100 * rate for rate in metrics.baseline_random_best_of.values()]
    axes.plot(tries, random, "s:", color=_RANDOM, markersize=3, label="random circuits")
    axes.set_xscale("log", base=2)
    axes.set_xticks(tries, [str(k) for k in tries], rotation=45 if len(tries) > 8 else 0)
    axes.set_xlabel("tries a target (k)")
    axes.set_ylabel("targets solved (%)")
    axes.set_title("Solved by the best of k", fontsize=10)


def _draw_infidelities(axes: Axes, metrics: TargetMetrics) -> None:
    # The first bins have almost no width, so they are drawn as separate bars at the left.
    edges = np.array(metrics.infidelity_edges)
    narrow = edges[1:][edges[1:] < _NARROW].tolist()
    left = [-0.06 * (len(narrow) - place) for place in range(len(narrow))]
    places = np.array([*left, *(edges[len(narrow) : -1] + edges[len(narrow) + 1 :]) / 2])
    for counts, colour, shift, label in (
        (metrics.infidelity_counts, _SAMPLE, -0.011, "all samples"),
        (metrics.best_infidelity_counts, _MODEL, 0.011, "best sample of a target"),
    ):
        axes.bar(places + shift, 100 * np.array(counts) / max(sum(counts), 1), 0.022, color=colour, label=label)
    axes.set_xticks([left[0], 0.25, 0.5, 0.75, 1.0], ["exact", "0.25", "0.5", "0.75", "1"])
    others = "".join(f", {edge:g}" for edge in narrow[1:])
    axes.set_xlabel(f"infidelity (bars at the left: below {narrow[0]:g}{others})" if others else "infidelity")
    axes.set_ylabel("share (%)")
    axes.set_title("How far from the target", fontsize=10)


def _draw_lengths(axes: Axes, metrics: TargetMetrics) -> None:
    groups, samples = list(metrics.by_length.values()), metrics.samples_per_target
    places = np.arange(len(groups))
    for shift, rates, colour, label in (
        (-0.27, [group.exact_rate for group in groups], _SAMPLE, "a sample"),
        (0.0, [group.solved_rate for group in groups], _MODEL, f"best of {samples}"),
        (0.27, [group.baseline_random_solved_rate for group in groups], _RANDOM, f"{samples} random circuits"),
    ):
        bars = axes.bar(places + shift, [100 * rate for rate in rates], 0.25, color=colour, label=label)
        if len(groups) <= _MOST_LABELLED:
            axes.bar_label(bars, fmt="%.0f", padding=1, fontsize=7)
    axes.set_xticks(places, [f"{length}\n({metrics.by_length[length].num_targets})" for length in metrics.by_length])
    axes.set_xlabel("gates of the target's own circuit (number of targets)")
    axes.set_ylabel("exact (%)")
    axes.set_title("By length", fontsize=10)


def save_target_drawings(pairs: Sequence[tuple[str, Circuit, Circuit]], path: Path, most: int) -> None:
    """Draw targets' own circuits next to the shortest circuits found, over all lengths (PNG).

    Args:
        pairs: (name, own circuit, circuit found).
        path: File to write; nothing is written if there is nothing to draw.
        most: Maximum number of pairs.
    """
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    ordered = sorted(pairs, key=lambda pair: len(pair[1]))
    rows = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int)).tolist()
    if not rows:
        return
    circuits, titles = [], []
    for name, own, found in (ordered[row] for row in rows):
        circuits += [own, found]
        titles += [f"{name}: own circuit, {counted(len(own), 'gate')}", f"found: {counted(len(found), 'gate')}"]
    QiskitBackend().save_drawing(circuits, path, titles, max_columns=2)
