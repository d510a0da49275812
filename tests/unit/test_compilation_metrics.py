"""The figures of an evaluation on unitaries: hand-made cases, brute force, and what holds for any counts."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.backends.synthesis import synthesize
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.evaluation import target_metrics as metrics
from quantum_diffusion.evaluation.metrics import wilson_interval
from tests.conftest import read_gates

ROUNDING = 1e-9


@st.composite
def counts(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    samples = draw(st.integers(1, 40))
    return np.array(draw(st.lists(st.integers(0, samples), min_size=1, max_size=12))), samples


@given(counts())
def test_best_of_k_rises_from_the_exact_share_to_solved(case: tuple[np.ndarray, int]) -> None:
    successes, samples = case
    chances = np.array([metrics.best_of_k(successes, samples, k) for k in range(1, samples + 1)])
    assert (np.diff(chances, axis=0) >= -ROUNDING).all()
    assert (chances >= -ROUNDING).all()
    assert (chances <= 1 + ROUNDING).all()
    np.testing.assert_allclose(chances[0], successes / samples, atol=ROUNDING)
    assert chances[-1].tolist() == (successes > 0).astype(float).tolist()


@pytest.mark.parametrize(("success", "samples", "k"), [(1, 5, 2), (2, 5, 3), (3, 5, 2), (4, 5, 2), (0, 5, 3)])
def test_best_of_k_is_the_share_of_all_subsets(success: int, samples: int, k: int) -> None:
    outcomes = [True] * success + [False] * (samples - success)
    subsets = list(itertools.combinations(outcomes, k))
    share = sum(map(any, subsets)) / len(subsets)
    np.testing.assert_allclose(metrics.best_of_k(np.array([success]), samples, k), [share])


@given(counts())
def test_intervals_contain_their_rate(case: tuple[np.ndarray, int]) -> None:
    shares = case[0] / case[1]
    low, high = metrics.rate_interval(shares)
    assert 0 <= low <= shares.mean() + ROUNDING
    assert shares.mean() - ROUNDING <= high <= 1


def test_an_interval_is_wilsons_for_successes_and_narrower_for_shares_that_agree() -> None:
    solved = np.array([1.0] * 7 + [0.0] * 3)
    assert metrics.rate_interval(solved) == pytest.approx(wilson_interval(7, 10))
    assert metrics.rate_interval(np.ones(10)) == wilson_interval(10, 10)
    low, high = metrics.rate_interval(np.array([0.6, 0.7, 0.8] * 4))
    assert 0.6 < low < 0.7 < high < 0.8


@given(st.lists(st.floats(0, 1), max_size=50))
def test_histograms_count_every_sample_once(infidelities: list[float]) -> None:
    assert sum(metrics.histogram(np.array(infidelities))) == len(infidelities)


def test_the_first_bin_holds_the_exact_samples() -> None:
    found = metrics.histogram(np.array([0.0, 9.9e-7, 1e-6, 0.049, 0.05, 0.5, 0.951, 1.0]))
    assert len(found) == len(metrics.INFIDELITY_EDGES) - 1 == 21
    assert (found[0], found[1], found[2], found[11], found[-1]) == (2, 2, 1, 1, 2)


@pytest.mark.parametrize(("samples", "expected"), [(1, [1]), (4, [1, 2, 4]), (5, [1, 2, 4, 5]), (3, [1, 2, 3])])
def test_tries_are_powers_of_two_and_all(samples: int, expected: list[int]) -> None:
    assert metrics.tries(samples) == expected


def test_groups() -> None:
    found = metrics.by_group(np.array([5, 4, 5]), np.array([4, 2, 0]), np.array([0, 1, 1]), 4)
    assert list(found) == ["4", "5"]
    assert found["4"] == metrics.GroupFigures(1, 0.5, 1.0, 1.0)
    assert found["5"] == metrics.GroupFigures(2, 0.5, 0.5, 0.5)


def test_gates_are_compared_where_there_are_two_circuits() -> None:
    found = metrics.compare_gates([3, 4, None, 2, 9], [4, 4, 5, None, 5])
    assert found == metrics.GateComparison(3, pytest.approx(16 / 3), pytest.approx(13 / 3), 1 / 3, 1 / 3)
    assert metrics.compare_gates([None], [3]) == metrics.GateComparison(0, None, None, None, None)


@pytest.mark.parametrize(
    ("gates", "text", "most"),
    [
        (["h", "cx"], "h 0; cx 0 1; cx 1 2", 3),
        (["h", "cx", "z", "x", "ccx", "swap"], "x 0; swap 0 2; z 1; h 2", 8),
        (["h", "t", "cx"], "tdg 1", 11),
    ],
)
def test_qiskit_synthesises_what_it_can(gates: list[str], text: str, most: int) -> None:
    unitary = QiskitBackend().unitary(Circuit(3, read_gates(text)))
    circuit = synthesize(np.exp(0.3j) * unitary, gates)
    assert circuit is not None
    assert set(circuit.gate_counts) <= set(gates)
    assert abs(np.vdot(QiskitBackend().unitary(circuit), unitary)) == pytest.approx(8)
    assert len(circuit) <= most


def test_qiskit_gives_up_where_rotations_are_needed() -> None:
    unitary = QiskitBackend().unitary(Circuit(3, read_gates("h 0; ccx 0 1 2; h 1")))
    assert synthesize(unitary, ["h", "cx", "ccx"]) is None


def test_qiskit_is_not_asked_to_come_near_by_thousands_of_gates() -> None:
    # Decomposed into cx and one-qubit gates, these have gates that no short circuit of h, s and t is.
    pool = ["h", "s", "t", "sdg", "tdg", "cx"]
    for text in ("h 0; t 0", "t 0; cx 0 1"):
        assert synthesize(QiskitBackend().unitary(Circuit(3, read_gates(text))), pool) is None
    assert synthesize(np.eye(4), ["cx", "swap"]) is not None
