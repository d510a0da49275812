"""`quantum-diffusion inspect`: what is right is found right, and whatever is changed is found, counted and named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.pairs import frequent_pairs
from quantum_diffusion.circuits.tokenizer import decode_tokens, encode_ids
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.evaluation import inspection
from quantum_diffusion.evaluation.inspection import CHECKS, InspectionReport, WrongCircuits, inspect_dataset
from quantum_diffusion.evaluation.metrics import circuit_keys, mean_gate_counts
from quantum_diffusion.interop.genqc_export import export_dataset
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.tasks.registry import TASKS
from tests.conftest import draw_dataset

GATES = ("h", "cx", "z", "x", "ccx", "swap")
RIGHT = "every circuit is valid and has the right size and label\n"


def configuration(folder: Path | str = "unused", **changes: Any) -> DatasetConfig:
    return DatasetConfig(**{"num_samples": 500, "max_gates": 10, "n_jobs": 1, "output_path": str(folder), **changes})


@pytest.fixture(scope="module")
def srv() -> CircuitDataset:
    """500 circuits of 4 qubits, labelled with their Schmidt rank vectors."""
    return DatasetGenerator(configuration(num_qubits=4)).generate()[0]


@pytest.fixture(scope="module")
def unitary() -> CircuitDataset:
    """2000 circuits of 3 qubits with their unitaries, so that every prompt occurs."""
    return DatasetGenerator(configuration(gate_set=GATES, condition_type="UNITARY", num_samples=2000)).generate()[0]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets of 2, 3 and 5 qubits."""
    folder = tmp_path_factory.mktemp("mixed")
    for num_qubits in (2, 3, 5):
        changes = {"num_qubits": num_qubits, "max_gates": 2 * num_qubits, "num_samples": 60}
        DatasetGenerator(configuration(folder / f"{num_qubits}q", **changes)).write()
    return folder


def changed(dataset: CircuitDataset, name: str, change: Callable[[np.ndarray], None]) -> CircuitDataset:
    """Return a data set with one array changed in place."""
    array = getattr(dataset, name).copy()
    change(array)
    return replace(dataset, **{name: array})


def only_wrong(report: InspectionReport, check: str, *rows: int, count: int | None = None) -> None:
    """One check fails, for these rows."""
    expected = {name: WrongCircuits(0, ()) for name in CHECKS}
    expected[check] = WrongCircuits(len(rows) if count is None else count, rows)
    assert report.wrong == expected
    assert not report.is_right


# ------------------------------------------------------------------------------------------- what is right


def test_a_data_set_of_schmidt_rank_vectors_is_right_and_counted(srv: CircuitDataset) -> None:
    report = inspect_dataset(srv)
    assert report.is_right
    assert report.wrong == dict.fromkeys(CHECKS, WrongCircuits(0, ()))
    assert (report.num_circuits, report.num_qubits, report.max_gates, report.gate_pool) == (500, 4, 10, ("h", "cx"))
    assert report.qubit_counts == {"4": 500}
    assert report.prompt_counts == srv.prompt_counts
    entangled = [prompt.count("2") for prompt in srv.prompts]
    assert list(report.prompt_entangled.values()) == entangled
    by_number = Counter(entangled[number] for number in srv.prompt_index)
    assert report.entangled_counts == {str(number): by_number[number] for number in sorted(by_number)}
    assert report.length_counts == {str(length): count for length, count in sorted(srv.length_counts[4].items())}
    for length, count in report.length_counts.items():
        assert sum(counts.get(length, 0) for counts in report.length_counts_by_entangled.values()) == count
    ids = decode_tokens(srv.tokens, srv.gate_pool).ids
    table = instruction_table(srv.gate_pool, 4)
    assert report.mean_gates_by_kind == pytest.approx(mean_gate_counts(ids, table))
    assert report.mean_length == pytest.approx(sum(report.mean_gates_by_kind.values()))
    assert report.imbalance == max(report.prompt_counts.values()) / min(report.prompt_counts.values())
    assert report.exact_repetitions == 0
    assert report.normal_form_repetitions == 500 - len(set(circuit_keys(ids, table, srv.sizes[:, 0]).tolist()))
    assert report.invalid_reasons == {}
    assert report.largest_target_error is None
    assert report.gadgets == frequent_pairs(ids, table)
    assert report.gadgets.mean_length == pytest.approx(report.mean_length)
    assert json.loads(json.dumps(report.to_dict()))["is_right"] is True


