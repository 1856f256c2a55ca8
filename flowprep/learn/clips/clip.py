"""One input of a clip of a video: from the stored data to the network's tensor.

    load_clip     a clip, cropped, normalized and arranged
    load_views    several crops of one clip, decoded once
    fill_views    the same, written into an existing array
    fill_inputs   the same for all inputs of a network, which share what they decode

Nothing is random here: the caller chooses indices and crops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, ExtractConfig, FlowSpec
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips import levels
from flowprep.learn.clips.indices import bidirectional_indices
from flowprep.learn.clips.mean_image import crop_mean
from flowprep.learn.clips.transforms import (
    Crop,
    crop_flow,
    crop_frames,
    normalize_differences,
    normalize_flow,
    normalize_frames,
    subtract_mean_flow,
    to_pairs,
    to_stack,
    to_volume,
    trajectory_stack,
    with_magnitude,
)
from flowprep.learn.config import ClipSpec

__all__ = ["DecodedOnce", "fill_inputs", "fill_views", "load_clip", "load_views", "shared_reads"]

FrameChange = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Takes cut frames (n, H, W, 3) uint8 RGB, and returns those to take instead."""


def load_clip(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: Sequence[int] | NDArray[np.int64],
    crop: Crop,
    clip: ClipSpec,
    clip_input: ClipInput,
) -> NDArray[np.float32]:
    """Returns an input of a clip as a network takes it: float32, in `clip.normalization`.

    `indices` come from `clips.indices`: (L,) fields or frames. L is their own number, whatever
    `clip_input` says, and a multiple of its `stack_length`. The result is (C, H, W) for the form
    `stack`, (C, L, H, W) for `volume`, (C, L / k, H, W) for stacks of k along time, with H = W =
    clip.crop_px, or half of it for a view of a part (`ClipInput.view`). x points right and y down,
    also in a mirrored clip. Raises DatasetError for indices outside of the video and for damaged
    data, and ConfigError if the data set lacks a stream that the clip needs.
    """
    clips = load_views(dataset, video, indices, [crop], clip, clip_input)
    return clips.reshape(clips.shape[1:])


def load_views(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: Sequence[int] | NDArray[np.int64],
    crops: Sequence[Crop],
    clip: ClipSpec,
    clip_input: ClipInput,
) -> NDArray[np.float32]:
    """Returns crops of one clip, (len(crops), C, H, W) or (len(crops), C, L, H, W) float32.

    Each crop equals the result of `load_clip`, but the clip is decoded only once.
    """
    if len(indices) != len(clip_input.steps):
        num_frames = len(indices) // clip_input.stack_length
        clip_input = dataclasses.replace(clip_input, num_frames=num_frames)
    shape = clip_input.shape(clip.crop_px)
    views = np.empty((len(crops), *shape), np.float32)
    fill_views(dataset, video, np.asarray(indices, np.int64), crops, clip, clip_input, views)
    return views


