"""The sections of the networks: the backbone, and the encoders of prompts, unitaries, states and prefixes.

Each has a type and the parameters of that type.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from quantum_diffusion.config.schema.values import Blocks, BlocksOrNone, Channels, Fraction, Heads, PathText, Width
from quantum_diffusion.config.validation import Kinds, Part, Section


def _check_heads(width: int, num_heads: int) -> None:
    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")


class UNetParams(Section):
    """The conditional U-Net of the literature, with genQC's key names."""

    model_features: Annotated[tuple[Width, ...], Field(max_length=10)] = (128, 128, 256)
    """Channels of each level, multiples of 32; use 64 or more, as 32 leaves one channel per normalisation group."""
    clr_dim: Channels = 4
    """Width of the gate embedding."""
    t_emb_size: Annotated[int, Field(ge=2, le=2**15, multiple_of=2)] = 256
    """Width of the time embedding, even."""
    num_heads: tuple[Heads, ...] = (8, 8, 2)
    """Attention heads of each level."""
    num_res_blocks: tuple[Blocks, ...] = (2, 2, 4)
    """Residual blocks of each level."""
    transformer_depths: tuple[BlocksOrNone, ...] = (1, 2, 1)
    """Transformer blocks of each level."""

    @model_validator(mode="after")
    def _check(self) -> UNetParams:
        levels = len(self.model_features)
        if levels < 2 or not levels == len(self.num_heads) == len(self.num_res_blocks) == len(self.transformer_depths):
            raise ValueError(
                "model_features, num_heads, num_res_blocks and transformer_depths need one entry per level, 2 or more, "
                f"given {levels}, {len(self.num_heads)}, {len(self.num_res_blocks)} and {len(self.transformer_depths)}"
            )
        if not any(self.transformer_depths):
            raise ValueError("transformer_depths has no blocks, but only these see the prompt: give at least one")
        for features, heads in zip(self.model_features, self.num_heads, strict=True):
            if features % 32 or features % heads:
                raise ValueError(f"model_features {features} must be a multiple of 32 and of its {heads} heads")
        return self


class TransformerParams(Section):
    """A light transformer with one token per time step."""

    width: Width = 128
    """Channels of a token."""
    depth: Blocks = 3
    """Number of blocks."""
    num_heads: Heads = 4
    """Attention heads."""
    feed_forward: Annotated[int, Field(ge=1, le=64)] = 4
    """Width of the feed-forward layer as a multiple of `width`."""
    clr_dim: Channels = 4
    """Width of the gate embedding (Gaussian processes only)."""

    @model_validator(mode="after")
    def _check(self) -> TransformerParams:
        _check_heads(self.width, self.num_heads)
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even")
        return self


class PolicyParams(Section):
    """A network without attention, for masked models whose steps are conditioned on the remaining target."""

    width: Width = 256
    """Channels of a step."""
    depth: Blocks = 4
    """Number of blocks."""
    feed_forward: Annotated[int, Field(ge=1, le=64)] = 2
    """Width of a block's hidden layer as a multiple of `width`."""


class ModelConfig(Part):
    """The backbone (keys `training.model.*`)."""

    kinds: ClassVar[Kinds] = {"unet": UNetParams, "transformer": TransformerParams, "policy": PolicyParams}

    type: Literal["transformer", "unet", "policy"] = "transformer"
    """Type of backbone. policy sees only the remaining target, not the earlier gates, and learns several times faster;
    it is for models that condition every step on the remaining target."""
    params: UNetParams | TransformerParams | PolicyParams = TransformerParams()
    """Its parameters."""


class PromptEncoderParams(Section):
    """A condition encoder that needs no download: words of a small fixed vocabulary, then a transformer."""

    width: Width = 128
    """Channels E of the condition."""
    depth: BlocksOrNone = 1
    """Transformer blocks; 0 uses only the word and position embeddings."""
    num_heads: Heads = 4
    """Attention heads."""

    @model_validator(mode="after")
    def _check(self) -> PromptEncoderParams:
        _check_heads(self.width, self.num_heads)
        return self


class ClipParams(Section):
    """A frozen CLIP text encoder, as genQC's models have (extra `clip`)."""

    weights: PathText = "hf://laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"
    """CLIP's weights: a folder that transformers or OpenCLIP saved, an OpenCLIP state dict (.safetensors, .bin, .pt),
    or hf://owner/name."""
    tokenizer: PathText | None = None
    """Folder of its vocabulary (tokenizer.json, or vocab.json and merges.txt); null looks beside the weights."""
    layer: Literal["penultimate", "last"] = "penultimate"
    """Layer whose features are the condition."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """Activation of OpenCLIP weights, which do not name theirs; quick_gelu for OpenAI's."""
    width: Width = 512
    """Channels E of the features: 512 for ViT-B."""
    max_length: Annotated[int, Field(ge=1, le=77)] | None = None
    """Tokens of a prompt that the model sees; null takes as many as its longest prompt has."""


