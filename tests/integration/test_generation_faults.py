"""Generation that is killed, shared out, raced or short of memory writes the bytes of an undisturbed run."""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.storage import load_dataset_folder
from quantum_diffusion.errors import ConfigError, DatasetFormatError
from tests.processes import Forked

GENERATE = """
import sys
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.generation import DatasetGenerator
DatasetGenerator(DatasetConfig.model_validate_json(sys.argv[1])).write()
"""


def configuration(path: Path, **changes: Any) -> DatasetConfig:
    values = {"num_qubits": 4, "max_gates": 14, "num_samples": 60_000, "n_jobs": 1, "output_path": str(path)}
    return DatasetConfig(**{**values, **changes})


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_kills_at_any_moment(tmp_path: Path) -> None:
    seconds = DatasetGenerator(configuration(tmp_path / "whole", num_samples=150_000)).write().seconds
    expected = hashes(tmp_path / "whole")

    path = tmp_path / "killed" / "data"
    command = [sys.executable, "-c", GENERATE, configuration(path, num_samples=150_000).model_dump_json()]
    clock, kills = random.Random(0), 0
    for _ in range(4):
        if path.exists():
            break
        process = Forked(command)
        time.sleep(clock.uniform(0.05 * seconds, 0.25 * seconds))  # of a machine that may be slow today
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if path.exists():
            load_dataset_folder(path)  # complete, never half
    report = DatasetGenerator(configuration(path, num_samples=150_000)).write()
    assert kills > 1
    assert report.reused or report.num_continued > 0, "what earlier runs did is used"
    assert hashes(path) == expected
    assert [entry.name for entry in path.parent.iterdir()] == ["data"], "nothing is left beside it"


def test_damaged_shards_are_made_again_and_those_of_other_settings_dropped(tmp_path: Path) -> None:
    DatasetGenerator(configuration(tmp_path / "whole")).write()
    for damage in (
        lambda shard: os.truncate(shard, 100),
        lambda shard: shard.write_bytes(b""),
        lambda shard: shard.write_bytes(shard.read_bytes()[:-1] + bytes([shard.read_bytes()[-1] ^ 1])),
    ):
        path = tmp_path / "data"
        generator = DatasetGenerator(configuration(path, overwrite=True))
        with pytest.raises(KeyboardInterrupt):
            generator.write(interrupt_after(30_000))
        shards = sorted((tmp_path / ".data.work").glob("shard-*"))
        assert len(shards) == 3
        damage(shards[1])
        assert generator.write().num_continued > 0
        assert hashes(path)["dataset/ds/x.safetensors"] == hashes(tmp_path / "whole")["dataset/ds/x.safetensors"]


def test_an_interrupted_run_of_other_settings_is_not_dropped_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        DatasetGenerator(configuration(path)).write(interrupt_after(30_000))
    with pytest.raises(DatasetFormatError, match=r"other settings \(num_samples=60000, not 100\).*overwrite=true"):
        DatasetGenerator(configuration(path, num_samples=100)).write()
    assert DatasetGenerator(configuration(path)).write().num_continued > 0

    with pytest.raises(KeyboardInterrupt):
        DatasetGenerator(configuration(tmp_path / "other", seed=5)).write(interrupt_after(30_000))
    (tmp_path / ".other.work" / "settings.json").write_text("{")
    with pytest.raises(DatasetFormatError, match="an interrupted run with other settings"):
        DatasetGenerator(configuration(tmp_path / "other")).write()
    assert DatasetGenerator(configuration(tmp_path / "other", overwrite=True)).write().num_continued == 0
    assert hashes(tmp_path / "other") == hashes(path)


def test_what_cannot_be_cleared_away_does_not_make_an_error_of_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", fail)
    path = tmp_path / "data"
    assert DatasetGenerator(configuration(path, num_samples=100)).write().num_circuits == 100
    assert len(load_dataset_folder(path)) == 100


@pytest.mark.parametrize("name", ["thesis.tex", "folder"])
def test_nothing_of_others_is_removed_from_the_work_folder(tmp_path: Path, name: str) -> None:
    mine = tmp_path / ".data.work" / name
    mine.parent.mkdir()
    mine.mkdir() if name == "folder" else mine.write_text("precious")
    with pytest.raises(DatasetFormatError, match=rf"contains '{name}'.*move it away"):
        DatasetGenerator(configuration(tmp_path / "data", overwrite=True)).write()
    assert mine.exists()


def interrupt_after(count: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "data"
    messages = []

    def second_run(done: int, total: int) -> None:
        if not messages:
            with pytest.raises(DatasetFormatError, match="another run is making the data set") as caught:
                DatasetGenerator(configuration(path)).write()
            messages.append(str(caught.value))

    assert DatasetGenerator(configuration(path)).write(second_run).num_circuits == 60_000
    assert messages


def test_little_memory_changes_nothing(tmp_path: Path) -> None:
    for name, memory in (("much", 4.0), ("little", 1e-4)):
        DatasetGenerator(configuration(tmp_path / name, max_memory=memory)).write()
    assert hashes(tmp_path / "much") == hashes(tmp_path / "little")


def test_without_ray_its_installation_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"engine=ray needs Ray.*\[ray\]"):
        DatasetGenerator(configuration(tmp_path / "data", engine="ray")).write()
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_ray_cluster_of_two_nodes_writes_the_same_bytes(tmp_path: Path) -> None:
    DatasetGenerator(configuration(tmp_path / "ray", engine="ray", n_jobs=-1)).write()
    DatasetGenerator(configuration(tmp_path / "local")).write()
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")
