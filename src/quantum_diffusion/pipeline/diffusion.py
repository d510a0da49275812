"""The pipeline: a backbone, a diffusion process and a condition encoder composed into one trainable sampler.

It turns batches into a loss and requests into verified circuits. Another condition (a unitary, see `compilation.py`)
overrides `encode_condition` and the verification; no loss, loop or sampler is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from quantum_diffusion.arguments import check_kind, check_texts
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Ids, compact, gate_count, instruction_table
from quantum_diffusion.circuits.labels import prefix_rank_vectors
from quantum_diffusion.circuits.prompts import parse_srv_prompt, srv_prompt
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, decode_tokens, encode_ids
from quantum_diffusion.config.schema import LoopConfig, SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.diffusion.gaussian import GaussianDiffusion
from quantum_diffusion.diffusion.masked import MaskedDiffusion
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError, memory_for
from quantum_diffusion.models.condition_encoder import PromptEncoder, tokenize_prompts
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.pipeline.build import PipelineConfig, build_network, build_process
from quantum_diffusion.pipeline.editing import Edit, EditPlan, plan_edit
from quantum_diffusion.pipeline.fit import FitResult, fit
from quantum_diffusion.pipeline.samples import SrvSamples, verify_srv
from quantum_diffusion.pipeline.state import LossTerms, TrainingState
from quantum_diffusion.seeding import derive_seed, numpy_generator, sample_seeds


@dataclass(frozen=True, eq=False)
class Request:
    """What circuits are asked for, one row a circuit.

    Attributes:
        words: int64 [B, S], tokenised prompts.
        unitaries: float32 [B, 2, D, D], targets; None for pipelines without.
    """

    words: Tensor
    unitaries: Tensor | None = None

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Request:
        """Return some rows, on a device."""
        chosen = None if self.unitaries is None else self.unitaries[rows].to(device)
        return Request(self.words[rows].to(device), chosen)


@dataclass(frozen=True, eq=False)
class Condition:
    """A request as the backbone sees it.

    Attributes:
        tokens: Float [B, S, E].
        unitaries: float32 [B, 2, D, D], zeros where they were dropped; None for pipelines without.
    """

    tokens: Tensor
    unitaries: Tensor | None = None

    def __add__(self, other: Condition) -> Condition:
        """Join the rows of two conditions."""
        if self.unitaries is None or other.unitaries is None:
            return Condition(torch.cat([self.tokens, other.tokens]))
        return Condition(
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.unitaries, other.unitaries]),
        )


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request with all that is decided for each of its B rows before sampling.

    Attributes:
        request: What is asked for.
        widths: int64 [B], qubits.
        allowed: bool [B, K+1], instructions that may be used.
        seeds: int64 [B].
        lengths: int64 [B], time steps before the circuit's end.
    """

    request: Request
    widths: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    seeds: NDArray[np.int64]
    lengths: NDArray[np.int64]


