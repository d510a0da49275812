"""Merging, balancing, splitting and batching: a function of the content and the seed, and no cell is lost or wrong."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.keys import cell_keys, row_keys
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, decode_tokens
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data import blocks
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader, pad_time
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import balanced_rows, merge_datasets, rank_within_label
from quantum_diffusion.data.storage import load_dataset_folder, save_dataset
from quantum_diffusion.errors import ConfigError, DatasetFormatError, IncompatibleDatasetsError

SHAPES = [(2, 5), (3, 4), (3, 8), (4, 6)]


@cache
def generated(num_qubits: int, max_gates: int, seed: int = 0) -> CircuitDataset:
    config = DatasetConfig(num_qubits=num_qubits, min_gates=1, max_gates=max_gates, num_samples=40, seed=seed, n_jobs=1)
    return DatasetGenerator(config).generate()[0]


def parts_of(numbers: list[int]) -> list[CircuitDataset]:
    return [generated(*SHAPES[number % len(SHAPES)], seed=number // len(SHAPES)) for number in numbers]


def labelled_circuits(dataset: CircuitDataset) -> list[tuple[Circuit, str]]:
    """What a data set means: decoded circuits with their prompts; asserts that every one is valid."""
    report = decode_tokens(dataset.tokens, dataset.gate_pool)
    assert report.valid.all(), report.counts
    circuits = circuits_from_ids(
        report.ids, instruction_table(dataset.gate_pool, dataset.num_qubits), dataset.sizes[:, 0].tolist()
    )
    return [(circuit, dataset.prompts[i]) for circuit, i in zip(circuits, dataset.prompt_index, strict=True)]


# --------------------------------------------------------------------------------------------- merging


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_merging_keeps_every_circuit_and_its_prompt_whatever_the_order(numbers: list[int], random: object) -> None:
    parts = parts_of(numbers)
    merged = merge_datasets(parts)
    expected = Counter(dict.fromkeys((pair for part in parts for pair in labelled_circuits(part)), 1))
    assert Counter(labelled_circuits(merged)) == expected
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert merge_datasets(parts).fingerprint == merged.fingerprint
    assert list(merged.prompts) == sorted(set(merged.prompts))
    assert (merged.num_qubits, merged.max_gates) == tuple(
        max(getattr(part, key) for part in parts) for key in ("num_qubits", "max_gates")
    )


def test_no_circuit_can_be_trained_on_and_validated_with(caplog: pytest.LogCaptureFixture) -> None:
    """Two data sets of few possible circuits share many, also when one has more time steps."""
    parts = [generated(2, 3, seed) for seed in (0, 1)] + [generated(2, 5)]
    merged = merge_datasets(parts)
    shared = sum(map(len, parts)) - len(merged)
    assert shared > 10
    assert caplog.messages == [f"dropped {shared} circuits that occur more than once in the data sets"]
    assert len(set(labelled_circuits(merged))) == len(merged)


def test_keys_of_rows() -> None:
    rows = np.array(np.meshgrid(*[np.arange(9)] * 5)).reshape(5, -1).T.astype(np.int16)
    keys = row_keys(rows)
    assert len(np.unique(keys)) == len(rows)
    np.testing.assert_array_equal(row_keys(rows[::-1]), keys[::-1])
    assert row_keys(rows[:0]).shape == (0,)
    assert len({*row_keys(np.eye(64, dtype=np.int8)).tolist()}) == 64


@pytest.mark.parametrize("width", [1, 7, 8, 9, 18, 40])
def test_keys_of_rows_tell_every_byte_and_use_every_bit(width: int) -> None:
    row = np.random.default_rng(0).integers(0, 256, width, dtype=np.uint8)
    changed = np.concatenate(
        [row[None], row ^ np.eye(width, dtype=np.uint8), row ^ (np.eye(width, dtype=np.uint8) << 7)]
    )
    assert len(np.unique(row_keys(changed))) == 2 * width + 1
    counted = np.zeros((20_000, width + 2), dtype=np.uint8)
    counted[:, -2:] = np.arange(20_000, dtype=np.uint16)[:, None].view(np.uint8)
    keys = row_keys(counted)
    assert len(np.unique(keys)) == 20_000
    ones = np.unpackbits(keys.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / 20_000**0.5, "every bit is as often 1 as 0"


def test_keys_of_cells_ignore_the_frame_and_tell_everything_else() -> None:
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(-3, 4, (200_000, 2, 9), dtype=np.int8) * (rng.random((200_000, 2, 9)) < 0.2), axis=0)
    keys = cell_keys(cells)
    assert len(np.unique(keys)) == len(cells)
    framed = np.zeros((len(cells), 5, 26), dtype=np.int8)
    framed[:, :2, :9] = cells
    np.testing.assert_array_equal(cell_keys(framed), keys)
    places = np.arange(3 * 20)  # words of equal content in two places; multiples of each other among them
    pairs = np.zeros((60, 60, 3 * 20), dtype=np.int8)
    pairs[places, :, places] = 1
    pairs[:, places, places] = 3
    assert len(np.unique(cell_keys(pairs.reshape(-1, 3, 20)))) == 3600
    ones = np.unpackbits(keys.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / len(keys) ** 0.5, "every bit is as often 1 as 0"
    assert cell_keys(cells[:0]).shape == (0,)


def test_cells_outside_a_circuits_own_data_set_hold_the_padding_token() -> None:
    small, large = generated(2, 5), generated(4, 6)
    merged = merge_datasets([large, small])
    padding = merged.gate_pool.padding_token
    rows = merged.tokens[merged.sizes[:, 0] == 2]
    assert len(rows) == len(small)
    assert (rows[:, 2:] == padding).all()
    assert (rows[:, :, 5:] == padding).all()
    assert (rows[:, :2, :5] != padding).all()
    assert (merged.tokens[merged.sizes[:, 0] == 4] != padding).all()


def merged_simply(parts: list[CircuitDataset]) -> CircuitDataset:
    """Merge as one would without a thought of memory or time, a circuit after the other."""
    parts = sorted(parts, key=lambda part: (part.num_qubits, part.max_gates, part.fingerprint))
    pool, prompts = parts[0].gate_pool, sorted({prompt for part in parts for prompt in part.prompts})
    shape = (max(part.num_qubits for part in parts), max(part.max_gates for part in parts))
    seen: set[tuple[bytes, ...]] = set()
    rows = []
    for part in parts:
        for tokens, index, sizes in zip(part.tokens, part.prompt_index, part.sizes, strict=True):
            padded = np.full(shape, pool.padding_token, dtype=np.int8)
            padded[: part.num_qubits, : part.max_gates] = tokens
            number = np.int32(prompts.index(part.prompts[index]))
            key = (np.where(padded == pool.padding_token, 0, padded).tobytes(), number.tobytes(), sizes.tobytes())
            if key not in seen:
                rows.append((padded, number, sizes))
            seen.add(key)
    tokens, numbers, sizes = (np.stack(column) for column in zip(*rows, strict=True))
    return CircuitDataset(tokens, numbers, tuple(prompts), sizes, pool)


@pytest.mark.parametrize("block_bytes", [1, 100, 2**22])
@pytest.mark.parametrize("numbers", [[0, 4], [0, 4, 8], [1, 2, 6], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_merging_is_what_one_would_write_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: list[int], block_bytes: int
) -> None:
    """Bit for bit, in blocks of any size, from memory and from the disk; merged data sets are merged again, too."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
    parts = [*parts_of(numbers), merge_datasets([generated(2, 3), generated(3, 4)])]
    expected = merged_simply(parts)
    assert len(expected) < sum(map(len, parts))
    for place, part in enumerate(parts):
        save_dataset(part, tmp_path / str(place), {})
    for merged in (merge_datasets(parts), DatasetLoader().load_dataset(tmp_path)):
        assert merged.prompts == expected.prompts
        for name in ("tokens", "prompt_index", "sizes"):
            found, wanted = getattr(merged, name), getattr(expected, name)
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype


