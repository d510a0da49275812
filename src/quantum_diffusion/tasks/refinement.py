"""Refines the angles of circuits so that they implement their targets as well as their gates allow.

Searches and the verification of samples use it: a model writes angles on a grid, refinement makes them exact. Only code
that works on the device loads this module: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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

_STILL_FALLING = 0.999
"""The same for energies, of which one is of interest even if it is not the lowest possible."""


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

    def towards(rows: slice) -> _Goal:
        return _Overlaps.of(np.broadcast_to(targets, (len(ids), *targets.shape[1:]))[rows])

    return _refined(ids, angles, towards, table, fixed, iterations, device)


def refine_excess(
    ids: Ids,
    angles: Angles,
    excess: Matrix,
    table: InstructionTable,
    *,
    fixed: NDArray[np.bool_] | None = None,
    iterations: int = 60,
    device: torch.device | None = None,
) -> tuple[Angles, NDArray[np.float64]]:
    """Move the angles of circuits towards states v of the lowest <v|A|v>, by the Levenberg-Marquardt method.

    It converges fast where the circuits reach 0; `lowest_energy` is more precise for those that do not.

    Args:
        ids: int16 [N, T]; their angles are ignored.
        angles: float64 [N, T, A], where to start.
        excess: The matrix A, complex128 [D, D], positive semidefinite and of norm 1.
        table: The instructions the ids number.
        fixed: See `refine`.
        iterations: See `refine`.
        device: See `refine`.

    Returns:
        Angles float64 [N, T, A] in [0, period), and <v|A|v>, float64 [N], from the search.
    """
    return _refined(ids, angles, lambda rows: _Excess.of(excess), table, fixed, iterations, device)


def _refined(
    ids: Ids,
    angles: Angles,
    towards: Callable[[slice], _Goal],
    table: InstructionTable,
    fixed: NDArray[np.bool_] | None,
    iterations: int,
    device: torch.device | None,
) -> tuple[Angles, NDArray[np.float64]]:
    """Refine circuits in blocks that fit the cache, those of some rows towards a goal; see `refine`."""
    found, distances = angles.copy(), np.ones(len(ids))
    if not ids.size:
        return found, distances
    rotations = rotations_of(table)
    numbers, values = rotations.in_order(ids, angles)
    free = _free(rotations, ids, values, fixed)
    size = 16 * 4**table.num_qubits * numbers.shape[1] * 6
    block = max(1, _BYTES // size)
    for start in range(0, len(ids), block):
        rows = slice(start, start + block)
        values[rows], distances[rows] = _minimize(
            rotations, numbers[rows], values[rows], free[rows], towards(rows), iterations, device
        )
    found = rotations.back(ids, angles, values)
    return table.in_period(ids, found), distances


def _free(
    rotations: Rotations, ids: Ids, values: NDArray[np.float64], fixed: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return 1 for the rotations [N, L] that may move, and 0 for the others."""
    if fixed is None:
        return np.ones_like(values)
    free: NDArray[np.float64] = 1.0 - rotations.in_order(ids, fixed.astype(np.float64))[1]
    return free


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
    goal = _Overlaps.of(np.broadcast_to(targets, (len(ids), *targets.shape[1:])))
    for _ in range(_POLISH):
        damping = torch.full((len(ids),), _LEAST_DAMPING, dtype=torch.float64)
        moved = moved + _step(rotations, place, moved, torch.ones_like(moved), goal, damping)
    return table.in_period(ids, rotations.back(ids, angles, moved.numpy()))


def lowest_energy(
    ids: Ids,
    angles: Angles,
    hamiltonian: Matrix,
    table: InstructionTable,
    *,
    fixed: NDArray[np.bool_] | None = None,
    iterations: int = 500,
) -> tuple[Angles, NDArray[np.float64]]:
    """Move the angles of circuits to a local minimum of the energy of their states, by BFGS with exact gradients.

    Args:
        ids: int16 [N, T].
        angles: float64 [N, T, A], where to start.
        hamiltonian: complex128 [D, D].
        table: The instructions the ids number.
        fixed: See `refine`.
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
        free = _free(rotations, ids[row : row + 1], values, None if fixed is None else fixed[row : row + 1])[0]

        def energy_and_slope(
            tried: NDArray[np.float64], place: Tensor = place, free: NDArray[np.float64] = free
        ) -> tuple[float, NDArray[np.float64]]:
            energy, slope = rotations.energy(place, torch.from_numpy(tried[None]), matrix)
            return float(energy[0]), slope[0].numpy() * free

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
    goal: _Goal,
    iterations: int,
    device: torch.device | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Refine the angles [N, L] of rotations [N, L], of which those `free` (1, else 0) move; see `refine`."""
    place = torch.device("cpu") if device is None or device.type == "mps" else device  # MPS has no 64 bits
    rotations = rotations.to(place)
    final, distance = torch.from_numpy(angles.copy()).to(place), torch.ones(len(angles), dtype=torch.float64)
    distance = distance.to(place)
    state = _Walk(
        rows=torch.arange(len(angles), device=place),
        numbers=torch.from_numpy(numbers.astype(np.int64)).to(place),
        angles=final.clone(),
        free=torch.from_numpy(free).to(place),
        goal=goal.to(place),
        damping=torch.full((len(angles),), _FIRST_DAMPING, dtype=torch.float64, device=place),
    )
    merit = state.goal.merit(rotations, state.numbers, state.angles)
    before = merit
    for iteration in range(1, iterations + 1):
        step = _step(rotations, state.numbers, state.angles, state.free, state.goal, state.damping)
        tried = state.angles + step
        reached = state.goal.merit(rotations, state.numbers, tried)
        better = reached > merit
        state.angles = torch.where(better[:, None], tried, state.angles)
        merit = torch.where(better, reached, merit)
        state.damping = torch.where(
            better,
            (state.damping / 5).clamp(min=_LEAST_DAMPING),
            (state.damping * 4).clamp(max=_MOST_DAMPING),
        )
        if iteration % _PATIENCE and iteration < iterations:
            continue
        now, earlier = state.goal.distance(merit), state.goal.distance(before)
        stays = (now > _DONE) & (iteration < iterations)
        if iteration >= 3 * _PATIENCE:
            stays &= (now < state.goal.promising * earlier) | (now < 100 * _DONE)
        ended = state.rows[~stays]
        final[ended], distance[ended] = state.angles[~stays], now[~stays]
        if not bool(stays.any()):
            break
        state, merit = state.take(stays), merit[stays]
        before = merit
    return final.cpu().numpy(), distance.clamp(min=0).cpu().numpy()


