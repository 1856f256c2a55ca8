"""Checks one video of a shard: what its index says, its metadata and its JPEGs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import IO, Protocol

from msgspec import UNSET

from flowprep.config import ExtractConfig
from flowprep.dataset.jpeg_header import JPEG_BEGIN, JPEG_END, read_jpeg_header
from flowprep.dataset.layout import RGB_STREAM, VideoRecord, stream_names
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.rebuild import record_from_metadata
from flowprep.dataset.video_list import size_problem
from flowprep.errors import DatasetError
from flowprep.images import decode_strictly
from flowprep.inputs.keys import check_key
from flowprep.video.types import FrameCounts

__all__ = ["CountsJpegs", "HashingReader", "check_video"]

# Largest KEY.json. It names every JPEG, and ten million frames take a tenth of this.
_MAX_METADATA_BYTES = 1 << 28


class CountsJpegs(Protocol):
    """A report that counts the JPEGs that were checked."""

    num_jpegs: int


class HashingReader:
    """Reads a file from start to end in small pieces, and hashes all of them."""

    def __init__(self, file: IO[bytes]) -> None:
        self.position = 0
        self.digest = hashlib.sha256()
        self._file = file

    def take(self, size: int) -> bytes:
        """Returns the next `size` bytes."""
        data = self._file.read(size)
        self.digest.update(data)
        self.position += size
        return data

    def skip_to(self, position: int) -> None:
        """Skips the bytes before `position`."""
        while self.position < position:
            self.take(min(1 << 20, position - self.position))


def check_video(
    video: VideoRecord,
    tar: HashingReader,
    config: ExtractConfig,
    deep: bool,
    looks: Callable[[VideoMetadata], None] | None,
    report: CountsJpegs,
) -> list[str]:
    """Returns the problems of one video, whose members come next in `tar`.

    `looks` gets the metadata of the video.
    """
    try:
        check_key(video.key)
    except DatasetError as error:
        return [str(error)]
    if (problem := size_problem(video.width, video.height)) is not None:
        return [problem]
    streams = stream_names(config.encode)
    if set(video.members) != {"json", *streams}:
        return [f"its members are {', '.join(video.members)}, wanted json, {', '.join(streams)}"]
    offset, length = video.members["json"]
    if length > _MAX_METADATA_BYTES:
        return [f"its metadata has {length} bytes; more than {_MAX_METADATA_BYTES} are refused"]
    try:
        tar.skip_to(offset)
        content = tar.take(length)
        metadata = VideoMetadata.from_json(content)
        if not content.endswith(b"\n"):
            raise ValueError("it does not end where the index says")
        if lost := set(streams).difference(metadata.sizes):
            raise ValueError(f"it has no sizes of {', '.join(sorted(lost))}")
        described = record_from_metadata(metadata, video.members, video.seconds, video.attempts)
    except ValueError as error:
        return [f"its metadata is damaged: {type(error).__name__}: {error}"]
    if looks is not None:
        looks(metadata)
    problems = []
    for name in VideoRecord.__struct_fields__:
        own, indexed = getattr(described, name), getattr(video, name)
        # Earlier versions stored no size of the source in the sidecar.
        if own != indexed and not (name == "source_bytes" and indexed is None):
            problems.append(f"{name} is {own} in its metadata and {indexed} in the sidecar")
    problems += _check_counts(metadata)
    problems += _check_homographies(metadata, config)
    if video.num_flows != video.num_frames - config.flow.step:
        problems.append(
            f"{video.num_frames} frames give {video.num_frames - config.flow.step} flows at step "
            f"{config.flow.step}, it has {video.num_flows}"
        )
    for stream in sorted(streams, key=lambda name: video.members[name]):
        offset, length = video.members[stream]
        wanted = video.num_frames if stream == RGB_STREAM else video.num_flows
        lengths = metadata.sizes[stream]
        if len(lengths) != wanted:
            problems.append(f"{stream} has {len(lengths)} JPEGs, but needs {wanted}")
        elif sum(lengths) != length:
            problems.append(f"{stream} has {length} bytes, but its index says {sum(lengths)}")
        else:
            tar.skip_to(offset)
            problems += _check_jpegs(video, stream, tar, lengths, deep)
            report.num_jpegs += len(lengths)
    return problems


def _check_counts(metadata: VideoMetadata) -> list[str]:
    """Returns the problems of a video's sums over frames, which version 1 did not store."""
    if not metadata.format_minor:
        return []
    counts = metadata.frame_counts
    if not isinstance(counts, FrameCounts):
        return ["it has no frame_counts, which a video of format 1.1 has"]
    left_out = counts.lead_in + counts.before_range + counts.after_range
    accounted = left_out + metadata.num_frames - counts.repeated + counts.dropped
    if metadata.num_frames_decoded != accounted:
        return [
            f"it says that {metadata.num_frames_decoded} frames were decoded, and accounts for "
            f"{accounted}: {left_out} outside of the range, {metadata.num_frames} kept, "
            f"{counts.dropped} dropped and {counts.repeated} repeated by the rate"
        ]
    return []


def _check_homographies(metadata: VideoMetadata, config: ExtractConfig) -> list[str]:
    """Returns the problems of the camera's motion, of which there is one homography a pair."""
    found = metadata.homographies
    if found is UNSET:
        # A tree of images that was imported need not have them.
        if config.flow.camera_motion == "none" or not metadata.format_minor:
            return []
        return [f"it has no homographies, which flow with {config.flow.camera_motion} has"]
    if config.flow.camera_motion == "none":
        return ["it has homographies, and dataset.json says that the flow has camera_motion none"]
    if len(found) != metadata.num_flows:
        return [f"it has {len(found)} homographies for {metadata.num_flows} flows"]
    return []


def _check_jpegs(
    video: VideoRecord, stream: str, tar: HashingReader, lengths: Iterable[int], deep: bool
) -> list[str]:
    shape = (video.height, video.width) + ((3,) if stream == RGB_STREAM else ())
    for number, length in enumerate(lengths):
        jpeg = tar.take(length)
        if not (jpeg.startswith(JPEG_BEGIN) and jpeg.endswith(JPEG_END)):
            return [f"{stream} {number} is not a whole JPEG"]
        if deep:
            # This is checked before decoding, because a small header may ask for gigabytes.
            header = read_jpeg_header(jpeg)
            if header is None:
                return [f"{stream} {number} does not decode"]
            if (header.height, header.width) != shape[:2]:
                got = (header.height, header.width)
                return [f"{stream} {number} has shape {got}, wanted {shape}"]
            image, complaint = decode_strictly(jpeg)
            if image is None:
                return [f"{stream} {number} does not decode"]
            if complaint:
                return [f"{stream} {number} is damaged: {complaint}"]
            if image.shape != shape:
                return [f"{stream} {number} has shape {image.shape}, wanted {shape}"]
    return []
