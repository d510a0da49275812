"""Muon that updates all matrices of one shape at once, in the precision that is fast on the device.

torch's own runs five Newton-Schulz steps for each matrix separately, in bfloat16: on CPUs without bfloat16 arithmetic
that took half of a training step, ten times as long as in 32 bits, and on GPUs hundreds of launches. On CPUs with it,
32 bits take more than twice as long.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantum_diffusion.device import multiplies_in_bfloat16


class Muon(torch.optim.Muon):
    """torch's Muon, with the same arguments and state, but batched updates scaled to AdamW's size.

    Reference:
        Keller Jordan, https://kellerjordan.github.io/posts/muon/; the scale: arXiv 2502.16982, section 2.2.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every matrix by its orthogonalised momentum; `closure` is for torch's interface and is not called."""
        for group in self.param_groups:
            by_shape: dict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape, matrix.device].append(matrix)
            for (shape, device), matrices in by_shape.items():
                gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
                momenta = [self._momentum(matrix) for matrix in matrices]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                looked_ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
                dtype = torch.bfloat16 if multiplies_in_bfloat16(device) else torch.float32
                updates = orthogonalised(torch.stack(looked_ahead).to(dtype), group["ns_steps"], group["eps"])
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                ways = updates.to(matrices[0].dtype) * (-0.2 * math.sqrt(max(shape)) * group["lr"])
                torch._foreach_add_(matrices, list(ways.unbind()))

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def orthogonalised(matrices: Tensor, steps: int, eps: float) -> Tensor:
    """Return matrices with all singular values near 1, and the singular vectors of the given ones.

    Args:
        matrices: [N, a, b].
        steps: Of Newton-Schulz, with coefficients that converge fast at small values rather than exactly.
        eps: Least norm that is divided by.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        change = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, change, x, beta=3.4445)
    return x.mT if tall else x
