"""The file formats of an export: how one video, or one shard of videos, is written to disk.

    ExportFormat.write(VideoExport)     a folder or a file per video, by temporary name and rename
    write_webdataset(...)               a tar of many videos, or of clips of them

Whole results stay: a folder whose files have the right names and sizes, and any file that exists,
because a file gets its name only when it is complete.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import uuid
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import DatasetError
from flowprep.exchange.layouts import FileKind, Stream, TreeLayout, Values
from flowprep.extras import extra_needed
from flowprep.flow.files import write_flow

__all__ = [
    "FORMATS",
    "TEMPORARY_FOLDER",
    "ExportFormat",
    "VideoExport",
    "atomic_path",
    "clip_starts",
    "write_webdataset",
]

TEMPORARY_FOLDER = ".flowprep-temporary"
"""The folder in DEST for unfinished files. It is on the same file system, so a rename is enough."""

# Images and fields per read, so that memory does not grow with the length of a video.
_CHUNK_JPEGS = 64
_CHUNK_FIELDS = 8
# The date of every entry, so that the bytes depend on the video alone. A zip has no earlier date.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class VideoExport:
    """One video to export."""

    dataset: FlowDataset
    video: StoredVideo
    path: str
    """The path below `dest`, without an extension."""
    layout: TreeLayout
    direction: Direction
    has_rgb: bool
    values: Values
    dest: Path

    @property
    def kind(self) -> FileKind:
        """Direction and step of the flow."""
        return FileKind("x", self.direction, self.dataset.config.flow.step)

    def streams(self) -> dict[Stream, tuple[str, int]]:
        """Returns the stored name and the length of each exported stream."""
        x, y = FLOW_STREAMS[self.direction]
        found: dict[Stream, tuple[str, int]] = {}
        if self.layout.has_flow:
            found["x"], found["y"] = (x, self.video.num_flows), (y, self.video.num_flows)
        if self.has_rgb:
            found["rgb"] = (RGB_STREAM, self.video.num_frames)
        return found

    def file(self, stream: Stream, index: int) -> str:
        """Returns the path below `dest` of one image."""
        if stream == "rgb":
            return self.layout.frame_file(self.path, index)
        return self.layout.flow_file(self.path, stream, index, self.kind)

    def member(self, stream: Stream, index: int) -> str:
        """Returns the extension of one image in a tar."""
        return self.layout.member(self.path, stream, index, self.kind)

    def jpegs(self, stream: Stream) -> Iterator[bytes]:
        """Yields the stored JPEGs of a stream. Their headers are checked."""
        name, length = self.streams()[stream]
        for start in range(0, length, _CHUNK_JPEGS):
            count = min(_CHUNK_JPEGS, length - start)
            yield from self.dataset.jpegs(self.video.key, name, start, count)

    def jpeg_sizes(self, stream: Stream) -> list[int]:
        """Returns the sizes of the stored JPEGs in bytes."""
        return self.dataset.metadata(self.video.key).sizes[self.streams()[stream][0]]

    def fields(self) -> Iterator[NDArray[Any]]:
        """Yields chunks of flow: (n, H, W, 2), float32 px or uint8 levels."""
        key, total = self.video.key, self.video.num_flows
        read = self.dataset.flow if self.values == "px" else self.dataset.quantized
        for start in range(0, total, _CHUNK_FIELDS):
            yield read(key, start, min(_CHUNK_FIELDS, total - start), self.direction)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the arrays in `fields`, little-endian."""
        return np.dtype("<f4" if self.values == "px" else "u1")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of all `fields` together: (N, H, W, 2)."""
        return (self.video.num_flows, self.video.height, self.video.width, 2)


class ExportFormat(ABC):
    """How the files of a video are written to disk."""

    suffix = ""
    """The suffix of a video's path in the frame lists."""
    has_values = False
    """Whether the export decodes flow, to px or levels."""

    @abstractmethod
    def write(self, export: VideoExport) -> int:
        """Writes the missing files and returns their size in bytes: 0 if all files were complete.

        Raises DatasetError if the data set is damaged. Then no file of this video appears.
        """

    def check_installed(self) -> None:
        """Raises ExecutorError if a library is missing."""
        return


