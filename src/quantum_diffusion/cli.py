"""The commands of `quantum-diffusion` (generate, train, evaluate, sample, compile, ...), and scripts for three of them.

Each builds one object from its typed configuration and calls it. Heavy imports are inside the functions, so that
`--help` answers at once.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from quantum_diffusion.config.schema import (
    CompileConfig,
    DatasetConfig,
    EvaluationConfig,
    ExportConfig,
    InspectConfig,
    RunsConfig,
    SampleConfig,
    TrainingConfig,
)
from quantum_diffusion.config.validation import Section
from quantum_diffusion.errors import QuantumDiffusionError, counted, unknown_name
from quantum_diffusion.jobs import INTERRUPTED, Command, run_jobs

if TYPE_CHECKING:
    from quantum_diffusion.evaluation.sampling import FoundCircuits
    from quantum_diffusion.pipeline.search import Compilation

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
        result = evaluator.run(advance)
    if config.verbose:
        verified = [len(circuits) for circuits in result.verified.values()]
        files = "metrics.json, metrics.md, *.png" + (", circuits/*/*.qasm" if any(verified) else "")
        footer = f"\n{verified_counts(verified, result.unit)};\nall results are in {result.folder}: {files}"
        console.show_table("Evaluation", summary_rows(result.metrics), footer)
    return 0


def sample(config: SampleConfig) -> int:
    """Give verified circuits for a Schmidt rank vector."""
    from quantum_diffusion import console
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
    from quantum_diffusion.evaluation.sampling import find_circuits, write_circuits

    with console.progress_bar("sampling", visible=True) as advance:
        found = find_circuits(config, advance)
    backend = QiskitBackend()
    console.show_circuits(found.circuits, [backend.draw_text(circuit) for circuit in found.circuits])
    console.out.print(
        f"\n{counted(len(found.circuits), 'distinct circuit')} verified to have SRV {list(config.srv)} "
        f"({found.num_exact} of {found.num_sampled} samples were exact)"
    )
    if config.save_folder is not None and found.circuits:
        write_circuits(found.circuits, config)
        console.out.print(f"written as OpenQASM 2 to {config.save_folder}")
    return _complain(config, "sample", found)


def compile_unitary(config: CompileConfig) -> int:
    """Give verified circuits for a unitary."""
    from quantum_diffusion import console
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
    from quantum_diffusion.evaluation.compiler import compile_target, write_compilation

    with console.progress_bar("sampling", visible=True) as advance:
        found = compile_target(config, advance)
    backend = QiskitBackend()
    shown = found.circuits or ((found.best,) if found.best else ())
    if shown:
        console.show_compilation(shown, [backend.draw_text(compiled.circuit) for compiled in shown])
    nearest = "; none is, the circuit shown comes nearest" if shown and not found.circuits else ""
    console.out.print(
        f"\ndistinct circuits that are exactly {config.target!r}: {len(found.circuits)}{nearest} ({found.num_exact} of "
        f"{found.num_sampled} samples were exact, {found.num_invalid} invalid; {found.seconds:.1f} s)"
    )
    if config.save_folder is not None and shown:
        write_compilation(found, config)
        console.out.print(f"written as OpenQASM 2, with a picture and a summary, to {config.save_folder}")
    return _complain(config, "compile", found, found.num_too_long)


_MANY_ALIKE = 20
"""Exact samples of each circuit found, beyond which others are hardly to be expected."""


def _complain(
    config: SampleConfig | CompileConfig, section: str, found: FoundCircuits | Compilation, num_too_long: int = 0
) -> int:
    """Return the exit status of a search; when it found fewer circuits than wanted, say why and what to do."""
    if len(found.circuits) >= config.num_circuits:
        return 0
    wanted, tries = counted(config.num_circuits, "circuit"), counted(found.num_sampled, "try", "tries")
    problem = f"found {len(found.circuits)} of {wanted} in {tries}"
    mends = [f"raise {section}.max_tries"]
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
    if config.verbose:
        made_with = "" if settings is None else ", ".join(f"{key}={plain(value)}" for key, value in settings.items())
        console.show_table("Data set", words.content_rows(report), made_with and f"made with {made_with}")
        console.show_table("Prompts", words.label_rows(report))
        console.show_table("Verification", words.check_rows(report))
        console.out.print()
    if folder:
        words.save_inspection(report, folder, {"dataset": config.dataset, "settings": settings})
        console.out.print(f"written to {folder}: {words.REPORT_FILE}, {words.PICTURE_FILE}")
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


COMMANDS = {  # the last text is what a sweep advises, so that each of its jobs has a folder of its own
    "generate": Command(
        "datasets", generate, lambda config: config.output_path, "datasets.output_path=./datasets/${hydra:job.num}"
    ),
    "train": Command(
        "training",
        train,
        lambda config: config.general.model_folder,
        "training.general.model_name=run_${hydra:job.num}",
        is_done=_is_trained,
    ),
    "evaluate": Command(
        "evaluation",
        evaluate,
        lambda config: config.results_folder,
        "evaluation.save_folder=./evaluations/${hydra:job.num}",
    ),
    "sample": Command(
        "sample", sample, lambda config: config.save_folder, "sample.save_folder=./circuits/${hydra:job.num}"
    ),
    "compile": Command(
        "compile", compile_unitary, lambda config: config.save_folder, "compile.save_folder=./circuits/${hydra:job.num}"
    ),
    "inspect": Command(
        "inspect", inspect, lambda config: config.save_folder, "inspect.save_folder=./inspections/${hydra:job.num}"
    ),
    "runs": Command("runs", runs, lambda config: config.picture, "runs.picture=./runs_${hydra:job.num}.png"),
    "export-genqc": Command(
        "export", export_genqc, lambda config: config.output_path, "export.output_path=./exported/${hydra:job.num}"
    ),
}


# -------------------------------------------------------------------------------------------- entry points


def main() -> None:
    """Entry point of `quantum-diffusion`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0)
    if arguments[0] == "--version":
        import quantum_diffusion

        print(f"quantum_diffusion {quantum_diffusion.__version__}")
        sys.exit(0)
    if arguments[0] not in COMMANDS:
        print(f"error: {unknown_name('command', arguments[0], COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    _exit(run_command(arguments[0], arguments[1:]))


def run_script(name: str) -> None:
    """Entry point of `scripts/*.py`: run one command with the script's own arguments."""
    _exit(run_command(name, sys.argv[1:]))


def _exit(status: int) -> NoReturn:
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more Ctrl-C would make another status of it
    sys.exit(status)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 done, 1 an error that is explained, 130 interrupted."""
    command = COMMANDS[name]
    if "-h" in arguments or "--help" in arguments:
        print(help_text(name))
        return 0
    logging.captureWarnings(True)
    try:
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
    lines += [f"  {name:13s} {command.run.__doc__}" for name, command in COMMANDS.items()]
    lines += ["", "`quantum-diffusion COMMAND --help` lists a command's presets and keys."]
    return "\n".join(lines)


def help_text(name: str) -> str:
    """Return a command's help: its presets, and every key with its values, default and meaning."""
    from quantum_diffusion.config.store import SECTIONS, preset_names

    command = COMMANDS[name]
    presets = preset_names(command.section)
    preset = f" [{command.section}=PRESET]" if presets else ""
    lines = [f"usage: quantum-diffusion {name}{preset} [key=value ...]", "", str(command.run.__doc__)]
    if presets:
        lines += ["", f"presets: {', '.join(presets)}"]
    lines += ["", "keys (values; default): meaning"]
    for key, values, default, meaning in describe_keys(SECTIONS[command.section], command.section):
        lines.append(f"  {key} ({values}; {default}): {meaning}")
    lines += ["", "Quote values with brackets or spaces: 'datasets.gate_set=[h,cx]'"]
    lines += ["-m runs a job for every combination of values given as KEY=VALUE,VALUE: docs/training.md, Sweeps"]
    return "\n".join(lines)


def describe_keys(schema: type[Section], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, values, default, meaning) of every key of a schema, nested sections included."""
    from quantum_diffusion.config.validation import describe_values, nested_sections

    for name, field in schema.model_fields.items():
        sections = nested_sections(field.annotation)
        if not sections:
            default = "required" if field.is_required() else plain(field.get_default(call_default_factory=True))
            meaning = " ".join((field.description or "").split())
            yield f"{prefix}.{name}", describe_values(field), default, meaning
        for nested in sections:
            note = f"[{nested.__name__.removesuffix('Params')}] " if len(sections) > 1 else ""
            for key, values, default, meaning in describe_keys(nested, f"{prefix}.{name}"):
                yield key, values, default, note + meaning


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
