"""What `quantum-diffusion sample` says and writes when it finds fewer circuits than asked for."""

from pathlib import Path

import pytest

from quantum_diffusion import commands
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.config.schema import SampleConfig
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.search import sampling
from quantum_diffusion.search.sampling import FoundCircuits

H = Circuit(2, (Instruction("h", (), (0,)),))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            FoundCircuits((1, 1), [], 40, 0),
            "error: found 0 of 2 circuits in 40 tries: raise sample.max_tries\n",
        ),
        (
            FoundCircuits((1, 1), [H], 40, 5),
            "error: found 1 of 2 circuits in 40 tries, 5 exact samples gave no other: raise sample.max_tries or lower "
            "sample.num_circuits to 1\n",
        ),
        (
            FoundCircuits((1, 1), [H], 40, 30),
            "error: found 1 of 2 circuits in 40 tries, 30 exact samples gave no other: lower sample.num_circuits to "
            "1\n",
        ),
    ],
)
def test_too_few_circuits(
    found: FoundCircuits,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sampling, "find_circuits", lambda *_: found)
    folder = tmp_path / "found"
    config = SampleConfig(model_dir="unused", srv=(1, 1), num_circuits=2, max_gates=1, save_folder=str(folder))
    assert commands.sample(config).status == 3
    shown = capsys.readouterr()
    assert shown.err == said
    assert ("the circuits, a picture and a summary are in" in shown.out) == folder.exists() == bool(found.circuits)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/b", "file/b"])
def test_a_folder_that_cannot_be_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = SampleConfig(model_dir="unused", srv=(1, 1), save_folder=tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot write"):
        sampling.find_circuits(config)


def test_no_path_has_a_nul() -> None:
    with pytest.raises(ConfigError, match=r"^SampleConfig\.save_folder: 'a\\x00b' is not valid UTF-8"):
        SampleConfig(model_dir="unused", srv=(1, 1), save_folder="a\0b")


def test_what_cannot_be_drawn_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "find_circuits", lambda *_: FoundCircuits((1, 1), [H], 1, 1))
    monkeypatch.setattr(QiskitBackend, "draw_text", None)
    folder = tmp_path / "found"
    config = SampleConfig(model_dir="unused", srv=(1, 1), num_circuits=1, save_folder=str(folder))
    assert commands.sample(config).status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["00001.qasm", "circuits.png", "summary.json"]
    assert "its drawing could not be made" in caplog.text


def test_what_cannot_be_saved_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "find_circuits", lambda *_: FoundCircuits((1, 1), [H], 1, 1))
    (tmp_path / "file").touch()
    config = SampleConfig(model_dir="unused", srv=(1, 1), num_circuits=1, save_folder=str(tmp_path / "file" / "found"))
    with pytest.raises(CheckpointError):
        commands.sample(config)
    assert "┤ H ├" in capsys.readouterr().out
