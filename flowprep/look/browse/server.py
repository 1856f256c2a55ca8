"""A local web page to walk through a data set: `flowprep browse`.

make_app(dataset, ...)   what is asked for (pages.py) and who may ask (guard.py), as ASGI
serve(out, spec)         the same on a port of this machine, until it is interrupted
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
    """Where a data set is served, to whom, and what is looked for meanwhile."""

    host: str = "127.0.0.1"
    """The address that is listened on."""
    port: int = 8765
    """0 takes a free one."""
    token: bool = False
    """Ask for a token on a loopback address too; on every other one it is asked for anyway."""
    allow_host: tuple[str, ...] = ()
    """Names, with or without a port, under which a browser may know this server too."""
    sample: int = NUM_SAMPLED
    """Videos whose pixels are searched for findings."""
    findings: bool = True
    """Search for findings at all."""

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

    `allowed_hosts` are the values of `Host` that are answered, `127.0.0.1:8765`; with a `token`,
    only who opens `/?token=TOKEN` first. `survey` finds what is wrong; without one nothing is
    looked for. The caller starts and stops it.
    """
    pages = Pages(dataset, survey or BackgroundSurvey(dataset))

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error.response

    def fail(request: Request, error: Exception) -> Response:
        response = refusal(500, "an error in flowprep itself; the terminal has it")
        # It is made outside of the guard.
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
    """Returns the server as `serve` runs it; its `run` takes sockets that listen."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        # It would hold the token.
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
    """Serves the data set `out` until it is interrupted; `announce` gets the page's URL.

    Raises DatasetError where `out` is no data set, and StorageError where the port is not to be
    had.
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
            # It ends in a KeyboardInterrupt of its own after Ctrl-C, when all is closed.
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            survey.stop()
            dataset.close()


def _listen(spec: BrowseSpec) -> socket.socket:
    try:
        families = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM)
        # `localhost` may be both; a browser tries both too.
        family, _, _, _, address = sorted(families)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        # A name that is not known has a number of its own kind, and `create_server` more words.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror
        raise StorageError(
            f"cannot listen on {spec.host}, port {spec.port}: {why}; "
            "choose another --host or --port (0 takes a free port)"
        ) from error


def _hosts(spec: BrowseSpec, address: str, port: int) -> list[str]:
    """Returns the values of `Host` that name this server."""
    names = ["127.0.0.1", "localhost", "[::1]", *map(_bracketed, (spec.host, address))]
    if not spec.is_loopback:
        name = socket.gethostname()
        names.append(name)
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            names += [_bracketed(str(item[4][0])) for item in found]
    hosts = [f"{name}:{port}" for name in names]
    hosts += [name if re.search(r":\d+$", name) else f"{name}:{port}" for name in spec.allow_host]
    # Browsers leave the standard port out.
    hosts += [name.removesuffix(":80") for name in hosts if name.endswith(":80")]
    return list(dict.fromkeys(hosts))


def _shown_host(spec: BrowseSpec, hosts: list[str]) -> str:
    if spec.host in ("0.0.0.0", "::"):
        name = socket.gethostname()
        return next(host for host in hosts if host.startswith(f"{name}:"))
    return next(host for host in hosts if host.startswith(f"{_bracketed(spec.host)}:"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
