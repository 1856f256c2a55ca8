"""Pictures, films and tables of what in a video speaks for a class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from flowprep.learn.seeing.explain import Explained, Explanation, Heat
from flowprep.learn.seeing.specs import FilmName
from flowprep.look.color import levels_to_color
from flowprep.look.film import write_film, write_picture
from flowprep.look.render import (
    FAINT,
    INK,
    MARGIN_PX,
    PAPER,
    RGB,
    Page,
    Panel,
    Ramp,
    fit,
    font,
    paled,
    panel_size,
)
from flowprep.look.sources import StoredFlow
from flowprep.printable import one_line
from flowprep.storage import Storage

__all__ = ["explanation_values", "heat_ramp", "share_bars", "write_explanation"]

_NUM_ROWS = 5
_CHART_PX = 64
_FOR, _AGAINST, _CURSOR = (8, 81, 156), (203, 24, 29), (34, 38, 43)
# From blue over green and yellow to red, as in the figures of the paper.
_HEAT_COLORS = np.array(
    [(48, 60, 160), (40, 130, 200), (70, 180, 120), (235, 210, 60), (225, 110, 40), (190, 20, 30)]
)


def heat_ramp() -> NDArray[np.uint8]:
    """Returns the 256 colors of heat, (256, 3) RGB."""
    place = np.linspace(0, len(_HEAT_COLORS) - 1, 256)
    known = np.arange(len(_HEAT_COLORS))
    columns = [np.interp(place, known, _HEAT_COLORS[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(columns, axis=-1)), np.uint8)


def write_explanation(explanation: Explanation, folder: Path, film: FilmName = "mp4") -> list[str]:
    """Writes explained.png, a film and explained.json into a folder. Returns their paths.

    Frame and flow stand beside where each network looks; below are the weights of the moments.
    """
    storage = Storage(str(folder))
    storage.make_folder()
    drawing = _Drawing(explanation)
    paths = [folder / name for name in ("explained.png", f"explained.{film}", "explained.json")]
    write_picture(paths[0], drawing.sheet())
    write_film(paths[1], drawing.pages(), explanation.networks[0].video.fps or 25.0)
    text = json.dumps(explanation_values(explanation), indent=2) + "\n"
    storage.write_bytes(paths[2].name, text.encode("utf-8", "backslashreplace"))
    return [str(path) for path in paths]


def explanation_values(explanation: Explanation) -> dict[str, Any]:
    """Returns an explanation as JSON values. Times are in seconds, or null without a rate."""
    return {
        "video": explanation.video,
        "class": explanation.class_name,
        "is_predicted": explanation.is_predicted,
        "networks": [_network_values(one) for one in explanation.networks],
    }


def _network_values(one: Explained) -> dict[str, Any]:
    fps = one.video.fps

    def seconds(frame: int) -> float | None:
        return round(frame / fps, 4) if fps else None

    return {
        "model": one.model,
        "stream": one.stream,
        "probability": round(one.probability, 6),
        "moments": [
            {
                "segment": [seconds(moment.first_frame), seconds(moment.stop_frame)],
                "frames": [moment.first_frame, moment.stop_frame],
                "weight": None if moment.weight is None else round(moment.weight, 6),
                "share": round(moment.share, 6),
            }
            for moment in one.moments
        ],
        "frame_weights": {
            stream: [None if np.isnan(value) else round(value, 6) for value in values.tolist()]
            for stream, values in one.weights.items()
        },
    }


class _Drawing:
    """The panels of a video: frame and flow as they are, then each network's heat over them."""

    def __init__(self, explanation: Explanation) -> None:
        self._explanation = explanation
        networks = explanation.networks
        self._plain = next((one for one in networks if one.stream in ("flow", "both")), networks[0])
        self._sources = {id(one): StoredFlow(one.dataset, one.video.key) for one in networks}
        source = self._sources[id(self._plain)]
        self._size = panel_size(source.width, source.height, most=400)
        self._max_flow_px = source.suggest_scale(source.directions[0])
        self._sees_flow = self._plain.stream in ("flow", "both")
        self._has_frames = source.has_rgb
        self._panels: list[Panel] = [Panel("frame")] if self._has_frames else []
        if self._sees_flow:
            wheel = f"{self._max_flow_px:g} px"
            self._panels.append(Panel("flow", wheel=wheel, note="hue: direction"))
        ramp = Ramp(heat_ramp(), "nothing", explanation.class_name)
        self._looks = [look for one in networks for look in self._looks_of(one)]
        for one, _, over in self._looks:
            self._panels.append(Panel(f"{one.model} ({one.stream}), over the {over}", ramp))

    def _looks_of(self, one: Explained) -> Iterator[tuple[Explained, Heat, str]]:
        for heat in one.heats:
            if self._sources[id(one)].has_rgb:
                yield one, heat, "frame"
            if "flow" in heat.streams:
                yield one, heat, "flow"

    def sheet(self) -> RGB:
        """Returns rows of frames at equal distances, with the weights of the moments below."""
        count = self._explanation.num_frames
        frames = np.linspace(0, count - 1, min(_NUM_ROWS, count)).round().astype(int).tolist()
        page = Page(self._panels, self._size, name=self._title(), num_rows=len(frames))
        labels = [self._label(frame) for frame in frames]
        drawn = page.draw([self._images(frame) for frame in frames], labels)
        return self._with_charts(drawn, None)

    def pages(self) -> Iterator[RGB]:
        """Yields a page for each frame."""
        page = Page(self._panels, self._size, name=self._title())
        for frame in range(self._explanation.num_frames):
            drawn = page.draw([self._images(frame)], [self._label(frame)])
            yield self._with_charts(drawn, frame)

    def _title(self) -> str:
        return one_line(f"{self._plain.video.key} · {self._explanation.class_name}")

    def _label(self, frame: int) -> str:
        fps = self._plain.video.fps
        return f"frame {frame}" + (f" · {frame / fps:.2f} s" if fps else "")

    def _images(self, frame: int) -> list[RGB]:
        images = [self._frame(self._plain, frame)] if self._has_frames else []
        if self._sees_flow:
            images.append(self._flow(self._plain, frame))
        for one, heat, over in self._looks:
            below = self._frame(one, frame) if over == "frame" else self._flow(one, frame)
            images.append(_heated(below, heat.values[frame], fades=over == "flow"))
        return images

    def _frame(self, one: Explained, frame: int) -> RGB:
        return fit(self._sources[id(one)].frames([frame])[0], self._size)

    def _flow(self, one: Explained, frame: int) -> RGB:
        source = self._sources[id(one)]
        place = min(frame, source.num_flows - 1)
        levels = source.levels(place, 1, source.directions[0])[0]
        return fit(levels_to_color(levels, source.spec, self._max_flow_px), self._size)

    def _with_charts(self, page: RGB, frame: int | None) -> RGB:
        width = page.shape[1]
        charts = [
            _chart(one, self._explanation.num_frames, width, frame)
            for one in self._explanation.networks
        ]
        return np.concatenate([page, *charts])


