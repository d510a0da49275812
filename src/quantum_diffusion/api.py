"""The Python face, `import quantum_diffusion as qd`: load a model and ask it, make data, train, evaluate.

Each function does what the command of its name does, with the same defaults. What it returns prints well, and shows
itself in a notebook.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from quantum_diffusion.arguments import (
    check_count,
    check_kind,
    check_list,
    check_path,
    check_texts,
    check_wholes,
    shown,
)
from quantum_diffusion.config.command_line import written
from quantum_diffusion.config.schema import (
    DatasetConfig,
    EvaluationConfig,
    SamplingConfig,
    SearchMethod,
    SearchObjective,
    TrainingConfig,
)
from quantum_diffusion.config.store import compose
from quantum_diffusion.config.validation import Section, validate
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import ConfigError, unknown_name
from quantum_diffusion.evaluation.evaluator import Evaluator
from quantum_diffusion.evaluation.srv_evaluation import EvaluationResult
from quantum_diffusion.evaluation.target_evaluation import TargetResult
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.pretrained import WEIGHTS, model_folder, model_folders
from quantum_diffusion.search.compiling import negative_for_target, open_for_target
from quantum_diffusion.search.exact import Compilation, find_exact
from quantum_diffusion.search.sampling import FoundCircuits, find_entangling
from quantum_diffusion.training.training import DiffusionTrainer

SectionT = TypeVar("SectionT", bound=Section)


class SamplingOptions(TypedDict, total=False):
    """How a model samples, as the keys `model_params.*` of the commands; docs/configuration.md says what each does."""

    guidance_scale: float | None
    guidance_growth: float | None
    guidance_mode: str | None
    sample_steps: int | None
    scheduler: str | None
    temperature: float | None
    top_p: float | None
    order: str | None
    auto_batch_size: int
    n_jobs: int
    engine: str


class SearchOptions(SamplingOptions, total=False):
    """What every search may be told, beside how a model samples.

    Attributes:
        num: Distinct circuits wanted (4 of `sample`, 1 of the others); there may be fewer.
        max_gates: Most gates, of targets counted once simplified; None is the model's own limit.
        max_tries: Most samples, or beginnings that a beam keeps of one length (1024), where there is no `max_seconds`.
        max_seconds: Time for the search, which goes on for cheaper circuits until then; None ends it when there are
            enough.
        objective: What circuits are to have few of: "gates", "two_qubit_gates", "t_count", "depth", or several with
            weights, {"gates": 1, "t_count": 10}.
        coupling: Pairs of qubits that gates may join; None allows all.
        edit: What else may not be chosen freely (`Edit`): gates that stay, qubits that no gate may touch.
        seed: Seed of the search, and of random targets; None draws one.
        progress: Called with (tries spent, most tries).
    """

    num: int
    max_gates: int | None
    max_tries: int
    max_seconds: float | None
    objective: SearchObjective
    coupling: Sequence[tuple[int, int]] | None
    edit: Edit | None
    seed: int | None
    progress: Callable[[int, int], None] | None


class SampleOptions(SearchOptions, total=False):
    """What `sample` may be told, beside `SearchOptions`.

    Attributes:
        negative_srv: Vector that guidance leads away from; None leads away from none in particular.
        simplify: Whether to simplify circuits (True).
    """

    negative_srv: Sequence[int] | None
    simplify: bool


class TargetOptions(SearchOptions, total=False):
    """What `compile` and `prepare` may be told, beside `SearchOptions`.

    Attributes:
        negative: Target that guidance leads away from, given like the target; it takes a `guidance_scale` other than 1.
        gates: Gates that circuits may use; None allows all of the model's.
        tolerance: Infidelity up to which a circuit counts; 0 wants it exact (below 1e-6).
        search: "beam", "sampling", or "auto", which takes a beam where it can.
    """

    negative: object
    gates: Sequence[str] | None
    tolerance: float
    search: SearchMethod


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model, ready to be asked; `load` opens one, `train` makes one.

    Attributes:
        pipeline: The model itself, for everything that is not asked here.
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
        """Return verified circuits that entangle exactly some qubits.

        Args:
            srv: The Schmidt rank vector: 2 for each qubit that is to be entangled with others, else 1.
            **wanted: See `SampleOptions`.

        Raises:
            ConfigError: The vector, an option or an edit is not for this model; the message says what is.
        """
        self._check("sample")
        return find_entangling(self.pipeline, srv, **_arguments(wanted, SampleOptions))

    def compile(self, target: object, **wanted: Unpack[TargetOptions]) -> Compilation:
        """Return verified circuits of a unitary, up to a global phase.

        Args:
            target: A matrix complex [d, d] with d = 2**q, qubit 0 the lowest bit of the basis index; a `Circuit` or a
                Qiskit `QuantumCircuit`; the path of a `.npy` or `.qasm` file; or a name such as "toffoli" or "qft:2"
                (see `target_unitary`).
            **wanted: See `TargetOptions`.

        Raises:
            ConfigError, GateSetError: The target, a gate or an option is not for this model.
        """
        self._check("compile")
        return _find("compile", [Path(self.name)], lambda _: self.pipeline, target, wanted)

    def prepare(self, target: object, **wanted: Unpack[TargetOptions]) -> Compilation:
        """Return verified circuits that make a state of |0...0>, up to a global phase.

        Args:
            target: A vector complex [d]; a circuit that makes it; the path of a `.npy` or `.qasm` file; or a name such
                as "ghz:4" or "w:3" (see `target_state`).
            **wanted: See `TargetOptions`.

        Raises:
            ConfigError, GateSetError: The target, a gate or an option is not for this model.
        """
        self._check("prepare")
        return _find("prepare", [Path(self.name)], lambda _: self.pipeline, target, wanted)

    def _check(self, command: str) -> None:
        task = self.pipeline.task
        if task.command != command:
            raise ConfigError(
                f"{self.name!r} answers {task.asked}: ask it with .{task.command}(), or load another model"
            )


# ------------------------------------------------------------------------------------------ models and answers


def load(model: str | os.PathLike[str], *, device: str = "auto", weights: str = "averaged") -> Model:
    """Open a trained model.

    Args:
        model: A folder, `pretrained:NAME`, or `hf://owner/name`; `quantum-diffusion models` lists the pretrained ones.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".
        weights: "averaged", or "last" for those behind the average.

    Raises:
        ConfigError: There is no such pretrained model, or no such device or weights.
        CheckpointError: The model cannot be loaded.
    """
    return Model(_opened(model_folder(check_path(model, "the model")), device, weights), os.fspath(model))


def sample(srv: Sequence[int], *, device: str = "auto", **wanted: Unpack[SampleOptions]) -> FoundCircuits:
    """Return verified circuits of a Schmidt rank vector, by the model that comes with the package.

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
    """Return verified circuits of a unitary of up to five qubits, by the models that come with the package.

    Args:
        target: See `Model.compile`.
        device: See `load`.
        **wanted: See `TargetOptions`.

    Example:
        >>> compile("ccz", gates=["h", "ccx"])[0].gate_counts
        {'h': 2, 'ccx': 1}
    """
    return _find("compile", model_folders(None, "compile"), lambda folder: _opened(folder, device), target, wanted)


