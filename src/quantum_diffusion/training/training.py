"""A training run from its configuration to a saved model.

`DiffusionTrainer` owns the order of things: everything that can be wrong is checked before anything heavy starts.
"""

from __future__ import annotations

import logging
import platform
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

import quantum_diffusion
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.store import to_yaml
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader
from quantum_diffusion.data.storage import ARRAYS_FOLDER
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import (
    CheckpointError,
    ConfigError,
    IncompatibleDatasetsError,
)
from quantum_diffusion.files import DESCRIPTION, check_can_write, describe
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import (
    FitResult,
    TrainingState,
    average_weights,
    total_steps,
    uses_bfloat16,
    using_network,
)
from quantum_diffusion.tracking.experiment import RUN_FILE, ExperimentLogger
from quantum_diffusion.tracking.plots import save_loss_curve
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers
from quantum_diffusion.training.register import ModelEntry, ModelManager

__all__ = ["DiffusionTrainer", "ModelEntry", "ModelManager", "TrainingSummary"]

logger = logging.getLogger(__name__)

RUN_FOLDER = "run"
CHECKPOINT_FILE = "checkpoint.pt"
INTERRUPTED_FOLDER = "interrupted"
LOCK_FILE = "lock"

# Changing these does not make another model, so an interrupted run may be continued with other values of them.
_FREE_TO_CHANGE = (
    "output_path",
    "model_name",
    "device",
    "verbose",
    "resume",
    "overwrite",
    "experiment_name",
    "dataset",
)


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


