"""A tiny CLIP with random weights, and a stand-in for the library `open_clip` that genQC asks for it.

The stand-in computes as OpenCLIP's text tower does, from `torch.nn.MultiheadAttention`: an oracle of our own encoder.
"""

import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CONTEXT, WIDTH, LAYERS = 77, 64, 3
LETTERS = [chr(number) for number in range(33, 127) if not chr(number).isupper()]
VOCABULARY = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "sr", "srv</w>", "<|startoftext|>", "<|endoftext|>"]


class Block(nn.Module):
    """A block of OpenCLIP's transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 1, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(WIDTH, 4 * WIDTH))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """OpenCLIP's transformer."""

    batch_first = True

    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def get_cast_dtype(self) -> torch.dtype:
        return torch.float32


class TextTower(nn.Module):
    """The text side of an OpenCLIP model under OpenCLIP's names, with random weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.token_embedding = nn.Embedding(len(VOCABULARY), WIDTH)
            self.positional_embedding = nn.Parameter(0.1 * torch.randn(CONTEXT, WIDTH))
            self.transformer = Transformer()
            self.ln_final = nn.LayerNorm(WIDTH)
            self.text_projection = nn.Parameter(torch.randn(WIDTH, WIDTH))
            self.visual = nn.Linear(2, 2)
            for parameter in self.parameters():
                parameter.data.add_(0.02 * torch.randn_like(parameter))
        self.register_buffer("attn_mask", torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1), persistent=False)

    def features(self, tokens: Tensor, skipped: int) -> Tensor:
        """Return the normed features of a layer, counted from the last, as genQC computes them."""
        x = self.token_embedding(tokens) + self.positional_embedding
        for block in self.transformer.resblocks[: LAYERS - skipped]:
            x = block(x, attn_mask=self.attn_mask)
        return self.ln_final(x)


def write_vocabulary(folder: Path) -> None:
    """Write CLIP's vocabulary, of single letters and one word, as the Hub has it."""
    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\ns r\nsr v</w>\n")


def write_clip(folder: Path, seed: int = 0) -> Path:
    """Write a folder as OpenCLIP's models lie on the Hub; returns the folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder)
    save_file(TextTower(seed).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def install_open_clip(monkeypatch: pytest.MonkeyPatch, folder: Path, seed: int = 0) -> None:
    """Let genQC import a stand-in for `open_clip` that has the tiny CLIP for every architecture."""
    from transformers import CLIPTokenizer

    write_vocabulary(folder)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)

    def tokenize(texts: str | Sequence[str]) -> Tensor:
        rows = tokenizer([texts] if isinstance(texts, str) else list(texts))["input_ids"]
        return torch.tensor([row + [0] * (CONTEXT - len(row)) for row in rows])

    module: Any = types.ModuleType("open_clip")
    module.create_model_and_transforms = lambda *_, **__: (TextTower(seed), None, None)
    module.get_tokenizer = lambda arch: tokenize
    monkeypatch.setitem(sys.modules, "open_clip", module)
    monkeypatch.delitem(sys.modules, "genQC.models.frozen_open_clip", raising=False)
