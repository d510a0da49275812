"""Training from configuration to saved model: every combination, resuming, divergence, starting from a model."""

import csv
import itertools
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import prefix_rank_vectors
from quantum_diffusion.circuits.tokenizer import decode_tokens
from quantum_diffusion.config.schema import LoopConfig, SamplingConfig, TrainingConfig, UnitaryEncoderConfig
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import CheckpointError, ConfigError, IncompatibleDatasetsError, TrainingDivergedError
from quantum_diffusion.pipeline import fit as loop
from quantum_diffusion.pipeline import step
from quantum_diffusion.pipeline.adapter import Rows
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.pipeline.checkpoint import load_pipeline, read_checkpoint
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit, plan_edit
from quantum_diffusion.pipeline.state import LossTerms, MovingAverage, TrainingState
from quantum_diffusion.pipeline.step import MadeStep, Results, StepResult, make_gradients, move_weights
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.tracking.experiment import read_run
from quantum_diffusion.training.optim import make_lr_schedules, make_optimizers
from quantum_diffusion.training.training import DiffusionTrainer, TrainingSummary
from tests.conftest import MakeConfig, draw_dataset, repeated
from tests.processes import Forked

GAUSSIAN = ("ddim", "ddpm", "dpmsolver++", "unipc")
LOSSES = (("epsilon", "mse"), ("v", "mse"), ("x0", "mse"), ("x0", "cross_entropy"))


POLICY: dict[str, Any] = {
    "scheduler_params": {"suffix_share": 1},
    "sections": {"prefix_encoder": {"type": "state", "params": {"width": 16, "depth": 1}}},
}
"""What a policy for Schmidt rank vectors needs."""


def train(
    config: TrainingConfig, dataset: CircuitDataset, *observers: FitObserver
) -> tuple[TrainingState, TrainingSummary]:
    trainer = DiffusionTrainer(config, observers)
    trainer.setup_model(dataset)
    state = trainer.compile_model()
    return state, trainer.save_model(trainer.train())


class Records(FitObserver):
    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.epochs: list[EpochRecord] = []
        self.calls: list[str] = []

    def on_start(self, step: int, total_steps: int) -> None:
        self.calls.append(f"start {step} of {total_steps}")

    def on_step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def on_epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)

    def on_end(self, status: str) -> None:
        self.calls.append(status)


class InterruptAt(FitObserver):
    """Presses Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, record: StepRecord) -> None:
        if record.step == self.step:
            signal.raise_signal(signal.SIGINT)


def assert_same(first: Any, second: Any, where: str = "state") -> None:
    """Compare nested state bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"seconds"}:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}.{number}")
    else:
        assert first == second, where


def newest_checkpoint(folder: Path) -> Path:
    return max((folder / "run" / "checkpoints").iterdir())


def metrics_without_times(folder: Path) -> list[list[str]]:
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        return [row for row in csv.reader(file) if row[1] not in ("samples_per_second", "memory_gib")]


# ------------------------------------------------------------------------------------------- every combination


@pytest.mark.parametrize(
    ("model", "scheduler", "objective", "loss"),
    [
        ("transformer", "masked", "x0", "cross_entropy"),
        *((model, "ddim", *kind) for model, kind in itertools.product(("transformer", "unet"), LOSSES)),
        *(("unet", sampler, *LOSSES[0]) for sampler in GAUSSIAN[1:]),
        *(("transformer", sampler, *LOSSES[-1]) for sampler in GAUSSIAN[1:]),
    ],
)
def test_every_combination_trains_saves_loads_and_samples(
    make_config: MakeConfig, dataset: CircuitDataset, model: str, scheduler: str, objective: str, loss: str
) -> None:
    config = make_config(model, scheduler, objective=objective, loss=loss, max_steps=1)
    state, summary = train(config, dataset)
    assert (state.step, summary.status) == (1, "finished")
    pipeline = load_pipeline(summary.folder)
    prompts = (list(dataset.prompts) * 8)[:8]
    samples = pipeline.sample(prompts, seed=1)
    assert len(samples) == 8
    assert samples.prompts == tuple(prompts)
    assert bool((samples.matches <= samples.report.valid).all())
    if scheduler == "masked":
        assert bool(samples.report.valid.all())


