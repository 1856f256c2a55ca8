"""From a video that is made of tensors to a network's inputs, so that gradients reach the video.

It does what the loader does (`clips.clip`, `clips.levels`, `clips.transforms`), but in PyTorch and
without crops: the video has the size of the network's crop. The fields and frames of the video have
one scale, whatever the network's own: 1 is the bound of the flow, and 127.5 levels around the
middle of a frame. So all networks imagine alike, and the limits of data are -1 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from flowprep.config import FlowSpec
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.indices import frames_after, indices_at
from flowprep.learn.clips.levels import flow_line
from flowprep.learn.clips.mean_image import crop_mean, read_mean
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.config import ClipSpec
from flowprep.learn.normalizations import find_normalization

__all__ = ["MIDDLE_LEVEL", "VideoInputs"]

MIDDLE_LEVEL = 127.5
"""The level at 0 in a frame's scale, and the levels of 1."""


class VideoInputs:
    """Makes the inputs of a network from the fields and frames of a short video.

    The video has S parts, one for each segment that the network joins, and each part is as long as
    a clip. Only fields and frames that the network sees exist: `fields` and `frames` are their
    places in time.
    """

    def __init__(
        self, inputs: Sequence[ClipInput], clip: ClipSpec, flow: FlowSpec, *, num_segments: int = 1
    ) -> None:
        self.inputs = tuple(inputs)
        self.clip, self.flow, self.num_segments = clip, flow, num_segments
        after = frames_after(flow.step)
        num_frames = max(one.span + after[one.stream] for one in inputs)
        num_frames = max(num_frames, flow.step + 1)
        self._indices = [
            places[0] for places in indices_at(num_frames, num_frames - flow.step, inputs, [0])
        ]
        fields: set[int] = set()
        frames: set[int] = set()
        for one, places in zip(self.inputs, self._indices, strict=True):
            if one.stream == "flow":
                fields.update(places.tolist())
            else:
                frames.update(places.tolist())
            if one.stream in ("rgb-difference", "rgb-pair"):
                frames.update((places + 1).tolist())
        self.fields, self.frames = sorted(fields), sorted(frames)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the video: `flow` (S, T, 2, H, W) and `rgb` (S, T, 3, H, W), if seen."""
        side, parts = self.clip.crop_px, self.num_segments
        shapes: dict[str, tuple[int, ...]] = {}
        if self.fields:
            shapes["flow"] = (parts, len(self.fields), 2, side, side)
        if self.frames:
            shapes["rgb"] = (parts, len(self.frames), 3, side, side)
        return shapes

    def clips(self, video: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Returns each input, (1, S, C, H, W) or (1, S, C, L, H, W), from a video of `shapes`."""
        made = []
        for one, places in zip(self.inputs, self._indices, strict=True):
            if one.stream == "flow":
                x = self._flow(one, places, video["flow"])
            else:
                x = self._frames(one, places, video["rgb"])
            made.append(self._arrange(one, x).unsqueeze(0))
        return made

    def to_px(self, flow: torch.Tensor) -> NDArray[np.float32]:
        """Returns fields (..., 2, H, W) of the video's scale as px, (..., H, W, 2)."""
        moved = flow.detach().cpu().movedim(-3, -1).numpy()
        return np.ascontiguousarray(moved * np.float32(self.flow.bound_px))

    def to_levels(self, frames: torch.Tensor) -> NDArray[np.uint8]:
        """Returns frames (..., 3, H, W) of the video's scale as levels, (..., H, W, 3) RGB."""
        levels = frames.detach().cpu().movedim(-3, -1).numpy() * MIDDLE_LEVEL + MIDDLE_LEVEL
        return np.ascontiguousarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))

    def _flow(self, one: ClipInput, places: NDArray[np.int64], video: torch.Tensor) -> torch.Tensor:
        """Returns the fields of an input, (S, L, C, H, W), normalized."""
        at = {place: number for number, place in enumerate(self.fields)}
        x = video[:, [at[place] for place in places.tolist()]]
        if self.clip.stack == "bidirectional":
            # `bidirectional_indices`, and a backward field is the forward one turned around.
            half = x.shape[1] // 2
            x = torch.cat([x[:, half:], -x[:, :half].flip(1)], 1)
        x = self._view(one, x)
        if one.has_magnitude:
            # The square root has no slope at 0.
            lengths = (x.square().sum(2, keepdim=True) + 1e-12).sqrt().clamp(max=1)
            x = torch.cat([x, lengths], 2)
        zero, per_px = flow_line(self.clip.normalization, self.flow.bound_px)
        scale = torch.tensor(per_px * self.flow.bound_px, dtype=x.dtype, device=x.device)
        offset = torch.tensor(zero, dtype=x.dtype, device=x.device)
        if one.has_magnitude:  # is normalized as x and y are, which are alike then
            scale, offset = torch.cat([scale, scale[:1]]), torch.cat([offset, offset[:1]])
        return x * scale[:, None, None] + offset[:, None, None]

    def _frames(
        self, one: ClipInput, places: NDArray[np.int64], video: torch.Tensor
    ) -> torch.Tensor:
        """Returns the frames, differences or pairs of an input, (S, L, 3 or 6, H, W), normalized.

        Pairs are levels, whatever the normalization.
        """
        if one.stream == "rgb-pair":
            at = {place: number for number, place in enumerate(self.frames)}
            first, second = (
                self._view(one, video[:, [at[place + step] for place in places.tolist()]])
                for step in (0, 1)
            )
            return torch.cat([first, second], 2) * MIDDLE_LEVEL + MIDDLE_LEVEL
        numbers = find_normalization(self.clip.normalization)
        assert numbers is not None  # `px` is for flow alone
        at = {place: number for number, place in enumerate(self.frames)}
        order = ["RGB".index(color) for color in numbers.rgb_order]
        x = self._view(one, video[:, [at[place] for place in places.tolist()]][:, :, order])
        std = torch.tensor(numbers.rgb_std, dtype=x.dtype, device=x.device)[:, None, None]
        if one.stream == "rgb-difference":
            later = video[:, [at[place + 1] for place in places.tolist()]][:, :, order]
            if self.clip.normalization == "tsn-resnet":  # see `normalize_differences`
                std = torch.full_like(std, 255)
            return (self._view(one, later) - x) * MIDDLE_LEVEL / std
        if self.clip.mean_file is not None:
            mean = torch.from_numpy(self._mean(one).copy()).to(x)
        else:
            mean = torch.tensor(numbers.rgb_mean, dtype=x.dtype, device=x.device)[:, None, None]
        return (x * MIDDLE_LEVEL + MIDDLE_LEVEL - mean) / std

    def _mean(self, one: ClipInput) -> NDArray[np.float32]:
        """Returns the mean of the file at the center of a frame of the file's own shape."""
        assert self.clip.mean_file is not None
        height, width = read_mean(self.clip.mean_file).shape[2:]
        short = self.clip.resize_short_px or self.clip.crop_px
        scale = short / min(width, height)
        side = self.clip.crop_px / scale
        crop = Crop((width - side) / 2, (height - side) / 2, side, side)
        side_px = one.side_px(self.clip.crop_px)
        if one.view == "fovea":
            crop = crop.center(self.clip.crop_px, side_px)
        return crop_mean(self.clip.mean_file, crop, width, height, side_px)

    def _view(self, one: ClipInput, x: torch.Tensor) -> torch.Tensor:
        """Returns the part of fields or frames (S, L, C, H, W) that an input shows."""
        side, whole = one.side_px(self.clip.crop_px), self.clip.crop_px
        if one.view == "fovea":
            first = (whole - side) // 2
            return x[..., first : first + side, first : first + side]
        if one.view == "context":
            small = F.interpolate(x.flatten(0, 1), (side, side), mode="area")
            return small.view(*x.shape[:3], side, side)
        return x

    def _arrange(self, one: ClipInput, x: torch.Tensor) -> torch.Tensor:
        """Returns (S, C, H, W) or (S, C, L, H, W) from fields or frames (S, L, C, H, W)."""
        parts, length, channels, height, width = x.shape
        in_stack = length if one.form == "stack" else one.stack_length
        stacks = x.view(parts, -1, in_stack, channels, height, width)
        if self.clip.channel_order == "grouped" and one.stream == "flow":
            stacks = stacks.transpose(2, 3)
        stacks = stacks.flatten(2, 3)  # (S, T, C, H, W)
        return stacks[:, 0] if one.form == "stack" else stacks.transpose(1, 2)
