"""Writes the card of a data set: its content, how it was made and how to use it; saved beside the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantum_diffusion.cards import card_text
from quantum_diffusion.errors import counted


def dataset_card(description: Mapping[str, Any]) -> str:
    """Return the text of a data set's card.

    Args:
        description: Values of its `config.yaml`.
    """
    gates = ", ".join(description["gate_pool"])
    content = (
        f"{counted(description['num_circuits'], 'circuit')} of up to {description['num_qubits']} qubits and "
        f"{counted(description['max_gates'], 'gate')} of {gates}, labelled exactly "
        f"({description['condition_type']}, {counted(description['num_prompts'], 'prompt')})."
    )
    settings = description["settings"]
    made = "\n".join(f"- {key}: {value}" for key, value in sorted(settings.items()))
    parts = {
        "Content": content,
        "How it was made": f"By {description['software']}, with these settings:\n\n{made or '- not recorded'}",
        "Use": "```bash\nquantum-diffusion inspect FOLDER\nquantum-diffusion train training.general.dataset=FOLDER"
        "\n```\n`config.yaml` has a checksum of every file; the format is that of genQC, extended.",
    }
    return card_text({"task_categories": ["other"]}, "Quantum circuits", parts)
