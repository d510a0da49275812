"""The figures of an evaluation in words, for people: rows of (what, value, what it means).

The console and the Markdown file show the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantum_diffusion.evaluation.metrics import EvaluationMetrics

Row = tuple[str, str, str]


def summary_rows(metrics: EvaluationMetrics) -> list[Row]:
    """Return the rows a newcomer should read, most important first."""
    low, high = metrics.srv_accuracy_interval
    interval = f"95 %: {percent(low)} to {percent(high)}"
    known = "this data set (not the one trained on)" if metrics.on_training_data is False else "the training data"
    rows = [
        ("SRV accuracy", percent(metrics.srv_accuracy), f"entangle exactly the qubits asked for ({interval})"),
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
        ("distinct", percent(metrics.distinct_rate), "different circuits among the valid ones"),
        ("novel", percent(metrics.novel_rate), f"of the different circuits, not in {known}"),
        ("gates", f"{metrics.mean_gates:.2f}", "mean gates of a circuit: " + counts(metrics.gate_count_by_gate)),
        ("samples", f"{metrics.num_samples}", f"in {metrics.seconds:.1f} s, every one simulated; seed {metrics.seed}"),
        ("sampler", metrics.scheduler, sampler_settings(metrics)),
    ]
    return rows


def verified_counts(by_prompt: Sequence[int]) -> str:
    """Say how many circuits were verified, given their number for each prompt."""
    without, prompts = by_prompt.count(0), len(by_prompt)
    if without == prompts:
        return "no verified circuit for any prompt"
    each = f"none for {without} of {prompts} prompts" if without else f"{min(by_prompt)} or more for each prompt"
    return f"{sum(by_prompt)} verified distinct circuits" + (f", {each}" if prompts > 1 else "")


def sampler_settings(metrics: EvaluationMetrics) -> str:
    """Describe how circuits were sampled, in one line."""
    order = f", order {metrics.order}" if metrics.order else ""
    return f"guidance {metrics.guidance_scale:g}, {metrics.steps} steps{order}"


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
