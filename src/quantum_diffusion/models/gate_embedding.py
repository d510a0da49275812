"""A fixed table that embeds gate tokens as continuous vectors and decodes them: tokens => x_0 => tokens.

Gaussian diffusion works on the vectors. The table is not trained; it is a buffer saved with the weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_VOCABULARY = 127
"""Tokens are int8, and V itself marks a cell that is not a token."""


class GateEmbedding(nn.Module):
    """Embed signed gate tokens as signed rows of a fixed table, and decode them by the largest cosine.

    A token's magnitude is the gate (0 no gate, then the pool from 1, then padding) and selects the row; its sign
    distinguishes a control (-) from a target (+) and becomes the row's sign. Token 0 has no sign.

    With at least as many channels as magnitudes, the rows are orthonormal. With fewer, the columns are; rows then
    overlap and differ in length, which the cosine ignores. `invert(embed(tokens)) == tokens` only requires that no two
    rows are collinear. With two or more channels, a random table satisfies this unless the vocabulary is so large that
    two rows come within 1.4e-3 radians, near the resolution of a float32 cosine; the constructor refuses such a table.

    Args:
        vocabulary_size: Number V of token magnitudes, `len(gate_pool) + 2`; 1 to 127 for int8 tokens.
        channels: Channels C of the embedding, at least 2 (with one, all rows are collinear).
        generator: Source of the table's randomness; None uses torch's default generator.

    Attributes:
        weight: Float32 buffer [V, C].

    Raises:
        ValueError: An argument is out of range, or two rows of the table are too similar.

    Example:
        >>> embedding = GateEmbedding(vocabulary_size=4, channels=4)  # pool (h, cx)
        >>> tokens = torch.tensor([[[1, -2, 0, 3], [0, 2, 0, 3]]], dtype=torch.int8)
        >>> x0 = embedding.embed(tokens)
        >>> x0.shape, torch.equal(embedding.invert(x0), tokens)
        (torch.Size([1, 4, 2, 4]), True)

    Reference:
        Fürrutter, Muñoz-Gil, Briegel, "Quantum circuit synthesis with diffusion models", arXiv:2311.02041.
    """

    weight: Tensor

    def __init__(self, vocabulary_size: int, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 1 <= vocabulary_size <= MAX_VOCABULARY:
            raise ValueError(f"vocabulary_size={vocabulary_size!r}: expected 1 to {MAX_VOCABULARY}, as tokens are int8")
        if channels < 2:
            raise ValueError(f"channels={channels!r}: expected at least 2, as one channel only distinguishes signs")
        weight = torch.empty(vocabulary_size, channels)
        nn.init.orthogonal_(weight, generator=generator)
        _check_rows_differ(weight)
        self.register_buffer("weight", weight)

    @property
    def vocabulary_size(self) -> int:
        """Number V of token magnitudes."""
        return self.weight.shape[0]

    @property
    def channels(self) -> int:
        """Number C of channels."""
        return self.weight.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed tokens: tokens => x_0.

        Args:
            tokens: Integers of any width [B, Q, T], each in [-(V - 1), V - 1].

        Returns:
            The table's dtype, [B, C, Q, T], in the channels-last memory layout that the U-Net uses.
        """
        rows = F.embedding(self.classes(tokens), self._signed_rows())  # [B, Q, T, C]
        return rows.permute(0, 3, 1, 2)  # [B, C, Q, T]

    def _signed_rows(self) -> Tensor:
        """Return the rows of tokens -(V - 1) to V - 1, [2 V - 1, C], so that one lookup gives magnitude and sign."""
        return torch.cat([-self.weight[1:].flip(0), self.weight])

    def classes(self, tokens: Tensor) -> Tensor:
        """Number the signed tokens from 0: integers [B, Q, T] => int64 [B, Q, T], `token + V - 1`."""
        return tokens.long() + self.vocabulary_size - 1

    def expectation(self, probabilities: Tensor) -> Tensor:
        """Average the signed rows: probabilities of the classes [B, 2 V - 1, Q, T] => [B, C, Q, T]."""
        return torch.einsum("bkqt,kc->bcqt", probabilities, self._signed_rows())

    @torch.no_grad()
    def invert(self, x: Tensor) -> Tensor:
        """Decode every cell to the token whose row has the largest absolute cosine with it: x_0 => tokens.

        The token gets the sign of the cosine, also for padding, whose sign the tokenizer ignores. A cell of zeros
        decodes to 0, a cell with NaN to V, which is not a token.

        Args:
            x: Float [B, C, Q, T].

        Returns:
            int8 [B, Q, T].
        """
        # A cell's length scales all its cosines equally, so only the rows need normalising.
        similarity = _inner_products(x, F.normalize(self.weight, dim=1))  # [B, V, Q, T]
        magnitude = similarity.abs().argmax(dim=1, keepdim=True)  # [B, 1, Q, T]
        best = similarity.gather(1, magnitude)  # [B, 1, Q, T]
        tokens = torch.where(best < 0, -magnitude, magnitude)
        tokens = torch.where(best.isnan(), self.vocabulary_size, tokens)  # not a token: the tokenizer will report it
        return tokens.squeeze(1).to(torch.int8)  # [B, Q, T]

    def logits(self, x: Tensor) -> Tensor:
        """Score every signed token by its inner product with the cell, for a cross-entropy loss on x_0.

        Args:
            x: Float [B, C, Q, T].

        Returns:
            Float [B, 2 V - 1, Q, T]; the class of a token is `token + V - 1`, so 0 has one entry.
        """
        positive = _inner_products(x, self.weight)  # [B, V, Q, T]
        return torch.cat([-positive[:, 1:].flip(1), positive], dim=1)


def _inner_products(x: Tensor, rows: Tensor) -> Tensor:
    return torch.einsum("bcqt,vc->bvqt", x.to(rows.dtype), rows)


def _check_rows_differ(weight: Tensor) -> None:
    directions = F.normalize(weight.double(), dim=1)
    cosines = (directions @ directions.T).abs().fill_diagonal_(0.0)
    # float32 cosines have errors of about 1e-7; a margin of ten times that separates two gates safely.
    if cosines.max() > 1 - 1e-6:
        raise ValueError(
            f"{weight.shape[0]} gates in {weight.shape[1]} channels: two rows are collinear, so decoding cannot "
            "distinguish the gates; use more channels"
        )
