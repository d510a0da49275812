"""Shows the effect of negative prompts: samples circuits of `pretrained:srv` with and without them.

Run: python benchmarks/negative.py [COUNT [SEED]]
"""

from __future__ import annotations

import sys

import numpy as np

import quantum_diffusion as qd
from quantum_diffusion.circuits.prompts import srv_prompt

CASES = (([2, 2, 1, 1], ([1, 1, 1, 1], [2, 1, 2, 1])), ([2, 2, 2, 2, 2], ([1, 1, 1, 1, 1], [2, 2, 2, 2, 1])))


def main(count: int = 400, seed: int = 0) -> None:
    """Print the share of exact circuits, mean gates, distinct circuits and the share that negatives leave unchanged."""
    pipeline = qd.load("pretrained:srv").pipeline
    for srv, negatives in CASES:
        prompts = [srv_prompt(srv)] * count
        plain = pipeline.sample(prompts, seed)
        for negative in (None, *negatives):
            others = None if negative is None else [srv_prompt(negative)] * count
            samples = pipeline.sample(pipeline.requests(prompts, negative_prompts=others), seed)
            same = (samples.ids == plain.ids).all(axis=1).mean()
            distinct, gates = len(np.unique(samples.ids, axis=0)), samples.gate_counts.mean()
            exact = samples.matches.mean()
            print(f"{srv}, not {negative}: {exact:.1%} exact, {gates:.2f} gates, {distinct} distinct, {same:.0%} same")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
