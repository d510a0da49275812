"""The U-Net on its own: shapes, initial state, purity, what it refuses, and that it can learn."""

import pytest
import torch
from torch import Tensor

from quantum_diffusion.models.layers import PositionEncoding2d, sinusoidal_table
from quantum_diffusion.models.unet import ConditionalUNet

SIZES = {
    "channels": 4,
    "model_features": [32, 64, 32],
    "time_embedding_dim": 32,
    "condition_dim": 16,
    "num_heads": [4, 8, 2],
    "num_res_blocks": [1, 2, 1],
    "transformer_depths": [0, 1, 2],
}


def draw_batch(batch_size: int = 2, num_qubits: int = 3, num_steps: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch_size, 4, num_qubits, num_steps)
    return x, torch.randint(0, 1000, (batch_size,)), torch.randn(batch_size, 5, 16)


@pytest.fixture
def unet() -> ConditionalUNet:
    """Build a small network whose output is not the initial constant."""
    torch.manual_seed(0)
    network = ConditionalUNet(**SIZES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("num_qubits", [1, 2, 8])
@pytest.mark.parametrize("num_steps", [4, 12, 52])
def test_one_set_of_weights_serves_every_size(unet: ConditionalUNet, num_qubits: int, num_steps: int) -> None:
    x, t, condition = draw_batch(2, num_qubits, num_steps)
    prediction = unet(x, t, condition)
    assert prediction.shape == x.shape
    assert prediction.dtype == torch.float32


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_time_multiple_follows_the_number_of_levels(levels: int) -> None:
    network = ConditionalUNet(
        channels=4,
        model_features=[32] * levels,
        time_embedding_dim=32,
        condition_dim=16,
        num_heads=[4] * levels,
        num_res_blocks=[1] * levels,
        transformer_depths=[1] * levels,
    )
    assert network.time_multiple == 2 ** (levels - 1)
    x, t, condition = draw_batch(num_steps=network.time_multiple)
    assert network(x, t, condition).shape == x.shape


def test_a_length_that_does_not_halve_is_refused(unet: ConditionalUNet) -> None:
    x, t, condition = draw_batch(num_steps=10)
    with pytest.raises(ValueError, match=r"10 time steps: expected a multiple of 4"):
        unet(x, t, condition)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels=0"),
        ({"condition_dim": 0}, "condition_dim=0"),
        ({"time_embedding_dim": 31}, "time_embedding_dim=31.*even"),
        ({"model_features": []}, "model_features is empty"),
        ({"model_features": [32, 48, 32]}, "model_features=.*multiples of 32"),
        ({"model_features": [32, 0, 32]}, "model_features=.*multiples of 32"),
        ({"num_heads": [4, 8]}, "num_heads=.*expected 3"),
        ({"num_heads": [4, 5, 2]}, "num_heads=.*5 does not divide 64"),
        ({"num_heads": [4, 0, 2]}, "num_heads=.*0 does not divide 64"),
        ({"num_res_blocks": [1, 2, 1, 1]}, "num_res_blocks=.*expected 3"),
        ({"num_res_blocks": [1, 0, 1]}, "num_res_blocks=.*at least 1"),
        ({"transformer_depths": [1]}, "transformer_depths=.*expected 3"),
        ({"transformer_depths": [0, -1, 1]}, "transformer_depths=.*0 or more"),
    ],
)
def test_impossible_sizes_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionalUNet(**(SIZES | change))


def test_heads_are_free_where_there_is_no_attention() -> None:
    ConditionalUNet(**(SIZES | {"num_heads": [5, 8, 2]}))


def test_a_new_model_ignores_its_input() -> None:
    network = ConditionalUNet(**SIZES)
    x, t, condition = draw_batch()
    bias = network.head.bias[None, :, None, None]
    torch.testing.assert_close(network(x, t, condition), bias.expand_as(x))
    for down in network.downsamples:
        rows = down.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_inputs_are_left_unchanged(unet: ConditionalUNet) -> None:
    x, t, condition = draw_batch()
    copies = x.clone(), t.clone(), condition.clone()
    unet(x, t, condition)
    for tensor, copy in zip((x, t, condition), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_samples_of_a_batch_do_not_see_each_other(unet: ConditionalUNet) -> None:
    x, t, condition = draw_batch(3)
    alone = torch.cat([unet(x[i : i + 1], t[i : i + 1], condition[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(unet(x, t, condition), alone, atol=1e-5, rtol=1e-4)


def test_memory_layout_of_the_input_does_not_matter(unet: ConditionalUNet) -> None:
    x, t, condition = draw_batch()
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(unet(x, t, condition), unet(last, t, condition))


def test_the_prediction_depends_on_everything_it_is_given(unet: ConditionalUNet) -> None:
    x, t, condition = draw_batch()
    prediction = unet(x, t, condition)
    assert not torch.allclose(prediction, unet(x + 1, t, condition))
    assert not torch.allclose(prediction, unet(x, (t + 500) % 1000, condition))
    assert not torch.allclose(prediction, unet(x, t, condition + 1))
    assert not torch.allclose(prediction, unet(x.flip(2), t, condition).flip(2))  # qubits are told apart


def test_bfloat16_follows_float32(unet: ConditionalUNet) -> None:
    x, t, condition = draw_batch()
    expected = unet(x, t, condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = unet(x, t, condition)
    assert (mixed.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_it_overfits_the_noise_of_one_batch() -> None:
    torch.manual_seed(0)
    network = ConditionalUNet(**SIZES)
    x, t, condition = draw_batch(8)
    noise = torch.randn_like(x)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(70):
        loss = (network(x, t, condition) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8
    assert losses[-1] < 0.1
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_state_holds_learned_weights_only(unet: ConditionalUNet) -> None:
    assert unet.state_dict().keys() == dict(unet.named_parameters()).keys()


def test_position_encoding_marks_qubits_in_one_half_and_steps_in_the_other() -> None:
    encoding = PositionEncoding2d(32)(torch.zeros(1, 32, 3, 5))[0]
    qubit, step = encoding[:16], encoding[16:]
    assert torch.equal(qubit, qubit[..., :1].expand_as(qubit))
    assert torch.equal(step, step[:, :1].expand_as(step))
    torch.testing.assert_close(step[:, 0].T, sinusoidal_table(5, 16))


def test_sinusoidal_table_matches_its_formula() -> None:
    table = sinusoidal_table(50, 8)
    assert table.shape == (50, 8)
    for position, pair in ((0, 0), (7, 1), (49, 3)):
        angle = torch.tensor(position / 10_000 ** (2 * pair / 8))
        torch.testing.assert_close(table[position, 2 * pair], angle.sin())
        torch.testing.assert_close(table[position, 2 * pair + 1], angle.cos())


@pytest.mark.parametrize("width", [0, -2, 7])
def test_sinusoidal_table_needs_an_even_width(width: int) -> None:
    with pytest.raises(ValueError, match="width="):
        sinusoidal_table(10, width)
