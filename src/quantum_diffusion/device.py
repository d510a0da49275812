"""Selection of the compute device; entry points call it once and pass the device down.

torch is imported inside functions, so that circuits and configuration stay quick to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantum_diffusion.errors import ConfigError, counted, unknown_name

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16 matrix products; without them bfloat16 is slower."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def answers_at_once(device: torch.device) -> bool:
    """Return whether reading a value from the device does not wait for queued work (true for the CPU)."""
    return device.type == "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for the small matrices of a search: more cost more time than they save.

    Where other programs use the cores, threads that wait for each other make it ten times as slow.
    """
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def select_device(name: str | torch.device) -> torch.device:
    """Return the torch device for a configured name.

    Args:
        name: "auto" selects CUDA, else MPS, else the CPU; "cpu", "cuda", "cuda:1" and "mps" select that device.

    Raises:
        ConfigError: The name is unknown, or this machine has no such device.
    """
    import torch

    kind, _, index = str(name).partition(":")
    if kind not in DEVICE_NAMES or (index and not (kind == "cuda" and index.isdigit())):
        meant = "cuda" if kind.casefold() in ("gpu", "nvidia") else None
        raise ConfigError(unknown_name("device", name, [*DEVICE_NAMES, "cuda:0"], meant))
    if kind == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise ConfigError(
                f"device is {name!r}, but this machine has {counted(count, 'CUDA device')}; use 'auto' or 'cpu'"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is 'mps', but this machine has no MPS device; use 'auto' or 'cpu'")
    return torch.device(name)
