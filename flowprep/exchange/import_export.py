"""Reads what an export of flowprep says of itself, so that its tree comes back as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from flowprep.config import Direction, ExtractConfig
from flowprep.errors import DatasetError, InputError
from flowprep.exchange.export_state import find_export
from flowprep.exchange.import_find import Place
from flowprep.exchange.layouts import EXPORT_FILE, VIDEOS_FILE, FormatName, Values
from flowprep.flow.homography import Homography
from flowprep.inputs.keys import check_key

__all__ = ["KnownExport", "KnownVideo", "read_export", "read_samples"]


@dataclass(frozen=True)
class KnownVideo:
    """What an export says about a video."""

    key: str
    labels: tuple[int, ...]
    split: str | None
    num_flows: int
    fps: float | None
    homographies: list[Homography | None] | None = None
    """The camera's motion in each pair. None: it is in the flow, or the export does not say."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> KnownVideo:
        """Reads a line of `flowprep-videos.jsonl`, or the JSON of a sample.

        Raises KeyError, TypeError, ValueError or DatasetError for anything else.
        """
        check_key(values["key"])
        labels = tuple(int(label) for label in values["labels"])
        split, fps = values["split"], values["fps"]
        if not isinstance(split, str | None) or not isinstance(fps, int | float | None):
            raise TypeError("split must be a text and fps a number")
        found = msgspec.convert(values.get("homographies"), list[Homography | None] | None)
        return cls(values["key"], labels, split, int(values["num_flows"]), fps, found)


@dataclass(frozen=True)
class KnownExport:
    """`flowprep.json` and `flowprep-videos.jsonl` of a tree that flowprep wrote."""

    path: str
    """The path of `flowprep.json`."""
    config: ExtractConfig
    direction: Direction
    layout: str
    format: FormatName
    values: Values
    implementation: str
    class_names: tuple[str, ...]
    videos: Mapping[str, KnownVideo]
    """The videos by path, without the ending of a file. For webdataset by key."""


def read_export(top: str, lists: str | None) -> KnownExport | None:
    """Returns what the export says that wrote a tree, or None for any other tree.

    `lists` is the folder that the export wrote its lists to, if it is not beside the tree. Raises
    DatasetError if its files are damaged, missing in part, or of clips, and InputError if `lists`
    holds none of them.
    """
    state = find_export(top, lists)
    if state is None:
        if lists is not None:
            raise InputError(
                f"lists must be the folder that the export of {top} wrote its lists to, but "
                f"{lists} holds no {EXPORT_FILE} of it"
            )
        return None
    path = str(state.file(EXPORT_FILE))
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        config = ExtractConfig.from_dict({n: values[n] for n in ("decode", "flow", "encode")})
        file_format = values["file_format"]
        if file_format not in get_args(FormatName) or values["values"] not in get_args(Values):
            raise ValueError(f"it names the format {file_format} with {values['values']}")
        if values.get("clip_length") is not None:
            raise ValueError("it holds clips, not whole videos (leave out --clip-length)")
        videos = {}
        listed = state.file(VIDEOS_FILE)
        if not listed.is_file():
            raise ValueError(f"{VIDEOS_FILE} is missing; run the same export again to its end")
        with open(listed, encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                place = str(one["path"])
                if file_format in ("npy", "npz", "hdf5"):
                    place = os.path.splitext(place)[0]
                elif file_format == "webdataset":
                    place = one["key"]
                videos[place] = KnownVideo.of(one)
        return KnownExport(
            path,
            config,
            values["direction"],
            values["layout"],
            file_format,
            values["values"],
            values["implementation"],
            tuple(str(name) for name in values["class_names"]),
            videos,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"{path} cannot be taken: {type(error).__name__}: {error}; export the data set again"
        ) from error


def read_samples(places: Mapping[str, Place]) -> dict[str, KnownVideo]:
    """Returns what the samples of an export say of themselves, where they say all of it."""
    known = {}
    for key, place in places.items():
        try:
            if place.described is not None:
                known[key] = KnownVideo.of(place.described)
        except (ValueError, KeyError, TypeError, DatasetError):
            continue
    return known
