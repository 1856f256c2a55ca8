"""Plans the import of a tree: its videos, keys, labels and configuration.

An image does not say which algorithm computed it. `ImportPlan.origin` lists the unknown parts of
the configuration.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowprep.config import (
    DecodeSpec,
    Direction,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Resize,
)
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.exchange.frame_lists import ListLine, read_frame_list
from flowprep.exchange.import_export import KnownExport, read_export, read_samples
from flowprep.exchange.import_fields import check_readable
from flowprep.exchange.import_find import ARRAY_FORMATS, FoundVideos, Place, find_videos
from flowprep.exchange.import_images import ImageReader
from flowprep.exchange.import_spec import ImportSpec
from flowprep.exchange.layouts import LAYOUTS, VIDEOS_FILE
from flowprep.flow.homography import Homography
from flowprep.inputs.entries import check_split
from flowprep.inputs.keys import escape_key
from flowprep.inputs.video import Video

__all__ = ["ImportItem", "ImportPlan"]


@dataclass(frozen=True)
class ImportItem:
    """A video to import."""

    video: Video
    path: str
    """The path of the video below the top of the tree."""
    counts: tuple[int, str] | None = None
    """The number of images that a list gives, and the place in the list."""
    fps: float | None = None
    place: Place | None = None
    """Where it is. None if the tree does not hold it."""
    homographies: Sequence[Homography | None] | None = None
    """The camera's motion in each pair, if an export of flowprep says it."""


class ImportPlan:
    """What will be imported: configuration, videos, classes.

    Raises ConfigError if an option is neither given nor known, or contradicts `flowprep.json`.
    Raises InputError if the tree or a list has no videos, and DatasetError for a damaged
    `flowprep.json`.
    """

    def __init__(self, top: str, spec: ImportSpec) -> None:
        """Reads the tree at the absolute path `top`."""
        self.top = top
        self.layout = LAYOUTS[spec.layout]
        self.notes: list[str] = []
        exported = read_export(top, spec.export_lists)
        if exported is not None and exported.layout != spec.layout:
            raise ConfigError(
                f"layout must be {exported.layout}, as {exported.path} says, got {spec.layout}"
            )
        if exported is not None and spec.format not in (None, exported.format):
            raise ConfigError(
                f"format must be {exported.format}, as {exported.path} says, got {spec.format}"
            )
        found = find_videos(top, self.layout, spec.format if exported is None else exported.format)
        self.notes += found.notes
        self.format = found.format
        check_readable(found.format)
        self.unit = spec.unit
        """What 1 means in arrays of floats."""
        self.comes_from_jpegs = exported is not None
        """Whether arrays were decoded from JPEGs of the configured quality, as an export does."""
        self.config = self._config(spec, exported, found)
        self.origin = self._origin(spec, exported)
        self.items, self.class_names = self._videos(spec, exported, found)

    def __getstate__(self) -> dict[str, Any]:
        # The plan goes to workers without its videos. They get the videos shard by shard.
        return self.__dict__ | {"items": []}

    def _config(
        self, spec: ImportSpec, exported: KnownExport | None, found: FoundVideos
    ) -> ExtractConfig:
        if exported is not None:
            flow, decode, encode = (
                exported.config.flow,
                exported.config.decode,
                exported.config.encode,
            )
            given = {
                "bound_px": spec.bound_px,
                "quantizer": spec.quantizer,
                "step": spec.step,
                "algorithm": spec.algorithm,
            }
            for name, value in given.items():
                if value not in (None, getattr(flow, name)):
                    raise ConfigError(
                        f"{name} must be {getattr(flow, name)}, as {exported.path} says, "
                        f"got {value}"
                    )
            # Other layouts give backward flow the file names of forward flow, so use the direction
            # that the export names.
            directions: tuple[Direction, ...] = (exported.direction,)
            if spec.directions not in (None, directions):
                raise ConfigError(
                    f"directions must be {directions[0]}, as {exported.path} says, got "
                    f"{', '.join(spec.directions)}"
                )
            if spec.unit != "px":
                raise ConfigError(f"unit must be px, as {exported.path} says, got {spec.unit}")
        else:
            if spec.bound_px is None:
                if found.format in ARRAY_FORMATS:
                    raise ConfigError(
                        "bound_px must be given, because flow is clipped to it and stored in 256 "
                        "levels (20 is usual)"
                    )
                raise ConfigError(
                    "bound_px must be given, because the images do not say which flow level 255 "
                    "stands for (20 for TSN and mmaction2; the option -b of denseflow, 32 by "
                    "default)"
                )
            flow = FlowSpec(
                algorithm=spec.algorithm or FlowSpec().algorithm,
                step=1 if spec.step is None else spec.step,
                bound_px=spec.bound_px,
                quantizer=spec.quantizer or "round",
            )
            decode = DecodeSpec(resize=Resize("none", short_px=None))
            encode = EncodeSpec()
            directions = spec.directions or ("forward",)
        self.flow_spec, self.directions = flow, directions
        if found.format in ARRAY_FORMATS:
            if spec.keep_rgb:
                raise ConfigError(f"rgb is not in arrays of flow ({found.format}); leave out --rgb")
            if len(directions) > 1:
                raise ConfigError(
                    f"directions must be one of forward, backward for {found.format}, because its "
                    "names cannot mark the other"
                )
        elif spec.unit != "px":
            raise ConfigError(f"unit must be px for {found.format}, which holds levels")
        self.images = ImageReader(self.top, self.layout, found.format, flow.step, directions[0])
        keep_rgb = spec.keep_rgb
        if keep_rgb is None:
            first = next(iter(found.places.items()))
            keep_rgb = found.format not in ARRAY_FORMATS and self.images.has_frames(*first)
        return ExtractConfig(
            decode,
            flow,
            dataclasses.replace(
                encode,
                directions=directions,
                keep_rgb=keep_rgb,
                videos_per_shard=spec.videos_per_shard,
            ),
        )

    def _origin(self, spec: ImportSpec, exported: KnownExport | None) -> dict[str, Any]:
        origin: dict[str, Any] = {"tree": self.top, "layout": spec.layout}
        if exported is not None:
            return origin | {"implementation": exported.implementation, "unknown": []}
        unknown = ["flow.parameters", "decode"]
        if self.format not in ARRAY_FORMATS:  # Others' JPEGs stay as they are.
            unknown += ["encode.jpeg_quality", "encode.rgb_jpeg_quality"]
        if spec.algorithm is None:
            unknown.insert(0, "flow.algorithm")
        return origin | {"implementation": None, "unknown": unknown}

    def _videos(
        self, spec: ImportSpec, exported: KnownExport | None, found: FoundVideos
    ) -> tuple[list[ImportItem], tuple[str, ...]]:
        listed = _read_lists(spec.lists, found.places)
        known = read_samples(found.places) if exported is None else exported.videos
        paths = list(dict.fromkeys([*found.places, *known, *listed]))
        class_names = () if exported is None else exported.class_names
        folders: dict[str, int] = {}
        has_labels = exported is not None or known or listed
        if not has_labels and all("/" in path for path in found.places):
            class_names = tuple(sorted({path.partition("/")[0] for path in found.places}))
            folders = {name: number for number, name in enumerate(class_names)}
        items = []
        for path in paths:
            labels: tuple[int, ...] = ()
            split = counts = fps = homographies = None
            key = ""
            if (one := known.get(path)) is not None:
                key, labels, split, fps = one.key, one.labels, one.split, one.fps
                homographies = one.homographies
                counts = one.num_flows, VIDEOS_FILE if exported is not None else f"{key}.json"
            if (line := listed.get(path)) is not None:
                labels, counts = line[1].labels, (line[1].count, line[1].origin)
                split = line[0] or split
            elif folders and "/" in path:
                labels = (folders[path.partition("/")[0]],)
            key = key or escape_key(path or os.path.basename(self.top))
            place = found.places.get(path)
            source = os.path.join(self.top, path) if place is None else place.path
            video = Video(key, source, labels, split)
            items.append(ImportItem(video, path, counts, fps, place, homographies))
        times = Counter(item.video.key for item in items)
        if repeated := [key for key, count in times.items() if count > 1]:
            raise DatasetError(f"{self.top} gives two videos the key {repeated[0]}; rename one")
        if listed and (missing := sum(path not in listed for path in found.places)):
            self.notes.append(
                f"{missing} videos are in no list and get no label; add them to a list for labels"
            )
        if listed and exported is None:
            class_names = _class_names_of_folders(items, listed)
        return items, class_names


