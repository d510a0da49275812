"""Tables and pictures of an evaluation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.pictures import rows_to_show, save_accuracy_chart, save_circuit_drawings
from quantum_diffusion.evaluation.report.results import check_results_folder, write_results_folder
from quantum_diffusion.evaluation.report.tables import markdown_table, summary_rows, verified_counts
from quantum_diffusion.tasks.srv import SrvSamples

METRICS = EvaluationMetrics(
    num_samples=100,
    valid_rate=0.99,
    empty_rate=0.0,
    srv_accuracy=0.95,
    srv_accuracy_interval=(0.888, 0.978),
    srv_accuracy_by_entangled={"0": 1.0, "2": 0.94},
    srv_accuracy_by_prompt={"Generate SRV: [1, 1]": 1.0, "Generate SRV: [2, 2]": 0.94},
    baseline_shuffled_accuracy=0.5,
    baseline_random_accuracy=0.4,
    distinct_rate=0.8,
    novel_rate=0.1,
    on_training_data=True,
    srv_accuracy_novel=0.8,
    exact_distinct_rate=0.8,
    mean_gates=4.25,
    gate_count_by_gate={"h": 2.25, "cx": 2.0},
    reasons={"valid": 99, "token out of range": 1},
    guidance_scale=3.0,
    steps=8,
    scheduler="masked",
    order="left_to_right",
    seed=7,
    seconds=1.5,
)


def make_samples(count: int) -> SrvSamples:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    ids = random_ids(np.random.default_rng(0), table, count, 0, 4)
    ranks = schmidt_rank_vectors(ids, table)
    labels = tuple(((1, 1), (2, 2))[row % 2] for row in range(count))
    prompts = tuple(f"Generate SRV: {list(label)}" for label in labels)
    valid = np.arange(count) % 5 != 0
    report = DecodeReport(ids, valid, tuple(VALID if ok else "broken" for ok in valid))
    ranks[~valid] = 0
    wanted = np.array(labels, dtype=np.int8).reshape(count, 2)
    return SrvSamples(
        prompts=prompts,
        report=report,
        ids=ids,
        num_qubits=np.full(count, 2),
        table=table,
        labels=labels,
        ranks=ranks,
        wanted=wanted,
    )


def test_rows_say_what_a_newcomer_needs() -> None:
    rows = {name.strip(): (value, meaning) for name, value, meaning in summary_rows(METRICS)}
    assert rows["SRV accuracy"][0] == "95.0 %"
    assert "95 %: 88.8 % to 97.8 %" in rows["SRV accuracy"][1]
    assert rows["shuffled prompts"][0] == "50.0 %"
    assert rows["2 entangled"][0] == "94.0 %"
    assert rows["mean gates"] == ("4.25", "per valid circuit: 2.2 h, 2.0 cx")
    assert rows["sampler"] == ("masked", "guidance 3, 8 steps, order left_to_right")
    assert summary_rows(replace(METRICS, order=None))[-1] == ("sampler", "masked", "guidance 3, 8 steps")


def test_empty_circuits_are_shown_only_where_there_are_any() -> None:
    assert "empty" not in [name.strip() for name, _, _ in summary_rows(METRICS)]
    rows = {name.strip(): value for name, value, _ in summary_rows(replace(METRICS, empty_rate=0.021))}
    assert rows["empty"] == "2.1 %"


@pytest.mark.parametrize(
    ("by_prompt", "said"),
    [
        ([4, 3, 9], "16 verified distinct circuits, 3 or more for each prompt"),
        ([4, 0, 9, 0, 1], "14 verified distinct circuits, none for 2 of 5 prompts"),
        ([0, 0], "no verified circuit for any prompt"),
        ([7], "7 verified distinct circuits"),
        ([0], "no verified circuit for any prompt"),
    ],
)
def test_the_number_of_verified_circuits_in_words(by_prompt: list[int], said: str) -> None:
    assert verified_counts(by_prompt) == said


def test_the_markdown_table_has_a_line_a_row() -> None:
    lines = markdown_table(summary_rows(METRICS)).splitlines()
    assert len(lines) == 2 + len(summary_rows(METRICS))
    assert {line.count("|") for line in lines} == {4}


@pytest.mark.parametrize("prompts", [1, 5, 30, 200])
def test_the_accuracy_chart_is_drawn(tmp_path: Path, prompts: int) -> None:
    shares = {f"Generate SRV: {[1] * 3 + [number]}": number / prompts for number in range(prompts)}
    path = tmp_path / "accuracy.png"
    save_accuracy_chart(replace(METRICS, srv_accuracy_by_prompt=shares), path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.stat().st_size > 5000


@pytest.mark.parametrize("most", [1, 5, 12])
def test_circuits_are_drawn(tmp_path: Path, most: int) -> None:
    path = tmp_path / "circuits.png"
    save_circuit_drawings(make_samples(30), path, most)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_draw(tmp_path: Path) -> None:
    save_circuit_drawings(make_samples(1), tmp_path / "circuits.png", 12)
    assert not (tmp_path / "circuits.png").exists()


def test_drawn_circuits_are_valid_distinct_and_spread_over_the_prompts() -> None:
    samples = make_samples(60)
    rows = rows_to_show(samples, samples.report.valid, 10)
    assert len(rows) == 10
    assert bool(samples.report.valid[rows].all())
    assert [samples.labels[row] for row in rows] == [(1, 1)] * 5 + [(2, 2)] * 5
    assert len({samples.ids[row].tobytes() for row in rows}) == 10


def write_evaluation(folder: Path, draw: Callable[[Path], object] = Path.touch) -> None:
    figures = METRICS.to_dict() | {"evaluation": {}}
    circuit = Circuit(2, (Instruction("h", (), (0,)),))
    pictures = {"accuracy.png": draw, "circuits.png": Path.touch}
    verified = {"srv_11": [circuit], "srv_22": []}
    failed = [("asked [2, 2]: got [1, 1]", circuit)]
    write_results_folder(folder, figures, summary_rows(METRICS), verified, {"srv_11": "a"}, pictures, failed)


def test_an_earlier_evaluation_is_replaced(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")  # beside the results, where nothing of it is replaced
    check_results_folder(tmp_path)
    write_evaluation(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_picture_that_fails_leaves_the_results_and_no_older_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def draw(path: Path) -> None:
        raise RuntimeError("matplotlib has no fonts")

    write_evaluation(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    write_evaluation(tmp_path, draw)
    assert caplog.messages == ["the picture 'accuracy.png' could not be made: matplotlib has no fonts"]
    assert {path.name for path in tmp_path.iterdir()} == written - {"accuracy.png"}
    assert (tmp_path / "circuits" / "srv_11" / "00001.qasm").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "circuits/my.qasm",
        "circuits/mine/x.qasm",
        "circuits/srv_11/notes.txt",
        "success.png/x",
        "circuits/.x",
        "failed/my.qasm",
    ],
)
def test_what_users_put_into_an_evaluation_is_not_replaced(name: str, tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="which no evaluation wrote and a new one would remove: move it") as error:
        check_results_folder(tmp_path)
    assert str(error.value).split("'")[3] in (name, name.rpartition("/")[0])


@pytest.mark.parametrize("text", ['{"mine":1}', "[]", "no JSON", '{"seed":0, "valid_rate":1}'])
def test_metrics_of_others_are_not_replaced(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"holds 'metrics\.json', but no earlier evaluation"):
        check_results_folder(tmp_path)
