"""Entry points of `quantum-diffusion` and the scripts: arguments in, exit status out.

`commands` has what each command does, `help` the text of `--help`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, NoReturn

from quantum_diffusion.commands import COMMANDS, show_plan
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, memory_for, unknown_name
from quantum_diffusion.files import refusals_told
from quantum_diffusion.help import help_text, required_keys, usage
from quantum_diffusion.interrupts import INTERRUPTED, interrupt, stop_signals
from quantum_diffusion.jobs import MORE_MEMORY, Outcome, run_jobs
from quantum_diffusion.output import guard_output, is_lost


def main() -> None:
    """Entry point of `quantum-diffusion`."""
    _own_process()
    name, *arguments = sys.argv[1:] or ["help"]
    if name in ("-h", "--help", "help") and arguments and not arguments[0].startswith("-"):
        name, arguments = _help_on(*arguments)
    if name in ("-h", "--help", "help"):
        print(usage())
    elif "--version" in (name, *arguments):
        import quantum_diffusion

        print(f"quantum_diffusion {quantum_diffusion.__version__}")
    elif name in COMMANDS:
        _exit(run_command(name, arguments))
    else:
        print(f"error: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(ConfigError.exit_status)


def _help_on(topic: str, *rest: str) -> tuple[str, list[str]]:
    """Return the command and arguments that explain a command, or a key such as `compile.target`."""
    section, dot, _ = topic.partition(".")
    command = next((name for name, one in COMMANDS.items() if dot and one.section == section), None)
    return (topic, ["--help", *rest]) if command is None else (command, ["--help", topic, *rest])


def run_script(name: str) -> None:
    """Entry point of `scripts/*.py`: run one command with the script's own arguments."""
    _own_process()
    _exit(run_command(name, sys.argv[1:]))


def _own_process() -> None:
    """Set up output, environment and signals; a program that imports the package sets up its own."""
    guard_output()
    os.environ["MPLBACKEND"] = "Agg"  # replaces the backend that notebooks set for child processes; workers inherit it
    for number in stop_signals() - {signal.SIGINT}:
        signal.signal(number, interrupt)


def _exit(status: int) -> NoReturn:
    for number in stop_signals():  # the work is done: another signal would only change the status and print a traceback
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status.

    Args:
        name: The command.
        arguments: Its arguments. `--help [KEY]` explains it; `--json` prints one JSON object on standard output and
            everything else on standard error.

    Returns:
        0 done, 1 failed, 2 wrong input, 3 not found within the budget, 130 interrupted; all but 0 come with a message.
    """
    logging.captureWarnings(True)
    if "-h" in arguments or "--help" in arguments:
        return _explained(name, arguments)
    if "--json" not in arguments:
        return _run(name, arguments).status
    with redirect_stdout(sys.stderr):
        outcome = _run(name, [argument for argument in arguments if argument != "--json"], in_json=True)
    if is_lost(sys.stdout):
        print("error: standard output is closed, so the JSON object cannot be printed", file=sys.stderr)
    print(json.dumps({"command": name, "status": outcome.status, **_plain(outcome.report)}, indent=2, allow_nan=False))
    return outcome.status or int(is_lost(sys.stdout))  # a caller that asked for JSON must learn that it got none


def _explained(name: str, arguments: Sequence[str]) -> int:
    try:
        print(help_text(name, arguments))
        return 0
    except QuantumDiffusionError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_status


def _run(name: str, arguments: Sequence[str], in_json: bool = False) -> Outcome:
    """Run a command; an error is reported in one line."""
    command = COMMANDS[name]
    try:
        if command.example and not arguments:
            raise ConfigError(f"{name} needs {required_keys(command)}: e.g. quantum-diffusion {name} {command.example}")
        if in_json and {"-m", "--multirun"} & {*arguments}:
            raise ConfigError("--json works for a single job: leave out -m or --json")
        is_trial = "--dry-run" in arguments
        if is_trial and {"-m", "--multirun"} & {*arguments}:
            raise ConfigError("--dry-run works for a single job: leave out -m or --dry-run")
        arguments = [argument for argument in arguments if argument != "--dry-run"]
        with refusals_told(), memory_for(f"running {name}", MORE_MEMORY):
            return run_jobs(command, arguments, show_plan if is_trial else None)
    except QuantumDiffusionError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return Outcome(_status_of(problem), {"error": str(problem)})
    except KeyboardInterrupt:
        continues = ": the same command continues" if name in ("generate", "train") else ""
        print(f"interrupted{continues}", file=sys.stderr)
        return Outcome(INTERRUPTED, {"error": "interrupted"})


def _status_of(problem: QuantumDiffusionError) -> int:
    """Return the exit status for an error: 1 if the file system refused, unless the name was wrong; else its own."""
    cause = problem.__cause__
    refused = isinstance(cause, OSError) and not isinstance(cause, _WRONG_NAMES)
    return QuantumDiffusionError.exit_status if refused else problem.exit_status


_WRONG_NAMES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)


def _plain(value: Any) -> Any:
    """Return a report as JSON values: text for paths and the like, null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


if __name__ == "__main__":
    main()
