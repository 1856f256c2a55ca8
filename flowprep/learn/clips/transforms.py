"""Crops, flips, stacks and ranges: from stored fields and frames to a network's input.

    training_crop, test_crops                     boxes in the stored frame
    crop_flow, crop_frames, resize_flow           resample such a box once, and mirror it
    subtract_mean_flow, trajectory_stack          change flow in px, before the crop
    normalize_flow, normalize_frames              the ranges of numbers that networks expect
    to_stack, to_volume                           the order of the channels

Flow is planar here: (L, 2, H, W) float32 in px, u to the right and v down. Frames are (n, H, W, 3)
uint8 RGB. No function changes its input.

A box (x, y, width, height) covers [x, x + width) of the stored frame's px, and pixel k covers
[k, k + 1). It is resampled once: by bilinear interpolation between pixel centers, or by area
averaging if it shrinks much. Pixels next to the box take part in the interpolation at its edges, as
if the whole frame had been resized before the crop.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import NormalizationName
from flowprep.learn.config import ClipSpec
from flowprep.learn.normalizations import Normalization, find_normalization
from flowprep.learn.training_specs import AugmentSpec, CropName

__all__ = [
    "Crop",
    "crop_flow",
    "crop_frames",
    "flip_flow",
    "flip_frames",
    "normalize_flow",
    "normalize_frames",
    "resample_box",
    "resize_flow",
    "subtract_mean_flow",
    "test_crops",
    "to_pairs",
    "to_stack",
    "to_volume",
    "training_crop",
    "trajectory_stack",
    "with_magnitude",
]

Scalar = TypeVar("Scalar", np.float32, np.uint8)

# TSN takes a crop without resizing if its side is nearly the network's (yjxiong/tsn-pytorch,
# transforms.py, GroupMultiScaleCrop).
_SNAP_PX = 3
# If a box shrinks more than this, bilinear interpolation would skip px, and fine texture would
# become noise. Area averaging then uses all px.
_AREA_SCALE = 1.5
_BY_AREAS = cv2.INTER_AREA


# ---- boxes


@dataclass(frozen=True)
class Crop:
    """A box in the stored frame, px. The network sees this box, resampled to the network's size."""

    x: float
    """Left edge."""
    y: float
    """Upper edge."""
    width: float
    height: float
    flip: bool = False
    """Mirror the content of the box, and negate u."""

    def center(self, whole_px: int, part_px: int) -> Crop:
        """Returns the box around the middle part, where the whole box stands for `whole_px`.

        Of a rest that is odd, the right and the lower side have one px more, as the network sees
        it.
        """
        before, after = (whole_px - part_px) // 2, (whole_px - part_px + 1) // 2
        left = after if self.flip else before
        scale_x, scale_y = self.width / whole_px, self.height / whole_px
        return Crop(
            self.x + left * scale_x,
            self.y + before * scale_y,
            part_px * scale_x,
            part_px * scale_y,
            self.flip,
        )


def training_crop(
    width: int, height: int, clip: ClipSpec, augment: AugmentSpec, rng: np.random.Generator
) -> Crop:
    """Draws a box in a stored frame of width x height px, the same for all fields of a clip.

    The box refers to the frame resized to `clip.resize_short_px`. With scales (1,), the box has
    crop_px on each side of the resized frame. With several scales, width and height are shares of
    the short side, at most one step apart, and all such pairs are equally likely
    (yjxiong/tsn-pytorch, GroupMultiScaleCrop: 256, 224, 192, 168 of 340x256). Raises ConfigError if
    the network's square is larger than the frame.
    """
    frame = _resized_size(width, height, clip)
    pairs = _crop_sizes(min(frame), clip.crop_px, augment.scales)
    size = pairs[rng.integers(len(pairs))]
    if augment.crop == "random":
        places = (rng.integers(frame[0] - size[0] + 1), rng.integers(frame[1] - size[1] + 1))
        offset = (int(places[0]), int(places[1]))
    else:
        offsets = _offsets(frame[0] - size[0], frame[1] - size[1], augment.crop)
        offset = offsets[rng.integers(len(offsets))]
    flip = augment.flip and bool(rng.random() < 0.5)
    return _stored_crop(offset, size, frame, (width, height), flip)


