"""Writes pages to films and pictures.

write_film      MP4, animated WebP or GIF, chosen by the file's ending
write_picture   PNG
"""

from __future__ import annotations

import errno
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from flowprep.errors import ConfigError, StorageError
from flowprep.local_files import partial_file
from flowprep.look.color import error_ramp, flow_to_color
from flowprep.look.render import FAINT, INK, PAPER, RGB
from flowprep.storage_errors import explain

__all__ = [
    "FILM_SUFFIXES",
    "check_folder",
    "webp_bytes",
    "webp_picture",
    "write_film",
    "write_picture",
]

# AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG of FFmpeg's pixfmt.h.
_BT601 = 6
_LIMITED_RANGE = 1

FILM_SUFFIXES = (".mp4", ".webp", ".gif")
"""Endings of moving pictures, in lower case."""


def write_film(path: str | os.PathLike[str], pages: Iterable[RGB], fps: float) -> int:
    """Writes pages of one size as MP4 (H.264), animated WebP or GIF. The path's ending decides.

    Pages are (H, W, 3) uint8 RGB with even sides. The film appears when it is complete. Returns the
    number of pages. Raises ConfigError for another ending or a rate that is not > 0, and
    StorageError if the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FILM_SUFFIXES:
        raise ConfigError(f"a film must end in {', '.join(FILM_SUFFIXES)}, got {path}")
    if not 0 < fps <= 1000:
        raise ConfigError(f"play_fps must be > 0 and <= 1000, got {fps:g}")
    writer = {".mp4": _write_mp4, ".webp": write_webp, ".gif": _write_gif}[suffix]
    count = 0

    def counted() -> Iterator[RGB]:
        nonlocal count
        for page in pages:
            count += 1
            yield page

    with _published(path) as partial:
        writer(partial, counted(), fps)
    return count


def write_picture(path: str | os.PathLike[str], page: RGB) -> None:
    """Writes a page, (H, W, 3) uint8 RGB, as PNG. The file appears when it is complete."""
    with _published(Path(path)) as partial:
        Image.fromarray(page).save(partial, format="PNG")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises StorageError if the folder in which `path` is to be written does not exist."""
    if not Path(path).parent.is_dir():
        raise StorageError(f"the folder of {path} does not exist; make it first")


@contextmanager
def _published(path: Path) -> Iterator[str]:
    """Yields the path of a file beside `path`, which replaces `path` if no error occurs."""
    check_folder(path)
    try:
        with partial_file(path) as partial:
            yield str(partial)
    except av.FFmpegError as error:
        # Of the video that is drawn, unless it is the disk's.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(
            f"{path} cannot be written: {explain(error)[1]}; free space, or choose another place",
            "full",
        ) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}; choose another place") from error


def _write_mp4(path: str, pages: Iterator[RGB], fps: float) -> None:
    options = {"movflags": "+faststart"}
    with av.open(path, "w", format="mp4", options=options) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = cast(
            VideoStream,
            container.add_stream("libx264", rate, {"crf": "18", "preset": "veryfast"}),
        )
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 0
        # FFmpeg converts RGB to BT.601 with limited range. The file says so, because players would
        # otherwise use the color space of high definition for large pictures.
        stream.codec_context.colorspace = _BT601
        stream.codec_context.color_range = _LIMITED_RANGE
        for number, page in enumerate(pages):
            if number == 0:
                stream.height, stream.width = page.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
        container.mux(stream.encode(None))


def write_webp(target: str | IO[bytes], pages: Iterator[RGB], fps: float) -> None:
    """Writes pages of one size as an endless animated WebP to a path or a binary file."""
    first = Image.fromarray(next(pages))
    first.save(
        target,
        format="WEBP",
        save_all=True,
        append_images=(Image.fromarray(page) for page in pages),
        duration=max(1, round(1000 / fps)),
        loop=0,
        quality=85,
        method=2,
    )


def _write_gif(path: str, pages: Iterator[RGB], fps: float) -> None:
    # The whole film has one palette, made from its first pages. One palette per page would make
    # colors flicker.
    begin = list(itertools.islice(pages, 12))
    palette = _gif_palette(np.concatenate(begin[:: max(1, len(begin) // 3)]))

    def quantized(page: RGB) -> Image.Image:
        return Image.fromarray(page).quantize(palette=palette, dither=Image.Dither.NONE)

    rest = (quantized(page) for page in itertools.chain(begin[1:], pages))
    quantized(begin[0]).save(
        path,
        format="GIF",
        save_all=True,
        append_images=rest,
        # GIF counts in hundredths of a second, and viewers slow down pages shorter than two.
        duration=max(20, 10 * round(100 / fps)),
        loop=0,
    )


def _gif_palette(sample: RGB) -> Image.Image:
    """Returns 256 colors: half for paper, ink, wheel and errors, and half for the pictures."""
    angle = np.linspace(-np.pi, np.pi, 30, endpoint=False)
    rays = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    hues = [flow_to_color(speed * rays, 1.0) for speed in (0.25, 0.5, 0.75, 0.999)]
    grays = np.linspace(255, 0, 6)[:, None].repeat(3, axis=1)
    fixed = np.concatenate([*hues, grays, error_ramp()[::28], [INK, FAINT]]).astype(np.uint8)
    own = Image.fromarray(sample).quantize(256 - len(fixed), Image.Quantize.MEDIANCUT)
    rest = np.array(own.getpalette(), np.uint8).reshape(-1, 3)
    # Pillow compares in steps of four levels, and would take a color near white for paper.
    rest[rest.min(axis=1) >= 246] = PAPER
    colors = np.concatenate([fixed, rest]).ravel().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors[: 3 * 256])
    return palette


def webp_bytes(pages: Iterator[RGB], fps: float) -> bytes:
    """Returns pages of one size as an endless animated WebP."""
    file = io.BytesIO()
    write_webp(file, pages, fps)
    return file.getvalue()


def webp_picture(image: RGB, quality: int) -> bytes:
    """Returns a picture, (H, W, 3) uint8 RGB, as a WebP."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return data.tobytes()