class _Folders(ExportFormat):
    """Formats with several files per video. The files appear folder by folder."""

    @abstractmethod
    def names(self, export: VideoExport) -> dict[str, int | None]:
        """Returns the path below `dest` and the size of each file. None: the size is not known."""

    @abstractmethod
    def contents(self, export: VideoExport) -> Iterator[tuple[str, bytes]]:
        """Yields the path below `dest` and the content of each file."""

    def write(self, export: VideoExport) -> int:
        wanted: dict[str, dict[str, int | None]] = {}
        for path, size in self.names(export).items():
            folder, _, name = path.rpartition("/")
            wanted.setdefault(folder, {})[name] = size
        open_folders = {
            folder: names
            for folder, names in wanted.items()
            if not _is_whole(export.dest / folder, names)
        }
        if not open_folders:
            return 0
        num_bytes = 0
        with _temporary(export.dest) as temporary:
            places = {folder: temporary / str(n) for n, folder in enumerate(open_folders)}
            for place in places.values():
                place.mkdir()
            for path, data in self.contents(export):
                folder, _, name = path.rpartition("/")
                if folder in places:
                    with open(places[folder] / name, "wb") as file:
                        file.write(data)
                    num_bytes += len(data)
            for folder, place in places.items():
                _replace_folder(place, export.dest / folder, temporary)
        return num_bytes


class JpegFiles(_Folders):
    """One file for each image, with the stored bytes."""

    def names(self, export: VideoExport) -> dict[str, int | None]:
        return {
            export.file(stream, index): size
            for stream in export.streams()
            for index, size in enumerate(export.jpeg_sizes(stream))
        }

    def contents(self, export: VideoExport) -> Iterator[tuple[str, bytes]]:
        for stream in export.streams():
            for index, jpeg in enumerate(export.jpegs(stream)):
                yield export.file(stream, index), jpeg


class ZipFiles(_Folders):
    """`flow_x.zip`, `flow_y.zip` and `img.zip` for each video, as dense_flow writes them."""

    _files: Mapping[Stream, str] = {"x": "flow_x.zip", "y": "flow_y.zip", "rgb": "img.zip"}

    def names(self, export: VideoExport) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {}
        for stream in export.streams():
            # The images are stored, not compressed, so the size is known: for each entry 30 + 46 B
            # and twice the name, and 22 B at the end (PKWARE's APPNOTE.TXT, 4.3).
            jpegs = export.jpeg_sizes(stream)
            named = sum(len(export.layout.zip_member(stream, n)) for n in range(len(jpegs)))
            size = sum(jpegs) + 76 * len(jpegs) + 2 * named + 22
            is_plain = size < zipfile.ZIP64_LIMIT and len(jpegs) < zipfile.ZIP_FILECOUNT_LIMIT
            sizes[f"{export.path}/{self._files[stream]}"] = size if is_plain else None
        return sizes

    def contents(self, export: VideoExport) -> Iterator[tuple[str, bytes]]:
        for stream in export.streams():
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
                for index, jpeg in enumerate(export.jpegs(stream)):
                    name = export.layout.zip_member(stream, index)
                    archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), jpeg)
            yield f"{export.path}/{self._files[stream]}", buffer.getvalue()


