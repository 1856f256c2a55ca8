"""The inputs of networks that tests make by hand."""

from __future__ import annotations

from flowprep.learn.clip_inputs import ClipInput

__all__ = ["stack", "volume"]


def stack(num_channels: int) -> tuple[ClipInput]:
    """Flow where the channels are even, otherwise RGB."""
    if num_channels % 2 == 0:
        return (ClipInput("flow", "flow", "stack", num_channels // 2),)
    return (ClipInput("rgb", "rgb", "stack", num_channels // 3),)


def volume(num_channels: int, num_frames: int = 8) -> tuple[ClipInput]:
    """Flow of 2 channels, RGB of 3."""
    stream = "flow" if num_channels == 2 else "rgb"
    return (ClipInput(stream, stream, "volume", num_frames),)
