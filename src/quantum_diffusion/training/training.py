"""A training run, from its configuration to a saved model.

`DiffusionTrainer` runs the steps in order and checks everything it can before heavy work starts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.store import to_yaml
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import ConfigError, TeamError, only_warn
from quantum_diffusion.interop import opening
from quantum_diffusion.interrupts import catch_stop_signals
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.callbacks import FitObserver
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.fit import FitResult, total_steps
from quantum_diffusion.pipeline.hooks import Hooks
from quantum_diffusion.pipeline.joining import join_team
from quantum_diffusion.pipeline.state import MovingAverage, TrainingState, using_network
from quantum_diffusion.tracking.experiment import ExperimentLogger
from quantum_diffusion.tracking.plots import save_loss_curve
from quantum_diffusion.tracking.profiling import profiler
from quantum_diffusion.tracking.sinks import check_sinks, sqlite_uri
from quantum_diffusion.training.measuring import draw_samples, sample_evenly
from quantum_diffusion.training.metadata import describe_run
from quantum_diffusion.training.metrics_log import MetricsLog
from quantum_diffusion.training.optim import freeze, make_lr_schedules, make_optimizers
from quantum_diffusion.training.register import ModelEntry, ModelManager
from quantum_diffusion.training.run_folder import CheckpointTimer, RunFolder, first_difference, is_trained
from quantum_diffusion.training.source import Loaders, Source, check_settings, open_source
from quantum_diffusion.training.start import build_pipeline, while_building

__all__ = ["DiffusionTrainer", "ModelEntry", "ModelManager", "TrainingSummary", "is_trained"]

TRACE_FILE, LOSS_CURVE = "trace.json", "loss_curve.png"


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a run.

    Attributes:
        folder: Folder of the model.
        status: "finished" or "interrupted".
        metadata: The content of `metadata.yaml`.
    """

    folder: Path
    status: str
    metadata: dict[str, Any]


