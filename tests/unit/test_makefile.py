"""`make install` says little where all goes well, and everything where it does not."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON = """#!/bin/sh
case "$*" in
    "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "$PWD/.venv/bin/" >.venv/bin/pip ;;
    *pip*install*) echo "Collecting much"; [ ! -e fail ] || { echo "no such version"; exit 1; } ;;
    *) echo "Python 3.11.0" ;;
esac
"""
"""Stands for Python, venv and pip: it installs nothing."""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["install", "install-dev"])
def test_installation_is_quiet_unless_it_fails(tmp_path: Path, target: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "requirements-parity.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def make() -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", target, f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    (tmp_path / "fail").touch()
    failed = make()
    assert failed.returncode
    assert failed.stderr.index("Collecting much\nno such version") < failed.stderr.index("for the reason above")
    (tmp_path / "fail").unlink()
    done = make()
    assert (done.returncode, done.stderr) == (0, "")
    assert "installing into .venv, a few minutes" in done.stdout
    assert "Collecting" not in done.stdout
    again = make()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", ""), "it is there"
