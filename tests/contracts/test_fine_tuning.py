"""Starting from a saved model: features of prompts that still hold, other settings told, and what does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quantum_diffusion.config.schema import ClipParams
from quantum_diffusion.config.store import to_yaml
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError, ConfigError, IncompatibleDatasetsError
from quantum_diffusion.models.clip import ClipTextEncoder
from quantum_diffusion.models.prompt_features import FrozenPromptEncoder
from quantum_diffusion.pipeline.checkpoint import save_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.training.start import build_pipeline
from tests.conftest import MakeConfig
from tests.contracts.tiny_clip import WIDTH, write_clip

CPU = torch.device("cpu")
LONGER = " and then something else"


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_clip(tmp_path / "clip")


class Start:
    """Builds a small U-Net with CLIP on a data set, saves it, and starts again from it."""

    def __init__(self, make_config: MakeConfig, folder: Path, clip: Path, dataset: CircuitDataset) -> None:
        self.make_config, self.folder, self.clip = make_config, folder, clip
        config = self._config(None, {}, {})
        self.origin = build_pipeline(config, dataset, CPU)
        save_pipeline(self.origin, folder, to_yaml(config), {})

    def again(self, dataset: CircuitDataset, process: dict[str, Any] | None = None, **text: Any) -> DiffusionPipeline:
        return build_pipeline(self._config(str(self.folder), text, process or {}), dataset, CPU)

    def _config(self, source: str | None, text: dict[str, Any], process: dict[str, Any]) -> Any:
        params = {"weights": str(self.clip), "width": WIDTH} | text
        return self.make_config(
            "unet",
            "ddim",
            general={"init_from_pipeline_dir": source},
            scheduler_params=process,
            sections={"text_encoder": {"type": "clip", "params": params}},
            objective="epsilon",
            loss="mse",
        )


@pytest.fixture
def start(make_config: MakeConfig, tmp_path: Path, clip: Path, dataset: CircuitDataset) -> Start:
    return Start(make_config, tmp_path / "model", clip, dataset)


def features(pipeline: DiffusionPipeline, prompts: tuple[str, ...]) -> Tensor:
    encoder = pipeline.network["condition_encoder"]
    assert isinstance(encoder, FrozenPromptEncoder)
    return encoder.encode(prompts)


def expected(weights: Path, prompts: tuple[str, ...], length: int, **text: Any) -> Tensor:
    params = ClipParams.model_validate({"weights": str(weights), "width": WIDTH} | text)
    return ClipTextEncoder(params).encode(prompts)[0][:, :length]


def test_features_are_kept_only_by_the_encoder_that_made_them(
    start: Start, clip: Path, dataset: CircuitDataset, tmp_path: Path
) -> None:
    first = features(start.origin, dataset.prompts)
    length = first.shape[1]
    other = write_clip(tmp_path / "other", seed=1)
    again = features(start.again(dataset, weights=str(other)), dataset.prompts)
    torch.testing.assert_close(again, expected(other, dataset.prompts, length))
    assert not torch.allclose(again, first)
    last = features(start.again(dataset, layer="last"), dataset.prompts)
    torch.testing.assert_close(last, expected(clip, dataset.prompts, length, layer="last"))

    clip.rename(tmp_path / "gone")
    assert torch.equal(features(start.again(dataset), dataset.prompts), first)
    with pytest.raises(ConfigError, match=r"no CLIP weights at .*whose features are not known"):
        start.again(dataset, layer="last")


def test_longer_prompts_than_those_of_the_first_model_are_encoded(
    start: Start, clip: Path, dataset: CircuitDataset
) -> None:
    length = features(start.origin, dataset.prompts).shape[1]
    longer = replace(dataset, prompts=tuple(prompt + LONGER for prompt in dataset.prompts))
    for data, text in ((longer, {}), (dataset, {"max_length": 77})):
        found = features(start.again(data, **text), data.prompts)
        assert found.shape[1] > length
        assert found.shape[1] == text.get("max_length", found.shape[1])
        torch.testing.assert_close(found, expected(clip, data.prompts, found.shape[1]))


def test_other_settings_of_the_process_are_told(
    start: Start, dataset: CircuitDataset, caplog: pytest.LogCaptureFixture
) -> None:
    start.again(dataset)
    assert not caplog.records
    start.again(dataset, {"eta": 0.5, "guidance_mode": "cfg++", "input_perturbation": 0.0})
    (record,) = caplog.records
    told = record.getMessage()
    assert "training.scheduler.params.eta=1.0, not 0.5, training.scheduler.params.guidance_mode='plain', not" in told
    assert "input_perturbation" not in told
    assert told.endswith(f"(training={start.folder / 'training_config.yaml'} has its settings)")


def test_a_model_of_another_task_or_size_is_refused_with_all_reasons(
    start: Start, make_config: MakeConfig, dataset: CircuitDataset
) -> None:
    unitaries = np.zeros((len(dataset), 2, 8, 8), np.float32)
    unitaries[:, 0] = np.eye(8)
    other = replace(dataset, condition_type="UNITARY", targets=unitaries)
    with pytest.raises(
        IncompatibleDatasetsError, match=r"is for Schmidt rank vectors, the data set holds .* unitaries"
    ):
        start.again(other)
    sizes = {"num_res_blocks": [2, 2], "t_emb_size": 32}
    start.make_config = lambda *args, **kw: make_config(*args, model_params=sizes, **kw)
    with pytest.raises(CheckpointError, match="does not fit this configuration") as caught:
        start.again(dataset, {"eta": 0.5}, layer="last")
    message = str(caught.value)
    assert "training.model.params.num_res_blocks=[1, 1], not [2, 2]" in message
    assert "training.model.params.t_emb_size=16, not 32" in message
    assert "eta" not in message
    assert "layer" not in message
