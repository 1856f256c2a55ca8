"""One video: decode -> flow -> quantise -> JPEG. No Ray, no files but its own temporary ones."""

from __future__ import annotations

import functools
import importlib.metadata
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

import flowprep._version
from flowprep.config import Direction, ExtractConfig
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM, VideoStatus, stream_names
from flowprep.dataset.metadata import Reading, VideoMetadata
from flowprep.dataset.quantize import FieldQuantizer, FlowStatistics
from flowprep.dataset.write import JpegStream
from flowprep.errors import VideoError
from flowprep.flow.base import FlowEstimator
from flowprep.inputs.video import Video
from flowprep.video.decode import open_video
from flowprep.video.reader import FrameReader
from flowprep.video.segments import EdgeDigests, Segment, SegmentEdges

__all__ = [
    "ExtractedVideo",
    "extract_video",
    "library_versions",
    "no_progress",
]


@dataclass
class ExtractedVideo:
    """What one video gave: its metadata and its streams, which a `with` block frees."""

    status: VideoStatus
    metadata: VideoMetadata
    statistics: dict[Direction, FlowStatistics]
    """Those of `metadata`, and nothing rounded."""
    edges: EdgeDigests | None
    """What a segment shares with its neighbors; None of a whole video."""
    streams: dict[str, JpegStream]
    """`flow_x`, `flow_y`, `back_x`, `back_y`, `rgb`: those that the configuration asks for."""
    seconds: dict[str, float]
    """Seconds spent in `decode`, `flow` and `encode`."""

    def __enter__(self) -> ExtractedVideo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in self.streams.values():
            stream.close()


def extract_video(
    video: Video,
    config: ExtractConfig,
    estimator: FlowEstimator,
    *,
    segment: Segment | None = None,
    reader: FrameReader | None = None,
    on_progress: Callable[[], None] | None = None,
) -> ExtractedVideo:
    """Computes the flow of one video, as `config` says, in memory that its length does not change.

    Of a `segment` it gives that part: its streams are that part of the video's streams, and it is
    described as a video of its own. `reader` is the video's own, opened and not yet read.
    `on_progress` is called for every frame and pair. Raises VideoError with the reason why the
    video gives nothing; under `on_damage` `cut` a damaged one gives what came before the damage.
    """
    flow_spec, encode = config.flow, config.encode
    streams = {
        name: JpegStream(encode.rgb_jpeg_quality if name == RGB_STREAM else encode.jpeg_quality)
        for name in stream_names(encode)
    }
    quantizers = {direction: FieldQuantizer(flow_spec) for direction in encode.directions}
    clock = _Clock()
    damage: VideoError | None = None
    num_frames = 0
    tick = on_progress or no_progress
    # A segment that is damaged is given up: reading the video whole says what can be kept.
    keeps_begin = config.decode.on_damage == "cut" and segment is None
    edges = None if segment is None else SegmentEdges(segment.num_frames, flow_spec.step)

    try:
        if reader is None:
            with clock.spent("decode"):
                reader = open_video(video, config.decode)
        with reader:
            source = iter(reader) if segment is None else reader.read_segment(segment, tick)

            def gray_frames() -> Iterator[NDArray[np.uint8]]:
                nonlocal damage, num_frames
                while True:
                    try:
                        with clock.spent("decode"):
                            frame = next(source, None)
                    except VideoError as error:
                        if not (keeps_begin and error.reason == "damaged"):
                            raise
                        # Ended here and not raised, so that the estimator gives the pairs it holds.
                        damage = error
                        return
                    if frame is None:
                        return
                    _check_size(frame.gray, estimator)
                    if edges is not None:
                        edges.add(frame.rgb)
                    if encode.keep_rgb and (segment is None or segment.keeps_frame(num_frames)):
                        with clock.spent("encode"):
                            bgr = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR)
                            streams[RGB_STREAM].append(np.asarray(bgr, dtype=np.uint8))
                    num_frames += 1
                    tick()
                    yield frame.gray

            num_flows = 0
            pairs = estimator.pairs(
                gray_frames(), step=flow_spec.step, directions=encode.directions
            )
            while True:
                with clock.spent("flow"):
                    pair = next(pairs, None)
                if pair is None:
                    break
                with clock.spent("encode"):
                    for direction in encode.directions:
                        flow = pair.forward if direction == "forward" else pair.backward
                        assert flow is not None, f"{estimator} gave no {direction} flow"
                        planes = quantizers[direction].quantize(flow)
                        for name, plane in zip(FLOW_STREAMS[direction], planes, strict=True):
                            streams[name].append(plane)
                num_flows += 1
                tick()
        if num_flows == 0:
            if damage is not None:
                raise damage
            raise VideoError(
                "too-few-frames" if num_frames else "no-frames",
                f"{num_frames} frame{'s give' if num_frames != 1 else ' gives'} no flow at step "
                f"{flow_spec.step}; at least {flow_spec.step + 1} are needed",
                num_frames=num_frames,
            )
        if damage is not None:
            reader.note_what_became_of_frames(num_frames)
        statistics = {name: quantizers[name].statistics for name in encode.directions}
        metadata = VideoMetadata.of(
            video,
            reader.info,
            size=reader.size,
            fps=config.decode.fps or reader.info.fps,
            num_frames_decoded=reader.num_frames_decoded,
            num_frames=num_frames,
            num_flows=num_flows,
            step=flow_spec.step,
            versions=library_versions(config),
            statistics=statistics,
            sizes={name: stream.sizes for name, stream in streams.items()},
            reading=Reading(
                counts=reader.counts,
                num_irregular_stamps=reader.num_irregular_stamps,
                num_damaged=reader.num_damaged,
                notes=reader.notes,
                device=estimator.device_name,
                estimator=type(estimator).__name__,
                damage=None if damage is None else damage.message,
            ),
        )
    except BaseException:
        for stream in streams.values():
            stream.close()
        raise
    return ExtractedVideo(
        status="partial" if damage else "complete",
        metadata=metadata,
        statistics=statistics,
        edges=None if edges is None else edges.digests(),
        streams=streams,
        seconds=clock.seconds,
    )


@functools.cache
def library_versions(config: ExtractConfig) -> dict[str, str]:
    """Returns the versions of the libraries that take part in the numbers."""
    package = {"pyav": "av", "decord": "decord"}[config.decode.decoder]
    return {
        "flowprep": flowprep._version.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "numba": importlib.metadata.version("numba"),
        package: importlib.metadata.version(package),
    }


def _check_size(gray: NDArray[np.uint8], estimator: FlowEstimator) -> None:
    height, width = gray.shape
    if min(height, width) < estimator.min_side_px:
        raise VideoError(
            "too-small",
            f"frames of {width}x{height} px are too small for flow; "
            f"each side needs at least {estimator.min_side_px} px",
        )


def no_progress() -> None:
    pass


class _Clock:
    """Sums up seconds by stage; a stage entered inside another one counts for itself alone."""

    def __init__(self) -> None:
        self.seconds = {"decode": 0.0, "flow": 0.0, "encode": 0.0}
        self._stack: list[str] = []
        self._since = 0.0

    def spent(self, stage: str) -> _Stage:
        return _Stage(self, stage)

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def enter(self, stage: str) -> None:
        self._switch()
        self._stack.append(stage)

    def leave(self) -> None:
        self._switch()
        self._stack.pop()


@dataclass(slots=True)
class _Stage:
    clock: _Clock
    name: str

    def __enter__(self) -> None:
        self.clock.enter(self.name)

    def __exit__(self, *exception: object) -> None:
        self.clock.leave()
