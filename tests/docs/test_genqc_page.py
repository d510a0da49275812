"""Every command and the Python of the page "Coming from genQC", in order, on folders that genQC 0.2.5 wrote."""

from __future__ import annotations

import importlib
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.prompts import gates_prompt, srv_prompt
from quantum_diffusion.interop.genqc_pipeline import is_genqc_pipeline
from tests.conftest import run_here
from tests.contracts import tiny_clip

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("genQC.models.unet_qc")

PAGE = Path(__file__).parents[2] / "docs" / "genqc.md"
PAPER = {
    "model_features": [128, 128, 256],
    "t_emb_size": 256,
    "cond_emb_size": 512,
    "num_heads": [8, 8, 2],
    "num_res_blocks": [2, 2, 4],
    "transformer_depths": [1, 2, 1],
}
LESS = {
    "sample": ["sample.max_tries=2", "sample.model_params.sample_steps=2"],
    "compile": ["compile.max_tries=2", "compile.model_params.sample_steps=2"],
    "evaluate": ["evaluation.num_samples=4", "evaluation.model_params.sample_steps=2"],
    "train": ["training.training.max_steps=1", "training.training.batch_size=4"],
}
"""What the test adds to the page's commands, which otherwise take minutes."""


def store(kind: str, folder: Path) -> None:
    """Let genQC write an untrained model of the paper's size."""
    unets = importlib.import_module("genQC.models.unet_qc")
    scheduler = importlib.import_module("genQC.scheduler.scheduler_ddim").DDIMScheduler(
        "cpu", beta_schedule="cos_alpha"
    )
    text = importlib.import_module("genQC.models.frozen_open_clip").CachedFrozenOpenCLIPEmbedder()
    pool = ["h", "cx"] if kind == "SRV" else ["h", "cx", "z"]
    prompt = srv_prompt([1, 2, 2]) if kind == "SRV" else gates_prompt(pool, GatePool(pool))
    text.generate_cache(str_list=[prompt, ""], cached_empty_token_index=1)
    model: Any
    if kind == "SRV":
        model = unets.QC_Cond_UNet(clr_dim=4, num_clrs=4, **PAPER)
        pipeline = importlib.import_module("genQC.pipeline.diffusion_pipeline").DiffusionPipeline
    else:
        encoder = {"cond_emb_size": 512, "model_features": [2, 32, 64, 512], "num_heads": 8}
        encoder |= {"transformer_depths": [2, 2], "dropout": 0.2}
        model = unets.QC_Compilation_UNet(clr_dim=8, num_clrs=5, **PAPER, unitary_encoder_config=encoder)
        pipeline = importlib.import_module("genQC.pipeline.diffusion_pipeline_special").DiffusionPipeline_Compilation
    made = pipeline(scheduler, model, text, model, torch.device("cpu"))
    made.add_config = {"dataset": {"params": {"num_of_qubits": 3, "max_gates": 8, "gate_pool": pool}}}
    made.store_pipeline(f"{folder}/", f"{folder}/")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tiny_clip, "WIDTH", 512)
    tiny_clip.install_open_clip(monkeypatch, tmp_path)
    monkeypatch.setenv("QUANTUM_DIFFUSION_CLIP", str(tiny_clip.write_clip(tmp_path / "clip")))
    store("SRV", tmp_path / "genqc_model")
    store("UNITARY", tmp_path / "genqc_unitary_model")
    data = ["datasets=quick_test_srv", "datasets.num_samples=64", "datasets.n_jobs=1"]
    run_here(capfd, "generate", *data, "datasets.output_path=datasets/mine")
    run_here(capfd, "export-genqc", "export.dataset=datasets/mine", "export.output_path=genqc_data")
    (tmp_path / "circuit.qasm").write_text('OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; h q[0]; cx q[0],q[1];')
    (yaml_file,) = blocks("yaml")
    (tmp_path / "genqc.yaml").write_text(yaml_file)

    followed = []
    for block in blocks("console"):
        for line in block.replace("\\\n", " ").splitlines():
            program, command, *arguments = shlex.split(line)
            assert program == "quantum-diffusion"
            less = [] if "--cfg" in arguments else LESS.get(command, [])
            status = 3 if command in ("sample", "compile") else 0  # an untrained model finds nothing
            output, _ = run_here(capfd, command, *arguments, *less, status=status)
            if "--cfg" in arguments:
                assert "learning_rate: 0.0001" in output
                assert "lr_scheduler: cosine" in output
            followed.append(command)
    for command in (*LESS, "inspect", "export-genqc"):
        assert command in followed
    assert is_genqc_pipeline(tmp_path / "models" / "tuned_genqc")
    assert (tmp_path / "models" / "tuned_by_file" / "evaluation").is_dir()
    (python,) = blocks("python")
    exec(compile(python, str(PAGE), "exec"), {})
