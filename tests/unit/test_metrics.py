"""The figures of an evaluation against brute force on samples made by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, compact, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.prompts import parse_srv_prompt, srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, circuits_from_ids, decode_tokens
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.evaluation import metrics
from quantum_diffusion.tasks.srv import SrvSamples, SrvTask
from tests.conftest import draw_dataset

POOL = GatePool(["h", "cx"])
PROMPTS = ["Generate SRV: [1, 1, 1]", "Generate SRV: [1, 2, 2]", "Generate SRV: [2, 2, 2]", "Generate SRV: [2, 2]"]


def make_samples(count: int = 400, steps: int = 5, seed: int = 0) -> SrvSamples:
    """Random circuits for random prompts of 2 and 3 qubits; one in five is invalid, some have no gate."""
    rng = np.random.default_rng(seed)
    prompts = tuple(PROMPTS[i] for i in rng.integers(0, len(PROMPTS), count))
    labels = tuple(parse_srv_prompt(prompt, 3) for prompt in prompts)
    widths = np.array([len(label) for label in labels])
    table = instruction_table(POOL, 3)
    ids = compact(random_ids(rng, table, count, 1, steps))
    ids[table.uses_qubit[ids][:, :, 2].any(axis=1) & (widths == 2)] = 0
    valid = rng.random(count) < 0.8
    ranks = schmidt_rank_vectors(ids, table)
    ranks[~valid] = 0
    ranks[np.arange(3) >= widths[:, None]] = 0
    wanted = np.array([[*label, 0][:3] for label in labels], dtype=np.int8)
    reasons = tuple(VALID if ok else "padding inside the circuit" for ok in valid)
    return SrvSamples(
        prompts=prompts,
        report=DecodeReport(ids, valid, reasons),
        ids=ids,
        num_qubits=widths,
        table=table,
        labels=labels,
        ranks=ranks,
        wanted=wanted,
    )


SAMPLES = make_samples()


def as_circuits(samples: SrvSamples) -> list[Circuit]:
    return samples.circuits(np.arange(len(samples)))


def test_samples_have_every_kind() -> None:
    assert 0.1 < SAMPLES.matches.mean() < 0.7
    assert set(SAMPLES.num_qubits) == {2, 3}
    assert SAMPLES.gate_counts.tolist() == [len(circuit) for circuit in as_circuits(SAMPLES)]


def test_matches_are_valid_exact_and_not_empty() -> None:
    rows = zip(SAMPLES.report.valid.tolist(), SAMPLES.ranks.tolist(), SAMPLES.labels, as_circuits(SAMPLES), strict=True)
    expected = [ok and len(c) > 0 and ranks[: len(label)] == list(label) for ok, ranks, label, c in rows]
    assert SAMPLES.matches.tolist() == expected


def verified(prompts: list[str], report: DecodeReport) -> SrvSamples:
    """Verify circuits of three qubits."""
    table = instruction_table(POOL, 3)
    return SrvTask().verify(SrvTask().requests(prompts, None, table), report, table)


def test_an_empty_circuit_is_valid_but_no_match() -> None:
    ids = np.array([[0, 0], [1, 0], [0, 1], [0, 0]], dtype=np.int16)  # nothing, h, h after a gap, nothing readable
    valid = np.array([True, True, True, False])
    report = DecodeReport(ids, valid, (VALID, VALID, VALID, "token out of range"))
    samples = verified([PROMPTS[0]] * 4, report)
    assert samples.ranks[:3].tolist() == samples.wanted[:3].tolist() == [[1, 1, 1]] * 3
    assert samples.empty.tolist() == [True, False, False, False]
    assert samples.matches.tolist() == [False, True, True, False]
    assert metrics.accuracy_by_prompt(samples) == {PROMPTS[0]: 0.5}
    assert metrics.shuffled_accuracy(samples, seed=0) == 0.5


def test_what_was_asked_for_is_0_on_other_qubits() -> None:
    report = DecodeReport(np.zeros((2, 3), dtype=np.int16), np.ones(2, dtype=np.bool_), (VALID, VALID))
    samples = verified([PROMPTS[3], PROMPTS[1]], report)
    assert samples.wanted.tolist() == [[2, 2, 0], [1, 2, 2]]


def test_accuracy_by_entangled_and_by_prompt() -> None:
    by_number: dict[str, list[bool]] = {}
    by_prompt: dict[str, list[bool]] = {}
    for prompt, label, match in zip(SAMPLES.prompts, SAMPLES.labels, SAMPLES.matches.tolist(), strict=True):
        by_number.setdefault(str(label.count(2)), []).append(match)
        by_prompt.setdefault(prompt, []).append(match)
    assert metrics.accuracy_by_entangled(SAMPLES) == pytest.approx({k: np.mean(v) for k, v in by_number.items()})
    assert metrics.accuracy_by_prompt(SAMPLES) == pytest.approx({k: np.mean(v) for k, v in by_prompt.items()})
    assert set(by_number) == {"0", "2", "3"}


def test_the_shuffled_baseline_is_near_its_expectation() -> None:
    expected = 0.0
    for row in range(len(SAMPLES)):
        for label in SAMPLES.labels:
            wanted = [*label, 0][:3]
            made = bool(SAMPLES.report.valid[row]) and SAMPLES.gate_counts[row] > 0
            expected += made and SAMPLES.ranks[row].tolist() == wanted
    expected /= len(SAMPLES) ** 2
    assert metrics.shuffled_accuracy(SAMPLES, seed=0) == pytest.approx(expected, abs=0.02)
    assert metrics.shuffled_accuracy(SAMPLES, seed=0) == metrics.shuffled_accuracy(SAMPLES, seed=0)
    assert metrics.shuffled_accuracy(SAMPLES, seed=0) != metrics.shuffled_accuracy(SAMPLES, seed=1)


def test_the_random_baseline_is_near_its_expectation() -> None:
    dataset = merge_datasets([draw_dataset(2, 4, 16), draw_dataset(3, 5, 64)])
    rng = np.random.default_rng(5)
    shares = {}
    for width in (2, 3):
        table = instruction_table(POOL, width)
        ids = random_ids(rng, table, 30_000, dataset.max_gates, dataset.max_gates)
        ids[np.arange(dataset.max_gates) >= rng.choice(dataset.sizes[:, 1], len(ids))[:, None]] = 0
        labels, counts = np.unique([srv_prompt(r) for r in schmidt_rank_vectors(ids, table)], return_counts=True)
        shares |= dict(zip(labels.tolist(), (counts / len(ids)).tolist(), strict=True))
    expected = np.mean([shares.get(prompt, 0.0) for prompt in SAMPLES.prompts])
    found = np.mean([metrics.random_accuracy(SAMPLES, dataset, seed) for seed in range(10)])
    assert found == pytest.approx(expected, abs=0.03)


def test_empty_circuits_do_not_raise_the_random_baseline() -> None:
    dataset = draw_dataset(3, 5, 48)
    nothing = CircuitDataset(
        tokens=np.zeros_like(dataset.tokens),
        prompt_index=dataset.prompt_index,
        prompts=dataset.prompts,
        sizes=np.stack([dataset.sizes[:, 0], np.zeros(48, dtype=np.int16)], axis=1),
        gate_pool=POOL,
    )
    report = DecodeReport(np.zeros((9, 5), dtype=np.int16), np.ones(9, dtype=np.bool_), (VALID,) * 9)
    samples = verified([PROMPTS[0]] * 9, report)
    assert metrics.random_accuracy(samples, dataset, seed=0) > 0
    assert metrics.random_accuracy(samples, nothing, seed=0) == 0


def in_normal_form(ids: Ids, widths: NDArray[np.integer], num_qubits: int) -> list[Circuit]:
    table = instruction_table(POOL, num_qubits)
    return circuits_from_ids(normal_form(ids, table), table, widths.tolist())


def test_distinct_and_novel_rates_against_sets_of_circuits() -> None:
    valid = SAMPLES.report.valid
    keys = metrics.circuit_keys(SAMPLES.ids, instruction_table(POOL, 3), SAMPLES.num_qubits)[valid]
    circuits = [c for c, ok in zip(in_normal_form(SAMPLES.ids, SAMPLES.num_qubits, 3), valid, strict=True) if ok]
    assert metrics.distinct_rate(keys) == len(set(circuits)) / len(circuits)

    # The data set has other qubit counts and more time steps than the samples.
    for parts in ([(2, 3, 70)], [(2, 3, 60), (3, 5, 64)], [(2, 3, 60), (3, 9, 64)], [(3, 4, 200)]):
        dataset = merge_datasets([draw_dataset(*part) for part in parts])
        ids = decode_tokens(dataset.tokens, POOL).ids
        known = set(in_normal_form(ids, dataset.sizes[:, 0], dataset.num_qubits))
        expected = len(set(circuits) - known) / len(set(circuits))
        found = metrics.novel_rate(keys, metrics.dataset_keys(dataset, 3, SAMPLES.ids.shape[1]))
        assert found == pytest.approx(expected)
        assert found < 1, "some samples are known"


def test_a_data_sets_own_circuits_are_not_novel() -> None:
    dataset = draw_dataset(3, 5, 48)
    keys = metrics.dataset_keys(dataset, 3, 5)
    assert metrics.novel_rate(keys, keys) == 0
    distinct = set(in_normal_form(decode_tokens(dataset.tokens, POOL).ids, dataset.sizes[:, 0], 3))
    assert metrics.distinct_rate(keys) == len(distinct) / len(dataset)
    assert metrics.distinct_rate(keys[:0]) == metrics.novel_rate(keys[:0], keys) == 0
    assert metrics.novel_rate(keys, keys[:0]) == 1


def test_gate_counts() -> None:
    ids = SAMPLES.ids[SAMPLES.report.valid]
    circuits = circuits_from_ids(ids, instruction_table(POOL, 3))
    names = [step.gate for circuit in circuits for step in circuit.instructions]
    counts = metrics.mean_gate_counts(ids, instruction_table(POOL, 3))
    assert counts == pytest.approx({name: names.count(name) / len(circuits) for name in ("h", "cx")})
    assert metrics.mean_gates(ids) == pytest.approx(sum(counts.values()))
    assert metrics.mean_gates(ids[:0]) == 0
    assert metrics.mean_gate_counts(ids[:0], instruction_table(POOL, 3)) == {"h": 0.0, "cx": 0.0}


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # R: binom::binom.confint(k, n, methods = "wilson")
        (95, 100, 0.88825, 0.97846),
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (1, 2, 0.09453, 0.90547),
        (500, 1000, 0.46907, 0.53093),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(successes, trials) == pytest.approx((low, high), abs=2e-5)


@pytest.mark.parametrize(("successes", "trials"), [(3, 17), (0, 5), (99, 100)])
def test_wilson_bounds_solve_their_equation(successes: int, trials: int) -> None:
    rate = successes / trials
    for bound in metrics.wilson_interval(successes, trials):
        assert (rate - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / trials, abs=1e-12)
