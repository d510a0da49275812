"""Features of prompts from a frozen text encoder, stored in memory, in the saved model and on disk.

`FrozenPromptEncoder` replaces `PromptEncoder` without trainable weights; CLIP is loaded only for unknown prompts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from quantum_diffusion.config.schema import ClipParams
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.files import new_file
from quantum_diffusion.models.clip import CONTEXT, ClipTextEncoder

logger = logging.getLogger(__name__)

EMPTY = ""
"""The prompt for "no condition"."""


def cache_folder() -> Path:
    """Return the folder of the features on disk: $XDG_CACHE_HOME/quantum_diffusion/clip, by default in ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(root)) / "quantum_diffusion" / "clip"


class PromptFeatures:
    """The features of a model's prompts and of others requested since.

    Args:
        params: The text encoder.
        own: The model's prompts. If `params.max_length` is None, the longest determines how many tokens the model sees.

    Attributes:
        length: Number of tokens that the model sees of each prompt (L); None if neither `params.max_length` nor the
            first features have set it yet.
    """

    def __init__(self, params: ClipParams, own: Sequence[str]) -> None:
        self.params = params
        self.length = params.max_length
        self._own = tuple(own)
        self._numbers: dict[str, int] = {}
        self._table = torch.zeros(0, params.max_length or CONTEXT, params.width)
        self._encoder: ClipTextEncoder | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptFeatures:
        """Return the object itself: copies of a network can share the features, which are only ever added to."""
        return self

    @property
    def prompts(self) -> list[str]:
        """The prompts whose features are known, in the order of the table."""
        return list(self._numbers)

    def numbers(self, prompts: Sequence[str]) -> list[int]:
        """Return the rows of prompts in the table, computing missing features first.

        Raises:
            ConfigError: CLIP is needed for an unknown prompt but cannot be loaded, or its features have the wrong
                width, or a prompt is too long.
        """
        wanted = [EMPTY, *self._own, *prompts] if self.length is None else [EMPTY, *prompts]
        missing = [prompt for prompt in dict.fromkeys(wanted) if prompt not in self._numbers]
        if missing:
            self._encode(missing)
        return [self._numbers[prompt] for prompt in prompts]

    def table(self, device: torch.device) -> Tensor:
        """Return all features on a device, float32 [N, L, E]; row 0 is the empty prompt's."""
        if self._table.device != device:
            self._table = self._table.to(device)
        return self._table

    @property
    def empty(self) -> Tensor:
        """The features of the empty prompt, on the device last passed to `table`, float32 [1, L, E]."""
        return self._table[:1]

    def add(self, prompts: Sequence[str], features: Tensor) -> None:
        """Add precomputed features, float32 [P, L, E]."""
        self._numbers |= {prompt: len(self._numbers) + row for row, prompt in enumerate(prompts)}
        self.length = features.shape[1]
        self._table = torch.cat([self._table[:, : self.length], features.to(self._table)])

    def saved(self) -> bytes:
        """Return the table as the content of a safetensors file, for `load_saved`."""
        texts = torch.frombuffer(bytearray(json.dumps(self.prompts).encode()), dtype=torch.uint8)
        return save({"features": self._table.cpu().contiguous(), "prompts": texts})

    def load_saved(self, content: bytes) -> None:
        """Add the features that `saved` returned.

        Raises:
            ValueError: The content is not from `saved`, or is of another width.
        """
        try:
            tensors = load(content)
            prompts, features = json.loads(bytes(tensors["prompts"].tolist())), tensors["features"]
        except (SafetensorError, KeyError, ValueError) as problem:
            raise ValueError("expected the features and the texts of prompts") from problem
        if features.shape != (len(prompts), features.shape[1], self.params.width) or prompts[:1] != [EMPTY]:
            raise ValueError(f"expected features of {self.params.width} channels a prompt, the empty one first")
        self.add(prompts, features)

    def take(self, other: PromptFeatures) -> None:
        """Adopt the features of a model that training starts from, so that its prompts need no CLIP.

        They are computed anew, at the first request, if the other model read prompts in another way (weights,
        vocabulary, layer, tokens) or lacks one of this model's prompts.
        """
        reads = set(ClipParams.model_fields) - {"max_length"}
        is_same = all(getattr(self.params, name) == getattr(other.params, name) for name in reads)
        has_all = set(self._own) <= set(other.prompts)
        if is_same and has_all and other.length and self.params.max_length in (None, other.length):
            self.add(other.prompts, other.table(torch.device("cpu")))

    def _encode(self, prompts: Sequence[str]) -> None:
        if self._encoder is None:
            try:
                self._encoder = ClipTextEncoder(self.params)
            except ConfigError as problem:
                raise ConfigError(f"{problem} (for the prompt {prompts[-1]!r}, whose features are not known)") from None
        encoder = self._encoder
        if encoder.width != self.params.width:
            raise ConfigError(
                f"the CLIP weights {self.params.weights!r} give features of {encoder.width} channels: set "
                f"text_encoder.params.width={encoder.width}, given {self.params.width}"
            )
        features, counts = _encode_once(encoder, prompts)
        own = [count for prompt, count in zip(prompts, counts, strict=True) if prompt in (EMPTY, *self._own)]
        length = self.length or max(own)
        for prompt, count in zip(prompts, counts, strict=True):
            if count > length:
                raise ConfigError(
                    f"the prompt {prompt!r} has {count} CLIP tokens, but the model sees {length}: its end would be "
                    "cut off; use shorter prompts, or train with text_encoder.params.max_length=77"
                )
        self.add(prompts, features[:, :length])


