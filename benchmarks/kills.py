"""Kills training and saving at random times and checks that runs resume and end bit for bit like an undisturbed one.

Run: python benchmarks/kills.py [--kills 50] [--longest 7]; exits with status 1 if a run does not.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.pipeline.checkpoint import is_finished_model, load_pipeline
from quantum_diffusion.tracking.experiment import read_metrics


def command(folder: Path, name: str) -> list[str]:
    """Return a command that trains for a few hundred steps, with a checkpoint after every second step."""
    return [
        *(sys.executable, "-c", "from quantum_diffusion.cli import run_script; run_script('train')"),
        *("training=quick_test_srv", f"training.general.dataset={folder / 'data'}"),
        *(f"training.general.output_path={folder / name}", "training.general.checkpoint_steps=2"),
        *("training.training.num_epochs=12", "training.training.num_workers=2", "training.training.log_every=1"),
        *("training.model.params.width=32", "training.training.sample_every=4", "training.training.num_sampled=16"),
    ]


def records(folder: Path) -> list[tuple[int, str, float]]:
    """Return the logged metrics, except rates and memory."""
    return [row for row in read_metrics(folder / "run") if row[1] not in ("samples_per_second", "memory_gib")]


def main() -> int:
    """Kill, resume and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=7.0, help="seconds a process lives at most")
    arguments = parser.parse_args()
    clock = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        DatasetGenerator(DatasetConfig(num_samples=4000, max_gates=8, output_path=str(folder / "data"))).write()
        subprocess.run(command(folder, "whole"), check=True, capture_output=True)
        weights, log = load_pipeline(folder / "whole").network.state_dict(), records(folder / "whole")
        kills = runs = equal = 0
        while kills < arguments.kills:
            runs += 1
            name = f"killed-{runs}"
            while not is_finished_model(folder / name):  # it may have been killed after finishing
                process = subprocess.Popen(
                    command(folder, name), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
                try:
                    errors = process.communicate(timeout=clock.uniform(2.0, arguments.longest))[1]
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    kills += 1
                else:
                    if process.returncode:
                        print(f"run {runs} did not resume: {errors}")
                        return 1
            ours = load_pipeline(folder / name).network.state_dict()
            same = all(torch.equal(value, ours[key]) for key, value in weights.items()) and log == records(
                folder / name
            )
            equal += same
            print(f"run {runs}: {kills} kills so far, {'the same bits' if same else 'OTHER BITS'}", flush=True)
    print(f"{kills} kills, {runs} runs, {equal} with the weights and metrics of an undisturbed one")
    return int(equal != runs)


if __name__ == "__main__":
    sys.exit(main())
