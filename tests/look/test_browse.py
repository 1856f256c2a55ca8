"""What the server of `flowprep browse` answers, and what it refuses."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import fsspec
import numpy as np
import pytest

from flowprep.dataset.layout import shard_name
from flowprep.dataset.quantize import dequantize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.inputs.keys import escape_key
from flowprep.look.browse import pages, server
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.browse.guard import MAX_QUERY_BYTES
from flowprep.look.browse.server import BrowseSpec
from flowprep.look.findings.kinds import KINDS
from flowprep.look.report.report import Report, make_report
from flowprep.storage import Storage
from tests.look.browsing import CLASSES, CLIPS, ODD_NAME, Client, Clip, make_dataset, served

KEY = "move_left/a"
ENDPOINTS = [
    "/",
    "/page.css",
    "/browse.css",
    "/page.js",
    "/table.js",
    "/address.js",
    "/arrows.js",
    "/browse.js",
    "/colors.js",
    "/controls.js",
    "/findings.js",
    "/keys.js",
    "/list.js",
    "/player.js",
    "/streams.js",
    "/view.js",
    "/api/dataset",
    "/api/videos",
    "/api/survey",
    "/api/statistics",
    f"/api/findings?key={KEY}",
    f"/api/video?key={KEY}",
    f"/stream?key={KEY}&name=flow_x",
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("browse"))


@pytest.fixture(scope="module")
def dataset(out: Path) -> Iterator[FlowDataset]:
    dataset = open_dataset(out)
    yield dataset
    dataset.close()


@pytest.fixture(scope="module")
def client(dataset: FlowDataset) -> Iterator[Client]:
    with served(dataset) as url:
        yield Client(url)


def member(out: Path, dataset: FlowDataset, key: str, name: str) -> bytes:
    video = dataset.videos[key]
    offset, size = video.members[name]
    return (out / shard_name(video.shard)).read_bytes()[offset : offset + size]


# ---- what it answers


def test_the_data_set(client: Client, dataset: FlowDataset) -> None:
    values = client.get("/api/dataset").json()
    spec = dataset.config.flow
    assert values["bound_px"] == 8
    assert values["class_names"] == list(CLASSES)
    assert values["streams"] == ["flow_x", "flow_y", "back_x", "back_y", "rgb"]
    levels = np.arange(256, dtype=np.uint8)
    assert np.float32(values["px_of_level"]).tolist() == dequantize(levels, spec).tolist()
    assert [kind["name"] for kind in values["kinds"]] == list(KINDS)
    assert np.shape(values["wheel"]) == (55, 3)
    assert values["wheel"][0] == [255, 0, 0]


def test_all_videos(client: Client) -> None:
    values = client.get("/api/videos").json()
    columns = values["columns"]
    assert values["count"] == len(CLIPS)
    assert sorted(columns["key"]["values"]) == sorted(escape_key(clip.name) for clip in CLIPS)
    row = columns["key"]["values"].index(escape_key(ODD_NAME))
    assert columns["key"]["also"] == {str(row): ODD_NAME}
    names = columns["class"]["names"]
    assert names[columns["class"]["values"][row]] == "move_down"
    assert columns["mean_px"]["values"] == [None] * len(CLIPS)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.action)
def test_every_jpeg_lies_where_its_offsets_say(
    client: Client, dataset: FlowDataset, out: Path, clip: Clip
) -> None:
    key = escape_key(clip.name)
    values = client.get("/api/video", key=key).json()
    video = dataset.videos[key]
    assert (values["num_frames"], values["num_flows"]) == (video.num_frames, video.num_flows)
    assert values["name"] == clip.name
    for name, offsets in values["offsets"].items():
        whole = member(out, dataset, key, name)
        assert len(offsets) == (video.num_frames if name == "rgb" else video.num_flows) + 1
        assert (offsets[0], offsets[-1]) == (0, len(whole))
        begin, end = offsets[-2:]
        answer = client.get("/stream", {"range": f"bytes={begin}-{end - 1}"}, key=key, name=name)
        assert answer.status == 206
        assert answer.body == whole[begin:end]
        assert answer.body[:2] == b"\xff\xd8"
        assert answer.body[-2:] == b"\xff\xd9"
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(whole)}"
    assert set(values["scale_px"]) == {"forward", "backward"}


@pytest.mark.parametrize(
    ("given", "first", "last"), [("0-0", 0, 0), ("7-", 7, -1), ("-5", -5, -1), ("0-{end}", 0, -1)]
)
def test_ranges(
    client: Client, dataset: FlowDataset, out: Path, given: str, first: int, last: int
) -> None:
    whole = member(out, dataset, KEY, "rgb")
    given = given.format(end=len(whole) - 1)
    answer = client.get(
        f"/stream?key={KEY}&name=rgb",
        headers={"range": f"bytes={given}", "accept-encoding": "gzip"},
    )
    assert answer.status == 206
    assert answer.body == whole[first : last % len(whole) + 1]
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in answer.headers


def test_a_whole_stream_and_its_head(client: Client, dataset: FlowDataset, out: Path) -> None:
    whole = member(out, dataset, KEY, "flow_y")
    answer = client.get(f"/stream?key={KEY}&name=flow_y")
    assert (answer.status, answer.body) == (200, whole)
    head = client.get(f"/stream?key={KEY}&name=flow_y", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole))


def test_json_is_compressed_where_it_is_long(client: Client) -> None:
    plain = client.get("/api/dataset", headers={"accept-encoding": "identity"})
    packed = client.get("/api/dataset", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.body) / 2
    assert packed.json() == plain.json()


def test_findings_are_those_of_the_report(seeded: Path, seeded_report: Report) -> None:
    dataset = open_dataset(seeded)
    survey = BackgroundSurvey(dataset)
    with served(dataset, survey=survey) as url:
        client = Client(url)
        before = client.get("/api/survey").json()
        assert before["stage"] == "off"
        survey.start()
        survey.wait()
        progress = client.get("/api/survey").json()
        assert progress["stage"] == "done"
        assert progress["version"] > before["version"]
        columns = client.get("/api/statistics").json()
        found = {
            video.key: client.get("/api/findings", key=video.key).json() for video in dataset.videos
        }
    wanted: dict[str, list[str]] = {}
    for finding in seeded_report.findings:
        if finding.kind != "failed":
            wanted.setdefault(finding.key, []).append(finding.kind)
    assert len(wanted) > 5
    for position, video in enumerate(dataset.videos):
        assert [item["kind"] for item in found[video.key]] == wanted.get(video.key, [])
        bits = {bit for bit in range(len(KINDS)) if columns["findings"][position] >> bit & 1}
        assert bits == {list(KINDS).index(kind) for kind in wanted.get(video.key, [])}
    row = seeded_report.rows[3]
    position = dataset.videos.position(row.key)
    assert columns["mean_px"][position] == round(row.mean_px, 2)
    assert columns["clipped"][position] == round(100 * row.clipped_share, 3)
    dataset.close()


def test_the_survey_can_be_stopped(out: Path) -> None:
    dataset = open_dataset(out)
    survey = BackgroundSurvey(dataset)
    survey.start()
    survey.stop()
    assert survey.progress()["stage"] in ("statistics", "pixels", "done")


def test_another_storage(out: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "/browse-test/out", recursive=True)
    try:
        remote = open_dataset("memory://browse-test/out")
        local = open_dataset(out)
        with served(remote) as url:
            path = f"/stream?key={KEY}&name=rgb"
            answer = Client(url).get(path, {"range": "bytes=100-199"})
        assert answer.body == member(out, local, KEY, "rgb")[100:200]
    finally:
        memory.rm("/browse-test", recursive=True)


def test_nothing_is_written(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)

    def state() -> list[tuple[str, int, str]]:
        return [
            (str(path), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(copy.rglob("*"))
            if path.is_file()
        ]

    before = state()
    dataset = open_dataset(copy)
    survey = BackgroundSurvey(dataset)
    survey.start()
    survey.wait()
    with served(dataset, survey=survey) as url:
        for path in ENDPOINTS:
            assert Client(url).get(path).status == 200, path
    dataset.close()
    assert state() == before


# ---- what it refuses


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("bytes=0-{size}", 416),
        ("bytes={size}-", 416),
        ("bytes=-{more}", 416),
        ("bytes=-0", 416),
        ("bytes=5-4", 416),
        ("bytes=0-999999999999999999", 416),
        ("bytes=0-0,2-3", 416),
        ("bytes=0-99999999999999999999999999999999", 400),
        ("bytes=-", 400),
        ("bytes=a-b", 400),
        ("bytes=+1-2", 400),
        ("bytes= 0-1", 400),
        ("frames=0-1", 400),
        ("bytes=\u0660-\u0661", 400),
        ("0-1", 400),
    ],
)
def test_ranges_that_are_none(
    client: Client, dataset: FlowDataset, given: str, status: int
) -> None:
    size = dataset.videos[KEY].members["rgb"][1]
    value = given.format(size=size, more=size + 1).encode()
    answer = client.get(f"/stream?key={KEY}&name=rgb", {"range": value})
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_two_range_headers(client: Client) -> None:
    headers = [("range", "bytes=0-1"), ("range", "bytes=2-3")]
    assert client.get(f"/stream?key={KEY}&name=rgb", headers=headers).status == 416


def test_what_is_longer_than_one_answer(
    client: Client, dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_RANGE_BYTES", 1000)
    path = f"/stream?key={KEY}&name=rgb"
    reads = []
    read = dataset.member_bytes
    monkeypatch.setattr(dataset, "member_bytes", lambda *a: reads.append(a) or read(*a))
    whole = client.get(path)
    assert whole.status == 400
    assert "ask for a range" in whole.text
    assert client.get(path, headers={"range": "bytes=0-1000"}).status == 416
    assert client.get(path, headers={"range": "bytes=0-"}).status == 416
    assert reads == []
    answer = client.get(path, headers={"range": "bytes=0-999"})
    assert (answer.status, len(answer.body)) == (206, 1000)
    assert [size for _, _, _, size in reads] == [1000]


@pytest.mark.parametrize(
    "path",
    [
        "/stream?key=nobody&name=rgb",
        "/stream?key=&name=rgb",
        f"/stream?key={KEY}",
        f"/stream?key={KEY}&name=json",
        f"/stream?key={KEY}&name=../../dataset.json",
        "/stream?key=../out/move_left/a&name=rgb",
        "/stream?key=%2Fetc%2Fpasswd&name=rgb",
        "/stream?key=move_left%2Fa%00&name=rgb",
        "/stream?key=%ff%fe&name=rgb",
        "/api/video?key=..%2f..%2fdataset.json",
        "/api/findings?key=.",
        "/api/dataset/",
        "/dataset.json",
        "/shards/000000.tar",
        "/browse.py",
        "/static/../browse.html",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/browse.js/..%2fbrowse.py",
        "//etc/passwd",
    ],
)
def test_what_is_not_there(client: Client, out: Path, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 404
    assert str(out) not in answer.text
    assert len(answer.text) < 100


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
@pytest.mark.parametrize("path", ["/", "/api/dataset", f"/stream?key={KEY}&name=rgb", "/nowhere"])
def test_methods_that_could_change_something(client: Client, method: str, path: str) -> None:
    answer = client.get(path, method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:80", "localhost.:{port}", "*"],
)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_other_hosts(client: Client, host: str, path: str) -> None:
    host = host.format(port=client.host.partition(":")[2])
    answer = client.get(path, {"host": host})
    assert answer.status == 421
    assert "bound" not in answer.text


def test_its_own_hosts(client: Client) -> None:
    port = client.host.partition(":")[2]
    for host in (client.host, f"localhost:{port}", f"LOCALHOST:{port}"):
        assert client.get("/api/dataset", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://{host}"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:{port}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_other_origins(client: Client, headers: dict[str, str], path: str) -> None:
    port = client.host.partition(":")[2]
    given = {name: value.format(host=client.host, port=port) for name, value in headers.items()}
    answer = client.get(path, given)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_origin(client: Client) -> None:
    for headers in ({"origin": f"http://{client.host}"}, {"sec-fetch-site": "same-origin"}):
        assert client.get("/api/dataset", headers=headers).status == 200


def test_long_queries(client: Client) -> None:
    assert client.get(f"/api/video?key={'a' * 20000}").status == 404
    assert client.get(f"/api/video?key={'a' * MAX_QUERY_BYTES}").status == 414
    assert client.get(f"/{'a' * 1000}").status == 414


@pytest.mark.parametrize("path", [*ENDPOINTS, "/nowhere"])
def test_headers_of_every_answer(client: Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    for words in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert words in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_page_asks_for_nothing_elsewhere(client: Client) -> None:
    for path in ENDPOINTS[:7]:
        text = client.get(path).text
        assert not re.search(r"(src|href)=\"(?!/|#|data:)", text)
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}
        assert "innerHTML" not in text


def test_errors_name_no_file_of_this_machine(
    out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    dataset = open_dataset(copy)
    survey = BackgroundSurvey(dataset)
    with served(dataset, survey=survey) as url:
        client = Client(url)
        for path in (copy / "shards").glob("*.tar"):
            path.write_bytes(b"\0" * 5000)
        survey.start()
        survey.wait()
        assert survey.progress()["stage"] == "done"
        with caplog.at_level(logging.WARNING):
            for path in (f"/api/video?key={KEY}", f"/stream?key={KEY}&name=rgb"):
                answer = client.get(path)
                assert answer.status == 500
                assert "flowprep verify" in answer.text
                assert str(tmp_path) not in answer.text
                assert "content-security-policy" in answer.headers
        assert KEY in caplog.text
        found = client.get(f"/api/findings?key={KEY}")
        # Without the error's own words, which may name a file.
        assert found.json() == [{"kind": "unreadable", "detail": "", "pair": None}]
        shutil.rmtree(copy)
        dataset.close()
        answer = client.get(f"/api/video?key={KEY}")
        assert answer.status == 500
        assert str(tmp_path) not in answer.text


def test_an_error_of_its_own(dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/etc/secret")

    with served(dataset) as url:
        monkeypatch.setattr(dataset, "metadata", fail)
        answer = Client(url).get(f"/api/video?key={KEY}")
    assert answer.status == 500
    assert answer.text == "an error in flowprep itself; the terminal has it\n"
    assert "content-security-policy" in answer.headers


# ---- the token


def test_token(dataset: FlowDataset) -> None:
    token = "s3cret-of-this-test"
    with served(dataset, token=token) as url:
        client = Client(url)
        for path in [*ENDPOINTS, "/nowhere"]:
            answer = client.get(path)
            assert answer.status == 403
            assert token not in answer.text
        for wrong in ("", "wrong", token[:-1], token + "x", "%ff", "%C3%A9", "&".join("ab" * 9)):
            assert client.get(f"/?token={wrong}").status == 403
        path = f"/?token={token}"
        assert client.get(f"/api/dataset?token={token}").status == 403
        assert client.get(path, {"host": "evil.example"}).status == 421
        assert client.get(path, {"sec-fetch-site": "cross-site"}).status == 403
        assert not client.cookie
        answer = client.get(path)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Domain" not in cookie
        for path in ENDPOINTS:
            assert client.get(path).status == 200
        name = cookie.partition("=")[0]
        client.cookie = f"{name}=wrong"
        assert client.get("/api/dataset").status == 403


# ---- over a real connection


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


# ---- where it listens


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


def test_members_by_bytes(dataset: FlowDataset, out: Path) -> None:
    whole = member(out, dataset, KEY, "json")
    assert dataset.member_bytes(KEY, "json", 0, len(whole)) == whole
    assert json.loads(whole)["key"] == KEY
    for offset, size in ((-1, 2), (0, len(whole) + 1), (len(whole), 1), (5, -1)):
        with pytest.raises(DatasetError, match=r"move_left/a\.json has"):
            dataset.member_bytes(KEY, "json", offset, size)
    with pytest.raises(DatasetError, match="got 'wav'"):
        dataset.member_bytes(KEY, "wav", 0, 1)
    assert Storage(out).is_local


def test_an_empty_data_set(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "shards")
    dataset = open_dataset(copy)
    survey = BackgroundSurvey(dataset)
    survey.start()
    survey.wait()
    assert survey.progress()["stage"] == "done"
    with served(dataset) as url:
        values = Client(url).get("/api/videos").json()
    assert values["count"] == 0
    assert make_report(copy).findings == ()
