"""Imports one video of a tree: checks its JPEGs and keeps them unchanged, or encodes its arrays.

Only the statistics that a data set stores (range, histogram, shares) are computed, from the decoded
levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from flowprep._version import __version__
from flowprep.config import Direction
from flowprep.dataset.jpeg_header import JPEG_BEGIN, JPEG_END, read_jpeg_header
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM, stream_names
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.video_list import size_problem
from flowprep.dataset.write import JpegStream
from flowprep.errors import NoteCode, VideoError
from flowprep.exchange.import_fields import open_fields
from flowprep.exchange.import_find import ARRAY_FORMATS
from flowprep.exchange.import_images import Images, SourceImage
from flowprep.exchange.import_levels import LevelStatistics, StoredFlow, encode_fields
from flowprep.exchange.import_plan import ImportItem, ImportPlan
from flowprep.exchange.import_spec import IMPORTED
from flowprep.exchange.layouts import FileKind, Stream
from flowprep.images import decode_strictly
from flowprep.video.types import VideoInfo

__all__ = ["import_video"]

_AXES: tuple[Stream, ...] = ("x", "y")
# JPEGs per read, and per call of the decoder.
_CHUNK_JPEGS = 32
# The largest JPEG of 16384 x 16384 gray px at quality 100 is smaller.
_MAX_JPEG_BYTES = 1 << 29


def import_video(plan: ImportPlan, item: ImportItem) -> tuple[VideoMetadata, dict[str, JpegStream]]:
    """Returns metadata and streams of a video. Raises VideoError if its files do not match."""
    if item.place is None:
        raise VideoError("missing", f"{item.video.source} is not in the tree")
    encode = plan.config.encode
    streams = {name: JpegStream(encode.jpeg_quality) for name in stream_names(encode)}
    try:
        if plan.format in ARRAY_FORMATS:
            with open_fields(item.place.path, plan.format) as fields:
                _check_count(item, fields.num_flows, plan.flow_spec.step)
                found = encode_fields(plan, fields, streams)
        else:
            with plan.images.open(item.path, item.place) as images:
                found = _copy_images(plan, item, images, streams)
    except BaseException:
        for stream in streams.values():
            stream.close()
        raise
    width, height = found.size
    num_frames = found.num_flows + plan.flow_spec.step
    metadata = VideoMetadata.of(
        item.video,
        VideoInfo(width, height, 0, item.fps, None, "images"),
        size=found.size,
        fps=item.fps,
        num_frames_decoded=num_frames,
        num_frames=num_frames,
        num_flows=found.num_flows,
        config=plan.config,
        implementation=IMPORTED,
        versions={"flowprep": __version__},
        statistics=found.statistics,
        sizes={name: stream.sizes for name, stream in streams.items()},
        notes=found.notes,
    )
    if item.homographies is not None and len(item.homographies) == found.num_flows:
        metadata = msgspec.structs.replace(metadata, homographies=list(item.homographies))
    return metadata, streams


def _check_count(item: ImportItem, num_flows: int, step: int) -> None:
    if item.counts is not None and item.counts[0] not in (num_flows, num_flows + step):
        raise VideoError(
            "incomplete",
            f"there are {num_flows} flows, but {item.counts[1]} says {item.counts[0]}",
        )


# ---- JPEGs


def _copy_images(
    plan: ImportPlan, item: ImportItem, images: Images, streams: Mapping[str, JpegStream]
) -> StoredFlow:
    spec, encode = plan.flow_spec, plan.config.encode
    files: dict[str, list[SourceImage]] = {}
    for direction in encode.directions:
        for name, stream in zip(FLOW_STREAMS[direction], _AXES, strict=True):
            files[name] = _series(plan, images, plan.images.kind(stream, direction), name)
    lengths = {name: len(found) for name, found in files.items()}
    num_flows = lengths[FLOW_STREAMS[encode.directions[0]][0]]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise VideoError("incomplete", f"every x image needs its y image, but there are {counts}")
    if num_flows == 0:
        raise VideoError("missing", f"{item.video.source} holds no flow images")
    _check_count(item, num_flows, spec.step)
    notes: dict[NoteCode, str] = {}
    if encode.keep_rgb:
        files[RGB_STREAM] = _series(plan, images, FileKind("rgb"), RGB_STREAM)
        if _is_first_frame_left_out(plan, len(files[RGB_STREAM]), num_flows):
            first = files[FLOW_STREAMS[encode.directions[0]][0]][0].name
            notes["first-flow-dropped"] = f"{num_flows} frames and flows; {first} is left out"
            num_flows -= 1
            for name in FLOW_STREAMS["forward"]:
                del files[name][0]
        _check_frames(len(files[RGB_STREAM]), num_flows, spec.step)
        firsts = [found[0].name for found in files.values()]
        numbers = {re.findall(r"\d+", name)[-1].lstrip("0") for name in firsts}
        if len(numbers) > 1 and not notes:
            notes["numbers-differ"] = f"the first are {', '.join(firsts)}"
    statistics, size = _read_flow(plan, files, streams)
    if encode.keep_rgb:
        _read_frames(files[RGB_STREAM], streams[RGB_STREAM], size)
    found = {name: one.flow_statistics(spec) for name, one in statistics.items()}
    return StoredFlow(num_flows, size, found, notes)


def _series(plan: ImportPlan, images: Images, kind: FileKind, name: str) -> list[SourceImage]:
    """Returns the images of a stream in order. Raises VideoError if a number is missing."""
    numbers = images.get(kind, {})
    if not numbers:
        return []
    ordered = sorted(numbers)
    accepted = plan.layout.accepted_first_numbers
    if kind.stream == "rgb":
        # Frames come from other tools too, and their number tells whether the first is missing.
        accepted = (*accepted, 0, 1)
    # x and y of a video begin at the same number. Its frames may begin at another, because
    # extractors differ.
    alike = [one for one in images if (one.stream == "rgb") == (kind.stream == "rgb")]
    begin = min(min(images[one]) for one in alike)
    first = min(accepted) if begin < max(accepted) else max(accepted)
    if ordered[0] != first:
        raise VideoError(
            "incomplete", f"{name} begins at {numbers[ordered[0]].name}, not at {first}"
        )
    for wanted, number in enumerate(ordered, start=first):
        if number != wanted:
            raise VideoError(
                "incomplete",
                f"number {wanted} of {name} is missing: {numbers[number].name} follows "
                f"{numbers[wanted - 1].name}",
            )
    return [numbers[number] for number in ordered]


def _is_first_frame_left_out(plan: ImportPlan, num_frames: int, num_flows: int) -> bool:
    """Whether the frames are those where flows end, as dense_flow writes them.

    calcDenseFlow in yjxiong/dense_flow, src/dense_flow.cpp and src/dense_flow_gpu.cpp, stores each
    flow with the image of its second frame. So image 1 is the video's second frame, flow 1 begins
    at a frame that is not there, and flow k + 1 goes from image k to image k + 1.
    """
    return (
        plan.layout.leaves_out_first_frame
        and plan.config.encode.directions == ("forward",)
        and plan.flow_spec.step == 1
        and num_frames == num_flows >= 2
    )


def _check_frames(num_frames: int, num_flows: int, step: int) -> None:
    if num_frames != num_flows + step:
        raise VideoError(
            "incomplete",
            f"{num_flows} flows at step {step} have {num_flows + step} frames, but there are "
            f"{num_frames}; import with --no-rgb",
        )


def _read_flow(
    plan: ImportPlan,
    files: Mapping[str, Sequence[SourceImage]],
    streams: Mapping[str, JpegStream],
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
                for image in files[name][start : start + _CHUNK_JPEGS]:
                    jpeg, size = _read_jpeg(image, size, num_components=1)
                    streams[name].append_jpeg(jpeg)
                    jpegs.append(jpeg)
                assert size is not None
                planes.append(_decode(jpegs, size, files[name][start : start + _CHUNK_JPEGS]))
            for x, y in zip(*planes, strict=True):
                levels.add(x, y, plan.flow_spec.zero_level)
    assert size is not None
    return statistics, size


def _read_frames(images: Sequence[SourceImage], stream: JpegStream, size: tuple[int, int]) -> None:
    for image in images:
        jpeg, _ = _read_jpeg(image, size, num_components=3)
        pixels, complaint = decode_strictly(jpeg)
        if pixels is None or complaint:
            raise VideoError(
                "damaged", f"{image.name} does not decode{complaint and f': {complaint}'}"
            )
        stream.append_jpeg(jpeg)


def _read_jpeg(
    image: SourceImage, size: tuple[int, int] | None, *, num_components: int
) -> tuple[bytes, tuple[int, int]]:
    """Returns a JPEG file and its (width, height), which must be `size` unless `size` is None.

    Raises VideoError if the file is damaged, has another size or is not such an image.
    """
    name = image.name
    num_bytes = image.size()
    if num_bytes == 0:
        raise VideoError("damaged", f"{name} is empty")
    if num_bytes > _MAX_JPEG_BYTES:
        raise VideoError("unreadable", f"{name} has {num_bytes} bytes; that is not a flow image")
    jpeg = image.read()
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
    jpegs: Sequence[bytes], size: tuple[int, int], images: Sequence[SourceImage]
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
                raise VideoError(
                    "damaged",
                    f"{images[done].name} does not decode{complaint and f': {complaint}'}",
                )
            planes[done] = image
            done += 1
    return planes