class _Goal(Protocol):
    """What angles of N circuits are refined for: the highest merit, at which their distance is 0."""

    @property
    def promising(self) -> float:
        """Factor by which the distance must fall in a few iterations for a circuit to stay in the search."""

    def to(self, device: torch.device) -> _Goal:
        """Return the goal with its tensors on a device."""

    def __getitem__(self, rows: Tensor) -> _Goal:
        """Return the goal of some circuits, bool [N]."""

    def merit(self, rotations: Rotations, numbers: Tensor, angles: Tensor) -> Tensor:
        """Return what is to rise, float64 [N]."""

    def slope(self, rotations: Rotations, numbers: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of the merit, float64 [N, L], and the matrix of the step, [N, L, L]."""

    def distance(self, merit: Tensor) -> Tensor:
        """Return the distances of circuits of given merits, float64 [N]."""


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """Overlaps with targets, the distance being the infidelity."""

    bras: Tensor  # complex128 [N, R, D], of norm R^(1/2)
    promising: float = _PROMISING

    @classmethod
    def of(cls, targets: Matrix) -> _Overlaps:
        bras = torch.from_numpy(np.ascontiguousarray(targets.conj().swapaxes(1, 2)))
        return cls(bras / bras.flatten(1).norm(dim=1)[:, None, None] * bras.shape[1] ** 0.5)

    def to(self, device: torch.device) -> _Overlaps:
        return _Overlaps(self.bras.to(device))

    def __getitem__(self, rows: Tensor) -> _Overlaps:
        return _Overlaps(self.bras[rows])

    def merit(self, rotations: Rotations, numbers: Tensor, angles: Tensor) -> Tensor:
        return rotations.overlap(numbers, angles, self.bras)

    def slope(self, rotations: Rotations, numbers: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        return rotations.slope(numbers, angles, self.bras)

    def distance(self, merit: Tensor) -> Tensor:
        return 1 - (merit / self.bras.shape[1]) ** 2


@dataclass(frozen=True, eq=False)
class _Excess:
    """The expectation value of one matrix for all circuits."""

    matrix: Tensor  # complex128 [D, D]
    promising: float = _STILL_FALLING

    @classmethod
    def of(cls, matrix: Matrix) -> _Excess:
        return cls(torch.from_numpy(matrix))

    def to(self, device: torch.device) -> _Excess:
        return _Excess(self.matrix.to(device))

    def __getitem__(self, rows: Tensor) -> _Excess:
        return self

    def merit(self, rotations: Rotations, numbers: Tensor, angles: Tensor) -> Tensor:
        return -rotations.excess(numbers, angles, self.matrix)

    def slope(self, rotations: Rotations, numbers: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        return rotations.excess_slope(numbers, angles, self.matrix)

    def distance(self, merit: Tensor) -> Tensor:
        return -merit


def _step(rotations: Rotations, numbers: Tensor, angles: Tensor, free: Tensor, goal: _Goal, damping: Tensor) -> Tensor:
    """Return the step of the Levenberg-Marquardt method, float64 [N, L], with a damping [N]; see `_minimize`."""
    gradient, metric = goal.slope(rotations, numbers, angles)
    gradient, metric = gradient * free, metric * free[:, :, None] * free[:, None]
    metric.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    factor, failed = torch.linalg.cholesky_ex(metric)
    step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    return step.masked_fill(failed[:, None] != 0, 0.0).nan_to_num().clamp(-_LONGEST_STEP, _LONGEST_STEP)


@dataclass(eq=False)
class _Walk:
    """The circuits still being refined: their places, rotations, angles and which move, goal and damping."""

    rows: Tensor
    numbers: Tensor
    angles: Tensor
    free: Tensor
    goal: _Goal
    damping: Tensor

    def take(self, rows: Tensor) -> _Walk:
        """Return some of the circuits, bool [N]."""
        return _Walk(*(value[rows] for value in vars(self).values()))
