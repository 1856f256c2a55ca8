"""Data sets made to do harm: reader, verifier and export refuse them, in little memory."""

from __future__ import annotations

import io
import json
import resource
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowprep.cli import main
from flowprep.dataset import stored_jpegs
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.jpeg_header import JpegHeader, read_jpeg_header
from flowprep.dataset.read import open_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import DatasetError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.run.status import PROGRESS_FILE, read_status
from tests.exchange import readers

SHARD = "shards/000001"
"""Holds KEY, of four flows and five frames, and after it a video with a long name."""
KEY = "walk/b"
LONG_KEY = f"Dr%2E%20No/{'x' * 120}"


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A gigabyte more than there is now, so that whoever believes a forged size is found out."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def sidecar(out: Path) -> Iterator[dict[str, Any]]:
    path = out / f"{SHARD}.json"
    values = json.loads(path.read_text())
    yield values
    path.write_text(json.dumps(values))


def record(values: dict[str, Any]) -> dict[str, Any]:
    (found,) = (video for video in values["videos"] if video["key"] == KEY)
    return found


@contextmanager
def metadata(out: Path) -> Iterator[dict[str, Any]]:
    """Changes KEY.json and keeps its length."""
    with sidecar(out) as values:
        offset, size = record(values)["members"]["json"]
    path = out / f"{SHARD}.tar"
    data = bytearray(path.read_bytes())
    content = json.loads(data[offset : offset + size])
    yield content
    # What is not needed here makes room.
    content["versions"] = {}
    content["source"] = ""
    new = json.dumps(content, separators=(",", ":")).encode()
    assert len(new) <= size
    data[offset : offset + size] = new.ljust(size)
    path.write_bytes(data)


def jpeg_place(out: Path, stream: str) -> tuple[int, int]:
    """Returns offset and size of the first JPEG of a stream."""
    dataset = open_dataset(out)
    sizes = dataset.metadata(KEY).sizes[stream]
    return dataset.videos[KEY].members[stream][0], sizes[0]


def put(out: Path, at: int, data: bytes) -> None:
    path = out / f"{SHARD}.tar"
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def set_field(name: str, value: Any) -> Callable[[Path], None]:
    def forge(out: Path) -> None:
        with sidecar(out) as values:
            record(values)[name] = value

    return forge


def set_member(place: tuple[Any, Any], name: str = "flow_x") -> Callable[[Path], None]:
    def forge(out: Path) -> None:
        with sidecar(out) as values:
            record(values)["members"][name] = place

    return forge


def set_sizes(sizes: list[Any], stream: str = "flow_x") -> Callable[[Path], None]:
    def forge(out: Path) -> None:
        with metadata(out) as content:
            content["sizes"][stream] = sizes

    return forge


def wrapping_sizes(out: Path) -> None:
    """Four sizes whose sum over the end of int64 is the right one."""
    total = open_dataset(out).videos[KEY].members["flow_x"][1]
    big = (1 << 63) - 1
    set_sizes([big, big, 1, total + 1])(out)


def negative_sizes(out: Path) -> None:
    total = open_dataset(out).videos[KEY].members["flow_x"][1]
    set_sizes([total, -5, 4, 1])(out)


def huge_header(width: int, height: int) -> Callable[[Path], None]:
    """The JPEG alone asks for gigabytes."""

    def forge(out: Path) -> None:
        at, size = jpeg_place(out, "flow_x")
        data = (out / f"{SHARD}.tar").read_bytes()[at : at + size]
        frame = at + data.index(b"\xff\xc0") + 5
        put(out, frame, height.to_bytes(2, "big") + width.to_bytes(2, "big"))

    return forge


def consistent_bomb(out: Path) -> None:
    """Index, metadata and JPEG agree on 60000 x 60000."""
    huge_header(60000, 60000)(out)
    with metadata(out) as content:
        content["width"] = content["height"] = 60000
    with sidecar(out) as values:
        record(values)["width"] = record(values)["height"] = 60000


def overlapping(out: Path) -> None:
    with sidecar(out) as values:
        members = record(values)["members"]
        members["flow_y"] = members["flow_x"]


