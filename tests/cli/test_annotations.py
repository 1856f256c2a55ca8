"""Lists of known data sets, from real videos to a data set with its labels and splits."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowprep import open_dataset
from flowprep.dataset.labels import read_labels
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.cli.conftest import Command

QUICK = ("--executor", "inline", "--algorithm", "dis", "--no-rgb", "--resize", "none")
EPIC_HEADER = "narration_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"


def make(path: Path, seconds: float, fps: float) -> None:
    """Writes a small video of this length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = action_scene("move_left", num_frames=8, width=64, height=48, seed=1)
    frames = [scene.frame(t) for t in range(8)]
    write_video(path, (frames[t % 8] for t in range(round(seconds * fps))), fps)


def label_set(
    out: Path, name: str
) -> tuple[tuple[str, ...], dict[str, tuple[tuple[int, ...], Any]]]:
    header, parts = read_labels(Storage(out), name)
    return header.class_names, {v.key: (v.labels, v.split) for part in parts for v in part}


@pytest.mark.parametrize(
    ("name", "videos", "options", "wanted"),
    [
        # key -> labels, and seconds of the clip
        (
            "ch.csv",
            {"46GP8.mp4": 24.83},
            (),
            {"c092/46GP8_000011_000021": ((92,), 9.3), "c147/46GP8_000000_000012": ((147,), 12.6)},
        ),
        ("ch.csv", {"46GP8.mp4": 24.83}, ("--charades", "video"), {"46GP8": ((92, 147), 24.83)}),
        ("ek.csv", {"P01/P01_01.mp4": 5.0}, (), {"P01_01_0": ((3,), 3.23)}),
        ("ava.csv", {"-5KQ66BBWC4.mp4": 905.0}, (), {"%2D5KQ66BBWC4_000900_000903": ((80,), 3.0)}),
        ("ss.json", {"74225.mp4": 2.0}, (), {"74225": ((0,), 2.0)}),
    ],
    ids=["charades", "charades-video", "epic", "ava", "something"],
)
def test_the_lists_of_the_cases(
    flowprep: Command,
    test_data: Path,
    tmp_path: Path,
    name: str,
    videos: dict[str, float],
    options: tuple[str, ...],
    wanted: dict[str, tuple[tuple[int, ...], float]],
) -> None:
    shutil.copy(test_data / "cases/lists" / name, tmp_path / "in.tmp")
    root = tmp_path / "in"
    for video, seconds in videos.items():
        fps = 10.0 if seconds < 10 else 1.0
        make(root / video, seconds, fps)
    (tmp_path / "in.tmp").rename(root / name)
    result = flowprep("extract", root / name, tmp_path / "out", *QUICK, *options)
    assert result.code == 0, result.stderr
    dataset = open_dataset(tmp_path / "out")
    assert {video.key: video.labels for video in dataset.videos} == {
        key: labels for key, (labels, _) in wanted.items()
    }
    for video in dataset.videos:
        assert abs(video.num_frames - wanted[video.key][1] * fps) <= 1


