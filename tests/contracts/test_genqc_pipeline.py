"""Pipeline folders of genQC 0.2.5, both ways: opened, sampled and exported with the same latents from the same noise.

genQC is a test extra installed without its own dependencies, so the module is skipped where it is missing; the library
that it loads CLIP with is a stand-in (`tiny_clip`).
"""

import importlib
import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from quantum_diffusion.circuits.prompts import gates_prompt, srv_prompt
from quantum_diffusion.config.known_names import (
    CLIP_WEIGHTS,
    GENQC_NOISE,
    GENQC_UNET,
    GENQC_UNITARY_ENCODER,
    GENQC_WIDTH,
)
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.interop.genqc_pipeline import is_genqc_pipeline, read_pipeline
from quantum_diffusion.interop.genqc_pipeline_export import write_pipeline
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from tests.contracts.test_genqc_parity import randomise
from tests.contracts.tiny_clip import WIDTH, install_open_clip, write_clip

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("genQC.models.unet_qc")
    genqc_models = importlib.import_module("genQC.models.unet_qc")
    genqc_ddim = importlib.import_module("genQC.scheduler.scheduler_ddim")
    genqc_srv = importlib.import_module("genQC.pipeline.diffusion_pipeline")
    genqc_special = importlib.import_module("genQC.pipeline.diffusion_pipeline_special")
    genqc_broken = importlib.import_module("genQC.pipeline.compilation_diffusion_pipeline")

CPU = torch.device("cpu")
KINDS = {"SRV": genqc_srv.DiffusionPipeline, "UNITARY": genqc_special.DiffusionPipeline_Compilation}
POOL = ["h", "cx", "ccx"]
SIZES = {"model_features": [32, 64], "num_heads": [2, 4], "num_res_blocks": [1, 1], "transformer_depths": [1, 1]}


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of CLIP weights, which genQC's text encoder has, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install_open_clip(monkeypatch, tmp_path)
    return write_clip(tmp_path / "clip")


def theirs(task: str, prompts: list[str], *, eta: float = 0.0, objective: str = "epsilon") -> Any:
    """Make a small pipeline of genQC, random in every tensor."""
    text = importlib.import_module("genQC.models.frozen_open_clip").CachedFrozenOpenCLIPEmbedder()
    text.generate_cache(str_list=[*prompts, ""], cached_empty_token_index=len(prompts))
    sizes = {"clr_dim": 5, "num_clrs": len(POOL) + 2, "t_emb_size": 16, "cond_emb_size": WIDTH, **SIZES}
    if task == "UNITARY":
        encoder = {"cond_emb_size": WIDTH, "model_features": [2, 32, 64, WIDTH], "num_heads": 4}
        encoder |= {"transformer_depths": [1, 1], "dropout": 0.2}
        model = genqc_models.QC_Compilation_UNet(**sizes, unitary_encoder_config=encoder)
    else:
        model = genqc_models.QC_Cond_UNet(**sizes)
    randomise(model)
    scheduler = genqc_ddim.DDIMScheduler("cpu", beta_schedule="cos_alpha", eta=eta, prediction_type=objective)
    kind = KINDS[task]
    pipeline = kind(scheduler, model, text, model, CPU)
    data = {"num_of_qubits": 3, "max_gates": 8, "gate_pool": POOL}
    pipeline.add_config = {"dataset": {"params": data}}
    return pipeline


def store(pipeline: Any, folder: Path) -> Path:
    pipeline.store_pipeline(f"{folder}/", f"{folder}/")
    return folder


def point_to(pipeline: DiffusionPipeline, clip: Path) -> DiffusionPipeline:
    """Give an opened pipeline, whose folder names the Hub's weights, those of a folder."""
    features = pipeline.prompt_features
    assert features is not None
    features.params = features.params.model_copy(update={"weights": str(clip)})
    return pipeline


def their_latents(pipeline: Any, noise: Tensor, prompts: list[str], scale: float, unitaries: Tensor | None) -> Tensor:
    pipeline.scheduler.set_timesteps(5)
    tokens = pipeline.text_encoder.tokenize_and_push_to_device(prompts)
    rest = {} if unitaries is None else {"U": unitaries}
    # With `g=1` the one still adds noise back as predicted without a prompt, and without guidance the other fails.
    guided = scale != 1 or unitaries is not None
    found: Tensor = pipeline.denoising(noise.clone(), c=tokens, g=scale, enable_guidance=guided, no_bar=True, **rest)
    return found


