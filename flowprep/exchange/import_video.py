"""Imports one video of a tree of flow images: checks its JPEGs and keeps them unchanged.

Only the statistics that a data set stores (range, histogram, shares) are computed, from the decoded
levels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flowprep._version import __version__
from flowprep.config import Direction, FlowSpec
from flowprep.dataset.jpeg_header import JPEG_BEGIN, JPEG_END, read_jpeg_header
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM, stream_names
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.quantize import (
    HISTOGRAM_BIN_PX,
    HISTOGRAM_NUM_BINS,
    FlowStatistics,
    dequantize,
)
from flowprep.dataset.video_list import size_problem
from flowprep.dataset.write import JpegStream
from flowprep.errors import NoteCode, VideoError
from flowprep.exchange.import_plan import IMPORTED, ImportItem, ImportPlan
from flowprep.exchange.layouts import FileKind, Stream
from flowprep.images import decode_strictly
from flowprep.video.types import VideoInfo

__all__ = ["LevelStatistics", "import_video"]

# JPEGs per read, and per call of the decoder.
_CHUNK_JPEGS = 32
# The largest JPEG of 16384 x 16384 gray px at quality 100 is smaller.
_MAX_JPEG_BYTES = 1 << 29


def import_video(plan: ImportPlan, item: ImportItem) -> tuple[VideoMetadata, dict[str, JpegStream]]:
    """Returns metadata and streams of a video. Raises VideoError if its images do not match."""
    spec, encode = plan.flow_spec, plan.config.encode
    kinds = plan.list_files(item.path)
    files: dict[str, list[str]] = {}
    for direction in encode.directions:
        x, y = FLOW_STREAMS[direction]
        files[x] = _series(plan, kinds, _kind(plan, "x", direction), x)
        files[y] = _series(plan, kinds, _kind(plan, "y", direction), y)
    lengths = {name: len(paths) for name, paths in files.items()}
    num_flows = lengths[FLOW_STREAMS[encode.directions[0]][0]]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise VideoError("incomplete", f"every x image needs its y image, but there are {counts}")
    if num_flows == 0:
        raise VideoError("missing", f"{item.video.source} holds no flow images")
    num_frames = num_flows + spec.step
    if encode.keep_rgb:
        files[RGB_STREAM] = _series(plan, kinds, FileKind("rgb"), RGB_STREAM)
        _check_frames(len(files[RGB_STREAM]), num_flows, spec.step)
    if item.counts is not None and item.counts[0] not in (num_flows, num_frames):
        raise VideoError(
            "incomplete",
            f"there are {num_flows} flows, but {item.counts[1]} says {item.counts[0]}",
        )
    notes: dict[NoteCode, str] = {}
    if encode.keep_rgb:
        firsts = [os.path.basename(paths[0]) for paths in files.values()]
        numbers = {re.findall(r"\d+", name)[-1].lstrip("0") for name in firsts}
        if len(numbers) > 1:
            notes["numbers-differ"] = f"the first are {', '.join(firsts)}"
    streams = {name: JpegStream(encode.jpeg_quality) for name in stream_names(encode)}
    try:
        statistics, size = _read_flow(plan, files, streams)
        if encode.keep_rgb:
            _read_frames(files[RGB_STREAM], streams[RGB_STREAM], size)
    except BaseException:
        for stream in streams.values():
            stream.close()
        raise
    width, height = size
    metadata = VideoMetadata.of(
        item.video,
        VideoInfo(width, height, 0, item.fps, None, "images"),
        size=size,
        fps=item.fps,
        num_frames_decoded=num_frames,
        num_frames=num_frames,
        num_flows=num_flows,
        config=plan.config,
        implementation=IMPORTED,
        versions={"flowprep": __version__},
        statistics={name: one.flow_statistics(spec) for name, one in statistics.items()},
        sizes={name: stream.sizes for name, stream in streams.items()},
        notes=notes,
    )
    return metadata, streams


def _kind(plan: ImportPlan, stream: Stream, direction: Direction) -> FileKind:
    if plan.layout.names_direction_and_step:
        return FileKind(stream, direction, plan.flow_spec.step)
    return FileKind(stream)


def _series(
    plan: ImportPlan, kinds: Mapping[FileKind, Mapping[int, str]], kind: FileKind, name: str
) -> list[str]:
    """Returns the files of a stream in order. Raises VideoError if a number is missing."""
    numbers = kinds.get(kind, {})
    if not numbers:
        return []
    ordered = sorted(numbers)
    accepted = plan.layout.accepted_first_numbers
    # x and y of a video begin at the same number. Its frames may begin at another, because
    # extractors differ.
    alike = [one for one in kinds if (one.stream == "rgb") == (kind.stream == "rgb")]
    begin = min(min(kinds[one]) for one in alike)
    first = min(accepted) if begin < max(accepted) else max(accepted)
    if ordered[0] != first:
        raise VideoError(
            "incomplete",
            f"{name} begins at {os.path.basename(numbers[ordered[0]])}, not at {first}",
        )
    for wanted, number in enumerate(ordered, start=first):
        if number != wanted:
            before = os.path.basename(numbers[wanted - 1])
            raise VideoError(
                "incomplete",
                f"number {wanted} of {name} is missing: {os.path.basename(numbers[number])} "
                f"follows {before}",
            )
    return [numbers[number] for number in ordered]


def _check_frames(num_frames: int, num_flows: int, step: int) -> None:
    if num_frames == num_flows + step:
        return
    why = ""
    if num_frames == num_flows:
        why = " (dense_flow leaves out the image of the first frame)"
    raise VideoError(
        "incomplete",
        f"{num_flows} flows at step {step} have {num_flows + step} frames, but there are "
        f"{num_frames}{why}; import with --no-rgb",
    )


def _read_flow(
    plan: ImportPlan, files: Mapping[str, Sequence[str]], streams: Mapping[str, JpegStream]
) -> tuple[dict[Direction, LevelStatistics], tuple[int, int]]:
    statistics: dict[Direction, LevelStatistics] = {}
    size: tuple[int, int] | None = None
    for direction in plan.config.encode.directions:
        x_name, y_name = FLOW_STREAMS[direction]
        levels = statistics[direction] = LevelStatistics()
        for start in range(0, len(files[x_name]), _CHUNK_JPEGS):
            planes = []
            for name in (x_name, y_name):
                jpegs = []
                for path in files[name][start : start + _CHUNK_JPEGS]:
                    jpeg, size = _read_jpeg(path, size, num_components=1)
                    streams[name].append_jpeg(jpeg)
                    jpegs.append(jpeg)
                assert size is not None
                planes.append(_decode(jpegs, size, files[name][start : start + _CHUNK_JPEGS]))
            for x, y in zip(*planes, strict=True):
                levels.add(x, y, plan.flow_spec.zero_level)
    assert size is not None
    return statistics, size


def _read_frames(paths: Sequence[str], stream: JpegStream, size: tuple[int, int]) -> None:
    for path in paths:
        jpeg, _ = _read_jpeg(path, size, num_components=3)
        image, complaint = decode_strictly(jpeg)
        if image is None or complaint:
            name = os.path.basename(path)
            raise VideoError("damaged", f"{name} does not decode{complaint and f': {complaint}'}")
        stream.append_jpeg(jpeg)


def _read_jpeg(
    path: str, size: tuple[int, int] | None, *, num_components: int
) -> tuple[bytes, tuple[int, int]]:
    """Returns a JPEG file and its (width, height), which must be `size` unless `size` is None.

    Raises VideoError if the file is damaged, has another size or is not such an image.
    """
    name = os.path.basename(path)
    num_bytes = os.stat(path).st_size
    if num_bytes == 0:
        raise VideoError("damaged", f"{name} is empty")
    if num_bytes > _MAX_JPEG_BYTES:
        raise VideoError("unreadable", f"{name} has {num_bytes} bytes; that is not a flow image")
    with open(path, "rb") as file:
        jpeg = file.read()
    header = read_jpeg_header(jpeg)
    if header is None:
        raise VideoError("unreadable", f"{name} is not a JPEG")
    if not (jpeg.startswith(JPEG_BEGIN) and jpeg.endswith(JPEG_END)):
        raise VideoError("damaged", f"{name} is cut off, or has other data after its end")
    if header.num_components != num_components:
        kinds = {1: "gray", 3: "color"}
        raise VideoError(
            "unreadable",
            f"{name} must be {kinds[num_components]} (components: {num_components}), it has "
            f"{header.num_components}",
        )
    found = (header.width, header.height)
    if size is not None and found != size:
        raise VideoError(
            "size-change", f"{name} is {found[0]}x{found[1]}, others are {size[0]}x{size[1]}"
        )
    if size_problem(*found) is not None:
        raise VideoError("unreadable", f"{name} says that it is {found[0]}x{found[1]}")
    return jpeg, found


def _decode(
    jpegs: Sequence[bytes], size: tuple[int, int], paths: Sequence[str]
) -> NDArray[np.uint8]:
    """Returns the levels of gray JPEGs, (n, H, W) uint8. Raises VideoError for a damaged JPEG."""
    # Imported here, because the import of numba takes half a second.
    from flowprep.dataset.jpeg import decode_planes

    width, height = size
    planes = np.empty((len(jpegs), height, width), np.uint8)
    ends = np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
    starts = np.concatenate(([0], ends[:-1]))
    targets = np.arange(len(jpegs), dtype=np.int64) * (height * width)
    data = b"".join(jpegs)
    done = 0
    while done < len(jpegs):
        done += decode_planes(
            data, starts[done:], ends[done:], planes, targets[done:], size, (0, 0, width, height)
        )
        if done < len(jpegs):
            # This JPEG is damaged, or of another kind (progressive). libjpeg tells which.
            image, complaint = decode_strictly(jpegs[done])
            if image is None or complaint or image.shape != (height, width):
                name = os.path.basename(paths[done])
                raise VideoError(
                    "damaged", f"{name} does not decode{complaint and f': {complaint}'}"
                )
            planes[done] = image
            done += 1
    return planes


@dataclass
class LevelStatistics:
    """The statistics of `FieldQuantizer`, as far as the stored levels give them.

    Levels 0 and 255 count as clipped. They include all values beyond the bound, and the values
    within half a level of the bound. The levels do not show whether a value was invalid.
    """

    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    """How often each pair of levels (x, y) occurs, at element 256 x + y."""
    num_fields: int = 0
    num_zero_fields: int = 0

    def add(self, x: NDArray[np.uint8], y: NDArray[np.uint8], zero_level: int) -> None:
        """Counts one field: (H, W) uint8 levels of x and of y."""
        pairs = (x.astype(np.uint16) << 8) | y
        self.pairs += np.bincount(pairs.reshape(-1), minlength=1 << 16)
        self.num_fields += 1
        zero = zero_level << 8 | zero_level
        self.num_zero_fields += bool((pairs == zero).all())

    def flow_statistics(self, spec: FlowSpec) -> FlowStatistics:
        """Returns the statistics of the flow that the levels decode to."""
        if not self.num_fields:
            return FlowStatistics()
        levels = dequantize(np.arange(256, dtype=np.uint8), spec)
        table = self.pairs.reshape(256, 256)
        counts = table.sum(axis=1) + table.sum(axis=0)
        present = levels[counts > 0]
        magnitude = np.hypot(levels[:, None], levels[None, :])
        bins = np.minimum(magnitude / HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS).astype(np.int64)
        found = FlowStatistics(
            min_px=float(present.min()),
            max_px=float(present.max()),
            num_values=int(counts.sum()),
            num_clipped=int(counts[0] + counts[255]),
            num_fields=self.num_fields,
            num_zero_fields=self.num_zero_fields,
        )
        np.add.at(found.histogram, bins, table)
        return found
