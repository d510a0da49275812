"""A genQC user's way here and back: a model folder, a data set and fine-tuning, each by the documented command."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from quantum_diffusion.interop.opening import load_pipeline
from tests.conftest import run_here
from tests.contracts.tiny_clip import WIDTH, install_open_clip, write_clip

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("genQC.models.unet_qc")

NETWORK = [
    "training.model.type=unet",
    "training.model.params={model_features:[32,64],clr_dim:5,t_emb_size:16,num_heads:[2,4],num_res_blocks:[1,1],transformer_depths:[1,1]}",
    "training.text_encoder.type=clip",
    "training.scheduler.type=ddim",
    "training.training.objective=epsilon",
    "training.training.loss=mse",
]


def test_from_genqc_to_a_fine_tuned_model_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.contracts.test_genqc_pipeline import KINDS, POOL, store, theirs

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install_open_clip(monkeypatch, tmp_path)
    clip = write_clip(tmp_path / "clip")
    model = store(theirs("SRV", ["Generate SRV: [1, 2, 2]"]), tmp_path / "genqc_model")

    # A data set in genQC's own format, as its `save_dataset` writes it.
    run_here(
        capfd,
        "generate",
        "datasets=quick_test_srv",
        f"datasets.gate_set=[{','.join(POOL)}]",
        "datasets.num_qubits=3",
        "datasets.num_samples=48",
        "datasets.min_gates=2",
        "datasets.max_gates=8",
        "datasets.output_path=ours",
    )
    run_here(capfd, "export-genqc", "export.dataset=ours", "export.output_path=genqc_data")

    weights = f"training.text_encoder.params={{weights:{clip},width:{WIDTH}}}"
    told, _ = run_here(
        capfd,
        "train",
        *NETWORK,
        weights,
        "training.general.dataset=genqc_data",
        "training.general.init_from_pipeline_dir=genqc_model",
        "training.general.output_path=tuned",
        "training.training.num_epochs=1",
        "training.training.batch_size=16",
        "training.training.num_sampled=4",
    )
    for other in ("eta=0.0, not 1.0", "guidance_mode='cfg++', not 'plain'"):
        assert f"training.scheduler.params.{other}" in told
    assert "training.scheduler.params.beta_schedule" not in told
    assert "(training=genqc_model/config.yaml has its settings)" in told
    tuned, origin = load_pipeline("tuned"), load_pipeline(model)
    name = "backbone.conv_in.weight"
    change = (tuned.network.state_dict()[name] - origin.network.state_dict()[name]).abs().max()
    assert 0 < float(change) < 0.1  # it began where genQC's model stood

    clip.rename(tmp_path / "gone")  # known prompts need no CLIP
    report, _ = run_here(
        capfd,
        "evaluate",
        "evaluation.model_dir=tuned",
        "evaluation.dataset=genqc_data",
        "evaluation.num_samples=8",
        "evaluation.model_params.sample_steps=4",
        "evaluation.save_folder=evaluated",
        "--json",
    )
    assert json.loads(report)
    told, _ = run_here(capfd, "export-genqc", "export.model_dir=tuned", "export.output_path=back")
    assert "from_config_file" in told
    assert "guidance_train_p: 0.1" in (tmp_path / "back" / "config.yaml").read_text()
    opened = KINDS["SRV"].from_config_file("back/", torch.device("cpu"))
    assert torch.equal(opened.model.conv_in.weight, tuned.network["backbone"].conv_in.weight)
    again = load_pipeline("back")
    assert again.prompt_features is not None
    assert set(again.prompt_features.prompts) >= set(tuned.config.prompts)


def test_a_model_of_genqc_asks_for_clip_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.contracts.test_genqc_pipeline import store, theirs

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    install_open_clip(monkeypatch, tmp_path)
    model = store(theirs("SRV", ["Generate SRV: [1, 2, 2]"]), tmp_path / "genqc_model")
    _, told = run_here(capfd, "sample", f"sample.model_dir={model}", "sample.srv=[1,2,2]", status=2)
    error = told.strip().splitlines()[-1]
    assert error.startswith("error: cannot download 'hf://laion/CLIP-ViT-B-32")
    assert error.endswith("(for the prompt 'Generate SRV: [1, 2, 2]', whose features are not known)")
    for way in ("set QUANTUM_DIFFUSION_CLIP", "connect once", "prompts that the model was saved with"):
        assert way in error
    monkeypatch.setenv("QUANTUM_DIFFUSION_CLIP", str(write_clip(tmp_path / "clip")))
    steps = "sample.model_params.sample_steps=2"
    run_here(capfd, "sample", f"sample.model_dir={model}", "sample.srv=[1,2,2]", "sample.max_tries=2", steps, status=3)
