"""What a run of days needs: checkpoints, damage, kills, the best epoch, stopping early, two processes."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.pipeline.checkpoint import CheckpointStore, load_pipeline, read_checkpoint, read_metadata
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.tracking.experiment import read_metrics
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig
from tests.integration.test_training import InterruptAt, Records, assert_same, metrics_without_times, train
from tests.processes import Forked, run_forked

CPU = torch.device("cpu")
RUN = """
import sys
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.training.training import DiffusionTrainer
DiffusionTrainer(TrainingConfig.model_validate_json(sys.argv[1])).run()
"""


@pytest.fixture
def saved(dataset: CircuitDataset, tmp_path: Path) -> str:
    save_dataset(dataset, tmp_path / "data", {})
    return str(tmp_path / "data")


# ------------------------------------------------------------------------------------------------ checkpoints


class Steps(FitObserver):
    """Notes which checkpoints are there after each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[list[int]] = []

    def on_step(self, record: StepRecord) -> None:
        self.seen.append(sorted(int(path.stem) for path in self.folder.glob("*.pt")))


def test_checkpoints_come_by_step_and_only_the_newest_stay(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    general = {"checkpoint_steps": 2, "checkpoint_minutes": None, "keep_checkpoints": 2}
    observer = Steps(tmp_path / "model" / "run" / "checkpoints")
    train(make_config(num_epochs=3, general=general), dataset, observer)  # 3 steps an epoch
    assert observer.seen == [[], [], [2], [2, 3], [3, 4], [3, 4], [4, 6], [4, 6], [6, 8]]
    assert not (tmp_path / "model" / "run" / "checkpoints").exists()


def test_checkpoints_may_come_after_every_other_epoch(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointStore, "clear", lambda self: None)
    folder = tmp_path / "model" / "run" / "checkpoints"
    general = {"checkpoint_epochs": 2, "checkpoint_minutes": None, "keep_checkpoints": 9}
    train(make_config(num_epochs=5, general=general), dataset)  # 3 steps an epoch
    assert sorted(int(path.stem) for path in folder.glob("*.pt")) == [6, 12, 15], "the last epoch always has one"


def test_checkpoints_come_by_time_and_no_clock_that_jumps_disturbs_them(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10_000, 40))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 2e9))
    observer = Steps(tmp_path / "model" / "run" / "checkpoints")
    config = make_config(num_epochs=1, batch_size=3, general={"checkpoint_minutes": 2.0, "keep_checkpoints": 9})
    train(config, dataset, observer)
    assert observer.seen[:8] == [[], [], [], [3], [3], [3], [3, 6], [3, 6]]


