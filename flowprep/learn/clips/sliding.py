"""A video that is still being computed, read like a data set: only its latest part is kept.

    FlowStreams(..., make_stream=LatestJpegs)    frames -> flow -> levels -> JPEGs, of a whole video
    SlidingVideo                                 the clips of these JPEGs, as from a data set

So a network sees the same levels as in a data set, where they have been JPEGs too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import DatasetHeader
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo, VideoList
from flowprep.dataset.write import JpegStream
from flowprep.storage import Storage

__all__ = ["LatestJpegs", "SlidingVideo"]


class LatestJpegs(JpegStream):
    """The latest JPEGs of a stream. The earlier ones are dropped when nobody needs them."""

    def __init__(self, quality: int) -> None:
        super().__init__(quality)
        self._jpegs: deque[bytes] = deque()
        self._num_dropped = 0

    def append_jpeg(self, jpeg: bytes | memoryview) -> None:
        """Appends a whole JPEG file."""
        self._jpegs.append(bytes(jpeg))

    def __len__(self) -> int:
        """The number of JPEGs so far, dropped ones included."""
        return self._num_dropped + len(self._jpegs)

    def drop_before(self, index: int) -> None:
        """Drops all JPEGs before the one with this index."""
        while self._jpegs and self._num_dropped < index:
            self._jpegs.popleft()
            self._num_dropped += 1

    def between(self, start: int, length: int) -> list[bytes]:
        """Returns `length` JPEGs from index `start`, none of which may have been dropped."""
        first = start - self._num_dropped
        assert 0 <= first <= first + length <= len(self._jpegs), (start, length, len(self))
        return [self._jpegs[place] for place in range(first, first + length)]


class SlidingVideo(FlowDataset):
    """The latest part of a video that is being computed, as the only video of a data set."""

    def __init__(self, config: ExtractConfig, key: str, streams: Mapping[str, LatestJpegs]) -> None:
        super().__init__(Storage(os.curdir), DatasetHeader(config, ""), VideoList())
        self._key = key
        self._streams = streams

    def grow(self, num_frames: int, num_flows: int, size: tuple[int, int]) -> StoredVideo:
        """Makes the video as long as its streams are now, and returns it. `size` is in px."""
        width, height = size
        video = StoredVideo(
            key=self._key,
            labels=(),
            split=None,
            num_frames=num_frames,
            num_flows=num_flows,
            width=width,
            height=height,
            fps=None,
            is_partial=False,
            shard=0,
            members={},
        )
        self.videos = VideoList([video])
        return video

    def _stream(
        self, video: StoredVideo, stream: str, start: int, length: int
    ) -> tuple[bytes, NDArray[np.int64]]:
        """Returns JPEGs of a stream, the begin of each, and the last one's end."""
        jpegs = self._streams[stream].between(start, length)
        return b"".join(jpegs), np.cumsum([0, *map(len, jpegs)], dtype=np.int64)
