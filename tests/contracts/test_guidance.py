"""Classifier-free guidance: closed forms, and genQC's."""

import warnings

import pytest
import torch

from quantum_diffusion.diffusion.guidance import guide_log_probabilities, guide_plain, guide_rescaled


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    c, u = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    return c, u


def test_scale_one_is_the_conditional_prediction(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    c, u = pair
    torch.testing.assert_close(guide_plain(c, u, 1.0), c)
    torch.testing.assert_close(guide_rescaled(c, u, 1.0), c)
    torch.testing.assert_close(guide_log_probabilities(c, u, 1.0), c.log_softmax(-1))


def test_scale_zero_ignores_the_prompt(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    c, u = pair
    torch.testing.assert_close(guide_plain(c, u, 0.0), u)
    torch.testing.assert_close(guide_log_probabilities(c, u, 0.0), u.log_softmax(-1))


def test_guided_log_probabilities_are_a_normalised_ratio(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    c, u = pair
    guided = guide_log_probabilities(c, u, 3.0)
    ratio = c.softmax(-1) ** 3 / u.softmax(-1) ** 2
    torch.testing.assert_close(guided.exp(), ratio / ratio.sum(-1, keepdim=True))


def test_rescaled_guidance_restores_each_samples_spread(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    c, u = pair
    fully = guide_rescaled(c, u, 7.5, phi=1.0)
    torch.testing.assert_close(fully.flatten(1).std(1), c.flatten(1).std(1))
    torch.testing.assert_close(guide_rescaled(c, u, 7.5, phi=0.0), guide_plain(c, u, 7.5))


def test_rescaled_guidance_leaves_a_prediction_without_spread_alone(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    c = (8 * pair[0]).round()  # whole numbers, so that sums are exact
    flat = torch.ones_like(c)
    torch.testing.assert_close(guide_rescaled(flat, flat, 7.5), flat)
    torch.testing.assert_close(guide_rescaled(c, 2 * c - flat, 2.0), flat)


@pytest.mark.parametrize(("mode", "ours"), [("normal", guide_plain), ("rescaled", guide_rescaled)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0, 10.0])
def test_guidance_agrees_with_genqc(mode: str, ours: object, scale: float, pair: tuple) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genqc = pytest.importorskip("genQC.pipeline.diffusion_pipeline")
    c, u = pair
    theirs = genqc.DiffusionPipeline.__new__(genqc.DiffusionPipeline)
    theirs.guidance_sample_mode = mode
    torch.testing.assert_close(ours(c, u, scale), theirs.CFG(u, c, scale))  # type: ignore[operator]
