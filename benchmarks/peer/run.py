"""Compares this package with genQC 0.2.5 and with Qiskit's synthesis, both sides of a case in turn.

Run: python benchmarks/peer/run.py [--repetitions 3] [--cases "generation;sampling"] [--small] [--output peer.json]; it
builds an environment for genQC in build/peer on first use (500 MB, or several GB where torch comes with CUDA), uses
CUDA if available, and needs Linux. Each side of a case runs in a process of its own, which is idle while the other one
measures; a ratio is the median of the rounds' ratios. theirs.py says what had to be mended for genQC to run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from synthesis import compare_synthesis

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.interop.genqc_export import export_dataset
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.targets import TargetTask

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = ROOT / "build" / "peer"
NEEDED = ("torch", "numpy", "qiskit", "omegaconf", "safetensors", "huggingface_hub", "joblib", "matplotlib", "tqdm")
SRV_POOL, UNITARY_POOL = ["h", "cx"], ["h", "cx", "z", "x", "ccx", "swap"]
SIZES = {
    3: {"num_qubits": 3, "min_gates": 2, "max_gates": 16},
    4: {"num_qubits": 4, "min_gates": 3, "max_gates": 20},
    5: {"num_qubits": 5, "min_gates": 4, "max_gates": 28},
    6: {"num_qubits": 6, "min_gates": 5, "max_gates": 40},
    7: {"num_qubits": 7, "min_gates": 6, "max_gates": 52},
    8: {"num_qubits": 8, "min_gates": 7, "max_gates": 52},
}
PAPER_COUNTS = {3: 200_000, 4: 300_000, 5: 500_000, 6: 500_000, 7: 500_000, 8: 600_000}
"""Circuits of each data set of arXiv 2311.02041; sets of 3 and 4 qubits have fewer distinct circuits."""

PUBLISHED = {3: 0.788, 5: 0.888, 8: 0.914, "unitary": 0.674}
"""Fraction of exact samples that the field reports: for SRVs with CLIP, by qubits, and for genQC's compiler."""

Row = dict[str, Any]


# --------------------------------------------------------------------------------------------- both sides


def build_environment() -> Path:
    """Install genQC in an environment of its own, unless it is there; returns its Python."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "complete").is_file():
        print(f"building {ENVIRONMENT.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), *NEEDED], check=True, stdout=2)
        subprocess.run([*pip, "--no-deps", "-r", str(ROOT / "requirements-parity.txt")], check=True, stdout=2)
        (ENVIRONMENT / "complete").touch()
    return python


class Side:
    """A worker process of one side."""

    def __init__(self, python: Path | str, module: str, case: str, parameters: dict[str, Any]) -> None:
        command = [str(python), str(HERE / "worker.py"), module, case, json.dumps(parameters)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)
        self._read()

    def measure(self) -> dict[str, float]:
        """Let the worker do its work once; returns "count", "seconds" and "memory" (MB)."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self._process.wait()}: its error is above")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def sides(python: Path, case: str, parameters: dict[str, Any]) -> Iterator[tuple[Side, Side]]:
    """Start both workers of a case."""
    ours = Side(sys.executable, "ours", case, parameters)
    theirs = Side(python, "theirs", case, parameters)
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()


def compare(python: Path, title: str, case: str, parameters: dict[str, Any], repetitions: int) -> Row:
    """Measure both sides in turn and print a row."""
    with sides(python, case, parameters) as (ours, theirs):
        rounds = [(ours.measure(), theirs.measure()) for _ in range(repetitions)]
    rates = [[one["count"] / one["seconds"] for one in side] for side in zip(*rounds, strict=True)]
    ratios = [mine / other for mine, other in zip(*rates, strict=True)]
    memory = [max(one["memory"] for one in side) for side in zip(*rounds, strict=True)]
    row = {
        "case": title,
        "ours": statistics.median(rates[0]),
        "theirs": statistics.median(rates[1]),
        "ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "memory_ours": memory[0],
        "memory_theirs": memory[1],
    }
    figures = " | ".join(_figure(row[side]) for side in ("ours", "theirs"))
    ratio = f"{row['ratio']:,.3g} | {row['least_ratio']:,.3g}"
    print(f"| {title} | {figures} | {ratio} | {memory[0]:,.0f} | {memory[1]:,.0f} |", flush=True)
    return row


