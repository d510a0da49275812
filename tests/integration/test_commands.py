"""The commands of DESIGN section 1 as a user types them: generate, train, evaluate, sample; stopping and bad input.

They run as processes in an empty folder, at a tiny size; most are forked, see `tests.processes`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from qiskit import qasm2
from qiskit.quantum_info import Statevector, partial_trace

from quantum_diffusion import cli
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from tests.conftest import run, script
from tests.processes import Forked, run_forked

HYDRA = ["hydra.run.dir=.", "hydra.output_subdir=null"]
GENERATE = [
    *HYDRA,
    "datasets=quick_test_srv",
    "datasets.output_path=./datasets/srv_dataset",
    "datasets.num_samples=600",
    "datasets.balance_max=null",
    "datasets.n_jobs=1",
]
TRAIN = [
    *HYDRA,
    "training=quick_test_srv",
    "training.general.dataset=./datasets/srv_dataset",
    "training.general.output_path=./models/quick_test",
    "training.training.num_epochs=3",
    "training.training.batch_size=32",
    "training.training.log_every=1",
    "training.model.params={width: 32, depth: 2}",
]
EVALUATE = [
    *HYDRA,
    "evaluation=default",
    "evaluation.dataset=./datasets/srv_dataset",
    "evaluation.model_dir=./models/quick_test",
    "evaluation.num_samples=60",
    "evaluation.max_drawings=2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder after the three commands."""
    folder = tmp_path_factory.mktemp("user")
    run_forked(folder, *script("generate_dataset.py"), *GENERATE)
    run_forked(folder, *script("train_model.py"), *TRAIN)
    run_forked(folder, *script("evaluate_model.py"), *EVALUATE)
    return folder


