"""Frames are cropped after the resize and before the flow, whatever they are read from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep import DecodeSpec
from flowprep.config import CenterCrop, Resize
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.synthetic import textured_image, write_video
from flowprep.video.decode import open_video
from flowprep.video.reader import target_size

WIDTH, HEIGHT = 120, 90


def color_frames(count: int = 4) -> list[NDArray[np.uint8]]:
    return [textured_image(HEIGHT, WIDTH, number) for number in range(count)]


@pytest.fixture(params=["pyav", "decord", "images"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Video, str]:
    """A video and the decoder to read it with."""
    if request.param == "images":
        folder = tmp_path / "images"
        folder.mkdir()
        for number, frame in enumerate(color_frames()):
            cv2.imwrite(str(folder / f"img_{number}.png"), frame[..., ::-1])
        return Video("images", str(folder)), "pyav"
    if request.param == "decord":
        pytest.importorskip("decord")
    write_video(tmp_path / "clip.mp4", color_frames())
    return Video("clip", str(tmp_path / "clip.mp4")), request.param


@pytest.mark.parametrize("resize", ["none", "61x52"])
@pytest.mark.parametrize("crop", [CenterCrop(40, 40), CenterCrop(61, 11)])
def test_the_middle_of_the_resized_frame_is_kept(
    source: tuple[Video, str], resize: str, crop: CenterCrop
) -> None:
    video, decoder = source
    options = {"decoder": decoder, "resize": Resize.parse(resize)}
    with open_video(video, DecodeSpec(**options)) as reader:  # type: ignore[arg-type]
        whole = list(reader)
    with open_video(video, DecodeSpec(**options, crop=crop)) as reader:  # type: ignore[arg-type]
        assert reader.size == (crop.width_px, crop.height_px)
        assert (reader.info.width, reader.info.height) == (WIDTH, HEIGHT)
        frames = list(reader)
    height, width = whole[0].gray.shape
    # Half of an odd rest is rounded down.
    left, upper = (width - crop.width_px) // 2, (height - crop.height_px) // 2
    box = np.s_[upper : upper + crop.height_px, left : left + crop.width_px]
    assert len(frames) == len(whole) == 4
    for found, frame in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(found.rgb, frame.rgb[box])
        np.testing.assert_array_equal(found.gray, frame.gray[box])
        assert found.gray.flags.c_contiguous
        assert found.rgb.flags.c_contiguous


def test_a_crop_larger_than_the_frames_is_refused_for_this_video(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", color_frames())
    spec = DecodeSpec(resize=Resize.parse("200x150"), crop=CenterCrop(100, 100))
    with pytest.raises(VideoError) as caught:
        open_video(Video("clip", str(tmp_path / "clip.mp4")), spec)
    assert caught.value.reason == "too-small"
    assert caught.value.message == (
        "the crop of 100x100 px is larger than the frames, which are 120x90 px after --resize "
        "200x150; take a smaller --crop or a larger --resize, or --upscale"
    )


def test_the_stored_size_is_that_of_the_crop() -> None:
    spec = DecodeSpec(resize=Resize.parse("171x128"), crop=CenterCrop(112, 96))
    assert target_size(320, 240, spec) == (112, 96)
    with pytest.raises(VideoError, match="112x96 px is larger than the frames, which are 200x90"):
        target_size(200, 90, spec)
