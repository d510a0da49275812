"""Searches for circuits with a given Schmidt rank vector, by sampling until enough distinct ones are verified.

The command `sample` uses it. Only circuits verified by simulation are returned, with the number of samples it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import PRESETS_HINT, check_count, check_kind, check_wholes
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import cost_of
from quantum_diffusion.circuits.files import numbered
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.prompts import parse_srv_prompt, srv_prompt
from quantum_diffusion.circuits.tokenizer import DecodeReport, ids_from_circuits
from quantum_diffusion.config.schema import EditConfig, SampleConfig, SamplingConfig, SearchObjective
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, counted, memory_for, quoted_path
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit, plan_edit
from quantum_diffusion.pretrained import model_folders
from quantum_diffusion.search.budget import Budget, outcome_of_kept, sample_batches
from quantum_diffusion.search.files import read_circuit
from quantum_diffusion.search.reach import check_srv_reach
from quantum_diffusion.search.results import CircuitTable
from quantum_diffusion.search.saving import check_save_folder, save_circuits
from quantum_diffusion.tasks.base import Task
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.samples import Requests, SampledCircuits


@dataclass(frozen=True, repr=False)
class FoundCircuits(CircuitTable):
    """The result of a search for circuits with a Schmidt rank vector.

    Attributes:
        srv: The vector.
        circuits: Distinct verified circuits, cheapest first.
        num_sampled: Number of circuits sampled.
        num_exact: Number of samples with the requested Schmidt rank vector.
        seconds: Duration of the search in seconds.
        kept: Result of the fixed gates at the start, in words; None if there are none.
        interrupted: Whether the search was interrupted, so that these are the circuits until then.
    """

    srv: tuple[int, ...]
    circuits: list[Circuit]
    num_sampled: int
    num_exact: int
    seconds: float = field(default=0.0, compare=False)
    kept: str | None = None
    interrupted: bool = False

    @property
    def found(self) -> Sequence[Circuit]:
        """The circuits."""
        return self.circuits

    def figures(self, row: int) -> Mapping[str, Any]:
        """Return the vector; see `CircuitTable.figures`."""
        return {"srv": list(self.srv)}

    @property
    def summary(self) -> str:
        """The result in one line."""
        return (
            f"{counted(len(self.circuits), 'distinct circuit')} verified to have SRV {list(self.srv)} "
            f"({self.num_exact} of {self.num_sampled} samples were exact; {self.seconds:.1f} s)"
        )


@memory_for("searching for circuits", "close other programs, or use a computer with more memory")
def find_circuits(config: SampleConfig, progress: Callable[[int, int], None] | None = None) -> FoundCircuits:
    """Sample until `num_circuits` distinct circuits are verified or `max_tries` samples are used up.

    With `max_seconds` it samples until then, to find cheaper ones. Ctrl-C ends the search and returns what was found.

    Args:
        config: Settings of the search.
        progress: Called with (circuits sampled, `max_tries`).

    Raises:
        ConfigError: The vector is out of reach, or does not fit the model, or an option is invalid.
        GateSetError: The circuit to edit has unknown gates.
        CheckpointError: The model cannot be loaded, or `save_folder` is in use.
    """
    check_kind(config, SampleConfig, "config", PRESETS_HINT)
    check_save_folder(config.save_folder, "sample.save_folder")
    edit = read_edit(config.edit)
    cost_of(config.objective)  # refuses what is no gate
    pipeline = open_model_of(config)
    return find_entangling(
        pipeline,
        config.srv,
        negative_srv=config.negative_srv,
        num_circuits=config.num_circuits,
        max_gates=config.max_gates,
        max_tries=config.max_tries,
        max_seconds=config.max_seconds,
        objective=config.objective,
        simplify=config.simplify,
        seed=config.seed,
        options=config.model_params,
        edit=edit,
        progress=progress,
    )


@memory_for("searching for circuits", "close other programs, or use a computer with more memory")
def find_entangling(
    pipeline: DiffusionPipeline,
    srv: Sequence[int],
    *,
    negative_srv: Sequence[int] | None = None,
    num_circuits: int = 4,
    max_gates: int | None = None,
    max_tries: int = 1024,
    max_seconds: float | None = None,
    objective: SearchObjective = "gates",
    simplify: bool = True,
    seed: int = 0,
    options: SamplingConfig | None = None,
    edit: Edit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FoundCircuits:
    """Sample until enough distinct circuits have exactly a Schmidt rank vector.

    Args:
        pipeline: A model for Schmidt rank vectors.
        srv: The vector, 1 (separable) or 2 (entangled) for each qubit.
        negative_srv: Vector that guidance leads away from, with as many qubits; None leads away from none.
        num_circuits: Number of distinct circuits to find.
        max_gates: Maximum number of gates; None uses the model's limit.
        max_tries: Maximum number of circuits to sample, without `max_seconds`.
        max_seconds: Duration of the search, which looks for cheaper circuits until then; None ends it when enough are
            found.
        objective: The cost to minimize; see `cost_of`.
        simplify: Whether to simplify circuits and verify them again in that form. With kept gates or a minimum number
            of gates, circuits are never simplified.
        seed: Seed of the samples.
        options: Sampling options; None uses the model's defaults.
        edit: Constraints on the circuits; None means no constraints.
        progress: Called with (circuits sampled, `max_tries`).

    Raises:
        ConfigError: The vector is out of reach, the model is for another task, or an option or edit does not fit it.
    """
    if check_kind(pipeline, DiffusionPipeline, "pipeline", "load_pipeline reads one").task.command != "sample":
        raise ConfigError(
            f"this model takes {pipeline.task.asked}, not Schmidt rank vectors: use `quantum-diffusion "
            f"{pipeline.task.command}`, or another model"
        )
    check_count(num_circuits, "num_circuits", 1)
    check_count(max_tries, "max_tries", 1)
    check_count(seed, "seed")
    options = SamplingConfig() if options is None else check_kind(options, SamplingConfig, "options")
    edit = Edit() if edit is None else check_kind(edit, Edit, "edit")
    edit = edit if max_gates is None else replace(edit, max_gates=check_count(max_gates, "max_gates", 1))
    request = srv_request(pipeline, srv, negative_srv)
    srv = parse_srv_prompt(request.prompts[0], pipeline.config.num_qubits)
    check_srv_reach(srv, edit, pipeline.table, pipeline.config.max_gates)
    may_simplify = simplify and not (edit.keep or edit.min_gates)
    kept = outcome_of_kept(pipeline, request, plan_edit(edit, pipeline.table, pipeline.config.max_gates))
    started, cost = time.perf_counter(), cost_of(objective)
    budget = Budget.from_now(num_circuits, max_tries, max_seconds)
    found: dict[Circuit, None] = {}
    sampled = exact = 0
    interrupted = True
    with suppress(KeyboardInterrupt):
        for samples in sample_batches(pipeline, request, options, edit, seed, budget, found):
            matches = samples.matches.nonzero()[0]
            found |= dict.fromkeys(
                _simplified(pipeline.task, request, samples, matches) if may_simplify else samples.circuits(matches)
            )
            sampled, exact = sampled + len(samples), exact + len(matches)
            if progress:
                progress(min(sampled, max_tries), max_tries)
            if budget.is_spent(found):
                break
        interrupted = False
    cheapest = sorted(found, key=lambda circuit: (cost(circuit), len(circuit)))[:num_circuits]
    return FoundCircuits(srv, cheapest, sampled, exact, time.perf_counter() - started, kept, interrupted)


def srv_request(pipeline: DiffusionPipeline, srv: Sequence[int], negative_srv: Sequence[int] | None = None) -> Requests:
    """Return the request for a circuit with a Schmidt rank vector; arguments as for `find_entangling`.

    Raises:
        ConfigError: A vector is impossible, or the model was not trained on it.
    """
    srv = check_wholes(srv, "srv", "[1, 2, 2]")
    for rank in srv:
        if rank not in (1, 2):
            raise ConfigError(f"srv is {list(srv)}: a qubit has rank 1 (separable) or 2 (entangled), given {rank}")
    prompt = srv_prompt(list(srv))
    parse_srv_prompt(prompt, pipeline.config.num_qubits)
    if prompt not in pipeline.config.prompts:
        raise ConfigError(_unknown_vector(srv, pipeline.config.prompts))
    unwanted = None if negative_srv is None else [_negative_prompt(pipeline, srv, negative_srv)]
    return pipeline.requests([prompt], negative_prompts=unwanted)


def _unknown_vector(srv: Sequence[int], prompts: Sequence[str]) -> str:
    """Word the refusal of a vector that the model was not trained on."""
    sizes = sorted({prompt.count(",") + 1 for prompt in prompts})
    is_range = len(sizes) > 1 and sizes[-1] - sizes[0] == len(sizes) - 1
    qubits = f"{sizes[0]} to {sizes[-1]} qubits" if is_range else f"{' or '.join(map(str, sizes))} qubits"
    if len(srv) not in sizes:
        given = counted(len(srv), "qubit")
        return f"sample.srv={list(srv)} has {given}, but this model takes {qubits}: give as many ranks"
    known = counted(len(prompts), "vector")
    return (
        f"sample.srv={list(srv)} is not one of the {known} this model was trained on: give one of those, or train on it"
    )


def _negative_prompt(pipeline: DiffusionPipeline, srv: tuple[int, ...], negative_srv: Sequence[int]) -> str:
    """Return the prompt of a vector that is not wanted.

    Raises:
        ConfigError: It is the one that is wanted, or none that the model knows of so many qubits.
    """
    negative = check_wholes(negative_srv, "negative_srv", "[1, 1, 1]")
    prompt = srv_prompt(list(negative))
    if negative == srv:
        raise ConfigError(f"sample.negative_srv={list(negative)} equals sample.srv: give another vector")
    example = [1] * len(srv) if 2 in srv else [2] * len(srv)
    if len(negative) != len(srv):
        raise ConfigError(
            f"sample.negative_srv={list(negative)} has {counted(len(negative), 'entry', 'entries')}, but sample.srv "
            f"has {len(srv)}: give one of {len(srv)}, e.g. {example}"
        )
    if prompt not in pipeline.config.prompts:
        raise ConfigError(
            f"sample.negative_srv={list(negative)} is not a vector that the model was trained on: give one that is, "
            f"e.g. {example}"
        )
    return prompt


def _simplified(task: Task, request: Requests, samples: SampledCircuits, rows: NDArray[np.intp]) -> list[Circuit]:
    """Simplify exact samples and return those that are verified again in that form.

    Uses the requested number of qubits, not the model's: the tables for more qubits take seconds to make.
    """
    circuits = samples.circuits(rows)
    table = instruction_table(samples.gate_pool, int(request.num_qubits[0]))
    ids = ids_from_circuits(circuits, table, max(map(len, circuits), default=0))
    ids = normal_form(task.simplify(ids, table), table)
    report = DecodeReport(ids, np.ones(len(ids), dtype=np.bool_), ("valid",) * len(ids))
    verified = task.verify(task.requests(request.prompts * len(ids), None, table), report, table)
    return verified.circuits(verified.matches.nonzero()[0])


def open_model_of(config: SampleConfig) -> DiffusionPipeline:
    """Load the model of a configuration.

    Raises:
        CheckpointError, ConfigError: See `load_answering`.
    """
    (folder,) = model_folders(config.model_dir, "sample")
    return load_answering("sample", folder, config.device, config.model_params.weights)


def load_answering(command: str, folder: Path, device: str, weights: str = "averaged") -> DiffusionPipeline:
    """Load a model for a command, and refuse one for another command.

    Args:
        command: `Task.command` of the required task, e.g. "sample" or "compile".
        folder: Folder of the model.
        device: See `select_device`.
        weights: Which of its weights to load; see `load_pipeline`.

    Raises:
        CheckpointError: The model cannot be loaded.
        ConfigError: The model is for another command, or the device does not exist.
    """
    pipeline = load_pipeline(folder, select_device(device), weights)
    if pipeline.task.command != command:
        wanted = next(task.name for task in TASKS.values() if task.command == command)
        raise ConfigError(
            f"this model takes {pipeline.task.asked}: use `quantum-diffusion {pipeline.task.command}`, or train on a "
            f"data set with datasets.condition_type={wanted}"
        )
    return pipeline


def read_edit(config: EditConfig) -> Edit:
    """Return the edit of a configuration, including the circuit it starts from.

    Raises:
        ConfigError: The circuit's file cannot be read, or nothing of the circuit is kept.
        GateSetError: The circuit has unknown gates.
    """
    start = None
    if config.start is not None:
        try:
            start = QiskitBackend().from_native(read_circuit(Path(config.start)))
        except QuantumDiffusionError as problem:
            raise type(problem)(f"edit.start={quoted_path(config.start)}: {problem}") from problem
        if not config.keep and config.strength == 1:
            raise ConfigError(
                f"edit.start={quoted_path(config.start)} has no effect, as nothing of it is kept: set edit.keep to the "
                "gates to keep, e.g. [0,1], or edit.strength to the fraction of the circuit to redo"
            )
    return Edit(start=start, **config.model_dump(exclude={"start"}))


def write_circuits(found: FoundCircuits, config: SampleConfig) -> None:
    """Write circuits as `00001.qasm`, ..., a picture and a summary into the new folder `save_folder`.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    assert config.save_folder is not None
    save_circuits(
        config.save_folder,
        numbered(found.circuits),
        asked=srv_prompt(list(config.srv)),
        titles=[f"{counted(len(circuit), 'gate')}, verified by simulation" for circuit in found],
        rows=[{key: value for key, value in row.items() if key != "qasm"} for row in found.rows()],
        summary={
            "num_sampled": found.num_sampled,
            "num_exact": found.num_exact,
            "seconds": found.seconds,
            "kept": found.kept,
            "interrupted": found.interrupted,
            "sample": config.model_dump(mode="json"),
        },
        language=config.format,
    )
