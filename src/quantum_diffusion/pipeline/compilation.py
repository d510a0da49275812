"""The second pipeline: circuits for a given unitary and a choice of gates.

It shares everything with the first but what is asked for, and how the answer is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.arguments import check_kind, check_list, check_texts
from quantum_diffusion.circuits.instructions import NO_GATE
from quantum_diffusion.circuits.prompts import parse_gates_prompt
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.config.schema import MatrixParams, SamplingConfig
from quantum_diffusion.errors import ConfigError, counted, first_line
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.diffusion import Condition, DiffusionPipeline, Request
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.pipeline.samples import CompiledSamples, verify_unitaries
from quantum_diffusion.pipeline.search import Compilation, search_circuits

UNITARY_TOLERANCE = 1e-5
"""Largest entry of U^dagger U - 1 of a matrix that counts as unitary; float32 data sets reach 1e-6."""

Matrix = NDArray[np.complex128]


class CompilationDiffusionPipeline(DiffusionPipeline):
    """A diffusion model of circuits conditioned on a unitary and the gates that may be used.

    Args:
        config: The architecture, with a `unitary_encoder`.
        seed: Seed of the initial weights.

    Raises:
        ConfigError: See `DiffusionPipeline`.
    """

    num_conditions = 2
    """The prompt and the unitary."""

    def __init__(self, config: PipelineConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        assert config.unitary_encoder is not None
        params = config.unitary_encoder.params
        self._shows_remaining = isinstance(params, MatrixParams) and params.remaining
        if self._shows_remaining:  # of 10 qubits they take gigabytes
            one_gate = np.arange(len(self.table) + 1, dtype=np.int16)[:, None]
            gates = unitaries(one_gate, self.table).astype(np.complex64)
            self._gate_unitaries = torch.from_numpy(gates)  # [K + 1, D, D]

    def encode_condition(self, request: Request, dropped: Tensor) -> Condition:
        """Encode prompts and unitaries side by side; a dropped unitary is one of zeros. See `DiffusionPipeline`."""
        prompt = super().encode_condition(request, dropped)
        assert request.unitaries is not None
        shown = torch.where(dropped[:, 1, None, None, None], 0.0, request.unitaries)
        encoded: Tensor = self.network["unitary_encoder"](shown)
        if encoded.dim() == 2:
            encoded = encoded[:, None]
        return Condition(torch.cat([prompt.tokens, encoded], dim=1), shown)

    def _predict(self, x_t: Tensor, level: Tensor, condition: Condition) -> tuple[Tensor, Tensor | None]:
        if not self._shows_remaining:
            return super()._predict(x_t, level, condition)
        assert condition.unitaries is not None
        self._gate_unitaries = self._gate_unitaries.to(x_t.device)
        left = remaining_unitaries(condition.unitaries, x_t, level, self._gate_unitaries)
        steps = self.network["unitary_encoder"](left)  # [B, T, E]
        prediction: tuple[Tensor, Tensor | None] = self.network["backbone"](x_t, level, condition.tokens, steps)
        return prediction

    def sample(  # type: ignore[override]  # a target more than the base class's
        self,
        prompts: Sequence[str],
        targets: Sequence[NDArray[Any]] | NDArray[Any],
        seed: int,
        options: SamplingConfig | None = None,
        *,
        edit: Edit | None = None,
        first_sample: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> CompiledSamples:
        """Sample one circuit a target, decode it, and compare it with the target by simulation.

        Args:
            prompts: N prompts such as "Compile using: ['h', 'cx']".
            targets: N unitaries, complex [d, d] each, d = 2**q for at most the pipeline's qubits.
            seed: Seed of the run.
            options: How to sample; None takes the model's defaults.
            edit: What sampling may not choose freely; None leaves all of it free.
            first_sample: Index of the first sample.
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            ConfigError: A prompt, a target or an edit is not for this model, or an option is not for this process.
        """
        prompts = check_texts(prompts, "prompts", "[\"Compile using: ['h', 'cx']\"]")
        targets = check_list(targets, "targets", "[unitary]")
        if len(prompts) != len(targets):
            raise ConfigError(
                f"given {counted(len(prompts), 'prompt')} for {counted(len(targets), 'target')}: give each target its "
                "prompt"
            )
        checked = [self.check_target(target) for target in targets]
        side = 2**self.config.num_qubits
        padded = np.array([matrix for matrix, _ in checked], dtype=np.complex128).reshape(-1, side, side)
        widths = np.array([num_qubits for _, num_qubits in checked], dtype=np.int64)
        return self.sample_padded(
            prompts, padded, widths, seed, options, edit=edit, first_sample=first_sample, progress=progress
        )

    def sample_padded(
        self,
        prompts: Sequence[str],
        targets: Matrix,
        widths: NDArray[np.int64],
        seed: int,
        options: SamplingConfig | None = None,
        *,
        edit: Edit | None = None,
        first_sample: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> CompiledSamples:
        """Do as `sample` with targets that were checked and padded before, as those of many samples each should be.

        Args:
            prompts: N prompts.
            targets: complex128 [N, D, D], D = 2**Q of the pipeline, as `check_target` pads them; may be a broadcast
                view.
            widths: int64 [N], qubits of each target before.
            seed: See `sample`, as for the rest.
            options: How to sample.
            edit: What may not be chosen freely.
            first_sample: Index of the first sample.
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            ConfigError: A prompt or an edit is not for this model, or an option is not for this process.
        """
        request = Request(self._tokenize(prompts), torch.from_numpy(as_two_channels(targets)))
        allowed = self._on_qubits(widths) & self._of_gates(prompts)
        report = self._sample(request, widths, allowed, seed, options, edit, first_sample, progress)
        return verify_unitaries(prompts, targets, widths, report, self.table)

    def compile_unitary(
        self,
        target: NDArray[Any],
        *,
        gates: Sequence[str] | None = None,
        max_gates: int | None = None,
        max_tries: int = 1024,
        num_circuits: int = 1,
        seed: int = 0,
        options: SamplingConfig | None = None,
        edit: Edit | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Compilation:
        """Sample until enough distinct circuits are exactly the target, up to a global phase.

        Every circuit is simplified and simulated in its final form. `evaluation.targets.target_unitary` makes a target
        from a circuit, a file or a name.

        Args:
            target: Unitary, complex [d, d], d = 2**q for at most the pipeline's qubits; little-endian.
            gates: Gates that circuits may use; None allows all of the model's that fit the target.
            max_gates: Longer circuits are dropped, counted after they are simplified; None keeps all.
            max_tries: Most circuits to sample.
            num_circuits: Distinct circuits wanted; the search ends when they are found.
            seed: Seed of the samples.
            options: How to sample; None takes the model's defaults.
            edit: What sampling may not choose freely; with gates to keep or a least number of them, circuits are not
                simplified. None leaves all of it free.
            progress: Called with (circuits sampled, `max_tries`).

        Raises:
            ConfigError: The target is no unitary of the model's qubits, a number is out of range, or an option or an
                edit is not for this model.
            GateSetError: A gate is unknown, none of the model's, or wider than the target.
        """
        if edit is not None:
            check_kind(edit, Edit, "edit")
        return search_circuits(self, target, gates, max_gates, max_tries, num_circuits, seed, options, edit, progress)

    def _of_gates(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Instructions of the gates that each prompt allows, bool [N, K+1]; "no gate" always is."""
        chosen = {prompt: self._instructions_of(parse_gates_prompt(prompt, self.gate_pool)) for prompt in set(prompts)}
        return np.stack([chosen[prompt] for prompt in prompts])

    def _instructions_of(self, gates: Sequence[str]) -> NDArray[np.bool_]:
        numbers = [self.gate_pool.names.index(gate) for gate in gates]
        allowed: NDArray[np.bool_] = np.isin(self.table.gate_index, [*numbers, self.table.gate_index[NO_GATE]])
        return allowed

    def check_target(self, target: NDArray[Any]) -> tuple[Matrix, int]:
        """Return a target unitary padded to the pipeline's qubits, complex128 [D, D], and how many qubits it has.

        Raises:
            ConfigError: It is no unitary, or has more qubits than the model.
        """
        num_qubits = qubits_of_unitary(target)
        if num_qubits > self.config.num_qubits:
            raise ConfigError(
                f"the target has {num_qubits} qubits, but the model writes circuits of at most "
                f"{self.config.num_qubits}: give a smaller target, or train on more qubits"
            )
        return pad_unitary(np.asarray(target), self.config.num_qubits), num_qubits


