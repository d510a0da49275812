"""A team of processes, seen from one of them; tests/integration/test_long_runs.py starts real ones."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError, ConfigError, TeamError
from quantum_diffusion.pipeline import fit as loop
from quantum_diffusion.pipeline.fabric_team import FabricTeam, connect
from quantum_diffusion.pipeline.hooks import Hooks
from quantum_diffusion.pipeline.launch import Launch
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig

LAUNCH = Launch(2, 1, 1, "127.0.0.1", 29500)


class Second(Team):
    """The second of two, told what the first one has."""

    rank = 1
    size = 2

    def __init__(self, first: Any) -> None:
        self.first = first

    def of_first(self, make: Callable[[], Any]) -> Any:
        return self.first


def test_what_an_epoch_came_to_is_what_the_first_process_measured(
    make_config: MakeConfig, dataset: CircuitDataset
) -> None:
    trainer = DiffusionTrainer(make_config(best_metric="sampled_accuracy", sample_every=1, save="best"))
    pipeline = trainer.setup_model(dataset)
    state = trainer.compile_model()
    settings, saved = trainer.config.training, []
    hooks = Hooks(measure=lambda: 0.7, save_best=lambda state: saved.append(state.best_score))
    for first, no_better in ((0.5, 0), (0.4, 1), (0.6, 0)):
        state.batch = 1
        epoch = loop._end_epoch(pipeline, None, state, settings, 0, hooks, Second([1.5, first]))
        assert (epoch.validation_loss, epoch.sampled_accuracy, state.no_better) == (1.5, first, no_better)
    assert saved == [0.5, 0.6]


def test_a_process_of_other_settings_or_data_is_refused(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    trainer = DiffusionTrainer(make_config())
    trainer.setup_model(dataset)
    state = trainer.compile_model()
    first = {"run_id": "of the first", "state": state.state_dict() | {"step": 7}}
    ours = trainer.output.fingerprint(dataset.fingerprint)
    trainer._team = Second(first | {"fingerprint": ours})
    assert trainer.compile_model().step == 7
    assert trainer.output.run_id == "of the first"
    theirs = DiffusionTrainer(make_config(batch_size=8)).output.fingerprint(dataset.fingerprint)
    for fingerprint, told in (
        (theirs, r"training\.training\.batch_size=16, not 8 as"),
        (ours | {"dataset": "1"}, "other circuits"),
    ):
        trainer._team = Second(first | {"fingerprint": fingerprint})
        with pytest.raises(TeamError, match=rf"process 1 was started with .*{told}.* same settings and data"):
            trainer.compile_model()


def test_a_process_that_loses_the_others_says_so() -> None:
    team = FabricTeam.__new__(FabricTeam)
    team.rank, team.size = 1, 2
    lost = "[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4444\nand more"
    for error in (RuntimeError(lost), torch.distributed.DistBackendError("NCCL error")):
        with (
            pytest.raises(TeamError, match=r"1 of 2 lost the others: .*same command continues") as told,
            team.together(),
        ):
            raise error
        assert "\n" not in str(told.value)
    with pytest.raises(RuntimeError, match="shapes"), team.together():
        raise RuntimeError("shapes differ")


def test_an_error_of_the_first_process_is_raised_on_all() -> None:
    class Wire:
        """What the first process sends is what the second gets."""

        def broadcast(self, value: Any) -> Any:
            self.sent = value if value[1] or value[0] else self.sent
            return self.sent

    def team(rank: int, wire: Wire) -> FabricTeam:
        made = FabricTeam.__new__(FabricTeam)
        made.rank, made._fabric = rank, wire  # type: ignore[assignment]
        return made

    def fail() -> None:
        raise CheckpointError("damaged")

    wire = Wire()
    for rank in (0, 1):
        with pytest.raises(CheckpointError, match="damaged"):
            team(rank, wire).of_first(fail)


@pytest.mark.parametrize("value", ["2", "abc", "-1"])
def test_a_launch_that_is_none_starts_no_process(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"a process was started: {arguments}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE='?-?\w+.*torchrun --nproc-per-node=N.*unset WORLD_SIZE"):
        DiffusionTrainer(make_config())
    monkeypatch.setenv("WORLD_SIZE", "")
    DiffusionTrainer(make_config())


def test_a_computer_with_fewer_gpus_than_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"process 1 is number 1 of its computer, which shows it 1 CUDA devices"):
        connect(LAUNCH, torch.device("cuda"))
