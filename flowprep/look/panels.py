"""The panels of a picture of flow: the data that each panel needs, and how it is drawn.

moments   the levels and frames that the panels need, field by field
paint     draws one panel of one moment
legend    the legend under a panel
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, FlowSpec
from flowprep.dataset.quantize import dequantize
from flowprep.errors import ConfigError
from flowprep.flow.consistency import consistency_error, warp_error
from flowprep.flow.homography import Homography, inverse, with_camera_motion
from flowprep.look.color import error_ramp, error_to_color, gray_ramp, levels_to_color
from flowprep.look.panel_names import CAMERA
from flowprep.look.render import RGB, Panel, Ramp, draw_arrows, fit
from flowprep.look.sources import FlowSource

__all__ = [
    "ARROW_SPACING_PX",
    "CONSISTENCY_PX",
    "WARP_LEVELS",
    "Moment",
    "check_panels",
    "legend",
    "moments",
    "paint",
]


# The same in every film, so that two films can be compared. KITTI counts errors beyond 3 px as
# outliers.
CONSISTENCY_PX = 3.0
WARP_LEVELS = 64.0
ARROW_SPACING_PX = 24

# Number of moments that are read at once.
_CHUNK = 16


@dataclass(frozen=True)
class Moment:
    """One field and the data that is drawn with it. Data that no panel needs is None."""

    index: int
    levels: NDArray[np.uint8]  # (H, W, 2)
    reverse: NDArray[np.uint8] | None  # (H, W, 2)
    frame: NDArray[np.uint8] | None  # (H, W, 3), the one on whose grid the flow is
    target: NDArray[np.uint8] | None  # (H, W, 3), the one that it points into
    camera: Homography | None = None
    """The camera's motion of which the flow is freed, in the direction of the flow."""


def check_panels(source: FlowSource, panels: Sequence[str], direction: Direction) -> None:
    if direction not in source.directions:
        raise ConfigError(
            f"{source.name} has no {direction} flow; it has {', '.join(source.directions)}"
        )
    for name in panels:
        if name == CAMERA and source.homographies is None:
            raise ConfigError(
                f"panels camera needs flow that is freed of the camera's motion, and {source.name} "
                "has flow with it; leave the panel out, or extract with --camera-motion homography"
            )
        if name in ("rgb", "arrows", "warp", CAMERA) and not source.has_rgb:
            raise ConfigError(
                f"panels {name} needs RGB frames, and {source.name} was extracted without them; "
                "leave the panel out, or extract with --rgb"
            )
        if name == "consistency" and len(source.directions) < 2:
            raise ConfigError(
                f"panels consistency needs forward and backward flow, and {source.name} has "
                f"{source.directions[0]} only; leave it out, or extract with --directions both"
            )


def moments(
    source: FlowSource, fields: Sequence[int], panels: Sequence[str], direction: Direction
) -> Iterator[Moment]:
    step = source.spec.step
    grid, aim = (0, step) if direction == "forward" else (step, 0)
    reverse: Direction = "backward" if direction == "forward" else "forward"
    with_frame = not {"rgb", "arrows", "warp", CAMERA}.isdisjoint(panels)
    for begin in range(0, len(fields), _CHUNK):
        chunk = list(fields[begin : begin + _CHUNK])
        # The fields of a sheet are far apart, so they are read one by one.
        runs = [chunk] if chunk[-1] - chunk[0] == len(chunk) - 1 else [[one] for one in chunk]
        for run in runs:
            start, count = run[0], len(run)
            levels = source.levels(start, count, direction)
            back = source.levels(start, count, reverse) if "consistency" in panels else None
            frames = source.frames([one + grid for one in run]) if with_frame else None
            targets = source.frames([one + aim for one in run]) if "warp" in panels else None
            for number, index in enumerate(run):
                camera = None if source.homographies is None else source.homographies[index]
                if camera is not None and direction == "backward":
                    camera = inverse(camera)
                yield Moment(
                    index,
                    levels[number],
                    None if back is None else back[number],
                    None if frames is None else frames[number],
                    None if targets is None else targets[number],
                    camera,
                )


def paint(
    panel: str,
    moment: Moment,
    spec: FlowSpec,
    size: tuple[int, int],
    max_flow_px: float,
    arrows: float,
) -> RGB:
    """Draws one panel, (H, W, 3) uint8 of `size`, (width, height)."""
    levels = moment.levels
    shrinks = size[0] < levels.shape[1]
    if panel == "rgb":
        assert moment.frame is not None
        return fit(moment.frame, size)
    if panel == "flow":
        # Levels are linear in px, so their mean is the mean flow. Fewer of them need coloring.
        if shrinks:
            levels = fit(levels, size)
        return fit(levels_to_color(levels, spec, max_flow_px), size)
    if panel in ("x", "y"):
        plane = fit(np.ascontiguousarray(levels[..., 0 if panel == "x" else 1]), size)
        return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB), np.uint8)
    flow = dequantize(levels, spec)
    if panel == CAMERA:
        assert moment.frame is not None
        if moment.camera is None:
            gray = cv2.cvtColor(fit(moment.frame, size), cv2.COLOR_RGB2GRAY)
            return np.asarray(cv2.cvtColor(gray // 2, cv2.COLOR_GRAY2RGB), np.uint8)
        flow, arrows = with_camera_motion(0 * flow, moment.camera), 1.0
    if panel in ("arrows", CAMERA):
        assert moment.frame is not None
        return draw_arrows(
            fit(moment.frame, size),
            np.asarray(cv2.resize(flow, size, interpolation=cv2.INTER_AREA), np.float32),
            scale=size[0] / flow.shape[1],
            factor=arrows,
            spacing_px=ARROW_SPACING_PX,
        )
    reverse = None if moment.reverse is None else dequantize(moment.reverse, spec)
    if moment.camera is not None:
        # The frames and the other direction know where things are, with the camera's motion.
        flow = with_camera_motion(flow, moment.camera)
        reverse = None if reverse is None else with_camera_motion(reverse, inverse(moment.camera))
    if panel == "consistency":
        assert reverse is not None
        error = consistency_error(flow, reverse)
        return fit(error_to_color(error, CONSISTENCY_PX), size)
    assert moment.frame is not None
    assert moment.target is not None
    error = warp_error(moment.frame, moment.target, flow)
    return fit(error_to_color(error, WARP_LEVELS), size)


def legend(panel: str, spec: FlowSpec, max_flow_px: float, arrows: float) -> Panel:
    bound = f"{spec.bound_px:g} px"
    if panel == "rgb":
        return Panel("frame")
    if panel == "flow":
        return Panel("flow", wheel=f"{max_flow_px:g} px", note="hue: direction, strength: speed")
    if panel in ("x", "y"):
        title = "x as stored, right is bright" if panel == "x" else "y as stored, down is bright"
        return Panel(title, Ramp(gray_ramp(), f"-{bound}", f"+{bound}"))
    if panel == "arrows":
        note = "as long as the flow" if arrows == 1 else f"{arrows:g} times the flow"
        return Panel("arrows", note=note)
    if panel == CAMERA:
        return Panel("camera, taken out", note="dark, no arrows: not found, flow is plain")
    if panel == "consistency":
        ramp = Ramp(error_ramp(), "0", f"{CONSISTENCY_PX:g} px", "leaves the frame")
        return Panel("forward against backward", ramp)
    ramp = Ramp(error_ramp(), "0", f"{WARP_LEVELS:g} levels", "leaves the frame")
    return Panel("warped frame against frame", ramp)
