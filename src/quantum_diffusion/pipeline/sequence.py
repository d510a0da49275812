"""Adapter of masked diffusion, where a circuit is a sequence of instructions, so that every sample is valid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport
from quantum_diffusion.config.schema import MaskedParams, SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.diffusion.masked import Draw, MaskedDiffusion
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.adapter import Denoise, ProcessAdapter, ProcessLoss, Rows
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.editing import EditPlan
from quantum_diffusion.pipeline.guided import Guided


class SequenceAdapter(ProcessAdapter):
    """Masked diffusion over instructions; see `ProcessAdapter`."""

    names = ("masked",)
    process: MaskedDiffusion

    def __init__(self, config: PipelineConfig, table: InstructionTable, network: nn.ModuleDict) -> None:
        super().__init__(config, table, network)
        params = config.scheduler.params
        assert isinstance(params, MaskedParams)
        self.process = MaskedDiffusion(params.suffix_share)

    def loss(
        self, denoise: Denoise, batch: Batch, ids: Callable[[], Tensor], noise: Noise, low_variance: bool
    ) -> ProcessLoss:
        """Mask the circuits of a batch and score the instructions predicted; see `ProcessAdapter.loss`."""
        circuits = ids()
        rank = self.process.draw_rank(len(circuits), circuits.shape[1], noise)
        return ProcessLoss(
            diffusion=self.process.loss(denoise, circuits, rank).mean(),
            # Only a token that sees a whole prefix can predict its label.
            sees_prefix=rank.cummax(dim=1).values == rank,
            mean_prefixes=self.process.mean_prefixes(rank.shape[1]),
        )

    def sample_steps(self, options: SamplingConfig) -> int:
        """Return the number of denoising steps of sampling, at most one per time step."""
        return min(super().sample_steps(options), self.config.max_gates)

    def shapes(self, rows: Rows, plan: EditPlan) -> NDArray[np.int64]:
        """Return the model's own shape for every sample: the model decides where a circuit ends."""
        return np.tile(np.array([self.config.num_qubits, self.config.max_gates]), (len(rows), 1))

    def sample(
        self, guided: Guided, rows: Rows, options: SamplingConfig, plan: EditPlan, device: torch.device
    ) -> DecodeReport:
        """Reveal circuits step by step; see `ProcessAdapter.sample`."""
        chosen = options.model_dump(include={field.name for field in fields(Draw)}, exclude_none=True)
        draw, num_steps = Draw(**chosen), self.config.max_gates
        per_step = plan.step_allowances(rows.allowed)
        known = plan.known_steps(per_step, rows.seeds)
        allowed, reader = torch.from_numpy(per_step).to(device), guided.reader(num_steps)
        assert options.order is not None, "options are decided"
        if options.order == "surer_end" and not known.any():
            has_end = reader.can_end(allowed.any(dim=1))
            ids = self.process.sample_from_ends(reader.at_ends, num_steps, rows.generators(), allowed, has_end, draw)
        else:
            start = np.repeat(plan.ids[None].astype(np.int64), len(rows), axis=0)
            ids = self.process.sample(
                reader,
                num_steps,
                rows.generators(),
                allowed,
                draw,
                sample_steps=self.sample_steps(options),
                order="left_to_right" if options.order == "surer_end" else options.order,
                start=torch.from_numpy(start).to(device),
                known=torch.from_numpy(known).to(device),
            )
        return DecodeReport(ids.cpu().numpy().astype(np.int16), np.ones(len(ids), dtype=np.bool_), (VALID,) * len(ids))
