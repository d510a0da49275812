"""What each sink holds is read back with its own reader; W&B and MLflow are the real packages, offline."""

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quantum_diffusion.config.schema import Logger
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.tracking import sinks
from quantum_diffusion.tracking.experiment import ExperimentLogger, read_metrics
from quantum_diffusion.tracking.sinks import SINKS, check_sinks

CONFIG = {"general": {"seed": 3, "gates": ["h", "cx"]}, "rate": 0.1}
DRAWN = "asked [2, 2]\nq_0: ┤ H ├ <b>"


def record(
    folder: Path, sink: str, first: int, last: int, error: type[BaseException] | None = None, **options: Any
) -> None:
    """Log steps first + 1 to last, as a run that was at step `first` does, and end with an error if one is given."""
    name, run_id = options.pop("name", "try"), options.pop("run_id", "a" * 32)
    with ExperimentLogger(folder, name, CONFIG, ["csv", sink], first, run_id=run_id, **options) as log:
        for step in range(first + 1, last + 1):
            log.log(step, {"loss": 1 / step})
            log.text(step, "circuits", f"{DRAWN} {step}")
        if error is not None:
            raise error


def test_the_configuration_names_all_sinks() -> None:
    assert get_args(Logger) == tuple(SINKS)


# -------------------------------------------------------------------------------------------- files of our own


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_json_line_is_a_record(tmp_path: Path) -> None:
    with ExperimentLogger(tmp_path, "try", CONFIG, ["jsonl"]) as log:
        log.log(1, {"loss": 1 / 3, "rate": 0.1})
        assert records(tmp_path) == [{"step": 1, "loss": 1 / 3, "rate": 0.1}], "readable while the run goes on"
        log.text(1, "circuits", DRAWN)
        log.log(2, {"loss": math.nan, "norm": math.inf})
    assert records(tmp_path)[1:] == [{"step": 1, "circuits": DRAWN}, {"step": 2, "loss": None, "norm": None}]


def test_json_lines_of_steps_made_again_are_dropped(tmp_path: Path) -> None:
    record(tmp_path, "jsonl", 0, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text('[1, 2]\n{"loss": 1.0}\n' + path.read_text() + '{"step": 2, "loss": 0.', encoding="utf-8")
    record(tmp_path, "jsonl", 2, 4)
    steps = [1, 1, 2, 2, 3, 3, 4, 4]
    assert [found["step"] for found in records(tmp_path)] == steps, (
        "metrics and a text each, nothing twice, nothing cut"
    )
    record(tmp_path, "jsonl", 0, 1)
    assert [found["step"] for found in records(tmp_path)] == [1, 1], "a run from the start has no earlier records"


# -------------------------------------------------------------------------------------------------- TensorBoard


def test_tensorboard_has_scalars_texts_and_the_configuration(tmp_path: Path) -> None:
    record(tmp_path, "tensorboard", 0, 3)
    time.sleep(1.1)  # names of event files order runs by their second
    record(tmp_path, "tensorboard", 2, 4)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)
    ]
    texts = {event.step: event.tensor_proto.string_val[0].decode() for event in events.Tensors("circuits/text_summary")}
    assert texts[4].splitlines() == ["    asked [2, 2]", "    q_0: ┤ H ├ <b> 4"], "a code block of Markdown"
    assert sorted(texts) == [1, 2, 3, 4]
    configuration = events.Tensors("configuration/text_summary")
    assert configuration[0].step == 0
    assert "seed: 3" in configuration[0].tensor_proto.string_val[0].decode()


# ------------------------------------------------------------------------------------------------------------ W&B


@pytest.fixture
def wandb_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what W&B notes about itself out of the home folder."""
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.usefixtures("wandb_cache")
def test_wandb_keeps_a_continued_run_offline_in_the_run_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    hooks = sys.exit, sys.excepthook
    folder = tmp_path / "model" / "run"
    record(folder, "wandb", 0, 3, name="a/b: c")
    record(folder, "wandb", 2, 4, name="a/b: c", run_name="second")
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert (sys.exit, sys.excepthook) == hooks
    assert not caplog.messages
    starts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(starts) == 2
    logs = [(start / f"run-{'a' * 32}.wandb").read_bytes() for start in starts]
    for log in logs:
        assert all(word in log for word in (b"a-b- c", b"model", b"gates", b"loss", b"circuits"))
    assert b"second" in logs[1]
    assert b"second" not in logs[0]
    assert b"0.3333333333333333" in logs[0]
    last_loss = re.compile(rb"(?<!\d)0\.25(?!\d)")  # and no time that begins alike
    assert last_loss.search(logs[1])
    assert not last_loss.search(logs[0])
    drawn = [path.read_text(encoding="utf-8") for path in starts[1].rglob("*.html")]
    assert len(drawn) == 2
    assert all("┤ H ├ &lt;b&gt;" in text for text in drawn)


@pytest.mark.usefixtures("wandb_cache")
def test_wandb_leaves_the_console_and_the_callers_run_alone(tmp_path: Path) -> None:
    code = f"""