def test_merging_needs_room_for_the_result_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 2**18)
    rng = np.random.default_rng(0)
    parts = [
        CircuitDataset(
            rng.integers(1, 3, (30_000, width, 52)).astype(np.int8),
            np.zeros(30_000, dtype=np.int32),
            ("a",),
            np.tile(np.array([width, 52], dtype=np.int16), (30_000, 1)),
            GatePool(["h"]),
        )
        for width in (6, 8)
    ]
    tracemalloc.start()
    merged = merge_datasets(parts)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(merged) == 60_000
    assert most < 1.25 * merged.tokens.nbytes


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's account of memory")
def test_a_data_set_on_the_disk_leaves_memory_again(tmp_path: Path) -> None:
    """After everything was looked at, by the checks, the checksum, and a choice of rows."""
    count = 100_000
    save_dataset(
        CircuitDataset(
            np.ones((count, 4, 52), dtype=np.int8),
            np.zeros(count, dtype=np.int32),
            ("a",),
            np.tile(np.array([4, 52], dtype=np.int16), (count, 1)),
            GatePool(["h"]),
        ),
        tmp_path / "data",
        {},
    )
    dataset = load_dataset_folder(tmp_path / "data")
    fingerprint = dataset.fingerprint
    half = dataset.take(np.arange(0, count, 2))
    entry = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "data" / "dataset/ds/x.safetensors"))[2]
    resident = 1024 * int(entry.partition("Rss:")[2].split()[0])
    assert resident < 0.1 * dataset.tokens.nbytes
    assert half.tokens.sum() == 2 * dataset.tokens.sum() / 4
    assert replace(dataset, tokens=dataset.tokens.copy()).fingerprint == fingerprint


