"""The gates of an instruction table as rotations, on the device: their matrices at any angle, and their slopes.

Refinement of angles and training on circuits with angles use it. Only code that works on the device loads this module:
it needs torch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.simulate import unitaries


class Rotations:
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
        simple = instruction_table(GatePool(names), table.num_qubits)
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
        self._parts_of = torch.from_numpy(self.of_instruction)
        self._angle_of = torch.from_numpy(self.angle)
        self._single = self.parts.to(torch.complex64)

    def to(self, device: torch.device) -> Rotations:
        """Return the rotations with their tensors on a device."""
        if self.parts.device == device:
            return self
        moved = object.__new__(Rotations)
        vars(moved).update(
            {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        )
        return moved

    def in_order(self, ids: Ids, angles: Angles) -> tuple[NDArray[np.int64], Angles]:
        """Return the rotations of circuits in order, int64 [N, L], and their angles, float64 [N, L]; L = T * F."""
        numbers = self.of_instruction[ids].reshape(len(ids), -1)
        return numbers, np.take_along_axis(angles, self.angle[ids], axis=2).reshape(numbers.shape)

    def back(self, ids: Ids, angles: Angles, values: NDArray[np.float64]) -> Angles:
        """Return the angles [N, T, A] of circuits whose rotations have the given angles [N, L]; see `in_order`."""
        result, moved = angles.copy(), values.reshape(*ids.shape, -1)
        for number in range(angles.shape[2]):
            takes = (self.angle[ids] == number) & self.has_angle[ids]
            rows, steps = np.nonzero(takes.any(axis=2))
            result[rows, steps, number] = moved[rows, steps, takes[rows, steps].argmax(axis=1)]
        return result

    def of_ids(self, ids: Tensor, angles: Tensor) -> Tensor:
        """Return the rotations of circuits in single precision, complex64 [B, L, D, D].

        Args:
            ids: int64 [B, T].
            angles: float32 [B, T, A].
        """
        numbers = self._parts_of[ids].flatten(1)
        return self.gates(numbers, angles.gather(2, self._angle_of[ids]).view(numbers.shape))

    def gates(self, numbers: Tensor, angles: Tensor) -> Tensor:
        """Return the matrices of rotations, complex [N, L, D, D], in the precision of the angles [N, L]."""
        turning = angles[..., None] * self.frequencies.to(angles.dtype)
        turns = torch.polar(torch.ones_like(turning), turning)  # [N, L, P]
        parts = (self.parts if angles.dtype == torch.float64 else self._single)[numbers]
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

    def energy(self, numbers: Tensor, angles: Tensor, hamiltonian: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energies of circuits' states, float64 [N], and their gradients, [N, L]; see `slope`."""
        whole, kernels = self._moves(numbers, angles, 1)
        state = whole[:, :, :1]
        energies = (state.mH @ (hamiltonian @ state))[:, 0, 0].real
        back = (hamiltonian @ state).mH @ whole  # [N, 1, D]
        return energies, -2 * torch.einsum("nrd,nldr->nl", back, kernels).imag

    def excess(self, numbers: Tensor, angles: Tensor, excess: Tensor) -> Tensor:
        """Return <v|A|v>, float64 [N], of circuits' states v and a positive semidefinite matrix A, [D, D]."""
        gates = self.gates(numbers, angles)
        state = gates[:, 0, :, :1]
        for step in range(1, gates.shape[1]):
            state = gates[:, step] @ state
        return (state.mH @ (excess @ state))[:, 0, 0].real

    def excess_slope(self, numbers: Tensor, angles: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
        """Return half the descent of the excess, float64 [N, L], and its Gauss-Newton matrix, [N, L, L].

        The excess is the squared length of A^(1/2) v, which is zero where v has the lowest energy.
        """
        whole, kernels = self._moves(numbers, angles, 1)
        turned = whole.mH @ (excess @ whole)  # [N, D, D]
        moves = kernels[..., 0]
        metric = (moves.conj() @ (moves @ turned.mT).mT).real
        return (moves @ turned[:, 0, :, None])[..., 0].imag, metric

    def slope(self, numbers: Tensor, angles: Tensor, bras: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of the overlap, float64 [N, L], and the metric [N, L, L].

        With L the product of the rotations up to a step, dV/dt = i V K and K = L^dagger A L.
        """
        columns = bras.shape[1]
        whole, kernels = self._moves(numbers, angles, columns)
        back = bras @ whole  # [N, R, D]
        overlap = back.diagonal(dim1=1, dim2=2).sum(-1)
        phase = overlap.conj() / overlap.abs().clamp(min=1e-12)
        gradient = -(phase[:, None] * torch.einsum("nrd,nldr->nl", back, kernels)).imag
        flat = torch.view_as_real(kernels).flatten(2)  # [N, L, 2 D R]
        mean = kernels[:, :, :columns].diagonal(dim1=2, dim2=3).sum(-1).real
        metric = flat @ flat.mT - mean[:, :, None] * mean[:, None] / columns
        return gradient, metric

    def _moves(self, numbers: Tensor, angles: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Return the circuits' V, complex128 [N, D, D], and the first columns of the K of `slope`, [N, L, D, R]."""
        gates = self.gates(numbers, angles)
        before = [self.identity.expand(len(numbers), -1, -1)]
        for step in range(gates.shape[1]):
            before.append(gates[:, step] @ before[-1])
        made = torch.stack(before[:-1], dim=1)  # [N, L, D, D]
        return before[-1], made.mH @ (self.generators[numbers] @ made[..., :columns])


def _polynomials(numbers: Ids, table: InstructionTable) -> NDArray[np.complex128]:
    """Return the coefficients of exp(i t k / 2), k = 0 to 4, of instructions up to a phase: complex128 [G, 5, D, D]."""
    count = 5  # frequencies from -1 to 1 in halves
    ids = np.repeat(numbers[:, None], count, axis=0)
    times = 4 * np.pi * np.arange(count) / count
    angles = np.zeros((*ids.shape, table.pool.num_angles))
    angles[..., :1] = np.tile(times, len(numbers))[:, None, None]
    matrices = unitaries(ids, table, angles).reshape(len(numbers), count, *(2**table.num_qubits,) * 2)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(-2, 3), np.arange(count)) / count)
    parts: NDArray[np.complex128] = np.einsum("km,gmab->gkab", turns, matrices) / count
    parts[np.abs(parts) < 1e-14] = 0
    for row in range(len(parts)):  # a phase that makes the lowest frequency 0, so that fewer are used in all
        lowest = int(np.flatnonzero(np.abs(parts[row]).max(axis=(1, 2)))[0])
        parts[row] = np.roll(parts[row], -lowest, axis=0)
    return parts


@lru_cache(maxsize=16)
def rotations_of(table: InstructionTable) -> Rotations:
    """Return the (cached) rotations of a table, on the CPU."""
    return Rotations(table)