class TestEpic:
    def test_two_label_sets(self, flowprep: Command, tmp_path: Path) -> None:
        root, out = tmp_path / "in", tmp_path / "out"
        make(root / "P01_01.mp4", 2.0, 10.0)
        times = "P01_01,00:00:00.00,00:00:01.00"
        rows = f"P01_01_0,{times},1,0\nP01_01_1,{times},1,2\n"
        (root / "train.csv").write_text(EPIC_HEADER + rows)
        (root / "EPIC_100_noun_classes.csv").write_text("id,key\n0,tap\n1,cup\n2,knife\n")
        result = flowprep("extract", root, out, "--list", f"train={root}/train.csv", *QUICK)
        assert result.code == 0, result.stderr
        assert "made the label sets verb and noun from" in result.stderr
        assert label_set(out, "verb") == (
            (),
            {"P01_01_0": ((1,), "train"), "P01_01_1": ((1,), "train")},
        )
        nouns, found = label_set(out, "noun")
        assert nouns == ("tap", "cup", "knife")
        assert found == {"P01_01_0": ((0,), "train"), "P01_01_1": ((2,), "train")}
        noun = open_dataset(out, labels="noun")
        assert noun.class_names == ("tap", "cup", "knife")
        assert [video.labels for video in noun.videos] == [(0,), (2,)]
        assert flowprep("verify", out).code == 0

        # A later run adds the videos of another list, and keeps the lines that are there.
        (root / "val.csv").write_text(EPIC_HEADER + "P01_01_2,P01_01,0:00:01.00,0:00:02.00,5,1\n")
        result = flowprep("extract", root, out, "--list", f"val={root}/val.csv", *QUICK)
        assert result.code == 0, result.stderr
        assert label_set(out, "noun") == (nouns, {**found, "P01_01_2": ((1,), "val")})
        before = (out / "labels/noun.jsonl").read_bytes()
        (root / "EPIC_100_noun_classes.csv").unlink()  # Names that are stored stay.
        assert flowprep("extract", root, out, "--list", f"val={root}/val.csv", *QUICK).code == 0
        assert (out / "labels/noun.jsonl").read_bytes() == before
        (root / "EPIC_100_noun_classes.csv").write_text("id,key\n0,tap\n1,mug\n")
        result = flowprep("extract", root, out, "--list", f"val={root}/val.csv", *QUICK)
        assert result.code != 0
        assert "classes of the labels noun must be those that" in result.stderr

    def test_labels_of_somebody_else_stay(self, flowprep: Command, tmp_path: Path) -> None:
        root, out = tmp_path / "in", tmp_path / "out"
        make(root / "P01_01.mp4", 1.0, 10.0)
        assert flowprep("extract", root / "P01_01.mp4", out, *QUICK).code == 0
        (root / "mine.csv").write_text("key,label\nP01_01,0\n")
        assert (
            flowprep("label", out, "--name", "verb", "--annotations", root / "mine.csv").code == 0
        )
        mine = (out / "labels/verb.jsonl").read_bytes()
        (root / "e.csv").write_text(EPIC_HEADER + "P01_01_0,P01_01,0:00:00.00,0:00:01.00,5,1\n")
        result = flowprep("extract", root / "e.csv", out, *QUICK)
        assert result.code == 0, result.stderr
        assert "left the labels verb as they are, because they are of another source" in (
            result.stderr + result.stdout
        )
        assert (out / "labels/verb.jsonl").read_bytes() == mine
        assert label_set(out, "noun")[1] == {"P01_01_0": ((1,), None)}

    def test_ranges_past_the_end(self, flowprep: Command, tmp_path: Path) -> None:
        root, out = tmp_path / "in", tmp_path / "out"
        make(root / "P01_01.mp4", 2.0, 10.0)
        times = ("0:00:00.50,0:00:01.50", "0:00:01.00,0:00:09.00", "0:00:05.00,0:00:06.00")
        rows = "".join(f"P01_01_{n},P01_01,{pair},0,0\n" for n, pair in enumerate(times))
        (root / "e.csv").write_text(EPIC_HEADER + rows)
        result = flowprep("extract", root / "e.csv", out, *QUICK)
        assert result.code == 1
        found = {video.key: video.num_frames for video in open_dataset(out).videos}
        assert found == {"P01_01_0": 10, "P01_01_1": 10}
        failures = (out / "failures.jsonl").read_text()
        assert "P01_01_2" in failures
        assert "no-frames" in failures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own footage: two people, each in both classes."""
    root = tmp_path_factory.mktemp("own") / "in"
    make(root / "walk/ann_1.mp4", 0.5, 10.0)
    (root / "run").mkdir()
    for name in ("walk/ann_2", "walk/bob_1", "run/ann_3", "run/bob_2"):
        shutil.copy(root / "walk/ann_1.mp4", root / f"{name}.mp4")
    return root


class TestShare:
    def test_extract_and_plan(self, flowprep: Command, root: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        asked = ("--test-share", 0.4, "--group-by", "ann|bob")
        said = "made a split for --test-share 0.4: train 3 and test 2 of 5 videos (40.0 % test), "
        plan = flowprep("plan", root, *asked, "--algorithm", "dis", "--pairs-per-second", 100)
        assert plan.code == 0, plan.stderr
        assert said in plan.stderr
        result = flowprep("extract", root, out, *QUICK, *asked)
        assert result.code == 0, result.stderr
        assert said in result.stderr
        found = {video.key: video.split for video in open_dataset(out).videos}
        assert found == {
            f"{name}": "test" if "bob" in name else "train"
            for name in ("run/ann_3", "run/bob_2", "walk/ann_1", "walk/ann_2", "walk/bob_1")
        }
        # The same command goes on; without the option it would have given no split.
        assert flowprep("extract", root, out, *QUICK, *asked).code == 0
        assert flowprep("extract", root, out, *QUICK).code != 0
        result = flowprep("label", out, "--name", "x", "--test-share", 0.4)
        assert result.code != 0
        assert "--test-share makes a split, but 5 of 5 videos have one already" in result.stderr

    def test_label(self, flowprep: Command, root: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert flowprep("extract", root, out, *QUICK).code == 0
        asked = ("--test-share", 0.4, "--group-by", "ann|bob")
        refused = flowprep("extract", root, out, *QUICK, *asked)
        assert "run `flowprep label OUT --name NAME --test-share 0.4`" in refused.stderr
        result = flowprep("label", out, "--name", "people", *asked)
        assert result.code == 0, result.stderr
        assert "train 3 and test 2 of 5 videos" in result.stderr
        dataset = open_dataset(out, labels="people")
        assert dataset.class_names == ("run", "walk")
        assert {v.key for v in dataset.videos if v.split == "test"} == {"run/bob_2", "walk/bob_1"}
        assert flowprep("label", out, "--name", "people", *asked).stdout.startswith("unchanged")
        # Under another share, the split begins anew.
        result = flowprep("label", out, "--name", "people", "--test-share", 0.2, "--replace")
        assert result.code == 0, result.stderr
        splits = Counter(video.split for video in open_dataset(out, labels="people").videos)
        assert splits["test"] in (1, 2)