class FloFiles(_Folders):
    """One Middlebury file for each field, float32 px: `flow_00001.flo`."""

    has_values = True

    def names(self, export: VideoExport) -> dict[str, int | None]:
        # flowIO.cpp: 12 bytes, then two float32 per pixel.
        size = 12 + 8 * export.video.width * export.video.height
        return {self._name(export, index): size for index in range(export.video.num_flows)}

    def contents(self, export: VideoExport) -> Iterator[tuple[str, bytes]]:
        with _temporary(export.dest) as folder:
            index = 0
            for chunk in export.fields():
                for field in chunk:
                    write_flow(folder / "field.flo", field)
                    yield self._name(export, index), (folder / "field.flo").read_bytes()
                    index += 1

    def _name(self, export: VideoExport, index: int) -> str:
        layout = export.layout
        number = f"{index + layout.first_number:0{layout.num_digits}d}"
        return f"{export.path}/flow_{number}.flo"


class _OneFile(ExportFormat):
    """Formats with one file per video."""

    has_values = True

    def write(self, export: VideoExport) -> int:
        target = export.dest / f"{export.path}{self.suffix}"
        if target.exists():
            return 0
        with atomic_path(export.dest, target) as path:
            self.write_file(export, path)
            return path.stat().st_size

    @abstractmethod
    def write_file(self, export: VideoExport, path: Path) -> None:
        """Writes the whole file."""


class NpyFiles(_OneFile):
    """`VIDEO.npy`: (N, H, W, 2) float32 px or uint8 levels. np.load can map it to memory."""

    suffix = ".npy"

    def write_file(self, export: VideoExport, path: Path) -> None:
        with open(path, "wb") as file:
            _write_array(file, export)


