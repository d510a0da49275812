"""The web server of the page: it routes requests to `answers`, refuses foreign ones, and starts and stops cleanly.

It serves browsers on this machine. Other web pages can neither read from it nor send it requests: it answers only to a
few host names (against DNS rebinding) and refuses requests from other origins.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import json
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from quantum_diffusion.config.schema import UiConfig
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError
from quantum_diffusion.ui import answers
from quantum_diffusion.ui.models import Settings, offered

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 6 * 2**20
"""Maximum size of a request in bytes: a file of 4 MiB in base64, and some more."""

_DRAINED = 8 * MOST_BYTES
"""How much of a larger request is read before it is refused; browsers show a response only after sending everything."""

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_EVERYWHERE = {"0.0.0.0", "::"}


class PageServer:
    """A server that is bound to its port and waits for `run`.

    Args:
        config: The address, and the settings of the page.

    Raises:
        ConfigError: The extra `ui` is not installed, or the address or the device cannot be used.
        CheckpointError: The folder of models does not exist.

    Attributes:
        address: URL of the page.
        num_searches: Number of searches so far.
    """

    def __init__(self, config: UiConfig) -> None:
        try:
            import starlette  # noqa: F401
            import uvicorn
        except ImportError:
            raise ConfigError("the page needs the extra ui: run pip install 'quantum-diffusion[ui]'") from None
        self.num_searches = 0
        self._host = config.host
        self._settings = Settings(config.folder, config.device, config.max_seconds)
        select_device(config.device)  # report errors before the first visitor
        offered(self._settings)
        self._searching, self._drawing, self._stop = threading.Lock(), threading.Lock(), threading.Event()
        self._socket = _listen(config.host, config.port)
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._server = uvicorn.Server(
            uvicorn.Config(
                _Guard(self._application(), self._is_own),
                http="h11",
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=64,
                timeout_graceful_shutdown=10,
            )
        )

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the page."""
        return ipaddress.ip_address(self._socket.getsockname()[0].partition("%")[0]).is_loopback

    def run(self) -> None:
        """Serve until Ctrl-C, another stop signal or `stop`; a running search ends first."""
        with suppress(KeyboardInterrupt):  # uvicorn ends cleanly, and raises it afterwards
            self._server.run(sockets=[self._socket])
        self.close()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Release the port."""
        self._stop.set()
        self._socket.close()

    def open_browser(self) -> None:
        """Open the page in the user's browser, which may take a while to start."""
        threading.Thread(target=webbrowser.open, args=(self.address,), daemon=True).start()

    # ---------------------------------------------------------------------------------------------- answers

    def _application(self) -> ASGIApp:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        posts = {"find": self._find, "steps": self._steps, "picture": self._picture, "stop": self._end_search}
        return Starlette(
            routes=[
                *(Route(path, _file, methods=["GET"]) for path in _FILES),
                Route("/api/models", self._models, methods=["GET"]),
                *(Route(f"/api/{name}", answer, methods=["POST"]) for name, answer in posts.items()),
            ],
            exception_handlers={HTTPException: _refused},
        )

    async def _models(self, request: Request) -> Response:
        return await _answered(lambda: answers.models(self._settings))

    async def _find(self, request: Request) -> Response:
        body = await _body(request)
        if not self._searching.acquire(blocking=False):
            return _json({"error": "busy: another search is running; wait or stop it"}, 503)
        try:
            self._stop.clear()
            search = asyncio.create_task(_answered(lambda: answers.find(body, self._settings, self._is_stopped)))
            while not search.done():
                await asyncio.wait({search}, timeout=0.2)
                if await request.is_disconnected():
                    self._stop.set()
            self.num_searches += 1
            return search.result()
        finally:
            self._searching.release()

    async def _steps(self, request: Request) -> Response:
        body = await _body(request)
        return await _answered(lambda: answers.steps(body, self._settings))

    async def _picture(self, request: Request) -> Response:
        from starlette.responses import Response

        body = await _body(request)

        def draw() -> Response:
            with self._drawing:  # matplotlib draws one figure at a time
                return Response(answers.picture(body), media_type="image/png")

        return await _answered(draw)

    async def _end_search(self, request: Request) -> Response:
        await _body(request)
        self._stop.set()
        return _json({})

    def _is_stopped(self) -> bool:
        return self._stop.is_set() or self._server.should_exit

    def _is_own(self, name: str) -> bool:
        """Tell whether the page answers to a host name, so that no foreign name can lead here."""
        if self._host in _EVERYWHERE:  # any IP address is fine: only names can be rebound
            with suppress(ValueError):
                ipaddress.ip_address(name)
                return True
        return name in {*_LOCAL, self._host.lower()}


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that a browser can connect at once.

    Raises:
        ConfigError: The address cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except (socket.gaierror, UnicodeError) as problem:
        raise ConfigError(f"ui.host={host!r} is not an address: give one of this machine, e.g. 127.0.0.1") from problem
    except OSError as problem:
        mends = {
            errno.EADDRINUSE: "is in use: give another, or ui.port=0 for a free one",
            errno.EACCES: "needs more privileges: give one above 1023, or ui.port=0 for a free one",
            errno.EADDRNOTAVAIL: f"cannot be served at ui.host={host}: give an address of this machine, e.g. 127.0.0.1",
        }
        mend = mends.get(problem.errno or 0, f"cannot be served at ({problem.strerror}): give another")
        raise ConfigError(f"ui.port={port} {mend}") from problem


