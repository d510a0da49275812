"""The task of states: what is stored, what is left to do, what a name or a file stands for; against Qiskit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector, state_fidelity
from torch import Tensor

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import compact, gate_count, instruction_table
from quantum_diffusion.circuits.matrices import as_two_channels, from_two_channels, infidelities, matrix_keys, pad_state
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import statevectors
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.data.storage import load_dataset_folder, save_dataset
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError, DatasetFormatError, GateSetError, IncompatibleDatasetsError
from quantum_diffusion.evaluation.inspection import inspect_dataset
from quantum_diffusion.interop.genqc_export import export_dataset
from quantum_diffusion.pipeline.augmentation import augment, check_augmentation
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.reach import check_target_reach
from quantum_diffusion.search.states import target_state
from quantum_diffusion.tasks.left_to_do import StatesLeft
from quantum_diffusion.tasks.state import StateTask, without_returns
from tests.conftest import read_gates

POOL = GatePool(["h", "cx", "t", "x", "ccx"])
TABLE = instruction_table(POOL, 3)
TASK = StateTask()
STEPS = 6


def generate(**changes: Any) -> CircuitDataset:
    values = {"gate_set": POOL.names, "condition_type": "STATE", "max_gates": STEPS, "num_samples": 300, "n_jobs": 1}
    return DatasetGenerator(DatasetConfig(**{**values, **changes})).generate()[0]


@pytest.fixture(scope="module")
def data() -> CircuitDataset:
    return generate()


# ------------------------------------------------------------------------------------------------------- data


def test_a_data_set_holds_the_states_of_its_circuits(data: CircuitDataset, tmp_path: Path) -> None:
    assert data.targets is not None
    assert (data.condition_type, data.targets.shape, data.targets.dtype) == ("STATE", (300, 2, 8, 1), np.float32)
    stored = from_two_channels(data.targets)[:, :, 0]
    labelled = data.labelled(np.arange(300))
    for row, circuit in enumerate(circuits_from_ids(labelled.ids, labelled.table)):
        native = QiskitBackend().to_native(circuit)
        np.testing.assert_allclose(stored[row], Statevector(native).data, atol=1e-7)
        allowed = TASK.gates_of(labelled.prompts[row], POOL)
        assert {step.gate for step in circuit.instructions} <= set(allowed)
        assert labelled.prompts[row] == f"Prepare using: {list(allowed)}"

    save_dataset(data, tmp_path / "data", {})
    loaded = load_dataset_folder(tmp_path / "data")
    assert loaded.condition_type == "STATE"
    assert loaded.fingerprint == data.fingerprint
    assert inspect_dataset(loaded).is_right
    wrong = inspect_dataset(replace(data, targets=np.roll(data.targets, 1, axis=0))).wrong["targets"]
    assert wrong.count > 200, "neighbours may make the same state"


def test_states_that_are_left_out_do_not_occur_again(data: CircuitDataset, tmp_path: Path) -> None:
    save_dataset(data.take(np.arange(20)), tmp_path / "test", {})
    others = generate(exclude=str(tmp_path / "test"), seed=1)
    assert data.targets is not None
    assert others.targets is not None
    mine, theirs = (from_two_channels(part.targets)[:, :, 0] for part in (data.take(np.arange(20)), others))
    assert (np.abs(mine.conj() @ theirs.T) < 1 - 1e-4).all()


def test_data_sets_of_several_sizes_are_joined(data: CircuitDataset) -> None:
    narrow = generate(num_qubits=2, gate_set=("h", "cx", "t", "x"), num_samples=30)
    narrow = replace(narrow, gate_pool=POOL)  # ccx is last, so that tokens but for padding mean the same
    padding = GatePool(["h", "cx", "t", "x"]).padding_token
    narrow = replace(
        narrow, tokens=np.where(narrow.tokens == padding, POOL.padding_token, narrow.tokens).astype(np.int8)
    )
    merged = merge_datasets([data, narrow])
    assert merged.targets is not None
    circuits = merged.labelled(np.arange(len(merged)))
    np.testing.assert_allclose(from_two_channels(merged.targets), TASK.targets_of(circuits.ids, TABLE), atol=1e-6)
    with pytest.raises(IncompatibleDatasetsError, match="condition_type STATE and UNITARY"):
        merge_datasets([data, generate(condition_type="UNITARY")])


def test_a_data_set_has_the_targets_of_its_task(data: CircuitDataset, tmp_path: Path) -> None:
    for wrong, message in (
        ({"condition_type": "STATES"}, "unknown condition_type 'STATES': did you mean 'STATE'"),
        ({"condition_type": "SRV"}, "condition_type SRV has none: give None"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(data, **wrong)
    with pytest.raises(DatasetFormatError, match="condition_type STATE store one per circuit"):
        save_dataset(replace(data, targets=None), tmp_path / "data", {})
    assert not (tmp_path / "data").exists()
    assert merge_datasets([data, replace(data.take(np.arange(3)), targets=None)]).targets is None


def test_genqc_has_no_such_task(data: CircuitDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="genQC has no task for states"):
        export_dataset(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_renaming_qubits_keeps_states_right_and_running_backwards_does_not(data: CircuitDataset) -> None:
    assert data.targets is not None
    batch = Batch(
        torch.from_numpy(data.tokens.astype(np.int64)),
        torch.zeros(300, dtype=torch.int64),
        torch.from_numpy(data.sizes.astype(np.int64)),
        torch.from_numpy(data.targets),
    )
    changed = augment(batch, ["permute_qubits"], Noise(torch.Generator().manual_seed(0)))
    assert changed.targets is not None
    renamed = replace(data, tokens=changed.tokens.numpy().astype(np.int8), targets=changed.targets.numpy())
    assert (renamed.tokens != data.tokens).any()
    assert inspect_dataset(renamed).is_right
    check_augmentation(data, ["permute_qubits"])
    with pytest.raises(ConfigError, match="has invert, which is for data sets of condition_type UNITARY"):
        check_augmentation(data, ["invert"])


# ------------------------------------------------------------------------------------------------ left to do


def draw_problem(masked: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return targets of circuits, their ids, and a rank; the last `masked` of an order are not revealed."""
    rng = np.random.default_rng(masked)
    ids = rng.integers(0, len(TABLE) + 1, (12, STEPS)).astype(np.int16)
    rank = rng.random((12, STEPS)).argsort(axis=1)
    rank[:4], rank[4:8] = np.arange(STEPS), np.arange(STEPS)[::-1]
    rank = np.where(rank >= STEPS - masked, STEPS, rank)
    targets = as_two_channels(statevectors(ids, TABLE)[:, :, None])
    return torch.from_numpy(targets), torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(rank)


