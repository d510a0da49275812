"""Refines the angles of circuits so that they implement their targets as well as their gates allow.

Searches and the verification of samples use it: a model writes angles on a grid, refinement makes them exact. Only code
that works on the device loads this module: it needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable
from quantum_diffusion.tasks.rotations import Rotations, rotations_of

_DONE = 1e-14
"""Infidelity at which refinement stops, near the resolution of float64."""

_POLISH = 2
"""Steps that polish angles: each squares an error of an infidelity of 1e-10 or less."""

_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 0.1, 1e-8, 1e4
_LONGEST_STEP = 1.5  # radians
_BYTES = 2**25
"""Memory of the circuits refined at once; more do not fit the cache."""

_PATIENCE = 5  # iterations between looks at the progress
_PROMISING = 0.9
"""Circuits whose infidelity falls by less than this factor in a few iterations have arrived."""


def refine(
    ids: Ids,
    angles: Angles,
    targets: Matrix,
    table: InstructionTable,
    *,
    fixed: NDArray[np.bool_] | None = None,
    iterations: int = 60,
    device: torch.device | None = None,
) -> tuple[Angles, NDArray[np.float64]]:
    """Move the angles of circuits to a local minimum of the infidelity, by the Levenberg-Marquardt method.

    Args:
        ids: int16 [N, T]; their angles are ignored.
        angles: float64 [N, T, A], where to start.
        targets: complex128 [N, D, R], or [1, D, R] for the same target for all: unitaries (R = D) or states (R = 1).
        table: The instructions the ids number.
        fixed: bool [N, T, A], angles to leave as they are; None leaves none.
        iterations: Maximum number of steps.
        device: Where to compute; None computes on the CPU.

    Returns:
        Angles float64 [N, T, A] in [0, period), and infidelities float64 [N] from the search; verify them by
        simulation.

    Reference:
        Levenberg, Quart. Appl. Math. 2, 164 (1944); Marquardt, SIAM J. Appl. Math. 11, 431 (1963). The metric is that
        of Fubini and Study, the real part of the quantum geometric tensor (Stokes et al., arXiv 1909.02108).
    """
    found, infidelity = angles.copy(), np.ones(len(ids))
    if not ids.size:
        return found, infidelity
    rotations = rotations_of(table)
    numbers, values = rotations.in_order(ids, angles)
    free = np.ones_like(values) if fixed is None else 1.0 - rotations.in_order(ids, fixed.astype(np.float64))[1]
    size = 16 * 4**table.num_qubits * numbers.shape[1] * 6
    block = max(1, _BYTES // size)
    for start in range(0, len(ids), block):
        rows = slice(start, start + block)
        wanted = np.broadcast_to(targets, (len(ids), *targets.shape[1:]))[rows]
        values[rows], infidelity[rows] = _minimize(
            rotations, numbers[rows], values[rows], free[rows], wanted, iterations, device
        )
    found = rotations.back(ids, angles, values)
    return table.in_period(ids, found), infidelity


def polished(ids: Ids, angles: Angles, targets: Matrix, table: InstructionTable) -> Angles:
    """Return the angles of exact circuits to the last digits of float64.

    `refine` compares infidelities, which are quadratic in the errors of a circuit's entries: 1e-14 may stand for 1e-7.
    The gradient is linear in them, so steps that are taken without a comparison go on.

    Args:
        ids: int16 [N, T].
        angles: float64 [N, T, A], of circuits with infidelities below `EXACT_ANGLES`.
        targets: complex128 [N, D, R] or [1, D, R], as for `refine`.
        table: The instructions the ids number.

    Returns:
        float64 [N, T, A] in [0, period).
    """
    rotations = rotations_of(table)
    numbers, values = rotations.in_order(ids, angles)
    place, moved = torch.from_numpy(numbers), torch.from_numpy(values)
    bras = _bras(np.broadcast_to(targets, (len(ids), *targets.shape[1:])))
    for _ in range(_POLISH):
        damping = torch.full((len(ids),), _LEAST_DAMPING, dtype=torch.float64)
        moved = moved + _step(rotations, place, moved, torch.ones_like(moved), bras, damping)
    return table.in_period(ids, rotations.back(ids, angles, moved.numpy()))


def lowest_energy(
    ids: Ids, angles: Angles, hamiltonian: Matrix, table: InstructionTable, *, iterations: int = 500
) -> tuple[Angles, NDArray[np.float64]]:
    """Move the angles of circuits to a local minimum of the energy of their states, by BFGS with exact gradients.

    Args:
        ids: int16 [N, T].
        angles: float64 [N, T, A], where to start.
        hamiltonian: complex128 [D, D].
        table: The instructions the ids number.
        iterations: Maximum number of steps.

    Returns:
        Angles float64 [N, T, A] in [0, period), and energies float64 [N].
    """
    from scipy.optimize import minimize  # a tenth of a second, which other commands save

    rotations = rotations_of(table)
    matrix = torch.from_numpy(hamiltonian)
    found, energies = angles.copy(), np.zeros(len(ids))
    for row in range(len(ids)):
        numbers, values = rotations.in_order(ids[row : row + 1], angles[row : row + 1])
        place = torch.from_numpy(numbers)

        def energy_and_slope(tried: NDArray[np.float64], place: Tensor = place) -> tuple[float, NDArray[np.float64]]:
            energy, slope = rotations.energy(place, torch.from_numpy(tried[None]), matrix)
            return float(energy[0]), slope[0].numpy()

        result = minimize(
            energy_and_slope, values[0], jac=True, method="BFGS", options={"maxiter": iterations, "gtol": 1e-10}
        )
        found[row : row + 1] = rotations.back(ids[row : row + 1], angles[row : row + 1], result.x[None])
        energies[row] = result.fun
    return table.in_period(ids, found), energies


def _minimize(
    rotations: Rotations,
    numbers: NDArray[np.int64],
    angles: NDArray[np.float64],
    free: NDArray[np.float64],
    targets: Matrix,
    iterations: int,
    device: torch.device | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Refine the angles [N, L] of rotations [N, L], of which those `free` (1, else 0) move; see `refine`."""
    place = torch.device("cpu") if device is None or device.type == "mps" else device  # MPS has no 64 bits
    rotations = rotations.to(place)
    final, infidelity = torch.from_numpy(angles.copy()).to(place), torch.ones(len(angles), dtype=torch.float64)
    infidelity = infidelity.to(place)
    bras = _bras(targets).to(place)
    state = _Walk(
        rows=torch.arange(len(angles), device=place),
        numbers=torch.from_numpy(numbers.astype(np.int64)).to(place),
        angles=final.clone(),
        free=torch.from_numpy(free).to(place),
        bras=bras,
        damping=torch.full((len(angles),), _FIRST_DAMPING, dtype=torch.float64, device=place),
    )
    size = bras.shape[1]
    overlap = rotations.overlap(state.numbers, state.angles, state.bras)
    before = overlap
    for iteration in range(1, iterations + 1):
        step = _step(rotations, state.numbers, state.angles, state.free, state.bras, state.damping)
        tried = state.angles + step
        reached = rotations.overlap(state.numbers, tried, state.bras)
        better = reached > overlap
        state.angles = torch.where(better[:, None], tried, state.angles)
        overlap = torch.where(better, reached, overlap)
        state.damping = torch.where(
            better,
            (state.damping / 5).clamp(min=_LEAST_DAMPING),
            (state.damping * 4).clamp(max=_MOST_DAMPING),
        )
        if iteration % _PATIENCE and iteration < iterations:
            continue
        now, earlier = 1 - (overlap / size) ** 2, 1 - (before / size) ** 2
        stays = (now > _DONE) & (iteration < iterations)
        if iteration >= 3 * _PATIENCE:
            stays &= (now < _PROMISING * earlier) | (now < 100 * _DONE)
        ended = state.rows[~stays]
        final[ended], infidelity[ended] = state.angles[~stays], now[~stays]
        if not bool(stays.any()):
            break
        state, overlap = state.take(stays), overlap[stays]
        before = overlap
    return final.cpu().numpy(), infidelity.clamp(min=0).cpu().numpy()


