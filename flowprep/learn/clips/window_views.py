"""The views of a timeline: each window of one video is tested as if it were a video of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.testing import TestedPart, TestViews
from flowprep.learn.clips.window_spans import WindowSpans
from flowprep.learn.config import ClipSpec, ViewSpec

__all__ = ["WindowViews", "check_window"]


class WindowViews(TestViews):
    """The views of the windows of one video, in the order of time. No window has a label."""

    def __init__(
        self,
        dataset: FlowDataset,
        key: str,
        windows: WindowSpans,
        clip: ClipSpec,
        inputs: Sequence[ClipInput],
        views: ViewSpec,
        *,
        group_size: int | None = 1,
    ) -> None:
        """Takes the video `key`. `windows` must lie within its frames and fields.

        The other arguments and the errors are those of TestViews.
        """
        super().__init__(dataset, clip, inputs, views, videos=[key], group_size=group_size)
        self.windows = windows
        (self._position,) = self._positions.tolist()
        self.labels = np.full(len(windows), -1, np.int64)

    @property
    def num_videos(self) -> int:
        """How many windows are tested."""
        return len(self.windows)

    @property
    def keys(self) -> list[str]:
        """The first frame of each window, as text."""
        return [str(start) for start in self.windows.starts.tolist()]

    def label_sets(self, dataset: FlowDataset) -> list[tuple[int, ...]]:
        """Returns no label for any window."""
        return [()] * len(self.windows)

    def _part(self, number: int) -> TestedPart:
        video = self.dataset.videos[self._position]
        start, stop = int(self.windows.starts[number]), int(self.windows.stops[number])
        # The fields of a window lead to frames that lie up to a step after it.
        num_steps = video.num_frames - video.num_flows
        has_flow = any(one.stream == "flow" for one in self.inputs)
        num_frames = stop - start + (num_steps if has_flow else 0)
        return TestedPart(video, start, num_frames, min(stop, video.num_flows) - start)


def check_window(inputs: Sequence[ClipInput], length: int) -> None:
    """Raises ConfigError for windows that are shorter than a clip of a network with `inputs`."""
    longest = max(inputs, key=lambda one: one.span)
    if length < (span := longest.span):
        what = "flow fields" if longest.stream == "flow" else "frames"
        raise ConfigError(
            f"window must be at least {span}, because a clip of the network spans {span} {what}, "
            f"got {length}"
        )
