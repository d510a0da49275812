"""The list of all tasks by name; a new task is added here."""

from __future__ import annotations

from quantum_diffusion.tasks.base import Task
from quantum_diffusion.tasks.srv import SrvTask
from quantum_diffusion.tasks.state import StateTask
from quantum_diffusion.tasks.unitary import UnitaryTask

TASKS: dict[str, Task] = {task.name: task for task in (SrvTask(), UnitaryTask(), StateTask())}
"""Tasks by the value of `datasets.condition_type`."""