def _encode_once(encoder: ClipTextEncoder, prompts: Sequence[str]) -> tuple[Tensor, list[int]]:
    """Return features [P, CONTEXT, E] and token counts, from disk if they are cached there."""
    folder = cache_folder() / encoder.key
    files = [folder / f"{hashlib.sha256(prompt.encode()).hexdigest()}.safetensors" for prompt in prompts]
    kept = [_read_kept(file, encoder.width) for file in files]
    missing = [row for row, found in enumerate(kept) if found is None]
    if missing:
        features, counts = encoder.encode([prompts[row] for row in missing])
        for row, feature, count in zip(missing, features, counts.tolist(), strict=True):
            kept[row] = feature, count
        _keep(files, missing, features, counts)
    found = [pair for pair in kept if pair is not None]
    return torch.stack([feature for feature, _ in found]), [count for _, count in found]


def _keep(files: Sequence[Path], rows: Sequence[int], features: Tensor, counts: Tensor) -> None:
    """Write features to disk for later runs; a failure is only logged, since the features can be recomputed."""
    try:
        files[0].parent.mkdir(parents=True, exist_ok=True)
        for row, feature, count in zip(rows, features, counts, strict=True):
            with new_file(files[row], CheckpointError) as staging:
                staging.write_bytes(save({"features": feature.contiguous(), "count": count[None]}))
    except (OSError, CheckpointError) as problem:
        logger.warning("the features of prompts are not kept for later runs: %s", problem)


def _read_kept(file: Path, width: int) -> tuple[Tensor, int] | None:
    """Read cached features and their token count; None if the file is missing or damaged."""
    try:
        tensors = load(file.read_bytes())
        features, count = tensors["features"], int(tensors["count"][0])
    except (OSError, SafetensorError, KeyError, IndexError):
        return None
    is_whole = features.shape == (CONTEXT, width) and 0 < count <= CONTEXT
    return (features, count) if is_whole else None


class FrozenPromptEncoder(nn.Module):
    """Looks up conditions for prompts in a table of features; see `PromptEncoder`.

    Args:
        params: The text encoder.
        prompts: The model's prompts.
    """

    def __init__(self, params: ClipParams, prompts: Sequence[str]) -> None:
        super().__init__()
        self.width = params.width
        self.features = PromptFeatures(params, prompts)

    def read(self, prompts: Sequence[str]) -> Tensor:
        """Return the rows of prompts in the table, int64 [P, 1].

        Raises:
            ConfigError: See `PromptFeatures.numbers`.
        """
        return torch.tensor(self.features.numbers(prompts), dtype=torch.int64)[:, None]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Return the conditions of prompts, float32 [P, L, E], e.g. for `DatasetLoader.get_dataloaders`.

        Raises:
            ConfigError: See `PromptFeatures.numbers`.
        """
        rows = self.read(prompts)
        features: Tensor = self(rows)
        return features

    def forward(self, rows: Tensor) -> Tensor:
        """rows int64 [P, 1] => condition float32 [P, L, E]."""
        return self.features.table(rows.device)[rows[:, 0]]

    def null_condition(self, count: int, length: int) -> Tensor:
        """Return the condition for "no prompt", that of the empty prompt, float32 [count, L, E]."""
        return self.features.empty.expand(count, length, self.width)
