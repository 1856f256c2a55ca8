"""Exports are read by their consumers' own code, and every pixel is compared: `scripts/consumers`.

Makes videos, a data set and the exports; then each consumer runs in a process of its own, because
their modules have the same names. Prints a table in Markdown. The exit code is 1 if one that is
there reads something else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import consumer_readers

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.synthetic import action_scene, write_video

# UCF101's names. pytorch-i3d skips videos of fewer than 66 flows, and enlarges those below 226 px.
NUM_FRAMES, WIDTH, HEIGHT = 72, 304, 232
CLASSES = ("ApplyEyeMakeup", "HandstandPushups")
VIDEOS = {
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01": "train",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g09_#2": "train",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01": "val",
    "HandstandPushups/v_HandStandPushups_g08_c01": "train",
    "HandstandPushups/v_HandStandPushups_g01_c01": "val",
}


def make_dataset(top: Path) -> Path:
    """Extracts a small data set with UCF101's names."""
    videos = []
    for number, (path, split) in enumerate(VIDEOS.items()):
        file = top / "videos" / f"{path}.avi"
        file.parent.mkdir(parents=True, exist_ok=True)
        action = ("move_left", "zoom_in")[number % 2]
        # Lengths differ, so that a count of another video is noticed.
        length = NUM_FRAMES + 3 * number
        scene = action_scene(action, num_frames=length, width=WIDTH, height=HEIGHT, seed=number)
        write_video(file, map(scene.frame, range(length)), 25.0)
        key = path.replace("#", "%23")
        videos.append(Video(key, str(file), (CLASSES.index(path.split("/")[0]),), split))
    config = ExtractConfig(
        DecodeSpec(resize=Resize("none", short_px=None)), FlowSpec("dis"), EncodeSpec()
    )
    out = top / "flow"
    report = flowprep.extract(
        Manifest(tuple(videos), CLASSES, 0, ()), out, config, executor="inline"
    )
    assert report.exit_code == 0, report.summary()
    return out


def make_exports(out: Path, top: Path) -> None:
    """Exports to where the shipped configurations look, or the READMEs' commands."""

    def export(dest: str, layout: str, **options: object) -> None:
        spec = ExportSpec(layout, **options)  # type: ignore[arg-type]
        assert export_dataset(out, top / dest, spec, num_workers=1).exit_code == 0

    export("tsn", "tsn", list_names="{split}_{stream}_split1.txt")
    export(
        "tsm/UCF101/jpg",
        "tsm",
        lists=str(top / "tsm/UCF101/file_list"),
        list_names="ucf101_{stream}_{split}_split_1.txt",
    )
    for split in ("train", "val"):
        export(
            f"mmaction2/data/kinetics400/rawframes_{split}",
            "mmaction2",
            splits=(split,),
            lists=str(top / "mmaction2/data/kinetics400"),
            list_names="kinetics400_{split}_list_{stream}.txt",
        )
    export("i3d", "pytorch-i3d")
    export("gpu-flow", "gpu-flow", flat=True)
    export("gpu-flow-xy", "gpu-flow-xy")
    export("slowfast", "slowfast")
    export("folders", "mmaction2")
    export("tars", "mmaction2", format="webdataset", videos_per_shard=2)
    export("clips", "mmaction2", format="webdataset", clip_length=16, videos_per_shard=2)


def main() -> int:
    """Runs every consumer and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", type=Path, help="the folder of the checkouts")
    parser.add_argument("names", nargs="*", help="only these consumers")
    arguments = parser.parse_args()
    names = arguments.names or list(consumer_readers.CONSUMERS)
    failed = False
    print("| consumer | what reads | export | read and equal | stood in |")
    print("|--|--|--|--|--|", flush=True)
    with tempfile.TemporaryDirectory(prefix="flowprep-consumers-") as folder:
        top = Path(folder)
        out = make_dataset(top)
        make_exports(out, top)
        for name in names:
            row, good = run_one(name, arguments.checkouts.resolve(), out, top)
            failed |= not good
            print(row, flush=True)
    return int(failed)


def run_one(name: str, checkouts: Path, out: Path, top: Path) -> tuple[str, bool]:
    """Runs a consumer in a process of its own; returns its row, and whether all was well."""
    consumer = consumer_readers.CONSUMERS[name]
    checkout = checkouts / name
    missing = consumer.missing(checkout)
    if missing:
        return f"| {name} | {consumer.code} | {consumer.export} | not run: {missing} | |", True
    script = Path(consumer_readers.__file__)
    done = subprocess.run(
        [sys.executable, script, name, checkout, out, top],
        cwd=top,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return f"| {name} | {consumer.code} | {consumer.export} | **failed** | |", False
    read = json.loads(lines[-1])
    stood = consumer.stood_in or "nothing"
    return f"| {name} | {consumer.code} | {consumer.export} | {read} | {stood} |", True


if __name__ == "__main__":
    sys.exit(main())
