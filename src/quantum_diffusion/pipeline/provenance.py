"""The software and hardware behind a result: versions, commit, device.

Training records them in `metadata.yaml`, evaluation in `metrics.json`.
"""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import quantum_diffusion


def provenance(device: torch.device) -> dict[str, Any]:
    """Return what is needed to repeat a run elsewhere, as plain values.

    Args:
        device: Where it ran.
    """
    return {
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quantum_diffusion": quantum_diffusion.__version__,
        "commit": _git_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "device": str(device),
        "num_threads": torch.get_num_threads(),
    }


def _git_commit() -> str | None:
    """Return the commit of the source tree that the package runs from; None outside a repository."""
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
