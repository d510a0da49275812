"""Masked diffusion in a pipeline: a circuit is a sequence of instructions, so that every sample is a circuit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport
from quantum_diffusion.config.schema import MaskedParams, SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.diffusion.masked import MaskedDiffusion
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
        self.process = MaskedDiffusion(params.suffix_share, params.order)

    def loss(
        self, denoise: Denoise, batch: Batch, ids: Callable[[], Tensor], noise: Noise, low_variance: bool
    ) -> ProcessLoss:
        """Mask the circuits of a batch and score the instructions predicted; see `ProcessAdapter.loss`."""
        circuits = ids()
        rank = self.process.draw_rank(len(circuits), circuits.shape[1], noise)
        return ProcessLoss(
            diffusion=self.process.loss(denoise, circuits, rank).mean(),
            # A prefix's label can be told only by a token that sees the whole prefix.
            sees_prefix=rank.cummax(dim=1).values == rank,
            mean_prefixes=self.process.mean_prefixes(rank.shape[1]),
        )

    def sample_steps(self, options: SamplingConfig) -> int:
        """Return the denoising steps that sampling makes, at most one a time step."""
        return min(super().sample_steps(options), self.config.max_gates)

    def shapes(self, rows: Rows, plan: EditPlan) -> NDArray[np.int64]:
        """Return the model's own shape for every sample: the model decides where a circuit ends."""
        return np.tile(np.array([self.config.num_qubits, self.config.max_gates]), (len(rows), 1))

    def sample(
        self, guided: Guided, rows: Rows, options: SamplingConfig, plan: EditPlan, device: torch.device
    ) -> DecodeReport:
        """Reveal circuits step by step; see `ProcessAdapter.sample`."""
        assert options.guidance_scale is not None, "options are decided"
        per_step = plan.step_allowances(rows.allowed)
        start = np.repeat(plan.ids[None].astype(np.int64), len(rows), axis=0)
        ids = self.process.sample(
            guided.reader(self.config.max_gates),
            self.config.max_gates,
            rows.generators(),
            torch.from_numpy(per_step).to(device),
            guidance_scale=options.guidance_scale,
            guidance_growth=options.guidance_growth or 0.0,
            temperature=1.0 if options.temperature is None else options.temperature,
            top_p=1.0 if options.top_p is None else options.top_p,
            sample_steps=self.sample_steps(options),
            order=options.order,
            start=torch.from_numpy(start).to(device),
            known=torch.from_numpy(plan.known_steps(per_step, rows.seeds)).to(device),
        )
        return DecodeReport(ids.cpu().numpy().astype(np.int16), np.ones(len(ids), dtype=np.bool_), (VALID,) * len(ids))