def make_pipeline(config: PipelineConfig, seed: int = 0) -> DiffusionPipeline:
    """Build the pipeline that a configuration describes; see `DiffusionPipeline`."""
    return (DiffusionPipeline if config.unitary_encoder is None else CompilationDiffusionPipeline)(config, seed)


def remaining_unitaries(targets: Tensor, ids: Tensor, rank: Tensor, gate_unitaries: Tensor) -> Tensor:
    """Return what each step would have to do if the gates known before it are taken off the target.

    Step i knows the steps of smaller rank; those of them that make an unbroken beginning, of unitary V, and an unbroken
    end, of unitary W, leave W^dagger U V^dagger.

    Args:
        targets: float32 [B, 2, D, D].
        ids: int64 [B, T], instructions; those of steps that are not revealed are never looked at.
        rank: int64 [B, T], when each step is revealed; T for steps that are not.
        gate_unitaries: complex64 [K + 1, D, D], of each instruction.

    Returns:
        float32 [B, T, 2, D, D].
    """
    earlier = rank[:, None, :] < rank[:, :, None]  # [B, T, T]: row i may look at column j
    adjoints = gate_unitaries[ids].mH  # [B, T, D, D]
    begun = torch.complex(targets[:, 0], targets[:, 1])
    ended = torch.eye(begun.shape[-1], dtype=begun.dtype, device=begun.device).expand_as(begun)
    beginnings, ends = [begun], [ended]
    for step in range(ids.shape[1] - 1):
        beginnings.append(beginnings[-1] @ adjoints[:, step])
        ends.append(adjoints[:, -1 - step] @ ends[-1])
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    # The length of the known beginning and end of each step, [B, T].
    from_start, from_end = (known.cumprod(dim=2).sum(dim=2) for known in (earlier, earlier.flip(2)))
    left = torch.stack(ends, dim=1)[rows, from_end] @ torch.stack(beginnings, dim=1)[rows, from_start]
    return torch.view_as_real(left).movedim(-1, 2)


