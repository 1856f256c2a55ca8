"""Readers of exported trees, written after the projects' own code, and trees for the import."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]  # (N, H, W, 2)


def kill_after(code: str, begun: Path, seconds: float) -> None:
    """Runs Python code in a process of its own and kills it so long after a file appears."""
    # Not forked: a lock that a thread of this process holds would stay locked there for ever.
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not begun.exists() and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(seconds)
    finally:
        process.kill()
        process.wait()
    assert begun.exists()


def gray(path: str | Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, f"{path} is missing"
    return np.asarray(image, np.uint8)


def pairs(files: list[tuple[str, str]]) -> Levels:
    return np.stack([np.stack([gray(x), gray(y)], axis=-1) for x, y in files])


@dataclass(frozen=True)
class Listed:
    """What a reader got for one line."""

    path: str
    label: tuple[int, ...]
    levels: Levels


def mmaction2(
    ann_file: Path, data_prefix: Path, filename_tmpl: str, start_index: int
) -> list[Listed]:
    """RawframeDataset.load_annotations, SampleFrames over all frames, RawFrameDecode."""
    found = []
    for line in ann_file.read_text().splitlines():
        split = line.strip().split()
        frame_dir = os.path.join(data_prefix, split[0])
        total_frames = int(split[1])
        label = tuple(int(x) for x in split[2:])
        assert label
        files = []
        # clip_len 1, num_clips total_frames + 3: indices beyond the end come round again.
        for index in np.mod(np.arange(total_frames + 3), total_frames) + start_index:
            x, y = (os.path.join(frame_dir, filename_tmpl.format(a, index)) for a in "xy")
            files.append((x, y))
        found.append(Listed(split[0], label, pairs(files)[:total_frames]))
    return found


def tsn(list_file: Path, image_tmpl: str = "flow_{}_{:05d}.jpg", root: str = "") -> list[Listed]:
    """tsn-pytorch's and TSM's TSNDataSet in test mode, a segment for each frame, new_length 5."""
    found = []
    for line in list_file.read_text().splitlines():
        path, number, *labels = line.strip().split(" ")
        num_frames, new_length = int(number), 5
        directory = os.path.join(root, path)
        assert os.path.exists(os.path.join(directory, image_tmpl.format("x", 1)))
        seen = {}
        for first in range(1, num_frames + 1):
            p = first
            for _ in range(new_length):
                seen[p] = np.stack(
                    [
                        np.asarray(
                            Image.open(os.path.join(directory, image_tmpl.format(axis, p))).convert(
                                "L"
                            )
                        )
                        for axis in "xy"
                    ],
                    axis=-1,
                )
                if p < num_frames:
                    p += 1
        levels = np.stack([seen[p] for p in range(1, num_frames + 1)])
        found.append(Listed(path, tuple(map(int, labels)), levels))
    return found


def charades(split_file: Path, split: str, root: Path, num_classes: int) -> list[Listed]:
    """pytorch-i3d's make_dataset and load_flow_frames, from every start that it may draw."""
    found = []
    data = json.loads(split_file.read_text())
    for vid in data:
        if data[vid]["subset"] != split or not os.path.exists(root / vid):
            continue
        num_frames = len(os.listdir(root / vid)) // 2
        if num_frames < 66:
            continue
        label = np.zeros((num_classes, num_frames), np.float32)
        fps = num_frames / data[vid]["duration"]
        for ann in data[vid]["actions"]:
            for fr in range(num_frames):
                if fr / fps > ann[1] and fr / fps < ann[2]:
                    label[ann[0], fr] = 1
        last = num_frames - 65 + 63
        files = [
            tuple(str(root / vid / f"{vid}-{str(i).zfill(6)}{axis}.jpg") for axis in "xy")
            for i in range(1, last + 1)
        ]
        labels = tuple(np.flatnonzero(label[:, 1:].all(axis=1)).tolist())
        found.append(Listed(vid, labels, pairs(files)))  # type: ignore[arg-type]
    return found


