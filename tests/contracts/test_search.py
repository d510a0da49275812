"""What a search for circuits of a unitary returns is exact, short, distinct and allowed, whatever the model is worth.

The model has random weights: it writes circuits like a dice, and the simulation alone decides. Qiskit is the judge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qiskit import qasm2
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search import reach
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.exact import choose_gates, find_exact
from quantum_diffusion.tasks import unitary as unitary_task
from tests.conftest import MakeConfig, read_gates

GATES = ("h", "cx", "z", "x", "ccx")
STEPS = 4
TWO_GATES = Circuit(2, read_gates("h 0; x 0"))


@pytest.fixture(params=["masked", "ddim"])
def pipeline(request: pytest.FixtureRequest, make_config: MakeConfig) -> CompilationDiffusionPipeline:
    """Three qubits, at most four gates; the Gaussian one also writes what is no circuit."""
    return build_pipeline(make_config, request.param)


@pytest.fixture
def masked(make_config: MakeConfig) -> CompilationDiffusionPipeline:
    return build_pipeline(make_config, "masked")


def build_pipeline(make_config: MakeConfig, scheduler: str) -> CompilationDiffusionPipeline:
    config = DatasetConfig(gate_set=GATES, condition_type="UNITARY", num_samples=40, max_gates=STEPS, n_jobs=1)
    data = DatasetGenerator(config).generate()[0]
    return CompilationDiffusionPipeline(pipeline_config(make_config("transformer", scheduler), data), seed=3)


def unitary(text: str, num_qubits: int) -> NDArray[np.complex128]:
    return QiskitBackend().unitary(Circuit(num_qubits, read_gates(text)))


def random_rotation(size: int, seed: int) -> NDArray[np.float64]:
    """Return a unitary that long circuits of these gates come near to, but no short one: they are all real."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def check(result: Compilation, target: NDArray[Any], gates: tuple[str, ...], max_gates: int = STEPS) -> None:
    """Assert what holds of every result, by Qiskit, through the text of each circuit."""
    num_qubits = len(target).bit_length() - 1
    for compiled in (*result.circuits, *filter(None, [result.best])):
        native = qasm2.loads(compiled.circuit.to_qasm2())
        operator = Operator(native)
        assert native.num_qubits == num_qubits
        assert native.size() == len(compiled.circuit) <= max_gates
        assert set(native.count_ops()) <= set(gates)
        overlap = abs(np.trace(operator.adjoint().data @ target)) / len(target)
        assert compiled.infidelity == pytest.approx(1 - overlap**2, abs=1e-9)
        assert compiled.is_exact == operator.equiv(Operator(target))
    assert all(compiled.is_exact for compiled in result.circuits)
    lengths = [len(compiled.circuit) for compiled in result.circuits]
    assert lengths == sorted(lengths)
    circuits = [compiled.circuit for compiled in result.circuits]
    table = instruction_table(choose_gates(GatePool(GATES), None, num_qubits), num_qubits)
    forms = normal_form(ids_from_circuits(circuits, table, STEPS), table)
    assert len(np.unique(forms, axis=0)) == len(circuits), "a circuit is there twice"
    assert result.num_exact + result.num_invalid <= result.num_sampled


@pytest.mark.parametrize(
    ("text", "num_qubits"), [("", 1), ("", 3), ("h 0", 1), ("x 1", 2), ("h 0; x 0", 1), ("h 1; z 1; h 1", 2)]
)
def test_short_targets(pipeline: CompilationDiffusionPipeline, text: str, num_qubits: int) -> None:
    target = np.exp(0.3j) * unitary(text, num_qubits)
    result = find_exact(pipeline, target, num_circuits=2, max_tries=600, seed=1)
    check(result, target, GATES)
    if pipeline.config.scheduler.type != "masked":
        assert result.num_invalid > 0
    else:
        assert result.num_invalid == 0
        assert result.circuits, "a dice finds these"
        assert len(result.circuits[0].circuit) <= len(read_gates(text)), "h z h is x"


def test_random_targets(masked: CompilationDiffusionPipeline) -> None:
    rng, outputs = np.random.default_rng(0), 0
    for number in range(12):
        num_qubits = int(rng.integers(1, 3))
        pool = choose_gates(GatePool(GATES), None, num_qubits)
        ids = random_ids(rng, instruction_table(pool, num_qubits), 1, 0, 2)
        target = QiskitBackend().unitary(circuits_from_ids(ids, instruction_table(pool, num_qubits))[0])
        result = find_exact(masked, target, num_circuits=3, max_tries=200, seed=number)
        check(result, target, GATES)
        outputs += len(result.circuits)
    assert outputs >= 12


def test_only_allowed_gates(masked: CompilationDiffusionPipeline) -> None:
    target = unitary("x 0", 2)
    for gates in (("x",), ("z", "h"), ("cx", "h")):
        result = find_exact(masked, target, gates=gates, num_circuits=2, max_tries=300)
        assert result.gates == gates
        check(result, target, gates)


