"""Adapter of Gaussian diffusion, where a circuit is a grid of embedded cells that may decode to no valid circuit."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable, compact, gate_count
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, decode_tokens, encode_ids
from quantum_diffusion.config.schema import GaussianParams, GaussianSampler, SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.diffusion.gaussian import GaussianDiffusion
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.pipeline.adapter import Denoise, ProcessAdapter, ProcessLoss, Rows
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.decoding import widen
from quantum_diffusion.pipeline.editing import EditPlan
from quantum_diffusion.pipeline.guided import Guided
from quantum_diffusion.seeding import numpy_generator


class CellsAdapter(ProcessAdapter):
    """Gaussian diffusion over embedded cells; see `ProcessAdapter`."""

    names = get_args(GaussianSampler)
    process: GaussianDiffusion

    def __init__(self, config: PipelineConfig, table: InstructionTable, network: nn.ModuleDict) -> None:
        super().__init__(config, table, network)
        params, embedding = config.scheduler.params, network["gate_embedding"]
        assert isinstance(params, GaussianParams)
        assert isinstance(embedding, GateEmbedding)
        self._channels = embedding.channels
        self._time_multiple = int(getattr(network["backbone"], "time_multiple", 1))
        self.process = GaussianDiffusion(
            embedding,
            objective=config.objective,
            loss=config.loss,
            sampler=config.scheduler.type,
            **params.model_dump(exclude={"guidance_scale", "sample_steps"}),
        )

    def loss(
        self, denoise: Denoise, batch: Batch, ids: Callable[[], Tensor], noise: Noise, low_variance: bool
    ) -> ProcessLoss:
        """Noise the cells of a batch and score the prediction; see `ProcessAdapter.loss`."""
        sees_prefix = torch.ones_like(batch.tokens[:, 0], dtype=torch.bool)
        return ProcessLoss(
            diffusion=self.process.loss(denoise, batch.tokens, noise, low_variance).mean(),
            sees_prefix=sees_prefix,
            mean_prefixes=sees_prefix.shape[1],
        )

    def check(self, options: SamplingConfig) -> None:
        """Refuse sampling options that the process does not have; see `ProcessAdapter.check`."""
        super().check(options)
        for name in ("order", "guidance_growth", "temperature", "top_p"):
            if getattr(options, name) is not None:
                raise ConfigError(f"model_params.{name} is for masked models: this model denoises all steps at once")
        sampler = options.scheduler or self.config.scheduler.type
        if (options.guidance_mode or self.process.guidance_mode) == "cfg++" and sampler != "ddim":
            raise ConfigError(
                f"model_params.scheduler={sampler} cannot guide by cfg++, which is for ddim: give "
                "model_params.guidance_mode=plain as well"
            )
        self.process.make_scheduler(sampler, self.sample_steps(options))

    # -------------------------------------------------------------------------------------- sizes of samples

    def shapes(self, rows: Rows, plan: EditPlan) -> NDArray[np.int64]:
        """Return the qubits and time steps to sample each circuit in, int64 [N, 2]."""
        if self.config.bucketed:
            shapes = np.stack([rows.num_qubits, self._lengths(rows, plan)], axis=1)
        else:
            shapes = np.tile(np.array([self.config.num_qubits, self.config.max_gates]), (len(rows), 1))
        shapes[:, 1] = -(-shapes[:, 1] // self._time_multiple) * self._time_multiple
        return shapes

    def _lengths(self, rows: Rows, plan: EditPlan) -> NDArray[np.int64]:
        """Return the length of each circuit in time steps, int64 [N]; the maximum if the model decides it.

        Training on cropped batches never shows a circuit beside longer ones, so such a pipeline draws each length from
        the training circuits with as many qubits; so does one with a bound on the number of gates. A circuit that is
        only partly redone keeps its length.
        """
        fewest, most = max(plan.min_gates, 1), plan.max_gates
        if plan.strength < 1:
            return np.full(len(rows), np.clip(gate_count(plan.ids[None])[0], fewest, most))
        lengths = np.full(len(rows), self.config.max_gates)
        if self.config.bucketed or plan.bounds_length:
            for row, (width, seed) in enumerate(zip(rows.num_qubits.tolist(), rows.seeds.tolist(), strict=True)):
                trained = self.config.length_counts.get(width, {most: 1})
                counts = {length: count for length, count in trained.items() if fewest <= max(length, 1) <= most}
                counts = counts or dict.fromkeys(range(fewest, most + 1), 1)
                share = np.array(list(counts.values())) / sum(counts.values())
                lengths[row] = max(numpy_generator(seed, "length").choice(list(counts), p=share), 1)
        return lengths

    # ------------------------------------------------------------------------------------------------ sampling

    def sample(
        self, guided: Guided, rows: Rows, options: SamplingConfig, plan: EditPlan, device: torch.device
    ) -> DecodeReport:
        """Denoise circuits and decode them; see `ProcessAdapter.sample`."""
        assert options.guidance_scale is not None, "options are decided"
        qubits, steps = self.shapes(rows.take(np.array([0])), plan)[0].tolist()
        lengths = self._lengths(rows, plan)
        cells = self._start_cells(rows, lengths, (qubits, steps), plan)
        # Decided by the plan, not the cells: known cells use random numbers, whose count must not depend on the batch.
        knows = plan.kept.any() or plan.bounds_length
        known = self._known_cells(rows, lengths, (qubits, steps), plan) if knows else None
        tokens = self.process.sample(
            guided,
            (self._channels, qubits, steps),
            rows.generators(),
            device,
            guidance_scale=options.guidance_scale,
            guidance_mode=options.guidance_mode,
            sample_steps=self.sample_steps(options),
            sampler=options.scheduler,
            start=torch.from_numpy(cells.astype(np.int64)).to(device),
            known=None if known is None else torch.from_numpy(known).to(device),
            strength=plan.strength,
        )
        return self._decode(tokens.cpu().numpy(), rows, plan)

    def _start_cells(
        self, rows: Rows, lengths: NDArray[np.int64], shape: tuple[int, int], plan: EditPlan
    ) -> NDArray[np.int8]:
        """The circuit to edit as cell tokens of each sample's size, int8 [N, q, T]."""
        qubits, steps = shape
        sizes = np.stack([rows.num_qubits, lengths], axis=1).astype(np.int16)
        ids = plan.start_ids(rows.allowed)[:, :steps]
        return encode_ids(ids, self.table, sizes, (self.config.num_qubits, steps))[:, :qubits]

    def _known_cells(
        self, rows: Rows, lengths: NDArray[np.int64], shape: tuple[int, int], plan: EditPlan
    ) -> NDArray[np.bool_]:
        """Cells whose tokens are known before sampling, bool [N, q, T].

        They are those of kept steps and, where the length is bounded, all outside the circuit and on fixed qubits.
        """
        qubits, steps = np.arange(shape[0])[None, :, None], np.arange(shape[1])[None, None, :]
        known = np.zeros((len(rows), *shape), dtype=np.bool_)
        known[:, :, np.flatnonzero(plan.kept)] = True
        if plan.bounds_length:
            known |= plan.fixed[qubits] | (qubits >= rows.num_qubits[:, None, None])
            known |= steps >= lengths[:, None, None]
        return known

    def _decode(self, tokens: NDArray[np.int8], rows: Rows, plan: EditPlan) -> DecodeReport:
        """Decode cells; the report says what is wrong with each invalid sample."""
        cells = widen(tokens, self.table)
        widths = rows.num_qubits[:, None]
        report = decode_tokens(cells, self.table.pool)
        absent = (np.abs(cells.astype(np.int64)) == self.table.pool.padding_token).all(axis=2)  # [N, Q]
        too_narrow = (absent & (np.arange(cells.shape[1]) < widths)).any(axis=1)
        too_long = (report.ids[:, self.config.max_gates :] != NO_GATE).any(axis=1)
        outside = (report.ids[:, :, None] != NO_GATE) & self.table.uses_qubit[report.ids]  # [N, T, Q]
        outside &= np.arange(cells.shape[1]) >= widths[:, None]
        strays = outside.any(axis=(1, 2)) & report.valid
        forbidden = ~np.take_along_axis(rows.allowed, report.ids.astype(np.int64), axis=1).all(axis=1)
        gates = gate_count(report.ids)
        kept = np.flatnonzero(plan.kept)
        moved = (compact(report.ids)[:, kept] != plan.ids[kept]).any(axis=1)
        reasons = np.array(report.reasons, dtype=object)
        reasons[(gates < plan.min_gates) & report.valid] = "fewer gates than asked for"
        reasons[(gates > plan.max_gates) & report.valid] = "more gates than asked for"
        reasons[moved & report.valid] = "empty step before a kept gate"
        reasons[too_narrow & report.valid] = "fewer qubits than asked for"
        reasons[forbidden & report.valid] = "gate that was not allowed"
        reasons[strays] = "gate on a qubit that was not asked for"
        reasons[too_long & report.valid] = "gate in a padded time step"
        return DecodeReport(report.ids, reasons == VALID, tuple(reasons))
