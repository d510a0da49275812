"""A training run from its configuration to a saved model.

`DiffusionTrainer` owns the order of things: everything that can be wrong is checked before anything heavy starts.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

import quantum_diffusion
from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.circuits.simulate import Complex, corners
from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig, UnitaryEncoderConfig
from quantum_diffusion.config.store import dataset_preset, to_yaml
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.stream import CircuitStream, stream_fingerprint
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import (
    CheckpointError,
    ConfigError,
    IncompatibleDatasetsError,
    TeamError,
    memory_for,
    only_warn,
)
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.interrupts import answered, stop_signals
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.augmentation import check_augmentation
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline, make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import FitResult, low_precision, total_steps
from quantum_diffusion.pipeline.hooks import Hooks
from quantum_diffusion.pipeline.samples import SampledCircuits
from quantum_diffusion.pipeline.state import TrainingState, average_weights, using_network
from quantum_diffusion.pipeline.team import join_team
from quantum_diffusion.tracking.experiment import ExperimentLogger
from quantum_diffusion.tracking.plots import save_loss_curve
from quantum_diffusion.tracking.profiling import profiler
from quantum_diffusion.tracking.sinks import check_sinks, sqlite_uri
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers
from quantum_diffusion.training.register import ModelEntry, ModelManager
from quantum_diffusion.training.run_folder import RunFolder, first_difference, model_settings

__all__ = ["DiffusionTrainer", "ModelEntry", "ModelManager", "TrainingSummary", "is_trained"]

logger = logging.getLogger(__name__)

STREAM = "stream:"
"""Begins a `general.dataset` that is made while training."""

TRACE_FILE, LOSS_CURVE = "trace.json", "loss_curve.png"


@dataclass(frozen=True)
class TrainingSummary:
    """How a run went.

    Attributes:
        folder: Where the model is.
        status: "finished" or "interrupted".
        metadata: What `metadata.yaml` holds.
    """

    folder: Path
    status: str
    metadata: dict[str, Any]


def is_trained(config: TrainingConfig) -> bool:
    """Tell whether a finished model of these settings and these circuits is where it should go.

    Raises:
        ConfigError, DatasetFormatError: The circuits cannot be found or read.
    """
    general = config.general
    folder = general.model_folder
    if general.overwrite or not checkpoint.is_finished_model(folder):
        return False
    if model_settings(_trained_with(folder)) != model_settings(config.model_dump(mode="json")):
        return False
    if general.dataset.startswith(STREAM):
        fingerprint = stream_fingerprint(_stream_config(config), general.seed)
    else:
        fingerprint = dataset_loader().load_dataset(general.dataset).fingerprint
    return bool(checkpoint.read_metadata(folder).get("dataset_sha256") == fingerprint)


def _trained_with(folder: Path) -> Any:
    """Return the values of a model's training configuration; None where they cannot be read."""
    try:
        return yaml.safe_load((folder / checkpoint.TRAINING_CONFIG).read_text(encoding="utf-8"))
    except Exception:  # PyYAML lets many kinds escape
        return None


def _stream_config(config: TrainingConfig) -> DatasetConfig:
    """Return what an epoch of the stream is made of, within the limits of the run."""
    preset, loop = dataset_preset(config.general.dataset.removeprefix(STREAM)), config.training
    limits = {
        "num_samples": min(preset.num_samples, loop.max_samples or preset.num_samples),
        "balance_max": loop.balance_max or preset.balance_max,
    }
    return preset.model_copy(update=limits)


_while_building = memory_for(
    "building the model",
    "lower training.model.params (width and depth, or model_features), or use a computer with more memory",
)


