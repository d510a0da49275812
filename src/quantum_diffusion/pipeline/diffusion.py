"""The pipeline: a task, a diffusion process and a backbone combined into one trainable sampler.

It turns batches into a loss and requests into verified circuits, without knowing which task and process it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantum_diffusion.arguments import check_kind, check_texts
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, instruction_table
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport
from quantum_diffusion.config.schema import GaussianParams, LoopConfig, MaskedParams, SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.device import answers_at_once
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError, memory_for
from quantum_diffusion.models.condition_encoder import PromptEncoder
from quantum_diffusion.models.gates_left import UNKNOWN
from quantum_diffusion.models.policy import InstructionPolicy
from quantum_diffusion.models.prompt_features import FrozenPromptEncoder, PromptFeatures
from quantum_diffusion.pipeline.adapter import ProcessAdapter, Rows, batches
from quantum_diffusion.pipeline.build import PipelineConfig, build_network
from quantum_diffusion.pipeline.cells import CellsAdapter
from quantum_diffusion.pipeline.condition import Condition, Request, check_guided, request_of, with_negative
from quantum_diffusion.pipeline.decoding import AngleGrid, DeviceDecoder
from quantum_diffusion.pipeline.editing import Edit, EditPlan, plan_edit
from quantum_diffusion.pipeline.fit import FitResult, fit
from quantum_diffusion.pipeline.guided import Guided, Reader
from quantum_diffusion.pipeline.sequence import SequenceAdapter
from quantum_diffusion.pipeline.state import LossTerms, TrainingState
from quantum_diffusion.pipeline.workers import sample_on_workers
from quantum_diffusion.seeding import derive_seed, sample_seeds
from quantum_diffusion.tasks.base import Task
from quantum_diffusion.tasks.left_to_do import LEFT_TO_DO, LeftToDo, known_gates
from quantum_diffusion.tasks.prefix_labels import PREFIX_LABELS
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.samples import Requests, SampledCircuits
from quantum_diffusion.tasks.targets import TargetTask

ADAPTERS: dict[type, type[ProcessAdapter]] = {MaskedParams: SequenceAdapter, GaussianParams: CellsAdapter}
"""Adapter of each class of `scheduler.params`."""


class DiffusionPipeline:
    """A conditional diffusion model of circuits.

    Args:
        config: The architecture.
        seed: Seed of the initial weights.

    Raises:
        ConfigError: Sizes of the model are incompatible, or a prompt has unknown words.

    Attributes:
        task: The task it was trained for, or an extension of it; see `extended`.
        network: All weights: the backbone, the encoders and the (fixed) gate embedding.
        adapter: The diffusion process, over the gate embedding of the network.
    """

    def __init__(self, config: PipelineConfig, seed: int = 0) -> None:
        self.config = config
        self.task: Task = TASKS[config.condition_type]
        self.gate_pool = GatePool(config.gate_pool)
        self.table = instruction_table(self.gate_pool, config.num_qubits)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "weights"))  # unlike torch's, leaves GPUs alone
            self.network = build_network(config, len(self.table), self.gate_pool.vocabulary_size)
        self._decoder = DeviceDecoder(self.table)
        self._on_grid = AngleGrid(self.table)
        self._left = self._left_to_do()
        self.check_sampling(SamplingConfig())

    def extended(self, task: Task) -> DiffusionPipeline:
        """Return the same model, with shared weights, for an extension of its task, which then judges its circuits.

        Raises:
            ConfigError: The task is none for what the model was trained on.
        """
        if task.name != self.task.name:
            raise ConfigError(
                f"the task {type(task).__name__} is for {task.asked}, but the model for {self.task.asked}: give an "
                "extension of the task that the model was trained for"
            )
        other = copy(self)
        other.task = task
        return other

    @cached_property
    def _prompt_words(self) -> Tensor:
        """The model's own prompts as its condition encoder reads them, int64 [P, S]."""
        return self._read(self.config.prompts)

    def _read(self, prompts: Sequence[str]) -> Tensor:
        encoder = self.network["condition_encoder"]
        assert isinstance(encoder, PromptEncoder | FrozenPromptEncoder)
        return encoder.read(prompts)

    @property
    def prompt_features(self) -> PromptFeatures | None:
        """What a frozen text encoder made of prompts; None where the words of prompts are learned."""
        encoder = self.network["condition_encoder"]
        return encoder.features if isinstance(encoder, FrozenPromptEncoder) else None

    def check_prompts(self) -> None:
        """Make sure that all prompts of the model can be encoded, before anything is trained.

        Raises:
            ConfigError: CLIP is needed for one, and cannot be loaded.
        """
        _ = self._prompt_words

    def _left_to_do(self) -> LeftToDo | None:
        encoder = getattr(self.config, self.task.step_encoder)
        make = None if encoder is None else LEFT_TO_DO[self.task.name].get(encoder.type)
        return None if make is None else make(self.table)

    @cached_property
    def _targets_of(self) -> Callable[[Tensor, Tensor | None], Tensor | None]:
        """Computes targets for training circuits that come without, such as those of a stream."""
        if self.task.array is None:
            return lambda ids, angles: None
        make = next(iter(LEFT_TO_DO[self.task.name].values()))
        return (self._left or make(self.table)).targets_of

    @property
    def writes_from_ends(self) -> bool:
        """Whether circuits can be written from both ends, because steps see only the remaining target."""
        is_policy = isinstance(self.network["backbone"], InstructionPolicy)
        return is_policy and self._left is not None and self._left.has_two_ends and self.process.ends_at_no_gate

    @cached_property
    def _inverse(self) -> Tensor:
        inverse = torch.from_numpy(self.table.inverse.astype(np.int64))
        inverse[NO_GATE] = NO_GATE
        return inverse

    @cached_property
    def _prefix_labels(self) -> Callable[[Tensor], Tensor]:
        return PREFIX_LABELS[self.task.name](self.table)

    @property
    def network(self) -> nn.ModuleDict:
        """The weights; may be replaced by another network of the same architecture."""
        return self._network

    @network.setter
    def network(self, network: nn.ModuleDict) -> None:
        self._network = network
        self.adapter = ADAPTERS[type(self.config.scheduler.params)](self.config, self.table, network)

    @property
    def process(self) -> Any:
        """The diffusion process itself, without its adapter."""
        return self.adapter.process

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
        """Number of trainable parameters of the whole network."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def time_multiple(self) -> int:
        """T of every batch must be a multiple of this."""
        return int(getattr(self.network["backbone"], "time_multiple", 1))

    # ---------------------------------------------------------------------------------------- condition

    @property
    def num_conditions(self) -> int:
        """Number of parts of a request that can be dropped independently: the prompt and, if any, the target."""
        return 1 if self.task.encoder is None else 2

    def encode_condition(self, request: Request, dropped: Tensor) -> Condition:
        """Encode requests: prompts, each distinct one once, followed by targets; dropped parts are zeros.

        Args:
            request: B rows.
            dropped: bool [B, num_conditions], parts to replace by the unconditional input.
        """
        encoder = self.network["condition_encoder"]
        assert isinstance(encoder, PromptEncoder | FrozenPromptEncoder)
        prompts, index = request.prompts, request.index
        # Decided by shapes only: looking up the prompts in use would wait for the device.
        tokens = encoder(prompts)[index] if len(prompts) <= len(index) else encoder(prompts[index])
        null = encoder.null_condition(*tokens.shape[:2])
        tokens = torch.where(dropped[:, 0, None, None], null, tokens)
        if request.targets is None or self.task.encoder is None:
            return Condition(tokens, None, request.num_gates)
        shown = torch.where(dropped[:, 1, None, None, None], 0.0, request.targets)
        encoded: Tensor = self.network[self.task.encoder](shown if self._left is None else self._left.at_start(shown))
        if encoded.dim() == 2:
            encoded = encoded[:, None]
        return Condition(torch.cat([tokens, encoded], dim=1), shown, request.num_gates)

    def _draw_dropped(self, count: int, share: float, jointly: bool, noise: Noise) -> Tensor:
        """Draw which parts of conditions are dropped, bool [count, num_conditions]."""
        shape = (count, self.num_conditions)
        if share == 0:
            return torch.zeros(shape, dtype=torch.bool, device=noise.device)
        drawn = noise.uniform(count, 1 if jointly else self.num_conditions) < share
        return drawn.expand(shape)

    def _predict(
        self, circuits: Tensor, level: Tensor, condition: Condition, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the backbone's prediction and its prefix head's, None without one.

        Steps that do not count, bool [B, T], are skipped on CPUs; counting them on a GPU would wait for it.
        """
        backbone = self.network["backbone"]
        if not self.config.shows_remaining:
            output = backbone(circuits, level, condition.tokens)
        elif counts is not None and answers_at_once(circuits.device) and isinstance(backbone, InstructionPolicy):
            return backbone.at(counts, condition.tokens, self._shown(circuits, level, condition, counts)), None
        else:
            output = backbone(circuits, level, condition.tokens, self._shown(circuits, level, condition))
        return output if isinstance(output, tuple) else (output, None)

    def _shown(self, ids: Tensor, rank: Tensor, condition: Condition, chosen: Tensor | None = None) -> Tensor:
        """Encode the conditions of steps: the remaining target and, if requested, the number of gates left.

        Args:
            ids: int64 [B, T].
            rank: int64 [B, T].
            condition: B rows.
            chosen: bool [B, T], N of the steps; None takes all.

        Returns:
            [B, T, E], or [N, E].
        """
        assert self._left is not None
        left = self._left.for_steps(condition.targets, ids, rank)
        shown: Tensor = self.network[self.task.step_encoder](left if chosen is None else left[chosen])
        if condition.num_gates is None:
            return shown
        told: Tensor = self.network["gates_left"](condition.num_gates, known_gates(ids, rank))
        return shown + (told if chosen is None else told[chosen])

    # ----------------------------------------------------------------------------------------- training

    def decode(self, tokens: Tensor) -> Tensor:
        """Decode cell tokens [B, Q, T] on their device to instructions, int64 [B, T]; 0 stands for no gate."""
        return self._decoder(tokens)

    def training_loss(
        self,
        batch: Batch,
        noise: Noise,
        *,
        condition_dropout: float = 0.0,
        tell_gates: float = 0.0,
        joint_dropout: bool = False,
        low_variance: bool = True,
        prefix_weight: float = 0.0,
    ) -> LossTerms:
        """Compute the loss of a batch.

        Args:
            batch: Circuits, on the pipeline's device.
            noise: Source of all randomness of the step, on the pipeline's device.
            condition_dropout: Fraction of prompts (and of targets) to drop.
            tell_gates: Fraction of circuits whose number of gates is a condition, for models that support it.
            joint_dropout: Drop prompt and target together instead of independently.
            low_variance: Spread noise levels evenly over the batch (Gaussian processes).
            prefix_weight: Weight of the auxiliary head's loss.
        """
        self._prompt_words = self._prompt_words.to(batch.prompt_ids.device)  # moves only in the first step

        @cache
        def ids() -> Tensor:
            found = self.decode(batch.tokens) if batch.ids is None else batch.ids.long()
            if batch.angles is None:
                return found
            return self._on_grid(found, batch.angles, noise.uniform(len(batch), batch.angles[0].numel()))

        num_gates = None
        if self.config.tells_gates:
            is_told = noise.uniform(len(batch)) < tell_gates
            num_gates = torch.where(is_told, (ids() != NO_GATE).sum(dim=1), UNKNOWN)
        targets = self._targets_of(ids(), batch.angles) if batch.targets is None else batch.targets
        request = Request(self._prompt_words, batch.prompt_ids.long(), targets, num_gates)
        dropped = self._draw_dropped(len(batch), condition_dropout, joint_dropout, noise)
        condition = self.encode_condition(request, dropped)

        prefix_logits: Tensor | None = None

        def denoise(circuits: Tensor, level: Tensor, counts: Tensor | None = None) -> Tensor:
            nonlocal prefix_logits
            prediction, prefix_logits = self._predict(circuits, level, condition, counts)
            return prediction

        found = self.adapter.loss(denoise, batch, ids, noise, low_variance)
        if prefix_logits is None or prefix_weight == 0:
            return LossTerms(found.diffusion, found.diffusion)
        labels = self._prefix_labels(ids()).to(prefix_logits)  # [B, T, Q]
        losses = F.binary_cross_entropy_with_logits(prefix_logits, labels, reduction="none").mean(dim=2)
        # Divided by the expected number, not this batch's: a circuit's loss must not depend on the other circuits.
        prefix = (losses * found.sees_prefix).sum(dim=1).mean() / found.mean_prefixes
        return LossTerms(found.diffusion + prefix_weight * prefix, found.diffusion, prefix)

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
        """Refuse sampling options that this pipeline's process lacks.

        Raises:
            ConfigError: The message names the option.
        """
        self.adapter.check(options)
        if self.resolved(options).order != "surer_end":
            return
        if not self.writes_from_ends:
            raise ConfigError(
                "order=surer_end is for policies for unitaries with scheduler.params.suffix_share=1, and this is a "
                f"{self.config.model.type} for {self.task.asked}: train with scheduler.params.order=left_to_right, or "
                "give model_params.order=left_to_right"
            )
        if options.sample_steps is not None and options.sample_steps < self.config.max_gates:
            raise ConfigError(
                f"model_params.sample_steps={options.sample_steps}, but order=surer_end writes one gate a step: leave "
                "it out, or give model_params.order=left_to_right, too"
            )

    def resolved(self, options: SamplingConfig) -> SamplingConfig:
        """Return the options with unset ones replaced by the model's defaults."""
        own = self.config.scheduler
        defaults = {"scheduler": own.type} | own.params.model_dump(include=set(SamplingConfig.model_fields))
        given = options.model_dump(exclude_none=True)
        return SamplingConfig(**defaults | given | {"sample_steps": self.adapter.sample_steps(options)})

    def requests(
        self,
        prompts: Sequence[str],
        targets: Sequence[Any] | None = None,
        *,
        negative_prompts: Sequence[str] | None = None,
        negative_targets: Sequence[Any] | None = None,
    ) -> Requests:
        """Check prompts and targets and turn them into requests for `sample`.

        Args:
            prompts: N prompts such as "Generate SRV: [1, 2, 2]" or "Compile using: ['h', 'cx']".
            targets: N unitaries, complex [d, d] with d = 2**q for at most the pipeline's qubits, or N states, complex
                [d]; None for models of Schmidt rank vectors.
            negative_prompts: N prompts that guidance leads away from; None leads away from no prompt.
            negative_targets: N targets that guidance leads away from; None leads away from no target.

        Raises:
            ConfigError: A prompt or a target is not for this model.
        """
        asked = self.task.requests(check_texts(prompts, "prompts", f"{[self.config.prompts[0]]}"), targets, self.table)
        if negative_prompts is None and negative_targets is None:
            return asked
        others = prompts if negative_prompts is None else check_texts(negative_prompts, "negative_prompts", "[prompt]")
        other = self.task.requests(others, targets if negative_targets is None else negative_targets, self.table)
        return with_negative(asked, other, negative_prompts is not None, negative_targets is not None)

    def sample(
        self,
        requests: Requests | Sequence[str],
        seed: int,
        options: SamplingConfig | None = None,
        *,
        edit: Edit | None = None,
        first_sample: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> SampledCircuits:
        """Sample one circuit per request, decode it, and verify it by simulation.

        A sample depends only on the weights, its request, the seed and its index, not on its batch.

        Args:
            requests: From `requests`; or N prompts, for tasks without targets.
            seed: Seed of the run.
            options: How to sample; None uses the model's defaults.
            edit: Constraints on the circuits; None sets none.
            first_sample: Index of the first sample.
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            ConfigError: The model cannot satisfy a request or an edit, or an option is not for its process.
        """
        asked = requests if isinstance(requests, Requests) else self.requests(requests)
        hint = "e.g. SamplingConfig(guidance_scale=2)"
        options = SamplingConfig() if options is None else check_kind(options, SamplingConfig, "options", hint)
        check_guided(asked, self.resolved(options))
        if options.n_jobs != 1 and len(asked) > 1:
            return sample_on_workers(self, asked, seed, options, edit, first_sample, progress)
        edit = Edit() if edit is None else check_kind(edit, Edit, "edit")
        plan = plan_edit(edit, self.table, self.config.max_gates)
        report = self._sample(asked, seed, options, plan, first_sample, progress)
        return self.task.verify(asked, report, self.table, self._refined(asked, report, plan))

    def _refined(self, asked: Requests, report: DecodeReport, plan: EditPlan) -> Angles | None:
        """Return the refined angles of decoded samples; None for gates without angles. Those of kept gates stay."""
        if not self.gate_pool.num_angles or asked.targets is None:
            return None
        kept = np.broadcast_to(plan.kept[:, None], (*report.ids.shape, self.gate_pool.num_angles))
        angles = np.where(kept, plan.angles, self.table.angles[report.ids])
        assert isinstance(self.task, TargetTask)
        return self.task.refine(report.ids, angles, asked.targets, self.table, fixed=kept, device=self.device)[0]

    @torch.inference_mode()
    def reader(self, requests: Requests, options: SamplingConfig) -> Reader:
        """Return a predictor of the steps of circuits that the caller writes, one per request (masked models).

        Args:
            requests: From `requests`.
            options: How to sample; only the guidance is used.
        """
        self.check_sampling(options)
        self.network.eval()
        check_guided(requests, self.resolved(options))
        request = self._request(requests).take(np.arange(len(requests)), self.device)
        return self._guided(request, self.resolved(options).guidance_scale or 0.0).reader(self.config.max_gates)

    @torch.inference_mode()
    def _sample(
        self,
        asked: Requests,
        seed: int,
        options: SamplingConfig,
        plan: EditPlan,
        first_sample: int,
        progress: Callable[[int, int], None] | None,
    ) -> DecodeReport:
        """Sample and decode one circuit per request; see `sample`."""
        self.check_sampling(options)
        options = self.resolved(options)
        rows = Rows(asked.num_qubits, asked.allowed & plan.allowed, sample_seeds(seed, len(asked), first_sample))
        plan.check_samples(rows.allowed, self.table)
        request = self._request(asked, plan.num_gates)
        ids = np.zeros((len(asked), self.config.max_gates), dtype=np.int16)
        reasons = np.empty(len(asked), dtype=object)
        done = 0
        self.network.eval()
        for batch in batches(self.adapter.shapes(rows, plan), options.auto_batch_size):
            with memory_for(
                f"sampling {len(batch)} circuits at once on {self.device}",
                "lower model_params.auto_batch_size (while training: training.training.num_sampled)",
            ):
                guided = self._guided(request.take(batch, self.device), options.guidance_scale or 0.0)
                report = self.adapter.sample(guided, rows.take(batch), options, plan, self.device)
            steps = min(report.ids.shape[1], self.config.max_gates)
            ids[batch, :steps] = report.ids[:, :steps]
            reasons[batch] = report.reasons
            done += len(batch)
            if progress:
                progress(done, len(asked))
        return DecodeReport(ids, reasons == VALID, tuple(reasons))

    def _request(self, asked: Requests, num_gates: int | None = None) -> Request:
        return request_of(asked, self._read, self.config.tells_gates, num_gates)

    def _guided(self, request: Request, scale: float) -> Guided:
        """Return the network with its request and, unless the guidance scale is 1, what guidance leads away from."""
        other, dropped = request.other_side(self.num_conditions)
        condition = self.encode_condition(request, torch.zeros_like(dropped))
        if scale != 1:
            condition = condition + self.encode_condition(other, dropped)
        shows = self.config.shows_remaining
        return Guided(
            predict=self._predict,
            backbone=self.network["backbone"],
            condition=condition,
            is_guided=scale != 1,
            encoder=self.network[self.task.step_encoder] if shows else None,
            left=self._left if shows else None,
            gates_left=self.network["gates_left"] if self.config.tells_gates else None,
            inverse=self._inverse.to(self.device) if self.writes_from_ends else None,
        )
