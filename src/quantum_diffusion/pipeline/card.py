"""Writes the card of a saved model: what it can be asked for, its training data, and how to use and reproduce it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantum_diffusion.cards import card_text
from quantum_diffusion.errors import counted
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline

_EXAMPLES = {"sample": "'sample.srv=[1,2,2]'", "compile": "ghz:2", "prepare": "ghz:2"}


def model_card(pipeline: DiffusionPipeline, metadata: Mapping[str, Any]) -> str:
    """Return the text of a model's card.

    Args:
        pipeline: The model.
        metadata: The content of its `metadata.yaml`.
    """
    config, task = pipeline.config, pipeline.task
    gates = ", ".join(pipeline.gate_pool.names)
    answers = f"{task.asked} of up to {config.num_qubits} qubits with at most {config.max_gates} gates of {gates}"
    get = metadata.get
    trained = (
        f"{counted(int(get('num_circuits') or 0), 'circuit')} of `{get('dataset')}` (sha256 "
        f"{str(get('dataset_sha256'))[:16]}), {counted(int(get('samples_seen') or 0), 'sample')} seen in "
        f"{counted(int(get('steps') or 0), 'step')} and {float(get('seconds') or 0):.0f} s on {get('device')} in "
        f"{get('arithmetic')}; seed {get('seed')}, commit {get('commit')}, torch {get('torch')}, "
        f"{get('finished_at')}."
    )
    section = f"quantum-diffusion {task.command} {task.command}.model_dir=FOLDER {_EXAMPLES[task.command]}"
    parts = {
        "Use": f"```bash\n{section}\n```\nEvery circuit it returns is verified by simulation.",
        "Data and training": trained,
        "Recipe": "Every setting is in `training_config.yaml` beside this file. To train the model again:\n```bash\n"
        "quantum-diffusion train training=training_config.yaml training.general.output_path=./models/again\n```",
        "Figures": "`quantum-diffusion evaluate` writes them to `evaluation/metrics.md`.",
        "Limits": f"It was trained on {answers}, and can be asked for nothing else.",
    }
    front = {"command": task.command, "answers": answers}
    return card_text(front, str(get("experiment_name") or "Model"), parts)
