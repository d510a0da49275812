"""Measures how often a first sample has the requested Schmidt rank vector, without and with a given number of gates.

    python benchmarks/srv_accuracy.py [MODEL [REQUESTS [GUIDANCE [GROWTH]]]]

MODEL is a folder or pretrained:NAME. For each number of qubits there are REQUESTS requests, spread evenly over all
vectors: first without a number of gates, then as many for exactly n gates (edit.min_gates and max_gates). n is spread
evenly over the lengths of at least 0.5 % of the training circuits of that size that suffice for the vector.
"""

import sys
import time

import numpy as np
import torch

from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.evaluation.metrics import circuit_keys, wilson_interval
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.tasks.samples import SampledCircuits


def report(name: str, qubits: int, parts: list[SampledCircuits], pipeline: DiffusionPipeline, seconds: float) -> None:
    """Print one row of the table."""
    exact = np.concatenate([part.matches for part in parts])
    keys = np.concatenate([circuit_keys(part.ids, pipeline.table, part.num_qubits) for part in parts])
    gates = np.concatenate([part.gate_counts for part in parts])
    low, high = wilson_interval(int(exact.sum()), len(exact))
    print(
        f"| {qubits} | {name} | {len(exact)} | {exact.mean():.2%} ({low:.1%} to {high:.1%}) "
        f"| {len(np.unique(keys)) / len(keys):.1%} | {gates.mean():.1f} | {seconds:.0f} |",
        flush=True,
    )


def main() -> None:
    model, *numbers = [*sys.argv[1:], "pretrained:srv"][: max(1, len(sys.argv) - 1)]
    count = int(numbers[0]) if numbers else 2000
    options = SamplingConfig(
        guidance_scale=float(numbers[1]) if len(numbers) > 1 else None,
        guidance_growth=float(numbers[2]) if len(numbers) > 2 else None,
    )
    torch.set_num_threads(1)
    pipeline = load_pipeline(model)
    used = pipeline.resolved(options)
    print(f"guidance {used.guidance_scale:g}, growing over {used.guidance_growth:g} gates\n")
    print("| qubits | asked for | requests | exact | distinct | gates | seconds |\n|---:|---|---:|---|---:|---:|---:|")
    for qubits, lengths in sorted((int(q), counts) for q, counts in pipeline.config.length_counts.items()):
        prompts = [prompt for prompt in pipeline.config.prompts if prompt.count(",") == qubits - 1]
        asked = [prompts[number % len(prompts)] for number in range(count)]
        started = time.perf_counter()
        parts = [pipeline.sample(asked, 0, options)]
        report("free", qubits, parts, pipeline, time.perf_counter() - started)
        usual = sorted(int(n) for n, seen in lengths.items() if seen >= sum(lengths.values()) / 200)
        by_length: dict[int, list[str]] = {}
        rounds = -(-count // len(prompts))
        for number, prompt in enumerate(asked):
            enough = [n for n in usual if n >= prompt.count("2")]
            place = (number // len(prompts) + 0.5) * len(enough) / rounds
            by_length.setdefault(enough[int(place)], []).append(prompt)
        started = time.perf_counter()
        parts = [
            pipeline.sample(chosen, 0, options, edit=Edit(min_gates=n, max_gates=n)) for n, chosen in by_length.items()
        ]
        report(f"exactly {min(by_length)} to {max(by_length)}", qubits, parts, pipeline, time.perf_counter() - started)


if __name__ == "__main__":
    main()