def test_pairs_are_counted_in_a_sample_of_many_circuits(srv: CircuitDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MOST_SAMPLED", 100)
    sampled = inspect_dataset(changed(srv, "tokens", lambda tokens: tokens.__setitem__((0, 0, 0), 99))).gadgets
    assert sampled.num_circuits == 99, "what is no circuit has no pairs"
    ids = decode_tokens(srv.tokens, srv.gate_pool).ids
    rows = np.linspace(0, 499, 100).astype(np.int64)[1:]
    assert sampled == frequent_pairs(ids[rows], instruction_table(srv.gate_pool, 4))


def test_a_data_set_of_unitaries_is_right(unitary: CircuitDataset) -> None:
    report = inspect_dataset(unitary)
    assert report.is_right
    assert report.entangled_counts == report.prompt_entangled == {}
    assert report.largest_target_error is not None
    assert 0 < report.largest_target_error < 1e-6
    assert unitary.targets is not None
    turned = (unitary.targets[:, 0] + 1j * unitary.targets[:, 1]) * np.exp(1j * np.arange(len(unitary)))[:, None, None]
    phases = np.stack([turned.real, turned.imag], axis=1).astype(np.float32)
    assert inspect_dataset(replace(unitary, targets=phases)).is_right, "a global phase does not matter"


def test_unitaries_in_half_precision_are_right_as_far_as_they_go(unitary: CircuitDataset, tmp_path: Path) -> None:
    assert unitary.targets is not None
    half = replace(unitary, targets=unitary.targets.astype(np.float16).astype(np.float32))
    export_dataset(half, tmp_path / "genqc")
    report = inspect_dataset(dataset_loader().load_dataset(tmp_path / "genqc"))
    assert report.is_right
    assert report.largest_target_error is not None
    assert report.largest_target_error > 1e-5
    only_wrong(
        inspect_dataset(changed(half, "targets", lambda U: U.__setitem__((3, 0, 0, 0), U[3, 0, 0, 0] + 0.125))),
        "targets",
        3,
    )


def test_circuits_of_several_sizes_are_right(mixed: Path) -> None:
    dataset = DatasetLoader().load_dataset(mixed)
    report = inspect_dataset(dataset)
    assert report.is_right
    assert report.qubit_counts == {str(width): sum(counts.values()) for width, counts in dataset.length_counts.items()}
    assert set(report.qubit_counts) == {"2", "3", "5"}
    assert sum(report.length_counts.values()) == len(dataset)


@pytest.mark.parametrize("cells", [1, 2000])
def test_the_size_of_blocks_does_not_matter(cells: int, monkeypatch: pytest.MonkeyPatch, srv: CircuitDataset) -> None:
    def move(labels: np.ndarray) -> None:
        labels[::3] = (labels[::3] + 1) % len(srv.prompts)

    dataset = changed(srv, "prompt_index", move)
    whole = inspect_dataset(dataset)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(inspection, "_BLOCK_CELLS", cells)
    assert inspect_dataset(dataset, lambda done, total: seen.append((done, total))) == whole
    assert seen[-1] == (500, 500)
    assert len(seen) == (500 if cells == 1 else 10)
    assert whole.wrong["labels"].count > 100
    assert whole.wrong["labels"].first_rows == (0, 3, 6, 9, 12)


def test_a_circuit_without_gates_may_be_padding_all_over() -> None:
    pool = GatePool(["h", "cx"])
    ids = np.zeros((1, 3), dtype=np.int16)
    sizes = np.array([[3, 0]], dtype=np.int16)
    tokens = encode_ids(ids, instruction_table(pool, 3), sizes)
    assert (tokens == pool.padding_token).all()
    report = inspect_dataset(CircuitDataset(tokens, np.zeros(1, np.int32), ("Generate SRV: [1, 1, 1]",), sizes, pool))
    assert report.is_right
    assert report.length_counts == {"0": 1}


def test_a_task_from_outside_is_refused(srv: CircuitDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "ENTANGLED", TASKS["SRV"])
    with pytest.raises(ConfigError, match="condition_type ENTANGLED, but only SRV, UNITARY, STATE can be inspected"):
        inspect_dataset(replace(srv, condition_type="ENTANGLED"))


def test_no_circuits_at_all(srv: CircuitDataset) -> None:
    report = inspect_dataset(srv.take(np.array([], dtype=np.int64)))
    assert report.is_right
    assert (report.num_circuits, report.prompt_counts, report.mean_length, report.imbalance) == (0, {}, 0.0, 1.0)


# ------------------------------------------------------------------------------------------- what is wrong


def test_wrong_labels_are_found(srv: CircuitDataset) -> None:
    def move(labels: np.ndarray) -> None:
        for row in (7, 70, 499):
            labels[row] = (labels[row] + 1) % len(srv.prompts)

    only_wrong(inspect_dataset(changed(srv, "prompt_index", move)), "labels", 7, 70, 499)


def test_a_label_of_other_qubits_is_found(mixed: Path) -> None:
    dataset = DatasetLoader().load_dataset(mixed)
    product = {prompt.count("1"): number for number, prompt in enumerate(dataset.prompts) if "2" not in prompt}
    row = int(np.flatnonzero(dataset.prompt_index == product[2])[0])
    report = inspect_dataset(changed(dataset, "prompt_index", lambda labels: labels.__setitem__(row, product[3])))
    only_wrong(report, "labels", row)


@pytest.mark.parametrize("prompt", ["Generate SRV: [1, 1, 1, 2]", "Generate SRV: [1, 2, 2]", "Generate SRV: [1,1,1,1]"])
def test_a_vector_that_no_circuit_has_is_wrong(srv: CircuitDataset, prompt: str) -> None:
    report = inspect_dataset(replace(srv, prompts=(prompt, *srv.prompts[1:])))
    rows = np.flatnonzero(srv.prompt_index == 0)
    only_wrong(report, "labels", *rows[:5].tolist(), count=len(rows))
    assert report.prompt_counts[prompt] == len(rows)


def test_prompts_of_another_form_are_wrong(srv: CircuitDataset) -> None:
    report = inspect_dataset(replace(srv, prompts=("Write me a circuit", *srv.prompts[1:])))
    rows = np.flatnonzero(srv.prompt_index == 0)
    only_wrong(report, "prompts", *rows[:5].tolist(), count=len(rows))


def test_wrong_sizes_are_found(srv: CircuitDataset) -> None:
    def change(sizes: np.ndarray) -> None:
        sizes[3, 1] += 1
        sizes[9, 1] -= 1
        sizes[11, 0] -= 1

    only_wrong(inspect_dataset(changed(srv, "sizes", change)), "sizes", 3, 9, 11)


def test_a_missing_qubit_in_the_middle_is_a_wrong_size(mixed: Path) -> None:
    dataset = DatasetLoader().load_dataset(mixed)
    row = int(np.flatnonzero((dataset.sizes[:, 0] == 5) & (dataset.tokens[:, 1] == 0).all(axis=1))[0])
    report = inspect_dataset(changed(dataset, "tokens", lambda x: x[row, 1].fill(dataset.gate_pool.padding_token)))
    only_wrong(report, "sizes", row)


def test_tokens_that_are_no_circuit_are_found_and_explained(srv: CircuitDataset) -> None:
    def change(tokens: np.ndarray) -> None:
        tokens[5, :, 0] = (-2, -2, 0, 0)
        tokens[6, :, 0] = (2, 1, 0, 0)
        tokens[6, :, 1] = 0
        tokens[300, :, 0] = (-2, -2, 0, 0)

    report = inspect_dataset(changed(srv, "tokens", change))
    only_wrong(report, "tokens", 5, 6, 300)
    assert report.invalid_reasons == {"controls without a target": 2, "two gates in one time step": 1}
    assert sum(report.length_counts.values()) == 500


def test_wrong_unitaries_are_found(unitary: CircuitDataset) -> None:
    def change(matrices: np.ndarray) -> None:
        matrices[17, 1, 2, 3] += 5e-5
        matrices[40] = 0
        matrices[41, 0, 0, 0] = np.nan
        matrices[200] = matrices[200][:, ::-1]

    report = inspect_dataset(changed(unitary, "targets", change))
    only_wrong(report, "targets", 17, 40, 41, 200)
    assert report.largest_target_error == np.inf


def test_prompts_that_lack_a_gate_are_found(unitary: CircuitDataset) -> None:
    number = unitary.prompts.index(f"Compile using: {list(GATES)}")
    kinds = instruction_table(unitary.gate_pool, 3).gate_index[decode_tokens(unitary.tokens, unitary.gate_pool).ids]
    rows = np.flatnonzero((unitary.prompt_index == number) & (kinds == GATES.index("ccx")).any(axis=1))
    prompts = list(unitary.prompts)
    prompts[number] = f"Compile using: {[name for name in GATES if name != 'ccx']} "  # as yet with a blank at its end
    everyone = np.flatnonzero(unitary.prompt_index == number)
    report = inspect_dataset(replace(unitary, prompts=tuple(prompts)))
    only_wrong(report, "gate lists", *everyone[:5].tolist(), count=len(everyone))
    without = prompts.index(prompts[number].strip())
    report = inspect_dataset(changed(unitary, "prompt_index", lambda y: y.__setitem__(rows[:2], without)))
    only_wrong(report, "gate lists", *rows[:2].tolist())


@pytest.mark.parametrize("names", [["cx", "h"], ["h", "h", "cx"], ["h", "cx", "u3"], []])
def test_gate_lists_are_subsets_in_the_order_of_the_pool(unitary: CircuitDataset, names: list[str]) -> None:
    number = unitary.prompts.index("Compile using: ['h', 'cx']")
    prompts = [*unitary.prompts[:number], f"Compile using: {names}", *unitary.prompts[number + 1 :]]
    rows = np.flatnonzero(unitary.prompt_index == number)
    only_wrong(
        inspect_dataset(replace(unitary, prompts=tuple(prompts))),
        "gate lists",
        *rows[:5].tolist(),
        count=len(rows),
    )


def test_repetitions_are_counted_but_not_wrong() -> None:
    pool = GatePool(["h", "cx"])
    table = instruction_table(pool, 3)
    h0, h1, h2 = 1, 2, 3
    ids = np.array([[h0, h1, 0], [h1, h0, 0], [h0, h1, 0], [h2, h2, h0], [h0, 0, 0], [h0, h2, 0]], dtype=np.int16)
    sizes = np.stack([np.full(6, 3), (ids > 0).sum(axis=1)], axis=1).astype(np.int16)
    dataset = CircuitDataset(
        encode_ids(ids, table),
        np.zeros(6, np.int32),
        ("Generate SRV: [1, 1, 1]", "Generate SRV: [2, 2, 2]"),
        sizes,
        pool,
    )
    report = inspect_dataset(dataset)
    assert report.is_right
    assert (report.exact_repetitions, report.normal_form_repetitions) == (1, 3)
    assert report.prompt_counts == {"Generate SRV: [1, 1, 1]": 6}, "a prompt without a circuit is no prompt of the data"
    other = inspect_dataset(changed(dataset, "prompt_index", lambda labels: labels.__setitem__(2, 1)))
    assert (other.exact_repetitions, other.normal_form_repetitions) == (0, 3), "another prompt: no exact repetition"


# --------------------------------------------------------------------------------------------- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command("inspect", [*arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_the_command_shows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DatasetGenerator(configuration(tmp_path / "data", num_qubits=4)).write()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, text, errors = run(capsys, f"inspect.dataset={tmp_path / 'data'}")
    assert (status, errors) == (0, "")
    assert text.endswith("\n" + RIGHT)
    words = " ".join(text.split())
    assert "circuits 500 of 4 qubits and at most 10 gates" in words
    assert "gate pool 2 h cx" in words
    assert "made with gate_set=[h,cx], generation_gate_set=null, num_qubits=4" in words
    assert "Generate SRV: [1, 1, 1, 1]" in words
    assert "tokens 0 wrong" in words
    assert "labels 0 wrong" in words
    assert "targets" not in words.split("Verification")[1]
    assert "h a, cx a b" in words.split("Frequent pairs of gates")[1]
    assert "as one instruction each, the mean length of all valid circuits is" in words
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_command_shows_mixed_folders_and_writes(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "inspection"
    status, text, _ = run(capsys, f"inspect.dataset={mixed}", f"inspect.save_folder={out}")
    assert status == 0
    words = " ".join(text.split())
    assert "of 2 and 3 and 5 qubits" in words
    assert "... and" in words.split("Prompts")[1], "12 labels are shown, and how many more there are"
    assert words.split("Prompts")[1].count("Generate SRV") == 12
    assert "made with" not in words
    assert {path.name for path in out.iterdir()} == {"inspection.json", "inspection.png"}
    figures = json.loads((out / "inspection.json").read_text(encoding="utf-8"))
    assert {"pairs", "num_circuits", "mean_length", "merged_length"} == figures["gadgets"].keys()
    assert {"name", "count", "circuits"} == figures["gadgets"]["pairs"][0].keys()
    assert figures["dataset"] == str(mixed)
    assert figures["settings"] is None
    assert figures["is_right"] is True
    assert (out / "inspection.png").read_bytes()[:4] == b"\x89PNG"
    assert run(capsys, f"inspect.dataset={mixed}", f"inspect.save_folder={out}")[0] == 0, "replaces an earlier one"


def test_the_command_shows_unitaries_and_may_be_quiet(
    unitary: CircuitDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_dataset(unitary, tmp_path / "data", {})
    status, text, _ = run(capsys, f"inspect.dataset={tmp_path / 'data'}")
    assert status == 0
    assert "largest error" in text.split("Verification")[1]
    assert "gate lists" in text.split("Verification")[1]
    assert run(capsys, f"inspect.dataset={tmp_path / 'data'}", "inspect.verbose=false") == (0, RIGHT, "")


def test_wrong_data_end_with_status_1_and_one_line(
    srv: CircuitDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def move(labels: np.ndarray) -> None:
        labels[:8] = (labels[:8] + 1) % len(srv.prompts)

    wrong = changed(srv, "prompt_index", move)
    wrong = changed(wrong, "sizes", lambda sizes: sizes.__setitem__((100, 1), sizes[100, 1] - 1))
    save_dataset(wrong, tmp_path / "data", {"seed": 5})
    out = tmp_path / "out"
    status, text, errors = run(capsys, f"inspect.dataset={tmp_path / 'data'}", f"inspect.save_folder={out}")
    assert status == 1
    assert errors == (
        f"error: {str(tmp_path / 'data')!r}: of 500 circuits, wrong are: sizes of 1 (row 100), labels of 8 (rows 0, 1, "
        "2, 3, 4, ...): generate or copy it again\n"
    )
    assert RIGHT not in text
    assert "made with seed=5" in text
    assert "wrong: rows 0, 1, 2, 3, 4, ..." in " ".join(text.split())
    figures = json.loads((out / "inspection.json").read_text(encoding="utf-8"))
    assert figures["is_right"] is False
    assert figures["settings"] == {"seed": 5}
    assert figures["wrong"]["labels"] == {"count": 8, "first_rows": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("content", ["notes.txt", "inspection.png", "inspection.json/notes.txt", "file"])
def test_other_files_are_never_touched(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], srv: CircuitDataset
) -> None:
    save_dataset(srv, tmp_path / "data", {})
    out = tmp_path / "out"
    precious = out if content == "file" else out / content
    precious.parent.mkdir(parents=True, exist_ok=True)
    precious.write_text("precious")
    status, text, errors = run(capsys, f"inspect.dataset={tmp_path / 'data'}", f"inspect.save_folder={out}")
    assert (status, text) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert str(out) in errors
    assert precious.read_text() == "precious"


def test_the_data_set_itself_is_no_place_for_results(
    srv: CircuitDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_dataset(srv, tmp_path / "data", {})
    folder = tmp_path / "data"
    status, _, errors = run(capsys, f"inspect.dataset={folder}", f"inspect.save_folder={folder}")
    assert status == 2
    assert "is not just an earlier inspection: choose another inspect.save_folder" in errors


def test_a_folder_that_is_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, errors = run(capsys, f"inspect.dataset={tmp_path / 'none'}")
    assert (status, text) == (2, "")
    assert "does not exist" in errors
    assert "inspect needs inspect.dataset: e.g." in run(capsys)[2]


def test_foreign_prompts_cannot_confuse_terminal_or_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = draw_dataset(3, 5, 48)
    prompts = ("\x1b[2J $x_{ [red]\n", *dataset.prompts[1:])
    save_dataset(replace(dataset, prompts=prompts), tmp_path / "data", {})
    status, text, errors = run(capsys, f"inspect.dataset={tmp_path / 'data'}", f"inspect.save_folder={tmp_path / 'o'}")
    assert status == 1
    assert "prompts of" in errors
    assert "\x1b" not in text + errors
    assert "?[2J $x_{ [red]?" in text
    assert (tmp_path / "o" / "inspection.png").is_file()