def test_the_three_commands_leave_what_they_promise(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["datasets", "models"]
    model = folder / "models" / "quick_test"
    assert {path.name for path in model.iterdir()} == {
        "README.md",
        "config.yaml",
        "model.safetensors",
        "last.safetensors",
        "training_config.yaml",
        "metadata.yaml",
        "loss_curve.png",
        "run",
        "evaluation",
    }
    assert (model / "loss_curve.png").stat().st_size > 5000
    metrics = json.loads((model / "evaluation" / "metrics.json").read_text())
    assert metrics.keys() >= {
        "num_samples",
        "valid_rate",
        "empty_rate",
        "srv_accuracy",
        "srv_accuracy_by_entangled",
        "baseline_shuffled_accuracy",
        "distinct_rate",
        "novel_rate",
        "guidance_scale",
        "steps",
        "seed",
    }
    assert metrics["num_samples"] == 60
    assert metrics["valid_rate"] == 1.0
    assert 0 <= metrics["srv_accuracy_interval"][0] <= metrics["srv_accuracy"] <= metrics["srv_accuracy_interval"][1]
    for name in ("accuracy.png", "circuits.png", "metrics.md"):
        assert (model / "evaluation" / name).stat().st_size > 500
    assert not any(path.name.startswith(".") for path in model.rglob("*"))


def test_written_circuits_have_the_schmidt_rank_vector_of_their_folder(folder: Path) -> None:
    files = sorted((folder / "models" / "quick_test" / "evaluation" / "circuits").glob("*/*.qasm"))
    metrics = json.loads((folder / "models" / "quick_test" / "evaluation" / "metrics.json").read_text())
    assert 0 < len(files) <= metrics["srv_accuracy"] * 60 + 1e-9
    for file in files:
        circuit = qasm2.load(file)
        asked = [int(digit) for digit in file.parent.name.removeprefix("srv_")]
        state = Statevector(circuit)
        others = [[other for other in range(3) if other != qubit] for qubit in range(3)]
        purities = [partial_trace(state, rest).purity().real for rest in others]
        assert [1 if purity > 0.99 else 2 for purity in purities] == asked, file


def test_a_report_has_the_figures_of_all_three(folder: Path) -> None:
    command = [sys.executable, "-m", "quantum_diffusion.cli", "report", "report.output_path=./pages/all.html"]
    sources = "report.sources=[./models/quick_test,./datasets/srv_dataset]"
    told = run_forked(folder, *command, sources).stdout
    assert told.splitlines()[-1] == "report on 1 training run, 1 evaluation, 1 data set: ./pages/all.html"
    page = (folder / "pages" / "all.html").read_text(encoding="utf-8")
    metrics = json.loads((folder / "models" / "quick_test" / "evaluation" / "metrics.json").read_text())
    metadata = yaml.safe_load((folder / "models" / "quick_test" / "metadata.yaml").read_text())
    for text in (f"{100 * metrics['srv_accuracy']:.1f} %", metadata["torch"], f"{metadata['num_parameters']:,}"):
        assert text in page
    assert "is an earlier report" in run_forked(folder, *command, sources, status=2).stderr
    run_forked(folder, *command, sources, "report.overwrite=true")
    assert [path.name for path in (folder / "pages").iterdir()] == ["all.html"]
    shutil.rmtree(folder / "pages")


def test_evaluating_again_replaces_an_evaluation_and_nothing_else(folder: Path) -> None:
    evaluation = folder / "models" / "quick_test" / "evaluation"
    before = json.loads((evaluation / "metrics.json").read_text())
    run_forked(folder, *script("evaluate_model.py"), *EVALUATE)
    after = json.loads((evaluation / "metrics.json").read_text())
    for figures in (before, after):
        figures["seconds"] = figures["provenance"]["finished_at"] = None
    assert before == after, "the same seed gives the same figures"

    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    run_forked(
        folder, *script("evaluate_model.py"), *EVALUATE, "evaluation.save_folder=./mine", "evaluation.num_samples=5"
    )
    assert (folder / "mine" / "thesis.txt").read_text() == "years of work"

    (folder / "foreign" / "circuits").mkdir(parents=True)
    refused = run_forked(folder, *script("evaluate_model.py"), *EVALUATE, "evaluation.save_folder=./foreign", status=2)
    assert refused.stderr.startswith("error: ")
    assert "holds 'circuits', but no earlier evaluation" in refused.stderr
    assert [path.name for path in (folder / "foreign").iterdir()] == ["circuits"]


def test_the_installed_command_samples(folder: Path) -> None:
    command = [sys.executable, "-m", "quantum_diffusion.cli", "sample", "sample.model_dir=./models/quick_test"]
    options = ["sample.srv=[1,1,1]", "sample.num_circuits=2", "sample.max_tries=200", "sample.save_folder=./found"]
    result = run_forked(folder, *command, *options)
    assert "2 distinct circuits verified to have SRV [1, 1, 1]" in result.stdout
    assert sorted(path.name for path in (folder / "found").iterdir()) == [
        "00001.qasm",
        "00002.qasm",
        "circuits.png",
        "summary.json",
    ]
    assert qasm2.load(folder / "found" / "00001.qasm").num_qubits == 3
    assert "exists" in run_forked(folder, *command, *options, status=2).stderr
    assert "asks for a single entangled qubit" in run_forked(folder, *command, "sample.srv=[1,1,2]", status=2).stderr


def test_output_that_nobody_can_read_ends_no_command(folder: Path) -> None:
    """A terminal without box characters, a pipe whose reader has gone, a full disk, no streams, a foreign backend."""
    command = f"{sys.executable} -m quantum_diffusion"
    sample = "sample sample.model_dir=models/quick_test sample.srv=[1,1,1] sample.num_circuits=1"
    train = " ".join(TRAIN[2:5] + TRAIN[6:8]) + " training.training.max_steps=2"
    outputs = {
        f"{sample} sample.save_folder=out/latin": ">drawn",
        f"train {train} training.general.output_path=out/pipe": "| true; exit ${PIPESTATUS[0]}",
        "inspect inspect.dataset=datasets/srv_dataset inspect.save_folder=out/full": ">/dev/full",
        "export-genqc export.dataset=datasets/srv_dataset export.output_path=out/closed": "<&- >&- 2>&-",
        "train --help": "| true; exit ${PIPESTATUS[0]}",
    }
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "MPLBACKEND": "module://of_a_notebook"}
    started = [
        subprocess.Popen(
            ["bash", "-c", f"{command} {arguments} {output}"], cwd=folder, env=environment, stderr=subprocess.PIPE
        )
        for arguments, output in outputs.items()
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 5, errors
    full = "warning: further output is dropped, it cannot be written: No space left on device\n"
    assert errors == ["", "", full, "", ""]
    files = {path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*") if path.is_file()}
    assert files >= {
        "latin/00001.qasm",
        "pipe/model.safetensors",
        "pipe/loss_curve.png",
        "full/inspection.json",
        "full/inspection.png",
        "closed/config.yaml",
    }
    assert "+---+" in (folder / "drawn").read_text("latin-1")
    written = b"".join((folder / "out" / name).read_bytes() for name in files)
    assert b"circuits are in out/closed" not in written, "what is printed goes into no file"


def test_python_without_docstrings_and_asserts_helps_and_reads_as_well(folder: Path) -> None:
    code = """
from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.help import help_text, usage
print(usage(), *map(help_text, COMMANDS), sep="\\n")
values = ["training.general.dataset=x", "training.model.params={width: 24, depth: 1}"]
print(compose("training", TrainingConfig, values).model.params)
"""
    shown = [run(folder, sys.executable, flags, "-c", code).stdout for flags in ("-OO", "-q")]
    assert shown[0] == shown[1]
    assert "Train a model on a data set and save it." in shown[0]
    assert "Folder of a saved model, pretrained:NAME or hf://owner/name" in shown[0]
    assert "width=24" in shown[0]


def test_help_of_a_command_has_two_ways_to_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(cli, "_own_process", lambda: None)
    shown = []
    for arguments in (["help", "compile"], ["compile", "--help"]):
        monkeypatch.setattr(sys, "argv", ["quantum-diffusion", *arguments])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith("usage: quantum-diffusion compile [key=value ...]")
    for arguments in (
        ["--help", "compile.target"],
        ["help", "compile.target"],
        ["compile", "--help", "compile.target"],
    ):
        monkeypatch.setattr(sys, "argv", ["quantum-diffusion", *arguments])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        shown.append(capsys.readouterr().out)
    assert shown[2].startswith("compile.target\n")
    assert len({*shown[2:]}) == 1


def test_a_finished_model_is_refused_without_overwrite(folder: Path) -> None:
    weights = folder / "models" / "quick_test" / "model.safetensors"
    before = weights.read_bytes()
    refused = run_forked(folder, *script("train_model.py"), *TRAIN, status=2)
    assert "already holds a finished model" in refused.stderr
    assert weights.read_bytes() == before


def stop(command: list[str], folder: Path, model: Path, *signals: signal.Signals) -> str:
    """Start a training and stop it amidst; it must end with status 130. Returns what it said."""
    rows = model / "run" / "metrics.csv"
    before = rows.read_text().count("loss") if rows.exists() else 0
    process = Forked(command, folder)
    until = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("loss") > before + 10) and time.monotonic() < until:
        time.sleep(0.02)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.01)
    assert process.wait() == 130, process.output() + process.errors()
    assert "Traceback" not in process.errors()
    return process.output()


