"""Which circuits a data set keeps: against plain Python with sets and counters."""

import errno
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantum_diffusion.data.selection import KeySet, Quota, Selection, length_groups, length_quota
from quantum_diffusion.tasks.base import Candidates


@pytest.mark.parametrize(("memory", "maps"), [(0, True), (2**10, True), (2**20, True), (2**10, False)])
def test_a_key_set_is_a_set_wherever_its_keys_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, maps: bool
) -> None:
    def cannot_map(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    if not maps:
        monkeypatch.setattr(np, "load", cannot_map)
    keys, known = KeySet(tmp_path, memory), set[int]()
    rng = np.random.default_rng(0)
    for _ in range(60):
        batch = rng.integers(0, 3000, rng.integers(0, 90), dtype=np.uint64)
        np.testing.assert_array_equal(keys.contains(batch), [int(key) in known for key in batch])
        new = np.unique(batch[~keys.contains(batch)])
        keys.add(new)
        known |= set(new.tolist())
    everything = np.arange(3000, dtype=np.uint64)
    np.testing.assert_array_equal(keys.contains(everything), [key in known for key in range(3000)])
    assert bool(list(tmp_path.iterdir())) == (memory < 2**20), "large runs go to disk"


@given(st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=6), st.integers(0, 5))
def test_a_quota_lets_the_first_through(batches: list[list[int]], most: int) -> None:
    quota, counts = Quota(most), Counter[int]()
    for batch in batches:
        expected = []
        for group in batch:
            counts[group] += 1
            expected.append(counts[group] <= most)
        assert quota.admit(np.array(batch, dtype=np.int64)).tolist() == expected


def test_a_quota_of_its_own_a_group() -> None:
    quota = Quota({1: 2, 5: 0})
    assert quota.admit(np.array([1, 5, 1, 1])).tolist() == [True, False, True, False]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), max_size=20, unique=True), max_size=6),
    st.integers(1, 40),
    st.none() | st.integers(1, 6),
)
def test_a_selection_keeps_the_first_distinct_circuits(
    tmp_path: Path, shards: list[list[int]], most: int, most_per_label: int | None
) -> None:
    selection, kept = Selection(most, most_per_label, KeySet(tmp_path, 64)), list[int]()
    for shard in shards:
        numbers = np.array(shard, dtype=np.int16).reshape(-1, 1)
        drawn = Candidates(numbers, (numbers[:, 0] % 3).astype(np.uint32), np.empty((*numbers.shape, 0)))
        kept += selection.keep(drawn).ids[:, 0].tolist()
    expected = list[int]()
    for number in [number for shard in shards for number in shard]:
        same_label = sum(other % 3 == number % 3 for other in expected)
        if number not in expected and len(expected) < most and same_label < (most_per_label or 1000):
            expected.append(number)
    assert kept == expected
    assert selection.count == len(expected)
    assert selection.is_complete == (len(expected) == most)


def test_lengths_are_cut_to_a_quantile_of_their_label() -> None:
    groups = np.array([length_groups(np.array([a]), np.array([b]))[0] for a, b in [(0, 2), (0, 3), (0, 4), (7, 9)]])
    quota = length_quota(groups, np.array([10, 40, 20, 5]), 0.5)
    assert quota == dict(zip(groups.tolist(), [20, 20, 20, 5], strict=True))
    assert length_quota(groups, np.array([10, 40, 20, 5]), 0.0)[int(groups[1])] == 10
    assert length_quota(groups, np.array([10, 40, 20, 5]), 1.0)[int(groups[1])] == 40