def other_videos_bytes(out: Path) -> None:
    """A video that names the bytes of the one before it."""
    with sidecar(out) as values:
        first, second = (video for video in values["videos"] if video["status"] != "failed")
        second["members"] = first["members"]


def more_members(out: Path) -> None:
    with sidecar(out) as values:
        record(values)["members"]["../../escape"] = [0, 10]


def no_members(out: Path) -> None:
    with sidecar(out) as values:
        record(values)["members"] = {}


def bombed_json(out: Path) -> None:
    (out / f"{SHARD}.json").write_text('{"format_version":1,"shard":1,"videos":' + "[" * 200_000)


READER = {
    "key with ..": set_field("key", "../../../etc/passwd"),
    "absolute key": set_field("key", "/etc/passwd"),
    "escaped ..": set_field("key", "%2E%2E/x"),
    "key with NUL": set_field("key", "a\0b"),
    "key is a number": set_field("key", 3),
    "huge width": set_field("width", 10**9),
    "endless width": set_field("width", 10**30),
    "width as float": set_field("width", 1e300),
    "width as text": set_field("width", "56"),
    "width is true": set_field("width", True),
    "width below zero": set_field("width", -56),
    "too many pixels": set_field("height", 65535 * 1000),
    "frames without end": set_field("num_frames", 10**12),
    "flows without end": set_field("num_flows", 10**12),
    "endless fps": set_field("fps", float("inf")),
    "fps beyond floats": set_field("fps", 10**400),
    "fps is no number": set_field("fps", float("nan")),
    "label as text": set_field("labels", ["../x"]),
    "label below zero": set_field("labels", [-1]),
    "status is a list": set_field("status", []),
    "strange status": set_field("status", "fine"),
    "member below zero": set_member((-100, 50)),
    "member of negative size": set_member((600, -50)),
    "member as text": set_member(("0", "9")),
    "member as float": set_member((512.0, 100.0)),
    "endless member": set_member((10**30, 1)),
    "more members": more_members,
    "no members": no_members,
    "consistent bomb": consistent_bomb,
    "deep JSON": bombed_json,
}
"""What is refused when a data set is opened."""

VIDEO = {
    "outside of the tar": set_member((10**12, 1000)),
    "huge member": set_member((512, 10**15)),
    "huge metadata": set_member((512, 10**15), "json"),
    "overlapping": overlapping,
    "JPEG bomb": huge_header(60000, 60000),
    "wide JPEG": huge_header(57, 40),
    "flat JPEG": huge_header(0, 0),
    "wrapping sizes": wrapping_sizes,
    "sizes below zero": negative_sizes,
    "sizes as text": set_sizes(["9", "9", "9", "9"]),
    "sizes as floats": set_sizes([1e300, 1.0, 1.0, 1.0]),
    "endless sizes": set_sizes([10**30, 1, 1, 1]),
    "sizes is text": set_sizes("9999"),  # type: ignore[arg-type]
}
"""What is refused when the video is read."""


@pytest.mark.parametrize("name", READER)
def test_a_forged_index_is_refused_by_all(copied: Path, tmp_path: Path, name: str) -> None:
    READER[name](copied)
    with pytest.raises(DatasetError):
        open_dataset(copied)
    with pytest.raises(DatasetError):
        export_dataset(copied, tmp_path / "dest", ExportSpec("tsm"), num_workers=1)
    assert not (tmp_path / "dest").exists()
    assert verify_dataset(copied).problems
    assert verify_dataset(copied, deep=True).problems


@pytest.mark.parametrize("name", VIDEO)
def test_a_forged_video_is_refused_by_all(copied: Path, tmp_path: Path, name: str) -> None:
    VIDEO[name](copied)
    dataset = open_dataset(copied)
    with pytest.raises(DatasetError):
        dataset.quantized(KEY, 0, 1)
    with pytest.raises(DatasetError):
        dataset.planes(KEY, [0])
    for kind in ("jpg", "npz", "webdataset"):
        dest = tmp_path / kind
        report = export_dataset(copied, dest, ExportSpec("tsm", kind), num_workers=1)
        assert list(report.failures) == [KEY]
        assert not (dest / KEY).exists()
    assert verify_dataset(copied, deep=True).problems
    # The others are as they were.
    assert dataset.quantized("jump/a", 0, 5).shape == (5, 40, 56, 2)


