"""Data augmentation by exact symmetries of circuits and their targets, drawn anew for every training step.

Renaming qubits permutes both the token rows and the basis of the unitary; reversing a circuit gives the adjoint
unitary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.config.schema import Symmetry
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError, unknown_name
from quantum_diffusion.tasks.registry import TASKS


def augment(batch: Batch, names: Sequence[Symmetry], noise: Noise) -> Batch:
    """Apply symmetries to a batch.

    Args:
        batch: Circuits with targets, on the noise's device.
        names: Symmetries, in the order to apply them.
        noise: Source of randomness.
    """
    for name in names:
        batch = SYMMETRIES[name](batch, noise)
    return batch


def check_augmentation(dataset: CircuitDataset, names: Sequence[Symmetry]) -> None:
    """Refuse symmetries that would make a circuit's label wrong.

    Raises:
        ConfigError: A name is unknown or not for the data set's task, or reversed circuits would leave the gate pool.
    """
    for name in names:
        if name not in SYMMETRIES:
            raise ConfigError(unknown_name("training.training.augment", name, SYMMETRIES))
    wrong = [name for name in names if name not in dataset.task.symmetries]
    if wrong:
        able = " or ".join(task.name for task in TASKS.values() if wrong[0] in task.symmetries)
        raise ConfigError(
            f"training.training.augment={list(names)} has {wrong[0]}, which is for data sets of condition_type {able}: "
            f"of circuits for {dataset.task.asked} it would make others than their prompts ask for; set it to "
            f"{list(dataset.task.symmetries)}"
        )
    directed = [gate for gate in dataset.gate_pool.names if GATES[gate].inverse != gate]
    if "invert" in names and directed:
        raise ConfigError(
            f"training.training.augment has invert, but the inverse of {directed[0]!r} is another gate "
            f"({GATES[directed[0]].inverse!r}), which a prompt may not allow: leave invert out"
        )
    swapping = [gate for gate in dataset.gate_pool.names if GATES[gate].num_angles > 1]
    if "invert" in names and swapping:
        raise ConfigError(
            f"training.training.augment has invert, which is for gates of one angle at most, but the data set has "
            f"{swapping[0]!r}: leave invert out"
        )


def permute_qubits(batch: Batch, noise: Noise) -> Batch:
    """Rename the qubits of every circuit at random; missing qubits stay where they are."""
    count, num_qubits = batch.tokens.shape[:2]
    qubit = torch.arange(num_qubits, device=noise.device)
    place = noise.uniform(count, num_qubits)
    place = torch.where(qubit < batch.sizes[:, :1], place, 1.0 + qubit)
    source = place.argsort(dim=1)  # [B, Q]: new qubit q is the old qubit source[q]
    tokens = batch.tokens.gather(1, source[:, :, None].expand(batch.tokens.shape))
    if batch.targets is None:
        return replace(batch, tokens=tokens, ids=None)
    side, width = batch.targets.shape[-2:]
    qubit = torch.arange(side.bit_length() - 1, device=noise.device)  # bucketed tokens lack rows, targets do not
    source = torch.cat([source, qubit[num_qubits:].expand(count, -1)], dim=1)
    bits = torch.arange(side, device=noise.device)[:, None] >> qubit & 1  # [D, Q]
    basis = (bits[None] << source[:, None]).sum(dim=2)  # [B, D]: the old index of each new one
    targets = batch.targets.gather(2, basis[:, None, :, None].expand(batch.targets.shape))
    if width > 1:  # a state has a single column, which stays
        targets = targets.gather(3, basis[:, None, None, :].expand(batch.targets.shape))
    return replace(batch, tokens=tokens, ids=None, targets=targets)


def invert(batch: Batch, noise: Noise) -> Batch:
    """Reverse each circuit with probability 1/2; for gates that are their own inverses."""
    turned = noise.uniform(len(batch)) < 0.5  # [B]
    step = torch.arange(batch.tokens.shape[2], device=noise.device).expand(len(batch), -1)
    length = batch.sizes[:, 1:]
    source = torch.where(turned[:, None] & (step < length), length - 1 - step, step)
    tokens = batch.tokens.gather(2, source[:, None].expand(batch.tokens.shape))
    angles = batch.angles
    if angles is not None:
        moved = angles.gather(1, source[..., None].expand(angles.shape))
        angles = torch.where(turned[:, None, None], -moved, moved)
    if batch.targets is None:
        return replace(batch, tokens=tokens, ids=None, angles=angles)
    adjoint = batch.targets.mT * torch.tensor([1.0, -1.0], device=noise.device)[:, None, None]
    targets = torch.where(turned[:, None, None, None], adjoint, batch.targets)
    return replace(batch, tokens=tokens, ids=None, targets=targets, angles=angles)


SYMMETRIES: dict[Symmetry, Callable[[Batch, Noise], Batch]] = {"permute_qubits": permute_qubits, "invert": invert}
