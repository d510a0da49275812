"""Makes shards of labelled candidate circuits, each a pure function of (configuration, shard number).

`generation` calls it on workers; any worker on any machine makes the same shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantum_diffusion.circuits.instructions import Ids, gate_count
from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.base import Labels
from quantum_diffusion.tasks.registry import TASKS


@dataclass(frozen=True, eq=False)
class Shard:
    """Distinct labelled circuits in the order they were drawn.

    Attributes:
        ids: int16 [M, T], instruction ids of the whole gate pool.
        labels: uint32 [M]; the task defines the meaning of their bits.
    """

    ids: Ids
    labels: Labels


def make_shard(config: DatasetConfig, number: int) -> Shard:
    """Draw, simplify, de-duplicate and label one shard of candidates.

    Args:
        config: The data set's configuration.
        number: Index of the shard, from 0; together with the seed it determines the result.
    """
    ids, labels = TASKS[config.condition_type].draw(config, numpy_generator(config.seed, "shard", number))
    long_enough = gate_count(ids) >= config.min_gates
    ids, labels = ids[long_enough], labels[long_enough]
    first = np.sort(np.unique(row_keys(ids), return_index=True)[1])
    return Shard(ids[first], labels[first])
