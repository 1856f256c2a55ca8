"""When each frame of a video is shown, without decoding it."""

from __future__ import annotations

import itertools
import os

import numpy as np
from numpy.typing import NDArray

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.urls import is_url
from flowprep.video.decode import open_video

__all__ = ["read_frame_times"]


def read_frame_times(video: Video, spec: DecodeSpec, num_frames: int) -> NDArray[np.float64] | None:
    """Returns the time stamps of a video's frames in seconds, (num_frames,), or None.

    Times begin at the first frame of the range that `video` names. None means that the stamps say
    no more than the frame rate: frames are sampled at a fixed rate (`spec.fps`) or are images. It
    also means that they cannot be trusted: the video is damaged, its time stamps are not in order,
    or it does not have `num_frames` frames. A video of a URL gives None too, as it would have to be
    fetched again.
    """
    if spec.fps is not None or is_url(video.source) or os.path.isdir(video.source):
        return None
    try:
        with open_video(video, spec) as reader:
            scan = reader.scan(lambda: None)
            pictures = (
                reader.scanned_picture(scan.times[number], scan.durations[number], number)
                for number in range(scan.first_number, len(scan.times))
            )
            times = [picture.time for picture in reader.cut_range(pictures)]
    except VideoError:
        return None
    if len(times) != num_frames or any(b <= a for a, b in itertools.pairwise(times)):
        return None
    return np.array([float(time - times[0]) for time in times])
