"""States from data to circuits: every kind of model, a run that learns, and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import qasm2
from qiskit.quantum_info import Statevector

from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import SamplingConfig, TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.states import target_state
from quantum_diffusion.tasks.targets import TargetSamples
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig, repeated
from tests.contracts.test_states import generate
from tests.integration.test_training import InterruptAt, assert_same, train


def with_states(config: TrainingConfig, remaining: bool) -> TrainingConfig:
    params = {"width": 32, "depth": 1, "remaining": remaining}
    return TrainingConfig.model_validate(config.model_dump() | {"state_encoder": {"params": params}})


def sample(pipeline: Any, data: CircuitDataset, count: int) -> TargetSamples:
    circuits = data.labelled(np.arange(count))
    targets = pipeline.task.targets_of(circuits.ids, circuits.table)
    options = SamplingConfig(guidance_scale=1.0)
    samples = pipeline.sample(pipeline.requests(circuits.prompts, list(targets)), 0, options)
    assert isinstance(samples, TargetSamples)
    return samples


@pytest.mark.parametrize(
    ("model", "scheduler", "remaining"),
    [
        ("transformer", "masked", True),
        ("transformer", "masked", False),
        ("transformer", "ddim", False),
        ("unet", "ddim", False),
    ],
)
def test_a_saved_model_samples_as_the_trained_one(
    make_config: MakeConfig, model: str, scheduler: str, remaining: bool
) -> None:
    loss = {} if scheduler == "masked" else {"objective": "epsilon", "loss": "mse"}
    config = with_states(make_config(model, scheduler, **loss, sample_every=1, num_sampled=8), remaining)
    trainer = DiffusionTrainer(config)
    data = generate(num_samples=60)
    pipeline = trainer.setup_model(data)
    trainer.compile_model()
    summary = trainer.save_model(trainer.train())
    loaded = load_pipeline(summary.folder)
    before, after = sample(pipeline, data, 16), sample(loaded, data, 16)
    assert before.ids.tolist() == after.ids.tolist()
    assert before.infidelities.tolist() == after.infidelities.tolist()


def test_a_continued_run_is_the_whole_run(make_config: MakeConfig, tmp_path: Path) -> None:
    def config(name: str) -> TrainingConfig:
        general = {"output_path": str(tmp_path / name)}
        return with_states(make_config(general=general, augment=["permute_qubits"], num_epochs=3), True)

    data = generate(num_samples=60)
    whole, _ = train(config("whole"), data)
    train(config("parts"), data, InterruptAt(whole.step // 2 + 1))
    parts, _ = train(config("parts"), data)
    assert_same(whole.state_dict(), parts.state_dict())


def test_a_tiny_run_learns_to_prepare(make_config: MakeConfig) -> None:
    data = generate(gate_set=("h", "x", "cx"), num_qubits=2, num_samples=60, max_gates=3)
    config = make_config(
        num_epochs=2,
        num_threads=1,
        batch_size=32,
        learning_rate=5e-3,
        lr_scheduler="one_cycle",
        ema_decay=0.99,
        model_params={"width": 32},
        scheduler_params={"suffix_share": 0.75, "order": "left_to_right"},
    )
    trainer = DiffusionTrainer(with_states(config, True))
    untrained = sample(trainer.setup_model(repeated(data, 60)), data, len(data)).matches.mean()
    trainer.compile_model()
    pipeline = load_pipeline(trainer.save_model(trainer.train()).folder)
    trained = sample(pipeline, data, len(data)).matches.mean()
    assert untrained < 0.3
    assert trained > 0.6, (untrained, trained)

    found = find_exact(pipeline, target_state("ghz:2", 2), num_circuits=2, max_tries=200)
    assert found.circuits
    for one in found.circuits:
        made = Statevector(qasm2.loads(one.circuit.to_qasm2())).data
        assert abs(made.conj() @ target_state("ghz:2", 2)) == pytest.approx(1)
    with pytest.raises(ConfigError, match="give a vector of 2, 4, 8"):
        find_exact(pipeline, np.eye(4))


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """From nothing to verified circuits, and one line for a model or a data set of another task."""
    monkeypatch.chdir(tmp_path)
    made = ["datasets.condition_type=STATE", "datasets.num_qubits=2", "datasets.max_gates=4", "datasets.n_jobs=1"]
    pool = "datasets.gate_set=[h,cx,t]"
    assert run_command("generate", [*made, pool, "datasets.num_samples=12", "datasets.output_path=test"]) == 0
    more = ["datasets.num_samples=100", "datasets.output_path=data", "datasets.exclude=test", "datasets.seed=1"]
    assert run_command("generate", [*made, pool, *more]) == 0
    assert run_command("inspect", ["inspect.dataset=data"]) == 0
    size = [
        "training.model.params.width=32",
        "training.text_encoder.params.width=32",
        "training.training.num_epochs=20",
    ]
    where = ["training.general.dataset=data", "training.general.output_path=model", "training.training.sample_every=10"]
    assert run_command("train", ["training=quick_test_state", *where, *size, "training.training.batch_size=20"]) == 0
    evaluation = ["evaluation=quick_test_state", "evaluation.dataset=test", "evaluation.model_dir=model"]
    assert run_command("evaluate", [*evaluation, "evaluation.samples_per_target=16"]) == 0
    figures = json.loads((tmp_path / "model" / "evaluation" / "metrics.json").read_text())
    assert figures["num_known_targets"] == 0
    assert figures["qiskit_rate"] is None
    assert figures["best_of"]["16"] >= 0.5
    capsys.readouterr()

    assert run_command("prepare", ["prepare.model_dir=model", "prepare.target=ghz:2", "prepare.save_folder=out"]) == 0
    circuit = qasm2.load(tmp_path / "out" / "00001.qasm")
    assert abs(Statevector(circuit).data.conj() @ target_state("ghz:2", 2)) == pytest.approx(1)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["prepare"]["target"] == "ghz:2"
    capsys.readouterr()
    assert run_command("compile", ["compile.model_dir=model", "compile.target=qft:2"]) == 2
    answer = "error: this model takes states: use `quantum-diffusion prepare`, or train on a data set with datasets."
    assert capsys.readouterr().err.startswith(answer + "condition_type=UNITARY")
    assert run_command("prepare", []) == 2
    assert "prepare needs prepare.target: e.g. quantum-diffusion prepare" in capsys.readouterr().err
