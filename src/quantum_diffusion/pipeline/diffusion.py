"""The pipeline: a backbone, a diffusion process and a condition encoder composed into one trainable sampler.

It turns batches into a loss and prompts into verified circuits. Another condition (a unitary, say) overrides
`encode_condition`; no loss, loop or sampler is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Ids, instruction_table
from quantum_diffusion.circuits.labels import prefix_rank_vectors
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, decode_tokens
from quantum_diffusion.config.schema import LoopConfig, SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.diffusion.gaussian import GaussianDiffusion
from quantum_diffusion.diffusion.masked import MaskedDiffusion
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.condition_encoder import PromptEncoder, tokenize_prompts
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.pipeline.build import PipelineConfig, build_network, build_process
from quantum_diffusion.pipeline.samples import SampledCircuits, parse_srv_prompt, verify
from quantum_diffusion.seeding import derive_seed, numpy_generator, sample_seeds

if TYPE_CHECKING:
    from quantum_diffusion.data.dataset import BatchLoader
    from quantum_diffusion.pipeline.fit import FitResult, TrainingState


@dataclass(frozen=True)
class LossTerms:
    """The parts of a training loss, scalars on the device.

    Attributes:
        total: What is minimised.
        diffusion: The process's own loss.
        prefix: The auxiliary head's loss, None without the head.
    """

    total: Tensor
    diffusion: Tensor
    prefix: Tensor | None = None


class DiffusionPipeline:
    """A conditional diffusion model of circuits.

    Args:
        config: The architecture.
        seed: Seed of the initial weights.

    Raises:
        ConfigError: Sizes of the model do not fit together, or a prompt has unknown words.

    Attributes:
        network: All weights: the backbone, the condition encoder and the (fixed) gate embedding.
        process: The diffusion process.
    """

    def __init__(self, config: PipelineConfig, seed: int = 0) -> None:
        self.config = config
        self.gate_pool = GatePool(config.gate_pool)
        self.table = instruction_table(self.gate_pool, config.num_qubits)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "weights"))  # unlike torch's, leaves GPUs alone
            self.network = build_network(config, len(self.table), self.gate_pool.vocabulary_size)
        self.process = build_process(config, self.network)
        self._prompt_words = tokenize_prompts(config.prompts)

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

    def encode_condition(self, words: Tensor) -> Tensor:
        """Encode prompts, each distinct one once: words int64 [B, S] => condition [B, S, E]."""
        distinct, index = torch.unique(words, dim=0, return_inverse=True)
        encoded: Tensor = self.network["condition_encoder"](distinct)
        return encoded[index]

    def _null_condition(self, like: Tensor) -> Tensor:
        encoder = self.network["condition_encoder"]
        assert isinstance(encoder, PromptEncoder)
        return encoder.null_condition(*like.shape[:2])

    def _drop_condition(self, condition: Tensor, share: float, noise: Noise) -> Tensor:
        null = self._null_condition(condition)
        dropped = noise.uniform(len(condition), 1, 1) < share
        return torch.where(dropped.to(condition.device), null, condition)

    # ----------------------------------------------------------------------------------------- training

    def training_loss(
        self,
        batch: Batch,
        noise: Noise,
        *,
        condition_dropout: float = 0.0,
        low_variance: bool = True,
        prefix_weight: float = 0.0,
    ) -> LossTerms:
        """Compute the loss of a batch.

        Args:
            batch: Circuits, on the pipeline's device.
            noise: Source of all randomness of the step, on the pipeline's device.
            condition_dropout: Share of prompts replaced by the null condition.
            low_variance: Spread noise levels evenly over the batch (Gaussian processes).
            prefix_weight: Weight of the auxiliary head's loss.
        """
        words = self._prompt_words.to(batch.prompt_ids.device)[batch.prompt_ids]
        condition = self.encode_condition(words)
        if condition_dropout > 0:
            condition = self._drop_condition(condition, condition_dropout, noise)

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

    def _predict(self, x_t: Tensor, level: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        output = self.network["backbone"](x_t, level, condition)
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
        from quantum_diffusion.pipeline.fit import fit  # the loop stands on the pipeline

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

    def sample(
        self,
        prompts: Sequence[str],
        seed: int,
        options: SamplingConfig | None = None,
        *,
        first_sample: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> SampledCircuits:
        """Sample one circuit a prompt, decode it, and find its true label by simulation.

        A sample depends on (weights, prompt, seed, its index) alone, not on the batch it is drawn in.

        Args:
            prompts: N prompts such as "Generate SRV: [1, 2, 2]".
            seed: Seed of the run.
            options: How to sample; None takes the model's defaults.
            first_sample: Index of the first sample.
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            ConfigError: A prompt asks for what the model cannot make, or an option is not for this process.
        """
        options = options or SamplingConfig()
        self.check_sampling(options)
        labels = [parse_srv_prompt(prompt, self.config.num_qubits) for prompt in prompts]
        # As long as in training: padding words weigh in the condition, so a sample must not depend on its neighbours'.
        words = tokenize_prompts(prompts, min_length=self._prompt_words.shape[1])
        seeds = sample_seeds(seed, len(prompts), first_sample)
        widths = np.array([len(label) for label in labels])
        shapes = self._sample_shapes(widths, seeds)
        ids = np.zeros((len(prompts), self.config.max_gates), dtype=np.int16)
        reasons = np.empty(len(prompts), dtype=object)
        done = 0
        self.network.eval()
        for rows in _batches(shapes, options.auto_batch_size):
            batch = self._sample_batch(words[rows], widths[rows], seeds[rows], shapes[rows[0]], options)
            steps = min(batch.ids.shape[1], self.config.max_gates)
            ids[rows, :steps] = batch.ids[:, :steps]
            reasons[rows] = batch.reasons
            done += len(rows)
            if progress:
                progress(done, len(prompts))
        report = DecodeReport(ids, reasons == VALID, tuple(reasons))
        return verify(prompts, labels, report, self.table)

    def _sample_batch(
        self,
        words: Tensor,
        widths: NDArray[np.int64],
        seeds: NDArray[np.int64],
        shape: NDArray[np.int64],
        options: SamplingConfig,
    ) -> DecodeReport:
        defaults = self.config.scheduler.params
        scale = defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        with torch.inference_mode():
            condition = self.encode_condition(words.to(self.device))
            both = torch.cat([condition, self._null_condition(condition)])

        def denoise(x_t: Tensor, level: Tensor) -> tuple[Tensor, Tensor | None]:
            if scale == 1:
                return self._predict(x_t, level, condition)[0], None
            doubled = level if len(level) == 1 else torch.cat([level, level])
            prediction, _ = self._predict(torch.cat([x_t, x_t]), doubled, both)
            guided, free = prediction.chunk(2)
            return guided, free

        if isinstance(self.process, MaskedDiffusion):
            ids = self.process.sample(
                denoise,
                self.config.max_gates,
                generators,
                torch.from_numpy(self._allowed(widths)).to(self.device),
                guidance_scale=scale,
                sample_steps=self.sample_steps(options),
                order=options.order,
            )
            return DecodeReport(
                ids.cpu().numpy().astype(np.int16), np.ones(len(ids), dtype=np.bool_), (VALID,) * len(ids)
            )
        embedding = self.network["gate_embedding"]
        assert isinstance(embedding, GateEmbedding)
        tokens = self.process.sample(
            denoise,
            (embedding.channels, int(shape[0]), int(shape[1])),
            generators,
            self.device,
            guidance_scale=scale,
            guidance_mode=options.guidance_mode,
            sample_steps=self.sample_steps(options),
            sampler=options.scheduler,
        )
        return self._decode(tokens.cpu().numpy(), widths)

    def _allowed(self, widths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Instructions on the qubits each sample has, bool [N, K+1]."""
        highest = np.where(self.table.uses_qubit, np.arange(1, self.config.num_qubits + 1), 0).max(axis=1)
        allowed: NDArray[np.bool_] = highest[None, :] <= widths[:, None]
        return allowed

    def _sample_shapes(self, widths: NDArray[np.int64], seeds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Qubits and time steps to sample each circuit in, int64 [N, 2].

        Training on batches cut to their circuits never showed a circuit beside wider or longer ones, so such a
        pipeline draws each sample's length as the training circuits of as many qubits have it.
        """
        qubits, steps = np.full(len(widths), self.config.num_qubits), np.full(len(widths), self.config.max_gates)
        if self.config.bucketed:
            qubits = widths
            for row, (width, seed) in enumerate(zip(widths.tolist(), seeds.tolist(), strict=True)):
                counts = self.config.length_counts.get(width, {self.config.max_gates: 1})
                share = np.array(list(counts.values())) / sum(counts.values())
                steps[row] = max(numpy_generator(seed, "length").choice(list(counts), p=share), 1)
        steps = -(-steps // self.time_multiple) * self.time_multiple
        return np.stack([qubits, steps], axis=1)

    def _decode(self, tokens: NDArray[np.int8], widths: NDArray[np.int64]) -> DecodeReport:
        cells = self._widen(tokens)
        report = decode_tokens(cells, self.gate_pool)
        absent = (np.abs(cells.astype(np.int64)) == self.gate_pool.padding_token).all(axis=2)  # [N, Q]
        too_narrow = (absent & (np.arange(cells.shape[1]) < widths[:, None])).any(axis=1)
        too_long = (report.ids[:, self.config.max_gates :] != NO_GATE).any(axis=1)
        outside = (report.ids[:, :, None] != NO_GATE) & self.table.uses_qubit[report.ids]  # [N, T, Q]
        outside &= np.arange(cells.shape[1]) >= widths[:, None, None]
        strays = outside.any(axis=(1, 2)) & report.valid
        reasons = np.array(report.reasons, dtype=object)
        reasons[too_narrow & report.valid] = "fewer qubits than asked for"
        reasons[strays] = "gate on a qubit that was not asked for"
        reasons[too_long & report.valid] = "gate in a padded time step"
        return DecodeReport(report.ids, reasons == VALID, tuple(reasons))


def _batches(shapes: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Rows to sample together: of equal shape, at most `batch_size`."""
    _, group = np.unique(shapes, axis=0, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        rows = np.flatnonzero(group.reshape(-1) == number)
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