class DiffusionTrainer:
    """Trains the model a configuration describes.

    `run()` does everything; its steps can also be called one by one: setup_model, compile_model, train, save_model.

    Args:
        config: The run.
        observers: Notified of steps and epochs, e.g. a progress bar.

    Raises:
        ConfigError: The device does not exist, or the package of a logger is not installed.
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
        self._source: Source | None = None
        self._pipeline: DiffusionPipeline | None = None
        self._state: TrainingState | None = None
        self._loaders: Loaders | None = None

    # --------------------------------------------------------------------------------------------- steps

    def run(self) -> TrainingSummary:
        """Load the data, build the model, train it and save it."""
        with self._team.together():
            self.setup_model()
            with self._output_to_ourselves():
                self.compile_model()
                with catch_stop_signals(threading.Event()):  # no signal may come between training and saving
                    return self.save_model(self.train())

    def setup_model(self, dataset: CircuitDataset | None = None) -> DiffusionPipeline:
        """Load the data set and build the pipeline for it.

        Args:
            dataset: The circuits; None loads `general.dataset`.

        Raises:
            DatasetFormatError, IncompatibleDatasetsError: The data set cannot be used.
            CheckpointError: `general.init_from_pipeline_dir` does not fit the data set or the configuration.
        """
        if dataset is not None:
            check_kind(dataset, CircuitDataset, "dataset", "DatasetLoader.load_dataset reads one")
        self._source = open_source(self.config, dataset, self._team)
        check_settings(self.config, self._source.dataset)
        self._pipeline = build_pipeline(self.config, self._source.dataset, self.device)
        return self._pipeline

    @while_building
    def compile_model(self) -> TrainingState:
        """Make batches, optimizers, learning-rate schedules and the averaged weights; restore a checkpoint."""
        pipeline, loop = self._require_pipeline(), self.config.training
        self._loaders = self._require_source().make_loaders(pipeline.time_multiple)
        if self.device.type == "cuda":
            for loader in filter(None, self._loaders):
                loader.keep_on(self.device, pipeline.decode)
        freeze(pipeline.network, loop.freeze)
        if loop.compile:
            pipeline.network["backbone"].compile()
        optimizers = make_optimizers(
            pipeline.network, loop.optimizer, loop.learning_rate, loop.weight_decay, loop.adamw_rate
        )
        total = total_steps(loop, self._loaders[0])
        self._state = TrainingState(
            network=pipeline.network,
            optimizers=optimizers,
            schedules=make_lr_schedules(optimizers, loop.lr_scheduler, total, loop.warmup_fraction),
            average=None if loop.ema_decay is None else MovingAverage(pipeline.network, loop.ema_decay),
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
                observers.append(MetricsLog(experiment))
                if loop.profile_steps is not None:
                    trace = self.output.run / TRACE_FILE
                    after_step = around.enter_context(profiler(trace, loop.profile_steps, self.device))
            around.enter_context(catch_stop_signals(stop))
            hooks = Hooks(
                save_checkpoint=self._write_checkpoint,
                is_due=CheckpointTimer(general.checkpoint_minutes, general.checkpoint_steps).is_due,
                save_best=self._save_best,
                should_stop=stop.is_set,
                after_step=after_step,
                checkpoint_epochs=general.checkpoint_epochs,
                measure=partial(self._measure, experiment, state) if loop.sample_every is not None else None,
            )
            around.callback(self._loaders[0].close)
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
        metadata = describe_run(
            self.config,
            self._require_source(),
            state,
            status="finished" if result is None else result.status,
            run_id=self.output.run_id,
            device=self.device,
            num_parameters=pipeline.num_parameters,
        )
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
            with self._output_to_ourselves(), catch_stop_signals(threading.Event()):  # Ctrl-C does not cut saving short
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
        """Load a saved pipeline onto a device; see `interop.opening.load_pipeline`."""
        return opening.load_pipeline(folder, select_device(device), weights)

    # ------------------------------------------------------------------------------------------- details

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline; after `save_model` it has the saved weights."""
        return self._require_pipeline()

    @property
    def training_batches(self) -> BatchLoader:
        """The training batches; `compile_model` makes them."""
        if self._loaders is None:
            raise ConfigError("no batches yet: call compile_model() first, or use run()")
        return self._loaders[0]

    def _require_pipeline(self) -> DiffusionPipeline:
        if self._pipeline is None:
            raise ConfigError("no model yet: call setup_model() first, or use run()")
        return self._pipeline

    def _require_source(self) -> Source:
        assert self._source is not None  # the pipeline was built for it
        return self._source

    def _restore(self, state: TrainingState) -> None:
        """Restore the first process's checkpoint, which the others may have no access to."""
        fingerprint = self._require_source().fingerprint
        ours = self.output.fingerprint(fingerprint)

        def restored() -> dict[str, Any]:
            self.output.restore(state, fingerprint, self.device)
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
        """Read the weights of the best epoch; None if there was none."""
        if not self.output.best.is_dir():
            return None
        network = checkpoint.load_pipeline(self.output.best, self.device).network
        return {"network": network.state_dict(), "metadata": checkpoint.read_metadata(self.output.best)}

    def _output_to_ourselves(self) -> AbstractContextManager[None]:
        return self.output.to_ourselves() if self._team.is_first else nullcontext()

    def _write_checkpoint(self, state: TrainingState) -> None:
        if self._team.is_first:
            self.output.write_checkpoint(state, self._require_source().fingerprint)

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
            run_name=general.run_name,
        )

    def _measure(self, experiment: ExperimentLogger | None, state: TrainingState) -> float:
        """Return the fraction of sampled circuits that are exact, and log drawings of a few."""
        pipeline, loaders = self._require_pipeline(), self._loaders
        assert loaders is not None
        samples = sample_evenly(pipeline, loaders, self.config.training.num_sampled, self.config.general.seed)
        if experiment is not None:
            with only_warn("drawings of sampled circuits"):
                drawn = draw_samples(samples, len(pipeline.config.prompts))
                experiment.text(state.step, "sampled_circuits", drawn)
        return float(samples.matches.mean())
