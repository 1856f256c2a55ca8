"""Writes the table of docs/networks.md: `python -m tests.learn.networks_table`.

Everything in the table follows from `flowprep.learn.networks`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.create import create_model
from flowprep.learn.models.cost import count_macs, count_parameters
from flowprep.learn.networks import NETWORKS, Network
from flowprep.words import format_count

__all__ = ["PAGE", "table", "written_table"]

PAGE = Path(__file__).parents[2] / "docs/networks.md"
CROP_PX = 224
NUM_CLASSES = 101


def table() -> str:
    """Returns the table, a row for each network."""
    header = (
        "| `--model` | what it is | paper | `--stream`: what it takes of a clip | segments | "
        "its own options | parameters | multiply-adds |",
        "|---|---|---|---|---|---|---|---|",
    )
    return "\n".join([*header, *(_row(name, network) for name, network in NETWORKS.items())])


def written_table() -> str:
    """Returns the table that the page has: the first one."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index("| ") :].partition("\n\n")[0]


def _row(name: str, network: Network) -> str:
    streams = [
        f"`{stream}`: {' and '.join(map(_input, inputs))}"
        for stream, inputs in network.inputs.items()
    ]
    options = [f"`--{item.name.replace('_', '-')}`" for item in dataclasses.fields(network.options)]
    parameters, macs = _cost(name, network)
    cells = (
        f"`{name}`",
        network.description,
        network.paper,
        "; ".join(streams),
        str(network.num_segments) if network.sees == "segments" else "",
        ", ".join(options),
        f"{parameters / 1e6:.2f} M",
        f"{macs / 1e9:.2f} G",
    )
    return f"| {' | '.join(cells)} |"


def _input(one: ClipInput) -> str:
    words = {"flow": "field", "rgb": "frame", "rgb-difference": "difference"}
    count = format_count(one.num_frames, words[one.stream])
    stride = f", every {one.frame_stride}" if one.frame_stride > 1 else ""
    return f"{one.form} of {count}{stride}"


def _cost(name: str, network: Network) -> tuple[int, int]:
    """Returns the parameters, and the multiply-adds of one clip, of the first stream."""
    stream = next(iter(network.inputs))
    with torch.device("meta"):
        model = create_model(name, stream=stream, num_classes=NUM_CLASSES, crop_px=CROP_PX)
    together = model.num_segments or 1
    clips = (1, together) if model.joins_segments else (1,)
    shapes = [(*clips, *one.shape(CROP_PX)) for one in model.inputs]
    return count_parameters(model), count_macs(model, *shapes) // together


def main() -> None:
    """Rewrites the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(written_table(), table(), 1), encoding="utf-8")


if __name__ == "__main__":
    main()
