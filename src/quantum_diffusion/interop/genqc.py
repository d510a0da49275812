"""Converts U-Net weights between genQC 0.2.5 and this package, name by name and strictly, in both directions.

Only this module knows genQC's parameter names; it reads and writes no files and does not import genQC.

genQC's U-Net includes parts that are separate here: the gate embedding (`GateEmbedding.weight`), the sinusoidal
tables, which we compute by formula, and for compilation the unitary encoder. The weights of a compilation U-Net are
passed as `unet.state_dict() | encoder.state_dict(prefix=UNITARY_ENCODER)`. genQC's attention stores query, key and
value in one matrix; our cross-attention stores the query separately, because query and key read different inputs.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from quantum_diffusion.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

UNITARY_ENCODER = "unitary_encoder."
"""Prefix of the unitary encoder's weights when they are stored with those of the U-Net, in genQC and here."""

_EMBEDDING = "emb_clr.weight"
_TIME_TABLE = "t_emb.pe"
_POSITION_TABLE = "pos_enc.pe"

# Our names => genQC's, applied in this order.
_RENAMES = tuple(
    (re.compile(ours), genqc)
    for ours, genqc in (
        (r"^time_embedding\.", "t_emb."),
        (r"^down_levels\.(\d+)\.", r"encoder.enc_blocks.\1."),
        (r"^downsamples\.(\d+)\.", r"encoder.enc_blocks.\1.down.conv1."),
        (r"^middle\.", "encoder.mid_block."),
        (r"^upsamples\.(\d+)\.", r"decoder.dec_blocks.\1.up.conv1."),
        (r"^up_levels\.(\d+)\.", r"decoder.dec_blocks.\1."),
        (r"^unitary_encoder\.fine\.blocks\.", "unitary_encoder.spatialTransformer1.transformer_blocks."),
        (r"^unitary_encoder\.fine\.", "unitary_encoder.spatialTransformer1."),
        (r"^unitary_encoder\.downsample\.", "unitary_encoder.down1.conv1."),
        (r"^unitary_encoder\.coarse\.blocks\.", "unitary_encoder.spatialTransformer2.transformer_blocks."),
        (r"^unitary_encoder\.coarse\.", "unitary_encoder.spatialTransformer2."),
        (r"\.res_blocks\.", ".resBlocks."),
        (r"\.time_projection\.", ".t_proj."),
        (r"\.skip\.", ".skip_connection."),
        (r"\.transformer\.blocks\.", ".transformer.transformer_blocks."),
        (r"\.transformer\.", ".spatialTransformer."),
        (r"\.condition_projection\.", ".cat_proj."),
        (r"\.self_attention\.query_key_value\.", ".self_att.in_proj_"),
        (r"\.self_attention\.output\.", ".self_att.out_proj."),
        # Two of our weights share one of genQC's: see `_part_of`.
        (r"\.cross_attention\.(?:query|key_value)\.", ".cross_att.in_proj_"),
        (r"\.cross_attention\.output\.", ".cross_att.out_proj."),
        (r"\.feed_forward\.hidden\.", ".ff.proj1."),
        (r"\.feed_forward\.output\.", ".ff.proj2."),
    )
)


def unet_weights_from_genqc(
    state_dict: "Mapping[str, Tensor]", expected: "Mapping[str, Tensor]"
) -> "dict[str, Tensor]":
    """Rename the weights of genQC's U-Net for `ConditionalUNet.load_state_dict`.

    Args:
        state_dict: `state_dict()` of genQC's `QC_Cond_UNet` or `QC_Compilation_UNet`. Its gate embedding is ignored
            (see `gate_embedding_from_genqc`); its sinusoidal tables may be missing, but must not differ from ours.
        expected: `ConditionalUNet.state_dict()` of the model to fill, for compilation together with that of its
            unitary encoder (prefix `UNITARY_ENCODER`); only names and shapes are read.

    Returns:
        The tensors under the names of `expected`; they share memory with `state_dict`.

    Raises:
        CheckpointError: A name is missing or unknown, or a shape or a sinusoidal table differs from ours.
    """
    sources = {name: _genqc_name(name) for name in expected}
    fixed = {_EMBEDDING, *_tables(expected)}
    _check_names("genQC's U-Net weights", set(state_dict) - fixed, sources.values())

    weights = {}
    for name, like in expected.items():
        tensor = _part_of(name, state_dict[sources[name]])
        if tensor.shape != like.shape:
            raise CheckpointError(
                f"genQC's weight {sources[name]!r} gives {name!r} the shape {tuple(tensor.shape)}: expected "
                f"{tuple(like.shape)}; build the model with the sizes the weights were trained with"
            )
        weights[name] = tensor
    _check_tables(state_dict, weights)
    return weights


