"""Atomic writes of files and folders, checksums and locks; everything that saves to disk uses them.

Data goes into a staging folder next to the destination, is flushed to disk, and then renamed, so that a reader sees
either the old state or the complete new one. Features that a file system lacks (`fsync`, locks) are skipped. Names are
compared, never matched as patterns. Files and folders are created by plain `open` and `mkdir`, so that the user's umask
and the folder's group apply.
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

from quantum_diffusion.errors import QuantumDiffusionError, quoted_path

logger = logging.getLogger(__name__)

DESCRIPTION = "config.yaml"
"""The file that describes a data set or model folder."""

_CHECKSUMS = "sha256:\n"
"""First line of the last section of a description: checksums of the text above it and of the other files."""

_CHECKED = b"quantum_diffusion sha256 "
"""First bytes of a file that contains its own checksum."""

_STAGING = ".quantum_diffusion.new-"
"""Prefix of the name of a staging folder; process space, process id and a random number follow."""

_NEW, _OLD = "new", "old"
"""Subfolders of a staging folder: the new entries, and the old folders they replace."""

_LACKING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""Error numbers of a file system without `fsync` or locks."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def yaml_text(values: Mapping[str, Any], allow_unicode: bool = False) -> str:
    """Return plain values as YAML, keeping their order.

    libyaml is ten times as fast as pure Python, which matters if a run saves often, but cannot write file names that
    are not UTF-8.
    """
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": allow_unicode}
    text: str
    try:
        text = yaml.dump(dict(values), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), **options)
    except UnicodeEncodeError:
        text = yaml.safe_dump(dict(values), **options)
    return text


def sealed(description: Mapping[str, Any], folder: Path, names: Iterable[str]) -> str:
    """Return the text of a folder's `config.yaml`: a description, then checksums of it and of the other files.

    Args:
        description: Plain values.
        folder: Folder of the other files.
        names: Names of the other files.
    """
    head = yaml_text(description)
    checksums = {DESCRIPTION: _sha256(head), **{name: sha256_of(folder / name) for name in names}}
    return head + yaml_text({"sha256": checksums})


def is_sealed(text: str, checksums: object) -> bool:
    """Return whether a description is unchanged since `sealed` wrote it.

    Args:
        text: Content of the file.
        checksums: Its value of `sha256`.
    """
    head = text.partition(f"\n{_CHECKSUMS}")[0] + "\n"
    return isinstance(checksums, dict) and checksums.get(DESCRIPTION) == _sha256(head)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def with_checksum(content: bytes | memoryview) -> bytes:
    """Return the content preceded by a line with its SHA-256."""
    return _CHECKED + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def without_checksum(data: bytes) -> bytes | None:
    """Return the content given to `with_checksum`, or None if the data is damaged or has no checksum."""
    head, _, content = data.partition(b"\n")
    return content if head == _CHECKED + hashlib.sha256(content).hexdigest().encode() else None


def check_can_write(destination: Path, error: type[QuantumDiffusionError]) -> None:
    """Raise early if `new_folder` would fail at a destination; leaves nothing behind.

    Args:
        destination: Folder to be created or replaced.
        error: Exception type to raise.
    """
    shown = destination
    try:
        destination = Path(os.path.realpath(destination))
        if Path.cwd().is_relative_to(destination):
            raise OSError(errno.EBUSY, "it is the current folder (give a folder inside it)")
        if os.path.ismount(destination):
            raise OSError(errno.EBUSY, "a file system is mounted there (give a folder inside it)")
        parent = next(folder for folder in destination.parents if folder.exists())
        if not parent.is_dir() or (destination.exists() and not destination.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not all(os.access(place, os.W_OK | os.X_OK) for place in (parent, destination) if place.exists()):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _try_writing(parent, destination.relative_to(parent))
    except OSError as problem:
        raise error(f"cannot write {quoted_path(shown)}: {describe(problem)}") from problem


def _try_writing(folder: Path, name: Path) -> None:
    """Do what `new_folder` does with one small file: only a trial finds full disks, quotas and forbidden names."""
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
    """Write a folder and put it in place in one step, replacing any old one.

    The caller checks first whether it may be replaced. If writing fails, the destination is unchanged and the partial
    folder is removed. If the process is killed between the two renames of a replacement, the old folder remains in a
    hidden staging folder next to the destination, and the next writer puts it back.

    Args:
        destination: Folder to create, with its parents.
        error: Exception type raised instead of an `OSError`.

    Yields:
        An empty folder to write into.
    """
    with new_file(destination, error) as staging:
        staging.mkdir()
        yield staging
    _settle(Path(os.path.realpath(destination)).parent)


@contextlib.contextmanager
def new_file(destination: Path, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Write one file and put it in place in one step; yields the temporary path to write to. See `new_folder`."""
    real = Path(os.path.realpath(destination))  # replace the target of a symbolic link, not the link
    with _staged(real.parent, real.name, f"cannot write {quoted_path(_final_place(destination))}", error) as staging:
        yield staging / real.name


