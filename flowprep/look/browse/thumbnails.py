"""Small pictures of videos for the list of `flowprep browse`: made on request, the last ones kept.

A picture shows the middle of the video: its frame, or its flow in colors if there are no frames.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import cv2

from flowprep.dataset.layout import RGB_STREAM, stream_names
from flowprep.dataset.read import FlowDataset
from flowprep.errors import DatasetError
from flowprep.look.color import flow_to_color
from flowprep.look.render import RGB, fit
from flowprep.look.sources import StoredFlow

__all__ = ["HEIGHT_PX", "MOST_BYTES", "WIDTH_PX", "Thumbnails"]

WIDTH_PX, HEIGHT_PX = 112, 64
"""Twice the size in the page, for screens of high density."""
MOST_BYTES = 24 << 20
"""Most bytes of pictures that are kept: about 10,000 of them."""
_QUALITY = 80


class Thumbnails:
    """The pictures of one data set. Threads may share it."""

    def __init__(self, dataset: FlowDataset, most_bytes: int = MOST_BYTES) -> None:
        self._dataset = dataset
        self._has_frames = RGB_STREAM in stream_names(dataset.config.encode)
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0
        """Bytes of the pictures that are kept now."""

    def get(self, key: str) -> bytes:
        """Returns the picture of a video as JPEG. Raises as reading the video does."""
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
        picture = _jpeg(self._draw(key))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self.num_bytes += len(picture)
            while self.num_bytes > self._most_bytes:
                self.num_bytes -= len(self._kept.popitem(last=False)[1])
        return picture

    def _draw(self, key: str) -> RGB:
        video = self._dataset.videos[key]
        image: RGB
        if self._has_frames:
            image = self._dataset.frames(key, [video.num_frames // 2])[0]
        else:
            direction = self._dataset.config.encode.directions[0]
            middle = video.num_flows // 2
            (flow,) = self._dataset.flow(key, middle, 1, direction)
            image = flow_to_color(flow, StoredFlow(self._dataset, key).suggest_scale(direction))
        scale = min(WIDTH_PX / image.shape[1], HEIGHT_PX / image.shape[0])
        size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
        return fit(image, (size[0], size[1]))


def _jpeg(image: RGB) -> bytes:
    is_written, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not is_written:
        height, width = image.shape[:2]
        raise DatasetError(
            f"a picture of {width}x{height} px cannot be written as JPEG; open the video instead"
        )
    return data.tobytes()
