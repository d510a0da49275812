"""What is left to do while circuits are written, kept up to date step by step, is what the whole pass computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.tasks.evolution import (
    StateEvolution,
    TableauEvolution,
    entangled_in_states,
    entangled_in_tableaus,
)
from quantum_diffusion.tasks.left_to_do import LEFT_TO_DO
from quantum_diffusion.tasks.registry import TASKS

TABLE = instruction_table(GatePool(["h", "cx", "t", "ccx"]), 3)
CLIFFORD = instruction_table(GatePool(["h", "s", "cx"]), 3)
STEPS, COUNT = 7, 30


SHOWN = [(task, encoder) for task, encoders in LEFT_TO_DO.items() for encoder in encoders]


@pytest.mark.parametrize(("name", "encoder"), SHOWN)
@pytest.mark.parametrize("order", ["from the start", "from the end", "random", "several at once"])
def test_step_by_step_is_all_at_once(name: str, encoder: str, order: str) -> None:
    table = CLIFFORD if encoder == "tableau" else TABLE
    rng = np.random.default_rng(0)
    ids = random_ids(rng, table, COUNT, 0, STEPS)
    targets = None
    if TASKS[name].encoder is not None:
        targets = torch.from_numpy(as_two_channels(TASKS[name].targets_of(ids[::-1].copy(), table)))
    left = LEFT_TO_DO[name][encoder](table)
    remainder = left.remainder(targets, COUNT, torch.device("cpu"))
    when = {"from the start": np.arange(STEPS), "from the end": np.arange(STEPS)[::-1]}.get(order)
    place = np.tile(when, (COUNT, 1)) if when is not None else rng.random((COUNT, STEPS)).argsort(axis=1)
    given = torch.from_numpy(ids.astype(np.int64))
    for known in range(0, STEPS, 3 if order == "several at once" else 1):
        rank = torch.from_numpy(np.where(place < known, place, STEPS))
        found = remainder.update(given, rank)
        expected = left.for_steps(targets, given, rank)
        is_open = rank == STEPS
        torch.testing.assert_close(found[:, None].expand(expected.shape)[is_open], expected[is_open], atol=1e-5, rtol=0)
    if targets is not None and name == "UNITARY":
        fresh = left.remainder(targets, COUNT, torch.device("cpu"))
        assert torch.equal(fresh.update(given, torch.full_like(given, STEPS)), left.at_start(targets))


@pytest.mark.parametrize(("name", "encoder"), SHOWN)
def test_remainders_of_chosen_circuits_go_on_alone(name: str, encoder: str) -> None:
    table = CLIFFORD if encoder == "tableau" else TABLE
    ids = random_ids(np.random.default_rng(1), table, COUNT, 0, STEPS)
    targets = None
    if TASKS[name].encoder is not None:
        targets = torch.from_numpy(as_two_channels(TASKS[name].targets_of(ids[::-1].copy(), table)))
    remainder = LEFT_TO_DO[name][encoder](table).remainder(targets, COUNT, torch.device("cpu"))
    given = torch.from_numpy(ids.astype(np.int64))
    rank = torch.arange(STEPS).expand(COUNT, -1)
    remainder.update(given, rank.where(rank < 3, STEPS))
    rows = torch.tensor([4, 4, 0])
    taken = remainder.take(rows)
    later = rank.where(rank < 5, STEPS)
    torch.testing.assert_close(taken.update(given[rows], later[rows]), remainder.update(given, later)[rows])


def unitaries_of(ids: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(as_two_channels(TASKS["UNITARY"].targets_of(ids, TABLE)))


@pytest.mark.parametrize("from_end", [False, True])
def test_circuits_may_be_known_to_different_lengths_even_entirely(from_end: bool) -> None:
    ids = random_ids(np.random.default_rng(4), TABLE, STEPS + 1, STEPS, STEPS)
    left = LEFT_TO_DO["UNITARY"]["matrix"](TABLE)
    targets = unitaries_of(ids)
    remainder = left.remainder(targets, len(ids), torch.device("cpu"))
    given, number = torch.from_numpy(ids.astype(np.int64)), torch.arange(STEPS)
    place = number.flip(0) if from_end else number
    rank = place.expand(len(ids), -1).where(place < torch.arange(STEPS + 1)[:, None], STEPS)  # row r knows r steps
    found = remainder.update(given, rank)
    expected = left.for_steps(targets, given, rank)
    next_step = STEPS - 1 - number if from_end else number
    torch.testing.assert_close(found[:-1], expected[number, next_step], atol=1e-5, rtol=0)
    later = place.expand(len(ids), -1).where(place < torch.arange(1, STEPS + 2)[:, None], STEPS)  # and one more
    found, expected = remainder.update(given, later), left.for_steps(targets, given, later)
    torch.testing.assert_close(found[:-2], expected[number[:-1], next_step[1:]], atol=1e-5, rtol=0)


def test_gates_appended_at_either_end_are_as_good_as_revealed_ones() -> None:
    ids = random_ids(np.random.default_rng(5), TABLE, 4, STEPS, STEPS)
    left = LEFT_TO_DO["UNITARY"]["matrix"](TABLE)
    targets, given = unitaries_of(ids[::-1].copy()), torch.from_numpy(ids.astype(np.int64))
    appended, revealed = (left.remainder(targets, 4, torch.device("cpu")) for _ in range(2))
    at_end = torch.tensor([[True, False, False, True], [False, False, True, True]])
    appended.append(given[:, 0])
    appended.append(given[:, 1])
    begun, ended = torch.full((4,), 2), torch.zeros(4, dtype=torch.int64)
    for ends in at_end:
        appended.append(
            torch.where(ends, given[torch.arange(4), STEPS - 1 - ended], given[torch.arange(4), begun]), ends
        )
        begun, ended = begun + ~ends, ended + ends.long()
    number = torch.arange(STEPS)
    known = (number < begun[:, None]) | (number >= STEPS - ended[:, None])
    rank = torch.where(known, known.cumsum(1) - 1, STEPS)
    expected = revealed.update(given, rank)
    torch.testing.assert_close(appended.shown(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(appended.update(given, rank), expected, atol=1e-5, rtol=0)
    rank = torch.where(number == begun[:, None], 4, rank)
    torch.testing.assert_close(appended.update(given, rank), revealed.update(given, rank), atol=1e-5, rtol=0)


@pytest.mark.parametrize("gates", [["h", "cx"], ["h", "cx", "t", "ccx"]])
def test_shown_states_are_those_of_qiskit(gates: list[str]) -> None:
    table = instruction_table(GatePool(gates), 3)
    ids = random_ids(np.random.default_rng(2), table, COUNT, 0, STEPS)
    left = LEFT_TO_DO["SRV"]["state"](table)
    rank = torch.arange(STEPS).expand(COUNT, -1)
    shown = left.for_steps(None, torch.from_numpy(ids.astype(np.int64)), rank)  # [B, T, 2, D]
    for row in range(COUNT):
        for known in range(STEPS):
            circuit = circuits_from_ids(ids[row : row + 1, :known], table)[0]
            expected = Statevector(QiskitBackend().to_native(circuit)).data
            found = torch.complex(*shown[row, known]).numpy()
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["UNITARY", "STATE"])
def test_targets_made_on_the_device_are_those_of_the_task(name: str) -> None:
    ids = random_ids(np.random.default_rng(2), TABLE, COUNT, 0, STEPS)
    for make in LEFT_TO_DO[name].values():
        made = make(TABLE).targets_of(torch.from_numpy(ids.astype(np.int64)))
        assert made is not None
        np.testing.assert_allclose(made, as_two_channels(TASKS[name].targets_of(ids, TABLE)), atol=1e-6)


def test_entangled_qubits_are_those_of_the_labels_in_states_and_tableaus_of_any_shape() -> None:
    ids = random_ids(np.random.default_rng(3), CLIFFORD, COUNT, 0, STEPS)
    expected = torch.from_numpy(schmidt_rank_vectors(ids, CLIFFORD) == 2)
    given = torch.from_numpy(ids.astype(np.int64))
    states = StateEvolution(CLIFFORD, torch.complex128).after_each(given)[:, -1]
    tableaus = TableauEvolution(CLIFFORD).after_each(given)[:, -1]
    for shape in ((COUNT,), (COUNT // 5, 5), (2, COUNT // 10, 5)):
        for found in (
            entangled_in_states(states.unflatten(0, shape)),
            entangled_in_tableaus(tableaus.unflatten(0, shape)),
        ):
            assert torch.equal(found.flatten(0, -2), expected)
