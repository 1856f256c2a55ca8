"""The dry run: counts from headers, cost from a probe, and nothing written."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.layout import read_sidecar
from flowprep.dataset.parts import write_part_record
from flowprep.errors import ConfigMismatchError, DatasetError
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.inputs.video import Video
from flowprep.run.class_table import count_classes, table_lines
from flowprep.run.driver import run_extract
from flowprep.run.estimate import RunEstimate, estimate_run
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video

INLINE = RunOptions(executor="inline")
LENGTHS = (10, 20, 45)
FPS = 25.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    scene = action_scene("move_left", num_frames=max(LENGTHS), width=64, height=48, seed=0)
    for length in LENGTHS:
        write_video(folder / f"{length}.mp4", (scene.frame(t) for t in range(length)), FPS)
    return folder


def config(*, step: int = 1, fps: float | None = None) -> ExtractConfig:
    return ExtractConfig(
        DecodeSpec(fps=fps), FlowSpec("dis", step=step), EncodeSpec(videos_per_shard=2)
    )


def estimate(clips: Path, out: Path, wanted: ExtractConfig) -> RunEstimate:
    return estimate_run(collect_videos(clips), str(out), wanted, INLINE)


@pytest.mark.parametrize(("step", "fps"), [(1, None), (3, None), (1, 12.5), (1, 50.0)])
def test_numbers_are_those_of_the_run(
    clips: Path, tmp_path: Path, step: int, fps: float | None
) -> None:
    wanted = config(step=step, fps=fps)
    foreseen = estimate(clips, tmp_path / "out", wanted)
    assert not (tmp_path / "out").exists()
    report = run_extract(collect_videos(clips), str(tmp_path / "out"), wanted, INLINE)
    assert foreseen.num_pairs == pytest.approx(report.num_pairs, rel=0.1)
    assert foreseen.num_bytes == pytest.approx(report.num_bytes, rel=0.3)
    assert foreseen.seconds_per_pair is not None
    assert foreseen.seconds_per_pair > 0
    assert (foreseen.num_videos, foreseen.num_to_do, foreseen.num_shards) == (3, 3, 2)
    assert foreseen.num_workers == 1
    assert foreseen.probe_failures == ()


def test_nothing_is_left_to_do(clips: Path, tmp_path: Path) -> None:
    run_extract(collect_videos(clips), str(tmp_path / "out"), config(), INLINE)
    foreseen = estimate(clips, tmp_path / "out", config())
    assert (foreseen.num_to_do, foreseen.num_videos) == (0, 3)
    assert "nothing to do" in foreseen.summary()


def test_only_new_videos_are_to_do(clips: Path, tmp_path: Path) -> None:
    run_extract(collect_videos(clips / "45.mp4"), str(tmp_path / "out"), config(), INLINE)
    foreseen = estimate(clips, tmp_path / "out", config())
    assert foreseen.num_to_do == 2
    assert foreseen.num_pairs == pytest.approx(9 + 19, rel=0.1)


def test_ranges(clips: Path, tmp_path: Path) -> None:
    source = str(clips / "45.mp4")
    videos = (
        Video(key="early", source=source, start_seconds=0.0, end_seconds=0.4),
        Video(key="late", source=source, start_seconds=1.0, end_seconds=9.0),
    )
    foreseen = estimate_run(
        Manifest(videos, (), 0, ()), str(tmp_path / "out"), config(), RunOptions(num_workers=8)
    )
    assert foreseen.num_pairs == pytest.approx(9 + 19, rel=0.1)
    assert " with 2 workers, " in foreseen.summary()


def test_folder_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    scene = action_scene("zoom_in", num_frames=12, width=64, height=48, seed=1)
    for t in range(12):
        cv2.imwrite(str(folder / f"img_{t:05d}.jpg"), scene.frame(t))
    foreseen = estimate(folder, tmp_path / "out", config())
    assert foreseen.num_pairs == 11
    assert foreseen.seconds_per_pair is not None


def test_videos_that_cannot_be_probed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    foreseen = estimate(tmp_path / "a.mp4", tmp_path / "out", config())
    assert foreseen.num_pairs is None
    lines = foreseen.summary().splitlines()
    assert lines[-3:] == [
        "  estimate    none: no video could be probed",
        "  probe       a: the file is empty",
        "nothing was written",
    ]


def test_videos_waiting_for_their_shard_are_done(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_extract(collect_videos(clips), str(out), config(), INLINE)
    # As a run leaves it that was ended after a video of a shard and before the shard.
    record = read_sidecar(Storage(out), 0).videos[1]
    write_part_record(Storage(out), 0, 1, record)
    for path in out.glob("shards/000000.*"):
        path.unlink()
    assert estimate(clips, out, config()).num_to_do == 1
    # A damaged record tells of nothing.
    (out / ".parts/000000/00000001.json").write_text("{}")
    assert estimate(clips, out, config()).num_to_do == 2


def test_new_classes_do_not_change_known_labels(tmp_path: Path) -> None:
    scene = action_scene("zoom_in", num_frames=3, width=64, height=48, seed=1)
    for name in ("b", "c"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        path = tmp_path / "videos" / name / "v.mp4"
        write_video(path, (scene.frame(t) for t in range(3)), FPS)
    out = tmp_path / "out"
    run_extract(collect_videos(tmp_path / "videos"), str(out), config(), INLINE)
    (tmp_path / "videos/a").mkdir()
    write_video(tmp_path / "videos/a/v.mp4", (scene.frame(t) for t in range(3)), FPS)
    foreseen = estimate(tmp_path / "videos", out, config())
    assert foreseen.num_to_do == 1
    assert foreseen.class_names == ("b", "c", "a")


def test_refuses_what_the_run_refuses(clips: Path, tmp_path: Path) -> None:
    run_extract(collect_videos(clips), str(tmp_path / "out"), config(), INLINE)
    with pytest.raises(ConfigMismatchError):
        estimate(clips, tmp_path / "out", config(step=2))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").touch()
    with pytest.raises(DatasetError, match="not empty"):
        estimate(clips, tmp_path / "foreign", config())


def test_classes_and_splits_are_a_table(tmp_path: Path) -> None:
    for name in ("train/run", "train/walk", "val/walk"):
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        for number in range(2 if name == "train/walk" else 1):
            (folder / f"{number}.mp4").touch()
    lines = estimate(tmp_path / "videos", tmp_path / "out", config()).summary().splitlines()
    assert "  splits      train 3, val 1" in lines
    assert lines[-4:] == [
        "    class   train     val",
        "    run         1       0",
        "    walk        2       1",
        "nothing was written",
    ]


def test_long_tables_are_shortened() -> None:
    names = [f"class {number:02d}" for number in range(101)]
    videos = [Video(f"{i}", "", (i % 101,), "train") for i in range(202)]
    lines = table_lines(count_classes([*videos, Video("x", "", ())], names))
    assert lines[0] == "    class                 train  (no split)"
    assert lines[1] == "    class 00                  2           0"
    assert lines[-2:] == [
        "    ... 89 more classes     178           0",
        "    (no class)                0           1",
    ]
    assert len(lines) == 1 + 12 + 2
    assert table_lines(count_classes([Video("a", ""), Video("b", "")], ())) == []
    assert table_lines(count_classes([Video("a", "", (7,))], ())) == [
        "    class  videos",
        "    7           1",
    ]
