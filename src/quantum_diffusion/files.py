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

_STAGING = ".new-entries-"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_can_write(destination: Path, error: type[QuantumDiffusionError]) -> None:
    """Refuse a place where `new_folder` would fail, before the work for it is done; changes nothing.

    Args:
        destination: Folder to be created or replaced.
        error: What to raise, with a message for users.
    """
    destination = Path(os.path.realpath(destination))
    try:
        parent = next(folder for folder in destination.parents if folder.exists())
        if not parent.is_dir() or (destination.exists() and not destination.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if Path.cwd().is_relative_to(destination):
            raise OSError(errno.EBUSY, "it is the folder you are in (give a folder inside it)")
    except OSError as problem:
        raise error(f"cannot write {str(destination)!r}: {describe(problem)}") from problem


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
    destination = Path(os.path.realpath(destination))  # what a link points to is replaced, not the link
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
def new_entries(folder: Path, last: str, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Put files and folders into a folder whose other content stays; entries of the same names are replaced.

    All are complete on the disk before the first is put in place, one after the other; a reader that looks at `last`
    first sees either the old entries or, after it changed, the complete new ones.

    Args:
        folder: Where the entries go; it is made when it is missing.
        last: Name of the entry to put in place after all others.
        error: Raised in place of an `OSError`, with a message for users.

    Yields:
        An empty folder to write the entries into.
    """
    folder = Path(os.path.realpath(folder))
    staging: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for abandoned in folder.glob(f"{_STAGING}*"):  # by a process that was killed here
            shutil.rmtree(abandoned, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                flush(path)
        names = sorted(path.name for path in staging.iterdir() if path.name != last)
        for name in [*names, last]:
            if (folder / name).is_dir():
                os.rename(folder / name, staging / f"{name}.old")
            os.replace(staging / name, folder / name)
        flush(folder)
    except OSError as problem:
        raise error(f"cannot write to {str(folder)!r}: {describe(problem)}; what was there is unchanged") from problem
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def new_file(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Write one file and put it in place as a whole; yields the temporary path to write to. See `new_folder`."""
    destination = Path(os.path.realpath(destination))
    staging = destination.with_name(f".{destination.name}.new-{os.getpid()}")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        yield staging
        flush(staging)
        os.replace(staging, destination)
    except OSError as problem:
        raise error(f"cannot write {str(destination)!r}: {describe(problem)}; nothing was changed there") from problem
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()


def describe(problem: OSError) -> str:
    """Say in words what the operating system refused, with the mend where there is one."""
    if problem.errno == errno.ENOSPC:
        return "the disk is full (free some space, or choose another folder)"
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permission denied (choose another folder, or change its permissions)"
    if problem.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a file is where a folder should be (choose another folder)"
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
