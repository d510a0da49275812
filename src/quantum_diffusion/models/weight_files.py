"""Files of weights that other software wrote: tensors by name, and never code.

Readers of CLIP and of genQC's models begin here; our own models are read by `pipeline.checkpoint`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from quantum_diffusion.errors import QuantumDiffusionError
from quantum_diffusion.files import describe


def read_weights(file: Path, error: type[QuantumDiffusionError]) -> dict[str, Tensor]:
    """Read a `state_dict` from .safetensors, or from what torch.save wrote; onto the CPU.

    Args:
        file: The file. What lies under `state_dict` is taken, where there is such a name, and prefixes that wrappers
            add are dropped: `module.` (data parallel) and `_orig_mod.` (torch.compile).
        error: Raised where it cannot be read, or holds no tensors.
    """
    try:
        if file.suffix == ".safetensors":
            state: Any = load(file.read_bytes())
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as problem:
        raise error(f"cannot read {str(file)!r}: {describe(problem)}") from problem
    except Exception as problem:  # torch and pickle raise all kinds, with texts for their developers
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
