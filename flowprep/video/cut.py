"""Cuts a long video into segments, so that each has the same frames as an uncut read.

plan_cut(reader, ...) -> VideoCut -> Segment, Segment, ...                   segments.py
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator

import msgspec

from flowprep.errors import VideoError
from flowprep.video.clock import JUMP_SECONDS
from flowprep.video.reader import FrameReader, Picture
from flowprep.video.segments import PictureCheck, Segment, VideoCut

__all__ = ["count_segments", "is_long", "plan_cut"]

# Decoding begins this many key frames before a segment's first picture: 2, or the next number if
# decoding does not pass that key frame. The nearest key frame is never used. In an open group,
# pictures after the key frame in the file may be shown before it and lack their references. And an
# encoder that refreshes its picture bit by bit has a sound picture only a while after a key frame.
_KEY_FRAMES_BACK = (2, 3, 5, 9)


def count_segments(num_flows: float, segment_frames: int) -> int:
    """Returns the number of segments of a video with `num_flows` flows. 1 means it stays whole.

    A segment has at most `segment_frames` flows. 0 leaves every video whole.
    """
    if not 0 < 2 * segment_frames < num_flows:
        return 1
    return math.ceil(num_flows / segment_frames)


def is_long(reader: FrameReader, segment_frames: int) -> bool:
    """Whether a video may have more frames than two segments, judged by its header.

    If the header says nothing, the answer is yes.
    """
    estimate = reader.estimate_num_frames()
    return estimate is None or count_segments(estimate, segment_frames) > 1


def plan_cut(
    reader: FrameReader, *, segment_frames: int, step: int, on_progress: Callable[[], None]
) -> VideoCut | None:
    """Returns the segments of a video, of at most `segment_frames` flows each, or None.

    None leaves the video uncut. Either it has at most the flows of two segments, or its frames are
    only known by reading it whole, because it is damaged or its clock is irregular. After this call
    `reader` gives no frames. `on_progress` is called for each picture.
    """
    try:
        scan = reader.scan(on_progress)
    except VideoError:
        # Reading the video uncut says what is wrong, and keeps as much as possible.
        return None
    if any(not 0 < b - a <= JUMP_SECONDS for a, b in itertools.pairwise(scan.times)):
        return None
    num_read = 0

    def pictures() -> Iterator[Picture]:
        nonlocal num_read
        for number in range(scan.first_number, len(scan.times)):
            num_read += 1
            yield reader.scanned_picture(scan.times[number], scan.durations[number], number)

    # The picture that each frame shows, computed by the same code that reading uses.
    in_range = list(reader.cut_range(pictures()))
    shown = [picture.number for picture in reader.sampled(iter(in_range))]
    num_flows = len(shown) - step
    num_segments = count_segments(num_flows, segment_frames)
    if num_segments == 1:
        return None
    bounds = [num_flows * number // num_segments for number in range(num_segments + 1)]
    offset = in_range[0].number
    segments = []
    for start, stop in itertools.pairwise(bounds):
        is_last = stop == num_flows
        first = shown[start]
        end = in_range[-1].number + 1 if is_last else shown[stop + step - 1] + 1
        check = PictureCheck()
        # If several pictures are on the first tick, sampling shows the last of them.
        begin = first if start else offset
        for picture in in_range[begin - offset : end - offset]:
            check.add(picture.time)
        if is_last:
            check.add(in_range[-1].duration)
        num_skipped = 0
        while num_skipped < start and shown[start - num_skipped - 1] == first:
            num_skipped += 1
        place = bisect_right(scan.keys, first)
        keys = [scan.keys[place - back] for back in _KEY_FRAMES_BACK if place >= back]
        segments.append(
            Segment(
                start=start,
                stop=stop,
                num_frames=stop - start + step,
                is_first=start == 0,
                is_last=is_last,
                first_picture=first,
                first_time=scan.times[first],
                num_skipped=num_skipped,
                seek_times=tuple(scan.times[key] for key in keys if key),
                digest=check.digest,
            )
        )
    reader.note_what_became_of_frames(len(shown))
    return VideoCut(
        tuple(segments), num_read, msgspec.structs.replace(reader.counts), dict(reader.notes)
    )
