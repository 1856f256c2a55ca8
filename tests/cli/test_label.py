"""`flowprep label`, and `--labels` of the commands that read labels."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowprep import open_dataset
from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.inputs.manifest import collect_videos
from flowprep.run.driver import run_extract
from flowprep.synthetic import ACTIONS, action_scene, write_action_dataset, write_video
from tests.cli.conftest import Command

QUICK = ("--width", 0.05, "--batch-size", 2, "--frames", 3, "--crop", 48, "--steps", 1)
HERE = ("--device", "cpu", "--loaders", 0)
CLASSES = tuple(ACTIONS)
NUM_VIDEOS = 3
"""Of each class."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One extraction of split 1, lists of the splits 2 and 3, and no videos any more."""
    root = tmp_path_factory.mktemp("made")
    write_action_dataset(
        root, num_videos_per_class=NUM_VIDEOS, num_frames=6, width=64, height=48, seed=3
    )
    for split in (2, 3):
        lines = dict.fromkeys(("train", "test"), "")
        for number, action in enumerate(CLASSES, start=1):
            for video in range(1, NUM_VIDEOS + 1):
                part = "test" if video == split - 1 else "train"
                label = f" {number}" if part == "train" else ""
                lines[part] += f"{action}/{action}_g{video:02d}_c01.avi{label}\n"
        for part, text in lines.items():
            (root / f"annotations/{part}list0{split}.txt").write_text(text, encoding="utf-8")
    manifest = collect_videos(root / "videos", annotations=root / "annotations", split=1)
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    options = RunOptions(executor="inline", progress=False)
    assert run_extract(manifest, str(root / "flow"), config, options).is_complete
    shutil.rmtree(root / "videos")
    return root


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "flow", tmp_path / "flow")


@pytest.fixture
def split2(flowprep: Command, made: Path, out: Path) -> Iterator[Path]:
    """The data set, labelled by split 2."""
    result = flowprep(
        *("label", out, "--name", "split2", "--annotations", made / "annotations", "--split", 2)
    )
    assert (result.code, result.stderr) == (0, "")
    return out


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.parent.name != "labels"
    }


def test_the_three_splits_of_one_extraction(flowprep: Command, made: Path, out: Path) -> None:
    before = digests(out)
    total = NUM_VIDEOS * len(CLASSES)
    for split in (1, 2, 3):
        arguments = (
            *("label", out, "--name", f"split{split}"),
            *("--annotations", made / "annotations", "--split", split),
        )
        result = flowprep(*arguments)
        assert (result.code, result.stderr) == (0, "")
        assert result.stdout == (
            f"written: labels split{split} of {total} of {total} videos in {out}\n"
            f"  splits      test {len(CLASSES)}, train {total - len(CLASSES)}\n"
            f"  classes     {len(CLASSES)}: {', '.join(CLASSES[:6])}"
            f"{', ...' if len(CLASSES) > 6 else ''}\n"
            f"  file        labels/split{split}.jsonl\n"
        )
        assert flowprep(*arguments).stdout.startswith(f"unchanged: labels split{split} of")
    tested = []
    own = {video.key: (video.labels, video.split) for video in open_dataset(out).videos}
    for split in (1, 2, 3):
        videos = open_dataset(out, labels=f"split{split}").videos
        assert [video.labels for video in videos] == [own[video.key][0] for video in videos]
        tested.append({video.key for video in videos if video.split == "test"})
    assert {key for key, (_, split) in own.items() if split == "test"} == tested[0]
    assert set.union(*tested) == set(own)
    assert sum(map(len, tested)) == len(own)
    assert digests(out) == before
    result = flowprep("verify", out)
    assert (result.code, result.stderr) == (0, "")


def test_other_labels_need_replace(flowprep: Command, made: Path, split2: Path) -> None:
    other = (*("label", split2, "--name", "split2"), *("--annotations", made / "annotations"))
    result = flowprep(*other)
    assert result.code == 2
    assert "Error: --name must be new: " in result.error
    assert "UCF101, split 2 of" in result.error
    result = flowprep(*other, "--replace")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith("replaced: labels split2 of")


