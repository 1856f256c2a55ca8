"""Windows over a whole video, and the clips that networks see in each of them.

    Windows        where the windows of a video lie
    WindowClips    what each network takes from a window: its inputs, in every crop

Several networks share the windows, so that their features belong to the same moments. The longest
input of all of them fills a window. The others have its middle, as in
`flowprep.learn.clips.indices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.learn.clip_inputs import ClipInput, CropsName, TailName
from flowprep.learn.clips.clip import fill_views, shared_reads
from flowprep.learn.clips.indices import frames_after, indices_at, sliding_starts
from flowprep.learn.clips.transforms import Crop, test_crops
from flowprep.learn.config import ClipSpec

__all__ = ["WindowClips", "Windows"]

_NUM_CROPS: dict[CropsName, int] = {"center": 1, "ten": 10, "whole": 1}

# Longer than any video, so that no clip in it is too long. Its numbers of frames and of fields
# differ by the step.
_ENDLESS = 1 << 40


@dataclass(frozen=True)
class Windows:
    """The windows of any video. Frames and fields count from 0."""

    inputs: tuple[ClipInput, ...]
    """The inputs of all networks."""
    stride: int
    """Distance between the starts of two windows, in frames."""
    tail: TailName
    step: int
    """Number of frames from one end of a flow field to the other."""

    @property
    def length(self) -> int:
        """Number of frames that a window covers."""
        return max(one.extent for one in self.inputs)

    def starts(self, num_frames: int) -> NDArray[np.int64]:
        """Returns the first frame of each window of a whole video, (num_windows,) int64."""
        return sliding_starts(
            num_frames,
            num_frames - self.step,
            self.inputs,
            self.stride,
            keeps_tail=self.tail == "last",
        )

    @property
    def num_needed(self) -> int:
        """Number of frames that a window takes part of: W fields lie between W + step frames.

        The only window of a shorter video repeats it.
        """
        lasts = frames_after(self.step)
        return max(
            int(indices.max()) + 1 + lasts[one.stream]
            for one, indices in zip(self.inputs, self._endless([0]), strict=True)
        )

    def frames(self, starts: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
        """Returns the first frame of each window and the frame after its last, (N, 2) int64."""
        ends = np.minimum(starts + self.length, num_frames)
        return np.stack([starts, ends], axis=1)

    def num_left(self, num_frames: int) -> int:
        """Returns the number of frames, or of fields, at the end of a video in no window."""
        every = sliding_starts(num_frames, num_frames - self.step, self.inputs, 1)
        return int(every[-1] - self.starts(num_frames)[-1])

    def is_ready(self, start: int, num_frames: int, num_flows: int) -> bool:
        """Whether so many frames and fields are enough for the window that begins at `start`."""
        pairs = num_frames - 1
        counts = {"flow": num_flows, "rgb": num_frames, "rgb-difference": pairs, "rgb-pair": pairs}
        return all(
            int(indices.max()) < counts[one.stream]
            for one, indices in zip(self.inputs, self._endless([start]), strict=True)
        )

    def _endless(self, starts: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
        """Returns the indices of windows in a video without an end."""
        return indices_at(_ENDLESS + self.step, _ENDLESS, self.inputs, starts)


class WindowClips:
    """Reads the clips of windows: `read` gives one tensor for each input of each network."""

    def __init__(
        self,
        networks: Sequence[tuple[ClipSpec, Sequence[ClipInput]]],
        windows: Windows,
        crops: CropsName,
    ) -> None:
        """`networks` are what each network sees. `windows.inputs` are all of their inputs."""
        self.windows = windows
        self.crops: CropsName = crops
        self._clips = [clip for clip, inputs in networks for _ in inputs]
        self.names = [
            [f"{number}.{one.name}" for one in inputs]
            for number, (_, inputs) in enumerate(networks)
        ]
        """For each network, the names of its inputs in what `read` returns."""

    @property
    def num_crops(self) -> int:
        """Number of crops of each window."""
        return _NUM_CROPS[self.crops]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, (num_crops, C, H, W) or (num_crops, C, L, H, W)."""
        names = [name for names in self.names for name in names]
        return {
            name: (self.num_crops, *one.shape(clip.crop_px))
            for name, clip, one in zip(names, self._clips, self.windows.inputs, strict=True)
        }

    def check(self, width: int, height: int) -> None:
        """Raises ConfigError if crops do not fit into frames of this size, px."""
        for clip in self._clips:
            self._crops_of(width, height, clip)

    def read(
        self,
        dataset: FlowDataset,
        video: StoredVideo,
        start: int,
        out: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Returns the clips of the window that begins at frame `start`; into `out`, if given.

        Raises DatasetError for damaged data, ConfigError if crops do not fit into the frames.
        """
        views: dict[str, Any] = dict(out) if out is not None else {}
        if out is None:
            views = {name: np.empty(shape, np.float32) for name, shape in self.shapes.items()}
        inputs = self.windows.inputs
        chosen = indices_at(video.num_frames, video.num_flows, inputs, [start])
        source = shared_reads(dataset, inputs)
        parts = zip(self.shapes, self._clips, inputs, chosen, strict=True)
        # The longest first: what is part of it needs no read of its own.
        for name, clip, one, indices in sorted(parts, key=lambda part: -part[3].size):
            crops = self._crops_of(video.width, video.height, clip)
            fill_views(source, video, indices[0], crops, clip, one, views[name])
        return views

    def _crops_of(self, width: int, height: int, clip: ClipSpec) -> list[Crop]:
        if self.crops == "whole":
            return [Crop(0, 0, width, height)]
        return test_crops(width, height, clip, self.num_crops)
