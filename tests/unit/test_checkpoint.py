"""Saved pipelines and checkpoints: what is read back, what is refused, and what a kill or a full disk leaves."""

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quantum_diffusion import files
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.pipeline.checkpoint import (
    load_pipeline,
    read_checkpoint,
    read_metadata,
    save_pipeline,
    write_checkpoint,
)
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.training.training import DiffusionTrainer

CPU = torch.device("cpu")


@pytest.fixture
def build(make_config: Callable[..., TrainingConfig], dataset: CircuitDataset) -> Callable[..., DiffusionPipeline]:
    def make(*args: Any, seed: int = 0, **options: Any) -> DiffusionPipeline:
        return DiffusionTrainer(make_config(*args, general={"seed": seed, "overwrite": True}, **options)).setup_model(
            dataset
        )

    return make


@pytest.fixture
def folder(build: Callable[..., DiffusionPipeline], tmp_path: Path) -> Path:
    save_pipeline(build(), tmp_path / "model", "general: {}\n", {"status": "finished", "seed": 0})
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("model", "scheduler", "loss"),
    [("transformer", "masked", "cross_entropy"), ("transformer", "ddim", "cross_entropy"), ("unet", "ddim", "mse")],
)
def test_a_loaded_pipeline_makes_identical_samples(
    build: Callable[..., DiffusionPipeline], tmp_path: Path, model: str, scheduler: str, loss: str
) -> None:
    pipeline = build(model, scheduler, loss=loss, objective="x0", prefix_head_weight=0.5 * (model == "transformer"))
    with torch.no_grad():
        for parameter in pipeline.network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_pipeline(pipeline, tmp_path / "model", "", {})
    loaded = load_pipeline(tmp_path / "model")
    assert loaded.config == pipeline.config
    prompts = list(pipeline.config.prompts) * 3
    first, second = pipeline.sample(prompts, 4), loaded.sample(prompts, 4)
    assert first.ids.tolist() == second.ids.tolist()
    assert first.report.reasons == second.report.reasons


def test_files_are_plain_and_readable(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.yaml",
        "metadata.yaml",
        "model.safetensors",
        "training_config.yaml",
    ]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())
    assert yaml.safe_load((folder / "config.yaml").read_text())["params"]["gate_pool"] == ["h", "cx"]
    assert read_metadata(folder) == {"status": "finished", "seed": 0}


def edit(file: Path, change: Callable[[dict[str, Any]], object], keep_seal: bool = False) -> None:
    """Change a description; with a right checksum, unless it keeps the old one."""
    content = yaml.safe_load(file.read_text())
    checksums = content.pop("sha256")
    change(content)
    if keep_seal:
        file.write_text(yaml.safe_dump(content | {"sha256": checksums}))
    else:
        file.write_text(files.sealed(content, file.parent, ["model.safetensors"]))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda f: (f / "config.yaml").unlink(), "no saved model"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 1000), "checksum is wrong"),
    "flipped bit": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-1] + bytes([(f / "model.safetensors").read_bytes()[-1] ^ 1])
        ),
        "checksum is wrong",
    ),
    "no checksum": (
        lambda f: (f / "config.yaml").write_text((f / "config.yaml").read_text().partition("sha256")[0]),
        "was edited",
    ),
    "edited": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"].update(gate_pool=["h", "cz"]), keep_seal=True),
        "was edited",
    ),
    "broken YAML": (lambda f: (f / "config.yaml").write_text("a: [1,\n"), "no readable YAML"),
    "a strange tag": (lambda f: (f / "config.yaml").write_text("a: !!bool x\n"), "no readable YAML"),
    "binary": (lambda f: (f / "config.yaml").write_bytes(b"\xff\xfe\x00\x01"), "no readable YAML"),
    "a list": (lambda f: (f / "config.yaml").write_text("[1, 2]"), "does not describe"),
    "empty": (lambda f: (f / "config.yaml").write_text(""), "does not describe"),
    "genQC's": (lambda f: (f / "config.yaml").write_text("target: genQC.pipeline.X\n"), "does not describe"),
    "code": (lambda f: (f / "config.yaml").write_text("!!python/object/apply:os.system [exit]"), "no readable YAML"),
    "newer": (lambda f: edit(f / "config.yaml", lambda c: c.update(format_version=3)), "format version 3"),
    "older": (lambda f: edit(f / "config.yaml", lambda c: c.update(format_version=1)), "format version 1"),
    "no params": (lambda f: edit(f / "config.yaml", lambda c: c.pop("params")), "cannot be used"),
    "another gate": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"].update(gate_pool=["h", "cx", "z"])),
        "cannot be used: its model.safetensors is not of its config.yaml",
    ),
    "unknown gate": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"].update(gate_pool=["h", "cnot"])),
        "cannot be used.*'cnot'",
    ),
    "another width": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"]["model"]["params"].update(width=32)),
        "cannot be used: its model.safetensors is not of its config.yaml",
    ),
    "a deeper model": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"]["model"]["params"].update(depth=3)),
        "cannot be used: its model.safetensors is not of its config.yaml",
    ),
    "unknown objective": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"].update(objective="score")),
        "cannot be used.*objective",
    ),
    "unknown key": (lambda f: edit(f / "config.yaml", lambda c: c["params"].update(widht=1)), "unknown key 'widht'"),
    "unknown word": (
        lambda f: edit(f / "config.yaml", lambda c: c["params"].update(prompts=["Draw a cat"])),
        "cannot be used.*'draw'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused(folder: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pipeline(folder)
    assert folder.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_missing_metadata_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved model"):
        load_pipeline(tmp_path / "nothing")
    for content in ("", "[", "- 1"):
        (folder / "metadata.yaml").write_text(content)
        with pytest.raises(CheckpointError, match=r"metadata\.yaml"):
            read_metadata(folder)


# -------------------------------------------------------------------------------------------------- checkpoints


class Attack:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    torch.save({"state": Attack(witness)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"state": Attack(witness)}))
    torch.save({"state": Attack(witness)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("zip.pt", "plain.pt", "old.pt"):
        with pytest.raises(CheckpointError, match="damaged or foreign"):
            read_checkpoint(tmp_path / name, CPU)
    assert not witness.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert witness.exists(), "the attack itself works"


def test_checkpoints_are_read_back(tmp_path: Path) -> None:
    state = {"weights": torch.arange(5.0), "step": 3, "names": ["a", None], "rate": 0.1}
    write_checkpoint(tmp_path / "run" / "checkpoint.pt", state)
    loaded = read_checkpoint(tmp_path / "run" / "checkpoint.pt", CPU)
    assert torch.equal(loaded.pop("weights"), state.pop("weights"))
    assert loaded == state
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_checkpoint(tmp_path / "none.pt", CPU)
    os.truncate(tmp_path / "run" / "checkpoint.pt", 200)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "run" / "checkpoint.pt", CPU)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"foreign.*resume=never"):
        read_checkpoint(tmp_path / "list.pt", CPU)


