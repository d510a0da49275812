"""Checks of a folder before it is written: files that are not ours are never replaced or removed.

Writers of data sets, models and results call them before they start their work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from quantum_diffusion.errors import QuantumDiffusionError, quoted_path
from quantum_diffusion.files import check_can_write, describe


def check_nothing_lost(
    folder: str | Path,
    error: type[QuantumDiffusionError],
    refusal: str,
    *,
    entries: Iterable[str] | None = None,
    is_ours: Callable[[str], bool] = lambda name: False,
    known_by: str | None = None,
    written: Path | None = None,
) -> None:
    """Refuse a folder that is not writable, or in which writing would replace or remove files that are not ours.

    Args:
        folder: The folder.
        error: Exception type to raise.
        refusal: The message after the folder's name; `{!r}` stands for the entry in the way.
        entries: Names of the entries that writing would replace or remove; None means the folder itself.
        is_ours: Returns whether we write an entry of this name.
        known_by: An entry that every folder of ours has; without it, no entry counts as ours. None: no such entry.
        written: The path that must be writable, see `check_can_write`; None does not check it.
    """
    if entries is None:
        entries = ["."] if os.path.lexists(folder) else []
    try:
        foreign = _foreign(entries, is_ours, known_by)
    except OSError as problem:
        raise error(f"cannot write to {quoted_path(folder)}: {describe(problem)}") from problem
    if foreign is not None:
        raise error(f"{quoted_path(folder)} {refusal.format(foreign)}")
    if written is not None:
        check_can_write(written, error)


def _foreign(entries: Iterable[str], is_ours: Callable[[str], bool], known_by: str | None) -> str | None:
    present = []
    for name in entries:
        if not is_ours(name):
            return name  # stop early: somebody else's folder may be large
        present.append(name)
    return None if known_by is None or known_by in present else min(present, default=None)


def names_in(folder: Path, hidden: bool = True) -> Iterator[str]:
    """Yield the names of a folder's entries in sorted order; nothing if the folder does not exist.

    Args:
        folder: The folder.
        hidden: Whether to include names that begin with a dot.

    Raises:
        OSError: It is a file or cannot be listed; raised on the first `next`, inside `check_nothing_lost`.
    """
    if os.path.lexists(folder):
        yield from (name for name in sorted(os.listdir(folder)) if hidden or not name.startswith("."))
