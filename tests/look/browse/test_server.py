"""Where the server of `flowprep browse` listens, and what it does with a raw connection."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError
from flowprep.inputs.keys import escape_key
from flowprep.look.browse import connections, server
from flowprep.look.browse.connections import BoundedProtocol
from flowprep.look.browse.server import BrowseSpec
from tests.look.browse.asking import KEY, member
from tests.look.browse.browsing import ODD_NAME, served


def asked(url: str, request: str) -> bytes:
    """Sends bytes as they stand; returns the answer."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=300) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode("latin-1"))
        data = b""
        while part := connection.recv(65536):
            data += part
    return data


def test_raw_requests(dataset: FlowDataset) -> None:
    with served(dataset) as url:
        host = urlsplit(url).netloc

        def status(head: str, *headers: str) -> int:
            lines = "".join(f"{line}\n" for line in (head, *headers, "Connection: close", ""))
            return int(asked(url, lines).split()[1])

        own = f"Host: {host}"
        assert status("GET / HTTP/1.1", own) == 200
        for path in (
            "/../../../../etc/passwd",
            "/..%2f..%2f..%2fetc%2fpasswd",
            "/%2e%2e%2f%2e%2e%2fetc/passwd",
            "/..\\..\\etc\\passwd",
            "/browse.html%00.js",
            "//evil.example/",
        ):
            assert status(f"GET {path} HTTP/1.1", own) == 404, path
        assert status("GET / HTTP/1.1", "Host: evil.example") == 421
        assert status("GET / HTTP/1.1", f"Host: evil.example:{host.partition(':')[2]}") == 421
        assert status("GET / HTTP/1.1", own, "Host: evil.example") in (400, 421)
        assert status("GET / HTTP/1.1") in (400, 421)
        assert status("GET / HTTP/1.0") == 421
        assert status("GET http://evil.example/ HTTP/1.1", "Host: evil.example") == 421
        assert status("CONNECT evil.example:443 HTTP/1.1", own) == 405
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        assert status("GET /ws HTTP/1.1", own, *upgrade, "Sec-WebSocket-Key: AAAA") in (403, 404)
        stream = f"GET /stream?key={KEY}&name=rgb HTTP/1.1"
        assert status(stream, own, "Range: bytes=0-99999999999") == 416
        assert status(stream, own, "Range: bytes=0-1,3-4") == 416
        assert status(stream, own, "Range: bytes=0-9") == 206
        for _ in range(3):
            # A head says the length, and nothing follows.
            answer = asked(
                url, f"HEAD /stream?key={KEY}&name=rgb HTTP/1.1\n{own}\nConnection: close\n\n"
            )
            assert answer.endswith(b"\r\n\r\n")


def test_many_ranges_over_one_connection(dataset: FlowDataset, out: Path) -> None:
    key = escape_key(ODD_NAME)
    whole = member(out, dataset, key, "rgb")
    with served(dataset) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
        for begin in range(0, len(whole) - 1000, 5000):
            path = f"/stream?key={quote(key, safe='')}&name=rgb"
            connection.request("GET", path, headers={"Range": f"bytes={begin}-{begin + 999}"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (206, whole[begin : begin + 1000])
        connection.close()


def test_hosts_of_a_loopback_address() -> None:
    hosts = server._hosts(BrowseSpec(allow_host=("node7", "localhost:9000")), "127.0.0.1", 8765)
    assert set(hosts) == {
        "127.0.0.1:8765",
        "localhost:8765",
        "[::1]:8765",
        "node7:8765",
        "localhost:9000",
    }
    assert "127.0.0.1" in server._hosts(BrowseSpec(), "127.0.0.1", 80)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_what_is_loopback(host: str, is_loopback: bool) -> None:
    assert BrowseSpec(host).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": 65536}, "port must be from 0 to 65535, got 65536"),
        ({"port": -1}, "port must be from 0 to 65535, got -1"),
        ({"sample": -1}, "sample must be >= 0, got -1"),
        ({"allow_host": ("http://x/",)}, "allow_host must be NAME or NAME:PORT"),
        ({"allow_host": ("*",)}, "allow_host must be NAME or NAME:PORT"),
        ({"host": ""}, "host must be a name or an address"),
    ],
)
def test_wrong_places(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        BrowseSpec(**values)  # type: ignore[arg-type]


def _connect(url: str, begin: bytes = b"") -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(begin)
    return connection


def _status(url: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("GET", "/api/dataset")
        return connection.getresponse().status
    finally:
        connection.close()


def test_many_half_open_connections_keep_nobody_out(dataset: FlowDataset) -> None:
    """So many say nothing, or half of a request, that they were all that there may be."""
    with served(dataset) as url, contextlib.ExitStack() as stack:
        for number in range(140):
            begin = b"" if number % 2 else b"GET / HTTP/1.1\r\nHost: "
            stack.enter_context(contextlib.closing(_connect(url, begin)))
        assert [_status(url) for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: x"])
def test_a_connection_that_asks_for_nothing_is_closed(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    with served(dataset) as url:
        connection = _connect(url, begin)
        with contextlib.closing(connection), contextlib.suppress(ConnectionResetError):
            # It would wait for ever; one more word of the request does not prolong it.
            assert connection.recv(1) == b""


def test_an_answer_that_nobody_reads_is_given_up_and_a_slow_one_is_not(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(BoundedProtocol, "_is_waiting", True)
    protocol = BoundedProtocol.__new__(BoundedProtocol)
    loop = asyncio.new_event_loop()
    sizes = iter([5, 3, 1, 1])
    ended: list[bool] = []

    class Transport:
        def get_write_buffer_size(self) -> int:
            return next(sizes)

        def abort(self) -> None:
            ended.append(True)
            loop.stop()

    protocol.loop, protocol.transport, protocol._timer = loop, Transport(), None  # type: ignore
    loop.call_soon(protocol._wait)
    try:
        loop.run_forever()
    finally:
        loop.close()
    assert ended
    assert next(sizes, None) is None
