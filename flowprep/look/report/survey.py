"""Goes through a data set and gathers table rows, sums by class, and findings with pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig
from flowprep.dataset.quantize import HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import DatasetError, StorageError
from flowprep.flow.homography import inverse
from flowprep.look.color import flow_to_color
from flowprep.look.film import webp_picture
from flowprep.look.findings.across import find_upside_down, find_wrong_labels
from flowprep.look.findings.checks import find_in_sample, find_in_statistics
from flowprep.look.findings.kinds import Finding
from flowprep.look.findings.measures import (
    MOTION_SHAPE,
    PICTURE_SHAPE,
    VideoSample,
    measure_pair,
    plateau,
)
from flowprep.look.findings.statistics import (
    CameraSummary,
    VideoStatistics,
    busiest_run,
    describe_video,
    fullest_fields,
    jumps,
    suspected_copies,
    suspicious_pairs,
)
from flowprep.look.report.bound import NICE_BOUNDS_PX, BoundAdvice, most_beyond, recommend_bound

__all__ = [
    "NUM_SAMPLED",
    "ClassSummary",
    "DatasetSurvey",
    "ShownFinding",
    "VideoRow",
    "class_name",
    "label_words",
]

NUM_SAMPLED = 300
"""Default number of videos whose pixels are examined. It takes half a minute on one core."""
_PAIRS_PER_VIDEO = 6
_SHOWN_PER_KIND = 12
"""Number of findings of each kind that get pictures. The others are in the table."""
_THUMB_PX = 200
_CLASS_PICTURE_PX = (64, 48)


@dataclass(frozen=True)
class ClassSummary:
    """The summary of one class or of all videos."""

    name: str
    num_videos: int
    num_frames: int
    mean_px: float
    p99_px: float
    """Length below which 99 of 100 vectors are, to within a bin of the histogram."""
    bound: BoundAdvice
    histogram: NDArray[np.float64]
    """Number of vectors by length, in bins of HISTOGRAM_BIN_PX. The last bin has no upper end."""
    mean_flow: NDArray[np.float32] | None
    """The mean field of the sampled videos, (48, 64, 2) px. None if no video was sampled."""


@dataclass(frozen=True)
class VideoRow:
    """One row of the table."""

    key: str
    label: str
    split: str
    status: str
    num_frames: int
    width: int
    height: int
    fps: float | None
    mean_px: float
    max_px: float
    clipped_share: float
    blank_share: float
    num_bytes: int
    camera_px: float | None = None
    """Median over the pairs of the camera's motion that was taken out: see `CameraSummary`."""
    num_plain: int = 0
    """Number of pairs that still have the camera's motion."""


@dataclass(frozen=True)
class ShownFinding:
    """A finding with its pictures as WebP: the frame, the next frame for a cut, and the flow."""

    finding: Finding
    pictures: tuple[tuple[str, bytes], ...]


def _no_vectors() -> NDArray[np.float64]:
    return np.zeros(HISTOGRAM_NUM_BINS + 1)


@dataclass
class _Sums:
    """The sums over the videos of a class."""

    num_videos: int = 0
    num_frames: int = 0
    num_values: int = 0
    num_clipped: int = 0
    histogram: NDArray[np.float64] = field(default_factory=_no_vectors)
    most: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(NICE_BOUNDS_PX)))
    flow: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((*_CLASS_PICTURE_PX[::-1], 2))
    )
    num_sampled: int = 0

    def summary(self, name: str, config: ExtractConfig, requested_share: float) -> ClassSummary:
        total = max(1.0, float(self.histogram.sum()))
        middles = (np.arange(self.histogram.size) + 0.5) * HISTOGRAM_BIN_PX
        p99 = int(np.searchsorted(np.cumsum(self.histogram), 0.99 * total))
        return ClassSummary(
            name=name,
            num_videos=self.num_videos,
            num_frames=self.num_frames,
            mean_px=float(self.histogram @ middles) / total,
            p99_px=HISTOGRAM_BIN_PX * (p99 + 1),
            bound=recommend_bound(
                self.most,
                self.num_values,
                self.num_clipped,
                bound_px=config.flow.bound_px,
                requested_share=requested_share,
            ),
            histogram=self.histogram,
            mean_flow=(self.flow / self.num_sampled).astype(np.float32)
            if self.num_sampled
            else None,
        )