def test_what_was_written_to_a_private_map_is_not_lost(tmp_path: Path) -> None:
    np.zeros(4096, dtype=np.int8).tofile(tmp_path / "zeros")
    mapped = np.memmap(tmp_path / "zeros", np.int8, "c", shape=(64, 64))
    mapped[3] = 7
    assert [int(rows.sum()) for rows in blocks.row_blocks(mapped)] == [7 * 64]
    assert (mapped[3] == 7).all()


@given(st.integers(0, 20), st.lists(st.integers(0, 19), max_size=30), st.sampled_from([1, 7, 16, 1000]))
def test_blocks_are_the_whole(count: int, rows: list[int], block_bytes: int) -> None:
    array = np.arange(count * 6, dtype=np.int16).reshape(count, 2, 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(blocks, "_BLOCK_BYTES", block_bytes)
        np.testing.assert_array_equal(np.concatenate([array[:0], *blocks.row_blocks(array)]), array)
        chosen = np.array([row for row in rows if row < count], dtype=np.int64)
        np.testing.assert_array_equal(blocks.take_rows(array, chosen), array[chosen])


def test_one_data_set_stays_as_it_is() -> None:
    assert merge_datasets([generated(3, 8)]) is generated(3, 8)


def test_different_gate_pools_are_refused_with_both_named() -> None:
    base = generated(2, 5)
    other = CircuitDataset(base.tokens, base.prompt_index, base.prompts, base.sizes, GatePool(["cx", "h"]))
    with pytest.raises(IncompatibleDatasetsError, match=r"\['cx', 'h'\] and \['h', 'cx'\].*datasets.gate_set"):
        merge_datasets([base, other])


def test_nothing_to_merge_and_unitaries_are_refused() -> None:
    with pytest.raises(IncompatibleDatasetsError, match="at least one"):
        merge_datasets([])
    base = generated(2, 5)
    unitaries = np.zeros((len(base), 2, 4, 4), dtype=np.float32)
    other = replace(base, condition_type="UNITARY", targets=unitaries)
    with pytest.raises(IncompatibleDatasetsError, match="condition_type SRV and UNITARY"):
        merge_datasets([base, other])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text("abc019_", min_size=1, max_size=6), min_size=3, max_size=3, unique=True))
