"""The gate embedding: tokens => x_0 => tokens without loss, and scores that agree with the decoding."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.tokenizer import decode_tokens
from quantum_diffusion.models.gate_embedding import GateEmbedding


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def embeddings_and_tokens(draw: st.DrawFn) -> tuple[GateEmbedding, Tensor]:
    # From many more channels than gates to many more gates than channels; below 4 channels some seeds put two
    # rows on nearly one line, which the constructor refuses.
    vocabulary_size = draw(st.integers(1, 24))
    channels = draw(st.integers(4, 16))
    embedding = GateEmbedding(vocabulary_size, channels, seeded(draw(st.integers(0, 2**32))))
    num_qubits, num_steps = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    token = st.integers(1 - vocabulary_size, vocabulary_size - 1)
    cells = draw(st.lists(token, min_size=num_qubits * num_steps, max_size=num_qubits * num_steps))
    return embedding, torch.tensor(cells, dtype=torch.int8).view(1, num_qubits, num_steps)


@given(embeddings_and_tokens())
@settings(deadline=None)
def test_decoding_an_embedding_returns_the_tokens(case: tuple[GateEmbedding, Tensor]) -> None:
    embedding, tokens = case
    x0 = embedding.embed(tokens)
    assert x0.shape == (1, embedding.channels, *tokens.shape[1:])
    decoded = embedding.invert(x0)
    assert decoded.dtype == torch.int8
    assert torch.equal(decoded, tokens)


@given(embeddings_and_tokens(), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_decoding_ignores_the_length_of_a_cell(case: tuple[GateEmbedding, Tensor], length: float) -> None:
    embedding, tokens = case
    assert torch.equal(embedding.invert(length * embedding.embed(tokens)), tokens)


def test_eight_gates_in_four_channels_decode_exactly() -> None:
    # x equals a row, whose cosine with itself is 1; any other row reaches 1 only if it lies on the same line.
    tokens = torch.arange(-7, 8).view(1, 3, 5)
    for seed in range(200):
        embedding = GateEmbedding(8, 4, seeded(seed))
        assert torch.equal(embedding.invert(embedding.embed(tokens)).long(), tokens)


def test_gates_on_one_line_do_not_decode() -> None:
    embedding = GateEmbedding(3, 2)
    embedding.weight[2] = -embedding.weight[1]
    tokens = torch.tensor([[[1, 2]]])
    assert not torch.equal(embedding.invert(embedding.embed(tokens)).long(), tokens)


def test_a_table_that_cannot_be_decoded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_one_line(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return weight.fill_(1.0)

    monkeypatch.setattr(torch.nn.init, "orthogonal_", on_one_line)
    with pytest.raises(ValueError, match=r"8 gates in 4 channels.*more channels"):
        GateEmbedding(8, 4)


def test_signs_and_rows() -> None:
    embedding = GateEmbedding(4, 5)
    x0 = embedding.embed(torch.tensor([[[0, 1, -1, 3]]], dtype=torch.int8))[0, :, 0].T  # [T, C]
    torch.testing.assert_close(
        x0, torch.stack([embedding.weight[0], embedding.weight[1], -embedding.weight[1], embedding.weight[3]])
    )


def test_rows_are_orthonormal_when_they_fit_and_columns_otherwise() -> None:
    fits = GateEmbedding(4, 6).weight
    torch.testing.assert_close(fits @ fits.T, torch.eye(4), atol=1e-6, rtol=0)
    crowded = GateEmbedding(8, 4).weight
    torch.testing.assert_close(crowded.T @ crowded, torch.eye(4), atol=1e-6, rtol=0)


def test_the_table_is_a_saved_buffer_drawn_from_the_generator() -> None:
    embedding = GateEmbedding(4, 4, seeded(3))
    assert list(embedding.state_dict()) == ["weight"]
    assert not list(embedding.parameters())
    assert embedding.weight.dtype == torch.float32
    assert torch.equal(embedding.weight, GateEmbedding(4, 4, seeded(3)).weight)
    assert not torch.equal(embedding.weight, GateEmbedding(4, 4, seeded(4)).weight)


def test_a_private_generator_leaves_the_default_one_alone() -> None:
    state = torch.get_rng_state()
    GateEmbedding(4, 4, seeded(0))
    assert torch.equal(state, torch.get_rng_state())


def test_zeros_decode_to_no_gate_and_nan_to_no_token() -> None:
    embedding = GateEmbedding(4, 4)
    x = torch.zeros(1, 4, 2, 3)
    assert not embedding.invert(x).any()
    x[0, 1, 1, 1] = torch.nan
    tokens = embedding.invert(x)
    assert tokens[0, 1, 1] == 4
    assert (tokens != 0).sum() == 1
    assert decode_tokens(tokens.numpy(), GatePool(["h", "cx"])).reasons == ("token out of range",)


def test_minus_zero_decodes_to_zero() -> None:
    embedding = GateEmbedding(4, 4)
    x = -embedding.weight[0].view(1, 4, 1, 1)
    assert embedding.invert(x).item() == 0


@given(embeddings_and_tokens())
@settings(deadline=None)
def test_logits_are_inner_products_in_token_order(case: tuple[GateEmbedding, Tensor]) -> None:
    embedding, _ = case
    size = embedding.vocabulary_size
    x = torch.randn(2, embedding.channels, 3, 4)
    logits = embedding.logits(x)
    assert logits.shape == (2, 2 * size - 1, 3, 4)
    every = torch.arange(1 - size, size).view(1, 1, -1)
    rows = embedding.embed(every)[0, :, 0].T  # [2 V - 1, C]
    torch.testing.assert_close(logits, torch.einsum("bcqt,vc->bvqt", x, rows), atol=1e-5, rtol=1e-5)


def test_cross_entropy_on_logits_decodes_orthonormal_tokens() -> None:
    embedding = GateEmbedding(5, 8)
    tokens = torch.randint(-4, 5, (2, 3, 6))
    tokens[tokens == 0] = 1
    logits = embedding.logits(10 * embedding.embed(tokens))
    assert torch.equal(logits.argmax(1) - 4, tokens)
    assert F.cross_entropy(logits, tokens + 4) < 0.01


def test_gradients_reach_the_cells_through_the_logits() -> None:
    embedding = GateEmbedding(4, 4)
    x = torch.randn(1, 4, 2, 3, requires_grad=True)
    embedding.logits(x).logsumexp(1).sum().backward()
    assert x.grad is not None
    assert x.grad.count_nonzero() > 0


@pytest.mark.parametrize(
    ("vocabulary_size", "channels", "message"),
    [
        (0, 4, "vocabulary_size=0"),
        (128, 200, "vocabulary_size=128"),
        (4, 1, "channels=1"),
        (4, 0, "channels=0"),
    ],
)
def test_impossible_sizes_are_refused(vocabulary_size: int, channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateEmbedding(vocabulary_size, channels)


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    embedding = GateEmbedding(4, 4)
    for token in (4, -4):
        with pytest.raises(IndexError):
            embedding.embed(torch.tensor([[[token]]]))


def test_the_largest_int8_vocabulary_round_trips() -> None:
    embedding = GateEmbedding(127, 8)
    tokens = torch.arange(-126, 127, dtype=torch.int8).view(1, 1, -1)
    assert torch.equal(embedding.invert(embedding.embed(tokens)), tokens)
