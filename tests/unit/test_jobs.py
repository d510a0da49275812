"""Sweeps with both launchers: every job's outcome comes back, and nothing starts when one job cannot be right."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor

from quantum_diffusion.cli import run_command
from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config.store import parse_arguments
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.jobs import Command, run_jobs

BASIC = ["-m"]
JOBLIB = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
LAUNCHERS = pytest.mark.parametrize("launcher", [BASIC, JOBLIB], ids=["basic", "joblib"])


@pytest.fixture(autouse=True, scope="module")
def _with_new_workers() -> None:
    """Stop joblib's workers that other tests have left: what they write goes to a file of those tests."""
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command_that(run: Callable[[Any], int]) -> Command:
    """A command with a key to sweep, `runs.folder`; what runs in workers must be local to a test, as pickle wants."""
    from quantum_diffusion.jobs import Outcome

    return Command("runs", lambda config: Outcome(run(config)), lambda config: config.folder)


@LAUNCHERS
def test_every_failure_is_reported_and_the_other_jobs_run(launcher: list[str], capfd: pytest.CaptureFixture) -> None:
    def run(config: Any) -> int:
        from pathlib import Path

        from quantum_diffusion.errors import ConfigError

        print("at work in", config.folder)
        print("no end of line", end="")
        if config.folder == "bad":
            raise ConfigError("'bad' is not right: choose another")
        if config.folder == "bug":
            raise ZeroDivisionError("what\na bug")
        Path(config.folder).write_text("done")
        return int(config.folder == "one")

    values = ["bad", "bug", "one", "a"]
    assert run_jobs(command_that(run), [*launcher, f"runs.folder={','.join(values)}"]).status == 1
    out, err = capfd.readouterr()
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: job 0 (runs.folder=bad): 'bad' is not right: choose another",
        "error: job 1 (runs.folder=bug): ZeroDivisionError: what",
        "error: job 2 (runs.folder=one): it failed; see its message above",
    ]
    assert "job 1 (runs.folder=bug):\nTraceback" in err, "a bug is shown in full, and where it was"
    assert all(Path(name).read_text() == "done" for name in ("one", "a"))
    assert "1 of 4 jobs are done" in out
    for number, value in enumerate(values):
        label = "" if launcher == BASIC else f"[{number}] "
        assert f"{label}job {number} (runs.folder={value})\n" in out
        own = "\n".join(line for line in out.splitlines() if line.startswith(label))  # jobs that run at once take turns
        assert f"{label}at work in {value}\n{label}no end of line" in own


