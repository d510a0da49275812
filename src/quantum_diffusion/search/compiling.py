"""Finds circuits for a unitary or state: reads the target, loads the model, searches, and writes the results.

The commands `compile` and `prepare` use it; the search itself is in `search.exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.circuits.costs import cost_of
from quantum_diffusion.circuits.files import numbered
from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.config.schema import CompileConfig, PrepareConfig, TargetSearchConfig
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, TooManyQubitsError, counted, quoted
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import model_name
from quantum_diffusion.search.choosing import READERS, Attempt, ask_in_turn, attempts_for
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.found import CompiledCircuit
from quantum_diffusion.search.hamiltonians import PauliSum
from quantum_diffusion.search.sampling import load_answering, read_edit
from quantum_diffusion.search.saving import check_save_folder, save_circuits
from quantum_diffusion.tasks.base import Task
from quantum_diffusion.tasks.energy import EnergyTask


def find_for_target(config: TargetSearchConfig, progress: Callable[[int, int], None] | None = None) -> Compilation:
    """Search for `num_circuits` distinct exact circuits for a target, with at most `max_tries` samples.

    Args:
        config: Settings of the search.
        progress: Called with (circuits sampled, `max_tries`).

    Raises:
        ConfigError: The target does not fit the model, the model takes no such targets, or a value is out of range.
        GateSetError: A gate does not fit the model or the target, or the target's circuit measures or resets.
        CheckpointError: The model cannot be loaded, or `save_folder` is in use.
    """
    check_kind(config, (CompileConfig, PrepareConfig), "config", PRESETS_HINT)
    check_save_folder(config.save_folder, f"{config.command}.save_folder")
    edit = read_edit(config.edit)
    cost = "gates" if config.objective == "energy" else config.objective
    cost_of(cost)  # refuses what is no gate

    def find(folders: Sequence[Path], limits: Mapping[str, Any]) -> Compilation:
        opened = open_model_and_target(config, folders)
        found = find_exact(
            opened.pipeline,
            opened.target,
            negative=read_negative(config, opened.pipeline, opened.target),
            gates=config.gates,
            max_gates=config.max_gates,
            num_circuits=config.num_circuits,
            seed=config.seed,
            search=config.search,
            tolerance=config.tolerance,
            objective=cost,
            options=config.model_params,
            edit=edit,
            progress=progress,
            **limits,
        )
        return replace(found, model=opened.model)

    return ask_in_turn(
        models_of(config),
        find,
        max_tries=config.max_tries,
        max_seconds=config.max_seconds,
        tolerance=config.tolerance,
    )


def models_of(config: TargetSearchConfig) -> Sequence[Attempt]:
    """Return the models that a configuration asks, in order; see `attempts_for`."""
    return attempts_for(
        config.command, config.target, config.gates, config.model_dir, tolerance=config.tolerance, seed=config.seed
    )


class Opened(NamedTuple):
    """A model and the target for it.

    Attributes:
        pipeline: The model.
        target: Complex128 [d, d] or [d].
        model: Name of the model; see `model_name`.
    """

    pipeline: DiffusionPipeline
    target: Matrix
    model: str


def open_model_and_target(config: TargetSearchConfig, folders: Sequence[Path]) -> Opened:
    """Return the first of some models that fits a configuration, with its target; see `open_for_target`.

    For objective=energy the model is `extended` by the task of energies.
    """
    extension = extension_for(config.command, config.objective, config.target)
    return open_for_target(
        config.command,
        folders,
        config.target,
        lambda folder: load_answering(config.command, folder, config.device, config.model_params.weights),
        gates=config.gates,
        max_gates=config.max_gates,
        seed=config.seed,
        extension=extension,
    )


def extension_for(command: str, objective: object, target: object) -> Callable[[], Task] | None:
    """Return what makes the task that an objective extends a model's task by; None for costs of gates.

    It is called before a model is loaded, and makes the task once the target is known to fit the model.

    Raises:
        ConfigError: The objective is the energy, but the command or the target has none.
    """
    if objective != "energy":
        return None
    given = target if isinstance(target, str) else type(target).__name__
    name, _, hamiltonian = given.partition(":")
    if command != "prepare" or name != "ground":
        raise ConfigError(
            f"{command}.objective=energy needs a Hamiltonian, but the target of {command} is {quoted(given)}: use "
            "prepare with a target such as ground:-1*ZZ-0.5*XI-0.5*IX, or another objective"
        )
    total = PauliSum.parse(hamiltonian)
    return lambda: EnergyTask(total.matrix())


def read_negative(config: TargetSearchConfig, pipeline: DiffusionPipeline, target: Matrix) -> Matrix | None:
    """Return the target that a configuration leads away from as an array; see `negative_for_target`."""
    try:
        return negative_for_target(
            config.command,
            config.negative_target,
            pipeline,
            target,
            gates=config.gates,
            max_gates=config.max_gates,
            seed=config.seed,
        )
    except QuantumDiffusionError as problem:
        raise type(problem)(f"{config.command}.negative_target={config.negative_target!r}: {problem}") from problem


def negative_for_target(
    command: str,
    negative: object,
    pipeline: DiffusionPipeline,
    target: Matrix,
    *,
    gates: Sequence[str] | None = None,
    max_gates: int | None = None,
    seed: int = 0,
) -> Matrix | None:
    """Return a target that is not wanted as an array, None where there is none.

    Args:
        command: "compile" or "prepare".
        negative: What `target_unitary` or `target_state` takes, of at most the target's qubits.
        pipeline: The model that is asked.
        target: What is wanted, of 2**q rows.
        gates: Gates of random targets; None takes the model's.
        max_gates: Gates of random targets where the target does not say; None takes the model's most.
        seed: Seed of random targets.

    Raises:
        ConfigError: It cannot be read, or has more qubits than the target.
        GateSetError: The circuit has no unitary, or makes no state.
    """
    if negative is None:
        return None
    num_qubits = len(target).bit_length() - 1
    allowed, length = gates or pipeline.gate_pool.names, max_gates or pipeline.config.max_gates
    try:
        return READERS[command](negative, num_qubits, gates=allowed, num_gates=length, seed=seed)
    except TooManyQubitsError:
        raise ConfigError(
            f"the negative target has more qubits than the target, {num_qubits}: give one of as many or fewer"
        ) from None


def open_for_target(
    command: str,
    folders: Sequence[Path],
    target: object,
    load: Callable[[Path], DiffusionPipeline],
    *,
    gates: Sequence[str] | None = None,
    max_gates: int | None = None,
    seed: int = 0,
    extension: Callable[[], Task] | None = None,
) -> Opened:
    """Return the smallest model with enough qubits for the target, and the target as an array.

    Args:
        command: "compile" or "prepare".
        folders: Folders of the models, smallest number of qubits first.
        target: A target as `target_unitary` or `target_state` takes it.
        load: Loads a model.
        gates: Gates of random targets; None uses the model's.
        max_gates: Number of gates of random targets that do not specify it; None uses the model's maximum.
        seed: Seed of random targets.
        extension: Makes the task to extend the model's by; None leaves it. See `extension_for`.

    Raises:
        ConfigError: The target cannot be read, or has more qubits than every model.
        GateSetError: The target's circuit has no unitary, or does not prepare a pure state.
    """

    def opened(folder: Path) -> Opened:
        pipeline = load(folder)
        config = pipeline.config
        allowed, length = gates or pipeline.gate_pool.names, max_gates or config.max_gates
        array = READERS[command](target, config.num_qubits, gates=allowed, num_gates=length, seed=seed)
        return Opened(pipeline if extension is None else pipeline.extended(extension()), array, model_name(folder))

    *smaller, largest = folders
    for folder in smaller:
        with suppress(TooManyQubitsError):
            return opened(folder)
    return opened(largest)


def write_compilation(result: Compilation, config: TargetSearchConfig) -> None:
    """Write circuits as `00001.qasm`, ..., a picture and a summary into the new folder `save_folder`.

    If none is exact, the best one is written as `best.qasm`.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    assert config.save_folder is not None
    files = numbered(result.circuits)
    if not files and result.best is not None:
        files = {"best.qasm": result.best}
    effort = {key: value for key, value in asdict(result).items() if key not in ("circuits", "best", "measure")}
    save_circuits(
        config.save_folder,
        {name: compiled.circuit for name, compiled in files.items()},
        asked=repr(config.target),
        titles=list(map(title, files.values())),
        rows=list(map(described, files.values())),
        summary={**effort, **asdict(result.measure), config.command: config.model_dump(mode="json")},
        language=config.format,
    )


def title(compiled: CompiledCircuit) -> str:
    """Describe a circuit's length and infidelity in one line."""
    exact = "exact" if compiled.is_exact else "not exact"
    return f"{counted(len(compiled.circuit), 'gate')}, {exact} ({compiled.words} by simulation)"


def described(compiled: CompiledCircuit) -> dict[str, Any]:
    """Return the properties of a compiled circuit as plain values."""
    return {
        "exact": compiled.is_exact,
        **compiled.figures,
        "num_gates": len(compiled.circuit),
        "gates": compiled.circuit.gate_counts,
        "source": compiled.source,
    }
