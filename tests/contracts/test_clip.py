"""CLIP's text encoder: exact features, from every form of weights; each prompt encoded once; ways out without it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from quantum_diffusion.config.schema import ClipParams
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.clip import CONTEXT, ClipTextEncoder
from quantum_diffusion.models.prompt_features import FrozenPromptEncoder, PromptFeatures, cache_folder
from tests.contracts.tiny_clip import WIDTH, TextTower, write_clip, write_vocabulary

PROMPTS = ["Generate SRV: [1, 2, 2]", "Generate SRV: [2, 2]", "", "Compile using: ['h', 'cx', 'ccx']"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip")


def params(weights: Path, **values: object) -> ClipParams:
    return ClipParams.model_validate({"weights": str(weights), "width": WIDTH} | values)


@pytest.mark.parametrize(("layer", "skipped"), [("penultimate", 1), ("last", 0)])
def test_features_are_those_of_open_clip(folder: Path, layer: str, skipped: int) -> None:
    encoder = ClipTextEncoder(params(folder, layer=layer))
    features, counts = encoder.encode(PROMPTS)
    assert features.shape == (4, CONTEXT, WIDTH)
    assert counts.tolist()[2] == 2  # the empty prompt begins and ends
    with torch.no_grad():
        expected = TextTower().features(encoder.tokenize(PROMPTS), skipped)
    torch.testing.assert_close(features, expected, atol=2e-6, rtol=0)
    assert float((features[0] - features[1]).abs().max()) > 1e-2


def test_every_form_of_the_weights_gives_the_same(folder: Path, tmp_path: Path) -> None:
    expected, _ = ClipTextEncoder(params(folder)).encode(PROMPTS)
    state = TextTower().state_dict()
    pickled, wrapped = tmp_path / "a.bin", tmp_path / "b.pt"
    torch.save(state, pickled)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, wrapped)
    for file in (pickled, wrapped):
        found, _ = ClipTextEncoder(params(file, tokenizer=str(folder))).encode(PROMPTS)
        assert torch.equal(found, expected)

    import transformers

    other = tmp_path / "transformers"
    encoder = ClipTextEncoder(params(folder))
    encoder._model.save_pretrained(other)
    write_vocabulary(other)
    found, _ = ClipTextEncoder(params(other)).encode(PROMPTS)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    whole = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=encoder._model.config.to_dict(), vision_config={"num_hidden_layers": 1})
    )
    assert whole.text_model is not None


def test_a_prompt_is_encoded_once_in_a_run_and_on_a_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    encode = ClipTextEncoder.encode

    def counting(self: ClipTextEncoder, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(list(prompts))
        return encode(self, prompts)

    monkeypatch.setattr(ClipTextEncoder, "encode", counting)
    first = FrozenPromptEncoder(params(folder), PROMPTS[:1])
    rows = first.read([PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    assert calls == [["", PROMPTS[0], PROMPTS[1]]]
    assert rows[0] == rows[2] != rows[1]

    second = FrozenPromptEncoder(params(folder), PROMPTS[:1])
    assert torch.equal(second(second.read(PROMPTS[:2])), first(first.read(PROMPTS[:2])))
    assert len(calls) == 1

    files = sorted(cache_folder().rglob("*.safetensors"))
    assert len(files) == 3
    files[0].write_bytes(b"damaged")
    third = FrozenPromptEncoder(params(folder), PROMPTS[:1])
    assert torch.equal(third(third.read(PROMPTS[:2])), first(first.read(PROMPTS[:2])))
    assert len(calls) == 2


def test_other_weights_are_not_mistaken_for_those_of_the_cache(folder: Path, tmp_path: Path) -> None:
    other = write_clip(tmp_path / "other", seed=1)
    one, two = (FrozenPromptEncoder(params(place), PROMPTS[:1]) for place in (folder, other))
    assert float((one(one.read(PROMPTS[:1])) - two(two.read(PROMPTS[:1]))).abs().max()) > 1e-2
    assert ClipTextEncoder(params(folder)).key != ClipTextEncoder(params(folder, layer="last")).key


def test_a_model_sees_as_many_tokens_as_its_longest_prompt(folder: Path) -> None:
    encoder = FrozenPromptEncoder(params(folder), PROMPTS[:2])
    condition = encoder(encoder.read(PROMPTS[:2]))
    _, counts = ClipTextEncoder(params(folder)).encode(PROMPTS[:2])
    assert condition.shape == (2, int(counts.max()), WIDTH)
    assert torch.equal(encoder.null_condition(3, condition.shape[1])[2], encoder(encoder.read([""]))[0])
    with pytest.raises(ConfigError, match="its end would be cut off"):
        encoder.read(["Generate SRV: [1, 2, 2, 2, 2, 2, 2]"])
    whole = FrozenPromptEncoder(params(folder, max_length=77), PROMPTS[:2])
    assert whole(whole.read(PROMPTS[:1])).shape == (1, 77, WIDTH)
    with pytest.raises(ConfigError, match="at most 77"):
        whole.read(["z" * 100])


def test_loaders_hand_out_encoded_prompts(folder: Path, mixed_dataset: CircuitDataset) -> None:
    encoder = FrozenPromptEncoder(params(folder), mixed_dataset.prompts)
    loaders = DatasetLoader(0).get_dataloaders(mixed_dataset, 8, 0.2, bucketed=True, text_encoder=encoder.encode)
    for loader in filter(None, loaders):
        for batch in loader.epoch(0):
            prompts = [mixed_dataset.prompts[index] for index in batch.prompt_ids.tolist()]
            assert batch.conditions is not None
            assert torch.equal(batch.conditions, encoder.encode(prompts))
    plain = DatasetLoader(0).get_dataloaders(mixed_dataset, 8)[0]
    assert next(plain.epoch(0)).conditions is None
    with pytest.raises(ConfigError, match=r"text_encoder returned \[3\] for .* prompts: expected a tensor \[prompts"):
        DatasetLoader(0).get_dataloaders(mixed_dataset, 8, text_encoder=lambda prompts: torch.zeros(3))


def test_saved_features_need_no_clip(folder: Path) -> None:
    encoder = FrozenPromptEncoder(params(folder), PROMPTS[:2])
    expected = encoder(encoder.read(PROMPTS[:2]))
    content = encoder.features.saved()
    shutil.rmtree(folder)
    again = FrozenPromptEncoder(params(folder), PROMPTS[:2])
    again.features.load_saved(content)
    assert torch.equal(again(again.read(PROMPTS[:2])), expected)
    with pytest.raises(ConfigError, match=r"no CLIP weights at.*set QUANTUM_DIFFUSION_CLIP .*\[2, 1, 2\].*not known"):
        again.read(["Generate SRV: [2, 1, 2]"])
    for damaged in (b"", b"x" * 100, content[:50]):
        with pytest.raises(ValueError, match="expected the features"):
            PromptFeatures(params(folder), PROMPTS).load_saved(damaged)
    narrow = ClipParams(weights=str(folder), width=WIDTH + 1)
    with pytest.raises(ValueError, match="65 channels"):
        PromptFeatures(narrow, PROMPTS).load_saved(content)


def test_what_is_missing_or_wrong_is_said_in_a_line(folder: Path, tmp_path: Path) -> None:
    cases: list[tuple[ClipParams, str]] = [
        (
            params(tmp_path / "nowhere"),
            "no CLIP weights at.*set QUANTUM_DIFFUSION_CLIP .*text_encoder.params.weights.*connect.*prompts that",
        ),
        (params(tmp_path), "holds no CLIP weights: expected config.json"),
        (params(folder / "open_clip_model.safetensors", tokenizer=str(tmp_path)), "no CLIP vocabulary in"),
        (params(folder / "vocab.json", tokenizer=str(folder)), "cannot be read as weights"),
        (ClipParams(weights="hf://no-such-owner/no-such-clip"), "cannot download 'hf://no-such-owner/no-such-clip'"),
    ]
    for given, message in cases:
        with pytest.raises(ConfigError, match=message) as caught:
            ClipTextEncoder(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"set text_encoder\.params\.width=64, given 512"):
        FrozenPromptEncoder(ClipParams(weights=str(folder)), PROMPTS[:1]).read(PROMPTS[:1])
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read the CLIP vocabulary"):
        ClipTextEncoder(params(folder))


def test_the_environment_names_weights_where_the_model_s_are_not_on_this_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = ClipTextEncoder(params(folder)).encode(PROMPTS)
    monkeypatch.setenv("QUANTUM_DIFFUSION_CLIP", str(folder))
    for weights in (str(tmp_path / "of-another-machine"), ClipParams().weights):
        found, _ = ClipTextEncoder(ClipParams(weights=weights, width=WIDTH)).encode(PROMPTS)
        assert torch.equal(found, expected)
    other = write_clip(tmp_path / "other", seed=1)
    found, _ = ClipTextEncoder(params(other)).encode(PROMPTS)
    assert not torch.equal(found, expected)  # what the model names is here


def test_weights_that_lack_a_part_are_refused(folder: Path, tmp_path: Path) -> None:
    state = TextTower().state_dict()
    del state["ln_final.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ConfigError, match=r"1 of \d+ weights are missing.*final_layer_norm"):
        ClipTextEncoder(params(tmp_path / "less.pt", tokenizer=str(folder)))
    torch.save({"x": torch.zeros(2)}, tmp_path / "foreign.pt")
    with pytest.raises(ConfigError, match="is no CLIP text encoder"):
        ClipTextEncoder(params(tmp_path / "foreign.pt", tokenizer=str(folder)))


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('hostile').touch()",)


def test_a_pickle_runs_no_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Hostile()}, tmp_path / "hostile.bin")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        ClipTextEncoder(params(tmp_path / "hostile.bin", tokenizer=str(folder)))
    assert not (tmp_path / "hostile").exists()


def test_without_the_extra_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"needs the extra `clip`: pip install 'quantum_diffusion\[clip\]'"):
        ClipTextEncoder(params(folder))


def test_a_cache_that_cannot_be_written_costs_only_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    encoder = FrozenPromptEncoder(params(folder), PROMPTS[:1])
    assert len(encoder.read(PROMPTS[:1])) == 1
    assert "not kept for later runs" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * torch.nan, "holds NaN or infinity"),
        (lambda tensor: tensor.to(torch.int64), "is int64: expected real numbers"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused(folder: Path, change: Any, message: str) -> None:
    state = TextTower().state_dict()
    torch.save(state | {"ln_final.bias": change(state["ln_final.bias"])}, folder / "open_clip.pt")
    with pytest.raises(ConfigError, match=message):
        ClipTextEncoder(params(folder / "open_clip.pt"))
