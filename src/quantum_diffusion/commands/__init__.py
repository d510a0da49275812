"""The commands of `quantum-diffusion`, collected by name in `COMMANDS`.

Each builds one object from its typed configuration, runs it, prints a summary for people and returns the same for
programs. Heavy imports are inside the functions, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from quantum_diffusion.commands.asking import find_for_target, refine, sample
from quantum_diffusion.commands.data import export_genqc, generate, inspect
from quantum_diffusion.commands.learning import evaluate, is_already_trained, report, runs, train
from quantum_diffusion.commands.models import models, pull, push, ui
from quantum_diffusion.config.schema import CompletionConfig, DoctorConfig
from quantum_diffusion.errors import duration
from quantum_diffusion.jobs import Command, Outcome


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
        print(f"error: problems with {', '.join(wrong)}; see above", file=sys.stderr)
    return Outcome(1 if wrong else 0, {"findings": [asdict(finding) for finding in findings]})


def completion(config: CompletionConfig) -> Outcome:
    """Print the script that makes a shell complete commands, keys and presets."""
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
    """Print what a command would do, its size and its estimated duration, for `--dry-run`."""
    from quantum_diffusion import console
    from quantum_diffusion.plans import plan

    planned = plan(config)
    if planned is None:
        console.out.print("the settings are valid; nothing was done")
        return Outcome(report={"dry_run": True})
    rows = list(planned.words.items())
    if planned.seconds is not None:
        rows.append(("time", f"about {duration(planned.seconds)} on this machine"))
    console.show_table("Plan", rows, "the settings are valid; nothing was done")
    return Outcome(report={"dry_run": True, "seconds": planned.seconds, **planned.values})


COMMANDS = {
    "generate": Command(
        "datasets",
        generate,
        lambda config: config.output_path,
        "datasets.output_path=./datasets/${hydra:job.num}",
        summary="Generate a data set of labelled circuits.",
    ),
    "train": Command(
        "training",
        train,
        lambda config: config.general.model_folder,
        "training.general.model_name=run_${hydra:job.num}",
        is_done=is_already_trained,
        summary="Train a model on a data set and save it.",
        example="training.general.dataset=./datasets/srv_dataset",
    ),
    "evaluate": Command(
        "evaluation",
        evaluate,
        lambda config: config.results_folder,
        "evaluation.save_folder=./evaluations/${hydra:job.num}",
        summary="Sample from a model, verify every circuit by simulation, and write figures.",
        example="evaluation.dataset=./datasets/srv_dataset evaluation.model_dir=./models/quick_test",
    ),
    "sample": Command(
        "sample",
        sample,
        lambda config: config.save_folder,
        "sample.save_folder=./circuits/${hydra:job.num}",
        summary="Find verified circuits for a Schmidt rank vector.",
        example="1,2,2",
        arguments=("sample.srv",),
    ),
    "compile": Command(
        "compile",
        find_for_target,
        lambda config: config.save_folder,
        "compile.save_folder=./circuits/${hydra:job.num}",
        summary="Find verified circuits for a unitary.",
        example="toffoli compile.max_seconds=5",
        arguments=("compile.target",),
    ),
    "prepare": Command(
        "prepare",
        find_for_target,
        lambda config: config.save_folder,
        "prepare.save_folder=./circuits/${hydra:job.num}",
        summary="Find verified circuits that prepare a state.",
        example="ghz:4",
        arguments=("prepare.target",),
    ),
    "refine": Command(
        "refine",
        refine,
        lambda config: config.save_folder,
        "refine.save_folder=./circuits/${hydra:job.num}",
        summary="Find the angles with which a given circuit implements a unitary or prepares a state.",
        example="./ansatz.qasm refine.target=xxz:3:t0.25",
        arguments=("refine.circuit",),
    ),
    "inspect": Command(
        "inspect",
        inspect,
        lambda config: config.save_folder,
        "inspect.save_folder=./inspections/${hydra:job.num}",
        summary="Summarise a data set and verify every circuit in it.",
        example="./datasets/srv_dataset",
        arguments=("inspect.dataset",),
    ),
    "runs": Command(
        "runs",
        runs,
        lambda config: config.picture,
        "runs.picture=./runs_${hydra:job.num}.png",
        summary="List and compare training runs: status, settings, curves.",
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
        summary="Export a data set in genQC's format.",
        example="./datasets/srv_dataset ./exported",
        arguments=("export.dataset", "export.output_path"),
    ),
    "models": Command(
        "models",
        models,
        lambda config: None,
        summary="List the pretrained models and your own.",
        arguments=("models.folder",),
    ),
    "ui": Command(
        "ui",
        ui,
        lambda config: None,
        summary="Serve a local web page for querying models and replaying their circuits.",
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
        "doctor", doctor, lambda config: None, summary="Check the installation, the machine and the pretrained models."
    ),
    "completion": Command(
        "completion",
        completion,
        lambda config: None,
        summary="Print a shell completion script for commands, keys and presets.",
        example="bash > ~/.local/share/bash-completion/completions/quantum-diffusion",
        arguments=("completion.shell",),
    ),
}
