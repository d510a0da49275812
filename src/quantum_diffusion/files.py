"""Writing files and folders so that a reader sees either the old state or the complete new one; and locks.

Everything is written into a staging folder beside its destination, flushed to the disk, and renamed. What a file
system cannot do is done without; names are compared, never matched as patterns; and files and folders are made as
`open` and `mkdir` make them, so that the user's umask and the folder's group hold.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import platform
import secrets
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from quantum_diffusion.errors import QuantumDiffusionError

logger = logging.getLogger(__name__)

DESCRIPTION = "config.yaml"
"""The file that says what a folder of ours is."""

_CHECKSUMS = "sha256:\n"
"""Begins the last part of a description: the checksums of all that stands above it and of the other files."""

_CHECKED = b"quantum_diffusion sha256 "
"""Begins a file that carries its own checksum."""

_STAGING = ".quantum_diffusion.new-"
"""Begins the name of a staging folder; its writer follows: process space, process id, and a number of its own."""

_NEW, _OLD = "new", "old"
"""In a staging folder: what is being written, and the folders whose places it takes."""

_LACKING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What the system says where a file system does not know `fsync` or locks."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def yaml_text(values: Mapping[str, Any], allow_unicode: bool = False) -> str:
    """Return plain values as YAML, in their order.

    libyaml writes it ten times as fast as Python, which shows where a run saves often; bytes of names that are no
    UTF-8 are beyond it.
    """
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": allow_unicode}
    text: str
    try:
        text = yaml.dump(dict(values), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), **options)
    except UnicodeEncodeError:
        text = yaml.safe_dump(dict(values), **options)
    return text


def sealed(description: Mapping[str, Any], folder: Path, names: Iterable[str]) -> str:
    """Return the text of a folder's `config.yaml`: a description, and below it the checksums of all it belongs to.

    Args:
        description: Plain values.
        folder: Where the other files are.
        names: Their names.
    """
    head = yaml_text(description)
    checksums = {DESCRIPTION: _sha256(head), **{name: sha256_of(folder / name) for name in names}}
    return head + yaml_text({"sha256": checksums})


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
    shown = destination
    try:
        destination = Path(os.path.realpath(destination))
        if Path.cwd().is_relative_to(destination):
            raise OSError(errno.EBUSY, "it is the folder you are in (give a folder inside it)")
        if os.path.ismount(destination):
            raise OSError(errno.EBUSY, "a file system is mounted there (give a folder inside it)")
        parent = next(folder for folder in destination.parents if folder.exists())
        if not parent.is_dir() or (destination.exists() and not destination.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not all(os.access(place, os.W_OK | os.X_OK) for place in (parent, destination) if place.exists()):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _try_writing(parent, destination.relative_to(parent))
    except OSError as problem:
        raise error(f"cannot write {str(shown)!r}: {describe(problem)}") from problem


def _try_writing(folder: Path, name: Path) -> None:
    """Do in small what `new_folder` does: only trying tells of full disks, quotas, names and renames not allowed."""
    staging = _make_staging(folder)
    try:
        (staging / _NEW / name).mkdir(parents=True)
        file = staging / _NEW / name / "file"
        file.write_bytes(bytes(4096))
        flush(file)
        os.rename(staging / _NEW / name.parts[0], staging / _OLD / name.parts[0])
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def new_folder(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Fill a folder and put it in place as a whole, replacing what was there.

    The caller decides beforehand whether replacing is allowed. When writing fails, the destination stays as it was and
    the half-written folder is removed. A kill in the instant between the two renames of a replacement leaves the old
    folder in a hidden staging folder beside the destination; the next writer there puts it back.

    Args:
        destination: Folder to create; its parents are made.
        error: Raised in place of an `OSError`, with a message for users.

    Yields:
        An empty folder to write into.
    """
    with new_file(destination, error) as staging:
        staging.mkdir()
        yield staging
    _settle(Path(os.path.realpath(destination)).parent)


