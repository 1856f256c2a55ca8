"""The levels and frames of one video for a picture of flow, stored or computed now.

StoredFlow      a video of a data set
ComputedFlow    flow that is computed for the picture
compute_video   computed flow of a video file or a folder of images
"""

from __future__ import annotations

import contextlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, ExtractConfig, FlowSpec
from flowprep.dataset.layout import DATASET_FILE, FLOW_STREAMS, RGB_STREAM
from flowprep.dataset.metadata import FlowSummary
from flowprep.dataset.read import FlowDataset
from flowprep.errors import VideoError
from flowprep.flow.homography import Homography
from flowprep.look.color import round_scale
from flowprep.urls import as_path, is_url
from flowprep.video.types import Frame

__all__ = [
    "ComputedFlow",
    "FlowSource",
    "StoredFlow",
    "compute_video",
    "histogram_quantile",
    "is_dataset",
    "named_video",
]

# The automatic scale covers this share of the speeds in a video. Faster flow is darkened.
_SCALE_SHARE = 0.99


class FlowSource(ABC):
    """The quantized flow of one video, and its frames."""

    name: str
    width: int
    height: int
    fps: float | None
    num_flows: int
    first: int
    """The number of the source's first frame in the video."""
    spec: FlowSpec
    directions: tuple[Direction, ...]
    has_rgb: bool
    homographies: Sequence[Homography | None] | None
    """The camera's motion in each pair. None if the flow is not freed of it."""

    @abstractmethod
    def levels(self, start: int, length: int, direction: Direction) -> NDArray[np.uint8]:
        """Returns (L, H, W, 2) uint8 levels."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Returns (n, H, W, 3) uint8 RGB."""

    @abstractmethod
    def speeds(self, direction: Direction) -> tuple[Sequence[int], float]:
        """Returns the histogram of the flow's vector lengths, and the width of its bins in px."""

    def suggest_scale(self, direction: Direction) -> float:
        """Returns the scale in px that covers 99 % of the speeds, rounded up; at least 1 px."""
        quantile = histogram_quantile(*self.speeds(direction), _SCALE_SHARE)
        return min(round_scale(quantile), round_scale(math.sqrt(2) * self.spec.bound_px))


