"""Evaluation of a saved model in process: figures, files, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import quantum_diffusion
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.costs import depth, two_qubit_gates
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import EditConfig, EvaluationConfig, SampleConfig, SamplingConfig
from quantum_diffusion.config.schema.sampling import Cost
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import CheckpointError, ConfigError, IncompatibleDatasetsError
from quantum_diffusion.evaluation import metrics
from quantum_diffusion.evaluation.evaluator import MEASURES, Evaluator
from quantum_diffusion.evaluation.report.results import MOST_FAILED
from quantum_diffusion.evaluation.srv_evaluation import evaluate, write_results
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.search.sampling import find_circuits
from quantum_diffusion.tasks.srv import SrvSamples
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig, draw_dataset


@pytest.fixture
def model(make_config: MakeConfig, mixed_dataset: CircuitDataset) -> Path:
    trainer = DiffusionTrainer(make_config(max_steps=2))
    trainer.setup_model(mixed_dataset)
    trainer.compile_model()
    return trainer.save_model(trainer.train()).folder


def config(model: Path, **options: object) -> EvaluationConfig:
    values = {"dataset": "unused", "model_dir": str(model), "num_samples": 50, "device": "cpu", **options}
    return EvaluationConfig.model_validate(values)


def test_figures_agree_with_the_samples(model: Path, mixed_dataset: CircuitDataset, tmp_path: Path) -> None:
    settings = config(model, model_params={"sample_steps": 100, "guidance_scale": 2.0, "order": "confidence"})
    result = evaluate(load_pipeline(model), mixed_dataset, settings)
    figures, samples = result.metrics, result.samples
    assert figures.valid_rate == np.mean(samples.report.valid) == 1.0
    assert figures.srv_accuracy == np.mean(samples.matches)
    assert (figures.steps, figures.order, figures.guidance_scale) == (6, "confidence", 2.0)
    counts = [samples.prompts.count(prompt) for prompt in mixed_dataset.prompts]
    assert max(counts) - min(counts) <= 1, "spread evenly over the prompts"
    for prompt, circuits in result.verified.items():
        rows = [row for row in np.flatnonzero(samples.matches) if samples.prompts[row] == prompt]
        assert set(circuits) <= set(samples.circuits(rows))
        table = instruction_table(samples.gate_pool, samples.ranks.shape[1])
        assert len(circuits) == len(np.unique(normal_form(samples.ids[rows], table), axis=0))
        assert [len(c) for c in circuits] == sorted(len(c) for c in circuits)

    folder = tmp_path / "results"
    write_results(result, folder, settings)
    content = json.loads((folder / "metrics.json").read_text())
    assert content["evaluation"]["seed"] == 0
    assert content["provenance"]["quantum_diffusion"] == quantum_diffusion.__version__
    assert {"commit", "python", "torch", "numpy", "device", "finished_at"} <= content["provenance"].keys()
    assert len(list(folder.glob("circuits/*/*.qasm"))) == sum(map(len, result.verified.values()))
    failed = sorted((folder / "failed").iterdir())
    assert 0 < len(failed) <= MOST_FAILED
    backend = QiskitBackend()
    for file in failed:
        asked, got = map(json.loads, re.findall(r"\[.*?\]", file.read_text().partition("\n")[0]))
        circuit = backend.from_native(backend.read_qasm(file.read_text()))
        assert backend.schmidt_rank_vector(circuit)[: len(got)] == got != asked


def test_empty_circuits_are_neither_exact_nor_novel_nor_written(
    model: Path, mixed_dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_pipeline(model)
    sample = pipeline.sample

    def every_second_is_empty(prompts: list[str], *args: object, **options: object) -> SrvSamples:
        samples = sample(prompts, 0)
        samples.report.ids[::2] = 0
        return pipeline.task.verify(pipeline.requests(prompts), samples.report, pipeline.table)

    before = evaluate(pipeline, mixed_dataset, config(model)).samples.empty.mean()
    assert before < 0.5
    monkeypatch.setattr(pipeline, "sample", every_second_is_empty)
    result = evaluate(pipeline, mixed_dataset, config(model))
    figures, samples = result.metrics, result.samples
    assert figures.valid_rate == 1.0
    assert figures.empty_rate == np.mean(samples.gate_counts == 0) >= 0.5
    assert figures.srv_accuracy == np.mean(samples.matches)
    assert not samples.matches[samples.empty].any()
    assert all(len(circuit) for circuits in result.verified.values() for circuit in circuits)
    table = instruction_table(samples.gate_pool, samples.ranks.shape[1])
    keys = metrics.circuit_keys(samples.ids, table, samples.num_qubits)
    known = metrics.dataset_keys(mixed_dataset, samples.ranks.shape[1], samples.ids.shape[1])
    novel = ~np.isin(keys, known) & (samples.gate_counts > 0)
    assert figures.srv_accuracy_novel == np.mean(samples.matches[novel])
    made = keys[samples.gate_counts > 0]
    assert figures.novel_rate == pytest.approx(len(np.unique(keys[novel])) / len(np.unique(made)))
    write_results(result, tmp_path / "results", config(model))
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["empty_rate"] == figures.empty_rate


def test_a_full_disk_leaves_earlier_results(
    model: Path, mixed_dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = evaluate(load_pipeline(model), mixed_dataset, config(model))
    write_results(result, tmp_path / "results", config(model))
    before = sorted(path.name for path in (tmp_path / "results").rglob("*"))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("quantum_diffusion.files.flush", full)
    with pytest.raises(CheckpointError, match="the disk is full"):
        write_results(result, tmp_path / "results", config(model))
    assert sorted(path.name for path in (tmp_path / "results").rglob("*")) == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_figures_that_cannot_be_written_are_shown(
    model: Path,
    mixed_dataset: CircuitDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path) -> None:
        if path.name == "metrics.json":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("quantum_diffusion.files.flush", full)
    save_dataset(mixed_dataset, tmp_path / "data", {})
    settings = {"dataset": tmp_path / "data", "model_dir": model, "num_samples": 20, "save_folder": tmp_path / "out"}
    for verbose in ("true", "false"):  # the figures are nowhere else
        values = {**settings, "verbose": verbose}
        assert run_command("evaluate", [f"evaluation.{key}={value}" for key, value in values.items()]) == 1
        shown = capsys.readouterr()
        assert "exact" in shown.out.split("Evaluation")[1]
        assert "all results are in" not in shown.out
        assert shown.err.startswith(f"error: cannot write to {str(tmp_path / 'out')!r}: the disk is full")
        assert not (tmp_path / "out" / "metrics.json").exists()


def test_what_does_not_fit_is_refused(model: Path, mixed_dataset: CircuitDataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    save_dataset(draw_dataset(4, 5, 20), folder, {})
    with pytest.raises(IncompatibleDatasetsError, match="4 qubits, but the model writes at most 3"):
        Evaluator(config(model, dataset=str(folder)))
    with pytest.raises(CheckpointError, match="no saved model"):
        Evaluator(config(tmp_path / "nothing", dataset=str(folder)))
    with pytest.raises(ConfigError, match="cannot sample a model trained with"):
        Evaluator(config(model, dataset=str(folder), model_params={"scheduler": "ddim"}))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="a file is where a folder should be"):
        Evaluator(config(model, dataset=str(folder), save_folder=str(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "mine"
    below = str(tmp_path / "file" / "results")
    with pytest.raises(CheckpointError, match="cannot write"):
        Evaluator(config(model, dataset=str(folder), save_folder=below))
    with pytest.raises(CheckpointError, match="cannot write"):
        find_circuits(SampleConfig(model_dir=str(model), srv=(1, 1), save_folder=below))


def test_a_task_without_figures_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(MEASURES, "SRV")
    with pytest.raises(ConfigError, match=r"figures for the tasks UNITARY, STATE, but the model's is SRV: add it to"):
        Evaluator(config(model))


def test_a_smaller_data_set_can_be_evaluated_on(model: Path, tmp_path: Path) -> None:
    save_dataset(draw_dataset(2, 4, 16), tmp_path / "data", {})
    result = Evaluator(config(model, dataset=str(tmp_path / "data"))).run()
    assert result.folder == model / "evaluation"
    assert set(result.samples.num_qubits) == {2}


def test_circuits_on_demand_are_verified_distinct_and_reproducible(model: Path) -> None:
    settings = SampleConfig(model_dir=str(model), srv=(1, 1), num_circuits=5, max_tries=300, device="cpu")
    found = find_circuits(settings)
    assert found == find_circuits(settings)
    assert len(set(found.circuits)) == len(found.circuits) == 5
    assert [len(c) for c in found.circuits] == sorted(len(c) for c in found.circuits)
    assert found.num_exact >= 5
    short = find_circuits(settings.model_copy(update={"max_gates": 2}))
    assert all(len(circuit) <= 2 for circuit in short.circuits)
    assert all(len(circuit) > 0 for circuit in short.circuits)
    few = find_circuits(settings.model_copy(update={"max_tries": 3, "model_params": SamplingConfig(guidance_scale=1)}))
    assert few.num_sampled == 3
    steps: list[tuple[int, int]] = []
    rare = {"srv": (2, 2), "max_gates": 2, "num_circuits": 3, "max_tries": 100}  # there are two
    find_circuits(settings.model_copy(update=rare), lambda *counts: steps.append(counts))
    assert steps == [(12, 100), (24, 100), (48, 100), (96, 100), (100, 100)], "what is rare is sought in larger batches"
    with pytest.raises(ConfigError, match="has 4 qubits"):
        find_circuits(settings.model_copy(update={"srv": (1, 1, 1, 1)}))


def test_a_search_with_time_goes_on_for_cheaper_circuits(model: Path, tmp_path: Path) -> None:
    settings = SampleConfig(model_dir=str(model), srv=(1, 1), num_circuits=3, max_tries=4, device="cpu")
    objective: dict[Cost, float] = {"two_qubit_gates": 2, "depth": 1}
    found = find_circuits(settings.model_copy(update={"max_seconds": 1.0, "objective": objective}))
    assert found.num_sampled > 4, "seconds are what bounds it"
    assert 1 <= found.seconds < 30
    costs = [2 * two_qubit_gates(circuit) + depth(circuit) for circuit in found.circuits]
    assert costs == sorted(costs)

    def stop(_: int, __: int) -> None:
        raise KeyboardInterrupt

    stopped = find_circuits(settings.model_copy(update={"max_seconds": 60.0}), stop)
    assert stopped.interrupted
    assert stopped.num_sampled == 12
    assert stopped.circuits

    start = tmp_path / "start.qasm"
    start.write_text(Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,)))).to_qasm2())
    kept = find_circuits(settings.model_copy(update={"edit": EditConfig(start=str(start), keep=(0, 1))}))
    assert kept.kept == "have the Schmidt rank vector [2, 2]"