class DiffusionTrainer:
    """Trains the model a configuration describes.

    `run()` does everything; the steps it is made of can be called one by one, in the order setup_model,
    compile_model, train, save_model.

    Args:
        config: The run.
        observers: Told of steps and epochs, e.g. a progress bar.

    Raises:
        ConfigError: The device is not there.
        CheckpointError: The output folder holds a finished model and may not be overwritten, or an interrupted run
            of another configuration.
    """

    def __init__(self, config: TrainingConfig, observers: Sequence[FitObserver] = ()) -> None:
        self.config = config
        self.observers = list(observers)
        self.folder = Path(config.general.output_path) / (config.general.model_name or "")
        self._run_folder = self.folder / RUN_FOLDER
        self._lock = FileLock(self._run_folder / LOCK_FILE, timeout=0)
        self._check_output()
        self.device = select_device(config.general.device)
        if config.training.num_threads is not None:
            torch.set_num_threads(config.training.num_threads)
        self._loader = DatasetLoader(config.general.seed)
        self._dataset: CircuitDataset | None = None
        self._dataset_fingerprint = ""
        self._pipeline: DiffusionPipeline | None = None
        self._state: TrainingState | None = None
        self._loaders: tuple[BatchLoader, BatchLoader | None] | None = None

    # --------------------------------------------------------------------------------------------- steps

    def run(self) -> TrainingSummary:
        """Load the data, build the model, train it and save it."""
        self.setup_model()
        with self._folder_to_ourselves():
            self.compile_model()
            result = self.train()
            return self.save_model(result)

    def setup_model(self, dataset: CircuitDataset | None = None) -> DiffusionPipeline:
        """Load the data set and build the pipeline for it.

        Args:
            dataset: The circuits; None loads `general.dataset`.

        Raises:
            DatasetFormatError, IncompatibleDatasetsError: The data set cannot be used.
            CheckpointError: `general.init_from_pipeline_dir` does not fit the data set or the configuration.
        """
        general, loop = self.config.general, self.config.training
        loaded = dataset if dataset is not None else self._loader.load_dataset(general.dataset)
        self._dataset_fingerprint = loaded.fingerprint
        self._dataset = self._loader.combine_datasets([loaded], loop.balance_max, loop.max_samples)
        self._pipeline = DiffusionPipeline(pipeline_config(self.config, self._dataset), seed=general.seed)
        if general.init_from_pipeline_dir is not None:
            self._init_from(Path(general.init_from_pipeline_dir), self._pipeline)
        return self._pipeline.to(self.device)

    def compile_model(self) -> TrainingState:
        """Make batches, optimizers, learning-rate schedules and the averaged weights; restore a checkpoint."""
        pipeline, dataset, loop = self._require_pipeline(), self._dataset, self.config.training
        assert dataset is not None
        self._loaders = self._loader.get_dataloaders(
            dataset,
            loop.batch_size,
            loop.validation_fraction,
            bucketed=loop.batching == "bucketed",
            time_multiple=pipeline.time_multiple,
        )
        optimizers = make_optimizers(pipeline.network, loop.optimizer, loop.learning_rate, loop.weight_decay)
        total = total_steps(loop, self._loaders[0])
        self._state = TrainingState(
            network=pipeline.network,
            optimizers=optimizers,
            schedules=make_lr_schedules(optimizers, loop.lr_scheduler, total, loop.warmup_fraction),
            average=None if loop.ema_decay is None else average_weights(pipeline.network, loop.ema_decay),
        )
        path = self._checkpoint_to_resume()
        if path is not None:
            self._restore(path, self._state)
        return self._state

    def train(self) -> FitResult:
        """Run the training loop; the first interrupt signal ends it cleanly, with a checkpoint.

        Raises:
            TrainingDivergedError: The loss is no longer finite; the last good weights are in the checkpoint.
        """
        pipeline, state = self._require_pipeline(), self._state
        if state is None or self._loaders is None:
            raise ConfigError("train() was called before compile_model(): call it first, or use run()")
        general = self.config.general
        experiment = ExperimentLogger(
            self._run_folder, general.experiment_name, self.config.model_dump(mode="json"), first_step=state.step
        )
        stop = threading.Event()
        with self._folder_to_ourselves(), experiment, _interrupts_set(stop):
            result = pipeline.fit(
                *self._loaders,
                state,
                self.config.training,
                general.seed,
                observers=[*self.observers, _MetricsLog(experiment)],
                save_checkpoint=self._write_checkpoint,
                should_stop=stop.is_set,
            )
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
        folder = self.folder if finished else self._run_folder / INTERRUPTED_FOLDER
        with self._folder_to_ourselves(), _interrupts_set(threading.Event()):  # one Ctrl-C does not cut saving short
            with using_network(pipeline, pipeline.network if state is None else state.best_network):
                checkpoint.save_pipeline(pipeline, folder, to_yaml(self.config), metadata)
            if finished:
                if state is not None:
                    pipeline.network = state.best_network  # as it was saved
                (self._run_folder / CHECKPOINT_FILE).unlink(missing_ok=True)
                shutil.rmtree(self._run_folder / INTERRUPTED_FOLDER, ignore_errors=True)
            try:
                save_loss_curve(self._run_folder, folder / "loss_curve.png")
            except OSError as problem:
                logger.warning("the loss curve was not drawn: %s", describe(problem))
        return TrainingSummary(folder, str(metadata["status"]), metadata)

    @staticmethod
    def load_pipeline(folder: str | Path, device: str = "auto") -> DiffusionPipeline:
        """Load a saved pipeline onto a device; see `pipeline.checkpoint.load_pipeline`."""
        return checkpoint.load_pipeline(Path(folder), select_device(device))

    # ------------------------------------------------------------------------------------------- details

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline; after `save_model` it computes with the weights that were saved."""
        return self._require_pipeline()

    def _require_pipeline(self) -> DiffusionPipeline:
        if self._pipeline is None:
            raise ConfigError("no model yet: call setup_model() first, or use run()")
        return self._pipeline

    def _check_output(self) -> None:
        """Refuse an output folder in which something would be lost."""
        finished, general, run = checkpoint.is_finished_model(self.folder), self.config.general, self._run_folder
        if finished and not general.overwrite:
            raise CheckpointError(
                f"{str(self.folder)!r} already holds a finished model: choose another training.general.output_path or "
                "set training.general.overwrite=true"
            )
        check_can_write(run, CheckpointError)
        data = _data_set_around(self.folder.absolute())
        if data is not None:
            raise CheckpointError(
                f"no model can be saved to {str(self.folder)!r}: {str(data)!r} is a data set; choose another folder"
            )
        ours = finished or any((run / name).is_file() for name in (RUN_FILE, LOCK_FILE))
        foreign = [name for name in (*checkpoint.FILES, RUN_FOLDER) if (self.folder / name).exists()]
        if foreign and not ours:
            raise CheckpointError(
                f"{str(self.folder)!r} holds {foreign[0]!r}, but no model of ours that might be replaced: "
                "choose another training.general.output_path"
            )

    @contextmanager
    def _folder_to_ourselves(self) -> Iterator[None]:
        """Keep other runs out of the output folder; the operating system ends the lock with the process."""
        try:
            self._run_folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                if self._lock.lock_counter == 1:
                    self._check_output()  # another run may have finished here meanwhile
                yield
        except Timeout:
            raise CheckpointError(
                f"another run is training into {str(self.folder)!r}: wait for it, or choose another "
                "training.general.output_path"
            ) from None

    def _init_from(self, source: Path, pipeline: DiffusionPipeline) -> None:
        """Start from the weights of a saved pipeline of the same architecture."""
        origin = checkpoint.load_pipeline(source)
        if origin.gate_pool != pipeline.gate_pool:
            raise IncompatibleDatasetsError(
                f"the model {str(source)!r} speaks {list(origin.gate_pool.names)}, the data set "
                f"{list(pipeline.gate_pool.names)}: use a data set of the same gate pool"
            )
        try:
            pipeline.network.load_state_dict(origin.network.state_dict(), strict=True)
        except RuntimeError as problem:
            difference = _first_difference(_architecture(origin), _architecture(pipeline), "training")
            raise CheckpointError(
                f"the model {str(source)!r} does not fit this configuration and data set: it has {difference}"
            ) from problem

    def _checkpoint_to_resume(self) -> Path | None:
        resume = self.config.general.resume
        own = self._run_folder / CHECKPOINT_FILE
        if resume == "never":
            return None
        if resume == "auto":
            finished = self.folder / DESCRIPTION
            outlived = finished.is_file() and own.is_file() and own.stat().st_mtime < finished.stat().st_mtime
            return own if own.is_file() and not outlived else None
        return Path(resume)

    def _fingerprint(self) -> dict[str, Any]:
        """What must agree for a checkpoint to be continued."""
        values = self.config.model_dump(mode="json")
        for key in _FREE_TO_CHANGE:
            values["general"].pop(key)
        for key in ("log_every", "num_threads"):
            values["training"].pop(key)
        return {"config": values, "dataset": self._dataset_fingerprint}

    def _write_checkpoint(self, state: TrainingState) -> None:
        path = self._run_folder / CHECKPOINT_FILE
        checkpoint.write_checkpoint(path, {"fingerprint": self._fingerprint(), "state": state.state_dict()})

    def _restore(self, path: Path, state: TrainingState) -> None:
        saved = checkpoint.read_checkpoint(path, self.device)
        ours, theirs = self._fingerprint(), saved.get("fingerprint")
        if not isinstance(theirs, dict) or theirs.get("dataset") != ours["dataset"]:
            raise CheckpointError(
                f"{str(path)!r} is of a run on another data set than {self.config.general.dataset!r}: give that one to "
                "continue it, or training.general.resume=never to start anew"
            )
        if theirs != ours:
            raise CheckpointError(
                f"{str(path)!r} is of a run with {_first_difference(theirs, ours)}: use that value to continue it, or "
                "training.general.resume=never to start anew"
            )
        try:
            state.load_state_dict(saved["state"])
        except (KeyError, ValueError, RuntimeError, TypeError) as problem:
            raise CheckpointError(
                f"the checkpoint {str(path)!r} does not fit this model: start anew with training.general.resume=never"
            ) from problem
        logger.info("continuing %s at step %d", path, state.step)

    def _metadata(self, result: FitResult | None) -> dict[str, Any]:
        dataset, state, pipeline = self._dataset, self._state, self._require_pipeline()
        return {
            "status": "finished" if result is None else result.status,
            "experiment_name": self.config.general.experiment_name,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "quantum_diffusion": quantum_diffusion.__version__,
            "commit": _git_commit(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            "device": str(self.device),
            "num_threads": torch.get_num_threads(),
            "bfloat16": uses_bfloat16(self.config.training, self.device),
            "seed": self.config.general.seed,
            "num_parameters": pipeline.num_parameters,
            "dataset": str(self.config.general.dataset),
            "dataset_sha256": self._dataset_fingerprint,
            "num_circuits": 0 if dataset is None else len(dataset),
            "epochs": 0 if state is None else state.epoch,
            "steps": 0 if state is None else state.step,
            "samples_seen": 0 if state is None else state.samples_seen,
            "seconds": 0.0 if state is None else round(state.seconds, 1),
            "training_loss": None if state is None else state.training_loss,
            "validation_loss": None if state is None else state.validation_loss,
        }


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
            },
        )

    def on_epoch(self, record: EpochRecord) -> None:
        self._experiment.log(
            record.step, {"epoch_loss": record.training_loss, "validation_loss": record.validation_loss}
        )


@contextmanager
def _interrupts_set(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set `stop`; a second SIGINT interrupts at once. Does nothing off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _data_set_around(folder: Path) -> Path | None:
    """Return the data set that a folder is, lies in, or has as a sub-folder; None when there is none."""
    children = [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []
    return next((path for path in (folder, *folder.parents, *children) if (path / ARRAYS_FOLDER).is_dir()), None)


def _architecture(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """What decides the shapes of a pipeline's weights, under the keys by which users know it."""
    config = pipeline.config.model_dump(mode="json")
    names = ("model", "text_encoder", "scheduler", "num_qubits", "max_gates", "prefix_head")
    return {name: config[name] for name in names}


def _first_difference(theirs: Any, ours: Any, path: str = "training") -> str:
    """Name the first value in which two nested mappings differ."""
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return f"{path.replace('training.config', 'training')}={theirs!r}, not {ours!r}"
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if theirs.get(key) != ours.get(key):
            return _first_difference(theirs.get(key), ours.get(key), f"{path}.{key}")
    return "the same settings"


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