def test_crops(width: int, height: int, clip: ClipSpec, num_crops: int) -> list[Crop]:
    """Returns the boxes for a test in a stored frame of width x height px.

    1: the center. 3: left, center and right of a wide frame; top, center and bottom of a high
    frame. 5: the four corners (upper left, upper right, lower left, lower right) and the center.
    10: the same five, then the same five mirrored. Each box has crop_px on each side of the frame
    after the resize to `clip.resize_short_px`. Raises ConfigError for another number, or if a box
    is larger than the frame.
    """
    frame = _resized_size(width, height, clip)
    (size,) = _crop_sizes(min(frame), clip.crop_px, (1.0,))
    room_x, room_y = frame[0] - size[0], frame[1] - size[1]
    if num_crops == 1:
        offsets = _offsets(room_x, room_y, "center")
    elif num_crops == 3 and room_x >= room_y:
        offsets = [(x, room_y // 2) for x in (0, room_x // 2, room_x)]
    elif num_crops == 3:
        offsets = [(room_x // 2, y) for y in (0, room_y // 2, room_y)]
    elif num_crops in (5, 10):
        offsets = _offsets(room_x, room_y, "corners")
    else:
        raise ConfigError(f"num_crops must be 1, 3, 5 or 10, got {num_crops}")
    flips = (False, True) if num_crops == 10 else (False,)
    return [
        _stored_crop(offset, size, frame, (width, height), flip)
        for flip in flips
        for offset in offsets
    ]


def _resized_size(width: int, height: int, clip: ClipSpec) -> tuple[int, int]:
    """Returns width and height of the resized frame; raises ConfigError if it is too small."""
    short = clip.resize_short_px
    if short is not None:
        # Whole px, as if the frame were resized before the crop. Half rounds up, as in `extract`.
        side = min(width, height)
        width, height = ((2 * long * short + side) // (2 * side) for long in (width, height))
    if clip.crop_px > min(width, height):
        raise ConfigError(
            f"crop_px must be <= the short side of the frames, got {clip.crop_px} for "
            f"{width}x{height}; take --crop {min(width, height)} or less, or enlarge the frames "
            f"with --resize-short {clip.crop_px}"
        )
    return width, height


def _crop_sizes(short_px: int, crop_px: int, scales: tuple[float, ...]) -> list[tuple[int, int]]:
    """Returns every width and height that a crop may have, in px of the resized frame."""
    if scales == (1.0,):
        return [(crop_px, crop_px)]
    sides = [int(short_px * scale) for scale in scales]
    sides = [crop_px if abs(side - crop_px) < _SNAP_PX else side for side in sides]
    return [
        (sides[i], sides[j])
        for i, j in itertools.product(range(len(sides)), repeat=2)
        if abs(i - j) <= 1
    ]


def _offsets(room_x: int, room_y: int, crop: CropName) -> list[tuple[int, int]]:
    """Returns the upper left corners of the places `center`, `corners` or `corners-13`.

    `room` is the frame's size minus the crop's size. The order is that of TSN's `fill_fix_offset`.
    Its right and lower places are up to 3 px short of the edge if the room is no multiple of 4.
    """
    x = (0, room_x // 4, room_x // 2, room_x - room_x // 4, room_x)
    y = (0, room_y // 4, room_y // 2, room_y - room_y // 4, room_y)
    center = [(x[2], y[2])]
    if crop == "center":
        return center
    corners = [(x[0], y[0]), (x[4], y[0]), (x[0], y[4]), (x[4], y[4]), *center]
    if crop == "corners":
        return corners
    edges = [(x[0], y[2]), (x[4], y[2]), (x[2], y[4]), (x[2], y[0])]
    quarters = [(x[1], y[1]), (x[3], y[1]), (x[1], y[3]), (x[3], y[3])]
    return [*corners, *edges, *quarters]


def _stored_crop(
    offset: tuple[int, int],
    size: tuple[int, int],
    frame: tuple[int, int],
    stored: tuple[int, int],
    flip: bool,
) -> Crop:
    # Multiplied before the division, so that a frame that is not resized gives whole numbers.
    x, width = (value * stored[0] / frame[0] for value in (offset[0], size[0]))
    y, height = (value * stored[1] / frame[1] for value in (offset[1], size[1]))
    return Crop(x, y, width, height, flip)


# ---- resampling


def crop_flow(
    flow: NDArray[np.float32], crop: Crop, out_px: int, *, scale_vectors: bool
) -> NDArray[np.float32]:
    """Resamples a box of fields (L, 2, H, W) to (L, 2, out_px, out_px) float32, px.

    A box of whole px that already has the wanted size is copied exactly. `scale_vectors` multiplies
    u by out_px / crop.width and v by out_px / crop.height, so that the vectors are px of the
    result. The published recipes leave them in px of the stored frame. `crop.flip` mirrors the
    fields and negates u. Raises ConfigError for a box that is not within the frame.
    """
    planes = resample_box(flow.reshape(-1, *flow.shape[2:]), crop, out_px, out_px)
    result = planes.reshape(-1, 2, out_px, out_px)
    if scale_vectors:
        result *= _vector_scales(out_px / crop.width, out_px / crop.height)
    return flip_flow(result) if crop.flip else result


def crop_frames(frames: NDArray[np.uint8], crop: Crop, out_px: int) -> NDArray[np.uint8]:
    """Resamples a box of frames (n, H, W, 3) as `crop_flow` does: (n, out_px, out_px, 3) uint8.

    Raises ConfigError for a box that is not within the frame.
    """
    result = resample_box(frames, crop, out_px, out_px)
    return flip_frames(result) if crop.flip else result


def resize_flow(
    flow: NDArray[np.float32], width: int, height: int, scale_vectors: bool
) -> NDArray[np.float32]:
    """Resamples whole fields (L, 2, H, W) to (L, 2, height, width) float32, px.

    `scale_vectors` makes the vectors px of the new size. Otherwise they stay px of the old size.
    """
    old_height, old_width = flow.shape[2:]
    whole = Crop(0, 0, old_width, old_height)
    planes = resample_box(flow.reshape(-1, old_height, old_width), whole, width, height)
    result = planes.reshape(-1, 2, height, width)
    if scale_vectors:
        result *= _vector_scales(width / old_width, height / old_height)
    return result


def flip_flow(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mirrors fields (L, 2, H, W) left to right and negates u, as if the video were mirrored."""
    flipped = np.ascontiguousarray(flow[..., ::-1])
    np.negative(flipped[:, 0], out=flipped[:, 0])
    return flipped


def flip_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirrors frames (n, H, W, 3) left to right."""
    flipped = np.empty(frames.shape, np.uint8)
    for frame, mirrored in zip(frames, flipped, strict=True):
        # NumPy moves 3-byte px one by one: 3.4 ms for 16 frames of 224x224, against 0.3 ms.
        cv2.flip(frame, 1, dst=mirrored)
    return flipped


def _vector_scales(scale_x: float, scale_y: float) -> NDArray[np.float32]:
    return np.array([scale_x, scale_y], np.float32)[:, None, None]


def resample_box(images: NDArray[Scalar], crop: Crop, width: int, height: int) -> NDArray[Scalar]:
    """Resamples a box of images (n, H, W) or (n, H, W, 3) to width x height px, not mirrored.

    Returns a new array of the same dtype.
    """
    old_height, old_width = images.shape[1:3]
    _check_within(crop, old_width, old_height)
    if (crop.width, crop.height) == (width, height) and crop.x % 1 == crop.y % 1 == 0:
        left, top = int(crop.x), int(crop.y)
        box: NDArray[Scalar] = images[:, top : top + height, left : left + width]
        return np.array(box)
    shrunk = None
    if max(crop.width / width, crop.height / height) > _AREA_SCALE:
        # First the whole frame is resized by area averaging, to the nearest whole px. Then bilinear
        # interpolation does the remaining shift and scale, and all of an axis that is enlarged.
        shrunk = (
            min(old_width, max(1, round(old_width * width / crop.width))),
            min(old_height, max(1, round(old_height * height / crop.height))),
        )
        ratio_x, ratio_y = shrunk[0] / old_width, shrunk[1] / old_height
        crop = Crop(crop.x * ratio_x, crop.y * ratio_y, crop.width * ratio_x, crop.height * ratio_y)
    map_x, map_y = np.meshgrid(
        _sample_points(crop.x, crop.width, width), _sample_points(crop.y, crop.height, height)
    )
    results = np.empty((len(images), height, width, *images.shape[3:]), images.dtype)
    # OpenCV is faster plane by plane than with the fields as channels: it need not reorder them.
    for image, result in zip(images, results, strict=True):
        source = image if shrunk is None else cv2.resize(image, shrunk, interpolation=_BY_AREAS)
        _interpolate(source, map_x, map_y, result)
    return results


def _sample_points(start: float, length: float, count: int) -> NDArray[np.float32]:
    """Returns the centers of `count` px that cover a length; pixel center 0 is at 0."""
    points = start - 0.5 + (np.arange(count) + 0.5) * length / count
    # Rounding at 1e-6 px removes floating-point noise from points that lie on pixel centers.
    return np.asarray(np.round(points, 6), np.float32)


def _interpolate(
    image: NDArray[Any], map_x: NDArray[np.float32], map_y: NDArray[np.float32], out: NDArray[Any]
) -> None:
    """Samples an image bilinearly at points, into `out`. Points are px from the first px's center.

    Points beyond the outermost centers get the border's values. OpenCV before version 5 rounds
    points to 1/32 px.
    """
    cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)


def _check_within(crop: Crop, width: int, height: int) -> None:
    # A thousandth of a px allows for rounding in boxes at the edge.
    right, bottom = crop.x + crop.width, crop.y + crop.height
    if not (-1e-3 <= crop.x < right <= width + 1e-3 and -1e-3 <= crop.y < bottom <= height + 1e-3):
        raise ConfigError(f"a crop must lie within the frame of {width}x{height} px, got {crop}")


# ---- flow in px


def subtract_mean_flow(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtracts the mean vector from each field of (L, 2, H, W), px.

    This removes most of the camera's motion (Simonyan and Zisserman 2014, section 3.1). The mean is
    over the whole field, so subtract before cropping.
    """
    mean = flow.mean(axis=(2, 3), keepdims=True, dtype=np.float64)
    centered: NDArray[np.float32] = flow - mean.astype(np.float32)
    return centered


def trajectory_stack(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples fields (L, 2, H, W), px, along the paths of the first field's pixels: same shape.

    p_1 is the pixel, p_k = p_(k-1) + d_(k-1)(p_(k-1)), and field k of the result is d_k(p_k),
    interpolated bilinearly (Simonyan and Zisserman 2014, equation 2). A point that leaves the frame
    stays on its border, and the flow there may move it on. Fields must be consecutive, frame to
    frame. Call this before the mean is subtracted, because the paths include the camera's motion.
    """
    height, width = flow.shape[2:]
    map_x, map_y = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    stack = np.empty_like(flow)
    for number, field in enumerate(flow):
        for component in range(2):
            _interpolate(field[component], map_x, map_y, stack[number, component])
        np.clip(map_x + stack[number, 0], 0, width - 1, out=map_x)
        np.clip(map_y + stack[number, 1], 0, height - 1, out=map_y)
    return stack


def with_magnitude(flow: NDArray[np.float32], bound_px: float) -> NDArray[np.float32]:
    """Returns fields (L, 2, H, W), px, with their vectors' lengths as a third channel.

    A length is at most `bound_px`, as x and y are. LisaAnne/lisa-caffe-public writes it beside them
    (create_flow_images_LRCN.m), so that a field looks like an RGB frame to a network.
    """
    lengths = np.minimum(np.hypot(flow[:, :1], flow[:, 1:]), np.float32(bound_px))
    return np.concatenate([flow, lengths], axis=1)


# ---- ranges


def normalize_flow(
    flow: NDArray[np.float32], name: NormalizationName, spec: FlowSpec
) -> NDArray[np.float32]:
    """Returns flow in px as the numbers of a normalization: same shape, float32.

    `flow` is (..., 2, H, W), or of any shape for a normalization that treats x and y alike. `spec`
    is the data's own, and only its bound counts. With `unit`, 0 px and +-bound become 0 and +-1.
    With `tsn`, they become -.5 and -128 to 127, and so on. The quantizer makes no difference.
    Raises ConfigError for an unknown name, and for a shape that it is not for.
    """
    if (numbers := find_normalization(name)) is None:
        return np.array(flow)
    scales, offsets = (
        [np.float32(value) for value in values] for values in numbers.flow_line(spec.bound_px)
    )
    if scales[0] == scales[1] and offsets[0] == offsets[1]:
        result: NDArray[np.float32] = flow * scales[0]
        if offsets[0]:
            result += offsets[0]
        return result
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise ConfigError(
            f"normalization {name} has numbers for x and y alone, got flow of shape {flow.shape}; "
            "take another normalization"
        )
    result = flow * np.array(scales, np.float32)[:, None, None]
    result += np.array(offsets, np.float32)[:, None, None]
    return result


def normalize_frames(
    frames: NDArray[np.uint8],
    name: NormalizationName,
    means: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns frames (n, H, W, 3) uint8 RGB as (n, 3, H, W) float32 of a normalization.

    The channels are in the normalization's order: BGR for `tsn` and `c3d`, RGB for the others.
    `means`, (n or 1, 3, H, W) in this order, takes the place of the normalization's mean. Raises
    ConfigError for an unknown name, and for `px`, which exists only for flow.
    """
    numbers = _rgb_normalization(name)
    result = np.empty((frames.shape[0], 3, *frames.shape[1:3]), np.float32)
    for channel, (color, mean, std) in enumerate(
        zip(numbers.rgb_order, numbers.rgb_mean, numbers.rgb_std, strict=True)
    ):
        plane = result[:, channel]
        center = np.float32(mean) if means is None else means[:, channel]
        np.subtract(frames[..., "RGB".index(color)], center, out=plane)
        plane *= np.float32(1 / std)
    return result


def normalize_differences(
    first: NDArray[np.uint8], second: NDArray[np.uint8], name: NormalizationName
) -> NDArray[np.float32]:
    """Returns second - first of frames (n, H, W, 3) uint8 RGB as (n, 3, H, W) float32.

    This is the difference of the two normalized frames, in the order of their channels, so the mean
    plays no part. `tsn-resnet` divides by 255 alone, not by ImageNet's standard deviations: TSN
    trains on differences of levels that are not normalized (yjxiong/tsn-pytorch, main.py, RGBDiff).
    Raises ConfigError as `normalize_frames` does.
    """
    numbers = _rgb_normalization(name)
    stds = (255.0, 255.0, 255.0) if name == "tsn-resnet" else numbers.rgb_std
    result = np.empty((first.shape[0], 3, *first.shape[1:3]), np.float32)
    for channel, (color, std) in enumerate(zip(numbers.rgb_order, stds, strict=True)):
        place = "RGB".index(color)
        plane = result[:, channel]
        np.subtract(second[..., place], first[..., place], out=plane, dtype=np.float32)
        plane *= np.float32(1 / std)
    return result


def to_pairs(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns frames (n, H, W, 3) uint8 RGB and the next ones as levels (n, 6, H, W) float32."""
    pairs = np.concatenate([first, second], axis=3)
    return np.ascontiguousarray(np.moveaxis(pairs, 3, 1), np.float32)


def _rgb_normalization(name: NormalizationName) -> Normalization:
    if (numbers := find_normalization(name)) is None:
        raise ConfigError(f"normalization {name} is for stream flow; take another one for rgb")
    return numbers


# ---- channels


def to_stack(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns (L, C, H, W) as one image (L C, H, W): x1, y1, x2, y2, ... or r1, g1, b1, r2, ..."""
    return np.reshape(x, (-1, *x.shape[2:]))


def to_volume(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns (L, C, H, W) as a contiguous volume (C, L, H, W): channels outside, time inside."""
    return np.ascontiguousarray(x.swapaxes(0, 1))
