"""The folder of a training run: its lock, its checks and its checkpoints.

A run overwrites only its own files, and two runs never share a folder.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from quantum_diffusion.config.schema import SAME_MODEL, TrainingConfig
from quantum_diffusion.config.validation import validate
from quantum_diffusion.data.storage import ARRAYS_FOLDER
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.files import Lock, TakenError, describe
from quantum_diffusion.folders import check_nothing_lost, names_in
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.checkpoint import CheckpointStore, read_checkpoint, read_metadata
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.tracking.experiment import read_run
from quantum_diffusion.training.source import find_fingerprint

logger = logging.getLogger(__name__)

RUN_FOLDER = "run"
_LENGTH = ("training.training.num_epochs=", "training.training.max_steps=")
LOCK_FILE = "lock"


class RunFolder:
    """The output folder of a run.

    Args:
        config: The run.

    Raises:
        CheckpointError: The run would overwrite something in the folder.

    Attributes:
        model: Folder of the model.
        run: Folder inside it for the run's record and checkpoints.
        interrupted: Folder for the model of an interrupted run.
        best: Folder for the model of the best epoch so far.
        run_id: Unique id of the run, kept when it is resumed.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self.model = config.general.model_folder
        self.run = self.model / RUN_FOLDER
        self.interrupted = self.run / "interrupted"
        self.best = self.run / "best"
        self.run_id = uuid.uuid4().hex
        self._checkpoints = CheckpointStore(self.run / "checkpoints", config.general.keep_checkpoints)
        self._lock = Lock(self.run / LOCK_FILE)
        self.check()

    def check(self) -> None:
        """Refuse a folder in which the run would overwrite something."""
        finished = checkpoint.is_finished_model(self.model)
        if finished and not self._config.general.overwrite:
            raise CheckpointError(
                f"{str(self.model)!r} already holds a finished model: to train it longer, {_longer(self.model)}; "
                "for another model choose another output_path; to replace it set training.general.overwrite=true"
            )
        check_nothing_lost(
            self.model,
            CheckpointError,
            "holds {!r}, which no training run wrote: choose another training.general.output_path",
            entries=() if finished or _is_record(self.run) else self._present(),
            # The lock is written before the record.
            is_ours=lambda name: name == f"{RUN_FOLDER}/{LOCK_FILE}" and _is_lock(self.model / name),
            written=self.run,
        )
        data = _data_set_around(self.model.absolute())
        if data is not None:
            raise CheckpointError(
                f"no model can be saved to {str(self.model)!r}: {str(data)!r} is a data set; choose another folder"
            )

    def _present(self) -> Iterator[str]:
        """Yield what a run would replace or remove, except temporary files."""
        yield from (name for name in checkpoint.FILES if (self.model / name).exists())
        yield from (f"{RUN_FOLDER}/{name}" for name in names_in(self.run, hidden=False))

    @contextmanager
    def to_ourselves(self) -> Iterator[None]:
        """Lock the folder; the operating system releases the lock when the process ends. May be nested.

        Raises:
            CheckpointError: Another run uses the folder or has finished in it, or it cannot be written.
        """
        with ExitStack() as held:
            try:
                self.run.mkdir(parents=True, exist_ok=True)
                is_new = held.enter_context(self._lock.hold())
            except TakenError:
                raise CheckpointError(
                    f"another run is training into {str(self.model)!r}: wait for it, or choose another "
                    "training.general.output_path"
                ) from None
            except OSError as problem:
                raise CheckpointError(f"cannot write {str(self.run)!r}: {describe(problem)}") from problem
            if is_new:
                self.check()
            yield

    # ------------------------------------------------------------------------------------- checkpoints

    def write_checkpoint(self, state: TrainingState, dataset_fingerprint: str) -> None:
        """Write a checkpoint of the training state.

        Raises:
            CheckpointError: It cannot be written; earlier ones are intact.
        """
        content = {"run_id": self.run_id, "fingerprint": self.fingerprint(dataset_fingerprint)}
        self._checkpoints.write(state.step, content | {"state": state.state_dict()})

    def restore(self, state: TrainingState, dataset_fingerprint: str, device: torch.device) -> None:
        """Restore a checkpoint according to `general.resume`; without one, the state stays unchanged.

        Raises:
            CheckpointError: The checkpoint belongs to another run, or all are damaged.
        """
        found = self._find(device)
        if found is None:
            return
        path, saved = found
        ours, theirs = self.fingerprint(dataset_fingerprint), saved.get("fingerprint")
        if isinstance(theirs, dict):
            theirs = theirs | {"config": model_settings(theirs.get("config"))}
        if not isinstance(theirs, dict) or theirs.get("dataset") != ours["dataset"]:
            raise CheckpointError(
                f"{str(path)!r} is of a run on another data set than {self._config.general.dataset!r}: give that one "
                "to continue it, or training.general.resume=never to start over"
            )
        if theirs != ours:
            difference = first_difference(theirs, ours)
            mend = "use that value to continue it"
            if difference.startswith(_LENGTH):  # the learning rate follows it from the first step on
                mend = f"finish it with that value, and to train longer then {_longer(self.model)}"
            raise CheckpointError(
                f"{str(path)!r} is of a run with {difference}: {mend}; or training.general.resume=never to start over"
            )
        try:
            state.load_state_dict(saved["state"])
            self.run_id = str(saved["run_id"])
        except (KeyError, ValueError, RuntimeError, TypeError) as problem:
            raise CheckpointError(
                f"the checkpoint {str(path)!r} does not fit this model: start over with training.general.resume=never"
            ) from problem
        logger.info("resuming %s at step %d", path, state.step)

    def _find(self, device: torch.device) -> tuple[Path, dict[str, Any]] | None:
        resume = self._config.general.resume
        if resume == "never":
            return None
        if resume != "auto":
            return Path(resume), read_checkpoint(Path(resume), device)
        found = self._checkpoints.read_newest(device)
        if found is not None and self._is_finished(found[1]):
            return None  # left over from a kill after the model was saved
        return found

    def _is_finished(self, saved: dict[str, Any]) -> bool:
        try:
            return bool(read_metadata(self.model).get("run_id") == saved.get("run_id"))
        except CheckpointError:
            return False

    def fingerprint(self, dataset_fingerprint: str) -> dict[str, Any]:
        """Return what must match to continue a checkpoint."""
        return {"config": model_settings(self._config.model_dump(mode="json")), "dataset": dataset_fingerprint}

    def clear(self) -> None:
        """Remove the files that only an unfinished run needs."""
        self._checkpoints.clear()
        for left in (self.interrupted, self.best):
            shutil.rmtree(left, ignore_errors=True)


