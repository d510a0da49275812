"""The figures of an evaluation, each a pure function of the sampled circuits and what they are compared with.

"Exact" means that the sample is a valid circuit whose simulated Schmidt rank vector equals the requested one, entry by
entry. Every sample counts, without selection. A circuit without gates is valid, but never exact or novel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import (
    NO_GATE,
    Angles,
    Ids,
    InstructionTable,
    gate_count,
    instruction_table,
)
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.tokenizer import VALID, decode_tokens
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.srv import SrvSamples, exact_matches


@dataclass(frozen=True, kw_only=True)
class SampledFigures:
    """Figures that every evaluation reports about its samples.

    Attributes:
        valid_rate: Share of valid circuits, including empty ones.
        reasons: How often each kind of invalid sample occurred ("valid" included).
        guidance_scale: Guidance used.
        steps: Denoising steps used.
        scheduler: Sampler used.
        order: Order of unmasking (masked models); None otherwise.
        seed: Seed of the samples.
        seconds: Time for sampling and verification.
    """

    valid_rate: float
    reasons: dict[str, int]
    guidance_scale: float
    steps: int
    scheduler: str
    order: str | None
    seed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics(SampledFigures):
    """The content of `metrics.json` for a model of Schmidt rank vectors; all rates are shares of the samples in [0, 1].

    Attributes:
        num_samples: Circuits sampled, spread evenly over the prompts.
        empty_rate: Share of circuits without gates.
        srv_accuracy: Share of exact circuits.
        srv_accuracy_interval: 95 % Wilson interval of `srv_accuracy`.
        srv_accuracy_novel: Exact share among the samples that are neither empty nor in the data set; None if there are
            none.
        srv_accuracy_by_entangled: Exact share by the requested number of entangled qubits.
        srv_accuracy_by_prompt: Exact share by prompt.
        baseline_shuffled_accuracy: Exact share of the same circuits against shuffled prompts: the accuracy of a model
            that ignores the prompt.
        baseline_random_accuracy: Exact share of random circuits with lengths drawn from the data set.
        distinct_rate: Share of distinct circuits (by normal form) among the valid ones.
        novel_rate: Share of the distinct valid, non-empty circuits whose normal form is not in the data set.
        on_training_data: Whether the model was trained on this data set; if not, "novel" does not refer to the data
            that the model has seen. None if the model does not record it.
        exact_distinct_rate: Share of distinct circuits among the exact ones.
        mean_gates: Mean number of gates of the valid circuits.
        gate_count_by_gate: Mean number of each gate in a valid circuit.
    """

    num_samples: int
    empty_rate: float
    srv_accuracy: float
    srv_accuracy_interval: tuple[float, float]
    srv_accuracy_novel: float | None
    srv_accuracy_by_entangled: dict[str, float]
    srv_accuracy_by_prompt: dict[str, float]
    baseline_shuffled_accuracy: float
    baseline_random_accuracy: float
    distinct_rate: float
    novel_rate: float
    on_training_data: bool | None
    exact_distinct_rate: float
    mean_gates: float
    gate_count_by_gate: dict[str, float]


def sampled_figures(
    pipeline: DiffusionPipeline, config: EvaluationConfig, reasons: Mapping[str, int], seconds: float
) -> dict[str, Any]:
    """Return the values of `SampledFigures`.

    Args:
        pipeline: The model.
        config: How it was sampled.
        reasons: How often each kind of sample occurred, "valid" included.
        seconds: Time it took.
    """
    used = pipeline.resolved(config.model_params)
    return {
        "valid_rate": reasons.get(VALID, 0) / max(sum(reasons.values()), 1),
        "reasons": dict(reasons),
        "guidance_scale": used.guidance_scale,
        "steps": used.sample_steps,
        "scheduler": used.scheduler,
        "order": used.order,
        "seed": config.seed,
        "seconds": seconds,
    }


def wilson_interval(successes: float, trials: float, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval of a rate.

    Args:
        successes: Number of successes; need not be an integer.
        trials: Number of trials; 0 gives (0, 1).
        z: Normal quantile, 1.96 for 95 %.

    Reference:
        Wilson, J. Am. Stat. Assoc. 22, 209 (1927).

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(95, 100)]
        [0.888, 0.978]
    """
    if trials == 0:
        return 0.0, 1.0
    rate, spread = successes / trials, z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z * np.sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def accuracy_by_entangled(samples: SrvSamples) -> dict[str, float]:
    """Return the exact share by the requested number of entangled qubits, keys "0", "2", "3", ..."""
    entangled = (samples.wanted == 2).sum(axis=1)
    return {str(number): float(samples.matches[entangled == number].mean()) for number in np.unique(entangled)}


def accuracy_by_prompt(samples: SrvSamples) -> dict[str, float]:
    """Return the exact share by prompt, in order of first use."""
    prompts = np.array(samples.prompts)
    return {prompt: float(samples.matches[prompts == prompt].mean()) for prompt in dict.fromkeys(samples.prompts)}


def shuffled_accuracy(samples: SrvSamples, seed: int, repeats: int = 20) -> float:
    """Return the exact share of the same circuits against shuffled prompts, averaged over shuffles."""
    rng = numpy_generator(seed, "shuffled baseline")
    shares = [
        exact_matches(samples.ids, samples.ranks, samples.wanted[rng.permutation(len(samples))]).mean()
        for _ in range(repeats)
    ]
    return float(np.mean(shares))