@pytest.mark.parametrize("masked", [0, 1, 3, STEPS])
def test_the_steps_between_take_what_is_made_to_what_is_wanted(masked: int) -> None:
    targets, ids, rank = draw_problem(masked)
    found = from_two_channels(StatesLeft(TABLE).for_steps(targets, ids, rank).numpy())  # [B, T, D, 2]
    circuits = ids.numpy().astype(np.int16)
    for row in range(len(ids)):
        for step in range(STEPS):
            known = (rank[row] < rank[row, step]).tolist()
            begin, end = [*known, False].index(False), [*known[::-1], False].index(False)
            made = statevectors(circuits[row : row + 1, :begin], TABLE)[0]
            np.testing.assert_allclose(found[row, step, :, 0], made, atol=2e-6)
            between = circuits[row : row + 1, begin : STEPS - end]
            (whole,) = statevectors(np.concatenate([circuits[row : row + 1, :begin], between], axis=1), TABLE)
            np.testing.assert_allclose(found[row, step, :, 1], whole, atol=2e-6)


@pytest.mark.parametrize("masked", [0, 2, STEPS])
def test_a_step_is_never_shown_what_is_not_revealed_before(masked: int) -> None:
    targets, ids, rank = draw_problem(masked)
    left = StatesLeft(TABLE)
    found = left.for_steps(targets, ids, rank)
    start = left.at_start(targets)
    for step in range(STEPS):
        hidden = (rank >= rank[:, step, None]) | (rank == STEPS)
        changed = torch.where(hidden, (ids + 1 + step) % (len(TABLE) + 1), ids)
        assert torch.equal(left.for_steps(targets, changed, rank)[:, step], found[:, step])
    if masked == STEPS:
        assert torch.equal(found, start[:, None].expand(found.shape))


# --------------------------------------------------------------------------------------------------- requests


