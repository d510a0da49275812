"""A model's training data are found again by their content, wherever they lie; what is not found is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.evaluation.training_data import find_training_data
from tests.conftest import draw_dataset


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: CircuitDataset) -> Path:
    """A folder with datasets/train and models/model, as commands in it leave them; the test runs in it."""
    folder = tmp_path / "project"
    save_dataset(dataset, folder / "datasets" / "train", {})
    describe(folder / "models" / "model", dataset, dataset_path=str(folder / "datasets" / "train"))
    monkeypatch.chdir(folder)
    return folder


def describe(model: Path, circuits: CircuitDataset, **values: Any) -> None:
    """Write a model's metadata, those of an earlier version but for what is given."""
    model.mkdir(parents=True, exist_ok=True)
    own = {"dataset": "./datasets/train", "dataset_sha256": circuits.fingerprint, "num_circuits": len(circuits)}
    (model / "metadata.yaml").write_text(yaml.safe_dump(own | values))


def found(model: Path, near: Path | None = None) -> list[int]:
    data = find_training_data(model, near)
    assert data.missing is None
    return [len(dataset) for dataset in data.datasets]


def test_data_are_found_from_anywhere(
    project: Path, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = project / "models" / "model"
    monkeypatch.chdir(tmp_path)
    assert found(model) == [48], "where they were"
    describe(model, dataset)
    assert found(model) == [48], "of an earlier version: from the folder above the model"
    moved = project.rename(tmp_path / "moved")
    describe(moved / "models" / "model", dataset, dataset_path=str(project / "datasets" / "train"))
    assert found(moved / "models" / "model") == [48], "moved with the model"
    (moved / "models" / "model").rename(tmp_path / "model")
    save_dataset(draw_dataset(3, 5, 20), moved / "datasets" / "another", {})
    (moved / "datasets" / "train").rename(moved / "datasets" / "other_name")
    assert found(tmp_path / "model", near=moved / "datasets" / "targets") == [48], "beside the targets"
    monkeypatch.chdir(moved)
    (moved / "datasets" / "other_name").rename(moved / "datasets" / "train")
    assert found(tmp_path / "model") == [48], "from here"


def test_what_is_not_found_is_told(project: Path, dataset: CircuitDataset) -> None:
    model = project / "models" / "model"
    describe(model, dataset, dataset="./gone")
    assert find_training_data(model).missing == (
        "its training data './gone' were not found: restore them, or put them beside the targets"
    )
    save_dataset(draw_dataset(3, 5, 20), project / "other", {})
    describe(model, dataset, dataset="./other")
    assert find_training_data(model).missing == "'./other' no longer holds the circuits it was trained on"
    describe(model, dataset, dataset="stream:quick_test_srv")
    assert "whose circuits were not kept" in str(find_training_data(model).missing)
    describe(model, dataset, dataset_sha256=None)
    assert find_training_data(model).missing == "the model does not record its training data"


def test_the_data_of_the_model_it_began_from_count_too(project: Path, dataset: CircuitDataset) -> None:
    first, second = project / "models" / "model", project / "models" / "second"
    later = draw_dataset(3, 5, 20, seed=1)
    save_dataset(later, project / "later", {})
    describe(second, later, dataset="later", init_from=str(first))
    assert found(second) == [20, 48]
    describe(second, later, dataset="later")
    (second / "training_config.yaml").write_text("general: {init_from_pipeline_dir: models/model}")
    assert found(second) == [20, 48], "an earlier version says so in its configuration alone"
    describe(second, dataset, init_from=str(first))
    assert found(second) == [48], "trained longer on the same data"
    describe(second, later, dataset="later", init_from=str(second))
    assert found(second) == [20], "it took its own place"
    describe(second, later, dataset="later", init_from=str(project / "gone"))
    data = find_training_data(second)
    assert len(data.datasets) == 1
    assert "from which it began, is gone" in str(data.missing)
