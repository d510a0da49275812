"""Chooses the models that are asked for a target, and asks them in turn.

`compile` and `prepare` use it. Gates with angles are asked for if they are named, or if others do not make the target.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantum_diffusion.arguments import check_count, check_number
from quantum_diffusion.circuits.gates import GATES, Matrix, have_angles
from quantum_diffusion.circuits.invariants import likely_exact, may_be_exact
from quantum_diffusion.circuits.matrices import EXACT_ANGLES
from quantum_diffusion.errors import (
    ConfigError,
    GateSetError,
    QuantumDiffusionError,
    TooManyQubitsError,
    counted,
)
from quantum_diffusion.pretrained import QUBITS_WITH_ANGLES, model_folders
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.states import target_state
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.targets import TargetTask

READERS: dict[str, Callable[..., Matrix]] = {"compile": target_unitary, "prepare": target_state}
"""The function that reads the target of each command."""

WITHOUT_ANGLES = ("h", "cx", "z", "x", "ccx", "swap")
"""The gates of the pretrained compilers without angles."""

MOST_GATES = 20
"""Maximum number of gates of their circuits."""

_TASKS = {task.command: task for task in TASKS.values() if isinstance(task, TargetTask)}

_BRIEF_TRIES, _BRIEF_SHARE = 64, 0.25
"""Tries, and share of the time, of models that will hardly make the target."""

_PATIENCE = 0.5
"""Share of the time after which models that have found nothing make room for others."""


@dataclass(frozen=True)
class Attempt:
    """Models that are asked for a target.

    Attributes:
        folders: Their folders, those with fewer qubits first.
        is_brief: Whether they will hardly make it, so that little time is spent on them if others follow.
        advice: Added to their refusal; empty if there is nothing to add.
    """

    folders: Sequence[Path]
    is_brief: bool = False
    advice: str = ""


def attempts_for(
    command: str,
    target: object,
    gates: Sequence[str] | None,
    model: str | None = None,
    *,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Sequence[Attempt]:
    """Return the models to ask, in order: one attempt, or two if neither a model nor gates are asked for.

    Args:
        command: "compile" or "prepare".
        target: What `target_unitary` or `target_state` takes; one that cannot be read has one attempt.
        gates: The gates asked for; None asks for none in particular.
        model: See `model_folder`; None takes the pretrained models.
        tolerance: Accepted infidelity.
        seed: Seed of random targets.

    Raises:
        ConfigError: The model is not known; see `model_folders`.
    """
    if model is not None or gates is not None:
        return [Attempt(model_folders(model, command, have_angles(gates)))]
    without = Attempt(model_folders(None, command))
    try:
        array = READERS[command](target, QUBITS_WITH_ANGLES[command], gates=("h", "cx"), seed=seed)
    except TooManyQubitsError:
        return [replace(without, advice=limit_of_angles(command))]
    except QuantumDiffusionError:  # told by the first who reads it
        return [without]
    with_angles = Attempt(model_folders(None, command, with_angles=True))
    num_qubits = len(array).bit_length() - 1
    usable = [gate for gate in WITHOUT_ANGLES if GATES[gate].num_qubits <= num_qubits]
    can = may_be_exact(array, usable, MOST_GATES) and not _TASKS[command].broken_invariants(array, usable)
    if not can and not tolerance:
        return [with_angles]
    return [replace(without, is_brief=not can or not likely_exact(array, usable)), with_angles]


def limit_of_angles(command: str) -> str:
    """Say up to which size of targets the pretrained models of gates with angles are asked, to end a message with."""
    return f"; pretrained models of gates with angles take at most {counted(QUBITS_WITH_ANGLES[command], 'qubit')}"


def ask_in_turn(
    attempts: Sequence[Attempt],
    find: Callable[[Sequence[Path], Mapping[str, Any]], Compilation],
    *,
    max_tries: int,
    max_seconds: float | None,
    tolerance: float,
) -> Compilation:
    """Search with one model after the other until a circuit is good, and return the best result.

    Without a tolerance, a circuit is good below `EXACT_ANGLES`: small angles must not be taken for none.

    Args:
        attempts: See `attempts_for`.
        find: Searches with the first of some models that fits, given their folders and the limits of `find_exact`:
            `max_tries`, `max_seconds` and `give_up`.
        max_tries: Limit of all searches; see `find_exact`.
        max_seconds: Limit of all searches together; see `find_exact`.
        tolerance: Accepted infidelity.

    Raises:
        ConfigError: All searches refuse the target or an option; what the first said.
        GateSetError: The same.
    """
    started = time.perf_counter()
    check_count(max_tries, "max_tries", 1)
    if max_seconds is not None:
        check_number(max_seconds, "max_seconds")
    best: Compilation | None = None
    refused: QuantumDiffusionError | None = None
    for attempt in attempts:
        limits: dict[str, Any] = {"max_tries": max_tries, "max_seconds": max_seconds}
        if max_seconds is not None and 0 < max_seconds < math.inf:
            left = max(max_seconds - (time.perf_counter() - started), _BRIEF_SHARE * max_seconds)
            limits["max_seconds"] = left
        if attempt is not attempts[-1]:
            limits |= _brief(limits) if attempt.is_brief else {"give_up": _PATIENCE}
        try:
            found = find(attempt.folders, limits)
        except (ConfigError, GateSetError) as problem:
            refused = refused or type(problem)(f"{problem}{attempt.advice}")
            continue
        best = found if best is None or _rank(found) < _rank(best) else best
        if found.interrupted or _is_good(best, tolerance):
            break
    if best is None:
        assert refused is not None
        raise refused
    return replace(best, seconds=time.perf_counter() - started)


def _brief(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of a brief search."""
    seconds = limits["max_seconds"]
    return {
        "max_tries": min(limits["max_tries"], _BRIEF_TRIES),
        "max_seconds": None if seconds is None else _BRIEF_SHARE * seconds,
    }


def _is_good(found: Compilation, tolerance: float) -> bool:
    return bool(found.circuits) and (bool(tolerance) or found.circuits[0].infidelity < EXACT_ANGLES)


def _rank(found: Compilation) -> tuple[bool, bool, float]:
    """Return what results are ordered by, the best first."""
    return not _is_good(found, 0.0), not found.circuits, found.best.infidelity if found.best else 1.0
