"""`quantum-diffusion ui` as it runs: the real server, asked by programs, by hostile pages, and by a browser."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import UiConfig
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.ui import answers
from quantum_diffusion.ui.server import PageServer
from tests.browser import CHROMIUM, Browser

SRV: dict[str, Any] = {"model": "pretrained:srv", "srv": [1, 2, 2], "num_circuits": 2, "seed": 1}
UNITARY: dict[str, Any] = {"model": "pretrained:unitary_3q", "num_circuits": 1, "seed": 1}
TOFFOLI = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; ccx q[0],q[1],q[2];'


@contextmanager
def serving(**keys: Any) -> Iterator[PageServer]:
    server = PageServer(UiConfig(**{"port": 0, "device": "cpu", **keys}))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with serving() as server:
        yield server


def ask(
    server: PageServer | SimpleNamespace, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Ask the server; returns status, answer (JSON read) and headers."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if data is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(server.address + path.lstrip("/"), data, {**kind, **(headers or {})})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            status, content, found = answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as problem:
        status, content, found = problem.code, problem.read(), dict(problem.headers)
    is_json = found.get("content-type", "").startswith("application/json")
    return status, json.loads(content) if is_json else content, found


# ------------------------------------------------------------------------------------------------ questions


def test_the_page_and_its_files_are_served_with_a_strict_policy(server: PageServer) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        status, content, headers = ask(server, path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert len(content) > 1000
    for path in ("/page/index.html", "/../server.py", "/%2e%2e/server.py", "/server.py", "/docs", "/api/find"):
        status, answer, headers = ask(server, path)
        assert status in (404, 405)
        assert "error" in answer
        assert "content-security-policy" in headers


def test_models_are_listed(server: PageServer) -> None:
    status, answer, _ = ask(server, "/api/models")
    assert status == 200
    assert answer["models"][0]["name"] == "pretrained:srv"
    assert answer["max_seconds"] == 20


def test_circuits_are_found_replayed_and_drawn(server: PageServer) -> None:
    npy = io.BytesIO()
    np.save(npy, target_unitary("toffoli", 3))
    upload = {"file": "toffoli.npy", "content": base64.b64encode(npy.getvalue()).decode()}
    targets = ({"name": "toffoli"}, {"qasm": TOFFOLI}, upload)
    for asked in (SRV, *({**UNITARY, "target": target} for target in targets)):
        status, found, _ = ask(server, "/api/find", asked)
        assert (status, found["problem"]) == (200, None)
        qasm = found["circuits"][0]["qasm"]
        assert len(Circuit.from_qasm(qasm)) == found["circuits"][0]["num_gates"]
        status, steps, _ = ask(server, "/api/steps", {"find": asked, "qasm": qasm})
        assert status == 200
        assert len(steps["steps"]) == found["circuits"][0]["num_gates"] + 1
    status, picture, headers = ask(server, "/api/picture", {"qasm": TOFFOLI})
    assert (status, headers["content-type"], picture[:4]) == (200, "image/png", b"\x89PNG")


def test_what_a_user_can_mend_is_told_in_a_line(server: PageServer) -> None:
    for asked, said in (
        ({**UNITARY, "target": {"name": "toffoly"}}, "did you mean 'toffoli'"),
        ({**UNITARY, "target": {"name": "/etc/passwd"}}, "unknown target"),
        ({**UNITARY, "target": {"name": "toffoli"}, "gates": ["h", "cx"]}, "add ccx to gates"),
        ([], "not a JSON object"),
    ):
        status, answer, _ = ask(server, "/api/find", asked)
        assert (status, list(answer)) == (400, ["error"])
        assert said in answer["error"]
        assert "\n" not in answer["error"]


def test_a_bug_shows_nothing_of_itself(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(answers, "find", broken)
    status, answer, _ = ask(server, "/api/find", SRV)
    assert status == 500
    assert "secret" not in str(answer)
    assert "internal error" in answer["error"]
    monkeypatch.undo()
    assert ask(server, "/api/find", SRV)[0] == 200  # and the next search is not kept out


def test_one_search_at_a_time_which_can_be_stopped(server: PageServer) -> None:
    long = {**UNITARY, "target": {"name": "random:3:12"}, "num_circuits": 24, "max_seconds": 20}
    answered: list[Any] = []
    first = threading.Thread(target=lambda: answered.append(ask(server, "/api/find", long)))
    started = time.monotonic()
    first.start()
    while not server._searching.locked():
        time.sleep(0.01)
    status, answer, _ = ask(server, "/api/find", SRV)
    assert (status, answer["error"][:4]) == (503, "busy")
    assert ask(server, "/api/models")[0] == 200  # others are answered meanwhile
    assert ask(server, "/api/stop", {})[0] == 200
    first.join(15)
    assert time.monotonic() - started < 15
    status, answer, _ = answered[0]
    assert (status, answer["problem"] is None or "stopped" in answer["problem"]) == (200, True)


def test_a_search_nobody_waits_for_ends(server: PageServer) -> None:
    long = json.dumps({**UNITARY, "target": {"name": "random:3:12"}, "num_circuits": 24, "max_seconds": 20}).encode()
    host = server.address.split("/")[2]
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port))) as connection:
        head = (
            f"POST /api/find HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(long)}"
        )
        connection.sendall(f"{head}\r\n\r\n".encode() + long)
        time.sleep(0.5)
    started = time.monotonic()
    while ask(server, "/api/find", SRV)[0] == 503:
        assert time.monotonic() - started < 10
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------ strangers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::2]", "[x"]
)
def test_other_names_are_refused(server: PageServer, host: str) -> None:
    for path, body in (("/", None), ("/api/models", None), ("/api/find", SRV)):
        status, answer, _ = ask(server, path, body, {"Host": host})
        assert (status, list(answer)) == (403, ["error"]) or status == 400


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:99", "LOCALHOST:8765"])
def test_own_names_are_answered_at_any_port_for_tunnels(server: PageServer, host: str) -> None:
    assert ask(server, "/api/models", None, {"Host": host})[0] == 200
    assert ask(server, "/api/stop", {}, {"Host": host, "Origin": f"http://{host}"})[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
def test_other_pages_are_refused(server: PageServer, origin: str) -> None:
    assert ask(server, "/api/find", SRV, {"Origin": origin})[0] == 403


def test_what_forms_can_send_is_refused(server: PageServer) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(server, "/api/find", SRV, {"Content-Type": kind})[0] == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"model": NaN}', 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400),
        (b'"' + b"x" * (6 * 2**20) + b'"', 413),
    ],
)
def test_bodies_that_are_no_requests_are_refused(server: PageServer, body: bytes, status: int) -> None:
    found, answer, _ = ask(server, "/api/find", body)
    assert (found, list(answer)) == (status, ["error"])


def test_a_body_of_unknown_length_is_bounded_too(server: PageServer) -> None:
    request = urllib.request.Request(
        f"{server.address}api/find", (b"x" * 2**20 for _ in range(7)), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)


def test_the_page_is_served_at_other_loopback_addresses() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with serving(host="::1") as server:
            assert server.is_private
            assert ask(server, "/api/models")[0] == 200
    except ConfigError:
        pytest.skip("no IPv6 here")


def test_where_everybody_may_come_any_address_is_answered_but_no_name() -> None:
    with serving(host="0.0.0.0") as server:
        assert not server.is_private
        port = server.address.rstrip("/").rpartition(":")[2]
        server.address = f"http://127.0.0.1:{port}/"
        assert ask(server, "/api/models", None, {"Host": f"192.168.7.7:{port}"})[0] == 200
        assert ask(server, "/api/models", None, {"Host": "evil.example"})[0] == 403


# ------------------------------------------------------------------------------------------------- command


def test_the_command_says_where_the_page_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantum_diffusion", "ui", "ui.port=0", "ui.device=cpu", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert address, line
    page = SimpleNamespace(address=address[0])
    answered: list[Any] = []
    long = {**UNITARY, "target": {"name": "random:3:12"}, "num_circuits": 24, "max_seconds": 20}

    def search() -> None:
        while not answered or answered[-1][0] == 503:  # busy with what looks below whether this search runs
            answered.append(ask(page, "/api/find", long))

    searching = threading.Thread(target=search)
    searching.start()
    while ask(page, "/api/find", {})[0] != 503:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 0
    searching.join(5)
    assert answered[-1][0] == 200  # the search that ran ended with what it had found
    ended = json.loads(out)
    assert (ended["command"], ended["status"], ended["address"]) == ("ui", 0, page.address)
    assert ended["num_searches"] > 0
    assert "Traceback" not in err
    assert f"stopped after {ended['num_searches']} search" in err


def test_a_port_in_use_and_a_wrong_address_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for trial in ([], ["--dry-run"]):
            assert run_command("ui", [f"ui.port={port}", *trial]) != 0
            assert f"ui.port={port} is in use: give another" in capsys.readouterr().err
    assert run_command("ui", [f"ui.port={port}", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["address"] == f"http://127.0.0.1:{port}/"
    assert "pretrained:srv" in planned["models"]
    for host in ("no host", "203.0.113.1"):
        with pytest.raises(ConfigError, match="of this machine"):
            PageServer(UiConfig(host=host, port=0))
    capsys.readouterr()
    for key, said in ((f"ui.folder={tmp_path / 'nowhere'}", "no folder"), ("ui.device=abacus", "unknown device")):
        assert run_command("ui", [key, "ui.port=0"]) == 2
        assert said in capsys.readouterr().err


def test_without_the_extra_the_mend_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run_command("ui", []) == 2
    assert "pip install 'quantum-diffusion[ui]'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: UI_PICTURES, or nowhere in particular."""
    folder = Path(os.environ.get("UI_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


FOUND = "document.querySelectorAll('article .verified').length"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("srv", "model=pretrained:srv&srv=1,2,2,2&number=2"),
        ("unitary", "model=pretrained:unitary_3q&target=fredkin&number=2"),
        ("state", "model=pretrained:state&target=ghz:4&number=2"),
    ],
)
def test_questions_are_answered_in_a_browser(
    server: PageServer, browser: Browser, pictures: Path, name: str, query: str, width: int, scheme: str
) -> None:
    browser.complaints.clear()
    browser.open(f"{server.address}?{query}&seed=1&run=1&watch=1", width, scheme=scheme)
    browser.wait_for(f"{FOUND} === 2")
    browser.wait_for("document.querySelector('.player')")
    last = browser.run(
        "const s = document.querySelector('.player input'); s.value = s.max; s.dispatchEvent(new Event('input')); s.max"
    )
    assert browser.run("document.querySelector('.player output').textContent").startswith(f"{last} of {last}: ")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways for
    browser.picture(pictures / f"{name}_{width}_{scheme}.png")
    assert browser.complaints == []


