"""The section of the page about an evaluation: tables, charts, and verified and failed circuits."""

from __future__ import annotations

import math

from quantum_diffusion.circuits.prompts import SRV_PROMPT
from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation.metrics import EvaluationMetrics, wilson_interval
from quantum_diffusion.evaluation.report.charts import Bars, Curve, bar_chart, line_chart
from quantum_diffusion.evaluation.report.drawings import drawing
from quantum_diffusion.evaluation.report.figures import DrawnCircuit, EvaluationSource
from quantum_diffusion.evaluation.report.markup import Markup, details, element, section, table
from quantum_diffusion.evaluation.report.parts import card, grid, settings_parts
from quantum_diffusion.evaluation.report.pictures import MOST_BARS
from quantum_diffusion.evaluation.report.row_charts import row_chart
from quantum_diffusion.evaluation.report.tables import percent
from quantum_diffusion.evaluation.target_metrics import GroupFigures, TargetMetrics

_LEFT_OUT = ("evaluation.verbose",)


def evaluation_section(source: EvaluationSource, anchor: str) -> Markup:
    """Return the section about an evaluation."""
    metrics = source.metrics
    figures = target_charts(metrics) if isinstance(metrics, TargetMetrics) else srv_charts(metrics)
    asked = [
        f"{what} {source.settings[key]}"
        for key, what in (("model_dir", "Model"), ("dataset", "asked for what is in"))
        if key in source.settings
    ]
    return section(
        anchor,
        source.name,
        element("p", ", ".join(asked) + "." if asked else None, class_="lead"),
        table("Figures", ["figure", "value", "meaning"], source.rows, numeric=[1]),
        grid(figures),
        _by_prompt_table(metrics) if isinstance(metrics, EvaluationMetrics) else None,
        _verified(source),
        _failed(source),
        settings_parts("evaluation", "evaluate", source.settings, _LEFT_OUT),
        level=3,
    )


def evaluation_card(source: EvaluationSource, anchor: str) -> Markup:
    """Return the card of an evaluation: the exact or solved share, with its interval."""
    metrics = source.metrics
    if isinstance(metrics, EvaluationMetrics):
        value, (low, high) = metrics.srv_accuracy, metrics.srv_accuracy_interval
        name, effort = "SRV accuracy", counted(metrics.num_samples, "sample")
    else:
        tries = str(metrics.samples_per_target)
        value, (low, high) = metrics.best_of[tries], metrics.best_of_intervals[tries]
        name, effort = f"solved, best of {tries}", counted(metrics.num_targets, "target")
    interval = f"95 %: {percent(low)} to {percent(high)}; {effort}"
    return card(percent(value), name, source.name, interval, anchor=anchor)


# ---------------------------------------------------------------------------------- Schmidt rank vectors


def srv_charts(metrics: EvaluationMetrics) -> list[Markup | None]:
    """Return the charts of an evaluation of Schmidt rank vectors."""
    by_prompt, by_entangled = metrics.srv_accuracy_by_prompt, metrics.srv_accuracy_by_entangled
    baselines = [("shuffled prompts", metrics.baseline_shuffled_accuracy)]
    baselines.append(("random circuits", metrics.baseline_random_accuracy))
    numbers = samples_of_prompts(metrics)
    figures: list[Markup | None] = []
    if len(by_prompt) <= MOST_BARS:
        intervals = [wilson_interval(share * numbers[prompt], numbers[prompt]) for prompt, share in by_prompt.items()]
        bars = Bars("exact, with 95 % interval", list(by_prompt.values()), 0, intervals)
        labels = [short_prompt(prompt) for prompt in by_prompt]
        title = "Accuracy by Schmidt rank vector"
        figures.append(row_chart(title, labels, bars, percent=True, references=baselines))
    counts = {key: sum(n for prompt, n in numbers.items() if _entangled(prompt) == key) for key in by_entangled}
    intervals = [wilson_interval(share * counts[key], counts[key]) for key, share in by_entangled.items()]
    bars = Bars("exact, with 95 % interval", list(by_entangled.values()), 0, intervals if all(counts.values()) else [])
    labels = [f"{key} of the qubits entangled" for key in by_entangled]
    title = "Accuracy by number of entangled qubits"
    figures.append(row_chart(title, labels, bars, percent=True, references=baselines))
    shares = {
        "valid": metrics.valid_rate,
        "distinct among the valid": metrics.distinct_rate,
        "novel among the distinct": metrics.novel_rate,
        "distinct among the exact": metrics.exact_distinct_rate,
    }
    if metrics.srv_accuracy_novel is not None:
        shares["exact among the novel"] = metrics.srv_accuracy_novel
    figures.append(row_chart("Validity and novelty", list(shares), Bars("", list(shares.values()), 2), percent=True))
    gates = metrics.gate_count_by_gate
    figures.append(row_chart("Mean gates of a valid circuit", list(gates), Bars("", list(gates.values()), 3)))
    figures.append(_reasons(metrics))
    return figures


def samples_of_prompts(metrics: EvaluationMetrics) -> dict[str, int]:
    """Return the number of samples of each prompt; they are spread evenly, in the order of the prompts."""
    whole, rest = divmod(metrics.num_samples, max(len(metrics.srv_accuracy_by_prompt), 1))
    return {prompt: max(whole + (k < rest), 1) for k, prompt in enumerate(metrics.srv_accuracy_by_prompt)}


def short_prompt(prompt: str) -> str:
    """Return a prompt without the words common to all prompts of its kind."""
    if prompt.startswith(SRV_PROMPT):
        return prompt.removeprefix(SRV_PROMPT)
    return prompt.partition(":")[2].strip(" []").replace("'", "").replace(",", "") or prompt


