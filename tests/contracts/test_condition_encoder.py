"""The condition encoder without downloads: prompts to words to conditions."""

import pytest
import torch

from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.condition_encoder import (
    FIRST_WORDS,
    MAX_WORDS,
    PADDING_WORD,
    WORDS,
    PromptEncoder,
    tokenize_prompts,
)


@pytest.fixture(params=[0, 1, 2], ids=lambda depth: f"depth {depth}")
def encoder(request: pytest.FixtureRequest) -> PromptEncoder:
    torch.manual_seed(0)
    return PromptEncoder(
        vocabulary=WORDS, prompts=["Generate SRV: [1, 2, 2]"], width=16, depth=request.param, num_heads=2
    ).eval()


def test_the_words_of_models_that_name_none_are_numbered_for_ever() -> None:
    assert " ".join(FIRST_WORDS) == (
        "generate srv compile using 1 2 ccx cswap cx cy cz h s sdg swap t tdg x y z"  # as they were saved
    )
    assert len(set(WORDS)) == len(WORDS)
    words = tokenize_prompts(["Generate SRV: [1, 2, 2]", "Compile using: ['h', 'cx']"])
    assert words[0].tolist() == [1, 2, 5, 6, 6]
    assert words[1, :2].tolist() == [3, 4]
    assert words[1, 4:].tolist() == [PADDING_WORD]


def test_padding_to_a_length() -> None:
    assert tokenize_prompts(["Generate SRV: [1]"], min_length=6).tolist() == [[1, 2, 5, 0, 0, 0]]
    assert tokenize_prompts(["Generate SRV: [1, 2, 2]"], min_length=2).shape == (1, 5)


@torch.no_grad()
def test_padding_does_not_change_the_other_words(encoder: PromptEncoder) -> None:
    prompt = "Generate SRV: [1, 2, 2]"
    short, long = (encoder(tokenize_prompts([prompt], min_length=length)) for length in (1, 12))
    assert short.shape == (1, 5, 16)
    torch.testing.assert_close(long[:, :5], short)
    assert float(long[:, 5:].abs().max()) == 0


@torch.no_grad()
def test_the_order_of_words_matters(encoder: PromptEncoder) -> None:
    first, second = encoder(tokenize_prompts(["Generate SRV: [1, 2, 2]", "Generate SRV: [2, 2, 1]"]))
    assert float((first - second).abs().max()) > 1e-2


def test_the_null_condition_is_one_learned_vector(encoder: PromptEncoder) -> None:
    null = encoder.null_condition(3, 5)
    assert null.shape == (3, 5, 16)
    assert torch.equal(null[0, 0], null[2, 4])
    null.sum().backward()
    assert encoder.null.grad is not None
    assert float(encoder.null.grad[0]) == 15


def test_every_weight_learns(encoder: PromptEncoder) -> None:
    words = torch.arange(1 + len(WORDS)).view(1, -1)
    torch.manual_seed(1)
    condition = encoder(words)
    (condition * torch.randn_like(condition)).sum().backward()
    encoder.null_condition(1, 1).sum().backward()
    dead = [key for key, p in encoder.named_parameters() if p.grad is None or float(p.grad.abs().max()) < 1e-7]
    assert dead == []


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["Generate SRV: [1, 3]"], "unknown word '3'"),
        (["Generat SRV: [1]"], "did you mean 'generate'"),
        (["!?"], "has 0 words"),
        (["generate " * (MAX_WORDS + 1)], f"give 1 to {MAX_WORDS}"),
        ([], "no prompts"),
    ],
)
def test_unreadable_prompts_are_refused(prompts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        tokenize_prompts(prompts)


def test_bfloat16_autocast_runs(encoder: PromptEncoder) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        condition = encoder(tokenize_prompts(["Generate SRV: [1, 2, 2]"], min_length=8))
    assert bool(condition.isfinite().all())