def test_the_form_is_filled_by_hand_and_mistakes_are_shown(
    server: PageServer, browser: Browser, pictures: Path
) -> None:
    browser.complaints.clear()
    browser.open(server.address)
    browser.wait_for("document.querySelector('#find:not([disabled])')")
    browser.run("document.querySelectorAll('#qubits button')[1].click()")
    assert "choose a second qubit" in browser.run("document.querySelector('#srv-hint').textContent")
    browser.run("document.querySelector('#find').click()")
    browser.wait_for("document.querySelector('#error')?.textContent.includes('asks for a single entangled qubit')")
    assert browser.run("document.querySelector('#error').getBoundingClientRect().bottom - innerHeight") < 1
    browser.picture(pictures / "mistake.png")
    assert len(browser.complaints) == 1  # the browser notes the status 400
    browser.complaints.clear()
    browser.run("document.querySelector('input[value=compile]').click()")
    browser.run("document.querySelector('input[value=qasm]').click()")
    browser.run(f"document.querySelector('#qasm').value = {json.dumps(TOFFOLI)}")
    browser.run("document.querySelector('#number').value = 1; document.querySelector('#ask').requestSubmit()")
    browser.wait_for(f"{FOUND} === 1")
    assert browser.run("document.querySelector('#python').textContent").startswith("import quantum_diffusion as qd")
    browser.run("document.querySelector('article button').click()")
    browser.wait_for("document.querySelector('canvas')")
    assert browser.complaints == []


def test_names_never_become_markup(server: PageServer, browser: Browser) -> None:
    browser.open(
        f"{server.address}?model=pretrained:unitary_3q&target=%3Cimg%20src=x%20onerror=%22window.hit=1%22%3E&run=1"
    )
    browser.wait_for("document.querySelector('#error')?.textContent.includes('<img')")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.run("window.hit") is None
