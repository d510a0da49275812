"""What circuits must stay below to be of use to a search: it falls as the search finds cheaper ones.

Both kinds of beam leave out partial circuits that cannot become cheaper than those found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import LeastCosts
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count
from quantum_diffusion.search.found import Found

_RELUCTANCE = 0.5
"""Nats that a gate of average cost loses against the cheapest ones. With six times as much, fewer targets are
solved."""


class Bound:
    """The most that circuits may cost.

    Args:
        found: The circuits found.
        table: The instructions of partial circuits.
        most_gates: Maximum number of gates in any case.
        wanted: Number of circuits wanted; None if any exact ones are, and not the cheapest ones.
    """

    def __init__(self, found: Found, table: InstructionTable, most_gates: int, wanted: int | None) -> None:
        self._found = found
        self._most = min(found.most_gates, most_gates)
        self._wanted = wanted
        self._least = LeastCosts(found.objective, table)

    def most_gates(self) -> int:
        """Return the maximum number of gates; where few gates are the objective, below that of the circuits found."""
        dearest = self._dearest() if self._found.objective == "gates" else None
        return self._most if dearest is None else min(self._most, len(dearest) - 1)

    def affordable(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which instructions may extend partial circuits so that they stay cheaper than the circuits found.

        Of equal costs, that of fewer gates is the cheaper one.

        What simplification may save is not foreseen.

        Args:
            ids: int [W, T].

        Returns:
            bool [W, V].
        """
        costs, dearest = self._least(ids), self._dearest()
        if dearest is None:
            return np.ones_like(costs, dtype=np.bool_)
        most = self._found.cost(dearest)
        is_shorter = gate_count(ids)[:, None] + 1 < len(dearest)
        return np.asarray((costs < most) | ((costs == most) & is_shorter))

    @property
    def reluctance(self) -> NDArray[np.float64]:
        """What a gate's cost takes from its log-probability, float64 [V]; nothing where all gates cost the same."""
        return _RELUCTANCE * self._least.excess

    def _dearest(self) -> Circuit | None:
        """Return the dearest of the wanted circuits, None while there are fewer."""
        if self._wanted is None:
            return None
        cheapest = self._found.cheapest(self._wanted)
        return cheapest[-1].circuit if len(cheapest) == self._wanted else None
