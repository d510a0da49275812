"""The models that come with the package: they open, are small, have a card, and answer their commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, qasm2
from qiskit.quantum_info import Operator, Statevector

import quantum_diffusion as qd
from quantum_diffusion.circuits.gates import have_angles
from quantum_diffusion.circuits.matrices import infidelities
from quantum_diffusion.circuits.prompts import srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.cli import run_command
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pretrained import (
    DEFAULTS,
    QUBITS_WITH_ANGLES,
    WEIGHTS,
    WITH_ANGLES,
    model_folder,
    pretrained_names,
)
from quantum_diffusion.search.choosing import MOST_GATES, WITHOUT_ANGLES, attempts_for
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.targets import TargetTask

MIB = 2**20


def test_all_of_them_open_and_are_small() -> None:
    names = pretrained_names()
    assert {name for models in (*DEFAULTS.values(), *WITH_ANGLES.values()) for name in models} == set(names)
    total = 0
    for name in names:
        size = sum(file.stat().st_size for file in (WEIGHTS / name).rglob("*") if file.is_file())
        assert size < 12 * MIB, name
        total += size
        pipeline = load_pipeline(WEIGHTS / name)
        assert pipeline.task.command in DEFAULTS
        for file in ("training_config.yaml", "metadata.yaml", "README.md"):
            text = (WEIGHTS / name / file).read_text(encoding="utf-8")
            assert not re.search(r"(^|[\s'\"=:])/\w+/", text), f"{name}/{file} has a path of one machine"
        for words in ("## Data", "## Recipe", "## Figures", "## Limits"):
            assert words in text
    assert total < 40 * MIB


@pytest.mark.parametrize("qubits", range(3, 9))
def test_vectors_of_all_widths_are_answered(qubits: int) -> None:
    pipeline = load_pipeline("pretrained:srv")
    rng = np.random.default_rng(qubits)
    prompts = []
    while len(prompts) < 40:
        label = rng.integers(1, 3, qubits).tolist()
        if label.count(2) != 1:
            prompts.append(srv_prompt(label))
    assert pipeline.sample(prompts, 0).matches.mean() > 0.9


@pytest.mark.parametrize("name", DEFAULTS["compile"])
def test_unitaries_are_compiled(name: str) -> None:
    pipeline = load_pipeline(f"pretrained:{name}")
    assert isinstance(pipeline.task, TargetTask)
    ids = random_ids(np.random.default_rng(0), pipeline.table, 12, 1, 9)
    for target in pipeline.task.targets_of(ids, pipeline.table):
        (found,) = find_exact(pipeline, target).circuits
        assert Operator(qasm2.loads(found.circuit.to_qasm2())).equiv(Operator(target))


@pytest.mark.parametrize("name", ["angles_3q", "angles_state"])
def test_targets_are_reached_with_angles(name: str) -> None:
    pipeline = load_pipeline(f"pretrained:{name}")
    assert isinstance(pipeline.task, TargetTask)
    rng = np.random.default_rng(3)
    ids = random_ids(rng, pipeline.table, 8, 2, 6)
    angles = pipeline.table.random_angles(ids, rng)
    for target in pipeline.task.targets_of(ids, pipeline.table, angles):
        (found,) = find_exact(pipeline, target.squeeze()).circuits
        made = Operator(qasm2.loads(found.circuit.to_qasm2())).data[:, : target.shape[1]]
        assert infidelities(made[None], target[None])[0] < 1e-10


@pytest.mark.parametrize(
    ("command", "target", "settings", "names"),
    [
        ("compile", "toffoli", {}, "unitary_3q angles_3q"),
        ("compile", "qft:3", {}, "angles_3q"),  # complex
        ("compile", "ising:2:t0.3", {}, "angles_3q"),  # irrational
        ("compile", "ising:2:t0.3", {"tolerance": 0.1}, "brief unitary_3q angles_3q"),
        ("compile", "qft:3", {"gates": ["h", "cx"]}, "unitary_3q"),
        ("compile", "toffoli", {"gates": ["h", "cx", "rz"]}, "angles_3q"),
        ("compile", "qft:4", {}, "unitary_3q"),  # too wide for the models with angles
        ("compile", "no such name", {}, "unitary_3q"),
        ("prepare", "ghz:3", {}, "state angles_state"),
        ("prepare", np.array([0.6, 0, 0, 0.8]), {}, "brief state angles_state"),  # 0.36 is near 23593 / 2**16 by chance
        ("prepare", "w:3", {}, "angles_state"),
        ("prepare", "w:5", {}, "state"),
        ("prepare", "ghz:3", {"gates": ["ry", "cx"]}, "angles_state"),
    ],
)
def test_models_are_asked_in_order(command: str, target: Any, settings: dict[str, Any], names: str) -> None:
    gates, tolerance = settings.get("gates"), settings.get("tolerance", 0.0)
    attempts = attempts_for(command, target, gates, tolerance=tolerance)
    assert " ".join(f"{'brief ' * one.is_brief}{one.folders[0].name}" for one in attempts) == names
    (named,) = attempts_for(command, target, gates, "pretrained:srv")
    assert named.folders[0].name == "srv", "a model that is named"


def test_targets_that_need_angles_are_made_whatever_their_numbers() -> None:
    """Squared amplitudes may be near integers over a power of two by chance."""
    rng = np.random.default_rng(0)
    near = [np.cos(np.pi / 6), 0.8, np.cos(0.03), *np.cos(rng.uniform(0, np.pi / 2, 5))]
    for number, cos in enumerate(near):
        state = np.array([cos, 0, 0, np.sqrt(1 - cos**2)])
        (found,) = qd.prepare(state, seed=number, device="cpu").circuits
        assert found.infidelity < 1e-10
        assert abs(np.vdot(Statevector(found.circuit.to_qiskit()).data, state)) ** 2 > 1 - 1e-10


@pytest.mark.parametrize("angle", [1e-3, 3e-3])
def test_small_angles_are_not_taken_for_none(angle: float) -> None:
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.p(angle, 1)
    (found,) = qd.compile(circuit, seed=0, device="cpu").circuits
    assert found.infidelity < 1e-10
    assert len(found.circuit) > 1


def test_with_a_tolerance_angles_may_answer_too() -> None:
    assert qd.prepare("w:3", tolerance=0.01, seed=0, device="cpu").circuits
    discrete = qd.prepare("ghz:3", tolerance=0.01, seed=0, device="cpu")
    assert not have_angles(discrete.gates)
    timed = qd.compile("ising:2:t0.3", tolerance=1e-4, max_seconds=4, seed=0, device="cpu")
    assert timed.circuits
    assert timed.seconds < 12


def test_the_limits_of_pretrained_models_are_those_they_say() -> None:
    for command, names in DEFAULTS.items():
        for name in names if command != "sample" else ():
            config = load_pipeline(f"pretrained:{name}").config
            assert tuple(config.gate_pool) == WITHOUT_ANGLES
            assert config.max_gates <= MOST_GATES
    for command, (name,) in WITH_ANGLES.items():
        assert load_pipeline(f"pretrained:{name}").config.num_qubits == QUBITS_WITH_ANGLES[command]


def test_the_fourier_transform_has_the_gates_of_the_textbook(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("compile", ["qft:3", "compile.gates=[h,cp,swap]", "compile.device=cpu"]) == 0
    assert "3 h, 3 cp, 1 swap" in capsys.readouterr().out


def test_commands_need_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command("sample", ["sample.srv=[1,2,2]", "sample.device=cpu"]) == 0
    assert "verified to have SRV [1, 2, 2]" in capsys.readouterr().out
    assert run_command("compile", ["compile.target=toffoli", "compile.device=cpu"]) == 0
    assert "found 1 distinct exact circuit for 'toffoli' (beam search" in capsys.readouterr().out
    assert run_command("compile", ["compile.target=ghz:4", "compile.device=cpu"]) == 0
    assert "found 1 distinct exact circuit for 'ghz:4' (beam search" in capsys.readouterr().out
    assert run_command("compile", ["compile.target=ghz:5", "compile.device=cpu"]) == 0
    assert "found 1 distinct exact circuit for 'ghz:5' (beam search" in capsys.readouterr().out
    assert run_command("compile", ["compile.target=ghz:6"]) == 2
    assert "the target has 6 qubits, but the model writes circuits of at most 5" in capsys.readouterr().err
    assert run_command("prepare", ["prepare.target=ghz:5", "prepare.device=cpu"]) == 0
    assert "found 1 distinct exact circuit for 'ghz:5' (beam search" in capsys.readouterr().out
    assert run_command("compile", ["compile.target=ghz", "compile.model_dir=pretrained:unitary"]) == 2
    assert "unknown pretrained model 'unitary': did you mean 'unitary_" in capsys.readouterr().err
    assert run_command("prepare", ["w:3", "prepare.device=cpu"]) == 0
    assert "gates without angles do not make the target exactly" in capsys.readouterr().out
    assert run_command("compile", ["qft:4", "compile.device=cpu"]) == 2
    assert "pretrained models of gates with angles take at most 3 qubits" in capsys.readouterr().err
    assert run_command("prepare", ["w:5", "prepare.max_tries=1", "prepare.device=cpu"]) == 3
    assert "pretrained models of gates with angles take at most 4 qubits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("target", "model"), [("toffoli", "pretrained:unitary_3q"), ("qft:3", "pretrained:angles_3q")])
def test_the_model_that_answered_is_named(
    target: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [target, "compile.device=cpu", f"compile.save_folder={tmp_path / 'found'}"]
    assert run_command("compile", ["--json", *keys]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == model
    assert json.loads((tmp_path / "found" / "summary.json").read_text())["model"] == model
    assert qd.compile(target, seed=0, device="cpu").model == model


def test_circuits_of_qiskit_keep_to_constraints() -> None:
    chain, line = "xxz:3:J0.4:delta0.4:h0.2:t0.25", [(0, 1), (1, 2)]
    (found,) = qd.compile(chain, tolerance=1e-4, coupling=line, max_tries=16, seed=0, device="cpu").circuits
    assert found.source == "Qiskit"
    assert {tuple(sorted(step.qubits)) for step in found.circuit.instructions if len(step.qubits) > 1} == {*line}
    elsewhere = qd.compile(chain, tolerance=1e-4, coupling=[(0, 1), (0, 2)], max_tries=16, seed=0, device="cpu")
    assert not elsewhere.circuits
    settings: dict[str, Any] = {"gates": ["h", "cx", "rz"], "max_tries": 16, "seed": 0, "device": "cpu"}
    (toffoli,) = qd.compile("toffoli", max_gates=15, **settings).circuits
    assert toffoli.circuit.gate_counts == {"h": 2, "cx": 6, "rz": 7}
    too_long = qd.compile("toffoli", max_gates=14, **settings)
    assert not too_long.circuits
    assert too_long.num_too_long > 0


def test_folders_are_taken_as_they_are() -> None:
    assert model_folder("some/folder") == Path("some/folder")
