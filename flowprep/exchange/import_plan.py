"""Plans the import of a tree: its videos, keys, labels and configuration.

An image does not say which algorithm computed it. `ImportPlan.origin` lists the unknown parts of
the configuration.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowprep.config import (
    DecodeSpec,
    Direction,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Quantizer,
    Resize,
)
from flowprep.errors import ConfigError, DatasetError, InputError, VideoError
from flowprep.exchange.export_state import find_export
from flowprep.exchange.frame_lists import ListLine, read_frame_list
from flowprep.exchange.layouts import (
    EXPORT_FILE,
    IMPORTABLE_LAYOUTS,
    LAYOUTS,
    VIDEOS_FILE,
    FileKind,
    ParsedName,
    TreeLayout,
)
from flowprep.inputs.entries import check_split
from flowprep.inputs.keys import check_key, escape_key
from flowprep.inputs.video import Video

__all__ = ["IMPORTED", "ImportItem", "ImportPlan", "ImportSpec"]

IMPORTED = "imported"
"""The implementation that an imported data set names: no estimator is called so."""


@dataclass(frozen=True)
class ImportSpec:
    """What a tree holds. A field that is None is read from the tree's `flowprep.json`, if any."""

    layout: str = "mmaction2"
    """The project whose file layout the tree has."""
    bound_px: float | None = None
    """The flow that level 255 stands for, in px: 20 for TSN and mmaction2, denseflow's -b."""
    quantizer: Quantizer | None = None
    """How px became levels. denseflow, dense_flow and gpu_flow use `round`."""
    step: int | None = None
    """Flow goes from frame t to t + step. The default is 1."""
    directions: tuple[Direction, ...] | None = None
    """Directions to import. The default is forward. Only denseflow's file names mark backward
    flow."""
    algorithm: str | None = None
    """The algorithm that computed the flow, if the user knows it."""
    keep_rgb: bool | None = None
    """Import the RGB frames too. None imports them if the first video has them."""
    lists: tuple[str, ...] = ()
    """Frame lists with labels, `SPLIT=PATH` or `PATH`. Without lists, class folders give the
    labels."""
    videos_per_shard: int = 100
    """Videos per tar file."""

    def __post_init__(self) -> None:
        if self.layout not in IMPORTABLE_LAYOUTS:
            raise ConfigError(
                f"layout must be one of {', '.join(IMPORTABLE_LAYOUTS)}, got {self.layout!r}"
            )
        layout = LAYOUTS[self.layout]
        if self.directions not in (None, ("forward",)) and not layout.names_direction_and_step:
            raise ConfigError(
                f"directions must be forward for layout {self.layout}, because its file names "
                f"cannot mark backward flow; got {', '.join(self.directions or ())}"
            )


@dataclass(frozen=True)
class _Known:
    """What `flowprep-videos.jsonl` says about a video."""

    key: str
    labels: tuple[int, ...]
    split: str | None
    num_flows: int
    fps: float | None


@dataclass(frozen=True)
class _FlowprepExport:
    """`flowprep.json` and `flowprep-videos.jsonl` of a tree that flowprep wrote."""

    config: ExtractConfig
    direction: Direction
    layout: str
    implementation: str
    class_names: tuple[str, ...]
    videos: Mapping[str, _Known]
    """The videos by path."""


