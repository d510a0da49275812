"""The wheel and the sdist: they build, and what they install works in an empty folder, without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import quantum_diffusion

ROOT = Path(__file__).parents[2]


def built(source: Path, folder: Path) -> Path:
    """Build a wheel without the network."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--wheel-dir", folder, source], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_has_all_that_commands_need(wheel: Path) -> None:
    names = contents(wheel)
    for folder, package in (("src/quantum_diffusion", "quantum_diffusion"), ("conf", "quantum_diffusion/conf")):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{package}/{file.relative_to(ROOT / folder).as_posix()}" in names
    assert wheel.stat().st_size < 60 * 2**20
    assert not any("test" in name.split("/")[0] for name in names)


def test_a_wheel_of_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    code = "import hatchling.build, sys; print(hatchling.build.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, timeout=120, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(built(unpacked, tmp_path / "again")) == contents(wheel)


def test_what_it_installs_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    site = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Its dependencies are those of this environment; the repository, an editable install, is not among them.
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "quantum_diffusion" not in entry.name and entry.suffix != ".pth":
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import quantum_diffusion as qd, pathlib, sys\n"
        "assert pathlib.Path(qd.__file__).is_relative_to(sys.prefix), qd.__file__\n"
        "assert qd.compile('toffoli', device='cpu')[0].gate_counts == {'ccx': 1}\n"
        "assert len(qd.sample([1, 2, 2], num=2, device='cpu')) == 2\n"
        "assert len(qd.generate('quick_test_srv', num_samples=50, n_jobs=1)) == 50\n"
        "from quantum_diffusion.cli import run_command\n"
        "assert run_command('models', []) == 0\n"
        "assert run_command('prepare', ['ghz:3', 'prepare.device=cpu']) == 0\n"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [environment / "bin/python", "-c", code], cwd=empty, env=clean, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "pretrained:unitary_5q" in done.stdout
    assert list(empty.iterdir()) == []


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == quantum_diffusion.__version__
    assert citation["license"] == "Apache-2.0"
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