def _bras(targets: Matrix) -> Tensor:
    """Return the adjoints of targets [N, D, R], with columns of norm 1 on average: complex128 [N, R, D]."""
    bras = torch.from_numpy(np.ascontiguousarray(targets.conj().swapaxes(1, 2)))
    scale: Tensor = bras.shape[1] ** 0.5 / bras.flatten(1).norm(dim=1)
    return bras * scale[:, None, None]


def _step(rotations: Rotations, numbers: Tensor, angles: Tensor, free: Tensor, bras: Tensor, damping: Tensor) -> Tensor:
    """Return the step of the Levenberg-Marquardt method, float64 [N, L], with a damping [N]; see `_minimize`."""
    gradient, metric = rotations.slope(numbers, angles, bras)
    gradient, metric = gradient * free, metric * free[:, :, None] * free[:, None]
    metric.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    factor, failed = torch.linalg.cholesky_ex(metric)
    step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    return step.masked_fill(failed[:, None] != 0, 0.0).nan_to_num().clamp(-_LONGEST_STEP, _LONGEST_STEP)


@dataclass(eq=False)
class _Walk:
    """The circuits still being refined: their places, rotations, angles and which move, targets and damping."""

    rows: Tensor
    numbers: Tensor
    angles: Tensor
    free: Tensor
    bras: Tensor
    damping: Tensor

    def take(self, rows: Tensor) -> _Walk:
        """Return some of the circuits, bool [N]."""
        return _Walk(*(value[rows] for value in vars(self).values()))