def test_a_clock_that_was_set_back_does_not_hide_a_checkpoint(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    train(make_config(max_steps=1), dataset)
    again = make_config(num_epochs=2, general={"overwrite": True})
    train(again, dataset, InterruptAt(4))
    for path in (tmp_path / "model" / "run" / "checkpoints").iterdir():
        os.utime(path, (0, 0))
    records = Records()
    train(again, dataset, records)
    assert records.calls[0] == "start 4 of 6"


def test_what_a_finished_model_left_behind_is_not_continued(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between saving the model and clearing its checkpoints."""
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointStore, "clear", lambda self: None)
        train(make_config(num_epochs=2), dataset)
    assert list((tmp_path / "model" / "run" / "checkpoints").iterdir())
    records = Records()
    train(make_config(num_epochs=2, general={"overwrite": True}), dataset, records)
    assert records.calls[0] == "start 0 of 6"


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = train(make_config(num_epochs=3, general={"output_path": str(tmp_path / "whole")}), dataset)
    config = make_config(num_epochs=3, general={"checkpoint_steps": 1, "keep_checkpoints": 3})
    for damage in (
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: path.write_bytes(b""),
    ):
        train(config, dataset, InterruptAt(5))
        damage(tmp_path / "model" / "run" / "checkpoints" / "000000005.pt")
        records = Records()
        caplog.clear()
        state, _ = train(config, dataset, records)
        assert records.calls[0] == "start 4 of 9"
        assert "000000005.pt' is damaged or foreign" in caplog.text
        assert "trying the one before" in caplog.text
        assert_same(state.state_dict()["network"], whole.state_dict()["network"])
        (tmp_path / "model" / "config.yaml").unlink()  # as if it had not been finished

    train(config, dataset, InterruptAt(5))
    for path in (tmp_path / "model" / "run" / "checkpoints").iterdir():
        path.write_bytes(b"quantum_diffusion checkpoint 0000\n")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged.*resume=never"):
        train(config, dataset)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantum_diffusion import files

    config = make_config(num_epochs=3)
    flush, full = files.flush, False

    def fills_up(path: Path) -> None:
        if full and "checkpoints" in str(path):
            raise OSError(28, "No space left on device")
        flush(path)

    class FillAfter(FitObserver):
        def on_epoch(self, record: EpochRecord) -> None:
            nonlocal full
            full = record.epoch == 1

    monkeypatch.setattr(files, "flush", fills_up)
    with pytest.raises(CheckpointError, match="the disk is full"):
        train(config, dataset, FillAfter())
    full = False
    records = Records()
    train(config, dataset, records)
    assert records.calls[0] == "start 3 of 9"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(CheckpointError, match="permission denied"):
        DiffusionTrainer(make_config(general={"output_path": str(tmp_path / "locked" / "model")}))


def killed_and_continued(config: TrainingConfig, kills: int, seed: int, longest: float) -> int:
    """Kill a run at random moments, starting it again each time; returns how often it was really killed."""
    clock, really = random.Random(seed), 0
    command = [sys.executable, "-c", RUN, config.model_dump_json()]
    for _ in range(kills):
        process = Forked(command)
        time.sleep(clock.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        really += process.wait() != 0
        if (config.general.model_folder / "config.yaml").exists():
            return really
    run_forked(Path.cwd(), *command)
    return really


def test_kills_at_any_moment_change_no_bit(make_config: MakeConfig, saved: str, tmp_path: Path) -> None:
    def config(name: str) -> TrainingConfig:
        general = {
            "dataset": saved,
            "output_path": str(tmp_path / name),
            "checkpoint_steps": 1,
            "checkpoint_minutes": None,
            "verbose": False,
        }
        options = {"num_epochs": 8, "batch_size": 8, "num_workers": 2, "sample_every": 3, "num_sampled": 4}
        return make_config(general=general, **options)

    seconds = DiffusionTrainer(config("whole")).run().metadata["seconds"]  # of a machine that may be slow today
    assert killed_and_continued(config("killed"), 3, seed=2, longest=0.8 * seconds) >= 1
    first, second = (load_pipeline(tmp_path / name) for name in ("whole", "killed"))
    assert_same(dict(first.network.state_dict()), dict(second.network.state_dict()))
    assert metrics_without_times(tmp_path / "whole") == metrics_without_times(tmp_path / "killed")


def test_a_kill_between_the_end_of_an_epoch_and_its_checkpoint_logs_nothing_twice(
    make_config: MakeConfig, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> TrainingConfig:
        general = {"dataset": saved, "output_path": str(tmp_path / name), "checkpoint_steps": 1}
        return make_config(general=general, num_epochs=3, batch_size=8)

    DiffusionTrainer(config("whole")).run()
    write = DiffusionTrainer._write_checkpoint

    def killed_after_two_epochs(trainer: DiffusionTrainer, state: TrainingState) -> None:
        if (state.epoch, state.batch) == (2, 0):
            raise SystemExit
        write(trainer, state)

    monkeypatch.setattr(DiffusionTrainer, "_write_checkpoint", killed_after_two_epochs)
    with pytest.raises(SystemExit):
        DiffusionTrainer(config("killed")).run()
    monkeypatch.setattr(DiffusionTrainer, "_write_checkpoint", write)
    DiffusionTrainer(config("killed")).run()
    assert metrics_without_times(tmp_path / "whole") == metrics_without_times(tmp_path / "killed")


# ------------------------------------------------------------------------------------- what the loop can be told


def test_accumulated_batches_are_one_step(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    records = Records()
    state, _ = train(make_config(num_epochs=2, batch_size=4, accumulate_batches=4), dataset, records)
    circuits = state.samples_seen // 2
    assert 32 < circuits < 48
    assert [record.samples_seen for record in records.steps] == [
        16,
        32,
        circuits,
        circuits + 16,
        circuits + 32,
        2 * circuits,
    ]


def test_the_best_epoch_is_saved_when_asked_for(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    seen: dict[int, Any] = {}

    class Note(FitObserver):
        def on_epoch(self, record: EpochRecord) -> None:
            value = record.validation_loss
            weights = {k: v.clone() for k, v in trainer._state.averaged_network.state_dict().items()}  # type: ignore[union-attr]
            seen[record.epoch + 1] = (value, weights)

    config = make_config(num_epochs=6, learning_rate=0.3, lr_scheduler="constant", ema_decay=None, save="best")
    trainer = DiffusionTrainer(config, [Note()])
    trainer.setup_model(dataset)
    trainer.compile_model()
    summary = trainer.save_model(trainer.train())
    best = min(seen, key=lambda epoch: seen[epoch][0])
    assert best != 6, "with this learning rate the last epoch is not the best"
    assert read_metadata(summary.folder)["best_epoch"] == best
    assert_same(dict(load_pipeline(summary.folder).network.state_dict()), seen[best][1])
    assert not (tmp_path / "model" / "run" / "best").exists()


def test_training_stops_when_nothing_improves(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    records = Records()
    options = {"learning_rate": 0.5, "lr_scheduler": "constant", "ema_decay": None, "gradient_clip": None}
    _, summary = train(make_config(num_epochs=50, patience=3, **options), dataset, records)
    losses = [record.validation_loss or 0.0 for record in records.epochs]
    assert len(losses) < 50
    assert min(range(len(losses)), key=losses.__getitem__) == len(losses) - 4
    assert summary.status == "finished"
    for wrong in ({"patience": 2, "validation_fraction": 0.0}, {"save": "best", "best_metric": "sampled_accuracy"}):
        with pytest.raises(ConfigError, match=r"raise training.validation_fraction|needs training.sample_every"):
            make_config(**wrong)


def test_accuracy_is_measured_on_the_way(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    records = Records()
    options = {"sample_every": 2, "num_sampled": 10, "best_metric": "sampled_accuracy", "save": "best"}
    train(make_config(num_epochs=5, **options), dataset, records)
    assert [record.sampled_accuracy is not None for record in records.epochs] == [False, True, False, True, False]
    logged = [value for _, name, value in read_metrics(tmp_path / "model" / "run") if name == "sampled_accuracy"]
    assert logged == [record.sampled_accuracy for record in records.epochs if record.sampled_accuracy is not None]
    assert {"memory_gib", "gradient_norm", "learning_rate"} <= {
        name for _, name, _ in read_metrics(tmp_path / "model" / "run")
    }


def test_frozen_weights_stay(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    first, _ = train(make_config(max_steps=1, ema_decay=None), dataset)
    start = {name: value.clone() for name, value in first.network.state_dict().items()}
    general = {"init_from_pipeline_dir": str(tmp_path / "model"), "output_path": str(tmp_path / "second")}
    options = {"freeze": ["condition_encoder.*", "*.predict.*"], "ema_decay": None}
    state, _ = train(make_config(num_epochs=2, general=general, **options), dataset)
    for name, value in state.network.state_dict().items():
        frozen = name.startswith("condition_encoder.") or ".predict." in name
        assert torch.equal(value, start[name]) or not frozen, name
    assert any(not torch.equal(value, start[name]) for name, value in state.network.state_dict().items())
    for patterns, message in ((["decoder.*"], "no weight is named 'decoder"), (["*"], "leaves nothing to train")):
        trainer = DiffusionTrainer(make_config(freeze=patterns, general={"output_path": str(tmp_path / "third")}))
        trainer.setup_model(dataset)
        with pytest.raises(ConfigError, match=message):
            trainer.compile_model()


def test_a_trace_is_written(make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path) -> None:
    train(make_config(num_epochs=2, profile_steps=2), dataset)
    assert '"traceEvents"' in (tmp_path / "model" / "run" / "trace.json").read_text()[:100_000]


def test_no_more_threads_than_cores_are_started(make_config: MakeConfig) -> None:
    before = torch.get_num_threads()
    try:
        DiffusionTrainer(make_config(num_threads=4096))
        assert torch.get_num_threads() == os.cpu_count()
    finally:
        torch.set_num_threads(before)


def test_sixteen_bits_are_for_cuda(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="precision=16 is for CUDA"):
        DiffusionTrainer(make_config(precision="16", general={"device": "cpu"}))


def test_nan_in_the_data_is_told_before_anything_is_saved(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    """Tokens are integers; what can be NaN are unitaries, and those are checked on loading."""
    import numpy as np

    from quantum_diffusion.errors import DatasetFormatError

    unitaries = np.zeros((len(dataset), 2, 8, 8), dtype=np.float32)
    unitaries[3, 0, 1, 1] = np.nan
    save_dataset(replace(dataset, condition_type="UNITARY", targets=unitaries), tmp_path / "nan", {})
    with pytest.raises(DatasetFormatError, match="not finite"):
        DiffusionTrainer(make_config(general={"dataset": str(tmp_path / "nan")})).run()
    assert not (tmp_path / "model").exists()


# ------------------------------------------------------------------------------------------------ two processes


def run_two(config: TrainingConfig, script: str = RUN) -> None:
    """Run two processes as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-c", script, config.model_dump_json()]
    processes = [
        Forked(command, environment=os.environ | team | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0], [process.errors()[-2000:] for process in processes]


RUN_WITHOUT_GENERATOR = f"""
import os
from quantum_diffusion.data.generation import DatasetGenerator
if os.environ["RANK"] == "1":
    del DatasetGenerator.generate
{RUN}
"""


@pytest.mark.parametrize(
    ("model", "scheduler", "data"),
    [
        ("transformer", "masked", "SRV"),
        ("unet", "ddim", "SRV"),
        ("transformer", "masked", "UNITARY"),
        ("transformer", "masked", "STATE"),
        ("transformer", "masked", "stream"),
    ],
)
def test_two_processes_have_the_loss_of_one(
    make_config: MakeConfig, saved: str, tmp_path: Path, model: str, scheduler: str, data: str
) -> None:
    """The same global batches and noise: losses agree to 1e-4, which is rounding, also where a batch is odd.

    A stream is made by the first process alone.
    """
    made = {"num_qubits": 2, "min_gates": 1, "max_gates": 4, "num_samples": 48, "n_jobs": 1}
    if data == "stream":
        (tmp_path / "short.yaml").write_text(yaml.safe_dump(made))
        saved = f"stream:{tmp_path / 'short.yaml'}"
    elif data != "SRV":
        labelled = {"condition_type": data, "gate_set": ["h", "cx", "x"], "output_path": str(tmp_path / "labelled")}
        DatasetGenerator(DatasetConfig.model_validate(made | labelled)).write()
        saved = str(tmp_path / "labelled")

    def config(name: str) -> TrainingConfig:
        general = {"dataset": saved, "output_path": str(tmp_path / name), "device": "cpu", "verbose": False}
        options: dict[str, Any] = {"num_epochs": 2, "batch_size": 9, "precision": "32", "learning_rate": 1e-3}
        if scheduler == "masked":
            options |= {"scheduler_params": {"suffix_share": 0.5}}
        if (model, data) == ("transformer", "SRV"):
            options |= {"prefix_head_weight": 0.5}
        return make_config(model, scheduler, general=general, **options)

    DiffusionTrainer(config("one")).run()
    run_two(config("two"), RUN_WITHOUT_GENERATOR)
    one, two = (
        {(step, name): value for step, name, value in read_metrics(tmp_path / folder / "run")}
        for folder in ("one", "two")
    )
    assert one.keys() == two.keys()
    for key, value in one.items():
        if key[1] in ("loss", "prefix_loss", "epoch_loss", "validation_loss", "learning_rate"):
            assert two[key] == pytest.approx(value, rel=1e-4), key
    assert read_metadata(tmp_path / "two")["steps"] == read_metadata(tmp_path / "one")["steps"]
    first, second = (load_pipeline(tmp_path / name).network.state_dict() for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-2, atol=1e-3)
    assert [path.name for path in (tmp_path / "two" / "run" / "tensorboard").iterdir()] != []
    assert len(list((tmp_path / "two" / "run" / "tensorboard").iterdir())) == 1, "one process writes"


TEAM_OF_STRANGERS = """
import json, os, sys
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.training.training import DiffusionTrainer
rank = int(os.environ["RANK"])
config = TrainingConfig.model_validate_json(sys.argv[1])
general = config.general.model_copy(update={"output_path": f"{config.general.output_path}_{rank}"})
trainer = DiffusionTrainer(config.model_copy(update={"general": general}))
measured = iter([0.5, 0.4, 0.3, 0.2, 0.1] if rank == 0 else [0.1, 0.2, 0.3, 0.4, 0.5])
trainer._measure = lambda *_: next(measured)
summary = trainer.run()
weights = {name: value.tolist() for name, value in trainer.pipeline.network.state_dict().items()}
said = [trainer._state.step, trainer._state.best_score, summary.metadata.get("best_epoch"), weights]
open(f"{config.general.output_path}_said_{rank}.json", "w").write(json.dumps(said))
"""


def test_two_processes_on_disks_of_their_own_follow_the_first(
    make_config: MakeConfig, saved: str, tmp_path: Path
) -> None:
    """The first alone has a checkpoint, and each measures another accuracy: they stop together, with one model."""
    options = {"num_epochs": 5, "batch_size": 24, "sample_every": 1, "num_sampled": 1, "patience": 2, "save": "best"}

    def config(name: str) -> TrainingConfig:
        general = {"dataset": saved, "output_path": str(tmp_path / name), "checkpoint_steps": 1}
        return make_config(best_metric="sampled_accuracy", general=general, **options)

    trainer = DiffusionTrainer(config("model_0"), [InterruptAt(1)])
    assert trainer.run().status == "interrupted"
    run_two(config("model"), TEAM_OF_STRANGERS)
    first, second = (json.loads((tmp_path / f"model_said_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[:3] == [6, 0.5, 1], "the first epoch was the best, and two more came, of two steps each"
    assert not (tmp_path / "model_1" / "config.yaml").exists()


def test_a_dead_process_ends_the_run_and_it_can_be_continued(
    make_config: MakeConfig, saved: str, tmp_path: Path
) -> None:
    """Under torchrun itself."""
    general = {"dataset": saved, "output_path": str(tmp_path / "model"), "device": "cpu", "checkpoint_steps": 1}
    config = make_config(num_epochs=60, batch_size=8, general=general)
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "run.py"), config.model_dump_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    checkpoints = tmp_path / "model" / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while len(list(checkpoints.glob("*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "Signal 9" in output or "SIGKILL" in output
    newest = max(checkpoints.glob("*.pt"))
    assert read_checkpoint(newest, CPU)["state"]["step"] > 0
    records, step = Records(), int(newest.stem)
    state, _ = train(config, load(saved), records, InterruptAt(step + 3))
    assert records.calls[0].startswith(f"start {step} of ")
    assert state.step == step + 3


def load(folder: str) -> CircuitDataset:
    from quantum_diffusion.data.storage import load_dataset_folder

    return load_dataset_folder(Path(folder))