def _heated(image: RGB, heat: NDArray[np.float32], *, fades: bool) -> RGB:
    """Returns an image under its heat; with `fades`, only its hot parts keep their colors."""
    size = (image.shape[1], image.shape[0])
    outside = np.isnan(heat)
    warm = cv2.resize(np.where(outside, 0, heat), size, interpolation=cv2.INTER_LINEAR)
    warm = np.clip(warm, 0, 1)
    gray = paled(image)
    if fades:
        share = warm[..., None]
        mixed = image * share + gray * (1 - share)
    else:
        colors = heat_ramp()[np.rint(255 * warm).astype(np.uint8)]
        share = 0.25 + 0.35 * warm[..., None]
        mixed = colors * share + image * (1 - share)
    hidden = cv2.resize(outside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    mixed = np.where(hidden[..., None] > 0, gray, mixed)
    return np.asarray(np.rint(mixed), np.uint8)


def _chart(one: Explained, num_frames: int, width: int, frame: int | None) -> RGB:
    """Draws the weights of the moments of a network over time, with a cursor at a frame."""
    picture = Image.new("RGB", (width, _CHART_PX), PAPER)
    draw = ImageDraw.Draw(picture)
    left, right, base = MARGIN_PX, width - MARGIN_PX, _CHART_PX - 16
    words = f"{one.model} ({one.stream}) {100 * one.probability:.0f} %: weight of each moment"
    draw.text((left, 0), words, FAINT, font(12))
    weights = [abs(moment.weight or 0.0) for moment in one.moments]
    most = max(weights) or 1.0
    room = base - 20
    for moment in one.moments:
        x0, x1 = (
            left + (right - left) * edge / num_frames
            for edge in (moment.first_frame, min(moment.stop_frame, num_frames))
        )
        height = room * abs(moment.weight or 0.0) / most
        color = _FOR if (moment.weight or 0.0) > 0 else _AGAINST
        draw.rectangle((x0 + 1, base - height, max(x0 + 1, x1 - 1), base), fill=color)
        if moment.share >= 0.005 and x1 - x0 > 34:
            share = f"{100 * moment.share:.0f} %"
            draw.text((x0 + 3, base + 2), share, INK, font(11))
    draw.line((left, base, right, base), fill=FAINT)
    if frame is not None:
        x = left + (right - left) * (frame + 0.5) / num_frames
        draw.line((x, 16, x, base + 4), fill=_CURSOR, width=2)
    return np.array(picture)


def share_bars(networks: Sequence[Explained]) -> list[str]:
    """Returns lines of text: the moments of each network, and how much each counts."""
    lines = []
    for one in networks:
        lines.append(f"  {one.model} ({one.stream}): {100 * one.probability:.1f} %")
        for moment in one.moments:
            bar = "#" * round(30 * moment.share)
            if moment.weight is None:
                bar = "not seen"
            elif moment.weight < 0:
                bar = "speaks against it"
            fps = one.video.fps
            span = (
                f"{moment.first_frame / fps:7.2f} to {moment.stop_frame / fps:7.2f} s"
                if fps
                else f"frames {moment.first_frame:5} to {moment.stop_frame:5}"
            )
            lines.append(f"    {span}  {100 * moment.share:5.1f} %  {bar}".rstrip())
    return lines
