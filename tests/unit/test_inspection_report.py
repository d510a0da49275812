"""Rows, verdict and picture of an inspection, for data sets of many shapes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from quantum_diffusion.circuits.pairs import FrequentPairs, GatePair
from quantum_diffusion.evaluation.inspection import CHECKS, InspectionReport, WrongCircuits
from quantum_diffusion.evaluation.report.dataset_section import dataset_section
from quantum_diffusion.evaluation.report.inspection import (
    check_rows,
    content_rows,
    gadget_rows,
    gadget_words,
    label_rows,
    save_inspection,
    save_inspection_chart,
    verdict,
)
from quantum_diffusion.evaluation.report.sources import DatasetSource


def make_report(num_prompts: int, kind: str = "srv", smallest: int = 1) -> InspectionReport:
    """A report of made-up numbers: prompt k has `smallest + 10 k` circuits of k % 5 + 1 gates."""
    begin = {"srv": "Generate SRV: [{}]", "gates": "Compile using: ['h', 'cx{}']", "other": "$x_{{{}}} \\frac"}[kind]
    prompts = {begin.format(number): smallest + 10 * number for number in range(num_prompts)}
    entangled = {prompt: (0, 2, 3)[row % 3] for row, prompt in enumerate(prompts)} if kind == "srv" else {}
    lengths: dict[str, int] = {}
    by_entangled: dict[str, dict[str, int]] = {}
    for row, (prompt, count) in enumerate(prompts.items()):
        length = str(row % 5 + 1)
        lengths[length] = lengths.get(length, 0) + count
        if prompt in entangled:
            of_number = by_entangled.setdefault(str(entangled[prompt]), {})
            of_number[length] = of_number.get(length, 0) + count
    counts = sorted(prompts.values()) or [1]
    return InspectionReport(
        num_circuits=sum(prompts.values()),
        num_qubits=3,
        max_gates=5,
        gate_pool=("h", "cx"),
        qubit_counts={"3": sum(prompts.values())},
        prompt_counts=prompts,
        prompt_entangled=entangled,
        entangled_counts={number: sum(of_number.values()) for number, of_number in by_entangled.items()},
        length_counts=lengths,
        length_counts_by_entangled=by_entangled,
        mean_length=2.5,
        mean_gates_by_kind={"h": 1.0, "cx": 1.5},
        imbalance=counts[-1] / counts[0],
        exact_repetitions=0,
        normal_form_repetitions=1,
        invalid_reasons={},
        largest_target_error=None if kind == "srv" else 2e-8,
        wrong={check: WrongCircuits(0, ()) for check in CHECKS},
        gadgets=FrequentPairs((GatePair("h a, cx a b", 1200, 30), GatePair("cx a b, cx b a", 4, 2)), 60, 2.5, 1.9),
    )


@pytest.mark.parametrize(
    ("kind", "num_prompts"), [("srv", 0), ("srv", 40), ("gates", 1), ("gates", 250), ("other", 1), ("other", 40)]
)
def test_the_picture_is_drawn(tmp_path: Path, kind: str, num_prompts: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_inspection_chart(make_report(num_prompts, kind), tmp_path / "inspection.png")
    assert (tmp_path / "inspection.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_that_fails_leaves_the_report_and_no_older_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save_inspection(make_report(3), tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inspection.json", "inspection.png"]
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", None)
    save_inspection(make_report(3), tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["inspection.json"]
    assert "the picture 'inspection.png' could not be made" in caplog.text


def test_an_even_data_set_of_long_circuits_is_drawn(tmp_path: Path) -> None:
    report = make_report(300, smallest=10_000)
    report = replace(
        report, length_counts={"1": 5, "300": 7}, length_counts_by_entangled={"0": {"1": 5}, "2": {"300": 7}, "3": {}}
    )
    save_inspection_chart(report, tmp_path / "inspection.png")
    assert (tmp_path / "inspection.png").stat().st_size > 5000


def test_rows_say_what_is_there() -> None:
    rows = {name.strip(): (value, meaning) for name, value, meaning in content_rows(make_report(3))}
    assert rows["circuits"] == ("33", "of 3 qubits and at most 5 gates")
    assert rows["gates"] == ("2.50", "mean of 1 to 3 a circuit: 1.0 h, 1.5 cx")
    assert rows["prompts"] == ("3", "1 to 21 circuits each, a factor of 21")
    assert rows["2 entangled"] == ("11", "33.3 %")
    assert rows["in normal form"][0] == "1"
    assert "3 qubits" not in rows
    several = replace(make_report(3), qubit_counts={"2": 11, "3": 22})
    assert ("  2 qubits", "11", "33.3 %") in content_rows(several)
    assert ("circuits", "33", "of 2 and 3 qubits and at most 5 gates") in content_rows(several)
    assert "each, a factor" not in str(content_rows(make_report(1)))


def test_frequent_pairs_are_told_with_what_they_save() -> None:
    report = make_report(3)
    assert gadget_rows(report) == [
        ("h a, cx a b", "1,200", "in 50.0 % of the circuits"),
        ("cx a b, cx b a", "4", "in 3.3 % of the circuits"),
    ]
    assert gadget_words(report) == (
        "with these 2 pairs as one instruction each, the mean length of all valid circuits is 1.90 instead of 2.50"
    )
    large = replace(report, num_circuits=10**6, gadgets=replace(report.gadgets, num_circuits=65536))
    assert "the mean length of a sample of 65,536 circuits is" in gadget_words(large)
    single = replace(report, gadgets=FrequentPairs(report.gadgets.pairs[:1], 60, 2.5, 1.9))
    assert gadget_words(single).startswith("with this pair as one instruction each, ")


def test_frequent_pairs_are_in_the_page_of_a_data_set() -> None:
    text = str(dataset_section(DatasetSource("data", Path("data"), {}, make_report(3)), "data"))
    assert "Frequent pairs of gates" in text
    assert "h a, cx a b" in text
    without = replace(make_report(3), gadgets=FrequentPairs((), 60, 0.5, 0.5))
    assert "Frequent pairs" not in str(dataset_section(DatasetSource("data", Path("data"), {}, without), "data"))


@pytest.mark.parametrize(("num_prompts", "shown"), [(1, 1), (12, 12), (13, 13), (250, 13)])
def test_twelve_labels_are_shown(num_prompts: int, shown: int) -> None:
    report = make_report(num_prompts)
    rows = label_rows(report)
    assert len(rows) == shown
    assert rows[0][0] == f"Generate SRV: [{num_prompts - 1}]", "the most frequent first"
    assert sum(int(count.replace(",", "")) for _, count, _ in rows) == report.num_circuits
    assert (rows[-1][0] == f"... and {num_prompts - 12} more") == (num_prompts > 12)


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        ("srv", ["tokens", "sizes", "labels"]),
        ("gates", ["tokens", "sizes", "gate lists", "targets"]),
        ("other", ["tokens", "sizes", "targets"]),
    ],
)
def test_checks_that_apply_are_shown(kind: str, checks: list[str]) -> None:
    report = make_report(4, kind)
    assert [name for name, _, _ in check_rows(report)] == checks
    assert {value for _, value, _ in check_rows(report)} == {"0 wrong"}
    assert report.is_right
    assert verdict(report) == ""


def test_what_is_wrong_is_named() -> None:
    right = make_report(4)
    wrong = right.wrong | {"tokens": WrongCircuits(1, (3,)), "prompts": WrongCircuits(1200, (0, 1, 2, 4, 5))}
    report = replace(right, wrong=wrong, invalid_reasons={"token out of range": 1})
    assert not report.is_right
    assert (
        verdict(report) == "of 64 circuits, wrong are: tokens of 1 (row 3), prompts of 1,200 (rows 0, 1, 2, 4, 5, ...)"
    )
    rows = {name: (value, meaning) for name, value, meaning in check_rows(report)}
    assert rows["tokens"] == (
        "1 wrong",
        "expected: one gate of the pool per time step; wrong: row 3 (1 token out of range)",
    )
    assert rows["prompts"][0] == "1,200 wrong"
    assert rows["prompts"][1].endswith("wrong: rows 0, 1, 2, 4, 5, ...")
