"""Python processes that have torch and the rest loaded from their first moment: each is forked from one that waits.

To load them takes a new Python five seconds, most often longer than what a test has it do. A forked process has what
tests of processes are about: signals, streams, a folder, an environment, an end of its own. How the commands do from
a bare start is shown by the tests of the documents, of unreadable output and of odd file systems.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOADED = (
    "lightning_fabric",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "quantum_diffusion.circuits.backends.qiskit",
    "quantum_diffusion.cli",
    "quantum_diffusion.console",
    "quantum_diffusion.evaluation.evaluator",
    "quantum_diffusion.search.sampling",
    "quantum_diffusion.training.training",
    "qiskit.visualization",
    "torch._dynamo",  # by the first optimizer
    "torch.utils.tensorboard",
)


class Forked:
    """A process of a command that runs Python: `-c CODE`, `-m MODULE` or a file, with arguments."""

    def __init__(
        self, command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        assert command[0] == sys.executable
        self._streams = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115
        self.returncode: int | None = None
        self.pid: int = _ask(
            arguments=command[1:],
            folder=str(folder or Path.cwd()),
            environment=dict(environment or os.environ),
            streams=[stream.name for stream in self._streams],
        )

    def output(self) -> str:
        """Return what it has written so far."""
        return Path(self._streams[0].name).read_text()

    def errors(self) -> str:
        return Path(self._streams[1].name).read_text()

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                self.signal_group(signal.SIGKILL)
                raise TimeoutError(self.output() + self.errors())
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal as a terminal does, to the process and those that it has started."""
        os.killpg(self.pid, number)


def run_forked(folder: Path, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; it must end with the status, and never with a traceback."""
    process = Forked(command, folder)
    result = subprocess.CompletedProcess(command, process.wait(), process.output(), process.errors())
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


# ------------------------------------------------------------------------------------- the process that waits


@functools.cache
def _server() -> subprocess.Popen[str]:
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    atexit.register(server.communicate)  # the end of its input is its own
    return server


def _ask(**request: Any) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def _serve() -> dict[str, Any] | None:
    """Fork a process for each request, and tell of its end; returns what to become, in a new process."""
    for line in sys.stdin:
        request = json.loads(line)
        if "ended" in request:
            pid, status = os.waitpid(request["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                return request
        print(json.dumps(answer), flush=True)
    return None


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate([os.devnull, *request["streams"]]):
        file = os.open(name, os.O_RDWR | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    for number in (signal.SIGINT, signal.SIGHUP):  # the tests may run where one is ignored
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    first, *rest = request["arguments"]
    if first == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def _load() -> None:
    for name in LOADED:
        importlib.import_module(name)
    from hydra.core.plugins import Plugins

    Plugins.instance()
    gc.freeze()  # what every process has need not be looked through by the collector of garbage of each
    gc.set_threshold(100_000, 20, 20)


if __name__ == "__main__":
    _load()
    asked = _serve()
    if asked is not None:
        _become(asked)