@contextlib.contextmanager
def new_entries(folder: Path, last: str, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Add or replace entries of a folder and keep its other content.

    All entries are complete on disk before the first is put in place. They are put in place one by one, `last` at the
    end: a reader that checks `last` first sees either the old entries or, once it has changed, all the new ones.

    Args:
        folder: Destination of the entries; created if missing.
        last: Name of the entry to put in place after all others.
        error: Exception type raised instead of an `OSError`.

    Yields:
        An empty folder to write the entries into.
    """
    with _staged(Path(os.path.realpath(folder)), last, f"cannot write to {quoted_path(folder)}", error) as staging:
        yield staging
    _settle(folder)


@contextlib.contextmanager
def _staged(folder: Path, last: str, failed: str, error: type[QuantumDiffusionError]) -> Iterator[Path]:
    """Yield an empty folder; then move its entries into `folder`, the entry `last` after all others.

    Args:
        folder: Destination of the entries; created if missing.
        last: Name of an entry.
        failed: Beginning of the error message.
        error: Exception type raised instead of an `OSError`.
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
        with contextlib.suppress(OSError):  # if renaming fails, too, it stays in the staging folder
            kept = kept.rename(folder / f"finished-{secrets.token_hex(4)}")
            _discard(staging)
        left = f"the files not yet in place are complete in {quoted_path(kept)}: move them from there"
        raise error(f"{failed}: {describe(problem)}; {left}") from problem
    _discard(staging)


def _settle(folder: Path) -> None:
    """Make the renames survive a power cut, if the file system can do that."""
    with contextlib.suppress(OSError):  # the entries are in place even if this fails
        flush(folder)


def _put_in_place(staging: Path, last: str) -> None:
    folder = staging.parent
    for name in sorted(os.listdir(staging / _NEW), key=lambda name: (name == last, name)):
        _replace_entry(staging / _NEW / name, folder / name, staging / _OLD / name)


def _replace_entry(source: Path, target: Path, aside: Path) -> None:
    """Replace a file or folder by another; an existing folder is moved aside first."""
    if source.is_dir() and target.is_dir():
        os.rename(target, aside)
    try:
        os.replace(source, target)
    except OSError:
        if os.path.lexists(source):  # else it succeeded: NFS rejects a request that it receives twice
            raise


def _make_staging(folder: Path) -> Path:
    staging = folder / f"{_STAGING}{_process_space()}-{os.getpid()}-{secrets.token_hex(4)}"
    for part in (staging, staging / _NEW, staging / _OLD):
        part.mkdir()
    return staging


def _discard(staging: Path) -> None:
    """Remove a staging folder; first put back an old folder that was moved aside but not replaced."""
    with contextlib.suppress(OSError):
        for aside in (staging / _OLD).glob("*"):
            if not os.path.lexists(staging.parent / aside.name):
                os.rename(aside, staging.parent / aside.name)
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the staging folders of killed writers of this process space; see `_process_space`."""
    with contextlib.suppress(OSError):  # a folder may be writable but not readable
        for name in filter(_is_staging, os.listdir(folder)):
            space, process = name.removeprefix(_STAGING).split("-")[:2]
            if space == _process_space() and not _is_running(int(process)):
                _discard(folder / name)


def _final_place(path: Path) -> Path:
    """Return where a file in a staging folder will end up, for messages; any other path as it is."""
    staging = path.parent.parent
    return staging.parent / path.name if path.parent.name == _NEW and _is_staging(staging.name) else path


def _is_staging(name: str) -> bool:
    """Return whether a name is that of a staging folder."""
    parts = name.removeprefix(_STAGING).split("-")
    return name.startswith(_STAGING) and len(parts) == 3 and parts[1].isdecimal()


@functools.cache
def _process_space() -> str:
    """Return an identifier of this machine or container since its last start, within which process ids are unique.

    Staging folders of another process space are left alone: its processes may still be running.
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
        pass  # it is another user's process, or not a valid process id
    return True


def flush(path: Path) -> None:
    """Flush a file or folder to disk, if its file system can do that."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows shares need write access
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
    errno.ENOENT: "no such file or folder (choose another folder)",
    errno.ENAMETOOLONG: "the name is too long (choose a shorter one)",
    **dict.fromkeys(
        (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
        "its file system does not support this (choose a folder on another file system)",
    ),
}


def describe(problem: OSError) -> str:
    """Return a readable reason for an error of the operating system, with advice if there is any."""
    return _IN_WORDS.get(problem.errno or 0) or problem.strerror or str(problem)


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Turn any `OSError` raised inside into a one-line message; the last resort for errors not handled elsewhere.

    Raises:
        QuantumDiffusionError: Raised instead of an `OSError`.
    """
    try:
        yield
    except OSError as problem:
        place = f"{problem.filename!r}: " if problem.filename else ""
        raise QuantumDiffusionError(f"operating system error: {place}{describe(problem)}") from problem


# --------------------------------------------------------------------------------------------------- locks


class TakenError(Exception):
    """Another process holds the lock."""


class Lock:
    """An exclusive lock between processes; the operating system releases it when the process ends.

    On a file system without locks it excludes nobody and logs a warning.

    Args:
        path: The lock file, in an existing folder; it is created and not removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0

    @contextlib.contextmanager
    def hold(self, longest_wait: float = 0.0) -> Iterator[bool]:
        """Hold the lock; contexts may be nested.

        Args:
            longest_wait: Seconds to wait for another process to release it.

        Yields:
            Whether this context acquired it; False if nested.

        Raises:
            TakenError: Another process holds it.
            OSError: The lock file cannot be written.
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
                    _warn_of_missing_locks(self._path)
                    return descriptor
                os.close(descriptor)
                raise
            else:
                if os.fstat(descriptor).st_nlink:  # else its last holder removed it
                    return descriptor
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise TakenError
            time.sleep(0.05)


@functools.cache  # warn once per lock
def _warn_of_missing_locks(path: Path) -> None:
    logger.warning(
        "the file system of %r does not support locks: make sure that no other run writes there at the same time",
        str(path.parent),
    )