import wandb
from pathlib import Path
from quantum_diffusion.tracking.experiment import ExperimentLogger
own = wandb.init(mode="offline", dir={str(tmp_path)!r}, settings=wandb.Settings(silent=True, console="off"))
with ExperimentLogger(Path({str(tmp_path / "run")!r}), "try", {{}}, ["csv", "wandb"]) as log:
    log.log(1, {{"loss": 1.0}})
own.log({{"mine": 1}})
assert wandb.run is own
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.usefixtures("wandb_cache")
def test_without_an_account_online_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of the user's
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    record(tmp_path / "run", "wandb", 0, 1, wandb_mode="online")
    assert read_metrics(tmp_path / "run") == [(1, "loss", 1.0)]
    [message] = caplog.messages
    assert message.startswith("metrics are no longer written to wandb: No API key configured")


# --------------------------------------------------------------------------------------------------------- MLflow


def mlflow_runs(uri: str, experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def test_mlflow_keeps_a_continued_run_in_one_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "a model" / "run"
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        record(folder, "mlflow", 0, 3, KeyboardInterrupt)
    uri = f"sqlite:///{folder}/mlflow.db"
    [run] = mlflow_runs(uri, "try")
    assert run.info.status == "KILLED"
    assert run.info.run_name == "a model"
    assert run.data.params == {"general.seed": "3", "general.gates": "['h', 'cx']", "rate": "0.1"}

    record(folder, "mlflow", 2, 4)
    [again] = mlflow_runs(uri, "try")
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    client = MlflowClient(uri)
    points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
    assert points == [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)], "a step made again is not logged twice"
    texts = sorted(folder.glob(f"mlartifacts/{run.info.run_id}/artifacts/circuits/*.txt"))
    assert [path.name for path in texts] == [f"step_{step:08d}.txt" for step in (1, 2, 3, 4)]
    assert texts[3].read_text(encoding="utf-8") == f"{DRAWN} 4"

    with pytest.raises(ZeroDivisionError):
        record(tmp_path / "other" / "run", "mlflow", 0, 1, ZeroDivisionError, run_id="b" * 32, mlflow_uri=uri)
    assert sorted(run.info.status for run in mlflow_runs(uri, "try")) == ["FAILED", "FINISHED"]
    assert not caplog.messages
    assert capfd.readouterr() == ("", "")


def test_mlflow_takes_long_and_many_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {f"key_{number}": number for number in range(150)} | {"long": "x" * 9000}
    umask = os.umask(0o002)
    try:
        with ExperimentLogger(tmp_path / "run", "try", settings, ["mlflow"]) as log:
            log.log(1, {"loss": math.nan, "norm": math.inf})
    finally:
        os.umask(umask)
    assert (tmp_path / "run" / "mlflow.db").stat().st_mode & 0o777 == 0o664, "the user's group may write it, too"
    assert not caplog.messages
    [run] = mlflow_runs(f"sqlite:///{tmp_path}/run/mlflow.db", "try")
    assert len(run.data.params) == 151
    assert set(run.data.params["long"]) == {"x"}
    assert math.isnan(run.data.metrics["loss"])


@pytest.mark.parametrize("name", ["100%41", "why?"])
def test_mlflow_writes_nowhere_but_where_it_should(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    with ExperimentLogger(tmp_path / name / "run", "try", {}, ["csv", "mlflow"]) as log:
        log.log(1, {"loss": 1.0})
    [line] = caplog.messages
    assert line.startswith(f"metrics are no longer written to mlflow: its file cannot lie below '{tmp_path}/{name}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_runs_that_start_at_once_share_a_new_file(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from quantum_diffusion.tracking.experiment import ExperimentLogger
folder, uri = sys.argv[1:]
with ExperimentLogger(Path(folder), "sweep", {}, ["mlflow"], mlflow_uri=uri) as log:
    log.log(1, {"loss": 1.0})
"""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    commands = [[sys.executable, "-c", code, str(tmp_path / name / "run"), uri] for name in ("first", "second")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", ""]
    assert {run.info.run_name for run in mlflow_runs(uri, "sweep")} == {"first", "second"}


def test_a_server_that_is_away_is_told_within_seconds(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from quantum_diffusion.tracking.experiment import ExperimentLogger, read_metrics
with ExperimentLogger(Path(sys.argv[1]), "try", {}, ["csv", "mlflow"], mlflow_uri="http://127.0.0.1:9") as log:
    log.log(1, {"loss": 1.0})
assert read_metrics(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stderr
    [line] = told.splitlines()
    assert line.startswith("metrics are no longer written to mlflow: ")
    assert "Connection refused" in line


# ------------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.parametrize("found", [None, "a folder of that name"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, found: str | None) -> None:
    monkeypatch.setitem(sys.modules, name, None if found is None else ModuleType(name))
    with pytest.raises(ConfigError) as problem:
        check_sinks(["csv", name])
    assert str(problem.value) == (
        f"training.general.loggers has {name!r}, which is not installed: pip install 'quantum-diffusion[{name}]'"
    )


def test_an_extra_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setitem(sinks._EXTRAS, "mlflow", fail)
    with pytest.raises(ConfigError, match=r"has 'mlflow', which cannot be loaded: Could not determine home directory"):
        check_sinks(["csv", "mlflow"])
