"""Measures time and memory from a data set on disk to the first batch: 2.5 million circuits, in one folder and in four.

Run: python benchmarks/loading.py [--circuits 2500000] [--repetitions 3]; it needs Linux and 3 GB of temporary space.
Every measurement runs in its own process and does what a training run does up to the first batch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator

BATCHES: dict[str, dict[str, Any]] = {
    "padded": {},
    "bucketed, prompts balanced": {"bucketed": True, "balance_prompts": True},
    "half of it (`max_samples`)": {"half": True},
}


def make(folder: Path, circuits: int) -> dict[str, Path]:
    """Write circuits with 8 qubits and 52 time steps, and as many with 5 to 8 qubits as four data sets."""
    one, four = folder / "one", folder / "four"
    parts = {one: (8, circuits), **{four / f"{qubits}q": (qubits, circuits // 4) for qubits in (5, 6, 7, 8)}}
    for path, (qubits, count) in parts.items():
        config = DatasetConfig(
            num_qubits=qubits, min_gates=7, max_gates=52, num_samples=count, optimize="none", output_path=str(path)
        )
        DatasetGenerator(config).write()
    return {"one folder, 8 qubits": one, "four data sets, 5 to 8 qubits": four}


def bytes_of(path: Path) -> int:
    """Return the size of all files in a folder and its subfolders."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def forget(path: Path) -> None:
    """Drop the files in a folder from the page cache, so that they are read from disk."""
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def most_memory() -> int:
    """Return the peak resident memory in bytes; getrusage would include that of the parent process."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def first_batch(path: Path, half: bool = False, **options: Any) -> dict[str, float]:
    """Load a data set as `DiffusionTrainer` does up to the first batch; return times in seconds and memory in bytes."""
    import quantum_diffusion.training.training  # noqa: F401  (what a run imports is not what loading costs)
    from quantum_diffusion.interop.loading import dataset_loader

    before, started, worked = most_memory(), time.perf_counter(), time.process_time()
    loader = dataset_loader(0)
    loaded = loader.load_dataset(path)
    assert loaded.fingerprint
    dataset = loader.combine_datasets([loaded], None, len(loaded) // 2 if half else None)
    assert dataset.length_counts
    batches, _ = loader.get_dataloaders(dataset, 256, 0.05, **options)
    batch = next(batches.epoch(0))
    assert len(batch) == 256
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - worked,
        "before": before,
        "most": most_memory(),
    }


def main() -> None:
    """Write the data sets, measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--circuits", type=int, default=2_500_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "OPTIONS"), help="one measurement, for this script")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(first_batch(Path(arguments.measure[0]), **json.loads(arguments.measure[1]))))
        return
    print("| data | batches | files, MB | s from disk | s from cache | processor s | memory, MB | without Python's |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        for data, path in make(Path(place), arguments.circuits).items():
            size = bytes_of(path)
            for batches, options in BATCHES.items():
                command = [sys.executable, __file__, "--measure", str(path), json.dumps(options)]
                runs = []
                for repetition in range(arguments.repetitions + 1):
                    if not repetition:
                        forget(path)
                    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    runs.append(json.loads(result.stdout))
                most, before = (max(run[key] for run in runs) for key in ("most", "before"))
                print(
                    f"| {data} | {batches} | {size / 1e6:,.0f} | {runs[0]['seconds']:.1f} | "
                    f"{min(run['seconds'] for run in runs[1:]):.1f} | "
                    f"{min(run['processor'] for run in runs[1:]):.1f} | {most / 1e6:,.0f} ({most / size:.2f} x) | "
                    f"{(most - before) / 1e6:,.0f} ({(most - before) / size:.2f} x) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
