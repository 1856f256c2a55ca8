"""The requests that the page of `flowprep browse` makes, and the answers to them.

    GET /                     the page; besides it only its scripts and styles are served
    GET /api/dataset          the properties of all videos: bound, quantizer, colors, classes
    GET /api/videos           all videos, in columns
    GET /api/survey           how far the search for findings is
    GET /api/statistics       the statistics and findings known so far, in columns
    GET /api/findings?key=    the findings about one video, in words
    GET /api/video?key=       one video, and where each of its JPEGs begins
    GET /thumbnail?key=       a small picture of a video, for the list
    GET /stream?key=&name=    one stream of a video, by byte ranges: one read from the shard each

No request takes a path. A key is looked up in the index, and a name among the streams. guard.py
decides who may ask, before a request is looked at here.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowprep._version import __version__
from flowprep.config import Direction
from flowprep.dataset.layout import RGB_STREAM, read_failures, stream_names
from flowprep.dataset.quantize import dequantize
from flowprep.dataset.read import FlowDataset
from flowprep.errors import DatasetError, FlowprepError, StorageError
from flowprep.inputs.keys import unescape_key
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.browse.guard import refusal
from flowprep.look.browse.thumbnails import Thumbnails
from flowprep.look.color import OUTSIDE, error_ramp, wheel_hues
from flowprep.look.findings.kinds import KINDS
from flowprep.look.findings.statistics import CameraSummary, describe_video
from flowprep.look.panels import CONSISTENCY_PX
from flowprep.look.report.survey import label_words
from flowprep.look.sources import StoredFlow
from flowprep.look.web.page import (
    SEVERITIES,
    findings_column,
    key_column,
    name_column,
    number_column,
    page_file,
    page_json,
)
from flowprep.storage import Storage

__all__ = ["MAX_RANGE_BYTES", "Pages", "Refused"]

MAX_RANGE_BYTES = 16 << 20
"""Most bytes of a stream in one answer. This limits the memory for a request."""

_MIN_GZIP_BYTES = 2048

_STATIC = {
    "/": ("browse/browse.html", "text/html"),
    "/page.css": ("web/page.css", "text/css"),
    "/browse.css": ("browse/browse.css", "text/css"),
    "/page.js": ("web/page.js", "text/javascript"),
    "/table.js": ("web/table.js", "text/javascript"),
    "/address.js": ("browse/address.js", "text/javascript"),
    "/arrows.js": ("browse/arrows.js", "text/javascript"),
    "/browse.js": ("browse/browse.js", "text/javascript"),
    "/colors.js": ("browse/colors.js", "text/javascript"),
    "/homography.js": ("browse/homography.js", "text/javascript"),
    "/controls.js": ("browse/controls.js", "text/javascript"),
    "/findings.js": ("browse/findings.js", "text/javascript"),
    "/keys.js": ("browse/keys.js", "text/javascript"),
    "/list.js": ("browse/list.js", "text/javascript"),
    "/player.js": ("browse/player.js", "text/javascript"),
    "/streams.js": ("browse/streams.js", "text/javascript"),
    "/thumbnails.js": ("browse/thumbnails.js", "text/javascript"),
    "/view.js": ("browse/view.js", "text/javascript"),
}

_log = logging.getLogger(__name__)


class Pages:
    """The endpoints of the server of one data set."""

    def __init__(self, dataset: FlowDataset, survey: BackgroundSurvey) -> None:
        self._dataset = dataset
        self._survey = survey
        self._thumbnails = Thumbnails(dataset)
        self._streams = stream_names(dataset.config.encode)
        self._describe = _encoded(self._dataset_values())
        self._videos = _encoded(self._video_columns())
        self._files = {
            path: (page_file(name).encode(), kind) for path, (name, kind) in _STATIC.items()
        }

    def routes(self) -> list[Route]:
        endpoints = {
            "/api/dataset": lambda request: _json(request, *self._describe),
            "/api/videos": lambda request: _json(request, *self._videos),
            "/api/survey": lambda request: _json(request, *_encoded(self._survey.progress())),
            "/api/statistics": lambda request: _json(request, *_encoded(self._survey.columns())),
            "/api/findings": self.findings,
            "/api/video": self.video,
            "/thumbnail": self.thumbnail,
            "/stream": self.stream,
        }
        routes = [Route(path, self.file, methods=["GET"]) for path in self._files]
        return routes + [Route(path, end, methods=["GET"]) for path, end in endpoints.items()]

    # The endpoints are plain functions, so that each runs in a thread, where reading may wait.

    def file(self, request: Request) -> Response:
        data, kind = self._files[request.url.path]
        return Response(data, media_type=kind)

    def findings(self, request: Request) -> Response:
        key = self._key(request)
        found = [
            {
                "kind": finding.kind,
                # The text of an error may name files of this machine.
                "detail": "" if finding.kind == "unreadable" else finding.detail,
                "pair": finding.pair,
            }
            for finding in self._survey.findings(key)
        ]
        return _json(request, *_encoded(found))

    def video(self, request: Request) -> Response:
        key = self._key(request)
        dataset = self._dataset
        video = dataset.videos[key]
        with _readable(key):
            flow, metadata = StoredFlow(dataset, key), dataset.metadata(key)
            statistics = describe_video(metadata, dataset.config)
            camera = CameraSummary.of(metadata.homographies or None, video.width, video.height)
            values = {
                "key": key,
                "name": _name(key),
                "label": label_words(dataset, video),
                "split": video.split,
                "num_frames": video.num_frames,
                "num_flows": video.num_flows,
                "width": video.width,
                "height": video.height,
                "fps": video.fps,
                "is_partial": video.is_partial,
                "mean_px": round(statistics.mean_px, 3),
                "max_px": round(statistics.max_px, 3),
                "clipped_share": statistics.clipped_share,
                "scale_px": {
                    one: flow.suggest_scale(one) for one in dataset.config.encode.directions
                },
                "homographies": metadata.homographies or None,
                "camera_px": None if camera is None else camera.corner_px,
                "camera_words": None if camera is None else camera.words(),
                "offsets": {name: dataset.offsets(key, name).tolist() for name in self._streams},
            }
        return _json(request, *_encoded(values))

    def thumbnail(self, request: Request) -> Response:
        key = self._key(request)
        with _readable(key):
            picture = self._thumbnails.get(key)
        return Response(picture, media_type="image/jpeg")

    def stream(self, request: Request) -> Response:
        key = self._key(request)
        name = request.query_params.get("name", "")
        if name not in self._streams:
            raise Refused(404, "the data set has no such stream")
        size = self._dataset.videos[key].members[name][1]
        headers = {"accept-ranges": "bytes"}
        begin, end = _range(request.headers.getlist("range"), size)
        is_part = bool(request.headers.get("range"))
        if request.method == "HEAD" and not is_part:
            headers["content-length"] = str(size)
            return Response(status_code=200, headers=headers, media_type="video/x-motion-jpeg")
        with _readable(key):
            data = self._dataset.member_bytes(key, name, begin, end - begin)
        if is_part:
            headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
        return Response(
            data, 206 if is_part else 200, headers=headers, media_type="video/x-motion-jpeg"
        )

    def _key(self, request: Request) -> str:
        key = request.query_params.get("key", "")
        try:
            self._dataset.videos.position(key)
        except DatasetError as error:
            raise Refused(404, "no video has this key") from error
        return key

    def _dataset_values(self) -> dict[str, Any]:
        dataset = self._dataset
        config, flow = dataset.config, dataset.config.flow
        levels = np.arange(256, dtype=np.uint8)
        directions: tuple[Direction, ...] = config.encode.directions
        try:
            num_failed = len(read_failures(Storage(dataset.location)))
        except (DatasetError, StorageError):
            num_failed = 0
        return {
            "version": __version__,
            "name": dataset.location.rstrip("/").rsplit("/", 1)[-1] or "data set",
            "num_failed": num_failed,
            "algorithm": flow.algorithm,
            "implementation": dataset.header.implementation,
            "step": flow.step,
            "bound_px": flow.bound_px,
            "quantizer": flow.quantizer,
            "center_level": flow.center_level,
            "px_per_level": flow.px_per_level,
            "px_of_level": dequantize(levels, flow).tolist(),
            "class_names": list(dataset.class_names),
            "directions": list(directions),
            "has_rgb": RGB_STREAM in self._streams,
            "streams": self._streams,
            "kinds": [
                {
                    "name": name,
                    "title": kind.title,
                    "severity": kind.severity,
                    "what": kind.what,
                    "remedy": kind.remedy,
                }
                for name, kind in KINDS.items()
            ],
            "severities": SEVERITIES,
            "wheel": wheel_hues().tolist(),
            "error_ramp": error_ramp().tolist(),
            "outside": list(OUTSIDE),
            "consistency_px": CONSISTENCY_PX,
            "max_range_bytes": MAX_RANGE_BYTES,
        }

    def _video_columns(self) -> dict[str, Any]:
        dataset = self._dataset
        videos = list(dataset.videos)
        keys = [video.key for video in videos]
        nothing = [None] * len(videos)
        key = key_column(keys, "26em")
        key["also"] = {row: _name(key) for row, key in enumerate(keys) if "%" in key}
        splits = [video.split or "" for video in videos]
        columns: dict[str, dict[str, Any]] = {
            "key": key,
            "findings": findings_column([0] * len(videos), "10.5em"),
            "class": name_column("Class", [label_words(dataset, v) for v in videos], "9em"),
            "split": name_column("Split", splits, "5em"),
            "frames": number_column("Frames", (v.num_frames for v in videos), 0, "5em"),
            "mean_px": number_column("Mean px", nothing, 2, "5.6em"),
            "max_px": number_column("Max px", nothing, 1, "5.4em"),
            "clipped": number_column("Clipped %", nothing, 3, "6.4em"),
            "blank": number_column("Blank %", nothing, 1, "5.6em"),
            "size": name_column("Size", [f"{v.width}x{v.height}" for v in videos], "6em"),
            "fps": number_column("fps", (v.fps for v in videos), 2, "4.6em"),
        }
        for one in ("class", "split"):
            if columns[one]["names"] in ([], [""]):
                del columns[one]
        return {"count": len(videos), "columns": columns}


class Refused(Exception):  # noqa: N818
    """A request that is answered with a status and a few words."""

    def __init__(self, status: int, words: str, **headers: str) -> None:
        super().__init__(words)
        self.response = refusal(status, words, **headers)


@contextlib.contextmanager
def _readable(key: str) -> Iterator[None]:
    """Turns an error of a video into words without paths. The terminal shows the full error."""
    try:
        yield
    except (FlowprepError, OSError, LookupError, TypeError, ValueError) as error:
        _log.warning("%s cannot be read: %s", key, error)
        raise Refused(
            500, "its part of the shard cannot be read; `flowprep verify` says what is wrong"
        ) from error


def _range(given: list[str], size: int) -> tuple[int, int]:
    """Returns begin and end of the requested range, or of the whole stream."""
    refused = {"content_range": f"bytes */{size}"}
    most = f"{MAX_RANGE_BYTES >> 20} MiB"
    if not given:
        if size > MAX_RANGE_BYTES:
            raise Refused(400, f"longer than {most}: ask for a range of its {size} bytes")
        return 0, size
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", given[0], re.ASCII)
    if len(given) > 1 or "," in given[0]:
        raise Refused(416, "one range at a time", **refused)
    if match is None or not (match[1] or match[2]):
        raise Refused(400, "a range is bytes=FIRST-LAST")
    if match[1]:
        begin = int(match[1])
        end = int(match[2]) + 1 if match[2] else size
    else:
        begin, end = size - int(match[2]), size
    if not 0 <= begin < end <= size:
        raise Refused(416, f"the stream has {size} bytes", **refused)
    if end - begin > MAX_RANGE_BYTES:
        raise Refused(416, f"one range has {most} at most", **refused)
    return begin, end


def _name(key: str) -> str:
    """Returns the file name of a key. Bytes that are no text become replacement characters."""
    return unescape_key(key).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _encoded(values: Any) -> tuple[bytes, bytes | None]:
    """Returns JSON, plain and compressed. The latter is None if compression is not worth it."""
    data = page_json(values).encode()
    return data, gzip.compress(data, 5) if len(data) >= _MIN_GZIP_BYTES else None


def _json(request: Request, data: bytes, compressed: bytes | None) -> Response:
    headers = {"vary": "accept-encoding"}
    if compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        data = compressed
    return Response(data, headers=headers, media_type="application/json")
