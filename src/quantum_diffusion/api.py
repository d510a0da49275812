"""The Python API, `import quantum_diffusion as qd`: load a model and query it, generate data, train, evaluate.

Each function does what the command of the same name does, with the same defaults. Results print readably and have a
rich display in notebooks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Unpack

from quantum_diffusion.arguments import (
    check_kind,
    check_path,
)
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.config.command_line import written
from quantum_diffusion.config.schema import (
    DatasetConfig,
    EvaluationConfig,
    TrainingConfig,
)
from quantum_diffusion.config.store import compose
from quantum_diffusion.config.validation import Section
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.evaluation.evaluator import Evaluator
from quantum_diffusion.evaluation.srv_evaluation import EvaluationResult
from quantum_diffusion.evaluation.target_evaluation import TargetResult
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.options import SampleOptions, TargetOptions, search_arguments
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import WEIGHTS, model_folder
from quantum_diffusion.python_names import named_as_in_python
from quantum_diffusion.search.angles import LowestEnergy, minimize_energy, refine_angles
from quantum_diffusion.search.choosing import Attempt, ask_in_turn, attempts_for
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.compiling import extension_for, negative_for_target, open_for_target
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.sampling import FoundCircuits, find_entangling
from quantum_diffusion.training.training import DiffusionTrainer

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model; `load` opens one, `train` makes one.

    Attributes:
        pipeline: The underlying pipeline, for everything these methods do not cover.
        name: Its address, for display.
    """

    pipeline: DiffusionPipeline
    name: str = "model"

    def __repr__(self) -> str:
        config = self.pipeline.config
        gates = ", ".join(self.pipeline.gate_pool.names)
        return (
            f"<Model {self.name!r}: .{self.pipeline.task.command}() answers {self.pipeline.task.asked} of up to "
            f"{config.num_qubits} qubits with at most {config.max_gates} gates of {gates}>"
        )

    def sample(self, srv: Sequence[int], **wanted: Unpack[SampleOptions]) -> FoundCircuits:
        """Return verified circuits whose state has a given Schmidt rank vector.

        Args:
            srv: The Schmidt rank vector, one entry per qubit: 2 (entangled with the others) or 1 (separable).
            **wanted: See `SampleOptions`.

        Raises:
            ConfigError: The vector, an option or an edit does not suit this model; the message says what does.
        """
        self._check("sample")
        with named_as_in_python("sample"):
            return find_entangling(self.pipeline, srv, **search_arguments(wanted, SampleOptions))

    def compile(self, target: object, **wanted: Unpack[TargetOptions]) -> Compilation:
        """Return verified circuits that implement a unitary up to a global phase.

        Args:
            target: A matrix, complex [d, d] with d = 2**q, where qubit 0 is the lowest bit of the basis index; a
                `Circuit` or a Qiskit `QuantumCircuit`; the path of a `.npy` or `.qasm` file; or a name such as
                "toffoli" or "qft:2" (see `target_unitary`).
            **wanted: See `TargetOptions`.

        Raises:
            ConfigError, GateSetError: The target, a gate or an option does not suit this model.
        """
        self._check("compile")
        return _find("compile", Path(self.name), lambda _: self.pipeline, target, wanted)

    def prepare(self, target: object, **wanted: Unpack[TargetOptions]) -> Compilation:
        """Return verified circuits that prepare a state from |0...0>, up to a global phase.

        Args:
            target: A vector, complex [d] with d = 2**q; a circuit that prepares it; the path of a `.npy` or `.qasm`
                file; or a name such as "ghz:4" or "w:3" (see `target_state`).
            **wanted: See `TargetOptions`.

        Raises:
            ConfigError, GateSetError: The target, a gate or an option does not suit this model.
        """
        self._check("prepare")
        return _find("prepare", Path(self.name), lambda _: self.pipeline, target, wanted)

    def _check(self, command: str) -> None:
        task = self.pipeline.task
        if task.command != command:
            raise ConfigError(
                f"{self.name!r} answers {task.asked}: ask it with .{task.command}(), or load another model"
            )


# ------------------------------------------------------------------------------------------ models and circuits


def load(model: str | os.PathLike[str], *, device: str = "auto", weights: str = "averaged") -> Model:
    """Open a trained model.

    Args:
        model: A folder, `pretrained:NAME`, or `hf://owner/name`; `quantum-diffusion models` lists the pretrained ones.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".
        weights: "averaged", or "last" for the weights at the end of training.

    Raises:
        ConfigError: The pretrained model, the device or the weights do not exist.
        CheckpointError: The model cannot be loaded.
    """
    return Model(_opened(model_folder(check_path(model, "the model")), device, weights), os.fspath(model))