class DiffusionPipeline:
    """A conditional diffusion model of circuits.

    Args:
        config: The architecture.
        seed: Seed of the initial weights.

    Raises:
        ConfigError: Sizes of the model do not fit together, or a prompt has unknown words.

    Attributes:
        network: All weights: the backbone, the condition encoder and the (fixed) gate embedding.
        process: The diffusion process, over the gate embedding of the network.
    """

    def __init__(self, config: PipelineConfig, seed: int = 0) -> None:
        self.config = config
        self.gate_pool = GatePool(config.gate_pool)
        self.table = instruction_table(self.gate_pool, config.num_qubits)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "weights"))  # unlike torch's, leaves GPUs alone
            self.network = build_network(config, len(self.table), self.gate_pool.vocabulary_size)
        self._prompt_words = tokenize_prompts(config.prompts, config.vocabulary)

    @property
    def network(self) -> nn.ModuleDict:
        """The weights; another network of the same architecture may be put in their place."""
        return self._network

    @network.setter
    def network(self, network: nn.ModuleDict) -> None:
        self._network = network
        self.process = build_process(self.config, network)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> DiffusionPipeline:
        """Move the weights; returns the pipeline itself."""
        self.network.to(device)
        return self

    @property
    def num_parameters(self) -> int:
        """Trainable numbers of the whole network."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def time_multiple(self) -> int:
        """T of every batch must be a multiple of this."""
        return int(getattr(self.network["backbone"], "time_multiple", 1))

    # ---------------------------------------------------------------------------------------- condition

    num_conditions = 1
    """Parts of a request that can be dropped each on its own: the prompt."""

    def encode_condition(self, request: Request, dropped: Tensor) -> Condition:
        """Encode what is asked for; each distinct prompt is encoded once.

        Args:
            request: B rows.
            dropped: bool [B, num_conditions], parts that give way to "nothing asked for".
        """
        encoder = self.network["condition_encoder"]
        assert isinstance(encoder, PromptEncoder)
        distinct, index = torch.unique(request.words, dim=0, return_inverse=True)
        tokens = encoder(distinct)[index]
        null = encoder.null_condition(*tokens.shape[:2])
        return Condition(torch.where(dropped[:, 0, None, None], null, tokens))

    def _draw_dropped(self, count: int, share: float, jointly: bool, noise: Noise) -> Tensor:
        """Draw which parts of conditions are dropped, bool [count, num_conditions]."""
        shape = (count, self.num_conditions)
        if share == 0:
            return torch.zeros(shape, dtype=torch.bool, device=noise.device)
        drawn = noise.uniform(count, 1 if jointly else self.num_conditions) < share
        return drawn.expand(shape)

    # ----------------------------------------------------------------------------------------- training

    def training_loss(
        self,
        batch: Batch,
        noise: Noise,
        *,
        condition_dropout: float = 0.0,
        joint_dropout: bool = False,
        low_variance: bool = True,
        prefix_weight: float = 0.0,
    ) -> LossTerms:
        """Compute the loss of a batch.

        Args:
            batch: Circuits, on the pipeline's device.
            noise: Source of all randomness of the step, on the pipeline's device.
            condition_dropout: Share of prompts (and of unitaries) that are dropped.
            joint_dropout: Drop both or none, instead of each on its own.
            low_variance: Spread noise levels evenly over the batch (Gaussian processes).
            prefix_weight: Weight of the auxiliary head's loss.
        """
        self._prompt_words = self._prompt_words.to(batch.prompt_ids.device)  # moves in the first step alone
        words = self._prompt_words[batch.prompt_ids]
        dropped = self._draw_dropped(len(batch), condition_dropout, joint_dropout, noise)
        condition = self.encode_condition(Request(words, batch.unitaries), dropped)

        prefix_logits: Tensor | None = None

        def denoise(x_t: Tensor, level: Tensor) -> Tensor:
            nonlocal prefix_logits
            prediction, prefix_logits = self._predict(x_t, level, condition)
            return prediction

        if isinstance(self.process, MaskedDiffusion):
            instructions = torch.from_numpy(self._ids(batch.tokens).astype(np.int64)).to(batch.tokens.device)
            rank = self.process.draw_rank(len(instructions), instructions.shape[1], noise)
            diffusion = self.process.loss(denoise, instructions, rank).mean()
            # A prefix's label can be told only by a token that sees the whole prefix.
            sees_prefix = rank.cummax(dim=1).values == rank
            num_prefixes = self.process.mean_prefixes(rank.shape[1])
        else:
            diffusion = self.process.loss(denoise, batch.tokens, noise, low_variance).mean()
            sees_prefix = torch.ones_like(batch.tokens[:, 0], dtype=torch.bool)
            num_prefixes = sees_prefix.shape[1]
        if prefix_logits is None or prefix_weight == 0:
            return LossTerms(diffusion, diffusion)
        ranks = prefix_rank_vectors(self._ids(batch.tokens), self.table)  # [B, T, Q]
        entangled = torch.from_numpy(ranks == 2).to(prefix_logits)
        losses = F.binary_cross_entropy_with_logits(prefix_logits, entangled, reduction="none").mean(dim=2)
        # Divided by their mean number, not by this batch's: a circuit's part must not depend on the other circuits.
        prefix = (losses * sees_prefix).sum(dim=1).mean() / num_prefixes
        return LossTerms(diffusion + prefix_weight * prefix, diffusion, prefix)

    def _predict(self, x_t: Tensor, level: Tensor, condition: Condition) -> tuple[Tensor, Tensor | None]:
        output = self.network["backbone"](x_t, level, condition.tokens)
        return output if isinstance(output, tuple) else (output, None)

    def _ids(self, tokens: Tensor) -> Ids:
        return decode_tokens(self._widen(tokens.cpu().numpy()), self.gate_pool).ids

    def _widen(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """Pad the qubits of tokens [B, q, T] to the pipeline's Q, by which instructions are numbered."""
        missing = ((0, 0), (0, self.config.num_qubits - tokens.shape[1]), (0, 0))
        return np.pad(tokens, missing, constant_values=self.gate_pool.padding_token)

    def fit(
        self,
        train_loader: BatchLoader,
        validation_loader: BatchLoader | None,
        state: TrainingState,
        settings: LoopConfig,
        seed: int,
        **options: Any,
    ) -> FitResult:
        """Train; see `pipeline.fit.fit` for all arguments."""
        return fit(self, train_loader, validation_loader, state, settings, seed, **options)

    # ----------------------------------------------------------------------------------------- sampling

    def check_sampling(self, options: SamplingConfig) -> None:
        """Refuse sampling options that this pipeline's process does not have.

        Raises:
            ConfigError: The message names the option.
        """
        masked = isinstance(self.process, MaskedDiffusion)
        trained, asked = self.config.scheduler.type, options.scheduler
        if asked is not None and masked != (asked == "masked"):
            raise ConfigError(
                f"model_params.scheduler={asked!r} cannot sample a model trained with scheduler.type={trained!r}: "
                f"use {'masked' if masked else 'ddim, ddpm, dpmsolver++ or unipc'}"
            )
        if options.guidance_mode is not None and self.config.loss == "cross_entropy":
            raise ConfigError(
                "model_params.guidance_mode is for models trained with training.loss=mse: this model guides "
                "log-probabilities"
            )
        if not masked and options.order is not None:
            raise ConfigError("model_params.order is for masked models: this model denoises all steps at once")
        if isinstance(self.process, GaussianDiffusion):
            self.process.make_scheduler(asked or trained, self.sample_steps(options))

    def sample_steps(self, options: SamplingConfig) -> int:
        """Denoising steps that `sample` makes; a masked process makes at most one a time step."""
        steps = options.sample_steps or self.config.scheduler.params.sample_steps or self.config.max_gates
        return min(steps, self.config.max_gates) if isinstance(self.process, MaskedDiffusion) else steps

    def resolved(self, options: SamplingConfig) -> SamplingConfig:
        """Return the options with the model's own defaults where they leave one open."""
        own = self.config.scheduler
        defaults = {"scheduler": own.type} | own.params.model_dump(include=set(SamplingConfig.model_fields))
        given = options.model_dump(exclude_none=True)
        return SamplingConfig(**defaults | given | {"sample_steps": self.sample_steps(options)})

    def sample(
        self,
        prompts: Sequence[str],
        seed: int,
        options: SamplingConfig | None = None,
        *,
        edit: Edit | None = None,
        first_sample: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> SrvSamples:
        """Sample one circuit a prompt, decode it, and find its true label by simulation.

        A sample depends on (weights, prompt, seed, its index) alone, not on the batch it is drawn in.

        Args:
            prompts: N prompts such as "Generate SRV: [1, 2, 2]".
            seed: Seed of the run.
            options: How to sample; None takes the model's defaults.
            edit: What sampling may not choose freely; None leaves all of it free.
            first_sample: Index of the first sample.
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            ConfigError: A prompt or an edit asks for what the model cannot make, or an option is not for this process.
        """
        prompts = check_texts(prompts, "prompts", "['Generate SRV: [1, 2, 2]']")
        labels = [parse_srv_prompt(prompt, self.config.num_qubits) for prompt in prompts]
        prompts = [srv_prompt(label) for label in labels]  # whatever spaces they had
        widths = np.array([len(label) for label in labels])
        request = Request(self._tokenize(prompts))
        report = self._sample(request, widths, self._on_qubits(widths), seed, options, edit, first_sample, progress)
        return verify_srv(prompts, labels, report, self.table)

    def _tokenize(self, prompts: Sequence[str]) -> Tensor:
        # As long as in training: padding words weigh in the condition, so a sample must not depend on its neighbours'.
        return tokenize_prompts(prompts, self.config.vocabulary, min_length=self._prompt_words.shape[1])

    def _sample(
        self,
        request: Request,
        widths: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        seed: int,
        options: SamplingConfig | None,
        edit: Edit | None,
        first_sample: int,
        progress: Callable[[int, int], None] | None,
    ) -> DecodeReport:
        """Sample and decode one circuit a row of the request.

        Args:
            request: N rows.
            widths: int64 [N], qubits of each circuit.
            allowed: bool [N, K+1], instructions each may use.
            seed: See `sample`, as for the rest.
            options: How to sample.
            edit: What may not be chosen freely.
            first_sample: Index of the first sample.
            progress: Called with (circuits so far, circuits wanted).
        """
        hint = "e.g. SamplingConfig(guidance_scale=2)"
        options = SamplingConfig() if options is None else check_kind(options, SamplingConfig, "options", hint)
        edit = Edit() if edit is None else check_kind(edit, Edit, "edit")
        self.check_sampling(options)
        options = self.resolved(options)
        plan = plan_edit(edit, self.table, self.config.max_gates)
        allowed = allowed & plan.allowed
        plan.check_samples(allowed, self.table)
        seeds = sample_seeds(seed, len(request), first_sample)
        lengths = self._sample_lengths(widths, seeds, plan)
        shapes = self._sample_shapes(widths, lengths)
        ids = np.zeros((len(request), self.config.max_gates), dtype=np.int16)
        reasons = np.empty(len(request), dtype=object)
        done = 0
        self.network.eval()
        for rows in _batches(shapes, options.auto_batch_size):
            with memory_for(
                f"sampling {len(rows)} circuits at once on {self.device}",
                "lower model_params.auto_batch_size (while training: training.training.num_sampled)",
            ):
                asked = _Asked(request.take(rows, self.device), widths[rows], allowed[rows], seeds[rows], lengths[rows])
                batch = self._sample_batch(asked, shapes[rows[0]], options, plan)
            steps = min(batch.ids.shape[1], self.config.max_gates)
            ids[rows, :steps] = batch.ids[:, :steps]
            reasons[rows] = batch.reasons
            done += len(rows)
            if progress:
                progress(done, len(request))
        return DecodeReport(ids, reasons == VALID, tuple(reasons))

    def _sample_batch(
        self, asked: _Asked, shape: NDArray[np.int64], options: SamplingConfig, plan: EditPlan
    ) -> DecodeReport:
        request = asked.request
        scale = options.guidance_scale
        assert scale is not None, "they are resolved"
        generators = [torch.Generator().manual_seed(int(seed)) for seed in asked.seeds]
        with torch.inference_mode():
            nothing = torch.ones(len(request), self.num_conditions, dtype=torch.bool, device=self.device)
            condition = self.encode_condition(request, ~nothing)
            both = condition + self.encode_condition(request, nothing)

        def denoise(x_t: Tensor, level: Tensor) -> tuple[Tensor, Tensor | None]:
            if scale == 1:
                return self._predict(x_t, level, condition)[0], None
            doubled = level if len(level) == 1 else torch.cat([level, level])
            prediction, _ = self._predict(torch.cat([x_t, x_t]), doubled, both)
            guided, free = prediction.chunk(2)
            return guided, free

        if isinstance(self.process, MaskedDiffusion):
            per_step = plan.step_allowances(asked.allowed)
            start = np.repeat(plan.ids[None].astype(np.int64), len(request), axis=0)
            ids = self.process.sample(
                denoise,
                self.config.max_gates,
                generators,
                torch.from_numpy(per_step).to(self.device),
                guidance_scale=scale,
                sample_steps=self.sample_steps(options),
                order=options.order,
                start=torch.from_numpy(start).to(self.device),
                known=torch.from_numpy(plan.known_steps(per_step, asked.seeds)).to(self.device),
            )
            return DecodeReport(
                ids.cpu().numpy().astype(np.int16), np.ones(len(ids), dtype=np.bool_), (VALID,) * len(ids)
            )
        embedding = self.network["gate_embedding"]
        assert isinstance(embedding, GateEmbedding)
        cells = self._start_cells(asked, shape, plan)
        # By the plan, not by the cells: known ones cost random numbers, whose count must not depend on the batch.
        knows = plan.kept.any() or plan.bounds_length
        known = torch.from_numpy(self._known_cells(asked, shape, plan)).to(self.device) if knows else None
        tokens = self.process.sample(
            denoise,
            (embedding.channels, int(shape[0]), int(shape[1])),
            generators,
            self.device,
            guidance_scale=scale,
            guidance_mode=options.guidance_mode,
            sample_steps=self.sample_steps(options),
            sampler=options.scheduler,
            start=torch.from_numpy(cells.astype(np.int64)).to(self.device),
            known=known,
            strength=plan.strength,
        )
        return self._decode(tokens.cpu().numpy(), asked.widths, asked.allowed, plan)

    def _on_qubits(self, widths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Instructions on the qubits each sample has, bool [N, K+1]."""
        highest = np.where(self.table.uses_qubit, np.arange(1, self.config.num_qubits + 1), 0).max(axis=1)
        allowed: NDArray[np.bool_] = highest[None, :] <= widths[:, None]
        return allowed

    def _sample_lengths(self, widths: NDArray[np.int64], seeds: NDArray[np.int64], plan: EditPlan) -> NDArray[np.int64]:
        """Time steps before the end of each circuit, int64 [N]; the most there can be where the model decides.

        Training on batches cut to their circuits never showed a circuit beside longer ones, so such a pipeline draws
        each sample's length as the training circuits of as many qubits have it; so does one that has to keep to a
        number of gates. A circuit that is changed a little keeps its length.
        """
        fewest, most = max(plan.min_gates, 1), plan.max_gates
        if plan.strength < 1:
            return np.full(len(widths), np.clip(gate_count(plan.ids[None])[0], fewest, most))
        lengths = np.full(len(widths), self.config.max_gates)
        if self.config.bucketed or plan.bounds_length:
            for row, (width, seed) in enumerate(zip(widths.tolist(), seeds.tolist(), strict=True)):
                trained = self.config.length_counts.get(width, {most: 1})
                counts = {length: count for length, count in trained.items() if fewest <= max(length, 1) <= most}
                counts = counts or dict.fromkeys(range(fewest, most + 1), 1)
                share = np.array(list(counts.values())) / sum(counts.values())
                lengths[row] = max(numpy_generator(seed, "length").choice(list(counts), p=share), 1)
        return lengths

    def _sample_shapes(self, widths: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Qubits and time steps to sample each circuit in, int64 [N, 2]."""
        most = np.array([self.config.num_qubits, self.config.max_gates])
        shapes = np.stack([widths, lengths], axis=1) if self.config.bucketed else np.tile(most, (len(widths), 1))
        shapes[:, 1] = -(-shapes[:, 1] // self.time_multiple) * self.time_multiple
        return shapes

    def _start_cells(self, asked: _Asked, shape: NDArray[np.int64], plan: EditPlan) -> NDArray[np.int8]:
        """The circuit to edit as cell tokens of each sample's size, int8 [N, q, T]."""
        qubits, steps = int(shape[0]), int(shape[1])
        sizes = np.stack([asked.widths, asked.lengths], axis=1).astype(np.int16)
        ids = plan.start_ids(asked.allowed)[:, :steps]
        return encode_ids(ids, self.table, sizes, (self.config.num_qubits, steps))[:, :qubits]

    def _known_cells(self, asked: _Asked, shape: NDArray[np.int64], plan: EditPlan) -> NDArray[np.bool_]:
        """Cells whose tokens are known before sampling, bool [N, q, T].

        They are those of kept steps and, where the length is bounded, all outside the circuit and on fixed qubits.
        """
        qubits, steps = np.arange(shape[0])[None, :, None], np.arange(shape[1])[None, None, :]
        known = np.zeros((len(asked.widths), *shape.tolist()), dtype=np.bool_)
        known[:, :, np.flatnonzero(plan.kept)] = True
        if plan.bounds_length:
            known |= plan.fixed[qubits] | (qubits >= asked.widths[:, None, None])
            known |= steps >= asked.lengths[:, None, None]
        return known

    def _decode(
        self, tokens: NDArray[np.int8], widths: NDArray[np.int64], allowed: NDArray[np.bool_], plan: EditPlan
    ) -> DecodeReport:
        cells = self._widen(tokens)
        report = decode_tokens(cells, self.gate_pool)
        absent = (np.abs(cells.astype(np.int64)) == self.gate_pool.padding_token).all(axis=2)  # [N, Q]
        too_narrow = (absent & (np.arange(cells.shape[1]) < widths[:, None])).any(axis=1)
        too_long = (report.ids[:, self.config.max_gates :] != NO_GATE).any(axis=1)
        outside = (report.ids[:, :, None] != NO_GATE) & self.table.uses_qubit[report.ids]  # [N, T, Q]
        outside &= np.arange(cells.shape[1]) >= widths[:, None, None]
        strays = outside.any(axis=(1, 2)) & report.valid
        forbidden = ~np.take_along_axis(allowed, report.ids.astype(np.int64), axis=1).all(axis=1)
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


def _batches(shapes: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Rows to sample together: of equal shape, at most `batch_size`."""
    _, group = np.unique(shapes, axis=0, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        rows = np.flatnonzero(group.reshape(-1) == number)
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
