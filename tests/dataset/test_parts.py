"""Parts: finished videos of shards that are not published yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.dataset.layout import PARTS_FOLDER, VideoRecord, sidecar_name
from flowprep.dataset.parts import (
    find_part_record,
    holds_published_alone,
    list_parts,
    num_finished_parts,
    recorded_parts,
    remove_all_parts,
    remove_part_record,
    write_part_record,
)
from flowprep.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> Storage:
    return Storage(tmp_path / "out" if request.param == "local" else memory)


def record(key: str) -> VideoRecord:
    return VideoRecord(key, "failed", reason="missing", message="gone")


def test_a_record_that_is_taken_back_says_nothing_any_more(storage: Storage) -> None:
    for index, key in enumerate("abc"):
        write_part_record(storage, 7, index, record(key))
    remove_part_record(storage, 7, 1)
    names = list_parts(storage, 7)
    assert dict(recorded_parts(storage, 7, names)) == {0: record("a"), 2: record("c")}
    assert num_finished_parts(storage, 7) == 2
    assert find_part_record(storage, 7, 1) is None
    assert find_part_record(storage, 7, 3) is None
    write_part_record(storage, 7, 1, record("b"))
    assert find_part_record(storage, 7, 1) == record("b")
    assert num_finished_parts(storage, 7) == 3


def test_parts_of_shards_that_another_run_has_planned_stay(storage: Storage) -> None:
    for shard in (0, 1, 5):
        write_part_record(storage, shard, 0, record("a"))
    for shard in (0, 1):
        storage.write_bytes(sidecar_name(shard), b"published")
    assert not holds_published_alone(storage)
    remove_all_parts(storage, {0})
    assert storage.list_names(PARTS_FOLDER) == ["000001", "000005"]
    remove_all_parts(storage, {5})
    assert storage.list_names(PARTS_FOLDER) == ["000001"]
    assert holds_published_alone(storage)
    remove_all_parts(storage, {1})
    assert not storage.exists(PARTS_FOLDER)
