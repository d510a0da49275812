"""The choice of the compute device, made once at the entry and passed down from there.

torch is imported inside the function, so that circuits and configuration stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_diffusion.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16 matrix products; without them bfloat16 is slower."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def answers_at_once(device: torch.device) -> bool:
    """Tell whether a number can be asked of a device without waiting for all it was given to do."""
    return device.type == "cpu"


def select_device(name: str | torch.device) -> torch.device:
    """Turn a configured device name into a torch device that exists here.

    Args:
        name: "auto" takes CUDA, else MPS, else the CPU; "cpu", "cuda", "cuda:1" and "mps" are taken literally.

    Raises:
        ConfigError: The name is unknown, or the device is not present on this machine.
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
                f"device {name!r} was asked for, but this machine has {count} CUDA devices; use 'auto' or 'cpu'"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps' was asked for, but this machine has none; use 'auto' or 'cpu'")
    return torch.device(name)
