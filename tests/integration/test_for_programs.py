"""Commands as programs and shells use them: JSON, exit statuses, trials, completion, the Hub."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from qiskit import qasm3
from qiskit.quantum_info import Operator

from quantum_diffusion.cards import read_card
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.cli import run_command
from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.completion import completion_script
from quantum_diffusion.config.command_line import parse_arguments, with_keys
from quantum_diffusion.config.schema import CompileConfig, SampleConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.checkpoint import load_pipeline

CPU = {"sample": "sample.device=cpu", "compile": "compile.device=cpu", "prepare": "prepare.device=cpu"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def in_json(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> dict[str, Any]:
    """Run a command with --json; returns what it prints on standard output, which is one object."""
    capsys.readouterr()
    status = run_command(command, [*arguments, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["command"] == command
    assert answer["status"] == status
    assert isinstance(answer, dict)
    return answer


# ------------------------------------------------------------------------------------------ JSON and statuses


def test_data_training_and_evaluation_answer_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = ["datasets=quick_test_srv", "datasets.num_samples=400", "datasets.output_path=data"]
    made = in_json(capsys, "generate", *data)
    assert (made["status"], made["num_circuits"], made["folder"], made["reused"]) == (0, 400, "data", False)
    assert sum(made["prompt_counts"].values()) == 400
    assert in_json(capsys, "generate", *data)["reused"]
    seen = in_json(capsys, "inspect", "data")
    assert (seen["status"], seen["num_circuits"]) == (0, 400)
    small = [
        "training.training.max_steps=3",
        "training.model.params={width: 16, depth: 1}",
        "training.general.device=cpu",
    ]
    where = ["training=quick_test_srv", "training.general.dataset=data", "training.general.output_path=model"]
    trained = in_json(capsys, "train", *where, *small)
    assert (trained["status"], trained["folder"], trained["metadata"]["steps"]) == (0, "model", 3)
    asked = [
        "evaluation.dataset=data",
        "evaluation.model_dir=model",
        "evaluation.num_samples=20",
        "evaluation.device=cpu",
    ]
    measured = in_json(capsys, "evaluate", *asked)
    assert measured["metrics"]["num_samples"] == 20
    listed = in_json(capsys, "runs", ".")
    assert [run["status"] for run in listed["runs"]] == ["finished"]
    assert in_json(capsys, "export-genqc", "data", "genqc")["num_circuits"] == 400
    names = [model["name"] for model in in_json(capsys, "models", ".")["models"]]
    assert names[-1] == "model"
    assert "Schmidt rank vectors of up to 3 qubits" in read_card(Path("model")).answers
    assert "400 circuits" in Path("data/README.md").read_text()


@pytest.mark.parametrize(
    ("command", "arguments", "status", "said"),
    [
        ("compile", ["compile.target=ghz", "compile.nothing=1"], 2, "unknown key 'nothing'"),
        ("compile", ["qft:3", "compile.model_dir=pretrained:unitary_3q"], 2, "all of them are real"),
        ("compile", ["toffoli:4"], 2, "extend the target by an idle qubit"),
        ("compile", ["toffoly"], 2, "did you mean 'toffoli'"),
        ("compile", ["random:3:12", "compile.max_gates=4", "compile.seed=5"], 3, "found 0 of 1 circuit"),
        (
            "prepare",
            ["w:3", "prepare.model_dir=pretrained:state", "prepare.max_tries=8"],
            3,
            "no circuit of these gates equals the target",
        ),
        ("sample", ["sample.srv=[1,2,2]", "sample.model_dir=nowhere"], 2, "no saved model at 'nowhere'"),
        ("inspect", ["nowhere"], 2, "does not exist"),
        ("compile", ["ghz", "-m"], 2, "--json works for a single job"),
    ],
)
def test_errors_are_objects_too(
    command: str, arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = in_json(capsys, command, *arguments)
    assert answer["status"] == status
    assert said in answer["error"]
    assert "\n" not in answer["error"]


def test_what_the_file_system_refuses_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    too_long = "a" * 300
    answer = in_json(capsys, "generate", "datasets=quick_test_srv", f"datasets.output_path={too_long}/b")
    assert answer["status"] == 1
    assert "the name is too long" in answer["error"]
    Path("file").touch()
    assert in_json(capsys, "generate", "datasets=quick_test_srv", "datasets.output_path=file/below")["status"] == 2


def test_an_object_that_cannot_be_written_is_a_failure() -> None:
    command = [sys.executable, "-m", "quantum_diffusion", "models", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot be written: No space left on device" in done.stderr
    shell = ["bash", "-c", f"{shlex.join(command)} >&-"]
    closed = subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert closed.returncode == 1
    assert closed.stderr.endswith("\nerror: standard output is closed, so the JSON object cannot be printed\n")


def test_circuits_in_json_are_those_that_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    answer = in_json(
        capsys, "sample", "sample.srv=[2,1,2]", "sample.save_folder=found", "sample.format=qasm3", CPU["sample"]
    )
    summary = json.loads(Path("found/summary.json").read_text())
    assert len(answer["circuits"]) == len(summary["circuits"]) == 4
    assert Path("found/circuits.png").read_bytes().startswith(b"\x89PNG")
    for row, saved in zip(answer["circuits"], summary["circuits"], strict=True):
        circuit = Circuit.from_qasm(row["qasm"])
        assert QiskitBackend().schmidt_rank_vector(circuit) == [2, 1, 2] == row["srv"] == saved["srv"]
        text = Path("found", saved["file"]).read_text()
        assert text.startswith("// Generate SRV: [2, 1, 2]: ")
        assert "OPENQASM 3" in text
        assert Operator(qasm3.loads(text)) == Operator(circuit.to_qiskit())
    best = in_json(capsys, "compile", "ghz:3", CPU["compile"])
    assert best["circuits"][0]["exact"]


# ------------------------------------------------------------------------------------------------- dry runs


def test_trials_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    data = ["datasets=quick_test_srv", "datasets.num_samples=3000", "datasets.output_path=data"]
    plan = in_json(capsys, "generate", *data, "--dry-run")
    assert (plan["dry_run"], plan["num_circuits"]) == (True, 3000)
    assert list(Path().iterdir()) == []
    made = in_json(capsys, "generate", *data)
    size = sum(file.stat().st_size for file in Path("data").rglob("*.safetensors"))
    assert plan["bytes"] == pytest.approx(size, rel=0.1)
    assert made["num_circuits"] == 3000

    small = ["training.model.params={width: 16, depth: 1}", "training.general.device=cpu"]
    where = ["training=quick_test_srv", "training.general.dataset=data", "training.general.output_path=model"]
    plan = in_json(capsys, "train", *where, *small, "training.training.max_steps=9", "--dry-run")
    assert not Path("model").exists()
    trained = in_json(capsys, "train", *where, *small, "training.training.max_steps=9")
    for key in ("num_parameters", "steps", "device"):
        assert plan[key] == trained["metadata"][key]
    assert plan["folder"] == trained["folder"]
    asked = [
        "evaluation.dataset=data",
        "evaluation.model_dir=model",
        "evaluation.num_samples=50",
        "evaluation.device=cpu",
    ]
    assert in_json(capsys, "evaluate", *asked, "--dry-run")["num_samples"] == 50
    assert not Path("model/evaluation").exists()

    assert in_json(capsys, "compile", "ghz:3", "compile.max_seconds=7", "--dry-run", CPU["compile"])["seconds"] == 7
    assert in_json(capsys, "compile", "qft:3", "--dry-run")["status"] == 0  # nothing is searched, nothing refused
    assert in_json(capsys, "compile", "qft:9", "--dry-run")["status"] == 2
    assert in_json(capsys, "sample", "sample.srv=[1,2,2]", "--dry-run", CPU["sample"])["max_gates"] == 52
    for wrong in ("sample.srv=[1,1,2]", "sample.negative_srv=[1,2]"):
        refused = in_json(capsys, "sample", "sample.srv=[1,2,2]", wrong, "--dry-run", CPU["sample"])
        assert refused["status"] == 2
    assert run_command("runs", ["--dry-run"]) == 0
    assert "nothing was done" in capsys.readouterr().out
    assert run_command("generate", [*data, "-m", "--dry-run"]) == 2
    assert run_command("train", [*where, *small, "--dry-run"]) == 2, "the folder holds a model"


# ------------------------------------------------------------------------------------- arguments without keys


@pytest.mark.parametrize("text", ["toffoli", "it's", "a b", "x${y}", "[1,2]", "C:\\dir\\", "null", "3"])
def test_values_without_their_key_mean_themselves(text: str) -> None:
    (argument,) = with_keys([text], ["compile.target"])
    (override,) = parse_arguments([argument], "compile").overrides
    assert override.startswith("++compile.target=")
    assert compose("compile", CompileConfig, [argument]).target == text


def test_keys_take_their_values_in_order() -> None:
    keys = ["export.dataset", "export.output_path"]
    assert with_keys(["data", "--cfg", "job", "out"], keys) == [
        "export.dataset='data'",
        "--cfg",
        "job",
        "export.output_path='out'",
    ]
    with pytest.raises(ConfigError, match=r"unexpected value 'c': this command takes only export.dataset and"):
        with_keys(["a", "b", "c"], keys)
    with pytest.raises(ConfigError, match=r"unexpected value 'toffoli': only one compile.target is taken; give other"):
        with_keys(["toffoli", "toffoli"], ["compile.target"])
    with pytest.raises(ConfigError, match=r"unexpected value '2': only one sample.srv is taken, written as 1,2,2"):
        with_keys(["1", "2", "2"], ["sample.srv"])
    assert with_keys([""], ["compile.target"]) == ["compile.target=''"], "the schema says that it is empty"
    assert with_keys(["a", "b c"], ["report.sources..."]) == ["report.sources=['a','b c']"]
    for text in ("1,2,2", "[1,2,2]", "[1, 2, 2]"):
        config = compose("sample", SampleConfig, with_keys([text], ["sample.srv"]))
        assert config.srv == (1, 2, 2)


# -------------------------------------------------------------------------------------- doctor and completion


def test_the_doctor_finds_this_machine_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {one["what"]: one for one in in_json(capsys, "doctor")["findings"]}
    for what in ("python", "torch", "device", "disk here", "pretrained models", "self-test compile"):
        assert found[what]["problem"] == "", found[what]
    assert "confirmed by Qiskit" in found["self-test sample"]["value"]
    monkeypatch.setattr("quantum_diffusion.doctor._FREE_GB", 1e9)
    assert run_command("doctor", ["doctor.self_test=false"]) == 1
    shown = capsys.readouterr()
    assert "!!  disk here" in shown.out
    assert shown.err == "error: problems with disk here, disk for temporary files; see above\n"


def test_the_doctor_tells_a_wrong_circuit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Circuit(3, ())
    monkeypatch.setattr("quantum_diffusion.api.compile", lambda *_, **__: [empty])
    monkeypatch.setattr("quantum_diffusion.api.sample", lambda *_, **__: [])
    problems = {one["what"]: one["problem"] for one in in_json(capsys, "doctor")["findings"]}
    assert problems["self-test compile"] == "the circuit is wrong: report this"
    assert problems["self-test sample"] == "no circuit was found"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("completion", [shell]) == 0
    script = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in script
        assert f"{command.section}." in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0
    if shell == "bash" and shutil.which("bash"):
        ask = (
            f"{script}\nCOMP_WORDS=(quantum-diffusion comp)\nCOMP_CWORD=1\n_quantum_diffusion\necho ${{COMPREPLY[@]}}\n"
        )
        done = subprocess.run(["bash"], input=ask, capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["compile", "completion"]
    assert run_command("completion", ["tcsh"]) == 2
    assert completion_script("fish", {"a": ["b="]}).endswith("-a 'b='\n")


# -------------------------------------------------------------------------------------------------- the Hub


def test_models_and_data_go_to_the_hub_and_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub itself is a folder here; what is asked of its library is what it documents."""
    hub = tmp_path / "hub"

    class Api:
        def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
            assert exist_ok
            (hub / repo_type / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(
            self, *, repo_id: str, repo_type: str, folder_path: Path, allow_patterns: list[str], **_: Any
        ) -> str:
            for pattern in allow_patterns:
                for file in Path(folder_path).rglob(pattern):
                    target = hub / repo_type / repo_id / file.relative_to(folder_path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, repo_type, allow_patterns: str(hub / repo_type / repo)
    )
    run_command("generate", ["datasets=quick_test_srv", "datasets.num_samples=300", "datasets.output_path=data"])
    assert in_json(capsys, "push", "data", "hf://me/data")["url"] == "https://hub/me/data"
    assert in_json(capsys, "pull", "hf://me/data", "copy", "pull.kind=dataset")["what"] == "300 circuits"
    assert run_command("inspect", ["copy"]) == 0

    from quantum_diffusion.pretrained import WEIGHTS

    assert run_command("push", [str(WEIGHTS / "state"), "hf://me/state"]) == 0
    assert in_json(capsys, "pull", "hf://me/state", "model")["what"] == "a model of states of up to 5 qubits"
    assert sorted(path.name for path in Path("model").iterdir()) == sorted(
        path.name for path in (WEIGHTS / "state").iterdir()
    )
    assert load_pipeline("hf://me/state").num_parameters == load_pipeline("model").num_parameters
    assert in_json(capsys, "prepare", "ghz:3", "prepare.model_dir=hf://me/state", CPU["prepare"])["status"] == 0
    for command, arguments, said in (
        ("pull", ["hf://me/state", "model"], "exists: choose another pull.output_path"),
        ("push", ["hub", "hf://me/x"], "neither a saved model nor a data set"),
        ("push", ["data", "me/x"], "expected hf://owner/name"),
        ("pull", ["hf://me/data", "other"], "no saved model"),
    ):
        answer = in_json(capsys, command, *arguments)
        assert (answer["status"], said in answer["error"]) == (2, True), answer
    assert not Path("other").exists()


def test_without_a_network_or_an_account_a_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import errors

    run_command("generate", ["datasets=quick_test_srv", "datasets.num_samples=300", "datasets.output_path=data"])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1 is set" in in_json(capsys, "push", "data", "hf://me/data")["error"]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for problem, said in (
        (errors.LocalTokenNotFoundError("no token"), "you are not logged in: run `hf auth login`"),
        (OSError("network unreachable"), "network unreachable; try again"),
    ):

        def fails(*_: Any, problem: Exception = problem, **__: Any) -> None:
            raise problem

        monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fails)
        answer = in_json(capsys, "push", "data", "hf://me/data")
        assert answer["status"] == 2
        assert said in answer["error"]