def test_bytes_of_another_video_are_refused(copied: Path, tmp_path: Path) -> None:
    other_videos_bytes(copied)
    dataset = open_dataset(copied)
    with pytest.raises(DatasetError, match="is damaged"):
        dataset.quantized(LONG_KEY, 0, 1)
    report = export_dataset(copied, tmp_path / "dest", ExportSpec("tsm"), num_workers=1)
    assert list(report.failures) == [LONG_KEY]
    assert any("outside of its place" in one for one in verify_dataset(copied).problems)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("class_names", ["../../etc", "/abs"]),
        ("class_names", [3, None]),
    ],
)
def test_forged_class_names_stay_inside(
    copied: Path, tmp_path: Path, part: str, value: object
) -> None:
    path = copied / "dataset.json"
    values = json.loads(path.read_text())
    values[part] = value
    path.write_text(json.dumps(values))
    before = set(tmp_path.rglob("*"))
    export_dataset(copied, tmp_path / "dest", ExportSpec("tsm"), num_workers=1)
    for made in set(tmp_path.rglob("*")) - before:
        assert any(made.is_relative_to(tmp_path / name) for name in ("dest", "dest-lists"))
        assert ".." not in made.relative_to(tmp_path).parts
    assert not (tmp_path / "etc").exists()


def test_a_header_of_depth_without_end_is_refused(copied: Path) -> None:
    (copied / "dataset.json").write_text("[" * 200_000)
    with pytest.raises(DatasetError, match=r"dataset.json is damaged"):
        open_dataset(copied)


def rebuilt(tmp_path: Path, copied: Path, names: list[str], kind: bytes | None = None) -> Any:
    """Replaces a shard by a tar of other members, takes its sidecar away, and asks for a repair."""
    path = copied / f"{SHARD}.tar"
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            data = b"{}"
            info.size = len(data)
            if kind is not None:
                info.type, info.size, info.linkname = kind, 0, "/etc/passwd"
            tar.addfile(info, io.BytesIO(data))
    (copied / f"{SHARD}.json").unlink()
    return verify_dataset(copied, repair=True)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["../../escape.json"], None),
        (["/etc/passwd.json"], None),
        (["walk/b.json"], tarfile.SYMTYPE),
        (["walk/b.json"], tarfile.LNKTYPE),
        (["walk/b.json"], tarfile.CHRTYPE),
        (["walk/b.json"], tarfile.FIFOTYPE),
        (["walk"], tarfile.DIRTYPE),
        (["walk/b.json", "walk/b.json"], None),
        ([f"walk/{n}.json" for n in range(50)], None),
    ],
)
def test_no_index_is_rebuilt_of_a_hostile_tar(
    copied: Path, tmp_path: Path, names: list[str], kind: bytes | None
) -> None:
    before = set(tmp_path.rglob("*"))
    report = rebuilt(tmp_path, copied, names, kind)
    assert report.repaired == []
    assert any("cannot be rebuilt" in problem for problem in report.problems)
    assert set(tmp_path.rglob("*")) <= before


def test_a_sparse_member_costs_no_memory(copied: Path) -> None:
    """GNU's old sparse header says that 16 bytes on disk are eight gigabytes of zeros."""
    info = tarfile.TarInfo("walk/b.json")
    info.size = 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"%011o\0" % 0 + b"%011o\0" % 512
    block[482:483] = b"\0"
    block[483:495] = b"%011o\0" % (8 << 30)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    (copied / f"{SHARD}.tar").write_bytes(bytes(block) + b"{}".ljust(512) + bytes(1024))
    (copied / f"{SHARD}.json").unlink()
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    assert any("is no ordinary file" in problem for problem in report.problems)


