"""What several tests share: tiny data sets, tiny training configurations, and the rule for GPU tests."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from quantum_diffusion.circuits.circuit import Instruction
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import compact, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.prompts import srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import encode_ids
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.validation import validate
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.training import training

TINY_MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"width": 16, "depth": 2, "num_heads": 2},
    "unet": {
        "model_features": [64, 64],
        "t_emb_size": 16,
        "num_heads": [2, 2],
        "num_res_blocks": [1, 1],
        "transformer_depths": [1, 1],
    },
    "policy": {"width": 16, "depth": 2},
}

WITHOUT_ANGLES = tuple(name for name, gate in GATES.items() if not gate.num_angles)
"""The gates for what is not for gates with angles; test_gate_harness.py tests what all gates have in common."""

MakeConfig = Callable[..., TrainingConfig]

settings.register_profile("any machine", deadline=None)  # on a busy one an example may take any time
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what stays: looking through torch and Qiskit again and again takes a fifth."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def draw_dataset(num_qubits: int, max_gates: int, count: int, seed: int = 0) -> CircuitDataset:
    """Return `count` distinct random circuits of h and cx with their Schmidt rank vectors."""
    pool = GatePool(["h", "cx"])
    table = instruction_table(pool, num_qubits)
    drawn = random_ids(np.random.default_rng(seed), table, 20 * count, 2, max_gates)
    ids = compact(np.unique(drawn, axis=0))
    ids = ids[np.random.default_rng(seed).permutation(len(ids))[:count]]
    assert len(ids) == count
    labels = [srv_prompt(ranks) for ranks in schmidt_rank_vectors(ids, table)]
    prompts = tuple(sorted(set(labels)))
    return CircuitDataset(
        tokens=encode_ids(ids, table),
        prompt_index=np.array([prompts.index(label) for label in labels], dtype=np.int32),
        prompts=prompts,
        sizes=np.stack([np.full(count, num_qubits), (ids != 0).sum(axis=1)], axis=1).astype(np.int16),
        gate_pool=pool,
    )


@pytest.fixture(scope="session")
def dataset() -> CircuitDataset:
    """48 circuits of 3 qubits and at most 5 gates."""
    return draw_dataset(3, 5, 48)


@pytest.fixture(scope="session")
def mixed_dataset() -> CircuitDataset:
    """Circuits of 2 and of 3 qubits."""
    return merge_datasets([draw_dataset(2, 4, 16), draw_dataset(3, 6, 32)])


@pytest.fixture
def make_config(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeConfig]:
    """Return a function that makes tiny training configurations; loop settings are its keywords.

    The trainings leave an empty picture of their losses, for drawing it takes longer than they do; the mark `draws`
    lets them draw.
    """

    def make(
        model: str = "transformer",
        scheduler: str = "masked",
        *,
        general: dict[str, Any] | None = None,
        model_params: dict[str, Any] | None = None,
        scheduler_params: dict[str, Any] | None = None,
        sections: dict[str, Any] | None = None,
        **loop: Any,
    ) -> TrainingConfig:
        gaussian = {} if scheduler == "masked" else {"num_train_timesteps": 50, "sample_steps": 5}
        values = {
            "general": {"dataset": "unused", "output_path": str(tmp_path / "model"), "device": "cpu", "verbose": False}
            | (general or {}),
            "training": {
                "batch_size": 16,
                "num_epochs": 1,
                "precision": "32",
                "log_every": 1,
                "lr_scheduler": "constant",
                "learning_rate": 3e-3,
                "validation_fraction": 0.1,
            }
            | loop,
            "model": {"type": model, "params": TINY_MODELS[model] | (model_params or {})},
            "text_encoder": {"params": {"width": 16, "depth": 1, "num_heads": 2}},
            "scheduler": {"type": scheduler, "params": gaussian | (scheduler_params or {})},
        } | (sections or {})
        return validate(TrainingConfig, values, "training")

    with pytest.MonkeyPatch.context() as patched:
        if request.node.get_closest_marker("draws") is None:
            patched.setattr(training, "save_loss_curve", lambda run_folder, path: path.touch())
        yield make


@pytest.fixture
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two nodes on this computer, to which this process is connected."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def repeated(dataset: CircuitDataset, times: int) -> CircuitDataset:
    """Return a data set that has every circuit several times: as many steps in fewer epochs, each of which is saved."""
    parts = {name: np.concatenate([getattr(dataset, name)] * times) for name in ("tokens", "prompt_index", "sizes")}
    targets = None if dataset.targets is None else np.concatenate([dataset.targets] * times)
    return replace(dataset, **parts, targets=targets)


def read_gates(text: str) -> tuple[Instruction, ...]:
    """Read "cx 0 1; h 2" as instructions."""
    instructions = []
    for part in filter(None, text.split("; ")):
        name, *qubits = part.split()
        split = GATES[name].num_controls
        numbers = tuple(map(int, qubits))
        instructions.append(Instruction(name, numbers[:split], numbers[split:]))
    return tuple(instructions)


def with_entry(position: tuple[Any, ...], value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what changes one entry, or a slice, in a copy of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed[position] = value
        return changed

    return change


def run_here(capfd: pytest.CaptureFixture, command: str, *arguments: str, status: int = 0) -> tuple[str, str]:
    """Run a command in this process; it must end with the status. Returns its output and what it says of errors."""
    from quantum_diffusion.cli import run_command

    capfd.readouterr()
    ended = run_command(command, list(arguments))
    output, errors = capfd.readouterr()
    assert ended == status, output + errors
    assert "Traceback" not in errors
    return output, errors


ROOT = Path(__file__).parents[1]
"""The repository."""


def script(name: str) -> list[str]:
    """Return the command that runs a file of scripts/."""
    return [sys.executable, str(ROOT / "scripts" / name)]


def run(folder: Path, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; it must end with the status, and never with a traceback."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result