def _read_lists(
    lists: Sequence[str], there: Collection[str]
) -> dict[str, tuple[str | None, ListLine]]:
    """Returns path -> (split, line). A listed path may have other folders before the path of ours.

    Raises InputError for two lines that contradict each other.
    """
    by_path: dict[str, tuple[str | None, ListLine]] = {}
    for given in lists:
        split, equals, path = given.partition("=")
        if not equals or "/" in split:
            split, path = "", given
        check_split(split, "the split of --list")
        for line in read_frame_list(path):
            parts = [part for part in line.path.split("/") if part not in ("", ".")]
            endings = ["/".join(parts[start:]) for start in range(len(parts))]
            # The list of an export of arrays names files.
            endings += [os.path.splitext(ending)[0] for ending in endings]
            name = next((ending for ending in endings if ending in there), None)
            if name is None:
                name = parts[-1] if line.path.startswith("/") else "/".join(parts)
            known = by_path.setdefault(name, (split or None, line))
            same = (known[0], known[1].count, known[1].labels) == (
                split or None,
                line.count,
                line.labels,
            )
            if not same:
                raise InputError(
                    f"{known[1].origin} and {line.origin} name {name} with other counts, labels "
                    "or splits; name it once"
                )
    return by_path


def _class_names_of_folders(
    items: Sequence[ImportItem], listed: Mapping[str, tuple[str | None, ListLine]]
) -> tuple[str, ...]:
    """Returns the class folders in the order of the listed labels, if folders and labels agree."""
    names: dict[int, str] = {}
    for item in items:
        if item.path not in listed:
            continue
        if len(item.video.labels) != 1 or "/" not in item.path:
            return ()
        folder = item.path.partition("/")[0]
        if names.setdefault(item.video.labels[0], folder) != folder:
            return ()
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        return ()
    return tuple(names[label] for label in range(len(names)))
