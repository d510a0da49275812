"""What tasks ask for and what comes back: requests and samples taken apart and joined, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import gate_count, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.matrices import infidelities
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, ids_from_circuits
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.tasks.base import LabelledCircuits
from quantum_diffusion.tasks.candidates import SIMPLIFIERS, draw_circuits, draw_with_subsets, generation_table
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.samples import Requests, Unwanted, joined
from quantum_diffusion.tasks.srv import SrvTask
from quantum_diffusion.tasks.state import StateTask, without_returns
from quantum_diffusion.tasks.targets import TargetTask
from quantum_diffusion.tasks.unitary import UnitaryTask
from tests.conftest import read_gates

TABLE = instruction_table(GatePool(["h", "cx", "t"]), 2)
TARGET_TASKS = [UnitaryTask(), StateTask()]


def known(count: int) -> LabelledCircuits:
    """Circuits of one and of two qubits in turn."""
    ids = random_ids(np.random.default_rng(count), TABLE, count, 1, 4)
    num_qubits = 1 + np.arange(count) % 2
    ids[TABLE.uses_qubit[ids][:, :, 1].any(axis=1) & (num_qubits == 1)] = 0
    return LabelledCircuits([], ids, num_qubits, TABLE)


def asked(task: TargetTask, count: int) -> Requests:
    """What the known circuits do, asked for with all gates or two of them in turn."""
    prompts = [task.prompt([["h", "cx", "t"], ["h", "t"]][row % 2], TABLE.pool) for row in range(count)]

    def circuits(count: int) -> LabelledCircuits:
        found = known(count)
        return LabelledCircuits(prompts, found.ids, found.num_qubits, found.table)

    return task.validation_requests(count, [], circuits, TABLE)


@pytest.mark.parametrize("task", TARGET_TASKS, ids=lambda task: task.name)
def test_validation_asks_for_what_known_circuits_do(task: TargetTask) -> None:
    requests, circuits = asked(task, 6), known(6)
    assert requests.targets is not None
    np.testing.assert_allclose(requests.targets, task.targets_of(circuits.ids, TABLE), atol=1e-12)
    np.testing.assert_array_equal(requests.num_qubits, circuits.num_qubits)
    assert requests.prompts[:2] == (task.prompt(["h", "cx", "t"], TABLE.pool), task.prompt(["h", "t"], TABLE.pool))
    # h and t on each of two qubits, and cx both ways.
    assert requests.allowed.sum(axis=1).tolist() == [1 + 2, 1 + 4] * 3


@pytest.mark.parametrize("task", TARGET_TASKS, ids=lambda task: task.name)
def test_requests_are_taken_by_number_and_repeated(task: TargetTask) -> None:
    requests, rows = asked(task, 6), np.array([4, 1, 1])
    taken = requests.take(rows)
    assert len(taken) == 3
    assert taken.prompts == tuple(requests.prompts[row] for row in rows)
    for name in ("num_qubits", "allowed", "targets"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(requests, name)[rows], err_msg=name)
    single, rows = requests.take(np.array([3])), np.array([3, 3])
    repeated = single.repeated(2)
    assert repeated.prompts == requests.take(rows).prompts
    for name in ("num_qubits", "allowed", "targets"):
        np.testing.assert_array_equal(getattr(repeated, name), getattr(requests, name)[rows], err_msg=name)


def test_requests_without_targets_are_taken_and_repeated() -> None:
    requests = SrvTask().requests(["Generate SRV: [1, 1]", "Generate SRV: [2, 2]"], None, TABLE)
    taken = requests.take(np.array([1]))
    assert taken.prompts == ("Generate SRV: [2, 2]",)
    assert taken.targets is taken.repeated(3).targets is None
    assert taken.repeated(3).prompts == ("Generate SRV: [2, 2]",) * 3


@pytest.mark.parametrize("with_prompts", [False, True])
@pytest.mark.parametrize("with_targets", [False, True])
def test_what_guidance_leads_away_from_is_taken_and_repeated_with_its_requests(
    with_prompts: bool, with_targets: bool
) -> None:
    requests, rows = asked(UnitaryTask(), 6), np.array([4, 1, 1])
    targets = None if requests.targets is None or not with_targets else requests.targets[::-1]
    unwanted = Unwanted(requests.prompts[::-1] if with_prompts else None, targets)
    negative = replace(requests, negative=unwanted).take(rows).negative
    assert negative is not None
    assert negative.prompts == (tuple(requests.prompts[5 - row] for row in rows) if with_prompts else None)
    alone = replace(requests, negative=unwanted).take(rows[:1]).repeated(3).negative
    assert alone is not None
    assert alone.prompts == ((requests.prompts[1],) * 3 if with_prompts else None)
    if targets is None:
        assert negative.targets is None
        assert alone.targets is None
    else:
        np.testing.assert_array_equal(negative.targets, targets[rows])
        np.testing.assert_array_equal(alone.targets, targets[[4, 4, 4]])
    assert requests.take(rows).negative is None
    assert requests.take(rows[:1]).repeated(2).negative is None


@pytest.mark.parametrize("task", TARGET_TASKS, ids=lambda task: task.name)
def test_every_target_has_a_prompt(task: TargetTask) -> None:
    prompt, target = task.prompt(["h"], TABLE.pool), task.targets_of(known(1).ids, TABLE)[0]
    with pytest.raises(ConfigError, match="given 1 prompt for 2 targets: give one prompt per target"):
        task.requests([prompt], [target, target], TABLE)


def test_validation_of_schmidt_rank_vectors_asks_for_every_prompt_in_turn() -> None:
    prompts = ["Generate SRV: [1, 1]", "Generate SRV: [2, 2]", "Generate SRV: [1]"]
    requests = SrvTask().validation_requests(5, prompts, known, TABLE)
    assert requests.prompts == (*prompts, *prompts[:2])
    assert requests.num_qubits.tolist() == [2, 2, 1, 2, 2]


def test_samples_in_parts_are_joined_as_if_made_at_once() -> None:
    task = UnitaryTask()
    requests, ids = asked(task, 6), known(6).ids
    valid = np.array([True, True, False, True, False, True])
    reasons = tuple(VALID if ok else "two gates in one time step" for ok in valid)

    def verified(rows: slice) -> object:
        report = DecodeReport(ids[rows], valid[rows], reasons[rows])
        return task.verify(requests.take(np.arange(6)[rows]), report, TABLE)

    assert joined([verified(slice(1))]).prompts == requests.prompts[:1]
    whole, parts = verified(slice(None)), joined([verified(slice(2)), verified(slice(2, 3)), verified(slice(3, 6))])
    assert len(parts) == 6
    assert parts.prompts == whole.prompts
    assert parts.table is TABLE
    assert parts.report.reasons == reasons
    for name in ("ids", "num_qubits", "infidelities", "matches"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
    np.testing.assert_array_equal(parts.report.valid, valid)
    np.testing.assert_array_equal(parts.matches, valid)


def test_samples_say_what_came() -> None:
    report = DecodeReport(
        np.array([[1], [1], [3]], dtype=np.int16), np.array([True, False, True]), (VALID, "why", VALID)
    )
    requests = SrvTask().requests(["Generate SRV: [1]", "Generate SRV: [1]", "Generate SRV: [2, 2]"], None, TABLE)
    samples = SrvTask().verify(requests, report, TABLE)
    assert [samples.outcome(row) for row in range(3)] == [
        "asked [1]: got [1]",
        "asked [1]: got why",
        "asked [2, 2]: got [1, 1]",
    ]
    assert samples.ranks.tolist() == [[1, 0], [0, 0], [1, 1]], "0 beyond the request, and where there is no circuit"
    assert samples.matches.tolist() == [True, False, False]
    task = UnitaryTask()
    prompts = ["Compile using: ['h']"] * 3
    eye = task.verify(task.requests(prompts, [np.eye(2)] * 3, TABLE), report, TABLE)
    assert [eye.outcome(row).split(": ")[-1] for row in range(2)] == ["infidelity 1", "why"]
    assert eye.infidelities.tolist()[1] == 1


@pytest.mark.parametrize("rows", [[0, 3], [-4, 0], [3], [-4]])
def test_rows_beyond_the_samples_are_refused(rows: list[int]) -> None:
    report = DecodeReport(np.ones((3, 1), dtype=np.int16), np.ones(3, dtype=np.bool_), (VALID,) * 3)
    samples = SrvTask().verify(SrvTask().requests(["Generate SRV: [1]"] * 3, None, TABLE), report, TABLE)
    assert len(samples.circuits([0, -3, 2])) == 3
    assert samples.circuits([]) == []
    with pytest.raises(ConfigError, match=r"there are 3 samples: give 0 to 2"):
        samples.circuits(rows)


def test_tasks_without_targets_have_arrays_of_no_columns() -> None:
    task, ids = TASKS["SRV"], known(4).ids
    for empty, shape in ((task.targets_of(ids, TABLE), (4, 4, 0)), (task.pad(np.zeros((5, 2, 0)), 3), (5, 8, 0))):
        assert empty.shape == shape
        assert empty.dtype == np.complex128
    three = instruction_table(TABLE.pool, 3)
    assert task.targets_of(ids, three).shape == (4, 8, 0)
    assert task.columns(3) == 0
    assert len(set(task.keys_of(np.array([[1, 2], [2, 1], [1, 2]], dtype=np.int16), TABLE).tolist())) == 2


@pytest.mark.parametrize(("samples", "candidates"), [(10, 2**14), (100_000, 2**16), (2**17, 2**17), (10**9, 2**18)])
def test_shards_of_targets_grow_with_the_data_set(samples: int, candidates: int) -> None:
    assert UnitaryTask().num_candidates(DatasetConfig(num_samples=samples)) == candidates


@pytest.mark.parametrize("name", SIMPLIFIERS)
def test_simplified_candidates_do_what_they_did(name: str) -> None:
    ids = random_ids(np.random.default_rng(0), TABLE, 20, 0, 8)
    simplified = SIMPLIFIERS[name](ids, TABLE)
    done = [UnitaryTask().targets_of(circuits, TABLE) for circuits in (ids, simplified)]
    assert infidelities(*done).max() < 1e-9
    assert (gate_count(simplified) < gate_count(ids)).any() == (name != "none")


def test_prompts_of_targets_begin_as_their_task_does() -> None:
    config = DatasetConfig(gate_set=("h", "cx", "t"))
    assert UnitaryTask().label_prompt(0b101, config) == "Compile using: ['h', 't']"
    assert StateTask().label_prompt(0b110, config) == "Prepare using: ['cx', 't']"
    StateTask().check_prompt("Prepare using: ['t']", TABLE.pool, 2)
    for wrong, said in (
        ("Compile using: ['t']", 'is not of the form "Prepare using: '),
        ("Prepare using: ['z']", "allows 'z', but the model's gates are "),
        ("Prepare using: ['t', 'h', 't']", "names a gate twice"),
    ):
        with pytest.raises(ConfigError, match=said):
            StateTask().check_prompt(wrong, TABLE.pool, 2)


def test_stratified_circuits_are_kept_to_as_many_qubits_as_are_aimed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum_diffusion.tasks.srv.CANDIDATES", 500)
    monkeypatch.setattr("quantum_diffusion.tasks.srv._aims", lambda config: np.array([0, 0, 0, 1, 0, 0]))
    config = DatasetConfig(num_qubits=5, min_gates=20, max_gates=30, sampling="stratified")
    drawn = SrvTask().draw(config, np.random.default_rng(0))
    ids, labels = drawn.ids, drawn.labels
    assert len(ids) == len(labels) == 500
    sizes = np.bitwise_count(labels)
    assert sizes.max() == 3
    assert len(np.unique(labels[sizes == 3])) == 10, "every three of the five qubits"


def test_qiskit_competes_for_unitaries_alone() -> None:
    target = UnitaryTask().targets_of(known(6).ids[5:], TABLE)[0]
    found = UnitaryTask().by_qiskit(target, ["h", "cx", "t", "tdg", "s", "sdg"])
    assert found is not None
    table = instruction_table(GatePool(["h", "cx", "t", "tdg", "s", "sdg"]), 2)
    assert UnitaryTask().distances(ids_from_circuits([found], table, len(found)), target[None], table)[0] < 1e-9
    assert StateTask().by_qiskit(target[:, :1], ["h", "cx"]) is None


def test_what_qiskit_finds_is_the_target_of_the_gates() -> None:
    gates = ["h", "s", "cx"]
    table = instruction_table(GatePool(gates), 2)
    targets = unitaries(random_ids(np.random.default_rng(0), table, 6, 4, 8), table)
    found = [UnitaryTask().by_qiskit(target, gates) for target in targets]
    assert any(circuit is not None for circuit in found)
    for circuit, target in zip(found, targets, strict=True):
        if circuit is not None:
            assert {*circuit.gate_counts} <= {*gates}, "Qiskit's Cliffords have sdg, too"
            ids = ids_from_circuits([circuit], table, len(circuit))
            assert UnitaryTask().distances(ids, target[None], table)[0] < 1e-9


def test_candidates_keep_to_the_coupling_and_to_the_qubits_they_may_entangle() -> None:
    config = DatasetConfig(num_qubits=3, gate_set=("h", "cx"), min_gates=8, max_gates=8, coupling=((0, 1), (1, 2)))
    table, rng = generation_table(config), np.random.default_rng(0)

    def joined_pairs(entangle: list[bool]) -> set[frozenset[int]]:
        ids = draw_circuits(config, rng, table, 100, np.tile(entangle, (100, 1)))
        qubits = (frozenset(table.instructions[number - 1].qubits) for number in np.unique(ids[ids > 0]))
        return {pair for pair in qubits if len(pair) == 2}

    assert joined_pairs([True, True, True]) == {frozenset({0, 1}), frozenset({1, 2})}
    assert joined_pairs([True, True, False]) == {frozenset({0, 1})}


def test_every_number_of_allowed_gates_is_equally_likely() -> None:
    config = DatasetConfig(num_qubits=2, gate_set=("h", "cx", "t", "s"), min_gates=1, max_gates=2)
    _, labels = draw_with_subsets(config, np.random.default_rng(0), 4000)
    counts = np.bincount(np.bitwise_count(labels), minlength=5)
    assert counts[0] == 0
    assert ((counts[1:] - 1000) ** 2 / 1000).sum() < 16.3, "3 degrees of freedom, p = 0.001"
    ids, label = draw_with_subsets(config, np.random.default_rng(1), 1)
    assert len(ids) == len(label) == 1


def test_circuits_for_schmidt_rank_vectors_are_simplified_by_their_states() -> None:
    task = SrvTask()
    ids = random_ids(np.random.default_rng(0), TABLE, 50, 0, 8)
    simplified = task.simplify(ids, TABLE)
    np.testing.assert_array_equal(schmidt_rank_vectors(simplified, TABLE), schmidt_rank_vectors(ids, TABLE))
    assert (gate_count(simplified) <= gate_count(ids)).all()
    assert gate_count(simplified).sum() < gate_count(optimize(ids, TABLE)).sum(), "a state allows more than a unitary"
    for num_qubits, left in ((12, 0), (13, 1)):  # of many qubits only the unitary is looked at
        wide = instruction_table(GatePool(["h", "t"]), num_qubits)
        no_effect = np.array([[wide.instructions.index(Instruction("t", (), (0,))) + 1]], dtype=np.int16)
        assert gate_count(task.simplify(no_effect, wide)).tolist() == [left]


def test_circuits_for_states_lose_what_leaves_the_state_unchanged_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quantum_diffusion.tasks.targets.CANDIDATES", 200)
    config = DatasetConfig(num_qubits=2, gate_set=("h", "cx", "t"), min_gates=4, max_gates=6, num_samples=1)
    for optimizer in ("none", "rules"):
        ids = StateTask().draw(config.model_copy(update={"optimize": optimizer}), np.random.default_rng(0)).ids
        has_returns = (gate_count(without_returns(ids, TABLE)) < gate_count(ids)).any()
        assert has_returns == (optimizer == "none")


def test_what_a_circuit_for_schmidt_rank_vectors_has_is_said_and_prompts_are_checked() -> None:
    task = SrvTask()
    bell = ids_from_circuits([Circuit(2, read_gates("h 0; cx 0 1"))], TABLE, 3)[0]
    assert task.outcome_of(bell, 2, None, TABLE) == "have the Schmidt rank vector [2, 2]"
    assert task.outcome_of(bell[:1], 1, None, TABLE) == "have the Schmidt rank vector [1]"
    task.check_prompt("Generate SRV: [2, 2]", TABLE.pool, 2)
    for wrong, said in (
        ("Generate SRV: [2, 2, 1]", "has 3 qubits, but the model has 2"),
        ("Generate SRV: [3, 2]", "is not of the form 'Generate SRV: "),
        ("Compile using: ['h']", "is not of the form 'Generate SRV: "),
        ("Generate SRV: [1, 2]", "single entangled qubit"),
    ):
        with pytest.raises(ConfigError, match=said):
            task.check_prompt(wrong, TABLE.pool, 2)


def turned(share: float) -> np.ndarray:
    """A rotation of one qubit that moves this share of |0> to |1>."""
    kept, moved = np.sqrt(1 - share), np.sqrt(share)
    return np.array([[kept, -moved], [moved, kept]], dtype=np.complex128)


def far_from_product(share: float, num_qubits: int) -> np.ndarray:
    """A state of many qubits that is a product but for this share, between the last qubit and the others."""
    state = np.zeros(2**num_qubits, dtype=np.complex128)
    state[0], state[-1] = np.sqrt(1 - share), np.sqrt(share)
    return state[:, None]


def test_what_is_exact_without_a_qubit_or_without_joining_qubits_needs_neither() -> None:
    for share, needed in ((0.8e-6, False), (1.2e-6, True)):
        for qubit in range(2):
            rotated = np.kron(turned(share), np.eye(2)) if qubit else np.kron(np.eye(2), turned(share))
            assert UnitaryTask().acts_on(rotated, qubit) == needed
            assert UnitaryTask().acts_on(2 * rotated, qubit) == needed, "up to rounding the norm is that of a unitary"
            assert not UnitaryTask().acts_on(rotated, 1 - qubit)
            assert StateTask().acts_on(rotated[:, :1], qubit) == needed
            assert not StateTask().acts_on(rotated[:, :1], 1 - qubit)
        for part in ([3], [0, 1, 2], [0, 3]):
            assert StateTask().joins(far_from_product(share, 4), np.array(part)) == needed
        phases = np.diag(np.exp(1j * np.arcsin(np.sqrt(share)) * (1 - 2.0 * (np.bitwise_count(np.arange(16)) % 2))))
        for part in ([3], [0, 1, 2], [0, 3]):
            assert UnitaryTask().joins(phases, np.array(part)) == needed
    local = np.kron(np.kron(turned(0.3), np.eye(4)), turned(0.4))
    for part in ([0], [3], [1, 2], [0, 1, 3]):
        assert not UnitaryTask().joins(local, np.array(part))
        assert not StateTask().joins(local[:, :1], np.array(part))


@pytest.mark.parametrize("task", TARGET_TASKS, ids=lambda task: task.name)
def test_what_short_circuits_complete_is_the_target_with_them(task: TargetTask) -> None:
    ids = random_ids(np.random.default_rng(0), TABLE, 10, 3, 6)
    target, short = task.targets_of(ids[:1], TABLE)[0], unitaries(ids[1:, :2], TABLE)
    remaining = task.completing(short, target)
    assert remaining.shape == (9, *target.shape)
    if task.name == "STATE":  # the short circuits map what remains to the target
        np.testing.assert_allclose(short @ remaining, np.broadcast_to(target, remaining.shape), atol=1e-12)
    else:  # what remains is what they do
        np.testing.assert_array_equal(remaining, short)


@pytest.mark.parametrize("task", TARGET_TASKS, ids=lambda task: task.name)
def test_the_corner_of_a_padded_target_is_the_target(task: TargetTask) -> None:
    for num_qubits in (1, 3):
        table = instruction_table(GatePool(["h", "t"]), num_qubits)
        target = task.targets_of(random_ids(np.random.default_rng(0), table, 1, 5, 5), table)[0]
        padded = task.pad(target, 4)
        np.testing.assert_array_equal(task.corner(padded, num_qubits), target)
        several = task.pad(np.broadcast_to(target, (2, 3, *target.shape)), 4)
        np.testing.assert_array_equal(several, np.broadcast_to(padded, (2, 3, *padded.shape)))


@pytest.mark.parametrize("task", TARGET_TASKS, ids=lambda task: task.name)
def test_masked_and_huge_targets_are_refused(task: TargetTask) -> None:
    target = task.targets_of(known(1).ids, TABLE)[0]
    assert task.qubits_of(np.ma.masked_array(target)) == 2, "no entry is masked"
    with pytest.raises(ConfigError, match="masked entries"):
        task.qubits_of(np.ma.masked_array(target, mask=target == 1))
    for huge in (1e200, 1e308 * (1 + 1j)):
        with pytest.raises(ConfigError, match=r"is not (unitary|normalised)"):
            task.qubits_of(np.full_like(target, huge))
