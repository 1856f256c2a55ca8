"""What can be wrong with a video of a data set, told from its statistics and a few of its fields.

    describe_video(metadata, ...)   what extract stored of a video, summed up      every video
    measure_pair(frames, flows)     one field against the two frames it joins      a sample
    find_...                        a Finding, or None                              one fault each

Where a threshold names "44 real clips", it was measured on 24 of UCF101 and 20 of sign language,
with TV-L1 and Farneback; faults were made of the same clips.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig, FlowSpec
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM
from flowprep.dataset.metadata import VideoMetadata
from flowprep.errors import VIDEO_NOTES, NoteCode

__all__ = [
    "CLIPPED_SHARE",
    "KINDS",
    "MOTION_SHAPE",
    "PICTURE_SHAPE",
    "Finding",
    "FindingKind",
    "PairMeasures",
    "Severity",
    "VideoSample",
    "VideoStatistics",
    "busiest_run",
    "describe_video",
    "find_in_sample",
    "find_in_statistics",
    "find_upside_down",
    "find_wrong_labels",
    "fullest_fields",
    "jumps",
    "measure_pair",
    "plateau",
    "repeats",
    "suspected_copies",
    "suspicious_pairs",
]

Severity = Literal["fault", "suspicion", "note"]


@dataclass(frozen=True)
class FindingKind:
    """One thing that can be wrong, in words for somebody who will have to mend it."""

    title: str
    severity: Severity
    what: str
    why: str
    remedy: str


KINDS: dict[str, FindingKind] = {
    "failed": FindingKind(
        "Not extracted",
        "fault",
        "The video gave nothing; the reason stands with each.",
        "It is missing from the data set, and its class has one example less.",
        "Fetch the file again; `--on-damage cut` keeps what came before the damage. Then run the "
        "same extract command with `--retry-failed`.",
    ),
    "unreadable": FindingKind(
        "Cannot be read",
        "fault",
        "Its part of the shard is damaged.",
        "Training will stop there.",
        "`flowprep verify --deep` says what is wrong; remove the shard and its .json and run the "
        "same extract command again.",
    ),
    "swapped": FindingKind(
        "x and y exchanged",
        "fault",
        "The second frame, moved back by the stored flow, does not become the first; with x and y "
        "exchanged it does.",
        "The network learns that what goes sideways goes up and down.",
        "Extract it again; where many videos have it, look at how their streams were written.",
    ),
    "reversed": FindingKind(
        "Played backwards",
        "fault",
        "The stored forward flow points into the past: its opposite, or the stored backward flow, "
        "explains the frames far better.",
        "Classes that differ in direction alone, such as opening and closing, become each other.",
        "Extract it again; forward and backward streams were exchanged, or the signs were.",
    ),
    "mirrored": FindingKind(
        "One axis has the wrong sign",
        "fault",
        "The stored flow explains the frames only after the sign of x or of y is changed.",
        "Left and right, or up and down, are mistaken for each other.",
        "Look for a flipped picture whose flow was not flipped, or for a y axis that points up; "
        "extract it again.",
    ),
    "zero-flow": FindingKind(
        "No flow, though the picture moves",
        "fault",
        "All fields are zero, and the frames differ.",
        "The network sees an empty input with a label on it.",
        "Extract it again, with other parameters if that does not help.",
    ),
    "black": FindingKind(
        "Black or blank",
        "fault",
        "All sampled frames are one colour, or too dark to see anything.",
        "It has a label and no content.",
        "Look at the source; leave it out, or fetch it again.",
    ),
    "clipped": FindingKind(
        "Motion cut off at a bound",
        "fault",
        "Much of the motion sits exactly at the largest value that can be stored.",
        "Fast motion all looks alike.",
        "Extract with a larger `--bound`; see the recommended one.",
    ),
    "invalid": FindingKind(
        "Values that are no numbers",
        "fault",
        "The estimator gave NaN or infinity; they are stored as zero.",
        "Part of the flow is missing.",
        "Extract it again; if it stays, try another algorithm and tell its authors.",
    ),
    "partial": FindingKind(
        "Cut short by damage",
        "fault",
        "The source is damaged, and only what came before the damage is stored.",
        "The action may be missing from it.",
        "Fetch the file again, then run extract with `--retry-failed`.",
    ),
    "concealed": FindingKind(
        "Concealed damage",
        "suspicion",
        "The source is damaged; the decoder made up for what was lost, and went on.",
        "Some pictures are smeared or stand still, and so is their flow.",
        "Fetch the file again, then extract it into a new data set; `--on-damage cut` keeps only "
        "what came before the damage.",
    ),
    "still": FindingKind(
        "A still picture",
        "suspicion",
        "All frames are alike, so there is no motion.",
        "It teaches nothing about motion.",
        "Look at the source; leave it out if it is a slide or a frozen recording.",
    ),
    "duplicates": FindingKind(
        "Repeated frames",
        "suspicion",
        "Many frames are copies of the one before, and the flow between them is next to zero.",
        "Motion stops and jumps; a stack of flow fields holds blanks. The frame rate was likely "
        "raised by repeating frames.",
        "Extract with `--fps` at the rate at which the pictures really change.",
    ),
    "cut": FindingKind(
        "Scene cut",
        "suspicion",
        "Two neighbouring frames show different scenes; the flow between them means nothing.",
        "A clip across the cut has one field of noise, and maybe two actions under one label.",
        "Cut the video there, or keep clips on one side.",
    ),
    "blown-up": FindingKind(
        "Blown-up flow",
        "suspicion",
        "Long vectors all over the picture that explain the frames no better than none at all, and "
        "that forward and backward flow do not agree on.",
        "The estimator broke down, as with flashing light, noise or a cut, and noise is what is "
        "learned.",
        "Look at it; leave it out, or try other parameters or another algorithm.",
    ),
    "inconsistent": FindingKind(
        "Forward and backward disagree",
        "suspicion",
        "Going forward and then backward does not lead back to where it began, nearly everywhere, "
        "and the flow explains the frames no better than none at all.",
        "One of the two directions, or both, is wrong.",
        "Look at it; check that both directions are of the same video.",
    ),
    "short": FindingKind(
        "Shorter than its header says",
        "suspicion",
        "Far fewer frames could be decoded than duration and frame rate promise.",
        "The file was probably cut in a download, and the action may be missing.",
        "Compare with the original; fetch it again.",
    ),
    "upside-down": FindingKind(
        "Upside down",
        "suspicion",
        "Turned by 180 degrees it looks like several other videos; as it is, like none.",
        "All motion in it has the wrong direction.",
        "Check the rotation of the source: a tool on the way may have dropped it.",
    ),
    "wrong-label": FindingKind(
        "Maybe a wrong label",
        "suspicion",
        "It moves like another class, and unlike its own. This is a weak hint.",
        "A wrong label teaches the opposite of what it should.",
        "Look at it beside its class.",
    ),
    "camera": FindingKind(
        "Moving camera",
        "note",
        "Most of the picture moves together.",
        "What is learned may be the camera's motion rather than the action's.",
        "Nothing, if training data and use are alike in this; else subtract the mean flow in "
        "training.",
    ),
    "noted": FindingKind(
        "Noted while it was extracted",
        "note",
        "Nothing failed, but the file is not what one would expect.",
        "A guess may be wrong: each note says what was taken for what.",
        "Read the note; the options that it names choose otherwise.",
    ),
}
"""What is looked for, by name, the gravest first."""


CLIPPED_SHARE = 0.01
"""Share of components that may be beyond the bound, where nobody says otherwise."""
_CLIPPED_IN_VIDEO = 0.05
"""The same for a single video: some are faster than the rest."""


@dataclass(frozen=True)
class Finding:
    """Something about one video that a person should look at."""

    kind: str
    """A name in `KINDS`."""
    key: str
    detail: str
    """The numbers behind it, in words."""
    pair: int | None = None
    """The field to look at, where there is one."""


# ---- what extract stored


@dataclass(frozen=True)
class VideoStatistics:
    """What `KEY.json` says of a video, summed up over its directions."""

    key: str
    num_flows: int
    num_values: int
    num_clipped: int
    num_invalid: int
    num_fields: int
    num_zero_fields: int
    mean_px: float
    """Mean length of the vectors, before clipping; bins count as their middles."""
    max_px: float
    """Largest component, before clipping."""
    moving_share: float
    """Share of the vectors that are longer than half a px."""
    num_expected: int | None
    """Frames that duration and frame rate of the source promise; None where it does not say."""
    num_decoded: int
    rotation: int
    is_partial: bool
    damage: str
    num_damaged: int
    notes: Mapping[NoteCode, str]
    flat: NDArray[np.bool_]
    """Which fields are blank, told by the size of their JPEGs; (num_flows,)."""
    flow_bytes: NDArray[np.int64]
    """Size of each field, (num_flows,)."""
    repeated: NDArray[np.bool_]
    """Which frames have a JPEG of the size of the one before, (num_frames,); empty without RGB."""

    @property
    def clipped_share(self) -> float:
        """Share of the components that were beyond the bound."""
        return self.num_clipped / max(1, self.num_values)


def describe_video(metadata: VideoMetadata, config: ExtractConfig) -> VideoStatistics:
    """Sums up a video's `KEY.json`, as `FlowDataset.metadata` gives it."""
    items = list(metadata.flow.values())
    histogram_sum = histogram_px = histogram_moving = 0.0
    for item in items:
        histogram = np.asarray(item.magnitude_histogram, np.float64)
        middles = (np.arange(histogram.size) + 0.5) * item.histogram_bin_px
        histogram_sum += float(histogram.sum())
        histogram_px += float(histogram @ middles)
        histogram_moving += float(histogram[middles > _MOVING_PX].sum())
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
    """Size of the JPEG of a plane that is one level everywhere, and a few bytes more."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    plane = np.full((height, width), 128, np.uint8)
    _, jpeg = cv2.imencode(".jpg", plane, parameters)
    return int(jpeg.size) + 8


# ---- one field and its two frames

_MOVING_PX = 0.5
"""Shorter vectors tell nothing about the direction of motion: noise is as long."""
_MAX_SIDE_PX = 400
"""Larger fields are shrunk for the measures, which are shares and ratios."""

Plane = NDArray[np.float32]  # (H, W)

_CANDIDATES: dict[str, Callable[[Plane, Plane], tuple[Plane, Plane]]] = {
    "stored": lambda u, v: (u, v),
    "zero": lambda u, v: (0 * u, 0 * v),
    "swapped": lambda u, v: (v, u),
    "reversed": lambda u, v: (-u, -v),
    "mirrored-x": lambda u, v: (-u, v),
    "mirrored-y": lambda u, v: (u, -v),
}
"""What a field might be taken for, as what would mend it."""
_MAX_POINTS = 16384
"""Of the moving pixels so many are compared, at equal distances."""


@dataclass(frozen=True)
class PairMeasures:
    """What one field and its two frames say; shares are from 0 to 1, errors are grey levels."""

    pair: int
    num_pixels: int
    num_moving: int
    """Pixels that move and that the errors are summed over."""
    errors: Mapping[str, float]
    """Sum over the moving pixels of |second frame, moved back - first frame|, by what the field is
    taken for."""
    inconsistent: float
    """Share of pixels where forward and backward flow disagree (Sundaram et al., ECCV 2010)."""
    mean_px: float
    median_px: float
    camera_px: float
    """Length of the border's median vector."""
    camera_share: float
    """Share of the pixels that move as the border does."""
    is_blank: bool
    """The field is zero to within a level."""
    difference: float
    """Mean |second frame - first frame|."""
    structure: float
    """Correlation of the two frames, 1 for the same scene."""
    brightness: float
    """Mean of the first frame."""
    contrast: float
    """Distance of the 2nd and 98th percentile of the first frame."""