def qubits_of_unitary(matrix: NDArray[Any]) -> int:
    """Return the number of qubits of a unitary.

    Raises:
        ConfigError: The array is no matrix of that kind: its shape, its numbers or its columns are wrong.
    """
    try:
        array = np.asarray(matrix)
    except (TypeError, ValueError) as problem:  # rows of several lengths, a tensor on a GPU
        raise ConfigError(f"the target is no array ({first_line(problem)}): give a complex matrix") from None
    if array.dtype.kind not in "biufc":
        raise ConfigError(
            f"the target holds {array.dtype}, not numbers: give a complex matrix; evaluation.targets.target_unitary "
            "makes one of a name, a file or a circuit"
        )
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < 2 or array.shape[0].bit_count() != 1:
        raise ConfigError(f"the target has shape {array.shape}: give a square matrix of 2, 4, 8, ... rows")
    if not np.isfinite(array).all():
        raise ConfigError("the target has entries that are not finite: give a unitary matrix")
    with np.errstate(over="ignore", invalid="ignore"):  # huge entries give inf or nan, which are no small error
        error = np.abs(array.conj().T @ array.astype(np.complex128) - np.eye(len(array))).max()
    if not error <= UNITARY_TOLERANCE:
        is_rounded = error < 0.1
        nearest = ", e.g. the nearest one, scipy.linalg.polar(matrix.astype(complex))[0]" if is_rounded else ""
        raise ConfigError(
            f"the target is not unitary: U^dagger U differs from the identity by {error:.2g}, at most "
            f"{UNITARY_TOLERANCE:g} is allowed; give a unitary matrix{nearest}"
        )
    return int(array.shape[0]).bit_length() - 1


def pad_unitary(matrix: NDArray[Any], num_qubits: int) -> Matrix:
    """Extend unitaries to more qubits, on which they do nothing: the identity's tensor product with each.

    Args:
        matrix: Complex [..., d, d] with d = 2**q; qubit 0 is the lowest bit of the basis index.
        num_qubits: At least q.

    Returns:
        complex128 [..., D, D] with D = 2**num_qubits.
    """
    padded: Matrix = np.kron(np.eye(2**num_qubits // matrix.shape[-1]), matrix).astype(np.complex128)
    return padded


def as_two_channels(matrices: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Complex [..., D, D] => real and imaginary parts float32 [..., 2, D, D]."""
    return np.stack([matrices.real, matrices.imag], axis=-3, dtype=np.float32, casting="same_kind")


def from_two_channels(parts: NDArray[np.floating]) -> Matrix:
    """Real and imaginary parts [..., 2, D, D] => complex128 [..., D, D]."""
    real, imaginary = np.moveaxis(np.asarray(parts, dtype=np.float64), -3, 0)
    whole: Matrix = real + 1j * imaginary
    return whole
