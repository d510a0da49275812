"""The models on offer on the page: the pretrained ones and those in one folder; no others are opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantum_diffusion.api import Model, load
from quantum_diffusion.cards import read_card
from quantum_diffusion.circuits.prompts import parse_srv_prompt
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, unknown_name
from quantum_diffusion.interop.opening import read_configuration
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pretrained import PREFIX, WEIGHTS, pretrained_names
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.training.register import ModelManager

_COMPLEX = {"y", "s", "sdg", "t", "tdg", "cy"}
"""Gates without which every unitary is real."""


@dataclass(frozen=True)
class Settings:
    """Settings of the page, fixed at its start.

    Attributes:
        folder: Folder of additional models; None offers only the pretrained ones.
        device: See `load`.
        max_seconds: Time limit of a search, in seconds.
    """

    folder: str | None = None
    device: str = "auto"
    max_seconds: float = 20.0


def offered(settings: Settings) -> dict[str, Path]:
    """Return the folders of the models on offer by name, the pretrained ones first.

    Raises:
        CheckpointError: The folder does not exist.
    """
    folders = {PREFIX + name: WEIGHTS / name for name in pretrained_names()}
    if settings.folder is not None:
        folders |= {str(entry.folder): entry.folder for entry in ModelManager.from_folder(settings.folder).list()}
    return folders


def open_model(name: str, settings: Settings) -> Model:
    """Open one of the models on offer.

    Raises:
        ConfigError: No model of that name is on offer.
        CheckpointError: It cannot be loaded.
    """
    folders = offered(settings)
    if name not in folders:
        raise ConfigError(unknown_name("model", name, folders))
    return load(name if name.startswith(PREFIX) else os.fspath(folders[name]), device=settings.device)


def described_models(settings: Settings) -> list[dict[str, Any]]:
    """Return what the page needs to know about each model; an unusable one has a `problem` instead.

    Raises:
        CheckpointError: The folder of models does not exist.
    """
    rows = []
    for name, folder in offered(settings).items():
        try:
            rows.append({"name": name, **_described(read_configuration(folder), read_card(folder).answers)})
        except QuantumDiffusionError as problem:
            rows.append({"name": name, "problem": str(problem)})
    return rows


def _described(config: PipelineConfig, answers: str) -> Mapping[str, Any]:
    task = TASKS[config.condition_type]
    sizes = list(range(1, config.num_qubits + 1))
    if task.command == "sample":
        sizes = sorted({len(parse_srv_prompt(prompt, config.num_qubits)) for prompt in config.prompts})
    return {
        "command": task.command,
        "answers": answers or f"{task.asked} of up to {config.num_qubits} qubits",
        "num_qubits": config.num_qubits,
        "sizes": sizes,
        "gates": list(config.gate_pool),
        "max_gates": config.max_gates,
        "examples": _examples(task.command, config.num_qubits, config.gate_pool),
    }


def _examples(command: str, num_qubits: int, gates: tuple[str, ...]) -> list[str]:
    """Return names of targets that fit a model."""
    if command == "sample":
        return []
    most = min(num_qubits, 4)
    if command == "prepare":
        names = {f"ghz:{num_qubits}": 1, "ghz:3": 3, "w:4": 4, f"basis:{'101'[:num_qubits]}": 1, f"random:{most}:8": 1}
    else:
        names = {
            "toffoli": 3,
            "ccz": 3,
            "fredkin": 3,
            "peres": 3,
            "adder": 4,
            f"ghz:{num_qubits}": 1,
            f"random:{most}:8": 1,
        }
        if _COMPLEX & {*gates}:
            names["qft:2"] = 2
    return [name for name, least in names.items() if least <= num_qubits]
