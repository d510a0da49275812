"""Connects a training process with the others of its launch; `DiffusionTrainer` calls it at the start."""

from __future__ import annotations

import os

import torch

from quantum_diffusion.pipeline.launch import find_launch, has_terminal
from quantum_diffusion.pipeline.team import Team


def join_team(device: torch.device) -> tuple[Team, torch.device]:
    """Connect this process with the others that torchrun or SLURM started, if there are any.

    Args:
        device: The kind of device; each process of a computer takes one of its own.

    Returns:
        The team, and the device of this process.

    Raises:
        ConfigError: The environment speaks of a launch that is none, or the processes cannot be connected.
    """
    launch = find_launch(os.environ, has_terminal())
    if launch is None:
        return Team(), device
    from quantum_diffusion.pipeline.fabric_team import connect  # lightning-fabric takes a second

    team = connect(launch, device)
    return team, team.device
