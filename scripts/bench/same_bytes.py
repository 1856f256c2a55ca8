"""Does this checkout store the same bytes as an earlier commit? Both extract the same videos.

The code of the commit and of this checkout extract each of six configurations, in one run and with
the same libraries. Every stream of every video must have the same SHA-256. `KEY.json` may have
fields that the commit does not know, but no other difference. The videos are made here (drawn
actions). Real clips from FLOWPREP_TEST_DATA are added if it exists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.synthetic import write_action_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS: dict[str, list[str]] = {
    "tvl1": ["--algorithm", "tvl1", "--resize", "short:64"],
    "farneback, floor": ["--algorithm", "farneback", "--quantizer", "floor", "--bound", "8"],
    "dis, centered, forward": [
        *("--algorithm", "dis", "--quantizer", "centered", "--directions", "forward"),
    ],
    "dis, segments, step 2": ["--algorithm", "dis", "--segment-frames", "20", "--step", "2"],
    "dis, 12 fps, backward, no RGB": [
        *("--algorithm", "dis", "--fps", "12", "--directions", "backward", "--no-rgb"),
    ],
    "farneback, decord": ["--algorithm", "farneback", "--decoder", "decord", "--resize", "64x48"],
}
SUFFIXES = {".avi", ".mkv", ".mov", ".mp4"}


def main() -> int:
    """Runs the comparison. Returns 1 if anything differs."""
    parser = argparse.ArgumentParser(
        prog="scripts/check_bytes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("commit", help="the earlier commit, as git names it")
    parser.add_argument("videos", nargs="*", type=Path, help="other videos than the usual ones")
    options = parser.parse_args()
    num_different = 0
    with tempfile.TemporaryDirectory(prefix="flowprep-bytes-") as name:
        work = Path(name)
        before = work / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(before), options.commit], check=True)
        try:
            videos = work / "videos"
            _gather(videos, options.videos)
            for title, arguments in CONFIGURATIONS.items():
                num_different += not _compare(title, arguments, before, videos, work)
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)
    return 1 if num_different else 0


def _gather(folder: Path, given: list[Path]) -> None:
    folder.mkdir()
    if not given:
        write_action_dataset(folder / "drawn", num_videos_per_class=2, num_frames=30)
        data = Path(os.environ.get("FLOWPREP_TEST_DATA") or ROOT.parent / "shared" / "data")
        for part in ("ucf101/videos", "asl", "clips", "odd"):
            files = sorted((data / part).rglob("*")) if data.is_dir() else []
            given += [path for path in files if path.suffix in SUFFIXES]
    for number, path in enumerate(given):
        (folder / f"{number:03d}{path.suffix}").symlink_to(path.resolve())


def _compare(title: str, arguments: list[str], before: Path, videos: Path, work: Path) -> bool:
    outs = [work / "old", work / "new"]
    for tree, out in zip((before, ROOT), outs, strict=True):
        command = [sys.executable, "-m", "flowprep", "extract", str(videos), str(out), *arguments]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1) or not (out / "dataset.json").exists():
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    old, new = map(open_dataset, outs)
    # A video that only one side stores is printed by name, because the change may be intended.
    one, other = ({video.key for video in dataset.videos} for dataset in (old, new))
    differing = [key for key in sorted(one & other) if not _is_same(old, new, key)]
    print(
        f"{title}: {len(one & other) - len(differing)} of {len(one & other)} videos equal"
        + (f"; DIFFERENT: {', '.join(differing)}" if differing else "")
        + (f"; only before: {', '.join(sorted(one - other))}" if one - other else "")
        + (f"; only now: {', '.join(sorted(other - one))}" if other - one else ""),
        flush=True,
    )
    for out in outs:
        subprocess.run(["rm", "-r", str(out)], check=True)
    return not differing and not one - other


def _is_same(old: FlowDataset, new: FlowDataset, key: str) -> bool:
    digests: list[dict[str, str]] = []
    metadata: list[dict[str, Any]] = []
    for dataset in (old, new):
        members = dataset.videos[key].members
        digests.append(
            {
                name: hashlib.sha256(dataset.member_bytes(key, name, 0, size)).hexdigest()
                for name, (_, size) in members.items()
                if name != "json"
            }
        )
        metadata.append(json.loads(dataset.member_bytes(key, "json", 0, members["json"][1])))
    known = {name: metadata[1].get(name) for name in metadata[0]}
    for name, value in metadata[0].items():
        if known[name] != value:
            print(f"  {key}: {name} was {value!r} and is {known[name]!r}")
    return digests[0] == digests[1] and known == metadata[0]


if __name__ == "__main__":
    sys.exit(main())
