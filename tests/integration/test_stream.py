"""Training on a stream: fresh circuits in every epoch, none that are validated with, a resume that sees the same."""

import gc
import threading
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.config.store import dataset_preset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.stream import CircuitStream
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.callbacks import FitObserver, StepRecord
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.training.training import DiffusionTrainer, is_trained
from tests.conftest import MakeConfig
from tests.integration.test_training import InterruptAt, assert_same, metrics_without_times


def stream(seed: int = 0, **changes: Any) -> CircuitStream:
    values = {"num_samples": 300, "max_gates": 9, "balance_max": 90, "n_jobs": 1}
    return CircuitStream(DatasetConfig(**{**values, **changes}), seed, 0.1)


def keys(dataset: Any) -> set[int]:
    return set(row_keys(dataset.tokens).tolist())


def test_epochs_are_fresh_and_keep_away_from_validation() -> None:
    one = stream()
    epochs = [one.epoch(number) for number in range(4)]
    assert {len(epoch) for epoch in epochs} == {300}
    assert len(one.held_out) == 30
    assert {epoch.prompts for epoch in epochs} == {one.held_out.prompts}
    for number, epoch in enumerate(epochs):
        assert len(keys(epoch)) == 300
        assert not keys(epoch) & keys(one.held_out)
        others = [other for other in epochs if other is not epoch]
        assert all(len(keys(epoch) & keys(other)) < 60 for other in others)
        assert max(np.bincount(epoch.prompt_index)) <= 99  # the preset's 90, and as many for validation
        again = stream().epoch(number)
        np.testing.assert_array_equal(again.tokens, epoch.tokens)
        assert (stream(seed=1).epoch(number).tokens != epoch.tokens).any()


