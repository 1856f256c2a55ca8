"""Folders of frame images: what `collect_videos` takes for one is what `open_video` reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.errors import InputError, VideoError
from flowprep.inputs.manifest import collect_videos
from flowprep.inputs.tree import IMAGE_EXTENSIONS, is_frame_image
from flowprep.inputs.video import Video
from flowprep.run.estimate import count_frames, measure_cost
from flowprep.video.cut import plan_cut
from flowprep.video.decode import open_video
from flowprep.video.reader import FrameReader

IMAGES = [f"img_{i:05d}.jpg" for i in (1, 2, 3)]
MMACTION2 = [f"{axis}_{i:05d}.jpg" for axis in "xy" for i in (1, 2)]
TSN = [f"flow_{axis}_{i:05d}.jpg" for axis in "xy" for i in (1, 2)]
DENSEFLOW = [f"flow_{axis}_p2_{i:05d}.jpg" for axis in "xy" for i in (0, 1)]
GPU_FLOW = [f"{axis}_{i:05d}.jpg" for axis in "uv" for i in (1, 2)]
I3D = [f"VID-00000{i}{axis}.jpg" for axis in "xy" for i in (1, 2)]
HIDDEN = ["._img_00001.jpg", ".img_00002.jpg", ".done"]  # AppleDouble files on an exFAT disk


@pytest.mark.parametrize(
    ("names", "num_frames"),
    [
        (IMAGES, 3),
        (IMAGES + MMACTION2, 3),
        (IMAGES + TSN, 3),
        (IMAGES + DENSEFLOW, 3),
        (IMAGES + GPU_FLOW, 3),
        ([f"VID-00000{i}.jpg" for i in (1, 2)] + I3D, 2),
        (IMAGES + MMACTION2 + TSN + HIDDEN, 3),
        ([*IMAGES, "cover.jpg", "notes.txt"], 3),
        (["9.PNG", "10.PNG", "11.PNG"], 3),
        (["v.1_1.jpg", "v.1_2.jpg"], 2),
        (MMACTION2, 0),
        (TSN, 0),
        (DENSEFLOW, 0),
        (GPU_FLOW, 0),
        (I3D, 0),
        (HIDDEN, 0),
        (["cover.jpg"], 0),
        (["1.txt", "2.txt"], 0),
        ([f"flow_{i}.png" for i in (1, 2)] + [f"back_x_{i}.png" for i in (1, 2)], 0),
    ],
)
def test_collecting_and_reading_agree(names: list[str], num_frames: int, tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.zeros((12, 16, 3), np.uint8))[1].tobytes()
    folder = tmp_path / "imgs"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(picture)  # OpenCV goes by the content
    assert sum(map(is_frame_image, os.listdir(folder))) == num_frames
    listed = tmp_path / "list.txt"
    listed.write_text(f"imgs {num_frames} 7\n")
    assert collect_videos(listed).videos[0].labels == (7,)
    spec = DecodeSpec(resize=Resize.parse("none"))
    if num_frames:
        (video,) = collect_videos(folder).videos
        with open_video(video, spec) as reader:
            assert len(list(reader)) == num_frames
    else:
        with pytest.raises(InputError, match="no videos in"):
            collect_videos(folder)
        with pytest.raises(VideoError) as caught:
            open_video(Video("imgs", str(folder)), spec)
        assert caught.value.reason == "no-frames"


@pytest.mark.parametrize("extension", sorted(IMAGE_EXTENSIONS))
def test_every_extension_can_be_read(extension: str, tmp_path: Path) -> None:
    shape = (12, 16) if extension == ".pgm" else (12, 16, 3)
    assert cv2.imwrite(str(tmp_path / f"img_1{extension}"), np.zeros(shape, np.uint8))
    (video,) = collect_videos(tmp_path).videos
    with open_video(video, DecodeSpec()) as reader:
        assert len(list(reader)) == 1


def opened(folder: Path, resize: str = "none", **options: Any) -> FrameReader:
    ranged = {key: options.pop(key) for key in ("start_seconds", "end_seconds") if key in options}
    spec = DecodeSpec(resize=Resize.parse(resize), **options)
    return open_video(Video("key", str(folder), **ranged), spec)


def failure(folder: Path, **options: Any) -> VideoError:
    with pytest.raises(VideoError) as caught, opened(folder, **options) as reader:
        list(reader)
    assert str(folder) not in caught.value.message
    return caught.value


def write_numbers(folder: Path, numbers: Iterable[int], suffix: str = ".png") -> Path:
    """Writes images whose gray level is ten times their place."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(numbers):
        shape = (48, 64) if suffix == ".pgm" else (48, 64, 3)
        noise = np.random.default_rng(place).integers(0, 9, shape)
        picture = (noise + 10 * place).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"img_{number:05d}{suffix}"), picture)
    return folder


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, "last byte"])
@pytest.mark.parametrize("suffix", sorted(IMAGE_EXTENSIONS))
def test_a_cut_image_fails_by_name(suffix: str, share: float | str, tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(5), suffix)
    path = folder / f"img_00003{suffix}"
    data = path.read_bytes()
    length = len(data) - 1 if isinstance(share, str) else int(len(data) * share)
    path.write_bytes(data[:length])
    error = failure(folder)
    assert (error.reason, error.num_frames) == ("damaged", 3)
    assert error.message.startswith(f"img_00003{suffix} is ")
    (folder / f"img_00000{suffix}").write_bytes(b"")
    assert failure(folder).message == f"img_00000{suffix} is cut or damaged"