async def _file(request: Request) -> Response:
    from starlette.responses import FileResponse

    name, kind = _FILES[request.url.path]
    return FileResponse(PAGE / name, media_type=kind)


async def _answered(answer: Callable[[], Any]) -> Response:
    """Answer in a separate thread; user errors are returned in one line, bugs are logged on the terminal."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    try:
        value = await run_in_threadpool(answer)
        return value if isinstance(value, Response) else _json(value)
    except QuantumDiffusionError as problem:
        return _json({"error": answers.told(problem)}, 400)
    except Exception:
        logger.exception("a request to the page failed")
        return _json({"error": "internal error: see the terminal that serves the page"}, 500)


async def _body(request: Request) -> Any:
    """Read a request as JSON, at most `MOST_BYTES` of it.

    Raises:
        HTTPException: The request is too large or not JSON.
    """
    from starlette.exceptions import HTTPException

    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")  # forms of other pages cannot
    content, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MOST_BYTES:
            content += chunk
        elif size > _DRAINED:
            break
    if size > MOST_BYTES:
        raise HTTPException(413, f"the request has more than {MOST_BYTES // 2**20} MiB: give a smaller file")
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the request is not valid JSON") from None


def _no_number(name: str) -> float:
    raise ValueError(name)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # in ASCII: half of a surrogate pair passes
    return Response(text, status, media_type="application/json")


def _refused(request: Request, problem: Exception) -> Response:
    return _json({"error": getattr(problem, "detail", "refused")}, getattr(problem, "status_code", 400))


class _Guard:
    """Refuses requests with foreign host names or origins, and adds security headers to every response.

    Args:
        application: The application that handles all other requests.
        is_own: Tells whether a host name is one of ours.
    """

    def __init__(self, application: ASGIApp, is_own: Callable[[str], bool]) -> None:
        self._application, self._is_own = application, is_own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer: ASGIApp = self._application
        problem = self._problem(scope)
        if problem:
            answer = _json({"error": problem}, 403)
        await answer(scope, receive, functools.partial(_send_guarded, send))

    def _problem(self, scope: Scope) -> str | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_own(_host_name(host)):
            return "this page answers only at the address printed when it was started"
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] != "GET" and origin.decode("latin-1").lower() != f"http://{host}":
            return "requests from other pages are refused"
        return None


def _host_name(host: str) -> str:
    """Return the host name in a header such as `localhost:8765` or `[::1]:8765`; "" if there is none."""
    try:
        parts = urlsplit(f"//{host}")
        is_plain = not parts.path and not parts.query and parts.username is None
        return (parts.hostname or "") if is_plain else ""
    except ValueError:
        return ""


async def _send_guarded(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        guards = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
        message = {**message, "headers": [*message.get("headers", ()), *guards]}
    await send(message)
