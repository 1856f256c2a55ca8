"""Sound videos to damage: a second of each container and codec at hand, and the real ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["SYNTHETIC", "make_seeds"]

_GRAY = ("-pix_fmt", "gray")
SYNTHETIC: dict[str, tuple[str, ...]] = {
    "h264.mp4": ("-c:v", "libx264", "-bf", "2"),
    "fast.mp4": ("-c:v", "libx264", "-movflags", "+faststart"),
    "parts.mp4": ("-c:v", "libx264", "-g", "5", "-movflags", "+frag_keyframe+empty_moov"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none:pools=1"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2"),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8"),
    "ten.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "odd.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv444p", "-vf", "scale=67:45"),
    "h264.mov": ("-c:v", "libx264"),
    "mjpeg.mov": ("-c:v", "mjpeg"),
    "prores.mov": ("-c:v", "prores_ks"),
    "h264.mkv": ("-c:v", "libx264"),
    "ffv1.mkv": ("-c:v", "ffv1"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "vp8.webm": ("-c:v", "libvpx", "-cpu-used", "8"),
    "mpeg4.avi": ("-c:v", "mpeg4"),
    "msmpeg4.avi": ("-c:v", "msmpeg4v2"),
    "mjpeg.avi": ("-c:v", "mjpeg"),
    "raw.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "huffyuv.avi": ("-c:v", "huffyuv"),
    "gray.avi": ("-c:v", "ffv1", *_GRAY),
    "h264.ts": ("-c:v", "libx264", "-f", "mpegts"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-r", "25", "-f", "mpegts"),
    "mpeg1.mpg": ("-c:v", "mpeg1video", "-r", "25"),
    "flv1.flv": ("-c:v", "flv"),
    "h264.flv": ("-c:v", "libx264"),
    "wmv2.wmv": ("-c:v", "wmv2"),
    "theora.ogv": ("-c:v", "libtheora"),
    "loop.gif": (),
    "raw.y4m": (),
    "raw.h264": ("-c:v", "libx264", "-f", "h264"),
}
"""Options of ffmpeg for each file."""

_CUT_BYTES = 60_000
"""Real videos beyond this are cut to half a second, so that a case stays cheap."""


def make_seeds(folder: Path, ffmpeg: str, data: Path | None) -> list[Path]:
    """Writes the sound videos into `folder`, and returns them in a fixed order.

    With `data`, the folder of real videos, some of those are among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = "testsrc2=size=64x48:rate=10:duration=1"
    for name, options in SYNTHETIC.items():
        _run(ffmpeg, "-f", "lavfi", "-i", source, *options, str(folder / name))
    turned = folder / "turned.mov"
    _run(ffmpeg, "-display_rotation", "90", "-i", folder / "h264.mov", "-c", "copy", turned)
    for path in _real(data) if data is not None else ():
        target = folder / f"real-{path.stem.lstrip('-')[:24]}{path.suffix}"
        if path.stat().st_size <= _CUT_BYTES:
            shutil.copyfile(path, target)
        else:
            _run(ffmpeg, "-t", "0.5", "-i", path, "-map", "0:v:0", "-c", "copy", target)
    return sorted(folder.iterdir())


def _real(data: Path) -> list[Path]:
    ucf101 = sorted((data / "ucf101" / "videos").rglob("*.avi"))
    found = [*sorted((data / "clips").iterdir()), *sorted((data / "odd").iterdir())]
    return [*found, *sorted((data / "asl").glob("*.mkv"))[:2], *ucf101[::12]]


def _run(ffmpeg: str, *options: str | Path) -> None:
    # In one thread and without dates and versions, so that the files are the same every time.
    exact = ("-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-y")
    *given, target = map(str, options)
    subprocess.run(
        [ffmpeg, "-v", "error", "-nostdin", *given, *exact, target],
        check=True,
        stdout=subprocess.DEVNULL,
    )
