"""The JPEGs of one video of a tree: in folders, in zips, or in a tar of WebDataset."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TypeAlias

from flowprep.config import Direction
from flowprep.errors import VideoError
from flowprep.exchange.import_find import ZIP_FILES, Place
from flowprep.exchange.layouts import FileKind, FormatName, ParsedName, Stream, TreeLayout

__all__ = ["ImageReader", "Images", "SourceImage"]

_NUMBER = re.compile(r"(?:.*[^0-9])?([0-9]{1,12})\.jpe?g", re.DOTALL | re.IGNORECASE)


class SourceImage(ABC):
    """A JPEG of a video."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def size(self) -> int:
        """Returns the size in bytes."""

    @abstractmethod
    def read(self) -> bytes:
        """Returns the whole file."""


Images: TypeAlias = dict[FileKind, dict[int, SourceImage]]
"""Kind -> number -> image."""


class _FileImage(SourceImage):
    def __init__(self, path: str) -> None:
        super().__init__(os.path.basename(path))
        self._path = path

    def size(self) -> int:
        return os.stat(self._path).st_size

    def read(self) -> bytes:
        with open(self._path, "rb") as file:
            return file.read()


class _ZipImage(SourceImage):
    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, zip_name: str) -> None:
        super().__init__(f"{zip_name}:{info.filename}")
        self._archive, self._info = archive, info

    def size(self) -> int:
        return self._info.file_size

    def read(self) -> bytes:
        try:
            return self._archive.read(self._info)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as e:
            raise VideoError("damaged", f"{self.name} cannot be read: {e}") from e


class _TarImage(SourceImage):
    def __init__(self, file: IO[bytes], info: tarfile.TarInfo) -> None:
        super().__init__(os.path.basename(info.name))
        self._file, self._at, self._size = file, info.offset_data, info.size

    def size(self) -> int:
        return self._size

    def read(self) -> bytes:
        self._file.seek(self._at)
        return self._file.read(self._size)


@dataclass(frozen=True)
class ImageReader:
    """Finds the images of the videos of one tree."""

    top: str
    layout: TreeLayout
    format: FormatName
    step: int
    direction: Direction
    """The direction of flow whose files do not name one."""

    def kind(self, stream: Stream, direction: Direction) -> FileKind:
        """Returns how the layout marks a stream of the flow that is imported."""
        if self.layout.names_direction_and_step and stream != "rgb":
            return FileKind(stream, direction, self.step)
        return FileKind(stream)

    @contextmanager
    def open(self, path: str, place: Place) -> Iterator[Images]:
        """Yields the images of the video `path`. They can be read inside of the block.

        Raises VideoError if two images have the same number, and for what is no file or archive.
        """
        with ExitStack() as stack:
            if self.format == "zip":
                found = self._in_zips(path, place.path, stack)
            elif self.format == "webdataset":
                found = self._in_tar(path, place, stack)
            else:
                found = self._in_folders(path)
            images: Images = {}
            for parsed, image in found:
                numbers = images.setdefault(parsed.kind, {})
                if parsed.number in numbers:
                    other = numbers[parsed.number].name
                    raise VideoError("incomplete", f"{other} and {image.name} have the same number")
                numbers[parsed.number] = image
            yield images

    def has_frames(self, path: str, place: Place) -> bool:
        """Whether a video has RGB frames."""
        try:
            with self.open(path, place) as images:
                return FileKind("rgb") in images
        except VideoError:
            return False

    def _in_folders(self, path: str) -> Iterator[tuple[ParsedName, SourceImage]]:
        for folder in self.layout.folders(path):
            place = os.path.join(self.top, folder) if folder else self.top
            if not os.path.isdir(place):
                continue
            with os.scandir(place) as scan:
                entries = list(scan)
            for entry in entries:
                parsed = self.layout.parse(f"{folder}/{entry.name}" if folder else entry.name)
                if parsed is None or parsed[0] != path:
                    continue
                if not entry.is_file():
                    raise VideoError("unreadable", f"{entry.name} is not a file")
                yield parsed[1], _FileImage(entry.path)

    def _in_zips(
        self, path: str, place: str, stack: ExitStack
    ) -> Iterator[tuple[ParsedName, SourceImage]]:
        if os.path.isdir(place):
            streams: tuple[Stream, ...] = ("x", "y", "rgb")
            for name, stream in zip(ZIP_FILES, streams, strict=True):
                if not os.path.isfile(os.path.join(place, name)):
                    continue
                kind = self.kind(stream, self.direction)
                for archive, info in _members(os.path.join(place, name), stack):
                    if match := _NUMBER.fullmatch(info.filename):
                        yield ParsedName(kind, int(match[1])), _ZipImage(archive, info, name)
            return
        for archive, info in _members(place, stack):
            base = info.filename.rpartition("/")[2]
            # The folder of the video may be in the archive or not.
            parsed = self.layout.parse(f"{path}/{base}") or self.layout.parse(info.filename)
            if parsed is not None:
                yield parsed[1], _ZipImage(archive, info, os.path.basename(place))

    def _in_tar(
        self, path: str, place: Place, stack: ExitStack
    ) -> Iterator[tuple[ParsedName, SourceImage]]:
        if place.members is None:
            return
        begin, end = place.members
        file = stack.enter_context(open(place.path, "rb"))  # noqa: SIM115
        file.seek(begin)
        infos = []
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None and info.offset < end:
                    infos.append(info)
        except tarfile.TarError as error:
            raise VideoError("damaged", f"{place.path} is damaged: {error}") from error
        for info in infos:
            folder, _, base = info.name.rpartition("/")
            key, _, rest = base.partition(".")
            name = f"{folder}/{key}" if folder else key
            parsed = self.layout.parse(f"{path}/{rest}") if name == path else None
            if parsed is not None and info.isfile():
                yield parsed[1], _TarImage(file, info)


def _members(path: str, stack: ExitStack) -> Iterable[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        infos = archive.infolist()
    except FileNotFoundError as error:
        raise VideoError("missing", f"{path} does not exist") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise VideoError("damaged", f"{os.path.basename(path)} is no zip: {error}") from error
    return ((archive, info) for info in infos if not info.is_dir())
