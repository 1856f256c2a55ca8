"""The names of the panels of a picture. This file is separate, so that help needs no numpy."""

from __future__ import annotations

__all__ = ["CAMERA", "PANELS"]

PANELS: dict[str, str] = {
    "rgb": "the frame on whose grid the flow is",
    "flow": "Middlebury's colors: hue is the direction, saturation the speed",
    "x": "the stored levels of the horizontal component",
    "y": "those of the vertical component, down is bright",
    "arrows": "arrows over the frame",
    "consistency": "how far forward and backward flow miss one another, px",
    "warp": "how far the warped next frame is from this one, gray levels",
}
"""The panels by name that every flow can have."""
CAMERA = "camera"
"""One more, for flow that is freed of the camera's motion: that motion, as arrows over the frame.
"""
