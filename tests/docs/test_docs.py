"""The documentation tells the truth: examples run, commands work as written, generated pages are current."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import quantum_diffusion
from quantum_diffusion.commands import COMMANDS

ROOT = Path(__file__).parents[2]
MODULES = [info.name for info in pkgutil.walk_packages(quantum_diffusion.__path__, "quantum_diffusion.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_docstring_examples_are_found() -> None:
    finder = doctest.DocTestFinder()
    found = sum(
        len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples
    )
    assert found >= 10


def readme_commands() -> list[str]:
    """The commands of the README's "step by step" section, one string each."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Step by step")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    return [command for block in blocks for command in block.replace("\\\n", " ").splitlines() if command.strip()]


def test_readme_commands_run_as_written(tmp_path: Path) -> None:
    commands = readme_commands()
    assert len(commands) == 4
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    bin_folder = Path(sys.executable).parent
    for command in commands:
        # As written, but for the size of the job; `sample` cannot find much with a model of 20 steps.
        small = f"{command} " + ("sample.max_tries=64" if "sample" in command.split()[1] else "debug=limit")
        result = subprocess.run(
            small,
            shell=True,
            cwd=tmp_path,
            env={"PATH": f"{bin_folder}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        expected = (0, 3) if "sample" in command.split()[1] else (0,)
        assert result.returncode in expected, f"{small}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
    assert (tmp_path / "models/quick_test/evaluation/metrics.json").is_file()
    left = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert left == ["datasets", "models", "scripts"]


def test_what_documented_commands_write_is_ignored_by_git(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "conf").rglob("*.yaml")]
    advice = " ".join(command.folder_advice for command in COMMANDS.values())
    found = re.findall(
        r"(?:(?:save_folder|output_path|picture)=|(?:output_path|(?<!pipeline_)dir): )"
        r"(?:\./)?((?:\$\{[^}]*\}|\$\w+|[\w./-])+)",
        "".join([advice, *(text.read_text(encoding="utf-8") for text in texts)]),
    )
    paths = {re.sub(r"\$\{[^}]*\}|\$\w+", "0", path) for path in found} - {"...", "FOLDER", ".", "null"}
    assert len(paths) > 10
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    names = "\n".join(path if path.endswith(".png") else f"{path}/file" for path in sorted(paths))
    ignored = subprocess.run(
        ["git", "check-ignore", "--stdin"], cwd=tmp_path, input=names, capture_output=True, text=True
    )
    assert set(names.split()) - set(ignored.stdout.split()) == set()


def test_configuration_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_configuration", ROOT / "docs" / "make_configuration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == module.render(), "docs/configuration.md is stale: run `python docs/make_configuration.py`"


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
