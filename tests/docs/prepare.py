"""What the pages' code begins with: small real clips, lists of every kind, and their flow."""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np

import flowprep
from flowprep.cli import main
from flowprep.synthetic import action_scene, write_video

__all__ = ["NAMES", "prepare", "run_flowprep"]

CLASSES = {"walk": "move_left", "run": "move_right", "turn": "rotate_clockwise"}
"""The classes of the clips, and the synthetic action that each shows."""

NUM_CLIPS = 3
NUM_FRAMES = 12


def run_flowprep(arguments: list[str]) -> tuple[int, str]:
    """Runs a command line in this process; returns its exit code and what it printed."""
    output = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main(arguments)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    return code, output.getvalue()


def _write_clips(folder: Path) -> None:
    for (number, (name, action)), clip in itertools.product(
        enumerate(CLASSES.items()), range(1, NUM_CLIPS + 1)
    ):
        scene = action_scene(
            action, num_frames=NUM_FRAMES, width=64, height=48, seed=(0, number, clip)
        )
        path = folder / "clips" / name / f"clip{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, (scene.frame(t) for t in range(NUM_FRAMES)))


def _write_lists(folder: Path) -> None:
    """The clips once more, as UCF101, HMDB51, Kinetics and a folder of frames; and lists."""
    clips = folder / "clips"
    paths = [f"{name}/clip{clip}.mp4" for name in CLASSES for clip in range(1, NUM_CLIPS + 1)]
    numbers = {name: number for number, name in enumerate(CLASSES)}
    is_last = {path: path.endswith(f"clip{NUM_CLIPS}.mp4") for path in paths}
    is_first = {path: path.endswith("clip1.mp4") for path in paths}
    labelled = {path: f"{path} {numbers[path.partition('/')[0]]}\n" for path in paths}

    def write(name: str, lines: list[str]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")

    write("list.txt", list(labelled.values()))
    write("train.txt", [line for path, line in labelled.items() if not is_last[path]])
    write("val.txt", [line for path, line in labelled.items() if is_last[path]])
    write(
        "labels.csv",
        ["path,label,split\n", *(f"{path},{path.partition('/')[0]},train\n" for path in paths)],
    )
    shutil.copytree(clips, folder / "UCF-101")
    write("ucfTrainTestlist/classInd.txt", [f"{n + 1} {name}\n" for name, n in numbers.items()])
    for split, is_test in (("01", is_last), ("02", is_first)):
        lines = {path: f"{path} {numbers[path.partition('/')[0]] + 1}\n" for path in paths}
        train = [line for path, line in lines.items() if not is_test[path]]
        write(f"ucfTrainTestlist/trainlist{split}.txt", train)
        write(
            f"ucfTrainTestlist/testlist{split}.txt",
            [f"{path}\n" for path in paths if is_test[path]],
        )
    for name in CLASSES:
        lines = []
        for clip in range(1, NUM_CLIPS + 1):
            target = folder / "hmdb51" / name / f"{name}_clip{clip}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clips / name / f"clip{clip}.mp4", target)
            lines.append(f"{target.name} {2 if clip == NUM_CLIPS else 1}\n")
        write(f"testTrainMulti_7030_splits/{name}_test_split1.txt", lines)
    (folder / "k400").mkdir()
    rows = ["label,youtube_id,time_start,time_end,split\n"]
    for number, name in enumerate(CLASSES):
        video_id = f"abcdefghi0{number}"
        trimmed = folder / "k400" / f"{video_id}_000000_000010.mp4"
        shutil.copy(clips / name / "clip1.mp4", trimmed)
        rows.append(f"{name},{video_id},0,10,train\n")
    write("train.csv", rows)
    for name in CLASSES:
        target = folder / "frames" / name / "clip1"
        target.mkdir(parents=True)
        scene = action_scene(CLASSES[name], num_frames=6, width=64, height=48, seed=5)
        for t in range(6):
            cv2.imwrite(str(target / f"img_{t + 1:05d}.jpg"), scene.frame(t)[..., ::-1])


def _extract(folder: Path, out: str, algorithm: str) -> None:
    annotations = str(folder / "ucfTrainTestlist")
    options = ["--algorithm", algorithm, "--annotations", annotations, "--executor", "inline"]
    code, output = run_flowprep(["extract", str(folder / "clips"), str(folder / out), *options])
    assert code == 0, output


def _write_flo(folder: Path) -> None:
    """Two estimates, and the truth that they are scored against."""
    flow = flowprep.open_dataset(folder / "flow").flow("walk/clip1", 0, 2)
    for name, shift in (("truth", 0.0), ("estimates", 0.25)):
        (folder / name).mkdir()
        for number, field in enumerate(flow + np.float32(shift)):
            height, width = field.shape[:2]
            head = b"PIEH" + np.array([width, height], "<i4").tobytes()
            (folder / name / f"{number}.flo").write_bytes(head + field.tobytes())


NAMES = {
    "clips": ("clips",),
    "lists": (
        "list.txt",
        "train.txt",
        "val.txt",
        "labels.csv",
        "UCF-101",
        "ucfTrainTestlist",
        "hmdb51",
        "testTrainMulti_7030_splits",
        "k400",
        "train.csv",
        "frames",
    ),
    "flow": ("flow",),
    "flow-dis": ("flow-dis",),
    "flo": ("truth", "estimates"),
    "bucket": (),
}
"""What `begins with` may name -> the files and folders that it stands for."""


def prepare(folder: Path) -> None:
    """Makes all that NAMES stands for in an empty folder."""
    _write_clips(folder)
    _write_lists(folder)
    _extract(folder, "flow", "tvl1")
    _extract(folder, "flow-dis", "dis")
    _write_flo(folder)
