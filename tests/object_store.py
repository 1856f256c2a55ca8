"""A real S3 server on loopback, and a proxy before it that makes requests fail."""

from __future__ import annotations

import functools
import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import boto3
import pytest
from botocore.config import Config

__all__ = ["KEY", "SECRET", "FaultyProxy", "client", "s3_server", "use_endpoint", "variables"]

KEY = "AKIDFLOWPREPTEST0001"
SECRET = "tOpSeCrEtNeVeRtObEwRiTtEn/0123456789"

Fault = Literal["slow-down", "internal", "reset", "cut", "lost-answer", "delay"]
FAULTS: tuple[Fault, ...] = ("slow-down", "internal", "reset", "cut", "lost-answer", "delay")

# What moto keeps lives as long as its process.
SERVER = """
import logging
import sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[str]:
    """Runs an S3 server in a process of its own; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@functools.cache
def client(endpoint: str) -> Any:
    """Returns boto3's own client, by which tests look at a bucket without flowprep."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def variables(endpoint: str) -> dict[str, str]:
    """Returns the usual environment variables that point a process at a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def use_endpoint(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Points this process, and those that it starts, at a server."""
    import s3fs

    for name, value in variables(endpoint).items():
        patch.setenv(name, value)
    # Connections are kept, with the address that they were made for.
    s3fs.S3FileSystem.clear_instance_cache()


class FaultyProxy:
    """Hands HTTP requests on to a server, and spoils a share of them by chance.

    503 SlowDown and 500 before the server has seen the request; the connection closed before it, in
    the midst of the answer's body, and after the server has done what was asked; and a delay.
    """

    def __init__(self, upstream: str, share: float = 0.0, seed: int = 0) -> None:
        self.share = share
        self.refuses: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        """Method and path of a request -> status and code of the error to answer, or None."""
        self.done: Counter[str] = Counter()
        """How many requests met which fault, `none` those without."""
        self.num_refused = 0
        self.requests: list[tuple[str, str]] = []
        """Method and path of each that was not refused."""
        self._rng = random.Random(seed)
        self._mutex = threading.Lock()
        host, _, port = upstream.rpartition("/")[2].partition(":")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.upstream = http.client.HTTPConnection(host, int(port))

            def finish(self) -> None:
                self.upstream.close()
                super().finish()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def do_GET(self) -> None:
                proxy._handle(self, self.upstream)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *values: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _draw(self, request: BaseHTTPRequestHandler) -> Fault | None:
        with self._mutex:
            self.requests.append((request.command, request.path))
            fault: Fault | None = None
            if self._rng.random() < self.share:
                fault = self._rng.choice(FAULTS)
            self.done[fault or "none"] += 1
            return fault

    def _handle(
        self, request: BaseHTTPRequestHandler, upstream: http.client.HTTPConnection
    ) -> None:
        refusal = self.refuses(request.command, request.path)
        fault = None if refusal else self._draw(request)
        if fault == "reset":
            return self._close(request)
        body = _body(request)
        if fault == "delay":
            time.sleep(0.3)
        if fault == "slow-down":
            refusal = 503, "SlowDown"
        if fault == "internal":
            refusal = 500, "InternalError"
        if refusal is not None:
            return self._refuse(request, *refusal)
        headers = {name: value for name, value in request.headers.items() if name != "Expect"}
        upstream.request(request.command, request.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        if fault == "lost-answer":
            return self._close(request)
        request.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                request.send_header(name, value)
        # HEAD tells of a body that it has not.
        size = answer.getheader("Content-Length") if request.command == "HEAD" else len(content)
        if answer.status not in (204, 304):
            request.send_header("Content-Length", str(size or 0))
        request.end_headers()
        if fault == "cut":
            request.wfile.write(content[: len(content) // 2])
            return self._close(request)
        request.wfile.write(content)
        return None

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        with self._mutex:
            self.num_refused += 1
        content = b""
        if request.command != "HEAD":
            content = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        request.send_response_only(status)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _close(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in request.headers.get("Transfer-Encoding", ""):
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    content = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        content += request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
    del request.headers["Transfer-Encoding"]
    request.headers["Content-Length"] = str(len(content))
    return content
