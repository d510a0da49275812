"""Frozen weights, optimizers and learning-rate schedules by name.

Optimizers are torch's own except for Muon; a schedule is a pure function of the step, so it can be plotted, tested and
resumed.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from quantum_diffusion.errors import ConfigError, unknown_name
from quantum_diffusion.training.muon import Muon

LR_SCHEDULES = ("constant", "one_cycle", "cosine")
OPTIMIZERS = ("adam", "adamw", "muon")

MUON_PARTS = ("backbone.", "unitary_encoder.", "state_encoder.", "prefix_encoder.")
"""Parts of a network whose blocks Muon optimises."""

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 25e4


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude weights from training.

    Args:
        network: The network; `requires_grad` of its parameters is changed.
        patterns: Names with wildcards, e.g. "condition_encoder.*".

    Raises:
        ConfigError: A pattern matches no weight, or nothing is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        names = fnmatch.filter(parameters, pattern)
        if not names:
            raise ConfigError(
                f"training.training.freeze: no weight is named {pattern!r}: names begin with "
                f"{', '.join(sorted({name.partition('.')[0] for name in parameters}))}, and * stands for anything"
            )
        for name in names:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(f"training.training.freeze={list(patterns)} leaves nothing to train: freeze less")


def learning_rate_factor(name: str, step: int, total: int, warmup_fraction: float) -> float:
    """Return the learning rate at a step as a share of the peak.

    Args:
        name: "constant"; "one_cycle" (cosine from 1/25 to 1 and on to 1/250000, as torch's OneCycleLR); "cosine"
            (straight from 0 to 1, then cosine to 0).
        step: Steps done, from 0.
        total: Steps of the whole run.
        warmup_fraction: Share of the steps in which the rate rises.

    Raises:
        ConfigError: The name is unknown.
    """
    if name == "constant":
        return 1.0
    if name not in LR_SCHEDULES:
        raise ConfigError(unknown_name("lr_scheduler", name, LR_SCHEDULES))
    step = min(step, total - 1)
    peak = warmup_fraction * total - 1 if name == "one_cycle" else warmup_fraction * total
    if step < peak:
        return _cosine(ONE_CYCLE_START, 1.0, step / peak) if name == "one_cycle" else (step + 1) / (peak + 1)
    progress = (step - peak) / max(total - 1 - peak, 1)
    return _cosine(1.0, ONE_CYCLE_END if name == "one_cycle" else 0.0, progress)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def make_optimizers(
    network: nn.Module, name: str, learning_rate: float, weight_decay: float, adamw_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Return the optimizer of a network, or two of them for Muon.

    Args:
        network: Its trainable parameters are optimised.
        name: "adam", "adamw", or "muon": Muon (with updates scaled to AdamW's size) for the weight matrices of
            blocks, of the backbone and of what encodes its steps; AdamW for everything else.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay; not used by adam, nor on vectors.
        adamw_rate: Peak learning rate of the AdamW parameters beside Muon, as a fraction of `learning_rate`.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(unknown_name("optimizer", name, OPTIMIZERS))
    trainable = [(key, p) for key, p in network.named_parameters() if p.requires_grad]
    if name == "adam":
        return [torch.optim.Adam([p for _, p in trainable], lr=learning_rate, fused=_can_fuse(network))]
    matrices = [p for key, p in trainable if p.ndim == 2 and key.startswith(MUON_PARTS) and ".blocks." in key]
    hidden = {id(p) for p in matrices} if name == "muon" else set()
    rest = [p for _, p in trainable if id(p) not in hidden]
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate * (adamw_rate if hidden else 1),
        betas=(0.9, 0.98),
        fused=_can_fuse(network),
    )
    if not hidden:
        return [adamw]
    muon = Muon(matrices, lr=learning_rate, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]


def _can_fuse(network: nn.Module) -> bool:
    return all(p.device.type in ("cpu", "cuda") for p in network.parameters())


def make_lr_schedules(
    optimizers: Iterable[torch.optim.Optimizer], name: str, total: int, warmup_fraction: float
) -> list[torch.optim.lr_scheduler.LambdaLR]:
    """Return one torch schedule per optimizer, all following `learning_rate_factor`."""

    def factor(step: int) -> float:
        return learning_rate_factor(name, step, total, warmup_fraction)

    return [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
