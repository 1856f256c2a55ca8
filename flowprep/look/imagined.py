"""Pictures and films of the videos that please a class: flow by the color wheel, with arrows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowprep.learn.seeing.imagine import ImaginedVideo
from flowprep.learn.seeing.specs import FilmName
from flowprep.look.color import flow_to_color, round_scale
from flowprep.look.film import write_film, write_picture
from flowprep.look.render import RGB, Page, Panel, arrow_factor, draw_arrows, fit, panel_size
from flowprep.storage import Storage

__all__ = ["write_imagined"]

_SPACING_PX = 24
_MOST_COLUMNS = 5
_PLAY_FPS = 8.0
_LEAST_SECONDS = 4
_SCALE_SHARE = 0.99


@dataclass(frozen=True)
class _Strip:
    """One film strip: the flow or the frames of an imagined video."""

    video: ImaginedVideo
    images: tuple[RGB, ...]
    noun: str
    wheel: str

    @property
    def title(self) -> str:
        """The class and what kind of motion."""
        return f"{self.video.class_name} · {self.video.motion}"


def write_imagined(
    videos: Sequence[ImaginedVideo], folder: Path, film: FilmName = "mp4"
) -> list[str]:
    """Writes imagined.png, a film and imagined.json into a folder. Returns their paths.

    The picture has a row for each video and some of its moments; the film plays all videos beside
    each other. Every video's flow has a scale of its own, which covers 99 % of it.
    """
    storage = Storage(str(folder))
    storage.make_folder()
    strips = [strip for video in videos for strip in _strips(video)]
    paths = [folder / name for name in ("imagined.png", f"imagined.{film}", "imagined.json")]
    write_picture(paths[0], _sheet(strips))
    write_film(paths[1], _pages(strips), _PLAY_FPS)
    values = [_values(video) for video in videos]
    storage.write_bytes(paths[2].name, (json.dumps(values, indent=2) + "\n").encode())
    return [str(path) for path in paths]


def _strips(video: ImaginedVideo) -> Iterator[_Strip]:
    if video.flow is not None:
        speeds = np.hypot(video.flow[..., 0], video.flow[..., 1])
        most_px = round_scale(float(np.quantile(speeds, _SCALE_SHARE)))
        size = panel_size(video.flow.shape[2], video.flow.shape[1])
        scale = size[0] / video.flow.shape[2]
        factor = arrow_factor(most_px, scale, _SPACING_PX)
        images = tuple(
            draw_arrows(
                fit(flow_to_color(field, most_px), size),
                np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_LINEAR), np.float32),
                scale=scale,
                factor=factor,
                spacing_px=_SPACING_PX,
                pales=False,
            )
            for field in video.flow
        )
        yield _Strip(video, images, "field", f"{most_px:g} px")
    if video.frames is not None:
        size = panel_size(video.frames.shape[2], video.frames.shape[1])
        yield _Strip(video, tuple(fit(frame, size) for frame in video.frames), "frame", "")


def _sheet(strips: Sequence[_Strip]) -> RGB:
    columns = min(_MOST_COLUMNS, max(len(one.images) for one in strips))
    size = strips[0].images[0].shape[1::-1]
    rows, labels = [], []
    for one in strips:
        places = np.linspace(0, len(one.images) - 1, min(columns, len(one.images))).round()
        rows.append([one.images[int(place)] for place in places])
        scale = f", scale {one.wheel}" if one.wheel else ""
        labels.append(f"{one.title} · {100 * one.video.probability:.0f} %{scale}")
    has_flow = any(one.wheel for one in strips)
    panels = [Panel("") for _ in range(columns)]
    panels[0] = Panel("time runs to the right")
    if has_flow:
        panels[-1] = Panel("flow", wheel="scale", note="hue: direction")
    stream = strips[0].video.stream
    page = Page(panels, size, name=f"imagined · {stream}", num_rows=len(rows))
    return page.draw(rows, labels)


def _pages(strips: Sequence[_Strip]) -> Iterator[RGB]:
    size = strips[0].images[0].shape[1::-1]
    panels = [
        Panel(one.title, wheel=one.wheel, note=f"{100 * one.video.probability:.0f} %")
        for one in strips
    ]
    columns = min(4, len(panels))
    page = Page(panels, size, columns=columns, name=f"imagined · {strips[0].video.stream}")
    length = max(len(one.images) for one in strips)
    pages = [
        page.draw(
            [[one.images[place * len(one.images) // length] for one in strips]],
            [f"{place + 1} of {length}"],
        )
        for place in range(length)
    ]
    # A player stops at the end of an MP4, so a short video is repeated.
    times = max(1, -(-round(_LEAST_SECONDS * _PLAY_FPS) // length))
    return itertools.chain.from_iterable(itertools.repeat(pages, times))


def _values(video: ImaginedVideo) -> dict[str, Any]:
    values: dict[str, Any] = {
        "class": video.class_name,
        "motion": video.motion,
        "stream": video.stream,
        "probability": round(video.probability, 6),
    }
    if video.flow is not None:
        flow = video.flow.reshape(-1, 2).astype(np.float64)
        values["mean_flow_px"] = [round(value, 4) for value in flow.mean(axis=0).tolist()]
        values["mean_speed_px"] = round(float(np.hypot(*flow.T).mean()), 4)
    return values
