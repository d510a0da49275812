"""What each command of `quantum-diffusion` does: one object built from its typed configuration, and called.

Each prints what people want to know, and returns its exit status with the same for programs. Heavy imports are inside
the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantum_diffusion.config.schema import (
    CompletionConfig,
    DatasetConfig,
    DoctorConfig,
    EvaluationConfig,
    ExportConfig,
    InspectConfig,
    ModelsConfig,
    PullConfig,
    PushConfig,
    ReportConfig,
    RunsConfig,
    SampleConfig,
    TargetSearchConfig,
    TrainingConfig,
    UiConfig,
)
from quantum_diffusion.config.validation import plain
from quantum_diffusion.errors import counted, duration
from quantum_diffusion.interrupts import INTERRUPTED
from quantum_diffusion.jobs import NOT_FOUND, Command, Outcome

if TYPE_CHECKING:
    from quantum_diffusion.search.exact import Compilation
    from quantum_diffusion.search.sampling import FoundCircuits


def generate(config: DatasetConfig) -> Outcome:
    """Make a data set of labelled circuits."""
    from quantum_diffusion import console
    from quantum_diffusion.data.generation import DatasetGenerator

    generator = DatasetGenerator(config)
    with console.progress_bar("generating", visible=True) as advance:
        report = generator.write(advance)
    console.show_generation(report, config)
    return Outcome(report={"folder": config.output_path, "exhausted": report.exhausted, **asdict(report)})


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


def evaluate(config: EvaluationConfig) -> Outcome:
    """Sample from a model, verify every circuit by simulation, and report."""
    from quantum_diffusion import console
    from quantum_diffusion.evaluation.evaluator import Evaluator
    from quantum_diffusion.evaluation.report.tables import summary_rows, verified_counts

    evaluator = Evaluator(config)
    with console.progress_bar("sampling", config.verbose) as advance:
        result = evaluator.measure(advance)
    try:
        result = evaluator.write(result)
    finally:
        if config.verbose or result.folder is None:  # what could not be written is nowhere else
            verified = [len(circuits) for circuits in result.verified.values()]
            files = "metrics.json, metrics.md, *.png" + (", circuits/*/*.qasm" if any(verified) else "")
            place = "" if result.folder is None else f";\nall results are in {result.folder}: {files}"
            footer = f"\n{verified_counts(verified, result.unit)}{place}"
            console.show_table("Evaluation", summary_rows(result.metrics), footer)
    return Outcome(report={"folder": result.folder, "metrics": result.metrics.to_dict()})


def sample(config: SampleConfig) -> Outcome:
    """Give verified circuits for a Schmidt rank vector."""
    from quantum_diffusion import console
    from quantum_diffusion.search.sampling import find_circuits, write_circuits

    with console.progress_bar("sampling", visible=True) as advance:
        found = find_circuits(config, advance)
    is_saved = config.save_folder is not None and bool(found.circuits)
    try:
        if is_saved:
            write_circuits(found, config)
    finally:  # what was found is shown, too, where it cannot be saved
        console.show_circuits(found.circuits)
        console.out.print(f"\n{found.summary}")
    _show_kept(found)
    if is_saved:
        console.out.print(_written(Path(str(config.save_folder))))
    report = {"srv": config.srv, "circuits": found.rows(), "num_sampled": found.num_sampled}
    return _complain(config, "sample", found, report)


def find_for_target(config: TargetSearchConfig) -> Outcome:
    """Give verified circuits for a unitary or a state."""
    from quantum_diffusion import console
    from quantum_diffusion.search.compiling import described, find_for_target, write_compilation

    with console.progress_bar("searching", visible=True) as advance:
        found = find_for_target(config, advance)
    shown = found.circuits or ((found.best,) if found.best else ())
    is_saved = config.save_folder is not None and bool(shown)
    try:
        if is_saved:
            write_compilation(found, config)
    finally:
        if shown:
            console.show_compilation(shown)
        nearest = "; none is, the circuit shown comes nearest" if shown and not found.circuits else ""
        wanted = f"of infidelity {config.tolerance:g} or less to" if config.tolerance else "that are exactly"
        console.out.print(
            f"\ndistinct circuits {wanted} {config.target!r}: {len(found.circuits)}{nearest} ({found.effort}; "
            f"{found.seconds:.1f} s)"
        )
    _show_kept(found)
    if is_saved:
        console.out.print(_written(Path(str(config.save_folder))))
    nearest_found = None if found.best is None else {**described(found.best), "qasm": found.best.circuit.to_qasm2()}
    report = {"target": config.target, "circuits": found.rows(), "nearest": nearest_found, "search": found.search}
    return _complain(config, config.command, found, report, found.num_too_long)


def _written(folder: Path) -> str:
    """Say what a search has written; a picture that could not be made is not there."""
    from quantum_diffusion.search.saving import PICTURE_FILE

    picture = ", a picture" if (folder / PICTURE_FILE).is_file() else ""
    return f"the circuits{picture} and a summary are in {folder}"


_MANY_ALIKE = 20
"""Exact samples of each circuit found, beyond which others are hardly to be expected."""


def _show_kept(found: FoundCircuits | Compilation) -> None:
    if found.kept:
        from quantum_diffusion import console

        console.out.print(f"the kept gates at the beginning {found.kept}")


def _complain(
    config: SampleConfig | TargetSearchConfig,
    section: str,
    found: FoundCircuits | Compilation,
    report: Mapping[str, Any],
    num_too_long: int = 0,
) -> Outcome:
    """Return the outcome of a search; when it found fewer circuits than wanted, say why and what to do."""
    from quantum_diffusion.search.exact import Compilation

    report = {**report, "num_exact": found.num_exact, "seconds": found.seconds, "save_folder": config.save_folder}
    if found.interrupted:
        print("interrupted: this is what was found until then", file=sys.stderr)
        return Outcome(INTERRUPTED, report)
    if len(found.circuits) >= config.num_circuits:
        return Outcome(report=report)
    wanted, tries = counted(config.num_circuits, "circuit"), counted(found.num_sampled, "try", "tries")
    problem = f"found {len(found.circuits)} of {wanted} in {tries}"
    mends = [f"raise {section}.{'max_seconds' if config.max_seconds else 'max_tries'}"]
    num_alike = found.num_exact - num_too_long
    if found.circuits:
        problem += f", {counted(num_alike, 'exact sample')} gave no other"
    if num_alike > _MANY_ALIKE * len(found.circuits) > 0:
        mends = []  # more tries give the same circuits again
    if num_too_long:
        problem += f", {counted(num_too_long, 'exact sample')} had more than {section}.max_gates={config.max_gates}"
        mends.insert(0, f"raise {section}.max_gates")
    if found.circuits:
        mends.append(f"lower {section}.num_circuits to {len(found.circuits)}")
    elif isinstance(found, Compilation) and found.never_exact and not found.tolerance:
        entries = "whose entries are no whole numbers over roots of two"
        problem += f", and no circuit of these gates is exactly the target, {entries}"
        mends = [f"set {section}.tolerance, e.g. to 0.01, for the nearest ones"]
    problem = f"{problem}: {' or '.join(mends)}"
    print(f"error: {problem}", file=sys.stderr)
    return Outcome(NOT_FOUND, {"error": problem, **report})


def inspect(config: InspectConfig) -> Outcome:
    """Show what is in a data set, and verify every circuit of it."""
    from quantum_diffusion import console
    from quantum_diffusion.evaluation.inspection import generation_settings, inspect_dataset
    from quantum_diffusion.evaluation.report import inspection as words
    from quantum_diffusion.interop.loading import dataset_loader

    folder = None if config.save_folder is None else Path(config.save_folder)
    if folder:
        words.check_save_folder(folder)
    dataset = dataset_loader().load_dataset(config.dataset)
    with console.progress_bar("verifying", config.verbose) as advance:
        report = inspect_dataset(dataset, advance)
    settings = generation_settings(Path(config.dataset))
    try:
        if folder:
            words.save_inspection(report, folder, {"dataset": config.dataset, "settings": settings})
    finally:
        if config.verbose:
            made_with = ", ".join(f"{key}={plain(value)}" for key, value in (settings or {}).items())
            console.show_table("Data set", words.content_rows(report), made_with and f"made with {made_with}")
            console.show_table("Prompts", words.label_rows(report))
            console.show_table("Verification", words.check_rows(report))
            console.out.print()
    if folder:
        written = [name for name in (words.REPORT_FILE, words.PICTURE_FILE) if (folder / name).exists()]
        console.out.print(f"written to {folder}: {', '.join(written)}")
    if not report.is_right:
        problem = f"{config.dataset!r}: {words.verdict(report)}: generate or copy it again"
        print(f"error: {problem}", file=sys.stderr)
        return Outcome(1, {"error": problem, "dataset": config.dataset, **report.to_dict()})
    console.out.print("every circuit is valid, its size and label are right")
    return Outcome(report={"dataset": config.dataset, **report.to_dict()})


def runs(config: RunsConfig) -> Outcome:
    """List training runs and compare them: how they stand, their settings, their curves."""
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
        console.show_table("Settings that differ (of up to 6 runs in their order)", rows or [("none", "")])
    if picture is not None:
        which = "run that has it" if drawn == 1 else f"{drawn} newest runs that have it"
        console.out.print(f"\n{config.metric} of the {which} is drawn in {picture}")
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


def export_genqc(config: ExportConfig) -> Outcome:
    """Write a data set as a folder that genQC opens."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.genqc_export import check_export, export_dataset
    from quantum_diffusion.interop.loading import dataset_loader

    path = Path(config.output_path)
    check_export(path)
    dataset = dataset_loader().load_dataset(config.dataset)
    kind = export_dataset(dataset, path)
    console.out.print(
        f"{counted(len(dataset), 'circuit')} written to {path}; open the folder in genQC with "
        f'{kind}.from_config_file("{path / "config.yaml"}", torch.device("cpu"))'
    )
    return Outcome(report={"folder": path, "num_circuits": len(dataset), "class": kind})


