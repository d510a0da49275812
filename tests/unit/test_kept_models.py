"""When a finished model is kept, when a run is continued, and what is said where neither is possible."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml

from quantum_diffusion.config.schema import SAME_MODEL, TrainingConfig
from quantum_diffusion.config.store import to_yaml
from quantum_diffusion.config.validation import validate
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.checkpoint import TRAINING_CONFIG, save_pipeline
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.tracking.experiment import ExperimentLogger
from quantum_diffusion.training.run_folder import RunFolder
from quantum_diffusion.training.training import is_trained
from tests.conftest import MakeConfig


def changed(config: TrainingConfig, key: str, value: Any) -> TrainingConfig:
    values = config.model_dump(mode="json")
    section, name = key.split(".")
    values[section][name] = value
    return validate(TrainingConfig, values, "training")


@pytest.fixture
def finished(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> TrainingConfig:
    """The configuration of a model that is there, though nobody trained it."""
    save_dataset(dataset, tmp_path / "data", {})
    config = make_config(general={"dataset": str(tmp_path / "data")})
    pipeline = make_pipeline(pipeline_config(config, dataset), seed=0)
    save_pipeline(pipeline, config.general.model_folder, to_yaml(config), {"dataset_sha256": dataset.fingerprint})
    return config


OTHER_VALUES = {
    "general.experiment_name": "other",
    "general.device": "auto",
    "general.verbose": True,
    "general.resume": "never",
    "general.checkpoint_minutes": None,
    "general.checkpoint_steps": 5,
    "general.checkpoint_epochs": 5,
    "general.run_name": "other",
    "general.keep_checkpoints": 7,
    "general.loggers": ["csv"],
    "general.wandb_mode": "online",
    "general.mlflow_uri": "http://localhost",
    "training.log_every": 7,
    "training.num_workers": 2,
    "training.profile_steps": 3,
    "training.num_threads": 1,
    "training.cuda_graphs": False,
}


def test_a_model_is_kept_whatever_makes_no_other(finished: TrainingConfig, tmp_path: Path) -> None:
    assert is_trained(finished)
    places = {"general.output_path", "general.model_name", "general.overwrite"}
    assert set(OTHER_VALUES) == set(SAME_MODEL) - places
    for key, value in OTHER_VALUES.items():
        assert is_trained(changed(finished, key, value)), key
    (tmp_path / "data").rename(tmp_path / "moved")
    assert is_trained(changed(finished, "general.dataset", str(tmp_path / "moved")))


def test_another_model_is_not_kept(finished: TrainingConfig, mixed_dataset: CircuitDataset, tmp_path: Path) -> None:
    for key, value in {"training.learning_rate": 1e-3, "general.seed": 1, "training.num_epochs": 2}.items():
        assert not is_trained(changed(finished, key, value)), key
    assert not is_trained(changed(finished, "general.overwrite", True))
    save_dataset(mixed_dataset, tmp_path / "other", {})
    assert not is_trained(changed(finished, "general.dataset", str(tmp_path / "other")))


def test_a_configuration_of_an_earlier_version(finished: TrainingConfig) -> None:
    path = finished.general.model_folder / TRAINING_CONFIG
    values = yaml.safe_load(path.read_text())
    del values["training"]["joint_dropout"], values["general"]["wandb_mode"], values["unitary_encoder"]
    path.write_text(yaml.safe_dump(values))
    assert is_trained(finished)
    assert not is_trained(changed(finished, "training.joint_dropout", True))
    for text in ("general: 3", "[1, 2]", "", "a: !!bool x", yaml.safe_dump(values | {"unknown": 1})):
        path.write_text(text)
        assert not is_trained(finished), text


def test_a_finished_model_says_how_to_train_it_longer(finished: TrainingConfig) -> None:
    folder = finished.general.model_folder
    with pytest.raises(CheckpointError, match="to train it longer, set") as caught:
        RunFolder(finished)
    assert f"training.general.init_from_pipeline_dir={folder} and another training.general.output_path" in str(
        caught.value
    )
    RunFolder(changed(finished, "general.overwrite", True))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "training.num_epochs",
            3,
            "training.training.num_epochs=1, not 3: finish it with that value, and to train longer then set",
        ),
        (
            "training.max_steps",
            9,
            "training.training.max_steps=None, not 9: finish it with that value, and to train longer",
        ),
        (
            "training.learning_rate",
            0.1,
            "training.training.learning_rate=0.003, not 0.1: use that value to continue it",
        ),
        ("training.num_workers", 2, None),
    ],
)
def test_an_interrupted_run(make_config: MakeConfig, key: str, value: Any, said: str | None) -> None:
    config, loaded = make_config(), []
    interrupted = RunFolder(config)
    with ExperimentLogger(interrupted.run, "try", config.model_dump(mode="json"), ["csv"]):
        pass
    state = SimpleNamespace(step=4, state_dict=lambda: {"step": 4}, load_state_dict=loaded.append)
    interrupted.write_checkpoint(cast(TrainingState, state), "circuits")
    continued = RunFolder(changed(config, key, value))
    if said is None:
        continued.restore(cast(TrainingState, state), "circuits", torch.device("cpu"))
        assert loaded == [{"step": 4}]
        return
    with pytest.raises(CheckpointError) as caught:
        continued.restore(cast(TrainingState, state), "circuits", torch.device("cpu"))
    assert said in str(caught.value)
    assert str(caught.value).endswith("; or training.general.resume=never to start over")
