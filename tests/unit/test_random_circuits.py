"""Random circuits: a pure function of the generator, within their bounds, and as uniform as they claim.

The chi-square tests use fixed seeds, so they fail for a reason or not at all.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import gate_count, instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.errors import GateSetError

SMALLEST_P = 1e-3
LINE = [(0, 1), (1, 2), (2, 3)]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_seed_gives_the_same_circuits() -> None:
    table = instruction_table(GatePool(GATES), 4)
    first, second, other = (random_ids(generator(seed), table, 200, 2, 12) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert first.dtype == np.int16


def test_a_generator_is_advanced() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 4)
    rng = generator()
    assert (random_ids(rng, table, 50, 2, 12) != random_ids(rng, table, 50, 2, 12)).any()


@pytest.mark.parametrize(("min_gates", "max_gates"), [(0, 0), (0, 5), (3, 3), (2, 16)])
def test_lengths_are_uniform_between_the_bounds(min_gates: int, max_gates: int) -> None:
    table = instruction_table(GatePool(["h", "cx"]), 3)
    ids = random_ids(generator(), table, 20_000, min_gates, max_gates)
    assert ids.shape == (20_000, max_gates)
    lengths = gate_count(ids)
    # Gates first, then nothing: a circuit of length n fills exactly its first n steps.
    np.testing.assert_array_equal(ids != 0, np.arange(max_gates) < lengths[:, None])
    counts = np.bincount(lengths, minlength=max_gates + 1)
    assert len(counts) == max_gates + 1
    assert not counts[:min_gates].any()
    if max_gates > min_gates:
        assert chisquare(counts[min_gates:]).pvalue > SMALLEST_P


@pytest.mark.parametrize("coupling", [None, LINE], ids=["all-to-all", "line"])
@pytest.mark.parametrize("names", [("h", "cx"), tuple(GATES)], ids=["h_cx", "full"])
def test_gates_are_uniform_and_so_are_their_places(
    names: tuple[str, ...], coupling: list[tuple[int, int]] | None
) -> None:
    table = instruction_table(GatePool(names), 4)
    ids = random_ids(generator(), table, 5000, 20, 20, coupling)
    counts = np.bincount(ids.ravel(), minlength=len(table) + 1)
    allowed = table.allowed(coupling)
    assert not counts[~allowed].any()
    per_gate = [counts[table.gate_index == index].sum() for index in range(len(names))]
    assert chisquare(per_gate).pvalue > SMALLEST_P
    for index in range(len(names)):
        places = counts[(table.gate_index == index) & allowed]
        assert chisquare(places).pvalue > SMALLEST_P


def test_steps_and_neighbouring_gates_are_independent() -> None:
    table = instruction_table(GatePool(["h", "x", "t"]), 1)
    ids = random_ids(generator(), table, 30_000, 3, 3).astype(np.int64)
    triples = (ids[:, 0] - 1) * 9 + (ids[:, 1] - 1) * 3 + ids[:, 2] - 1
    assert chisquare(np.bincount(triples, minlength=27)).pvalue > SMALLEST_P


@pytest.mark.parametrize("coupling", [None, [(0, 1), (1, 2), (2, 3)]])
@pytest.mark.parametrize("gates", [("h", "cx"), ("h", "t", "swap", "ccx"), ("cz", "cx")])
def test_only_chosen_qubits_are_joined(gates: tuple[str, ...], coupling: list[tuple[int, int]] | None) -> None:
    table = instruction_table(GatePool(gates), 4)
    entangle = generator().random((4000, 4)) < 0.5
    ids = random_ids(generator(), table, 4000, 2, 9, coupling, entangle)
    joins = table.uses_qubit[ids] & (table.uses_qubit[ids].sum(axis=2) > 1)[:, :, None]  # [N, T, Q]
    assert not (joins & ~entangle[:, None]).any()
    assert table.allowed(coupling)[ids].all()
    if "h" in gates and coupling is None:  # a gate too wide gives way to a single-qubit one: no step stays empty
        np.testing.assert_array_equal(ids != 0, random_ids(generator(), table, 4000, 2, 9) != 0)


def test_gates_that_fit_the_chosen_qubits_stay_and_others_give_way_to_all_narrow_ones() -> None:
    table = instruction_table(GatePool(["h", "t", "x", "cx"]), 4)

    def counts(entangle: list[bool]) -> list[int]:
        ids = random_ids(generator(), table, 1000, 4, 4, None, np.tile(entangle, (1000, 1)))
        return [int(np.isin(ids, np.flatnonzero(table.gate_index == index)).sum()) for index in range(4)]

    assert chisquare(counts([False, True, True, False])).pvalue > SMALLEST_P
    *narrow, wide = counts([False, True, False, False])
    assert wide == 0
    assert chisquare(narrow).pvalue > SMALLEST_P


def test_no_circuits() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 3)
    assert random_ids(generator(), table, 0, 2, 7).shape == (0, 7)


@pytest.mark.parametrize(("min_gates", "max_gates"), [(-1, 4), (5, 4)])
def test_wrong_bounds_are_refused(min_gates: int, max_gates: int) -> None:
    with pytest.raises(ValueError, match=f"min_gates <= max_gates, given {min_gates} and {max_gates}"):
        random_ids(generator(), instruction_table(GatePool(["h"]), 1), 1, min_gates, max_gates)


@pytest.mark.parametrize(
    ("coupling", "message"),
    [
        pytest.param([], r"coupling \[\] does not allow gate 'cx' on any qubits", id="no-edges"),
        pytest.param(
            [(0, 1), (2, 3)], r"coupling \[\[0, 1\], \[2, 3\]\] does not allow gate 'ccx' on any qubits", id="no-triple"
        ),
        pytest.param([(0, 7)], r"coupling edge \[0, 7\]", id="unknown-qubit"),
    ],
)
def test_impossible_wishes_are_refused(coupling: list[tuple[int, int]], message: str) -> None:
    table = instruction_table(GatePool(["h", "cx", "ccx"]), 4)
    with pytest.raises(GateSetError, match=message):
        random_ids(generator(), table, 10, 1, 3, coupling)