class NpzFiles(_OneFile):
    """`VIDEO.npz`, compressed, with one array: `flow`, (N, H, W, 2) float32 px or uint8 levels."""

    suffix = ".npz"

    def write_file(self, export: VideoExport, path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            info = zipfile.ZipInfo("flow.npy", _ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                _write_array(file, export)


class Hdf5Files(_OneFile):
    """`VIDEO.h5` with one HDF5 data set `flow`: (N, H, W, 2), one compressed chunk for each field.

    Its attributes say how to decode the levels: bound_px, quantizer, center_level, step, direction.
    """

    suffix = ".h5"

    def check_installed(self) -> None:
        with extra_needed("--format hdf5", "export", otherwise="choose --format npz"):
            import h5py  # noqa: F401

    def write_file(self, export: VideoExport, path: Path) -> None:
        import h5py

        spec = export.dataset.config.flow
        with h5py.File(path, "w") as file:
            stored = file.create_dataset(
                "flow",
                shape=export.shape,
                dtype=export.dtype,
                chunks=(1, *export.shape[1:]),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            start = 0
            for chunk in export.fields():
                stored[start : start + len(chunk)] = chunk
                start += len(chunk)
            stored.attrs.update(
                {
                    "key": export.video.key,
                    "values": export.values,
                    "bound_px": spec.bound_px,
                    "quantizer": spec.quantizer,
                    "center_level": spec.center_level,
                    "step": spec.step,
                    "direction": export.direction,
                }
            )


FORMATS: dict[str, ExportFormat | None] = {
    "jpg": JpegFiles(),
    "zip": ZipFiles(),
    "flo": FloFiles(),
    "npy": NpyFiles(),
    "npz": NpzFiles(),
    "hdf5": Hdf5Files(),
    "webdataset": None,
}
"""The file formats by name. None: one tar of WebDataset holds many videos (`write_webdataset`)."""


def write_webdataset(
    exports: Sequence[VideoExport],
    target: Path,
    dest: Path,
    *,
    clip_length: int | None = None,
    has_cls: bool = True,
) -> int:
    """Writes a shard in WebDataset's form, with one JPEG per member. Returns its size in bytes.

    The members of a video are `KEY.json` (label, labels, key, split, num_frames, num_flows, fps),
    `KEY.cls` if the video has one label, then `KEY.flow_x_00001.jpg` and so on. For WebDataset, the
    key is the part of the file name before the first dot (webdataset/tariterators.py,
    base_plus_ext). Our keys have no dot.

    With `clip_length`, a sample is a clip of so many flows, and of the frames where they start. Its
    key is `KEY_START`. All samples have the same members, as Hugging Face's `datasets` demands
    (packaged_modules/webdataset/webdataset.py): `.cls` is there with `has_cls` only, and no value
    in `.json` is null.
    """
    with atomic_path(dest, target) as path:
        with open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for export in exports:
                if clip_length is None:
                    _add_video(tar, export)
                else:
                    for start in clip_starts(export.video.num_flows, clip_length):
                        _add_clip(tar, export, start, clip_length, has_cls)
        return path.stat().st_size


def clip_starts(num_flows: int, clip_length: int) -> list[int]:
    """Returns the first flow of each clip: one after the other, the last one up to the end.

    The last clip may share flows with the one before it. A video of fewer flows has no clip.
    """
    last = num_flows - clip_length
    if last < 0:
        return []
    starts = list(range(0, last + 1, clip_length))
    return starts if starts[-1] == last else [*starts, last]


def _add_video(tar: tarfile.TarFile, export: VideoExport) -> None:
    video = export.video
    described = {
        "key": video.key,
        "label": video.label,
        "labels": list(video.labels),
        "split": video.split,
        "num_frames": video.num_frames,
        "num_flows": video.num_flows,
        "fps": video.fps,
    }
    _add(tar, f"{video.key}.json", json.dumps(described).encode())
    if video.label is not None:
        _add(tar, f"{video.key}.cls", str(video.label).encode())
    for stream in export.streams():
        for index, jpeg in enumerate(export.jpegs(stream)):
            _add(tar, f"{video.key}.{export.member(stream, index)}", jpeg)


def _add_clip(
    tar: tarfile.TarFile, export: VideoExport, start: int, length: int, has_cls: bool
) -> None:
    video = export.video
    sample = f"{video.key}_{start:06d}"
    described = {
        "key": video.key,
        "start": start,
        "label": -1 if video.label is None else video.label,
        "labels": list(video.labels),
        "split": video.split or "",
        "num_frames": video.num_frames,
        "num_flows": video.num_flows,
        "fps": float(video.fps or 0),
    }
    _add(tar, f"{sample}.json", json.dumps(described).encode())
    if has_cls:
        _add(tar, f"{sample}.cls", str(described["label"]).encode())
    for stream, (stored, _) in export.streams().items():
        jpegs = export.dataset.jpegs(video.key, stored, start, length)
        for index, jpeg in enumerate(jpegs):
            _add(tar, f"{sample}.{export.member(stream, index)}", jpeg)


@contextmanager
def atomic_path(dest: Path, target: Path) -> Iterator[Path]:
    """Yields a temporary path. The file there becomes `target` if the block ends without error."""
    with _temporary(dest) as folder:
        yield folder / "file"
        with open(folder / "file", "rb") as file:
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / "file", target)


@contextmanager
def _temporary(dest: Path) -> Iterator[Path]:
    folder = dest / TEMPORARY_FOLDER / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path, wanted: Mapping[str, int | None]) -> bool:
    try:
        with os.scandir(folder) as scan:
            found = {entry.name: entry.stat().st_size for entry in scan}
    except (FileNotFoundError, NotADirectoryError):
        return False
    return found.keys() == wanted.keys() and all(
        size in (None, found[name]) for name, size in wanted.items()
    )


def _replace_folder(place: Path, target: Path, temporary: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        if any(entry.is_dir() for entry in target.iterdir()):
            raise DatasetError(
                f"{target} must hold one video, but holds folders, because another video's path "
                "begins with it; export one of them alone, with --keys"
            )
        os.rename(target, temporary / f"{place.name}-before")
    os.rename(place, target)


def _write_array(file: IO[bytes], export: VideoExport) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(export.dtype),
        "fortran_order": False,
        "shape": export.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    for chunk in export.fields():
        file.write(np.ascontiguousarray(chunk, export.dtype).tobytes())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(data))
