"""Whole runs: publishing, resuming, extending, retrying, and workers that die."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions, open_dataset
from flowprep.config import Resize
from flowprep.dataset.layout import read_failures, read_manifest, read_sidecar
from flowprep.dataset.parts import write_part_record
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigMismatchError, DatasetError, InputError, StorageError
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.run.estimate import estimate_run
from flowprep.run.progress import RunReport
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import kill_job_holding, start_extract, wait_until

CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")),
    FlowSpec("farneback"),
    EncodeSpec(videos_per_shard=2),
)
NUM_FRAMES = 5


def write_clips(folder: Path, numbers: Sequence[int], size: tuple[int, int] = (64, 48)) -> Path:
    """Writes clips 00.mp4, 01.mp4, ... of folder `a` and `b` in turn."""
    for number in numbers:
        label = folder / "ab"[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        scene = action_scene(
            "move_left", num_frames=NUM_FRAMES, width=size[0], height=size[1], seed=number
        )
        write_video(label / f"{number:02d}.mp4", map(scene.frame, range(NUM_FRAMES)))
    return folder


@pytest.fixture(scope="module")
def five_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), range(5))


def run(
    videos: Path | Manifest, out: Path, config: ExtractConfig = CONFIG, **options: object
) -> RunReport:
    settings = {"executor": "inline", "progress": False, **options}
    executor = settings.pop("executor")
    return flowprep.extract(videos, out, config, executor=executor, options=RunOptions(**settings))


def tars(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shards/*.tar"))}


def test_run_publishes_every_video_and_leaves_nothing_else(
    five_clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = run(five_clips, out)
    assert (report.is_complete, report.exit_code) == (True, 0)
    assert (report.num_complete, report.num_failed) == (5, 0)
    assert report.num_pairs == 5 * (NUM_FRAMES - 1)
    assert sorted(path.name for path in out.iterdir()) == [
        *(
            ".lease.json",
            ".lock",
            "dataset.json",
            "failures.jsonl",
            "logs",
            "manifest.jsonl",
            "shards",
        )
    ]
    assert list(tars(out)) == ["000000.tar", "000001.tar", "000002.tar"]
    dataset = open_dataset(out)
    assert [video.key for video in dataset.videos] == ["a/00", "a/02", "a/04", "b/01", "b/03"]
    assert [video.label for video in dataset.videos] == [0, 0, 0, 1, 1]
    assert dataset.class_names == ("a", "b")
    assert verify_dataset(out, deep=True).problems == []


def test_ray_and_inline_give_the_same_bytes(five_clips: Path, tmp_path: Path) -> None:
    run(five_clips, tmp_path / "inline")
    report = run(five_clips, tmp_path / "ray", executor="ray", num_workers=2)
    assert report.is_complete
    assert tars(tmp_path / "ray") == tars(tmp_path / "inline")


def test_a_second_run_has_nothing_to_do(five_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(five_clips, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
    report = run(five_clips, out)
    assert (report.num_done_before, report.num_complete, report.is_complete) == (5, 0, True)
    assert {path: path.stat().st_mtime_ns for path in out.glob("shards/*")} == before


def test_added_videos_extend_the_set_and_touch_no_published_shard(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(3))
    out = tmp_path / "out"
    run(videos, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
    write_clips(videos, [3, 4])
    report = run(videos, out)
    assert (report.num_done_before, report.num_complete) == (3, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shards = {e.video.key: e.shard for e in read_manifest(Storage(out))}
    assert shards == {"a/00": 0, "a/02": 0, "b/01": 1, "a/04": 2, "b/03": 2}
    assert verify_dataset(out).problems == []


def test_a_new_class_keeps_the_numbers_of_the_old_ones(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(2))
    out = tmp_path / "out"
    run(videos, out)
    shutil.copytree(videos / "a", videos / "Aa")  # sorts before the others
    run(videos, out)
    dataset = open_dataset(out)
    assert dataset.class_names == ("a", "b", "Aa")
    assert {video.key: video.label for video in dataset.videos} == {
        "a/00": 0,
        "b/01": 1,
        "Aa/00": 2,
    }
    assert verify_dataset(out).problems == []


def test_another_configuration_is_refused_with_both_values(
    five_clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(five_clips, out)
    other = ExtractConfig(CONFIG.decode, FlowSpec("farneback", bound_px=15), CONFIG.encode)
    with pytest.raises(ConfigMismatchError) as caught:
        run(five_clips, out, other)
    assert caught.value.differences == {"flow.bound_px": (20.0, 15)}
    assert "flow.bound_px: 20.0 in the data set, 15 in this run" in str(caught.value)


def test_shard_size_may_change_between_runs(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(2))
    out = tmp_path / "out"
    run(videos, out)
    write_clips(videos, range(2, 5))
    run(videos, out, ExtractConfig(CONFIG.decode, CONFIG.flow, EncodeSpec(videos_per_shard=3)))
    assert [e.shard for e in read_manifest(Storage(out))] == [0, 0, 1, 1, 1]


def test_changed_label_is_refused(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(2))
    listed = videos / "list.txt"
    listed.write_text("a/00.mp4 0\nb/01.mp4 1\n")
    run(listed, tmp_path / "out")
    listed.write_text("a/00.mp4 0\nb/01.mp4 0\n")
    with pytest.raises(InputError, match=r"labels of b/01 must be \(1,\), .* got \(0,\)"):
        run(listed, tmp_path / "out")


def test_foreign_folder_is_refused(five_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DatasetError, match="is not empty and not a flowprep data set"):
        run(five_clips, tmp_path)


def test_failed_video_costs_itself_alone_and_is_listed(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(3))
    (videos / "a" / "broken.mp4").write_bytes(b"this is not a video")
    out = tmp_path / "out"
    report = run(videos, out)
    assert (report.num_complete, report.num_failed, report.exit_code) == (3, 1, 1)
    (failure,) = read_failures(Storage(out)).values()
    assert (failure.key, failure.reason, failure.attempts) == ("a/broken", "unreadable", 1)
    assert failure.source == str(videos / "a" / "broken.mp4")
    assert verify_dataset(out).problems == []
    # Without --retry-failed it is not tried again, and the run still says that it is incomplete.
    again = run(videos, out)
    assert (again.num_failed, again.exit_code) == (1, 1)
    assert again.failures == {"unreadable": 1}


def test_retry_failed_puts_repaired_videos_into_new_shards(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(3))
    good = (videos / "a" / "02.mp4").read_bytes()
    (videos / "a" / "02.mp4").write_bytes(b"")
    out = tmp_path / "out"
    run(videos, out)
    before = tars(out)
    (videos / "a" / "02.mp4").write_bytes(good)
    report = run(videos, out, retry_failed=True)
    assert (report.is_complete, report.num_complete, report.num_failed) == (True, 1, 0)
    assert {name: tars(out)[name] for name in before} == before
    assert open_dataset(out).videos["a/02"].shard == 2
    assert (out / "failures.jsonl").read_bytes() == b""
    assert verify_dataset(out).problems == []


def test_on_damage_cut_keeps_what_came_before_the_damage(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "odd" / "corrupted.mp4"
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("short:64")), FlowSpec("farneback"))
    report = run(source, tmp_path / "without", config)
    assert report.failures == {"damaged": 1}
    config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, on_damage="cut"))
    report = run(source, tmp_path / "with", config)
    assert (report.num_partial, report.exit_code) == (1, 0)
    (video,) = open_dataset(tmp_path / "with").videos
    assert video.is_partial
    assert verify_dataset(tmp_path / "with").num_partial == 1


class SimulatedCrashError(Exception):
    """Raised in the middle of a run."""


class CrashAfterThree(logging.Handler):
    """Ends the run that logs to it when three videos are finished."""

    num_finished = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.num_finished += "complete," in record.getMessage()
        if self.num_finished == 3:
            raise SimulatedCrashError


def crash_after_three(videos: Path, out: Path) -> None:
    handler = CrashAfterThree()
    logging.getLogger("flowprep").addHandler(handler)
    try:
        with pytest.raises(SimulatedCrashError):
            run(videos, out)
    finally:
        logging.getLogger("flowprep").removeHandler(handler)


def test_unfinished_run_goes_on_from_its_parts(five_clips: Path, tmp_path: Path) -> None:
    run(five_clips, tmp_path / "whole")
    out = tmp_path / "out"
    crash_after_three(five_clips, out)
    report = run(five_clips, out)
    assert (report.num_done_before, report.num_complete) == (3, 2)
    assert tars(out) == tars(tmp_path / "whole")
    assert verify_dataset(out).problems == []


@pytest.mark.parametrize("content", [b"", b'{"key": "a"}', b"[]"])
def test_a_part_whose_record_is_damaged_is_computed_again(
    content: bytes, five_clips: Path, tmp_path: Path
) -> None:
    run(five_clips, tmp_path / "whole")
    out = tmp_path / "out"
    crash_after_three(five_clips, out)
    (record,) = out.glob(".parts/*/*.json")
    record.write_bytes(content)
    report = run(five_clips, out)
    assert (report.num_done_before, report.num_complete) == (2, 3)
    assert tars(out) == tars(tmp_path / "whole")
    assert verify_dataset(out).problems == []


def test_lost_sidecar_is_rebuilt_by_the_next_run(five_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(five_clips, out)
    sidecar = out / "shards" / "000001.json"
    before = json.loads(sidecar.read_bytes())
    sidecar.unlink()
    report = run(five_clips, out)
    assert (report.num_done_before, report.num_complete) == (5, 0)
    after = json.loads(sidecar.read_bytes())
    for video in before["videos"]:
        del video["seconds"]
    assert after == before


def test_temporary_files_of_a_killed_run_are_removed(five_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(five_clips, out)
    (out / "shards" / "000003.tar.tmp-0123456789ab").write_bytes(b"half")
    (out / "manifest.jsonl.tmp-0123456789ab").write_bytes(b"half")
    assert len(verify_dataset(out).problems) == 2
    run(five_clips, out)
    assert verify_dataset(out).problems == []


def test_a_second_run_at_the_same_time_is_refused_by_name(five_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start_extract(five_clips, out, "--algorithm", "farneback", "--workers", "1")
    try:
        wait_until(lambda: (out / "manifest.jsonl").exists(), first)
        with pytest.raises(
            StorageError, match=f"another run is writing to .*process {first.pid} on"
        ):
            run(five_clips, out)
    finally:
        text, _ = first.communicate()
    assert first.returncode == 0, text


# The driver of a run whose files may not grow past 4 kB, as on a disk that is full.
CRAMPED_RUN = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from flowprep.cli import main
main(sys.argv[1:])
"""


