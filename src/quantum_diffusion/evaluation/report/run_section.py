"""The section of the page about a training run: status, curves, settings, and how to reproduce it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation.report.charts import Curve, line_chart, smoothed
from quantum_diffusion.evaluation.report.markup import Markup, element, section, table
from quantum_diffusion.evaluation.report.parts import card, grid, settings_parts, shown
from quantum_diffusion.evaluation.report.sources import RunSource
from quantum_diffusion.evaluation.report.tables import percent

CURVES = {
    "sampled_accuracy": "Accuracy of sampled circuits",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "samples_per_second": "Circuits a second",
}
"""Metrics with a chart of their own, in addition to the losses."""

_FACTS = {
    "finished_at": "finished",
    "device": "device",
    "num_parameters": "parameters",
    "epochs": "epochs",
    "steps": "steps",
    "samples_seen": "circuits seen",
    "seconds": "seconds",
    "training_loss": "training loss",
    "validation_loss": "validation loss",
    "sampled_accuracy": "sampled accuracy",
    "dataset": "data set",
    "num_circuits": "circuits in it",
}
"""Facts to show first, from `metadata.yaml` or else from the metrics."""

_NOISY = 40
"""Minimum number of points of a loss for which to draw its running mean, too."""

_NOT_SHOWN = ("dataset_path", "status")
"""Absolute paths mean nothing on another computer and may reveal the user's name."""

_LEFT_OUT = ("training.general.verbose", "training.general.overwrite", "training.general.resume")


def run_section(run: RunSource, anchor: str) -> Markup:
    """Return the section about a run."""
    return section(
        anchor,
        run.name,
        element("p", _state(run), class_="lead"),
        table("Training", ["", ""], [(name, shown(value)) for name, value in facts(run).items()], numeric=[1]),
        charts(run),
        settings_parts("training", "train", run.settings, _LEFT_OUT),
        environment(run.metadata),
        level=3,
    )


def facts(run: RunSource) -> dict[str, Any]:
    """Return the facts to show first, by name on the page."""
    known: dict[str, Any] = {}
    if run.run is not None:
        known = {"steps": run.run.step, "seconds": run.run.seconds, **run.run.metrics}
        if "epoch_loss" in known:
            known["training_loss"] = known["epoch_loss"]  # an unfinished run has no metadata
    known |= {key: value for key, value in run.metadata.items() if value is not None}
    if isinstance(known.get("sampled_accuracy"), float):
        known["sampled_accuracy"] = percent(known["sampled_accuracy"])
    return {name: known[key] for key, name in _FACTS.items() if key in known}


def _state(run: RunSource) -> str:
    if run.run is None:
        return f"A trained model without the record of its run; there are no curves ({run.name}/run)."
    name = f"Experiment {run.run.settings.get('general.experiment_name', '')}: " if run.settings else ""
    return f"{name}{run.run.state}; started {shown(run.run.started)}."


def charts(run: RunSource) -> Markup | None:
    """Return the curves of a run; None if nothing was logged."""
    loss, validation = run.series("loss"), run.series("validation_loss")
    noisy = len(loss) >= _NOISY
    losses = [
        Curve("as logged", loss if noisy else [], 0, "pale"),
        Curve("running mean" if noisy else "training", smoothed(loss) if noisy else loss, 0),
        Curve("validation", validation, 1, "dots"),
    ]
    drawn = [line_chart("Loss", [curve for curve in losses if curve.points], "step")]
    for metric, title in CURVES.items():
        points = run.series(metric)
        style = "dots" if len(points) < 30 else "line"
        percent = metric == "sampled_accuracy"
        drawn.append(line_chart(title, [Curve("", points, 2, style)], "step", percent=percent))
    return grid(drawn)


def environment(metadata: Mapping[str, Any]) -> Markup | None:
    """Return the rest of the metadata: versions, commit, seed, data."""
    rows = [
        (key.replace("_", " "), shown(value))
        for key, value in metadata.items()
        if key not in _FACTS and key not in _NOT_SHOWN and value is not None
    ]
    return table("Environment and provenance", ["", ""], rows) if rows else None


def run_card(run: RunSource, anchor: str) -> Markup:
    """Return the card of a run: its loss and duration."""
    known = facts(run)
    loss = next((name for name in ("validation loss", "training loss") if name in known), None)
    status = "trained" if run.run is None else run.run.status
    effort = [counted(int(known["steps"]), "step")] if isinstance(known.get("steps"), int | float) else []
    effort += [f"{shown(known['seconds'])} s"] if "seconds" in known else []
    value = "–" if loss is None else shown(known[loss])
    return card(value, loss or "run", run.name, ", ".join([status, *effort]), anchor=anchor)
