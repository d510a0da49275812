"""Presents an inspection: table rows, a picture of the circuits by length and by prompt, and the result files.

The console and reports show the rows; `inspection.json` and `inspection.png` are written together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_diffusion.circuits.prompts import GATES_PROMPTS, SRV_PROMPT
from quantum_diffusion.errors import CheckpointError, counted, only_warn
from quantum_diffusion.evaluation.inspection import (
    CHECKS,
    MOST_ROWS,
    MOST_SAMPLED,
    InspectionReport,
    WrongCircuits,
)
from quantum_diffusion.evaluation.report.tables import Row, counts, percent
from quantum_diffusion.files import new_entries
from quantum_diffusion.folders import check_nothing_lost, names_in
from quantum_diffusion.pictures import new_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT_FILE, PICTURE_FILE = "inspection.json", "inspection.png"
MOST_LABELS = 12
MOST_BARS = 40
_LOGARITHMIC = 30
"""Imbalance above which the axis is logarithmic, since small counts would vanish on a linear one."""


# --------------------------------------------------------------------------------------------------- words


def content_rows(report: InspectionReport) -> list[Row]:
    """Return the content of the data set: circuits, lengths, gates, prompts, repetitions."""
    number = report.num_circuits
    lengths = [int(length) for length in report.length_counts] or [0]
    by_prompt = sorted(report.prompt_counts.values()) or [0]
    each = f"{by_prompt[0]:,} to {by_prompt[-1]:,} circuits each, a factor of {report.imbalance:.3g}"
    if by_prompt[0] == by_prompt[-1]:
        each = f"{counted(by_prompt[0], 'circuit')} each"
    qubits = counted(report.num_qubits, "qubit")
    if len(report.qubit_counts) > 1:
        qubits = f"{' and '.join(report.qubit_counts)} qubits"
    rows = [
        ("circuits", f"{number:,}", f"of {qubits} and at most {counted(report.max_gates, 'gate')}"),
        ("gate pool", f"{len(report.gate_pool)}", " ".join(report.gate_pool)),
        (
            "gates",
            f"{report.mean_length:.2f}",
            f"mean of {min(lengths)} to {max(lengths)} a circuit: {counts(report.mean_gates_by_kind)}",
        ),
        ("prompts", f"{len(report.prompt_counts):,}", each),
    ]
    if len(report.qubit_counts) > 1:
        rows += [_part(f"  {name} qubits", count, number) for name, count in report.qubit_counts.items()]
    rows += [_part(f"  {name} entangled", count, number) for name, count in report.entangled_counts.items()]
    rows += [
        (
            "repetitions",
            f"{report.exact_repetitions:,}",
            "same gates in the same order, and same prompt, as an earlier circuit",
        ),
        (
            "  in normal form",
            f"{report.normal_form_repetitions:,}",
            f"same as an earlier circuit once simplified and reordered ({_share(report)}); generate counts these as "
            "distinct",
        ),
    ]
    return rows


def label_rows(report: InspectionReport) -> list[Row]:
    """Return the most frequent prompts, and the number of others."""
    ordered = sorted(report.prompt_counts.items(), key=lambda item: -item[1])
    rows = [_part(_clean(prompt), count, report.num_circuits) for prompt, count in ordered[:MOST_LABELS]]
    rest = ordered[MOST_LABELS:]
    if rest:
        rows.append(_part(f"... and {len(rest):,} more", sum(count for _, count in rest), report.num_circuits))
    return rows


def gadget_rows(report: InspectionReport) -> list[Row]:
    """Return the most frequent pairs of gates: how often they occur, and in what share of the circuits."""
    found = report.gadgets
    return [
        (pair.name, f"{pair.count:,}", f"in {percent(pair.circuits / max(found.num_circuits, 1))} of the circuits")
        for pair in found.pairs
    ]


def gadget_words(report: InspectionReport) -> str:
    """Say how much shorter circuits would be with each pair as one instruction, and which circuits were counted."""
    found = report.gadgets
    looked_at = "of all valid circuits"
    if report.num_circuits > MOST_SAMPLED:
        looked_at = f"of a sample of {found.num_circuits:,} circuits"
    return (
        f"with {'this pair' if len(found.pairs) == 1 else f'these {len(found.pairs)} pairs'} as one instruction each, "
        f"the mean length {looked_at} is {found.merged_length:.2f} instead of {found.mean_length:.2f}"
    )


def check_rows(report: InspectionReport) -> list[Row]:
    """Return how many circuits fail each check that applies, with the first failing rows."""
    applies = {
        "tokens": True,
        "sizes": True,
        "labels": any(prompt.startswith(SRV_PROMPT) for prompt in report.prompt_counts),
        "gate lists": any(prompt.startswith(GATES_PROMPTS) for prompt in report.prompt_counts),
        "prompts": False,
        "targets": report.largest_target_error is not None,
    }
    rows = []
    for check, meaning in CHECKS.items():
        found = report.wrong[check]
        if not applies[check] and not found.count:
            continue
        if found.count:
            meaning = f"expected: {meaning}; wrong: {_rows(found)}"
        if check == "tokens" and report.invalid_reasons:
            meaning += " (" + ", ".join(f"{count:,} {reason}" for reason, count in report.invalid_reasons.items()) + ")"
        if check == "targets" and report.largest_target_error is not None:
            meaning += f" (largest error {report.largest_target_error:.1e})"
        rows.append((check, f"{found.count:,} wrong", meaning))
    return rows


def verdict(report: InspectionReport) -> str:
    """Return the problems in one line; empty if there are none."""
    parts = [f"{check} of {found.count:,} ({_rows(found)})" for check, found in report.wrong.items() if found.count]
    return f"of {counted(report.num_circuits, 'circuit')}, wrong are: " + ", ".join(parts) if parts else ""


def _clean(prompt: str) -> str:
    """Return a prompt without characters that might confuse a terminal; foreign data sets may hold any text."""
    return "".join(character if character.isprintable() else "?" for character in prompt)[:120]


def _part(name: str, count: int, of: int) -> Row:
    return name, f"{count:,}", percent(count / max(of, 1))


def _share(report: InspectionReport) -> str:
    return percent(report.normal_form_repetitions / max(report.num_circuits, 1))


def _rows(found: WrongCircuits) -> str:
    shown = ", ".join(map(str, found.first_rows)) + (", ..." if found.count > MOST_ROWS else "")
    return f"row{'s' * (found.count != 1)} {shown}"


# ------------------------------------------------------------------------------------------------- picture


def save_inspection_chart(report: InspectionReport, path: Path) -> None:
    """Write a picture (PNG): circuits by length and number of entangled qubits, and circuits by prompt."""
    num_prompts = len(report.prompt_counts)
    height = max(4.2, 0.19 * num_prompts + 1.2) if num_prompts <= MOST_BARS else 4.2
    with new_picture(path, (12, height)) as figure:
        left, right = figure.subplots(1, 2)
        colours = _colours(report)
        _draw_lengths(left, report, colours)
        (_draw_prompts if num_prompts <= MOST_BARS else _draw_many_prompts)(right, report, colours)
        if colours:  # shared by both charts; below them it hides no bar
            figure.legend(
                *left.get_legend_handles_labels(),
                loc="outside lower center",
                ncols=12,
                title="entangled qubits",
                fontsize=8,
                title_fontsize=8,
                frameon=False,
            )
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)


def _colours(report: InspectionReport) -> dict[str, Any]:
    """Return a colour for each number of entangled qubits, dark for few and bright for many."""
    from matplotlib import colormaps

    names = list(report.entangled_counts)
    return dict(zip(names, colormaps["viridis"](np.linspace(0.05, 0.92, len(names))), strict=True))


def _draw_lengths(axes: Axes, report: InspectionReport, colours: dict[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    lengths = np.arange(max((int(length) for length in report.length_counts), default=0) + 1)
    below = np.zeros(len(lengths), dtype=np.int64)
    whole = np.array([report.length_counts.get(str(length), 0) for length in lengths])
    width = 0.85 if len(lengths) <= 60 else 1.0
    for name, colour in colours.items():
        part = np.array([report.length_counts_by_entangled[name].get(str(length), 0) for length in lengths])
        axes.bar(lengths, part, width, below, color=colour, label=name)
        below += part
    if (whole > below).any():
        label = "other prompts" if colours else None
        axes.bar(lengths, whole - below, width, below, color=_other_colour(colours), label=label)
    axes.set_xlim(lengths[whole > 0].min(initial=lengths[-1]) - 0.6, lengths[-1] + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("gates")
    axes.set_ylabel("circuits")
    axes.set_title(f"{counted(report.num_circuits, 'circuit')} by length", fontsize=10)


def _draw_prompts(axes: Axes, report: InspectionReport, colours: dict[str, Any]) -> None:
    # Short vectors and lists come first.
    prompts = sorted(report.prompt_counts, key=lambda prompt: (prompt.count(","), prompt))
    numbers = [report.prompt_counts[prompt] for prompt in prompts]
    bars = axes.barh(range(len(prompts)), numbers, color=_prompt_colours(report, colours, prompts))
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(range(len(prompts)), [_short(prompt) for prompt in prompts], parse_math=False)
    axes.set_ylim(len(prompts) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("circuits")
    axes.set_title(f"Circuits by prompt: {counted(len(prompts), 'prompt')}", fontsize=10)


def _short(prompt: str) -> str:
    if prompt.startswith(GATES_PROMPTS):
        return " ".join(re.findall(r"\w+", prompt.partition("[")[2]))[:40]
    return _clean(prompt).removeprefix(SRV_PROMPT)[:40]


def _draw_many_prompts(axes: Axes, report: InspectionReport, colours: dict[str, Any]) -> None:
    prompts = sorted(report.prompt_counts, key=lambda prompt: -report.prompt_counts[prompt])
    numbers = [report.prompt_counts[prompt] for prompt in prompts]
    axes.bar(range(1, len(prompts) + 1), numbers, 1.0, color=_prompt_colours(report, colours, prompts))
    if report.imbalance > _LOGARITHMIC:
        axes.set_yscale("log")
    axes.set_xlim(0.5, len(prompts) + 0.5)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("prompts, most frequent first")
    axes.set_ylabel("circuits")
    axes.set_title(f"Circuits by prompt: {len(prompts):,} prompts of {numbers[-1]:,} to {numbers[0]:,}", fontsize=10)


def _prompt_colours(report: InspectionReport, colours: dict[str, Any], prompts: list[str]) -> list[Any]:
    entangled = [report.prompt_entangled.get(prompt) for prompt in prompts]
    return [_other_colour(colours) if number is None else colours[str(number)] for number in entangled]


def _other_colour(colours: dict[str, Any]) -> str:
    """Return the colour of prompts without a Schmidt rank vector, or with an invalid one."""
    return "#b0b0b0" if colours else "#4063d8"


# --------------------------------------------------------------------------------------------------- files


def check_save_folder(folder: Path) -> None:
    """Raise an error before any work if the folder holds anything but an earlier inspection.

    Raises:
        CheckpointError: The folder holds something else, or cannot be written.
    """
    check_nothing_lost(
        folder,
        CheckpointError,
        "holds {!r} and is not just an earlier inspection: choose another inspect.save_folder",
        entries=names_in(folder, hidden=False),
        is_ours=lambda name: name in (REPORT_FILE, PICTURE_FILE) and (folder / name).is_file(),
        known_by=REPORT_FILE,
        written=folder / ".new",  # an entry in it, since the folder may already exist
    )


def save_inspection(report: InspectionReport, folder: Path, source: Mapping[str, Any]) -> None:
    """Write `inspection.json` and `inspection.png`, replacing those of an earlier inspection.

    Args:
        report: The findings.
        folder: The folder to write to; see `check_save_folder`.
        source: Plain values that identify what was inspected; they come first in the JSON.

    Raises:
        CheckpointError: The folder cannot be written; its previous contents are unchanged.
    """
    with new_entries(folder, REPORT_FILE, CheckpointError) as staging:
        text = json.dumps({**source, **report.to_dict()}, indent=2)
        (staging / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        with only_warn(f"the picture {PICTURE_FILE!r}"):
            save_inspection_chart(report, staging / PICTURE_FILE)
        is_drawn = (staging / PICTURE_FILE).exists()
    if not is_drawn:
        (folder / PICTURE_FILE).unlink(missing_ok=True)  # left by an earlier inspection
