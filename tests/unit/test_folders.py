"""Folders about to be written: what is ours may be replaced, anything else is refused and named."""

import os
from pathlib import Path
from typing import Any

import pytest

from quantum_diffusion.errors import ConfigError
from quantum_diffusion.folders import check_nothing_lost, names_in


def refusal(folder: Path, **options: Any) -> str:
    """Return what the check says of a folder in which `a` and `b` are ours, known by `b`."""
    given = {"entries": names_in(folder), "is_ours": {"a", "b"}.__contains__, "known_by": "b"} | options
    try:
        check_nothing_lost(folder, ConfigError, "holds {!r}: move it", **given)
    except ConfigError as problem:
        return str(problem).removeprefix(f"{str(folder)!r} ")
    return ""


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("", ""),
        ("b", ""),
        ("ab", ""),
        ("a", "holds 'a': move it"),
        ("abc", "holds 'c': move it"),
        ("cd", "holds 'c': move it"),
    ],
)
def test_only_ours_are_replaced(names: str, said: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert refusal(tmp_path) == said


def test_what_is_not_there_is_no_obstacle(tmp_path: Path) -> None:
    assert refusal(tmp_path / "new", written=tmp_path / "new") == ""
    assert refusal(tmp_path / "new", entries=None) == ""
    (tmp_path / "new").symlink_to(tmp_path / "gone")
    assert refusal(tmp_path / "new", entries=None) == "holds '.': move it"


def test_what_cannot_be_listed_or_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "a file is where a folder should be" in refusal(tmp_path / "file")
    assert "a file is where a folder should be" in refusal(tmp_path, entries=[], written=tmp_path / "file")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0)
        assert "permission denied" in refusal(tmp_path / "locked")


def test_hidden_names_are_left_out_where_they_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".c").touch()
    assert refusal(tmp_path) == "holds '.c': move it"
    assert refusal(tmp_path, entries=names_in(tmp_path, hidden=False)) == ""
