"""Videos of known motion, and data sets of them, for pictures to be drawn of."""

from __future__ import annotations

import numpy as np

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.look.render import MARGIN_PX
from flowprep.synthetic import Layer, Motion, Scene

NUM_FRAMES = 8

QUICK = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))


def scene(velocity_px: tuple[float, float], width: int = 64, height: int = 48) -> Scene:
    return Scene(width, height, (Layer(3, (Motion(velocity_px=velocity_px),)),))


def cells(page: np.ndarray, count: int, width: int = 256, height: int = 192) -> list[np.ndarray]:
    """The pictures of the first row of a film's page, of 64x48 px enlarged four times."""
    top, pitch = MARGIN_PX + 24, width + 12
    return [
        page[top : top + height, MARGIN_PX + n * pitch : MARGIN_PX + n * pitch + width][::4, ::4]
        for n in range(count)
    ]