def test_damage_within_a_jpeg_is_heard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (128, 96))
    for number in range(3):
        assert cv2.imwrite(str(folder / f"{number}.jpg"), picture)
    data = bytearray((folder / "1.jpg").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    (folder / "1.jpg").write_bytes(data)
    error = failure(folder)
    assert error.reason == "damaged"
    assert error.message.startswith("1.jpg is damaged: Corrupt JPEG data: ")
    assert not capfd.readouterr().err
    with opened(folder, on_damage="conceal") as reader:
        assert len(list(reader)) == 3
        assert reader.num_damaged == 1
        assert reader.notes == {"concealed": error.message}


def test_padding_and_profiles_are_no_damage(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(3), ".jpg")
    path = folder / "img_00001.jpg"
    data = path.read_bytes()
    assert data.endswith(b"\xff\xd9")
    path.write_bytes(data[:-2] + b"\x00" + data[-2:])
    with opened(folder) as reader:
        assert len(list(reader)) == 3


def test_concealed_images_are_what_opencv_makes_of_them(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(5), ".jpg")
    path = folder / "img_00002.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    with opened(folder, on_damage="conceal") as reader:
        frames = list(reader)
        assert reader.num_damaged == 1
        assert reader.notes == {"concealed": "img_00002.jpg is cut or damaged"}
    bgr = cv2.imread(str(path))
    assert bgr is not None
    assert np.array_equal(frames[2].rgb, bgr[:, :, ::-1])
    path.write_bytes(b"nothing of it is left")
    assert failure(folder, on_damage="conceal").reason == "damaged"


@pytest.mark.parametrize("suffix", sorted(IMAGE_EXTENSIONS))
def test_whole_images_are_those_of_imread(suffix: str, tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(2), suffix)
    with opened(folder) as reader:
        frames = list(reader)
    for number, frame in enumerate(frames):
        bgr = cv2.imread(str(folder / f"img_{number:05d}{suffix}"), cv2.IMREAD_COLOR)
        assert bgr is not None
        assert np.array_equal(frame.rgb, bgr[:, :, ::-1])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 3, 7, 8], "no image has number 4 to 6, between img_00003.png and img_00007.png"),
        ([0, 2, 3], "no image has number 1, between img_00000.png and img_00002.png"),
        ([5, 7], "no image has number 6, between img_00005.png and img_00007.png"),
        (
            [1, 3, 4, 9],
            "no image has number 2, between img_00001.png and img_00003.png; in all 5 numbers are "
            "missing",
        ),
        (
            [0, 30, 60, 120],
            "no image has number 1 to 29, between img_00000.png and img_00030.png; in all 117 "
            "numbers are missing",
        ),
    ],
)
def test_gaps_fail_by_name(numbers: list[int], message: str, tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", numbers)
    error = failure(folder)
    assert error.reason == "gaps"
    assert error.message == f"{message}. --on-gaps ignore uses the images as if there were no gaps"
    with opened(folder, on_gaps="ignore") as reader:
        assert [frame.seconds for frame in reader] == list(range(len(numbers)))
        assert reader.notes == {"gaps-ignored": message}


@pytest.mark.parametrize("numbers", [[7], [0, 1, 2], [1, 2], [99, 100, 101], [4, 5, 6]])
def test_numbers_begin_anywhere(numbers: list[int], tmp_path: Path) -> None:
    with opened(write_numbers(tmp_path / "a", numbers)) as reader:
        assert len(list(reader)) == len(numbers)
        assert not reader.notes


def test_numbers_that_rise_by_the_same_step_are_noted(tmp_path: Path) -> None:
    with opened(write_numbers(tmp_path / "a", range(0, 150, 30))) as reader:
        assert len(list(reader)) == 5
        assert reader.notes == {
            "numbers-step": "numbers rise by 30 from img_00000.png to img_00120.png"
        }


def levels(reader: FrameReader) -> list[int]:
    return [round(frame.rgb.mean() / 10 - 0.4) for frame in reader]


def test_seconds_are_never_taken_for_frame_numbers(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(20))
    for options in ({"start_seconds": 0.5}, {"end_seconds": 12.0}, {"fps": 5.0}):
        error = failure(folder, **options)
        assert error.reason == "no-clock"
        assert error.message.endswith(
            " needs a frame rate, but a folder of images has none; give it with --image-fps"
        )
    with opened(folder, image_fps=10.0) as reader:
        assert (reader.info.fps, reader.info.duration_seconds) == (10.0, 2.0)
        frames = list(reader)
        assert [frame.seconds for frame in frames] == [number / 10 for number in range(20)]
    with opened(folder, image_fps=10.0, start_seconds=0.5, end_seconds=1.5) as reader:
        assert reader.estimate_num_frames() == 10
        assert levels(reader) == list(range(5, 15))
    with opened(folder, image_fps=10.0, fps=5.0) as reader:
        assert reader.estimate_num_frames() == 10
        # As ffmpeg's fps filter: of two pictures on one tick the last counts.
        assert [round(frame.seconds * 10) for frame in reader][1:4] in ([2, 4, 6], [3, 5, 7])
    with opened(folder, image_fps=30000 / 1001, start_seconds=0.1001) as reader:
        assert levels(reader)[0] == 3


def test_what_lies_outside_the_range_need_not_be_sound(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(20))
    for number in (4, 15):
        (folder / f"img_{number:05d}.png").write_bytes(b"no image")
    with opened(folder, image_fps=10.0, start_seconds=0.5, end_seconds=1.5) as reader:
        assert levels(reader) == list(range(5, 15))
        assert reader.num_damaged == 0


def test_segments_of_images_are_the_uncut_frames(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(25))
    for options in ({}, {"start_seconds": 0.3, "end_seconds": 2.2, "image_fps": 10.0}):
        with opened(folder, **options) as reader:  # type: ignore[arg-type]
            whole = [(frame.rgb.tobytes(), frame.seconds) for frame in reader]
        with opened(folder, **options) as reader:  # type: ignore[arg-type]
            cut = plan_cut(reader, segment_frames=5, step=1, on_progress=lambda: None)
        assert cut is not None
        found = []
        for segment in cut.segments:
            with opened(folder, **options) as reader:  # type: ignore[arg-type]
                frames = list(reader.read_segment(segment))
            kept = [frame for number, frame in enumerate(frames) if segment.keeps_frame(number)]
            found += [(frame.rgb.tobytes(), frame.seconds) for frame in kept]
        assert found == whole


def test_a_dry_run_estimates_folders(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path / "a", range(8))
    failures: list[str] = []
    config = ExtractConfig(DecodeSpec(), FlowSpec("farneback"))
    videos = [Video("a", str(folder)), Video("b", str(folder), start_seconds=0.2)]
    assert count_frames(videos, config, failures) == [8.0]
    assert len(failures) == 1
    assert failures[0].startswith("b: a range from 0.2 s to the end needs")
    cost = measure_cost(videos[:1], config, failures)
    assert cost is not None
    assert len(failures) == 1
    clocked = ExtractConfig(DecodeSpec(image_fps=4.0), FlowSpec("farneback"))
    assert count_frames(videos, clocked, failures) == pytest.approx([8.0, 7.2])


def test_cases(test_data: Path) -> None:
    cases = test_data / "cases"
    error = failure(cases / "frames_gap")
    assert error.reason == "gaps"
    assert "img_00003.jpg and img_00007.jpg" in error.message
    with opened(cases / "frames_gap", on_gaps="ignore") as reader:
        assert len(list(reader)) == 7
    error = failure(cases / "frames_trunc")
    assert (error.reason, error.num_frames) == ("damaged", 5)
    assert error.message == "img_00006.jpg is cut or damaged"
    with opened(cases / "frames_trunc", on_damage="conceal") as reader:
        assert len(list(reader)) == 10
        assert reader.num_damaged == 1
