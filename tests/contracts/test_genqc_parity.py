"""Same weights, same outputs: our U-Net and gate embedding against genQC 0.2.5, and its weights both ways.

genQC is a test extra installed without its own dependencies, so the module is skipped where it is missing.
"""

import random
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.interop.genqc import (
    gate_embedding_from_genqc,
    unet_weights_from_genqc,
    unet_weights_to_genqc,
)
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.models.unet import ConditionalUNet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    genqc_unet = pytest.importorskip("genQC.models.unet_qc")


@dataclass(frozen=True)
class Case:
    """Sizes of a U-Net and of one batch for it."""

    channels: int
    vocabulary_size: int
    model_features: list[int]
    num_heads: list[int]
    num_res_blocks: list[int]
    transformer_depths: list[int]
    time_embedding_dim: int
    condition_dim: int
    batch_size: int
    num_qubits: int
    num_steps: int
    condition_length: int

    def build(self) -> tuple[nn.Module, ConditionalUNet]:
        """Return genQC's network, random in every tensor, and ours with its weights."""
        levels = {
            "model_features": self.model_features,
            "num_heads": self.num_heads,
            "num_res_blocks": self.num_res_blocks,
            "transformer_depths": self.transformer_depths,
        }
        theirs = genqc_unet.QC_Cond_UNet(
            clr_dim=self.channels,
            num_clrs=self.vocabulary_size,
            t_emb_size=self.time_embedding_dim,
            cond_emb_size=self.condition_dim,
            **levels,
        )
        ours = ConditionalUNet(
            channels=self.channels,
            time_embedding_dim=self.time_embedding_dim,
            condition_dim=self.condition_dim,
            **levels,
        )
        randomise(theirs)
        ours.load_state_dict(unet_weights_from_genqc(theirs.state_dict(), ours.state_dict()))
        return theirs, ours

    def draw_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t [B, C, Q, T], t [B] and condition [B, S, E]."""
        x = torch.randn(self.batch_size, self.channels, self.num_qubits, self.num_steps)
        t = torch.randint(0, 1000, (self.batch_size,))
        return x, t, torch.randn(self.batch_size, self.condition_length, self.condition_dim)


PAPER = Case(4, 4, [128, 128, 256], [8, 8, 2], [2, 2, 4], [1, 2, 1], 256, 512, 4, 3, 16, 77)


def draw_case(seed: int) -> Case:
    rng = random.Random(seed)
    num_levels = 2 + seed % 3
    features = [32 * rng.randint(1, 4) for _ in range(num_levels)]
    return Case(
        channels=rng.randint(2, 9),
        vocabulary_size=rng.randint(3, 12),
        model_features=features,
        num_heads=[rng.choice([1, 2, 4, 8, 16, 32]) for _ in features],
        num_res_blocks=[rng.randint(1, 3) for _ in features],
        transformer_depths=[rng.randint(0, 2) for _ in features],
        time_embedding_dim=2 * rng.randint(1, 100),
        condition_dim=rng.randint(1, 96),
        batch_size=rng.randint(1, 4),
        num_qubits=1 + seed % 8,
        num_steps=2 ** (num_levels - 1) * rng.randint(1, 5),
        condition_length=rng.choice([1, 77, rng.randint(2, 76)]),
    )


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Fill every parameter, also those that start at zero, at scales that keep activations of order one."""
    for name, parameter in network.named_parameters():
        if name == "emb_clr.weight":
            continue
        noise = torch.randn_like(parameter)
        if parameter.dim() > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            is_norm_scale = "norm" in name and name.endswith("weight")
            parameter.copy_(noise * 0.3 + is_norm_scale)


@pytest.mark.parametrize("case", [PAPER, *map(draw_case, range(16))], ids=["paper", *map(str, range(16))])
@torch.no_grad()
def test_same_weights_give_the_same_output(case: Case) -> None:
    torch.manual_seed(0)
    theirs, ours = case.build()
    x, t, condition = case.draw_batch()

    # The residual stream grows with depth; rescale the head so that the tolerance below means what it says.
    scale = theirs(x.clone(), t, condition).std()
    theirs.head.weight /= scale
    theirs.head.bias /= scale
    ours.load_state_dict(unet_weights_from_genqc(theirs.state_dict(), ours.state_dict()))

    expected = theirs(x.clone(), t, condition)
    assert 0.5 < expected.std() < 2
    torch.testing.assert_close(ours(x, t, condition), expected, atol=1e-5, rtol=0)

    # Double precision leaves no room for a difference that rounding would hide.
    double = theirs.double()(x.double(), t, condition.double())
    torch.testing.assert_close(ours.double()(x.double(), t, condition.double()), double, atol=1e-11, rtol=0)


