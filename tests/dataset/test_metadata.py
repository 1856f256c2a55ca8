"""`KEY.json`: its bytes, and what a reader refuses."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

import flowprep
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.quantize import HISTOGRAM_NUM_BINS
from flowprep.errors import ConfigError

VERSION_1 = Path(__file__).parents[1] / "data/v1/flow"


def contents(out: Path) -> Iterator[bytes]:
    for path in sorted(out.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    content = tar.extractfile(member)
                    assert content is not None
                    yield content.read()


def test_what_was_read_is_written_byte_by_byte_alike(made_once: Path) -> None:
    number = 0
    for out in (made_once, VERSION_1):
        for content in contents(out):
            assert VideoMetadata.from_json(content).to_json() == content
            number += 1
    assert number >= 6


def test_version_1_lacks_what_1_1_added(made_once: Path) -> None:
    (new, *_), (old, *_) = contents(made_once), contents(VERSION_1)
    assert VideoMetadata.from_json(old).format_minor is UNSET
    assert VideoMetadata.from_json(old).frame_counts is UNSET
    assert VideoMetadata.from_json(new).format_minor == 1
    assert VideoMetadata.from_json(new).frame_counts is not UNSET


def test_numbers_keep_their_kind(made_once: Path) -> None:
    values = json.loads(next(contents(made_once)))
    for fps in (25, 25.0, 29.97, None):
        content = json.dumps(values | {"fps": fps}, separators=(",", ":")).encode() + b"\n"
        assert VideoMetadata.from_json(content).to_json() == content


def test_notes_of_an_import_are_at_the_end(made_once: Path) -> None:
    values = json.loads(next(contents(VERSION_1))) | {"notes": {"numbers-differ": "1 and 2"}}
    content = json.dumps(values, separators=(",", ":")).encode() + b"\n"
    assert VideoMetadata.from_json(content).to_json() == content


def test_what_a_later_version_adds_is_passed_over(made_once: Path) -> None:
    content = next(contents(made_once))
    values = json.loads(content) | {"not_yet_known": [1, 2]}
    assert VideoMetadata.from_json(json.dumps(values).encode()).to_json() == content


def test_a_source_need_not_be_utf_8(made_once: Path) -> None:
    values = json.loads(next(contents(made_once))) | {"source": "/\udcff.mp4"}
    metadata = VideoMetadata.from_json(json.dumps(values).encode())
    assert metadata.source == "/\udcff.mp4"
    assert json.loads(metadata.to_json()) == values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", 3),
        ("width", -1),
        ("num_flows", 2.5),
        ("labels", [True]),
        ("status", "failed"),
        ("fps", 0),
        ("sizes", {"flow_x": [10, 0]}),
        ("sizes", {"flow_x": [1 << 62]}),
        ("sizes", [[10]]),
        ("flow", {"forward": {}}),
        ("flow", {"sideways": {}}),
        ("frame_counts", {"lead_in": 0}),
        ("frame_counts", None),
        ("notes", {"no such code": ""}),
        ("pixel_aspect", [1]),
    ],
)
def test_a_field_that_is_damaged_is_refused(made_once: Path, name: str, value: Any) -> None:
    values = json.loads(next(contents(made_once)))
    assert name in values
    with pytest.raises(ValueError, match=rf"`\$\.{name}"):
        VideoMetadata.from_json(json.dumps(values | {name: value}).encode())


@pytest.mark.parametrize("name", ["key", "source", "num_frames", "flow", "sizes", "codec"])
def test_a_field_that_is_missing_is_named(made_once: Path, name: str) -> None:
    values = json.loads(next(contents(made_once)))
    del values[name]
    with pytest.raises(ValueError, match=f"missing required field `{name}`"):
        VideoMetadata.from_json(json.dumps(values).encode())


def test_a_histogram_has_no_more_bins_than_there_are(made_once: Path) -> None:
    values = json.loads(next(contents(made_once)))
    values["flow"]["forward"]["magnitude_histogram"] = [1] * (HISTOGRAM_NUM_BINS + 1)
    VideoMetadata.from_json(json.dumps(values).encode())
    values["flow"]["forward"]["magnitude_histogram"].append(1)
    with pytest.raises(ValueError, match=f"length <= {HISTOGRAM_NUM_BINS + 1}"):
        VideoMetadata.from_json(json.dumps(values).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 200_000])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        VideoMetadata.from_json(content)


def test_a_data_set_gives_its_metadata_and_offsets(made_once: Path) -> None:
    dataset = flowprep.open_dataset(made_once)
    for video in dataset.videos:
        metadata = dataset.metadata(video.key)
        assert (metadata.key, metadata.num_flows) == (video.key, video.num_flows)
        for name, sizes in metadata.sizes.items():
            offsets = dataset.offsets(video.key, name)
            assert offsets.tolist() == [sum(sizes[:n]) for n in range(len(sizes) + 1)]
    with pytest.raises(ConfigError, match="holds no flow_z; it has flow_x"):
        dataset.offsets(dataset.videos[0].key, "flow_z")
