"""The commands of `quantum-diffusion` (generate, train, evaluate, sample, ...), and scripts for three of them.

Each builds one object from its typed configuration and calls it. Heavy imports are inside the functions, so that
`--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from quantum_diffusion.config.schema import (
    DatasetConfig,
    EvaluationConfig,
    ExportConfig,
    InspectConfig,
    ReportConfig,
    RunsConfig,
    SampleConfig,
    TargetSearchConfig,
    TrainingConfig,
)
from quantum_diffusion.config.validation import Section
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, counted, memory_for, unknown_name
from quantum_diffusion.files import refusals_told
from quantum_diffusion.interrupts import INTERRUPTED, interrupt, stop_signals
from quantum_diffusion.jobs import MORE_MEMORY, Command, run_jobs
from quantum_diffusion.output import guard_output

if TYPE_CHECKING:
    from quantum_diffusion.search.exact import Compilation
    from quantum_diffusion.search.sampling import FoundCircuits

# ------------------------------------------------------------------------------------------------ commands


def generate(config: DatasetConfig) -> int:
    """Make a data set of labelled circuits."""
    from quantum_diffusion import console
    from quantum_diffusion.data.generation import DatasetGenerator

    generator = DatasetGenerator(config)
    with console.progress_bar("generating", visible=True) as advance:
        report = generator.write(advance)
    console.show_generation(report, config)
    return 0


def train(config: TrainingConfig) -> int:
    """Train a model on a data set and save it."""
    from quantum_diffusion import console
    from quantum_diffusion.training.training import DiffusionTrainer

    trainer = DiffusionTrainer(config, [console.TrainingBar()] if config.general.verbose else [])
    summary = trainer.run()
    if summary.status != "finished":
        console.out.print(f"interrupted: the model so far is in {summary.folder}; the same command continues training")
        return INTERRUPTED
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
    return 0


def evaluate(config: EvaluationConfig) -> int:
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
    return 0


def sample(config: SampleConfig) -> int:
    """Give verified circuits for a Schmidt rank vector."""
    from quantum_diffusion import console
    from quantum_diffusion.search.sampling import find_circuits, write_circuits

    with console.progress_bar("sampling", visible=True) as advance:
        found = find_circuits(config, advance)
    is_saved = config.save_folder is not None and bool(found.circuits)
    try:
        if is_saved:
            write_circuits(found.circuits, config)
    finally:  # what was found is shown, too, where it cannot be saved
        console.show_circuits(found.circuits)
        console.out.print(
            f"\n{counted(len(found.circuits), 'distinct circuit')} verified to have SRV {list(config.srv)} "
            f"({found.num_exact} of {found.num_sampled} samples were exact; {found.seconds:.1f} s)"
        )
    _show_kept(found)
    if is_saved:
        console.out.print(f"written as OpenQASM 2 to {config.save_folder}")
    return _complain(config, "sample", found)


def find_for_target(config: TargetSearchConfig) -> int:
    """Give verified circuits for a unitary or a state."""
    from quantum_diffusion import console
    from quantum_diffusion.search.compiling import find_for_target, write_compilation

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
        effort = f"beam search, {counted(found.num_sampled, 'beginning')} looked at"
        if found.search == "sampling":
            effort = f"{found.num_exact} of {found.num_sampled} samples were exact, {found.num_invalid} invalid"
        console.out.print(
            f"\ndistinct circuits {wanted} {config.target!r}: {len(found.circuits)}{nearest} ({effort}; "
            f"{found.seconds:.1f} s)"
        )
    _show_kept(found)
    if is_saved:
        console.out.print(f"written as OpenQASM 2, with a picture and a summary, to {config.save_folder}")
    return _complain(config, config.command, found, found.num_too_long)


_MANY_ALIKE = 20
"""Exact samples of each circuit found, beyond which others are hardly to be expected."""


def _show_kept(found: FoundCircuits | Compilation) -> None:
    if found.kept:
        from quantum_diffusion import console

        console.out.print(f"the kept gates at the beginning {found.kept}")


def _complain(
    config: SampleConfig | TargetSearchConfig, section: str, found: FoundCircuits | Compilation, num_too_long: int = 0
) -> int:
    """Return the exit status of a search; when it found fewer circuits than wanted, say why and what to do."""
    if found.interrupted:
        print("interrupted: this is what was found until then", file=sys.stderr)
        return INTERRUPTED
    if len(found.circuits) >= config.num_circuits:
        return 0
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
    print(f"error: {problem}: {' or '.join(mends)}", file=sys.stderr)
    return 1


def inspect(config: InspectConfig) -> int:
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
        print(f"error: {config.dataset!r}: {words.verdict(report)}: generate or copy it again", file=sys.stderr)
        return 1
    console.out.print("every circuit is valid, its size and label are right")
    return 0


def runs(config: RunsConfig) -> int:
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
    return 0


def report(config: ReportConfig) -> int:
    """Write one HTML page about runs, evaluations and data sets: figures, curves, circuits, settings."""
    from quantum_diffusion import console
    from quantum_diffusion.evaluation.report.page import write_report

    with console.progress_bar("verifying", visible=True) as advance:
        sources = write_report(config, advance)
    console.out.print(f"report on {sources.in_words}: {config.output_path}")
    return 0


def export_genqc(config: ExportConfig) -> int:
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
    return 0


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
        example="'sample.srv=[1,2,2]'",
    ),
    "compile": Command(
        "compile",
        find_for_target,
        lambda config: config.save_folder,
        "compile.save_folder=./circuits/${hydra:job.num}",
        summary="Give verified circuits for a unitary.",
        example="compile.target=toffoli",
    ),
    "prepare": Command(
        "prepare",
        find_for_target,
        lambda config: config.save_folder,
        "prepare.save_folder=./circuits/${hydra:job.num}",
        summary="Give verified circuits that make a state.",
        example="prepare.model_dir=./models/state prepare.target=ghz:3",
    ),
    "inspect": Command(
        "inspect",
        inspect,
        lambda config: config.save_folder,
        "inspect.save_folder=./inspections/${hydra:job.num}",
        summary="Show what is in a data set, and verify every circuit of it.",
        example="inspect.dataset=./datasets/srv_dataset",
    ),
    "runs": Command(
        "runs",
        runs,
        lambda config: config.picture,
        "runs.picture=./runs_${hydra:job.num}.png",
        summary="List training runs and compare them: how they ended, their settings, their curves.",
    ),
    "report": Command(
        "report",
        report,
        lambda config: config.output_path,
        "report.output_path=./reports/${hydra:job.num}.html",
        summary="Write one HTML page about runs, evaluations and data sets: figures, curves, circuits, settings.",
        example="'report.sources=[./models/quick_test,./datasets/srv_dataset]'",
    ),
    "export-genqc": Command(
        "export",
        export_genqc,
        lambda config: config.output_path,
        "export.output_path=./exported/${hydra:job.num}",
        summary="Write a data set as a folder that genQC opens.",
        example="export.dataset=./datasets/srv_dataset export.output_path=./exported",
    ),
}


# -------------------------------------------------------------------------------------------- entry points


def main() -> None:
    """Entry point of `quantum-diffusion`."""
    _own_process()
    name, *arguments = sys.argv[1:] or ["help"]
    if name == "help" and arguments:  # help COMMAND
        name, arguments = arguments[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif "--version" in (name, *arguments):
        import quantum_diffusion

        print(f"quantum_diffusion {quantum_diffusion.__version__}")
    elif name in COMMANDS:
        _exit(run_command(name, arguments))
    else:
        print(f"error: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def run_script(name: str) -> None:
    """Entry point of `scripts/*.py`: run one command with the script's own arguments."""
    _own_process()
    _exit(run_command(name, sys.argv[1:]))


