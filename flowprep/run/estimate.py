"""A dry run: it makes the plan and estimates time and bytes from a short probe of real videos."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.failures import published_failures, stored_failures
from flowprep.dataset.layout import RGB_STREAM
from flowprep.dataset.parts import list_parts, recorded_parts
from flowprep.dataset.plan import Plan
from flowprep.dataset.read import published_shards
from flowprep.errors import DatasetError, VideoError
from flowprep.flow import build_estimator
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.tree import is_frame_image
from flowprep.inputs.video import Video
from flowprep.printable import join_lines
from flowprep.run.changed import find_changed
from flowprep.run.class_table import count_classes, table_lines
from flowprep.run.extract import extract_video
from flowprep.run.found_again import FolderNames, failed_by_node, found_again
from flowprep.run.options import check_options
from flowprep.run.plan import make_plan
from flowprep.run.ray_start import cluster_address
from flowprep.run.workers import own_machine
from flowprep.storage import Storage
from flowprep.video.cut import count_segments
from flowprep.video.decode import probe_video
from flowprep.video.fetch import fetched_sample
from flowprep.words import format_bytes, format_count, format_duration

__all__ = ["PairCost", "RunEstimate", "count_frames", "estimate_run", "measure_cost", "spread"]

# The headers of some videos give their lengths. Timing a few pairs of three videos gives the rest.
_NUM_HEADERS = 30
_NUM_TIMED = 3
_NUM_TIMED_PAIRS = 3
# On a GPU, more than one batch is timed, after a first batch that allocates memory and loads code.
_NUM_TIMED_PAIRS_GPU = 48
_PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class RunEstimate:
    """What a run would do. Time and bytes are None if no video could be probed."""

    location: str
    config: ExtractConfig
    num_videos: int
    num_to_do: int
    num_shards: int
    """Number of shards in the whole plan."""
    num_workers: int
    class_names: tuple[str, ...]
    splits: Counter[str]
    num_pairs: float | None
    """Frame pairs of the videos that are still to do."""
    num_bytes: float | None
    """Bytes of the JPEGs that these pairs will give."""
    seconds_per_pair: float | None
    """Time for one frame pair on one worker."""
    probe_failures: tuple[str, ...]
    """One sentence for each probed video that failed."""
    num_gpus: int = 0
    """Number of GPUs that the workers share."""
    gpu_seconds_per_pair: float = 0.0
    """The part of `seconds_per_pair` that a GPU spends."""
    num_segments: int = 0
    """Segments of the videos that are still to do. A short video counts as one segment."""
    class_counts: Mapping[str, Counter[str]] = field(default_factory=dict)
    """Videos in the whole plan by class and split. An empty name means no class or no split."""
    notes: tuple[str, ...] = ()
    """Notes that the run would print."""

    def summary(self) -> str:
        """Returns the estimate as lines of text."""
        flow, decode, encode = self.config.flow, self.config.decode, self.config.encode
        rate = "source frame rate" if decode.fps is None else f"{decode.fps:g} fps"
        lines = [
            f"dry run: {self.num_to_do} of {self.num_videos} videos to do in {self.location}, "
            f"{format_count(self.num_shards, 'shard')}",
            f"  frames      {decode.describe_size()}, {decode.interpolation}, {rate}, by "
            f"{decode.decoder}",
            f"  flow        {flow.algorithm}, step {flow.step}, {' and '.join(encode.directions)}",
            f"  parameters  {_parameters(self.config)}",
            *([] if flow.camera_motion == "none" else ["  camera      its motion is taken out"]),
            f"  quantized   {flow.quantizer}, bound {flow.bound_px:g} px",
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
        if not self.num_to_do:
            lines.append("  estimate    nothing to do: every video is finished or has failed")
        elif self.num_pairs is None or self.num_bytes is None or self.seconds_per_pair is None:
            lines.append("  estimate    none: no video could be probed")
        else:
            # One worker computes a short video. Each segment of a long video may have its own.
            num_busy = min(self.num_workers, max(self.num_to_do, self.num_segments))
            seconds = self.num_pairs * self.seconds_per_pair / num_busy
            if self.num_gpus:
                # Workers wait for the GPUs that they share.
                num_gpus = min(self.num_gpus, num_busy)
                seconds = max(seconds, self.num_pairs * self.gpu_seconds_per_pair / num_gpus)
            lines.append(
                f"  estimate    {format_count(round(self.num_pairs), 'frame pair')} at "
                f"{1 / self.seconds_per_pair:.1f} pairs/s per worker: {format_duration(seconds)} "
                f"with {format_count(num_busy, 'worker')}"
                + (f" on {format_count(self.num_gpus, 'GPU')}" if self.num_gpus else "")
                + f", {format_bytes(self.num_bytes)}"
            )
        lines += [f"  probe       {failure}" for failure in self.probe_failures]
        lines += [f"  note        {note}" for note in self.notes]
        lines += table_lines(self.class_counts)
        lines.append("nothing was written")
        return join_lines(lines)


def estimate_run(
    manifest: Manifest, out: str, config: ExtractConfig, options: RunOptions
) -> RunEstimate:
    """Probes some of the videos that a run would extract. Writes nothing.

    The estimate is for this machine, and no cluster is asked what it has. Raises ConfigError for a
    device that does not exist, and ConfigMismatchError, InputError and DatasetError as the run
    itself would.
    """
    check_options(options, config.flow.algorithm)
    if cluster_address(options.address) is not None:
        options = replace(options, device="auto")
    machine, device, workers = own_machine(options, config.flow.algorithm)
    storage = Storage(out)
    plan = make_plan(storage, manifest, config)
    entries = plan.entries
    done = _finished_keys(storage, plan, options)
    to_do = [entry.video for entry in entries if entry.video.key not in done]
    failures: list[str] = []
    with fetched_sample(spread(to_do, _NUM_HEADERS), failures) as probed:
        counts = count_frames(probed, config, failures)
    timed = spread(to_do, _NUM_TIMED)
    name = "cpu" if device is None else str(device)
    with fetched_sample(timed if counts else [], failures) as probed:
        cost = measure_cost(probed, config, failures, device=name) if counts else None
    num_pairs = num_bytes = None
    num_segments = 0
    if counts:
        share = len(to_do) / len(counts)
        most = options.segment_frames
        num_segments = round(share * sum(count_segments(count, most) for count in counts))
        num_pairs = share * sum(max(0.0, count - config.flow.step) for count in counts)
        if cost is not None:
            num_frames = share * sum(counts)
            num_bytes = num_pairs * cost.bytes_per_pair + num_frames * cost.bytes_per_frame
    is_inline = options.executor == "inline"
    return RunEstimate(
        location=storage.location,
        config=config,
        num_videos=len(entries),
        num_to_do=len(to_do),
        num_shards=len({entry.shard for entry in entries}),
        num_workers=1 if is_inline else workers.num_gpu_workers or workers.num_cpu_workers,
        class_names=plan.header.class_names,
        splits=Counter(entry.video.split for entry in entries if entry.video.split),
        num_pairs=num_pairs,
        num_bytes=num_bytes,
        seconds_per_pair=None if cost is None else cost.seconds_per_pair,
        probe_failures=tuple(dict.fromkeys(failures)),
        num_gpus=machine.num_gpus,
        gpu_seconds_per_pair=0.0 if cost is None else cost.flow_seconds_per_pair,
        num_segments=num_segments,
        class_counts=count_classes((e.video for e in entries), plan.header.class_names),
        notes=plan.notes,
    )


def _finished_keys(storage: Storage, plan: Plan, options: RunOptions) -> set[str]:
    """Returns the keys of the videos that are finished, in published shards and in parts."""
    published = set(published_shards(storage))
    known = plan.known
    done = {entry.video.key for entry in known if entry.shard in published}
    failures = published_failures(storage, known, published, stored_failures(storage) or {})
    if options.redo_changed:
        done -= find_changed(storage, plan.entries, published, redo=True).keys
    again = found_again(failures, plan.entries) | failed_by_node(failures)
    done -= failures.keys() if options.retry_failed else again
    names = FolderNames()
    for shard in {entry.shard for entry in known} - published:
        for index, record in recorded_parts(storage, shard, list_parts(storage, shard)):
            if isinstance(record, DatasetError) or index >= len(known):
                continue
            source = plan.entries[index].video.source
            is_there_now = record.reason == "missing" and names.holds(source)
            is_again = options.retry_failed or is_there_now or record.fault == "node"
            if record.status == "failed" and is_again:
                continue
            done.add(known[index].video.key)
    return done


def count_frames(
    videos: Sequence[Video], config: ExtractConfig, failures: list[str]
) -> list[float]:
    """Returns each video's number of frames from its header; adds a sentence if that fails."""
    counts = []
    for video in videos:
        try:
            info = probe_video(video, config.decode)
        except VideoError as error:
            failures.append(f"{video.key}: {error.message}")
            continue
        if info.codec == "images" and info.fps is None:
            # A folder of images without a frame rate has no time range, so it is taken whole.
            fps, length = 1.0, float(sum(map(is_frame_image, os.listdir(video.source))))
        elif info.fps is None or (info.duration_seconds is None and video.end_seconds is None):
            failures.append(f"{video.key}: its header does not say how long it is")
            continue
        else:
            fps = config.decode.fps or info.fps
            length = math.inf if info.duration_seconds is None else info.duration_seconds
        if video.end_seconds is not None:
            length = min(length, video.end_seconds)
        counts.append(max(0.0, length - (video.start_seconds or 0.0)) * fps)
    return counts


