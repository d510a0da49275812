"""File systems and accounts as they are: what a poor file system lacks, odd names, no home, a strict umask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantum_diffusion.data.storage import load_dataset_folder
from quantum_diffusion.pipeline.checkpoint import load_pipeline

COMMANDS = """
import fcntl, mmap, os, sys
from pathlib import Path
from quantum_diffusion.cli import run_command

os.chdir(sys.argv[1])
if "POOR" in os.environ:
    probe = Path("probe").resolve()
    probe.write_text("probe")
    with probe.open("r+b") as file:
        for action in (
            lambda: os.fsync(file.fileno()),
            lambda: probe.chmod(0o600),
            lambda: fcntl.flock(file, fcntl.LOCK_EX),
            lambda: mmap.mmap(file.fileno(), 0),
        ):
            try:
                action()
            except OSError:
                continue
            raise AssertionError("the file system is not poor")
    probe.unlink()
for command, *arguments in (
    ["generate", "datasets.num_samples=300", "datasets.num_qubits=2", "datasets.n_jobs=1", "datasets.output_path=ds"],
    ["train", "training=quick_test_srv", "training.general.dataset=ds", "training.general.output_path=model",
     "training.general.verbose=false", "training.training.max_steps=2", "training.training.batch_size=16",
     "training.model.params={width: 16, depth: 1}"],
    ["sample", "sample.model_dir=model", "sample.srv=[2,2]", "sample.num_circuits=1",
     "sample.save_folder=samples"],
    ["inspect", "inspect.dataset=ds", "inspect.save_folder=inspection"],
    ["export-genqc", "export.dataset=ds", "export.output_path=exported"],
    ["inspect", "inspect.dataset=exported"],
    ["report", "report.sources=[ds,model]", "report.output_path=pages/report.html"],
):
    status = run_command(command, [*arguments, "hydra.run.dir=.", "hydra.output_subdir=null"])
    print(command, status, flush=True)
"""


def run_commands(folder: Path, before: str = "", **variables: str) -> str:
    """Run the commands in a folder; all must end well, without a traceback. Returns what they said."""
    home = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    result = subprocess.run(
        [sys.executable, "-c", before + COMMANDS, folder],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
        check=False,
        env=home | variables,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for command in ("generate", "train", "sample", "inspect", "export-genqc", "report"):
        assert f"\n{command} 0\n" in result.stdout, result.stdout + result.stderr
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    load_dataset_folder(folder / "ds")
    load_pipeline(folder / "model")
    return result.stdout + result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the poor file system is made with Linux's LD_PRELOAD")
@pytest.mark.skipif(shutil.which("cc") is None, reason="the poor file system is made with a C compiler")
def test_a_file_system_that_knows_no_fsync_chmod_locks_and_maps(tmp_path: Path) -> None:
    library, folder = tmp_path / "poor.so", tmp_path / "poor"
    folder.mkdir()
    source = Path(__file__).with_name("poor_file_system.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    said = run_commands(folder, HOME=str(tmp_path), POOR=str(folder), LD_PRELOAD=str(library))
    assert said.count("does not support locks") == 2, "once for the data set, once for the model"


WITHOUT_HOME = """
import pwd

def nobody(*_):
    raise KeyError("no such entry")

pwd.getpwuid = pwd.getpwnam = nobody
"""


def test_odd_names_no_home_and_a_strict_umask(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "odd" ${x} [12] a*b?=#% \udcff\n-'
    folder.mkdir()
    folder.chmod(0o2770)
    before = os.umask(0o007)
    try:
        run_commands(folder, WITHOUT_HOME)
    finally:
        os.umask(before)
    for path in folder.rglob("*"):
        mode = path.stat().st_mode & 0o7777
        assert mode == (0o2770 if path.is_dir() else 0o660), path
