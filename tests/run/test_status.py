"""How far a run is: counted from files, in the midst of it, after a crash, and at the end."""

from __future__ import annotations

import json
import logging
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest

import flowprep
from flowprep import ExtractConfig, FlowSpec, RunOptions
from flowprep.config import EncodeSpec
from flowprep.dataset.layout import LEASE_FILE, MANIFEST_FILE, VideoRecord
from flowprep.dataset.lease import locked_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import DatasetError
from flowprep.run import status
from flowprep.run.progress import RunReport
from flowprep.run.status import PROGRESS_FILE, ProgressRecorder, RunProgress, read_status
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video

CONFIG = ExtractConfig(flow=FlowSpec("dis"), encode=EncodeSpec(videos_per_shard=2))
NUM_CLIPS, NUM_FRAMES = 5, 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(NUM_CLIPS):
        scene = action_scene("zoom_in", num_frames=NUM_FRAMES, width=48, height=32, seed=number)
        write_video(folder / f"{number}.mp4", map(scene.frame, range(NUM_FRAMES)))
    return folder


def extract(videos: Path, out: Path, **options: object) -> RunReport:
    settings = RunOptions(**{"progress": False, **options})
    return flowprep.extract(videos, out, CONFIG, executor="inline", options=settings)


def test_a_finished_run(videos: Path, tmp_path: Path) -> None:
    report = extract(videos, tmp_path)
    found = read_status(tmp_path)
    assert (found.state, found.num_done, found.num_videos) == ("complete", NUM_CLIPS, NUM_CLIPS)
    assert (found.num_published_shards, found.num_shards, found.num_waiting) == (3, 3, 0)
    assert found.silent_seconds is None
    run = found.progress
    assert run is not None
    assert (run.state, run.num_remaining, run.estimated_finish) == ("complete", 0, None)
    assert run.num_pairs == report.num_pairs == NUM_CLIPS * (NUM_FRAMES - 1)
    assert run.num_bytes == report.num_bytes
    (node,) = run.nodes.values()
    assert (node.num_videos, node.num_pairs) == (NUM_CLIPS, report.num_pairs)
    assert node.busy_seconds == pytest.approx(sum(report.seconds.values()), abs=0.01)
    assert {video.key for video in run.slowest} == {str(n) for n in range(NUM_CLIPS)}
    assert [v.seconds for v in run.slowest] == sorted(
        (v.seconds for v in run.slowest), reverse=True
    )
    assert f"complete: {NUM_CLIPS} of {NUM_CLIPS} videos done (100.0 %)" in found.summary()
    assert verify_dataset(tmp_path).is_whole


class LookAfterThree(logging.Handler):
    """Reads the status when three videos are finished, and ends the run with an error."""

    seen: status.RunStatus | None = None
    num_finished = 0

    def __init__(self, out: Path, error: type[BaseException]) -> None:
        super().__init__()
        self._out, self._error = out, error

    def emit(self, record: logging.LogRecord) -> None:
        self.num_finished += "complete," in record.getMessage()
        if self.num_finished == 3 and self.seen is None:
            self.seen = read_status(self._out)
            raise self._error


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")]
)
def test_in_the_midst_of_a_run_and_after_it_broke_off(
    videos: Path, tmp_path: Path, error: type[BaseException], state: str
) -> None:
    handler = LookAfterThree(tmp_path, error)
    logging.getLogger("flowprep").addHandler(handler)
    try:
        with pytest.raises(error):
            extract(videos, tmp_path)
    finally:
        logging.getLogger("flowprep").removeHandler(handler)
    seen = handler.seen
    assert seen is not None
    assert seen.state == "running"
    assert (seen.num_published, seen.num_waiting) == (2, 1)
    assert seen.num_done == 3
    after = read_status(tmp_path)
    assert (after.state, after.num_done) == (state, 3)
    extract(videos, tmp_path)
    assert read_status(tmp_path).state == "complete"


