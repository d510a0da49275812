"""How pictures are written: whole or not at all, and as we draw them whatever the user has set for matplotlib."""

from pathlib import Path

import matplotlib
import pytest

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.files import new_entries
from quantum_diffusion.pictures import new_picture

H = Circuit(1, (Instruction("h", (), (0,)),))


def test_settings_of_the_user_change_no_picture(tmp_path: Path) -> None:
    def draw(name: str) -> bytes:
        with new_picture(tmp_path / name, (2, 2)) as figure:
            figure.add_subplot().set_title("title_1")
        QiskitBackend().save_drawing([H], tmp_path / f"circuit_{name}", ["title_1"])
        return (tmp_path / name).read_bytes() + (tmp_path / f"circuit_{name}").read_bytes()

    ours = draw("ours.png")
    foreign = {"text.usetex": True, "font.size": 30, "savefig.format": "pdf", "savefig.dpi": 10, "axes.grid": True}
    with matplotlib.rc_context(foreign):
        assert draw("theirs.png") == ours
        assert {key: matplotlib.rcParams[key] for key in foreign} == foreign, "the user's settings are the user's"


def test_what_cannot_be_drawn_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), new_picture(path, (1, 1)):
        raise ZeroDivisionError

    def savefig(figure: object, file: Path, **how: object) -> None:
        file.write_text("half")
        raise OSError(28, "")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    full = pytest.raises(ConfigError, match=r"cannot write '.*picture\.png': the disk is full")
    with full, new_picture(path, (1, 1), ConfigError):
        pass
    with pytest.raises(ConfigError) as caught, new_entries(tmp_path, "picture.png", ConfigError) as staging:  # noqa: SIM117
        with new_picture(staging / "picture.png", (1, 1), ConfigError):
            pass
    assert f"cannot write {str(path)!r}" in str(caught.value), "the place that users know, not the temporary one"
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
