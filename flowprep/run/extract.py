"""One video: decode -> flow -> quantize -> JPEG. Uses no Ray and writes only temporary files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from flowprep.config import Direction, ExtractConfig
from flowprep.dataset.layout import VideoStatus
from flowprep.dataset.metadata import Reading, VideoMetadata
from flowprep.dataset.quantize import FlowStatistics
from flowprep.dataset.write import JpegStream
from flowprep.errors import VideoError
from flowprep.flow.base import FlowEstimator
from flowprep.inputs.video import Video
from flowprep.run.flow_streams import FlowStreams, no_progress
from flowprep.run.versions import environment
from flowprep.video.decode import open_video
from flowprep.video.reader import FrameReader
from flowprep.video.segments import EdgeDigests, Segment, SegmentEdges
from flowprep.video.types import Frame

__all__ = ["ExtractedVideo", "FrameSource", "compute_streams", "extract_video"]


@dataclass
class ExtractedVideo:
    """The result for one video: its metadata and its streams. A `with` block frees the streams."""

    status: VideoStatus
    metadata: VideoMetadata
    statistics: dict[Direction, FlowStatistics]
    """The statistics that `metadata` holds, but not rounded."""
    edges: EdgeDigests | None
    """Digests of the frames that a segment shares with its neighbors. None for a whole video."""
    streams: dict[str, JpegStream]
    """Those of `flow_x`, `flow_y`, `back_x`, `back_y` and `rgb` that the configuration wants."""
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
    """Computes the flow of one video as `config` says. Memory use does not grow with its length.

    For a `segment`, the streams are only that part of the video's streams, and the metadata
    describes the segment as if it were a video. `reader` is an open reader of the video that has
    read nothing yet. `on_progress` is called for every frame and pair. Raises VideoError with the
    reason if the video gives nothing. If `on_damage` is `cut`, a damaged video gives the part
    before the damage.
    """
    tick = on_progress or no_progress
    streams = FlowStreams(config.flow, config.encode, estimator)
    try:
        if reader is None:
            with streams.clock.spent("decode"):
                reader = open_video(video, config.decode)
        source = compute_streams(streams, reader, config, segment=segment, on_progress=tick)
        damage = source.damage
        if streams.num_flows == 0:
            raise damage or _too_few_frames(streams.num_frames, config.flow.step)
        metadata = VideoMetadata.of(
            video,
            reader.info,
            size=reader.size,
            fps=config.decode.fps or reader.info.fps,
            num_frames_decoded=reader.num_frames_decoded,
            num_frames=streams.num_frames,
            num_flows=streams.num_flows,
            config=config,
            implementation=environment(config).implementation,
            versions=environment(config).versions,
            statistics=streams.statistics,
            sizes={name: stream.sizes for name, stream in streams.streams.items()},
            reading=Reading(
                counts=reader.counts,
                num_irregular_stamps=reader.num_irregular_stamps,
                num_damaged=reader.num_damaged,
                notes=reader.notes,
                # Several devices may fill one data set. Their results agree, but not bit by bit.
                device=estimator.device_name,
                estimator=type(estimator).__name__,
                damage=None if damage is None else damage.message,
                homographies=streams.homographies,
            ),
        )
    except BaseException:
        streams.close()
        raise
    return ExtractedVideo(
        status="complete" if damage is None else "partial",
        metadata=metadata,
        statistics=streams.statistics,
        edges=None if source.edges is None else source.edges.digests(),
        streams=streams.streams,
        seconds=streams.clock.seconds,
    )


def compute_streams(
    streams: FlowStreams,
    reader: FrameReader,
    config: ExtractConfig,
    *,
    segment: Segment | None = None,
    on_progress: Callable[[], None] = no_progress,
    on_stored: Callable[[], None] = no_progress,
) -> FrameSource:
    """Reads a video, or a segment of it, into `streams`, and closes its reader.

    The result says whether damage ended the frames early. The callbacks are those of
    `FlowStreams.compute`. Raises VideoError as `extract_video` does, but not for too few frames.
    """
    # A damaged segment is given up. Reading the whole video shows which part can be kept.
    keeps_begin = config.decode.on_damage == "cut" and segment is None
    with reader:
        source = FrameSource(reader, segment, config.flow.step, keeps_begin, on_progress)
        streams.compute(
            source, keeps_frame=source.keeps_frame, on_progress=on_progress, on_stored=on_stored
        )
    if source.damage is not None and streams.num_frames:
        reader.note_what_became_of_frames(streams.num_frames)
    return source


class FrameSource:
    """The frames of a video or segment, up to its end or to damage. They can be read only once."""

    def __init__(
        self,
        reader: FrameReader,
        segment: Segment | None,
        step: int,
        keeps_begin: bool,
        on_progress: Callable[[], None],
    ) -> None:
        self.damage: VideoError | None = None
        """The damage that ended the frames early, if `keeps_begin`."""
        self.edges = None if segment is None else SegmentEdges(segment.num_frames, step)
        self.keeps_frame = None if segment is None else segment.keeps_frame
        self._keeps_begin = keeps_begin
        self._frames = (
            iter(reader) if segment is None else reader.read_segment(segment, on_progress)
        )

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in self._frames:
                if self.edges is not None:
                    self.edges.add(frame.rgb)
                yield frame
        except VideoError as error:
            if not (self._keeps_begin and error.reason == "damaged"):
                raise
            # Ends without raising, so that the estimator still gives the pairs that it holds.
            self.damage = error


def _too_few_frames(num_frames: int, step: int) -> VideoError:
    return VideoError(
        "too-few-frames" if num_frames else "no-frames",
        f"{num_frames} frame{'s give' if num_frames != 1 else ' gives'} no flow at step {step}; "
        f"at least {step + 1} are needed",
        num_frames=num_frames,
    )