def test_failed_videos_are_counted_by_reason(videos: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(videos, tmp_path / "videos")
    (mixed / "broken.mp4").write_bytes(b"no video")
    extract(mixed, tmp_path / "out")
    found = read_status(tmp_path / "out")
    assert (found.state, found.num_failed) == ("incomplete", 1)
    assert found.failures == {"unreadable": 1}
    assert found.num_done == found.num_videos == NUM_CLIPS + 1
    assert "failed        1 video: 1 unreadable" in found.summary()


def edited(out: Path, **values: object) -> None:
    path = out / PROGRESS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_driver_that_does_not_write_any_more_is_silent(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path)
    edited(tmp_path, state="running", updated="2020-01-01T00:00:00+00:00")
    found = read_status(tmp_path)
    assert found.state == "silent"
    assert "if it is gone, run the same command again" in found.summary()
    # A driver whose clock is ahead was heard of just now.
    edited(tmp_path, updated="2999-01-01T00:00:00+00:00")
    assert read_status(tmp_path).state == "running"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run": 1}', "\x00"])
def test_a_damaged_progress_file_costs_only_what_it_said(
    videos: Path, tmp_path: Path, content: str
) -> None:
    extract(videos, tmp_path)
    (tmp_path / PROGRESS_FILE).write_text(content)
    found = read_status(tmp_path)
    assert (found.progress, found.state, found.num_done) == (None, "complete", NUM_CLIPS)


def test_the_progress_of_a_run_that_was_taken_over_is_ignored(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path)
    storage, old = Storage(tmp_path), (tmp_path / PROGRESS_FILE).read_bytes()
    progress = read_status(tmp_path).progress
    assert progress is not None
    assert progress.epoch == 1
    # A repair and the like keep no progress, so that of the last run stays.
    with locked_dataset(storage):
        assert read_status(tmp_path).progress == progress
    extract(videos, tmp_path)
    progress = read_status(tmp_path).progress
    assert progress is not None
    assert progress.epoch == 3
    storage.write_bytes(PROGRESS_FILE, old)
    assert read_status(tmp_path).progress is None
    # Of a version that did not count, and forged.
    for run in ("0123456789ab", "9" * 5000 + "-0123456789ab", "-1", "-"):
        edited(tmp_path, run=run)
        assert read_status(tmp_path).progress is None
        (tmp_path / LEASE_FILE).rename(tmp_path / "away")
        found = read_status(tmp_path).progress
        assert found is not None
        assert found.epoch == 0
        (tmp_path / "away").rename(tmp_path / LEASE_FILE)


def test_progress_survives_json(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path)
    progress = read_status(tmp_path).progress
    assert progress is not None
    assert RunProgress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress


def test_damaged_plan_is_an_error(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path)
    manifest = tmp_path / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:-4] + b"\n")
    with pytest.raises(DatasetError, match=r"manifest\.jsonl is damaged"):
        read_status(tmp_path)
    with pytest.raises(DatasetError, match="is not a flowprep data set"):
        read_status(tmp_path / "logs")


def recorder(folder: Path, num_videos: int) -> tuple[ProgressRecorder, RunReport]:
    report = RunReport(str(folder), num_videos)
    return ProgressRecorder(Storage(folder), report, num_videos, epoch=1), report


def finish(item: ProgressRecorder, report: RunReport, key: str, seconds: float, node: str) -> None:
    record = VideoRecord(key, "complete", num_flows=10, seconds={"flow": seconds})
    report.add(record)
    item.finished(record, node)


def test_finish_is_foreseen_from_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    item, report = recorder(tmp_path, 100)
    assert item.write() is not None
    for number in range(25):
        finish(item, report, str(number), 1.0, "one")
    now += 5.0
    assert item.write() is None  # it is not time yet
    now += 45.0
    progress = item.write()
    assert progress is not None
    assert progress.videos_per_second == 0.5
    assert progress.pairs_per_second == 5.0
    assert progress.estimated_finish is not None
    left = datetime.fromisoformat(progress.estimated_finish) - datetime.fromisoformat(
        progress.updated
    )
    assert left.total_seconds() == pytest.approx(75 / 0.5, abs=1)
    # Old work does not count for the rate: nothing happened in the last ten minutes.
    now += 300.0
    item.write()
    now += 400.0
    assert item.write() is not None
    now += 400.0
    progress = item.write()
    assert progress is not None
    assert (progress.videos_per_second, progress.estimated_finish) == (0.0, None)


def test_the_slowest_and_the_longest_in_flight_are_kept(tmp_path: Path) -> None:
    item, report = recorder(tmp_path, 1000)
    for number in range(500):
        item.submitted(str(number))
    for number in range(400):
        finish(item, report, str(number), float(number * 7 % 400), f"node-{number % 3}")
    item.lost("400")
    progress = item.write()
    assert progress is not None
    assert [video.seconds for video in progress.slowest] == list(range(399, 389, -1))
    assert [video.key for video in progress.in_flight] == [str(n) for n in range(401, 421)]
    assert sum(node.num_videos for node in progress.nodes.values()) == 400
    assert list(progress.nodes) == ["node-0", "node-1", "node-2"]


def test_storage_that_fails_ends_no_run(tmp_path: Path) -> None:
    item, _ = recorder(tmp_path, 10)
    (tmp_path / "logs").write_text("in the way")
    assert item.write() is None
    assert item.write("failed") is not None
