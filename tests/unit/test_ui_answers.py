"""What the page of `quantum-diffusion ui` is answered: pure functions, wrong and hostile requests."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError
from quantum_diffusion.search.states import target_state
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.ui import answers
from quantum_diffusion.ui.answers import read_coupling, told
from quantum_diffusion.ui.models import Settings
from quantum_diffusion.ui.replay import replay_entanglement, replay_state, replay_unitary
from quantum_diffusion.ui.requests import FindRequest
from quantum_diffusion.ui.script import python_script
from quantum_diffusion.ui.server import PAGE

SETTINGS = Settings(device="cpu")
SRV: dict[str, Any] = {"model": "pretrained:srv", "srv": [1, 2, 2], "num_circuits": 2, "seed": 1}
UNITARY: dict[str, Any] = {"model": "pretrained:unitary_3q", "target": {"name": "ccz"}, "num_circuits": 1, "seed": 1}
STATE: dict[str, Any] = {"model": "pretrained:state", "target": {"name": "ghz:3"}, "num_circuits": 1, "seed": 1}
TOFFOLI = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; ccx q[0],q[1],q[2];'
HOSTILE = "<img src=x onerror=alert(1)>\"'\\\n${x}"


def npy(array: np.ndarray[Any, Any]) -> str:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return base64.b64encode(file.getvalue()).decode()


def test_models_say_what_may_be_asked() -> None:
    answer = answers.models(SETTINGS)
    models = {model["name"]: model for model in answer["models"]}
    assert models["pretrained:srv"]["sizes"] == [3, 4, 5, 6, 7, 8]
    assert {model["command"] for model in models.values()} == {"sample", "compile", "prepare"}
    for name, model in models.items():
        assert model["answers"]
        read = {"compile": target_unitary, "prepare": target_state}.get(model["command"])
        assert all(read is not None and len(read(text, model["num_qubits"])) for text in model["examples"]), name
    assert json.loads(json.dumps(answer)) == answer


def test_circuits_of_a_rank_vector_are_described_by_simulation() -> None:
    answer = answers.find(SRV, SETTINGS)
    assert (answer["command"], answer["seed"], answer["problem"], len(answer["circuits"])) == ("sample", 1, None, 2)
    for row in answer["circuits"]:
        circuit = Circuit.from_qasm(row["qasm"])
        assert QiskitBackend().schmidt_rank_vector(circuit) == row["srv"] == [1, 2, 2]
        assert len(circuit) == row["num_gates"] == len(row["gates"])
    assert "seed" in answer["python"]


def test_coupling_gates_and_bounds_are_kept() -> None:
    asked = {**UNITARY, "target": {"name": "ghz:3"}, "coupling": "line", "gates": ["h", "cx"], "max_gates": 5}
    (row,) = answers.find(asked, SETTINGS)["circuits"]
    circuit = Circuit.from_qasm(row["qasm"])
    assert {one.gate for one in circuit.instructions} <= {"h", "cx"}
    assert all(set(one.qubits) in ({0, 1}, {1, 2}) for one in circuit.instructions if len(one.qubits) > 1)
    assert row["exact"]


@pytest.mark.parametrize(
    "target",
    [
        {"name": " toffoli "},
        {"qasm": TOFFOLI},
        {"file": "u.npy", "content": npy(target_unitary("toffoli", 3))},
        {"file": "u.qasm", "content": base64.b64encode(TOFFOLI.encode()).decode()},
    ],
)
def test_a_target_may_be_given_in_three_ways(target: dict[str, str]) -> None:
    (row,) = answers.find({**UNITARY, "target": target}, SETTINGS)["circuits"]
    assert row["words"] == "3 qubits, ccx on q0 q1 q2"
    assert row["infidelity"] < 1e-9


def test_where_none_is_exact_the_nearest_is_shown() -> None:
    asked = {**UNITARY, "target": {"name": "random:3:12"}, "max_gates": 4, "seed": 5}
    answer = answers.find(asked, SETTINGS)
    assert answer["circuits"] == []
    assert answer["nearest"]["exact"] is False
    assert answer["problem"].startswith("found 0 of 1 circuit")


def test_a_search_ends_when_it_is_stopped_or_its_time_is_up() -> None:
    hard = {**UNITARY, "target": {"name": "random:3:12"}, "num_circuits": 24, "max_seconds": 20}
    assert answers.find(hard, SETTINGS, lambda: True)["problem"].endswith("before the search was stopped")
    answer = answers.find({**hard, "max_seconds": None}, Settings(device="cpu", max_seconds=0.01))
    assert "the time limit of this page" in answer["problem"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "hf://owner/name"}, "unknown model"),
        ({"model": "/etc"}, "unknown model"),
        ({"model": "pretrained:../srv"}, "unknown model"),
        ({"srv": [1, 2, 1]}, "asks for a single entangled qubit"),
        ({"srv": [1, 3, 1]}, "expected 2 or less, given 3"),
        ({"srv": [2] * 9}, "has 9 qubits"),
        ({"srv": None}, "give srv"),
        ({"srv": "all"}, "expected a list"),
        ({"gates": ["h"]}, "leave out gates"),
        ({"target": {"name": "ghz"}}, "no target"),
        ({"coupling": "0-9"}, "has qubit 9"),
        ({"coupling": "0-1; rm"}, "cannot read the coupling"),
        ({"max_seconds": 60}, "at most 20 s"),
        ({"max_seconds": -1}, "more than 0"),
        ({"num_circuits": 10**9}, "24 or less"),
        ({"num_circuits": True}, "a whole number"),
        ({"seed": -1}, "0 or more"),
        ({"guidance_scale": 1e9}, "100 or less"),
        ({"objective": "beauty"}, "unknown cost"),
        ({"save_folder": "/tmp/x"}, "unknown key 'save_folder'"),
        ({"srv": "x" * 10**6}, "expected a list"),
    ],
)
def test_wrong_searches_are_refused_in_a_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(QuantumDiffusionError) as refused:
        answers.find({**SRV, **change}, SETTINGS)
    assert said in told(refused.value)
    assert "\n" not in told(refused.value)
    assert len(told(refused.value)) < 1000


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"name": "/etc/passwd"}, "unknown target"),
        ({"name": "./qft"}, "unknown target"),
        ({"name": "~/u.npy"}, "unknown target"),
        ({"name": "toffoli:9"}, "has 9 qubits"),
        ({"name": HOSTILE}, "unknown target"),
        ({}, "in one way"),
        ({"name": "ghz", "qasm": TOFFOLI}, "in one way"),
        ({"file": "u.npy"}, "needs its name and its content"),
        ({"file": "u.npy", "content": "no base64!"}, "not in base64"),
        ({"file": "u.npy", "content": "AAAA"}, "is not an array"),
        (
            {"file": "u.npy", "content": npy(np.array([{}], dtype=object))},
            "it holds Python objects, or was not written by numpy",
        ),
        ({"file": "u.npy", "content": npy(np.ones((4, 4)))}, "not unitary"),
        ({"file": "u.txt", "content": base64.b64encode(b"hello").decode()}, "the file is of an unknown kind"),
        ({"file": "u.npy", "content": base64.b64encode(bytes(4 * 2**20 + 1)).decode()}, "more than 4 MiB"),
        ({"qasm": 'include "/etc/passwd";'}, "the program"),
        ({"qasm": "\ud800"}, "valid string"),
        ({"qasm": 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2000];'}, "at most 64"),
    ],
)
def test_wrong_targets_are_refused_in_a_line(target: dict[str, str], said: str) -> None:
    with pytest.raises(QuantumDiffusionError) as refused:
        answers.find({**UNITARY, "target": target}, SETTINGS)
    assert said in told(refused.value)
    assert "\n" not in told(refused.value)
    assert len(told(refused.value)) < 1000


@pytest.mark.parametrize("body", [None, [], "text", 3, {}, {"find": 1}, {"model": {}}])
def test_what_is_no_request_is_refused(body: Any) -> None:
    for answer in (lambda: answers.find(body, SETTINGS), lambda: answers.steps(body, SETTINGS)):
        with pytest.raises(ConfigError):
            answer()
    with pytest.raises(ConfigError):
        answers.picture(body)


def test_couplings_are_read_as_people_write_them() -> None:
    assert read_coupling(" 0-1,1 - 2 ; 2-3 ", 4) == read_coupling("Line", 4) == [(0, 1), (1, 2), (2, 3)]
    assert read_coupling("", 3) is read_coupling("ALL", 3) is None
    for text in ("0-1-2", "0,1", ",", "0-1 x", "\u0660-\u0661", "0-1   " * 300 + "x", "-1-0", "0-1" * 500):
        with pytest.raises(ConfigError):
            read_coupling(text, 3)


# ------------------------------------------------------------------------------------------- gate by gate


def test_entanglement_is_that_after_each_gate() -> None:
    circuit = Circuit.from_qasm('OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; h q[0]; cx q[0],q[2]; cx q[0],q[1];')
    steps = replay_entanglement(circuit)["steps"]
    assert [step["srv"] for step in steps] == [[1, 1, 1], [1, 1, 1], [2, 1, 2], [2, 2, 2]]
    assert steps[2]["entropies"] == pytest.approx([1, 0, 1], abs=1e-4)


def test_a_unitary_is_done_step_by_step_up_to_a_phase() -> None:
    circuit = Circuit(2, (Instruction("h", (), (0,)), Instruction("s", (), (1,)), Instruction("cx", (0,), (1,))))
    target = QiskitBackend().unitary(circuit) * np.exp(0.7j)
    steps = replay_unitary(circuit, target)["steps"]
    matrices = [np.array(step["values"]) @ [1, 1j] for step in steps]
    assert np.allclose(matrices[0], target * np.exp(-0.7j), atol=1e-3)
    cx = QiskitBackend().unitary(Circuit(2, circuit.instructions[2:]))
    assert np.allclose(matrices[2], cx, atol=1e-3)
    assert np.allclose(matrices[3], np.eye(4), atol=1e-3)
    assert steps[-1]["overlap"] == 1


def test_a_state_is_made_step_by_step_up_to_a_phase() -> None:
    circuit = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
    answer = replay_state(circuit, np.array([0, 0, 0, 0]) + np.array([1j, 0, 0, 1j]) / np.sqrt(2))
    made = [np.array(step["values"]) @ [1, 1j] for step in answer["steps"]]
    half = np.sqrt(0.5)
    assert np.allclose(made, [[1, 0, 0, 0], [half, half, 0, 0], [half, 0, 0, half]], atol=1e-3)
    assert np.allclose(np.array(answer["wanted"]) @ [1, 1j], made[-1], atol=1e-3)
    assert [step["overlap"] for step in answer["steps"]] == pytest.approx([0.5, 0.25, 1])


def test_a_circuit_without_gates_is_replayed_too() -> None:
    assert len(replay_unitary(Circuit(2, ()), np.eye(4, dtype=np.complex128))["steps"]) == 1


@pytest.mark.parametrize("asked", [SRV, UNITARY, STATE])
def test_what_is_found_is_replayed(asked: dict[str, Any]) -> None:
    found = answers.find(asked, SETTINGS)
    circuit = found["circuits"][0]
    answer = answers.steps({"find": asked, "qasm": circuit["qasm"]}, SETTINGS)
    assert len(answer["steps"]) == circuit["num_gates"] + 1
    assert answer["gates"] == circuit["gates"]
    last = answer["steps"][-1]
    assert last["srv"] == circuit["srv"] if "srv" in last else last["overlap"] == 1
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(
    ("asked", "qasm", "said"),
    [
        (UNITARY, "hello", "OpenQASM"),
        (UNITARY, 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; h q[0];', "2 qubits, unlike the target"),
        (SRV, 'OPENQASM 2.0; include "qelib1.inc"; qreg q[12]; h q[0];', "12 qubits, the model 8"),
        ({**UNITARY, "seed": None}, TOFFOLI, "seed is missing"),
        (
            {"model": "pretrained:unitary_5q", "target": {"name": "ghz"}, "seed": 1},
            'OPENQASM 2.0; include "qelib1.inc"; qreg q[5];' + "h q[0];" * 2100,
            "too large to replay",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(asked: dict[str, Any], qasm: str, said: str) -> None:
    with pytest.raises(QuantumDiffusionError, match=re.escape(said)):
        answers.steps({"find": asked, "qasm": qasm}, SETTINGS)


def test_a_picture_is_a_png() -> None:
    assert answers.picture({"qasm": TOFFOLI}).startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------ Python


@pytest.mark.parametrize("asked", [SRV, UNITARY, {**UNITARY, "gates": ["h", "ccx"], "coupling": "0-1, 1-2,0-2"}])
def test_the_python_does_the_same(asked: dict[str, Any]) -> None:
    answer = answers.find(asked, SETTINGS)
    names: dict[str, Any] = {}
    exec(answer["python"].replace("print(found)", ""), names)
    assert [circuit.to_qasm2() for circuit in names["found"]] == [row["qasm"] for row in answer["circuits"]]


def test_texts_stay_texts_in_the_python() -> None:
    for target in ({"name": HOSTILE[:60]}, {"file": f"../{HOSTILE}.npy", "content": ""}, {"qasm": HOSTILE}):
        request = FindRequest(model=HOSTILE, target=target)
        script = python_script(request, "compile", {"num": 1, "gates": [HOSTILE], "objective": {"gates": 1.0}})
        tree = ast.parse(script)
        calls = [node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")]
        assert sorted(calls) == ["compile", "load"]
        assert len(tree.body) == 4


# --------------------------------------------------------------------------------------------- page files


def test_the_page_makes_no_markup_of_data_and_asks_nobody_else() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir()}
    assert set(files) == {"index.html", "page.css", "page.js", "icon.svg"}
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert forbidden not in files["page.js"], forbidden
    for name, text in files.items():
        outside = {url for url in re.findall(r"https?://[^\s\"')]+", text) if "www.w3.org" not in url}
        assert not outside, name
    page = files["index.html"]
    assert "style=" not in page  # the page's own policy refuses these
    assert not re.search(r"\son\w+=", page)
    used = set(re.findall(r'byId\("([\w-]+)"\)', files["page.js"]))
    assert used <= set(re.findall(r'id="([\w-]+)"', page))
    labelled = set(re.findall(r'<label for="([\w-]+)"', page))
    for tag in re.findall(r"<(?:input|select|textarea)[^>]*>", page):
        identity = re.search(r'id="([\w-]+)"', tag)
        assert "aria-label" in tag or 'type="radio"' in tag or (identity and identity[1] in labelled), tag


def test_models_of_a_folder_are_offered_and_broken_ones_are_named(tmp_path: Path) -> None:
    import shutil

    from quantum_diffusion.pretrained import WEIGHTS

    for name in ("mine", "broken"):
        shutil.copytree(WEIGHTS / "unitary_3q", tmp_path / name)
    (tmp_path / "broken" / "config.yaml").write_text("format: something")
    settings = Settings(folder=str(tmp_path), device="cpu")
    models = {model["name"]: model for model in answers.models(settings)["models"]}
    assert models[str(tmp_path / "mine")]["command"] == "compile"
    assert "does not describe" in models[str(tmp_path / "broken")]["problem"]
    assert len(answers.find({**UNITARY, "model": str(tmp_path / "mine")}, settings)["circuits"]) == 1
    with pytest.raises(ConfigError, match="unknown model"):
        answers.find({**UNITARY, "model": str(tmp_path / "mine")}, SETTINGS)
