"""Runs a command as one job, or as a sweep of several jobs in sequence or, through Hydra, in parallel.

All jobs of a sweep are checked before the first one starts. A job may run in another process and Hydra discards its
return value, so each job writes its outcome to a file.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from quantum_diffusion.config.validation import Section
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, first_line, memory_for
from quantum_diffusion.files import refusals_told
from quantum_diffusion.interrupts import INTERRUPTED, answered, interrupt, stop_signals
from quantum_diffusion.output import guard_output, output_to

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from quantum_diffusion.config.command_line import Arguments

MORE_MEMORY = "lower the sizes in its settings (of batches, samples, models), or close other programs"
"""General advice for a command that runs out of memory."""


NOT_FOUND = 3
"""Exit status of a search that found too few circuits within its budget."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Its exit status: 0 done, 1 failed, 2 wrong input, 3 not found within the budget, 130 interrupted.
        report: What it did, as plain values by name; `--json` prints it.
    """

    status: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        section: The section of the configuration that it reads.
        run: The function that executes it.
        folder: Returns the folder it writes; None if it writes none.
        folder_advice: The override to suggest when several jobs of a sweep would write to the same folder.
        is_done: Tells whether an earlier run of the same sweep has already finished it.
        summary: One line of help.
        example: Example values for the required keys, as typed.
        arguments: Keys whose values may be given without the key, in this order: `compile
            toffoli`; a key that ends in `...` takes all remaining values.
    """

    section: str
    run: Callable[[Any], Outcome]
    folder: Callable[[Any], str | Path | None]
    folder_advice: str = ""
    is_done: Callable[[Any], bool] = lambda config: False
    summary: str = ""
    example: str = ""
    arguments: tuple[str, ...] = ()

    def read(self, composed: DictConfig) -> Section:
        """Return the typed section of a composed configuration.

        Raises:
            ConfigError: A key or value is wrong; the message names it.
        """
        from quantum_diffusion.config.store import SECTIONS, section

        return section(composed, self.section, SECTIONS[self.section])


def run_jobs(command: Command, arguments: Sequence[str], run: Callable[[Any], Outcome] | None = None) -> Outcome:
    """Run a command as one job, or as a sweep if -m or --multirun is among the arguments.

    Args:
        command: The command.
        arguments: Its arguments.
        run: What to call with each job's configuration; None calls the command itself.

    Raises:
        QuantumDiffusionError: The arguments are wrong, or the only job failed.
        KeyboardInterrupt: A job was interrupted; failures of other jobs have been reported.
    """
    from quantum_diffusion.config.command_line import with_keys
    from quantum_diffusion.config.store import parse_arguments, show

    if run is not None:
        command = replace(command, run=run)
    parsed = parse_arguments(with_keys(arguments, command.arguments), command.section)
    if parsed.shown is not None:
        print(show(parsed), end="")
        return Outcome()
    return Outcome(_run_sweep(command, parsed)) if parsed.is_sweep else _run_once(command, parsed)


def _run_once(command: Command, arguments: Arguments) -> Outcome:
    from quantum_diffusion.config.store import run_hydra

    outcomes: list[Outcome] = []
    failures: list[BaseException] = []

    def task(composed: DictConfig) -> None:
        try:
            outcomes.append(command.run(command.read(composed)))
        except BaseException as problem:
            failures.append(problem)  # raised again outside Hydra, which would wrap it

    run_hydra(arguments, task)
    if failures:
        raise failures[0]
    return outcomes[0] if outcomes else Outcome()  # none if Hydra only printed something, as with --info


# -------------------------------------------------------------------------------------------------- sweeps


