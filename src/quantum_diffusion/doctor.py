"""The checks of `quantum-diffusion doctor`: versions, device, disk, extras, locale, a self-test of shipped models."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import locale
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import quantum_diffusion
from quantum_diffusion.errors import first_line
from quantum_diffusion.pretrained import pretrained_names

_PACKAGES = ("torch", "numpy", "qiskit", "diffusers", "lightning-fabric", "hydra-core", "safetensors")
_EXTRAS = {
    "clip": ("transformers", "CLIP as the text encoder, also of genQC's models"),
    "qasm3": ("qiskit_qasm3_import", "OpenQASM 3 programs as targets"),
    "pennylane": ("pennylane", "Circuit.to_pennylane"),
    "ray": ("ray", "data sets and samples on a cluster"),
    "ui": ("uvicorn", "the page of quantum-diffusion ui"),
    "sweeps": ("hydra_plugins.hydra_joblib_launcher", "jobs of a sweep at once"),
    "wandb": ("wandb", "training logged to Weights & Biases"),
    "mlflow": ("mlflow", "training logged to MLflow"),
}
_FREE_GB = 2.0
"""Free disk space, in GB, below which generation and training soon fail."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: Its name.
        value: What was found.
        problem: What is wrong and what to do; empty if all is well.
    """

    what: str
    value: str
    problem: str = ""


def examine(self_test: bool) -> Iterator[Finding]:
    """Check everything that commands need, one thing at a time.

    Args:
        self_test: Whether to run shipped models, which takes several seconds.
    """
    yield Finding("quantum_diffusion", f"{quantum_diffusion.__version__} in {Path(quantum_diffusion.__file__).parent}")
    yield Finding("python", f"{platform.python_version()} in {sys.prefix}", _python_problem())
    yield Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    for name in _PACKAGES:
        yield _version(name)
    yield _torch()
    yield _device()
    yield Finding("processor", f"{os.cpu_count()} cores")
    yield from (
        _disk(name, folder) for name, folder in (("disk here", Path.cwd()), ("disk for temporary files", _tmp()))
    )
    for extra, (module, meaning) in _EXTRAS.items():
        there = _is_there(module)
        yield Finding(
            f"extra {extra}",
            "installed" if there else f"not installed (pip install 'quantum-diffusion[{extra}]'): {meaning}",
        )
    yield _locale()
    yield Finding("pretrained models", ", ".join(pretrained_names()))
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    yield Finding(
        "network", "needed only for hf:// addresses" + (", which HF_HUB_OFFLINE turns off" if offline else "")
    )
    if self_test:
        yield from _self_test()


def _tmp() -> Path:
    return Path(tempfile.gettempdir())


def _python_problem() -> str:
    return "" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "use Python 3.11, 3.12 or 3.13"


def _version(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", "run pip install quantum-diffusion again")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _torch() -> Finding:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch build", f"{build}, {torch.get_num_threads()} threads")


def _device() -> Finding:
    import torch

    from quantum_diffusion.device import multiplies_in_bfloat16, select_device

    device = select_device("auto")
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    problem = ""
    if device.type == "cpu" and torch.version.cuda is None and shutil.which("nvidia-smi"):
        problem = "there is an NVIDIA driver, but torch is a CPU build: install the CUDA build (pytorch.org)"
    arithmetic = "bfloat16" if multiplies_in_bfloat16(device) else "float32"
    return Finding("device", f"{device}{name}, trains in {arithmetic}", problem)


def _disk(what: str, folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free / 1e9
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        return Finding(what, f"{folder} cannot be written ({problem.strerror})", "change to a writable folder")
    low = "free some space: a data set of a million circuits takes about 0.1 GB, with unitaries much more"
    return Finding(what, f"{free:.0f} GB free in {folder}", low if free < _FREE_GB else "")


def _locale() -> Finding:
    encoding = sys.stdout.encoding or "none"
    utf8 = encoding.lower().replace("-", "") == "utf8"
    problem = "" if utf8 else "drawings lose their lines: set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
    return Finding("output", f"{encoding}, locale {locale.setlocale(locale.LC_CTYPE)}", problem)


def _self_test() -> Iterator[Finding]:
    """Run shipped models and check their circuits with Qiskit."""
    for what, command, asked in (
        ("sample", "sample", [1, 2, 2]),
        ("compile", "compile", "toffoli"),
        ("prepare", "prepare", "ghz:4"),
    ):
        started = time.perf_counter()
        try:
            problem = _tried(command, asked)
        except Exception as failure:  # any failure is a finding
            problem = f"{type(failure).__name__}: {first_line(failure)}"
        seconds = time.perf_counter() - started
        value = f"{asked!r} in {seconds:.1f} s"
        yield Finding(f"self-test {what}", value if problem else f"{value}, confirmed by Qiskit", problem)


def _tried(command: str, asked: object) -> str:
    """Run the default model of a command; returns what is wrong with its circuits by Qiskit's simulation."""
    from quantum_diffusion import api
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    qiskit = QiskitBackend()
    if command == "sample":
        assert isinstance(asked, list)
        found = api.sample(asked, num=1, seed=0, device="cpu")
        right = [qiskit.schmidt_rank_vector(circuit) == asked for circuit in found]
    elif command == "compile":
        from quantum_diffusion.circuits.matrices import infidelities
        from quantum_diffusion.search.unitaries import target_unitary

        target = target_unitary(asked, 3)
        right = [
            bool(infidelities(qiskit.unitary(circuit)[None], target[None])[0] < 1e-9) for circuit in api.compile(asked)
        ]
    else:
        from quantum_diffusion.search.states import target_state

        state = target_state(asked, 4)
        right = [
            bool(abs(abs(qiskit.native_state(circuit.to_qiskit()).conj() @ state) - 1) < 1e-9)
            for circuit in api.prepare(asked)
        ]
    return "" if right and all(right) else "no circuit was found" if not right else "the circuit is wrong: report this"