def _own_process() -> None:
    """Set up what is this process's own to decide; a program that imports us decides for itself."""
    guard_output()
    os.environ["MPLBACKEND"] = "Agg"  # notebooks set theirs for child processes; inherited by workers
    for number in stop_signals() - {signal.SIGINT}:
        signal.signal(number, interrupt)


def _exit(status: int) -> NoReturn:
    for number in stop_signals():  # one more would make another status, and a traceback, of what is done
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 done, 1 an error that is explained, 130 interrupted."""
    command = COMMANDS[name]
    logging.captureWarnings(True)
    try:
        if "-h" in arguments or "--help" in arguments:
            print(help_text(name, arguments))
            return 0
        if command.example and not arguments:
            raise ConfigError(
                f"{name} needs {_required_keys(command)}: e.g. quantum-diffusion {name} {command.example}"
            )
        with refusals_told(), memory_for(f"running {name}", MORE_MEMORY):
            return run_jobs(command, arguments)
    except QuantumDiffusionError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        continues = ": the same command continues" if name in ("generate", "train") else ""
        print(f"interrupted{continues}", file=sys.stderr)
        return INTERRUPTED


# -------------------------------------------------------------------------------------------------- help


def usage() -> str:
    """Return the text of `quantum-diffusion --help`."""
    lines = ["usage: quantum-diffusion COMMAND [key=value ...]", "", "commands:"]
    lines += [f"  {name:13s} {command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "`quantum-diffusion COMMAND --help` lists a command's presets and keys."]
    return "\n".join(lines)


def help_text(name: str, arguments: Sequence[str] = ()) -> str:
    """Return a command's help: its presets, and every key with its values, default and meaning.

    Args:
        name: The command.
        arguments: What else is on its command line: --config-dir adds presets.
    """
    from quantum_diffusion.config.command_line import presets_of
    from quantum_diffusion.config.store import SECTIONS

    command = COMMANDS[name]
    presets = presets_of(arguments).names(command.section)
    preset = f" [{command.section}=PRESET]" if presets else ""
    lines = [f"usage: quantum-diffusion {name}{preset} [key=value ...]", "", command.summary]
    if command.example:
        lines += ["", f"example: quantum-diffusion {name} {command.example}"]
    if presets:
        lines += ["", f"presets: {', '.join(presets)}; or a file of your own, {command.section}=FILE.yaml"]
    lines += ["", "keys (values; default): meaning"]
    for key, values, default, meaning in describe_keys(SECTIONS[command.section], command.section):
        lines.append(f"  {key} ({values}; {default}): {meaning}")
    lines += ["", "Quote values with brackets or spaces: 'datasets.gate_set=[h,cx]'"]
    lines += ["-m runs a job for every combination of values given as KEY=VALUE,VALUE: docs/training.md, Sweeps"]
    return "\n".join(lines)


def _required_keys(command: Command) -> str:
    from quantum_diffusion.config.store import SECTIONS

    keys = describe_keys(SECTIONS[command.section], command.section)
    return " and ".join(key for key, _, default, _ in keys if default == _REQUIRED)


_REQUIRED = "required"


def describe_keys(schema: type[Section], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, values, default, meaning) of every key of a schema, nested sections included."""
    from quantum_diffusion.config.validation import all_fields, describe_values

    for key, field, kind in all_fields(schema, prefix):
        default = _REQUIRED if field.is_required() else plain(field.get_default(call_default_factory=True))
        meaning = [*([f"[{kind}]"] if kind else []), *(field.description or "").split()]
        yield key, describe_values(field), default, " ".join(meaning)


def plain(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return "[" + ",".join(plain(entry) for entry in value) + "]"
    return str(value)


if __name__ == "__main__":
    main()
