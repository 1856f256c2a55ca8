"""Sums up the stored statistics of a video, and chooses the fields that are worth a look.

describe_video(metadata, ...)   `KEY.json` -> VideoStatistics
suspicious_pairs, busiest_run   choose fields and frames by the sizes of their JPEGs
fullest_fields, suspected_copies
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM
from flowprep.dataset.metadata import VideoMetadata
from flowprep.errors import NoteCode
from flowprep.flow.homography import Homography, corner_motion_px
from flowprep.words import format_count

__all__ = [
    "MOVING_PX",
    "REPEATED_SHARE",
    "CameraSummary",
    "VideoStatistics",
    "busiest_run",
    "describe_video",
    "fullest_fields",
    "jumps",
    "suspected_copies",
    "suspicious_pairs",
]

REPEATED_SHARE = 0.04
_JUMP = 1.3
"""At a cut, the JPEG of a field has at least this many times its neighbors' median size."""

MOVING_PX = 0.5
"""Shorter vectors say nothing about the direction of motion, because noise is as long."""


@dataclass(frozen=True)
class VideoStatistics:
    """The content of a video's `KEY.json`, summed up over its directions."""

    key: str
    num_flows: int
    num_values: int
    num_clipped: int
    num_invalid: int
    num_fields: int
    num_zero_fields: int
    mean_px: float
    """Mean length of the vectors before clipping. Each bin counts as its middle."""
    max_px: float
    """Largest component, before clipping."""
    moving_share: float
    """Share of the vectors that are longer than half a px."""
    num_expected: int | None
    """Number of frames by the source's duration and frame rate. None if these are unknown."""
    num_decoded: int
    rotation: int
    is_partial: bool
    damage: str
    num_damaged: int
    notes: Mapping[NoteCode, str]
    flat: NDArray[np.bool_]
    """Which fields are blank, judged by the size of their JPEGs, (num_flows,)."""
    flow_bytes: NDArray[np.int64]
    """Bytes of each field's JPEGs, (num_flows,)."""
    repeated: NDArray[np.bool_]
    """Which JPEGs of frames have the size of the one before, (num_frames,). Empty without RGB."""

    @property
    def clipped_share(self) -> float:
        """Share of the components that were beyond the bound."""
        return self.num_clipped / max(1, self.num_values)


@dataclass(frozen=True)
class CameraSummary:
    """The motion of the camera that a video's flow was freed of."""

    corner_px: tuple[float | None, ...]
    """For each pair, the motion of the corner of the frame that moves farthest. None: the pair is
    plain, because the camera's motion was not found."""

    @classmethod
    def of(
        cls, homographies: Sequence[Homography | None] | None, width: int, height: int
    ) -> CameraSummary | None:
        """Returns the summary of a video. None if its flow still has the camera's motion."""
        if homographies is None:
            return None
        return cls(
            tuple(
                None if one is None else corner_motion_px(one, width, height)
                for one in homographies
            )
        )

    @property
    def num_plain(self) -> int:
        """Number of pairs that still have the camera's motion."""
        return self.corner_px.count(None)

    @property
    def median_px(self) -> float | None:
        """The median over the other pairs. None if there are none."""
        known = [one for one in self.corner_px if one is not None]
        return float(np.median(known)) if known else None

    def words(self) -> str:
        """Returns a clause for people, with the motion of the corner that moves farthest."""
        parts = []
        if self.median_px is not None:
            greatest = max(one for one in self.corner_px if one is not None)
            parts.append(
                f"camera motion of {self.median_px:.1f} px was taken out (median; at most "
                f"{greatest:.1f} px)"
            )
        if self.num_plain:
            pairs = format_count(len(self.corner_px), "pair")
            parts.append(f"it was not found in {self.num_plain:,} of {pairs}, whose flow has it")
        return "; ".join(parts)


