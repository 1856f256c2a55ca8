"""Draws some videos of a data set as a sheet: frame and flow side by side.

    python examples/draw_flow.py FLOW_DATASET PICTURE.png [NUM_VIDEOS]

Hue is the direction and saturation the speed, at one scale for the whole sheet; the wheel in the
last place has that scale at its rim.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import flowprep

GAP_PX = 6
TEXT_PX = 14


def main(location: str, picture: str, num_videos: int = 8) -> None:
    """Draws one video of each class first, then further ones."""
    dataset = flowprep.open_dataset(location)
    seen: set[int | None] = set()
    videos = [v for v in dataset.videos if not (v.label in seen or seen.add(v.label))]
    videos = (videos + [v for v in dataset.videos if v not in videos])[:num_videos]

    fields, frames = [], []
    for video in videos:
        middle = video.num_flows // 2
        fields.append(dataset.flow(video.key, middle, 1)[0])
        if dataset.config.encode.keep_rgb:
            frames.append(dataset.frames(video.key, [middle])[0])
    speeds = np.concatenate([np.hypot(f[..., 0], f[..., 1]).ravel() for f in fields])
    max_flow_px = max(1.0, float(np.ceil(np.percentile(speeds, 99))))

    tiles = []
    for number, (video, field) in enumerate(zip(videos, fields, strict=True)):
        color = flowprep.flow_to_color(field, max_flow_px)
        pair = np.concatenate([frames[number], color], axis=1) if frames else color
        name = video.key if video.label is None else dataset.class_names[video.label]
        tiles.append(labelled(pair, name))
    tiles.append(
        labelled(wheel(tiles[0].height - TEXT_PX, max_flow_px), f"rim: {max_flow_px:g} px")
    )

    width, height = max(t.width for t in tiles), max(t.height for t in tiles)
    columns = min(3, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (columns * (width + GAP_PX) + GAP_PX, rows * (height + GAP_PX) + GAP_PX)
    sheet = Image.new("RGB", size, "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (GAP_PX + column * (width + GAP_PX), GAP_PX + row * (height + GAP_PX)))
    sheet.save(picture)
    print(f"{len(videos)} videos of {location} in {picture}")


def labelled(image: NDArray[np.uint8], text: str) -> Image.Image:
    """Puts a line of text above an (H, W, 3) uint8 RGB image."""
    tile = Image.new("RGB", (image.shape[1], image.shape[0] + TEXT_PX), "white")
    tile.paste(Image.fromarray(image), (0, TEXT_PX))
    ImageDraw.Draw(tile).text((0, 0), text, fill="black")
    return tile


def wheel(side_px: int, max_flow_px: float) -> NDArray[np.uint8]:
    """Returns the colour wheel: each place shows the flow that points from the centre to it."""
    axis = np.linspace(-max_flow_px, max_flow_px, side_px)
    u, v = np.meshgrid(axis, axis)
    disc = flowprep.flow_to_color(np.stack([u, v], axis=-1), max_flow_px)
    disc[np.hypot(u, v) > max_flow_px] = 255
    return disc


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
