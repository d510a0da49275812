"""The Python of the documentation runs: the blocks of a page in order, in one namespace, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs.notebooks.make import NOTEBOOKS, cells_of

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/index.md",
    "docs/python.md",
    "docs/states.md",
    "docs/angles.md",
    "docs/editing.md",
    "docs/own_gate.md",
    "docs/own_task.md",
    "docs/own_backbone.md",
)
"""All pages with Python except qiskit.md and genqc.md, run by `test_qiskit_plugin.py` and `test_genqc_page.py`."""


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


def test_every_page_with_python_is_run() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    found = {str(page.relative_to(ROOT)) for page in pages if "```python\n" in page.read_text(encoding="utf-8")}
    assert found == {*PAGES, "docs/qiskit.md", "docs/genqc.md"}


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    program = tmp_path / f"{Path(page).stem}.py"
    program.write_text(python_of(ROOT / page), encoding="utf-8")
    assert program.read_text(encoding="utf-8").strip()
    run([program], tmp_path)


def test_the_notebooks_run(tmp_path: Path) -> None:
    code = []
    for name, text in NOTEBOOKS.items():
        cells = json.loads((ROOT / "docs/notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        kept = [(cell["cell_type"], cell["source"]) for cell in cells]
        assert kept == [(cell["cell_type"], cell["source"]) for cell in cells_of(text)], "run docs/notebooks/make.py"
        of_code = ["".join(source) for kind, source in kept if kind == "code"]
        assert len(of_code) >= 4
        code += ["# " + name, *of_code]
    program = tmp_path / "notebooks.py"
    program.write_text("\n".join(code) + "\n", encoding="utf-8")
    run([program], tmp_path)


def test_the_toy_runs(tmp_path: Path) -> None:
    toy = ROOT / "docs/toy.py"
    assert "quantum_diffusion" not in "".join(
        line for line in toy.read_text(encoding="utf-8").splitlines() if line.startswith(("import", "from"))
    )
    said = run([toy, "--steps", "150", "--circuits", "8000"], tmp_path)
    accuracy = float(said.split("in all: ")[1].split("%")[0])
    assert accuracy > 40, "twice of what chance gives, after seconds"
