"""Refines the angles of circuits so that they implement their targets as well as their gates allow.

Searches and the verification of samples use it: a model writes angles on a grid, refinement makes them exact. Only code
that works on the device loads this module: it needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from quantum_diffusion.circuits.gates import GATES, Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.simulate import unitaries

EXACT_ANGLES = 1e-10
"""A circuit with refined angles is exact if its infidelity with the target is below this."""

_DONE = 1e-14
"""Infidelity at which refinement stops, near the resolution of float64."""

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
    iterations: int = 60,
    device: torch.device | None = None,
) -> tuple[Angles, np.ndarray]:
    """Move the angles of circuits to a local minimum of the infidelity, by the Levenberg-Marquardt method.

    Args:
        ids: int16 [N, T]; their angles are ignored.
        angles: float64 [N, T, A], where to start.
        targets: complex128 [N, D, R], or [1, D, R] for the same target for all: unitaries (R = D) or states (R = 1).
        table: The instructions the ids number.
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
    if not len(ids):
        return found, infidelity
    rotations = _rotations(table)
    numbers = rotations.of_instruction[ids].reshape(len(ids), -1)  # [N, T * F]
    values = np.take_along_axis(angles, rotations.angle[ids], axis=2).reshape(numbers.shape)
    size = 16 * 4**table.num_qubits * numbers.shape[1] * 6
    block = max(1, _BYTES // size)
    for start in range(0, len(ids), block):
        rows = slice(start, start + block)
        wanted = np.broadcast_to(targets, (len(ids), *targets.shape[1:]))[rows]
        values[rows], infidelity[rows] = _minimize(rotations, numbers[rows], values[rows], wanted, iterations, device)
    moved = values.reshape(*ids.shape, -1)
    for number in range(angles.shape[2]):
        takes = (rotations.angle[ids] == number) & rotations.has_angle[ids]
        rows, steps = np.nonzero(takes.any(axis=2))
        found[rows, steps, number] = moved[rows, steps, takes[rows, steps].argmax(axis=1)]
    period = (table.step * table.num_steps)[ids][..., None]
    return found % period, infidelity


def _minimize(
    rotations: _Rotations,
    numbers: np.ndarray,
    angles: np.ndarray,
    targets: Matrix,
    iterations: int,
    device: torch.device | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Refine the angles [N, L] of rotations [N, L]; see `refine`."""
    place = torch.device("cpu") if device is None else device
    rotations = rotations.to(place)
    final, infidelity = torch.from_numpy(angles.copy()).to(place), torch.ones(len(angles), dtype=torch.float64)
    infidelity = infidelity.to(place)
    bras = torch.from_numpy(np.ascontiguousarray(targets.conj().swapaxes(1, 2))).to(place)  # [N, R, D]
    bras = bras / bras.flatten(1).norm(dim=1)[:, None, None] * bras.shape[1] ** 0.5
    state = _Walk(
        rows=torch.arange(len(angles), device=place),
        numbers=torch.from_numpy(numbers.astype(np.int64)).to(place),
        angles=final.clone(),
        bras=bras,
        damping=torch.full((len(angles),), _FIRST_DAMPING, dtype=torch.float64, device=place),
    )
    size = bras.shape[1]
    overlap = rotations.overlap(state.numbers, state.angles, state.bras)
    before = overlap
    for iteration in range(1, iterations + 1):
        gradient, metric = rotations.slope(state.numbers, state.angles, state.bras)
        metric.diagonal(dim1=1, dim2=2).add_(state.damping[:, None])
        factor, failed = torch.linalg.cholesky_ex(metric)
        step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        step = step.masked_fill(failed[:, None] != 0, 0.0).nan_to_num().clamp(-_LONGEST_STEP, _LONGEST_STEP)
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


@dataclass(eq=False)
class _Walk:
    """The circuits still being refined: their places, rotations, angles, targets and damping."""

    rows: Tensor
    numbers: Tensor
    angles: Tensor
    bras: Tensor
    damping: Tensor

    def take(self, rows: Tensor) -> _Walk:
        """Return some of the circuits, bool [N]."""
        return _Walk(*(value[rows] for value in vars(self).values()))


class _Rotations:
    """The gates of a table as products of rotations exp(i t A), each a trigonometric polynomial of its angle t.

    Attributes:
        of_instruction: int64 [K+1, F], the rotations that an instruction is made of; 0 is the identity.
        angle: int64 [K+1, F], which of the instruction's angles each takes.
        has_angle: bool [K+1, F].
        parts: complex128 [G, P, D, D], coefficients of exp(i t k / 2) for the P numbers k = `frequencies`.
        generators: complex128 [G, D, D], the matrices A; zero for gates without an angle.
    """

    def __init__(self, table: InstructionTable) -> None:
        size = 2**table.num_qubits
        made_of = {gate.name: gate.made_of or ((gate.name, 0),) for gate in table.pool}
        names = dict.fromkeys(name for parts in made_of.values() for name, _ in parts)
        simple = instruction_table(type(table.pool)(names), table.num_qubits)
        numbers = np.unique(simple.first)
        place = {int(number): row for row, number in enumerate(numbers)}
        key = {
            (step.gate, step.controls, step.targets): place[int(simple.first[number])]
            for number, step in enumerate(simple.instructions, start=1)
        }
        most = max(map(len, made_of.values()))
        self.of_instruction = np.zeros((len(table) + 1, most), dtype=np.int64)
        self.angle = np.zeros_like(self.of_instruction)
        self.has_angle = np.zeros_like(self.of_instruction, dtype=np.bool_)
        for number, step in enumerate(table.instructions, start=1):
            for part, (name, angle) in enumerate(made_of[step.gate]):
                self.of_instruction[number, part] = key[name, step.controls, step.targets]
                self.angle[number, part] = angle
                self.has_angle[number, part] = GATES[name].num_angles > 0
        parts = _polynomials(numbers, simple)
        used = np.abs(parts).max(axis=(0, 2, 3)) > 0
        self.frequencies = torch.from_numpy(np.flatnonzero(used) / 2)
        self.parts = torch.from_numpy(parts[:, used])
        self.generators = torch.einsum("k,gkab->gab", self.frequencies.to(self.parts.dtype), self.parts)
        self.identity = torch.eye(size, dtype=torch.complex128)

    def to(self, device: torch.device) -> _Rotations:
        """Return the rotations with their tensors on a device."""
        if self.parts.device == device:
            return self
        moved = object.__new__(_Rotations)
        vars(moved).update(
            {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        )
        return moved

    def gates(self, numbers: Tensor, angles: Tensor) -> Tensor:
        """Return the matrices of rotations, complex128 [N, L, D, D]."""
        turns = torch.polar(torch.ones_like(angles)[..., None], angles[..., None] * self.frequencies)  # [N, L, P]
        parts = self.parts[numbers]
        made = turns[..., 0, None, None] * parts[:, :, 0]
        for number in range(1, turns.shape[2]):
            made = made + turns[..., number, None, None] * parts[:, :, number]
        return made

    def overlap(self, numbers: Tensor, angles: Tensor, bras: Tensor) -> Tensor:
        """Return |tr(target^dagger V)|, float64 [N], on the first R columns of the circuits' V."""
        gates = self.gates(numbers, angles)
        made = gates[:, 0, :, : bras.shape[1]]
        for step in range(1, gates.shape[1]):
            made = gates[:, step] @ made
        return torch.einsum("nrd,ndr->n", bras, made).abs()

    def slope(self, numbers: Tensor, angles: Tensor, bras: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of the overlap, float64 [N, L], and the metric [N, L, L].

        With L the product of the rotations up to a step, dV/dt = i V K and K = L^dagger A L.
        """
        columns = bras.shape[1]
        gates = self.gates(numbers, angles)
        before = [self.identity.expand(len(numbers), -1, -1)]
        for step in range(gates.shape[1]):
            before.append(gates[:, step] @ before[-1])
        made = torch.stack(before[:-1], dim=1)  # [N, L, D, D]
        kernels = made.mH @ (self.generators[numbers] @ made[..., :columns])  # [N, L, D, R]
        back = bras @ before[-1]  # [N, R, D]
        overlap = back.diagonal(dim1=1, dim2=2).sum(-1)
        phase = overlap.conj() / overlap.abs().clamp(min=1e-12)
        gradient = -(phase[:, None] * torch.einsum("nrd,nldr->nl", back, kernels)).imag
        flat = torch.view_as_real(kernels).flatten(2)  # [N, L, 2 D R]
        mean = kernels[:, :, :columns].diagonal(dim1=2, dim2=3).sum(-1).real
        metric = flat @ flat.mT - mean[:, :, None] * mean[:, None] / columns
        return gradient, metric


def _polynomials(numbers: Ids, table: InstructionTable) -> np.ndarray:
    """Return the coefficients of exp(i t k / 2), k = 0 to 4, of instructions up to a phase: complex128 [G, 5, D, D]."""
    count = 5  # frequencies from -1 to 1 in halves
    ids = np.repeat(numbers[:, None], count, axis=0)
    times = 4 * np.pi * np.arange(count) / count
    angles = np.zeros((*ids.shape, table.pool.num_angles))
    angles[..., :1] = np.tile(times, len(numbers))[:, None, None]
    matrices = unitaries(ids, table, angles).reshape(len(numbers), count, *(2**table.num_qubits,) * 2)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(-2, 3), np.arange(count)) / count)
    parts: np.ndarray = np.einsum("km,gmab->gkab", turns, matrices) / count
    parts[np.abs(parts) < 1e-14] = 0
    for row in range(len(parts)):  # a phase that makes the lowest frequency 0, so that fewer are used in all
        lowest = int(np.flatnonzero(np.abs(parts[row]).max(axis=(1, 2)))[0])
        parts[row] = np.roll(parts[row], -lowest, axis=0)
    return parts


@lru_cache(maxsize=16)
def _rotations(table: InstructionTable) -> _Rotations:
    return _Rotations(table)