def gate_embedding_from_genqc(state_dict: "Mapping[str, Tensor]") -> "Tensor":
    """Return the gate embedding of genQC's U-Net, for `GateEmbedding.weight`.

    Args:
        state_dict: `state_dict()` of a genQC pipeline's embedder or, in a legacy folder, of its model.

    Returns:
        Float [V, C], shares memory with `state_dict`.

    Raises:
        CheckpointError: There is no gate embedding.
    """
    if _EMBEDDING not in state_dict:
        raise CheckpointError(f"genQC's weights hold no {_EMBEDDING!r}: expected those of a U-Net, not of an encoder")
    return state_dict[_EMBEDDING]


def unet_weights_to_genqc(
    weights: "Mapping[str, Tensor]", gate_embedding: "Tensor", expected: Collection[str]
) -> "dict[str, Tensor]":
    """Rename the weights of a `ConditionalUNet` for genQC's `QC_Cond_UNet.load_state_dict(strict=True)`.

    Args:
        weights: `ConditionalUNet.state_dict()`, or averaged weights under the same names. Together with those of a
            unitary encoder (prefix `UNITARY_ENCODER`) they become the weights of a `QC_Compilation_UNet`.
        gate_embedding: `GateEmbedding.weight`, float [V, C]; V is genQC's `num_clrs`.
        expected: The exact names that `weights` must have: those of the model's `state_dict()`.

    Returns:
        Weights, gate embedding and sinusoidal tables under genQC's names, all contiguous.

    Raises:
        CheckpointError: A name is missing or unknown.
    """
    import torch

    _check_names("U-Net weights", weights, expected)
    parts: dict[str, list[Tensor]] = {}
    # In descending order each `query` comes before its `key_value`, as in genQC's joint matrix.
    for name in sorted(weights, reverse=True):
        parts.setdefault(_genqc_name(name), []).append(weights[name])
    renamed = {name: torch.cat(tensors).contiguous() for name, tensors in parts.items()}
    return renamed | _tables(weights) | {_EMBEDDING: gate_embedding.contiguous()}


def _genqc_name(name: str) -> str:
    for ours, genqc in _RENAMES:
        name = ours.sub(genqc, name)
    return name


def _part_of(name: str, tensor: "Tensor") -> "Tensor":
    """Slice our part out of a joint projection: its first third is the query, the rest key and value."""
    features = tensor.shape[0] // 3
    if ".cross_attention.query." in name:
        return tensor[:features]
    if ".cross_attention.key_value." in name:
        return tensor[features:]
    return tensor


def _check_names(what: str, given: Iterable[str], expected: Iterable[str]) -> None:
    given, expected = set(given), set(expected)
    problems = [
        f"{kind} {len(names)} of {total}, e.g. {sorted(names)[:3]}"
        for kind, names, total in (
            ("missing", expected - given, len(expected)),
            ("unknown", given - expected, len(given)),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{what} do not fit the model: {'; '.join(problems)}")


def _tables(weights: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Compute genQC's sinusoidal tables; the other weights determine their widths."""
    from quantum_diffusion.models.layers import MAX_POSITIONS, sinusoidal_table

    time_embedding_dim = weights["time_embedding.feed_forward.hidden.weight"].shape[1]
    tables = {_TIME_TABLE: sinusoidal_table(MAX_POSITIONS, time_embedding_dim)}  # [5000, time_embedding_dim]
    for prefix in ("", UNITARY_ENCODER):
        if f"{prefix}conv_in.weight" in weights:
            features = weights[f"{prefix}conv_in.weight"].shape[0]
            table = sinusoidal_table(MAX_POSITIONS, features // 2).T.contiguous()  # [F_0 / 2, 5000]
            tables[prefix + _POSITION_TABLE] = table
    return tables


def _check_tables(state_dict: "Mapping[str, Tensor]", weights: "Mapping[str, Tensor]") -> None:
    for name, ours in _tables(weights).items():
        theirs = state_dict.get(name, ours)
        # The tolerance is loose: half-precision files round the table, and the sine of large angles differs between
        # platforms.
        if theirs.shape != ours.shape or (theirs.float().cpu() - ours).abs().max() > 1e-2:
            raise CheckpointError(
                f"genQC's table {name!r} is not the sinusoidal one of genQC 0.2.5: the weights were trained "
                "with another encoding of steps or positions and would predict wrongly here"
            )
