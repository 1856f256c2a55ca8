"""The versions of what takes part in the numbers: what they are here, and whether they may differ.

    environment(config)          what computes on this machine
    compare(then, now, ...)      that against a data set that goes on, or against a cluster's driver

What changes numbers is refused, and the refusal names what to install. Everything else is a note.

    changes numbers                                 because
    the estimator's implementation                  its author says so: `flowprep-1`, `opencv-5`
    OpenCV's major where an estimator calls it      a part of that implementation
    FFmpeg's major where it decodes                 MPEG-4 part 2 is computed otherwise

Everything else of OpenCV that takes part (resizing, gray, JPEG, and what flowprep's own estimators
call) gave the same bytes with OpenCV 4.14 and 5.0. The encoder of JPEGs is named besides (`jpeg`):
another one may write other bytes, but not other levels.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import av
import cv2
import numpy as np

import flowprep._version
from flowprep.config import ExtractConfig
from flowprep.dataset.layout import DatasetHeader
from flowprep.errors import ConfigError
from flowprep.flow.estimators import implementation_of, libraries_of
from flowprep.flow.homography import CAMERA_VERSION
from flowprep.flow.parameters import is_own
from flowprep.inputs.places import kind_of
from flowprep.video.decord_reader import decord_is_missing

__all__ = ["Conflict", "Environment", "compare", "environment", "some_are_files", "version_note"]

_OPENCV_PACKAGE = "opencv-contrib-python-headless"
_DECODERS = {"av": "PyAV", "decord": "decord"}
"""The packages that bring FFmpeg, by their names for people."""
JPEG_ENCODER = "flowprep-1"
"""The version of `flowprep.dataset.jpeg.encode`. One that writes other bytes gets a new number."""
_FFMPEG_OF_LIBAVCODEC = 54
"""libavcodec 58 is FFmpeg 4, 62 is FFmpeg 8: RELEASE_NOTES of FFmpeg 4.0 to 8.0."""


@dataclass(frozen=True)
class Environment:
    """What numbers are computed with."""

    implementation: str
    """The estimator's."""
    versions: Mapping[str, str]
    """Of the libraries that take part in the numbers, and of the user's code. Data sets of earlier
    versions were stored without FFmpeg's."""

    @classmethod
    def of(cls, header: DatasetHeader) -> Environment:
        """Returns that of the run that began a data set."""
        return cls(header.implementation, header.versions)


@dataclass(frozen=True)
class Conflict:
    """A difference that changes numbers."""

    field: str
    """`implementation`, `opencv` or `ffmpeg`."""
    then: str
    """Such as `OpenCV 4.13.0`."""
    now: str
    why: str
    """A clause."""
    install: str
    """What pip is to install, to have what there was; empty where that is no package."""


def compare(
    then: Environment,
    now: Environment,
    algorithm: str,
    decodes_files: Callable[[], bool],
) -> tuple[Conflict | None, dict[str, tuple[str, str]]]:
    """Returns what changes numbers, if anything does, and all versions that differ, by library.

    Versions are (then, now). `decodes_files` says whether FFmpeg decodes at all, which takes a look
    at the videos; it is asked only where that matters.
    """
    differing = {
        name: (then.versions[name], now.versions[name])
        for name in then.versions
        if name in now.versions and then.versions[name] != now.versions[name]
    }
    if then.implementation != now.implementation:
        return _other_implementation(then, now, algorithm), differing
    before, after = (_major(one.versions.get("ffmpeg", "")) for one in (then, now))
    if before and after and before != after and decodes_files():
        package = next(name for name in _DECODERS if name in now.versions)
        version = then.versions.get(package, "")
        conflict = Conflict(
            "ffmpeg",
            _decoder(package, then.versions),
            _decoder(package, now.versions),
            "videos may decode to other pixels with it",
            f"{package}=={version}" if version else "",
        )
        return conflict, differing
    return None, differing


def some_are_files(sources: Iterable[str]) -> bool:
    """Whether any source is a video file, and not a folder of images, which OpenCV decodes."""
    return any(kind_of(source) != "folder" for source in sources)


