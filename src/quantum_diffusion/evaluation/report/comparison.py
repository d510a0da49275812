"""Compares several runs, evaluations or data sets: their figures in one table, the curves of runs in one chart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.charts import NUM_COLOURS, Curve, line_chart, smoothed
from quantum_diffusion.evaluation.report.dataset_section import right_share
from quantum_diffusion.evaluation.report.figures import EvaluationSource
from quantum_diffusion.evaluation.report.markup import Markup, element, section, table
from quantum_diffusion.evaluation.report.parts import grid, shown
from quantum_diffusion.evaluation.report.run_section import CURVES, facts
from quantum_diffusion.evaluation.report.settings import typed
from quantum_diffusion.evaluation.report.sources import DatasetSource, RunSource, Sources
from quantum_diffusion.evaluation.report.tables import Row, percent
from quantum_diffusion.evaluation.target_metrics import TargetMetrics
from quantum_diffusion.tracking.runs import differing_settings

MOST_CURVES = NUM_COLOURS
"""Maximum number of runs in a chart, one per colour; if there are more, the last ones are shown."""

_MISSING = "–"

_KINDS: dict[str, type[EvaluationMetrics | TargetMetrics]] = {
    "for Schmidt rank vectors": EvaluationMetrics,
    "on targets": TargetMetrics,
}


def comparison_parts(sources: Sources) -> list[tuple[str, str, Markup]]:
    """Return (anchor, title, part) for each kind of source that occurs more than once."""
    parts: list[tuple[str, str, list[Markup | None]]] = []
    if len(sources.runs) > 1:
        content = [_runs_table(sources), _settings_table(sources.runs), _curves(sources.runs)]
        parts.append(("compare-runs", "Runs side by side", content))
    # Figures of the two kinds differ in meaning, even under the same name.
    tables: list[Markup | None] = []
    for name, kind in _KINDS.items():
        alike = [one for one in sources.evaluations if isinstance(one.metrics, kind)]
        if len(alike) > 1:
            tables.append(_evaluations_table(f"Evaluations {name}", alike))
    if tables:
        parts.append(("compare-evaluations", "Evaluations side by side", tables))
    if len(sources.datasets) > 1:
        parts.append(("compare-datasets", "Data sets side by side", [_datasets_table(sources.datasets)]))
    return [(anchor, title, section(anchor, title, *content)) for anchor, title, content in parts]


def _side_by_side(caption: str, names: Sequence[str], columns: Sequence[dict[str, str]]) -> Markup:
    """Return a table with a column per source and a row for each figure that any of them has."""
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [(key, *(column.get(key, _MISSING) for column in columns)) for key in keys]
    return table(caption, ["", *names], rows, numeric=range(1, len(names) + 1))


# ---------------------------------------------------------------------------------------------------- runs


def _runs_table(sources: Sources) -> Markup:
    columns = []
    for run in sources.runs:
        column = {"status": "trained" if run.run is None else run.run.status}
        column |= {name: shown(value) for name, value in facts(run).items()}
        for evaluation in sources.evaluations:
            if _is_of(evaluation, run):
                column |= key_figures(evaluation.rows, evaluation.name)
        columns.append(column)
    return _side_by_side("Figures of the runs", [run.name for run in sources.runs], columns)


def _is_of(evaluation: EvaluationSource, run: RunSource) -> bool:
    """Return whether an evaluation is of a run's model: it names that model or lies in its folder."""
    models = (str(evaluation.settings.get("model_dir", "")), str(evaluation.folder / ".."))
    return os.path.realpath(run.folder) in [os.path.realpath(model) for model in models]


def key_figures(rows: Iterable[Row], name: str) -> dict[str, str]:
    """Return the first figure of an evaluation, with its interval, keyed by the name of the evaluation."""
    for figure, value, meaning in rows:
        interval = meaning.rpartition("(95 %: ")[2].partition(")")[0] if "(95 %: " in meaning else ""
        return {f"{figure}, {name}": value + (f" ({interval})" if interval else "")}
    return {}


def _settings_table(runs: Sequence[RunSource]) -> Markup:
    different = differing_settings([run.flat_settings for run in runs])
    columns = [{key: typed(values[k]) for key, values in different.items()} for k in range(len(runs))]
    if not different:
        return element("p", "The runs have the same settings.")
    return _side_by_side("Settings that differ between the runs", [run.name for run in runs], columns)


def _curves(runs: Sequence[RunSource]) -> Markup | None:
    last = runs[-MOST_CURVES:]
    drawn: list[Markup | None] = []
    kinds: list[tuple[str, str, Callable[[RunSource], list[tuple[float, float]]]]] = [
        ("Training loss", "running mean", lambda run: smoothed(run.series("loss"))),
        ("Validation loss", "", lambda run: run.series("validation_loss")),
    ]
    for title, note, points_of in kinds:
        drawn.append(line_chart(title, _of_runs(last, points_of), "step", note))
    for metric, title in CURVES.items():
        curves = _of_runs(last, lambda run, metric=metric: run.series(metric))  # type: ignore[misc]
        drawn.append(line_chart(title, curves, "step", percent=metric == "sampled_accuracy"))
    return grid(drawn)


def _of_runs(runs: Sequence[RunSource], points_of: Callable[[RunSource], list[tuple[float, float]]]) -> list[Curve]:
    curves = [(run.name, colour, points_of(run)) for colour, run in enumerate(runs)]
    return [
        Curve(name, points, colour, "dots" if len(points) < 30 else "line") for name, colour, points in curves if points
    ]


# ---------------------------------------------------------------------------------- evaluations, data sets


def _evaluations_table(caption: str, evaluations: Sequence[EvaluationSource]) -> Markup:
    columns = []
    for one in evaluations:
        column = {figure: value for figure, value, _ in one.rows}
        metrics = one.metrics
        bounds = (
            metrics.srv_accuracy_interval if isinstance(metrics, EvaluationMetrics) else metrics.exact_rate_interval
        )
        first = next(iter(column))
        with_interval = {first: f"{column[first]} ({' to '.join(map(percent, bounds))})"}
        columns.append({"model": str(one.settings.get("model_dir", _MISSING)), **column, **with_interval})
    return _side_by_side(caption, [one.name for one in evaluations], columns)


def _datasets_table(datasets: Sequence[DatasetSource]) -> Markup:
    columns = []
    for one in datasets:
        report = one.inspection
        columns.append(
            {
                "circuits": f"{report.num_circuits:,}",
                "verified": percent(right_share(report)),
                "qubits": " and ".join(report.qubit_counts),
                "gates": " ".join(report.gate_pool),
                "mean gates of a circuit": f"{report.mean_length:.2f}",
                "most gates": str(max(map(int, report.length_counts), default=0)),
                "prompts": f"{len(report.prompt_counts):,}",
                "most frequent prompt beside the rarest": shown(report.imbalance),
                "repetitions once simplified": f"{report.normal_form_repetitions:,}",
            }
        )
    return _side_by_side("Figures of the data sets", [one.name for one in datasets], columns)
