"""Names and records of a data set: round trips, versions, and what damage says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.layout import (
    DATASET_FILE,
    FAILURES_FILE,
    MANIFEST_FILE,
    DatasetHeader,
    Failure,
    ManifestEntry,
    Sidecar,
    VideoRecord,
    flatten,
    read_failures,
    read_manifest,
    read_sidecar,
    shard_name,
    sidecar_name,
    stream_names,
    write_failures,
    write_manifest,
)
from flowprep.dataset.parts import part_name
from flowprep.errors import ConfigMismatchError, DatasetError, StorageError
from flowprep.flow.parameters import DISParameters
from flowprep.inputs.video import Video
from flowprep.storage import Storage

HEADER = DatasetHeader(
    ExtractConfig(flow=FlowSpec("dis")), "opencv-5", ("jump", "walk"), {"numpy": "2.0"}
)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


# ---- names


def test_names_sort_by_number() -> None:
    assert shard_name(12) == "shards/000012.tar"
    assert sidecar_name(12) == "shards/000012.json"
    assert part_name(12, 345, "stall") == ".parts/000012/00000345.stall"


def test_streams_have_one_order() -> None:
    everything = ["flow_x", "flow_y", "back_x", "back_y", "rgb"]
    assert stream_names(EncodeSpec()) == everything
    assert stream_names(EncodeSpec(directions=("backward", "forward"))) == everything
    assert stream_names(EncodeSpec(directions=("backward",), keep_rgb=False)) == [
        "back_x",
        "back_y",
    ]


def test_flatten_joins_names_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


# ---- dataset.json


def test_a_header_round_trips(storage: Storage) -> None:
    storage.write_bytes(DATASET_FILE, HEADER.to_json())
    assert DatasetHeader.read(storage) == HEADER


def test_a_folder_without_a_header_is_no_data_set(storage: Storage) -> None:
    with pytest.raises(DatasetError) as caught:
        DatasetHeader.read(storage)
    assert str(caught.value) == (
        f"{storage.location} is not a flowprep data set: no dataset.json; name the folder that "
        f"extract wrote"
    )


def edited(change: Callable[[dict[str, Any]], Any]) -> bytes:
    values = json.loads(HEADER.to_json())
    change(values)
    return json.dumps(values).encode()


def test_a_newer_version_is_refused(storage: Storage) -> None:
    storage.write_bytes(DATASET_FILE, edited(lambda v: v.update(format_version=2, config="new")))
    with pytest.raises(DatasetError) as caught:
        DatasetHeader.read(storage)
    assert str(caught.value) == (
        f"{storage.location} has format version 2.1, this flowprep reads versions up to 1.1; "
        "install a newer flowprep"
    )
    storage.write_bytes(DATASET_FILE, edited(lambda v: v.update(format_minor=2)))
    with pytest.raises(DatasetError, match=r"has format version 1\.2, this flowprep reads"):
        DatasetHeader.read(storage)


def test_another_programs_header_is_refused(storage: Storage) -> None:
    storage.write_bytes(DATASET_FILE, edited(lambda v: v.update(format="other")))
    with pytest.raises(DatasetError) as caught:
        DatasetHeader.read(storage)
    assert str(caught.value) == (
        f"{storage.location}: dataset.json is not flowprep's; name a folder that extract wrote"
    )


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "JSONDecodeError: Expecting value"),
        (HEADER.to_json()[:-40], "JSONDecodeError: "),
        (b"[1, 2]", "TypeError: "),
        (b"{\xff}", "UnicodeDecodeError: "),
        (edited(lambda v: v.pop("config")), "KeyError: 'config'"),
        (edited(lambda v: v.pop("class_names")), "KeyError: 'class_names'"),
        (edited(lambda v: v["config"].pop("flow")), "KeyError: 'flow'"),
        (edited(lambda v: v["config"]["flow"].pop("center_level")), "KeyError: 'center_level'"),
        (
            edited(lambda v: v["config"]["flow"].update(center_level=127)),
            r"center_level of quantizer round must be 127\.5, got 127",
        ),
        (
            edited(lambda v: v["config"]["flow"].update(quantizer="log")),
            "quantizer must be one of round, floor, centered, got 'log'",
        ),
        (
            edited(lambda v: v["config"]["flow"].update(subtract_mean=True)),
            "FlowSpec has no field subtract_mean; it has algorithm, bound_px, camera_motion, ",
        ),
        (
            edited(lambda v: v["config"]["flow"]["parameters"].update(x=1)),
            "DISParameters has no field x; it has ",
        ),
        (
            edited(lambda v: v["config"]["flow"].update(algorithm="flownet")),
            "algorithm must be one of .*, got 'flownet'",
        ),
    ],
)
def test_a_damaged_header_is_refused(storage: Storage, content: bytes, detail: str) -> None:
    storage.write_bytes(DATASET_FILE, content)
    with pytest.raises(DatasetError, match=f"dataset.json is damaged: {detail}"):
        DatasetHeader.read(storage)


def test_the_same_configuration_passes() -> None:
    HEADER.check_same(HEADER.config, "opencv-5", "OUT")


def test_fields_that_change_no_number_may_differ() -> None:
    other = ExtractConfig(HEADER.config.decode, HEADER.config.flow, EncodeSpec(videos_per_shard=7))
    HEADER.check_same(other, "opencv-5", "OUT")


def test_another_configuration_is_refused_with_both_values_of_each_field() -> None:
    other = ExtractConfig(
        DecodeSpec(fps=25.0, resize=Resize.parse("340x256")),
        FlowSpec("dis", DISParameters(patch_size=12), bound_px=15),
        EncodeSpec(directions=("forward",), jpeg_quality=100),
    )
    with pytest.raises(ConfigMismatchError) as caught:
        HEADER.check_same(other, "opencv-4", "OUT")
    assert str(caught.value) == (
        "OUT was made with another configuration:\n"
        "  decode.fps: nothing in the data set, 25.0 in this run\n"
        "  decode.resize: short:256 in the data set, 340x256 in this run\n"
        "  encode.directions: forward, backward in the data set, forward in this run\n"
        "  encode.jpeg_quality: 95 in the data set, 100 in this run\n"
        "  flow.bound_px: 20.0 in the data set, 15 in this run\n"
        "  flow.parameters.patch_size: nothing in the data set, 12 in this run\n"
        "  implementation: opencv-5 in the data set, opencv-4 in this run\n"
        "Run with the data set's values, or choose another output folder."
    )
    assert caught.value.differences["decode.fps"] == (None, 25.0)
    assert caught.value.differences["flow.bound_px"] == (20.0, 15)
    assert len(caught.value.differences) == 7


def test_another_algorithm_shows_the_parameters_of_both() -> None:
    with pytest.raises(ConfigMismatchError) as caught:
        HEADER.check_same(ExtractConfig(flow=FlowSpec("farneback")), "opencv", "OUT")
    differences = caught.value.differences
    assert differences["flow.algorithm"] == ("dis", "farneback")
    assert differences["flow.parameters.dis_preset"] == ("medium", None)
    assert differences["flow.parameters.winsize"] == (None, 15)


# ---- manifest and failures


VIDEOS = [
    ManifestEntry(Video("a/b", "/videos/a/b.mp4", (3,), "train"), 0),
    ManifestEntry(Video("c", "/videos/\udcff\u2028 \x85ü.mp4", (), None), 0),
    ManifestEntry(Video("d", "/videos/d.mp4", (0, 2), "val", 1.25, 11.5), 7),
]


def test_a_manifest_round_trips(storage: Storage) -> None:
    write_manifest(storage, VIDEOS)
    assert read_manifest(storage) == VIDEOS
    assert len(storage.read_bytes(MANIFEST_FILE).splitlines()) == len(VIDEOS)


def test_failures_round_trip_in_the_order_of_their_keys(storage: Storage) -> None:
    failures = [
        Failure("b", "/videos/b.mp4", "damaged", "line one\nline two", 1),
        Failure("a", "/videos/\udcff.mp4", "crashed", "ü", 3),
    ]
    write_failures(storage, failures)
    assert list(read_failures(storage).items()) == [("a", failures[1]), ("b", failures[0])]
    lines = [json.loads(line) for line in storage.read_bytes(FAILURES_FILE).splitlines()]
    assert [line["key"] for line in lines] == ["a", "b"]


def test_no_failures_file_means_no_failures(storage: Storage) -> None:
    assert read_failures(storage) == {}


def test_a_missing_manifest_is_a_dataset_error(storage: Storage) -> None:
    with pytest.raises(DatasetError) as caught:
        read_manifest(storage)
    assert str(caught.value) == (
        f"{storage.location} has no manifest.jsonl; run the same command that made the data set "
        "again, which makes it anew"
    )


GOOD_LINE = b'{"key":"a","source":"/a.mp4","labels":[],"split":null,"shard":0}\n'


@pytest.mark.parametrize(
    ("bad_line", "detail"),
    [
        (b'{"key":"a","source":\n', "JSONDecodeError: Expecting value"),
        (b"\xff\n", "UnicodeDecodeError: "),
        (b'"a"\n', "AttributeError: "),
        (b"{}\n", "KeyError: 'shard'"),
        (b'{"key":"a","shard":0}\n', "TypeError: .*source"),
        (GOOD_LINE.replace(b'"key"', b'"kez"'), "TypeError: .*kez"),
        (b"\n", "JSONDecodeError: "),
    ],
)
def test_a_damaged_manifest_line_is_named(storage: Storage, bad_line: bytes, detail: str) -> None:
    storage.write_bytes(MANIFEST_FILE, GOOD_LINE + bad_line + GOOD_LINE)
    with pytest.raises(DatasetError, match=f": manifest.jsonl line 2 is damaged: {detail}"):
        read_manifest(storage)


@pytest.mark.parametrize("bad_line", [b"{", b"5", b'{"key":"a"}', b"\xfe"])
def test_a_damaged_failures_line_is_named(storage: Storage, bad_line: bytes) -> None:
    storage.write_bytes(FAILURES_FILE, bad_line + b"\n")
    with pytest.raises(DatasetError, match=r": failures\.jsonl line 1 is damaged: "):
        read_failures(storage)


# ---- sidecars


names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=9)
records = st.builds(
    VideoRecord,
    key=names,
    status=st.sampled_from(["complete", "partial", "failed"]),
    labels=st.lists(st.integers(0, 700), max_size=3).map(tuple),
    split=st.none() | names,
    num_frames=st.integers(0, 10**6),
    num_flows=st.integers(0, 10**6),
    width=st.integers(0, 16384),
    height=st.integers(0, 16384),
    fps=st.none() | st.floats(0.1, 1000),
    num_values=st.integers(0, 2**60),
    num_clipped=st.integers(0, 2**60),
    members=st.dictionaries(names, st.tuples(st.integers(0, 2**45), st.integers(0, 2**45))),
    seconds=st.dictionaries(names, st.floats(0, 1e6)),
    reason=st.none() | st.just("crashed"),
    message=st.none() | st.text(),
    attempts=st.integers(1, 9),
)


@settings(deadline=None)
@given(record=records)
def test_a_record_round_trips_through_json(record: VideoRecord) -> None:
    assert VideoRecord.from_json(json.dumps(record.to_dict()).encode()) == record


def test_a_record_leaves_out_what_says_nothing() -> None:
    assert VideoRecord("a", "failed").to_dict() == {"key": "a", "status": "failed", "attempts": 1}


def test_a_message_may_name_a_file_whose_name_is_not_utf_8() -> None:
    message = os.fsdecode(b"no such file: caf\xe9.mp4")
    record = VideoRecord("a", "failed", reason="damaged", message=message)
    read = VideoRecord.from_json(json.dumps(record.to_dict()).encode())
    assert read.message == r"no such file: caf\udce9.mp4"


@pytest.mark.parametrize(
    "values",
    [
        {"width": True},
        {"width": 1.0},
        {"width": -1},
        {"width": 1 << 62},
        {"key": None},
        {"status": "done"},
        {"labels": 3},
        {"labels": ["3"]},
        {"fps": 0},
        {"members": {"json": [1]}},
        {"members": {"json": [1, 2, 3]}},
        {"seconds": {"flow": -1}},
        {"reason": "tired"},
        {"depth": 1},
    ],
)
def test_a_record_that_no_run_writes_is_refused(values: dict[str, object]) -> None:
    record = {"key": "a", "status": "complete"}
    assert VideoRecord.from_json(json.dumps(record).encode()) == VideoRecord("a", "complete")
    with pytest.raises(ValueError, match=r"Expected|Invalid|unknown"):
        VideoRecord.from_json(json.dumps(record | values).encode())


SIDECAR = Sidecar(
    4,
    12345,
    "ab" * 32,
    (
        VideoRecord("a", "complete", labels=(0,), num_frames=3, members={"json": (512, 9)}),
        VideoRecord("b", "failed", reason="damaged", message="at 3 s"),
    ),
)


def test_a_sidecar_round_trips_and_has_one_line_a_video(storage: Storage) -> None:
    storage.write_bytes(sidecar_name(4), SIDECAR.to_json())
    assert read_sidecar(storage, 4) == SIDECAR
    lines = SIDECAR.to_json().splitlines()
    assert len(lines) == 4
    assert json.loads(lines[1].rstrip(b","))["key"] == "a"


def test_a_sidecar_without_videos_round_trips(storage: Storage) -> None:
    empty = Sidecar(0, 1024, "00" * 32, ())
    storage.write_bytes(sidecar_name(0), empty.to_json())
    assert read_sidecar(storage, 0) == empty


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SIDECAR.to_json()[:100],
        SIDECAR.to_json().replace(b'"shard": 4', b'"shard": 5'),
        SIDECAR.to_json().replace(b'"format_version": 1', b'"format_version": 2'),
        SIDECAR.to_json().replace(b'"members"', b'"memberz"'),
        SIDECAR.to_json().replace(b"[512,9]", b"[512.9]"),
        SIDECAR.to_json().replace(b'"sha256"', b'"sha255"'),
        b"[]",
    ],
)
def test_a_damaged_sidecar_is_refused(storage: Storage, content: bytes) -> None:
    storage.write_bytes(sidecar_name(4), content)
    with pytest.raises(
        DatasetError,
        match=r"shards/000004\.json is damaged \(.*\); remove it and run `flowprep verify "
        r"--repair` to rebuild it from the tar$",
    ):
        read_sidecar(storage, 4)


def test_a_missing_sidecar_is_a_storage_error(storage: Storage) -> None:
    with pytest.raises(StorageError, match="shards/000004"):
        read_sidecar(storage, 4)