@dataclass(frozen=True)
class PairCost:
    """What a frame pair costs on one worker, over all stages and both directions."""

    seconds_per_pair: float
    bytes_per_pair: float
    """Bytes of the flow JPEGs of one pair."""
    bytes_per_frame: float
    """Bytes of the JPEG of one RGB frame."""
    pixels_per_pair: float
    """Pixels of one stored frame."""
    flow_seconds_per_pair: float = 0.0
    """The part of `seconds_per_pair` that the flow took."""


def measure_cost(
    videos: Sequence[Video], config: ExtractConfig, failures: list[str], *, device: str = "cpu"
) -> PairCost | None:
    """Measures the first pairs of some videos. Adds a sentence for each video that gives none."""
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    estimator = build_estimator(config.flow.algorithm, config.flow.parameters, device)
    num_timed = _NUM_TIMED_PAIRS if device == "cpu" else _NUM_TIMED_PAIRS_GPU
    is_warm = device == "cpu"
    seconds = flow_seconds = num_bytes = num_rgb_bytes = num_pixels = 0.0
    num_pairs = num_frames = 0
    began = time.monotonic()
    try:
        for video in videos:
            if num_pairs and time.monotonic() - began > _PROBE_SECONDS:
                break
            try:
                info = probe_video(video, config.decode)
                fps = config.decode.fps or info.fps or 1.0
                if info.fps is None and info.codec == "images":
                    # Images without a frame rate get one, so that the first ones can be cut out.
                    config = replace(config, decode=replace(config.decode, image_fps=fps))
                start = video.start_seconds or 0.0
                end = start + (config.flow.step + num_timed + 0.5) / fps
                head = replace(video, end_seconds=min(end, video.end_seconds or end))
                if not is_warm:
                    with extract_video(head, config, estimator):
                        is_warm = True
                with extract_video(head, config, estimator) as extracted:
                    seconds += sum(extracted.seconds.values())
                    flow_seconds += extracted.seconds["flow"]
                    for name, stream in extracted.streams.items():
                        if name == RGB_STREAM:
                            num_rgb_bytes += stream.num_bytes
                        else:
                            num_bytes += stream.num_bytes
                    metadata = extracted.metadata
                    num_pairs += metadata.num_flows
                    num_frames += metadata.num_frames
                    num_pixels += metadata.num_flows * metadata.width * metadata.height
            except VideoError as error:
                failures.append(f"{video.key}: {error.message}")
    finally:
        cv2.setNumThreads(num_threads)
    if not num_pairs:
        return None
    return PairCost(
        seconds_per_pair=seconds / num_pairs,
        bytes_per_pair=num_bytes / num_pairs,
        bytes_per_frame=num_rgb_bytes / num_frames,
        pixels_per_pair=num_pixels / num_pairs,
        flow_seconds_per_pair=flow_seconds / num_pairs,
    )


def spread(videos: Sequence[Video], count: int) -> list[Video]:
    """Returns up to `count` videos, spaced evenly over the plan."""
    if len(videos) <= count:
        return list(videos)
    return [videos[(2 * i + 1) * len(videos) // (2 * count)] for i in range(count)]


def _parameters(config: ExtractConfig) -> str:
    values = config.to_dict()["flow"]["parameters"]
    return ", ".join(f"{n.strip('_')} {v}" for n, v in values.items() if v is not None)
