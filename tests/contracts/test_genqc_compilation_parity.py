"""Same weights, same outputs: our U-Net and unitary encoder against genQC 0.2.5's compilation U-Net, weights both ways.

genQC is a test extra installed without its own dependencies, so the module is skipped where it is missing.
"""

import random
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.interop.genqc import (
    UNITARY_ENCODER,
    unet_weights_from_genqc,
    unet_weights_to_genqc,
)
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.models.unet import ConditionalUNet
from quantum_diffusion.models.unitary_encoder import ConvolutionalUnitaryEncoder
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import Request

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    genqc_unet = pytest.importorskip("genQC.models.unet_qc")
    genqc_pipeline = pytest.importorskip("genQC.pipeline.compilation_diffusion_pipeline")

from tests.contracts.test_genqc_parity import PAPER as PAPER_UNET
from tests.contracts.test_genqc_parity import Case as UNetCase
from tests.contracts.test_genqc_parity import check_round_trip, randomise
from tests.contracts.test_genqc_parity import draw_case as draw_unet


class Ours(nn.Module):
    """Our two modules, put together as the pipeline does: prompt first, then unitary."""

    def __init__(self, unet: ConditionalUNet, encoder: ConvolutionalUnitaryEncoder) -> None:
        super().__init__()
        self.unet, self.encoder = unet, encoder

    def forward(self, x: Tensor, t: Tensor, prompt: Tensor, unitaries: Tensor) -> Tensor:
        return self.unet(x, t, torch.cat([prompt, self.encoder(unitaries)], dim=1))

    def weights(self) -> dict[str, Tensor]:
        return self.unet.state_dict() | self.encoder.state_dict(prefix=UNITARY_ENCODER)

    def load(self, genqc: dict[str, Tensor]) -> None:
        weights = unet_weights_from_genqc(genqc, self.weights())
        encoder = {k.removeprefix(UNITARY_ENCODER): weights.pop(k) for k in [*weights] if k.startswith(UNITARY_ENCODER)}
        self.encoder.load_state_dict(encoder)
        self.unet.load_state_dict(weights)


@dataclass(frozen=True)
class Case:
    """Sizes of a compilation U-Net and of one batch for it."""

    unet: UNetCase
    features: tuple[int, int]
    num_heads: int
    transformer_depths: tuple[int, int]
    side: int

    def build(self) -> tuple[nn.Module, Ours]:
        """Return genQC's network and ours as they start, in evaluation mode."""
        sizes = ("model_features", "num_heads", "num_res_blocks", "transformer_depths")
        levels = {name: getattr(self.unet, name) for name in sizes}
        theirs = genqc_unet.QC_Compilation_UNet(
            clr_dim=self.unet.channels,
            num_clrs=self.unet.vocabulary_size,
            t_emb_size=self.unet.time_embedding_dim,
            cond_emb_size=self.unet.condition_dim,
            unitary_encoder_config={
                "cond_emb_size": self.unet.condition_dim,
                "model_features": [2, *self.features, self.unet.condition_dim],
                "num_heads": self.num_heads,
                "transformer_depths": list(self.transformer_depths),
                "dropout": 0.2,
            },
            **levels,
        )
        unet = ConditionalUNet(
            channels=self.unet.channels,
            time_embedding_dim=self.unet.time_embedding_dim,
            condition_dim=self.unet.condition_dim,
            **levels,
        )
        encoder = ConvolutionalUnitaryEncoder(
            condition_dim=self.unet.condition_dim,
            features=self.features,
            num_heads=self.num_heads,
            transformer_depths=self.transformer_depths,
            dropout=0.2,
        )
        return theirs.eval(), Ours(unet, encoder).eval()

    def build_alike(self) -> tuple[nn.Module, Ours]:
        """Return both with genQC's weights, random in every tensor."""
        theirs, ours = self.build()
        randomise(theirs)
        ours.load(theirs.state_dict())
        return theirs, ours

    def draw_batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return x_t [B, C, Q, T], t [B], the prompt's condition [B, S, E] and unitaries [B, 2, D, D]."""
        matrices = torch.randn(self.unet.batch_size, self.side, self.side, dtype=torch.complex128)
        unitary = torch.view_as_real(torch.linalg.qr(matrices).Q).movedim(-1, 1).float()
        return *self.unet.draw_batch(), unitary


# Six gates, "no gate" and padding: eight colours, in eight channels.
PAPER = Case(replace(PAPER_UNET, channels=8, vocabulary_size=8, num_steps=12), (32, 64), 8, (2, 2), 8)


