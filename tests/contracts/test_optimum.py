"""The fewest gates of a target, against trying all circuits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import gate_count, instruction_table
from quantum_diffusion.circuits.matrices import EXACT
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.evaluation.optimum import Optimum
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.targets import TargetTask


@pytest.mark.parametrize("task", ["UNITARY", "STATE"])
@pytest.mark.parametrize("gates", [["h", "cx", "t"], ["h", "cz", "s", "swap"]])
def test_the_optimum_is_that_of_all_circuits(task: str, gates: list[str]) -> None:
    kind = TASKS[task]
    assert isinstance(kind, TargetTask)
    table = instruction_table(GatePool(gates), 2)
    allowed = np.ones(len(table) + 1, dtype=np.bool_)
    drawn = random_ids(np.random.default_rng(0), table, 12, 0, 4)
    targets = kind.targets_of(drawn, table)
    every = [
        np.array(list(itertools.product(range(1, len(table) + 1), repeat=length)), dtype=np.int16).reshape(
            len(table) ** length, length
        )
        for length in range(5)
    ]
    optima = [Optimum(kind, table, allowed, entries) for entries in (2**5, 2**9, 2**19)]
    known = 0
    for own, target in zip(gate_count(drawn).tolist(), targets, strict=True):
        least = next(
            length
            for length, circuits in enumerate(every)
            if (kind.distances(circuits, target[None], table) < EXACT).any()
        )
        for optimum in optima:
            found = optimum.least_gates(target, own)
            assert found in (least, None)
            known += found is not None
        assert optima[-1].least_gates(target, own) == least
    assert known > 24


def test_gates_that_are_not_allowed_do_not_count() -> None:
    kind = TASKS["UNITARY"]
    assert isinstance(kind, TargetTask)
    table = instruction_table(GatePool(["h", "cx", "swap"]), 2)
    swap = np.array([[number for number in range(1, len(table) + 1) if table.instructions[number - 1].gate == "swap"]])
    target = kind.targets_of(swap.astype(np.int16), table)[0]
    allowed = np.ones(len(table) + 1, dtype=np.bool_)
    assert Optimum(kind, table, allowed).least_gates(target, 7) == 1
    allowed[swap] = False
    assert Optimum(kind, table, allowed).least_gates(target, 7) == 3
    assert Optimum(kind, table, allowed, 2**4).least_gates(target, 7) is None