class DecodedOnce:
    """A data set of which each field and frame of a video is decoded once, and then kept.

    It is for the inputs of one clip, and lives no longer than that.
    """

    def __init__(self, dataset: FlowDataset) -> None:
        self._dataset = dataset
        self._kept: dict[tuple[object, ...], tuple[NDArray[np.int64], NDArray[np.uint8]]] = {}

    @property
    def config(self) -> ExtractConfig:
        """The data set's."""
        return self._dataset.config

    def frames(self, key: str, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns what `FlowDataset.frames` returns."""
        return self._rows((key,), indices, lambda missing: self._dataset.frames(key, missing))

    def planes(
        self,
        key: str,
        indices: NDArray[np.int64],
        direction: Direction = "forward",
        *,
        box: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Returns what `FlowDataset.planes` returns."""
        return self._rows(
            (key, direction, box),
            indices,
            lambda missing: self._dataset.planes(key, missing, direction, box=box),
        )

    def _rows(
        self,
        kind: tuple[object, ...],
        indices: NDArray[np.int64],
        decode: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        wanted = np.unique(indices)
        if kind not in self._kept:
            self._kept[kind] = wanted, decode(wanted)
        known, rows = self._kept[kind]
        missing = np.setdiff1d(wanted, known, assume_unique=True)
        if len(missing):
            known, rows = np.append(known, missing), np.concatenate([rows, decode(missing)])
            order = np.argsort(known)
            known, rows = known[order], rows[order]
            self._kept[kind] = known, rows
        return rows[np.searchsorted(known, indices)]


def shared_reads(dataset: FlowDataset, inputs: Iterable[ClipInput]) -> FlowDataset | DecodedOnce:
    """Returns what the inputs of one clip are read from: the data set, or, where several are of
    the same stream, one that decodes once what they have in common."""
    streams = [one.stream for one in inputs]
    return dataset if len({*streams}) == len(streams) else DecodedOnce(dataset)


def fill_inputs(
    dataset: FlowDataset,
    video: StoredVideo,
    inputs: Sequence[ClipInput],
    indices: Sequence[NDArray[np.int64]],
    crops: Sequence[Crop],
    clip: ClipSpec,
    views: Sequence[NDArray[np.float32]],
    change: FrameChange | None = None,
) -> None:
    """Writes the result of `load_views` for each input of a clip into the array of its place.

    `change` is made to the cut frames of every input.
    """
    source = shared_reads(dataset, inputs)
    # The longest first: what is part of it needs no read of its own.
    for place in sorted(range(len(inputs)), key=lambda place: -len(indices[place])):
        fill_views(source, video, indices[place], crops, clip, inputs[place], views[place], change)


def fill_views(
    dataset: FlowDataset | DecodedOnce,
    video: StoredVideo,
    indices: NDArray[np.int64],
    crops: Sequence[Crop],
    clip: ClipSpec,
    clip_input: ClipInput,
    views: NDArray[np.float32],
    change: FrameChange | None = None,
) -> None:
    """Writes the result of `load_views` into `views`.

    `change` is made to the cut frames of every stream but flow.
    """
    side_px = clip_input.side_px(clip.crop_px)
    if clip_input.view == "fovea":
        crops = [crop.center(clip.crop_px, side_px) for crop in crops]
    if clip_input.stream == "rgb":
        frames = dataset.frames(video.key, indices)
        means = None
        for view, crop in zip(views, crops, strict=True):
            if clip.mean_file is not None:
                means = crop_mean(clip.mean_file, crop, video.width, video.height, side_px)
            cut = crop_frames(frames, crop, side_px)
            if change is not None:
                cut = change(cut)
            x = normalize_frames(cut, clip.normalization, means)
            view[:] = _arrange(x, clip_input)
        return
    if clip_input.stream in ("rgb-difference", "rgb-pair"):
        frames, first, second = _neighbors(dataset, video, indices)
        for view, crop in zip(views, crops, strict=True):
            cut = crop_frames(frames, crop, side_px)
            if change is not None:
                cut = change(cut)
            if clip_input.stream == "rgb-pair":
                x = to_pairs(cut[first], cut[second])
            else:
                x = normalize_differences(cut[first], cut[second], clip.normalization)
            view[:] = _arrange(x, clip_input)
        return
    spec = dataset.config.flow
    corners = [None if clip_input.has_magnitude else _corner(crop, side_px, clip) for crop in crops]
    box = None
    if len(crops) == 1 and corners[0] is not None and not clip.subtract_mean_flow:
        # Only the crop is needed, so less is decoded.
        box = (*corners[0], side_px, side_px)
        corners = [(0, 0)]
    planes = _planes(dataset, video, indices, clip, box)
    means_px = levels.mean_px(planes, spec) if clip.subtract_mean_flow else None
    flow: NDArray[np.float32] | None = None
    for view, crop, corner in zip(views, crops, corners, strict=True):
        if corner is not None:
            levels.fill_crop(
                planes,
                corner,
                spec,
                view,
                form=clip_input.form,
                normalization=clip.normalization,
                flip=crop.flip,
                means_px=means_px,
                channel_order=clip.channel_order,
            )
            continue
        if flow is None:
            flow = _flow(planes, clip, spec)
        x = crop_flow(flow, crop, side_px, scale_vectors=clip.scale_vectors)
        if clip_input.has_magnitude:
            x = with_magnitude(x, spec.bound_px)
        x = normalize_flow(x, clip.normalization, spec)
        if clip.channel_order == "grouped":
            x = _grouped(x, clip_input)
        view[:] = _arrange(x, clip_input)


def _neighbors(
    dataset: FlowDataset | DecodedOnce, video: StoredVideo, indices: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the frames t and t + 1 of every index t, (n, H, W, 3), each decoded once.

    Also returns where in them the L frames t are, and where the L frames t + 1 are.
    """
    needed, places = np.unique(np.concatenate([indices, indices + 1]), return_inverse=True)
    frames = dataset.frames(video.key, needed)
    return frames, places[: len(indices)], places[len(indices) :]


def _flow(planes: NDArray[np.uint8], clip: ClipSpec, spec: FlowSpec) -> NDArray[np.float32]:
    """Returns a clip's whole fields in px, before the crop, as (L, 2, H, W) float32."""
    flow = levels.to_px(planes, spec)
    if clip.stack == "trajectory":
        flow = trajectory_stack(flow)
    return subtract_mean_flow(flow) if clip.subtract_mean_flow else flow


def _corner(crop: Crop, side_px: int, clip: ClipSpec) -> tuple[int, int] | None:
    """Returns the upper left corner of a crop that needs no resampling; None for other crops."""
    is_slice = (crop.width, crop.height) == (side_px, side_px)
    if is_slice and clip.stack != "trajectory" and crop.x == int(crop.x) and crop.y == int(crop.y):
        return int(crop.x), int(crop.y)
    return None


def _planes(
    dataset: FlowDataset | DecodedOnce,
    video: StoredVideo,
    indices: NDArray[np.int64],
    clip: ClipSpec,
    box: tuple[int, int, int, int] | None,
) -> NDArray[np.uint8]:
    """Returns the stored fields of a clip, or a box of them, as (L, 2, H, W) uint8."""
    if clip.stack != "bidirectional":
        # Stacks along time may overlap. Each field is decoded once.
        needed, places = np.unique(indices, return_inverse=True)
        if len(needed) < len(indices):
            return dataset.planes(video.key, needed, box=box)[places]
        return dataset.planes(video.key, indices, box=box)
    forward, backward = bidirectional_indices(indices[None], video.num_flows)
    halves = (
        dataset.planes(video.key, forward[0], "forward", box=box),
        dataset.planes(video.key, backward[0], "backward", box=box),
    )
    return np.concatenate(halves)


def _arrange(x: NDArray[np.float32], clip_input: ClipInput) -> NDArray[np.float32]:
    if clip_input.form == "stack":
        return to_stack(x)
    return to_volume(x.reshape(-1, clip_input.num_channels, *x.shape[2:]))


def _grouped(x: NDArray[np.float32], clip_input: ClipInput) -> NDArray[np.float32]:
    """Returns fields (L, C, H, W) with the planes of each stack as x1, x2, ..., y1, y2, ..."""
    length = len(x) if clip_input.form == "stack" else clip_input.stack_length
    stacks = x.reshape(-1, length, *x.shape[1:])  # (T, k, C, H, W)
    return np.ascontiguousarray(stacks.swapaxes(1, 2)).reshape(x.shape)
