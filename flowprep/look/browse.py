"""A local web page to walk through a data set: `flowprep browse`.

    make_app(dataset, ...)    the pages and what they ask for, as an ASGI application
    serve(out, spec)          the same on a port of this machine, until it is interrupted

    GET /                     the page; its script, style and nothing else beside it
    GET /api/dataset          what all videos have in common: bound, quantiser, colours, classes
    GET /api/videos           all videos, in columns
    GET /api/survey           how far the search for findings has come
    GET /api/statistics       what it knows by now, in columns
    GET /api/findings?key=    the same of one video, in words
    GET /api/video?key=       one video, and where each of its JPEGs begins
    GET /stream?key=&name=    one stream of it, by byte ranges: one read from the shard each

Nothing takes a path: a key is looked up in the index, a name among the streams. Whoever may ask is
decided in `_Guard`, before anything else is looked at.
"""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import json
import logging
import os
import re
import secrets
import socket
import webbrowser
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowprep._version import __version__
from flowprep.config import Direction
from flowprep.dataset.layout import RGB_STREAM, read_failures, stream_names
from flowprep.dataset.quantize import dequantize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError, FlowprepError, StorageError
from flowprep.inputs.keys import unescape_key
from flowprep.look.browse_survey import BackgroundSurvey
from flowprep.look.color import wheel_hues
from flowprep.look.findings import KINDS, describe_video
from flowprep.look.page import (
    SEVERITIES,
    findings_column,
    key_column,
    name_column,
    number_column,
    page_file,
)
from flowprep.look.render import OUTSIDE, error_ramp
from flowprep.look.report import NUM_SAMPLED, label_words
from flowprep.look.view import CONSISTENCY_PX, StoredFlow
from flowprep.storage import Storage

__all__ = ["MAX_QUERY_BYTES", "MAX_RANGE_BYTES", "BrowseSpec", "make_app", "make_server", "serve"]

MAX_RANGE_BYTES = 16 << 20
"""One answer holds so many bytes of a stream at most: what a request can cost in memory."""
MAX_QUERY_BYTES = 24 << 10
"""A path has 4096 bytes at most, and one of them takes five (`%25E9`) in an escaped key."""
_MAX_PATH_BYTES = 256
_MIN_GZIP_BYTES = 2048

