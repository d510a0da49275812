"""What `quantum-diffusion compile` shows, writes and refuses; and that each kind of model knows its own command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from qiskit import qasm2
from qiskit.quantum_info import Operator

from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import CompileConfig, DatasetConfig, SampleConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import CheckpointError, ConfigError, QuantumDiffusionError
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.checkpoint import save_pipeline
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.search import reach
from quantum_diffusion.search.compiling import find_for_target
from quantum_diffusion.search.sampling import find_circuits
from tests.conftest import MakeConfig


@pytest.fixture
def model(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A saved model of random weights: two qubits, at most three of h, cx and x. The test runs beside it."""
    monkeypatch.chdir(tmp_path)
    config = DatasetConfig(
        gate_set=("h", "cx", "x"), num_qubits=2, condition_type="UNITARY", num_samples=20, max_gates=3, n_jobs=1
    )
    data = DatasetGenerator(config).generate()[0]
    save_pipeline(make_pipeline(pipeline_config(make_config(), data), seed=0), Path("model"), "", {})
    return "compile.model_dir=model"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command("compile", ["hydra.run.dir=.", "hydra.output_subdir=null", *arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_circuits_are_shown_and_written(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("same.qasm").write_text('OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\nx q[1]; cx q[0],q[1];\n')
    options = ("compile.target=same.qasm", "compile.num_circuits=2", "compile.save_folder=found")
    status, out, err = run(capsys, model, *options)
    assert (status, err) == (0, "")
    assert "1 x, 1 cx" in out, "the table"
    assert "┤ X ├┤ X ├" in out, "the drawing"
    assert "found 2 distinct exact circuits for 'same.qasm' (" in out
    files = sorted(path.name for path in Path("found").iterdir())
    assert files == ["00001.qasm", "00002.qasm", "circuits.png", "summary.json"]
    summary = json.loads(Path("found/summary.json").read_text())
    target = Operator(qasm2.load("same.qasm"))
    for number, described in enumerate(summary["circuits"], start=1):
        circuit = qasm2.load(f"found/{number:05d}.qasm")
        assert Operator(circuit).equiv(target)
        assert described["file"] == f"{number:05d}.qasm"
        assert described["exact"]
        assert described["infidelity"] < 1e-12
        assert described["num_gates"] == circuit.size()
        assert described["gates"] == dict(circuit.count_ops())
    assert summary["compile"]["target"] == "same.qasm"
    assert summary["num_exact"] >= 2
    assert Path("found/circuits.png").stat().st_size > 1000

    before = {path: path.read_bytes() for path in Path("found").iterdir()}
    status, _, err = run(capsys, model, *options)
    assert (status, err) == (2, "error: 'found' already exists: choose another compile.save_folder\n")
    assert {path: path.read_bytes() for path in Path("found").iterdir()} == before


def test_the_best_is_given_where_none_is_exact(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = "random:2:20"  # which takes more gates than the model writes
    options = (f"compile.target={target}", "compile.max_tries=40", "compile.save_folder=found")
    status, out, err = run(capsys, model, *options)
    assert status == 3
    found = f"found no exact circuit for {target!r}; the circuit shown is the nearest one"
    assert f"{found} (0 of 40 samples were exact, 0" in out
    assert err == ("error: found 0 of 1 circuit in 40 tries: raise compile.max_tries\n")
    assert sorted(path.name for path in Path("found").iterdir()) == ["best.qasm", "circuits.png", "summary.json"]
    assert ", not exact (infidelity 0." in Path("found/best.qasm").read_text()
    summary = json.loads(Path("found/summary.json").read_text())
    assert [described["exact"] for described in summary["circuits"]] == [False]


def test_dropped_circuits_are_counted(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("compile.target=ghz", "compile.max_gates=1", "compile.max_tries=500")
    assert run(capsys, model, *options)[::2] == (
        2,
        "error: no circuit of at most 1 gate is the target (7 were tried): raise compile.max_gates (at most 3)\n",
    )
    monkeypatch.setattr(reach, "_MOST_BYTES", 0)  # as if they were too many to try them all
    status, _, err = run(capsys, model, *options)
    assert status == 3
    assert " had more than compile.max_gates=1: raise compile.max_gates or raise compile.max_tries" in err


def test_a_target_from_a_matrix(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("cx.npy", 1j * np.eye(4)[[0, 3, 2, 1]])
    status, out, _ = run(capsys, model, "compile.target=cx.npy", "compile.gates=[cx]")
    assert status == 0
    assert "1 cx" in out
    assert "q_0: ──■──" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compile.target=qft:3"], "the target has 3 qubits, but the model writes circuits of at most 2"),
        (["compile.target=toffoly"], "did you mean 'toffoli'?"),
        (["compile.target=gone.npy"], "'gone.npy': there is no such file"),
        (["compile.target=ghz", "compile.gates=[h,y]"], "gate 'y' is not in the model's gate pool"),
        (["compile.target=ghz", "compile.gates=[]"], "compile.gates: expected a list of 1 or more entries"),
        (["compile.target=random:1", "compile.gates=[cx]"], "none of the gates ['cx'] fits"),
        (["compile.target=ghz:1", "compile.gates=[cx]"], "gate 'cx' acts on 2 qubits, but the target has 1"),
        (["compile.target=ghz", "compile.max_gates=0"], "compile.max_gates: expected 1 or more, given 0"),
        (["compile.target=ghz", "compile.max_gates=4"], "max_gates is 4, but the model writes circuits of at most 3"),
        (["compile.target=ghz", "compile.device=tpu"], "unknown device 'tpu'"),
        (
            ["compile.target=qft"],
            "no circuit of h, cx and x is the target: all of them are real, up to a global phase, and the target is "
            "not: use a model that was also trained on t (datasets.gate_set)",
        ),
        (["compile.target=ghz", "compile.edit.coupling=[]"], "the target joins qubits [1] with the others"),
        (["compile.target=ghz", "compile.edit.fixed_qubits=[0,1]"], "the target acts on qubit 0, but compile.gates"),
        (["compile.target=ghz", "compile.max_gates=2", "compile.edit.min_gates=3"], "more than 2 are not possible"),
        (
            ["compile.target=ghz", "compile.gates=[h]", "compile.edit.start=cx.qasm", "compile.edit.keep=[0]"],
            "edit.keep has step 0, cx on qubits [0, 1], which compile.gates=['h'] does not allow",
        ),
        (["compile.target=ghz", "compile.edit.start=gone.npy"], "there is no such file: give the path of a file"),
        ([], "compile.target: is required"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(model: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cx.qasm").write_text('OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncx q[0],q[1];\n')
    status, out, err = run(capsys, model, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_missing_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved model"):
        find_for_target(CompileConfig(model_dir=str(tmp_path / "gone"), target="ghz"))


def test_a_model_of_schmidt_rank_vectors_does_not_compile(
    dataset: CircuitDataset, make_config: MakeConfig, tmp_path: Path
) -> None:
    save_pipeline(make_pipeline(pipeline_config(make_config(), dataset)), tmp_path / "srv", "", {})
    with pytest.raises(ConfigError, match="this model takes Schmidt rank vectors: use `quantum-diffusion sample`"):
        find_for_target(CompileConfig(model_dir=str(tmp_path / "srv"), target="ghz"))


def test_a_model_of_unitaries_does_not_sample(model: str) -> None:
    with pytest.raises(QuantumDiffusionError, match="this model takes unitaries: use `quantum-diffusion compile`"):
        find_circuits(SampleConfig(model_dir="model", srv=(1, 1)))