def models(config: ModelsConfig) -> Outcome:
    """List the models that come with the package, and those in a folder."""
    from quantum_diffusion import console
    from quantum_diffusion.cards import read_card
    from quantum_diffusion.pretrained import PREFIX, WEIGHTS, pretrained_names

    folders = {PREFIX + name: WEIGHTS / name for name in pretrained_names()}
    figures = {}
    if config.folder is not None:
        from quantum_diffusion.training.register import ModelManager

        for entry in ModelManager.from_folder(config.folder).list():
            folders[str(entry.folder)] = entry.folder
            accuracies = {key: value for key, value in entry.metrics.items() if "accuracy" in key or "exact" in key}
            figures[str(entry.folder)] = ", ".join(f"{key} {value:.3f}" for key, value in accuracies.items())
    rows: list[dict[str, Any]] = []
    for name, folder in folders.items():
        card = asdict(read_card(folder))
        rows.append({"name": name, **card, "figures": card["figures"] or figures.get(name, "")})
    for row in rows:
        console.out.print(f"\n{row['name']}" + (f"  (quantum-diffusion {row['command']})" if row["command"] else ""))
        for text in filter(None, (row["answers"], row["figures"])):
            console.out.print(f"  {text}")
    console.out.print(
        "\nsample, compile and prepare take pretrained ones where none is named; cards: docs/pretrained.md"
    )
    return Outcome(report={"models": rows})


