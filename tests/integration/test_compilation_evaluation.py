"""Evaluation of a compilation model end to end: figures, files, the check against training, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import qasm2
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import as_two_channels, from_two_channels
from quantum_diffusion.circuits.prompts import gates_prompt
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import encode_ids, ids_from_circuits
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import DatasetConfig, EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import CheckpointError, IncompatibleDatasetsError
from quantum_diffusion.evaluation.evaluator import Evaluator
from quantum_diffusion.evaluation.report.results import MOST_FAILED
from quantum_diffusion.evaluation.report.tables import summary_rows
from quantum_diffusion.evaluation.target_evaluation import TargetResult, evaluate_targets
from quantum_diffusion.evaluation.target_metrics import TargetMetrics
from quantum_diffusion.evaluation.target_samples import draw_targets
from quantum_diffusion.evaluation.training_data import TrainingData
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.tasks.samples import Requests, SampledCircuits
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig, draw_dataset, read_gates


def generate(folder: Path, **options: object) -> Path:
    values = {
        "gate_set": ["h", "cx", "x"],
        "num_qubits": 2,
        "min_gates": 1,
        "max_gates": 4,
        "num_samples": 60,
        "condition_type": "UNITARY",
        "n_jobs": 1,
        "output_path": str(folder),
        **options,
    }
    DatasetGenerator(DatasetConfig.model_validate(values)).write()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    train = generate(folder / "train")
    unseen = generate(folder / "unseen", exclude=str(train), seed=1, num_samples=20)
    mixed = generate(folder / "mixed", seed=2, num_samples=100)
    wide = generate(folder / "wide", num_qubits=3, num_samples=20)
    pool = generate(folder / "pool", gate_set=["h", "cx", "z"], num_samples=20)
    return {"train": train, "unseen": unseen, "mixed": mixed, "wide": wide, "pool": pool}


@pytest.fixture
def model(make_config: MakeConfig, data: dict[str, Path]) -> Path:
    return DiffusionTrainer(make_config(max_steps=2, general={"dataset": str(data["train"])})).run().folder


def config(model: Path, dataset: Path, **options: object) -> EvaluationConfig:
    values = {"num_targets": 12, "samples_per_target": 50, "device": "cpu", "max_drawings": 4}
    return EvaluationConfig.model_validate(values | {"dataset": str(dataset), "model_dir": str(model)} | options)


def run(settings: EvaluationConfig) -> TargetResult:
    result = Evaluator(settings).run()
    assert isinstance(result, TargetResult)
    return result


def said_of_targets(figures: TargetMetrics) -> str:
    return next(meaning for name, _, meaning in summary_rows(figures) if name == "targets")


def test_figures_agree_with_the_samples_and_the_files(model: Path, data: dict[str, Path], tmp_path: Path) -> None:
    settings = config(model, data["unseen"], save_folder=str(tmp_path / "results"))
    result = run(settings)
    figures, exact = result.metrics, result.tries.exact
    assert exact.shape == (figures.num_targets, 50)
    assert figures.exact_rate == exact.mean() == pytest.approx(figures.best_of["1"])
    assert figures.best_of["50"] == exact.any(axis=1).mean() > 0
    assert list(figures.best_of) == ["1", "2", "4", "8", "16", "32", "50"]
    assert figures.valid_rate == 1.0
    assert sum(figures.infidelity_counts) == exact.size
    assert sum(figures.best_infidelity_counts) == figures.num_targets
    assert figures.infidelity_counts[0] == exact.sum()
    assert sum(group.num_targets for group in figures.by_length.values()) == figures.num_targets
    assert sum(group.num_targets for group in figures.by_allowed_gates.values()) == figures.num_targets
    assert figures.against_own.num_targets == exact.any(axis=1).sum()
    assert 0 < figures.qiskit_rate <= 1
    assert 0 < figures.baseline_random_rate < 1
    assert (figures.on_training_data, figures.num_known_circuits, figures.num_known_targets) == (False, 0, 0)

    folder = tmp_path / "results"
    written = json.loads((folder / "metrics.json").read_text())
    assert written["exact_rate"] == figures.exact_rate
    assert written["evaluation"]["samples_per_target"] == 50
    for name, target, gates in zip(result.targets.names, result.targets.matrices, result.targets.gates, strict=True):
        files = sorted((folder / "circuits" / name).glob("*.qasm"))
        assert len(files) == len(result.verified[name])
        for file in files:
            circuit = qasm2.load(file)
            assert Operator(circuit).equiv(Operator(target)), "as Qiskit reads and simulates it"
            assert set(circuit.count_ops()) <= set(gates)
        lengths = [len(circuit) for circuit in result.verified[name]]
        assert lengths == sorted(lengths)
    unsolved = {name: row for row, name in enumerate(result.targets.names) if not result.verified[name]}
    assert len(list((folder / "failed").iterdir())) == len(result.failed) == min(len(unsolved), MOST_FAILED) > 0
    for file, (title, _) in zip(sorted((folder / "failed").iterdir()), result.failed, strict=True):
        found, target = Operator(qasm2.load(file)).data, result.targets.matrices[unsolved[title.partition(",")[0]]]
        infidelity = 1 - abs(np.vdot(found, target)) ** 2 / len(target) ** 2
        assert f"infidelity {infidelity:.2g}" in title
        assert file.read_text().startswith(f"// failed: {title}\n")
    assert (folder / "success.png").read_bytes()[:4] == (folder / "circuits.png").read_bytes()[:4] == b"\x89PNG"
    again = run(settings)
    assert replace(again.metrics, seconds=0) == replace(figures, seconds=0), "the same, in place of the first"


def test_samples_do_not_depend_on_the_blocks(
    model: Path, data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_pipeline(model)
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    dataset, settings = dataset_loader().load_dataset(data["unseen"]), config(model, data["unseen"])
    calls: list[tuple[int, int]] = []
    whole = evaluate_targets(pipeline, dataset, settings, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (whole.tries.exact.size, whole.tries.exact.size)
    sizes: list[int] = []
    sample = pipeline.sample

    def counted(requests: Requests, *args: Any, **options: Any) -> SampledCircuits:
        sizes.append(len(requests))
        return sample(requests, *args, **options)

    monkeypatch.setattr(pipeline, "sample", counted)
    monkeypatch.setattr("quantum_diffusion.evaluation.target_samples._BLOCK_BYTES", 30 * 4 * 4 * 16)
    parts = evaluate_targets(pipeline, dataset, settings)
    assert max(sizes) == 30, "complex128 of two qubits; less than the samples of one target"
    np.testing.assert_array_equal(whole.tries.ids, parts.tries.ids)
    np.testing.assert_array_equal(whole.tries.infidelities, parts.tries.infidelities)


def test_targets_that_occur_in_training_are_counted_and_left_out(model: Path, data: dict[str, Path]) -> None:
    result = run(config(model, data["mixed"], num_targets=1000))
    figures = result.metrics
    assert figures.on_training_data is False
    assert figures.num_known_targets is not None
    assert figures.num_known_circuits is not None
    assert figures.num_known_targets >= figures.num_known_circuits > 0
    training = from_two_channels(dataset_loader().load_dataset(data["train"]).targets)
    overlap = np.abs(np.einsum("nij,mij->nm", training.conj(), result.targets.matrices))
    assert (overlap < 4 - 1e-3).all(), "no target is a unitary of training"
    assert f"{figures.num_known_targets} by what they do" in said_of_targets(figures)


def test_figures_on_training_data_say_so(model: Path, data: dict[str, Path]) -> None:
    figures = run(config(model, data["train"])).metrics
    assert figures.on_training_data is True
    assert figures.num_known_targets is None
    assert summary_rows(figures)[0][0] == "exact (training data)"
    assert "the model was trained on them" in said_of_targets(figures)


def test_training_data_that_are_gone_are_not_checked(
    model: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = model / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(str(data["train"]), "stream:quick_test_unitary"))
    figures = run(config(model, data["unseen"], save_folder=str(tmp_path / "results"))).metrics
    why = "it was trained on 'stream:quick_test_unitary', whose circuits were not kept"
    assert figures.num_known_circuits is None
    assert f"NOT CHECKED whether training had them: {why}" in said_of_targets(figures)
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["not_checked"] == why
    assert caplog.messages == [f"cannot check whether targets occur in the training data: {why}"]


def test_equal_tasks_are_asked_once(data: dict[str, Path]) -> None:
    dataset = dataset_loader().load_dataset(data["mixed"])
    twice = dataset.take(np.concatenate([np.arange(5), np.arange(5)]))
    assert len(draw_targets(twice, 1000, 0)) == len(draw_targets(dataset.take(np.arange(5)), 1000, 0)) <= 5


def test_what_does_not_fit_is_refused_before_sampling(
    model: Path, data: dict[str, Path], tmp_path: Path, make_config: MakeConfig, dataset: CircuitDataset
) -> None:
    save_dataset(dataset, tmp_path / "srv", {})
    refusals = {
        tmp_path
        / "srv": "the data set is of condition_type SRV: give one generated with datasets.condition_type=UNITARY",
        data["pool"]: r"the model has the gates \['h', 'cx', 'x'\], the data set \['h', 'cx', 'z'\]",
        data["wide"]: "circuits of 3 qubits, but the model writes at most 2",
    }
    for folder, message in refusals.items():
        with pytest.raises(IncompatibleDatasetsError, match=message):
            Evaluator(config(model, folder))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "success.png").write_text("mine")
    with pytest.raises(CheckpointError, match="no earlier evaluation that might be replaced"):
        Evaluator(config(model, data["unseen"], save_folder=str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "success.png").read_text() == "mine"

    trainer = DiffusionTrainer(make_config(max_steps=2, general={"output_path": str(tmp_path / "srv_model")}))
    trainer.setup_model(draw_dataset(2, 4, 16))
    trainer.compile_model()
    srv_model = trainer.save_model(trainer.train()).folder
    with pytest.raises(IncompatibleDatasetsError, match="the model is for Schmidt rank vectors, but"):
        Evaluator(config(srv_model, data["unseen"]))


def test_no_target_left_and_wrong_unitaries_are_refused(model: Path, data: dict[str, Path]) -> None:
    pipeline = load_pipeline(model)
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    dataset, settings = dataset_loader().load_dataset(data["unseen"]), config(model, data["unseen"])
    with pytest.raises(
        IncompatibleDatasetsError, match=r"every target .* occurs in the training data: give a data set"
    ):
        evaluate_targets(pipeline, dataset, settings, training=TrainingData((dataset,)))
    assert dataset.targets is not None
    shifted = replace(dataset, targets=np.roll(dataset.targets, 1, axis=0))
    with pytest.raises(IncompatibleDatasetsError, match=r"the target stored in row \d+ .* is not that of its circuit"):
        evaluate_targets(pipeline, shifted, settings)


def test_smaller_targets_can_be_compiled(make_config: MakeConfig, data: dict[str, Path]) -> None:
    wide = DiffusionTrainer(make_config(max_steps=2, general={"dataset": str(data["wide"])})).run().folder
    result = run(config(wide, data["mixed"]))
    assert result.targets.matrices.shape[1:] == (4, 4)
    assert {circuit.num_qubits for circuits in result.verified.values() for circuit in circuits} == {2}


def test_targets_of_several_widths_keep_their_own(make_config: MakeConfig, data: dict[str, Path]) -> None:
    parts = [dataset_loader().load_dataset(data[name]) for name in ("mixed", "wide")]
    dataset = merge_datasets(parts)
    pipeline = load_pipeline(
        DiffusionTrainer(make_config(max_steps=2, general={"dataset": str(data["wide"])})).run().folder
    )
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    result = evaluate_targets(pipeline, dataset, config(Path("model"), data["mixed"], num_targets=40))
    targets, widths = result.targets, result.targets.requests.num_qubits
    assert set(widths.tolist()) == {2, 3}
    assert [circuit.num_qubits for circuit in targets.own_circuits] == widths.tolist()
    assert [len(matrix) for matrix in targets.corners] == (2**widths).tolist()
    for name, width in zip(targets.names, widths.tolist(), strict=True):
        assert {circuit.num_qubits for circuit in result.verified[name]} <= {width}
    narrow = np.flatnonzero(widths == 2)
    tried = result.tries.ids[narrow].reshape(len(narrow) * 50, -1)
    assert (pipeline.table.operands[tried] < 2).all(), "nobody asked for the third qubit"


def test_targets_made_with_needless_gates_are_compared_in_normal_form(
    model: Path, data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A circuit found is never credited with gates of the target's own circuit that cancel each other."""
    pipeline = load_pipeline(model)
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    pool = pipeline.gate_pool
    table = instruction_table(pool, 2)
    ids = ids_from_circuits([Circuit(2, read_gates("h 0; h 0; x 1"))], table, 4)
    dataset = CircuitDataset(
        tokens=encode_ids(ids, table),
        prompt_index=np.zeros(1, dtype=np.int32),
        prompts=(gates_prompt(pool.names, pool),),
        sizes=np.array([[2, 3]], dtype=np.int16),
        gate_pool=pool,
        condition_type="UNITARY",
        targets=as_two_channels(unitaries(ids, table)),
    )
    settings = config(model, data["unseen"], samples_per_target=400)
    figures = evaluate_targets(pipeline, dataset, settings).metrics
    assert figures.against_own.num_targets == 1
    assert (figures.against_own.mean_gates, figures.against_own.mean_gates_other) == (1, 1)
    assert figures.against_own.shorter_rate == 0
    assert list(figures.by_length) == ["3"], "but lengths are those of the data set"

    # Only what simulation confirms in the very form that is written is called verified.
    monkeypatch.setattr(
        "quantum_diffusion.evaluation.target_samples.normal_form", lambda ids, table: np.zeros_like(ids)
    )
    assert not any(evaluate_targets(pipeline, dataset, settings).verified.values())


def test_a_single_drawing_is_drawn(model: Path, data: dict[str, Path], tmp_path: Path) -> None:
    run(config(model, data["unseen"], max_drawings=1, save_folder=str(tmp_path / "results")))
    assert (tmp_path / "results" / "circuits.png").is_file()


def test_the_command_shows_figures_and_refuses_in_one_line(
    model: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["evaluation.num_targets=4", "evaluation.samples_per_target=40", "evaluation.device=cpu"]
    arguments = ["evaluation=quick_test_unitary", f"evaluation.model_dir={model}", *small]
    assert run_command("evaluate", [*arguments, f"evaluation.dataset={data['unseen']}"]) == 0
    assert (model / "evaluation" / "success.png").is_file()
    assert (model / "evaluation" / "metrics.md").read_text().count("solved, best of") == 2
    assert run_command("evaluate", [*arguments, f"evaluation.dataset={data['wide']}"]) == 2
    said = capfd.readouterr()
    assert said.err.startswith("error: the data set has circuits of 3 qubits")
    assert said.err.count("\n") == 1