def test_a_folder_of_folders_does_not_depend_on_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    for name, part in zip(names, parts_of([0, 1, 3]), strict=True):
        save_dataset(part, folder / name, {})
    assert DatasetLoader().load_dataset(folder).fingerprint == merge_datasets(parts_of([3, 0, 1])).fingerprint


def test_a_folder_of_incompatible_folders(tmp_path: Path) -> None:
    base = generated(2, 5)
    save_dataset(base, tmp_path / "a", {})
    other = CircuitDataset(base.tokens, base.prompt_index, base.prompts, base.sizes, GatePool(["cx", "h"]))
    save_dataset(other, tmp_path / "b", {})
    with pytest.raises(IncompatibleDatasetsError, match="gate pools"):
        DatasetLoader().load_dataset(tmp_path)


def test_an_unreadable_folder_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(DatasetFormatError, match=r"cannot read .*permission denied"):
        DatasetLoader().load_dataset(tmp_path)


# ---------------------------------------------------------------------------------- balancing, limiting


def labels_only(labels: list[int]) -> CircuitDataset:
    count = len(labels)
    return CircuitDataset(
        np.arange(count, dtype=np.int8).reshape(count, 1, 1),
        np.array(labels, dtype=np.int32),
        ("a", "b", "c", "d"),
        np.ones((count, 2), dtype=np.int16),
        GatePool(["h"]),
    )


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 20), st.integers(0, 100))
def test_balancing_is_exact_deterministic_and_keeps_the_order(labels: list[int], most: int, seed: int) -> None:
    dataset = labels_only(labels)
    first, second = (dataset.take(balanced_rows(dataset, most, seed)) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.prompt_counts == {key: min(count, most) for key, count in dataset.prompt_counts.items()}
    assert (np.diff(first.tokens[:, 0, 0]) > 0).all()


@given(st.lists(st.integers(-3, 3), max_size=50))
def test_rank_within_label(labels: list[int]) -> None:
    expected = [labels[:position].count(label) for position, label in enumerate(labels)]
    assert rank_within_label(np.array(labels, dtype=np.int64)).tolist() == expected


def test_another_seed_keeps_others() -> None:
    dataset = labels_only([0] * 100)
    kept = [set(balanced_rows(dataset, 10, seed).tolist()) for seed in range(3)]
    assert kept[0] != kept[1] != kept[2]


def test_limits_of_the_loader() -> None:
    parts, loader = parts_of([0, 1, 2, 3]), DatasetLoader(seed=5)
    balanced = loader.combine_datasets(parts, balance_max=3)
    assert max(balanced.prompt_counts.values()) == 3
    few = loader.combine_datasets(parts[::-1], max_samples=17)
    assert len(few) == 17
    assert few.fingerprint == DatasetLoader(seed=5).combine_datasets(parts, max_samples=17).fingerprint
    assert few.fingerprint != DatasetLoader(seed=6).combine_datasets(parts, max_samples=17).fingerprint
    assert Counter(labelled_circuits(few)) <= Counter(labelled_circuits(merge_datasets(parts)))
    everything = loader.combine_datasets(parts, balance_max=10**6, max_samples=10**6)
    assert everything.fingerprint == merge_datasets(parts).fingerprint
    both = loader.combine_datasets(parts, balance_max=3, max_samples=17)
    assert both.fingerprint == loader.combine_datasets([balanced], max_samples=17).fingerprint
    assert loader.combine_datasets([both], balance_max=3, max_samples=17) is both, "nothing is copied for nothing"


# ------------------------------------------------------------------------------------ splits and batches


def rows_of(loader: BatchLoader, epoch: int, first_batch: int = 0) -> list[list[int]]:
    """Row numbers of the batches, told by the first token of `labels_only` data."""
    return [batch.tokens[:, 0, 0].tolist() for batch in loader.epoch(epoch, first_batch)]


@given(st.integers(2, 120), st.floats(0, 0.9), st.integers(0, 50))
def test_a_split_is_disjoint_complete_and_deterministic(count: int, fraction: float, seed: int) -> None:
    dataset = labels_only([0] * count)
    held_out = max(1, round(count * fraction)) if fraction else 0
    if held_out >= count:
        return
    first, second = (DatasetLoader(seed).get_dataloaders(dataset, 8, fraction) for _ in range(2))
    train = first[0].rows.tolist()
    validation = first[1].rows.tolist() if first[1] else []
    assert sorted(train + validation) == list(range(count))
    assert len(validation) == held_out
    assert second[0].rows.tolist() == train
    assert (first[1] is None) == (fraction == 0)


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.05), (1, 0.9), (2, 0.9)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(count: int, fraction: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"validation_fraction={fraction} leaves none of {count} circuits? .*lower it"
    ):
        DatasetLoader().get_dataloaders(labels_only([0] * count), 8, fraction)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(count: int, size: int, seed: int, epoch: int) -> None:
    loader, _ = DatasetLoader(seed).get_dataloaders(labels_only([0] * count), size, 0.0)
    rows = rows_of(loader, epoch)
    rows_of(loader, epoch + 1)  # what was drawn before changes nothing
    again, _ = DatasetLoader(seed).get_dataloaders(labels_only([0] * count), size, 0.0)
    assert rows == rows_of(again, epoch) == rows_of(loader, epoch)
    assert sorted(chain(*rows)) == list(range(count))
    assert len(rows) == len(loader) == -(-count // size)
    assert loader.num_circuits == count
    assert all(len(batch) == size for batch in rows[:-1])
    for first in range(len(rows) + 1):
        assert rows_of(loader, epoch, first) == rows[first:]


def test_epochs_and_seeds_have_other_orders_and_validation_has_none() -> None:
    dataset = labels_only([0] * 100)
    orders = [
        tuple(chain(*rows_of(DatasetLoader(seed).get_dataloaders(dataset, 7, 0.0)[0], epoch)))
        for seed in range(2)
        for epoch in range(2)
    ]
    assert len(set(orders)) == 4
    validation = DatasetLoader(0).get_dataloaders(dataset, 7, 0.3)[1]
    assert validation is not None
    assert rows_of(validation, 0) == rows_of(validation, 1)
    assert list(chain(*rows_of(validation, 0))) == validation.rows.tolist()


@pytest.mark.parametrize("multiple", [1, 4, 5])
@pytest.mark.parametrize("batch_size", [1, 16, 1000])
def test_bucketed_batches_hold_the_same_circuits_cut_to_their_size(multiple: int, batch_size: int) -> None:
    dataset = merge_datasets(parts_of([0, 1, 2, 3]))
    expected = Counter(
        (tuple(sizes), *pair) for sizes, pair in zip(dataset.sizes.tolist(), labelled_circuits(dataset), strict=True)
    )
    found: Counter[object] = Counter()
    loader, _ = DatasetLoader(0).get_dataloaders(dataset, batch_size, 0.0, bucketed=True, time_multiple=multiple)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader)
    shapes = set()
    for batch in batches:
        assert batch.tokens.shape[2] % multiple == 0
        assert batch.tokens.shape[1] == batch.sizes[:, 0].max() == batch.sizes[:, 0].min()
        assert batch.tokens.shape[2] - batch.sizes[:, 1].max() < multiple
        assert batch.sizes[:, 1].max() - batch.sizes[:, 1].min() < multiple
        shapes.add(tuple(batch.tokens.shape[1:]))
        report = decode_tokens(batch.tokens.numpy(), dataset.gate_pool)
        assert report.valid.all()
        circuits = circuits_from_ids(report.ids, instruction_table(dataset.gate_pool, batch.tokens.shape[1]))
        prompts = [dataset.prompts[i] for i in batch.prompt_ids]
        found.update(zip(map(tuple, batch.sizes.tolist()), circuits, prompts, strict=True))
    assert found == expected
    assert len(shapes) > 3