@pytest.mark.parametrize("model", ["transformer", "unet"])
@pytest.mark.parametrize("batching", ["max_padded", "bucketed"])
@pytest.mark.parametrize("scheduler", ["ddim", "masked"])
def test_mixed_qubit_counts(
    make_config: MakeConfig, mixed_dataset: CircuitDataset, model: str, batching: str, scheduler: str
) -> None:
    if scheduler == "masked" and (model == "unet" or batching == "bucketed"):
        with pytest.raises(ConfigError, match="masked"):
            make_config(model, scheduler, batching=batching)
        return
    head = {"prefix_head_weight": 0.5} if model == "transformer" else {}
    config = make_config(model, scheduler, batching=batching, **head)
    _, summary = train(config, mixed_dataset)
    pipeline = load_pipeline(summary.folder)
    prompts = list(mixed_dataset.prompts)
    together = pipeline.sample(prompts, seed=3)
    for row, label in enumerate(together.labels):
        circuit = together.circuits([row])[0] if together.report.valid[row] else None
        assert circuit is None or circuit.num_qubits == len(label)
        alone = pipeline.sample([prompts[row]], seed=3, first_sample=row)
        assert alone.ids.tolist() == together.ids[[row]].tolist(), "a sample depends on its neighbours' prompts"


@pytest.mark.parametrize(("batching", "num_workers"), [("max_padded", 0), ("bucketed", 2)])
def test_prompts_are_balanced_also_when_the_run_is_continued(
    make_config: MakeConfig,
    mixed_dataset: CircuitDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batching: str,
    num_workers: int,
) -> None:
    """Interrupted in the middle of an epoch; what is trained on is told by the batches themselves."""
    trained_on: list[int] = []
    honest = DiffusionPipeline.training_loss

    def record(pipeline: DiffusionPipeline, batch: Batch, noise: Noise, **options: Any) -> LossTerms:
        if torch.is_grad_enabled():
            trained_on.extend(batch.prompt_ids.tolist())
        return honest(pipeline, batch, noise, **options)

    monkeypatch.setattr(DiffusionPipeline, "training_loss", record)

    def config(name: str) -> TrainingConfig:
        general = {"output_path": str(tmp_path / name)}
        options: dict[str, Any] = {"batching": batching, "num_workers": num_workers, "balance_prompts": True}
        return make_config("transformer", "ddim", general=general, num_epochs=4, batch_size=5, **options)

    whole, _ = train(config("whole"), mixed_dataset)
    prompts = len(set(mixed_dataset.prompt_index.tolist()))
    counts = np.bincount(trained_on)
    assert whole.samples_seen == len(trained_on) == 4 * 43, "an epoch keeps its length: 48 circuits, 5 to validate"
    few = 4 if batching == "max_padded" else 8  # a circuit an epoch, two where there are buckets
    assert np.abs(counts[counts > 0] - 4 * 43 / prompts).max() < few
    assert max(mixed_dataset.prompt_counts.values()) > 20 * min(mixed_dataset.prompt_counts.values())

    seen = trained_on.copy()
    trained_on.clear()
    train(config("parts"), mixed_dataset, InterruptAt(whole.step // 4 + 3))
    assert 43 < len(trained_on) < 86
    parts, _ = train(config("parts"), mixed_dataset)
    assert trained_on == seen
    assert_same(whole.state_dict(), parts.state_dict())


def test_labels_of_prefixes_are_right_in_narrow_buckets(
    make_config: MakeConfig, mixed_dataset: CircuitDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's targets are those of the circuits themselves, whatever the batch was cut to."""
    config = make_config("transformer", "ddim", batching="bucketed", prefix_head_weight=1.0)
    trainer = DiffusionTrainer(config)
    pipeline = trainer.setup_model(mixed_dataset)
    targets: list[Tensor] = []
    honest = torch.nn.functional.binary_cross_entropy_with_logits

    def record(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        targets.append(target)
        return honest(logits, target, **options)

    monkeypatch.setattr(torch.nn.functional, "binary_cross_entropy_with_logits", record)
    loader = BatchLoader(mixed_dataset, np.arange(len(mixed_dataset)), 16, 0, False, bucketed=True)
    seen = set()
    for batch in loader.epoch(0):
        pipeline.training_loss(batch, Noise(torch.Generator().manual_seed(0)), prefix_weight=1.0)
        width = batch.tokens.shape[1]
        seen.add(width)
        ids = decode_tokens(batch.tokens.numpy(), mixed_dataset.gate_pool).ids
        expected = prefix_rank_vectors(ids, instruction_table(mixed_dataset.gate_pool, width)) == 2
        assert np.array_equal(targets[-1][:, :, :width].bool().numpy(), expected)
        assert not targets[-1][:, :, width:].any()
    assert seen == {2, 3}


def test_bucketed_samples_have_the_lengths_of_the_training_circuits(
    make_config: MakeConfig, mixed_dataset: CircuitDataset
) -> None:
    _, summary = train(make_config("unet", "ddim", batching="bucketed", max_steps=1), mixed_dataset)
    pipeline = load_pipeline(summary.folder)
    widths = np.repeat([2, 3], 400)
    free = plan_edit(Edit(), pipeline.table, pipeline.config.max_gates)
    rows = Rows(widths, np.tile(free.allowed, (800, 1)), np.arange(800))
    shapes = pipeline.adapter.shapes(rows, free)
    multiple = pipeline.time_multiple
    for width in (2, 3):
        gates = mixed_dataset.sizes[mixed_dataset.sizes[:, 0] == width, 1].astype(int)
        buckets, counts = np.unique(-(-gates // multiple) * multiple, return_counts=True)
        drawn = shapes[widths == width]
        assert set(drawn[:, 0]) == {width}
        for bucket, count in zip(buckets, counts, strict=True):
            assert np.mean(drawn[:, 1] == bucket) == pytest.approx(count / len(gates), abs=0.08)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_overwritten(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, overwrite: bool
) -> None:
    save_dataset(dataset, tmp_path / "data", {})
    before = (tmp_path / "data" / "config.yaml").read_bytes()
    with pytest.raises(CheckpointError, match=r"does not belong to a model of this package: choose another"):
        DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "data"), "overwrite": overwrite}))
    assert (tmp_path / "data" / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["run.yaml", "metrics.csv", "lock", "checkpoints/1.pt"])
def test_a_run_folder_of_something_else_is_never_overwritten(
    make_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "model" / "run" / name
    file.parent.mkdir(parents=True)
    file.write_text("config: {speed: 3}\n")
    (tmp_path / "model" / "run" / "lock").touch()
    with pytest.raises(CheckpointError, match=r"holds 'run/.*', which no training run wrote: choose another"):
        DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "model"), "overwrite": True}))
    assert file.read_text() == "config: {speed: 3}\n"