def prepare(target: object, *, device: str = "auto", **wanted: Unpack[TargetOptions]) -> Compilation:
    """Return verified circuits that make a state of up to five qubits, by the model that comes with the package.

    Args:
        target: See `Model.prepare`.
        device: See `load`.
        **wanted: See `TargetOptions`.

    Example:
        >>> prepare("ghz:3")[0].gate_counts
        {'h': 1, 'cx': 2}
    """
    return _find("prepare", model_folders(None, "prepare"), lambda folder: _opened(folder, device), target, wanted)


def _find(
    command: str,
    folders: Sequence[Path],
    load: Callable[[Path], DiffusionPipeline],
    target: object,
    wanted: TargetOptions,
) -> Compilation:
    """Search for a target by the first of several models that has its qubits."""
    given = _arguments(wanted, TargetOptions)
    of_random = {name: given.get(name) for name in ("gates", "max_gates")}
    pipeline, array = open_for_target(command, folders, target, load, seed=given["seed"], **of_random)
    negative = negative_for_target(
        command, given.pop("negative", None), pipeline, array, seed=given["seed"], **of_random
    )
    return find_exact(pipeline, array, negative=negative, **given)


def _opened(folder: Path, device: str, weights: str = "averaged") -> DiffusionPipeline:
    """Open a model; those that come with the package, which never change, only once."""
    return (_kept if folder.parent == WEIGHTS else load_pipeline)(folder, select_device(device), weights)


_kept = lru_cache(maxsize=8)(load_pipeline)