def two_stream(lists: Path, root: str, stack: int = 10) -> dict[str, list[Listed]]:
    """jeffreyyihuang's UCF101_splitter, Motion_DataLoader and motion_dataset, from every start."""
    actions = {}
    for line in (lists / "classInd.txt").read_text().splitlines():
        label, action = line.strip("\r\n").split(" ")
        actions[action] = int(label)
    counts = {}
    # The reader runs in Python 2, and its pickle has nothing but text and numbers.
    for name, count in pickle.loads((lists / "frame_count.pickle").read_bytes()).items():
        video = name.split("_", 1)[1].split(".", 1)[0]
        kind, rest = video.split("_", 1)
        counts[f"HandstandPushups_{rest}" if kind == "HandStandPushups" else video] = count
    found: dict[str, list[Listed]] = {}
    for part in ("trainlist01", "testlist01"):
        for line in (lists / f"{part}.txt").read_text().splitlines():
            video = line.split("/", 1)[1].split(" ", 1)[0].split("_", 1)[1].split(".", 1)[0]
            kind, rest = video.split("_", 1)
            video = f"HandstandPushups_{rest}" if kind == "HandStandPushups" else video
            label = actions[line.split("/")[0]] - 1
            num_clips = counts[video] - stack + 1
            key, last = f"{video}-{num_clips}".split("-")
            images = []
            for start in (1, int(last)):
                for index in range(start, start + stack):
                    name = f"v_{key}/frame{str(index).zfill(6)}.jpg"
                    images.append((f"{root}u/{name}", f"{root}v/{name}"))
            found.setdefault(part, []).append(Listed(key, (label,), pairs(images)))
    return found


def slowfast(frame_list: Path, prefix: Path) -> list[tuple[str, list[str], list[list[int]]]]:
    """SlowFast's load_image_lists: the videos, the paths of their frames, the labels of each."""
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[list[int]]] = {}
    lines = frame_list.read_text().splitlines()
    assert lines[0].startswith("original_vido_id")
    for line in lines[1:]:
        row = line.split()
        assert len(row) == 5
        paths.setdefault(row[0], []).append(os.path.join(prefix, row[3]))
        given = row[-1].replace('"', "")
        labels.setdefault(row[0], []).append([int(x) for x in given.split(",")] if given else [])
    return [(name, paths[name], labels[name]) for name in paths]


def image_folder(root: Path) -> tuple[list[str], dict[str, list[str]]]:
    """torchvision's find_classes and make_dataset: a class without an image is an error."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    assert classes
    found: dict[str, list[str]] = {name: [] for name in classes}
    for name in classes:
        for top, _, names in os.walk(root / name, followlinks=True):
            found[name] += [os.path.join(top, n) for n in sorted(names) if n.endswith(".jpg")]
    assert all(found.values()), "Found no valid file for a class"
    return classes, found


def write_gray(path: Path, image: NDArray[np.uint8], quality: int = 95) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    path.write_bytes(jpeg.tobytes())


def field(seed: int, size: tuple[int, int] = (24, 16)) -> NDArray[np.uint8]:
    """A smooth image, so that a JPEG of it is like one of flow."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (4, 4)).astype(np.uint8)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def write_tree(
    top: Path,
    videos: dict[str, int],
    *,
    base: int = 1,
    rgb: bool = False,
    tmpl: str = "flow_{}_{:05d}.jpg",
) -> None:
    """Writes a folder of flow images for each path and number of flows."""
    for number, (path, num_flows) in enumerate(videos.items()):
        for t in range(num_flows):
            for axis in "xy":
                seed = 1000 * number + 2 * t + (axis == "y")
                write_gray(top / path / tmpl.format(axis, t + base), field(seed))
        if rgb:
            for t in range(num_flows + 1):
                colour = np.dstack([field(t + c) for c in (500, 600, 700)])
                write_gray(top / path / f"img_{t + base:05d}.jpg", colour)
