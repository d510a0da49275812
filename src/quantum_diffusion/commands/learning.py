"""The commands train, evaluate, runs and report."""

from __future__ import annotations

from pathlib import Path

from quantum_diffusion.config.schema import EvaluationConfig, ReportConfig, RunsConfig, TrainingConfig
from quantum_diffusion.config.validation import plain
from quantum_diffusion.interrupts import INTERRUPTED
from quantum_diffusion.jobs import Outcome


def train(config: TrainingConfig) -> Outcome:
    """Train a model on a data set and save it."""
    from quantum_diffusion import console
    from quantum_diffusion.training.training import DiffusionTrainer

    trainer = DiffusionTrainer(config, [console.TrainingBar()] if config.general.verbose else [])
    summary = trainer.run()
    if summary.status != "finished":
        console.out.print(f"interrupted: the model so far is in {summary.folder}; the same command continues training")
        return Outcome(INTERRUPTED, {"folder": summary.folder, "metadata": summary.metadata})
    if config.general.verbose:
        shown = (
            "epochs",
            "steps",
            "samples_seen",
            "seconds",
            "training_loss",
            "validation_loss",
            "num_parameters",
            "device",
        )
        rows = [(key.replace("_", " "), console.shown(summary.metadata[key])) for key in shown]
        console.show_table("Training", rows, f"model  {summary.folder}")
    return Outcome(report={"folder": summary.folder, "metadata": summary.metadata})


def is_already_trained(config: TrainingConfig) -> bool:
    """Tell whether an earlier run of the same sweep has trained the model."""
    from quantum_diffusion.training.training import is_trained

    return is_trained(config)


def evaluate(config: EvaluationConfig) -> Outcome:
    """Sample from a model, verify every circuit by simulation, and write figures."""
    from quantum_diffusion import console
    from quantum_diffusion.evaluation.evaluator import Evaluator
    from quantum_diffusion.evaluation.report.tables import summary_rows, verified_counts

    evaluator = Evaluator(config)
    with console.progress_bar("sampling", config.verbose) as advance:
        result = evaluator.measure(advance)
    try:
        result = evaluator.write(result)
    finally:
        if config.verbose or result.folder is None:  # if writing failed, this is the only copy
            verified = [len(circuits) for circuits in result.verified.values()]
            files = "metrics.json, metrics.md, *.png" + (", circuits/*/*.qasm" if any(verified) else "")
            place = "" if result.folder is None else f";\nall results are in {result.folder}: {files}"
            footer = f"\n{verified_counts(verified, result.unit)}{place}"
            console.show_table("Evaluation", summary_rows(result.metrics), footer)
    return Outcome(report={"folder": result.folder, "metrics": result.metrics.to_dict()})


def runs(config: RunsConfig) -> Outcome:
    """List and compare training runs: status, settings, curves."""
    from quantum_diffusion import console
    from quantum_diffusion.tracking.runs import check_picture, differences, find_runs, save_curves, values_of_runs

    picture = None if config.picture is None else Path(config.picture)
    if picture is not None:
        check_picture(picture)
    found = find_runs(Path(config.folder))
    drawn = 0 if picture is None else save_curves(found, config.metric, picture)
    lines = []
    for number, run in enumerate(found, start=1):
        figures = "".join(f", {name} {value:.4f}" for name, value in run.figures.items())
        lines.append((f"{number}  {run.name}", f"{run.state}, {run.started}, {run.seconds:.0f} s{figures}"))
    console.show_table("Runs", lines)
    if len(found) > 1:
        rows = [(key, values_of_runs([plain(value) for value in values])) for key, values in differences(found).items()]
        console.show_table("Settings that differ (of up to 6 runs, in order)", rows or [("none", "")])
    if picture is not None:
        which = "the one run" if drawn == 1 else f"the {drawn} newest runs"
        console.out.print(f"\n{picture} shows {config.metric} of {which} that recorded it")
    shown = ("name", "status", "started", "seconds", "step", "total_steps", "metrics", "settings")
    return Outcome(report={"runs": [{key: getattr(run, key) for key in shown} for run in found], "picture": picture})


def report(config: ReportConfig) -> Outcome:
    """Write one HTML page about runs, evaluations and data sets: figures, curves, circuits, settings."""
    from quantum_diffusion import console
    from quantum_diffusion.evaluation.report.page import write_report

    with console.progress_bar("verifying", visible=True) as advance:
        sources = write_report(config, advance)
    console.out.print(f"report on {sources.in_words}: {config.output_path}")
    return Outcome(report={"file": config.output_path, "sources": sources.in_words})
