"""Frame lists in the formats of other projects: `PATH COUNT LABEL`, Charades' JSON, SlowFast's CSV,
UCF101's lists and `classInd.txt`."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass

from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import InputError
from flowprep.exchange.layouts import TreeLayout
from flowprep.inputs.text_files import read_lines

__all__ = [
    "DEFAULT_LIST_NAMES",
    "ListLine",
    "frame_lists",
    "read_frame_list",
    "split_name",
]

DEFAULT_LIST_NAMES = "{stream}_{split}.txt"
"""The names of the lists. A list of videos without a split is `{stream}.txt`."""

_CHARADES_FPS = 24.0
_CHARADES_LEAST_FLOWS = 66
# UCF101's lists name videos with their extension.
_UCF_SUFFIX = ".avi"
_UCF_NAME = re.compile(r"v_[^_.-]+_[^.-]+")

Videos = Sequence[tuple[StoredVideo, str]]
"""Videos and their paths below DEST."""


def frame_lists(
    layout_name: str,
    layout: TreeLayout,
    videos: Videos,
    class_names: Sequence[str],
    *,
    has_rgb: bool,
    prefix: str = "",
    list_names: str = DEFAULT_LIST_NAMES,
    flat: bool = False,
) -> tuple[dict[str, bytes], list[str]]:
    """Returns the name and content of each list of an export, and notes on what is left out.

    `prefix` is put before each path. A line gives the number of existing files: flows in a list of
    flow, frames in a list of frames. Labels are 0-based.
    """
    notes: list[str] = []
    lists: dict[str, str] = {}
    for_ucf = flat and layout.flat_lists == "ucf101"
    if class_names:
        # As in UCF101, numbers begin at 1. Each class takes one line, even if its name has breaks.
        blank = "_" if for_ucf else " "
        named = [re.sub(r"\s+", blank, str(name)) for name in class_names]
        lines = [f"{number} {name}\n" for number, name in enumerate(named, start=1)]
        lists["classInd.txt"] = "".join(lines)
    if layout.list_kind == "charades":
        lists |= _charades(layout_name, videos, notes)
        return _encoded(lists), notes
    if layout.list_kind == "slowfast":
        lists |= _slowfast(videos, prefix, notes)
        return _encoded(lists), notes
    several = sum(len(video.labels) > 1 for video, _ in videos)
    without = sum(not video.labels for video, _ in videos)
    if several and not layout.reads_every_label:
        notes.append(
            f"{several} videos have several labels: the lists have all labels, but {layout_name} "
            "reads only the first; export as mmaction2 to use all labels"
        )
    elif several:
        notes.append(
            f"{several} videos have several labels; give multi_class=True and num_classes to "
            "mmaction2, or export one of the labels with `flowprep label`"
        )
    if without:
        notes.append(
            f"{without} videos have no label, so the lists leave them out; give labels with "
            "`flowprep label`, and export with --labels"
        )
    if blanks := sum(re.search(r"\s", path) is not None for _, path in videos):
        notes.append(
            f"{blanks} paths have blanks, which the lists keep; read the count and the labels from "
            "the right end of a line"
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
            name = _list_name(list_names, part, split)
            lists[name] = lists.get(name, "") + "".join(lines)
    found = _encoded(lists)
    if for_ucf:
        found |= _ucf101(videos, class_names, notes)
    return found, notes


def split_name(split: str) -> str:
    """Returns the name of a split in file names. Two splits may get the same name."""
    # In a forged data set, the name of a split may contain any character.
    return re.sub(r"[^A-Za-z0-9_-]", "_", split)[:100]


def _list_name(names: str, part: str, split: str | None) -> str:
    if split is None and names == DEFAULT_LIST_NAMES:
        return f"{part}.txt"
    return names.replace("{stream}", part).replace("{split}", split_name(split or "all"))


def _encoded(lists: dict[str, str]) -> dict[str, bytes]:
    return {name: text.encode("utf-8", "surrogateescape") for name, text in lists.items()}


def _charades(layout_name: str, videos: Videos, notes: list[str]) -> dict[str, str]:
    """train_i3d.py trains on the subset `training`, and validates on the subset `testing`.

    So the split val is `testing`. If there is a split test too, `charades_test.json` has it.
    """
    splits = {video.split for video, _ in videos}
    lists = {"charades.json": _charades_json(videos, "val" if "val" in splits else "test")}
    if {"val", "test"} <= splits:
        lists["charades_test.json"] = _charades_json(videos, "test")
        notes.append(
            f"{layout_name} validates on the subset `testing`, so charades.json has the split val "
            "there; give it charades_test.json to test on the split test"
        )
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
    return lists


def _charades_json(videos: Videos, testing: str) -> str:
    subsets = {None: "training", "train": "training", testing: "testing"}
    described = {}
    for video, path in videos:
        duration = video.num_frames / (video.fps or _CHARADES_FPS)
        if video.split in ("val", "test") and video.split != testing:
            continue
        described[path] = {
            "subset": subsets.get(video.split, video.split),
            "duration": duration,
            "actions": [[label, 0.0, duration] for label in video.labels],
        }
    return json.dumps(described, indent=1) + "\n"


def _slowfast(videos: Videos, prefix: str, notes: list[str]) -> dict[str, str]:
    """SlowFast's frame list: a line for each frame, and `val.csv` for validation and tests.

    load_image_lists in slowfast/datasets/utils.py: the header, then five words. The labels are
    numbers with commas, in quotes.
    """
    by_split: dict[str, list[str]] = {}
    splits = {video.split for video, _ in videos}
    for number, (video, path) in enumerate(videos):
        split = split_name(video.split or "train")
        if split == "test" and "val" not in splits:
            split = "val"
        labels = ",".join(map(str, video.labels))
        header = ["original_vido_id video_id frame_id path labels\n"]
        by_split.setdefault(split, header).extend(
            f'{path} {number} {index} {prefix}{path}/{path}-{index + 1:06d}.jpg "{labels}"\n'
            for index in range(video.num_frames)
        )
    if without := sum(not video.labels for video, _ in videos):
        notes.append(
            f"{without} videos have no label, so SlowFast takes them as without any action; give "
            "labels with `flowprep label`, and export with --labels"
        )
    return {f"{split}.csv": "".join(lines) for split, lines in by_split.items()}


def _ucf101(videos: Videos, class_names: Sequence[str], notes: list[str]) -> dict[str, bytes]:
    """The lists of jeffreyyihuang's two-stream-action-recognition.

    dataloader/split_train_test_video.py reads `classInd.txt`, `trainlist01.txt` and
    `testlist01.txt` with lines `CLASS/VIDEO.avi LABEL`. dataloader/motion_dataloader.py reads
    `dic/frame_count.pickle`, VIDEO.avi -> count, and draws stacks of 10 flows up to the flow
    `count`. Therefore the count is that of the flows. Its names are `v_NAME_REST`, without `-`.
    """
    splits = {video.split for video, _ in videos}
    lines: dict[str, list[str]] = {"trainlist01.txt": [], "testlist01.txt": []}
    counts: dict[str, int] = {}
    unfit = 0
    for video, path in videos:
        counts[f"{path}{_UCF_SUFFIX}"] = video.num_flows
        if video.label is None or not 0 <= video.label < len(class_names):
            continue
        unfit += _UCF_NAME.fullmatch(path) is None
        testing = "test" if "test" in splits else "val"
        part = "testlist01.txt" if video.split == testing else "trainlist01.txt"
        if video.split in ("val", "test") and video.split != testing:
            continue
        name = re.sub(r"\s+", "_", str(class_names[video.label]))
        lines[part].append(f"{name}/{path}{_UCF_SUFFIX} {video.label + 1}\n")
    if unfit:
        notes.append(
            f"{unfit} videos have names that two-stream-action-recognition cannot read: they must "
            "be v_NAME_REST, without `-` and `.`, as in UCF101"
        )
    lists = {name: "".join(some).encode() for name, some in lines.items()}
    # Protocol 2, because the reader runs in Python 2.
    return lists | {"frame_count.pickle": pickle.dumps(counts, protocol=2)}


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
