"""Writing files and folders so that a reader sees either the old state or the complete new one.

Everything is written under a temporary name beside its destination, flushed to the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quantum_diffusion.errors import QuantumDiffusionError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_folder(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Fill a folder and put it in place as a whole, replacing what was there.

    The caller decides beforehand whether replacing is allowed. When anything fails, the destination stays as it was
    and the half-written folder is removed.

    Args:
        destination: Folder to create; its parents are made.
        error: Raised in place of an `OSError`, with a message for users.

    Yields:
        An empty folder to write into.
    """
    destination = Path(os.path.abspath(destination))
    staging: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.new-", dir=destination.parent))
        staging.chmod(0o755)  # mkdtemp makes private folders; results are meant to be shared
        yield staging
        for path in sorted(staging.rglob("*")):
            if path.is_file():
                flush(path)
        _swap_in(staging, destination)
    except OSError as problem:
        raise error(f"cannot write {str(destination)!r}: {describe(problem)}; nothing was changed there") from problem
    finally:
        if staging is not None and staging.exists():
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def new_file(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Write one file and put it in place as a whole; yields the temporary path to write to. See `new_folder`."""
    destination = Path(os.path.abspath(destination))
    staging = destination.with_name(f".{destination.name}.new-{os.getpid()}")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        yield staging
        flush(staging)
        os.replace(staging, destination)
    except OSError as problem:
        raise error(f"cannot write {str(destination)!r}: {describe(problem)}; nothing was changed there") from problem
    finally:
        staging.unlink(missing_ok=True)


def describe(problem: OSError) -> str:
    """Say in words what the operating system refused, with the mend where there is one."""
    if problem.errno == errno.ENOSPC:
        return "the disk is full (free some space, or choose another folder)"
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there (choose another folder)"
    return problem.strerror or str(problem)


def _swap_in(staging: Path, destination: Path) -> None:
    if destination.exists():
        old = staging.with_name(f"{staging.name}-old")
        os.rename(destination, old)
        try:
            os.rename(staging, destination)
        except OSError:
            os.rename(old, destination)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(staging, destination)
    flush(destination.parent)


def flush(path: Path) -> None:
    """Make sure a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
