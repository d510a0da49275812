"""Identifies the process behind a run's record, to detect runs that were killed.

A process is identified by its number and start time, which are meaningful only on its own computer.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ENDED = "ended"


def this_process() -> dict[str, Any]:
    """Return values that identify this process; None for those that the system does not provide."""
    return {
        "host": socket.gethostname(),
        "boot": _read(Path("/proc/sys/kernel/random/boot_id")),
        "namespace": _namespace(),
        "id": os.getpid(),
        "started": _start_of(os.getpid()),
    }


def is_running(process: Mapping[str, Any]) -> bool | None:
    """Tell whether a process still runs; None if that is unknown here: on another host, or in a container.

    Args:
        process: The result of `this_process` in that process.
    """
    here = this_process()
    if process.get("host") != here["host"]:
        return None
    if process.get("boot") != here["boot"]:
        return False  # the computer has been restarted since
    if process.get("namespace") != here["namespace"]:
        return None
    number = process.get("id")
    if not isinstance(number, int) or number < 1 or not _exists(number):
        return False
    return _start_of(number) in (None, process.get("started"))


def _exists(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is another user's
    return True


def _start_of(number: int) -> str | None:
    """Return the start time of a process in the system's own format; None if unknown."""
    stat = _read(Path(f"/proc/{number}/stat"))
    if stat is not None:
        state, *fields = stat.rpartition(")")[2].split()  # before it stands a name, which may hold anything
        return _ENDED if state in "ZX" else fields[18]
    if Path("/proc/self/stat").exists():
        return None
    try:  # macOS
        command = ["ps", "-o", "lstart=", "-p", str(number)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, env={"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.stdout.strip() or None


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
