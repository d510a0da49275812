"""Runs are found, compared and drawn from what training leaves."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from quantum_diffusion.cli import run_command
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.tracking.experiment import ExperimentLogger
from quantum_diffusion.tracking.runs import differences, find_runs, save_curves
from tests.conftest import MakeConfig
from tests.integration.test_training import InterruptAt, train


@pytest.fixture
def models(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> Path:
    def run(name: str, *observers: Any, general: Any = None, **options: Any) -> None:
        general = {"output_path": str(tmp_path / "models" / name), **(general or {})}
        train(make_config(general=general, num_epochs=2, **options), dataset, *observers)

    run("first")
    run("deep/second", learning_rate=1e-3, log_every=3)
    run("third", InterruptAt(2), general={"resume": "never", "keep_checkpoints": 7})
    (tmp_path / "models" / "broken" / "run").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "run" / "run.yaml").write_text("[1, 2")
    return tmp_path / "models"


def test_runs_are_compared(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = find_runs(models)
    assert {run.name: run.status for run in runs} == {
        "first": "finished",
        "deep/second": "finished",
        "third": "interrupted",
    }
    by_name = {run.name: position for position, run in enumerate(runs)}
    found = differences(runs)
    assert set(found) == {"training.learning_rate"}
    assert found["training.learning_rate"][by_name["deep/second"]] == 1e-3
    assert all(run.metrics["loss"] > 0 for run in runs)

    picture = tmp_path / "curves.png"
    assert run_command("runs", [f"runs.folder={models}", f"runs.picture={picture}"]) == 0
    output = capsys.readouterr().out
    for text in ("deep/second", "interrupted", "training.learning_rate", "validation_loss", str(picture)):
        assert text in output
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize("sink", ["jsonl", "wandb", "mlflow"])
def test_runs_are_found_whatever_else_they_are_logged_to(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str
) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    for name, loggers in {"plain": ["csv"], "logged": ["csv", sink]}.items():
        general = {"output_path": str(tmp_path / "models"), "model_name": name, "loggers": loggers}
        train(make_config(general=general, num_epochs=1), dataset)
    runs = find_runs(tmp_path / "models")
    assert {run.name: run.status for run in runs} == {"plain": "finished", "logged": "finished"}
    assert runs[0].metrics["loss"] == runs[1].metrics["loss"]
    assert not differences(runs)
    save_curves(runs, "loss", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_what_is_not_there_is_told(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        find_runs(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no run in .*run/run\.yaml"):
        find_runs(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"no run has the metric 'accuracy': choose one of .*validation_loss"):
        save_curves(find_runs(models), "accuracy", tmp_path / "x.png")


def test_many_runs_are_drawn_and_listed_in_little_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(35):
        name = f"a/folder/with/a/name/much/longer/than/a/legend/has/room/for/{number:02d}"
        settings = {"training": {"learning_rate": number % 2}}
        with ExperimentLogger(tmp_path / name / "run", "many", settings, ["csv"]) as log:
            log.log(1, {"loss": 1.0})
            log.log(2, {"loss": 0.5})
    picture = tmp_path / "curves.png"
    arguments = [f"runs.folder={tmp_path}", "runs.metric=loss", f"runs.picture={picture}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of axes that have no room
        assert run_command("runs", arguments) == 0
    output = capsys.readouterr().out
    assert "0 (18 runs) | 1 (17 runs)" in output
    assert "loss of the 10 newest runs" in " ".join(output.split())


def test_a_picture_replaces_nothing_but_a_picture(models: Path, tmp_path: Path) -> None:
    text, disguised, picture = tmp_path / "README.md", tmp_path / "text.png", tmp_path / "curves.png"
    for path in (text, disguised):
        path.write_text("precious")
        with pytest.raises(ConfigError, match=r"\.png"):
            save_curves(find_runs(models), "loss", path)
        assert path.read_text() == "precious"
    for _ in range(2):
        save_curves(find_runs(models), "loss", picture)
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(ConfigError, match="is not a PNG picture"):
        save_curves(find_runs(models), "loss", folder)