def _run_sweep(command: Command, arguments: Arguments) -> int:
    """Run all jobs, even if some fail, and report every failure."""
    with tempfile.TemporaryDirectory(prefix="quantum_diffusion_", ignore_cleanup_errors=True) as temporary:
        outcomes = _Outcomes(Path(temporary))
        jobs, problems = _check(command, arguments, outcomes.folder)
        if problems:
            _report(jobs, problems)
            print("error: no job was started: correct the command and run it again", file=sys.stderr)
            return ConfigError.exit_status
        cause = _launch(command, arguments, jobs, outcomes)
        done, problems = outcomes.read(jobs, cause)
        interrupted = outcomes.stop.exists()
    _report(jobs, problems)
    if len(jobs) > 1:
        print(f"{done} of {len(jobs)} jobs are done")
    if interrupted:
        raise KeyboardInterrupt
    return 1 if problems else 0


def _report(jobs: dict[int, str], problems: dict[int, str]) -> None:
    for number, problem in sorted(problems.items()):
        print(f"error: {_title(jobs, number)}: {problem}", file=sys.stderr)


def _title(jobs: dict[int, str], number: int) -> str:
    return f"job {number} ({jobs[number]})" if jobs[number] else f"job {number}"


def _check(command: Command, arguments: Arguments, temporary: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Compose every job without running it; returns, by job number, its own settings and its problem, if any."""
    from omegaconf import OmegaConf

    from quantum_diffusion.config.store import run_hydra, running_job

    settings: dict[int, list[str]] = {}
    problems: dict[int, str] = {}
    folders: dict[Path, int] = {}

    def check(composed: DictConfig) -> None:
        number, settings[number] = running_job()
        try:
            folder = command.folder(command.read(composed))
        except QuantumDiffusionError as problem:
            problems[number] = str(problem)
            return
        if folder is None:
            return
        path = Path(folder).resolve()
        for other, first in folders.items():
            if path.is_relative_to(other) or other.is_relative_to(path):
                how = "the same as" if path == other else "inside or around the folder of"
                problems[number] = (
                    f"would write to {str(folder)!r}, {how} job {first}: add e.g. '{command.folder_advice}'"
                )
                return
        folders[path] = number

    # The launcher and Hydra's record of the sweep matter only when it runs.
    later = ("hydra/launcher=", "hydra.launcher.", "hydra.sweep.dir=")
    now = tuple(override for override in arguments.overrides if not override.lstrip("+").startswith(later))
    # A resolver, not text: Hydra would interpret a quote or ${x} in the path.
    OmegaConf.register_new_resolver("check_folder", lambda: str(temporary / "check"), replace=True)
    run_hydra(replace(arguments, overrides=("hydra.sweep.dir=${check_folder:}", *now)), check)
    count = Counter(entry for entries in settings.values() for entry in entries)
    alone = {
        number: " ".join(entry.lstrip("+") for entry in entries if count[entry] < len(settings))
        for number, entries in settings.items()
    }
    return alone, problems


def _launch(command: Command, arguments: Arguments, jobs: dict[int, str], outcomes: _Outcomes) -> str:
    """Run the jobs; returns why some may have no outcome."""
    from quantum_diffusion.config.store import run_hydra, running_job

    parent = os.getpid()

    def job(composed: DictConfig) -> None:  # a launcher may send this to another process
        number, _ = running_job()
        with nullcontext() if os.getpid() == parent else _numbered_output(number):
            status, problem = _run_job(command, composed, _title(jobs, number), outcomes.stop)
        outcomes.write(number, status, problem)

    with _interrupts_noted(outcomes.stop):
        try:
            run_hydra(arguments, job)
        except QuantumDiffusionError:
            raise
        except KeyboardInterrupt:
            outcomes.stop.touch()
        except Exception as problem:  # jobs raise none, so it is the launcher's, e.g. because a worker was killed
            return first_line(problem)
    return "its process ended"


def _run_job(command: Command, composed: DictConfig, title: str, stop: Path) -> tuple[int, str]:
    """Run a job; returns its exit status and, if it failed, why."""
    if stop.exists():
        return INTERRUPTED, ""
    logging.captureWarnings(True)
    print(title, flush=True)
    status, problem = 1, ""
    try:
        with _interruptible(), refusals_told(), memory_for("running this job", MORE_MEMORY):
            config = command.read(composed)
            if command.is_done(config):
                print(f"{command.folder(config)} already holds the result of these settings: kept")
                return 0, ""
            status = command.run(config).status
        problem = "it failed; see its message above" if status not in (0, INTERRUPTED) else ""
    except KeyboardInterrupt:
        status = INTERRUPTED
    except QuantumDiffusionError as error:
        problem = str(error)
    except Exception as error:  # a bug: show the traceback here, where it happened; the other jobs continue
        print(f"{title}:\n{traceback.format_exc()}", end="", file=sys.stderr, flush=True)
        problem = f"{type(error).__name__}: {first_line(error)}"
    if status == INTERRUPTED:
        stop.touch()
    if problem:
        print(f"failed: {problem}", flush=True)
    return status, problem


@dataclass(frozen=True)
class _Outcomes:
    """Outcome files of the jobs, one each, and the file `stop`, created once a job is interrupted."""

    folder: Path

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    def write(self, number: int, status: int, problem: str) -> None:
        unfinished = self.folder / f"{number}.new"
        unfinished.write_text(json.dumps([status, problem]), encoding="utf-8")
        unfinished.rename(self.folder / f"{number}.json")

    def read(self, jobs: dict[int, str], cause: str) -> tuple[int, dict[int, str]]:
        """Return how many jobs are done and, by number, why others failed; `cause` explains a missing outcome."""
        done, problems = 0, {}
        for number in jobs:
            file = self.folder / f"{number}.json"
            if file.exists():
                status, problem = json.loads(file.read_text(encoding="utf-8"))
                done += status == 0
                if problem:
                    problems[number] = problem
            elif not self.stop.exists():
                problems[number] = f"not finished ({cause}): resolve that and run the same command again"
        return done, problems


class _Numbered(io.TextIOBase):
    """Prefixes each line with the job's number, to tell parallel jobs apart; not a terminal."""

    def __init__(self, stream: TextIO, number: int) -> None:
        self._stream, self._number, self._begun = stream, number, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._stream.write("".join(f"[{self._number}] {line}".rstrip() + "\n" for line in lines))
            self._stream.flush()
        return len(text)

    def close(self) -> None:
        """Finish an incomplete line."""
        if self._begun:
            self.write("\n")
        super().close()


@contextmanager
def _numbered_output(number: int) -> Iterator[None]:
    guard_output()
    with _Numbered(sys.stdout, number) as output, output_to(output):  # type: ignore[arg-type]
        yield


# ---------------------------------------------------------------------------------------------- interrupts


def _signals_to_all() -> set[signal.Signals]:
    """Return the stop signals that a terminal sends to all processes, so that every job receives them itself."""
    return stop_signals() - {signal.SIGTERM}


@contextmanager
def _interrupts_noted(stop: Path) -> Iterator[None]:
    """Make Ctrl-C or a hang-up outside a job create `stop`, so that running jobs end cleanly; again interrupts them.

    The main thread blocks these signals, and worker processes inherit that: an idle worker that received one would die,
    and joblib would kill the others. So a second thread receives them; Python runs the handler in the main thread.
    """

    def note(number: int, frame: object) -> None:
        if number == signal.SIGTERM or (number == signal.SIGINT and noted.is_set()):
            raise KeyboardInterrupt  # a SIGTERM may have reached this process only
        if not noted.is_set():  # both the system and the shell signal a hang-up
            print("interrupted: waiting for running jobs to stop; press Ctrl-C again to end them now", file=sys.stderr)
        noted.set()
        stop.touch()

    def receive() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        ended.wait()

    signals, noted, ended = _signals_to_all(), threading.Event(), threading.Event()
    receiver = threading.Thread(target=receive)
    with answered({*signals, signal.SIGTERM}, note):
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            resource_tracker.ensure_running()  # worker processes need it; its start unblocks SIGINT (Python < 3.14)
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            receiver.start()
            yield
        finally:
            ended.set()
            receiver.join()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a job be interrupted, in this process or in a worker's."""
    signals = _signals_to_all()
    with answered(signals, interrupt):
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