def version_note(differing: Mapping[str, tuple[str, str]], places: tuple[str, str]) -> list[str]:
    """Returns a sentence on library versions that differ but change no numbers; [] for none.

    `places` say where the versions are, such as `in the data set` and `in this run`.
    """
    names = _DECODERS | {"opencv": "OpenCV", "ffmpeg": "FFmpeg", "jpeg": "JPEG encoder"}
    words = [
        f"{names.get(name, name)} {then} {places[0]} and {now} {places[1]}"
        for name, (then, now) in differing.items()
    ]
    if not words:
        return []
    return [
        f"library versions differ, but not in what changes numbers: {', '.join(words)}; the "
        "KEY.json of each video names those that it was extracted with; install the same versions "
        "if they should be the same everywhere"
    ]


def _other_implementation(then: Environment, now: Environment, algorithm: str) -> Conflict:
    old, new = then.implementation, now.implementation
    why = f"{algorithm} gives other numbers with it"
    for library, name, package in (
        ("opencv", "OpenCV", _OPENCV_PACKAGE),
        ("flowprep", "flowprep", "flowprep"),
    ):
        majors = [re.fullmatch(rf"{library}-(\d+)", one) for one in (old, new)]
        if majors[0] is None or majors[1] is None:
            continue
        versions = [one.versions.get(library) or one.implementation for one in (then, now)]
        if library == "opencv":
            install = f"{package}>={majors[0][1]},<{int(majors[0][1]) + 1}"
        else:
            install = f"{package}=={then.versions[library]}" if library in then.versions else ""
        return Conflict("implementation", f"{name} {versions[0]}", versions[1], why, install)
    return Conflict("implementation", old, new, why, "")


def _decoder(package: str, versions: Mapping[str, str]) -> str:
    version = versions.get(package)
    name = _DECODERS[package] if version is None else f"{_DECODERS[package]} {version}"
    return f"{name} with FFmpeg {versions['ffmpeg']}"


def _major(version: str) -> str:
    return version.partition(".")[0]


# ---- what is here


@functools.cache
def environment(config: ExtractConfig) -> Environment:
    """Returns what this machine computes with.

    Raises ConfigError where the estimator or the decoder that the user names cannot be had.
    """
    package = {"pyav": "av", "decord": "decord"}[config.decode.decoder]
    flow = config.flow
    implementation = implementation_of(flow.algorithm, flow.parameters)
    if flow.camera_motion == "homography":
        # OpenCV follows the corners and searches for the homography.
        implementation += f", camera-{CAMERA_VERSION} of opencv-{_major(cv2.__version__)}"
    versions = {
        "flowprep": flowprep._version.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "numba": importlib.metadata.version("numba"),
        "jpeg": JPEG_ENCODER,
        package: _version_of(package),
    }
    ffmpeg = _ffmpeg_of_pyav() if package == "av" else _ffmpeg_of_decord()
    if ffmpeg is not None:
        versions["ffmpeg"] = ffmpeg
    for library in libraries_of(flow.algorithm):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"libraries of {flow.algorithm} must be installed packages, got {library!r}, which "
                "is not; install it, or correct the class"
            ) from None
    if is_own(flow.algorithm):
        versions["estimator"] = implementation
    return Environment(implementation, versions)


def _version_of(decoder: str) -> str:
    try:
        return importlib.metadata.version(decoder)
    except importlib.metadata.PackageNotFoundError:
        if decoder != "decord":
            raise
        raise decord_is_missing() from None


def _ffmpeg_of_pyav() -> str:
    """Returns FFmpeg's version, or its major alone of one that was built between two releases."""
    match = re.match(r"n?(\d+\.[\d.]*\d)", str(getattr(av, "ffmpeg_version_info", "")))
    if match:
        return match[1]
    return str(av.library_versions["libavcodec"][0] - _FFMPEG_OF_LIBAVCODEC)


def _ffmpeg_of_decord() -> str | None:
    """Returns the major of the FFmpeg in decord's wheel; None of a decord that came otherwise."""
    for file in importlib.metadata.files("decord") or ():
        if match := re.match(r"libavcodec[^.]*\.so\.(\d+)", file.name):
            return str(int(match[1]) - _FFMPEG_OF_LIBAVCODEC)
    return None
