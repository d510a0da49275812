"""Folders that are about to be written: nothing that others put there is ever replaced or removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from quantum_diffusion.errors import QuantumDiffusionError
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
    """Refuse a folder in which writing would replace or remove what is not ours, or in which nothing can be written.

    Args:
        folder: The folder.
        error: What to raise, with a message for users.
        refusal: What the message says after the folder's name; `{!r}` stands for the entry in the way.
        entries: What would be replaced or removed in the folder; None for the folder itself.
        is_ours: Tells whether an entry is one that we write.
        known_by: An entry that every folder of ours has; where it is missing, the others are not taken for ours. None
            asks for none.
        written: What has to be writable, see `check_can_write`; None leaves that to the writing.
    """
    if entries is None:
        entries = ["."] if os.path.lexists(folder) else []
    try:
        foreign = _foreign(entries, is_ours, known_by)
    except OSError as problem:
        raise error(f"cannot write to {str(folder)!r}: {describe(problem)}") from problem
    if foreign is not None:
        raise error(f"{str(folder)!r} {refusal.format(foreign)}")
    if written is not None:
        check_can_write(written, error)


def _foreign(entries: Iterable[str], is_ours: Callable[[str], bool], known_by: str | None) -> str | None:
    present = []
    for name in entries:
        if not is_ours(name):
            return name  # a large folder of others is not read to its end
        present.append(name)
    return None if known_by is None or known_by in present else min(present, default=None)


def names_in(folder: Path, hidden: bool = True) -> Iterator[str]:
    """Yield the names of what is in a folder, in order; none where there is no folder.

    Args:
        folder: The folder.
        hidden: Whether names that begin with a dot are among them.

    Raises:
        OSError: It cannot be listed, or is a file; raised with the first name, so that `check_nothing_lost` tells it.
    """
    if os.path.lexists(folder):
        yield from (name for name in sorted(os.listdir(folder)) if hidden or not name.startswith("."))
