"""Encodes prompts as conditions for the backbones, with a small vocabulary and without any download.

Only a handful of words matter in prompts such as "Generate SRV: [1, 2, 2]"; a learned embedding distinguishes them,
while CLIP's text embeddings hardly do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.errors import ConfigError, counted, quoted, unknown_name

PADDING_WORD = 0

FIRST_WORDS: tuple[str, ...] = (
    *("generate", "srv", "compile", "using", "1", "2"),
    *("ccx", "cswap", "cx", "cy", "cz", "h", "s", "sdg", "swap", "t", "tdg", "x", "y", "z"),
)
"""The vocabulary of old saved models, which do not store their own; it must never change."""

WORDS: tuple[str, ...] = (*FIRST_WORDS, *(gate for gate in GATES if gate not in FIRST_WORDS))
"""All words of prompts. Models store their own vocabularies; see `vocabulary_of`."""

MAX_WORDS = 64


def vocabulary_of(gates: Iterable[str], words: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the vocabulary of a new model of some gates, and of a task with some words of its own.

    It has no other gates, so that models of the same gates stay the same when a gate is added to the table.
    """
    return tuple(dict.fromkeys((*FIRST_WORDS, *gates, *words)))


def tokenize_prompts(prompts: Sequence[str], vocabulary: Sequence[str] = WORDS, min_length: int = 1) -> Tensor:
    """Split prompts into the words of a vocabulary.

    Args:
        prompts: P texts, at least one.
        vocabulary: The known words, numbered from 1; 0 is `PADDING_WORD`.
        min_length: Minimum S.

    Returns:
        int64 [P, S] with S the length of the longest prompt, at least `min_length`; shorter prompts end in
        `PADDING_WORD`.

    Raises:
        ConfigError: There is no prompt, or one is empty, too long, or has a word outside the vocabulary.

    Example:
        >>> tokenize_prompts(["Generate SRV: [1, 2]", "Compile using: ['h']"]).shape
        torch.Size([2, 4])
    """
    numbers = {word: number for number, word in enumerate(vocabulary, start=1)}
    rows = []
    for prompt in prompts:
        words = re.findall(r"[a-z_]+|\d+", prompt.lower())
        for word in words:
            if word not in numbers:
                raise ConfigError(f"prompt {quoted(prompt)}: {unknown_name('word', word, vocabulary)}")
        if not 0 < len(words) <= MAX_WORDS:
            raise ConfigError(f"prompt {quoted(prompt)} has {counted(len(words), 'word')}: give 1 to {MAX_WORDS}")
        rows.append([numbers[word] for word in words])
    if not rows:
        raise ConfigError("no prompts were given: give at least one, e.g. 'Generate SRV: [1, 2, 2]'")
    longest = max(min_length, *map(len, rows))
    return torch.tensor([row + [PADDING_WORD] * (longest - len(row)) for row in rows])


class PromptEncoder(nn.Module):
    """Embeddings of words and positions, followed by a small transformer.

    Args:
        vocabulary: The words that are known; see `tokenize_prompts`.
        prompts: Those of the model; every prompt is padded to the longest of them.
        width: E, channels of the condition.
        depth: Number of transformer blocks; 0 uses the embeddings alone.
        num_heads: Number of attention heads, a divisor of `width`.
    """

    def __init__(
        self, *, vocabulary: Sequence[str], prompts: Sequence[str], width: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        self.width = width
        self._vocabulary = tuple(vocabulary)
        self._length = tokenize_prompts(prompts, vocabulary).shape[1]
        self.words = nn.Embedding(1 + len(vocabulary), width)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.5)
        self.null = nn.Parameter(torch.randn(width) * 0.5)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False) if depth else None

    def read(self, prompts: Sequence[str]) -> Tensor:
        """Split prompts into words, int64 [P, S]; see `tokenize_prompts`.

        As long as in training: padding words weigh in the condition, so a sample must not depend on its neighbours'.
        """
        return tokenize_prompts(prompts, self._vocabulary, self._length)

    def forward(self, words: Tensor) -> Tensor:
        """words int64 [P, S] => condition float32 [P, S, E]; padding words give zeros."""
        is_padding = words == PADDING_WORD
        x = self.words(words) + self.positions[: words.shape[1]]  # [P, S, E]
        if self.blocks is not None:
            x = self.blocks(x, src_key_padding_mask=is_padding)
        return torch.where(is_padding[..., None], 0.0, x)

    def null_condition(self, count: int, length: int) -> Tensor:
        """Return the null condition ("no prompt"), float32 [count, length, E]."""
        return self.null.expand(count, length, self.width)
