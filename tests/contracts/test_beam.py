"""Beam search: what it returns is exact, allowed and as short as its width can see; merging loses nothing.

Models have random weights, so that a beam wide enough is a search through everything. Qiskit is the judge.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import qasm2
from qiskit.quantum_info import Operator, Statevector

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import COSTS, cost_of
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import as_two_channels, matrix_keys
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, SearchMethod, TrainingConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search import exact
from quantum_diffusion.search.completions import Completions, keys_of
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.targets import TargetTask
from tests.conftest import MakeConfig, read_gates

STEPS = 6
ENCODERS: dict[str, dict[str, Any]] = {
    "UNITARY": {"unitary_encoder": {"params": {"width": 16, "depth": 1, "remaining": True}}},
    "STATE": {"state_encoder": {"params": {"width": 16, "depth": 1, "remaining": True}}},
}


def build(
    make_config: MakeConfig,
    task: str,
    model: str = "policy",
    gates: tuple[str, ...] = ("h", "cx", "t"),
    qubits: int = 2,
    suffix_share: float = 0,
) -> DiffusionPipeline:
    sizes = {"width": 16, "depth": 1, "feed_forward": 1} | ({} if model == "policy" else {"num_heads": 2})
    values = make_config(scheduler_params={"suffix_share": suffix_share}).model_dump()
    values |= ENCODERS[task] | {"model": {"type": model, "params": sizes}}
    settings = DatasetConfig(
        gate_set=gates, num_qubits=qubits, condition_type=task, num_samples=30, max_gates=STEPS, n_jobs=1
    )
    dataset = DatasetGenerator(settings).generate()[0]
    return DiffusionPipeline(pipeline_config(TrainingConfig.model_validate(values), dataset), seed=5)


def targets(
    pipeline: DiffusionPipeline, count: int, gates: int = 5
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    ids = random_ids(np.random.default_rng(4), pipeline.table, count, gates, gates)
    assert isinstance(pipeline.task, TargetTask)
    return ids, pipeline.task.targets_of(ids, pipeline.table)


def least_gates(pipeline: DiffusionPipeline, target: np.ndarray[Any, Any], most: int) -> int:
    """Return the fewest gates of a circuit of a target, by trying all circuits."""
    assert isinstance(pipeline.task, TargetTask)
    numbers = range(1, len(pipeline.table) + 1)
    for length in range(most + 1):
        every = np.array(list(itertools.product(numbers, repeat=length)), dtype=np.int16).reshape(
            len(numbers) ** length, length
        )
        if (pipeline.task.distances(every, target[None], pipeline.table) < 1e-6).any():
            return length
    return most + 1


@pytest.mark.parametrize("task", ENCODERS)
@pytest.mark.parametrize("model", ["policy", "transformer"])
def test_a_wide_beam_finds_the_shortest_circuits(make_config: MakeConfig, task: str, model: str) -> None:
    pipeline = build(make_config, task, model)
    _, matrices = targets(pipeline, 8)
    for target in matrices:
        given = target if task == "UNITARY" else target[:, 0]
        result = find_exact(pipeline, given, search="beam", max_tries=4096, max_seconds=0.5)
        (found,) = result.circuits
        assert result.search == "beam"
        assert len(found.circuit) == least_gates(pipeline, target, 5)
        native = qasm2.loads(found.circuit.to_qasm2())
        if task == "UNITARY":
            assert Operator(native).equiv(Operator(given))
        else:
            assert Statevector(native).equiv(Statevector(given))


def test_guidance_is_obeyed_and_changes_no_truth(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", "transformer")
    _, matrices = targets(pipeline, 3)
    for target in matrices:
        result = find_exact(pipeline, target, options=SamplingConfig(guidance_scale=3.0), search="beam")
        assert all(one.is_exact for one in result.circuits)
        assert len(result.circuits) == 1


def test_what_an_edit_forbids_is_never_written(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", qubits=3)
    target = Operator(qasm2.loads(Circuit(3, read_gates("cx 0 1; cx 1 2; h 0")).to_qasm2())).data
    result = find_exact(pipeline, target, edit=Edit(coupling=((0, 1), (1, 2))), num_circuits=5, max_seconds=1)
    assert result.circuits
    for found in result.circuits:
        assert all(set(step.qubits) != {0, 2} for step in found.circuit.instructions)
    with pytest.raises(ConfigError, match=r"fixed_qubits leave no gates"):
        find_exact(pipeline, target, edit=Edit(fixed_qubits=(0,)))


def test_bounds_objectives_and_numbers_of_circuits(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=("h", "cx", "swap"))
    target = Operator(qasm2.loads(Circuit(2, read_gates("swap 0 1")).to_qasm2())).data
    cheap = find_exact(pipeline, target, objective="gates", max_seconds=1, num_circuits=3)
    assert cheap.circuits[0].circuit.gate_counts == {"swap": 1}
    without = find_exact(pipeline, target, gates=["h", "cx"], max_seconds=1)
    assert without.circuits[0].circuit.gate_counts == {"cx": 3}
    with pytest.raises(ConfigError, match="no circuit of at most 2 gates"):
        find_exact(pipeline, target, gates=["h", "cx"], max_gates=2)
    objectives: list[Any] = [*COSTS, {"depth": 2, "two_qubit_gates": 0.5}]
    for objective in objectives:
        several = find_exact(pipeline, target, gates=["h", "cx"], objective=objective, max_seconds=0.5, num_circuits=2)
        costs = [cost_of(objective)(one.circuit) for one in several.circuits]
        assert costs == sorted(costs)
        assert len({one.circuit for one in several.circuits}) == len(costs) > 1


def test_tolerance_takes_a_shorter_circuit(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=("t", "h", "cx"))
    target = Operator(qasm2.loads(Circuit(1, read_gates("t 0; h 0; t 0")).to_qasm2())).data
    exactly = find_exact(pipeline, target)
    assert exactly.circuits[0].is_exact
    about = find_exact(pipeline, target, tolerance=0.3)
    assert len(about.circuits[0].circuit) < len(exactly.circuits[0].circuit)
    assert not about.circuits[0].is_exact
    assert about.circuits[0].infidelity <= 0.3
    with pytest.raises(ConfigError, match="tolerance is 1"):
        find_exact(pipeline, target, tolerance=1.0)
    with pytest.raises(ConfigError, match="max_seconds is 0"):
        find_exact(pipeline, target, max_seconds=0)


def test_where_nothing_is_exact_the_nearest_is_returned(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=("t", "h", "cx"))
    target = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)) + 1j * np.eye(4))[0]
    result = find_exact(pipeline, target, max_tries=8)
    assert not result.circuits
    assert result.best is not None
    assert 1e-6 < result.best.infidelity < 1


@pytest.mark.parametrize("search", ["beam", "sampling"])
def test_a_timed_search_can_stop_at_the_first_circuit(make_config: MakeConfig, search: SearchMethod) -> None:
    pipeline = build(make_config, "UNITARY")
    target = Operator(qasm2.loads(Circuit(2, read_gates("h 0")).to_qasm2())).data
    result = find_exact(pipeline, target, search=search, num_circuits=256, max_seconds=60, stop_at_first=True)
    assert result.circuits
    assert result.seconds < 30


def test_an_interrupt_gives_what_was_found(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build(make_config, "UNITARY")
    _, (target,) = targets(pipeline, 1)
    calls = iter(range(100))

    def looked(_: int, __: int) -> None:
        if next(calls) == 8:
            raise KeyboardInterrupt

    result = find_exact(pipeline, target, max_seconds=60, progress=looked)
    assert result.interrupted
    assert result.circuits
    assert result.seconds < 30


@pytest.mark.parametrize("task", ENCODERS)
@pytest.mark.parametrize("model", ["policy", "transformer"])
def test_a_beam_goes_on_from_kept_gates(make_config: MakeConfig, task: str, model: str) -> None:
    pipeline = build(make_config, task, model)
    for ids, target in zip(*targets(pipeline, 4), strict=True):
        given = target if task == "UNITARY" else target[:, 0]
        (own,) = circuits_from_ids(ids[None], pipeline.table)
        edit = Edit(start=own, keep=(0, 1))
        result = find_exact(pipeline, given, edit=edit, max_tries=4096)
        (found,) = result.circuits
        assert result.search == "beam"
        assert found.is_exact
        assert found.circuit.instructions[:2] == own.instructions[:2]
        assert result.kept is not None
        infidelity = float(re.findall(r"infidelity (\S+)", result.kept)[0])
        beginning = Circuit(2, own.instructions[:2])
        made = (Operator if task == "UNITARY" else Statevector)(qasm2.loads(beginning.to_qasm2())).data
        assert infidelity == pytest.approx(
            1 - abs(np.vdot(made, given)) ** 2 / given.size ** (task == "UNITARY"), abs=1e-3
        )


def test_beams_are_refused_where_they_cannot_be(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build(make_config, "UNITARY", "transformer")
    start = Circuit(2, read_gates("h 0; cx 0 1"))
    with pytest.raises(ConfigError, match="keep only the first gates"):
        find_exact(pipeline, np.eye(4), search="beam", edit=Edit(start=start, keep=(1,)))
    assert find_exact(pipeline, np.eye(4), edit=Edit(start=start, keep=(1,)), max_tries=4).search == "sampling"
    blind = pipeline.config.model_copy(update={"unitary_encoder": None})
    monkeypatch.setattr(pipeline, "config", blind)
    with pytest.raises(ConfigError, match="conditioned on what is left to do"):
        exact._beam_or_sampling("beam", pipeline, SamplingConfig(), Edit())


@pytest.mark.parametrize("task", ENCODERS)
def test_completions_complete(task: str) -> None:
    table = instruction_table(GatePool(["h", "cx", "t"]), 2)
    kind = TASKS[task]
    assert isinstance(kind, TargetTask)
    target = kind.targets_of(random_ids(np.random.default_rng(0), table, 1, 5, 5), table)[0]
    numbers = tuple(range(1, len(table) + 1))
    completions = Completions(kind, target, numbers, table)
    beginnings = random_ids(np.random.default_rng(1), table, 400, 0, 5)
    matrices = unitaries(beginnings, table)
    missing = target[None] @ matrices.conj().swapaxes(1, 2) if task == "UNITARY" else matrices[:, :, :1]
    turned = missing * np.exp(1j * np.random.default_rng(2).uniform(0, 6, len(missing)))[:, None, None]
    rows, ends = completions.find(keys_of(torch.from_numpy(as_two_channels(turned))))
    whole = np.concatenate([beginnings[rows], ends], axis=1)
    assert len(rows) > 20
    assert (kind.distances(whole, target[None], table) < 1e-9).all()


def test_keys_tell_unitaries_apart_whatever_their_phase_and_rounding() -> None:
    table = instruction_table(GatePool(["h", "cx", "t", "ccx", "s"]), 3)
    matrices = unitaries(random_ids(np.random.default_rng(0), table, 20_000, 0, 12), table)
    turned = matrices * np.exp(1j * np.random.default_rng(1).uniform(0, 6, len(matrices)))[:, None, None]
    keys = keys_of(torch.from_numpy(as_two_channels(turned)))  # in 32 bits
    expected = np.unique(matrix_keys(matrices), return_inverse=True)[1].reshape(-1)
    pairs = np.unique(np.stack([np.unique(keys, return_inverse=True)[1].reshape(-1), expected]), axis=1)
    assert len(np.unique(keys)) == len(np.unique(expected)) == pairs.shape[1]


@pytest.mark.parametrize("gates", [["x"], ["swap"], ["h"], ["x", "z"], ["cx"]])
def test_tables_of_few_gates_end_where_nothing_new_is_made(gates: list[str]) -> None:
    pool = GatePool(gates)
    table = instruction_table(pool, 1 if max(gate.num_qubits for gate in pool) == 1 else 2)
    kind = TASKS["UNITARY"]
    assert isinstance(kind, TargetTask)
    numbers = tuple(range(1, len(table) + 1))
    completions = Completions(kind, np.eye(2**table.num_qubits, dtype=np.complex128), numbers, table)
    every = unitaries(random_ids(np.random.default_rng(0), table, 2000, 0, 12), table)
    rows, ends = completions.find(matrix_keys(every.conj().swapaxes(1, 2)))
    assert completions.most_gates <= 4
    assert len(rows) == 2000, "so few gates make a small group, all of which is known"
    assert len(np.unique(ends, axis=0)) == len(np.unique(matrix_keys(every)))


def test_a_gate_that_is_kept_twice_is_kept(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY")
    edit = Edit(start=Circuit(2, read_gates("h 0; cx 0 1")), keep=(0, 0))
    assert find_exact(pipeline, np.eye(4), search="beam", edit=edit, max_tries=64).search == "beam"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"search": "beams"}, "search 'beams'.* beam"),
        ({"seed": -1}, "seed"),
        ({"max_seconds": float("inf")}, "max_seconds is inf: give seconds"),
    ],
)
def test_odd_arguments_are_refused(make_config: MakeConfig, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_exact(build(make_config, "UNITARY"), np.eye(4), **given)