def test_a_lock_that_an_earlier_version_left_is_no_obstacle(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "model" / "run").mkdir(parents=True)
    (tmp_path / "model" / "run" / "lock").write_text("4711\nnode17\n")  # where the file system had no locks
    DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "model")}))


@pytest.mark.parametrize("below", ["", "data", "data/dataset"])
def test_a_model_is_never_put_into_or_around_a_data_set(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, below: str
) -> None:
    save_dataset(dataset, tmp_path / "sets" / "data", {})
    with pytest.raises(CheckpointError, match="choose another"):
        DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "sets" / below), "overwrite": True}))


def test_files_of_others_are_never_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metadata.yaml").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds 'metadata.yaml', which no training run wrote"):
        DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "mine"), "overwrite": True}))


LATE_RUN = """
import sys
import time
from pathlib import Path
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.data.storage import load_dataset_folder
from quantum_diffusion.errors import CheckpointError
from quantum_diffusion.training.training import DiffusionTrainer
trainer = DiffusionTrainer(TrainingConfig.model_validate_json(sys.argv[1]))
trainer.setup_model()
go = Path(sys.argv[2])
go.with_suffix(".ready").touch()
while not go.exists():
    time.sleep(0.01)
try:
    trainer.run()
except CheckpointError as problem:
    print(problem)
"""