def test_storage_that_takes_no_more_stops_the_run_and_corrupts_nothing(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(2))
    out = tmp_path / "out"
    run(videos, out)
    before = tars(out)
    write_clips(videos, [2])
    options = ("--algorithm", "farneback", "--resize", "none", "--executor", "inline")
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED_RUN, "extract", str(videos), str(out), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot write ")
    assert "Traceback" not in done.stderr
    assert tars(out) == before
    report = run(videos, out)
    assert (report.num_done_before, report.num_complete) == (2, 1)
    assert verify_dataset(out, deep=True).problems == []


def test_video_that_kills_its_worker_is_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", range(3), size=(160, 120))
    out = tmp_path / "out"
    process = start_extract(
        *(videos, out, "--algorithm", "tvl1-opencv", "--resize", "none", "--workers", "2"),
        *("--max-attempts", "2"),
    )
    stall = out / ".parts" / "000000" / "00000000.stall"
    kills = []

    def kill_whoever_takes_the_first_video() -> None:
        while process.poll() is None:
            if kill_job_holding(stall, process.pid):
                kills.append(stall)
            time.sleep(0.05)  # a busy loop would take a core from the run

    killer = threading.Thread(target=kill_whoever_takes_the_first_video)
    killer.start()
    text, _ = process.communicate()
    killer.join()
    assert process.returncode == 1, text
    assert len(kills) >= 2  # a process may be found again while it ends
    (failure,) = read_failures(Storage(out)).values()
    assert (failure.key, failure.reason, failure.attempts) == ("a/00", "crashed", 2)
    assert {video.key for video in open_dataset(out).videos} == {"a/02", "b/01"}
    assert verify_dataset(out).problems == []
    # It was no fault of the video: tried again, it is there.
    report = run(
        videos,
        out,
        ExtractConfig(CONFIG.decode, FlowSpec("tvl1-opencv")),
        retry_failed=True,
    )
    assert report.is_complete
    assert verify_dataset(out).problems == []