def test_what_is_absent_and_what_is_unlabelled_is_said(
    flowprep: Command, out: Path, tmp_path: Path
) -> None:
    names = [f"{action}/{action}_g01_c01.mp4" for action in CLASSES]
    lines = [f"{name} {label}\n" for label, name in enumerate(names)]
    (tmp_path / "train.txt").write_text("".join([*lines, f"{CLASSES[0]}/gone.mp4 0\n"]))
    arguments = ("label", out, "--name", "mine", "--list", f"train={tmp_path}/train.txt")
    result = flowprep(*arguments)
    assert result.code == 0
    notes = result.stderr.splitlines()
    assert len(notes) == 3
    assert f"1 of {len(names) + 1} videos that list train={tmp_path}/train.txt" in notes[0]
    assert f"first: {CLASSES[0]}/gone.mp4" in notes[0]
    assert "numbers without names" in notes[1]
    assert f"no label and no split to {2 * len(CLASSES)} videos of {out}" in notes[2]
    (tmp_path / "train.txt").write_text("".join([*lines, "new/gone.mp4 77\n"]))
    result = flowprep(*arguments, "--replace")
    assert result.code == 2
    assert "have no video in" in result.error
    assert "class 77" in result.error
    result = flowprep(*arguments, "--replace", "--allow-missing")
    assert result.code == 0
    assert "class 77" in result.stderr


def test_classes_are_renamed(flowprep: Command, out: Path) -> None:
    result = flowprep(
        *("label", out, "--name", "coarse", "--rename", f"{CLASSES[0]}=move"),
        *("--rename", f"{CLASSES[1]}=move"),
    )
    assert result.code == 0
    assert f"{len(CLASSES)} classes became {len(CLASSES) - 1}" in result.stderr
    assert open_dataset(out, labels="coarse").class_names == ("move", *CLASSES[2:])
    result = flowprep("label", out, "--name", "x", "--rename", "move")
    assert result.code == 2
    assert "Error: --rename must be OLD=NEW, got 'move'" in result.error


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "annotations, lists, class_names, rename or test_share must be given"),
        (("--rename", "a=b"), "--rename must begin with the name of a class, got 'a'"),
        (("--annotations", "/nowhere"), "--annotations does not exist: /nowhere"),
        (("--list", "train=/nowhere"), "list does not exist"),
        (("--format", "cvs"), "did you mean csv?"),
        (("--name", "../x", "--rename", "a=b"), "--name of labels must be 1 to 100 letters"),
    ],
)
def test_mistakes(flowprep: Command, out: Path, options: tuple[str, ...], what: str) -> None:
    result = flowprep("label", out, "--name", "x", *options)
    assert result.code == 2
    assert what in result.error
    assert not (out / "labels").exists()


def test_info_lists_and_counts_them(flowprep: Command, split2: Path) -> None:
    result = flowprep("info", split2)
    assert f"named       split2: {NUM_VIDEOS * len(CLASSES)} videos, test" in result.stdout
    assert f"{len(CLASSES)} classes, from UCF101, split 2 of" in result.stdout
    values = json.loads(flowprep("info", split2, "--json", "--labels", "split2").stdout)
    assert values["labels_name"] == "split2"
    assert values["splits"] == {"test": len(CLASSES), "train": 2 * len(CLASSES)}
    assert values["label_sets"][0]["num_videos"] == NUM_VIDEOS * len(CLASSES)
    rows = flowprep("info", split2, "--videos", "--labels", "split2").stdout.splitlines()[1:]
    assert {row.split("\t")[0] for row in rows if row.split("\t")[2] == "test"} == {
        f"{action}/{action}_g01_c01" for action in CLASSES
    }
    result = flowprep("info", split2, "--labels", "splti2")
    assert result.code == 1
    assert "it has split2; did you mean split2?" in result.error


