"""Compares two flows of the same videos, in numbers and in pictures of the worst fields.

compare_datasets, compare_algorithms -> Comparison -> summary(), to_dict(), write_pictures()
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, ExtractConfig, FlowSpec
from flowprep.dataset.quantize import dequantize, quantize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.differences import Differences, find_differences, flatten
from flowprep.errors import ConfigError, InputError, VideoError
from flowprep.flow.metrics import endpoint_error
from flowprep.look.comparison import Comparison, WorstField
from flowprep.look.differences import DifferenceStatistics, DifferenceSums
from flowprep.look.render import RGB
from flowprep.look.sources import named_video

__all__ = ["compare_algorithms", "compare_datasets"]


def compare_datasets(
    a: str | os.PathLike[str] | FlowDataset,
    b: str | os.PathLike[str] | FlowDataset,
    *,
    direction: Direction = "forward",
    num_sampled: int | None = 10,
    num_worst: int = 8,
) -> Comparison:
    """Compares two data sets of the same videos, matched by key.

    `num_sampled` fields of each video are compared, spread evenly over its length; None compares
    all fields. Levels are compared if bound and quantizer are the same. Raises InputError if the
    two data sets have no video in common, or differ in the step or in a video's size; ConfigError
    for a direction that one of them does not have.
    """
    _check_counts(num_sampled, num_worst)
    one, other = (x if isinstance(x, FlowDataset) else open_dataset(x) for x in (a, b))
    names = one.location, other.location
    for dataset in (one, other):
        if direction not in dataset.config.encode.directions:
            raise ConfigError(
                f"direction must be in both data sets, but {dataset.location} has only "
                f"{', '.join(dataset.config.encode.directions)}, got {direction}"
            )
    if one.config.flow.step != other.config.flow.step:
        raise InputError(
            f"both must have the same step, got {one.config.flow.step} in {names[0]} and "
            f"{other.config.flow.step} in {names[1]}"
        )
    keys_a, keys_b = (dict.fromkeys(video.key for video in d.videos) for d in (one, other))
    keys = [key for key in keys_a if key in keys_b]
    only_one = tuple(key for key in keys_a if key not in keys_b)
    only_other = tuple(key for key in keys_b if key not in keys_a)
    if not keys:
        raise InputError(
            f"{names[0]} and {names[1]} must have a video in common, got none: "
            f"{', '.join(only_one[:2]) or 'no videos'} in the first, "
            f"{', '.join(only_other[:2]) or 'no videos'} in the second"
        )
    for key in keys:
        sizes = [(d.videos[key].width, d.videos[key].height) for d in (one, other)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{key} must have the same size in both, got {sizes[0][0]}x{sizes[0][1]} in "
                f"{names[0]} and {sizes[1][0]}x{sizes[1][1]} in {names[1]}; extract both with the "
                "same --resize"
            )
    notes = [*one.notes, *other.notes]
    differing_lengths = [
        key for key in keys if one.videos[key].num_flows != other.videos[key].num_flows
    ]
    if differing_lengths:
        key = differing_lengths[0]
        notes.append(
            f"{len(differing_lengths)} of the videos differ in length, such as {key} with "
            f"{one.videos[key].num_flows} and {other.videos[key].num_flows} fields; only the "
            "fields that both have are compared; extract both from the same videos to compare "
            "all fields"
        )
    differing = _differing(one.config, other.config)
    implementations = one.header.implementation, other.header.implementation
    if implementations[0] != implementations[1]:
        differing["implementation"] = implementations
    tally = _Tally((one.config.flow, other.config.flow), num_worst)
    for key in keys:
        count = min(one.videos[key].num_flows, other.videos[key].num_flows)
        sampled = count if num_sampled is None else min(count, num_sampled)
        # Each field is the middle one of equal parts, so that a single field is the middle one.
        for part in range(sampled):
            index = (2 * part + 1) * count // (2 * sampled)
            levels = [d.quantized(key, index, 1, direction)[0] for d in (one, other)]
            flows = [dequantize(x, s) for x, s in zip(levels, tally.specs, strict=True)]
            read = _Reread(one, other, key, index, direction)
            tally.add(key, index, (flows[0], flows[1]), (levels[0], levels[1]), read)
    one.close()
    other.close()
    return tally.comparison(names, direction, differing, (only_one, only_other), tuple(notes))


def compare_algorithms(
    video: str | os.PathLike[str],
    configs: tuple[ExtractConfig, ExtractConfig],
    *,
    direction: Direction = "forward",
    num_sampled: int | None = 10,
    num_worst: int = 8,
    device: str = "auto",
) -> Comparison:
    """Computes the flow of one video in two ways, and compares the flows without storing them.

    Both ways decode alike, so `configs` may differ only in the flow. `num_sampled` fields are
    computed, spread evenly over the video; None computes all fields. Raises ConfigError for
    configurations that do not fit together, and VideoError if something is wrong with the video.
    """
    from flowprep.flow import build_estimator
    from flowprep.inputs.video import Video
    from flowprep.run.flow_streams import flow_between
    from flowprep.video.decode import open_video

    _check_counts(num_sampled, num_worst)
    specs = configs[0].flow, configs[1].flow
    if configs[0].decode != configs[1].decode or specs[0].step != specs[1].step:
        raise ConfigError("configs must have the same decoding and the same step")
    step = specs[0].step
    source = os.path.abspath(video)
    item = Video(os.path.basename(source), source)
    estimators = [build_estimator(spec.algorithm, spec.parameters, device) for spec in specs]
    count = 0
    if num_sampled is not None:
        # The number of frames in the container may be wrong. So the video is decoded twice, which
        # costs less than flow that is not needed.
        with named_video(video), open_video(item, configs[0].decode) as reader:
            count = max(0, sum(1 for _ in reader) - step)
    wanted = None
    if num_sampled is not None:
        sampled = min(count, num_sampled)
        wanted = {(2 * part + 1) * count // (2 * sampled) for part in range(sampled)}
    tally = _Tally(specs, num_worst)
    with named_video(video), open_video(item, configs[0].decode) as reader:
        for index, (first, last) in enumerate(_pairs(iter(reader), step)):
            if wanted is not None and index not in wanted:
                continue
            grid = first if direction == "forward" else last
            flows = [
                flow_between(estimator, spec, first, last, direction)
                for estimator, spec in zip(estimators, specs, strict=True)
            ]
            levels = [quantize(x, s) for x, s in zip(flows, specs, strict=True)]
            pair = flows[0], flows[1]
            tally.add(item.key, index, pair, (levels[0], levels[1]), _Held(grid.rgb, *pair))
    if not tally.num_fields:
        raise VideoError(
            "too-few-frames", f"{video} must have a pair of frames at step {step}, but it has none"
        )
    names = os.fspath(video), os.fspath(video)
    return tally.comparison(names, direction, _differing(*configs), ((), ()), ())


@dataclass(frozen=True)
class _Reread:
    """Reads a field of two data sets again, so that no field is kept until the worst are drawn."""

    one: FlowDataset
    other: FlowDataset
    key: str
    index: int
    direction: Direction

    def __call__(self) -> tuple[RGB | None, NDArray[np.float32], NDArray[np.float32]]:
        grid = self.index + (self.one.config.flow.step if self.direction == "backward" else 0)
        frame = None
        for dataset in (self.one, self.other):
            if frame is None and dataset.config.encode.keep_rgb:
                frame = dataset.frames(self.key, [grid])[0]
        flows = [
            dataset.flow(self.key, self.index, 1, self.direction)[0]
            for dataset in (self.one, self.other)
        ]
        return frame, flows[0], flows[1]


@dataclass(frozen=True)
class _Held:
    """A computed field that is kept, because it cannot be read again."""

    frame: RGB
    one: NDArray[np.float32]
    other: NDArray[np.float32]

    def __call__(self) -> tuple[RGB | None, NDArray[np.float32], NDArray[np.float32]]:
        return self.frame, self.one, self.other


def _levels_of(spec: FlowSpec) -> str:
    return f"bound {spec.bound_px:g} px and quantizer {spec.quantizer}"


class _Tally:
    """Sums up differences by video, and keeps the worst fields."""

    def __init__(self, specs: tuple[FlowSpec, FlowSpec], num_worst: int) -> None:
        self.specs = specs
        self._num_worst = num_worst
        self._same_levels = (specs[0].bound_px, specs[0].quantizer) == (
            specs[1].bound_px,
            specs[1].quantizer,
        )
        self._videos: dict[str, DifferenceStatistics] = {}
        self._total, self._sums = DifferenceSums(), DifferenceSums()
        self._key: str | None = None
        self._heap: list[tuple[float, int, WorstField]] = []
        self._order = itertools.count()

    def add(
        self,
        key: str,
        index: int,
        flows: tuple[NDArray[np.float32], NDArray[np.float32]],
        levels: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        read: Callable[[], tuple[RGB | None, NDArray[np.float32], NDArray[np.float32]]],
    ) -> None:
        """Counts a field of a video. All fields of one video must come one after the other."""
        if key != self._key:
            self._close_video()
            self._key = key
        error = endpoint_error(*flows)
        for sums in (self._sums, self._total):
            sums.add(error, levels if self._same_levels else None)
        mean_px = float(error.mean())
        # Among equal fields, the first one stays.
        entry = mean_px, -next(self._order), WorstField(key, index, mean_px, read)
        if len(self._heap) < self._num_worst:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def comparison(
        self,
        names: tuple[str, str],
        direction: Direction,
        differing: Differences,
        only_in: tuple[tuple[str, ...], tuple[str, ...]],
        notes: tuple[str, ...],
    ) -> Comparison:
        self._close_video()
        worst = tuple(entry[2] for entry in sorted(self._heap, reverse=True, key=lambda e: e[:2]))
        if not self._same_levels:
            notes = (
                *notes,
                f"levels are not compared, because A has {_levels_of(self.specs[0])} and B has "
                f"{_levels_of(self.specs[1])}; extract both with the same --bound and --quantizer "
                "to compare levels too",
            )
        return Comparison(
            names,
            self.specs,
            direction,
            differing,
            only_in,
            self._videos,
            self._total.statistics(),
            worst,
            notes,
        )

    def _close_video(self) -> None:
        if self._key is not None:
            self._videos[self._key] = self._sums.statistics()
        self._sums = DifferenceSums()

    @property
    def num_fields(self) -> int:
        return self._total.num_fields


def _pairs(frames: Iterator[Any], step: int) -> Iterator[tuple[Any, Any]]:
    window: list[Any] = []
    for frame in frames:
        window.append(frame)
        if len(window) > step:
            yield window.pop(0), frame


def _check_counts(num_sampled: int | None, num_worst: int) -> None:
    if num_sampled is not None and num_sampled < 1:
        raise ConfigError(f"num_sampled must be >= 1, got {num_sampled}")
    if num_worst < 1:
        raise ConfigError(f"num_worst must be >= 1, got {num_worst}")


def _differing(one: ExtractConfig, other: ExtractConfig) -> Differences:
    """Returns the fields of the configurations with different values.

    A parameter that only one algorithm has is left out, because the algorithm's name says it.
    """
    config_a, config_b = flatten(one.to_dict()), flatten(other.to_dict())
    return find_differences(config_a, config_b, [name for name in config_a if name in config_b])