class DatasetSurvey:
    """Goes through a data set and gathers rows, sums and findings, in steps for `make_report`."""

    def __init__(self, dataset: FlowDataset, clipped_share: float) -> None:
        self.dataset = dataset
        self.clipped_share = clipped_share
        self.rows: list[VideoRow] = []
        self.findings: list[Finding] = []
        self.total = _Sums()
        self.classes: dict[int, _Sums] = {}
        self.bytes_by_stream: Counter[str] = Counter()
        self.devices: Counter[str] = Counter()
        self._readable: list[str] = []
        self._oddness: list[tuple[float, float, float, float]] = []
        self._pictures: dict[str, NDArray[np.float32]] = {}
        self._motions: dict[str, NDArray[np.float32]] = {}

    def read_statistics(self, video: StoredVideo) -> None:
        """Adds one video's stored statistics."""
        for name, (_, size) in video.members.items():
            self.bytes_by_stream[name] += size
        config = self.dataset.config
        try:
            metadata = self.dataset.metadata(video.key)
            statistics = describe_video(metadata, config)
        except (DatasetError, StorageError) as error:
            self.findings.append(Finding("unreadable", video.key, str(error)))
            return
        if metadata.device:
            self.devices[metadata.device] += 1
        bounds = np.array(NICE_BOUNDS_PX)
        sums = [self.total, *(self.classes.setdefault(n, _Sums()) for n in video.labels)]
        most = np.zeros(bounds.size)
        histogram = _no_vectors()
        for item in metadata.flow.values():
            most += most_beyond(item, config.flow.bound_px, bounds)
            values = np.asarray(item.magnitude_histogram, np.float64)
            histogram[: values.size] += values
        for one in sums:
            one.num_videos += 1
            one.num_frames += video.num_frames
            one.num_values += statistics.num_values
            one.num_clipped += statistics.num_clipped
            one.histogram += histogram
            one.most += most
        self.findings += find_in_statistics(statistics, self.clipped_share)
        blank_share = float(statistics.flat.mean())
        camera = CameraSummary.of(metadata.homographies or None, video.width, video.height)
        self.rows.append(
            VideoRow(
                key=video.key,
                label=label_words(self.dataset, video),
                split=video.split or "",
                status="partial" if video.is_partial else "complete",
                num_frames=video.num_frames,
                width=video.width,
                height=video.height,
                fps=video.fps,
                mean_px=statistics.mean_px,
                max_px=statistics.max_px,
                clipped_share=statistics.clipped_share,
                blank_share=blank_share,
                num_bytes=sum(size for _, size in video.members.values()),
                camera_px=None if camera is None else camera.median_px,
                num_plain=0 if camera is None else camera.num_plain,
            )
        )
        self._readable.append(video.key)
        rgb = video.members.get("rgb", (0, 0))[1]
        emptiness = -rgb / max(1, video.num_frames * video.width * video.height)
        jump = float(jumps(statistics.flow_bytes.astype(np.float64), config.flow.step).max())
        copies = len(suspected_copies(statistics)) and float(statistics.repeated.mean())
        self._oddness.append((max(blank_share, copies), jump, statistics.clipped_share, emptiness))

    def choose(self, num_sampled: int) -> list[str]:
        """Returns the videos to examine, in the order of the data set."""
        if num_sampled >= len(self._readable):
            return list(self._readable)
        if num_sampled == 0:
            return []
        odd = np.array(self._oddness)
        chosen: dict[int, None] = {}
        share = num_sampled // (2 * odd.shape[1])
        for column in odd.T:
            for place in np.argsort(-column, kind="stable")[:share].tolist():
                chosen[place] = None
        by_class: dict[str, list[int]] = {}
        for place in sorted(range(len(self.rows)), key=lambda n: _hash(self.rows[n].key)):
            by_class.setdefault(self.rows[place].label, []).append(place)
        turn = 0
        while len(chosen) < num_sampled:
            for places in by_class.values():
                if turn < len(places) and len(chosen) < num_sampled:
                    chosen[places[turn]] = None
            turn += 1
        return [self._readable[place] for place in sorted(chosen)]

    def read_sample(self, key: str) -> None:
        """Examines some fields of one video."""
        config = self.dataset.config
        video = self.dataset.videos[key]
        try:
            statistics = describe_video(self.dataset.metadata(key), config)
            sample, mean_flow = _read_sample(self.dataset, video, statistics)
        except (DatasetError, StorageError) as error:
            self.findings.append(Finding("unreadable", key, str(error)))
            return
        for one in (self.total, *(self.classes[label] for label in video.labels)):
            one.flow += cv2.resize(mean_flow, _CLASS_PICTURE_PX, interpolation=cv2.INTER_AREA)
            one.num_sampled += 1
        found = find_in_sample(statistics, sample)
        self.findings += found
        if not any(finding.kind in ("black", "still") for finding in found):
            if sample.picture is not None:
                self._pictures[key] = sample.picture
            if sample.motion is not None and not any(f.kind != "camera" for f in found):
                self._motions[key] = sample.motion

    def compare_videos(self) -> None:
        """Adds the findings that need a comparison with other videos."""
        self.findings += find_upside_down(self._pictures)
        labels = {
            key: label
            for key in self._motions
            if (label := self.dataset.videos[key].label) is not None
        }
        self.findings += find_wrong_labels(self._motions, labels, self.dataset.class_names)

    def show(self, findings: Sequence[Finding], color_max_px: float) -> Iterable[ShownFinding]:
        """Returns the first findings of each kind with pictures."""
        seen: Counter[str] = Counter()
        for finding in findings:
            seen[finding.kind] += 1
            if seen[finding.kind] <= _SHOWN_PER_KIND:
                yield ShownFinding(finding, self._pictures_of(finding, color_max_px))

    def _pictures_of(self, finding: Finding, color_max_px: float) -> tuple[tuple[str, bytes], ...]:
        if finding.kind in ("failed", "unreadable"):
            return ()
        dataset, step = self.dataset, self.dataset.config.flow.step
        num_flows = dataset.videos[finding.key].num_flows
        pair = num_flows // 2 if finding.pair is None else finding.pair
        pictures = []
        direction = dataset.config.encode.directions[0]
        try:
            if dataset.config.encode.keep_rgb:
                both = finding.kind in ("cut", "duplicates", "still", "zero-flow")
                indices = (pair, pair + step) if both else (pair,)
                for index in indices:
                    frame = dataset.frames(finding.key, [index])[0]
                    pictures.append((f"frame {index}", _thumbnail(frame)))
            flow = dataset.flow(finding.key, pair, 1, direction)[0]
            pictures.append((f"flow {pair}", _thumbnail(flow_to_color(flow, color_max_px))))
        except (DatasetError, StorageError):
            return ()
        return tuple(pictures)