_STATIC = {
    "/": ("browse.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/browse.css": ("browse.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/browse.js": ("browse.js", "text/javascript"),
    "/browse_player.js": ("browse_player.js", "text/javascript"),
    "/browse_streams.js": ("browse_streams.js", "text/javascript"),
}

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Another data set may stand behind the same address tomorrow, with the same keys.
    "cache-control": "no-store",
}

_log = logging.getLogger(__name__)


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


# ---- who may ask


class _Guard:
    """Refuses what no page of this server would ask, and says to browsers what they must not do.

    A web page elsewhere can make a browser send requests to this machine. It cannot forge `Host`
    (DNS rebinding keeps the attacker's name there), `Origin` or `Sec-Fetch-Site`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None) -> None:
        self._app = app
        self._hosts = frozenset(name.lower() for name in hosts)
        self._token = token
        # Cookies are shared by all ports of a host.
        self._cookie = f"flowprep-{secrets.token_hex(4)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app: ASGIApp = self._refusal(scope) or self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return _error(405, "this server only reads", allow="GET, HEAD")
        if len(scope.get("raw_path") or b"") > _MAX_PATH_BYTES:
            return _error(414, "no address here is so long")
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            return _error(414, "no key is so long")
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _error(
                421, "this server does not go by that name; --allow-host NAME:PORT adds one"
            )
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.lower() != f"http://{hosts[0].lower()}"
        if is_foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _error(
                403, "asked for by another site; to open a link, paste it into the address bar"
            )
        return self._token_refusal(scope, headers) if self._token is not None else None

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        given = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if scope["path"] == "/" and b"token=" in scope["query_string"]:
            with contextlib.suppress(ValueError):
                query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
                if _is_same(query.get("token", [""])[0], self._token):
                    # The address bar and the history keep the page without the token.
                    response = Response(status_code=303, headers={"location": "/"})
                    response.set_cookie(
                        self._cookie, self._token, httponly=True, samesite="strict", path="/"
                    )
                    return response
        elif _is_same(given, self._token):
            return None
        return _error(403, "open the address with its token, as `flowprep browse` printed it")


def _is_same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _error(status: int, words: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(words + "\n", status, headers=named)


# ---- what is asked for


class _Pages:
    """The endpoints."""

    def __init__(self, dataset: FlowDataset, survey: BackgroundSurvey) -> None:
        self._dataset = dataset
        self._survey = survey
        self._streams = stream_names(dataset.config.encode)
        self._describe = _encoded(self._dataset_values())
        self._videos = _encoded(self._video_columns())
        self._files = {
            path: (page_file(name).encode(), kind) for path, (name, kind) in _STATIC.items()
        }

    def routes(self) -> list[Route]:
        endpoints = {
            "/api/dataset": lambda request: _json(request, *self._describe),
            "/api/videos": lambda request: _json(request, *self._videos),
            "/api/survey": lambda request: _json(request, *_encoded(self._survey.progress())),
            "/api/statistics": lambda request: _json(request, *_encoded(self._survey.columns())),
            "/api/findings": self.findings,
            "/api/video": self.video,
            "/stream": self.stream,
        }
        routes = [Route(path, self.file, methods=["GET"]) for path in self._files]
        return routes + [Route(path, end, methods=["GET"]) for path, end in endpoints.items()]

    # Plain functions: each runs in a thread, where reading may wait.

    def file(self, request: Request) -> Response:
        data, kind = self._files[request.url.path]
        return Response(data, media_type=kind)

    def findings(self, request: Request) -> Response:
        key = self._key(request)
        found = [
            {
                "kind": finding.kind,
                # An error's own words may name files of this machine.
                "detail": "" if finding.kind == "unreadable" else finding.detail,
                "pair": finding.pair,
            }
            for finding in self._survey.findings(key)
        ]
        return _json(request, *_encoded(found))

    def video(self, request: Request) -> Response:
        key = self._key(request)
        dataset = self._dataset
        video, flow = dataset.videos[key], StoredFlow(dataset, key)
        with _readable(key):
            statistics = describe_video(dataset.metadata(key), dataset.config)
            values = {
                "key": key,
                "name": _name(key),
                "label": label_words(dataset, video),
                "split": video.split,
                "num_frames": video.num_frames,
                "num_flows": video.num_flows,
                "width": video.width,
                "height": video.height,
                "fps": video.fps,
                "is_partial": video.is_partial,
                "mean_px": round(statistics.mean_px, 3),
                "max_px": round(statistics.max_px, 3),
                "clipped_share": statistics.clipped_share,
                "scale_px": {
                    one: flow.suggest_scale(one) for one in dataset.config.encode.directions
                },
                "offsets": {name: dataset.offsets(key, name).tolist() for name in self._streams},
            }
        return _json(request, *_encoded(values))

    def stream(self, request: Request) -> Response:
        key = self._key(request)
        name = request.query_params.get("name", "")
        if name not in self._streams:
            raise _Refused(404, "the data set has no such stream")
        size = self._dataset.videos[key].members[name][1]
        headers = {"accept-ranges": "bytes"}
        begin, end = _range(request.headers.getlist("range"), size)
        is_part = bool(request.headers.get("range"))
        if request.method == "HEAD" and not is_part:
            headers["content-length"] = str(size)
            return Response(status_code=200, headers=headers, media_type="video/x-motion-jpeg")
        with _readable(key):
            data = self._dataset.member_bytes(key, name, begin, end - begin)
        if is_part:
            headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
        return Response(
            data, 206 if is_part else 200, headers=headers, media_type="video/x-motion-jpeg"
        )

    def _key(self, request: Request) -> str:
        key = request.query_params.get("key", "")
        try:
            self._dataset.videos.position(key)
        except DatasetError as error:
            raise _Refused(404, "no video has this key") from error
        return key

    def _dataset_values(self) -> dict[str, Any]:
        dataset = self._dataset
        config, flow = dataset.config, dataset.config.flow
        levels = np.arange(256, dtype=np.uint8)
        directions: tuple[Direction, ...] = config.encode.directions
        try:
            num_failed = len(read_failures(Storage(dataset.location)))
        except (DatasetError, StorageError):
            num_failed = 0
        return {
            "version": __version__,
            "name": dataset.location.rstrip("/").rsplit("/", 1)[-1] or "data set",
            "num_failed": num_failed,
            "algorithm": flow.algorithm,
            "implementation": dataset.header.implementation,
            "step": flow.step,
            "bound_px": flow.bound_px,
            "quantizer": flow.quantizer,
            "center_level": flow.center_level,
            "px_per_level": flow.px_per_level,
            "px_of_level": dequantize(levels, flow).tolist(),
            "class_names": list(dataset.class_names),
            "directions": list(directions),
            "has_rgb": RGB_STREAM in self._streams,
            "streams": self._streams,
            "kinds": [
                {
                    "name": name,
                    "title": kind.title,
                    "severity": kind.severity,
                    "what": kind.what,
                    "remedy": kind.remedy,
                }
                for name, kind in KINDS.items()
            ],
            "severities": SEVERITIES,
            "wheel": wheel_hues().tolist(),
            "error_ramp": error_ramp().tolist(),
            "outside": list(OUTSIDE),
            "consistency_px": CONSISTENCY_PX,
            "max_range_bytes": MAX_RANGE_BYTES,
        }

    def _video_columns(self) -> dict[str, Any]:
        dataset = self._dataset
        videos = list(dataset.videos)
        keys = [video.key for video in videos]
        nothing = [None] * len(videos)
        key = key_column(keys, "21em")
        key["also"] = {row: _name(key) for row, key in enumerate(keys) if "%" in key}
        splits = [video.split or "" for video in videos]
        columns: dict[str, dict[str, Any]] = {
            "key": key,
            "findings": findings_column([0] * len(videos), "10.5em"),
            "class": name_column("Class", [label_words(dataset, v) for v in videos], "9em"),
            "split": name_column("Split", splits, "5em"),
            "frames": number_column("Frames", (v.num_frames for v in videos), 0, "5em"),
            "mean_px": number_column("Mean px", nothing, 2, "5.6em"),
            "max_px": number_column("Max px", nothing, 1, "5.4em"),
            "clipped": number_column("Clipped %", nothing, 3, "6.4em"),
            "blank": number_column("Blank %", nothing, 1, "5.6em"),
            "size": name_column("Size", [f"{v.width}x{v.height}" for v in videos], "6em"),
            "fps": number_column("fps", (v.fps for v in videos), 2, "4.6em"),
        }
        for one in ("class", "split"):
            if columns[one]["names"] in ([], [""]):
                del columns[one]
        return {"count": len(videos), "columns": columns}


class _Refused(Exception):  # noqa: N818
    """A request that is answered with a status and a few words."""

    def __init__(self, status: int, words: str, **headers: str) -> None:
        super().__init__(words)
        self.response = _error(status, words, **headers)


@contextlib.contextmanager
def _readable(key: str) -> Iterator[None]:
    """Turns what is wrong with a video into words without paths; the terminal has all of them."""
    try:
        yield
    except (FlowprepError, OSError, LookupError, TypeError, ValueError) as error:
        _log.warning("%s cannot be read: %s", key, error)
        raise _Refused(
            500, "its part of the shard cannot be read; `flowprep verify` says what is wrong"
        ) from error


def _range(given: list[str], size: int) -> tuple[int, int]:
    """Returns begin and end of the one range that is asked for, or of all."""
    refused = {"content_range": f"bytes */{size}"}
    most = f"{MAX_RANGE_BYTES >> 20} MiB"
    if not given:
        if size > MAX_RANGE_BYTES:
            raise _Refused(400, f"longer than {most}: ask for a range of its {size} bytes")
        return 0, size
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", given[0], re.ASCII)
    if len(given) > 1 or "," in given[0]:
        raise _Refused(416, "one range at a time", **refused)
    if match is None or not (match[1] or match[2]):
        raise _Refused(400, "a range is bytes=FIRST-LAST")
    if match[1]:
        begin = int(match[1])
        end = int(match[2]) + 1 if match[2] else size
    else:
        begin, end = size - int(match[2]), size
    if not 0 <= begin < end <= size:
        raise _Refused(416, f"the stream has {size} bytes", **refused)
    if end - begin > MAX_RANGE_BYTES:
        raise _Refused(416, f"one range has {most} at most", **refused)
    return begin, end


def _name(key: str) -> str:
    """The file's name behind a key; bytes that are no text are marks."""
    return unescape_key(key).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _encoded(values: Any) -> tuple[bytes, bytes | None]:
    """JSON, plain and compressed; None where that is not worth it."""
    data = json.dumps(values, separators=(",", ":")).encode()
    return data, gzip.compress(data, 5) if len(data) >= _MIN_GZIP_BYTES else None


def _json(request: Request, data: bytes, compressed: bytes | None) -> Response:
    headers = {"vary": "accept-encoding"}
    if compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        data = compressed
    return Response(data, headers=headers, media_type="application/json")


# ---- the application


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
    pages = _Pages(dataset, survey or BackgroundSurvey(dataset))

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, _Refused)
        return error.response

    def fail(request: Request, error: Exception) -> Response:
        response = _error(500, "an error in flowprep itself; the terminal has it")
        # It is made outside of the guard.
        response.headers.update(_HEADERS)
        return response

    app = Starlette(
        routes=pages.routes(),
        middleware=[Middleware(_Guard, hosts=allowed_hosts, token=token)],
        exception_handlers={_Refused: refuse, Exception: fail},
    )
    app.router.redirect_slashes = False
    return app


def make_server(app: Starlette) -> uvicorn.Server:
    """Returns the server as `serve` runs it; its `run` takes sockets that listen."""
    config = uvicorn.Config(
        app,
        http="h11",
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