def test_a_video_added_later_is_unlabelled_and_that_is_said(
    flowprep: Command, split2: Path, tmp_path: Path
) -> None:
    scene = action_scene(CLASSES[0], num_frames=6, width=64, height=48, seed=99)
    new = tmp_path / "videos" / CLASSES[0] / "new.mp4"
    new.parent.mkdir(parents=True)
    write_video(new, map(scene.frame, range(6)))
    result = flowprep(
        *("extract", tmp_path / "videos", split2, "--executor", "inline", "--algorithm", "dis"),
        *("--resize", "none"),
    )
    assert result.code == 0, result.stderr
    total = NUM_VIDEOS * len(CLASSES) + 1
    note = f"note: labels split2 give no label and no split to 1 video of {total} in {split2}; run"
    dest = ("export", split2, tmp_path / "dest", "--layout", "mmaction2", "--labels", "split2")
    listed = flowprep("info", split2, "--labels", "split2", "--videos")
    assert note in listed.stderr
    (row,) = [line for line in listed.stdout.splitlines() if "/new\t" in line]
    assert row.split("\t")[1:3] == ["", ""]
    assert (
        "labels      split2, 1 video not named"
        in flowprep("info", split2, "--labels", "split2").stdout
    )
    assert note in flowprep(*dest).stderr
    pytest.importorskip("torch", reason="PyTorch is not installed")
    train = ("train", split2, "--run", tmp_path / "run", *QUICK, *HERE, "--no-tensorboard")
    result = flowprep(*train, "--labels", "split2")
    assert result.code == 0
    assert note in result.stderr
    result = flowprep(
        *("evaluate", split2, "--checkpoint", tmp_path / "run", "--views", "center", *HERE),
        *("--labels", "split2"),
    )
    assert note in result.stderr
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    page = tmp_path / "report.html"
    result = flowprep("report", split2, "--labels", "split2", "--to", page, "--sample", 2)
    assert note in result.stderr
    assert "labels split2 give no label and no split to 1 video" in page.read_text()


def test_training_and_testing_by_a_name(
    flowprep: Command, split2: Path, made: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run = tmp_path / "run"
    train = ("train", split2, "--run", run, *QUICK, *HERE, "--no-tensorboard")
    result = flowprep(*train, "--labels", "split2")
    assert (result.code, result.stderr) == (0, "")
    tasks = json.loads((run / "config.json").read_text())["tasks"]
    assert [task["labels"] for task in tasks] == ["split2"]
    again = flowprep(*train, "--labels", "split2")
    assert (again.code, again.stderr) == (0, "")
    for options, words in (((), "the data set's own"), (("--labels", "split3"), "split3")):
        flowprep(
            *("label", split2, "--name", "split3", "--annotations", made / "annotations"),
            *("--split", 3),
        )
        result = flowprep(*train, *options)
        assert result.code == 1
        assert "labels: split2 so far" in result.error
        assert f"{words} now" in result.error
    test = ("evaluate", split2, "--checkpoint", run, "--views", "center", *HERE)
    result = flowprep(*test, "--labels", "split2")
    assert (result.code, result.stderr) == (0, "")
    assert "test of labels split2:" in result.stdout
    scores = (run / "split2-test-center/scores.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in scores} == {
        f"{action}/{action}_g01_c01" for action in CLASSES
    }
    # Nearly all of the other split's test videos were trained on.
    result = flowprep(*test)
    assert result.code == 0
    assert "was trained with labels split2" in result.stderr
    assert "add --labels split2" in result.stderr
    # The same name with other labels of the videos: another training.
    flowprep(
        "label",
        split2,
        "--name",
        "split2",
        "--labels",
        "split3",
        "--replace",
        "--rename",
        f"{CLASSES[0]}={CLASSES[1]}",
    )
    result = flowprep(*train, "--labels", "split2")
    assert result.code == 1
