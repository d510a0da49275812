"""Measures a device's peak rate of operations in matrix products, for comparison in the other benchmarks.

Run: python benchmarks/rates.py
"""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from quantum_diffusion.device import select_device


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a function takes, including the work it started on the device."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Return the operations per second in matrix products, the best of seven."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    timed(lambda: a @ b, device)
    return 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(7))


def operations(run: Callable[[], object]) -> int:
    """Count the multiplications and additions in a function's matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def main() -> None:
    """Print the rates of this machine's default device."""
    device = select_device("auto")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"{device}, {torch.get_num_threads()} threads, {dtype}: {matrix_rate(device, dtype) / 1e12:.3f} TFLOP/s")


if __name__ == "__main__":
    main()
