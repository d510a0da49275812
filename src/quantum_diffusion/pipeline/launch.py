"""Detects which processes were launched together by torchrun or SLURM's srun, from environment variables.

Everything is checked before a process connects to others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantum_diffusion.errors import ConfigError

_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SRUN = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST")


@dataclass(frozen=True)
class Launch:
    """The place of this process in its launch.

    Attributes:
        size: Total number of processes.
        rank: Number of this process.
        local_rank: Its number among the processes on its computer.
        address: Address of the first process.
        port: Port of the first process.
        may_hide_devices: Whether the launcher may restrict each process to its own GPU.
    """

    size: int
    rank: int
    local_rank: int
    address: str
    port: int
    may_hide_devices: bool = False


def find_launch(environment: Mapping[str, str], at_terminal: bool) -> Launch | None:
    """Read the launch of this process from its environment variables; empty ones count as not set.

    Args:
        environment: The variables.
        at_terminal: Whether a terminal controls the process. A shell opened by `srun -n 4 --pty bash` has the variables
            of its step, but a command typed there starts one process; processes that srun starts have no terminal.

    Returns:
        The launch; None for a single process, including SLURM jobs without srun and their interactive shells.

    Raises:
        ConfigError: The variables describe several processes but fit no launcher; the message names the variable.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    try:
        if "WORLD_SIZE" in given:
            name = "WORLD_SIZE"
            return _of_torchrun(given)
        if "SLURM_STEP_NUM_TASKS" in given and not at_terminal:
            name = "SLURM_STEP_NUM_TASKS"  # unlike SLURM_NTASKS, it is not set in the job's own script
            return _of_srun(given)
        for name in ("OMPI_COMM_WORLD_SIZE", *(["PMI_SIZE"] if "SLURM_JOB_ID" not in given else [])):
            if _number(given, name, 1, default="1") > 1:
                raise ValueError(
                    f"mpirun started several processes ({name}={given[name]}), each of which would train alone"
                )
    except ValueError as problem:
        raise ConfigError(
            f"{problem}: start the processes with torchrun --nproc-per-node=N, or with srun in a SLURM job; or unset "
            f"{name} to train with this process alone"
        ) from None
    return None


def has_terminal() -> bool:
    """Tell whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _of_torchrun(given: Mapping[str, str]) -> Launch | None:
    size = _number(given, "WORLD_SIZE", 1)
    if size == 1:
        return None
    _check_set(given, "WORLD_SIZE", _TORCHRUN)
    return Launch(
        size=size,
        rank=_number(given, "RANK", 0, size - 1),
        local_rank=_number(given, "LOCAL_RANK", 0, size - 1),
        address=given["MASTER_ADDR"],
        port=_number(given, "MASTER_PORT", 1, 65535),
    )


def _of_srun(given: Mapping[str, str]) -> Launch | None:
    size = _number(given, "SLURM_STEP_NUM_TASKS", 1)
    if size == 1:
        return None
    _check_set(given, "SLURM_STEP_NUM_TASKS", _SRUN)
    step = _number(given, "SLURM_JOB_ID", 0) + _number(given, "SLURM_STEP_ID", 0)
    return Launch(
        size=size,
        rank=_number(given, "SLURM_PROCID", 0, size - 1),
        local_rank=_number(given, "SLURM_LOCALID", 0, size - 1),
        address=given.get("MASTER_ADDR") or _first_node(given["SLURM_STEP_NODELIST"]),
        port=_number(given, "MASTER_PORT", 1, 65535, default=str(15000 + step % 10000)),
        may_hide_devices=True,
    )


def _first_node(nodes: str) -> str:
    """Return the first of SLURM's list of computers, such as "node[03-05,9],login1"."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment.resolve_root_node_address(nodes)


def _check_set(given: Mapping[str, str], size: str, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        listed = f"{', '.join(missing[:-1])} and {missing[-1]} are" if missing[1:] else f"{missing[0]} is"
        raise ValueError(f"{size}={given[size]} says that several processes train together, but {listed} not set")


def _number(given: Mapping[str, str], name: str, least: int, most: int = 2**32, default: str = "") -> int:
    text = given.get(name, default)
    number = int(text) if re.fullmatch(r"\d{1,20}", text, re.ASCII) else -1
    if not least <= number <= most:
        raise ValueError(f"the environment variable {name}={text[:40]!r} is no whole number from {least} to {most}")
    return number