def ui(config: UiConfig) -> Outcome:
    """Serve a page on this machine where you ask models and watch circuits being written; Ctrl-C ends it."""
    from quantum_diffusion import console
    from quantum_diffusion.ui.server import PageServer

    server = PageServer(config)
    console.out.print(f"the page is at {server.address} (Ctrl-C ends it)")
    if not server.is_private:
        console.out.print(f"anyone who reaches ui.host={config.host} can search on this machine: there is no password")
    if config.open_browser:
        server.open_browser()
    server.run()
    console.out.print(f"the page is closed, after {counted(server.num_searches, 'search', 'searches')}")
    return Outcome(report={"address": server.address, "num_searches": server.num_searches})


def push(config: PushConfig) -> Outcome:
    """Upload a model or a data set to the Hugging Face Hub."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.exchange import push_folder

    url = push_folder(config.folder, config.address, config.private)
    console.out.print(f"{config.folder} is uploaded: {url}")
    return Outcome(report={"url": url})


def pull(config: PullConfig) -> Outcome:
    """Download a model or a data set from the Hugging Face Hub."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.exchange import pull_folder

    what = pull_folder(config.address, config.kind, config.output_path)
    console.out.print(f"{config.address}: {what}, in {config.output_path}")
    return Outcome(report={"folder": config.output_path, "what": what})


