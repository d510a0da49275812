"""Axes of a chart: the position of each value, and round tick labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes:
        low: The value at `start`.
        high: The value at `end`.
        start: Where the axis begins, in units of the picture.
        end: Where it ends, in the same units.
        logarithmic: Whether the scale is logarithmic.
        ticks: (position, label) of each tick.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool
    ticks: tuple[tuple[float, str], ...] = ()

    @classmethod
    def over(
        cls,
        values: Sequence[float],
        start: float,
        end: float,
        *,
        padded: bool = False,
        logarithmic: bool = False,
        ticks: Sequence[tuple[float, str]] = (),
    ) -> Axis:
        """Return an axis that covers the values.

        Args:
            values: One or more finite numbers.
            start: Where the axis begins.
            end: Where it ends.
            padded: Whether to leave some room above the largest value, and below the smallest unless it is 0.
            logarithmic: Use a logarithmic scale; for positive values only.
            ticks: (value, label); empty chooses round numbers.
        """
        low, high = min(values), max(values)
        if logarithmic:
            low, high = low / 1.2, high * 1.2
        elif padded:
            room = 0.06 * (high - low)
            low, high = low - (room if low else 0.0), high + room
        if not high - low > 1e-12 * max(abs(high), abs(low)):  # all values equal
            room = abs(high) / 10 or 1.0
            low, high = low - room, high + room
        axis = cls(low, high, start, end, logarithmic)
        chosen = ticks or [(value, number(value)) for value in (_decades if logarithmic else round_numbers)(low, high)]
        return cls(low, high, start, end, logarithmic, tuple((axis.place(value), label) for value, label in chosen))

    @classmethod
    def share(cls, start: float, end: float) -> Axis:
        """Return an axis from 0 to 100 %, with some room at the top."""
        axis = cls(0.0, 1.06, start, end, False)
        places = tuple((axis.place(share), f"{100 * share:.0f} %") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
        return cls(0.0, 1.06, start, end, False, places)

    def place(self, value: float) -> float:
        """Return the position of a value, clamped to the axis."""
        low, high, value = (
            (math.log(end) for end in (self.low, self.high, max(value, self.low)))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.start + part * (self.end - self.start)


def round_numbers(low: float, high: float, about: int = 5) -> list[float]:
    """Return some round numbers between two values.

    Example:
        >>> round_numbers(0.13, 1.4)
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{count * step:.12g}") for count in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low <= value <= high]


def number(value: float, digits: int = 3) -> str:
    """Format a number compactly.

    Example:
        >>> number(0.5), number(1500), number(125000), number(2e-7)
        ('0.5', '1,500', '125,000', '2e-07')
    """
    if value == round(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 100 else f"{value:.{digits}g}"