def test_infidelities_are_those_of_qiskit() -> None:
    rng = np.random.default_rng(0)
    ids, others = (random_ids(rng, TABLE, 30, 0, 8) for _ in range(2))
    made, wanted = (TASK.targets_of(part, TABLE) for part in (ids, others))
    found = infidelities(made, wanted)
    for row in range(30):
        assert found[row] == pytest.approx(1 - state_fidelity(made[row, :, 0], wanted[row, :, 0]), abs=1e-12)
    assert infidelities(made, made * np.exp(1j * np.arange(30))[:, None, None]).max() < 1e-14


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.eye(4)[:2], r"shape \(2, 4\)"),
        (np.ones(3) / 3**0.5, r"shape \(3,\)"),
        (np.ones(1), r"shape \(1,\)"),
        (np.array(1.0), r"shape \(\)"),
        (np.array(["1", "0"]), "not numbers"),
        (np.array([1, np.nan]), "not finite"),
        (np.ones(4), "norm differs from 1 by 1"),
        (np.eye(16)[0], "4 qubits, but the model writes circuits of at most 3"),
    ],
)
def test_what_is_no_state_is_refused(target: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TASK.requests(["Prepare using: ['h']"], [target], TABLE)


def test_a_small_state_is_padded_by_zeros() -> None:
    state = np.random.default_rng(0).normal(size=(4, 2)).view(np.complex128)
    state /= np.linalg.norm(state)
    padded = pad_state(state, 3)
    assert padded.shape == (8, 1)
    expected = Statevector(state[:, 0]).expand(Statevector([1, 0]))
    np.testing.assert_allclose(padded[:, 0], expected.data)
    requests = TASK.requests(["Prepare using: ['h']"], [state[:, 0]], TABLE)
    assert requests.targets is not None
    np.testing.assert_array_equal(requests.targets[0], padded)
    assert requests.num_qubits.tolist() == [2]


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "kets"),
    [
        ("ghz:3", ["000", "111"]),
        ("ghz", ["0000", "1111"]),
        ("w:3", ["001", "010", "100"]),
        ("dicke:1", ["0001", "0010", "0100", "1000"]),
        ("dicke:3:2", ["011", "101", "110"]),
        ("basis:1010", ["1010"]),
        ("basis:01", ["01"]),
    ],
)
def test_named_states_are_those_of_the_textbook(name: str, kets: list[str]) -> None:
    expected = sum((Statevector.from_label(ket).data for ket in kets), np.zeros(2 ** len(kets[0])))
    np.testing.assert_allclose(target_state(name, 4), expected / len(kets) ** 0.5)


