"""The plan that `--dry-run` prints: it makes the command's checks and times a small part of its work.

It writes nothing to the command's output folder.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantum_diffusion.config.schema import (
    DatasetConfig,
    EvaluationConfig,
    RefineConfig,
    SampleConfig,
    TargetSearchConfig,
    TrainingConfig,
    UiConfig,
)
from quantum_diffusion.errors import counted

_TRIAL_CIRCUITS = 20_000
_TRIAL_STEPS = 6
_TRIAL_SAMPLES = 64


@dataclass(frozen=True)
class Plan:
    """What a command would do.

    Attributes:
        words: Lines for people, by title.
        seconds: Estimated duration on this machine in seconds; None if unknown.
        values: The same information for programs.
    """

    words: Mapping[str, str]
    seconds: float | None
    values: Mapping[str, Any]


def plan(config: Any) -> Plan | None:
    """Return what the command of a configuration would do; None for commands that take no time.

    Raises:
        QuantumDiffusionError: The command would be refused; the message says why.
    """
    for kind, planned in _PLANS.items():
        if isinstance(config, kind):
            return planned(config)
    return None


def _generation(config: DatasetConfig) -> Plan:
    from quantum_diffusion.data.generation import DatasetGenerator
    from quantum_diffusion.data.storage import check_replaceable, is_dataset_folder
    from quantum_diffusion.errors import DatasetFormatError
    from quantum_diffusion.files import check_can_write

    generator, path = DatasetGenerator(config), Path(config.output_path)
    if not is_dataset_folder(path):
        check_replaceable(path)
    check_can_write(path, DatasetFormatError)
    size, seconds = 0.0, 0.0
    for part in generator.parts:
        few = part.model_copy(update={"num_samples": min(part.num_samples, _TRIAL_CIRCUITS), "n_jobs": 1})
        started = time.perf_counter()
        dataset, _ = DatasetGenerator(few).generate()
        share = part.num_samples / max(len(dataset), 1)
        workers = min((os.cpu_count() or 1) if part.n_jobs < 0 else part.n_jobs, max(1, round(share)))
        seconds += (time.perf_counter() - started) * share / workers
        size += sum(array.nbytes for array in dataset.arrays) * share
    number = config.num_samples * len(generator.parts)
    words = {
        "circuits": f"{number:,}",
        "size": f"about {size / 1e6:,.0f} MB",
        "folder": f"{path}" + (" (already holds a data set)" if is_dataset_folder(path) else ""),
    }
    return Plan(words, seconds, {"num_circuits": number, "bytes": int(size), "folder": str(path)})


def _training(config: TrainingConfig) -> Plan:
    from quantum_diffusion.pipeline.fit import total_steps
    from quantum_diffusion.training.training import DiffusionTrainer

    DiffusionTrainer(config)  # checks the output folder
    with tempfile.TemporaryDirectory(prefix="quantum-diffusion-") as folder:
        general = {"output_path": folder, "model_name": None, "verbose": False, "loggers": ("csv",), "resume": "never"}
        trial = config.model_copy(
            update={
                "general": config.general.model_copy(update=general),
                "training": config.training.model_copy(update={"max_steps": _TRIAL_STEPS, "sample_every": None}),
            }
        )
        trainer = DiffusionTrainer(trial)
        pipeline = trainer.setup_model()
        trainer.compile_model()
        loader = trainer.training_batches
        steps = total_steps(config.training, loader)
        started = time.perf_counter()
        trainer.train()
        seconds = (time.perf_counter() - started) / _TRIAL_STEPS * steps
    values = {
        "num_parameters": pipeline.num_parameters,
        "steps": steps,
        "batch_size": config.training.batch_size,
        "device": str(trainer.device),
        "folder": str(config.general.model_folder),
    }
    words = {
        "model": f"{pipeline.num_parameters:,} parameters, {4 * pipeline.num_parameters / 1e6:.0f} MB",
        "steps": f"{steps:,} of {config.training.batch_size} circuits, on {trainer.device}",
        "folder": str(config.general.model_folder),
    }
    return Plan(words, seconds, values)


def _evaluation(config: EvaluationConfig) -> Plan:
    from quantum_diffusion.evaluation.evaluator import Evaluator
    from quantum_diffusion.tasks.targets import TargetTask

    evaluator = Evaluator(config)
    for_targets = isinstance(evaluator.pipeline.task, TargetTask)
    number = config.num_targets * config.samples_per_target if for_targets else config.num_samples
    few = config.model_copy(
        update={"num_samples": _TRIAL_SAMPLES, "num_targets": 2, "samples_per_target": _TRIAL_SAMPLES // 2}
    )
    evaluator.config = few
    started = time.perf_counter()
    evaluator.measure()
    seconds = (time.perf_counter() - started) * number / _TRIAL_SAMPLES
    folder = str(config.results_folder)
    words = {"samples": f"{number:,}, each simulated", "folder": folder}
    return Plan(words, seconds, {"num_samples": number, "folder": folder})


def _sampling(config: SampleConfig) -> Plan:
    from quantum_diffusion.search.sampling import open_model_of, srv_request

    pipeline = open_model_of(config)
    srv_request(pipeline, config.srv, config.negative_srv)  # refuses what is impossible
    return _search(config, f"{list(config.srv)}", pipeline.gate_pool.names, pipeline.config.max_gates)


def _target_search(config: TargetSearchConfig) -> Plan:
    from quantum_diffusion.search.compiling import models_of, open_model_and_target, read_negative

    first, *others = models_of(config)
    pipeline, target, _ = open_model_and_target(config, first.folders)
    read_negative(config, pipeline, target)  # refuses what is none
    qubits = len(target).bit_length() - 1
    asked = f"{config.target}, {counted(qubits, 'qubit')}"
    plan = _search(config, asked, config.gates or pipeline.gate_pool.names, pipeline.config.max_gates)
    if not others:
        return plan
    return replace(plan, words={**plan.words, "otherwise": "gates with angles, if these do not make the target"})


def _refinement(config: RefineConfig) -> Plan:
    from quantum_diffusion.search.angles import check_refinement

    circuit = check_refinement(config)
    angles = sum(len(step.angles) for step in circuit.instructions)
    sizes = counted(circuit.num_qubits, "qubit"), counted(len(circuit), "gate"), counted(angles, "angle")
    words = {
        "circuit": ", ".join(sizes),
        "asked": str(config.target or config.state or config.energy),
        "budget": f"{counted(config.starts, 'start')}, usually a few seconds",
        "folder": config.save_folder or "none: the circuit is only printed",
    }
    return Plan(words, None, {"gates": len(circuit), "angles": angles, "folder": config.save_folder})


def _search(config: SampleConfig | TargetSearchConfig, asked: str, gates: Any, most: int) -> Plan:
    from quantum_diffusion.circuits.costs import cost_of

    if config.objective != "energy":
        cost_of(config.objective)  # refuses what is no gate
    tries = f"up to {counted(config.max_tries, 'try', 'tries')}, usually a few seconds"
    words = {
        "asked": asked,
        "gates": f"{', '.join(gates)}, at most {config.max_gates or most} of them",
        "budget": tries if config.max_seconds is None else f"{config.max_seconds:g} s",
        "folder": config.save_folder or "none: circuits are only printed",
    }
    values = {"gates": list(gates), "max_gates": config.max_gates or most, "folder": config.save_folder}
    return Plan(words, config.max_seconds, values)


def _page(config: UiConfig) -> Plan:
    from quantum_diffusion.ui.models import Settings, offered
    from quantum_diffusion.ui.server import PageServer

    names = list(offered(Settings(folder=config.folder)))
    server = PageServer(config)  # checks that the port is free
    server.close()
    address = server.address if config.port else f"a free port of {config.host}"
    words = {"page": address, "models": ", ".join(names), "budget": f"{config.max_seconds:g} s a search, one at a time"}
    return Plan(words, None, {"address": address, "models": names})


_PLANS: dict[type, Callable[[Any], Plan]] = {
    DatasetConfig: _generation,
    TrainingConfig: _training,
    EvaluationConfig: _evaluation,
    SampleConfig: _sampling,
    TargetSearchConfig: _target_search,
    RefineConfig: _refinement,
    UiConfig: _page,
}
