"""The words of prompts may become more: a model saved before opens, samples the same, and can be trained further."""

from pathlib import Path

import pytest
import yaml

from quantum_diffusion import files
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.models import condition_encoder
from quantum_diffusion.pipeline.checkpoint import load_pipeline, save_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig

WORDS = condition_encoder.FIRST_WORDS
GROWN = {"at the end": (*WORDS, "iswap"), "in the middle": (*WORDS[:3], "iswap", *WORDS[3:]), "in front": ("u", *WORDS)}


def build(make_config: MakeConfig, dataset: CircuitDataset, name: str, **general: str) -> DiffusionPipeline:
    config = make_config(general={"output_path": name, **general})
    return DiffusionTrainer(config).setup_model(dataset)


@pytest.fixture
def saved(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DiffusionPipeline:
    """A model in the folder `model`, and in `older` as it was before models kept their words."""
    monkeypatch.setattr("quantum_diffusion.pipeline.build.vocabulary_of", lambda gates, words: WORDS)
    pipeline = build(make_config, dataset, str(tmp_path / "model"))
    for name in ("model", "older"):
        save_pipeline(pipeline, tmp_path / name, "", {})
    description = tmp_path / "older" / files.DESCRIPTION
    content = yaml.safe_load(description.read_text())
    del content["sha256"], content["params"]["vocabulary"]
    description.write_text(files.sealed(content, description.parent, ["model.safetensors"]))
    return pipeline


@pytest.mark.parametrize("where", GROWN)
def test_a_saved_model_opens_after_a_word_was_added(
    saved: DiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    prompts = list(saved.config.prompts) * 2
    expected = saved.sample(prompts, seed=3).ids
    monkeypatch.setattr(condition_encoder, "WORDS", GROWN[where])
    for name in ("model", "older"):
        opened = load_pipeline(tmp_path / name)
        assert opened.config.vocabulary == WORDS
        assert (opened.sample(prompts, seed=3).ids == expected).all()


@pytest.mark.parametrize("where", GROWN)
def test_training_goes_on_from_a_model_of_fewer_words(
    saved: DiffusionPipeline,
    make_config: MakeConfig,
    dataset: CircuitDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    monkeypatch.setattr("quantum_diffusion.pipeline.build.vocabulary_of", lambda gates, words: GROWN[where])
    assert build(make_config, dataset, str(tmp_path / "new")).config.vocabulary == GROWN[where]
    tuned = build(make_config, dataset, str(tmp_path / "tuned"), init_from_pipeline_dir=str(tmp_path / "older"))
    assert tuned.config == saved.config
    prompts = list(saved.config.prompts) * 2
    assert (tuned.sample(prompts, seed=3).ids == saved.sample(prompts, seed=3).ids).all()


def test_words_that_a_model_lacks_are_named(saved: DiffusionPipeline, tmp_path: Path) -> None:
    description = tmp_path / "model" / files.DESCRIPTION
    content = yaml.safe_load(description.read_text())
    del content["sha256"]
    content["params"]["vocabulary"].remove("srv")
    description.write_text(files.sealed(content, description.parent, ["model.safetensors"]))
    with pytest.raises(CheckpointError, match=r"cannot be used: prompt 'Generate SRV.*unknown word 'srv'"):
        load_pipeline(tmp_path / "model")
