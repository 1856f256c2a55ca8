"""Frame lists in the formats of other projects: `PATH COUNT LABEL`, Charades' JSON and
`classInd.txt`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import InputError
from flowprep.exchange.layouts import LAYOUTS
from flowprep.inputs.text_files import read_lines

__all__ = ["ListLine", "frame_lists", "read_frame_list", "split_name"]

# train_i3d.py reads the subsets `training` and `testing`.
_CHARADES_SUBSETS = {"train": "training", "test": "testing", "val": "validation"}
_CHARADES_FPS = 24.0
_CHARADES_LEAST_FLOWS = 66


def frame_lists(
    layout_name: str,
    videos: Sequence[tuple[StoredVideo, str]],
    class_names: Sequence[str],
    *,
    has_rgb: bool,
    prefix: str,
) -> tuple[dict[str, str], list[str]]:
    """Returns the name and content of each list of an export, and notes on what is left out.

    `videos` are videos and their paths. `prefix` is put before each path. A line gives the number
    of existing files: flows in a list of flow, frames in a list of frames. Labels are 0-based.
    """
    layout = LAYOUTS[layout_name]
    notes: list[str] = []
    lists: dict[str, str] = {}
    if class_names:
        # As in UCF101, numbers begin at 1. Each class takes one line, even if its name has breaks.
        named = (re.sub(r"\s+", " ", str(name)) for name in class_names)
        lines = [f"{number} {name}\n" for number, name in enumerate(named, start=1)]
        lists["classInd.txt"] = "".join(lines)
    if layout.list_kind == "charades":
        lists["charades.json"] = _charades(videos, notes)
        return lists, notes
    several = sum(len(video.labels) > 1 for video, _ in videos)
    without = sum(not video.labels for video, _ in videos)
    if several and not layout.reads_every_label:
        notes.append(
            f"{several} videos have several labels: the lists have all labels, but {layout_name} "
            "reads only the first; export as mmaction2 to use all labels"
        )
    if without:
        notes.append(
            f"{without} videos have no label, so the lists leave them out; give labels with "
            "`flowprep label`, and export with --labels"
        )
    parts = (["flow"] if layout.has_flow else []) + (["rgb"] if has_rgb else [])
    splits = {video.split for video, _ in videos}
    for part in parts:
        for split in sorted(splits, key=lambda name: name or ""):
            lines = [
                f"{prefix}{path} {video.num_flows if part == 'flow' else video.num_frames} "
                f"{' '.join(map(str, video.labels))}\n"
                for video, path in videos
                if video.split == split and video.labels
            ]
            name = f"{part}_{split_name(split)}.txt" if split else f"{part}.txt"
            lists[name] = lists.get(name, "") + "".join(lines)
    return lists, notes


def split_name(split: str) -> str:
    """Returns the name of a split in file names. Two splits may get the same name."""
    # In a forged data set, the name of a split may contain any character.
    return re.sub(r"[^A-Za-z0-9_-]", "_", split)[:100]


def _charades(videos: Sequence[tuple[StoredVideo, str]], notes: list[str]) -> str:
    subsets = dict(_CHARADES_SUBSETS)
    if not any(video.split == "test" for video, _ in videos):
        subsets["val"] = "testing"
    described = {}
    for video, path in videos:
        fps = video.fps or _CHARADES_FPS
        duration = video.num_frames / fps
        described[path] = {
            "subset": subsets.get(video.split or "train", video.split),
            "duration": duration,
            "actions": [[label, 0.0, duration] for label in video.labels],
        }
    if unknown := sum(video.fps is None for video, _ in videos):
        notes.append(
            f"{unknown} videos have no frame rate, so their durations assume {_CHARADES_FPS:g} "
            "frames per second; correct charades.json if that is wrong"
        )
    if short := sum(video.num_flows < _CHARADES_LEAST_FLOWS for video, _ in videos):
        notes.append(
            f"{short} videos have fewer than {_CHARADES_LEAST_FLOWS} flows, and pytorch-i3d skips "
            "them; use another --layout to train on them"
        )
    return json.dumps(described, indent=1) + "\n"


# ---- reading


@dataclass(frozen=True, slots=True)
class ListLine:
    """A line of a frame list."""

    path: str
    count: int
    labels: tuple[int, ...]
    origin: str
    """`line 3 of LIST`."""


def read_frame_list(path: str) -> list[ListLine]:
    """Reads `PATH COUNT LABEL ...` lines. Raises InputError for a line of any other form."""
    lines = []
    for number, text in read_lines(path):
        origin = f"line {number} of {path}"
        match = re.fullmatch(r"(\S.*?)\s+([0-9]{1,9})\s+([0-9]{1,9}(?:\s+[0-9]{1,9})*)", text)
        if match is None:
            raise InputError(f"{origin} must be PATH COUNT LABEL, got {text!r}")
        labels = tuple(dict.fromkeys(int(label) for label in match[3].split()))
        lines.append(ListLine(match[1], int(match[2]), labels, origin))
    if not lines:
        raise InputError(f"the list {path} names no video: write PATH COUNT LABEL on each line")
    return lines