def draw_case(seed: int) -> Case:
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 4, 8, 16, 32])
    unet = draw_unet(seed)
    # A normalisation group of one channel makes rounding large where the map is small or almost constant.
    unet = replace(unet, condition_dim=rng.randint(1, 96), model_features=[max(f, 64) for f in unet.model_features])
    features = (32 * rng.randint(1, 3), 32 * rng.randint(2, 3))
    return Case(unet, features, heads, (rng.randint(0, 3), rng.randint(0, 3)), 2 ** (1 + seed % 4))


def double(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]


@pytest.mark.parametrize("case", [PAPER, *map(draw_case, range(14))], ids=["paper", *map(str, range(14))])
@torch.no_grad()
def test_same_weights_give_the_same_output(case: Case) -> None:
    torch.manual_seed(0)
    theirs, ours = case.build_alike()
    x, t, prompt, unitaries = case.draw_batch()

    # The residual stream grows with depth; rescale the head so that the tolerance below means what it says.
    scale = theirs(x.clone(), t, prompt, unitaries).std()
    theirs.head.weight /= scale
    theirs.head.bias /= scale
    ours.load(theirs.state_dict())

    expected = theirs(x.clone(), t, prompt, unitaries)
    assert 0.5 < expected.std() < 2
    torch.testing.assert_close(ours(x, t, prompt, unitaries), expected, atol=1e-5, rtol=0)

    encoded = theirs.unitary_encoder(unitaries)
    assert encoded.shape == (case.unet.batch_size, (case.side // 2) ** 2, case.unet.condition_dim)
    assert encoded.std() > 0.1, "the encoder matters"
    torch.testing.assert_close(ours.encoder(unitaries), encoded, atol=1e-5 * float(encoded.abs().max()), rtol=0)

    # Double precision leaves no room for a difference that rounding would hide.
    wide = double(x, t, prompt, unitaries)
    exact = theirs.double()(*double(x.clone()), *wide[1:])
    torch.testing.assert_close(ours.double()(*wide), exact, atol=1e-11, rtol=0)


@pytest.mark.parametrize("seed", [0, 4, 5, 10])
def test_gradients_are_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    case = draw_case(seed)
    theirs, ours = (network.double() for network in case.build_alike())
    x, t, prompt, unitaries = double(*case.draw_batch())
    theirs(x.clone(), t, prompt, unitaries).square().mean().backward()
    ours(x, t, prompt, unitaries).square().mean().backward()

    gradients = {name: p.grad for name, p in theirs.named_parameters() if name != "emb_clr.weight"}
    expected = unet_weights_from_genqc(gradients, ours.weights())
    own = {name.removeprefix("unet."): p.grad for name, p in ours.named_parameters()}
    for name, gradient in expected.items():
        found = own[name.replace(UNITARY_ENCODER, "encoder.")]
        torch.testing.assert_close(found, gradient, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    assert len(own) == len(expected)


def test_the_prompt_comes_first_and_no_unitary_is_one_of_zeros() -> None:
    """Our pipeline's own hook against genQC's text condition, U and `get_guidance_U`."""
    config = compose("training", TrainingConfig, ["training=paper_unitary", "training.general.dataset=./data"])
    pool = GatePool(["h", "cx", "z", "x", "ccx", "swap"])
    nothing = np.zeros((1, 3, 12), dtype=np.int8)
    prompts = (f"Compile using: {list(pool.names)}",)
    dataset = CircuitDataset(
        nothing,
        np.zeros(1, np.int32),
        prompts,
        np.array([[3, 0]], np.int16),
        pool,
        "UNITARY",
        np.zeros((1, 2, 8, 8), np.float32),
    )
    pipeline = make_pipeline(pipeline_config(config, dataset), seed=0)
    network = pipeline.network.eval()
    theirs, ours = PAPER.build_alike()
    network["backbone"].load_state_dict(ours.unet.state_dict())
    network["unitary_encoder"].load_state_dict(ours.encoder.state_dict())

    x, t, _, unitaries = PAPER.draw_batch()
    x, t, unitaries = x[:1], t[:1], unitaries[:1]
    request = Request(pipeline._prompt_words, torch.arange(len(unitaries)), unitaries)
    with torch.no_grad():
        prompt = network["condition_encoder"](request.prompts)
        null = network["condition_encoder"].null_condition(*prompt.shape[:2])
        zeros = genqc_pipeline.DiffusionPipeline_Compilation.empty_unitary_fn(None, unitaries)
        for prompt_dropped, unitary_dropped in ((False, False), (True, False), (False, True), (True, True)):
            condition = pipeline.encode_condition(request, torch.tensor([[prompt_dropped, unitary_dropped]]))
            found, _ = pipeline._predict(x, t, condition)
            asked = null.expand_as(prompt) if prompt_dropped else prompt
            expected = theirs(x.clone(), t, asked, zeros if unitary_dropped else unitaries)
            torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_initial_weights_have_the_same_scale() -> None:
    torch.manual_seed(0)
    network, ours = PAPER.build()
    theirs = network.state_dict()
    renamed = unet_weights_to_genqc(ours.weights(), theirs["emb_clr.weight"], ours.weights())
    assert renamed.keys() == theirs.keys()
    for name, weight in theirs.items():
        if weight.numel() > 1000:
            torch.testing.assert_close(
                renamed[name].std(), weight.std(), atol=0, rtol=0.1, msg=lambda m, n=name: f"{n}: {m}"
            )
        zeros = weight.count_nonzero() == 0
        assert zeros == (renamed[name].count_nonzero() == 0), name


def test_paper_configuration_has_the_paper_s_number_of_parameters() -> None:
    theirs, ours = PAPER.build()
    embedding = GateEmbedding(PAPER.unet.vocabulary_size, PAPER.unet.channels)
    assert sum(p.numel() for p in theirs.parameters()) == 5_499_816
    # genQC counts its frozen embedding (8 colours, 8 channels) as parameters; ours is a buffer elsewhere.
    assert sum(p.numel() for p in ours.parameters()) + embedding.weight.numel() == 5_499_816


@pytest.mark.parametrize("seed", [*range(0, 14, 3)])
def test_weights_survive_the_round_trip(seed: int) -> None:
    theirs, ours = draw_case(seed).build_alike()
    check_round_trip(theirs.state_dict(), ours.weights())


def test_our_weights_load_strictly_in_genqc() -> None:
    torch.manual_seed(2)
    case = draw_case(7)
    theirs, _ = case.build_alike()
    _, ours = case.build()
    randomise(ours)
    embedding = GateEmbedding(case.unet.vocabulary_size, case.unet.channels)
    theirs.load_state_dict(unet_weights_to_genqc(ours.weights(), embedding.weight, ours.weights()), strict=True)
    x, t, prompt, unitaries = case.draw_batch()
    expected = theirs(x.clone(), t, prompt, unitaries)
    found = ours(x, t, prompt, unitaries)
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_missing_unknown_and_misshapen_weights_are_refused() -> None:
    theirs, ours = draw_case(1).build()
    original, names = theirs.state_dict(), ours.weights()
    head = "unitary_encoder.head.weight"

    with pytest.raises(CheckpointError, match=r"missing 1 of .*'unitary_encoder\.head\.weight'"):
        unet_weights_from_genqc({k: v for k, v in original.items() if k != head}, names)
    with pytest.raises(CheckpointError, match=r"unknown 1 of .*'unitary_encoder\.extra'"):
        unet_weights_from_genqc(original | {"unitary_encoder.extra": torch.zeros(1)}, names)
    with pytest.raises(CheckpointError, match=r"'unitary_encoder\.head\.weight'.*expected"):
        unet_weights_from_genqc(original | {head: torch.zeros(1, 2, 1, 1)}, names)
    table = "unitary_encoder.pos_enc.pe"
    with pytest.raises(CheckpointError, match=r"'unitary_encoder\.pos_enc\.pe' is not the sinusoidal one"):
        unet_weights_from_genqc(original | {table: original[table] + 1}, names)
    with pytest.raises(CheckpointError, match=r"unknown .*'unitary_encoder\."):
        unet_weights_from_genqc(original, ours.unet.state_dict())  # a compilation model is no SRV model, nor
    srv = {k: v for k, v in original.items() if not k.startswith(UNITARY_ENCODER)}
    with pytest.raises(CheckpointError, match=r"missing .*'unitary_encoder\."):
        unet_weights_from_genqc(srv, names)  # the other way round
    weight = original["emb_clr.weight"]
    with pytest.raises(CheckpointError, match="missing 1 of"):
        unet_weights_to_genqc({k: v for k, v in names.items() if k != "unitary_encoder.conv_in.bias"}, weight, names)


def test_weights_without_tables_are_accepted() -> None:
    theirs, ours = draw_case(1).build()
    without = {k: v for k, v in theirs.state_dict().items() if not k.endswith(".pe")}
    assert unet_weights_from_genqc(without, ours.weights()).keys() == ours.weights().keys()