@pytest.mark.parametrize("condition_type", ["UNITARY", "STATE"])
def test_models_make_the_targets_of_streamed_circuits(make_config: MakeConfig, condition_type: str) -> None:
    gates = ("h", "cx", "ccx", "t")
    epoch = stream(condition_type=condition_type, gate_set=gates, balance_max=None).epoch(1)
    assert epoch.targets is None
    assert len(epoch) == 300
    circuits = epoch.labelled(np.arange(300))
    exact = as_two_channels(epoch.task.targets_of(circuits.ids, circuits.table))
    encoder = f"{condition_type.lower()}_encoder"
    types = {"unitary_encoder": ("matrix", "convolution"), "state_encoder": ("amplitudes",)}[encoder]
    for kind in types:
        params = {} if kind == "convolution" else {"width": 16, "depth": 1, "remaining": True}
        pipeline = DiffusionTrainer(make_config(sections={encoder: {"type": kind, "params": params}})).setup_model(
            epoch
        )
        made = pipeline._targets_of(torch.from_numpy(circuits.ids.astype(np.int64)), None)
        np.testing.assert_allclose(made, exact, atol=1e-6)
        losses = []
        for dataset in (epoch, replace(epoch, targets=exact)):
            batch = next(BatchLoader(dataset, np.arange(300), 300, 0, shuffle=False).epoch(0))
            noise = Noise(torch.Generator().manual_seed(0))
            losses.append(pipeline.training_loss(batch, noise, condition_dropout=0.2).total.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_epochs_are_made_ahead() -> None:
    def loader(one: CircuitStream, **limits: int) -> BatchLoader:
        return one.loaders(64, 0, **limits)[0]

    one, other = stream(n_jobs=2), stream()
    ahead, waiting = loader(one, num_epochs=3), loader(other, num_epochs=3)
    for number in range(3):
        batches = ahead.epoch(number)
        first = next(batches)
        assert (one._ahead is None) == (number == 2), "nothing follows the last epoch"
        assert other._ahead is None
        for mine, theirs in zip([first, *batches], waiting.epoch(number), strict=True):
            assert torch.equal(mine.tokens, theirs.tokens)
    made = [one.epoch(number).tokens for number in range(2)]
    np.testing.assert_array_equal(made, [other.epoch(number).tokens for number in range(2)])
    short = loader(one, num_epochs=3, max_batches=5)
    next(short.epoch(0))
    assert one._ahead is None, "an epoch has five batches"


@pytest.mark.parametrize("how", ["interrupted", "early", "failed"])
def test_what_is_made_ahead_ends_with_training(make_config: MakeConfig, tmp_path: Path, how: str) -> None:
    (tmp_path / "large.yaml").write_text("num_qubits: 4\nmax_gates: 20\nnum_samples: 3000\nn_jobs: 2\n")
    threads: list[threading.Thread] = []

    class Watches(FitObserver):
        def on_step(self, record: StepRecord) -> None:
            threads.extend(one for one in threading.enumerate() if one.name.startswith("circuits of the next"))
            if how == "failed":
                raise RuntimeError("disk")

    general = {"dataset": f"stream:{tmp_path / 'large.yaml'}", "output_path": str(tmp_path / "model")}
    early: dict[str, Any] = {"patience": 1, "learning_rate": 1e-30} if how == "early" else {}
    observers = [Watches(), *([InterruptAt(1)] if how == "interrupted" else [])]
    trainer = DiffusionTrainer(make_config(general=general, num_epochs=9, batch_size=128, **early), observers)
    with pytest.raises(RuntimeError, match="disk") if how == "failed" else nullcontext():
        summary = trainer.run()
        assert summary.status == ("interrupted" if how == "interrupted" else "finished")
        assert summary.metadata["epochs"] < 9
    assert threads
    assert not any(one.is_alive() for one in threads)


def test_a_fault_in_what_is_made_ahead_is_told_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = stream(n_jobs=2)
    loader = one.loaders(64, 0, num_epochs=2)[0]
    monkeypatch.setattr(DatasetGenerator, "generate", lambda *given, **options: 1 / 0)
    list(loader.epoch(0))
    with pytest.raises(ZeroDivisionError):
        next(loader.epoch(1))


def test_too_few_circuits_and_two_conditions_are_refused() -> None:
    with pytest.raises(ConfigError, match="330 distinct circuits per epoch, but"):
        stream(num_qubits=2, max_gates=3)
    with pytest.raises(ConfigError, match="BOTH"):
        stream(condition_type="BOTH")


@pytest.fixture
def preset(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text("num_qubits: 3\nmin_gates: 2\nmax_gates: 5\nnum_samples: 96\nn_jobs: 1\n")
    return f"stream:{path}"


def test_a_stream_is_given_up_with_its_run() -> None:
    one = stream()
    left = weakref.ref(one)
    del one
    gc.collect()
    assert left() is None, "its circuits would stay in memory"


def test_a_model_of_another_stream_is_not_kept(make_config: MakeConfig, tmp_path: Path, preset: str) -> None:
    general = {"dataset": preset, "output_path": str(tmp_path / "model")}
    config = make_config(general=general, num_epochs=1, max_samples=64)
    assert not is_trained(config)
    DiffusionTrainer(config).run()
    assert is_trained(config)
    path = tmp_path / "short.yaml"
    path.write_text(path.read_text().replace("max_gates: 5", "max_gates: 6"))
    assert not is_trained(config)


@pytest.mark.parametrize("balance_prompts", [False, True])
def test_an_interrupted_run_continues_its_stream(
    make_config: MakeConfig, tmp_path: Path, preset: str, balance_prompts: bool
) -> None:
    def trainer(name: str, *observers: Any) -> DiffusionTrainer:
        general = {"dataset": preset, "output_path": str(tmp_path / name)}
        options = {"num_epochs": 3, "batch_size": 32, "balance_prompts": balance_prompts}
        return DiffusionTrainer(make_config(general=general, **options), observers)

    trainer("whole").run()
    assert trainer("parts", InterruptAt(4)).run().status == "interrupted"
    assert trainer("parts").run().status == "finished"
    first, second = (load_pipeline(tmp_path / name).network.state_dict() for name in ("whole", "parts"))
    assert_same(dict(first), dict(second))
    assert metrics_without_times(tmp_path / "whole") == metrics_without_times(tmp_path / "parts")
    assert all(torch.isfinite(weight).all() for weight in first.values())


def test_a_stream_has_every_prompt_equally_often() -> None:
    loader, validation = stream().loaders(64, 0, balance_prompts=True)
    assert validation is not None
    for number in range(3):
        batches = list(loader.epoch(number))
        assert len(batches) == len(loader) == 5
        numbers = torch.cat([batch.prompt_ids for batch in batches])
        counts = torch.bincount(numbers)[numbers.unique()]
        assert int(counts.sum()) == 300
        assert int(counts.max() - counts.min()) <= 1
        assert len(counts) == len(np.unique(stream().epoch(number).prompt_index))
    plain = stream().loaders(64, 0)[1]
    assert plain is not None
    assert [batch.prompt_ids.tolist() for batch in validation.epoch(0)] == [
        batch.prompt_ids.tolist() for batch in plain.epoch(0)
    ]


def test_unitaries_are_streamed_with_their_circuits(make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "unitary.yaml"
    path.write_text("condition_type: UNITARY\nnum_samples: 50\nmax_gates: 6\nnum_qubits: 2\nn_jobs: 1\n")
    config = make_config(general={"dataset": f"stream:{path}"}, num_epochs=2, sample_every=1, num_sampled=8)
    summary = DiffusionTrainer(config).run()
    pipeline = DiffusionTrainer.load_pipeline(summary.folder, "cpu")
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    assert summary.metadata["samples_seen"] == 100


def test_limits_apply_and_other_wishes_are_refused(make_config: MakeConfig, tmp_path: Path, preset: str) -> None:
    def run(**options: Any) -> None:
        DiffusionTrainer(make_config(general={"dataset": preset}, **options)).setup_model()

    with pytest.raises(ConfigError, match="batching=bucketed needs a data set"):
        run(model="unet", scheduler="ddim", batching="bucketed")
    with pytest.raises(ConfigError, match=r"unknown datasets preset 'quick_tset_srv': did you mean 'quick_test_srv'"):
        dataset_preset("quick_tset_srv")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml.*No such file"):
        dataset_preset(str(tmp_path / "none.yaml"))
    (tmp_path / "wrong.yaml").write_text("num_qubit: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'num_qubit': did you mean 'num_qubits'"):
        dataset_preset(str(tmp_path / "wrong.yaml"))
    for text in ("[1, 2", "- 1\n", "\x00"):
        (tmp_path / "wrong.yaml").write_text(text)
        with pytest.raises(ConfigError, match="wrong"):
            dataset_preset(str(tmp_path / "wrong.yaml"))

    trainer = DiffusionTrainer(make_config(general={"dataset": preset}, max_samples=64))
    trainer.setup_model()
    trainer.compile_model()
    assert trainer._loaders is not None
    assert trainer._loaders[0].num_circuits == 64
