"""Finds circuits for a unitary or state: reads the target, loads the model, searches, and writes the results.

The commands `compile` and `prepare` use it; the search itself is in `search.exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.circuits.files import numbered
from quantum_diffusion.circuits.gates import Matrix, have_angles
from quantum_diffusion.circuits.invariants import may_be_exact
from quantum_diffusion.config.schema import CompileConfig, PrepareConfig, TargetSearchConfig
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, TooManyQubitsError, counted, quoted
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import QUBITS_WITH_ANGLES, model_folders
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.found import CompiledCircuit
from quantum_diffusion.search.hamiltonians import PauliSum
from quantum_diffusion.search.sampling import load_answering, read_edit
from quantum_diffusion.search.saving import check_save_folder, save_circuits
from quantum_diffusion.search.states import target_state
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.tasks.base import Task
from quantum_diffusion.tasks.energy import EnergyTask
from quantum_diffusion.tasks.state import StateTask
from quantum_diffusion.tasks.targets import TargetTask
from quantum_diffusion.tasks.unitary import UnitaryTask

READERS: dict[str, Callable[..., Matrix]] = {"compile": target_unitary, "prepare": target_state}
"""The function that reads the target of each command."""

_TASKS: dict[str, TargetTask] = {task.command: task for task in (UnitaryTask(), StateTask())}

_WITHOUT_ANGLES = ("h", "cx", "z", "x", "ccx", "swap")
"""The gates of the pretrained compilers without angles."""

_MOST_GATES = 20
"""Maximum number of gates of their circuits."""


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
    pipeline, target = open_model_and_target(config)
    cost = "gates" if config.objective == "energy" else config.objective
    return find_exact(
        pipeline,
        target,
        negative=read_negative(config, pipeline, target),
        gates=config.gates,
        max_gates=config.max_gates,
        max_tries=config.max_tries,
        num_circuits=config.num_circuits,
        seed=config.seed,
        search=config.search,
        max_seconds=config.max_seconds,
        tolerance=config.tolerance,
        objective=cost,
        options=config.model_params,
        edit=edit,
        progress=progress,
    )


def open_model_and_target(config: TargetSearchConfig) -> tuple[DiffusionPipeline, Matrix]:
    """Return the model of a configuration, and the target as an array; see `open_for_target`.

    For objective=energy the model is `extended` by the task of energies.
    """
    extension = extension_for(config.command, config.objective, config.target)
    return open_for_target(
        config.command,
        models_for(
            config.command, config.target, config.gates, config.model_dir, tolerance=config.tolerance, seed=config.seed
        ),
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


def models_for(
    command: str,
    target: object,
    gates: Sequence[str] | None,
    model: str | None = None,
    *,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Sequence[Path]:
    """Return the folders of the models that may answer, those with fewer qubits first.

    Pretrained models are those of gates with angles if the gates asked for include some, or if none are asked for and
    the others provably cannot make the target.

    Args:
        command: "compile" or "prepare".
        target: See `open_for_target`.
        gates: The gates asked for; None asks for none in particular.
        model: See `model_folder`; None takes the pretrained models.
        tolerance: Accepted infidelity: with one, gates without angles may be enough.
        seed: Seed of random targets.
    """
    with_angles = have_angles(gates)
    if gates is None and model is None and not tolerance:
        with suppress(QuantumDiffusionError):  # told when the model is known
            array = READERS[command](target, QUBITS_WITH_ANGLES[command], gates=_WITHOUT_ANGLES, seed=seed)
            task = _TASKS[command]
            unreachable = task.broken_invariants(array, _WITHOUT_ANGLES)
            with_angles = bool(unreachable) or not may_be_exact(array, _WITHOUT_ANGLES, _MOST_GATES)
    return model_folders(model, command, with_angles)


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
) -> tuple[DiffusionPipeline, Matrix]:
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

    def opened(folder: Path) -> tuple[DiffusionPipeline, Matrix]:
        pipeline = load(folder)
        config = pipeline.config
        allowed, length = gates or pipeline.gate_pool.names, max_gates or config.max_gates
        array = READERS[command](target, config.num_qubits, gates=allowed, num_gates=length, seed=seed)
        return pipeline if extension is None else pipeline.extended(extension()), array

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
    }
