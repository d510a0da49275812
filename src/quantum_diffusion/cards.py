"""Model and data set cards: README.md files whose front matter the Hub and `quantum-diffusion models` read.

A card that a user has written is never replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quantum_diffusion.files import yaml_text

CARD_FILE = "README.md"
_MARK = "<!-- Written by quantum_diffusion. Delete this line to keep your changes when it is written again. -->"


@dataclass(frozen=True)
class Card:
    """The front matter of a model's card.

    Attributes:
        command: The command that uses the model; empty if the card does not say.
        answers: What the model can be asked for.
        figures: How accurate it is.
    """

    command: str = ""
    answers: str = ""
    figures: str = ""


def read_card(folder: Path) -> Card:
    """Read the card of a model; returns an empty one if there is none or it is unreadable."""
    try:
        _, front, _ = (folder / CARD_FILE).read_text(encoding="utf-8").split("---\n", 2)
        values = yaml.safe_load(front)
        return Card(*(str(values.get(name, "")) for name in ("command", "answers", "figures")))
    except Exception:  # no file, no front matter, or one of YAML's many errors
        return Card()


def may_write_card(folder: Path) -> bool:
    """Tell whether a folder has no card, or one that still bears our mark."""
    try:
        return _MARK in (folder / CARD_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False


def card_text(front: Mapping[str, Any], title: str, parts: Mapping[str, str]) -> str:
    """Return the text of a card.

    Args:
        front: Plain values for its front matter.
        title: Its heading.
        parts: Text of each section by its heading.
    """
    matter = yaml_text({"library_name": "quantum-diffusion", "tags": ["quantum-circuits", "diffusion"], **front})
    body = "\n\n".join(f"## {heading}\n{text.strip()}" for heading, text in parts.items())
    return f"---\n{matter.strip()}\n---\n{_MARK}\n# {title}\n\n{body}\n"
