"""What lacks memory says in one line what it did, how much of it at once, and which key to lower."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantum_diffusion.config.schema import (
    DatasetConfig,
    EvaluationConfig,
    SampleConfig,
    SamplingConfig,
)
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import OutOfMemoryError
from quantum_diffusion.evaluation.evaluator import Evaluator
from quantum_diffusion.evaluation.inspection import inspect_dataset
from quantum_diffusion.models.transformer import InstructionTransformer
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.sequence import SequenceAdapter
from quantum_diffusion.search.sampling import find_circuits
from quantum_diffusion.tasks.srv import SrvTask
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig
from tests.integration.test_training import Records, assert_same, train


def lack(*_: Any, **__: Any) -> Any:
    """What a GPU raises."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")


def lack_numpy(*_: Any, **__: Any) -> Any:
    """What numpy raises."""
    np.empty(2**50)


def told(work: Callable[[], object]) -> str:
    with pytest.raises(OutOfMemoryError) as raised:
        work()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_building(make_config: MakeConfig, dataset: CircuitDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = DiffusionTrainer(make_config())
    with monkeypatch.context() as patched:
        patched.setattr(InstructionTransformer, "__init__", lack)
        message = told(lambda: trainer.setup_model(dataset))
        assert message.startswith("out of memory while building the model: lower training.model.params")
    trainer.setup_model(dataset)
    monkeypatch.setattr("quantum_diffusion.training.training.MovingAverage", lack)
    assert told(trainer.compile_model).startswith("out of memory while building the model: lower training.model.params")


def test_training_leaves_the_checkpoint_and_goes_on_from_it(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(make_config(num_epochs=3, general={"output_path": str(tmp_path / "whole")}), dataset)
    honest, steps = DiffusionPipeline.training_loss, 0

    def lacks_at_the_fifth(self: DiffusionPipeline, *arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps += torch.is_grad_enabled()
        return honest(self, *arguments, **options) if steps < 5 else lack()

    config = make_config(num_epochs=3, general={"checkpoint_steps": 1})
    records = Records()
    with monkeypatch.context() as patched:
        patched.setattr(DiffusionPipeline, "training_loss", lacks_at_the_fifth)
        message = told(lambda: train(config, dataset, records))
    assert message.startswith("out of memory while training with training.training.batch_size=16 on cpu: lower it")
    assert "training.training.accumulate_batches=2" in message
    assert records.calls[-1] == "failed"
    checkpoints = sorted(path.name for path in (tmp_path / "model" / "run" / "checkpoints").iterdir())
    assert checkpoints == ["000000003.pt", "000000004.pt"]
    records = Records()
    continued, _ = train(config, dataset, records)
    assert records.calls[0] == "start 4 of 9"
    assert_same(continued.state_dict()["network"], whole.state_dict()["network"])


def test_measuring_while_training(
    make_config: MakeConfig, dataset: CircuitDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SequenceAdapter, "sample", lack)
    message = told(lambda: train(make_config(sample_every=1, num_sampled=9), dataset))
    assert message.startswith("out of memory while sampling 9 circuits at once on cpu")
    assert "training.training.num_sampled" in message


@pytest.fixture(scope="module")
def model(dataset: CircuitDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    save_dataset(dataset, folder / "data", {})
    general = {"dataset": str(folder / "data"), "output_path": str(folder / "model"), "device": "cpu"}
    from quantum_diffusion.config.schema import TrainingConfig

    values = {
        "general": general,
        "training": {"num_epochs": 1},
        "model": {"params": {"width": 16, "depth": 1, "num_heads": 2}},
        "text_encoder": {"params": {"width": 16, "depth": 1, "num_heads": 2}},
    }
    DiffusionTrainer(TrainingConfig.model_validate(values)).run()
    return folder / "model"


def test_loading(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(InstructionTransformer, "__init__", lack)
        message = told(lambda: load_pipeline(model))
        assert message.startswith(f"out of memory while loading the model {str(model)!r}: ")
    monkeypatch.setattr("quantum_diffusion.data.dataset.load_dataset_folder", lack_numpy)
    data = model.parent / "data"
    message = told(lambda: DatasetLoader().load_dataset(data))
    assert message.startswith(f"out of memory while loading the data set {str(data)!r}: ")


def test_sampling(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequenceAdapter, "sample", lack)
    pipeline = load_pipeline(model)
    options = SamplingConfig(auto_batch_size=32)
    for count, at_once in ((100, 32), (7, 7)):
        message = told(lambda count=count: pipeline.sample(["Generate SRV: [1, 2, 2]"] * count, 0, options))
        assert message.startswith(f"out of memory while sampling {at_once} circuits at once on cpu: lower")
        assert "model_params.auto_batch_size" in message


def test_verifying_what_was_sampled(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SrvTask, "verify", lack_numpy)
    evaluation = EvaluationConfig(dataset=str(model.parent / "data"), model_dir=str(model), num_samples=50)
    message = told(Evaluator(evaluation).run)
    assert message.startswith("out of memory while evaluating: lower evaluation.num_samples")
    assert not evaluation.results_folder.exists()
    message = told(lambda: find_circuits(SampleConfig(model_dir=str(model), srv=(1, 2, 2))))
    assert message.startswith("out of memory while searching for circuits: ")


def test_inspecting(dataset: CircuitDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum_diffusion.evaluation.inspection._inspect_block", lack_numpy)
    assert told(lambda: inspect_dataset(dataset)).startswith("out of memory while verifying the data set: ")


def test_generating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum_diffusion.data.generation._Drafts.append", lack_numpy)
    generator = DatasetGenerator(
        DatasetConfig(num_samples=20, max_gates=4, output_path=str(tmp_path / "data"), n_jobs=1, max_memory=2)
    )
    for work in (generator.write, generator.generate):
        message = told(work)
        assert message.startswith("out of memory while generating with datasets.n_jobs=1 and datasets.max_memory=2: ")


def test_a_worker_that_the_system_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()

    def killed(config: DatasetConfig, number: int) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr("quantum_diffusion.data.generation.make_shard", killed)
    config = DatasetConfig(num_samples=100_000, output_path=str(tmp_path / "data"), n_jobs=2)
    message = told(DatasetGenerator(config).write)
    assert message.startswith("out of memory while generating with datasets.n_jobs=2 and datasets.max_memory=4: lower")


def test_a_process_with_too_little_memory(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    """A real shortage, not a pretended one."""
    save_dataset(dataset, tmp_path / "data", {})
    general = {"dataset": str(tmp_path / "data"), "output_path": str(tmp_path / "model"), "device": "cpu"}
    config = make_config(general=general, model_params={"width": 8192, "num_heads": 2})
    script = (
        "import resource, sys\n"
        "from quantum_diffusion.config.schema import TrainingConfig\n"
        "from quantum_diffusion.errors import OutOfMemoryError\n"
        "from quantum_diffusion.training.training import DiffusionTrainer\n"
        "trainer = DiffusionTrainer(TrainingConfig.model_validate_json(sys.argv[1]))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "try:\n    trainer.run()\nexcept OutOfMemoryError as problem:\n    print(problem)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, config.model_dump_json()], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.startswith("out of memory while building the model: lower training.model.params")
