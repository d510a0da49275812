"""The register of models: in memory, and from a folder of runs."""

import json
from pathlib import Path

import pytest
import yaml

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.training.training import DiffusionTrainer, ModelManager
from tests.conftest import MakeConfig


def test_models_in_memory(tmp_path: Path) -> None:
    models = ModelManager()
    assert models.list() == []
    models.register("b", tmp_path / "b", {"accuracy": 0.9, "loss": 0.3})
    models.register("a", tmp_path / "a", {"accuracy": 0.8, "loss": 0.1})
    models.register("c", tmp_path / "c")
    assert [entry.name for entry in models.list()] == ["a", "b", "c"]
    assert models.get("c").folder == tmp_path / "c"
    assert models.best("accuracy").name == "b"
    assert models.best("loss", "min").name == "a"
    models.register("a", tmp_path / "a", {"accuracy": 0.95})
    assert models.best("accuracy").name == "a"


def test_unknown_names_are_refused() -> None:
    models = ModelManager()
    models.register("small", "small", {"accuracy": 0.5})
    with pytest.raises(CheckpointError, match="did you mean 'small'"):
        models.get("smal")
    with pytest.raises(CheckpointError, match="did you mean 'accuracy'"):
        models.best("accurac")
    with pytest.raises(ConfigError, match="unknown mode 'largest'"):
        models.best("accuracy", "largest")
    with pytest.raises(CheckpointError, match="no saved model"):
        models.load("small", "cpu")


def test_models_from_a_folder(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    for name, accuracy in (("one", 0.5), ("group/two", 0.75), ("three", None)):
        general = {"output_path": str(tmp_path), "model_name": name}
        trainer = DiffusionTrainer(make_config(max_steps=1, general=general))
        trainer.setup_model(dataset)
        trainer.compile_model()
        summary = trainer.save_model(trainer.train())
        assert summary.folder == tmp_path / name
        if accuracy is not None:
            (summary.folder / "evaluation").mkdir()
            values = {"srv_accuracy": accuracy, "novel_rate": float("nan"), "scheduler": "masked", "order": None}
            (summary.folder / "evaluation" / "metrics.json").write_text(json.dumps(values))
    half = tmp_path / "one" / ".saving-x"  # what a killed process may leave
    half.mkdir()
    for name in ("config.yaml", "metadata.yaml", "model.safetensors"):
        (half / name).write_bytes((tmp_path / "one" / name).read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.yaml").write_text("format: something else\n")

    models = ModelManager.from_folder(tmp_path)
    assert [entry.name for entry in models.list()] == ["group/two", "one", "three"]
    assert models.best("srv_accuracy").name == "group/two"
    assert models.best("validation_loss", "min").metrics["steps"] == 1
    assert "novel_rate" not in models.get("one").metrics
    assert models.load_best("srv_accuracy", device="cpu").config.num_qubits == 3
    assert models.load("three", "cpu").gate_pool.names == ("h", "cx")
    assert ModelManager.from_folder(tmp_path / "one").list()[0].name == "one"

    (tmp_path / "one" / "evaluation" / "metrics.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics\.json"):
        ModelManager.from_folder(tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        ModelManager.from_folder(tmp_path / "nothing")


def test_metadata_are_plain_scalars(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    trainer = DiffusionTrainer(make_config(max_steps=2))
    trainer.setup_model(dataset)
    trainer.compile_model()
    trainer.save_model(trainer.train())
    metadata = yaml.safe_load((tmp_path / "model" / "metadata.yaml").read_text())
    assert all(isinstance(value, str | int | float | bool | None) for value in metadata.values())
    assert (metadata["steps"], metadata["samples_seen"], metadata["device"]) == (2, 32, "cpu")
    assert metadata["dataset_sha256"] == dataset.fingerprint
    config = yaml.safe_load((tmp_path / "model" / "training_config.yaml").read_text())
    assert config["training"]["batch_size"] == 16
