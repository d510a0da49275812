"""Verified circuits on demand: sample until enough distinct ones have exactly the Schmidt rank vector asked for.

Only circuits that simulation confirms are returned; how many samples that took is reported with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.labels import srv_prompt
from quantum_diffusion.config.schema import SampleConfig
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.files import check_can_write, new_folder
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.samples import parse_srv_prompt


@dataclass(frozen=True)
class FoundCircuits:
    """What a search gave.

    Attributes:
        circuits: Distinct verified circuits, fewest gates first.
        num_sampled: Circuits sampled.
        num_exact: Samples that had the Schmidt rank vector asked for.
        num_too_long: Exact samples that were dropped for having more than `max_gates` gates.
    """

    circuits: list[Circuit]
    num_sampled: int
    num_exact: int
    num_too_long: int


def find_circuits(config: SampleConfig, progress: Callable[[int, int], None] | None = None) -> FoundCircuits:
    """Sample until `num_circuits` distinct circuits are verified or `max_tries` samples are spent.

    Args:
        config: What to look for.
        progress: Called with (circuits found, circuits wanted).

    Raises:
        ConfigError: The vector cannot be reached, or a sampling option is not for this model.
        CheckpointError: The model cannot be loaded, or `save_folder` is in use.
    """
    if config.save_folder is not None:
        if Path(config.save_folder).exists():
            raise CheckpointError(f"{config.save_folder!r} exists: choose another sample.save_folder")
        check_can_write(Path(config.save_folder), CheckpointError)
    pipeline = load_pipeline(Path(config.model_dir), select_device(config.device), config.model_params.weights)
    prompt = srv_prompt(list(config.srv))
    parse_srv_prompt(prompt, pipeline.config.num_qubits)
    if prompt not in pipeline.config.prompts:
        known = {len(known.split(",")) for known in pipeline.config.prompts}
        raise ConfigError(
            f"sample.srv={list(config.srv)} was not among the {len(pipeline.config.prompts)} prompts of training "
            f"(circuits of {', '.join(map(str, sorted(known)))} qubits): ask for one of those, or train on it"
        )
    found: dict[Circuit, None] = {}
    sampled = exact = too_long = 0
    while len(found) < config.num_circuits and sampled < config.max_tries:
        wanted = 2 * (config.num_circuits - len(found)) + 6
        count = min(wanted, config.max_tries - sampled)
        samples = pipeline.sample([prompt] * count, config.seed, config.model_params, first_sample=sampled)
        fits = samples.matches & (samples.gate_counts <= (config.max_gates or pipeline.config.max_gates))
        found |= dict.fromkeys(samples.circuits(fits.nonzero()[0]))
        sampled, exact = sampled + count, exact + int(samples.matches.sum())
        too_long += int((samples.matches & ~fits).sum())
        if progress:
            progress(min(len(found), config.num_circuits), config.num_circuits)
    chosen = list(found)[: config.num_circuits]
    return FoundCircuits(sorted(chosen, key=len), sampled, exact, too_long)


def write_circuits(circuits: Sequence[Circuit], config: SampleConfig) -> None:
    """Write circuits as `00001.qasm`, ... into the new folder `save_folder`.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    assert config.save_folder is not None
    with new_folder(Path(config.save_folder), CheckpointError) as staging:
        for number, circuit in enumerate(circuits, start=1):
            text = f"// {srv_prompt(list(config.srv))}: verified by simulation\n{circuit.to_qasm2()}"
            (staging / f"{number:05d}.qasm").write_text(text, encoding="utf-8")