def random_accuracy(samples: SrvSamples, dataset: CircuitDataset, seed: int) -> float:
    """Return the exact share of random circuits for the same prompts.

    Gates are uniform over the whole pool and all qubits. Lengths are drawn from the data set's circuits with the same
    number of qubits.
    """
    rng = numpy_generator(seed, "random baseline")
    matches = 0
    for width in np.unique(samples.num_qubits):
        rows = np.flatnonzero(samples.num_qubits == width)
        table = instruction_table(dataset.gate_pool, int(width))
        ids = random_ids(rng, table, len(rows), dataset.max_gates, dataset.max_gates)
        lengths = rng.choice(dataset.sizes[dataset.sizes[:, 0] == width, 1], len(rows))
        ids[np.arange(dataset.max_gates) >= lengths[:, None]] = NO_GATE
        ranks = schmidt_rank_vectors(ids, table)
        matches += int(exact_matches(ids, ranks, samples.wanted[rows, :width]).sum())
    return matches / len(samples)


def circuit_keys(
    ids: Ids, table: InstructionTable, widths: NDArray[np.integer], angles: Angles | None = None
) -> NDArray[np.void]:
    """Return one key per circuit, equal for circuits with the same normal form and number of qubits.

    Args:
        ids: int16 [N, T].
        table: The instructions that the ids index.
        widths: [N], qubits of each circuit.
        angles: float64 [N, T, A], compared to 1e-6; None for gates without angles.
    """
    return _as_keys(_forms(ids, table, angles), widths)


def _forms(ids: Ids, table: InstructionTable, angles: Angles | None) -> NDArray[np.int16]:
    """Return the normal forms of circuits, int16 [N, T, 1 + 2 A]: the gate of each step, and its rounded angles."""
    if angles is None:
        return normal_form(ids, table)[..., None]
    ids, angles = merge_rotations(ids, angles, table)
    rounded = np.rint(angles * _ANGLE_STEPS).astype(np.int32).view(np.int16)
    return np.concatenate([table.first[ids][..., None], rounded], axis=2)


_ANGLE_STEPS = 1e6
"""Steps of a radian, to which angles are compared."""


def _as_keys(forms: NDArray[np.int16], widths: NDArray[np.integer]) -> NDArray[np.void]:
    rows = forms.reshape(len(forms), -1)
    whole = np.ascontiguousarray(np.concatenate([widths[:, None], rows], axis=1).astype(np.int16))
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1])))[:, 0]


def dataset_keys(dataset: CircuitDataset, num_qubits: int, num_steps: int) -> NDArray[np.void]:
    """Return the `circuit_keys` of a data set's circuits, comparable with those of samples of a different shape.

    Args:
        dataset: Circuits of at most `num_qubits` qubits.
        num_qubits: Q of the samples, which determines the instruction ids.
        num_steps: T of the samples; circuits with a longer normal form are left out, since no sample can equal them.
    """
    steps = max(num_steps, dataset.max_gates)
    tokens = np.full((len(dataset), num_qubits, steps), dataset.gate_pool.padding_token, dtype=np.int8)
    tokens[:, : dataset.num_qubits, : dataset.max_gates] = dataset.tokens
    angles = None
    if dataset.angles is not None:
        angles = np.pad(dataset.angles, ((0, 0), (0, steps - dataset.max_gates), (0, 0)))
    ids = decode_tokens(tokens, dataset.gate_pool).ids
    forms = _forms(ids, instruction_table(dataset.gate_pool, num_qubits), angles)
    short = np.count_nonzero(forms[..., 0], axis=1) <= num_steps
    return _as_keys(forms[short, :num_steps], dataset.sizes[short, 0])


def shortest_distinct(keys: NDArray[np.void] | NDArray[np.uint64], gate_counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of distinct circuits, fewest gates first; of circuits with equal keys, the shortest."""
    order = np.argsort(gate_counts, kind="stable")
    _, first = np.unique(keys[order], return_index=True)
    return order[np.sort(first)]


def distinct_rate(keys: NDArray[np.void]) -> float:
    """Return the share of distinct circuits; 0 if there are no circuits."""
    return len(np.unique(keys)) / len(keys) if len(keys) else 0.0


def novel_rate(keys: NDArray[np.void], known: NDArray[np.void]) -> float:
    """Return the share of the distinct circuits that are not known; 0 if there are no circuits."""
    distinct = np.unique(keys)
    return float((~np.isin(distinct, known)).mean()) if len(distinct) else 0.0


def mean_gate_counts(ids: Ids, table: InstructionTable) -> dict[str, float]:
    """Return the mean number of each gate of the pool in a circuit; ids are int16 [N, T]."""
    used = table.gate_index[ids]
    return {name: float((used == index).sum() / max(len(ids), 1)) for index, name in enumerate(table.pool.names)}


def mean_gates(ids: Ids) -> float:
    """Return the mean number of gates of a circuit; 0 if there are no circuits."""
    return float(gate_count(ids).mean()) if len(ids) else 0.0
