"""Flow in a notebook: a moving picture that a cell displays automatically."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, EncodeSpec, ExtractConfig, FlowSpec
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import VideoOrKey
from flowprep.errors import ConfigError
from flowprep.local_files import partial_file
from flowprep.look.film import webp_bytes
from flowprep.look.sources import ComputedFlow, FlowSource, StoredFlow, is_dataset
from flowprep.look.view import DrawingSpec, draw_pages
from flowprep.storage_errors import translated_errors
from flowprep.video.types import Frame

__all__ = ["Animation", "show"]


@dataclass(frozen=True)
class Animation:
    """An animated WebP that a notebook displays. `save` writes it to a file."""

    data: bytes
    width: int
    height: int
    num_pages: int
    max_flow_px: float
    """Flow at the rim of the color wheel, px."""
    title: str

    def __repr__(self) -> str:
        return (
            f"Animation({self.title!r}, {self.num_pages} pictures of {self.width}x{self.height} px)"
        )

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(self.data).decode()
        return (
            f'<img src="data:image/webp;base64,{encoded}" alt="{escape(self.title)}" '
            f'width="{self.width}" height="{self.height}" style="max-width: 100%; height: auto">'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the animation unchanged. The path must end in .webp."""
        if Path(path).suffix.lower() != ".webp":
            raise ConfigError(f"path must end in .webp, got {path}")
        path = Path(path)
        with translated_errors("write", str(path)), partial_file(path) as partial:
            partial.write_bytes(self.data)


def show(
    source: FlowDataset | str | os.PathLike[str] | NDArray[np.uint8],
    key: VideoOrKey | None = None,
    *,
    panels: Sequence[str] | None = None,
    start: int = 0,
    length: int | None = 50,
    direction: Direction = "forward",
    max_flow_px: float | None = None,
    width: int | None = None,
    play_fps: float | None = None,
    flow: FlowSpec | None = None,
    device: str = "auto",
) -> Animation:
    """Draws flow beside its frames. A notebook displays the result of a cell's last line.

    `source` is a data set or frames. Of a data set, the video `key` is drawn, or the first video if
    `key` is None. For frames, (N, H, W, 3) uint8 RGB, the flow is computed by `flow` on `device`;
    None means FlowSpec(). `panels` are names from `flowprep.look.panel_names`. `length` fields
    from `start` are drawn, or all if `length` is None. `max_flow_px` is the flow at the rim of the
    wheel; None chooses a value that covers 99 % of the video. `width` is the width of a panel in
    px. Raises ConfigError for arguments that do not fit the source and DatasetError for an unknown
    key.
    """
    spec = DrawingSpec(
        panels=None if panels is None else tuple(panels),
        start=start,
        length=length,
        direction=direction,
        max_flow_px=max_flow_px,
        width=width,
        play_fps=play_fps,
    )
    shown: FlowSource
    if isinstance(source, np.ndarray):
        if key is not None:
            raise ConfigError(
                f"key is only for a data set, not for frames, got {key!r}; leave it out"
            )
        shown, spec = _computed(source, spec, flow or FlowSpec(), device)
    else:
        if flow is not None:
            raise ConfigError(
                "flow is only for frames, and a data set holds its own flow; leave it out"
            )
        if not isinstance(source, FlowDataset) and not is_dataset(source):
            raise ConfigError(
                f"source must be a data set or (N, H, W, 3) uint8 frames, got {source!r}; "
                f"`flowprep view` draws video files"
            )
        dataset = source if isinstance(source, FlowDataset) else open_dataset(source)
        if key is None and not len(dataset.videos):
            raise ConfigError(f"source must hold a video, but {dataset.location} has none yet")
        video = dataset[0] if key is None else dataset.videos.find(key)
        shown = StoredFlow(dataset, video.key)
    try:
        drawing = draw_pages([shown], spec)
        data = webp_bytes(drawing.pages, drawing.fps)
    finally:
        if isinstance(shown, ComputedFlow):
            shown.close()
    return Animation(
        data=data,
        width=drawing.size[0],
        height=drawing.size[1],
        num_pages=drawing.num_pages,
        max_flow_px=drawing.max_flow_px,
        title=shown.name,
    )


def _computed(
    frames: NDArray[np.uint8], spec: DrawingSpec, flow: FlowSpec, device: str
) -> tuple[ComputedFlow, DrawingSpec]:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ConfigError(
            f"frames must be (N, H, W, 3) uint8 RGB, got {frames.dtype} of shape {frames.shape}"
        )
    end = None if spec.length is None else spec.start + spec.length + flow.step
    chosen = frames[spec.start : end]
    pictures = (
        Frame(rgb, np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), float(number))
        for number, rgb in enumerate(np.ascontiguousarray(chosen))
    )
    config = ExtractConfig(flow=flow, encode=EncodeSpec())
    if "consistency" not in (spec.panels or ()):
        config = replace(config, encode=replace(config.encode, directions=(spec.direction,)))
    computed = ComputedFlow(pictures, config, name="frames", first=spec.start, device=device)
    return computed, replace(spec, start=0, length=None)
