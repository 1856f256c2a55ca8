"""Folders of frame images: what `collect_videos` takes for one is what `open_video` reads."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowprep.config import DecodeSpec, Resize
from flowprep.errors import InputError, VideoError
from flowprep.video.decode import open_video
from flowprep.video.manifest import collect_videos
from flowprep.video.tree import IMAGE_EXTENSIONS, is_frame_image
from flowprep.video.types import Video

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