@contextlib.contextmanager
def new_file(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Write one file and put it in place as a whole; yields the temporary path to write to. See `new_folder`."""
    real = Path(os.path.realpath(destination))  # what a link points to is replaced, not the link
    with _staged(real.parent, real.name, f"cannot write {str(_final_place(destination))!r}", error) as staging:
        yield staging / real.name


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
    with _staged(Path(os.path.realpath(folder)), last, f"cannot write to {str(folder)!r}", error) as staging:
        yield staging
    _settle(folder)


@contextlib.contextmanager
def _staged(folder: Path, last: str, failed: str, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Yield an empty folder; then put what was written there into a folder beside, the entry `last` after all others.

    Args:
        folder: Where the entries go; it is made when it is missing.
        last: Name of an entry.
        failed: How the message for users begins when something fails.
        error: Raised in place of an `OSError`.
    """
    staging: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        staging = _make_staging(folder)
        yield staging / _NEW
        for path in (staging / _NEW).rglob("*"):
            if path.is_file():
                flush(path)
    except BaseException as problem:
        if staging is not None:
            _discard(staging)
        if isinstance(problem, OSError):
            raise error(f"{failed}: {describe(problem)}; nothing was changed there") from problem
        raise
    try:
        _put_in_place(staging, last)
    except OSError as problem:
        kept = staging / _NEW
        with contextlib.suppress(OSError):  # where nothing can be renamed, it stays there
            kept = kept.rename(folder / f"finished-{secrets.token_hex(4)}")
            _discard(staging)
        left = f"what is not in its place yet is complete in {str(kept)!r}: move it from there"
        raise error(f"{failed}: {describe(problem)}; {left}") from problem
    _discard(staging)


def _settle(folder: Path) -> None:
    """Let what was put in place survive a power cut, where the file system can do that."""
    with contextlib.suppress(OSError):  # it is in place, whatever the disk says now
        flush(folder)


def _put_in_place(staging: Path, last: str) -> None:
    folder = staging.parent
    for name in sorted(os.listdir(staging / _NEW), key=lambda name: (name == last, name)):
        _replace_entry(staging / _NEW / name, folder / name, staging / _OLD / name)


def _replace_entry(source: Path, target: Path, aside: Path) -> None:
    """Put a file or folder in the place of another; a folder has to step aside first."""
    if source.is_dir() and target.is_dir():
        os.rename(target, aside)
    try:
        os.replace(source, target)
    except OSError:
        if os.path.lexists(source):  # else it is done: NFS refuses a request that it gets twice
            raise


def _make_staging(folder: Path) -> Path:
    staging = folder / f"{_STAGING}{_process_space()}-{os.getpid()}-{secrets.token_hex(4)}"
    for part in (staging, staging / _NEW, staging / _OLD):
        part.mkdir()
    return staging


def _discard(staging: Path) -> None:
    """Remove a staging folder; a folder that had stepped aside and was not replaced goes back to its place."""
    with contextlib.suppress(OSError):
        for aside in (staging / _OLD).glob("*"):
            if not os.path.lexists(staging.parent / aside.name):
                os.rename(aside, staging.parent / aside.name)
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the staging folders of writers that were killed, as far as that is certain: see `_process_space`."""
    with contextlib.suppress(OSError):  # perhaps it can be written, but not be listed
        for name in filter(_is_staging, os.listdir(folder)):
            space, process = name.removeprefix(_STAGING).split("-")[:2]
            if space == _process_space() and not _is_running(int(process)):
                _discard(folder / name)


def _final_place(path: Path) -> Path:
    """Return where a file in a staging folder will end up, for messages; any other path as it is."""
    staging = path.parent.parent
    return staging.parent / path.name if path.parent.name == _NEW and _is_staging(staging.name) else path


def _is_staging(name: str) -> bool:
    """Tell whether a name is that of a staging folder."""
    parts = name.removeprefix(_STAGING).split("-")
    return name.startswith(_STAGING) and len(parts) == 3 and parts[1].isdecimal()


@functools.cache
def _process_space() -> str:
    """Name the processes that can be looked up here by their ids: those of this machine or container since it started.

    Whether any other process still runs cannot be told, so what it left is left alone.
    """
    parts = [platform.node()]
    try:
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    except OSError:  # not Linux
        parts.append(str(uuid.getnode()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # it runs, but is another user's; or it is no number of a process
    return True


def flush(path: Path) -> None:
    """Make sure that a file's or folder's content is on the disk, where its file system can do that."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows shares flush no other files
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in _LACKING:
            raise
    finally:
        os.close(descriptor)


_IN_WORDS = {
    errno.ENOSPC: "the disk is full (free some space, or choose another folder)",
    errno.EDQUOT: "your quota is used up (free some space, or choose another folder)",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "permission denied (choose another folder, or change its permissions)",
    ),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a file is where a folder should be (choose another folder)"),
    errno.EISDIR: "a folder is where a file should be (choose another name)",
    errno.ENOENT: "there is no such place (choose another folder)",
    errno.ENAMETOOLONG: "the name is too long (choose a shorter one)",
    **dict.fromkeys(
        (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
        "its file system cannot do that (choose a folder on another one)",
    ),
}


def describe(problem: OSError) -> str:
    """Say in words what the operating system refused, with the mend where there is one."""
    return _IN_WORDS.get(problem.errno or 0) or problem.strerror or str(problem)


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Say in one line what the operating system refused inside, where nobody has said more about it.

    Raises:
        QuantumDiffusionError: In place of any `OSError`.
    """
    try:
        yield
    except OSError as problem:
        place = f"{problem.filename!r}: " if problem.filename else ""
        raise QuantumDiffusionError(f"the system refused: {place}{describe(problem)}") from problem


# --------------------------------------------------------------------------------------------------- locks


class TakenError(Exception):
    """Another process holds the lock."""


class Lock:
    """Keeps other processes out while it is held; the operating system ends it with the process.

    Where the file system has no locks, nothing keeps them out, and a warning says so.

    Args:
        path: A file for the lock alone, in a folder that exists; it is made, and stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0

    @contextlib.contextmanager
    def hold(self, longest_wait: float = 0.0) -> Iterator[bool]:
        """Hold the lock; may be nested.

        Args:
            longest_wait: For another process, in seconds.

        Yields:
            Whether it is held from here on; False when nested.

        Raises:
            TakenError: Another process holds it.
            OSError: The file cannot be written.
        """
        is_outermost = not self._depth
        if is_outermost:
            self._descriptor = self._acquire(time.monotonic() + longest_wait)
        self._depth += 1
        try:
            yield is_outermost
        finally:
            self._depth -= 1
            if is_outermost:
                os.close(self._descriptor)

    def _acquire(self, deadline: float) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                pass
            except OSError as problem:
                if problem.errno in _LACKING:
                    _warn_that_nothing_locks(self._path)
                    return descriptor
                os.close(descriptor)
                raise
            else:
                if os.fstat(descriptor).st_nlink:  # else its last holder has removed it
                    return descriptor
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise TakenError
            time.sleep(0.05)


@functools.cache  # once a lock
def _warn_that_nothing_locks(path: Path) -> None:
    logger.warning(
        "the file system of %r has no locks: make sure that no other run writes there at the same time",
        str(path.parent),
    )
