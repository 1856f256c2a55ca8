"""Means of all frames: their files, and the place where they are subtracted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.mean_image import crop_mean, read_mean
from flowprep.learn.clips.select import check_clip
from flowprep.learn.clips.transforms import Crop, crop_flow
from flowprep.learn.config import ClipSpec, TrainConfig
from tests.learn.clips.samples import MIRRORED, RESAMPLED, SLICE
from tests.learn.weights.caffe_files import blob, c3d_blob, drawn

CUBE = drawn(3, 2, 48, 64)
"""For clips of two frames of the data set's size."""


def saved(folder: Path, values: NDArray[Any]) -> str:
    folder.mkdir(exist_ok=True)
    np.save(folder / "mean.npy", values)
    return str(folder / "mean.npy")


def test_files_of_caffe_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    for content in (
        c3d_blob(CUBE[None]),
        blob(CUBE[None]),
        blob(CUBE, "double"),
        blob(CUBE, "single"),
    ):
        file.write_bytes(content)
        read_mean.cache_clear()
        np.testing.assert_array_equal(read_mean(str(file)), CUBE.swapaxes(0, 1))
    for content in (blob(CUBE[:, 0], "v1"), blob(CUBE[:, 0])):
        file.write_bytes(content)
        read_mean.cache_clear()
        np.testing.assert_array_equal(read_mean(str(file)), CUBE[None, :, 0])


@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_the_mean_is_subtracted_at_the_crop(
    dataset: FlowDataset, tmp_path: Path, crop: Crop
) -> None:
    """facebookarchive/C3D, video_data_layer.cpp: (frame - mean) is cut and mirrored as one."""
    video = dataset.videos[0]
    clip = ClipSpec("rgb", 2, normalization="c3d", crop_px=32, mean_file=saved(tmp_path, CUBE))
    one = ClipInput("rgb", "rgb", "volume", 2)

    found = load_clip(dataset, video, [3, 4], crop, clip, one)

    if crop is RESAMPLED:
        still = dataclasses.replace(clip, mean_file=saved(tmp_path / "zeros", 0 * CUBE))
        planes = CUBE.reshape(-1, 2, 48, 64)  # pairs of planes, as flow
        box = dataclasses.replace(crop, flip=False)
        means = crop_flow(planes, box, 32, scale_vectors=False).reshape(3, 2, 32, 32)
        expected = load_clip(dataset, video, [3, 4], crop, still, one) - means[..., ::-1]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        return
    frames = dataset.frames(video.key, [3, 4])
    centered = frames[..., ::-1].transpose(3, 0, 1, 2) - CUBE  # BGR
    cut = centered[..., 4:36, 9:41]
    np.testing.assert_array_equal(found, cut[..., ::-1] if crop.flip else cut)


def test_a_mean_of_another_size_stands_for_the_whole_frame(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(20.0), (3, 10, 20))
    path = saved(tmp_path, ramp)
    # The right half of a frame of 80 px is columns 10 to 20, enlarged by 3.2.
    found = crop_mean(path, Crop(40, 0, 40, 40), 80, 40, 32)
    assert found.shape == (1, 3, 32, 32)
    expected = 10 + (np.arange(32) + 0.5) / 3.2 - 0.5
    np.testing.assert_allclose(found[0, 0, 5, :-2], expected[:-2], atol=0.02)
    mirrored = crop_mean(path, Crop(40, 0, 40, 40, flip=True), 80, 40, 32)
    np.testing.assert_array_equal(mirrored, found[..., ::-1])


def test_other_files_and_lengths_are_refused(dataset: FlowDataset, tmp_path: Path) -> None:
    def check(path: str, num_frames: int = 2) -> None:
        clip = ClipSpec("rgb", num_frames, normalization="c3d", crop_px=32, mean_file=path)
        check_clip(dataset, clip, [ClipInput("rgb", "rgb", "volume", num_frames)])

    check(saved(tmp_path, CUBE))
    with pytest.raises(ConfigError, match="one frame, or 3 as each clip has, got 2 in"):
        check(str(tmp_path / "mean.npy"), 3)
    with pytest.raises(ConfigError, match=r"mean_file must be a .* of Caffe or a .*npy"):
        check(str(tmp_path / "none.npy"))
    np.save(tmp_path / "flat.npy", CUBE[0])
    with pytest.raises(ConfigError, match=r"numbers of shape \(3, H, W\) or .* got float32 of"):
        check(str(tmp_path / "flat.npy"))
    for name in ("bad.npy", "bad.binaryproto"):
        (tmp_path / name).write_bytes(b"\x0f\xff")
        with pytest.raises(WeightsError, match="is damaged"):
            check(str(tmp_path / name))
    with pytest.raises(ConfigError, match="mean_file is for stream rgb; with stream flow"):
        ClipSpec("flow", 2, mean_file="mean.npy")


def test_older_configurations_have_no_mean_file() -> None:
    values = TrainConfig().to_dict()
    del values["clip"]["mean_file"]
    assert TrainConfig.from_dict(values) == TrainConfig()
