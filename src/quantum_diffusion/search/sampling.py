"""Verified circuits on demand: sample until enough distinct ones have exactly the Schmidt rank vector asked for.

Only circuits that simulation confirms are returned; how many samples that took is reported with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.circuits import files
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import cost_of
from quantum_diffusion.circuits.prompts import parse_srv_prompt, srv_prompt
from quantum_diffusion.config.schema import EditConfig, SampleConfig, SamplingConfig
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import CheckpointError, ConfigError, QuantumDiffusionError, counted, memory_for
from quantum_diffusion.files import new_folder
from quantum_diffusion.folders import check_nothing_lost
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit, plan_edit
from quantum_diffusion.pretrained import model_folder
from quantum_diffusion.search.budget import Budget, outcome_of_kept, sample_batches
from quantum_diffusion.search.files import read_circuit
from quantum_diffusion.search.reach import check_srv_reach
from quantum_diffusion.tasks.registry import TASKS


@dataclass(frozen=True)
class FoundCircuits:
    """What a search gave.

    Attributes:
        circuits: Distinct verified circuits, cheapest first.
        num_sampled: Circuits sampled.
        num_exact: Samples that had the Schmidt rank vector asked for.
        seconds: Duration of the search.
        kept: What the kept gates at the beginning do, in words; None where none are.
        interrupted: Whether it was interrupted, and these are the circuits until then.
    """

    circuits: list[Circuit]
    num_sampled: int
    num_exact: int
    seconds: float = field(default=0.0, compare=False)
    kept: str | None = None
    interrupted: bool = False


@memory_for("looking for circuits", "end other programs, or use a computer with more memory")
def find_circuits(config: SampleConfig, progress: Callable[[int, int], None] | None = None) -> FoundCircuits:
    """Sample until `num_circuits` distinct circuits are verified or `max_tries` samples are spent.

    With `max_seconds` it samples until then, for cheaper ones. Ctrl-C ends the search with what it has found so far.

    Args:
        config: What to look for.
        progress: Called with (circuits sampled, `max_tries`).

    Raises:
        ConfigError: The vector cannot be reached, or the model or a sampling option is not for it.
        GateSetError: The circuit to edit has gates that are unknown here.
        CheckpointError: The model cannot be loaded, or `save_folder` is in use.
    """
    check_kind(config, SampleConfig, "config", PRESETS_HINT)
    check_save_folder(config.save_folder, "sample.save_folder")
    edit = read_edit(config.edit, config.max_gates)
    pipeline = load_answering("sample", model_folder(config.model_dir, "sample"), config.device, config.model_params)
    prompt = srv_prompt(list(config.srv))
    parse_srv_prompt(prompt, pipeline.config.num_qubits)
    if prompt not in pipeline.config.prompts:
        known = {len(known.split(",")) for known in pipeline.config.prompts}
        raise ConfigError(
            f"sample.srv={list(config.srv)} was not among the {counted(len(pipeline.config.prompts), 'prompt')} of "
            f"training (circuits of {', '.join(map(str, sorted(known)))} qubits): ask for one of those, or train on it"
        )
    check_srv_reach(config.srv, edit, pipeline.table, pipeline.config.max_gates)
    request = pipeline.requests([prompt])
    kept = outcome_of_kept(pipeline, request, plan_edit(edit, pipeline.table, pipeline.config.max_gates))
    started, cost = time.perf_counter(), cost_of(config.objective)
    budget = Budget.from_now(config.num_circuits, config.max_tries, config.max_seconds)
    found: dict[Circuit, None] = {}
    sampled = exact = 0
    interrupted = True
    with suppress(KeyboardInterrupt):
        for samples in sample_batches(pipeline, request, config.model_params, edit, config.seed, budget, found):
            found |= dict.fromkeys(samples.circuits(samples.matches.nonzero()[0]))
            sampled, exact = sampled + len(samples), exact + int(samples.matches.sum())
            if progress:
                progress(min(sampled, config.max_tries), config.max_tries)
            if budget.is_spent(found):
                break
        interrupted = False
    cheapest = sorted(found, key=lambda circuit: (cost(circuit), len(circuit)))[: config.num_circuits]
    return FoundCircuits(cheapest, sampled, exact, time.perf_counter() - started, kept, interrupted)


def load_answering(command: str, folder: Path, device: str, options: SamplingConfig) -> DiffusionPipeline:
    """Load a model for a command, and refuse one that is asked for something else.

    Args:
        command: `sample`, `compile` or another that a task names.
        folder: Where it lies.
        device: See `select_device`.
        options: Which of its weights.

    Raises:
        CheckpointError: The model cannot be loaded.
        ConfigError: It answers another command, or the device is not there.
    """
    pipeline = load_pipeline(folder, select_device(device), options.weights)
    if pipeline.task.command != command:
        wanted = next(task.name for task in TASKS.values() if task.command == command)
        raise ConfigError(
            f"this model answers {pipeline.task.asked}: use `quantum-diffusion {pipeline.task.command}`, or train on a "
            f"data set of datasets.condition_type={wanted}"
        )
    return pipeline


def read_edit(config: EditConfig, max_gates: int | None = None) -> Edit:
    """Build an edit from a configuration, and read the circuit it starts from.

    Args:
        config: The edit.
        max_gates: Most gates; None is the model's own limit.

    Raises:
        ConfigError: The file cannot be read.
        GateSetError: It is no program of gates that are known here.
    """
    start = None
    if config.start is not None:
        try:
            start = QiskitBackend().from_native(read_circuit(Path(config.start)))
        except QuantumDiffusionError as problem:
            raise type(problem)(f"edit.start={config.start!r}: {problem}") from problem
        if not config.keep and config.strength == 1:
            raise ConfigError(
                f"edit.start={config.start!r} is given, but nothing of it is kept: give the gates that stay as "
                "edit.keep, e.g. [0,1], or the share of the others that is redone as edit.strength"
            )
    return Edit(start=start, max_gates=max_gates, **config.model_dump(exclude={"start"}))


def check_save_folder(folder: str | None, key: str) -> None:
    """Refuse a folder that exists or cannot be written, before the work is done.

    Args:
        folder: Folder to be created; None writes nothing.
        key: Where the user set it.

    Raises:
        CheckpointError: Nothing can be written there.
    """
    if folder is not None:
        check_nothing_lost(folder, CheckpointError, f"exists: choose another {key}", written=Path(folder))


def write_circuits(circuits: Sequence[Circuit], config: SampleConfig) -> None:
    """Write circuits as `00001.qasm`, ... into the new folder `save_folder`.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    assert config.save_folder is not None
    with new_folder(Path(config.save_folder), CheckpointError) as staging:
        files.write_circuits(staging, files.numbered(circuits), srv_prompt(list(config.srv)))
