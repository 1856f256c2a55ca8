"""A dry run: the plan, and time and bytes estimated from a short probe of real videos."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.layout import (
    DATASET_FILE,
    MANIFEST_FILE,
    DatasetHeader,
    ManifestEntry,
    read_failures,
    read_manifest,
)
from flowprep.dataset.read import published_shards
from flowprep.dataset.storage import Storage
from flowprep.errors import VideoError
from flowprep.flow import ESTIMATORS
from flowprep.run.extract import extract_video
from flowprep.run.plan import extend_plan
from flowprep.run.progress import format_bytes, format_duration
from flowprep.video.decode import probe_video
from flowprep.video.manifest import Manifest
from flowprep.video.types import Video

__all__ = ["RunEstimate", "estimate_run"]

# Headers tell how long videos are; a few pairs of three of them tell the rest.
_NUM_HEADERS = 30
_NUM_TIMED = 3
_NUM_TIMED_PAIRS = 3
_PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class RunEstimate:
    """What a run would do. Time and bytes are None where no video could be probed."""

    location: str
    config: ExtractConfig
    num_videos: int
    num_to_do: int
    num_shards: int
    """In the whole plan."""
    num_workers: int
    class_names: tuple[str, ...]
    splits: Counter[str]
    num_pairs: float | None
    seconds_per_pair: float | None
    bytes_per_pair: float | None
    probe_failures: tuple[str, ...]
    """What was wrong with probed videos, a sentence each."""

    def summary(self) -> str:
        """Returns the estimate as lines of text."""
        flow, decode, encode = self.config.flow, self.config.decode, self.config.encode
        rate = "source frame rate" if decode.fps is None else f"{decode.fps:g} fps"
        lines = [
            f"dry run: {self.num_to_do} of {self.num_videos} videos to do in {self.location}, "
            f"{self.num_shards} shards",
            f"  frames      {decode.resize}, {decode.interpolation}, {rate}, by {decode.decoder}",
            f"  flow        {flow.algorithm}, step {flow.step}, {' and '.join(encode.directions)}",
            f"  parameters  {_parameters(self.config)}",
            f"  quantised   {flow.quantizer}, bound {flow.bound_px:g} px",
            f"  stored      JPEG quality {encode.jpeg_quality}"
            + (
                f", RGB frames at {encode.rgb_jpeg_quality}"
                if encode.keep_rgb
                else ", no RGB frames"
            ),
        ]
        if self.class_names:
            lines.append(
                f"  classes     {len(self.class_names)}: {', '.join(self.class_names[:6])}"
                + (", ..." if len(self.class_names) > 6 else "")
            )
        if self.splits:
            shown = ", ".join(f"{name} {n}" for name, n in sorted(self.splits.items()))
            lines.append(f"  splits      {shown}")
        if self.num_pairs is None or self.seconds_per_pair is None or self.bytes_per_pair is None:
            lines.append("  estimate    none: no video could be probed")
        else:
            seconds = self.num_pairs * self.seconds_per_pair / self.num_workers
            lines.append(
                f"  estimate    {self.num_pairs:.0f} frame pairs at "
                f"{1 / self.seconds_per_pair:.1f} pairs/s a worker: {format_duration(seconds)} "
                f"with {self.num_workers} workers, "
                f"{format_bytes(self.num_pairs * self.bytes_per_pair)}"
            )
        lines += [f"  probe       {failure}" for failure in self.probe_failures]
        lines.append("nothing was written")
        return "\n".join(lines)


def estimate_run(
    manifest: Manifest, out: str, config: ExtractConfig, options: RunOptions
) -> RunEstimate:
    """Probes some of the videos that a run would extract; writes nothing.

    Raises ConfigMismatchError, InputError and DatasetError as the run itself would.
    """
    storage = Storage(out)
    known: list[ManifestEntry] = []
    done: set[str] = set()
    if storage.exists(DATASET_FILE):
        header = DatasetHeader.read(storage)
        implementation = ESTIMATORS[config.flow.algorithm].implementation
        header.check_same(config, implementation, storage.location)
        if storage.exists(MANIFEST_FILE):
            known = read_manifest(storage)
        published = set(published_shards(storage))
        done = {entry.video.key for entry in known if entry.shard in published}
        if options.retry_failed:
            done -= read_failures(storage).keys()
    entries = extend_plan(known, manifest, config.encode.videos_per_shard)
    videos = [entry.video for entry in entries if entry.video.key not in done]
    failures: list[str] = []
    num_frames = _mean_num_frames(_spread(videos, _NUM_HEADERS), config, failures)
    cost = _cost_of_a_pair(_spread(videos, _NUM_TIMED), config, failures)
    return RunEstimate(
        location=storage.location,
        config=config,
        num_videos=len(entries),
        num_to_do=len(videos),
        num_shards=len({entry.shard for entry in entries}),
        num_workers=options.num_workers or os.cpu_count() or 1,
        class_names=manifest.class_names,
        splits=Counter(entry.video.split for entry in entries if entry.video.split),
        num_pairs=None
        if num_frames is None
        else max(0.0, num_frames - config.flow.step) * len(videos),
        seconds_per_pair=None if cost is None else cost[0],
        bytes_per_pair=None if cost is None else cost[1],
        probe_failures=tuple(dict.fromkeys(failures)),
    )


def _mean_num_frames(
    videos: Sequence[Video], config: ExtractConfig, failures: list[str]
) -> float | None:
    counts = []
    for video in videos:
        try:
            info = probe_video(video)
        except VideoError as error:
            failures.append(f"{video.key}: {error.message}")
            continue
        seconds = info.duration_seconds
        if video.end_seconds is not None:
            seconds = min(seconds or video.end_seconds, video.end_seconds)
        fps = config.decode.fps or info.fps
        if seconds is not None and fps is not None:
            counts.append((seconds - (video.start_seconds or 0)) * fps)
        elif seconds is not None:
            counts.append(seconds)
    return sum(counts) / len(counts) if counts else None


def _cost_of_a_pair(
    videos: Sequence[Video], config: ExtractConfig, failures: list[str]
) -> tuple[float, float] | None:
    """Returns (seconds, bytes) of one frame pair, from the first pairs of some videos."""
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    estimator = ESTIMATORS[config.flow.algorithm](config.flow.parameters)  # type: ignore[call-arg]
    seconds = num_bytes = 0.0
    num_pairs = 0
    began = time.monotonic()
    try:
        for video in videos:
            if num_pairs and time.monotonic() - began > _PROBE_SECONDS:
                break
            try:
                fps = config.decode.fps or probe_video(video).fps or 1.0
                start = video.start_seconds or 0.0
                end = start + (config.flow.step + _NUM_TIMED_PAIRS + 0.5) / fps
                head = replace(video, end_seconds=min(end, video.end_seconds or end))
                with extract_video(head, config, estimator) as extracted:
                    seconds += sum(extracted.seconds.values())
                    num_bytes += sum(stream.num_bytes for stream in extracted.streams.values())
                    num_pairs += extracted.metadata["num_flows"]
            except VideoError as error:
                failures.append(f"{video.key}: {error.message}")
    finally:
        cv2.setNumThreads(num_threads)
    return (seconds / num_pairs, num_bytes / num_pairs) if num_pairs else None


def _spread(videos: Sequence[Video], count: int) -> list[Video]:
    """Returns up to `count` videos, equally far apart in the plan."""
    if len(videos) <= count:
        return list(videos)
    return [videos[(2 * i + 1) * len(videos) // (2 * count)] for i in range(count)]


def _parameters(config: ExtractConfig) -> str:
    values = config.to_dict()["flow"]["parameters"]
    return ", ".join(f"{n.strip('_')} {v}" for n, v in values.items() if v is not None)
