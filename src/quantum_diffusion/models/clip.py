"""The frozen text encoder of CLIP: turns prompts into the features that genQC's models are conditioned on.

`models.prompt_features` stores the features, so that each prompt is encoded only once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantum_diffusion.config.schema import ClipParams
from quantum_diffusion.errors import ConfigError, first_line, quoted_path
from quantum_diffusion.files import sha256_of
from quantum_diffusion.hub import download, hub_address
from quantum_diffusion.models.weight_files import check_weights, read_weights

CONTEXT = 77
"""Number of tokens that CLIP reads; shorter prompts are padded with zeros, which are not masked, as in OpenCLIP."""

VARIABLE = "QUANTUM_DIFFUSION_CLIP"
"""Environment variable with the path of CLIP's weights on this machine."""

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HUB_FILES = ("config.json", "model.safetensors", "pytorch_model.bin", *_OPEN_CLIP_FILES, *_TOKENIZER_FILES)

_BATCH = 256

_OPEN_CLIP_NAMES = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"^token_embedding\.", "embeddings.token_embedding."),
        (r"^positional_embedding$", "embeddings.position_embedding.weight"),
        (r"^ln_final\.", "final_layer_norm."),
        (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"encoder.layers.\1.layer_norm\2."),
        (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
        (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
        (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
        # Query, key and value in one matrix, which `_from_open_clip` splits.
        (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"encoder.layers.\1.self_attn.in_proj."),
    )
)
"""OpenCLIP's weight names => those of transformers."""


class ClipTextEncoder:
    """A frozen text encoder and its tokenizer.

    Args:
        params: Where to find the weights and the vocabulary, and which layer's features to return.

    Raises:
        ConfigError: The extra `clip` is not installed, or the weights or the vocabulary cannot be found or read. The
            message says what to do.

    Attributes:
        key: Hash of weights, vocabulary and layer: encoders with the same key give the same features.
    """

    def __init__(self, params: ClipParams) -> None:
        transformers = _transformers()
        place = _find(params)
        file = _weights_file(place)
        with _quiet(transformers):
            self._tokenizer = _read_tokenizer(transformers, _tokenizer_folder(params, place))
            self._model = _read_model(transformers, file, params.activation)
        self._layer = -2 if params.layer == "penultimate" else -1
        vocabulary = json.dumps(sorted(self._tokenizer.get_vocab().items())).encode()
        self.key = hashlib.sha256(b"".join([sha256_of(file).encode(), vocabulary, params.layer.encode()])).hexdigest()

    @property
    def width(self) -> int:
        """Number of channels of the features (E)."""
        return int(self._model.config.hidden_size)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Split prompts into tokens, int64 [P, CONTEXT], padded with zeros.

        Raises:
            ConfigError: A prompt has more than `CONTEXT` tokens.
        """
        rows = self._tokenizer(list(prompts), padding=False, truncation=False)["input_ids"]
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) > CONTEXT:
                raise ConfigError(f"prompt {prompt!r} has {len(row)} CLIP tokens: expected at most {CONTEXT}")
        return torch.tensor([row + [0] * (CONTEXT - len(row)) for row in rows])

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the features of prompts, float32 [P, CONTEXT, E], and their numbers of tokens, int64 [P].

        Attention is causal, so the features of the first L tokens do not depend on the rest.
        """
        tokens = self.tokenize(prompts)
        features = [self._features(some) for some in tokens.split(_BATCH)]
        positions = torch.arange(1, CONTEXT + 1)
        counts = (positions * (tokens != 0)).amax(dim=1)  # up to the end token: token 0 is also a word, "!"
        return torch.cat(features), counts

    def _features(self, tokens: Tensor) -> Tensor:
        hidden = self._model(input_ids=tokens, output_hidden_states=True).hidden_states[self._layer]
        normed: Tensor = self._model.final_layer_norm(hidden)
        return normed.float()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            "text_encoder.type=clip needs the extra `clip`: pip install 'quantum_diffusion[clip]' -c constraints.txt, "
            "or use text_encoder.type=prompt"
        ) from None
    return transformers


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence the progress bars and messages of transformers."""
    logging = transformers.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _find(params: ClipParams) -> Path:
    """Return the folder or file of the weights.

    A saved model names the weights on the machine where it was trained, and genQC's models those on the Hub. If these
    are not a path on this machine, the environment variable takes precedence.

    Raises:
        ConfigError: There are no weights.
    """
    given = params.weights
    if not os.path.exists(given):
        given = os.environ.get(VARIABLE) or given
    address = hub_address(given, ConfigError)
    if address is None:
        place = Path(os.path.expanduser(given))
        if not place.exists():
            raise ConfigError(f"no CLIP weights at {quoted_path(given)}: {_WAYS_OUT}")
        return place
    try:
        return download(address, "model", _HUB_FILES, ConfigError)
    except ConfigError as problem:
        raise ConfigError(f"{first_line(problem).partition(': connect')[0]}: {_WAYS_OUT}") from None


_WAYS_OUT = (
    f"set {VARIABLE} (in training also training.text_encoder.params.weights) to a folder or file on this machine, as "
    "transformers or OpenCLIP save it, connect once to download it, or use prompts that the model was saved with"
)


def _weights_file(place: Path) -> Path:
    """Return the file with the weights.

    Raises:
        ConfigError: The folder has no such file.
    """
    if place.is_file():
        return place
    names: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin") if (place / "config.json").is_file() else ()
    for name in (*names, *_OPEN_CLIP_FILES):
        if (place / name).is_file():
            return place / name
    raise ConfigError(
        f"{str(place)!r} holds no CLIP weights: expected config.json with model.safetensors (transformers), or "
        f"{' or '.join(_OPEN_CLIP_FILES)}"
    )


def _tokenizer_folder(params: ClipParams, place: Path) -> Path:
    """Return the folder of the vocabulary: the given one, or that of the weights.

    Raises:
        ConfigError: It has no vocabulary.
    """
    beside = place if place.is_dir() else place.parent
    folder = beside if params.tokenizer is None else Path(os.path.expanduser(params.tokenizer))
    if (folder / "tokenizer.json").is_file() or all((folder / name).is_file() for name in _TOKENIZER_FILES[:2]):
        return folder
    raise ConfigError(
        f"no CLIP vocabulary in {str(folder)!r}: give text_encoder.params.tokenizer, a folder with tokenizer.json, or "
        "with vocab.json and merges.txt"
    )


def _read_tokenizer(transformers: Any, folder: Path) -> Any:
    try:
        return transformers.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as problem:  # its parser raises plain Exceptions
        raise ConfigError(f"cannot read the CLIP vocabulary in {str(folder)!r}: {first_line(problem)}") from problem


def _read_model(transformers: Any, file: Path, activation: str) -> Any:
    """Build the text encoder in evaluation mode and load its weights, none of which may be missing."""
    state = read_weights(file, ConfigError)
    try:
        if "token_embedding.weight" in {name.removeprefix("text.") for name in state}:
            state = _from_open_clip(state)
            config = _open_clip_config(transformers, state, activation)
        else:
            state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
            config = transformers.CLIPTextConfig.from_pretrained(str(file.parent), local_files_only=True)
        model = transformers.CLIPTextModel(config)
        wanted = model.state_dict().keys()
        state = {name: tensor for name, tensor in state.items() if name in wanted}  # no vision, no projection
        check_weights(state, file, ConfigError)
        state = {name: tensor.float() for name, tensor in state.items()}
        missing = sorted(wanted - state.keys())
        if missing:
            raise ValueError(f"{len(missing)} of {len(wanted)} weights are missing, e.g. {missing[:3]}")
        model.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, OSError) as problem:
        raise ConfigError(f"{str(file)!r} is no CLIP text encoder: {first_line(problem)}") from problem
    return model.eval().requires_grad_(False)


def _from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename OpenCLIP's text encoder weights, with or without the prefix `text.`; other weights keep their names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = name.removeprefix("text.")
        for theirs, replacement in _OPEN_CLIP_NAMES:
            ours = theirs.sub(replacement, ours)
        if ".in_proj." in ours:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[ours.replace("in_proj", f"{part}_proj")] = third
        else:
            renamed[ours] = tensor
    return renamed


def _open_clip_config(transformers: Any, state: Mapping[str, Tensor], activation: str) -> Any:
    """Infer the configuration from the shapes of the weights; heads have 64 channels, as in all CLIP text encoders."""
    vocabulary_size, width = state["embeddings.token_embedding.weight"].shape
    layers = 1 + max(int(found[1]) for name in state if (found := re.match(r"encoder\.layers\.(\d+)\.", name)))
    return transformers.CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=len(state["encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=len(state["embeddings.position_embedding.weight"]),
        hidden_act=activation,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
    )
