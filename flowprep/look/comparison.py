"""The result of comparing two flows, as text, JSON values and pictures of the worst fields."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, FlowSpec
from flowprep.differences import Differences, show_value
from flowprep.errors import StorageError
from flowprep.flow.metrics import endpoint_error
from flowprep.look.color import error_ramp, error_to_color, flow_to_color, round_scale
from flowprep.look.differences import DifferenceStatistics
from flowprep.look.film import write_picture
from flowprep.look.render import RGB, Page, Panel, Ramp, fit, panel_size
from flowprep.printable import join_lines
from flowprep.words import cut_middle

__all__ = ["Comparison", "WorstField"]

_MAX_SHOWN_VIDEOS = 30
_MAX_SHOWN_KEYS = 5


@dataclass(frozen=True)
class WorstField:
    """One of the fields that differ most."""

    key: str
    index: int
    mean_px: float
    read: Callable[[], tuple[RGB | None, NDArray[np.float32], NDArray[np.float32]]] = field(
        repr=False
    )
    """Returns the frame whose grid the flows use, and both flows, (H, W, 2) px."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison."""

    names: tuple[str, str]
    specs: tuple[FlowSpec, FlowSpec]
    direction: Direction
    differing: Differences
    """The fields of the configuration that differ, with both values."""
    only_in: tuple[tuple[str, ...], tuple[str, ...]]
    """Keys of the videos that only the first has, and of those that only the second has."""
    videos: dict[str, DifferenceStatistics]
    total: DifferenceStatistics
    worst: tuple[WorstField, ...]
    """The fields with the largest mean differences, largest first."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as JSON values."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "direction": self.direction,
            "differing": {name: list(values) for name, values in self.differing.items()},
            "only_in_a": list(self.only_in[0]),
            "only_in_b": list(self.only_in[1]),
            "all": self.total.to_dict(),
            "videos": {key: one.to_dict() for key, one in self.videos.items()},
            "worst": [
                {"key": one.key, "field": one.index, "mean_px": round(one.mean_px, 4)}
                for one in self.worst
            ],
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """Returns the comparison as lines of text."""
        lines = [
            f"{letter}  {name}: {spec.algorithm}, step {spec.step}, bound {spec.bound_px:g} px, "
            f"{spec.quantizer}"
            for letter, name, spec in zip("AB", self.names, self.specs, strict=True)
        ]
        if self.differing:
            lines.append("differing (A | B)")
            width = max(map(len, self.differing))
            lines += [
                f"  {name:{width}}  {show_value(one)} | {show_value(other)}"
                for name, (one, other) in self.differing.items()
            ]
        for letter, keys in zip("AB", self.only_in, strict=True):
            if keys:
                more = f" and {len(keys) - _MAX_SHOWN_KEYS} more"
                tail = more if len(keys) > _MAX_SHOWN_KEYS else ""
                lines.append(
                    f"only in {letter}: {len(keys)} video{'s' * (len(keys) != 1)}: "
                    f"{', '.join(keys[:_MAX_SHOWN_KEYS])}{tail}"
                )
        lines += [f"note: {note}" for note in self.notes]
        ranked = sorted(self.videos.items(), key=lambda item: -item[1].mean_px)
        shown = ranked[:_MAX_SHOWN_VIDEOS]
        rows = list(shown)
        if len(self.videos) > 1:
            rows.append((f"all {len(self.videos)} videos", self.total))
        width = min(48, max(len(name) for name, _ in rows))
        lines += [
            "",
            f"{'difference in px':{width}}  fields     mean  median     90 %     99 %      max"
            + ("    equal  within 1" if self.total.equal_share is not None else ""),
        ]
        for number, (name, one) in enumerate(rows):
            if number == len(shown) and len(ranked) > len(shown):
                lines.append(f"... and {len(ranked) - len(shown)} that differ less; see --json")
            row = (
                f"{cut_middle(name, width):{width}}  {one.num_fields:6d}  {one.mean_px:7.3f} "
                f"{one.median_px:7.2f}  {one.p90_px:7.2f}  {one.p99_px:7.2f}  {one.max_px:7.2f}"
            )
            if one.equal_share is not None and one.within_one_share is not None:
                row += f"  {100 * one.equal_share:5.1f} %  {100 * one.within_one_share:6.1f} %"
            lines.append(row)
        return join_lines(lines)

    def write_pictures(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes the worst fields as PNGs, worst first: frame, A, B and their difference.

        All pictures share one scale for flow and one for differences. Creates a missing folder.
        """
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            raise StorageError(
                f"{folder} cannot be made: {reason}; choose another place"
            ) from reason
        read = [one.read() for one in self.worst]
        speeds = [np.hypot(*np.moveaxis(flow, -1, 0)) for _, *flows in read for flow in flows]
        errors = [endpoint_error(one, other) for _, one, other in read]
        flow_px = round_scale(max((float(np.quantile(one, 0.99)) for one in speeds), default=1.0))
        error_px = round_scale(max((float(np.quantile(one, 0.99)) for one in errors), default=1.0))
        paths = []
        names = [spec.algorithm for spec in self.specs]
        if names[0] == names[1]:
            names = [os.path.basename(os.path.normpath(name)) for name in self.names]
        scale = Ramp(error_ramp(), "0", f"{error_px:g} px")
        for number, (worst, (frame, one, other), error) in enumerate(
            zip(self.worst, read, errors, strict=True), start=1
        ):
            panels = [
                Panel("frame"),
                Panel(f"A: {names[0]}", wheel=f"{flow_px:g} px"),
                Panel(f"B: {names[1]}", wheel=f"{flow_px:g} px"),
                Panel(f"difference, mean {worst.mean_px:.2f} px", scale),
            ]
            size = panel_size(one.shape[1], one.shape[0], most=480)
            images = [
                *(() if frame is None else (fit(frame, size),)),
                *(fit(flow_to_color(flow, flow_px), size) for flow in (one, other)),
                fit(error_to_color(error, error_px), size),
            ]
            first, last = worst.index, worst.index + self.specs[0].step
            if self.direction == "backward":
                first, last = last, first
            shown = panels[-len(images) :]
            page = Page(shown, size, name=worst.key, columns=len(shown))
            name = re.sub(r"[^\w%.-]+", "_", worst.key)[-100:]
            path = Path(folder) / f"{number:02d}-{name}-{worst.index:06d}.png"
            write_picture(path, page.draw([images], [f"frame {first} to {last}"]))
            paths.append(path)
        return paths
