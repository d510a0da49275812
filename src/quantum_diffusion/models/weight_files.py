"""Reads weight files of other software, tensors by name, without running code from them.

The readers of CLIP and of genQC's models use it; `pipeline.checkpoint` reads our own models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from quantum_diffusion.errors import QuantumDiffusionError
from quantum_diffusion.files import describe


def read_weights(file: Path, error: type[QuantumDiffusionError]) -> dict[str, Tensor]:
    """Read a `state_dict` from a .safetensors or torch.save file onto the CPU.

    Args:
        file: The file. If it has an entry `state_dict`, that is read; prefixes added by wrappers are removed:
            `module.` (data parallel) and `_orig_mod.` (torch.compile).
        error: Type to raise if the file cannot be read or holds no tensors.
    """
    try:
        if file.suffix == ".safetensors":
            state: Any = load(file.read_bytes())
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as problem:
        raise error(f"cannot read {str(file)!r}: {describe(problem)}") from problem
    except SafetensorError as problem:
        raise error(f"{str(file)!r} is damaged (empty, cut short or no safetensors file): copy it again") from problem
    except Exception as problem:  # torch and pickle raise any exception type, with messages for developers
        raise error(
            f"{str(file)!r} cannot be read as weights: expected .safetensors, or tensors that torch.save wrote; "
            "pickled objects are not opened, as they can run code"
        ) from problem
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    tensors = {
        name.removeprefix("module.").replace("_orig_mod.", ""): value
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise error(f"{str(file)!r} holds no tensors by name: expected a model's state_dict")
    return tensors


def check_weights(weights: Mapping[str, Tensor], file: Path, error: type[QuantumDiffusionError]) -> None:
    """Raise an error if weights are no finite real numbers; a model would compute nonsense with them.

    Args:
        weights: The weights that are used.
        file: Where they are from, for the message.
        error: Type to raise.
    """
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise error(f"{str(file)!r}: the weight {name!r} is {kind}: expected real numbers; save the model again")
        if not bool(tensor.float().isfinite().all()):
            raise error(
                f"{str(file)!r}: the weight {name!r} holds NaN or infinity: its training diverged or the file is "
                "damaged; give another model, or copy it again"
            )
