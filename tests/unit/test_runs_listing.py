"""The listing of runs tells a live run from a killed one, and shows what evaluations found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantum_diffusion.cli import run_command
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.tracking.experiment import RUN_FILE, ExperimentLogger, read_last_metrics, read_metrics
from quantum_diffusion.tracking.processes import is_running, this_process
from quantum_diffusion.tracking.runs import Run, check_picture, find_runs


def test_a_process_and_others() -> None:
    own = this_process()
    assert is_running(own)
    assert is_running(yaml.safe_load(yaml.safe_dump(own))), "as it is written"
    assert is_running(own | {"host": "elsewhere"}) is None
    assert is_running(own | {"namespace": "pid:[1]"}) is None, "a container's numbers are its own"
    assert is_running(own | {"boot": "before"}) is False
    assert is_running(own | {"started": "long ago"}) is False, "another process has its number now"
    for nonsense in ({}, {"host": own["host"]}, own | {"id": "x"}, own | {"id": 2**70}, own | {"id": -1}):
        assert not is_running(nonsense)


def test_a_killed_process_no_longer_runs() -> None:
    command = (
        "import yaml, sys; from quantum_diffusion.tracking.processes import this_process as p; print(p()); input()"
    )
    child = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    process = yaml.safe_load(child.stdout.readline())
    assert is_running(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but nobody has asked how
    assert is_running(process) is False
    child.communicate()
    assert is_running(process) is False


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A model folder of a run in this process, which has logged three steps and has a checkpoint of the second."""
    folder = tmp_path / "models" / "small"
    log = ExperimentLogger(folder / "run", "try", {"training": {"seed": 0}}, ["csv"], total_steps=120)
    log.start()
    for step in (10, 20, 30):
        log.log(step, {"loss": 1 / step})
    (folder / "run" / "checkpoints").mkdir()
    (folder / "run" / "checkpoints" / "000000020.pt").touch()
    return folder


def rewrite(folder: Path, **changes: Any) -> Run:
    path = folder / "run" / RUN_FILE
    record = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in record.items() if value is not None}))
    return find_runs(folder.parent)[0]


def test_how_a_run_stands(running: Path) -> None:
    run = find_runs(running.parent)[0]
    assert (run.status, run.state, run.metrics["loss"]) == ("running", "running, step 30 of 120", 1 / 30)
    assert 0 <= run.seconds < 60
    dead = this_process() | {"started": "1"}
    continues = "(the same training command continues it from step 20)"
    assert rewrite(running, process=dead).state == f"stopped at step 30 of 120 {continues}"
    assert rewrite(running, process=dead | {"host": "node7"}).state == "unknown (on host node7), step 30 of 120"
    assert rewrite(running, status="failed").state == f"failed at step 30 of 120 {continues}"
    assert rewrite(running, status="interrupted").state == f"interrupted at step 30 of 120 {continues}"
    assert rewrite(running, status="finished").status == "stopped", "killed before the model was saved"
    (running / "config.yaml").touch()
    assert rewrite(running, status="finished").state == "finished"
    (running / "run" / "checkpoints" / "000000020.pt").unlink()
    assert (
        rewrite(running, status="running", process=dead).state
        == "stopped at step 30 of 120 (the same training command starts anew)"
    )


def test_a_record_of_an_earlier_version(running: Path) -> None:
    old = rewrite(running, process=None, total_steps=None)
    assert (old.status, old.state) == ("unknown", "unknown (on host ?), step 30")
    (running / "config.yaml").touch()
    assert rewrite(running, status="finished").state == "finished"


def test_figures_of_the_evaluation(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (running / "evaluation").mkdir()
    figures = running / "evaluation" / "metrics.json"
    figures.write_text(
        json.dumps(
            {"srv_accuracy": 0.975, "srv_accuracy_novel": 0.5, "reasons": {"valid": 3}, "novel": None, "seed": 0}
        )
    )
    assert run_command("runs", [f"runs.folder={running.parent}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "srv_accuracy 0.9750" in shown
    assert "novel" not in shown
    figures.write_text(json.dumps({"exact_rate": 0.25, "best_of": {"1": 0.25, "16": 0.5, "128": 0.75}}))
    assert find_runs(running.parent)[0].figures == {"loss": 1 / 30, "exact_rate": 0.25, "best_of_128": 0.75}
    for broken in ("", "[]", '{"best_of": {"x": 1}}'):
        figures.write_text(broken)
        assert find_runs(running.parent)[0].figures == {"loss": 1 / 30}


def test_the_end_of_a_long_record_is_read(tmp_path: Path) -> None:
    assert read_last_metrics(tmp_path) == (0, {})
    with ExperimentLogger(tmp_path, "try", {}, ["csv"]) as log:
        for step in range(1, 3000):
            log.log(step, {"loss": 1 / step, "learning_rate": 0.1})
        log.log(3000, {"validation_loss": 0.5})
    rows = read_metrics(tmp_path)
    assert read_last_metrics(tmp_path) == (3000, {name: value for _, name, value in rows})


def test_a_picture_is_refused_before_the_work(
    running: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [f"runs.folder={running.parent}", "runs.metric=loss"]
    assert run_command("runs", [*arguments, f"runs.picture={tmp_path}/gone/runs.png"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "gone' for the picture does not exist: create it, or give another" in shown.err
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="permission denied"):
        check_picture(tmp_path / "runs.png")
    monkeypatch.undo()
    assert run_command("runs", [*arguments, f"runs.picture={tmp_path}/runs.png"]) == 0
    assert "shows loss of the one run that recorded it" in capsys.readouterr().out
