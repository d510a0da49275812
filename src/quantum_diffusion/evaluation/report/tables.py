"""Table rows (name, value, meaning) of an evaluation's figures.

The console, the Markdown file and reports show the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation.metrics import EvaluationMetrics, SampledFigures
from quantum_diffusion.evaluation.target_metrics import (
    MOST_CIRCUITS,
    AngleFigures,
    GateComparison,
    GroupFigures,
    TargetMetrics,
)

Row = tuple[str, str, str]

SHOWN_TRIES = (16, 128, 1024)
"""Values of k commonly reported for "best of k"."""


def summary_rows(metrics: EvaluationMetrics | TargetMetrics) -> list[Row]:
    """Return the rows that a newcomer should read, most important first."""
    return _target_rows(metrics) if isinstance(metrics, TargetMetrics) else _srv_rows(metrics)


def summary_table(metrics: EvaluationMetrics | TargetMetrics) -> str:
    """Return these rows as text, one per line."""
    rows = summary_rows(metrics)
    wide, high = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{what:{wide}}  {value:>{high}}  {meaning}".rstrip() for what, value, meaning in rows)


def _srv_rows(metrics: EvaluationMetrics) -> list[Row]:
    low, high = metrics.srv_accuracy_interval
    interval = f"95 %: {percent(low)} to {percent(high)}"
    known = {
        True: "the training data",
        False: "this data set (not the one trained on)",
        None: "this data set (the model does not say what it was trained on)",
    }[metrics.on_training_data]
    rows = [
        ("SRV accuracy", percent(metrics.srv_accuracy), f"entangle exactly the requested qubits ({interval})"),
        ("  shuffled prompts", percent(metrics.baseline_shuffled_accuracy), "the same circuits against other prompts"),
        ("  random circuits", percent(metrics.baseline_random_accuracy), "random gates against the same prompts"),
    ]
    if metrics.srv_accuracy_novel is not None:
        novel = percent(metrics.srv_accuracy_novel)
        rows.insert(1, ("  novel circuits", novel, f"the same, of the samples that are not in {known}"))
    for number, share in metrics.srv_accuracy_by_entangled.items():
        rows.append((f"  {number} entangled", percent(share), f"when asked to entangle {number} qubits"))
    rows.append(("valid", percent(metrics.valid_rate), "samples that are circuits at all"))
    if metrics.empty_rate > 0:
        rows.append(("  empty", percent(metrics.empty_rate), "circuits without any gate: never exact, never novel"))
    rows += [
        ("distinct", percent(metrics.distinct_rate), "of the valid circuits, once simplified and reordered"),
        ("novel", percent(metrics.novel_rate), f"of the distinct circuits, not in {known}"),
        ("mean gates", f"{metrics.mean_gates:.2f}", "per valid circuit: " + counts(metrics.gate_count_by_gate)),
        ("samples", f"{metrics.num_samples}", f"in {metrics.seconds:.1f} s, every one simulated; seed {metrics.seed}"),
        ("sampler", metrics.scheduler, sampler_settings(metrics)),
    ]
    return rows


def _target_rows(metrics: TargetMetrics) -> list[Row]:
    samples = metrics.samples_per_target
    mark = " (training data)" if metrics.on_training_data else ""
    rows = [
        (
            f"exact{mark}",
            percent(metrics.exact_rate),
            f"of all samples, infidelity below {metrics.exact_below:g} ({_interval(metrics.exact_rate_interval)})",
        ),
        ("  random circuits", percent(metrics.baseline_random_rate), "of the same gates and the target's own length"),
    ]
    for k in sorted({k for k in SHOWN_TRIES if k <= samples} | {samples} - {1}):
        interval, random = metrics.best_of_intervals[str(k)], metrics.baseline_random_best_of[str(k)]
        meaning = f"of the targets, by k = {k} tries ({_interval(interval)}; random circuits {percent(random)})"
        rows.append((f"solved, best of {k}{mark}", percent(metrics.best_of[str(k)]), meaning))
    for length, group in metrics.by_length.items():
        gates = counted(int(length), "gate")
        meaning = f"best of {samples}, {_of_targets(group)} made with {gates}; {percent(group.exact_rate)} a sample"
        rows.append((f"  {gates}", percent(group.solved_rate), meaning))
    for number, group in metrics.by_allowed_gates.items():
        meaning = f"best of {samples}, {_of_targets(group)} with so many allowed; {percent(group.exact_rate)} a sample"
        rows.append(("  " + counted(int(number), "kind") + " of gates", percent(group.solved_rate), meaning))
    rows += [] if metrics.angles is None else _angle_rows(metrics.angles, samples)
    distinct = f"mean number of distinct exact circuits per target; the {MOST_CIRCUITS} shortest of each are written"
    rows.append(("exact circuits", f"{metrics.distinct_exact:.1f}", distinct))
    own, qiskit = metrics.against_own, metrics.against_qiskit
    if own.num_targets:
        rows.append(
            (
                "shortest exact",
                f"{own.mean_gates:.2f}",
                f"mean gates of the shortest exact circuits; {_beside(own, 'the circuits of the targets')}",
            )
        )
    optimum = metrics.against_optimum
    if optimum.mean_gates is not None and optimum.mean_gates_other is not None:
        above = optimum.mean_gates - optimum.mean_gates_other
        meaning = f"gates above the fewest possible, where these are known ({counted(optimum.num_targets, 'target')})"
        rows.append(("  above optimum", f"{above:.2f}", meaning))
    if metrics.qiskit_rate is not None:
        meaning = "of the targets, for which its synthesis is exact with the same gates"
        rows.append(("Qiskit", percent(metrics.qiskit_rate), meaning))
    if qiskit.num_targets:
        meaning = f"the model's mean gates where both are exact; {_beside(qiskit, 'circuits by Qiskit')}"
        rows.append(("  shortest exact", f"{qiskit.mean_gates:.2f}", meaning))
    rows += [
        ("valid", percent(metrics.valid_rate), "samples that are circuits at all"),
        ("targets", str(metrics.num_targets), f"{counted(samples, 'sample')} each; {_origin(metrics)}"),
        (
            "samples",
            f"{metrics.num_targets * samples:,}",
            f"in {metrics.seconds:.1f} s, every one simulated; seed {metrics.seed}",
        ),
        ("sampler", metrics.scheduler, sampler_settings(metrics)),
    ]
    return rows


def _angle_rows(figures: AngleFigures, samples: int) -> list[Row]:
    """Return how near circuits with angles come to their targets, beside chance and the empty circuit."""
    rows = []
    for level, share in figures.solved_below.items():
        chance, empty = figures.baseline_random_solved_below[level], figures.empty_solved_below[level]
        meaning = f"best of {samples}; random circuits, refined, {percent(chance)}, the empty circuit {percent(empty)}"
        rows.append((f"  below {level}", percent(share), meaning))
    for number, group in figures.by_angles.items():
        meaning = f"best of {samples}, {_of_targets(group)} made with so many; {percent(group.exact_rate)} a sample"
        rows.append(("  " + counted(int(number), "angle"), percent(group.solved_rate), meaning))
    empty_distance = f"{figures.mean_empty_infidelity:.2g}"
    rows.append(("empty circuit", empty_distance, "mean infidelity of the circuit without gates"))
    return rows


def _interval(bounds: tuple[float, float]) -> str:
    return f"95 %: {percent(bounds[0])} to {percent(bounds[1])}"


def _of_targets(group: GroupFigures) -> str:
    return counted(group.num_targets, "target")


def _beside(gates: GateComparison, other: str) -> str:
    assert gates.mean_gates_other is not None
    assert gates.shorter_rate is not None
    assert gates.longer_rate is not None
    shares = f"{percent(gates.shorter_rate)} are shorter, {percent(gates.longer_rate)} longer"
    return f"{other} have {gates.mean_gates_other:.2f}; {shares} ({counted(gates.num_targets, 'target')})"


def _origin(metrics: TargetMetrics) -> str:
    """Say whether the model may have seen the targets during training."""
    if metrics.on_training_data:
        return "the model was trained on them"
    which = "training"
    said = []
    if metrics.not_checked is not None:
        said.append(f"NOT CHECKED whether training had them: {metrics.not_checked}")
        which = "the training data that were found"
    if metrics.num_known_targets or metrics.num_known_circuits:
        said.append(
            f"none occurs in {which} ({metrics.num_known_targets} by what they do and "
            f"{metrics.num_known_circuits} by their circuit did, and were left out)"
        )
    elif metrics.num_known_targets is not None:
        said.append(f"none occurs in {which}, neither what they do nor the circuit")
    return "; ".join(said) or "NOT CHECKED whether training had them"


def verified_counts(by_prompt: Sequence[int], what: str = "prompt") -> str:
    """Say how many circuits were verified, given the count for each prompt or other unit."""
    without, prompts = by_prompt.count(0), len(by_prompt)
    if without == prompts:
        return f"no verified circuit for any {what}"
    each = f"none for {without} of {prompts} {what}s" if without else f"{min(by_prompt)} or more for each {what}"
    return counted(sum(by_prompt), "verified distinct circuit") + (f", {each}" if prompts > 1 else "")


def sampler_settings(metrics: SampledFigures) -> str:
    """Describe how circuits were sampled, in one line."""
    order = f", order {metrics.order}" if metrics.order else ""
    return f"guidance {metrics.guidance_scale:g}, {counted(metrics.steps, 'step')}{order}"


def counts(values: dict[str, float]) -> str:
    """Format mean counts: {"h": 2.1} => "2.1 h"."""
    return ", ".join(f"{value:.1f} {name}" for name, value in values.items())


def percent(share: float) -> str:
    """Format a share in [0, 1] with one decimal."""
    return f"{100 * share:.1f} %"


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| figure | value | meaning |", "|---|---:|---|"]
    lines += [f"| {name.replace('  ', '&emsp;')} | {value} | {meaning} |" for name, value, meaning in rows]
    return "\n".join(lines) + "\n"