def _read_export(top: str) -> _FlowprepExport | None:
    state = find_export(top)
    if state is None:
        return None
    path = state.file(EXPORT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        config = ExtractConfig.from_dict({n: values[n] for n in ("decode", "flow", "encode")})
        videos = {}
        listed = state.file(VIDEOS_FILE)
        if not listed.is_file():
            raise ValueError(f"{VIDEOS_FILE} is missing; run the same export again to its end")
        with open(listed, encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                check_key(one["key"])
                labels = tuple(int(label) for label in one["labels"])
                videos[str(one["path"])] = _Known(
                    one["key"], labels, one["split"], one["num_flows"], one["fps"]
                )
        if values["file_format"] != "jpg":
            raise ValueError(f"format {values['file_format']} cannot be imported, only jpg")
        return _FlowprepExport(
            config,
            values["direction"],
            values["layout"],
            values["implementation"],
            tuple(str(name) for name in values["class_names"]),
            videos,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"{path} cannot be taken: {type(error).__name__}: {error}; export the data set again"
        ) from error


def _find_videos(top: str, layout: TreeLayout) -> list[str]:
    """Returns the paths of all videos whose images are in the tree, in order.

    Raises InputError if a folder cannot be read or if the tree has no flow images.
    """
    videos: set[str] = set()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        relative, parents = pending.pop()
        folder = os.path.join(top, relative) if relative else top
        try:
            status = os.stat(folder)
            this = status.st_dev, status.st_ino
            if this in parents:  # a link to a folder that contains the link
                continue
            seen = False
            with os.scandir(folder) as scan:
                for entry in scan:
                    if entry.name.startswith("."):
                        continue
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if entry.is_dir():
                        pending.append((path, (*parents, this)))
                    elif not seen and (parsed := layout.parse(path)) is not None:
                        videos.add(parsed[0])
                        seen = True
        except OSError as error:
            raise InputError(
                f"cannot read the folder {folder}: {error.strerror}; make it readable"
            ) from error
    if not videos:
        example = layout.flow_file("VIDEO", "x", 0, FileKind("x"))
        raise InputError(
            f"{top} holds no flow images such as {example}; check the folder, or give its --layout"
        )
    return sorted(videos)


@dataclass(frozen=True)
class ImportItem:
    """A video to import."""

    video: Video
    path: str
    """The path of the video below the top of the tree."""
    counts: tuple[int, str] | None = None
    """The number of images that a list gives, and the place in the list."""
    fps: float | None = None


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
        exported = _read_export(top)
        if exported is not None and exported.layout != spec.layout:
            raise ConfigError(
                f"layout must be {exported.layout}, as {top}/{EXPORT_FILE} says, got {spec.layout}"
            )
        found = _find_videos(top, self.layout)
        self.config = self._config(spec, exported, found)
        self.origin = self._origin(spec, exported)
        self.items, self.class_names = self._videos(spec, exported, found)

    def __getstate__(self) -> dict[str, Any]:
        # The plan goes to workers without its videos. They get the videos shard by shard.
        return self.__dict__ | {"items": []}

    def _config(
        self, spec: ImportSpec, exported: _FlowprepExport | None, found: Sequence[str]
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
                        f"{name} must be {getattr(flow, name)}, as {self.top}/{EXPORT_FILE} says, "
                        f"got {value}"
                    )
            # Other layouts give backward flow the file names of forward flow, so use the direction
            # that the export names.
            directions: tuple[Direction, ...] = (exported.direction,)
            if spec.directions not in (None, directions):
                raise ConfigError(f"directions must be {directions[0]}, as {EXPORT_FILE} says")
        else:
            if spec.bound_px is None:
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
        keep_rgb = spec.keep_rgb
        if keep_rgb is None:
            files = (parsed for _, parsed in self._files(found[0]))
            keep_rgb = any(parsed.kind.stream == "rgb" for parsed in files)
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

    def _origin(self, spec: ImportSpec, exported: _FlowprepExport | None) -> dict[str, Any]:
        origin: dict[str, Any] = {"tree": self.top, "layout": spec.layout}
        if exported is not None:
            return origin | {"implementation": exported.implementation, "unknown": []}
        unknown = ["flow.parameters", "decode", "encode.jpeg_quality", "encode.rgb_jpeg_quality"]
        if spec.algorithm is None:
            unknown.insert(0, "flow.algorithm")
        return origin | {"implementation": None, "unknown": unknown}

    def _videos(
        self, spec: ImportSpec, exported: _FlowprepExport | None, found: Sequence[str]
    ) -> tuple[list[ImportItem], tuple[str, ...]]:
        listed = _read_lists(spec.lists, found)
        known = {} if exported is None else exported.videos
        paths = list(dict.fromkeys([*found, *known, *listed]))
        class_names = () if exported is None else exported.class_names
        folders: dict[str, int] = {}
        if exported is None and not listed and all("/" in path for path in found):
            names = sorted({path.partition("/")[0] for path in found})
            folders = {name: number for number, name in enumerate(names)}
            class_names = tuple(names)
        items = []
        for path in paths:
            labels: tuple[int, ...] = ()
            split = counts = fps = None
            key = ""
            if (one := known.get(path)) is not None:
                key, labels, split, fps = one.key, one.labels, one.split, one.fps
                counts = one.num_flows, VIDEOS_FILE
            if (line := listed.get(path)) is not None:
                labels, counts = line[1].labels, (line[1].count, line[1].origin)
                split = line[0] or split
            elif folders and "/" in path:
                labels = (folders[path.partition("/")[0]],)
            key = key or escape_key(path or os.path.basename(self.top))
            source = os.path.join(self.top, self.layout.folders(path)[0] if path else "")
            for folder in self.layout.folders(path):
                if os.path.isdir(os.path.join(self.top, folder)):
                    source = os.path.join(self.top, folder)
                    break
            items.append(ImportItem(Video(key, source, labels, split), path, counts, fps))
        times = Counter(item.video.key for item in items)
        if repeated := [key for key, count in times.items() if count > 1]:
            raise DatasetError(f"{self.top} gives two videos the key {repeated[0]}; rename one")
        if listed and (missing := sum(path not in listed for path in found)):
            self.notes.append(
                f"{missing} videos are in no list and get no label; add them to a list for labels"
            )
        if listed and exported is None:
            class_names = _class_names_of_folders(items, listed)
        return items, class_names

    def list_files(self, path: str) -> dict[FileKind, dict[int, str]]:
        """Returns the files of a video: kind -> number -> path.

        Raises VideoError if two files have the same number, or if an entry is not a file.
        """
        kinds: dict[FileKind, dict[int, str]] = {}
        for entry, parsed in self._files(path):
            numbers = kinds.setdefault(parsed.kind, {})
            if parsed.number in numbers:
                other = os.path.basename(numbers[parsed.number])
                raise VideoError("incomplete", f"{other} and {entry.name} have the same number")
            if not entry.is_file():
                raise VideoError("unreadable", f"{entry.name} is not a file")
            numbers[parsed.number] = entry.path
        return kinds

    def _files(self, path: str) -> Iterator[tuple[os.DirEntry[str], ParsedName]]:
        for folder in self.layout.folders(path):
            place = os.path.join(self.top, folder) if folder else self.top
            if not os.path.isdir(place):
                continue
            with os.scandir(place) as scan:
                entries = list(scan)
            for entry in entries:
                parsed = self.layout.parse(f"{folder}/{entry.name}" if folder else entry.name)
                if parsed is not None and parsed[0] == path:
                    yield entry, parsed[1]


def _read_lists(
    lists: Sequence[str], found: Sequence[str]
) -> dict[str, tuple[str | None, ListLine]]:
    """Returns path -> (split, line). A listed path may have other folders before the path of ours.

    Raises InputError for two lines that contradict each other.
    """
    there = set(found)
    by_path: dict[str, tuple[str | None, ListLine]] = {}
    for given in lists:
        split, equals, path = given.partition("=")
        if not equals or "/" in split:
            split, path = "", given
        check_split(split, "the split of --list")
        for line in read_frame_list(path):
            parts = [part for part in line.path.split("/") if part not in ("", ".")]
            endings = ["/".join(parts[start:]) for start in range(len(parts))]
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
