"""Features straight from raw videos: what a worker does with one video.

    decode -> flow -> levels as JPEGs, of which only the latest stay -> clips -> networks -> files

The frames, flow and levels are those of `extract`, and the clips those of a data set. So the
features equal those of a data set, which is never written. Memory does not grow with the length of
a video, but for the features themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import VideoRecord, VideoStatus
from flowprep.errors import ConfigError, VideoError
from flowprep.flow.base import FlowEstimator
from flowprep.inputs.video import Video
from flowprep.learn.clips.sliding import LatestJpegs, SlidingVideo
from flowprep.learn.clips.windows import WindowClips, Windows
from flowprep.learn.features_config import FeatureSpec
from flowprep.learn.features_files import VideoFeatures
from flowprep.learn.features_network import NetworkSource, WindowFeatures, worker_networks
from flowprep.learn.features_notes import note_sentences
from flowprep.learn.features_write import write_video
from flowprep.machine import one_torch_thread
from flowprep.run.extract import compute_streams
from flowprep.run.flow_streams import FlowStreams
from flowprep.run.job import ExtractJob
from flowprep.urls import redacted
from flowprep.video.decode import open_video

__all__ = ["FeatureWork", "features_of", "windows_of"]


def windows_of(
    sources: tuple[NetworkSource, ...], spec: FeatureSpec, config: ExtractConfig
) -> WindowClips:
    """Returns the windows of the networks over videos that are extracted as `config` says."""
    inputs = tuple(one for source in sources for one in source.inputs)
    windows = Windows(inputs, spec.stride or 1, spec.tail, config.flow.step)
    if spec.stride is None:
        windows = Windows(inputs, windows.length, spec.tail, config.flow.step)
    return WindowClips([(source.clip, source.inputs) for source in sources], windows, spec.crops)


def features_of(
    record: VideoRecord,
    features: Mapping[str, NDArray[np.float32]],
    windows: Windows,
    source: str,
) -> VideoFeatures:
    """Returns the features of a video with their times. `record` describes the video."""
    starts = windows.starts(record.num_frames)
    frames = windows.frames(starts, record.num_frames)
    seconds = frames / (record.fps or np.nan)
    return VideoFeatures(
        key=record.key,
        features=features,
        start_seconds=seconds[:, 0],
        end_seconds=seconds[:, 1],
        labels=record.labels,
        split=record.split,
        notes=note_sentences(record, windows),
        fps=record.fps,
        num_frames=record.num_frames,
        source=redacted(source),
        frames=frames,
    )


@dataclass(frozen=True)
class FeatureWork:
    """The work on a raw video: its features, written into the storage of the job."""

    sources: tuple[NetworkSource, ...]
    spec: FeatureSpec
    content: Mapping[str, Any] = field(repr=False)
    """The configuration in features.json."""

    @property
    def needs_flow(self) -> bool:
        """Whether a network takes flow."""
        return any(one.stream == "flow" for source in self.sources for one in source.inputs)

    def carry_out(
        self,
        job: ExtractJob,
        video: Video,
        estimator: FlowEstimator | None,
        device: str,
        on_progress: Callable[[], None],
    ) -> VideoRecord:
        """Computes and writes the features of one video; see `VideoWork`."""
        clips = windows_of(self.sources, self.spec, job.config)
        with one_torch_thread():
            networks = worker_networks(self.sources, self.spec, device)
            on_progress()
            features = WindowFeatures(
                networks, [source.stream for source in self.sources], clips, on_progress
            )
            run = _VideoRun(job, clips, features, on_progress)
            record = run.go(video, estimator)
            found = run.finish()
        done = features_of(record, found, clips.windows, job.video.source)
        write_video(job.storage, done, self.content)
        return msgspec.structs.replace(record, seconds=run.seconds)


class _VideoRun:
    """Reads one video window by window while its flow is computed."""

    def __init__(
        self,
        job: ExtractJob,
        clips: WindowClips,
        features: WindowFeatures,
        on_progress: Callable[[], None],
    ) -> None:
        self._job = job
        self._clips = clips
        self._windows = clips.windows
        self._features = features
        self._on_progress = on_progress
        self._next_start = 0
        self.seconds: dict[str, float] = {"network": 0.0}
        """Seconds spent by stage. What is in none of them makes clips and files."""

    def go(self, video: Video, estimator: FlowEstimator | None) -> VideoRecord:
        """Passes all windows of the video on, and describes the video."""
        config = self._job.config
        reader = open_video(video, config.decode)
        streams = FlowStreams(config.flow, config.encode, estimator, make_stream=LatestJpegs)
        jpegs = cast(dict[str, LatestJpegs], streams.streams)
        dataset = SlidingVideo(config, video.key, jpegs)
        has_flow = estimator is not None

        def on_stored() -> None:
            # Frames run ahead of their flow. What counts is what both have.
            num_flows = streams.num_flows if has_flow else 0
            num_frames = num_flows + config.flow.step if has_flow else streams.num_frames
            self._take_ready(dataset, jpegs, num_frames, num_flows, streams.size)

        try:
            source = compute_streams(
                streams, reader, config, on_progress=self._on_progress, on_stored=on_stored
            )
            num_frames = streams.num_frames
            if num_frames == 0 or (has_flow and streams.num_flows == 0):
                raise source.damage or VideoError(
                    "too-few-frames" if num_frames else "no-frames",
                    f"the video gives {num_frames} frames, and a window needs one field or frame",
                    num_frames=num_frames,
                )
            self._take_last(dataset, num_frames, streams.num_flows, streams.size)
        finally:
            streams.close()
        self.seconds |= streams.clock.seconds
        status: VideoStatus = "complete" if source.damage is None else "partial"
        width, height = streams.size
        return VideoRecord(
            key=self._job.video.key,
            status=status,
            labels=self._job.video.labels,
            split=self._job.video.split,
            num_frames=num_frames,
            num_flows=streams.num_flows,
            width=width,
            height=height,
            fps=config.decode.fps or reader.info.fps,
            attempts=self._job.attempt,
            num_damaged=reader.num_damaged,
            num_irregular_stamps=reader.num_irregular_stamps,
            notes=dict(reader.notes),
        )

    def _take_ready(
        self,
        dataset: SlidingVideo,
        jpegs: Mapping[str, LatestJpegs],
        num_frames: int,
        num_flows: int,
        size: tuple[int, int],
    ) -> None:
        """Passes on the windows that are complete, and drops what no later window needs."""
        if self._next_start == 0 and num_frames <= self._job.config.flow.step + 1:
            self._check_size(size)
        while self._windows.is_ready(self._next_start, num_frames, num_flows):
            self._pass(dataset, self._next_start, num_frames, num_flows, size)
            self._next_start += self._windows.stride
        needed = self._next_start
        if self._windows.tail == "last":
            # The last window ends with the video, whenever that is.
            needed = min(needed, max(0, num_frames - self._windows.length - self._windows.step))
        for stream in jpegs.values():
            stream.drop_before(needed)

    def _take_last(
        self, dataset: SlidingVideo, num_frames: int, num_flows: int, size: tuple[int, int]
    ) -> None:
        """Passes on the windows that only the end of the video decides."""
        for start in self._windows.starts(num_frames).tolist():
            if start >= self._next_start or start % self._windows.stride:
                self._pass(dataset, start, num_frames, num_flows, size)

    def _pass(
        self,
        dataset: SlidingVideo,
        start: int,
        num_frames: int,
        num_flows: int,
        size: tuple[int, int],
    ) -> None:
        video = dataset.grow(num_frames, num_flows, size)
        views = self._clips.read(dataset, video, start)
        began = time.perf_counter()
        self._features.add(views)
        self.seconds["network"] += time.perf_counter() - began
        self._on_progress()

    def finish(self) -> dict[str, NDArray[np.float32]]:
        """Returns the features of all windows."""
        began = time.perf_counter()
        found = self._features.finish()
        self.seconds["network"] += time.perf_counter() - began
        return found

    def _check_size(self, size: tuple[int, int]) -> None:
        try:
            self._clips.check(*size)
        except ConfigError as error:
            raise VideoError("too-small", str(error)) from error
