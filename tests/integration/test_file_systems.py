"""File systems and accounts as they are: what a poor file system lacks, odd names, no home, a strict umask."""

from __future__ import annotations

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
     "training.model.params={width: 16, depth: 1, num_heads: 2}"],
    ["sample", "sample.model_dir=model", "sample.srv=[2,2]", "sample.num_circuits=1",
     "sample.save_folder=samples"],
    ["inspect", "inspect.dataset=ds", "inspect.save_folder=inspection"],
    ["export-genqc", "export.dataset=ds", "export.output_path=exported"],
):
    status = run_command(command, [*arguments, "hydra.run.dir=.", "hydra.output_subdir=null"])
    print(command, status, flush=True)
"""
