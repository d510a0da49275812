"""Pictures of an evaluation: accuracy by prompt against the baselines, and drawn circuits.

matplotlib and Qiskit are imported when a picture is made, not before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.prompts import SRV_PROMPT
from quantum_diffusion.evaluation.metrics import EvaluationMetrics, circuit_keys
from quantum_diffusion.pictures import new_picture
from quantum_diffusion.tasks.samples import SampledCircuits

MOST_BARS = 40


def save_accuracy_chart(metrics: EvaluationMetrics, path: Path) -> None:
    """Write a bar chart (PNG) of the exact share by prompt, or by entangled qubits when there are many prompts."""
    shares = metrics.srv_accuracy_by_prompt
    labels = [prompt.removeprefix(SRV_PROMPT) for prompt in shares]
    title = "Exact circuits by Schmidt rank vector asked for"
    if len(shares) > MOST_BARS:
        shares = metrics.srv_accuracy_by_entangled
        labels, title = [f"{number} entangled" for number in shares], "Exact circuits by number of entangled qubits"

    with new_picture(path, (max(5.0, 0.55 * len(labels) + 2), 3.6)) as figure:
        axes = figure.add_subplot()
        bars = axes.bar(labels, [100 * share for share in shares.values()], color="#4063d8", width=0.65)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        shuffled, random = 100 * metrics.baseline_shuffled_accuracy, 100 * metrics.baseline_random_accuracy
        axes.axhline(shuffled, color="#cb3c33", linestyle="--", label="shuffled prompts")
        axes.axhline(random, color="#7f7f7f", linestyle=":", label="random circuits")
        axes.set_ylim(0, 110)
        axes.set_ylabel("exact (%)")
        axes.set_title(title, fontsize=10)
        axes.tick_params(axis="x", labelrotation=45 if len(labels) > 6 else 0, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def save_circuit_drawings(samples: SampledCircuits, path: Path, most: int) -> None:
    """Draw the first distinct valid samples, as evenly over the prompts as possible (PNG)."""
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    rows = rows_to_show(samples, samples.report.valid, most)
    if not len(rows):
        return
    titles = []
    for row in rows:
        titles.append(samples.outcome(row) + ("" if samples.matches[row] else "  (wrong)"))
    QiskitBackend().save_drawing(samples.circuits(rows), path, titles)


def rows_to_show(samples: SampledCircuits, among: NDArray[np.bool_], most: int) -> list[int]:
    """Return the rows of the first distinct circuits, as evenly over the prompts as possible.

    Args:
        samples: The samples.
        among: bool [N], which samples may be shown; they must be valid. Circuits without gates are never shown.
        most: Maximum number of rows.
    """
    candidates = np.flatnonzero(among & (samples.gate_counts > 0))
    keys = circuit_keys(samples.ids, samples.table, samples.num_qubits)[candidates]
    candidates = candidates[np.sort(np.unique(keys, return_index=True)[1])]
    by_prompt: dict[str, list[int]] = {}
    for row in candidates.tolist():
        by_prompt.setdefault(samples.prompts[row], []).append(row)
    chosen: list[int] = []
    for turn in range(most):
        chosen += [rows[turn] for rows in by_prompt.values() if turn < len(rows)]
    return sorted(chosen[:most], key=lambda row: samples.prompts[row])