def test_a_member_that_pax_headers_make_sparse_is_refused(copied: Path) -> None:
    info = tarfile.TarInfo("walk/b.json")
    info.size = 2
    info.pax_headers = {"GNU.sparse.map": "0,2", "GNU.sparse.size": str(8 << 30)}
    with tarfile.open(copied / f"{SHARD}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"{}"))
    (copied / f"{SHARD}.json").unlink()
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    assert any("is no ordinary file" in problem for problem in report.problems)


def test_sizes_whose_sum_goes_round_are_seen_at_once(copied: Path) -> None:
    wrapping_sizes(copied)
    with pytest.raises(DatasetError, match="Expected `int` <= "):
        open_dataset(copied).metadata(KEY)


def test_a_header_of_a_tar_that_asks_for_gigabytes_costs_none(copied: Path) -> None:
    """The length of pax headers and long names is read before anything else is known."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("walk/b.json")
        info.type, info.size = kind, 7 << 30
        (copied / f"{SHARD}.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
        (copied / f"{SHARD}.json").unlink(missing_ok=True)
        report = verify_dataset(copied, repair=True)
        assert report.repaired == []
        assert any("cannot be rebuilt" in problem for problem in report.problems)


def test_a_size_below_zero_does_not_lead_round_for_ever(copied: Path) -> None:
    first = tarfile.TarInfo("walk/a.json").tobuf(tarfile.GNU_FORMAT)
    block = bytearray(tarfile.TarInfo("walk/b.json").tobuf(tarfile.GNU_FORMAT))
    # Base 256, two's complement: after it the tar goes on 512 bytes back, at itself.
    block[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    (copied / f"{SHARD}.tar").write_bytes(first + bytes(block) + bytes(1024))
    (copied / f"{SHARD}.json").unlink()
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    assert any("cannot be rebuilt" in problem for problem in report.problems)


def test_no_index_is_rebuilt_of_another_videos_metadata(copied: Path) -> None:
    with metadata(copied) as content:
        content["key"] = "jump/a"
    (copied / f"{SHARD}.json").unlink()
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    assert any("it is of jump/a" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", {"decode": "long"}),
        ("seconds", {"decode": [1]}),
        ("seconds", [1]),
        ("seconds", {"decode": -1}),
        ("reason", "because"),
        ("reason", []),
    ],
)
def test_what_reports_count_is_checked(copied: Path, field: str, value: object) -> None:
    set_field(field, value)(copied)
    with pytest.raises(DatasetError, match="is damaged"):
        describe_dataset(copied)
    assert verify_dataset(copied).problems


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("flow", "bound_px", 24.0),
        ("flow", "quantizer", None),
        (None, "class_names", ["walk", "jump"]),
        (None, "extra", 1),
    ],
)
def test_an_edited_header_is_noticed(
    copied: Path, section: str | None, field: str, value: object
) -> None:
    """Nothing else tells a bound of 24 px from one of 20, and all flow would be read otherwise."""
    path = copied / "dataset.json"
    values = json.loads(path.read_text())
    part = values["config"][section] if section else values
    if field == "quantizer":
        part |= {"quantizer": "floor", "center_level": 127.0}
    else:
        part[field] = value
    path.write_text(json.dumps(values))
    open_dataset(copied)
    assert any("dataset.json" in problem for problem in verify_dataset(copied).problems)


def test_a_header_without_a_checksum_is_one_of_before(copied: Path) -> None:
    path = copied / "dataset.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values, indent=1))
    assert verify_dataset(copied).problems == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("versions", [1]),
        ("versions", None),
        ("origin", [1]),
        ("origin", {"unknown": 5}),
        ("class_names", "jump"),
        ("implementation", {}),
    ],
)
def test_a_header_of_other_types_is_refused(copied: Path, field: str, value: object) -> None:
    path = copied / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DatasetError, match=r"dataset.json is damaged"):
        open_dataset(copied)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("manifest", "shard", "x"),
        ("manifest", "shard", [1]),
        ("manifest", "shard", -1),
        ("manifest", "key", ["a"]),
        ("manifest", "source", None),
        ("manifest", "labels", [True]),
        ("manifest", "labels", [[]]),
        ("manifest", "split", 3),
        ("manifest", "start_seconds", "0"),
        ("manifest", "end_seconds", float("nan")),
        ("failures", "key", ["a"]),
        ("failures", "reason", {}),
        ("failures", "reason", "because"),
        ("failures", "attempts", "3"),
    ],
)
def test_forged_lines_are_refused(copied: Path, file: str, field: str, value: object) -> None:
    path = copied / f"{file}.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | {field: value}) + "\n" + "".join(others))
    if file == "failures":
        # The sidecars say the same, so nothing is lost.
        (problem,) = verify_dataset(copied).problems
        assert problem.startswith("failures.jsonl is damaged; `flowprep verify --repair` ")
    else:
        with pytest.raises(DatasetError, match=rf"{file}.jsonl line 1 is damaged"):
            verify_dataset(copied)
    with pytest.raises(DatasetError, match=rf"{file}.jsonl line 1 is damaged"):
        describe_dataset(copied)


@pytest.mark.parametrize(
    "change",
    [
        {"wall_seconds": "long"},
        {"wall_seconds": float("nan")},
        {"num_pairs": 10**400},
        {"failures": {"crashed": []}},
        {"stage_seconds": 3},
        {"updated": "2026-01-01T00:00:00"},
        {"state": "asleep"},
        {"driver": {}},
        {"slowest": [{"key": "a", "seconds": None}]},
        {"nodes": {"a": {"num_videos": "x"}}},
    ],
)
def test_forged_progress_is_none(copied: Path, change: dict[str, Any]) -> None:
    path = copied / PROGRESS_FILE
    values = json.loads(path.read_text())
    assert read_status(copied).progress is not None
    path.write_text(json.dumps(values | change))
    assert read_status(copied).progress is None
    path.write_text("[" * 200_000)
    assert read_status(copied).progress is None


def test_text_that_no_terminal_shows_ends_no_command(
    copied: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = copied / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line | {"split": "\ud800"}) + "\n" for line in lines))
    # As a terminal's, which takes no half of a character.
    monkeypatch.setattr(sys, "stdout", open(1, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(copied)])
    sys.stdout.flush()
    assert ended.value.code == 1
    assert b"split is test, but the manifest says" in capfdbinary.readouterr().out


def test_no_orientation_turns_a_picture_against_its_flow(copied: Path) -> None:
    """EXIF says "turn me by 180 degrees"; the index, the flow and our own decoder know nothing."""
    truth = open_dataset(copied)
    expected = truth.quantized(KEY, 0, 1), truth.frames(KEY, [0])
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    video = truth.videos[KEY]
    for stream, flags in (("flow_x", cv2.IMREAD_GRAYSCALE), ("rgb", cv2.IMREAD_COLOR)):
        jpeg = truth.jpegs(KEY, stream, 0, 1)[0]
        turned = jpeg[:2] + exif + jpeg[2:]
        plain = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags)
        upside_down = cv2.imdecode(np.frombuffer(turned, np.uint8), flags)
        assert np.array_equal(upside_down, plain[::-1, ::-1])
        assert np.array_equal(stored_jpegs.decode_jpeg(turned, flags, video, stream), plain)
    assert np.array_equal(truth.quantized(KEY, 0, 1), expected[0])


# ---- headers of JPEGs


def test_headers_say_what_opencv_decodes(tmp_path: Path) -> None:
    for size in ((24, 16), (1, 1), (300, 200)):
        path = tmp_path / "one.jpg"
        readers.write_gray(path, readers.field(1, size))
        assert read_jpeg_header(path.read_bytes()) == JpegHeader(*size, 1)
        readers.write_gray(path, np.dstack([readers.field(1, size)] * 3))
        assert read_jpeg_header(path.read_bytes()) == JpegHeader(*size, 3)


def test_no_cut_or_changed_header_raises(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    readers.write_gray(path, readers.field(1))
    data = path.read_bytes()
    for end in range(len(data)):
        read_jpeg_header(data[:end])
    random = np.random.default_rng(2)
    for _ in range(2000):
        changed = bytearray(data)
        for at in random.integers(0, 300, 3):
            changed[at] = random.integers(256)
        read_jpeg_header(bytes(changed))
    assert read_jpeg_header(b"") is None
    assert read_jpeg_header(b"\xff\xd8") is None
    assert read_jpeg_header(b"\x89PNG\r\n\x1a\n") is None
