"""A run stops where extraction does not work at all, and no video is blamed for that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import Resize
from flowprep.dataset.jpeg.encode import JpegEncoder
from flowprep.dataset.layout import VideoRecord, read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ExecutorError
from flowprep.run.first_videos import MAX_SAME_ERRORS, FirstVideos
from flowprep.run.progress import RunReport
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video

CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")),
    FlowSpec("farneback"),
    EncodeSpec(videos_per_shard=2),
)
NUM_VIDEOS = 12

# As a new version of a library leaves flowprep: each video's error names the video.
BROKEN = """
import av
def broken(file, *args, **kwargs):
    raise TypeError(f"open() got an unexpected keyword argument for {file}")
av.open = broken
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_VIDEOS):
        scene = action_scene("move_left", num_frames=3, width=64, height=48, seed=number)
        write_video(folder / f"{number:02d}.mp4", map(scene.frame, range(3)))
    return folder


@pytest.fixture
def some(clips: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Returns a folder of the first clips, for more of which it may be asked later."""

    def link(count: int) -> Path:
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        for path in sorted(clips.iterdir())[:count]:
            if not (folder / path.name).exists():
                os.link(path, folder / path.name)
        return folder

    return link


def run(videos: Path, out: Path, config: ExtractConfig = CONFIG, **options: Any) -> RunReport:
    settings = RunOptions(progress=False, **options)
    return flowprep.extract(videos, out, config, executor="inline", options=settings)


def break_decoding(monkeypatch: pytest.MonkeyPatch, broken: Sequence[str] | None = None) -> None:
    """Makes PyAV fail as a version does that flowprep does not know, for all or for some files."""
    real = av.open

    def fails(file: str, *args: Any, **kwargs: Any) -> Any:
        if broken is None or Path(file).name in broken:
            raise TypeError(f"open() got an unexpected keyword argument for {file}")
        return real(file, *args, **kwargs)

    monkeypatch.setattr(av, "open", fails)


def stopped(videos: Path, out: Path, **options: Any) -> str:
    with pytest.raises(ExecutorError) as caught:
        run(videos, out, **options)
    return str(caught.value)


def num_tried(out: Path) -> int:
    """Returns how often a video was tried and failed, in all runs together."""
    return sum(path.read_text().count(": internal error\n") for path in out.glob("logs/*.log"))


def test_the_run_stops_after_the_first_videos(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        break_decoding(patch)
        said = stopped(clips, out)
    assert f"{MAX_SAME_ERRORS} videos failed with the same internal error" in said
    assert "TypeError at " in said
    assert "unexpected keyword argument" in said
    assert "`flowprep doctor`" in said
    assert num_tried(out) == MAX_SAME_ERRORS < NUM_VIDEOS
    # It is no failure of theirs, and no shard of failed videos is published.
    assert read_failures(Storage(out)) == {}
    assert list(out.glob("shards/*")) == []
    assert not verify_dataset(out).is_whole
    # The cause is gone: the same command, without --retry-failed.
    report = run(clips, out)
    assert report.is_complete
    assert (report.num_complete, report.num_failed_before) == (NUM_VIDEOS, 0)
    assert verify_dataset(out, deep=True).problems == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_shorter_run_stops_at_its_end(
    count: int, some: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = some(count), tmp_path / "out"
    with monkeypatch.context() as patch:
        break_decoding(patch)
        said = stopped(videos, out)
        assert ("1 video failed with an" if count == 1 else "3 videos failed with the same") in said
        # Again: they are tried, and it is said again.
        assert stopped(videos, out)[:100] == said[:100]
        assert num_tried(out) == 2 * count
    assert run(videos, out).is_complete


def test_files_that_are_no_videos_say_nothing(
    some: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = some(10), tmp_path / "out"
    for number in range(4):
        (videos / f"0{number}-empty.mp4").write_bytes(b"")
    with monkeypatch.context() as patch:
        break_decoding(patch)
        assert "8 videos failed with the same" in stopped(videos, out)
    report = run(videos, out)
    assert (report.num_complete, report.failures) == (10, {"unreadable": 4})
    assert verify_dataset(out).problems == []


def test_what_earlier_runs_finished_stays(
    some: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(some(4), out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
    with monkeypatch.context() as patch:
        break_decoding(patch)
        stopped(some(NUM_VIDEOS), out)
    assert run(some(NUM_VIDEOS), out).is_complete
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_one_video_that_works_and_the_run_goes_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        break_decoding(patch, [f"{number:02d}.mp4" for number in range(1, NUM_VIDEOS)])
        report = run(clips, out)
    assert (report.num_complete, report.failures) == (1, {"internal-error": NUM_VIDEOS - 1})
    assert len(read_failures(Storage(out))) == NUM_VIDEOS - 1
    # No fault of the videos: the set is not whole, and what to do is said.
    found = verify_dataset(out)
    assert len(found.problems) == NUM_VIDEOS - 1
    assert all("doctor" in one and "--retry-failed" in one for one in found.problems)
    again = run(clips, out)
    assert again.num_failed_before == NUM_VIDEOS - 1
    line = f"{NUM_VIDEOS - 1} videos that failed in an earlier run; --retry-failed tries them again"
    assert line in again.summary()
    assert "earlier run" not in report.summary()
    last = run(clips, out, retry_failed=True)
    assert last.is_complete
    assert "--retry-failed" not in last.summary()
    assert verify_dataset(out, deep=True).problems == []


def test_different_errors_stop_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = JpegEncoder.encode, 0

    def fails(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count % 2:
            raise RuntimeError("one")
        raise LookupError("other")

    monkeypatch.setattr(JpegEncoder, "encode", fails)
    report = run(clips, tmp_path / "out")
    assert report.failures == {"internal-error": NUM_VIDEOS}
    monkeypatch.setattr(JpegEncoder, "encode", real)
    found = verify_dataset(tmp_path / "out")
    assert len(found.problems) == NUM_VIDEOS
    assert found.num_failed == NUM_VIDEOS


def test_a_run_that_was_killed_in_between_blames_nobody(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        break_decoding(patch)
        # As `kill -9` leaves it: nothing is taken back.
        patch.setattr(FirstVideos, "error", lambda *_, is_end: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            run(clips, out)
    assert len(list(out.glob(".parts/*/*.json"))) == 1
    assert run(clips, out).is_complete


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_the_command_says_so(executor: str, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(BROKEN)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "flowprep", "extract", str(clips), str(out)]
    command += ["--algorithm", "farneback", "--resize", "none", "--executor", executor]
    command += ["--shard-size", "1", *(["--workers", "2"] if executor == "ray" else [])]
    path = os.pathsep.join(
        [str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    broken = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (broken.returncode, broken.stdout) == (1, "")
    assert broken.stderr.startswith("Error: the run stopped: 8 videos failed with the same ")
    assert "flowprep doctor" in broken.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"complete: {NUM_VIDEOS} of {NUM_VIDEOS} videos")
    assert verify_dataset(out).problems == []


# ---- what is remembered


def failed(message: str, reason: str = "internal-error") -> VideoRecord:
    return VideoRecord("key", "failed", reason=reason, message=message)  # type: ignore[arg-type]


def test_errors_are_the_same_by_kind_and_place() -> None:
    watch = FirstVideos()
    for index in range(MAX_SAME_ERRORS):
        assert watch.error("log", is_end=False) is None
        watch.add(0, index, failed(f"KeyError at a.py:7: {index}: no such video"))
    assert watch.failed == tuple((0, index) for index in range(MAX_SAME_ERRORS))
    assert watch.error("log", is_end=False) is not None


@pytest.mark.parametrize("other", ["KeyError at a.py:8: 0", "ValueError at a.py:7: 0"])
def test_another_place_or_kind_is_another_error(other: str) -> None:
    watch = FirstVideos()
    watch.add(0, 0, failed("KeyError at a.py:7: 0"))
    watch.add(0, 1, failed(other))
    assert not watch.is_open
    for index in range(20):
        watch.add(0, index, failed("KeyError at a.py:7: 0"))
    assert watch.error("log", is_end=True) is None


def test_a_run_of_bad_files_ends_as_ever() -> None:
    watch = FirstVideos()
    for index in range(20):
        watch.add(0, index, failed("the file is empty", "unreadable"))
    assert watch.error("log", is_end=True) is None
