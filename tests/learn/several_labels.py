"""A small data set whose videos show two motions at once, and its label sets."""

from __future__ import annotations

from pathlib import Path

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.relabel import label_dataset
from flowprep.inputs.manifest import collect_videos
from flowprep.run.driver import run_extract
from flowprep.synthetic import action_scene, write_video

MOVES = ("move_left", "move_right")
ZOOMS = ("zoom_in", "zoom_out")
NUM_TEST = 2
"""Test videos of each pair of a move and a zoom."""


def extract_pairs(root: Path, *, num_videos_per_pair: int, alone: int = 0) -> Path:
    """Extracts videos of every pair, and `alone` videos of each motion by itself.

    The named labels `both` have all motions of each video, `move` and `zoom` one of each pair.
    """
    shown = [(move, zoom) for move in MOVES for zoom in ZOOMS] * num_videos_per_pair
    shown += [(name,) for name in (*MOVES, *ZOOMS)] * alone  # type: ignore[list-item]
    lines: dict[str, list[str]] = {"both": [], "move": [], "zoom": []}
    (root / "videos").mkdir(parents=True)
    num_train = 4 * (num_videos_per_pair - NUM_TEST)
    for number, names in enumerate(shown):
        scene = action_scene(names, num_frames=10, width=64, height=48, seed=(1, number))
        path = root / "videos" / f"{number:03}.mp4"
        write_video(path, (scene.frame(t) for t in range(10)))
        is_test = num_train <= number < 4 * num_videos_per_pair
        split = "test" if is_test else "train"
        classes = (*MOVES, *ZOOMS)
        labels = " ".join(str(classes.index(name)) for name in names)
        lines["both"].append(f"{split} {path.name} {labels}")
        for kind, members in (("move", MOVES), ("zoom", ZOOMS)):
            own = [str(members.index(name)) for name in names if name in members]
            if own:
                lines[kind].append(f"{split} {path.name} {own[0]}")
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    manifest = collect_videos(root / "videos")
    report = run_extract(manifest, str(root / "pairs"), config, RunOptions(executor="inline"))
    assert report.is_complete
    for kind, names in (("both", (*MOVES, *ZOOMS)), ("move", MOVES), ("zoom", ZOOMS)):
        lists = []
        for split in ("train", "test"):
            path = root / f"{kind}-{split}.txt"
            own = [line.removeprefix(f"{split} ") for line in lines[kind] if line.startswith(split)]
            path.write_text("".join(f"{line}\n" for line in own))
            lists.append(f"{split}={path}")
        label_dataset(root / "pairs", kind, lists=lists, format="labels", class_names=list(names))
    return root / "pairs"