def _figure(rate: float) -> str:
    """Write a rate as work per second, or as seconds if it is below one."""
    return f"{rate:,.0f} /s" if rate >= 10 else f"{rate:,.2g} /s" if rate >= 1 else f"{1 / rate:,.3g} s"


# ------------------------------------------------------------------------------------------------- cases


def write(folder: Path, name: str, values: dict[str, Any]) -> dict[str, str]:
    """Generate a data set and write it for both sides; returns the paths."""
    dataset, _ = DatasetGenerator(DatasetConfig.model_validate(values | {"optimize": "none"})).generate()
    save_dataset(dataset, folder / name, {})
    np.savez(folder / name, **_arrays(dataset))
    return {"folder": str(folder / name), "file": str(folder / f"{name}.npz")}


def _arrays(dataset: CircuitDataset) -> dict[str, Any]:
    task, rows = TASKS[dataset.condition_type], np.arange(len(dataset))
    arrays: dict[str, Any] = {
        "tokens": dataset.tokens,
        "prompts": dataset.prompt_index,
        "num_prompts": len(dataset.prompts),
        "num_gates": len(dataset.gate_pool),
        "gates": np.array(dataset.gate_pool.names),
    }
    known = dataset.labelled(rows)
    if isinstance(task, TargetTask):
        targets = task.targets_of(known.ids, known.table)
        return arrays | {"unitaries": np.stack([targets.real, targets.imag], 1).astype(np.float32)}
    labels = [json.loads(prompt.partition(":")[2]) for prompt in known.prompts]
    return arrays | {"labels": np.array(labels)}


