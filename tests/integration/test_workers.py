"""Sampling on workers: evaluation and search have the figures of one process, and say as well what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.matrices import from_two_channels
from quantum_diffusion.config.schema import DatasetConfig, EvaluationConfig, SampleConfig, SamplingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.evaluation.srv_evaluation import evaluate
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.sampling import find_circuits
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig


def trained(make_config: MakeConfig, folder: Path, data: CircuitDataset) -> DiffusionPipeline:
    trainer = DiffusionTrainer(make_config(max_steps=2, general={"output_path": str(folder)}))
    trainer.setup_model(data)
    trainer.compile_model()
    return load_pipeline(trainer.save_model(trainer.train()).folder)


def test_two_processes_make_the_same_circuits(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    check_workers(make_config, dataset, tmp_path, {"n_jobs": 2})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_ray_cluster_of_two_nodes_makes_the_same_circuits(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    check_workers(make_config, dataset, tmp_path, {"n_jobs": -1, "engine": "ray"})


def check_workers(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, workers: dict[str, Any]) -> None:
    """Evaluate and search with one process and with two workers."""
    of_srv = trained(make_config, tmp_path / "srv", dataset)
    settings = [
        EvaluationConfig(dataset="unused", model_dir="unused", num_samples=101, model_params=SamplingConfig(**options))
        for options in ({}, {"auto_batch_size": 30} | workers)
    ]
    told: list[tuple[int, int]] = []
    one = evaluate(of_srv, dataset, settings[0])
    two = evaluate(of_srv, dataset, settings[1], lambda *counts: told.append(counts))
    assert one.samples.ids.tolist() == two.samples.ids.tolist()
    assert one.samples.report.counts == two.samples.report.counts
    assert (one.verified, one.samples.labels) == (two.verified, two.samples.labels)
    figures = [{**result.metrics.to_dict(), "seconds": 0} for result in (one, two)]
    assert figures[0] == figures[1]
    assert told == [(26, 101), (51, 101), (76, 101), (101, 101)], "two workers, of whom none takes more than 30 at once"

    asked = {"model_dir": str(tmp_path / "srv"), "srv": (1, 1, 1), "num_circuits": 3, "device": "cpu", "max_tries": 60}
    found = [find_circuits(SampleConfig(**asked, model_params=params.model_params)) for params in settings]
    assert found[0] == found[1]
    assert found[0].circuits

    values = {"gate_set": ["h", "cx", "x"], "num_qubits": 2, "max_gates": 4, "num_samples": 60, "n_jobs": 1}
    unitaries, _ = DatasetGenerator(DatasetConfig(condition_type="UNITARY", **values)).generate()
    assert unitaries.targets is not None
    compiling = trained(make_config, tmp_path / "unitary", unitaries)
    target = from_two_channels(unitaries.targets[:1])[0]
    compiled = [find_exact(compiling, target, options=params.model_params, max_tries=40) for params in settings]
    assert np.isfinite([result.best.infidelity for result in compiled if result.best]).all()
    for key in ("circuits", "best", "num_sampled", "num_exact", "num_invalid"):
        assert getattr(compiled[0], key) == getattr(compiled[1], key), key

    edit = Edit(fixed_qubits=(0, 1, 2), min_gates=1)
    with pytest.raises(ConfigError, match="min_gates"):
        of_srv.sample(list(dataset.prompts), 0, settings[1].model_params, edit=edit)


def test_a_number_of_workers_that_is_none_is_refused() -> None:
    for count in (0, -2):
        with pytest.raises(
            ConfigError, match=f"n_jobs: {count} is not a number of workers: give -1 for every core, or 1 or more"
        ):
            SamplingConfig(n_jobs=count)