def test_max_padded_batches_hold_the_same_circuits() -> None:
    dataset = merge_datasets(parts_of([0, 3]))
    loader, _ = DatasetLoader(0).get_dataloaders(dataset, 16, 0.0, time_multiple=4)
    found: Counter[object] = Counter()
    for batch in loader.epoch(0):
        assert batch.tokens.shape[1:] == (4, 8)
        assert (batch.tokens[:, :, 6:] == dataset.gate_pool.padding_token).all()
        report = decode_tokens(batch.tokens.numpy(), dataset.gate_pool)
        table = instruction_table(dataset.gate_pool, 4)
        found.update(circuits_from_ids(report.ids, table, batch.sizes[:, 0].tolist()))
    assert found == Counter(circuit for circuit, _ in labelled_circuits(dataset))


def test_a_bucketed_epoch_can_be_continued_and_mixes_its_buckets() -> None:
    dataset = merge_datasets(parts_of([0, 1, 2, 3]))
    loader, _ = DatasetLoader(0).get_dataloaders(dataset, 8, 0.0, bucketed=True)
    batches = list(loader.epoch(3))
    for first in (0, 1, len(batches) - 1, len(batches)):
        rest = list(loader.epoch(3, first))
        assert len(rest) == len(batches) - first
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(rest, batches[first:], strict=True))
    qubits = [batch.tokens.shape[1] for batch in batches]
    assert qubits != sorted(qubits)