def our_latents(
    pipeline: DiffusionPipeline, noise: Tensor, prompts: list[str], scale: float, unitaries: Any, monkeypatch: Any
) -> Tensor:
    """Sample with given noise; the latents are what the gate embedding is asked to decode at the end."""
    latents: list[Tensor] = []
    process = pipeline.process
    invert = process.codebook.invert
    draws = itertools.chain([noise], itertools.repeat(torch.zeros_like(noise)))
    with monkeypatch.context() as patch:
        patch.setattr("quantum_diffusion.diffusion.gaussian._draw_normal", lambda shape, generators: next(draws))
        patch.setattr(process.codebook, "invert", lambda x: latents.append(x.clone()) or invert(x))
        options = SamplingConfig(guidance_scale=scale, sample_steps=5)
        pipeline.sample(pipeline.requests(prompts, unitaries), 0, options)
    return latents[0]


def draw(task: str, count: int = 4) -> tuple[Tensor, list[str], Any]:
    torch.manual_seed(3)
    noise = torch.randn(count, 5, 3, 8)
    if task == "SRV":
        return noise, [srv_prompt(srv) for srv in ([1, 2, 2], [2, 2, 2], [1, 1, 1], [2, 1, 2])], None
    unitaries = torch.linalg.qr(torch.randn(count, 8, 8, dtype=torch.complex128))[0]
    return noise, [f"Compile using: {POOL}"] * count, [matrix.numpy() for matrix in unitaries]