def test_one_step_shared_by_the_batch_gives_the_same_output() -> None:
    torch.manual_seed(1)
    theirs, ours = draw_case(3).build()
    x, t, condition = draw_case(3).draw_batch()
    torch.testing.assert_close(ours(x, t[:1], condition), theirs(x.clone(), t[:1], condition), atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_gradients_are_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    theirs, ours = (network.double() for network in draw_case(seed).build())
    x, t, condition = (
        tensor.double() if tensor.is_floating_point() else tensor for tensor in draw_case(seed).draw_batch()
    )
    theirs(x.clone(), t, condition).square().mean().backward()
    ours(x, t, condition).square().mean().backward()

    gradients = {name: p.grad for name, p in theirs.named_parameters() if name != "emb_clr.weight"}
    expected = unet_weights_from_genqc(gradients, ours.state_dict())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_initial_weights_have_the_same_scale() -> None:
    torch.manual_seed(0)
    case = PAPER
    levels = {k: getattr(case, k) for k in ("model_features", "num_heads", "num_res_blocks", "transformer_depths")}
    theirs = genqc_unet.QC_Cond_UNet(clr_dim=4, num_clrs=4, t_emb_size=256, cond_emb_size=512, **levels).state_dict()
    network = ConditionalUNet(channels=4, time_embedding_dim=256, condition_dim=512, **levels)
    ours = unet_weights_to_genqc(network.state_dict(), theirs["emb_clr.weight"], network.state_dict())
    for name, weight in theirs.items():
        if weight.numel() > 1000:
            torch.testing.assert_close(
                ours[name].std(), weight.std(), atol=0, rtol=0.1, msg=lambda m, n=name: f"{n}: {m}"
            )
        zeros = weight.count_nonzero() == 0
        assert zeros == (ours[name].count_nonzero() == 0), name


def test_paper_configuration_has_the_paper_s_number_of_parameters() -> None:
    theirs, ours = PAPER.build()
    embedding = GateEmbedding(PAPER.vocabulary_size, PAPER.channels)
    assert sum(p.numel() for p in theirs.parameters()) == 5_393_556
    # genQC counts its frozen embedding (4 gates, 4 channels) as parameters; ours is a buffer elsewhere.
    assert sum(p.numel() for p in ours.parameters()) + embedding.weight.numel() == 5_393_556


@pytest.mark.parametrize("seed", [*range(0, 16, 3)])
def test_weights_survive_the_round_trip(seed: int) -> None:
    theirs, ours = draw_case(seed).build()
    check_round_trip(theirs.state_dict(), ours.state_dict())


def check_round_trip(original: dict[str, Tensor], ours_dict: dict[str, Tensor]) -> None:
    """Write our weights, which are those of genQC's network, for genQC and read them again."""
    returned = unet_weights_to_genqc(ours_dict, gate_embedding_from_genqc(original), ours_dict)
    assert returned.keys() == original.keys()
    for name in original:
        assert torch.equal(returned[name], original[name]), name
        assert returned[name].is_contiguous(), name  # safetensors refuses anything else

    again = unet_weights_from_genqc(returned, ours_dict)
    assert again.keys() == ours_dict.keys()
    assert all(torch.equal(again[name], ours_dict[name]) for name in again)


def test_our_weights_load_strictly_in_genqc() -> None:
    torch.manual_seed(2)
    case = draw_case(7)
    theirs, ours = case.build()
    embedding = GateEmbedding(case.vocabulary_size, case.channels)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.load_state_dict(unet_weights_to_genqc(ours.state_dict(), embedding.weight, ours.state_dict()), strict=True)
    x, t, condition = case.draw_batch()
    expected = theirs(x.clone(), t, condition)
    torch.testing.assert_close(ours(x, t, condition), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
    tokens = torch.randint(1 - case.vocabulary_size, case.vocabulary_size, (3, 2, 5))
    assert torch.equal(theirs.embed(tokens), embedding.embed(tokens))


def test_missing_unknown_and_misshapen_weights_are_refused() -> None:
    theirs, ours = draw_case(1).build()
    original, names = theirs.state_dict(), ours.state_dict()

    with pytest.raises(CheckpointError, match=r"missing 1 of .*'head\.bias'"):
        unet_weights_from_genqc({k: v for k, v in original.items() if k != "head.bias"}, names)
    with pytest.raises(CheckpointError, match=r"unknown 1 of .*'unitary_encoder\.x'"):
        unet_weights_from_genqc(original | {"unitary_encoder.x": torch.zeros(1)}, names)
    with pytest.raises(CheckpointError, match=r"'head\.weight'.*expected"):
        unet_weights_from_genqc(original | {"head.weight": torch.zeros(1, 2, 1, 1)}, names)
    with pytest.raises(CheckpointError, match=r"'t_emb\.pe' is not the sinusoidal one"):
        unet_weights_from_genqc(original | {"t_emb.pe": original["t_emb.pe"] + 1}, names)
    with pytest.raises(CheckpointError, match=r"emb_clr\.weight"):
        gate_embedding_from_genqc({})

    weight = original["emb_clr.weight"]
    with pytest.raises(CheckpointError, match="missing 1 of"):
        unet_weights_to_genqc({k: v for k, v in names.items() if k != "conv_in.bias"}, weight, names)
    with pytest.raises(CheckpointError, match="unknown 1 of"):
        unet_weights_to_genqc(names | {"extra": weight}, weight, names)


def test_weights_without_tables_are_accepted() -> None:
    theirs, ours = draw_case(1).build()
    without = {k: v for k, v in theirs.state_dict().items() if not k.endswith(".pe")}
    assert unet_weights_from_genqc(without, ours.state_dict()).keys() == ours.state_dict().keys()


@pytest.mark.parametrize(("vocabulary_size", "channels"), [(4, 4), (4, 8), (8, 8), (8, 4), (3, 2), (12, 3)])
def test_embedding_and_decoding_are_the_same(vocabulary_size: int, channels: int) -> None:
    torch.manual_seed(vocabulary_size)
    theirs = genqc_unet.QC_Cond_UNet([32, 32, 32], channels, vocabulary_size, 32, 32)
    ours = GateEmbedding(vocabulary_size, channels)
    ours.weight.copy_(gate_embedding_from_genqc(theirs.state_dict()))

    tokens = torch.randint(1 - vocabulary_size, vocabulary_size, (16, 5, 12))
    assert torch.equal(ours.embed(tokens), theirs.embed(tokens))
    noisy = ours.embed(tokens) + 0.5 * torch.randn(16, channels, 5, 12)
    decoded = ours.invert(noisy)
    assert decoded.dtype == torch.int8
    assert torch.equal(decoded.long(), theirs.invert(noisy))
    assert (decoded == 1 - vocabulary_size).any()  # negative padding comes out as it does in genQC
