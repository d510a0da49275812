"""The site builds from what is committed, without a warning, and has what it promises."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    arguments = ["-b", "html", "--fail-on-warning", "--keep-going", "--quiet", "-d", tmp_path / "doctrees"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *arguments, ROOT / "docs", tmp_path / "site"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= pages
    reference = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("api.sample", "api.Model.compile", "DatasetLoader", "DiffusionTrainer", "ModelManager", "Task.verify"):
        assert f'{name}"' in reference, name
    results = (tmp_path / "site" / "searching.html").read_text(encoding="utf-8")
    assert 'href="results.html"' in results, "links out of docs/ lead to pages of the site"