def test_the_bound_counts_gates_after_simplification(
    masked: CompilationDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = unitary("h 0; x 0", 1)
    free = find_exact(masked, target, gates=["h", "x", "z"], num_circuits=50, max_tries=300)
    assert {len(compiled.circuit) for compiled in free.circuits} == {2}, "h x and z h; longer ones are simplified"
    assert free.num_too_long == 0
    with pytest.raises(ConfigError, match=r"no circuit of at most 1 gate is the target \(4 were tried\)"):
        find_exact(masked, target, gates=["h", "x", "z"], max_gates=1)
    monkeypatch.setattr(reach, "_MOST_BYTES", 0)  # as if they were too many to try them all
    bound = find_exact(masked, target, gates=["h", "x", "z"], max_gates=1, num_circuits=50, max_tries=300)
    check(bound, target, GATES, max_gates=1)
    assert not bound.circuits
    assert bound.num_too_long == bound.num_exact == free.num_exact > 0
    assert bound.best is not None
    assert not bound.best.is_exact


def test_what_cannot_be_reached_gives_the_best(masked: CompilationDiffusionPipeline) -> None:
    target = random_rotation(8, seed=0)
    result = find_exact(masked, target, max_tries=100)
    check(result, target, GATES)
    assert (result.circuits, result.num_exact, result.num_sampled) == ((), 0, 100)
    assert result.best is not None
    assert 1e-3 < result.best.infidelity < 1
    more = find_exact(masked, target, max_tries=400)
    assert more.best is not None
    assert more.best.infidelity <= result.best.infidelity


def test_the_search_ends_when_it_has_enough_and_repeats_itself(masked: CompilationDiffusionPipeline) -> None:
    seen: list[tuple[int, int]] = []
    result = find_exact(masked, unitary("", 1), max_tries=500, seed=5, progress=lambda *counts: seen.append(counts))
    assert len(result.circuits) == 1
    assert seen[-1] == (result.num_sampled, 500)
    assert result.num_sampled < 500
    again = find_exact(masked, unitary("", 1), max_tries=500, seed=5, options=SamplingConfig(auto_batch_size=3))
    assert again.circuits == result.circuits
    assert again.num_sampled == result.num_sampled
    assert find_exact(masked, random_rotation(8, seed=1), max_tries=13).num_sampled == 13


def test_the_target_is_not_checked_with_every_sample(
    masked: CompilationDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs the third power of its side."""
    checked, check_unitary = [], unitary_task.qubits_of_unitary
    monkeypatch.setattr(
        unitary_task, "qubits_of_unitary", lambda target: checked.append(target) or check_unitary(target)
    )
    assert find_exact(masked, random_rotation(8, seed=1), max_tries=20).num_sampled == 20
    assert len(checked) == 2, "by the search, which needs its qubits, and by the request for it"


def test_bounds_of_an_edit_and_of_the_search_hold_together(masked: CompilationDiffusionPipeline) -> None:
    """A circuit that is not simplified is written within both: no sample is lost to its length."""
    edit = Edit(start=TWO_GATES, keep=(0,), min_gates=2)
    result = find_exact(masked, unitary("h 0; x 0", 1), max_gates=2, edit=edit, max_tries=200, num_circuits=1)
    assert [one.circuit.gate_counts for one in result.circuits] == [{"h": 1, "x": 1}]
    assert result.num_too_long == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": np.eye(16)}, "the target has 4 qubits, but the model writes circuits of at most 3"),
        ({"target": np.eye(3)}, "the target has shape (3, 3)"),
        ({"target": np.ones((2, 2))}, "the target is not unitary"),
        ({"target": np.full((2, 2), np.inf)}, "not finite"),
        ({"gates": ["hh"]}, "unknown gate 'hh': did you mean 'h'?"),
        ({"gates": []}, "the gate set is empty"),
        ({"gates": ["h", "h"]}, "repeats ['h']"),
        ({"gates": ["h", "y"]}, "gate 'y' is not in the model's gate pool: choose from ['h', 'cx', 'z', 'x', 'ccx']"),
        ({"gates": ["ccx"]}, "gate 'ccx' acts on 3 qubits, but the target has 2"),
        ({"max_gates": 0}, "max_gates is 0, but the model writes circuits of at most 4 gates: give 1 to 4"),
        ({"max_gates": 5}, "max_gates is 5, but the model writes circuits of at most 4 gates"),
        ({"max_gates": 1, "edit": Edit(min_gates=3)}, "edit.min_gates=3: more than 1 are not possible"),
        ({"max_gates": 2, "edit": Edit(min_gates=4, max_gates=3)}, "edit.min_gates=4: more than 2 are not possible"),
        ({"max_gates": 1, "edit": Edit(start=TWO_GATES, keep=(1,))}, "edit.keep has step 1, but max_gates=1"),
        ({"max_tries": 0}, "max_tries is 0: give 1 or more"),
        ({"num_circuits": 0}, "num_circuits is 0: give 1 or more"),
        ({"options": SamplingConfig(scheduler="ddim")}, "model_params.scheduler='ddim' cannot sample"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(masked: CompilationDiffusionPipeline, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(QuantumDiffusionError) as caught:
        find_exact(masked, **({"target": np.eye(4)} | arguments))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
