"""Steps as graphs, with graphs that any device can have: the numbers of plain steps, and these where graphs fail.

What is recorded must read everything that changes from memory; tests/integration/test_training.py has the GPU's part.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.pipeline import diffusion, graphs
from quantum_diffusion.pipeline import fit as loop
from quantum_diffusion.pipeline.graphs import WARM_UP, CudaGraph, GraphedSteps, make_steps
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.pipeline.step import LossModule
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig
from tests.contracts.test_compilation import ENCODERS
from tests.integration.test_training import POLICY, InterruptAt, Records, assert_same, train


class Recorded:
    """A graph as CUDA's behave: recording does nothing, a replay reads and writes the memory that was recorded."""

    made = 0

    def capture(self, work: Callable[[], Tensor], generator: torch.Generator) -> Tensor:
        type(self).made += 1
        self._work = work
        self._values = torch.zeros(5)
        return self._values

    def replay(self) -> None:
        self._values.copy_(self._work())


@pytest.fixture
def with_graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Let training make its steps as graphs, made by what is given."""

    def use(make_graph: Any) -> None:
        monkeypatch.setattr(loop, "make_steps", lambda *given: GraphedSteps(*given, make_graph=make_graph))

    Recorded.made = 0
    return use


CASES: dict[str, dict[str, Any]] = {
    "masked": {"optimizer": "muon", "lr_scheduler": "cosine", "prefix_head_weight": 0.5, "condition_dropout": 0.2},
    "gaussian": {"model": "unet", "scheduler": "ddim", "optimizer": "adam", "lr_scheduler": "one_cycle"},
    "accumulated": {"optimizer": "adamw", "ema_decay": None, "accumulate_batches": 2, "gradient_clip": None},
    "policy": {"model": "policy", **POLICY, "optimizer": "muon", "tell_gates": 0.5},
    "policy of unitaries": {
        "model": "policy",
        "scheduler_params": {"suffix_share": 1},
        "sections": {"unitary_encoder": {"type": "matrix", "params": {"width": 16, "depth": 1, "remaining": True}}},
        "augment": ["permute_qubits"],
    },
    "policy of angles": {
        "model": "policy",
        "scheduler_params": {"suffix_share": 1},
        "sections": {"unitary_encoder": {"type": "pauli", "params": {"width": 16, "depth": 1, "remaining": True}}},
    },
}


TASKS_OF_CASES = {
    "policy of unitaries": "UNITARY",
    "policy of angles": "UNITARY",
    "dropout": "UNITARY",
    "states": "STATE",
}
"""The others learn Schmidt rank vectors."""


@pytest.fixture
def data_of(dataset: CircuitDataset) -> Callable[[str], CircuitDataset]:
    """Return the data set of a case."""

    def make(case: str) -> CircuitDataset:
        if case not in TASKS_OF_CASES:
            return dataset
        turned = "rx" if "angles" in case else "x"
        values = {"gate_set": ["h", "cx", turned], "num_qubits": 2, "max_gates": 4, "num_samples": 40, "n_jobs": 1}
        return DatasetGenerator(DatasetConfig(condition_type=TASKS_OF_CASES[case], **values)).generate()[0]

    return make


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("case", CASES)
def test_graphs_make_the_steps_that_plain_ones_are(
    make_config: MakeConfig,
    data_of: Callable[[str], CircuitDataset],
    with_graphs: Callable[[Any], None],
    case: str,
    device: str,
) -> None:
    dataset = data_of(case)

    def config(cuda_graphs: bool) -> TrainingConfig:
        general = {"overwrite": True, "device": device}
        return make_config(**CASES[case], num_epochs=4, batch_size=5, cuda_graphs=cuda_graphs, general=general)

    class OnCuda(Recorded):
        """torch's own, counted."""

        def __init__(self) -> None:
            graph = CudaGraph()
            self.replay = graph.replay  # type: ignore[method-assign]
            self._graph = graph

        def capture(self, work: Callable[[], Tensor], generator: torch.Generator) -> Tensor:
            Recorded.made += 1
            return self._graph.capture(work, generator)

    plain, recorded = Records(), Records()
    expected, _ = train(config(False), dataset, plain)
    with_graphs(OnCuda if device == "cuda" else Recorded)
    train(config(True), dataset, InterruptAt(len(plain.steps) // 2))
    state, _ = train(config(True), dataset, recorded)
    assert Recorded.made > 1, "whole batches, before and after the interrupt"
    for one, other in zip(recorded.steps, plain.steps[-len(recorded.steps) :], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4 if device == "cpu" else 1e-3)
        assert one.learning_rate == other.learning_rate
    # Muon works in bfloat16 where that is fast; of many instructions, most gradients are hardly more than rounding.
    near = 5e-3 if CASES[case].get("optimizer") == "muon" or case == "policy of angles" else 1e-3
    for one, other in zip(state.network.parameters(), expected.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=near)
    assert_same(state.state_dict()["schedules"], expected.state_dict()["schedules"])
    for one, other in zip(state.averaged_network.parameters(), expected.averaged_network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=near)
    assert all(isinstance(group["lr"], float) for one in state.optimizers for group in one.param_groups)


def test_what_is_dropped_is_the_same_in_a_graph(
    make_config: MakeConfig,
    data_of: Callable[[str], CircuitDataset],
    with_graphs: Callable[[Any], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dropout draws from torch's own generator, twice in the step that a graph is compared in."""
    data = data_of("dropout")
    config = make_config(num_epochs=WARM_UP + 2, batch_size=16, general={"overwrite": True})
    params = ENCODERS["convolution"]["params"] | {"dropout": 0.5}
    encoder = {"unitary_encoder": {"type": "convolution", "params": params}}
    config = TrainingConfig.model_validate(config.model_dump() | encoder)
    plain, recorded = Records(), Records()
    train(config, data, plain)
    with_graphs(Recorded)
    train(config, data, recorded)
    assert Recorded.made
    assert not [record for record in caplog.records if "graph" in record.message]
    assert [one.loss for one in recorded.steps] == pytest.approx([one.loss for one in plain.steps], rel=1e-4)


class Forgetful(Recorded):
    """Has the first batch in it, not the memory that batches are put in."""

    def replay(self) -> None:
        super().replay()
        self._values += 1


class Failing(Recorded):
    def capture(self, work: Callable[[], Tensor], generator: torch.Generator) -> Tensor:
        work()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand much more")


@pytest.mark.parametrize(
    ("kind", "said"), [(Forgetful, "a graph's loss and gradient norm were"), (Failing, "CUDA error")]
)
def test_where_graphs_fail_steps_are_plain_and_it_is_said_once(
    make_config: MakeConfig,
    dataset: CircuitDataset,
    with_graphs: Callable[[Any], None],
    caplog: pytest.LogCaptureFixture,
    kind: type[Recorded],
    said: str,
) -> None:
    config = make_config(num_epochs=3, batch_size=5, general={"overwrite": True})
    expected, _ = train(config, dataset)
    with_graphs(kind)
    state, _ = train(config, dataset)
    assert_same(state.state_dict(), expected.state_dict())
    [message] = [record.message for record in caplog.records if "graph" in record.message]
    assert said in message
    assert "\n" not in message


def test_rare_shapes_are_trained_on_plainly(
    make_config: MakeConfig,
    dataset: CircuitDataset,
    with_graphs: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_graphs(Recorded)
    train(make_config(num_epochs=WARM_UP, batch_size=16), dataset)  # two whole batches an epoch, and one of its own
    assert Recorded.made == 1
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 0)
    train(make_config(num_epochs=WARM_UP + 1, batch_size=16, general={"overwrite": True}), dataset)
    assert Recorded.made == 1


@pytest.mark.parametrize(
    ("options", "processes", "expected"),
    [
        ({}, 1, "graphs"),
        ({"cuda_graphs": False}, 1, "plain"),
        ({"compile": True}, 1, "plain"),
        ({}, 2, "plain"),
    ],
)
def test_graphs_are_for_one_cuda_device(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], processes: int, expected: str
) -> None:
    monkeypatch.setattr(graphs, "GraphedSteps", lambda *given: "graphs")
    monkeypatch.setattr(graphs, "Steps", lambda *given: "plain")
    team = Team()
    team.size = processes
    network = torch.nn.Linear(1, 1)
    state = TrainingState(network, [], [], None)
    settings = make_config(**options).training
    assert make_steps(network, state, settings, team, torch.device("cuda")) == expected
    assert make_steps(network, state, settings, team, torch.device("cpu")) == "plain"
    scaled = replace(state, scaler=torch.amp.GradScaler("cpu", enabled=True))
    assert make_steps(network, scaled, settings, team, torch.device("cuda")) == "plain"


class AsksNothing(TorchDispatchMode):
    """Refuses what needs a value of a tensor to go on: a graph cannot have it, and a device would be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        asks = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave.Tensor", "is_nonzero")
        assert not any(part in name for part in asks), name
        if name.startswith("aten.index.Tensor"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", [*CASES, "states"])
def test_a_step_asks_nothing(
    make_config: MakeConfig, data_of: Callable[[str], CircuitDataset], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(diffusion, "answers_at_once", lambda device: False)
    data = data_of(case)
    trainer = DiffusionTrainer(make_config(**CASES.get(case, {"augment": ["permute_qubits"]})))
    pipeline = trainer.setup_model(data)
    state = trainer.compile_model()
    state.network.train()
    loss_of = LossModule(pipeline, trainer.config.training)
    steps = GraphedSteps(loss_of, state, trainer.config.training, Team(), torch.device("cpu"), Recorded)
    batches = [next(DatasetLoader(0).get_dataloaders(data, 8, time_multiple=pipeline.time_multiple)[0].epoch(0))]
    for seed in range(2):  # the first makes what is made when first needed
        steps._prepare(seed)
        with AsksNothing() if seed else nullcontext():
            steps._work(batches, capturing=False)