def doctor(config: DoctorConfig) -> Outcome:
    """Check the installation, the machine and a shipped model."""
    from quantum_diffusion import console
    from quantum_diffusion.doctor import examine

    findings = []
    for finding in examine(config.self_test):
        findings.append(finding)
        mark = "!!" if finding.problem else "--" if finding.value.startswith("not installed") else "ok"
        console.out.print(f"{mark}  {finding.what}: {finding.value}")
        if finding.problem:
            console.out.print(f"      {finding.problem}")
    wrong = [finding.what for finding in findings if finding.problem]
    if wrong:
        print(f"error: look at {', '.join(wrong)}", file=sys.stderr)
    return Outcome(1 if wrong else 0, {"findings": [asdict(finding) for finding in findings]})


def completion(config: CompletionConfig) -> Outcome:
    """Print the script with which a shell completes commands, keys and presets."""
    from quantum_diffusion.completion import completion_script
    from quantum_diffusion.config.presets import Presets
    from quantum_diffusion.config.schema import SECTIONS
    from quantum_diffusion.config.validation import all_fields

    words = {}
    for name, command in COMMANDS.items():
        section = command.section
        keys = [f"{key}=" for key, _, _ in all_fields(SECTIONS[section], section)]
        presets = [f"{section}={preset}" for preset in Presets().names(section)]
        words[name] = [*presets, *keys, "--help", "--json", "--dry-run"]
    script = completion_script(config.shell, words)
    print(script, end="")
    return Outcome(report={"script": script})


def show_plan(config: Any) -> Outcome:
    """Say what a command would do, how large and about how long, for `--dry-run`."""
    from quantum_diffusion import console
    from quantum_diffusion.plans import plan

    planned = plan(config)
    if planned is None:
        console.out.print("the settings are right; nothing was done")
        return Outcome(report={"dry_run": True})
    rows = list(planned.words.items())
    if planned.seconds is not None:
        rows.append(("time", f"about {duration(planned.seconds)} on this machine"))
    console.show_table("It would do this", rows, "the settings are right; nothing was done")
    return Outcome(report={"dry_run": True, "seconds": planned.seconds, **planned.values})


def _is_trained(config: TrainingConfig) -> bool:
    from quantum_diffusion.training.training import is_trained

    return is_trained(config)