def describe_video(metadata: VideoMetadata, config: ExtractConfig) -> VideoStatistics:
    """Sums up a video's `KEY.json`, as `FlowDataset.metadata` returns it."""
    items = list(metadata.flow.values())
    histogram_sum = histogram_px = histogram_moving = 0.0
    for item in items:
        histogram = np.asarray(item.magnitude_histogram, np.float64)
        middles = (np.arange(histogram.size) + 0.5) * item.histogram_bin_px
        histogram_sum += float(histogram.sum())
        histogram_px += float(histogram @ middles)
        histogram_moving += float(histogram[middles > MOVING_PX].sum())
    names = [name for side in config.encode.directions for name in FLOW_STREAMS[side]]
    planes = np.array([metadata.sizes[name] for name in names], np.int64)
    blank = _blank_bytes(metadata.width, metadata.height, config.encode.jpeg_quality)
    flat = np.asarray((planes <= blank).all(axis=0))
    rgb = np.array(metadata.sizes.get(RGB_STREAM, ()), np.int64)
    repeated = np.diff(rgb, prepend=rgb[:1] - 1) == 0
    num_expected = None
    whole = metadata.start_seconds is None and metadata.end_seconds is None
    if whole and metadata.duration_seconds and metadata.source_fps:
        promised = metadata.duration_seconds * metadata.source_fps
        num_expected = round(promised) if math.isfinite(promised) else None
    extremes = [abs(side or 0.0) for item in items for side in (item.min_px, item.max_px)]
    return VideoStatistics(
        key=metadata.key,
        num_flows=metadata.num_flows,
        num_values=sum(item.num_values for item in items),
        num_clipped=sum(item.num_clipped for item in items),
        num_invalid=sum(item.num_invalid for item in items),
        num_fields=sum(item.num_fields for item in items),
        num_zero_fields=sum(item.num_zero_fields for item in items),
        mean_px=histogram_px / max(1.0, histogram_sum),
        max_px=max(extremes, default=0.0),
        moving_share=histogram_moving / max(1.0, histogram_sum),
        num_expected=num_expected,
        num_decoded=metadata.num_frames_decoded,
        rotation=metadata.rotation,
        is_partial=metadata.status == "partial",
        damage=metadata.damage or "",
        num_damaged=metadata.num_damaged or 0,
        notes=metadata.notes or {},
        flat=flat,
        flow_bytes=planes.sum(axis=0),
        repeated=repeated,
    )


@functools.lru_cache(maxsize=256)
def _blank_bytes(width: int, height: int, quality: int) -> int:
    """Returns the size of the JPEG of a plane with one level everywhere, plus a few bytes."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    plane = np.full((height, width), 128, np.uint8)
    _, jpeg = cv2.imencode(".jpg", plane, parameters)
    return int(jpeg.size) + 8


def suspicious_pairs(statistics: VideoStatistics, step: int) -> list[int]:
    """Returns the fields of the two likeliest cuts, judged by the sizes of the JPEGs.

    The fields before and after each of them are included.
    """
    sizes = statistics.flow_bytes.astype(np.float64)
    n = sizes.size
    found: list[int] = []
    jump = jumps(sizes, step)
    for t in np.argsort(-jump, kind="stable")[:2].tolist():
        if jump[t] > _JUMP:
            found += [t, max(0, t - step), min(n - 1, t + step)]
    return list(dict.fromkeys(found))


def jumps(sizes: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Returns each field's size divided by the median size of its neighbors, (N,)."""
    reach = 4 * step
    padded = np.pad(sizes, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    others = np.delete(windows, np.arange(reach - step + 1, reach + step), axis=1)
    with np.errstate(all="ignore"):
        # numpy.nanmedian would warn if a window holds only NaN, as in a video of one pair.
        ordered = np.sort(others, axis=1)  # NaN last
        known = np.isfinite(ordered).sum(axis=1)
        middle = ordered[np.arange(len(ordered)), np.maximum(known - 1, 0) // 2]
    return np.asarray(np.where(known > 0, sizes / np.where(known > 0, middle, 1), 1.0))


def busiest_run(statistics: VideoStatistics, num_frames: int) -> tuple[int, int]:
    """Returns the first frame and the length of the run of 16 frames with the largest fields."""
    length = min(16, num_frames)
    window = np.ones(min(length, statistics.num_flows))
    start = int(np.convolve(statistics.flow_bytes, window, "valid").argmax())
    return min(start, num_frames - length), length


def suspected_copies(statistics: VideoStatistics) -> list[int]:
    """Returns up to five frames to compare with the frame before; none if copies are few."""
    places = np.flatnonzero(statistics.repeated)
    if places.size < max(3, REPEATED_SHARE * statistics.repeated.size):
        return []
    chosen = np.unique(np.linspace(0, places.size - 1, 5).astype(int))
    return [int(place) for place in places[chosen]]


def fullest_fields(statistics: VideoStatistics) -> list[int]:
    """Returns the eight fields with the largest JPEGs, because these have the most motion."""
    return sorted(np.argsort(-statistics.flow_bytes, kind="stable")[:8].tolist())