def test_a_batch_is_what_the_model_expects() -> None:
    dataset = generated(3, 8)
    batch = next(DatasetLoader(0).get_dataloaders(dataset, 4, 0.0)[0].epoch(0)).to(torch.device("cpu"))
    assert len(batch) == 4
    assert [t.dtype for t in (batch.tokens, batch.prompt_ids, batch.sizes)] == [torch.int8, torch.int32, torch.int16]
    assert batch.tokens.shape == (4, 3, 8)
    assert batch.targets is None


def test_unitaries_go_with_their_circuits() -> None:
    base = generated(2, 5)
    unitaries = np.arange(len(base) * 32, dtype=np.float32).reshape(len(base), 2, 4, 4)
    dataset = replace(base, condition_type="UNITARY", targets=unitaries)
    for batch in DatasetLoader(0).get_dataloaders(dataset, 7, 0.0, bucketed=True)[0].epoch(0):
        assert batch.targets is not None
        rows = (batch.targets[:, 0, 0, 0] / 32).long().numpy()
        np.testing.assert_array_equal(batch.prompt_ids.numpy(), base.prompt_index[rows])
        assert batch.targets.shape == (len(batch), 2, 4, 4)


@pytest.mark.parametrize("bucketed", [False, True])
def test_one_circuit_is_enough(bucketed: bool) -> None:
    dataset = generated(3, 8).take(np.array([0]))
    loader, validation = DatasetLoader(0).get_dataloaders(dataset, 256, 0.0, bucketed=bucketed)
    assert validation is None
    assert [len(batch) for batch in loader.epoch(0)] == [1]


def test_a_circuit_without_gates_has_one_time_step() -> None:
    dataset = labels_only([0])
    empty = CircuitDataset(
        np.zeros((1, 1, 3), dtype=np.int8),
        dataset.prompt_index,
        dataset.prompts,
        np.array([[1, 0]], dtype=np.int16),
        dataset.gate_pool,
    )
    loader, _ = DatasetLoader(0).get_dataloaders(empty, 2, 0.0, bucketed=True)
    assert next(loader.epoch(0)).tokens.shape == (1, 1, 1)


def test_padding_time() -> None:
    tokens = np.ones((2, 3, 5), dtype=np.int8)
    padded = pad_time(tokens, 4, 9)
    assert padded.shape == (2, 3, 8)
    assert (padded[:, :, 5:] == 9).all()
    assert pad_time(tokens, 5, 9) is tokens