class TextEncoderConfig(Part):
    """The condition encoder (keys `training.text_encoder.*`)."""

    kinds: ClassVar[Kinds] = {"prompt": PromptEncoderParams, "clip": ClipParams}

    type: Literal["prompt", "clip"] = "prompt"
    """Type of encoder: prompt learns the words of prompts and needs no download; clip is CLIP's frozen text encoder."""
    params: PromptEncoderParams | ClipParams = PromptEncoderParams()
    """Its parameters."""


class MatrixParams(Section):
    """A light unitary encoder that ignores the global phase."""

    width: Width = 256
    """Hidden channels."""
    depth: BlocksOrNone = 2
    """Residual blocks."""
    remaining: bool = False
    """Condition every step on the remaining unitary, U V^dagger, where V is the unitary of the earlier gates (masked
    models)."""
    normalize: bool = False
    """Normalise after the first layer, so that larger networks can train at high learning rates."""


class ConvolutionParams(Section):
    """genQC's unitary encoder, which treats the matrix as an image."""

    features: tuple[Width, Width] = (32, 64)
    """Channels before and after the image is halved, multiples of 32."""
    num_heads: Heads = 8
    """Attention heads, a divisor of the features."""
    transformer_depths: tuple[BlocksOrNone, BlocksOrNone] = (2, 2)
    """Transformer blocks before and after."""
    dropout: Fraction = 0.2
    """Dropout rate of the blocks in training."""

    @model_validator(mode="after")
    def _check(self) -> ConvolutionParams:
        for features in self.features:
            if features % 32 or features % self.num_heads:
                raise ValueError(f"features {features} must be a multiple of 32 and of the {self.num_heads} heads")
        return self


class AmplitudesParams(Section):
    """A light state encoder of all amplitudes, without their global phase."""

    width: Width = 256
    """Hidden channels."""
    depth: BlocksOrNone = 2
    """Residual blocks."""
    remaining: bool = False
    """Condition every step on the state that the earlier gates prepare and on the state that remains to be prepared
    (masked models)."""


class PrefixParams(Section):
    """A feed-forward network over the state that a circuit's prefix prepares from |0..0>."""

    width: Width = 256
    """Hidden channels."""
    depth: BlocksOrNone = 2
    """Residual blocks."""


MOST_AMPLITUDE_QUBITS = 12
"""Limit for models whose steps see the prefix's state: all of its amplitudes are the input of one layer."""


class PrefixEncoderConfig(Part):
    """What each step sees of the state that the earlier gates prepare (keys `training.prefix_encoder.*`).

    For masked models; used only with data sets of Schmidt rank vectors.
    """

    kinds: ClassVar[Kinds] = dict.fromkeys(("none", "state", "srv", "pairs", "tableau"), PrefixParams)
    show_nothing: ClassVar[str] = "type=none"

    type: Literal["none", "state", "srv", "pairs", "tableau"] = "none"
    """state: all amplitudes and which qubits are entangled; srv: only which qubits are entangled; pairs: the reduced
    states of all pairs of qubits and which are entangled; tableau: the stabilizer tableau, for Clifford gates on too
    many qubits for the state; none: nothing."""
    params: PrefixParams = PrefixParams()
    """Its parameters."""

    @property
    def shows_steps(self) -> bool:
        """Whether every step is conditioned on the remaining target."""
        return self.type != "none"


class StateEncoderConfig(Part):
    """The encoder of states (keys `training.state_encoder.*`); used only with data sets of states."""

    kinds: ClassVar[Kinds] = {"amplitudes": AmplitudesParams}
    show_nothing: ClassVar[str] = "params.remaining=false"

    type: Literal["amplitudes"] = "amplitudes"
    """Type of encoder."""
    params: AmplitudesParams = AmplitudesParams()
    """Its parameters."""

    @property
    def shows_steps(self) -> bool:
        """Whether every step is conditioned on the remaining target."""
        return self.params.remaining


class UnitaryEncoderConfig(Part):
    """The encoder of unitaries (keys `training.unitary_encoder.*`); used only with data sets of unitaries."""

    kinds: ClassVar[Kinds] = {"matrix": MatrixParams, "pauli": MatrixParams, "convolution": ConvolutionParams}
    show_nothing: ClassVar[str] = "params.remaining=false"

    type: Literal["matrix", "pauli", "convolution"] = "matrix"
    """matrix: all entries of the matrix; pauli: how the unitary moves Pauli operators, for gates with angles (up to 5
    qubits); convolution: genQC's, which treats the matrix as an image."""
    params: MatrixParams | ConvolutionParams = MatrixParams()
    """Its parameters."""

    @property
    def shows_steps(self) -> bool:
        """Whether every step is conditioned on the remaining target."""
        return isinstance(self.params, MatrixParams) and self.params.remaining
