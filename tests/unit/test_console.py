"""What the commands show, on consoles of several widths."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from quantum_diffusion import console
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import GenerationReport

COUNTS = {"Generate SRV: [1, 1, 1]": 40000, "Generate SRV: [1, 2, 2]": 60000}


@pytest.fixture(params=[45, 80, 120])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    wide = Console(file=text, highlight=False, markup=False, soft_wrap=True, width=request.param)
    monkeypatch.setattr(console, "out", wide)
    return text


def test_prompts_and_folders_stay_whole(shown: io.StringIO) -> None:
    folder = Path("/data/" + 12 * "long_folder_name/" + "mine [old]")
    console.show_generation(
        GenerationReport(100_000, 100_000, 200_000, 2.0, COUNTS), DatasetConfig(output_path=str(folder))
    )
    lines = shown.getvalue().splitlines()
    assert [line for line in lines if "Generate SRV: [1, 1, 1]: 40,000" in line]
    assert [line for line in lines if "Generate SRV: [1, 2, 2]: 60,000" in line]
    assert f"folder    {folder}" in lines
    assert "note:" not in shown.getvalue()


def test_many_prompts_are_counted(shown: io.StringIO) -> None:
    counts = {f"Generate SRV: {[1] * 4 + [number]}": 10 + number for number in range(9)}
    console.show_generation(GenerationReport(126, 126, 200, 2.0, counts), DatasetConfig())
    assert "9, 10 to 18 each" in shown.getvalue()


@pytest.mark.parametrize(
    ("balance_max", "longest", "mend"),
    [
        (60_000, 16, "raise datasets.balance_max"),
        (None, 16, "raise datasets.max_gates, or allow more"),
        (None, 1, "allow more gates, connections or qubits (simplified, none has more than 1 gate)"),
    ],
)
def test_a_search_that_ran_dry_says_what_helps(
    shown: io.StringIO, balance_max: int | None, longest: int, mend: str
) -> None:
    config = DatasetConfig(num_samples=150_000, balance_max=balance_max, max_gates=16)
    console.show_generation(GenerationReport(100_000, 150_000, 9_000_000, 2.0, COUNTS, longest=longest), config)
    (note,) = [line for line in shown.getvalue().splitlines() if line.startswith("note:")]
    assert "150,000 circuits were requested, but these settings give only 100,000" in note
    assert f"for more, {mend}" in note


def test_what_was_continued_and_left_out_is_told(shown: io.StringIO) -> None:
    report = GenerationReport(100_000, 110_000, 200_000, 2.0, COUNTS, num_continued=16_384, num_balanced_away=10_000)
    console.show_generation(report, DatasetConfig())
    text = " ".join(shown.getvalue().split())
    assert "10,000 circuits left out by datasets.balance_quantile" in text
    assert "16,384 of the candidates come from an earlier, interrupted run" in text
    assert "note:" not in text


STEP = Instruction("h", (), (0,))


def test_circuits_are_numbered_and_counted(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QiskitBackend, "draw_text", lambda _, circuit, width: f"[{len(circuit)} drawn]")
    console.show_circuits([Circuit(1, (STEP,)), Circuit(1, (STEP, STEP))])
    lines = shown.getvalue().splitlines()
    assert lines == ["", "circuit 1: 1 gate", "[1 drawn]", "", "circuit 2: 2 gates", "[2 drawn]"]


def test_a_drawing_that_fails_ends_nothing(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def draw_text(self: QiskitBackend, circuit: Circuit, width: int | None) -> str:
        if len(circuit) == 1:
            raise ZeroDivisionError("of Qiskit")
        return "drawn"

    monkeypatch.setattr(QiskitBackend, "draw_text", draw_text)
    console.show_circuits([Circuit(1, (STEP,)), Circuit(1, (STEP, STEP))])
    assert shown.getvalue().splitlines() == ["", "circuit 1: 1 gate", "", "circuit 2: 2 gates", "drawn"]
    assert "its drawing could not be made: of Qiskit" in caplog.text


@pytest.mark.parametrize("width", [1, 20, 40])
def test_drawings_stay_aligned_in_narrow_terminals(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, soft_wrap=True, width=width, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    console.show_circuits([Circuit(1, (STEP,) * 9)])
    rows = text.getvalue().splitlines()[2:]
    assert max(map(len, rows)) <= max(width, 20)
    assert "".join(rows).count("┤ H ├") == 9
    blocks = [rows[at : at + 3] for at in range(0, len(rows), 3)]
    assert all(len({len(row) for row in block}) == 1 for block in blocks), "a wire stays between its gates' borders"