class DiffusionTrainer:
    """Trains the model a configuration describes.

    `run()` does everything; the steps it is made of can be called one by one, in the order setup_model,
    compile_model, train, save_model.

    Args:
        config: The run.
        observers: Told of steps and epochs, e.g. a progress bar.

    Raises:
        ConfigError: The device is not there, or the package of a logger is not installed.
        CheckpointError: The output folder holds a finished model and may not be overwritten, or an interrupted run
            of another configuration.
    """

    def __init__(self, config: TrainingConfig, observers: Sequence[FitObserver] = ()) -> None:
        self.config = check_kind(config, TrainingConfig, "config", PRESETS_HINT)
        self.observers = list(observers)
        self.output = RunFolder(config)
        check_sinks(config.general.loggers)
        self.device = select_device(config.general.device)
        if config.training.precision == "16" and self.device.type != "cuda":
            raise ConfigError(
                f"training.training.precision=16 is for CUDA, but the device is {self.device}: use bf16, 32 or auto"
            )
        self._team, self.device = join_team(self.device)
        if not self._team.is_first:
            self.observers = []
        if config.training.num_threads is not None:
            torch.set_num_threads(min(config.training.num_threads, os.cpu_count() or 1))
        self._loader = dataset_loader(config.general.seed)
        self._dataset: CircuitDataset | None = None
        self._stream: CircuitStream | None = None
        self._dataset_fingerprint = ""
        self._pipeline: DiffusionPipeline | None = None
        self._state: TrainingState | None = None
        self._loaders: tuple[BatchLoader, BatchLoader | None] | None = None

    # --------------------------------------------------------------------------------------------- steps

    def run(self) -> TrainingSummary:
        """Load the data, build the model, train it and save it."""
        with self._team.together():
            self.setup_model()
            with self._output_to_ourselves():
                self.compile_model()
                with _interrupts_set(threading.Event()):  # none gets between training and saving
                    return self.save_model(self.train())

    def setup_model(self, dataset: CircuitDataset | None = None) -> DiffusionPipeline:
        """Load the data set and build the pipeline for it.

        Args:
            dataset: The circuits; None loads `general.dataset`.

        Raises:
            DatasetFormatError, IncompatibleDatasetsError: The data set cannot be used.
            CheckpointError: `general.init_from_pipeline_dir` does not fit the data set or the configuration.
        """
        general, loop = self.config.general, self.config.training
        if dataset is not None:
            check_kind(dataset, CircuitDataset, "dataset", "DatasetLoader.load_dataset reads one")
        if dataset is None and general.dataset.startswith(STREAM):
            self._stream = self._open_stream(general.dataset.removeprefix(STREAM))
            self._dataset = self._stream.epoch(0)
            self._dataset_fingerprint = self._stream.fingerprint
        else:
            loaded = dataset if dataset is not None else self._loader.load_dataset(general.dataset)
            self._dataset_fingerprint = loaded.fingerprint
            self._dataset = self._loader.combine_datasets([loaded], loop.balance_max, loop.max_samples)
        if self._dataset.unitaries is not None and loop.prefix_head_weight > 0:
            raise ConfigError(
                f"training.training.prefix_head_weight={loop.prefix_head_weight} trains on Schmidt rank vectors, but "
                f"{general.dataset!r} holds unitaries (condition_type UNITARY): set it to 0"
            )
        if self._dataset.unitaries is None and loop.joint_dropout:
            raise ConfigError(
                f"training.training.joint_dropout=true drops prompts together with unitaries, but {general.dataset!r} "
                "holds none (condition_type SRV): set it to false"
            )
        if self._dataset.unitaries is None and self.config.unitary_encoder != UnitaryEncoderConfig():
            logger.warning(
                "training.unitary_encoder has no effect: %r holds no unitaries (condition_type SRV), so the model "
                "learns Schmidt rank vectors",
                general.dataset,
            )
        check_augmentation(self._dataset, loop.augment)
        self._pipeline = self._build(self._dataset)
        return self._pipeline

    @_while_building
    def compile_model(self) -> TrainingState:
        """Make batches, optimizers, learning-rate schedules and the averaged weights; restore a checkpoint."""
        pipeline, dataset = self._require_pipeline(), self._dataset
        general, loop = self.config.general, self.config.training
        assert dataset is not None
        if self._stream is not None:
            self._loaders = self._stream.loaders(
                loop.batch_size,
                general.seed,
                balance_prompts=loop.balance_prompts,
                time_multiple=pipeline.time_multiple,
                num_workers=loop.num_workers,
            )
        else:
            self._loaders = self._loader.get_dataloaders(
                dataset,
                loop.batch_size,
                loop.validation_fraction,
                bucketed=loop.batching == "bucketed",
                balance_prompts=loop.balance_prompts,
                time_multiple=pipeline.time_multiple,
                num_workers=loop.num_workers,
            )
        freeze(pipeline.network, loop.freeze)
        if loop.compile:
            pipeline.network["backbone"].compile()
        optimizers = make_optimizers(pipeline.network, loop.optimizer, loop.learning_rate, loop.weight_decay)
        total = total_steps(loop, self._loaders[0])
        self._state = TrainingState(
            network=pipeline.network,
            optimizers=optimizers,
            schedules=make_lr_schedules(optimizers, loop.lr_scheduler, total, loop.warmup_fraction),
            average=None if loop.ema_decay is None else average_weights(pipeline.network, loop.ema_decay),
            scaler=torch.amp.GradScaler(self.device.type, enabled=loop.precision == "16"),
        )
        self._restore(self._state)
        return self._state

    def train(self) -> FitResult:
        """Run the training loop; the first interrupt signal ends it cleanly, with a checkpoint.

        Raises:
            TrainingDivergedError: The loss is no longer finite; the last good weights are in the checkpoint.
        """
        pipeline, state = self._require_pipeline(), self._state
        if state is None or self._loaders is None:
            raise ConfigError("train() was called before compile_model(): call it first, or use run()")
        general, loop = self.config.general, self.config.training
        stop = threading.Event()
        with ExitStack() as around:
            around.enter_context(self._output_to_ourselves())
            observers, after_step = list(self.observers), lambda: None
            experiment: ExperimentLogger | None = None
            if self._team.is_first:
                experiment = around.enter_context(self._experiment(state.step))
                observers.append(_MetricsLog(experiment))
                if loop.profile_steps is not None:
                    trace = self.output.run / TRACE_FILE
                    after_step = around.enter_context(profiler(trace, loop.profile_steps, self.device))
            around.enter_context(_interrupts_set(stop))
            hooks = Hooks(
                save_checkpoint=self._write_checkpoint,
                is_due=_Timer(general.checkpoint_minutes, general.checkpoint_steps).is_due,
                save_best=self._save_best,
                should_stop=stop.is_set,
                after_step=after_step,
                measure=partial(self._measure, experiment, state, pipeline) if loop.sample_every is not None else None,
            )
            result = pipeline.fit(
                *self._loaders, state, loop, general.seed, observers=observers, hooks=hooks, team=self._team
            )
            if experiment is not None:
                experiment.end(result.status)
        return result

    def save_model(self, result: FitResult | None = None) -> TrainingSummary:
        """Write the pipeline (averaged weights, if any) with its configuration and metadata.

        An interrupted run keeps its checkpoint, so that the same command continues it; the model so far goes to
        `run/interrupted`.

        Raises:
            CheckpointError: The folder cannot be written; the checkpoint of the last epoch is intact.
        """
        pipeline, state = self._require_pipeline(), self._state
        metadata = self._metadata(result)
        finished = result is None or result.status == "finished"
        folder = self.output.model if finished else self.output.interrupted
        if state is not None and finished and self.config.training.save == "best":
            best = self._team.of_first(self._best)
            if best is not None:
                state.averaged_network.load_state_dict(best["network"])
                metadata |= {"saved": "best", **best["metadata"]}
        network = pipeline.network if state is None else state.averaged_network
        last = None if state is None or state.average is None or not finished else state.network.state_dict()
        if self._team.is_first:
            with self._output_to_ourselves(), _interrupts_set(threading.Event()):  # Ctrl-C does not cut saving short
                with using_network(pipeline, network):
                    checkpoint.save_pipeline(pipeline, folder, to_yaml(self.config), metadata, last)
                if finished:
                    self.output.clear()
                curve = folder / LOSS_CURVE
                with only_warn(f"the picture {str(curve)!r}"):
                    curve.unlink(missing_ok=True)  # an earlier model's
                    save_loss_curve(self.output.run, curve)
        self._team.wait()
        if finished:
            pipeline.network = network.eval()  # as it was saved
        return TrainingSummary(folder, str(metadata["status"]), metadata)

    @staticmethod
    def load_pipeline(folder: str | Path, device: str = "auto", weights: str = "averaged") -> DiffusionPipeline:
        """Load a saved pipeline onto a device; see `pipeline.checkpoint.load_pipeline`."""
        return checkpoint.load_pipeline(folder, select_device(device), weights)

    # ------------------------------------------------------------------------------------------- details

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline; after `save_model` it computes with the weights that were saved."""
        return self._require_pipeline()

    def _require_pipeline(self) -> DiffusionPipeline:
        if self._pipeline is None:
            raise ConfigError("no model yet: call setup_model() first, or use run()")
        return self._pipeline

    def _open_stream(self, name: str) -> CircuitStream:
        loop = self.config.training
        if loop.batching == "bucketed":
            raise ConfigError(
                f"training.training.batching=bucketed needs a data set, given general.dataset={STREAM}{name}: use "
                "max_padded, or make a data set"
            )
        return CircuitStream(_stream_config(self.config), self.config.general.seed, loop.validation_fraction)

    @_while_building
    def _build(self, dataset: CircuitDataset) -> DiffusionPipeline:
        """Build the pipeline for a data set, with the weights it starts from."""
        general = self.config.general
        architecture, source = pipeline_config(self.config, dataset), general.init_from_pipeline_dir
        if source is None:
            return make_pipeline(architecture, seed=general.seed).to(self.device)
        origin = checkpoint.load_pipeline(Path(source))
        # Its table has a row for each of its own words.
        architecture = architecture.model_copy(update={"vocabulary": origin.config.vocabulary})
        pipeline = make_pipeline(architecture, seed=general.seed)
        self._start_from(origin, pipeline)
        return pipeline.to(self.device)

    def _start_from(self, origin: DiffusionPipeline, pipeline: DiffusionPipeline) -> None:
        """Take the weights of a saved pipeline of the same architecture."""
        source = self.config.general.init_from_pipeline_dir
        if origin.gate_pool != pipeline.gate_pool:
            raise IncompatibleDatasetsError(
                f"the model {source!r} speaks {list(origin.gate_pool.names)}, the data set "
                f"{list(pipeline.gate_pool.names)}: use a data set of the same gate pool"
            )
        try:
            pipeline.network.load_state_dict(origin.network.state_dict(), strict=True)
        except RuntimeError as problem:
            difference = first_difference(_architecture(origin), _architecture(pipeline), "training")
            raise CheckpointError(
                f"the model {source!r} does not fit this configuration and data set: it has {difference}"
            ) from problem

    def _restore(self, state: TrainingState) -> None:
        """Continue where the first process's checkpoint stands: the others' disks may not have it."""
        ours = self.output.fingerprint(self._dataset_fingerprint)

        def restored() -> dict[str, Any]:
            self.output.restore(state, self._dataset_fingerprint, self.device)
            return {"run_id": self.output.run_id, "fingerprint": ours, "state": state.state_dict()}

        first = self._team.of_first(restored)
        if self._team.is_first:
            return
        theirs = first["fingerprint"]
        if theirs != ours:
            difference = f"{first_difference(ours, theirs)} as the first"
            if theirs["dataset"] != ours["dataset"]:
                difference = f"other circuits in {self.config.general.dataset!r} than the first"
            raise TeamError(
                f"process {self._team.rank} was started with {difference}: start all with the same settings and data"
            )
        state.load_state_dict(first["state"])
        self.output.run_id = first["run_id"]

    def _best(self) -> dict[str, Any] | None:
        """Read the weights of the best epoch, None where there was none."""
        if not self.output.best.is_dir():
            return None
        network = checkpoint.load_pipeline(self.output.best, self.device).network
        return {"network": network.state_dict(), "metadata": checkpoint.read_metadata(self.output.best)}

    def _output_to_ourselves(self) -> AbstractContextManager[None]:
        return self.output.to_ourselves() if self._team.is_first else nullcontext()

    def _write_checkpoint(self, state: TrainingState) -> None:
        if self._team.is_first:
            self.output.write_checkpoint(state, self._dataset_fingerprint)

    def _save_best(self, state: TrainingState) -> None:
        if self._team.is_first:
            pipeline = self._require_pipeline()
            metadata = {"best_epoch": state.epoch, self.config.training.best_metric: abs(state.best_score or 0.0)}
            with using_network(pipeline, state.averaged_network):
                checkpoint.save_pipeline(pipeline, self.output.best, to_yaml(self.config), metadata)

    def _experiment(self, first_step: int) -> ExperimentLogger:
        general = self.config.general
        return ExperimentLogger(
            self.output.run,
            general.experiment_name,
            self.config.model_dump(mode="json"),
            general.loggers,
            first_step,
            run_id=self.output.run_id,
            total_steps=total_steps(self.config.training, self._loaders[0]) if self._loaders else None,
            wandb_mode=general.wandb_mode,
            mlflow_uri=general.mlflow_uri or sqlite_uri(Path(general.output_path)),
        )

    def _measure(self, experiment: ExperimentLogger | None, state: TrainingState, pipeline: DiffusionPipeline) -> float:
        """Return the exact share of sampled circuits, spread evenly over the prompts; log a few of them drawn."""
        prompts = pipeline.config.prompts
        asked = [prompts[number % len(prompts)] for number in range(self.config.training.num_sampled)]
        seed = self.config.general.seed
        if isinstance(pipeline, CompilationDiffusionPipeline):
            asked, targets = self._known_targets(len(asked))
            samples: SampledCircuits = pipeline.sample(asked, targets, seed)
        else:
            samples = pipeline.sample(asked, seed)
        if experiment is not None:
            with only_warn("drawings of sampled circuits"):
                experiment.text(state.step, "sampled_circuits", _drawings(samples, len(prompts)))
        return float(samples.matches.mean())

    def _known_targets(self, count: int) -> tuple[list[str], list[Complex]]:
        """Return prompts and unitaries of circuits that validate, or else of circuits that train."""
        assert self._loaders is not None
        loader = self._loaders[1] or self._loaders[0]
        data = loader.dataset
        rows = np.resize(loader.rows[:: max(1, len(loader.rows) // count)], count)
        _, matrices = data.simulate(rows)
        return [data.prompts[number] for number in data.prompt_index[rows]], corners(matrices, data.sizes[rows, 0])

    def _metadata(self, result: FitResult | None) -> dict[str, Any]:
        dataset, state, pipeline = self._dataset, self._state, self._require_pipeline()
        return {
            "status": "finished" if result is None else result.status,
            "run_id": self.output.run_id,
            "experiment_name": self.config.general.experiment_name,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "quantum_diffusion": quantum_diffusion.__version__,
            "commit": _git_commit(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            "device": str(self.device),
            "num_threads": torch.get_num_threads(),
            "arithmetic": str(low_precision(self.config.training, self.device) or torch.float32).removeprefix("torch."),
            "seed": self.config.general.seed,
            "num_parameters": pipeline.num_parameters,
            "dataset": str(self.config.general.dataset),
            "dataset_path": _absolute(self.config.general.dataset),
            "dataset_sha256": self._dataset_fingerprint,
            "init_from": _absolute(self.config.general.init_from_pipeline_dir),
            "num_circuits": 0 if dataset is None else len(dataset),
            "epochs": 0 if state is None else state.epoch,
            "steps": 0 if state is None else state.step,
            "samples_seen": 0 if state is None else state.samples_seen,
            "seconds": 0.0 if state is None else round(state.seconds, 1),
            "training_loss": None if state is None else state.training_loss,
            "validation_loss": None if state is None else state.validation_loss,
        }


def _absolute(path: str | None) -> str | None:
    """Return where a folder is, for those who look for it from another one; None for what is no folder."""
    return None if path is None or path.startswith((STREAM, "hf:")) else str(Path(path).absolute())


class _MetricsLog(FitObserver):
    """Passes the loop's records on to the experiment logger."""

    def __init__(self, experiment: ExperimentLogger) -> None:
        self._experiment = experiment

    def on_step(self, record: StepRecord) -> None:
        self._experiment.log(
            record.step,
            {
                "loss": record.loss,
                "prefix_loss": record.prefix_loss,
                "learning_rate": record.learning_rate,
                "gradient_norm": record.gradient_norm,
                "samples_per_second": record.samples_per_second,
                "memory_gib": record.memory_gib,
            },
        )

    def on_epoch(self, record: EpochRecord) -> None:
        self._experiment.log(
            record.step,
            {
                "epoch_loss": record.training_loss,
                "validation_loss": record.validation_loss,
                "sampled_accuracy": record.sampled_accuracy,
            },
        )