def cases(folder: Path, small: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (title, case, parameters) of all comparisons, whose data is written as they come."""
    unitary = {"num_qubits": 3, "min_gates": 2, "max_gates": 12, "gate_set": UNITARY_POOL, "condition_type": "UNITARY"}
    srv = {qubits: size | {"gate_set": SRV_POOL, "condition_type": "SRV"} for qubits, size in SIZES.items()}
    seconds = 1 if small else 8
    for qubits in (3, 5, 8):
        count = 5_000 if small else 200_000
        parameters = {"data": srv[qubits], "num_samples": count, "seconds": seconds}
        yield f"generation, SRV, {qubits} qubits", "generation", parameters
    parameters = {"data": unitary, "num_samples": 5_000 if small else 1_000_000, "seconds": seconds}
    yield "generation, unitaries, 3 qubits", "generation", parameters

    steps, batches = (1, {3: 8, 5: 8, 8: 8}) if small else (2, {3: 64, 5: 32, 8: 16})
    data = {qubits: write(folder, f"srv_{qubits}q", srv[qubits] | {"num_samples": 1024}) for qubits in (3, 5, 8)}
    compiling = write(folder, "unitaries", unitary | {"num_samples": 1024})
    for qubits, paths in data.items():
        size = f"{qubits}x{SIZES[qubits]['max_gates']}"
        for precision, arithmetic in (("auto", "defaults"), ("32", "both in float32")):
            parameters = paths | {"kind": "SRV", "batch": batches[qubits], "steps": steps, "precision": precision}
            yield f"training, paper's U-Net, {size}, {arithmetic}", "training", parameters
    for precision, arithmetic in (("auto", "defaults"), ("32", "both in float32")):
        parameters = compiling | {"kind": "UNITARY", "batch": batches[3], "steps": steps, "precision": precision}
        yield f"training, compilation U-Net, 3x12, {arithmetic}", "training", parameters

    count, steps = (4, 2) if small else (64, 20)
    for qubits in (3, 5):
        size = {"num_qubits": qubits, "max_gates": SIZES[qubits]["max_gates"]}
        parameters = {"kind": "SRV", "gates": SRV_POOL, "count": count, "steps": steps, "scale": 7.5, **size}
        title = f"sampling, paper's U-Net, {steps} steps, {qubits}x{size['max_gates']}"
        yield title, "sampling", parameters | {"num_gates": 2}

    for qubits, paths in data.items():
        yield f"decoding and SRVs, {qubits} qubits", "evaluation", paths | {"kind": "SRV", "count": 64}
    yield "decoding and unitaries, 3 qubits", "evaluation", compiling | {"kind": "UNITARY", "count": 64}

    steps = 2 if small else 40
    for qubits, paths in data.items():
        theirs = {"num_qubits": qubits, "max_gates": SIZES[qubits]["max_gates"], "num_gates": len(SRV_POOL)}
        ours = {"model": "pretrained:srv", "folder": paths["folder"], "ours": 16 if small else 512}
        judged = {"accuracy": PUBLISHED[qubits], "evaluated": {"file": paths["file"], "kind": "SRV"}}
        yield (
            f"one verified circuit, SRV, {qubits} qubits",
            "verified",
            {"kind": "SRV", "count": batches[qubits], "steps": steps, "scale": 10, **theirs, **ours, **judged},
        )
    theirs = {"num_qubits": 3, "max_gates": 12, "num_gates": len(UNITARY_POOL)}
    ours = {"model": "pretrained:unitary_3q", "folder": compiling["folder"], "ours": 8 if small else 512}
    judged = {"accuracy": PUBLISHED["unitary"], "evaluated": {"file": compiling["file"], "kind": "UNITARY"}}
    title = "one verified circuit, unitaries, 3 qubits"
    common = {"kind": "UNITARY", "count": batches[3], "steps": steps, "scale": 10}
    yield title, "verified", {**common, **theirs, **ours, **judged}

    yield "importing", "importing", {}
    counts = dict.fromkeys(PAPER_COUNTS, 2000) if small else PAPER_COUNTS
    paper = {qubits: srv[qubits] | {"num_samples": number} for qubits, number in counts.items()}
    title = f"loading and merging {sum(counts.values()):,} circuits"
    yield title, "loading", {**write_paper(folder, paper), "batch": 256}


def write_paper(folder: Path, sets: dict[int, dict[str, Any]]) -> dict[str, str]:
    """Generate data sets and write them in both formats; returns the folders."""
    for qubits, values in sets.items():
        dataset, _ = DatasetGenerator(DatasetConfig.model_validate(values | {"optimize": "none"})).generate()
        save_dataset(dataset, folder / "ours" / f"{qubits}q", {})
        export_dataset(dataset, folder / "theirs" / f"{qubits}q")
    return {"ours": str(folder / "ours"), "folder": str(folder / "theirs")}


def versions() -> dict[str, str]:
    """Return what was measured, and where."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    names = ("torch", "qiskit", "numpy")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": f"{model}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "genQC": "0.2.5",
        **{name: importlib.metadata.version(name) for name in names},
    }


HEADER = "| case | ours | genQC | ratio | least ratio | memory MB, ours | genQC |\n|---|---:|---:|---:|---:|---:|---:|"


def main() -> None:
    """Measure all chosen cases, print tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cases", help="beginnings of titles to measure, separated by semicolons; default all")
    parser.add_argument("--python", type=Path, help="an interpreter that has genQC; default builds build/peer")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    chosen = tuple((options.cases or "").split(";"))
    python = options.python or build_environment()
    result: dict[str, Any] = {"versions": versions(), "genqc": [], "qiskit": []}
    print(", ".join(f"{name} {value}" for name, value in result["versions"].items()))
    print(HEADER, flush=True)

    def keep() -> None:
        if options.output is not None:
            options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        for title, case, parameters in cases(Path(folder), options.small):
            if title.startswith(chosen):
                result["genqc"].append(compare(python, title, case, parameters, options.repetitions))
                keep()
    if "synthesis".startswith(chosen):
        result["qiskit"] = compare_synthesis(10 if options.small else 100)
        keep()


if __name__ == "__main__":
    main()
