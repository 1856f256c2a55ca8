"""The mean of all frames of a data set, place by place: an image, or a cube of L frames.

    read_mean      a file -> (L, 3, H, W), L = 1 for an image
    crop_mean      the part of it that a crop of a stored frame shows

It has any size: it stands for a whole frame, whatever the frame's size.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.transforms import Crop, resample_box
from flowprep.learn.config import ClipSpec
from flowprep.learn.weights.caffe import read_binaryproto

__all__ = ["check_mean", "crop_mean", "read_mean"]

_BLOB_SUFFIX, _ARRAY_SUFFIX = ".binaryproto", ".npy"


@functools.lru_cache(maxsize=4)
def read_mean(path: str) -> NDArray[np.float32]:
    """Reads a file of means once: (L, 3, H, W) float32 levels, in the file's order of colors.

    Raises ConfigError for a file of another kind or shape, WeightsError for a damaged one.
    """
    file = Path(path)
    if file.suffix not in (_BLOB_SUFFIX, _ARRAY_SUFFIX) or not file.is_file():
        raise ConfigError(
            f"mean_file must be a {_BLOB_SUFFIX} of Caffe or a {_ARRAY_SUFFIX} that is there, got "
            f"{path}; give its path on this machine"
        )
    if file.suffix == _BLOB_SUFFIX:
        values = read_binaryproto(file)
        if values.ndim > 3 and values.shape[0] == 1:
            values = values[0]  # num
    else:
        try:
            values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise WeightsError(
                f"{path} is damaged or no {_ARRAY_SUFFIX}: {error}; write it by numpy.save"
            ) from error
    if values.ndim == 3:
        values = values[:, None]
    is_numbers = values.dtype.kind in "fui" and values.size > 0
    if values.ndim != 4 or values.shape[0] != 3 or not is_numbers:
        raise ConfigError(
            "mean_file must hold numbers of shape (3, H, W) or (3, L, H, W), got "
            f"{values.dtype} of shape {values.shape} in {path}"
        )
    means = np.ascontiguousarray(values.swapaxes(0, 1), np.float32)
    means.setflags(write=False)  # shared by all clips
    return means


def check_mean(clip: ClipSpec, one: ClipInput) -> None:
    """Raises ConfigError if the clip's file of means is not for this input."""
    if clip.mean_file is None or one.stream != "rgb":
        return
    length = len(read_mean(clip.mean_file))
    if length not in (1, one.num_frames):
        raise ConfigError(
            f"mean_file must have one frame, or {one.num_frames} as each clip has, got {length} in "
            f"{clip.mean_file}; give --frames {length}, or another file"
        )


def crop_mean(path: str, crop: Crop, width: int, height: int, out_px: int) -> NDArray[np.float32]:
    """Returns the means at a crop of a frame of width x height px: (L, 3, out_px, out_px) float32.

    They are resampled and mirrored as the crop is.
    """
    means = read_mean(path)
    ratio_x, ratio_y = means.shape[3] / width, means.shape[2] / height
    box = Crop(crop.x * ratio_x, crop.y * ratio_y, crop.width * ratio_x, crop.height * ratio_y)
    planes = resample_box(means.reshape(-1, *means.shape[2:]), box, out_px, out_px)
    cut = planes.reshape(len(means), 3, out_px, out_px)
    return cut[..., ::-1] if crop.flip else cut
