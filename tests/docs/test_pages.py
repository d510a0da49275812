"""The Python of the documentation runs: the blocks of a page in order, in one namespace, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("python.md", "own_gate.md", "own_task.md", "own_backbone.md")
"""The block of qiskit.md is run by `tests/contracts/test_qiskit_plugin.py`."""


def python_of(page: Path) -> str:
    """Return the Python of a page, every line where it stands there, so that an error names the line of the page."""
    kept, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        is_fence = line.startswith("```")
        kept.append(line if inside and not is_fence else "")
        inside = line == "```python" if is_fence else inside
    return "\n".join(kept) + "\n"


def run(arguments: list[str | Path], folder: Path) -> str:
    """Run Python in a folder, in a process of its own, as pages register gates and tasks; returns what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    program = tmp_path / page.replace(".md", ".py")
    program.write_text(python_of(ROOT / "docs" / page), encoding="utf-8")
    assert program.read_text(encoding="utf-8").strip()
    run([program], tmp_path)
