"""`flowprep browse`, as a real process."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def made(flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browsed") / "out"
    options = ("--algorithm", "dis", "--executor", "inline")
    assert flowprep("extract", clips, out, *options).code == 0
    return out


@contextlib.contextmanager
def browsing(out: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yields the printed URL and the process."""
    command = [sys.executable, "-m", "flowprep", "browse", str(out), "--port", "0", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What was started in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline(), process
        finally:
            process.kill()


def status(url: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_one_line_and_a_quiet_end(made: Path) -> None:
    with browsing(made) as (line, process):
        match = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)\n", line)
        assert match is not None
        url = match[1]
        assert status(url, "/") == 200
        assert status(url, "/api/videos") == 200
        assert status(url, "/", Host="evil.example") == 421
        # A browser keeps its connection open.
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("GET", "/")
        connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
        connection.close()
    assert (process.returncode, stdout, stderr) == (0, "", "")


def test_another_address_needs_a_token(made: Path) -> None:
    # No loopback alone: all addresses of this machine.
    with browsing(made, "--host", "0.0.0.0", "--no-findings") as (line, process):
        match = re.fullmatch(r"http://([^/:]+):(\d+)/\?token=([\w-]{32})\n", line)
        assert match is not None
        assert match[1] == socket.gethostname()
        url = f"http://127.0.0.1:{match[2]}/"
        assert status(url, "/") == 403
        assert status(url, "/api/videos") == 403
        assert status(url, f"/?token={'x' * 32}") == 403
        assert status(url, f"/?token={match[3]}") == 303
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr) == (0, "", "")


def test_a_token_on_loopback_and_another_name(made: Path) -> None:
    options = ("--token", "--allow-host", "tunnel.example:9000")
    with browsing(made, *options) as (line, process):
        url = line.strip()
        path = f"/?{urlsplit(url).query}"
        assert status(url, "/") == 403
        assert status(url, path, Host="other.example:9000") == 421
        assert status(url, path, Host="tunnel.example:9000") == 303
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0


def test_a_port_that_is_taken(flowprep: Command, made: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = flowprep("browse", made, "--port", port)
    assert result.code == 1
    assert result.error == (
        f"Error: cannot listen on 127.0.0.1, port {port}: Address already in use; "
        "choose another --host or --port (0 takes a free port)\n"
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--port", "65536"], "--port must be from 0 to 65535, got 65536\n"),
        (["--sample", "-1"], "--sample must be >= 0, got -1\n"),
        (["--allow-host", "http://x"], "--allow-host must be NAME or NAME:PORT, as a browser"),
    ],
)
def test_wrong_values(flowprep: Command, made: Path, options: list[str], error: str) -> None:
    result = flowprep("browse", made, *options)
    assert result.code == 2
    assert result.error.startswith(f"Error: {error}")


def test_what_is_no_data_set(flowprep: Command, tmp_path: Path) -> None:
    result = flowprep("browse", tmp_path / "none")
    assert result.code == 1
    assert result.error.startswith(f"Error: OUT does not exist: {tmp_path}/none")
    result = flowprep("browse", tmp_path)
    assert result.code == 1
    assert "is not a flowprep data set" in result.error


def test_without_the_extra(flowprep: Command, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "flowprep.look.browse.server", raising=False)
    result = flowprep("browse", made)
    assert result.code == 1
    assert result.error == (
        "Error: `flowprep browse` needs uvicorn, which cannot be imported; "
        "run `pip install 'flowprep[browse]'`\n"
    )


def test_defaults_are_the_library_s(flowprep: Command) -> None:
    from flowprep.look.browse.server import BrowseSpec

    page = re.sub(r"\s+", " ", flowprep("browse", "--help").stdout)
    spec = BrowseSpec()
    for default in (spec.host, spec.port, spec.sample):
        assert f"[default: {default}]" in page
