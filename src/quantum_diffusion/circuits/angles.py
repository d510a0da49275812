"""Writes angles for people: multiples of pi where they are, else a few digits."""

from __future__ import annotations

import math
from fractions import Fraction

_DENOMINATORS = 16
_EXACT = 1e-9


def angle_in_words(angle: float) -> str:
    """Return an angle in radians as a multiple of pi with a denominator of at most 16, else with three digits.

    Example:
        >>> [angle_in_words(angle) for angle in (0, math.pi / 2, 11 * math.pi / 8, 1.2345)]
        ['0', 'π/2', '11π/8', '1.23']
    """
    turns = Fraction(angle / math.pi).limit_denominator(_DENOMINATORS)
    if abs(float(turns) * math.pi - angle) > _EXACT:
        return f"{angle:.3g}"
    if not turns:
        return "0"
    above = {1: "", -1: "-"}.get(turns.numerator, str(turns.numerator))
    return f"{above}π" + (f"/{turns.denominator}" if turns.denominator > 1 else "")
