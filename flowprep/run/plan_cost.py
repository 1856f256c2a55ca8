"""Estimates the hours, bytes and shards of a large collection from a probe of a few videos."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowprep.config import ExtractConfig
from flowprep.errors import ConfigError, InputError
from flowprep.inputs.manifest import Manifest
from flowprep.printable import join_lines
from flowprep.run.estimate import PairCost, count_frames, measure_cost, spread
from flowprep.video.fetch import fetched_sample
from flowprep.video.reader import resized_size
from flowprep.words import format_bytes, format_count, format_duration

__all__ = ["COLLECTIONS", "Collection", "CostEstimate", "CostRow", "estimate_cost"]

REFERENCE_PIXELS = 340 * 256
"""Frame size at which the rate of a whole node is given. It is TSN's size."""
_NUM_HEADERS = 30
_NUM_TIMED = 6


@dataclass(frozen=True)
class Collection:
    """A published collection of videos, in numbers."""

    title: str
    num_videos: int
    mean_seconds: float
    fps: float
    width: int
    """Width of the source videos, px. `height` is theirs as well."""
    height: int


COLLECTIONS: dict[str, Collection] = {
    # Soomro, Zamir and Shah 2012, table 2: 13,320 clips, 1,600 minutes, 25 fps, 320x240.
    "ucf101": Collection("UCF101", 13_320, 7.21, 25.0, 320, 240),
    # Kay et al. 2017, table 2: 306,245 clips of 10 s. Rate and size vary; these ones are common.
    "kinetics-400": Collection("Kinetics-400", 306_245, 10.0, 25.0, 1280, 720),
    # Carreira et al. 2019, table 1: 650,317 clips of 10 s.
    "kinetics-700": Collection("Kinetics-700", 650_317, 10.0, 25.0, 1280, 720),
    # Karpathy et al. 2014: 1,133,158 videos; 5 min 36 s on average.
    "sports-1m": Collection("Sports-1M", 1_133_158, 336.0, 25.0, 640, 360),
}
"""The collections that can be planned. Their numbers of videos and mean lengths are published
values."""


@dataclass(frozen=True)
class CostRow:
    """What one collection costs."""

    name: str
    num_videos: int
    num_pairs: float
    width: int
    """Stored width, px. It is 0 for the user's own videos, which may differ in size."""
    height: int
    seconds: float
    """Wall time if all nodes work together and none is idle."""
    num_bytes: float
    num_shards: int


@dataclass(frozen=True)
class CostEstimate:
    """What collections cost with a given configuration and number of nodes."""

    config: ExtractConfig
    cost: PairCost
    """Probed cost of a frame pair on one worker."""
    num_nodes: int
    num_workers_per_node: int
    pairs_per_second_per_node: float
    """Frame pairs per second of one node, at 340x256."""
    is_measured: bool
    """Whether the rate comes from the probe, or was given."""
    rows: tuple[CostRow, ...]
    probe_failures: tuple[str, ...]
    """One sentence for each probed video that failed."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the estimate as JSON values."""
        return dataclasses.asdict(self) | {"config": self.config.to_dict()}

    def summary(self) -> str:
        """Returns the estimate as lines of text."""
        rate = self.pairs_per_second_per_node
        source = (
            f"{format_count(self.num_workers_per_node, 'worker')} like this machine's"
            if self.is_measured
            else "as given"
        )
        bytes_per_pair = self.cost.bytes_per_pair / self.cost.pixels_per_pair * REFERENCE_PIXELS
        lines = [
            f"{format_count(self.num_nodes, 'node')} at {rate:.1f} pairs/s for 340x256 ({source}), "
            f"{format_bytes(bytes_per_pair)} of flow per pair",
            f"  {'':14}{'videos':>10}{'stored':>10}{'pairs':>9}{'time':>14}{'storage':>10}"
            f"{'shards':>8}",
        ]
        for row in self.rows:
            size = f"{row.width}x{row.height}" if row.width else "own size"
            lines.append(
                f"  {row.name:14}{row.num_videos:>10}{size:>10}{_short(row.num_pairs):>9}"
                f"{format_duration(row.seconds):>14}{format_bytes(row.num_bytes):>10}"
                f"{row.num_shards:>8}"
            )
        lines += [f"  probe       {failure}" for failure in self.probe_failures]
        return join_lines(lines)


