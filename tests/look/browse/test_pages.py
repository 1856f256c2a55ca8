"""What the server of `flowprep browse` answers, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from flowprep.dataset.quantize import dequantize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import DatasetError
from flowprep.inputs.keys import escape_key
from flowprep.look.browse import pages
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.findings.kinds import KINDS
from flowprep.look.report.report import make_report
from flowprep.storage import Storage
from tests.look.browse.asking import ENDPOINTS, KEY, member
from tests.look.browse.browsing import CLASSES, CLIPS, ODD_NAME, Client, Clip, served

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
