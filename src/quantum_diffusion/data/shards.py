"""Makes shards of labelled candidate circuits, each a pure function of (configuration, shard number).

`generation` calls it on workers; any worker on any machine makes the same shard.
"""

from __future__ import annotations

import numpy as np

from quantum_diffusion.circuits.instructions import gate_count
from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.base import Candidates
from quantum_diffusion.tasks.registry import TASKS


def make_shard(config: DatasetConfig, number: int) -> Candidates:
    """Draw, simplify, de-duplicate and label one shard of candidates.

    Circuits count as the same if their gates are and their angles have the same nearest ones on the grid.

    Args:
        config: The data set's configuration.
        number: Index of the shard, from 0; together with the seed it determines the result.
    """
    drawn = TASKS[config.condition_type].draw(config, numpy_generator(config.seed, "shard", number))
    drawn = drawn.take(gate_count(drawn.ids) >= config.min_gates)
    return drawn.take(np.sort(np.unique(row_keys(drawn.ids), return_index=True)[1]))