def test_random_states_are_made_by_the_gates_asked_for() -> None:
    states = [target_state("random:3:6", 4, gates=["h", "cx"], seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(states[0], states[1])
    assert np.abs(states[0].conj() @ states[2]) < 0.99
    assert set(np.round(np.abs(states[0]) ** 2 * 8, 6)) <= {0, 1, 2, 4, 8}, "those of h and cx are stabilizer states"


def test_circuits_and_files_are_states(tmp_path: Path) -> None:
    circuit = Circuit(2, (Instruction("h", (), (1,)), Instruction("cx", (1,), (0,)), Instruction("t", (), (0,))))
    expected = Statevector(QiskitBackend().to_native(circuit)).data
    (tmp_path / "circuit.qasm").write_text(circuit.to_qasm2())
    np.save(tmp_path / "state.npy", expected)
    np.save(tmp_path / "parts.npy", as_two_channels(expected[:, None]))
    for target in (circuit, QiskitBackend().to_native(circuit), expected, tmp_path / "circuit.qasm"):
        np.testing.assert_allclose(target_state(target, 2), expected, atol=1e-12)
    for name in ("state.npy", "parts.npy"):
        np.testing.assert_allclose(target_state(str(tmp_path / name), 3), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("ghz:5", ConfigError, "5 qubits, but the model writes circuits of at most 4"),
        ("gzh", ConfigError, "unknown target 'gzh': did you mean 'ghz'"),
        ("ghz:x", ConfigError, "cannot read the target 'ghz:x': expected e.g. ghz:3"),
        ("dicke", ConfigError, "expected e.g. dicke:1"),
        ("dicke:3:4", ConfigError, "has 4 ones on 3 qubits"),
        ("basis:12", ConfigError, "expected e.g. basis:101"),
        ("basis", ConfigError, "expected e.g. basis:101"),
        ("missing.npy", ConfigError, "there is no such file"),
        (object(), ConfigError, "the target is a object"),
        ("measured.qasm", GateSetError, "the circuit does not prepare a pure state"),
        ("", ConfigError, "the target is empty: give a name"),
        ("w:99999999999", ConfigError, "99999999999 qubits, but the model writes circuits of at most 4"),
        (np.ma.masked_array([1.0, 0.0], mask=[False, True]), ConfigError, "masked entries"),
        ("matrix.npy", ConfigError, r"shape \(4, 4\): give a vector"),
    ],
)
def test_what_names_no_state_is_refused(
    target: Any, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("measured.qasm").write_text("OPENQASM 2.0; qreg q[1]; creg c[1]; measure q[0] -> c[0]; reset q[0];")
    np.save("matrix.npy", np.eye(4))
    with pytest.raises(error, match=message):
        target_state(target, 4)


# ------------------------------------------------------------------------------------------------------ reach


@pytest.mark.parametrize(
    ("target", "gates", "edit", "message"),
    [
        ("ghz:3", "h cx", {"coupling": ((0, 1),)}, r"joins qubits \[2\] with the others, but prepare.gates, edit"),
        ("ghz:3", "h t", {}, r"joins qubits \[2\] with the others, but prepare.gates"),
        ("basis:100", "x", {"fixed_qubits": (2,)}, "the target acts on qubit 2"),
        ("ghz:3", "h cx", {"max_gates": 1}, "needs at least 2 gates"),
        ("ghz:3", "h cx", {"max_gates": 2}, r"no circuit of at most 2 gates is the target \(\d+ were tried\)"),
    ],
)
def test_what_cannot_be_reached_is_refused(target: str, gates: str, edit: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_target_reach(TASK, target_state(target, 3), gates.split(), Edit(**edit), TABLE, STEPS)


def test_what_a_circuit_makes_is_never_refused() -> None:
    rng = np.random.default_rng(0)
    ids = random_ids(rng, TABLE, 200, 1, STEPS)
    for circuit, state in zip(circuits_from_ids(ids, TABLE), statevectors(ids, TABLE), strict=True):
        gates = list(dict.fromkeys(step.gate for step in circuit.instructions))
        pairs = {tuple(sorted(step.qubits))[:2] for step in circuit.instructions if len(step.qubits) == 2}
        edit = Edit(max_gates=len(circuit)) if "ccx" in gates else Edit(max_gates=len(circuit), coupling=tuple(pairs))
        check_target_reach(TASK, state, gates, edit, TABLE, STEPS)


def test_gates_of_a_textbook_state_make_it() -> None:
    ghz = Circuit(3, read_gates("h 0; cx 0 1; cx 1 2"))
    np.testing.assert_allclose(target_state(ghz, 3), target_state("ghz:3", 3), atol=1e-12)


@pytest.mark.parametrize(
    ("gates", "qubits"),
    [(["h", "cx", "z", "x", "ccx", "swap"], 3), (["h", "t", "cx", "sdg"], 3), (["h", "cx"], 2), (["x", "z"], 1)],
)
def test_what_leads_back_to_a_state_is_left_out(gates: list[str], qubits: int) -> None:
    table = instruction_table(GatePool(gates), qubits)
    ids = random_ids(np.random.default_rng(0), table, 20_000, 0, 14)
    before = TASK.targets_of(ids, table)
    for shorter in (without_returns(ids, table), TASK.simplify(ids, table)):
        assert infidelities(before, TASK.targets_of(shorter, table)).max() < 1e-12
        assert (gate_count(shorter) <= gate_count(ids)).all()
    once = without_returns(ids, table)
    assert gate_count(once).mean() < 0.9 * gate_count(ids).mean()
    np.testing.assert_array_equal(without_returns(once, table), once)
    visited = np.stack([matrix_keys(TASK.targets_of(once[:, :step], table)) for step in range(15)], axis=1)
    for row, length in enumerate(gate_count(once).tolist()):
        assert len(np.unique(visited[row, : length + 1])) == length + 1


def test_a_data_set_of_states_has_no_idle_gates_and_keeps_to_its_prompts(data: CircuitDataset) -> None:
    circuits = data.labelled(np.arange(len(data)))
    np.testing.assert_array_equal(without_returns(circuits.ids, circuits.table), compact(circuits.ids))
    for prompt, circuit in zip(circuits.prompts, circuits_from_ids(circuits.ids, circuits.table), strict=True):
        assert set(circuit.gate_counts) <= set(TASK.gates_of(prompt, data.gate_pool))