COMMANDS = {
    "generate": Command(
        "datasets",
        generate,
        lambda config: config.output_path,
        "datasets.output_path=./datasets/${hydra:job.num}",
        summary="Make a data set of labelled circuits.",
    ),
    "train": Command(
        "training",
        train,
        lambda config: config.general.model_folder,
        "training.general.model_name=run_${hydra:job.num}",
        is_done=_is_trained,
        summary="Train a model on a data set and save it.",
        example="training.general.dataset=./datasets/srv_dataset",
    ),
    "evaluate": Command(
        "evaluation",
        evaluate,
        lambda config: config.results_folder,
        "evaluation.save_folder=./evaluations/${hydra:job.num}",
        summary="Sample from a model, verify every circuit by simulation, and report.",
        example="evaluation.dataset=./datasets/srv_dataset evaluation.model_dir=./models/quick_test",
    ),
    "sample": Command(
        "sample",
        sample,
        lambda config: config.save_folder,
        "sample.save_folder=./circuits/${hydra:job.num}",
        summary="Give verified circuits for a Schmidt rank vector.",
        example="1,2,2",
        arguments=("sample.srv",),
    ),
    "compile": Command(
        "compile",
        find_for_target,
        lambda config: config.save_folder,
        "compile.save_folder=./circuits/${hydra:job.num}",
        summary="Give verified circuits for a unitary.",
        example="toffoli compile.max_seconds=5",
        arguments=("compile.target",),
    ),
    "prepare": Command(
        "prepare",
        find_for_target,
        lambda config: config.save_folder,
        "prepare.save_folder=./circuits/${hydra:job.num}",
        summary="Give verified circuits that make a state.",
        example="ghz:4",
        arguments=("prepare.target",),
    ),
    "inspect": Command(
        "inspect",
        inspect,
        lambda config: config.save_folder,
        "inspect.save_folder=./inspections/${hydra:job.num}",
        summary="Show what is in a data set, and verify every circuit of it.",
        example="./datasets/srv_dataset",
        arguments=("inspect.dataset",),
    ),
    "runs": Command(
        "runs",
        runs,
        lambda config: config.picture,
        "runs.picture=./runs_${hydra:job.num}.png",
        summary="List training runs and compare them: how they ended, their settings, their curves.",
        arguments=("runs.folder",),
    ),
    "report": Command(
        "report",
        report,
        lambda config: config.output_path,
        "report.output_path=./reports/${hydra:job.num}.html",
        summary="Write one HTML page about runs, evaluations and data sets: figures, curves, circuits, settings.",
        example="./models/quick_test ./datasets/srv_dataset",
        arguments=("report.sources...",),
    ),
    "export-genqc": Command(
        "export",
        export_genqc,
        lambda config: config.output_path,
        "export.output_path=./exported/${hydra:job.num}",
        summary="Write a data set as a folder that genQC opens.",
        example="./datasets/srv_dataset ./exported",
        arguments=("export.dataset", "export.output_path"),
    ),
    "models": Command(
        "models",
        models,
        lambda config: None,
        summary="List the models that come with the package, and your own.",
        arguments=("models.folder",),
    ),
    "ui": Command(
        "ui",
        ui,
        lambda config: None,
        summary="Serve a page on this machine where you ask models and watch circuits being written.",
    ),
    "push": Command(
        "push",
        push,
        lambda config: None,
        summary="Upload a model or a data set to the Hugging Face Hub.",
        example="./models/quick_test hf://owner/name",
        arguments=("push.folder", "push.address"),
    ),
    "pull": Command(
        "pull",
        pull,
        lambda config: config.output_path,
        "pull.output_path=./models/${hydra:job.num}",
        summary="Download a model or a data set from the Hugging Face Hub.",
        example="hf://owner/name ./models/name",
        arguments=("pull.address", "pull.output_path"),
    ),
    "doctor": Command(
        "doctor", doctor, lambda config: None, summary="Check the installation, the machine and a shipped model."
    ),
    "completion": Command(
        "completion",
        completion,
        lambda config: None,
        summary="Print the script with which your shell completes commands, keys and presets.",
        example="bash > ~/.local/share/bash-completion/completions/quantum-diffusion",
        arguments=("completion.shell",),
    ),
}