def measure_pair(
    pair: int,
    frames: NDArray[np.uint8] | None,
    forward: NDArray[np.float32],
    backward: NDArray[np.float32] | None,
    spec: FlowSpec,
) -> PairMeasures:
    """Compares a field with the two frames that it joins.

    `frames` is (2, H, W, 3) uint8 RGB or None, `forward` (H, W, 2) float32 px on the grid of the
    first frame, `backward` the same on the grid of the second, or None.
    """
    levels = spec.px_per_level
    greatest = float(np.abs(forward).max())
    is_blank = greatest <= 1.01 * levels
    scale = min(1.0, _MAX_SIDE_PX / max(forward.shape[:2]))
    if scale < 1:
        size = (round(forward.shape[1] * scale), round(forward.shape[0] * scale))
        ratio = np.array([size[0] / forward.shape[1], size[1] / forward.shape[0]], np.float32)
        forward = cv2.resize(forward, size, interpolation=cv2.INTER_AREA) * ratio
        if backward is not None:
            backward = cv2.resize(backward, size, interpolation=cv2.INTER_AREA) * ratio
        if frames is not None:
            frames = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
    height, width = forward.shape[:2]
    u, v = np.ascontiguousarray(forward[..., 0]), np.ascontiguousarray(forward[..., 1])
    length = cv2.magnitude(u, v)
    x, y = _grid(height, width)
    end_x, end_y = x + u, y + v
    inside = (end_x >= 0) & (end_x < width) & (end_y >= 0) & (end_y < height)
    inconsistent = 0.0
    if backward is not None:
        inconsistent = _inconsistent_share(u, v, backward, end_x, end_y, inside, levels)
    border = _border(height, width)
    shift = float(np.median(u[border])), float(np.median(v[border]))
    camera_px = float(np.hypot(*shift))
    apart = cv2.magnitude(u - np.float32(shift[0]), v - np.float32(shift[1]))
    camera_share = float((apart < 0.5 * camera_px + 0.1).mean())
    errors: dict[str, float] = {}
    num_moving = 0
    difference = brightness = contrast = 0.0
    structure = 1.0
    if frames is not None:
        first, second = (
            cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32)
            for frame in frames
        )
        points = np.flatnonzero((length > max(_MOVING_PX, 2 * levels)) & inside)
        num_moving = points.size
        if num_moving:
            points = points[:: -(-num_moving // _MAX_POINTS)]
            errors = {
                name: error * num_moving
                for name, error in _warp_errors(first, second, u, v, backward, points).items()
            }
        small = [cv2.resize(f, (32, 24), interpolation=cv2.INTER_AREA) for f in (first, second)]
        difference = float(np.abs(second - first).mean())
        structure = _correlation(small[0], small[1])
        brightness = float(first.mean())
        low, high = np.percentile(first[::2, ::2], (2, 98))
        contrast = float(high - low)
    return PairMeasures(
        pair=pair,
        num_pixels=height * width,
        num_moving=num_moving,
        errors=errors,
        inconsistent=inconsistent,
        mean_px=float(length.mean()) / scale,
        median_px=float(np.median(length)) / scale,
        camera_px=camera_px / scale,
        camera_share=camera_share,
        is_blank=is_blank,
        difference=difference,
        structure=structure,
        brightness=brightness,
        contrast=contrast,
    )


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[Plane, Plane]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


@functools.lru_cache(maxsize=4)
def _border(height: int, width: int) -> NDArray[np.bool_]:
    mask = np.ones((height, width), bool)
    mask[height // 8 : -(height // 8) or None, width // 8 : -(width // 8) or None] = False
    return mask


def _warp_errors(
    first: Plane,
    second: Plane,
    u: Plane,
    v: Plane,
    backward: NDArray[np.float32] | None,
    points: NDArray[np.intp],
) -> dict[str, float]:
    """Returns the mean error at `points`, places in the flat planes, by what the field is taken
    for."""
    x, y = (plane.reshape(-1)[points] for plane in _grid(*first.shape))
    ours = first.reshape(-1)[points]
    ends = {
        name: change(u.reshape(-1)[points], v.reshape(-1)[points])
        for name, change in _CANDIDATES.items()
    }
    if backward is not None:
        taken = backward.reshape(-1, 2)[points]
        ends["exchanged"] = (taken[:, 0], taken[:, 1])
    return {
        name: float(np.abs(_look_up(second, x + dx, y + dy) - ours).mean())
        for name, (dx, dy) in ends.items()
    }


def _look_up(image: NDArray[np.float32], x: Plane, y: Plane) -> Plane:
    """Returns a picture at points between its pixels; outside, its border."""
    maps = np.atleast_2d(x), np.atleast_2d(y)
    found = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(*x.shape, *image.shape[2:])


def _inconsistent_share(
    u: Plane,
    v: Plane,
    backward: NDArray[np.float32],
    end_x: Plane,
    end_y: Plane,
    inside: NDArray[np.bool_],
    level_px: float,
) -> float:
    there = _look_up(backward, end_x, end_y)
    there_u, there_v = there[..., 0], there[..., 1]
    gap = (u + there_u) ** 2 + (v + there_v) ** 2
    # Sundaram, Brox and Keutzer, "Dense point trajectories by GPU-accelerated large displacement
    # optical flow", ECCV 2010, equation 5; two levels of quantising are forgiven on top.
    allowed = u * u + v * v + there_u * there_u + there_v * there_v
    allowed = 0.01 * allowed + (0.5 + (2 * level_px) ** 2)
    num_inside = int(inside.sum())
    return float(((gap > allowed) & inside).sum() / num_inside) if num_inside else 1.0


def plateau(flow: NDArray[np.float32], spec: FlowSpec) -> tuple[float, float]:
    """Returns the share of the moving components at their greatest value, and that value in px.

    `flow` is one field as stored, (H, W, 2) px.

    The share is 0 where there is no cliff: a level with half as many again as the one below it, and
    next to nothing above it. All of them on it is a rigid motion rather than a bound.
    """
    lengths, level_px = np.abs(flow), spec.px_per_level
    parts = lengths[lengths > max(_MOVING_PX, 3 * level_px)]
    # Of fewer, the greatest say nothing.
    if parts.size < 0.005 * lengths.size:
        return 0.0, float(lengths.max())
    counts = np.bincount(np.rint(parts / level_px - 0.5).astype(np.int64), minlength=3) / parts.size
    top = int(np.searchsorted(np.cumsum(counts), 0.99))
    top = max(range(max(1, top - 1), min(top + 2, counts.size)), key=lambda n: counts[n])
    on_it, above, below = counts[top], counts[top + 1 :].sum(), counts[top - 1]
    is_cliff = above < 0.1 * on_it and below < on_it / 1.5 and on_it < 0.97
    # Below ten levels a steady motion is all on one level, too.
    is_high = top >= 10
    return float(on_it) if is_cliff and is_high else 0.0, (top + 0.5) * level_px


def _correlation(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    a, b = a - a.mean(), b - b.mean()
    # A level of noise in each, so that two blank pictures are alike.
    power = float(np.sqrt(((a**2).mean() + 1) * ((b**2).mean() + 1)))
    return float((a * b).mean() + 1) / power


@dataclass(frozen=True)
class VideoSample:
    """What the pixels of one video say: a few fields at equal distances, and suspicious ones."""

    pairs: tuple[PairMeasures, ...]
    """At equal distances."""
    probes: tuple[PairMeasures, ...]
    """Where the sizes of the JPEGs promise something, with their neighbours."""
    num_pixels: int
    """Of a field, as measured."""
    has_frames: bool
    has_backward: bool
    width: int
    plateaus: tuple[tuple[int, float, float], ...] = ()
    """Of the fields with the largest JPEGs: index, and what `plateau` says."""
    run: tuple[float, ...] = ()
    """By how many levels neighbouring frames differ where the most moves."""
    run_start: int = 0
    """The first of these frames."""
    copies: tuple[tuple[int, float], ...] = ()
    """Frames that may be copies of the one before, and by how many levels they differ from it."""
    picture: NDArray[np.float32] | None = None
    """The mean frame, small: `PICTURE_SHAPE`; None without RGB."""
    motion: NDArray[np.float32] | None = None
    """The mean flow on a coarse grid, by the mean length: `MOTION_SHAPE`."""


PICTURE_SHAPE = (24, 32, 3)
MOTION_SHAPE = (4, 4, 2)

_REPEATED_SHARE = 0.04
_JUMP = 1.3
"""A field at a cut has a JPEG so many times as large as its neighbours' median, or larger."""


def suspicious_pairs(statistics: VideoStatistics, step: int) -> list[int]:
    """Returns fields worth a look, told by the sizes of the JPEGs: the two likeliest cuts.

    Each comes with the fields before and after it.
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
    """Returns how many times its neighbours' median each field's size is, (N,)."""
    reach = 4 * step
    padded = np.pad(sizes, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    others = np.delete(windows, np.arange(reach - step + 1, reach + step), axis=1)
    with np.errstate(all="ignore"):
        # No numpy.nanmedian: it warns where a window holds nothing else, as in a video of one pair.
        ordered = np.sort(others, axis=1)  # NaN last
        known = np.isfinite(ordered).sum(axis=1)
        middle = ordered[np.arange(len(ordered)), np.maximum(known - 1, 0) // 2]
    return np.asarray(np.where(known > 0, sizes / np.where(known > 0, middle, 1), 1.0))


# ---- one video


def find_in_statistics(
    statistics: VideoStatistics, clipped_share: float = CLIPPED_SHARE
) -> list[Finding]:
    """Returns what the statistics alone say of a video."""
    checks = (find_invalid, find_partial, find_short)
    found = [finding for check in checks if (finding := check(statistics))]
    if clipped := find_clipped(statistics, clipped_share):
        found.append(clipped)
    return found + find_notes(statistics)


def find_invalid(statistics: VideoStatistics) -> Finding | None:
    """Any NaN or infinity at all: no estimator should give one."""
    if not statistics.num_invalid:
        return None
    share = statistics.num_invalid / max(1, statistics.num_values)
    return Finding(
        "invalid", statistics.key, f"{statistics.num_invalid} components, {_percent(share)}"
    )


def find_partial(statistics: VideoStatistics) -> Finding | None:
    """What extract itself knows to be incomplete."""
    if not statistics.is_partial:
        return None
    detail = f"{statistics.num_decoded} frames before the damage"
    return Finding("partial", statistics.key, f"{detail}: {statistics.damage}".rstrip(": "))


def find_notes(statistics: VideoStatistics) -> list[Finding]:
    """What extract itself noted, concealed damage apart."""
    key = statistics.key
    found = [
        Finding("noted", key, f"{VIDEO_NOTES.get(code, code)}: {text}")
        for code, text in statistics.notes.items()
        if code != "concealed"
    ]
    if statistics.num_damaged:
        found.append(Finding("concealed", key, f"{statistics.num_damaged} damaged pictures"))
    return found


def find_short(statistics: VideoStatistics) -> Finding | None:
    """Fewer than 85 % of the frames promised, and 5 at least; the 44 real clips lack 1 at most."""
    expected, got = statistics.num_expected, statistics.num_decoded
    if statistics.is_partial or expected is None or got > 0.85 * expected or expected - got < 5:
        return None
    return Finding("short", statistics.key, f"{got} of {expected} frames")


def find_clipped(
    statistics: VideoStatistics, clipped_share: float = CLIPPED_SHARE
) -> Finding | None:
    """More than 5 % of all components beyond the bound, or 10 % of those of moving vectors and
    0.1 % of all; in the 44 real clips 0.4 % and 0.5 % at most."""
    share = statistics.clipped_share
    of_moving = share / max(statistics.moving_share, 1e-9)
    is_clipped = share > _CLIPPED_IN_VIDEO or (of_moving > 0.10 and share > 0.001)
    if not is_clipped or share <= 0.1 * clipped_share:
        return None
    return Finding(
        "clipped",
        statistics.key,
        f"{_percent(share)} of the components are beyond the bound, {_percent(min(1, of_moving))} "
        f"of those that move; the longest is {statistics.max_px:.1f} px",
    )


def find_in_sample(statistics: VideoStatistics, sample: VideoSample) -> list[Finding]:
    """Returns what the sampled pixels say of a video; a cause hides what follows from it."""
    if finding := find_blank(statistics, sample):
        return [finding]
    found = []
    # A field of the wrong direction does not come back to itself either.
    if finding := find_wrong_direction(statistics, sample) or find_breakdown(statistics, sample):
        found.append(finding)
    for check in (find_duplicates, find_cut, find_plateau, find_camera):
        if finding := check(statistics, sample):
            found.append(finding)
    return found


def find_blank(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Black or one colour: 9 of 10 sampled frames with a range under 12 levels and a mean under
    24, or a range under 3. Zero flow or still: 9 of 10 fields zero to within a level, and frames
    that differ, or not, by half a level; in the 44 real clips they differ by 0.6 or more."""
    pairs = sample.pairs
    if sample.has_frames:
        dark = [p for p in pairs if p.contrast < 3 or (p.contrast < 12 and p.brightness < 24)]
        if len(dark) >= 0.9 * len(pairs):
            level = float(np.mean([p.brightness for p in dark]))
            return Finding("black", statistics.key, f"mean level {level:.0f} of 255", pairs[0].pair)
    if min(statistics.flat.mean(), np.mean([p.is_blank for p in pairs])) < 0.9:
        return None
    number = int(statistics.flat.sum())
    detail = f"{number} of {statistics.num_flows} fields are blank"
    if not sample.has_frames:
        return Finding("zero-flow", statistics.key, f"{detail}; there are no frames to compare")
    most = max(pairs, key=lambda p: p.difference)
    if most.difference > 0.5:
        detail += f"; the frames differ by {most.difference:.1f} levels"
        return Finding("zero-flow", statistics.key, detail, most.pair)
    return Finding("still", statistics.key, detail, most.pair)


def find_wrong_direction(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Photometric test: what else the field could be explains the frames far better.

    An error of at most 0.75 of the stored flow's and 0.9 of no flow's, over the moving pixels of
    all sampled fields, which must be 0.4 % of all. In the 44 real clips the best alternative has
    1.7 times the stored flow's error; the same clips with x and y exchanged, backwards or mirrored
    fall under 0.6.
    """
    moving = sum(p.num_moving for p in sample.pairs)
    if moving < 0.004 * sample.num_pixels * len(sample.pairs):
        return None
    sums: dict[str, float] = {}
    for pair in sample.pairs:
        for name, error in pair.errors.items():
            sums[name] = sums.get(name, 0.0) + error
    stored, zero = sums.pop("stored"), sums.pop("zero")
    # The opposite and the other direction's field stand for the same fault.
    best = min(sums, key=lambda name: sums[name])
    if sums[best] > 0.75 * stored or sums[best] > 0.9 * zero:
        return None
    if sums["reversed"] < 1.15 * sums[best]:
        best = "reversed" if best != "swapped" else best
    kind = {"exchanged": "reversed", "mirrored-x": "mirrored", "mirrored-y": "mirrored"}
    words = {
        "swapped": "x and y exchanged",
        "reversed": "its opposite",
        "exchanged": "the backward flow in its place",
        "mirrored-x": "the sign of x changed",
        "mirrored-y": "the sign of y changed",
    }[best]
    worst = max(sample.pairs, key=lambda p: p.errors.get("stored", 0.0))
    return Finding(
        kind.get(best, best),
        statistics.key,
        f"error {stored / moving:.1f} levels as stored, {sums[best] / moving:.1f} with {words}, "
        f"{zero / moving:.1f} without any flow",
        worst.pair,
    )


def find_breakdown(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Half of the fields explain the frames no better than none, and disagree with the backward
    flow in half of the picture; 'blown-up' where they are longer than 3 % of the width, too.

    In the 44 real clips the flow as stored has at most 0.6 of the error of no flow where a fiftieth
    of the picture moves, and at most 0.3 of the picture is inconsistent in most fields.
    """
    bad = []
    for pair in sample.pairs:
        if pair.num_moving < 0.02 * sample.num_pixels:
            continue
        if sample.has_frames and pair.errors["stored"] < 0.9 * pair.errors["zero"]:
            continue
        if sample.has_backward and pair.inconsistent < 0.5:
            continue
        bad.append(pair)
    # Two witnesses: one of them alone is weak.
    if not (sample.has_frames and sample.has_backward) or 2 * len(bad) < len(sample.pairs):
        return None
    worst = max(bad, key=lambda p: p.mean_px)
    mean_px = float(np.median([p.mean_px for p in bad]))
    share = float(np.median([p.inconsistent for p in bad]))
    kind = "blown-up" if mean_px > 0.03 * sample.width else "inconsistent"
    return Finding(
        kind,
        statistics.key,
        f"mean {mean_px:.1f} px; {_percent(share)} of the picture does not come back to itself",
        worst.pair,
    )


def find_duplicates(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Frames that are copies of the one before: one in six of a run, or 4 % of all.

    In a run of 16 frames where the most moves, a copy differs from the one before by less than a
    quarter of what its neighbours differ by; three of them are needed. In all of a video, those
    with a JPEG of the same size are counted, by as many as differ by less than 0.3 levels among
    those that were looked at. Without frames, blank fields are. Of the 44 real clips six are told,
    and rightly: these clips of UCF101 have every second to every fifth frame twice, a difference of
    0.1 to 1.6 levels between ones of 4 to 29; all others have two such dips at most.
    """
    if sample.has_frames:
        dips = repeats(np.array(sample.run))
        if len(dips) >= max(3, len(sample.run) / 6):
            copies, others = np.array(sample.run)[dips], np.delete(sample.run, dips)
            first = sample.run_start + dips[0]
            return Finding(
                "duplicates",
                statistics.key,
                f"{len(dips)} of {len(sample.run)} frames from {sample.run_start + 1} on repeat "
                f"the one before: they differ by {np.median(copies):.1f} levels, the others by "
                f"{np.median(others):.1f}",
                min(first, statistics.num_flows - 1),
            )
        if not sample.copies:
            return None
        same = [index for index, difference in sample.copies if difference < 0.3]
        number = round(int(statistics.repeated.sum()) * len(same) / len(sample.copies))
        total, what, where = statistics.repeated.size, "frames repeat the one before", same
    else:
        number, total = int(statistics.flat.sum()), statistics.num_flows
        what, where = "fields are blank", np.flatnonzero(statistics.flat).tolist()
    if number < max(3, _REPEATED_SHARE * total):
        return None
    pair = min(max(0, where[0] - 1), statistics.num_flows - 1)
    return Finding("duplicates", statistics.key, f"{number} of {total} {what}", pair)


def repeats(differences: NDArray[np.float64]) -> list[int]:
    """Returns which differences of neighbouring frames, (N,) levels, are dips between others."""
    dips = []
    for t in range(1, differences.size - 1):
        before, after = differences[max(0, t - 2) : t].max(), differences[t + 1 : t + 3].max()
        if min(before, after) > max(1.0, 4 * differences[t]):
            dips.append(t)
    return dips


def busiest_run(statistics: VideoStatistics, num_frames: int) -> tuple[int, int]:
    """Returns the first frame and the length of the run of 16 frames with the largest fields."""
    length = min(16, num_frames)
    window = np.ones(min(length, statistics.num_flows))
    start = int(np.convolve(statistics.flow_bytes, window, "valid").argmax())
    return min(start, num_frames - length), length


def suspected_copies(statistics: VideoStatistics) -> list[int]:
    """Returns up to five frames to compare with the one before; none where copies are few."""
    places = np.flatnonzero(statistics.repeated)
    if places.size < max(3, _REPEATED_SHARE * statistics.repeated.size):
        return []
    chosen = np.unique(np.linspace(0, places.size - 1, 5).astype(int))
    return [int(place) for place in places[chosen]]


def find_cut(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Two frames of unlike structure between frames of like structure, which no flow explains.

    Correlation of the small pictures under 0.5, and 0.25 below that of both neighbours; the warped
    frame keeps half of the difference. In the 44 real clips no correlation is under 0.76.
    """
    if not sample.has_frames:
        return None
    seen = {p.pair: p for p in (*sample.pairs, *sample.probes)}
    order = sorted(seen)
    candidates = [
        seen[t]
        for t in order
        if seen[t].structure < 0.5 and statistics.num_flows > 2 and not seen[t].is_blank
    ]
    for pair in sorted(candidates, key=lambda p: p.structure):
        place = order.index(pair.pair)
        near = [seen[order[i]] for i in (place - 1, place + 1) if 0 <= i < len(order)]
        if min(p.structure for p in near) < pair.structure + 0.25:
            continue
        if pair.errors and pair.errors["stored"] < 0.5 * pair.errors["zero"]:
            continue
        return Finding(
            "cut",
            statistics.key,
            f"between frames {pair.pair} and {pair.pair + 1}: likeness {pair.structure:.2f}",
            pair.pair,
        )
    return None


def find_plateau(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """A tenth of the moving components on the greatest level of all, in three of the eight largest
    fields at least and in half of those that reach it.

    None of the 44 real clips has it. Cut off at 2 px, 14 of the 24 of UCF101 have it with TV-L1 at
    240 px, and 34 of all 44 with Farneback at 96 px; the others hardly reach 2 px.
    """
    if find_clipped(statistics):
        return None  # said already
    top = max((top for _, _, top in sample.plateaus), default=0.0)
    reaching = [item for item in sample.plateaus if item[2] > 0.999 * top]
    on_it = [item for item in reaching if item[1] > 0.10]
    if len(on_it) < 3 or 2 * len(on_it) < len(reaching):
        return None
    share = float(np.median([share for _, share, _ in on_it]))
    return Finding(
        "clipped",
        statistics.key,
        f"{_percent(share)} of the moving components are at {top:.1f} px, and none beyond",
        on_it[0][0],
    )


def fullest_fields(statistics: VideoStatistics) -> list[int]:
    """Returns the eight fields with the largest JPEGs: there is the most motion."""
    return sorted(np.argsort(-statistics.flow_bytes, kind="stable")[:8].tolist())


def find_camera(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """The border moves by 0.4 % of the width, and half of the picture with it, in most fields."""
    moving = [
        p for p in sample.pairs if p.camera_px > 0.004 * sample.width and p.camera_share > 0.5
    ]
    if 2 * len(moving) <= len(sample.pairs):
        return None
    shift = float(np.median([p.camera_px for p in moving]))
    share = float(np.median([p.camera_share for p in moving]))
    return Finding(
        "camera",
        statistics.key,
        f"{shift:.1f} px a step, {_percent(share)} of the picture",
        max(moving, key=lambda p: p.camera_px).pair,
    )


# ---- many videos


def find_upside_down(pictures: Mapping[str, NDArray[np.float32]]) -> list[Finding]:
    """Returns the videos that, turned by 180 degrees, look like several others that agree.

    `pictures` are mean frames by key, PICTURE_SHAPE each. One is told where at least two others
    have a correlation over 0.8 with it turned and 0.7 with each other, and none has as much as 0.6
    with it as it is. So it needs scenes that come again, as from a fixed camera or in the groups of
    UCF101.
    """
    keys = list(pictures)
    if len(keys) < 3:
        return []
    stack = np.stack([pictures[key] for key in keys])
    upright = _normalised(stack)
    likeness = upright @ upright.T
    turned = _normalised(stack[:, ::-1, ::-1]) @ upright.T
    np.fill_diagonal(likeness, -1)
    np.fill_diagonal(turned, -1)
    found = []
    for number, key in enumerate(keys):
        twins = np.flatnonzero(turned[number] > 0.8)
        if twins.size < 2 or likeness[number].max() >= 0.6:
            continue
        among = likeness[np.ix_(twins, twins)][~np.eye(twins.size, dtype=bool)]
        if among.mean() > 0.7:
            best = int(twins[np.argmax(turned[number, twins])])
            detail = f"turned, it looks like {twins.size} others, most like {keys[best]}"
            found.append(Finding("upside-down", key, detail, 0))
    return found


def find_wrong_labels(
    motions: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, int],
    class_names: Sequence[str] = (),
) -> list[Finding]:
    """Returns the videos that move like another class, where motion tells the classes apart.

    `motions` are mean fields by key, MOTION_SHAPE each. Each video is compared with the means of
    the classes, its own without itself. Nothing is said unless four of five videos are nearest to
    their own class; then those are told that are twice as far from their own as from another, to
    which they are as near as its own videos are. Needs five videos of a class.
    """
    keys = [key for key in motions if key in labels]
    if not keys:
        return []
    names, places, counts = np.unique(
        [labels[key] for key in keys], return_inverse=True, return_counts=True
    )
    use = counts[places] >= 8
    if len(names[counts >= 8]) < 2:
        return []
    kept = np.flatnonzero(counts >= 8)
    keys = [key for key, wanted in zip(keys, use, strict=True) if wanted]
    places = np.searchsorted(kept, places[use])
    counts = counts[kept]
    points = np.stack([motions[key].reshape(-1) for key in keys]).astype(np.float64)
    sums = np.zeros((len(kept), points.shape[1]))
    np.add.at(sums, places, points)
    means = sums / counts[:, None]
    rows = np.arange(len(keys))
    apart = np.sqrt(((points[:, None] - means) ** 2).sum(-1))
    own_mean = (sums[places] - points) / (counts[places] - 1)[:, None]
    own = np.sqrt(((points - own_mean) ** 2).sum(-1))
    apart[rows, places] = np.inf
    nearest = apart.argmin(axis=1)
    other = apart[rows, nearest]
    if (own < other).mean() < 0.9:
        return []
    spread = np.array([np.median(own[places == place]) for place in range(len(kept))])
    told = (own > 2 * other) & (other < 1.5 * spread[nearest]) & (own > 2 * spread[places])
    found = []
    for row in np.flatnonzero(told).tolist():
        label = int(names[kept[nearest[row]]])
        name = class_names[label] if label < len(class_names) else f"class {label}"
        detail = f"{own[row] / other[row]:.1f} times as far from its own class as from {name}"
        found.append(Finding("wrong-label", keys[row], detail))
    return found


def _normalised(pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns pictures (N, ...) as (N, D) vectors of mean 0 and length 1; blank ones as 0."""
    flat = pictures.reshape(len(pictures), -1, 3).astype(np.float64)
    flat = (flat - flat.mean(axis=1, keepdims=True)).reshape(len(pictures), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # Under 4 levels of variation a picture is noise.
    return np.where(length > 4 * np.sqrt(flat.shape[1]), flat / np.maximum(length, 1e-9), 0)


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1 if share >= 0.001 else 3}f}\u00a0%"