def _entangled(prompt: str) -> str:
    return str(prompt.removeprefix(SRV_PROMPT).count("2"))


def _by_prompt_table(metrics: EvaluationMetrics) -> Markup:
    numbers = samples_of_prompts(metrics)
    rows = [
        (prompt, percent(share), " to ".join(map(percent, wilson_interval(share * n, n))), str(n))
        for prompt, share in metrics.srv_accuracy_by_prompt.items()
        for n in (numbers[prompt],)
    ]
    head = ["prompt", "exact", "95 % interval", "samples"]
    return details("Accuracy by prompt, in numbers", table("Accuracy by prompt", head, rows, numeric=[1, 2, 3]))


def _reasons(metrics: EvaluationMetrics | TargetMetrics) -> Markup | None:
    if len(metrics.reasons) < 2:
        return None  # all samples are valid
    values = [float(count) for count in metrics.reasons.values()]
    return row_chart("What the samples are", list(metrics.reasons), Bars("", values, 4))


# -------------------------------------------------------------------------------------------------- targets


def target_charts(metrics: TargetMetrics) -> list[Markup | None]:
    """Return the charts of an evaluation on unitaries or states."""
    tries = {math.log2(int(k)): k for k in metrics.best_of if int(k) > 0}
    solved = [
        Curve(
            "model, with 95 % interval",
            [(x, metrics.best_of[k]) for x, k in tries.items()],
            0,
            "dots",
            [(x, *metrics.best_of_intervals[k]) for x, k in tries.items() if k in metrics.best_of_intervals],
        ),
        Curve("random circuits", [(x, metrics.baseline_random_best_of.get(k, math.nan)) for x, k in tries.items()], 1),
    ]
    groups = f"best of {metrics.samples_per_target}"
    return [
        line_chart("Targets solved", solved, "tries of a target", x_ticks=list(tries.items()), percent=True),
        _infidelities(metrics),
        _by_group(f"Solved by length, {groups}", "gates of the target's own circuit", metrics.by_length),
        _by_group(f"Solved by gate subset, {groups}", "kinds of gates allowed", metrics.by_allowed_gates),
        None
        if metrics.angles is None
        else _by_group(
            f"Solved by number of angles, {groups}", "angles of the target's own circuit", metrics.angles.by_angles
        ),
        _gate_chart(metrics),
        _reasons(metrics),
    ]


def _infidelities(metrics: TargetMetrics) -> Markup | None:
    edges = metrics.infidelity_edges
    labels = ["exact", *(f"{low:.2g}" for low in edges[1:-1])] if len(edges) > 1 else []
    bars = [
        Bars(name, [count / max(sum(counts), 1) for count in counts], colour)
        for name, counts, colour in (
            ("all samples", metrics.infidelity_counts, 0),
            ("best sample of each target", metrics.best_infidelity_counts, 2),
        )
    ]
    return bar_chart("How far from the target", labels, bars, "infidelity, from", percent=True)


def _by_group(title: str, x_label: str, groups: dict[str, GroupFigures]) -> Markup | None:
    figures = list(groups.values())
    intervals = [wilson_interval(one.solved_rate * one.num_targets, one.num_targets) for one in figures]
    bars = [
        Bars("a sample is exact", [one.exact_rate for one in figures], 5),
        Bars("solved, with 95 % interval", [one.solved_rate for one in figures], 0, intervals),
        Bars("random circuits", [one.baseline_random_solved_rate for one in figures], 1),
    ]
    return bar_chart(title, list(groups), bars, x_label, percent=True)


def _gate_chart(metrics: TargetMetrics) -> Markup | None:
    """Compare the shortest exact circuits with other circuits, each over the targets that have both."""
    compared = {
        "target's own": metrics.against_own,
        "Qiskit's": metrics.against_qiskit,
        "optimum": metrics.against_optimum,
    }
    pairs = {
        f"{name} ({gates.num_targets})": (gates.mean_gates, gates.mean_gates_other)
        for name, gates in compared.items()
        if gates.mean_gates is not None and gates.mean_gates_other is not None
    }
    bars = [
        Bars("shortest found", [mine for mine, _ in pairs.values()], 0),
        Bars("what it is compared with", [other for _, other in pairs.values()], 1),
    ]
    return bar_chart("Mean gates beside other circuits", list(pairs), bars, "compared with (number of targets)")


# ------------------------------------------------------------------------------------------------- circuits


def _verified(source: EvaluationSource) -> Markup | None:
    if not source.num_verified:
        return element("p", "Its folder has no verified circuits.")
    number = len(source.verified)
    note = (
        f"{counted(source.num_verified, 'verified circuit')} in circuits/, of which the shortest of "
        f"{'each prompt or target' if number > 1 else 'one prompt or target'} is shown, {number} in all."
    )
    return _drawn("Verified circuits", note, source.verified)


def _failed(source: EvaluationSource) -> Markup | None:
    if not source.keeps_failed:
        return element("p", "This evaluation was made by a version that kept no failed circuits.")
    if not source.failed:
        return element("p", "It has no failed circuits.")
    note = f"{counted(len(source.failed), 'circuit')} of those kept in failed/, with what was asked for and what came."
    return _drawn("Circuits that failed", note, source.failed)


def _drawn(title: str, note: str, circuits: list[DrawnCircuit]) -> Markup | None:
    if not circuits:
        return None
    figures = [drawing(one.circuit, f"{one.title} ({counted(len(one.circuit), 'gate')})") for one in circuits]
    return element("div", element("h4", title), element("p", note), element("div", figures, class_="circuits"))