# ---------------------------------------------------------------------------------------- full disks and kills


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let every write beyond `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


def test_a_file_that_cannot_grow_leaves_the_earlier_state(
    folder: Path, build: Callable[..., DiffusionPipeline], tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = build(seed=1)
    write_checkpoint(tmp_path / "checkpoint.pt", {"step": 1})
    with files_limited_to(2000):
        with pytest.raises(CheckpointError, match=r"cannot write to .*: File too large; nothing was changed there"):
            save_pipeline(other, folder, "", {})
        with pytest.raises(CheckpointError, match=r"cannot write .*: File too large; nothing was changed there"):
            write_checkpoint(tmp_path / "checkpoint.pt", {"big": torch.zeros(10_000)})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert read_checkpoint(tmp_path / "checkpoint.pt", CPU) == {"step": 1}
    assert [path.name for path in tmp_path.glob(".*")] == []
    load_pipeline(folder)


@pytest.mark.parametrize("step", ["sha256_of", "flush", "_make_staging"])
def test_a_full_disk_leaves_the_earlier_model(
    folder: Path, build: Callable[..., DiffusionPipeline], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = build(seed=1)

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, step, full)
    with pytest.raises(CheckpointError, match=r"the disk is full.*nothing was changed there"):
        save_pipeline(other, folder, "", {})
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.pipeline.checkpoint import load_pipeline, read_checkpoint, save_pipeline, write_checkpoint
pipeline, folder = load_pipeline(Path(sys.argv[1])), Path(sys.argv[2])
random.seed(0)
for trial in range(12):
    saved, says = os.pipe()
    child = os.fork()
    if child == 0:
        for seed in range(1000):
            for parameter in pipeline.network.parameters():
                parameter.data.fill_(seed)
            save_pipeline(pipeline, folder, "", {"seed": seed})
            write_checkpoint(folder / "checkpoint.pt", {"seed": seed})
            os.write(says, b"!")
        os._exit(1)
    if trial % 2:  # every other time a model is there, however busy the machine is
        os.read(saved, 1)
    time.sleep(random.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        loaded = load_pipeline(folder)
        values = torch.cat([p.flatten() for p in loaded.network.parameters()])
        assert values.min() == values.max(), "a mixture of two models"
        print("model")
    except CheckpointError as problem:
        assert "no saved model" in str(problem) or "run the training command again" in str(problem), problem
        print("none" if "no saved model" in str(problem) else "says so")
    if (folder / "checkpoint.pt").exists():
        read_checkpoint(folder / "checkpoint.pt", torch.device("cpu"))
save_pipeline(pipeline, folder, "", {})
load_pipeline(folder)
assert not list(folder.glob(".*")), "what killed processes left is cleared"
"""


def test_a_kill_at_any_moment_of_saving(folder: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder), str(tmp_path / "victim")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    outcomes = result.stdout.splitlines()
    assert len(outcomes) == 12
    assert "model" in outcomes


def test_a_model_still_in_training_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").touch()
    with pytest.raises(CheckpointError, match=r"no saved model at .* yet, its training has not finished: wait"):
        load_pipeline(tmp_path)
    (tmp_path / "run" / "interrupted").mkdir()
    (tmp_path / "run" / "interrupted" / "config.yaml").touch()
    with pytest.raises(CheckpointError, match=r"or give the model so far, '.*/run/interrupted'"):
        load_pipeline(tmp_path)
