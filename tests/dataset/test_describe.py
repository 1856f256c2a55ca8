"""A description counts what is there, from the records alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flowprep
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.layout import shard_name, sidecar_name
from flowprep.errors import DatasetError
from tests.dataset.conftest import CONFIG


def test_a_description_has_the_numbers_of_the_set(made_once: Path) -> None:
    description = describe_dataset(made_once)
    assert description.location == str(made_once)
    assert description.header.config == CONFIG
    assert (description.num_videos, description.num_stored, description.num_failed) == (5, 4, 1)
    assert description.num_partial == 0
    assert description.num_shards == 3
    assert description.num_bytes == sum(p.stat().st_size for p in made_once.glob("shards/*.tar"))
    assert description.num_flows == 5 + 4 + 6 + 3
    assert description.frames == (4, 5.5, 7)
    assert description.sizes == {"56x40": 4}
    # One video has both labels.
    assert description.labels == {0: 2, 1: 3}
    assert description.splits == {"train": 2, "test": 1}
    assert description.failures == {"unreadable": 1}
    assert set(description.seconds) == {"decode", "flow", "encode", "write"}
    dataset = flowprep.open_dataset(made_once)
    statistics = [
        direction
        for video in dataset.videos
        for direction in dataset.metadata(video.key).flow.values()
    ]
    assert description.clipped_share == pytest.approx(
        sum(s.num_clipped for s in statistics) / sum(s.num_values for s in statistics)
    )


def test_a_description_is_json(made_once: Path) -> None:
    values = json.loads(json.dumps(describe_dataset(made_once).to_dict()))
    assert values["num_flows"] == 18
    assert values["frames"] == [4, 5.5, 7]
    assert values["class_names"] == ["jump", "walk"]
    assert values["config"] == json.loads(json.dumps(CONFIG.to_dict()))
    assert values["failures"] == {"unreadable": 1}
    assert "header" not in values


def test_a_summary_says_it_in_words(made_once: Path) -> None:
    lines = describe_dataset(made_once).summary().splitlines()
    assert lines[0] == str(made_once)
    assert "  videos      4 of 5 stored, 1 failed" in lines
    assert "  flow        18 fields per direction, forward and backward, with RGB frames" in lines
    assert "  algorithm   farneback (flowprep-1), step 1" in lines
    assert any(
        line.startswith("  quantized   round, bound 20 px, 0.1569 px per level, ") for line in lines
    )
    assert "  frames      none, area, source frame rate" in lines
    assert "  lengths     4 to 7 frames, median 5.5" in lines
    assert "  sizes       56x40 (4)" in lines
    assert "  splits      test 1, train 2" in lines
    assert "  classes     jump (2), walk (3)" in lines
    assert "  failed      1 unreadable" in lines


def test_the_summary_of_another_spec_says_so(forward_only: Path) -> None:
    lines = describe_dataset(forward_only).summary().splitlines()
    assert "  flow        14 fields per direction, forward" in lines
    assert any(line.endswith(", step 2") for line in lines)
    assert any(
        line.startswith("  quantized   centered, bound 8 px, 0.0625 px per") for line in lines
    )


def test_videos_that_are_not_published_are_counted_as_waiting(copied: Path) -> None:
    (copied / sidecar_name(1)).unlink()
    (copied / shard_name(1)).unlink()
    description = describe_dataset(copied)
    assert (description.num_stored, description.num_shards) == (2, 2)
    assert "  videos      2 of 5 stored, 1 failed, 2 not published yet" in description.summary()


def test_a_set_without_a_shard_is_described(copied: Path) -> None:
    for sidecar in (copied / "shards").glob("*.json"):
        sidecar.unlink()
    description = describe_dataset(copied)
    assert description.frames is None
    assert description.clipped_share == 0
    assert "lengths" not in description.summary()
    json.dumps(description.to_dict())


def test_labels_without_names_are_shown_as_numbers(copied: Path) -> None:
    header = copied / "dataset.json"
    values = json.loads(header.read_text())
    values["class_names"] = []
    header.write_text(json.dumps(values))
    assert "  classes     0 (2), 1 (3)" in describe_dataset(copied).summary().splitlines()


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a flowprep data set: no dataset\.json; name"):
        describe_dataset(tmp_path)
