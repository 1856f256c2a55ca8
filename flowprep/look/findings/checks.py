"""Checks one video by its statistics and a few of its fields.

find_in_statistics, find_in_sample   all checks of the stored statistics, and of the sampled pixels
find_...                             one check each: returns a Finding, or None

Thresholds that mention "44 real clips" were measured on 24 clips of UCF101 and 20 of sign language,
with TV-L1 and Farneback. The faults were made from the same clips.
"""

from __future__ import annotations

import numpy as np

from flowprep.errors import VIDEO_NOTES
from flowprep.look.findings.kinds import Finding
from flowprep.look.findings.measures import VideoSample, repeats
from flowprep.look.findings.statistics import REPEATED_SHARE, VideoStatistics

__all__ = ["CLIPPED_SHARE", "find_in_sample", "find_in_statistics"]

CLIPPED_SHARE = 0.01
"""Default for the share of components that may exceed the bound."""
_CLIPPED_IN_VIDEO = 0.05
"""The same share for a single video, because some videos are faster than the rest."""


# ---- what extract stored


# ---- one field and its two frames


# ---- one video


def find_in_statistics(
    statistics: VideoStatistics, clipped_share: float = CLIPPED_SHARE
) -> list[Finding]:
    """Returns the findings about a video that follow from its statistics alone."""
    checks = (find_invalid, find_partial, find_short)
    found = [finding for check in checks if (finding := check(statistics))]
    if clipped := find_clipped(statistics, clipped_share):
        found.append(clipped)
    return found + find_notes(statistics)


def find_invalid(statistics: VideoStatistics) -> Finding | None:
    """Finds any NaN or infinity, because no estimator should give one."""
    if not statistics.num_invalid:
        return None
    share = statistics.num_invalid / max(1, statistics.num_values)
    return Finding(
        "invalid", statistics.key, f"{statistics.num_invalid} components, {_percent(share)}"
    )


def find_partial(statistics: VideoStatistics) -> Finding | None:
    """Finds a video that extract itself knows to be incomplete."""
    if not statistics.is_partial:
        return None
    detail = f"{statistics.num_decoded} frames before the damage"
    return Finding("partial", statistics.key, f"{detail}: {statistics.damage}".rstrip(": "))


def find_notes(statistics: VideoStatistics) -> list[Finding]:
    """Returns the notes of extract itself. Concealed damage is a finding of its own."""
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
    """Finds less than 85 % of the promised frames, with at least 5 missing.

    The 44 real clips lack at most 1 frame.
    """
    expected, got = statistics.num_expected, statistics.num_decoded
    if statistics.is_partial or expected is None or got > 0.85 * expected or expected - got < 5:
        return None
    return Finding("short", statistics.key, f"{got} of {expected} frames")


def find_clipped(
    statistics: VideoStatistics, clipped_share: float = CLIPPED_SHARE
) -> Finding | None:
    """Finds more than 5 % of all components beyond the bound, or 10 % of those of moving vectors
    and 0.1 % of all. The 44 real clips have at most 0.4 % and 0.5 %."""
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
    """Returns the findings about the sampled pixels of a video. A cause hides its consequences."""
    if finding := find_blank(statistics, sample):
        return [finding]
    found = []
    # A field of the wrong direction also disagrees with the backward flow.
    if finding := find_wrong_direction(statistics, sample) or find_breakdown(statistics, sample):
        found.append(finding)
    for check in (find_duplicates, find_cut, find_plateau, find_camera):
        if finding := check(statistics, sample):
            found.append(finding)
    return found


def find_blank(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Finds black or one color, zero flow, or a still picture.

    Black or one color: 9 of 10 sampled frames have a range under 12 levels and a mean under 24, or
    a range under 3. Zero flow or still: 9 of 10 fields are zero to within a level. It is zero flow
    if the frames differ by half a level, and still otherwise. In the 44 real clips frames differ by
    0.6 levels or more.
    """
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
    """Photometric test: finds that an altered field explains the frames far better.

    The error of the altered field must be at most 0.75 of the stored flow's error, and 0.9 of the
    error of no flow. Errors are summed over the moving pixels of all sampled fields, which must be
    0.4 % of all pixels. In the 44 real clips the best alternative has 1.7 times the error of the
    stored flow. If x and y are exchanged, or the same clips run backwards or are mirrored, it has
    less than 0.6 times that error.
    """
    moving = sum(p.num_moving for p in sample.pairs)
    if moving < 0.004 * sample.num_pixels * len(sample.pairs):
        return None
    sums: dict[str, float] = {}
    for pair in sample.pairs:
        for name, error in pair.errors.items():
            sums[name] = sums.get(name, 0.0) + error
    stored, zero = sums.pop("stored"), sums.pop("zero")
    # The opposite field and the field of the other direction mean the same fault.
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
    """Finds flow that is no better than no flow, and disagrees with the backward flow.

    Half of the fields must explain the frames no better than no flow, and disagree with the
    backward flow in half of the picture. The finding is 'blown-up' if these fields are also longer
    than 3 % of the width. In the 44 real clips the stored flow has at most 0.6 of the error of no
    flow if a fiftieth of the picture moves, and at most 0.3 of the picture is inconsistent in most
    fields.
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
    # The check needs both frames and backward flow, because one of them alone is weak evidence.
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
    """Finds frames that are copies of the frame before: one in six of a run, or 4 % of all frames.

    The run is the 16 frames with the most motion. There, a copy differs from the frame before by
    less than a quarter of its neighbors' differences, and three copies are needed. In the whole
    video, frames with a JPEG of the same size are suspected. Some of them are compared. The share
    that differs by less than 0.3 levels gives the number of copies. Without frames, blank fields
    are counted. Six of the 44 real clips are reported, and rightly. These clips of UCF101 repeat
    every second to every fifth frame: a difference of 0.1 to 1.6 levels lies between differences
    of 4 to 29. All other clips have at most two such dips.
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
    if number < max(3, REPEATED_SHARE * total):
        return None
    pair = min(max(0, where[0] - 1), statistics.num_flows - 1)
    return Finding("duplicates", statistics.key, f"{number} of {total} {what}", pair)


def find_cut(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Finds two frames of different structure between similar frames, which no flow explains.

    The correlation of the small pictures must be under 0.5, and 0.25 below that of both neighbors.
    The warped frame must keep half of the difference. In the 44 real clips no correlation is under
    0.76.
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
    """Finds a tenth of the moving components on the greatest level of all.

    This must be so in at least three of the eight largest fields, and in half of the fields that
    reach this level. None of the 44 real clips is reported. If flow is cut off at 2 px, 14 of the
    24 clips of UCF101 are reported with TV-L1 at 240 px, and 34 of all 44 clips with Farneback at
    96 px. The other clips hardly reach 2 px.
    """
    if find_clipped(statistics):
        return None  # already reported
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


def find_camera(statistics: VideoStatistics, sample: VideoSample) -> Finding | None:
    """Finds a border that moves by 0.4 % of the width, with half of the picture, in most fields."""
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


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1 if share >= 0.001 else 3}f}\u00a0%"
