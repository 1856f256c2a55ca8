"""The shape of a source's pixels, and the size at which players show them.

Television and DV store 720 px per line for 4:3 and for 16:9, and separately the width of a pixel.
"""

from __future__ import annotations

from fractions import Fraction

from av.video.stream import VideoStream

from flowprep.errors import VideoError

__all__ = ["MAX_PIXEL_ASPECT", "displayed_size", "is_plausible", "stated_aspect"]

MAX_PIXEL_ASPECT = 10
"""A pixel more elongated than this counts as a damaged header. Real pixels reach 4, for example in
films whose fields or eyes are stored side by side."""

MAX_DISPLAYED_PIXELS = 8192 * 8192
"""The same limit as for decoded pictures; see `pyav_decoder.MAX_DECODED_PIXELS`."""


def stated_aspect(stream: VideoStream) -> Fraction:
    """Returns width by height of a decoded pixel, or 1 if neither container nor stream says it.

    The container takes precedence, as in FFmpeg's av_guess_sample_aspect_ratio. A ratio with 0
    means unknown.
    """
    try:
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    except ZeroDivisionError:  # PyAV makes fractions of any two numbers
        return Fraction(1)
    return Fraction(aspect) if aspect and aspect > 0 else Fraction(1)


def is_plausible(aspect: Fraction) -> bool:
    """Whether real pixels may have this shape."""
    return Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT


def displayed_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Returns (width, height) in px of a picture when its pixels are square.

    The width is scaled and the height stays, as with FFmpeg's `scale=iw*sar:ih`, but rounded half
    up. Raises VideoError if the picture would be too large to decode.
    """
    wide = max(1, (2 * width * aspect.numerator + aspect.denominator) // (2 * aspect.denominator))
    if wide * height > MAX_DISPLAYED_PIXELS:
        raise VideoError(
            "too-large",
            f"its pictures of {width}x{height} px with pixels of {aspect.numerator}:"
            f"{aspect.denominator} are {wide}x{height} px of square pixels, more than "
            f"{MAX_DISPLAYED_PIXELS} px (MAX_DISPLAYED_PIXELS)",
        )
    return wide, height