def test_worker_that_stalls_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code that gives no sign of life for the time limit: here one slow pair of frames.

    It takes OpenCV over a minute on one core, and one of the small clip's less than a tenth of a
    second: the limit lies far from both.
    """
    # Compiling takes longer than the limit, and is no stall.
    monkeypatch.setenv("FLOWPREP_CACHE_DIR", str(tmp_path / "cache"))
    scene = action_scene("move_left", num_frames=3, width=1024, height=768)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "slow.mp4", map(scene.frame, range(3)))
    write_clips(tmp_path / "videos", [1])
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("tvl1-opencv"))
    report = run(
        *(tmp_path / "videos", tmp_path / "out", config),
        executor="ray",
        num_workers=1,
        max_attempts=1,
        stall_timeout_seconds=8.0,
    )
    assert report.failures == {"stalled": 1}
    assert (report.num_complete, report.num_lost_workers) == (1, 1)
    (failure,) = read_failures(Storage(tmp_path / "out")).values()
    assert failure.message == "no progress for 8 s; the worker was ended"
    log = next((tmp_path / "out" / "logs").glob("*.log")).read_text()
    assert "opencv.py" in log  # where it hung


def test_memory_storage_takes_a_whole_run(five_clips: Path) -> None:
    """Any fsspec file system works; this one lives in the process, and so the run must."""
    out = "memory://flowprep-test/out"
    report = flowprep.extract(five_clips, out, CONFIG, executor="inline")
    assert report.is_complete
    assert verify_dataset(out, deep=True).problems == []
    dataset = open_dataset(out)
    assert dataset.flow("a/00", 1, 2).shape == (2, 48, 64, 2)
    Storage(out).remove("")


def test_the_library_forbids_urls_and_links_as_the_command_does(
    five_clips: Path, tmp_path: Path
) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    shutil.copy(five_clips / "a/00.mp4", inside / "own.mp4")
    (inside / "link.mp4").symlink_to(five_clips / "b/01.mp4")
    listed = inside / "list.txt"
    listed.write_text("own.mp4 0\nlink.mp4 0\nhttp://127.0.0.1:1/far.mp4 0\n")
    out = tmp_path / "out"
    flowprep.extract(listed, out, CONFIG, executor="inline", urls=False, follow_links=False)
    assert [video.key for video in open_dataset(out).videos] == ["own"]


class TestFoundAgain:
    """Videos that were missing are tried again by themselves when they are there."""

    def listed(self, tmp_path: Path, text: str) -> Path:
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists/train.txt").write_text(text)
        return tmp_path / "lists/train.txt"

    def extract(self, listed: Path, out: Path, root: Path | None = None) -> RunReport:
        return run(collect_videos(listed, root=root), out)

    def test_a_root_corrected(self, tmp_path: Path) -> None:
        videos, out = write_clips(tmp_path / "videos", range(3)), tmp_path / "out"
        listed = self.listed(tmp_path, "a/00.mp4 0\nb/01.mp4 1\na/02.mp4 0\na/gone.mp4 0\n")
        wrong = self.extract(listed, out)
        assert (wrong.num_complete, dict(wrong.failures)) == (0, {"missing": 4})
        foreseen = estimate_run(
            collect_videos(listed, root=videos), str(out), CONFIG, RunOptions(executor="inline")
        )
        assert foreseen.num_to_do == 3
        right = self.extract(listed, out, videos)
        assert (right.num_complete, right.num_failed, right.exit_code) == (3, 1, 1)
        assert (
            "  note          tried 3 videos again that failed as missing and are there now"
        ) in right.summary().splitlines()
        (failure,) = read_failures(Storage(out)).values()
        assert (failure.key, failure.source) == ("a/gone", str(videos / "a/gone.mp4"))
        assert [v.labels for v in open_dataset(out).videos] == [(0,), (1,), (0,)]
        assert verify_dataset(out, deep=True).problems == []
        manifest = (out / "manifest.jsonl").read_bytes()
        again = self.extract(listed, out, videos)
        assert (again.num_complete, again.notes) == (0, [])
        assert (out / "manifest.jsonl").read_bytes() == manifest
        write_clips(videos, [4])
        (videos / "a/04.mp4").rename(videos / "a/gone.mp4")
        assert self.extract(listed, out, videos).exit_code == 0
        assert read_failures(Storage(out)) == {}
        assert verify_dataset(out, deep=True).problems == []

    def test_in_a_run_that_was_ended(self, tmp_path: Path) -> None:
        videos, out = write_clips(tmp_path / "videos", range(2)), tmp_path / "out"
        listed = self.listed(tmp_path, "a/00.mp4 0\nb/01.mp4 1\n")
        self.extract(listed, out)
        record = read_sidecar(Storage(out), 0).videos[0]
        write_part_record(Storage(out), 0, 0, record)
        for path in out.glob("shards/*"):
            path.unlink()
        right = self.extract(listed, out, videos)
        assert (right.num_complete, right.exit_code) == (2, 0)
        assert right.notes == ["tried 1 video again that failed as missing and is there now"]
        assert read_failures(Storage(out)) == {}
        assert verify_dataset(out, deep=True).problems == []

    def test_other_failures_wait_to_be_asked_for(self, tmp_path: Path) -> None:
        videos, out = write_clips(tmp_path / "videos", range(2)), tmp_path / "out"
        (videos / "a/broken.mp4").write_bytes(b"no video")
        run(videos, out)
        assert run(videos, out).notes == []
        assert len(list(out.glob("shards/*.tar"))) == 2


def test_a_shard_of_failures_alone_goes_when_they_are_retried(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    for name in ("a/1.mp4", "b/2.mp4"):
        (videos / name).parent.mkdir(parents=True)
        (videos / name).write_bytes(b"no video")
    run(videos, out)
    sidecar = (out / "shards/000000.json").read_bytes()
    write_clips(videos, range(1))
    run(videos, out, retry_failed=True)
    assert verify_dataset(out, deep=True).problems == []
    before = sorted((out / "shards").iterdir())
    assert "000000.tar" not in tars(out)
    # As a run leaves it that was ended before it removed the second file.
    (out / "shards/000000.json").write_bytes(sidecar)
    run(videos, out)
    assert verify_dataset(out, deep=True).problems == []
    assert sorted((out / "shards").iterdir()) == before
