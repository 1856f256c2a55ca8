"""Long videos cut into segments: the data set is that of an uncut run, byte for byte."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import CenterCrop, OnDamage, Resize
from flowprep.dataset.layout import read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.run.progress import RunReport
from flowprep.run.segments import CutVideos
from flowprep.run.status import read_status
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import kill_job_holding, start_extract

NUM_FRAMES = 130
CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")),
    FlowSpec("farneback"),
    EncodeSpec(videos_per_shard=2),
)


def write_clip(path: Path, num_frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = action_scene("zoom_in", num_frames=num_frames, width=size[0], height=size[1])
    write_video(path, map(scene.frame, range(num_frames)))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long video between two short ones."""
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in (("a", 5), ("long", NUM_FRAMES), ("z", 6)):
        write_clip(folder / f"{name}.mp4", num_frames)
    return folder


@pytest.fixture(scope="module")
def uncut(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uncut") / "out"
    assert run(videos, out, segment_frames=0).is_complete
    return out


def run(
    videos: Path | Manifest, out: Path | str, config: ExtractConfig = CONFIG, **options: Any
) -> RunReport:
    settings = RunOptions(progress=False, **options)
    return flowprep.extract(videos, out, config, executor="inline", options=settings)


def records(out: Path) -> list[dict[str, Any]]:
    """The sidecars' records, without what differs from run to run."""
    found = []
    for path in sorted(out.glob("shards/*.json")):
        for video in json.loads(path.read_bytes())["videos"]:
            found.append({k: v for k, v in video.items() if k not in ("seconds", "attempts")})
    return found


def log_of(out: Path) -> str:
    return "".join(path.read_text() for path in sorted(out.glob("logs/*.log")))


def assert_same(out: Path, expected: Path) -> None:
    names = ["dataset.json", "failures.jsonl", "manifest.jsonl"]
    tars = [f"shards/{path.name}" for path in sorted(expected.glob("shards/*.tar"))]
    assert sorted(path.name for path in out.glob("shards/*.tar")) == [name[7:] for name in tars]
    for name in names + tars:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert records(out) == records(expected)
    assert not (out / ".parts").exists()
    assert verify_dataset(out, deep=True).problems == []


@pytest.mark.parametrize("segment_frames", [1, 13, 50, 64])
def test_cut_and_uncut_give_the_same_bytes(
    segment_frames: int, videos: Path, uncut: Path, tmp_path: Path
) -> None:
    report = run(videos, tmp_path / "out", segment_frames=segment_frames)
    assert (report.num_complete, report.num_failed) == (3, 0)
    assert report.num_pairs == NUM_FRAMES - 1 + 4 + 5
    num_segments = -(-(NUM_FRAMES - 1) // segment_frames)
    assert f"long: cut into {num_segments} segments" in log_of(tmp_path / "out")
    assert "extracted uncut" not in log_of(tmp_path / "out")
    assert_same(tmp_path / "out", uncut)


@pytest.mark.parametrize(
    ("decode", "flow", "encode"),
    [
        ({}, {"step": 3}, {}),
        ({"fps": 11.0}, {"step": 2}, {}),
        ({"fps": 60.0}, {"algorithm": "tvl1"}, {"directions": ("backward",)}),
        ({"resize": Resize.parse("short:33")}, {}, {"keep_rgb": False}),
        ({"crop": CenterCrop(33, 32)}, {}, {}),
    ],
)
def test_whatever_is_computed_and_stored_is_the_same(
    decode: dict[str, Any],
    flow: dict[str, Any],
    encode: dict[str, Any],
    videos: Path,
    tmp_path: Path,
) -> None:
    config = ExtractConfig(
        DecodeSpec(**{"resize": Resize.parse("none"), **decode}),
        FlowSpec(**{"algorithm": "farneback", **flow}),
        EncodeSpec(**encode),
    )
    long = videos / "long.mp4"
    run(long, tmp_path / "uncut", config, segment_frames=0)
    run(long, tmp_path / "cut", config, segment_frames=14)
    assert "long: cut into" in log_of(tmp_path / "cut")
    assert_same(tmp_path / "cut", tmp_path / "uncut")


def test_ranges_and_folders_of_images_are_cut(videos: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(30):
        cv2.imwrite(str(images / f"{number}.png"), rng.integers(0, 256, (32, 40, 3), np.uint8))
    inputs = (
        Video("images", str(images)),
        Video("range", str(videos / "long.mp4"), start_seconds=1.1, end_seconds=4.3),
    )
    manifest = Manifest(inputs, (), 0, ())
    run(manifest, tmp_path / "uncut", segment_frames=0)
    run(manifest, tmp_path / "cut", segment_frames=9)
    assert log_of(tmp_path / "cut").count(": cut into") == 2
    assert_same(tmp_path / "cut", tmp_path / "uncut")


@pytest.fixture(scope="module")
def damaged(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long video with damage near its end, and a sound one."""
    path = tmp_path_factory.mktemp("damaged") / "long.mp4"
    content = bytearray((videos / "long.mp4").read_bytes())
    begin = int(0.88 * len(content))
    content[begin : begin + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(content)
    write_clip(path.parent / "sound.mp4", 5)
    return path.parent


@pytest.mark.parametrize("on_damage", ["fail", "cut", "conceal"])
def test_damage_in_a_late_segment_ends_as_uncut(
    on_damage: OnDamage, damaged: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        CONFIG, decode=dataclasses.replace(CONFIG.decode, on_damage=on_damage)
    )
    whole = run(damaged, tmp_path / "uncut", config, segment_frames=0)
    cut = run(damaged, tmp_path / "cut", config, segment_frames=20)
    # Beside the sound one.
    assert (whole.num_complete - 1, whole.num_partial, whole.num_failed) == (
        *(on_damage == "conceal", on_damage == "cut", on_damage == "fail"),
    )
    assert (cut.num_partial, cut.failures) == (whole.num_partial, whole.failures)
    log = log_of(tmp_path / "cut")
    assert "long: cut into 7 segments" in log
    assert "the video is extracted uncut" in log
    assert_same(tmp_path / "cut", tmp_path / "uncut")


class SimulatedCrashError(Exception):
    """Raised in the middle of a run."""


@contextmanager
def crash_after(num_segments: int) -> Iterator[None]:
    """Ends the run within the block when so many segments are finished."""

    class Crash(logging.Handler):
        num_finished = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.num_finished += record.getMessage().endswith(": finished")
            if self.num_finished == num_segments:
                raise SimulatedCrashError

    handler = Crash()
    logging.getLogger("flowprep").addHandler(handler)
    try:
        with pytest.raises(SimulatedCrashError):
            yield
    finally:
        logging.getLogger("flowprep").removeHandler(handler)


@pytest.mark.parametrize("num_finished", [3, 6])
def test_a_run_goes_on_with_the_segments_that_are_left(
    num_finished: int, videos: Path, uncut: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with crash_after(num_finished):
        run(videos, out, segment_frames=25)
    assert len(list(out.glob(".parts/*/*.segment"))) == num_finished
    (folder,) = {path.parent for path in out.glob(".parts/*/*.segment")}
    # What a killed worker leaves of a segment, and a killed driver of a video that it took back.
    (folder / "00000001.000000100-000000129.mjpg").touch()
    (folder / "00000000.000000000-000000007.segment").write_bytes(b"{}")
    # Another size of segments: the ones that were begun are finished.
    report = run(videos, out, segment_frames=10)
    assert (report.num_done_before, report.num_complete) == (1, 2)
    # 129 flows in 6 segments.
    assert report.num_pairs == NUM_FRAMES - 1 - 129 * num_finished // 6 + 5
    assert_same(out, uncut)
    long = next(one for one in records(out) if one["key"] == "long")
    assert long["num_flows"] == NUM_FRAMES - 1


def test_what_is_left_over_is_removed_at_once(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with crash_after(2):
        run(videos, out, segment_frames=25)
    (folder,) = out.glob(".parts/*")
    before = {path.name for path in folder.iterdir()}
    strange = ["00000000.000000000-000000007.segment", "00000001.000000000-000000007.mjpg"]
    for name in strange:
        (folder / name).touch()
    cuts = CutVideos(Storage(str(out)))
    cuts.recover(0, [path.name for path in folder.iterdir()], {0})
    assert {path.name for path in folder.iterdir()} == before
    assert [segment.start for segment in cuts.remaining(1)] == [43, 64, 86, 107]
    # A video that was joined before its segments were removed needs them no more.
    cuts.recover(0, sorted(before), {0, 1})
    assert sorted(path.name for path in folder.iterdir()) == ["00000000.json", "00000000.tar"]


def edit_segments(out: Path, **changes: Any) -> None:
    """Changes the metadata of the first finished segment."""
    path = min(out.glob(".parts/*/*.segment"))
    values = json.loads(path.read_bytes())
    values["metadata"] |= changes
    path.write_bytes(json.dumps(values).encode())


def write_record(out: Path, content: bytes) -> None:
    min(out.glob(".parts/*/*.segment")).write_bytes(content)


def cut_streams(out: Path) -> None:
    path = max(out.glob(".parts/*/*.mjpg"))
    path.write_bytes(path.read_bytes()[:-1])


def remove_streams(out: Path) -> None:
    max(out.glob(".parts/*/*.mjpg")).unlink()


@pytest.mark.parametrize(
    ("num_finished", "damage", "message"),
    [
        (
            6,
            partial(edit_segments, edges={"head": "0", "tail": "0"}),
            "frame 21 is not the same in the segments",
        ),
        (6, partial(edit_segments, source_mtime_ns=1), "the video's source_mtime_ns changed"),
        (6, partial(edit_segments, num_flows=20), "the segments are not those of the cut"),
        (2, partial(write_record, content=b""), ".segment is damaged: "),
        (2, partial(write_record, content=b"{}"), ".segment is damaged: "),
        (2, partial(write_record, content=b'{"members": {}}'), ".segment is damaged: "),
        (2, partial(write_record, content=b"[]"), ".segment is damaged: "),
        (2, cut_streams, "its record says"),
    ],
)
def test_segments_that_do_not_fit_are_taken_back(
    num_finished: int,
    damage: Callable[[Path], None],
    message: str,
    videos: Path,
    uncut: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with crash_after(num_finished):
        run(videos, out, segment_frames=25)
    damage(out)
    assert run(videos, out, segment_frames=25).is_complete
    assert message in log_of(out)
    assert "the video is extracted uncut" in log_of(out)
    assert_same(out, uncut)


def test_a_segment_that_is_gone_is_computed_again(
    videos: Path, uncut: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with crash_after(2):
        run(videos, out, segment_frames=25)
    lost = max(out.glob(".parts/*/*.mjpg"))
    lost.unlink()
    assert run(videos, out, segment_frames=25).is_complete
    assert "the video is extracted uncut" not in log_of(out)
    assert_same(out, uncut)


def test_a_cut_that_cannot_be_read_is_made_anew(videos: Path, uncut: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with crash_after(2):
        run(videos, out, segment_frames=25)
    next(out.glob(".parts/*/*.cut")).write_bytes(b'{"segments": [{}]}')
    report = run(videos, out, segment_frames=25)
    assert report.num_pairs == NUM_FRAMES - 1 + 5
    assert_same(out, uncut)


def test_a_video_names_every_device_that_computed_it(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with crash_after(3):
        run(videos, out, segment_frames=25)
    edit_segments(out, device="cuda:H100", estimator="GpuFarneback")
    assert run(videos, out, segment_frames=25).is_complete
    metadata = flowprep.open_dataset(out).metadata("long")
    assert metadata.device == "cpu, cuda:H100"
    assert metadata.estimator == "Farneback, GpuFarneback"


def test_progress_counts_videos_and_their_whole_time(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(videos, out, segment_frames=25)
    progress = read_status(str(out)).progress
    assert progress is not None
    (node,) = progress.nodes.values()
    assert (progress.num_remaining, progress.num_complete, node.num_videos) == (0, 3, 2)
    assert progress.num_pairs == node.num_pairs == report.num_pairs
    assert progress.in_flight == ()
    assert progress.slowest[0].key == "long"
    assert progress.slowest[0].num_pairs == NUM_FRAMES - 1
    assert progress.slowest[0].seconds <= node.busy_seconds
    assert report.num_bytes == sum(
        size for video in records(out) for _, size in video["members"].values()
    )


def test_segments_on_an_object_store(videos: Path, uncut: Path) -> None:
    out = "memory://flowprep-segments/out"
    assert run(videos, out, segment_frames=25).is_complete
    storage = Storage(out)
    for path in uncut.glob("shards/*.tar"):
        assert storage.read_bytes(f"shards/{path.name}") == path.read_bytes()
    storage.remove("")


def test_segment_frames_is_checked() -> None:
    with pytest.raises(ConfigError, match="segment_frames must be >= 0, got -1"):
        RunOptions(segment_frames=-1)


# ---- with Ray

BIG = 400
OPTIONS = ("--algorithm", "farneback", "--resize", "none", "--workers", "2", "--shard-size", "1")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("big")
    write_clip(folder / "long.mp4", BIG, size=(192, 144))
    write_clip(folder / "z.mp4", 5)
    return folder


def test_workers_share_a_video_and_one_that_is_killed_is_replaced(
    big: Path, tmp_path: Path
) -> None:
    config = ExtractConfig(CONFIG.decode, CONFIG.flow, EncodeSpec(videos_per_shard=1))
    run(big, tmp_path / "uncut", config, segment_frames=0)
    out = tmp_path / "out"
    process = start_extract(big, out, *OPTIONS, "--segment-frames", "90")
    most_at_once = 0
    killed = False
    while process.poll() is None:
        stalls = sorted(out.glob(".parts/000000/*-*.stall"))
        most_at_once = max(most_at_once, len(stalls))
        if most_at_once >= 2 and not killed:
            killed = any(kill_job_holding(stall, process.pid) for stall in stalls)
        time.sleep(0.02)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert most_at_once == 2
    assert killed
    assert "lost workers  1, replaced" in text
    assert "long: cut into 5 segments" in log_of(out)
    assert "extracted uncut" not in log_of(out)
    assert_same(out, tmp_path / "uncut")


def test_a_segment_that_kills_its_worker_fails_its_video(big: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (*OPTIONS, "--segment-frames", "90", "--max-attempts", "1")
    process = start_extract(big, out, *options)
    # The second of five segments.
    stall = out / ".parts" / "000000" / "00000000.000000079-000000159.stall"

    def kill_whoever_takes_it() -> None:
        while process.poll() is None:
            kill_job_holding(stall, process.pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_whoever_takes_it)
    killer.start()
    text, _ = process.communicate()
    killer.join()
    assert process.returncode == 1, text
    (failure,) = read_failures(Storage(out)).values()
    assert (failure.key, failure.reason, failure.attempts) == ("long", "crashed", 1)
    assert [video.key for video in flowprep.open_dataset(out).videos] == ["z"]
    assert not (out / ".parts").exists()
    assert verify_dataset(out).problems == []