def sample(srv: Sequence[int], *, device: str = "auto", **wanted: Unpack[SampleOptions]) -> FoundCircuits:
    """Return verified circuits with a Schmidt rank vector, using the model that comes with the package.

    Args:
        srv: See `Model.sample`.
        device: See `load`.
        **wanted: See `SampleOptions`.

    Example:
        >>> for circuit in sample([1, 2, 2], num=2, seed=0):
        ...     print(circuit.gate_counts)
        {'h': 1, 'cx': 1}
        {'h': 2, 'cx': 1}
    """
    return load("pretrained:srv", device=device).sample(srv, **wanted)


def compile(target: object, *, device: str = "auto", **wanted: Unpack[TargetOptions]) -> Compilation:
    """Return verified circuits for a unitary of up to five qubits, using the models that come with the package.

    Args:
        target: See `Model.compile`.
        device: See `load`.
        **wanted: See `TargetOptions`.

    Example:
        >>> compile("ccz", gates=["h", "ccx"])[0].gate_counts
        {'h': 2, 'ccx': 1}
    """
    return _find("compile", None, lambda folder: _opened(folder, device), target, wanted)


def prepare(target: object, *, device: str = "auto", **wanted: Unpack[TargetOptions]) -> Compilation:
    """Return verified circuits that prepare a state of up to five qubits, using the models that come with the package.

    Args:
        target: See `Model.prepare`.
        device: See `load`.
        **wanted: See `TargetOptions`.

    Example:
        >>> prepare("ghz:3")[0].gate_counts
        {'h': 1, 'cx': 2}
    """
    return _find("prepare", None, lambda folder: _opened(folder, device), target, wanted)


def refine(
    circuit: Circuit,
    target: object = None,
    *,
    state: object = None,
    energy: str | None = None,
    starts: int = 32,
    tolerance: float = 0.0,
    shorten: bool = False,
    round_angles: bool = True,
    seed: int = 0,
    device: str = "auto",
) -> Compilation | LowestEnergy:
    """Find the angles with which a circuit implements a unitary or prepares a state, up to a global phase.

    Or those with which its state has the lowest energy.

    Args:
        circuit: The circuit; its gates stay, unless `shorten`, and the search starts from its angles.
        target: The unitary; see `Model.compile`. Give this, `state` or `energy`.
        state: The state; see `Model.prepare`.
        energy: The Hamiltonian whose energy is minimised, a sum of Pauli operators such as "0.5*XXI-0.3*IZZ", the last
            letter for qubit 0; `shorten`, `round_angles` and `device` have no effect then.
        starts: Number of searches; all but the first start from random angles.
        tolerance: Accepted infidelity; 0 requires an infidelity below 1e-10. For an energy, how far it may be above the
            lowest possible, as a share of the range of all energies.
        shorten: Whether to delete gates that the target can do without.
        round_angles: Whether to round angles to multiples of pi, pi/2, ..., pi/16 where the others make up for it.
        seed: Seed of the random angles.
        device: See `load`; angles are computed in 64 bits.

    Returns:
        The best circuit, as its only circuit if it is good enough, and as `best`; with `energy`, the circuit and its
        energy.

    Raises:
        ConfigError: The circuit has no angles, the target does not fit it, or not one of them is given.

    Example:
        >>> ansatz = Circuit.from_qasm('include "qelib1.inc"; qreg q[1]; rz(1) q[0]; rx(1) q[0]; rz(1) q[0];')
        >>> refine(ansatz, "qft:1")[0].gate_counts
        {'rz': 2, 'rx': 1}
    """
    with named_as_in_python("refine"):
        if energy is not None:
            if target is not None or state is not None:
                raise ConfigError("give one of target, state and energy")
            return minimize_energy(circuit, energy, starts=starts, tolerance=tolerance, seed=seed)
        return refine_angles(
            circuit,
            target,
            state,
            starts=starts,
            tolerance=tolerance,
            shorten=shorten,
            round_angles=round_angles,
            seed=seed,
            device=device,
        )


def _find(
    command: str,
    model: Path | None,
    load: Callable[[Path], DiffusionPipeline],
    target: object,
    wanted: TargetOptions,
) -> Compilation:
    """Search with a model, or with None, with those that come with the package."""
    with named_as_in_python(command):
        given = search_arguments(wanted, TargetOptions)
        seed, tolerance = given["seed"], given.get("tolerance", 0.0)
        of_random = {name: given.get(name) for name in ("gates", "max_gates")}
        extension = extension_for(command, given.get("objective"), target)
        if extension is not None:
            given["objective"] = "gates"
        unwanted = given.pop("negative", None)
        max_tries, max_seconds = given.pop("max_tries", 1024), given.pop("max_seconds", None)

        def find(folders: Sequence[Path], limits: Mapping[str, Any]) -> Compilation:
            pipeline, array, name = open_for_target(
                command, folders, target, load, seed=seed, extension=extension, **of_random
            )
            negative = negative_for_target(command, unwanted, pipeline, array, seed=seed, **of_random)
            return replace(find_exact(pipeline, array, negative=negative, **given, **limits), model=name)

        attempts: Sequence[Attempt]
        if model is None:
            attempts = attempts_for(command, target, given.get("gates"), tolerance=tolerance, seed=seed)
        else:
            attempts = [Attempt([model])]
        return ask_in_turn(attempts, find, max_tries=max_tries, max_seconds=max_seconds, tolerance=tolerance)


