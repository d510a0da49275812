"""Writing files and folders so that a reader sees either the old state or the complete new one.

Everything is written under a temporary name beside its destination, flushed to the disk, and renamed; what killed
writers left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from quantum_diffusion.errors import QuantumDiffusionError

DESCRIPTION = "config.yaml"
"""The file that says what a folder of ours is."""

_CHECKSUMS = "sha256:\n"
"""Begins the last part of a description: the checksums of all that stands above it and of the other files."""

_CHECKED = b"quantum_diffusion sha256 "
"""Begins a file that carries its own checksum."""

_STAGING = ".new-entries-"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(description: Mapping[str, Any], folder: Path, names: Iterable[str]) -> str:
    """Return the text of a folder's `config.yaml`: a description, and below it the checksums of all it belongs to.

    Args:
        description: Plain values.
        folder: Where the other files are.
        names: Their names.
    """
    head = yaml.safe_dump(dict(description), sort_keys=False)
    checksums = {DESCRIPTION: _sha256(head), **{name: sha256_of(folder / name) for name in names}}
    return head + yaml.safe_dump({"sha256": checksums}, sort_keys=False)


def is_sealed(text: str, checksums: object) -> bool:
    """Tell whether a description is as `sealed` wrote it.

    Args:
        text: What the file holds.
        checksums: What it says under `sha256`.
    """
    head = text.partition(f"\n{_CHECKSUMS}")[0] + "\n"
    return isinstance(checksums, dict) and checksums.get(DESCRIPTION) == _sha256(head)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def with_checksum(content: bytes | memoryview) -> bytes:
    """Put a line with the SHA-256 of a file's content before it."""
    return _CHECKED + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def without_checksum(data: bytes) -> bytes | None:
    """Return the content that `with_checksum` was given, None when it is damaged or something else."""
    head, _, content = data.partition(b"\n")
    return content if head == _CHECKED + hashlib.sha256(content).hexdigest().encode() else None


def check_can_write(destination: Path, error: type[QuantumDiffusionError]) -> None:
    """Refuse a place where `new_folder` would fail, before the work for it is done; leaves nothing behind.

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
        Path(tempfile.mkdtemp(prefix=_STAGING, dir=parent)).rmdir()  # only trying tells, e.g. below /proc
    except OSError as problem:
        raise error(f"cannot write {str(destination)!r}: {describe(problem)}") from problem


@contextlib.contextmanager
def new_folder(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Fill a folder and put it in place as a whole, replacing what was there.

    The caller decides beforehand whether replacing is allowed. When anything fails, the destination stays as it was
    and the half-written folder is removed. A kill in the instant between the two renames of a replacement leaves the
    old folder beside the destination as `.NAME.new-*.old`; the next call puts it back.

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
        prefix = f".{destination.name}.new-"
        _recover(destination, prefix)
        _remove_abandoned(destination.parent, prefix)
        staging = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=destination.parent))
        staging.chmod(0o755)  # mkdtemp makes private folders; results are meant to be shared
        yield staging
        for path in sorted(staging.rglob("*")):
            if path.is_file():
                flush(path)
        _replace_entry(staging, destination)
        flush(destination.parent)
        shutil.rmtree(staging.with_name(f"{staging.name}.old"), ignore_errors=True)
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
        _remove_abandoned(folder, _STAGING)
        staging = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{os.getpid()}-", dir=folder))
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                flush(path)
        names = sorted(path.name for path in staging.iterdir() if path.name != last)
        for name in [*names, last]:
            _replace_entry(staging / name, folder / name)
        flush(folder)
    except OSError as problem:
        raise error(f"cannot write to {str(folder)!r}: {describe(problem)}; what was there is unchanged") from problem
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _replace_entry(source: Path, target: Path) -> None:
    """Put a file or folder in the place of another; a folder has to step aside first."""
    if not target.is_dir():
        os.replace(source, target)
        return
    aside = source.with_name(f"{source.name}.old")
    os.rename(target, aside)
    try:
        os.rename(source, target)
    except OSError:
        os.rename(aside, target)
        raise


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what writers left in a folder that were killed; names are the prefix, a process id, and more."""
    for path in folder.glob(f"{prefix}*"):
        process = path.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, but is another user's
    return True


@contextlib.contextmanager
def new_file(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Write one file and put it in place as a whole; yields the temporary path to write to. See `new_folder`."""
    destination = Path(os.path.realpath(destination))
    prefix = f".{destination.name}.new-"
    staging = destination.with_name(f"{prefix}{os.getpid()}")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(destination.parent, prefix)
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
    if problem.errno == errno.ENOENT:
        return "there is no such place (choose another folder)"
    return problem.strerror or str(problem)


def _recover(destination: Path, prefix: str) -> None:
    """Put back a folder whose replacement was killed between the two renames of `_replace_entry`."""
    aside = [path for path in destination.parent.glob(f"{prefix}*.old") if path.is_dir()]
    if not destination.exists() and len(aside) == 1:
        os.rename(aside[0], destination)


def flush(path: Path) -> None:
    """Make sure a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