class CheckpointTimer:
    """Decides when a checkpoint is due, on a monotonic clock.

    Args:
        minutes: Minutes between checkpoints, from now on; None takes none by time.
        steps: Steps between checkpoints; None takes none by steps.
    """

    def __init__(self, minutes: float | None, steps: int | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._steps = steps
        self._last = time.monotonic()

    def is_due(self, state: TrainingState) -> bool:
        """Tell whether a checkpoint is due after the latest step; if so, restart the clock."""
        due = self._steps is not None and state.step % self._steps == 0
        if self._seconds is not None and time.monotonic() - self._last >= self._seconds:
            due = True
        if due:
            self._last = time.monotonic()
        return due


def is_trained(config: TrainingConfig) -> bool:
    """Tell whether the output folder already holds a finished model of these settings and circuits.

    Raises:
        ConfigError, DatasetFormatError: The circuits cannot be found or read.
    """
    general = config.general
    folder = general.model_folder
    if general.overwrite or not checkpoint.is_finished_model(folder):
        return False
    if model_settings(_trained_with(folder)) != model_settings(config.model_dump(mode="json")):
        return False
    fingerprint = find_fingerprint(config)
    return bool(read_metadata(folder).get("dataset_sha256") == fingerprint)


def _trained_with(folder: Path) -> Any:
    """Return the values of a model's training configuration; None if unreadable."""
    try:
        return yaml.safe_load((folder / checkpoint.TRAINING_CONFIG).read_text(encoding="utf-8"))
    except Exception:  # PyYAML lets many kinds escape
        return None


def model_settings(values: Any) -> Any:
    """Return a run's settings that affect the model, except the data set, which is compared by content.

    Args:
        values: The plain values of a `TrainingConfig`, perhaps by an earlier version: missing keys get their defaults.
    """
    try:
        whole = {**values, "general": {"dataset": "its content counts", **values["general"]}}
        settings = validate(TrainingConfig, whole, "training").model_dump(mode="json")
    except (ConfigError, KeyError, TypeError):
        return values  # unknown to this version, so they differ from all of its own
    for key in (*SAME_MODEL, "general.dataset"):
        section, name = key.split(".")
        del settings[section][name]
    return settings


def _longer(model: Path) -> str:
    """Say how to train a finished model longer."""
    return f"set training.general.init_from_pipeline_dir={model} and another training.general.output_path"


def _is_record(folder: Path) -> bool:
    """Tell whether a folder holds the record of a training run of ours."""
    try:
        config = read_run(folder)["config"]
    except Exception:  # none, or a file of another software
        return False
    return isinstance(config, dict) and set(TrainingConfig.model_fields) <= config.keys()


def _is_lock(file: Path) -> bool:
    """Tell whether a file is our lock: empty, or written by an earlier version on a file system without locks."""
    return file.is_file() and bool(re.fullmatch(rb"(\d+\n[^\n]*\n?)?", file.read_bytes()[:1024]))


def _data_set_around(folder: Path) -> Path | None:
    """Return the data set that a folder is, lies in, or has as a sub-folder; None when there is none."""
    children = [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []
    return next((path for path in (folder, *folder.parents, *children) if (path / ARRAYS_FOLDER).is_dir()), None)


def first_difference(theirs: Any, ours: Any, path: str = "training") -> str:
    """Name the first value in which two nested mappings differ."""
    return next(iter(differences(theirs, ours, path)), "the same settings")


def differences(theirs: Any, ours: Any, path: str = "training") -> list[str]:
    """Name the values in which two nested mappings differ."""
    if theirs == ours:
        return []
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return [f"{path.replace('training.config', 'training')}={theirs!r}, not {ours!r}"]
    if theirs.get("type") != ours.get("type"):  # the parameters of another type say no more
        return differences(theirs.get("type"), ours.get("type"), f"{path}.type")
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [one for key in keys for one in differences(theirs.get(key), ours.get(key), f"{path}.{key}")]