def estimate_cost(
    manifest: Manifest,
    config: ExtractConfig,
    *,
    collections: Sequence[str] = tuple(COLLECTIONS),
    num_nodes: int = 1,
    num_workers_per_node: int = 1,
    pairs_per_second_per_node: float | None = None,
) -> CostEstimate:
    """Probes some videos of `manifest`; estimates the cost of it and of the named collections.

    Time and bytes are proportional to the stored pixels. `pairs_per_second_per_node` is a node's
    rate at 340x256 that somebody has measured. Without it, the rate is the probe's rate times the
    number of workers. Raises ConfigError for an unknown collection or a number out of range,
    InputError if no video could be probed.
    """
    for name in collections:
        if name not in COLLECTIONS:
            raise ConfigError(f"collection must be one of {', '.join(COLLECTIONS)}, got {name!r}")
    for what, value in (("nodes", num_nodes), ("workers_per_node", num_workers_per_node)):
        if value < 1:
            raise ConfigError(f"{what} must be >= 1, got {value}")
    if pairs_per_second_per_node is not None and not pairs_per_second_per_node > 0:
        raise ConfigError(f"pairs_per_second must be > 0, got {pairs_per_second_per_node:g}")
    failures: list[str] = []
    with fetched_sample(spread(manifest.videos, _NUM_HEADERS), failures) as probed:
        counts = count_frames(probed, config, failures)
    with fetched_sample(spread(manifest.videos, _NUM_TIMED), failures) as probed:
        cost = measure_cost(probed, config, failures)
    if cost is None or not counts:
        raise InputError(
            "no video could be probed, so nothing can be estimated: "
            + ("; ".join(dict.fromkeys(failures)) or "there is none")
            + "; name videos that can be read"
        )
    is_measured = pairs_per_second_per_node is None
    if pairs_per_second_per_node is None:
        scale = cost.pixels_per_pair / REFERENCE_PIXELS
        pairs_per_second_per_node = num_workers_per_node * scale / cost.seconds_per_pair
    rate = num_nodes * pairs_per_second_per_node

    def row(
        name: str, num_videos: int, num_frames: float, pixels: float, size: tuple[int, int]
    ) -> CostRow:
        num_pairs = max(0.0, num_frames - config.flow.step)
        share = pixels / cost.pixels_per_pair
        num_bytes = num_pairs * cost.bytes_per_pair + num_frames * cost.bytes_per_frame
        return CostRow(
            name=name,
            num_videos=num_videos,
            num_pairs=num_videos * num_pairs,
            width=size[0],
            height=size[1],
            seconds=num_videos * num_pairs * pixels / REFERENCE_PIXELS / rate,
            num_bytes=num_videos * share * num_bytes,
            num_shards=math.ceil(num_videos / config.encode.videos_per_shard),
        )

    own = sum(counts) / len(counts)
    rows = [row("these videos", len(manifest.videos), own, cost.pixels_per_pair, (0, 0))]
    for name in collections:
        item = COLLECTIONS[name]
        num_frames = item.mean_seconds * (config.decode.fps or item.fps)
        size = resized_size(item.width, item.height, config.decode)
        if (crop := config.decode.crop) is not None:
            size = min(size[0], crop.width_px), min(size[1], crop.height_px)
        rows.append(row(item.title, item.num_videos, num_frames, size[0] * size[1], size))
    return CostEstimate(
        config=config,
        cost=cost,
        num_nodes=num_nodes,
        num_workers_per_node=num_workers_per_node,
        pairs_per_second_per_node=pairs_per_second_per_node,
        is_measured=is_measured,
        rows=tuple(rows),
        probe_failures=tuple(dict.fromkeys(failures)),
    )


def _short(number: float) -> str:
    """Returns a count such as `76.3 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