def _opened(folder: Path, device: str, weights: str = "averaged") -> DiffusionPipeline:
    """Open a model; those that come with the package never change and are opened only once."""
    return (_kept if folder.parent == WEIGHTS else load_pipeline)(folder, select_device(device), weights)


_kept = lru_cache(maxsize=8)(load_pipeline)


# ---------------------------------------------------------------------------------------- data, training, evaluation


def generate(
    preset: str = "default", *, output_path: str | os.PathLike[str] | None = None, **settings: Any
) -> CircuitDataset:
    """Generate a data set of labelled circuits.

    Args:
        preset: A preset of `conf/datasets`, or the path of a YAML file.
        output_path: Folder to write to; None keeps the data set in memory only.
        **settings: Other keys of `datasets.*`: gate_set, num_qubits, num_samples, ...

    Raises:
        ConfigError: A setting is wrong.
        DatasetFormatError: The data set cannot be written, or the folder holds another one.
    """
    place = {} if output_path is None else {"output_path": check_path(output_path, "output_path")}
    with named_as_in_python("datasets"):
        config = _composed("datasets", DatasetConfig, preset, settings | place)
        generator = DatasetGenerator(config)
    if output_path is None:
        if len(generator.parts) > 1:
            raise ConfigError("condition_type=BOTH makes two data sets: give an output_path, or generate one of them")
        return generator.generate()[0]
    generator.write()
    return dataset_loader().load_dataset(config.output_path)


def train(
    dataset: str | os.PathLike[str],
    preset: str = "default",
    *,
    output_path: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Train a model, save it, and return it; the same call continues an interrupted run.

    Args:
        dataset: Folder of a data set, `hf://owner/name`, or `stream:PRESET`.
        preset: A preset of `conf/training`, or the path of a YAML file.
        output_path: Folder to write the model to; None uses the preset's.
        settings: Other keys of `training.*`, without that prefix: {"training.num_epochs": 2, "model.type": "policy"}.

    Raises:
        ConfigError: A setting is wrong.
        QuantumDiffusionError: The data set cannot be read or the model cannot be written; the message says why.
        KeyboardInterrupt: Training was interrupted; its progress is saved.
    """
    places: dict[str, Any] = {"general.verbose": False, "general.dataset": _address(dataset, "the data set")}
    if output_path is not None:
        places["general.output_path"] = check_path(output_path, "output_path")
    with named_as_in_python("training"):
        config = _composed("training", TrainingConfig, preset, {**places, **_settings(settings)})
        summary = DiffusionTrainer(config).run()
    if summary.status != "finished":
        raise KeyboardInterrupt
    return load(summary.folder, device=config.general.device)


def evaluate(
    model: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    preset: str = "default",
    *,
    save_folder: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> EvaluationResult | TargetResult:
    """Sample from a model, verify every circuit by simulation, and write and return the results.

    Args:
        model: A folder, `pretrained:NAME`, or `hf://owner/name`.
        dataset: Folder of the data set it was trained on, or of a data set of targets.
        preset: A preset of `conf/evaluation`, or the path of a YAML file.
        save_folder: Folder for the results; None writes to `evaluation` inside the model's folder.
        settings: Other keys of `evaluation.*`, without that prefix: {"num_samples": 100}.

    Raises:
        QuantumDiffusionError: A setting is wrong, or the model or the data set cannot be read or do not match.
    """
    places: dict[str, Any] = {
        "verbose": False,
        "model_dir": _address(model, "the model"),
        "dataset": _address(dataset, "the data set"),
    }
    if save_folder is not None:
        places["save_folder"] = check_path(save_folder, "save_folder")
    with named_as_in_python("evaluation"):
        return Evaluator(_composed("evaluation", EvaluationConfig, preset, {**places, **_settings(settings)})).run()


def _address(value: object, name: str) -> str:
    """Return a folder or an address such as `stream:PRESET` as text."""
    check_path(value, name)
    return os.fspath(value)  # type: ignore[call-overload,no-any-return]


def _settings(settings: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if settings is None else check_kind(settings, dict, "settings", 'e.g. {"training.num_epochs": 2}')


def _composed(name: str, schema: type[SectionT], preset: str, settings: Mapping[str, Any]) -> SectionT:
    """Return the configuration of a preset, changed by settings with dotted keys."""
    return compose(name, schema, [f"{name}={preset}", *(f"{name}.{key}={written(v)}" for key, v in settings.items())])