def _drawings(samples: SampledCircuits, num_prompts: int, count: int = 4) -> str:
    """Draw a few samples, of prompts as different as may be, under what was asked for and what they are."""
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    backend = QiskitBackend()
    last = min(max(num_prompts, count), len(samples)) - 1
    rows = np.unique(np.linspace(0, last, count, dtype=np.int64))
    parts = []
    for row in rows.tolist():
        drawing = backend.draw_text(samples.circuits([row])[0]) if samples.report.valid[row] else ""
        parts.append(f"{samples.outcome(row)}\n{drawing}")
    return "\n\n".join(parts)


@contextmanager
def _interrupts_set(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C, the other stop signals and SIGUSR1 set `stop`; a second Ctrl-C interrupts at once.

    The others may come twice by themselves: from the system and from the shell, or from `timeout`. Does nothing off the
    main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    # SLURM sends SIGTERM before it takes a job's place, or what --signal=USR1@60 asks for.
    with answered({*stop_signals(), signal.SIGUSR1}, request):
        yield


def _architecture(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """What decides the shapes of a pipeline's weights, under the keys by which users know it."""
    config = pipeline.config.model_dump(mode="json")
    names = ("model", "text_encoder", "scheduler", "num_qubits", "max_gates", "prefix_head")
    return {name: config[name] for name in names}


class _Timer:
    """Says when a checkpoint is due; counts on a clock that nobody can set."""

    def __init__(self, minutes: float | None, steps: int | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._steps = steps
        self._last = time.monotonic()

    def is_due(self, state: TrainingState) -> bool:
        due = self._steps is not None and state.step % self._steps == 0
        if self._seconds is not None and time.monotonic() - self._last >= self._seconds:
            due = True
        if due:
            self._last = time.monotonic()
        return due


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Keep weights from being trained.

    Args:
        network: Its parameters are changed.
        patterns: Names with wildcards, e.g. "condition_encoder.*".

    Raises:
        ConfigError: A pattern matches no weight, or nothing is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        names = fnmatch.filter(parameters, pattern)
        if not names:
            raise ConfigError(
                f"training.training.freeze: no weight is named {pattern!r}: names begin with "
                f"{', '.join(sorted({name.partition('.')[0] for name in parameters}))}, and * stands for anything"
            )
        for name in names:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(f"training.training.freeze={list(patterns)} leaves nothing to train: freeze less")


def _git_commit() -> str | None:
    """Commit of the source tree the package runs from, None outside a repository."""
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
