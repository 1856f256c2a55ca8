"""A local web page for looking through a data set: `flowprep browse`.

make_app(dataset, ...)   the endpoints (pages.py) behind the guard (guard.py), as an ASGI app
serve(out, spec)         serves this app on a port of this machine until it is interrupted
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import socket
import webbrowser
from collections.abc import Callable, Collection
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, StorageError
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.browse.connections import BoundedProtocol
from flowprep.look.browse.guard import HEADERS, MAX_QUERY_BYTES, Guard, refusal
from flowprep.look.browse.pages import Pages, Refused
from flowprep.look.report.survey import NUM_SAMPLED

__all__ = ["BrowseSpec", "make_app", "make_server", "serve"]


@dataclass(frozen=True)
class BrowseSpec:
    """Where a data set is served, who may see it, and how findings are searched."""

    host: str = "127.0.0.1"
    """The address on which the server listens."""
    port: int = 8765
    """The port. 0 takes a free port."""
    token: bool = False
    """Ask for a token on loopback addresses too. Other addresses always need a token."""
    allow_host: tuple[str, ...] = ()
    """Further names, with or without a port, by which browsers may reach this server."""
    sample: int = NUM_SAMPLED
    """Number of videos whose pixels are searched for findings."""
    findings: bool = True
    """Whether to search for findings at all."""

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("host must be a name or an address, got nothing")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, got {self.port}")
        if self.sample < 0:
            raise ConfigError(f"sample must be >= 0, got {self.sample}")
        for name in self.allow_host:
            if not re.fullmatch(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?", name):
                raise ConfigError(
                    f"allow_host must be NAME or NAME:PORT, as a browser shows it, got {name!r}"
                )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def make_app(
    dataset: FlowDataset,
    *,
    allowed_hosts: Collection[str],
    token: str | None = None,
    survey: BackgroundSurvey | None = None,
) -> Starlette:
    """Returns the application that serves one data set, read-only.

    Only requests whose `Host` is one of `allowed_hosts`, such as `127.0.0.1:8765`, get an answer.
    If there is a `token`, a browser must first open `/?token=TOKEN`. `survey` searches for
    findings; without it, there is no search. The caller starts and stops the survey.
    """
    pages = Pages(dataset, survey or BackgroundSurvey(dataset))

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error.response

    def fail(request: Request, error: Exception) -> Response:
        response = refusal(500, "an error in flowprep itself; the terminal has it")
        # This response is made outside the guard.
        response.headers.update(HEADERS)
        return response

    app = Starlette(
        routes=pages.routes(),
        middleware=[Middleware(Guard, hosts=allowed_hosts, token=token)],
        exception_handlers={Refused: refuse, Exception: fail},
    )
    app.router.redirect_slashes = False
    return app


def make_server(app: Starlette) -> uvicorn.Server:
    """Returns the server that `serve` runs. Its method `run` takes listening sockets."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        # What is printed is escaped, colors too.
        use_colors=False,
        # An access log would contain the token.
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=128,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MAX_QUERY_BYTES + (16 << 10),
    )
    return uvicorn.Server(config)


def serve(
    out: str,
    spec: BrowseSpec,
    *,
    announce: Callable[[str], None],
    open_browser: bool = False,
) -> None:
    """Serves the data set `out` until it is interrupted. `announce` gets the page's URL.

    Raises DatasetError if `out` is not a data set, and StorageError if the port cannot be used.
    """
    dataset = open_dataset(out)
    for note in dataset.notes:
        announce(f"note: {note}")
    survey = BackgroundSurvey(dataset, spec.sample)
    listener = _listen(spec)
    with contextlib.closing(listener):
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(24) if spec.token or not spec.is_loopback else None
        hosts = _hosts(spec, listener.getsockname()[0], port)
        app = make_app(dataset, allowed_hosts=hosts, token=token, survey=survey)
        server = make_server(app)
        url = f"http://{_shown_host(spec, hosts)}/" + (f"?token={token}" if token else "")
        if spec.findings:
            survey.start()
        try:
            announce(url)
            if open_browser:
                webbrowser.open(url)
            # After Ctrl-C, uvicorn closes everything and then raises its own KeyboardInterrupt.
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            survey.stop()
            dataset.close()


def _listen(spec: BrowseSpec) -> socket.socket:
    try:
        families = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM)
        # `localhost` may mean IPv4 and IPv6. A browser tries both, too.
        family, _, _, _, address = sorted(families)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        # The error number of an unknown name is of another kind. `create_server` adds words.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror
        raise StorageError(
            f"cannot listen on {spec.host}, port {spec.port}: {why}; "
            "choose another --host or --port (0 takes a free port)"
        ) from error


def _hosts(spec: BrowseSpec, address: str, port: int) -> list[str]:
    """Returns the values of the header `Host` that name this server."""
    names = ["127.0.0.1", "localhost", "[::1]", *map(_bracketed, (spec.host, address))]
    if not spec.is_loopback:
        name = socket.gethostname()
        names.append(name)
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            names += [_bracketed(str(item[4][0])) for item in found]
    hosts = [f"{name}:{port}" for name in names]
    hosts += [name if re.search(r":\d+$", name) else f"{name}:{port}" for name in spec.allow_host]
    # Browsers leave out the standard port.
    hosts += [name.removesuffix(":80") for name in hosts if name.endswith(":80")]
    return list(dict.fromkeys(hosts))


def _shown_host(spec: BrowseSpec, hosts: list[str]) -> str:
    if spec.host in ("0.0.0.0", "::"):
        name = socket.gethostname()
        return next(host for host in hosts if host.startswith(f"{name}:"))
    return next(host for host in hosts if host.startswith(f"{_bracketed(spec.host)}:"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