@pytest.mark.parametrize("problem", [OSError(28, "no space"), ZeroDivisionError(), KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_single_job_comes_out_as_it_is(problem: BaseException) -> None:
    def run(config: Any) -> int:
        raise problem

    with pytest.raises(type(problem)) as caught:
        run_jobs(command_that(run), ["runs.folder=a"])
    assert caught.value is problem


def test_a_single_command_without_memory_says_so(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: Any) -> int:
        raise MemoryError

    monkeypatch.setitem(COMMANDS, "runs", command_that(run))
    assert run_command("runs", ["runs.folder=a"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: out of memory while running runs: lower the sizes in its settings"
    )


def test_jobs_of_a_killed_worker_are_named(capfd: pytest.CaptureFixture) -> None:
    def run(config: Any) -> int:
        import os
        import signal

        if config.folder == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert run_jobs(command_that(run), [*JOBLIB, "runs.folder=a,b"]).status == 1
    err = capfd.readouterr().err
    assert re.search(r"^error: job 1 \(runs\.folder=b\): not finished \(A worker process .*\n", err, flags=re.MULTILINE)
    assert "Traceback" not in err


@LAUNCHERS
@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="under nohup workers ignore hang-ups")
def test_a_terminal_that_hangs_up_ends_a_sweep_well(launcher: list[str], capfd: pytest.CaptureFixture) -> None:
    def run(config: Any) -> int:
        import os
        import signal
        import time

        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(5)
        return 0

    def hang_up(number: int, frame: object) -> None:
        raise AssertionError("nobody had answered it")

    before = signal.signal(signal.SIGHUP, hang_up)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(command_that(run), [*launcher, "runs.folder=a,b,c"])
        assert signal.getsignal(signal.SIGHUP) is hang_up
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "0 of 3 jobs are done" in capfd.readouterr().out


@LAUNCHERS
def test_an_interrupted_job_ends_the_sweep(launcher: list[str], capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    def run(config: Any) -> int:
        import time
        from pathlib import Path

        if Path(config.folder).name == "first":
            raise KeyboardInterrupt
        time.sleep(0.5)  # the first is over
        Path(config.folder).touch()
        return 0

    before = signal.getsignal(signal.SIGINT)
    names = ["first", *"abc"]
    folders = [str(tmp_path / name) for name in names]  # joblib's workers may be those of a test in another folder
    with pytest.raises(KeyboardInterrupt):
        run_jobs(command_that(run), [*launcher, f"runs.folder={','.join(folders)}"])
    done = [name for name in names if (tmp_path / name).exists()]
    assert done in ([], ["a"]), "the one that ran beside it ends well, no other starts"
    assert f"{len(done)} of 4 jobs are done" in capfd.readouterr().out
    assert signal.getsignal(signal.SIGINT) == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_folder_of_temporary_files_may_have_any_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = tmp_path / "it's ${x} [1]\\"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert run_jobs(command_that(lambda config: 0), ["-m", "runs.folder=a"]).status == 0
    assert not list(odd.iterdir())


def test_what_a_job_is_refused_by_the_system_is_one_line(capfd: pytest.CaptureFixture) -> None:
    def run(config: Any) -> int:
        raise MemoryError if config.folder == "a" else PermissionError(13, "Permission denied", "/x")

    assert run_jobs(command_that(run), ["-m", "runs.folder=a,b"]).status == 1
    out, err = capfd.readouterr()
    assert "error: job 0 (runs.folder=a): out of memory while running this job: lower the sizes in its settings" in err
    assert "error: job 1 (runs.folder=b): operating system error: '/x': permission denied" in err
    assert "Traceback" not in out + err


def test_a_wrong_job_is_named_before_any_starts(capsys: pytest.CaptureFixture) -> None:
    def run(config: Any) -> int:
        raise AssertionError

    command = Command("runs", run, lambda config: config.picture, "runs.picture=${hydra:job.num}.png")
    assert run_jobs(command, ["-m", "runs.folder=a,b", "runs.picture=./x.png,[],./x.png"]).status == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: job 1 (runs.folder=a runs.picture=[]): runs.picture: expected ")
    same = "would write to './x.png', the same as job 0: add e.g. 'runs.picture=${hydra:job.num}.png'"
    assert lines[1] == f"error: job 2 (runs.folder=a runs.picture=./x.png): {same}"
    assert lines[-1] == "error: no job was started: correct the command and run it again"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", ["generate", "train", "evaluate"])
def test_jobs_that_would_share_a_folder_are_refused(name: str, capsys: pytest.CaptureFixture) -> None:
    sweep = {
        "generate": ["datasets.seed=1,2"],
        "train": ["training.general.dataset=./data", "training.general.seed=1,2"],
        "evaluate": ["evaluation.dataset=./data", "evaluation.model_dir=./model", "evaluation.seed=1,2"],
    }[name]
    assert run_command(name, ["-m", *sweep]) == 2
    message = capsys.readouterr().err
    advice = re.search(r"the same as job 0: add e\.g\. '(.*)'", message)
    assert advice, message
    assert not list(Path().iterdir())
    parsed = parse_arguments([advice.group(1)], COMMANDS[name].section)
    assert parsed.overrides == (f"++{advice.group(1)}",), "the advice is for this command"
    assert run_command(name, ["-m", *sweep, advice.group(1), f"{COMMANDS[name].section}.nothing=1"]) == 2
    assert "the same as job 0" not in capsys.readouterr().err


def test_jobs_that_would_write_into_one_anothers_folder_are_refused(capsys: pytest.CaptureFixture) -> None:
    folders = "./models/q,./models/q/sub,./models"
    arguments = ["-m", "training.general.dataset=./data", f"training.general.output_path={folders}"]
    assert run_command("train", arguments) == 2
    err = capsys.readouterr().err
    for job, folder in ((1, "models/q/sub"), (2, "models")):
        assert re.search(
            rf"^error: job {job} .*'{folder}', inside or around the folder of job 0: add e\.g\.", err, re.MULTILINE
        )


def test_a_sweep_is_one_however_it_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    for option in ("-m", "--multirun", "--multi"):
        assert parse_arguments([option, "runs.folder=./n1,./n2"], "runs").is_sweep
    assert run_command("runs", ["--multi", "runs.folder=./n1,./n2"]) == 1
    err = capsys.readouterr().err
    assert "error: job 0 (runs.folder=./n1): no folder 'n1'" in err
    assert "error: job 1 (runs.folder=./n2): no folder 'n2'" in err


@pytest.mark.parametrize("argument", ["hydra.mode=MULTIRUN", "++hydra.mode=RunMode.MULTIRUN", "hydra.mode=2"])
def test_hydras_other_way_to_ask_for_a_sweep_is_refused(argument: str, capsys: pytest.CaptureFixture) -> None:
    assert run_command("runs", [argument, "hydra/launcher=joblib", "runs.folder=./n1,./n2"]) == 2
    refused = f"error: {argument!r} is not supported: leave it out, and use -m for a sweep\n"
    assert capsys.readouterr().err == refused


def test_hydras_options_may_stand_anywhere() -> None:
    for arguments in (["-m", "runs.folder=a,b"], ["runs.folder=a,b", "-m"]):
        parsed = parse_arguments(arguments, "runs")
        assert parsed.overrides == ("++runs.folder=a,b",)
        assert parsed.is_sweep
    with pytest.raises(ConfigError, match="cannot read 'nonsense'"):
        parse_arguments(["-m", "nonsense"], "runs")


def test_what_the_launcher_cannot_do_is_reported(capsys: pytest.CaptureFixture) -> None:
    assert run_command("runs", ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"]) == 1
    assert capsys.readouterr().err.startswith("error: job 0: not finished (n_jobs == 0 in Parallel has no meaning)")


def test_without_the_launcher_a_line_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['hydra_plugins'] = None\n"  # Hydra finds no plugins
        "from quantum_diffusion.cli import run_command\n"
        "sys.exit(run_command('runs', sys.argv[1:]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *JOBLIB], capture_output=True, text=True, env=os.environ)
    assert result.returncode == 2
    assert re.fullmatch(r"error: hydra/launcher=joblib needs [^\n]+\n", result.stderr), result.stderr
    assert "pip install 'quantum-diffusion[sweeps]'" in result.stderr
    assert not list(Path().rglob("*.yaml"))
