"""Balanced epochs: every prompt equally often, every circuit of a prompt alike, as many batches in every epoch."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.data.balancing import PromptBalance
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader

NUM_PROMPTS = 5
LABELS = st.lists(st.integers(0, NUM_PROMPTS - 1), min_size=1, max_size=80)


def make(labels: list[int], lengths: list[int] | None = None) -> CircuitDataset:
    """Circuits of one qubit whose first token is their row, with given prompts and numbers of gates."""
    count = len(labels)
    tokens = np.zeros((count, 1, 4), dtype=np.int8)
    tokens[:, 0, 0] = np.arange(count)
    return CircuitDataset(
        tokens,
        np.array(labels, dtype=np.int32),
        tuple("abcde"[:NUM_PROMPTS]),
        np.stack([np.ones(count), lengths or np.ones(count)], axis=1).astype(np.int16),
        GatePool(["h"]),
    )


def loader_of(dataset: CircuitDataset, batch_size: int = 8, seed: int = 0, **options: bool | int) -> BatchLoader:
    return BatchLoader(
        dataset, np.arange(len(dataset)), batch_size, seed, shuffle=True, balance_prompts=True, **options
    )


def rows_of(loader: BatchLoader, epoch: int, first_batch: int = 0) -> list[list[int]]:
    return [batch.tokens[:, 0, 0].tolist() for batch in loader.epoch(epoch, first_batch)]


@given(LABELS, st.integers(1, 90), st.integers(0, 9), st.integers(0, 9))
def test_every_prompt_comes_equally_often(labels: list[int], batch_size: int, seed: int, epoch: int) -> None:
    """To one circuit; and of a prompt every circuit, again to one."""
    loader = loader_of(make(labels), batch_size, seed)
    rows = rows_of(loader, epoch)
    assert len(rows) == len(loader) == -(-len(labels) // batch_size)
    assert loader.num_circuits == len(labels) == sum(map(len, rows))
    drawn = Counter(chain(*rows))
    by_prompt = {prompt: [drawn[row] for row, label in enumerate(labels) if label == prompt] for prompt in set(labels)}
    expected = len(labels) / len(by_prompt)
    for counts in by_prompt.values():
        assert abs(sum(counts) - expected) < 1
        assert max(counts) - min(counts) <= 1


@given(st.lists(st.tuples(st.integers(0, NUM_PROMPTS - 1), st.integers(1, 4)), min_size=1, max_size=80))
def test_buckets_keep_their_length_and_their_cells_what_is_expected(circuits: list[tuple[int, int]]) -> None:
    labels, lengths = (np.array(column) for column in zip(*circuits, strict=True))
    buckets = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    balance = PromptBalance(buckets, labels.astype(np.int32))
    assert balance.counts.sum() == len(circuits)
    assert balance.counts.min() >= 1
    share = len(circuits) / len(np.unique(labels)) / np.maximum(np.bincount(labels), 1)
    for epoch in range(3):
        drawn = balance.draw(np.random.default_rng(epoch))
        assert [len(rows) for rows in drawn] == balance.counts.tolist()
        for rows, bucket, count in zip(drawn, buckets, balance.counts, strict=True):
            assert set(rows) <= set(bucket)
            expected = {prompt: share[prompt] * (labels[bucket] == prompt).sum() for prompt in labels[bucket]}
            rounding = count / sum(expected.values())
            for prompt, number in expected.items():
                assert abs((labels[rows] == prompt).sum() - rounding * number) < 1


def test_buckets_are_as_long_as_their_prompts_want() -> None:
    """Where nothing is too rare, a bucket's length is what its circuits are expected to come to, rounded."""
    labels = np.array([0] * 90 + [1] * 10 + [2] * 20, dtype=np.int32)
    buckets = [np.arange(0, 60), np.arange(60, 95), np.arange(95, 120)]
    balance = PromptBalance(buckets, labels)  # 40 of each prompt: 60 * 4/9, 30 * 4/9 + 5 * 4, 5 * 4 + 20 * 2
    assert balance.counts.tolist() == [27, 33, 60]


def test_over_many_epochs_every_circuit_of_a_prompt_comes_equally_often() -> None:
    rng = np.random.default_rng(0)
    labels, lengths = rng.choice(NUM_PROMPTS, 100, p=[0.6, 0.25, 0.1, 0.04, 0.01]), rng.integers(1, 5, 100)
    loader = loader_of(make(labels.tolist(), lengths.tolist()), bucketed=True)
    epochs = [list(chain(*rows_of(loader, epoch))) for epoch in range(400)]
    assert {len(rows_of(loader, epoch)) for epoch in range(20)} == {len(loader)}
    frequency = np.bincount(np.array(epochs).ravel(), minlength=100) / 400
    expected = 100 / len(np.unique(labels)) / np.bincount(labels)[labels]
    # Rounding of the four buckets moves a circuit's share by 3 % here; the rest is chance.
    assert (np.abs(frequency - expected) < 0.05 * expected + 4 * np.sqrt(expected / 400)).all()
    np.testing.assert_allclose(np.bincount(labels, frequency), 20, rtol=0.05)


@pytest.mark.parametrize("bucketed", [False, True])
def test_an_epoch_can_be_continued_and_is_the_same_with_threads(bucketed: bool) -> None:
    rng = np.random.default_rng(1)
    labels, lengths = rng.integers(0, NUM_PROMPTS, 100).tolist(), rng.integers(1, 5, 100).tolist()
    dataset = make(labels, lengths)
    loader, threaded = (loader_of(dataset, bucketed=bucketed, num_workers=workers) for workers in (0, 2))
    epochs = [rows_of(loader, epoch) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs != [rows_of(loader_of(dataset, bucketed=bucketed, seed=1), epoch) for epoch in range(3)]
    for epoch, rows in enumerate(epochs):
        assert rows == rows_of(threaded, epoch)
        for first in range(len(rows) + 1):
            assert rows_of(loader, epoch, first) == rows_of(threaded, epoch, first) == rows[first:]


def test_a_prompt_with_one_circuit_and_one_without_any() -> None:
    rows = list(chain(*rows_of(loader_of(make([0] * 29 + [3])), 0)))
    assert rows.count(29) == 15
    assert len(set(rows) - {29}) == 15
    assert sorted(chain(*rows_of(loader_of(make([2])), 0))) == [0]


def test_a_bucket_that_is_hardly_expected_is_not_left_out() -> None:
    """Of 99 circuits of a prompt the longest ones have a bucket each, expected half a time in an epoch."""
    loader = loader_of(make([0] * 99 + [1], [1] * 96 + [2, 3, 4] + [1]), bucketed=True)
    for epoch in range(5):
        assert {96, 97, 98} <= set(chain(*rows_of(loader, epoch)))


@pytest.mark.parametrize("bucketed", [False, True])
def test_validation_is_not_balanced_and_nothing_of_it_is_trained_on(bucketed: bool) -> None:
    dataset = make([0] * 70 + [1] * 20 + [2] * 10)
    plain, balanced = (
        DatasetLoader(3).get_dataloaders(dataset, 8, 0.2, bucketed=bucketed, balance_prompts=on) for on in (False, True)
    )
    assert plain[1] is not None
    assert balanced[1] is not None
    assert rows_of(plain[1], 0) == rows_of(balanced[1], 0)
    assert sorted(chain(*rows_of(balanced[1], 0))) == balanced[1].rows.tolist()
    trained_on = set(chain(*(chain(*rows_of(balanced[0], epoch)) for epoch in range(9))))
    assert trained_on == set(plain[0].rows.tolist())
    assert balanced[0].dataset is dataset
