"""Profiles a few training steps with torch's profiler, for chrome://tracing or Perfetto.

The trace starts after three warm-up steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from quantum_diffusion.errors import QuantumDiffusionError, only_warn
from quantum_diffusion.files import new_file


@contextmanager
def profiler(path: Path, steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """Profile some steps; yields the function to call after every step.

    Args:
        path: File for the trace, written after the last profiled step.
        steps: Number of steps to profile.
        device: Where the network computes.
    """

    def write(trace: profile) -> None:
        with only_warn(f"the trace {path.name!r}"), new_file(path, QuantumDiffusionError) as staging:
            trace.export_chrome_trace(str(staging))

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    plan = schedule(wait=1, warmup=2, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, profile_memory=True) as running:
        yield running.step