def _read_sample(
    dataset: FlowDataset, video: StoredVideo, statistics: VideoStatistics
) -> tuple[VideoSample, NDArray[np.float32]]:
    config = dataset.config
    spec, has_frames = config.flow, config.encode.keep_rgb
    n = video.num_flows
    places = (np.arange(_PAIRS_PER_VIDEO) + 0.5) / _PAIRS_PER_VIDEO * n
    regular = np.unique(places.astype(int)).tolist()
    probes = [t for t in suspicious_pairs(statistics, spec.step) if t not in regular]
    first_direction = config.encode.directions[0]
    has_backward = len(config.encode.directions) == 2
    homographies = dataset.metadata(video.key).homographies or [None] * n
    measured = {}
    flows, pictures = [], []
    for t in (*regular, *probes):
        forward = dataset.flow(video.key, t, 1, first_direction)[0]
        frames = None
        if has_frames:
            ends = (t, t + spec.step)
            frames = np.concatenate([dataset.frames(video.key, [index]) for index in ends])
        # Backward flow alone is treated as the forward flow of the exchanged frames.
        if frames is not None and first_direction == "backward":
            frames = frames[::-1]
        backward = dataset.flow(video.key, t, 1, "backward")[0] if has_backward else None
        homography = homographies[t]
        if homography is not None and first_direction == "backward":
            homography = inverse(homography)
        measured[t] = measure_pair(t, frames, forward, backward, spec, homography)
        if t in regular:
            flows.append(cv2.resize(forward, (80, 60), interpolation=cv2.INTER_AREA))
            if frames is not None:
                size = (PICTURE_SHAPE[1], PICTURE_SHAPE[0])
                small = cv2.resize(frames[0], size, interpolation=cv2.INTER_AREA)
                pictures.append(small.astype(np.float32))
    copies, run, run_start = [], np.empty(0), 0
    if has_frames:
        run_start, num_frames = busiest_run(statistics, video.num_frames)
        indices = range(run_start, run_start + num_frames)
        green = dataset.frames(video.key, indices)[:, ::2, ::2, 1]
        run = np.abs(np.diff(green.astype(np.int16), axis=0)).mean(axis=(1, 2))
        for index in suspected_copies(statistics):
            before, frame = dataset.frames(video.key, [index - 1, index]).astype(np.int16)
            copies.append((index, float(np.abs(frame - before).mean())))
    plateaus = []
    for t in fullest_fields(statistics):
        plateaus.append((t, *plateau(dataset.flow(video.key, t, 1, first_direction)[0], spec)))
    mean_flow = np.asarray(np.mean(flows, axis=0), np.float32)
    shape = (MOTION_SHAPE[1], MOTION_SHAPE[0])
    motion = cv2.resize(mean_flow, shape, interpolation=cv2.INTER_AREA)
    length = float(np.mean([np.hypot(flow[..., 0], flow[..., 1]).mean() for flow in flows]))
    sample = VideoSample(
        pairs=tuple(measured[t] for t in regular),
        probes=tuple(measured[t] for t in probes),
        num_pixels=measured[regular[0]].num_pixels,
        has_frames=has_frames,
        has_backward=has_backward,
        width=video.width,
        plateaus=tuple(plateaus),
        run=tuple(run.tolist()),
        run_start=run_start,
        copies=tuple(copies),
        picture=np.asarray(np.mean(pictures, axis=0), np.float32) if pictures else None,
        # A tenth of a px is noise and quantization error.
        motion=np.asarray(motion / (length + 0.1), np.float32),
    )
    return sample, mean_flow


def _thumbnail(image: NDArray[np.uint8]) -> bytes:
    height, width = image.shape[:2]
    scale = min(1.0, _THUMB_PX / width)
    if scale < 1:
        size = (_THUMB_PX, max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return webp_picture(image, 70)


def label_words(dataset: FlowDataset, video: StoredVideo) -> str:
    """Returns the names of a video's classes, with commas between them."""
    return ", ".join(class_name(dataset, label) for label in video.labels)


def class_name(dataset: FlowDataset, label: int) -> str:
    return dataset.class_names[label] if label < len(dataset.class_names) else f"class {label}"


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()