def _arguments(wanted: Mapping[str, Any], known: type) -> dict[str, Any]:
    """Turn what a caller wants into the arguments of a search.

    Raises:
        ConfigError: A name is not known, or the value of one is wrong.
    """
    names = known.__annotations__
    for name in wanted:
        if name not in names:
            raise ConfigError(unknown_name("option", name, names))
    sampling = SamplingOptions.__annotations__
    given = {name: value for name, value in wanted.items() if name not in sampling}
    given["options"] = validate(SamplingConfig, {k: v for k, v in wanted.items() if k in sampling}, "options")
    seed, coupling = given.get("seed"), given.pop("coupling", None)
    given["seed"] = secrets.randbits(31) if seed is None else check_count(seed, "seed")
    if coupling is not None:
        example = "[(0, 1), (1, 2)]"
        pairs = tuple(check_wholes(pair, "coupling", example) for pair in check_list(coupling, "coupling", example))
        given["edit"] = replace(given.get("edit") or Edit(), coupling=pairs)
    if given.get("gates") is not None:
        given["gates"] = check_texts(given["gates"], "gates", '["h", "cx"]')
    if given.get("progress") is not None and not callable(given["progress"]):
        raise ConfigError(f"progress is {shown(given['progress'])}: give a function of (tries spent, most tries)")
    if "simplify" in given:
        check_kind(given["simplify"], bool, "simplify")
    if "num" in given:
        given["num_circuits"] = given.pop("num")
    return given


# ---------------------------------------------------------------------------------------- data, training, evaluation


def generate(
    preset: str = "default", *, output_path: str | os.PathLike[str] | None = None, **settings: Any
) -> CircuitDataset:
    """Make a data set of labelled circuits.

    Args:
        preset: A preset of `conf/datasets`, or the path of a YAML file.
        output_path: Where to write it; None makes it in memory alone.
        **settings: Other keys of `datasets.*`: gate_set, num_qubits, num_samples, ...

    Raises:
        ConfigError: A setting is wrong.
        DatasetFormatError: The data set cannot be written, or there is another one.
    """
    place = {} if output_path is None else {"output_path": check_path(output_path, "output_path")}
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
    """Train a model, save it, and return it; an interrupted training is continued by the same call.

    Args:
        dataset: Folder of a data set, `hf://owner/name`, or `stream:PRESET`.
        preset: A preset of `conf/training`, or the path of a YAML file.
        output_path: Where to write the model; None takes the preset's.
        settings: Other keys of `training.*`, without that word: {"training.num_epochs": 2, "model.params.width": 128}.

    Raises:
        ConfigError: A setting is wrong.
        QuantumDiffusionError: The data set cannot be read, or the model not be written; the message says why.
        KeyboardInterrupt: Training was interrupted; what it has reached is kept.
    """
    places: dict[str, Any] = {"general.verbose": False, "general.dataset": _address(dataset, "the data set")}
    if output_path is not None:
        places["general.output_path"] = check_path(output_path, "output_path")
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
    """Sample from a model, verify every circuit by simulation, write figures and pictures, and return them.

    Args:
        model: A folder, `pretrained:NAME`, or `hf://owner/name`.
        dataset: Folder of the data set that it was trained on, or of targets.
        preset: A preset of `conf/evaluation`, or the path of a YAML file.
        save_folder: Where results go; None writes to `evaluation` inside the model's folder.
        settings: Other keys of `evaluation.*`, without that word: {"num_samples": 100}.

    Raises:
        QuantumDiffusionError: A setting is wrong, the model or the data set cannot be read, or they do not fit.
    """
    places: dict[str, Any] = {
        "verbose": False,
        "model_dir": _address(model, "the model"),
        "dataset": _address(dataset, "the data set"),
    }
    if save_folder is not None:
        places["save_folder"] = check_path(save_folder, "save_folder")
    return Evaluator(_composed("evaluation", EvaluationConfig, preset, {**places, **_settings(settings)})).run()


def _address(value: object, name: str) -> str:
    """Return a folder, or an address such as `stream:PRESET`, as text."""
    check_path(value, name)
    return os.fspath(value)  # type: ignore[call-overload,no-any-return]


def _settings(settings: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if settings is None else check_kind(settings, dict, "settings", 'e.g. {"training.num_epochs": 2}')


def _composed(name: str, schema: type[SectionT], preset: str, settings: Mapping[str, Any]) -> SectionT:
    """Return a configuration of a preset and of settings, by their dotted keys."""
    return compose(name, schema, [f"{name}={preset}", *(f"{name}.{key}={written(v)}" for key, v in settings.items())])