def test_two_runs_into_one_folder(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    """The one that comes second is refused, during the first run and after it, though it was set up before."""
    save_dataset(dataset, tmp_path / "data", {})
    config = make_config(num_epochs=2, general={"dataset": str(tmp_path / "data")})
    command = [sys.executable, "-c", LATE_RUN, config.model_dump_json()]
    late = [Forked([*command, str(tmp_path / name)]) for name in ("during", "after")]
    answers = []

    def answer(number: int, name: str) -> None:
        (tmp_path / name).touch()
        assert late[number].wait() == 0, late[number].errors()
        answers.append(late[number].output())

    class Meanwhile(FitObserver):
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 0:
                answer(0, "during")

    until = time.monotonic() + 120
    while len(list(tmp_path.glob("*.ready"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    train(config, dataset, Meanwhile())
    answer(1, "after")
    assert "another run is training into" in answers[0]
    assert "already holds a finished model" in answers[1]
    load_pipeline(tmp_path / "model")


def test_the_pipeline_in_hand_is_the_one_that_was_saved(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    trainer = DiffusionTrainer(make_config())
    trainer.setup_model(dataset)
    trainer.compile_model()
    summary = trainer.save_model(trainer.train())
    saved = load_pipeline(summary.folder)
    assert_same(dict(trainer.pipeline.network.state_dict()), dict(saved.network.state_dict()))


@pytest.mark.parametrize("scheduler", ["masked", "ddim", "ddpm", "dpmsolver++", "unipc"])
def test_samples_do_not_depend_on_the_batch_size(
    make_config: MakeConfig, dataset: CircuitDataset, scheduler: str
) -> None:
    kind = {} if scheduler == "masked" else {"objective": "epsilon", "loss": "mse"}
    _, summary = train(make_config("transformer", scheduler, max_steps=3, **kind), dataset)
    pipeline = load_pipeline(summary.folder)
    prompts = (list(dataset.prompts) * 8)[:20]
    ids = [pipeline.sample(prompts, 5, SamplingConfig(auto_batch_size=size)).ids.tolist() for size in (1, 7, 20)]
    assert ids[0] == ids[1] == ids[2]
    later = pipeline.sample(prompts[12:], 5, first_sample=12)
    assert later.ids.tolist() == ids[0][12:]
    assert pipeline.sample(prompts, 6).ids.tolist() != ids[0]


# ------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize(
    ("model", "scheduler", "objective", "loss", "steps", "share"),
    [
        ("transformer", "masked", "x0", "cross_entropy", 200, 0.5),
        *(("transformer", "ddim", *kind, 80, 0.9) for kind in LOSSES[1:]),
        ("unet", "ddim", *LOSSES[0], 30, 0.9),
    ],
)
def test_sixteen_circuits_are_learned(
    make_config: MakeConfig,
    model: str,
    scheduler: str,
    objective: str,
    loss: str,
    steps: int,
    share: float,
) -> None:
    config = make_config(
        model,
        scheduler,
        objective=objective,
        loss=loss,
        num_epochs=1,
        validation_fraction=0.0,
        condition_dropout=0.0,
        learning_rate=1e-2 if model == "transformer" else 3e-3,
        model_params={"width": 32} if model == "transformer" else {},
    )
    records = Records()
    train(config, repeated(draw_dataset(3, 5, 16), steps), records)
    assert len(records.steps) == steps
    losses = [record.loss for record in records.steps]
    first, last = (sum(part) / len(part) for part in (losses[:5], losses[-10:]))
    assert last < share * first
    assert all(math.isfinite(value) for value in losses)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_every_optimizer_trains(make_config: MakeConfig, dataset: CircuitDataset, optimizer: str) -> None:
    records = Records()
    train(make_config(optimizer=optimizer, num_epochs=8, prefix_head_weight=0.5), dataset, records)
    assert records.epochs[-1].training_loss < 0.95 * records.epochs[0].training_loss
    assert records.epochs[-1].validation_loss is not None
    assert records.calls == ["start 0 of 24", "finished"]
    assert [record.samples_seen for record in records.steps[:3]] == [16, 32, 43]


# ------------------------------------------------------------------------------------------------------ resuming

RUNS: dict[str, dict[str, Any]] = {
    "masked": {
        "optimizer": "muon",
        "lr_scheduler": "cosine",
        "prefix_head_weight": 0.5,
        "scheduler_params": {"suffix_share": 0.5},
    },
    "gaussian": {"model": "transformer", "scheduler": "ddim", "optimizer": "adamw", "lr_scheduler": "one_cycle"},
}


@pytest.mark.parametrize("run", RUNS)
def test_an_interrupted_run_continues_bit_for_bit(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, run: str
) -> None:
    """Stopped after the first step, at the end of an epoch, amidst two of them, and before the last step."""

    def config(name: str) -> TrainingConfig:
        return make_config(**RUNS[run], num_epochs=4, general={"output_path": str(tmp_path / name)})

    whole, _ = train(config("whole"), dataset)
    for stops in ([1], [3], [4, 8], [11]):
        name = f"parts_{stops[0]}"
        folder = tmp_path / name
        for stop in stops:
            stopped, summary = train(config(name), dataset, InterruptAt(stop))
            assert (stopped.step, summary.status) == (stop, "interrupted")
            assert not (folder / "config.yaml").exists()
            assert read_run(folder / "run")["status"] == "interrupted"
        records = Records()
        continued, summary = train(config(name), dataset, records)
        assert summary.status == "finished"
        assert records.calls == [f"start {stops[-1]} of 12", "finished"]

        assert_same(continued.state_dict(), whole.state_dict())
        assert metrics_without_times(folder) == metrics_without_times(tmp_path / "whole")
        weights = [place / "model.safetensors" for place in (folder, tmp_path / "whole")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert not (folder / "run" / "checkpoints").exists()


def test_an_interrupt_at_the_last_step_finishes(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    state, summary = train(make_config(num_epochs=2), dataset, InterruptAt(6))
    assert (state.step, state.epoch, summary.status) == (6, 2, "finished")
    assert summary.metadata["validation_loss"] is not None


def test_max_steps_ends_within_an_epoch(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    records = Records()
    state, summary = train(make_config(num_epochs=4, max_steps=5), dataset, records)
    assert (state.step, summary.status) == (5, "finished")
    assert records.epochs[-1].training_loss == pytest.approx(sum(r.loss for r in records.steps[3:]) / 2)


def test_another_configuration_does_not_continue_a_run(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    train(make_config(num_epochs=2), dataset, InterruptAt(2))
    with pytest.raises(CheckpointError, match=r"learning_rate=0\.003, not 0\.001"):
        train(make_config(num_epochs=2, learning_rate=1e-3), dataset)
    with pytest.raises(CheckpointError, match="another data set"):
        train(make_config(num_epochs=2), draw_dataset(3, 5, 48, seed=1))
    state, _ = train(make_config(num_epochs=2, learning_rate=1e-3, general={"resume": "never"}), dataset)
    assert state.step == 6


def test_a_named_checkpoint_is_continued(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    train(make_config(num_epochs=2), dataset, InterruptAt(2))
    path = newest_checkpoint(tmp_path / "model")
    general = {"output_path": str(tmp_path / "elsewhere"), "resume": str(path)}
    records = Records()
    train(make_config(num_epochs=2, general=general), dataset, records)
    assert records.calls[0] == "start 2 of 6"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        train(make_config(general={"output_path": str(tmp_path / "third"), "resume": str(tmp_path / "none")}), dataset)


# ---------------------------------------------------------------------------------------------------- divergence


def test_a_weight_that_is_not_finite_keeps_the_last_good_checkpoint(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    class Poison(Records):
        def on_step(self, record: StepRecord) -> None:
            super().on_step(record)
            if record.step == 5:
                next(iter(trainer_state.network["backbone"].parameters())).data.fill_(math.nan)

    observer = Poison()
    trainer = DiffusionTrainer(make_config(num_epochs=4), [observer])
    trainer.setup_model(dataset)
    trainer_state = trainer.compile_model()
    with pytest.raises(TrainingDivergedError, match=r"step 6: the loss is nan.*earlier checkpoint.*learning_rate"):
        trainer.train()
    assert observer.calls[-1] == "failed"
    assert read_run(tmp_path / "model" / "run")["status"] == "failed"
    saved = read_checkpoint(newest_checkpoint(tmp_path / "model"), torch.device("cpu"))["state"]
    assert saved["step"] == 3
    assert all(bool(value.isfinite().all()) for value in saved["network"].values())
    state, _ = train(make_config(num_epochs=4), dataset)
    assert state.step == 12


def poison_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loss of one training step be no number."""
    honest, steps = DiffusionPipeline.training_loss, itertools.count(1)

    def poisoned(self: DiffusionPipeline, *args: Any, **options: Any) -> LossTerms:
        terms = honest(self, *args, **options)
        is_step = "condition_dropout" in options  # validation has none
        return LossTerms(terms.total * math.nan, terms.diffusion) if is_step and next(steps) == number else terms

    monkeypatch.setattr(DiffusionPipeline, "training_loss", poisoned)


def test_a_loss_that_is_not_finite_saves_the_state_before_it(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_step(2, monkeypatch)
    with pytest.raises(TrainingDivergedError, match="step 2"):
        train(make_config(), dataset)
    saved = read_checkpoint(newest_checkpoint(tmp_path / "model"), torch.device("cpu"))["state"]
    assert (saved["step"], saved["batch"]) == (1, 1)
    monkeypatch.undo()
    clean, _ = train(make_config(general={"output_path": str(tmp_path / "clean")}), dataset)
    continued, _ = train(make_config(), dataset)
    assert_same(continued.state_dict(), clean.state_dict())


# --------------------------------------------------------------------------------------------- parts of the loop


def test_the_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    average = MovingAverage(network, 0.8)
    expected = None
    for count in range(12):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 3))
        average.update_parameters(network)
        decay = min(0.8, (1 + count) / (10 + count))
        new = network.weight.detach().double()
        expected = new.clone() if expected is None else decay * expected + (1 - decay) * new
    torch.testing.assert_close(average.module.weight.detach().double(), expected, rtol=1e-5, atol=1e-6)


def make_step(loss_of: torch.nn.Module, state: TrainingState, batch: Batch, clip: float | None) -> StepResult:
    settings = LoopConfig(gradient_clip=clip)
    values = make_gradients(loss_of, state, [batch], torch.Generator(), settings, Team(), stop=False)
    results = Results(lag=0)
    results.add(MadeStep(1, 0, 1, len(batch), 0.1), values)
    (result,) = results.read()
    move_weights(state, result.has_overflowed(state.scaler))
    return result


@pytest.mark.parametrize(("clip", "moved"), [(0.5, 0.5), (None, 10.0), (20.0, 10.0)])
def test_gradient_clipping_limits_the_step(dataset: CircuitDataset, clip: float | None, moved: float) -> None:
    network = torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1, bias=False)})
    weight = network["backbone"].weight
    before = weight.item()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = TrainingState(network, [optimizer], [schedule], None)

    class Slope(torch.nn.Module):
        def forward(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
            total = 10.0 * weight.sum()
            return {"total": total, "diffusion": total.detach()}

    batch = next(DatasetLoader(0).get_dataloaders(dataset, 4)[0].epoch(0))
    done = make_step(Slope(), state, batch, clip)
    assert done.gradient_norm == pytest.approx(10.0)
    assert before - weight.item() == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("overflow", ["backbone.blocks.0.weight", "condition_encoder.weight"])
@pytest.mark.parametrize("first_step", [True, False])
def test_in_sixteen_bits_all_optimizers_step_or_none(
    dataset: CircuitDataset, clip: float | None, overflow: str, first_step: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """Muon has the first weight, AdamW the second: an overflow in one must not reach the other as NaN."""
    network = torch.nn.ModuleDict(
        {
            "backbone": torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False)])}),
            "condition_encoder": torch.nn.Linear(3, 4, bias=False),
        }
    )
    weights = dict(network.named_parameters())
    optimizers = make_optimizers(network, "muon", 0.1, 0.0)
    assert len(optimizers) == 2
    state = TrainingState(
        network,
        optimizers,
        make_lr_schedules(optimizers, "cosine", 10, 0.5),
        MovingAverage(network, 0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=True),
    )

    class Slope(torch.nn.Module):
        overflows = False

        def forward(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
            total = sum((weight.sum() for weight in weights.values()), torch.zeros(()))
            if self.overflows:
                weights[overflow].register_hook(lambda slope: slope * math.inf)
            return {"total": total, "diffusion": total.detach()}

    batch = next(DatasetLoader(0).get_dataloaders(dataset, 4)[0].epoch(0))
    slope = Slope()

    def step() -> None:
        make_step(slope, state, batch, clip)

    if not first_step:
        step()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    averaged, updates = state.average.module.state_dict(), int(state.average.n_averaged)
    averaged = {name: value.clone() for name, value in averaged.items()}
    rate, scale = state.schedules[0].get_last_lr(), state.scaler.get_scale()
    slope.overflows = True
    step()
    assert_same(dict(network.state_dict()), before)
    assert_same(dict(state.average.module.state_dict()), averaged)
    assert int(state.average.n_averaged) == updates
    assert state.scaler.get_scale() == scale / 2
    assert state.schedules[0].get_last_lr() != rate, "the rate is a function of the step"
    assert [schedule.last_epoch for schedule in state.schedules] == [2 - first_step] * 2
    slope.overflows = False
    weights[overflow]._backward_hooks.clear()
    step()
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    assert all(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not recwarn.list


def test_validation_has_fixed_noise_and_no_gradients(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    trainer = DiffusionTrainer(make_config("transformer", "ddim"))
    pipeline = trainer.setup_model(dataset)
    state = trainer.compile_model()
    _, loader = DatasetLoader(0).get_dataloaders(dataset, 4, 0.3)
    first, second = (loop.validate(pipeline, loader, state, seed=0) for _ in range(2))
    assert first is not None
    assert first == second != loop.validate(pipeline, loader, state, seed=1)
    assert all(p.grad is None for network in (state.network, state.average) for p in network.parameters())
    assert pipeline.network is state.network
    assert loop.validate(pipeline, None, state, seed=0) is None


def test_the_saved_weights_are_the_averaged_ones(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    state, summary = train(make_config(num_epochs=2), dataset)
    saved = load_pipeline(summary.folder).network.state_dict()
    assert_same(dict(saved), dict(state.average.module.state_dict()))
    assert not torch.equal(saved["backbone.predict.weight"], state.network["backbone"].predict.weight)


def test_a_trained_pipeline_moves_as_a_whole(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    trainer = DiffusionTrainer(make_config("transformer", "ddim", max_steps=1))
    pipeline = trainer.setup_model(dataset)
    trainer.compile_model()
    trainer.save_model(trainer.train())
    assert pipeline.process.codebook is pipeline.network["gate_embedding"], "of the averaged weights, which it has now"
    pipeline.to(torch.device("meta"))
    assert pipeline.process.codebook.weight.device.type == "meta"


def test_what_does_not_change_is_moved_to_the_device_once(
    make_config: MakeConfig, dataset: CircuitDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tensors pretend to be elsewhere at first; what `to` gave lies where it should, and moves no more."""
    honest, there, moved = Tensor.to, [], []

    def to(tensor: Tensor, *to_what: Any, **options: Any) -> Tensor:
        if not any(isinstance(what, torch.device) for what in to_what) or any(tensor is other for other in there):
            return honest(tensor, *to_what, **options)
        there.append(honest(tensor, *to_what, **options).clone())
        moved.append(tuple(tensor.shape))
        return there[-1]

    pipeline = DiffusionTrainer(make_config("transformer", "ddim", objective="v", loss="mse")).setup_model(dataset)
    batch = next(DatasetLoader(0).get_dataloaders(dataset, 4)[0].epoch(0))
    monkeypatch.setattr(Tensor, "to", to)
    for expected in (2, 0, 0):  # the prompts, and how much signal each noise level has
        moved.clear()
        pipeline.training_loss(batch, Noise(torch.Generator()))
        assert len(moved) == expected, moved


def test_the_last_weights_are_kept_beside_the_average(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    state, summary = train(make_config(num_epochs=2), dataset)
    last = load_pipeline(summary.folder, weights="last").network.state_dict()
    assert_same(dict(last), dict(state.network.state_dict()))
    without = make_config(num_epochs=1, ema_decay=None, general={"output_path": str(summary.folder / ".." / "plain")})
    state, summary = train(without, dataset)
    assert not (summary.folder / "last.safetensors").exists()
    assert_same(
        dict(load_pipeline(summary.folder, weights="last").network.state_dict()), dict(state.network.state_dict())
    )


def test_bfloat16_trains(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    for model, scheduler in (("transformer", "masked"), ("unet", "ddim")):
        kind = {"objective": "v", "loss": "mse"} if model == "unet" else {}
        general = {"overwrite": True}
        records = Records()
        _, summary = train(
            make_config(model, scheduler, precision="bf16", max_steps=2, general=general, **kind), dataset, records
        )
        assert summary.metadata["arithmetic"] == "bfloat16"
        assert all(math.isfinite(record.loss) for record in records.steps)


# -------------------------------------------------------------------------------------- output and starting point


def test_a_finished_model_is_kept(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    train(make_config(max_steps=1), dataset)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="already holds a finished model"):
        DiffusionTrainer(make_config())

    overwrite = make_config(num_epochs=2, general={"overwrite": True})
    train(overwrite, dataset, InterruptAt(4))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights, "the old model stays until the new one"
    load_pipeline(tmp_path / "model")
    train(overwrite, dataset)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != weights
    load_pipeline(tmp_path / "model")


def test_an_impossible_output_is_refused_before_any_work(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(CheckpointError, match="a file is where a folder should be"):
            DiffusionTrainer(make_config(general={"output_path": str(path)}))


def test_an_encoder_without_unitaries_is_told(
    make_config: MakeConfig, dataset: CircuitDataset, caplog: pytest.LogCaptureFixture
) -> None:
    DiffusionTrainer(make_config()).setup_model(dataset)
    assert not caplog.messages
    encoder = UnitaryEncoderConfig(type="convolution")
    DiffusionTrainer(make_config().model_copy(update={"unitary_encoder": encoder})).setup_model(dataset)
    [message] = caplog.messages
    assert message.startswith(
        "training.unitary_encoder has no effect: the model learns Schmidt rank vectors, for 'unused'"
    )


def test_an_output_that_becomes_impossible_is_one_line(make_config: MakeConfig, tmp_path: Path) -> None:
    trainer = DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "model")}))
    (tmp_path / "model").write_text("")
    with pytest.raises(CheckpointError, match="a file is where a folder should be"), trainer.output.to_ourselves():
        pass


def test_starting_from_a_saved_model(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    _, summary = train(make_config(num_epochs=2), dataset)

    def start(data: CircuitDataset = dataset, **options: Any) -> DiffusionPipeline:
        general = {"output_path": str(tmp_path / "second"), "init_from_pipeline_dir": str(summary.folder), "seed": 7}
        return DiffusionTrainer(make_config(general=general, **options)).setup_model(data)

    assert_same(dict(start().network.state_dict()), dict(load_pipeline(summary.folder).network.state_dict()))
    with pytest.raises(CheckpointError, match=r"does not fit.*it has training\.model\.params\.width=16, not 32"):
        start(model_params={"width": 32})
    other = draw_dataset(3, 5, 48)
    object.__setattr__(other, "gate_pool", type(other.gate_pool)(["h", "cz"]))
    with pytest.raises(IncompatibleDatasetsError, match="'cz'"):
        start(other)


def test_steps_out_of_order_are_explained(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    trainer = DiffusionTrainer(make_config())
    with pytest.raises(ConfigError, match="setup_model"):
        trainer.compile_model()
    trainer.setup_model(dataset)
    with pytest.raises(ConfigError, match="compile_model"):
        trainer.train()


def test_sampling_options_of_another_process_are_refused(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    masked = DiffusionTrainer(make_config()).setup_model(dataset)
    gaussian = DiffusionTrainer(make_config("transformer", "ddim", objective="v", loss="mse")).setup_model(dataset)
    categorical = DiffusionTrainer(make_config("transformer", "ddim")).setup_model(dataset)
    refused = [
        (masked, {"scheduler": "ddim"}, "cannot sample a model trained with scheduler.type='masked'"),
        (masked, {"guidance_mode": "rescaled"}, "guides log-probabilities"),
        (categorical, {"guidance_mode": "rescaled"}, "guides log-probabilities"),
        (gaussian, {"scheduler": "masked"}, "ddim, ddpm"),
        (gaussian, {"order": "random"}, "order is for masked models"),
        (gaussian, {"sample_steps": 51}, "50 noise levels"),
        (gaussian, {"scheduler": "dpmsolver++", "guidance_mode": "cfg++"}, r"cannot guide by cfg\+\+"),
    ]
    for pipeline, options, message in refused:
        with pytest.raises(ConfigError, match=message):
            pipeline.sample(["Generate SRV: [1, 2, 2]"], 0, SamplingConfig(**options))
    for prompt in ("Generate SRV: [1, 2]!", "Generate SRV: [1, 1, 2]", "Generate SRV: [1, 1, 2, 2]"):
        with pytest.raises(ConfigError, match=r"prompt|Schmidt rank vector"):
            masked.sample([prompt], 0)


@pytest.mark.parametrize(("model", "scheduler"), [("transformer", "masked"), ("policy", "masked"), ("unet", "ddim")])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_device_computes_what_the_cpu_does(
    make_config: MakeConfig,
    dataset: CircuitDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    model: str,
    scheduler: str,
) -> None:
    """Random numbers differ between devices, so all are drawn on the CPU here, from generators of the same seeds."""
    drawn = []

    class DrawnOnTheCpu:
        """As `Noise`, but the numbers are moved to the generator's device after they were drawn."""

        def __init__(self, generator: torch.Generator, *rows: Any) -> None:
            self.device = generator.device
            self._noise = Noise(torch.Generator().manual_seed(generator.initial_seed()), *rows)
            self.total = self._noise.total

        def uniform(self, *shape: int) -> Tensor:
            drawn.append(shape)
            return self._noise.uniform(*shape).to(self.device)

        def normal(self, *shape: int) -> Tensor:
            return self._noise.normal(*shape).to(self.device)

        def places(self, count: int) -> Tensor:
            return self._noise.places(count).to(self.device)

    for module in (step, loop):  # of training and of validation
        monkeypatch.setattr(module, "Noise", DrawnOnTheCpu)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its 10 bits would be the difference
    losses: dict[str, list[float]] = {}
    for place, name in (("cpu", "first"), (device, "second")):
        records = Records()
        general = {"device": place, "output_path": str(tmp_path / name)}
        options = POLICY if model == "policy" else {}
        config = make_config(model, scheduler, general=general, optimizer="adamw", **options)  # Muon has 16 bits there
        state, _ = train(config, dataset, records)
        assert next(state.network.parameters()).device.type == place
        losses[name] = [record.loss for record in records.steps] + [r.validation_loss or 0.0 for r in records.epochs]
    assert drawn
    assert losses["second"] == pytest.approx(losses["first"], rel=1e-3)
    pipeline = load_pipeline(tmp_path / "second", torch.device(device))
    samples = pipeline.sample(list(dataset.prompts), seed=0)
    assert scheduler != "masked" or bool(samples.report.valid.all())


@pytest.mark.parametrize("interrupt_after", [None, 4])
def test_results_that_are_read_late_change_nothing(
    make_config: MakeConfig, dataset: CircuitDataset, monkeypatch: pytest.MonkeyPatch, interrupt_after: int | None
) -> None:
    """As on CUDA, where the processor does not wait for the device."""
    config = make_config(num_epochs=3, general={"overwrite": True})
    prompt, late = Records(), Records()
    expected, _ = train(config, dataset, prompt)
    monkeypatch.setattr(loop, "Results", lambda lag: Results(2))
    if interrupt_after is not None:
        train(config, dataset, InterruptAt(interrupt_after))
    state, _ = train(config, dataset, late)
    assert_same(state.state_dict()["network"], expected.state_dict()["network"])
    assert state.training_loss == expected.training_loss
    if interrupt_after is None:
        assert late.calls == prompt.calls


def test_a_loss_that_is_read_late_and_no_number_leaves_the_last_good_checkpoint(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_step(5, monkeypatch)
    monkeypatch.setattr(loop, "Results", lambda lag: Results(2))
    with pytest.raises(TrainingDivergedError, match=r"step 5: the loss is nan.*weights of an earlier checkpoint"):
        train(make_config(num_epochs=3), dataset)
    saved = read_checkpoint(newest_checkpoint(tmp_path / "model"), torch.device("cpu"))["state"]
    assert saved["step"] == 3
    assert all(bool(value.isfinite().all()) for value in saved["network"].values())