def test_two_ctrl_c_at_once_end_workers_too(folder: Path) -> None:
    """As `timeout -s INT` and impatient users send them, to the whole group."""
    given = ["datasets=quick_test_unitary", "datasets.num_samples=2000000", "datasets.n_jobs=2"]
    process = Forked([*script("generate_dataset.py"), *given, "datasets.output_path=./datasets/large"], folder)
    workers: list[psutil.Process] = []
    until = time.monotonic() + 60
    while sum(one.cpu_times().user > 4 for one in workers) < 2 and time.monotonic() < until:  # those are at work
        time.sleep(0.05)
        workers = [one for one in psutil.Process(process.pid).children() if "LokyProcess" in " ".join(one.cmdline())]
    for _ in range(2):
        process.signal_group(signal.SIGINT)
        time.sleep(0.005)
    assert process.wait(30) == 130, process.output() + process.errors()
    assert "Traceback" not in process.errors()
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_ctrl_c_and_a_hang_up_save_and_the_same_command_continues(folder: Path) -> None:
    command = [*script("train_model.py"), *TRAIN, "training.general.output_path=./models/long"]
    command.append("training.training.num_epochs=8")
    model = folder / "models" / "long"
    output = stop(command, folder, model, signal.SIGHUP, signal.SIGHUP)  # the system tells of it, and the shell
    output += stop(command, folder, model, signal.SIGINT)
    assert output.count("the same command continues") == 2
    assert "resuming at step" in output
    assert load_pipeline(model / "run" / "interrupted").config.num_qubits == 3
    assert list((model / "run" / "checkpoints").glob("*.pt"))
    assert not (model / "config.yaml").exists()
    again = run_forked(folder, *command)
    assert "resuming at step" in again.stdout
    assert (model / "config.yaml").exists()
    assert (model / "loss_curve.png").exists()
    assert not (model / "run" / "interrupted").exists()
