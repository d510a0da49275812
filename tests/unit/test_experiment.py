"""The record of a run survives failures of the run, of its sinks and of the machine."""

import errno
import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from quantum_diffusion.errors import ConfigError
from quantum_diffusion.tracking import experiment
from quantum_diffusion.tracking.experiment import ExperimentLogger, read_metrics, read_run
from quantum_diffusion.tracking.plots import save_loss_curve
from quantum_diffusion.tracking.sinks import RunStart


def logger(folder: Path, **options: object) -> ExperimentLogger:
    return ExperimentLogger(folder, "try", {"rate": 0.1}, sinks=["csv"], **options)  # type: ignore[arg-type]


def test_a_run_is_recorded(tmp_path: Path) -> None:
    with ExperimentLogger(tmp_path / "run", "try", {"rate": 0.1}) as log:
        assert read_run(tmp_path / "run")["status"] == "running"
        log.log(1, {"loss": 0.5, "prefix_loss": None})
        assert read_metrics(tmp_path / "run") == [(1, "loss", 0.5)], "readable while the run goes on"
        log.log(2, {"loss": 1 / 3})
    record = read_run(tmp_path / "run")
    assert (record["name"], record["status"], record["config"]) == ("try", "finished", {"rate": 0.1})
    assert record["last_metrics"] == {"loss": 1 / 3}
    assert read_metrics(tmp_path / "run")[-1] == (2, "loss", 1 / 3)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "failed")]
)
def test_an_exception_passes_and_is_recorded(tmp_path: Path, error: type[BaseException], status: str) -> None:
    def run() -> None:
        with logger(tmp_path) as log:
            log.log(1, {"loss": float("nan")})
            raise error

    with pytest.raises(error):
        run()
    record = read_run(tmp_path)
    assert record["status"] == status
    assert record["last_metrics"] == {}, "values that are not finite are no plain YAML"


def test_the_first_end_counts(tmp_path: Path) -> None:
    with logger(tmp_path) as log:
        log.end("interrupted")
    assert read_run(tmp_path)["status"] == "interrupted"


def test_a_failing_sink_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def __init__(self, start: RunStart) -> None:
            pass

        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            raise OSError(28, "No space left on device\nand more that nobody needs")

        def text(self, step: int, name: str, text: str) -> None:
            raise AssertionError("a sink that failed is left out")

        def close(self, status: str) -> None:
            closed.append(status)
            raise OSError("still no space")

    class Broken:
        def __init__(self, start: RunStart) -> None:
            raise RuntimeError("no such server")

    closed: list[str] = []
    for name, sink in {"full": Full, "broken": Broken}.items():
        monkeypatch.setitem(experiment.SINKS, name, sink)
    with caplog.at_level(logging.WARNING), ExperimentLogger(tmp_path, "try", {}, ["full", "broken", "csv"]) as log:
        for step in (1, 2, 3):
            log.log(step, {"loss": 1.0})
            log.text(step, "circuits", "q0")
    assert [row[0] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert caplog.messages == [
        "metrics are no longer written to broken: no such server",
        "metrics are no longer written to full: [Errno 28] No space left on device",
    ]
    assert closed == ["failed"], "what it holds is given back, once"


def test_a_folder_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with logger(tmp_path / "file") as log:
        log.log(1, {"loss": 1.0})


def test_a_resumed_run_drops_the_rows_it_makes_again(tmp_path: Path) -> None:
    with logger(tmp_path) as log:
        for step in range(1, 6):
            log.log(step, {"loss": float(step)})
    with logger(tmp_path, first_step=3) as log:
        log.log(4, {"loss": 40.0})
    assert [(step, value) for step, _, value in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]
    with logger(tmp_path) as log:
        pass
    assert read_metrics(tmp_path) == [], "a run from the start has no earlier rows"


@pytest.mark.parametrize("sink", ["csv", "jsonl"])
def test_a_full_disk_at_a_resume_leaves_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str
) -> None:
    def log(first: int, last: int) -> None:
        with ExperimentLogger(tmp_path, "try", {}, [sink], first) as log:
            for step in range(first + 1, last + 1):
                log.log(step, {"loss": float(step)})

    class Full(io.TextIOWrapper):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def writelines(self, lines: Iterable[str]) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return own(file, mode, *arguments, **options) if mode.startswith("r") else Full(own(file, f"{mode}b"))

    log(0, 5)
    before = {path: path.read_bytes() for path in tmp_path.glob("metrics.*")}
    own = io.open
    with monkeypatch.context() as patched:
        patched.setattr(io, "open", full)
        log(3, 5)
    assert {path: path.read_bytes() for path in tmp_path.glob("metrics.*")} == before != {}


@pytest.mark.parametrize("cut", range(2, 20))
def test_a_csv_cut_short_is_readable(tmp_path: Path, cut: int) -> None:
    with logger(tmp_path) as log:
        for step in (8, 9, 10):
            log.log(step, {"loss": 0.123456 + step})
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    rows = read_metrics(tmp_path)
    assert rows == [(8, "loss", 8.123456), (9, "loss", 9.123456)][: len(rows)]
    assert len(rows) == 2, "a number that was cut short is no number"


def test_a_missing_or_garbled_record(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.csv").write_bytes(b"step,metric,value\n1,loss,0.5\n\xff\xfe\x00garbage\n,,\n2,loss,0.25\n")
    assert read_metrics(tmp_path) == [(1, "loss", 0.5), (2, "loss", 0.25)]


def test_an_unknown_sink_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        ExperimentLogger(tmp_path, "try", {}, ["tensorbord"])


@pytest.mark.parametrize("count", [1, 2, 500])
def test_the_loss_curve_is_drawn(tmp_path: Path, count: int) -> None:
    assert not save_loss_curve(tmp_path, tmp_path / "none.png")
    with logger(tmp_path) as log:
        for step in range(1, count + 1):
            log.log(step, {"loss": 1 / step, "learning_rate": 0.1})
        log.log(count, {"validation_loss": 0.3, "epoch_loss": float("inf")})
    assert save_loss_curve(tmp_path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "curve.png").stat().st_size > 5000