class StoredFlow(FlowSource):
    """A video of a data set."""

    def __init__(self, dataset: FlowDataset, key: str) -> None:
        video = dataset.videos[key]
        self.name = key
        self.width, self.height, self.fps = video.width, video.height, video.fps
        self.num_flows, self.first = video.num_flows, 0
        self.spec = dataset.config.flow
        self.directions = dataset.config.encode.directions
        self.has_rgb = dataset.config.encode.keep_rgb
        self.homographies = dataset.metadata(key).homographies or None
        self._dataset = dataset

    def levels(self, start: int, length: int, direction: Direction) -> NDArray[np.uint8]:
        """Reads (L, H, W, 2) uint8 levels."""
        return self._dataset.quantized(self.name, start, length, direction)

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Reads (n, H, W, 3) uint8 RGB."""
        return self._dataset.frames(self.name, indices)

    def speeds(self, direction: Direction) -> tuple[Sequence[int], float]:
        """Returns the histogram that extraction stored, of the flow before clipping."""
        summary = self._dataset.metadata(self.name).flow[direction]
        return summary.magnitude_histogram, summary.histogram_bin_px


class ComputedFlow(FlowSource):
    """Flow that is computed now. It is kept as JPEGs, as in a data set, to use little memory."""

    def __init__(
        self,
        frames: Iterable[Frame],
        config: ExtractConfig,
        *,
        name: str,
        first: int = 0,
        fps: float | None = None,
        device: str = "auto",
    ) -> None:
        """Computes the flow of all `frames`."""
        from flowprep.flow import build_estimator
        from flowprep.run.flow_streams import FlowStreams

        flow = config.flow
        encode = replace(config.encode, keep_rgb=True)
        self.name, self.first, self.fps, self.spec = name, first, fps, flow
        self.directions, self.has_rgb = encode.directions, True
        estimator = build_estimator(flow.algorithm, flow.parameters, device)
        self._computed = FlowStreams(flow, encode, estimator)
        try:
            self._computed.compute(frames)
            self.num_flows = self._computed.num_flows
            if not self.num_flows:
                count = self._computed.num_frames
                raise VideoError(
                    "too-few-frames",
                    f"{count} frame{'s' * (count != 1)} from frame {first} on, but flow at step "
                    f"{flow.step} needs {flow.step + 1} frames; start earlier",
                )
        except BaseException:
            self.close()
            raise
        self.width, self.height = self._computed.size
        self.homographies = self._computed.homographies
        self._offsets = {
            stream: np.concatenate(([0], np.cumsum(file.sizes, dtype=np.int64)))
            for stream, file in self._computed.streams.items()
        }

    def close(self) -> None:
        """Frees memory and temporary files."""
        self._computed.close()

    def levels(self, start: int, length: int, direction: Direction) -> NDArray[np.uint8]:
        """Returns (L, H, W, 2) uint8 levels."""
        levels = np.empty((length, self.height, self.width, 2), np.uint8)
        for axis, stream in enumerate(FLOW_STREAMS[direction]):
            for number in range(length):
                levels[number, ..., axis] = self._decode(
                    stream, start + number, cv2.IMREAD_GRAYSCALE
                )
        return levels

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Returns (n, H, W, 3) uint8 RGB."""
        images = [self._decode(RGB_STREAM, index, cv2.IMREAD_COLOR) for index in indices]
        return np.stack([cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) for bgr in images])

    def speeds(self, direction: Direction) -> tuple[Sequence[int], float]:
        """Returns the histogram of the computed flow before clipping."""
        summary = FlowSummary.of(self._computed.statistics[direction])
        return summary.magnitude_histogram, summary.histogram_bin_px

    def _decode(self, stream: str, index: int, flags: int) -> NDArray[np.uint8]:
        begin, end = self._offsets[stream][index : index + 2].tolist()
        file = self._computed.streams[stream].rewound()
        file.seek(begin)
        image = cv2.imdecode(np.frombuffer(file.read(end - begin), np.uint8), flags)
        assert image is not None
        return np.asarray(image, np.uint8)


def compute_video(
    path: str | os.PathLike[str],
    config: ExtractConfig,
    *,
    start: int = 0,
    length: int | None = None,
    device: str = "auto",
) -> ComputedFlow:
    """Computes the flow of `length` fields from `start` of a video file or a folder of images.

    None for `length` means all fields. Raises VideoError if something is wrong with the video.
    """
    from flowprep.inputs.video import Video
    from flowprep.video.decode import open_video

    source = os.path.abspath(path)
    name = os.path.basename(source)
    end = None if length is None else start + length + config.flow.step
    with named_video(path), open_video(Video(name, source), config.decode) as reader:
        frames = islice(reader, start, end)
        fps = config.decode.fps or reader.info.fps
        return ComputedFlow(frames, config, name=name, first=start, fps=fps, device=device)


@contextlib.contextmanager
def named_video(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the video's name to a VideoError, which by itself does not name the video."""
    try:
        yield
    except VideoError as error:
        raise VideoError(error.reason, f"{path}: {error}", num_frames=error.num_frames) from error


def is_dataset(source: str | os.PathLike[str]) -> bool:
    """Whether a source names a data set: a URL, or a folder with `dataset.json`."""
    place = as_path(os.fspath(source))
    return is_url(place) or os.path.isfile(os.path.join(place, DATASET_FILE))


def histogram_quantile(counts: Sequence[int], bin_px: float, share: float) -> float:
    """Returns the upper end in px of the bin that holds the `share` quantile; 0 for no counts.

    `counts` belong to bins of width `bin_px` from 0, as stored in data sets.
    """
    total = np.cumsum(counts, dtype=np.int64)
    if not len(total) or not total[-1]:
        return 0.0
    return float((np.searchsorted(total, share * total[-1]) + 1) * bin_px)
