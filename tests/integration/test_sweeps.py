"""Sweeps as a user types them, with both launchers: generate, train, evaluate; failing, stopping, continuing."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.store import compose
from tests.conftest import script
from tests.processes import Forked, run_forked

JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
DATA = ["datasets=quick_test_srv", "datasets.num_samples=200", "datasets.balance_max=null", "datasets.n_jobs=1"]
TRAIN = [
    "training=quick_test_srv",
    "training.training.batch_size=16",
    "training.training.log_every=1",
    "training.training.learning_rate=0.01",
    "training.model.params={width: 16, depth: 1}",
]
LATE = r"error: job 1 \(training\.general\.dataset=\./data/late\): the data set [^\n]+ does not exist[^\n]*\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with two data sets of one sweep, `data/1` and `data/2`."""
    folder = tmp_path_factory.mktemp("user")
    sweep = ["datasets.seed=1,2", "datasets.output_path=./data/${datasets.seed}"]
    result = run_forked(folder, *script("generate_dataset.py"), *DATA, *sweep, "-m", *JOBLIB)
    assert result.stdout.splitlines()[-1] == "2 of 2 jobs are done"
    assert all(re.match(r"\[[01]\]", line) for line in result.stdout.splitlines()[:-1])
    return folder


def test_each_launcher_makes_the_same_data_sets(folder: Path) -> None:
    sweep = ["datasets.seed=1,2", "datasets.output_path=./other/${datasets.seed}"]
    result = run_forked(folder, *script("generate_dataset.py"), "-m", *DATA, *sweep)
    assert "job 0 (datasets.seed=1)\n" in result.stdout
    assert "job 1 (datasets.seed=2)\n" in result.stdout
    for number in "12":
        made = [folder / name / number / "dataset" / "ds" / "x.safetensors" for name in ("data", "other")]
        assert made[0].read_bytes() == made[1].read_bytes()


def test_one_training_fails_and_the_same_command_makes_up_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["training.general.output_path=./models/sweep", "training.training.num_epochs=1"]
    command = [
        *script("train_model.py"),
        *TRAIN,
        *settings,
        "training.general.dataset=./data/1,./data/late,./data/2",
        "training.general.model_name=run_${hydra:job.num}",
        "-m",
    ]
    result = run_forked(folder, *command, status=1)
    assert re.fullmatch(LATE, result.stderr), result.stderr
    assert result.stdout.splitlines()[-1] == "2 of 3 jobs are done"
    weights = folder / "models" / "sweep" / "run_0" / "model.safetensors"
    assert sorted(path.parent.name for path in weights.parents[1].glob("*/model.safetensors")) == ["run_0", "run_2"]

    before = weights.stat().st_mtime_ns
    shutil.copytree(folder / "data" / "1", folder / "data" / "late")
    again = run_forked(folder, *command)
    assert again.stdout.count("already holds the result of these settings: kept") == 2
    assert again.stdout.splitlines()[-1] == "3 of 3 jobs are done"
    assert weights.stat().st_mtime_ns == before

    monkeypatch.chdir(folder)
    settings += [*TRAIN, "training.general.dataset=./data/late", "training.general.model_name=run_1"]

    def is_kept(*more: str) -> bool:
        return COMMANDS["train"].is_done(compose("training", TrainingConfig, [*settings, *more]))

    assert is_kept()
    assert not is_kept("training.general.seed=7")
    assert not is_kept("training.general.overwrite=true")
    shutil.rmtree("data/late")
    shutil.copytree("data/2", "data/late")
    assert not is_kept(), "other data"

    sweep = ["evaluation.model_dir=./models/sweep/run_0,./models/sweep/run_1", "evaluation.num_samples=20"]
    result = run_forked(folder, *script("evaluate_model.py"), "evaluation.dataset=./data/1", *sweep, "--multirun")
    assert "2 of 2 jobs are done" in result.stdout
    paths = [weights.parents[1] / name / "evaluation" / "metrics.json" for name in ("run_0", "run_1")]
    made = [json.loads(path.read_text()) | {"seconds": 0, "evaluation": None, "provenance": None} for path in paths]
    assert made[0] == made[1], "run_1 had a copy of the same data"


def test_ctrl_c_ends_a_training_beside_an_idle_worker_and_it_is_continued(folder: Path) -> None:
    model = folder / "models" / "long" / "run_0"
    shutil.rmtree(folder / "data" / "late", ignore_errors=True)
    command = [
        *script("train_model.py"),
        "-m",
        *TRAIN,
        f"training.general.output_path={model.parent}",
        "training.general.model_name=run_${hydra:job.num}",
        "training.training.num_epochs=20",
    ]
    process = Forked([*command, "training.general.dataset=./data/1,./data/late", *JOBLIB], folder)
    until = time.monotonic() + 60
    log = model / "run" / "metrics.csv"
    while time.monotonic() < until and process.poll() is None:
        if "[1] job 1" in process.output() and log.exists() and log.read_text().count("loss") > 30:
            break  # the second job has failed: its worker has nothing to do, and must not die of the interrupt
        time.sleep(0.02)
    process.signal_group(signal.SIGINT)  # as a terminal does: to every process
    status, output, errors = process.wait(), process.output(), process.errors()
    assert status == 130, output + errors
    assert "Traceback" not in errors
    assert re.search(LATE, errors), errors
    assert "0 of 2 jobs are done" in output
    assert "the same command continues" in errors
    assert list((model / "run" / "checkpoints").glob("*.pt")), output + errors
    assert f"interrupted: the model so far is in {model}/run/interrupted" in output
    again = run_forked(folder, *command, "training.general.dataset=./data/1")  # whatever the launcher is
    assert again.stdout.count("resuming at step") == 1
    assert (model / "config.yaml").exists()
