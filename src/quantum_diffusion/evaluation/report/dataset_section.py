"""The section of the page about a data set: its content, its verification, and how to regenerate it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation.inspection import InspectionReport
from quantum_diffusion.evaluation.report.charts import Bars, bar_chart
from quantum_diffusion.evaluation.report.evaluation_section import short_prompt
from quantum_diffusion.evaluation.report.inspection import (
    check_rows,
    content_rows,
    gadget_rows,
    gadget_words,
    label_rows,
    verdict,
)
from quantum_diffusion.evaluation.report.markup import Markup, element, section, table
from quantum_diffusion.evaluation.report.parts import card, grid, settings_parts
from quantum_diffusion.evaluation.report.row_charts import row_chart
from quantum_diffusion.evaluation.report.sources import DatasetSource
from quantum_diffusion.evaluation.report.tables import percent

_MOST_PROMPTS = 24
"""Maximum number of prompts in the chart; if there are more, the most frequent are shown."""


def dataset_section(source: DatasetSource, anchor: str) -> Markup:
    """Return the section about a data set."""
    report, head = source.inspection, ["", "", ""]
    wrong = verdict(report)
    said = f"Not right: {wrong}." if wrong else "Every circuit is valid and has the right size and label."
    software = source.description.get("software")
    return section(
        anchor,
        source.name,
        element("p", said, class_="lead warning" if wrong else "lead"),
        table("What is in it", head, content_rows(report), numeric=[1]),
        grid([_lengths(report), _prompts(report), _gates(report)]),
        table("Prompts", ["prompt", "circuits", "share"], label_rows(report), numeric=[1, 2]),
        *_gadgets(report),
        table("Verification: every circuit decoded and simulated again", head, check_rows(report), numeric=[1]),
        settings_parts("datasets", "generate", _settings(source)),
        element("p", f"Made with {software}.") if software else None,
        level=3,
    )


def dataset_card(source: DatasetSource, anchor: str) -> Markup:
    """Return the card of a data set: its size, and the share of correct circuits."""
    report = source.inspection
    right = (
        f"{percent(right_share(report))} verified"
        if report.is_right
        else f"at least {percent(right_share(report))} right"
    )
    return card(f"{report.num_circuits:,}", "circuits", source.name, right, anchor=anchor)


def right_share(report: InspectionReport) -> float:
    """Return the share of circuits that pass every check; a circuit that fails several checks counts once for each."""
    wrong = sum(found.count for found in report.wrong.values())
    return max(0.0, 1 - wrong / max(report.num_circuits, 1))


def _settings(source: DatasetSource) -> dict[str, Any] | None:
    """Return the settings for `generate`, including the folder; None if they are not recorded."""
    recorded = source.description.get("settings")
    if not isinstance(recorded, Mapping):
        return None
    known = {key: value for key, value in recorded.items() if key in DatasetConfig.model_fields}
    return {**known, "output_path": source.name}


def _lengths(report: InspectionReport) -> Markup | None:
    whole = {int(length): count for length, count in report.length_counts.items()}
    lengths = list(range(min(whole), max(whole) + 1)) if whole else []
    bars = [
        Bars(f"{number} entangled", [float(counts.get(str(length), 0)) for length in lengths], colour)
        for colour, (number, counts) in enumerate(report.length_counts_by_entangled.items())
    ]
    labelled = [sum(one.values[k] for one in bars) for k in range(len(lengths))]
    rest = [whole.get(length, 0) - count for length, count in zip(lengths, labelled, strict=True)]
    if any(rest):
        bars.append(Bars("other prompts" if bars else "", rest, len(bars)))
    return bar_chart("Circuits by number of gates", list(map(str, lengths)), bars, "gates", stacked=True)


def _prompts(report: InspectionReport) -> Markup | None:
    ordered = sorted(report.prompt_counts.items(), key=lambda item: -item[1])
    shown = ordered[:_MOST_PROMPTS] if len(ordered) > _MOST_PROMPTS else list(report.prompt_counts.items())
    note = f"the most frequent of {counted(len(ordered), 'prompt')}" if len(ordered) > len(shown) else ""
    bars = Bars("", [float(count) for _, count in shown], 0)
    return row_chart("Circuits by prompt", [short_prompt(prompt) for prompt, _ in shown], bars, note=note)


def _gadgets(report: InspectionReport) -> list[Markup]:
    if not report.gadgets.pairs:
        return []
    pairs = table("Frequent pairs of gates", ["", "", ""], gadget_rows(report), numeric=[1])
    return [pairs, element("p", f"Pairs in a row that share a qubit; {gadget_words(report)}.")]


def _gates(report: InspectionReport) -> Markup | None:
    kinds = report.mean_gates_by_kind
    return row_chart("Mean gates of a circuit", list(kinds), Bars("", list(kinds.values()), 3))
