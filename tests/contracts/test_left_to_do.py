"""What is left to do while circuits are written, kept up to date step by step, is what the whole pass computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.tasks.left_to_do import LEFT_TO_DO
from quantum_diffusion.tasks.registry import TASKS

TABLE = instruction_table(GatePool(["h", "cx", "t", "ccx"]), 3)
STEPS, COUNT = 7, 30


@pytest.mark.parametrize("name", LEFT_TO_DO)
@pytest.mark.parametrize("order", ["from the start", "from the end", "random", "several at once"])
def test_step_by_step_is_all_at_once(name: str, order: str) -> None:
    rng = np.random.default_rng(0)
    ids = random_ids(rng, TABLE, COUNT, 0, STEPS)
    targets = torch.from_numpy(as_two_channels(TASKS[name].targets_of(ids[::-1].copy(), TABLE)))
    left = LEFT_TO_DO[name](TABLE)
    remainder = left.remainder(targets)
    when = {"from the start": np.arange(STEPS), "from the end": np.arange(STEPS)[::-1]}.get(order)
    place = np.tile(when, (COUNT, 1)) if when is not None else rng.random((COUNT, STEPS)).argsort(axis=1)
    given = torch.from_numpy(ids.astype(np.int64))
    for known in range(0, STEPS, 3 if order == "several at once" else 1):
        rank = torch.from_numpy(np.where(place < known, place, STEPS))
        found = remainder.update(given, rank)
        expected = left.for_steps(targets, given, rank)
        is_open = rank == STEPS
        torch.testing.assert_close(found[:, None].expand(expected.shape)[is_open], expected[is_open], atol=1e-5, rtol=0)
    if name == "UNITARY":
        assert torch.equal(left.remainder(targets).update(given, torch.full_like(given, STEPS)), left.at_start(targets))
