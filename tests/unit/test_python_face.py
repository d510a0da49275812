"""What a caller in Python gives by mistake is refused as a command refuses it: at once, in a line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.config.schema import (
    CompileConfig,
    DatasetConfig,
    GeneralConfig,
    ModelConfig,
    SampleConfig,
    SamplingConfig,
    TrainingConfig,
)
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import QuantumDiffusionError
from quantum_diffusion.evaluation.evaluator import Evaluator
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.checkpoint import load_pipeline, save_pipeline
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.compiling import find_for_target
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.sampling import find_circuits
from quantum_diffusion.training.training import DiffusionTrainer, ModelManager
from tests.conftest import MakeConfig


def refusal(call: Callable[..., Any], *given: Any) -> str:
    with pytest.raises(QuantumDiffusionError) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- configurations

SCHEMA = "quantum_diffusion.config.schema"
PRESETS = "which quantum_diffusion.config.store.compose makes of presets"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: DiffusionTrainer("file.yaml"), f"config is 'file.yaml': give a {SCHEMA}.TrainingConfig, {PRESETS}"),
        (lambda: DiffusionTrainer({}), "config is {}: give a"),
        (lambda: DiffusionTrainer(DatasetConfig()), "config is a DatasetConfig: give a"),
        (lambda: DatasetGenerator(None), f"config is None: give a {SCHEMA}.DatasetConfig, {PRESETS}"),
        (lambda: Evaluator(Path("x.yaml")), f"config is PosixPath('x.yaml'): give a {SCHEMA}.EvaluationConfig"),
        (lambda: find_circuits({"srv": [1, 2, 2]}), f"config is {{'srv': [1, 2, 2]}}: give a {SCHEMA}.SampleConfig"),
        (
            lambda: find_for_target("toffoli"),
            f"config is 'toffoli': give a {SCHEMA}.CompileConfig or {SCHEMA}.PrepareConfig",
        ),
        (lambda: TrainingConfig(), "TrainingConfig.general: is required: give it as key=value"),
        (lambda: TrainingConfig(general=3), "TrainingConfig.general: expected nested keys"),
        (
            lambda: TrainingConfig(general={"dataset": "x"}, training={"learning_rte": 1}),
            "TrainingConfig.training.learning_rte: unknown key 'learning_rte': did you mean 'learning_rate'?",
        ),
        (
            lambda: TrainingConfig(general={"dataset": "x"}, model={"type": "unet", "params": {"widht": 2}}),
            "TrainingConfig.model.params.widht: unknown key",
        ),
        (lambda: ModelConfig(params={"width": "x"}), "ModelConfig.params.width: expected a whole number, given 'x'"),
        (lambda: DatasetConfig(num_qubits="three"), "DatasetConfig.num_qubits: expected a whole number, given 'three'"),
        (lambda: DatasetConfig(num_qubits=True), "DatasetConfig.num_qubits: expected a whole number"),
        (lambda: SamplingConfig(guidance=1), "SamplingConfig.guidance: unknown key 'guidance'"),
        (lambda: SampleConfig(model_dir="m"), "SampleConfig.srv: is required"),
    ],
)
def test_configurations(call: Callable[[], Any], said: str) -> None:
    assert said in refusal(call)


def test_numbers_of_numpy_and_paths_are_read_as_plain() -> None:
    general = GeneralConfig(dataset=PurePosixPath("data"), output_path=Path("model"))
    assert (general.dataset, general.output_path) == ("data", "model")
    whole = TrainingConfig(general={"dataset": Path("data")}, training={"batch_size": np.int64(4)})
    assert (whole.general.dataset, whole.training.batch_size) == ("data", 4)
    assert type(CompileConfig(model_dir=Path("m"), target=Path("u.npy"), seed=np.int32(1)).seed) is int


# ------------------------------------------------------------------------------------------- data and models


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "None: give a path"),
        (7, "7: give a path"),
        ("", "is empty: give a path"),
        ("a\0b", "'a\\x00b': give a path"),
    ],
)
def test_paths(given: Any, said: str) -> None:
    for call in (
        DatasetLoader().load_dataset,
        DiffusionTrainer.load_pipeline,
        load_pipeline,
        ModelManager.from_folder,
        lambda path: ModelManager().register("name", path),
    ):
        assert said in refusal(call, given)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert "no saved model at" in refusal(DiffusionTrainer.load_pipeline, tmp_path / "file")
    assert "no folder" in refusal(ModelManager.from_folder, tmp_path / "file")


def test_devices_and_weights(tmp_path: Path, compiler: CompilationDiffusionPipeline) -> None:
    save_pipeline(compiler, tmp_path / "model", "", {})
    for device in (None, 0, "gpu"):
        assert f"unknown device {device!r}" in refusal(DiffusionTrainer.load_pipeline, str(tmp_path / "model"), device)
    assert "unknown weights 'best'" in refusal(lambda: load_pipeline(tmp_path / "model", weights="best"))
    assert "unknown weights 'best'" in refusal(
        lambda: DiffusionTrainer.load_pipeline(tmp_path / "model", weights="best")
    )
    assert DiffusionTrainer.load_pipeline(str(tmp_path / "model"), torch.device("cpu")).device.type == "cpu"


DATASET = "quantum_diffusion.data.container.CircuitDataset"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda loader, _: loader.combine_datasets([]), "no data sets to combine: give at least one"),
        (lambda loader, _: loader.combine_datasets(None), "datasets is None: give a list, e.g. [dataset]"),
        (lambda loader, _: loader.combine_datasets("ab"), "datasets is 'ab': give a list"),
        (lambda loader, _: loader.combine_datasets(["a"]), f"a data set is 'a': give a {DATASET}"),
        (lambda loader, data: loader.combine_datasets([data], balance_max=0), "balance_max is 0: give 1 or more"),
        (lambda loader, data: loader.combine_datasets([data], max_samples=-3), "max_samples is -3: give 1 or more"),
        (lambda loader, _: loader.get_dataloaders(None, 4), f"dataset is None: give a {DATASET}"),
        (lambda loader, data: loader.get_dataloaders(data, 0), "batch_size is 0: give 1 or more"),
        (lambda loader, data: loader.get_dataloaders(data, "4"), "batch_size is '4': give a whole number"),
        (lambda loader, data: loader.get_dataloaders(data, 2.5), "batch_size is 2.5: give a whole number"),
        (lambda loader, data: loader.get_dataloaders(data, 4, 2), "validation_fraction is 2: give 0 or more, less"),
        (lambda loader, data: loader.get_dataloaders(data, 4, -0.5), "validation_fraction is -0.5: give 0 or more"),
        (lambda loader, data: loader.get_dataloaders(data, 4, "x"), "validation_fraction is 'x': give a number"),
        (lambda loader, data: loader.get_dataloaders(data, 4, num_workers=-1), "num_workers is -1: give 0 or more"),
        (lambda _, data: DatasetLoader(None).get_dataloaders(data, 4), "seed is None: give a whole number"),
    ],
)
def test_data_sets(call: Callable[[DatasetLoader, CircuitDataset], Any], said: str, dataset: CircuitDataset) -> None:
    assert said in refusal(call, DatasetLoader(), dataset)


def test_a_data_set_alone_is_combined_with_nothing(dataset: CircuitDataset) -> None:
    assert DatasetLoader().combine_datasets(dataset) is dataset  # type: ignore[arg-type]
    training, _ = DatasetLoader(np.int64(0)).get_dataloaders(dataset, np.int64(4))
    assert len(next(training.epoch(0))) == 4


# -------------------------------------------------------------------------------------------------- circuits

H = Instruction("h", (), (0,))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: Circuit(1, (Instruction("h", (), (5,)),)),
            "targets=(5,), angles=()) does not fit a circuit of 1 qubit: give different qubits from 0 to 0",
        ),
        (lambda: Instruction("h", (), 0), "Instruction('h').targets is 0: give a list, e.g. (0,)"),
        (lambda: Instruction("h", (), "0"), "Instruction('h').targets is '0': give a list"),
        (lambda: Instruction("h", (), (0.0,)), "Instruction('h').targets is 0.0: give a whole number"),
        (lambda: Instruction(None, (), (0,)), "the gate of an instruction is None: give a str"),
        (lambda: Circuit(2, None), "instructions is None: give a list"),
        (lambda: Circuit(2, ("h",)), "an instruction is 'h': give a quantum_diffusion.circuits.circuit.Instruction"),
        (lambda: Circuit("2", (H,)), "num_qubits is '2': give a whole number"),
        (lambda: Circuit(-1, ()), "num_qubits is -1: give 1 or more"),
        (lambda: GatePool("h"), "the gate set is 'h': give a list of names such as ['h', 'cx']"),
        (lambda: GatePool(None), "the gate set is None: give a list of names such as ['h', 'cx']"),
        (lambda: GatePool([["h"]]), "unknown gate ['h']"),
        (lambda: Edit(keep=3), "edit.keep is 3: give a list, e.g. (0, 1)"),
        (lambda: Edit(start="x.qasm"), "edit.start is 'x.qasm': give a quantum_diffusion.circuits.circuit.Circuit"),
        (lambda: Edit(coupling=[0, 1]), "a pair of edit.coupling is 0: give a list"),
        (lambda: Edit(strength="all"), "edit.strength is 'all': give a number"),
        (lambda: Edit(min_gates="2"), "edit.min_gates is '2': give a whole number"),
    ],
)
def test_circuits(call: Callable[[], Any], said: str) -> None:
    assert said in refusal(call)


def test_lists_and_numbers_of_numpy_make_equal_circuits() -> None:
    plain = Circuit(2, (H, Instruction("cx", (0,), (1,))))
    other = Circuit(np.int64(2), [H, Instruction("cx", [np.int8(0)], np.array([1]))])
    assert other == plain
    assert hash(other) == hash(plain)
    assert other.to_qasm2() == plain.to_qasm2()
    assert GatePool(GatePool(["h", "cx"])) == GatePool(("h", "cx"))
    assert Edit(keep=[np.int64(0)], coupling=[[0, 1]]) == Edit(keep=(0,), coupling=((0, 1),))


# ------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("rows", [[True, False], [0.5], 5, [99], "all", None])
def test_rows_of_samples_are_numbers_of_samples(sampler: DiffusionPipeline, rows: Any) -> None:
    samples = sampler.sample(["Generate SRV: [1, 1]"] * 2, 0)
    assert "rows" in refusal(lambda: samples.circuits(rows))
    assert samples.circuits(np.array([1])) == samples.circuits([-1])
    assert samples.circuits([]) == []


@pytest.fixture
def sampler(make_config: MakeConfig, dataset: CircuitDataset) -> DiffusionPipeline:
    """Three qubits, h and cx; random weights."""
    return DiffusionPipeline(pipeline_config(make_config(), dataset))


@pytest.fixture
def compiler(make_config: MakeConfig) -> CompilationDiffusionPipeline:
    """Two qubits, h and cx; random weights."""
    config = DatasetConfig(num_qubits=2, condition_type="UNITARY", num_samples=20, max_gates=3, n_jobs=1)
    return CompilationDiffusionPipeline(pipeline_config(make_config(), DatasetGenerator(config).generate()[0]))


SRV, FIRST = "Generate SRV: [1, 2, 2]", "Generate SRV: [1, 1, 1]"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda pipeline: pipeline.sample(SRV, seed=0), f"prompts is '{SRV}': give a list, e.g. ['{FIRST}']"),
        (lambda pipeline: pipeline.sample(None, seed=0), "prompts is None: give a list"),
        (lambda pipeline: pipeline.sample([[1, 2, 2]], seed=0), f"prompts has [1, 2, 2]: give texts, e.g. ['{FIRST}']"),
        (lambda pipeline: pipeline.sample(["[1, 2, 2]"], seed=0), f"is not of the form '{SRV}'"),
        (lambda pipeline: pipeline.sample([SRV], seed=None), "seed is None: give a whole number"),
        (lambda pipeline: pipeline.sample([SRV], seed=-1), "seed is -1: give 0 or more"),
        (lambda pipeline: pipeline.sample([SRV], seed=1.0), "seed is 1.0: give a whole number"),
        (lambda pipeline: pipeline.sample([SRV], seed=True), "seed is True: give a whole number"),
        (lambda pipeline: pipeline.sample([SRV], 0, first_sample=None), "first_sample is None: give a whole number"),
        (lambda pipeline: pipeline.sample([SRV], 0, {"order": "random"}), "options is {'order': 'random'}: give a"),
        (lambda pipeline: pipeline.sample([SRV], 0, edit={"min_gates": 2}), "edit is {'min_gates': 2}: give a"),
    ],
)
def test_sampling(call: Callable[[DiffusionPipeline], Any], said: str, sampler: DiffusionPipeline) -> None:
    assert said in refusal(call, sampler)


def test_prompts_with_other_spaces_mean_the_same(sampler: DiffusionPipeline) -> None:
    same = [SRV, "Generate SRV: [1,2,2]", " Generate  SRV:[ 1 , 2 , 2 ] ", np.str_(SRV)]
    several = [sampler.sample([prompt], np.int64(3)) for prompt in same]
    assert {samples.prompts for samples in several} == {(SRV,)}
    assert len({samples.report.ids.tobytes() for samples in several}) == 1


CX = np.eye(4)[[0, 3, 2, 1]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda pipeline: pipeline.requests("Compile using: ['h']", [CX]), "prompts is \"Compile using: ['h']\""),
        (lambda pipeline: pipeline.sample(["Compile using: ['h']"], 0), "targets is None: give a list"),
        (lambda pipeline: pipeline.requests(["Compile using: ['h']"], CX), "given 1 prompt for 4 targets"),
        (lambda pipeline: find_exact(pipeline, "qft"), "target_unitary makes one from a name, a file or a circuit"),
        (lambda pipeline: find_exact(pipeline, None), "the target holds object, not numbers"),
        (lambda pipeline: find_exact(pipeline, CX, gates="h"), "give a list of names such as"),
        (lambda pipeline: find_exact(pipeline, CX, gates=7), "give a list of names such as"),
        (lambda pipeline: find_exact(pipeline, CX, max_tries="4"), "max_tries is '4': give a whole number"),
        (lambda pipeline: find_exact(pipeline, CX, max_tries=4.0), "max_tries is 4.0: give a whole number"),
        (lambda pipeline: find_exact(pipeline, CX, num_circuits=None), "num_circuits is None: give a whole number"),
        (lambda pipeline: find_exact(pipeline, CX, max_gates=True), "max_gates is True: give a whole number"),
        (lambda pipeline: find_exact(pipeline, CX, seed=None), "seed is None: give a whole number"),
        (lambda pipeline: find_exact(pipeline, CX, options={}), "options is {}: give a"),
        (lambda pipeline: find_exact(pipeline, CX, edit=3), "edit is 3: give a quantum_diffusion.pipeline.editing"),
    ],
)
def test_compiling(
    call: Callable[[CompilationDiffusionPipeline], Any], said: str, compiler: CompilationDiffusionPipeline
) -> None:
    assert said in refusal(call, compiler)


def test_a_pool_of_gates_may_be_given_as_it_is(compiler: CompilationDiffusionPipeline) -> None:
    asked = {"max_tries": np.int64(4), "seed": np.int64(0)}
    one, other = (find_exact(compiler, CX, gates=gates, **asked) for gates in (GatePool(["cx"]), ["cx"]))
    assert (one.gates, one.circuits) == (other.gates, other.circuits)