def as_channels(unitaries: Any) -> Tensor | None:
    if unitaries is None:
        return None
    stacked = torch.stack([torch.from_numpy(matrix) for matrix in unitaries])
    return torch.stack([stacked.real, stacked.imag], dim=1).float()


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("task", ["SRV", "UNITARY"])
def test_a_folder_of_genqc_samples_the_same_latents(
    task: str, scale: float, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise, prompts, unitaries = draw(task)
    reference = theirs(task, sorted(set(prompts)))
    folder = store(reference, tmp_path / "genqc")
    assert is_genqc_pipeline(folder)
    ours = point_to(load_pipeline(folder), clip)
    assert ours.config.gate_pool == tuple(POOL)
    expected = their_latents(reference, noise, prompts, scale, as_channels(unitaries))
    found = our_latents(ours, noise, prompts, scale, unitaries, monkeypatch)
    spread = float(expected.std())
    torch.testing.assert_close(found / spread, expected / spread, atol=2e-3, rtol=0)
    assert torch.equal(ours.process.codebook.invert(found).long(), reference.embedder.invert(expected))


@pytest.mark.parametrize("task", ["SRV", "UNITARY"])
def test_an_exported_model_opens_in_genqc_and_samples_the_same(
    task: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise, prompts, unitaries = draw(task)
    ours = small(task, 5, clip)
    ours.check_prompts()
    name = write_pipeline(ours, tmp_path / "exported")
    kind = KINDS[task]
    assert name == kind.__name__
    opened = kind.from_config_file(f"{tmp_path / 'exported'}/", CPU)
    assert opened.gate_pool == POOL
    expected = their_latents(opened, noise, prompts, 3.0, as_channels(unitaries))
    found = our_latents(ours, noise, prompts, 3.0, unitaries, monkeypatch)
    spread = float(expected.std())
    torch.testing.assert_close(found / spread, expected / spread, atol=2e-3, rtol=0)


def small(task: str, seed: int, clip: Path) -> DiffusionPipeline:
    """Make a small U-Net pipeline of ours with random sizes and weights, as genQC could have it."""
    rng = random.Random(seed)
    levels = rng.choice([2, 3])
    prompts = (
        (gates_prompt(POOL, _pool()),)
        if task == "UNITARY"
        else tuple(srv_prompt(srv) for srv in ([1, 2, 2], [2, 2, 2], [1, 1, 1], [2, 1, 2]))
    )
    features = [32 * rng.randint(1, 2) for _ in range(levels)]
    values: dict[str, Any] = {
        "gate_pool": POOL,
        "num_qubits": 3,
        "max_gates": 8,
        "length_counts": {},
        "prompts": prompts,
        "objective": "epsilon",
        "loss": "mse",
        "prefix_head": False,
        "bucketed": True,
        "condition_type": task,
        "model": {
            "type": "unet",
            "params": {
                "model_features": features,
                "clr_dim": 5,
                "t_emb_size": 2 * rng.randint(2, 16),
                "num_heads": [rng.choice([1, 2, 4]) for _ in features],
                "num_res_blocks": [rng.randint(1, 2) for _ in features],
                "transformer_depths": [1, *[rng.randint(0, 1) for _ in features[1:]]],
            },
        },
        "text_encoder": {"type": "clip", "params": {"weights": str(clip), "width": WIDTH}},
        "scheduler": {
            "type": "ddim",
            "params": {
                "beta_schedule": rng.choice(["cos_alpha", "linear", "linear_sqrt"]),
                "eta": 0.0,
                "guidance_mode": "cfg++" if task == "SRV" else "plain",
            },
        },
    }
    if task == "UNITARY":
        values["unitary_encoder"] = {"type": "convolution", "params": {"features": [32, 64], "num_heads": 4}}
    pipeline = make_pipeline(PipelineConfig.model_validate(values), seed=seed)
    torch.manual_seed(seed)
    for name in ("backbone", "unitary_encoder"):
        if name in pipeline.network:
            randomise(pipeline.network[name])
    return pipeline


def _pool() -> Any:
    from quantum_diffusion.circuits.gates import GatePool

    return GatePool(POOL)


@pytest.mark.parametrize("seed", range(100))
def test_a_model_comes_back_from_genqc_the_same(seed: int, clip: Path, tmp_path: Path) -> None:
    """100 small pipelines: ours => a folder of genQC => ours; every tenth goes through genQC's own hands."""
    task = ("SRV", "UNITARY")[seed % 2]
    ours = small(task, seed, clip)
    ours.check_prompts()
    write_pipeline(ours, tmp_path / "exported")
    folder = tmp_path / "exported"
    if seed % 10 < 2:
        kind = KINDS[task]
        opened = kind.from_config_file(f"{folder}/", CPU)
        folder = store(opened, tmp_path / "again")
    again = read_pipeline(folder)
    if folder.name == "again":
        point_to(again, clip)
    weights = ours.network.state_dict()
    assert again.network.state_dict().keys() == weights.keys()
    assert all(torch.equal(again.network.state_dict()[name], tensor) for name, tensor in weights.items())
    _, prompts, unitaries = draw(task)
    options = SamplingConfig(guidance_scale=2.0, sample_steps=3)
    first, second = (
        pipeline.sample(pipeline.requests(prompts, unitaries), seed, options) for pipeline in (ours, again)
    )
    assert (first.report.ids == second.report.ids).all()
    assert first.report.reasons == second.report.reasons


def test_the_class_that_genqc_itself_names_cannot_sample(clip: Path, tmp_path: Path) -> None:
    """Of genQC 0.2.5: so unitaries are exported under the name of its other class, and both are opened."""
    noise, prompts, unitaries = draw("UNITARY")
    reference = theirs("UNITARY", prompts)
    reference.__class__ = genqc_broken.DiffusionPipeline_Compilation
    with pytest.raises(TypeError, match="micro_cond"):
        their_latents(reference, noise, prompts, 2.0, as_channels(unitaries))
    assert load_pipeline(store(reference, tmp_path / "genqc")).config.condition_type == "UNITARY"


def rewrite(folder: Path, **changes: Any) -> None:
    """Change entries of the description of a folder, given by their path with `__` between keys; None removes one."""
    file = folder / "config.yaml"
    description = yaml.safe_load(file.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = description
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[last]
        else:
            node[last] = value
    file.write_text(yaml.safe_dump(description))


LEGACY_POOL = [f"qiskit.circuit.library.standard_gates.{path}Gate" for path in ("h.H", "x.CX", "x.CCX")]


def test_legacy_layouts_open(clip: Path, tmp_path: Path) -> None:
    """No embedder, class paths as gate pool, pickled weights, a path of somebody else's machine."""
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    expected = load_pipeline(folder)
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "model.pt")
    for name in ("model", "embedder"):
        (folder / f"{name}.safetensors").unlink()
    rewrite(
        folder,
        params__embedder=None,
        params__model__save_type="pt",
        params__model__save_path="/somewhere/else/model.pt",
        params__add_config__dataset__params__gate_pool=LEGACY_POOL,
    )
    found = load_pipeline(folder)
    assert found.config == expected.config
    weights = found.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "genQC.pipeline.multimodal_diffusion_pipeline.X"}, "unknown name 'genQC.pipeline.multimodal"),
        ({"params__model__target": "os.system"}, "unknown name 'os.system'"),
        ({"params__scheduler__target": "genQC.scheduler.X"}, "scheduler.target"),
        ({"params__text_encoder__target": "os.system"}, "text_encoder.target"),
        ({"params__scheduler": None}, "scheduler: expected a mapping"),
        ({"params__scheduler__params__beta_schedule": "path:betas"}, "beta_schedule"),
        ({"params__scheduler__params__prediction_type": "mu"}, "prediction_type"),
        ({"params__model__params__model_features": "many"}, "model_features"),
        ({"params__model__params__model_features": [32, 96]}, "weight .*gives"),
        ({"params__model__params__num_res_blocks": [1, 2]}, "do not fit the model: missing"),
        ({"params__model__params__num_clrs": 4, "params__add_config__dataset__params__gate_pool": ["h"] * 2}, "gate"),
        ({"params__add_config__dataset__params__gate_pool": ["h", "rx"]}, "unknown gate 'rx'"),
        ({"params__add_config__dataset__params__gate_pool": [*POOL, "z"]}, "embeds gates in"),
        ({"params__add_config__dataset__params__gate_pool": None}, "expected a list of gates"),
        ({"params__add_config__dataset__params__num_of_qubits": True}, "expected a whole number"),
        ({"params__add_config": None}, "add_config: expected a mapping"),
        ({"params__scheduler__params__enable_zero_terminal_snr": "false"}, "expected true or false, given 'false'"),
        ({"params__text_encoder__params__enable_cache_token_limit": 0}, "expected true or false, given 0"),
        ({"params__text_encoder__params__arch": [1]}, "expected names as arch and version"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_line(
    changes: dict[str, Any], message: str, clip: Path, tmp_path: Path
) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    rewrite(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pipeline(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_damaged_and_hostile_files_are_refused(clip: Path, tmp_path: Path) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    content = (folder / "model.safetensors").read_bytes()
    for content_left in (content[:1000], b""):
        (folder / "model.safetensors").write_bytes(content_left)
        with pytest.raises(CheckpointError, match=r"model\.safetensors' is damaged"):
            load_pipeline(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        load_pipeline(folder)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.yaml").write_text("target: genQC.pipeline.X\nparams: !!python/object/apply:os.system ['x']")
    with pytest.raises(CheckpointError, match="is not readable YAML"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * torch.nan, "'conv_in.bias' holds NaN or infinity"),
        (lambda tensor: tensor + torch.inf, "'conv_in.bias' holds NaN or infinity"),
        (lambda tensor: tensor.to(torch.complex64), "'conv_in.bias' is complex64: expected real numbers"),
        (lambda tensor: tensor.to(torch.int32), "'conv_in.bias' is int32: expected real numbers"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused(change: Any, message: str, clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state | {"conv_in.bias": change(state["conv_in.bias"])}, folder / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        load_pipeline(folder)


def test_a_description_is_recognised_in_any_form_of_yaml(clip: Path, tmp_path: Path) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    plain = (folder / "config.yaml").read_text()
    description = yaml.safe_load(plain)
    for text in (
        "\ufeff" + plain,
        plain.replace("target:", '"target":', 1),
        yaml.safe_dump(description, default_flow_style=True, sort_keys=True),
        yaml.safe_dump(description, default_flow_style=True, sort_keys=False, width=10**6),
    ):
        (folder / "config.yaml").write_text(text, encoding="utf-8")
        assert load_pipeline(folder).config.num_qubits == 3
    assert not is_genqc_pipeline(tmp_path)


def test_aliases_that_expand_without_bound_are_refused(clip: Path, tmp_path: Path) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    lines = ["target: genQC.pipeline.diffusion_pipeline.DiffusionPipeline", "a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 9)}]" for n in range(9)]
    (folder / "config.yaml").write_text("\n".join([*lines, "params: *a9"]))
    with pytest.raises(CheckpointError, match="with its aliases expanded it has more than 100,000 values"):
        load_pipeline(folder)


def test_what_a_folder_leaves_out_has_genqcs_defaults(clip: Path, tmp_path: Path) -> None:
    from inspect import signature

    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    rewrite(folder, params__scheduler__params={"device": "cpu"})
    config = load_pipeline(folder).config
    process = config.scheduler.params.model_dump()
    expected = {name: one.default for name, one in signature(genqc_ddim.DDIMScheduler.__init__).parameters.items()}
    assert {name: process[name] for name in (*GENQC_NOISE, "eta")} == {
        name: expected[name] for name in (*GENQC_NOISE, "eta")
    }
    assert config.objective == expected["prediction_type"]
    unet = {name: one.default for name, one in signature(genqc_models.QC_Cond_UNet.__init__).parameters.items()}
    assert {name: unet[name] for name in GENQC_UNET} == GENQC_UNET
    assert unet["cond_emb_size"] == GENQC_WIDTH
    encoder = importlib.import_module("genQC.models.unitary_encoder").Unitary_encoder.__init__
    assert {name: signature(encoder).parameters[name].default for name in GENQC_UNITARY_ENCODER} == (
        GENQC_UNITARY_ENCODER
    )
    assert next(iter(CLIP_WEIGHTS)) == ("ViT-B-32", "datacomp_xl_s13b_b90k")


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({"max_length": 9}, 9),
        ({"max_length": 9, "enable_cache_token_limit": False}, 77),
        ({"target": "genQC.models.clip.frozen_open_clip.FrozenOpenCLIPEmbedder", "max_length": 9}, 77),
        ({"max_length": None}, 77),
    ],
)
def test_prompts_are_cut_only_where_genqc_cuts_them(
    changes: dict[str, Any], length: int, clip: Path, tmp_path: Path
) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    prefix = "params__text_encoder__"
    rewrite(folder, **{prefix + ("" if name == "target" else "params__") + name: v for name, v in changes.items()})
    assert load_pipeline(folder).config.text_encoder.params.max_length == length


def test_a_pool_with_fewer_gates_than_the_embedding_is_told(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    load_pipeline(folder)
    assert not caplog.records
    rewrite(folder, params__add_config__dataset__params__gate_pool=POOL[:2])
    load_pipeline(folder)
    assert "embeds 3 gates and add_config names a gate_pool of 2" in caplog.text


def exported(pipeline: DiffusionPipeline, folder: Path, dropout: float | None = None) -> dict[str, Any]:
    write_pipeline(pipeline, folder, dropout)
    params: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())["params"]
    return params


def test_an_export_names_the_clip_of_the_model_or_says_that_it_is_unknown(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store(theirs("SRV", [srv_prompt([1, 2, 2])]), tmp_path / "genqc")
    for model in (("ViT-B-32", "laion2b_s34b_b79k"), ("ViT-H-14", "laion2b_s32b_b79k")):
        rewrite(folder, params__text_encoder__params__arch=model[0], params__text_encoder__params__version=model[1])
        caplog.clear()
        written = exported(load_pipeline(folder), tmp_path / model[0])["text_encoder"]["params"]
        assert (written["arch"], written["version"]) == model
        assert "is not known" not in caplog.text
    exported(small("SRV", 1, clip), tmp_path / "local")
    assert "config.yaml names ViT-B-32/datacomp_xl_s13b_b90k; if they are others, correct arch" in caplog.text


def test_an_export_says_how_it_was_trained_and_is_sampled(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = small("SRV", 1, clip)
    values = ours.config.model_dump()
    values["scheduler"]["params"]["guidance_mode"] = "plain"
    for number, (dropout, expected) in enumerate(((None, (True, 0.1)), (0.25, (True, 0.25)), (0.0, (False, 0.0)))):
        written = exported(ours, tmp_path / str(number), dropout)
        assert (written["enable_guidance_train"], written["guidance_train_p"]) == expected
    assert "CFG++" not in caplog.text
    exported(make_pipeline(PipelineConfig.model_validate(values)), tmp_path / "plain")
    assert "genQC always guides models for Schmidt rank vectors by CFG++" in caplog.text


def test_models_that_genqc_has_no_parts_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.type=policy, text_encoder\.type=prompt, scheduler\.type=masked"):
        write_pipeline(load_pipeline("pretrained:srv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_nothing(clip: Path, tmp_path: Path) -> None:
    ours = small("SRV", 1, clip)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(CheckpointError, match="choose another one"):
        write_pipeline(ours, tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def with_scheduler(folder: Path, name: str, objective: str, **params: Any) -> DiffusionPipeline:
    kind = f"genQC.scheduler.scheduler_{name.lower()}.{name}Scheduler"
    values = {"beta_schedule": "linear", "prediction_type": objective} | params
    rewrite(folder, params__scheduler={"target": kind, "params": values})
    return load_pipeline(folder)


@pytest.mark.parametrize(
    ("name", "objective", "params", "sampler", "zero"),
    [
        ("DDIM", "epsilon", {"eta": 0.5}, "ddim", False),
        ("DDIM", "v-type", {"eta": 0.5}, "ddim", True),
        ("DDIM", "x0", {"eta": 0.5, "enable_zero_terminal_snr": False}, "ddim", False),
        ("DDPM", "epsilon", {}, "ddpm", False),
        ("DDPM", "x0", {}, "ddpm", True),
        ("DPM", "epsilon", {"solver_order": 2}, "dpmsolver++", False),
        ("DPM", "v-type", {"solver_order": 2}, "ddim", True),
        ("DPM", "x0", {"solver_order": 2, "enable_zero_terminal_snr": False}, "dpmsolver++", False),
    ],
)
def test_models_with_every_scheduler_open_and_sample(
    name: str, objective: str, params: dict[str, Any], sampler: str, zero: bool, clip: Path, tmp_path: Path
) -> None:
    """With the noise that genQC's scheduler has; of its DPM at zero signal we take the solver of order 1."""
    prompt = srv_prompt([1, 2, 2])
    folder = store(theirs("SRV", [prompt]), tmp_path / "genqc")
    ours = point_to(with_scheduler(folder, name, objective, **params), clip)
    settings = ours.config.scheduler
    assert (settings.type, settings.params.zero_terminal_snr) == (sampler, zero)
    if sampler == "ddim":
        assert settings.params.eta == (0 if name == "DPM" else 0.5)
    reference = genqc_ddim.DDIMScheduler(
        "cpu",
        beta_schedule="linear",
        prediction_type=objective,
        enable_zero_terminal_snr=params.get("enable_zero_terminal_snr", True),
    )
    torch.testing.assert_close(ours.process.alpha_bar.float(), reference.alphas_cumprod, rtol=0, atol=1e-5)
    assert len(ours.sample(ours.requests([prompt] * 2), 0, SamplingConfig(sample_steps=3)).report.ids) == 2


@pytest.mark.parametrize("objective", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmsolver++"])
def test_a_model_of_every_scheduler_samples_in_genqc(
    sampler: str, objective: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """genQC's DDPM cannot step, its DPM knows no epsilon, and it rescales schedules unless it is told not to."""
    noise, prompts, unitaries = draw("UNITARY", 2)
    values = small("UNITARY", 3, clip).config.model_dump()
    values["objective"] = objective
    values["scheduler"] = {"type": sampler, "params": {"beta_schedule": "linear", "eta": 0.0}}
    ours = make_pipeline(PipelineConfig.model_validate(values), seed=3)
    ours.check_prompts()
    write_pipeline(ours, tmp_path / "exported")
    opened = KINDS["UNITARY"].from_config_file(f"{tmp_path / 'exported'}/", CPU)
    schedule = opened.scheduler.alphas_cumprod
    torch.testing.assert_close(ours.process.alpha_bar.float(), schedule, rtol=0, atol=1e-5)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **_: torch.zeros(shape))
    expected = their_latents(opened, noise, prompts, 3.0, as_channels(unitaries))
    found = our_latents(ours, noise, prompts, 3.0, unitaries, monkeypatch)
    assert bool(expected.isfinite().all())
    if sampler != "dpmsolver++":  # test_genqc_schedulers says how the steps of this one differ
        torch.testing.assert_close(found, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)
    again = read_pipeline(tmp_path / "exported").config.scheduler
    assert again.params.zero_terminal_snr is False
    as_ddim = sampler == "ddpm" or (sampler == "dpmsolver++" and objective == "epsilon")
    assert again.type == ("ddim" if as_ddim else sampler)
