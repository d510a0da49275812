"""What is not wanted, on the other side of guidance: the same for every kind of process, and genQC's formula."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import quantum_diffusion as qd
from quantum_diffusion.circuits.prompts import srv_prompt
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.condition import Condition
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.sampling import find_entangling
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.tasks.samples import Requests, Unwanted
from tests.conftest import MakeConfig

GUIDED = SamplingConfig(guidance_scale=2)
ENCODERS: dict[str, dict[str, Any]] = {
    "SRV": {"prefix_encoder": {"type": "state", "params": {"width": 16, "depth": 1}}},
    "UNITARY": {"unitary_encoder": {"params": {"width": 16, "depth": 1, "remaining": True}}},
    "STATE": {"state_encoder": {"params": {"width": 16, "depth": 1, "remaining": True}}},
}


def build(make_config: MakeConfig, task: str, model: str, **loop: Any) -> DiffusionPipeline:
    """A model of two qubits with weights that make much of its condition."""
    settings = DatasetConfig(
        gate_set=("h", "cx", "s"), num_qubits=2, condition_type=task, num_samples=30, max_gates=4, n_jobs=1
    )
    data = DatasetGenerator(settings).generate()[0]
    config = make_config("unet", "ddim", **loop) if model == "unet" else make_config()
    if model != "unet":
        sizes = {"width": 16, "depth": 1, "feed_forward": 1} | ({"num_heads": 2} if model == "transformer" else {})
        values = config.model_dump() | ENCODERS[task] | {"model": {"type": model, "params": sizes}}
        config = TrainingConfig.model_validate(values)
    made = DiffusionPipeline(pipeline_config(config, data), seed=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    made.network.eval()
    return made


KINDS = [
    (task, model)
    for task in ENCODERS
    for model in ("transformer", "policy", "unet")
    if (task, model) != ("STATE", "unet")
]


def asked_for(pipeline: DiffusionPipeline, count: int = 3) -> tuple[Requests, Requests]:
    """Return requests with something that is not wanted, and what is not wanted as requests of its own."""
    prompts = pipeline.config.prompts
    if pipeline.task.name == "SRV":
        others = [prompts[-1]] * count
        return pipeline.requests([prompts[0]] * count, negative_prompts=others), pipeline.requests(others)
    one, other = (target_unitary(name, 2) for name in ("toffoli:2", "qft:2"))
    if pipeline.task.name == "STATE":
        one, other = one[:, 1], other[:, 3]
    asked = pipeline.requests([prompts[0]] * count, [one] * count, negative_targets=[other] * count)
    return asked, pipeline.requests([prompts[0]] * count, [other] * count)


@pytest.mark.parametrize(("task", "model"), KINDS)
@torch.inference_mode()
def test_the_other_side_is_the_request_for_what_is_not_wanted(make_config: MakeConfig, task: str, model: str) -> None:
    pipeline = build(make_config, task, model)
    asked, other = asked_for(pipeline)
    if model == "unet":
        circuits: Tensor = torch.randn(3, pipeline.network["gate_embedding"].weight.shape[1], 2, 4)
        level = torch.tensor([20])
    else:
        circuits, level = torch.randint(1, len(pipeline.table), (3, 4)), torch.arange(4).expand(3, -1)
    found = pipeline._guided(pipeline._request(asked), 2.0)(circuits, level)
    request, unwanted = pipeline._request(asked), pipeline._request(other)
    dropped = torch.zeros(3, pipeline.num_conditions, dtype=torch.bool)
    no_prompt = dropped.clone()
    no_prompt[:, 0] = task != "SRV"  # a negative target alone leaves the prompt out, as genQC does
    for got, side, without in zip(found, (request, unwanted), (dropped, no_prompt), strict=True):
        assert got is not None
        expected, _ = pipeline._predict(circuits, level, pipeline.encode_condition(side, without))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    plain = pipeline._guided(pipeline._request(pipeline.requests(asked.prompts, _corners(asked))), 2.0)
    assert not torch.allclose(plain(circuits, level)[1], found[1], atol=1e-3), "nothing asked is something else"


def _corners(asked: Requests) -> Any:
    return None if asked.targets is None else [x[:, 0] if x.shape[1] == 1 else x for x in asked.targets]


@pytest.mark.parametrize("model", ["transformer", "policy"])
@pytest.mark.parametrize("task", ["UNITARY", "STATE"])
@torch.inference_mode()
def test_what_is_left_to_do_is_that_of_each_side(make_config: MakeConfig, task: str, model: str) -> None:
    pipeline = build(make_config, task, model)
    asked, other = asked_for(pipeline)
    assert asked.negative is not None
    asked = replace(asked, negative=replace(asked.negative, prompts=other.prompts))
    both, negative = (pipeline.reader(requests, GUIDED) for requests in (asked, other))
    ids = torch.randint(1, len(pipeline.table), (3, 4), generator=torch.Generator().manual_seed(0))
    for step in range(4):
        rank = torch.where(torch.arange(4) < step, torch.arange(4), 4).expand(3, -1)
        one, unwanted = both(ids, rank, torch.full((3, 1), step))
        expected, nothing = negative(ids, rank, torch.full((3, 1), step))
        assert unwanted is not None
        assert nothing is not None
        torch.testing.assert_close(unwanted, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(one, expected, atol=1e-3)
        assert not torch.allclose(unwanted, nothing, atol=1e-3)


@pytest.mark.parametrize(("task", "model"), KINDS)
def test_samples_depend_on_it_and_on_their_own_row_alone(make_config: MakeConfig, task: str, model: str) -> None:
    pipeline = build(make_config, task, model)
    asked, _ = asked_for(pipeline, 24)
    plain = Requests(asked.prompts, asked.num_qubits, asked.allowed, asked.targets)
    samples = pipeline.sample(asked, 0, GUIDED)
    assert not np.array_equal(samples.report.ids, pipeline.sample(plain, 0, GUIDED).report.ids)
    part = pipeline.sample(asked.take(np.arange(7, 12)), 0, GUIDED, first_sample=7)
    np.testing.assert_array_equal(part.report.ids, samples.report.ids[7:12])
    np.testing.assert_array_equal(
        pipeline.sample(asked.take(np.array([0])).repeated(5), 0, GUIDED).report.ids, samples.report.ids[:5]
    )
    both = pipeline.sample(asked, 0, SamplingConfig(guidance_scale=2, n_jobs=2))
    np.testing.assert_array_equal(both.report.ids, samples.report.ids)
    with pytest.raises(ConfigError, match=r"guidance_scale is 1 \(no guidance\): set it above 1"):
        pipeline.sample(asked, 0, SamplingConfig(guidance_scale=1))


@pytest.mark.parametrize("parts", ["both", "prompt", "unitary"])
def test_latents_are_those_of_genqc(make_config: MakeConfig, parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our sampler's last latents against `denoising` with negative_c and negative_u, of the same U-Net and noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genqc = pytest.importorskip("genQC.pipeline.compilation_diffusion_pipeline")
        schedulers = pytest.importorskip("genQC.scheduler.scheduler_ddim")
    pipeline = build(make_config, "UNITARY", "unet", objective="epsilon", loss="mse")
    process, network = pipeline.process, pipeline.network
    prompt, other = pipeline.config.prompts[0], pipeline.config.prompts[-1]
    asked = pipeline.requests(
        [prompt] * 2,
        [target_unitary("toffoli:2", 2)] * 2,
        negative_prompts=None if parts == "unitary" else [other] * 2,
        negative_targets=None if parts == "prompt" else [target_unitary("qft:2", 2)] * 2,
    )
    request = pipeline._request(asked)

    class Theirs(genqc.DiffusionPipeline_Compilation):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            """Only what `denoising` uses."""

        def denoising_step(self, *arguments: Any, micro_cond: None, **named: Any) -> Any:
            return super().denoising_step(*arguments, **named)  # genQC 0.2.5 hands on what this one does not take

    theirs = Theirs()
    theirs.device, theirs.non_blocking = torch.device("cpu"), False
    theirs.scheduler = schedulers.DDIMScheduler(
        "cpu",
        num_train_timesteps=50,
        beta_schedule=pipeline.config.scheduler.params.beta_schedule,
        enable_zero_terminal_snr=False,
        eta=0,
    )
    theirs.scheduler.set_timesteps(5)
    empty = len(request.prompts)  # stands for the prompt that says nothing

    class Text(torch.nn.Module):
        def forward(self, numbers: Tensor, pool: bool) -> Tensor:
            encoder = network["condition_encoder"]
            tokens = encoder(request.prompts)
            return torch.cat([tokens, encoder.null_condition(1, tokens.shape[1]).expand(1, *tokens.shape[1:])])[numbers]

    class Network(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor, U: Tensor) -> Tensor:
            encoded = network["unitary_encoder"](U)
            encoded = encoded if encoded.dim() == 3 else encoded[:, None]
            return pipeline._predict(x, t, Condition(torch.cat([condition, encoded], dim=1)))[0]

    theirs.text_encoder, theirs.model = Text(), Network()
    theirs.empty_token_fn = lambda c: torch.full_like(c, empty)

    noise = torch.stack([torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    caught: list[Tensor] = []
    monkeypatch.setattr(process.codebook, "invert", lambda x: caught.append(x) or x.new_zeros(2, 2, 4).to(torch.int8))
    process.eta = 0
    process.sample(
        pipeline._guided(request, 3.0),
        (4, 2, 4),
        [torch.Generator().manual_seed(seed) for seed in (1, 2)],
        torch.device("cpu"),
        guidance_scale=3.0,
        guidance_mode="plain",
        sample_steps=5,
    )
    with torch.no_grad():
        expected = theirs.denoising(
            noise,
            c=request.index,
            U=request.targets,
            negative_c=request.negative_index,
            negative_u=request.negative_targets,
            g=3.0,
            no_bar=True,
        )
        without = theirs.denoising(noise, c=request.index, U=request.targets, g=3.0, no_bar=True)
    torch.testing.assert_close(caught[0], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(without, expected, atol=1e-2 * float(expected.abs().max()))


def test_rows_take_and_repeat_what_is_not_wanted() -> None:
    targets = np.arange(12, dtype=np.complex128).reshape(3, 2, 2)
    unwanted = Unwanted(("a", "b", "c"), targets)
    taken = unwanted.take(np.array([2, 0]))
    assert taken.prompts == ("c", "a")
    np.testing.assert_array_equal(taken.targets, targets[[2, 0]])
    repeated = taken.take(np.array([1])).repeated(4)
    assert repeated.prompts == ("a",) * 4
    assert repeated.targets is not None
    assert repeated.targets.shape == (4, 2, 2)
    assert Unwanted().take(np.array([0])).repeated(2).prompts is None


# ------------------------------------------------------------------------------------------------- searches


def test_a_beam_reads_both_sides(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", "policy")
    target = target_unitary("ghz:2", 2)
    settings: dict[str, Any] = {"search": "beam", "options": GUIDED, "max_tries": 64}
    found = find_exact(pipeline, target, negative=target_unitary("qft:2", 2), **settings)
    assert found.circuits[0].is_exact
    for negative, said in (
        (1j * target, "the negative target is the target that is asked for: give another one"),
        (np.eye(8), "the negative target has 3 qubits, but the target 2: give one of as many or fewer"),
        (np.ones((4, 4)), "not unitary"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_exact(pipeline, target, negative=negative, **settings)
    with pytest.raises(ConfigError, match=r"guidance_scale is 1 \(no guidance\)"):
        find_exact(pipeline, target, negative=np.eye(4), search="beam", options=SamplingConfig(guidance_scale=1))


def test_negative_requests_are_as_many_and_of_the_task(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "SRV", "policy")
    with pytest.raises(ConfigError, match="given 2 negative requests for 1 request: give one for each"):
        pipeline.requests([srv_prompt([2, 2])], negative_prompts=[srv_prompt([1, 1])] * 2)
    with pytest.raises(ConfigError, match="give no targets"):
        pipeline.requests([srv_prompt([2, 2])], negative_targets=[np.eye(4)])
    with pytest.raises(ConfigError, match=r"equals sample\.srv: give another vector"):
        find_entangling(pipeline, [2, 2], negative_srv=[2, 2])
    with pytest.raises(ConfigError, match=r"has 3 entries, but sample\.srv has 2: give one of 2, e\.g\. \[1, 1\]"):
        find_entangling(pipeline, [2, 2], negative_srv=[2, 2, 2])


def test_the_shipped_model_writes_other_circuits() -> None:
    """They have the vector asked for all the same, and fewer gates than with nothing on the other side."""
    pipeline = qd.load("pretrained:srv").pipeline
    prompts = [srv_prompt([2, 2, 2, 2])] * 64
    plain = pipeline.sample(pipeline.requests(prompts), 0)
    led = pipeline.sample(pipeline.requests(prompts, negative_prompts=[srv_prompt([1, 1, 1, 1])] * 64), 0)
    assert led.matches.mean() > 0.95
    assert (led.ids == plain.ids).all(axis=1).mean() < 0.5
    assert led.gate_counts.mean() < plain.gate_counts.mean() - 1


def test_the_commands_and_the_face_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("sample", ["2,2,1", "sample.negative_srv=2,2,2", "sample.num_circuits=2"]) == 0
    assert "2 distinct circuits verified to have SRV [2, 2, 1]" in capsys.readouterr().out
    assert len(qd.sample([2, 2, 1], negative_srv=[2, 2, 2], num=2, seed=0)) == 2
    guided = "model_params.guidance_scale=1.5"
    assert run_command("compile", ["ccz", "compile.negative_target=toffoli", f"compile.{guided}"]) == 0
    assert run_command("prepare", ["ghz:3", "prepare.negative_target=w:3", f"prepare.{guided}"]) == 0
    assert qd.compile("ccz", negative="toffoli", guidance_scale=1.5, seed=0).circuits[0].is_exact
    capsys.readouterr()
    for arguments, said in (
        (["ccz", "compile.negative_target=toffoli"], "model_params.guidance_scale is 1 (no guidance)"),
        (["ccz", "compile.negative_target=tofoli"], "compile.negative_target='tofoli': unknown target 'tofoli'"),
        (["ghz:2", "compile.negative_target=ccz", "--dry-run"], "the negative target has more qubits than the target"),
    ):
        assert run_command("compile", arguments) == 2
        assert said in capsys.readouterr().err
    assert run_command("sample", ["2,2,1", "sample.negative_srv=2,3,2"]) == 2
    assert "sample.negative_srv" in capsys.readouterr().err
