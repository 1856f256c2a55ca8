"""The papers' tables: what their commands are, and that a stopped script goes on where it was."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from flowprep.cli import cli
from flowprep.cli.train import _config
from flowprep.learn.config import TrainConfig
from flowprep.learn.create import create_model
from flowprep.learn.network_options import TSNOptions
from flowprep.learn.networks import NETWORKS
from flowprep.learn.recipes import training_config
from flowprep.synthetic import action_scene, write_video
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

FOLDER = Path(__file__).resolve().parents[2] / "examples/papers"
PAPERS = ("fusion", "quo_vadis", "r2plus1d", "tsn", "two_stream")
OTHER = ("--other", "HMDB51", "splits")


@pytest.fixture(scope="module")
def scripts() -> Iterator[Mapping[str, ModuleType]]:
    """The scripts by name, and `tables`, which all of them share."""
    sys.path.insert(0, str(FOLDER))
    names = ("tables", *PAPERS)
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            del sys.modules[name]


def test_every_script_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {"tables", *PAPERS}


# ---- the commands for the papers' own data


def full_commands(
    scripts: Mapping[str, ModuleType], name: str, printed: pytest.CaptureFixture[str]
) -> list[list[str]]:
    """Returns the commands that a script would run with the paper's data, without `flowprep`."""
    paper = scripts[name].PAPER
    weights = [word for one in paper.imagenet for word in ("--weights", f"{one}=imagenet.pth")]
    arguments = ["VIDEOS", "ANNOTATIONS", "WORK", *weights, *OTHER, "--dry-run"]
    assert scripts["tables"].main(paper, arguments) == {}
    lines = printed.readouterr().out.splitlines()
    assert [line[3:] for line in lines if line.startswith("== ")] == [
        row.label for row in paper.rows
    ]
    return [shlex.split(line)[2:] for line in lines if line.startswith("$ ")]


def parsed(command: list[str]) -> Any:
    """Returns click's reading of a command. Raises for options that it does not have."""
    ctx = cli.make_context("flowprep", list(command))
    found = cli.get_command(ctx, command[0])
    assert found is not None
    return found.make_context(command[0], command[1:], parent=ctx)


def configurations(commands: list[list[str]]) -> dict[str, TrainConfig]:
    """Returns the trainings among the commands, by the names of their folders."""
    found = {}
    for command in commands:
        ctx = parsed(command)
        if command[0] == "train":
            with ctx:
                config = _config(ctx, ctx.params["recipe"])
            found[Path(ctx.params["run"]).name] = config
    return found


def output(command: list[str]) -> str:
    """Returns the folder that a command writes."""
    if command[0] == "extract":
        return command[2]
    return command[command.index("--run" if command[0] == "train" else "--to") + 1]


@pytest.mark.parametrize("name", PAPERS)
def test_each_command_reads_what_commands_before_it_have_made(
    scripts: Mapping[str, ModuleType], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    for command in full_commands(scripts, name, capsys):
        assert output(command) not in made, "nothing is done twice"
        paths = [path for word in command for path in word.split(",") if path.startswith("WORK/")]
        for path in set(paths) - {output(command)}:
            assert any(f"{path}/".startswith(f"{one}/") for one in made), (path, command)
        made.append(output(command))


@pytest.mark.parametrize("name", PAPERS)
def test_trainings_for_the_papers_data(
    scripts: Mapping[str, ModuleType], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = configurations(full_commands(scripts, name, capsys))
    assert set(configs) == set(scripts[name].PAPER.trainings)
    networks = set()
    for config in configs.values():
        assert config.model.width == 1
        assert config.test_split == "test"
        clip = config.clip
        joins = NETWORKS[config.model.model].sees == "segments"
        segments = clip.num_segments if joins else None
        model = dataclasses.replace(config.model, weights=None)
        networks.add((model, clip.stream, clip.num_frames, clip.crop_px, segments))
    for model, stream, num_frames, crop_px, segments in networks:
        with torch.device("meta"):
            create_model(
                model.model,
                stream=stream,
                num_classes=101,
                num_frames=num_frames,
                crop_px=crop_px,
                num_segments=segments,
                **dataclasses.asdict(model.options),
            )


def test_trainings_are_those_that_the_papers_state(
    scripts: Mapping[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {name: configurations(full_commands(scripts, name, capsys)) for name in PAPERS}
    stack = found["two_stream"]["flow-10"]
    assert stack == training_config("two-stream", "flow")
    assert not found["two_stream"]["flow-10-no-mean"].clip.subtract_mean_flow
    assert found["two_stream"]["flow-10-bidirectional"].clip.stack == "bidirectional"
    assert found["two_stream"]["rgb-last-layer"].optimization.freeze == "trunk"
    assert found["two_stream"]["rgb-last-layer"].model.dropout == 0.5
    tsn = found["tsn"]
    assert tsn["rgb-average"] == dataclasses.replace(
        training_config("tsn-pytorch", "rgb", "tsn-bn-inception", TSNOptions(partial_bn=True)),
        model=tsn["rgb-average"].model,
    )
    assert [tsn[f"flow-{one}"].clip.num_segments for one in ("scratch", "max", "5")] == [1, 3, 5]
    fused = found["fusion"]["conv3d-3d-pool"]
    assert (fused.clip.num_frames, fused.augment.random_strides) == (5, (5, 15))
    assert fused.model.weights == "WORK/vgg16-rgb/last.pt,WORK/vgg16-flow/last.pt"
    assert found["fusion"]["conv-relu3"].optimization.freeze == "3"
    lstm, i3d = (found["quo_vadis"][one].clip for one in ("lstm", "i3d-flow"))
    assert (lstm.num_frames, lstm.frame_stride, i3d.num_frames) == (25, 5, 64)
    closer = found["r2plus1d"]["r3d-18-16"]
    assert (closer.clip.num_frames, closer.clip.crop_px, closer.model.options.variant) == (
        *(16, 112),
        "vmz",
    )


# ---- a real run, on a few clips that are named and listed as UCF101's are

QUICK_EXTRACTION = "--resize none --algorithm farneback --executor inline"
QUICK_TRAINING = (
    "--width .03 --crop 48 --resize-short 48 --steps 2 --batch-size 2 --accumulate 1 "
    "--test-split none --loaders 0 --no-tensorboard --device cpu"
)
QUICK_TEST = "--loaders 0 --device cpu"


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    """Two classes with a training and a test video each, and their lists, in UCF101's layout."""
    lists = {"train": "", "test": ""}
    actions = {"ApplyEyeMakeup": "move_left", "YoYo": "move_up"}
    for label, (name, action) in enumerate(actions.items()):
        folder = tmp_path / "UCF-101" / name
        folder.mkdir(parents=True)
        for group, split in ((1, "test"), (8, "train")):
            video = f"v_{name}_g{group:02}_c01.avi"
            scene = action_scene(action, num_frames=12, width=64, height=48, seed=group)
            write_video(folder / video, map(scene.frame, range(12)))
            lists[split] += f"{name}/{video}" + (f" {label + 1}\n" if split == "train" else "\n")
    splits = tmp_path / "ucfTrainTestlist"
    splits.mkdir()
    (splits / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n", encoding="utf-8")
    for split, text in lists.items():
        for number in (1, 2, 3):
            (splits / f"{split}list0{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_stopped_script_goes_on_and_repeats_nothing(
    scripts: Mapping[str, ModuleType],
    ucf101: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables, paper = scripts["tables"], scripts["two_stream"].PAPER
    paper = dataclasses.replace(paper, test="--clips 2 --crops 1")
    folders = [str(ucf101 / one) for one in ("UCF-101", "ucfTrainTestlist")]
    work = ucf101 / "work"
    rows = ["RGB, from scratch", "RGB, last layer", "flow, multi-task", "both, multi-task, SVM"]
    arguments = [*folders, str(work), "--other", *folders]
    arguments += [word for row in rows for word in ("--row", row)]
    arguments += ["--extract", QUICK_EXTRACTION, "--train", QUICK_TRAINING]
    arguments += ["--evaluate", QUICK_TEST]

    def commands() -> list[list[str]]:
        lines = capsys.readouterr().out.splitlines()
        return [shlex.split(line)[2:] for line in lines if line.startswith("$ ")]

    # Without ImageNet's weights, their rows are left out.
    measured = tables.main(paper, arguments)
    assert set(measured) == {"RGB, from scratch", "flow, multi-task"}
    said = capsys.readouterr().out
    assert "RGB, last layer: not run: give ImageNet's weights with --weights cnn-m" in said
    assert re.search(r"\| RGB, from scratch \| 52\.3 \| [0-9.]+ \|", said)
    assert "| RGB, last layer | 72.7 |  |" in said
    assert "Chance is 50.0 %." in said

    # Any network of this form stands for ImageNet's.
    shutil.copy(work / "rgb-scratch" / "last.pt", ucf101 / "imagenet.pt")
    arguments += ["--weights", f"cnn-m-2048={ucf101 / 'imagenet.pt'}"]
    run, begun = tables.flowprep_command, []

    def stopped(command: Sequence[str]) -> None:
        begun.append(command[0])
        if begun.count("evaluate") == 2:
            raise SystemExit(1)
        run(command)

    monkeypatch.setattr(tables, "flowprep_command", stopped)
    with pytest.raises(SystemExit):
        tables.main(paper, arguments)
    assert [command[0] for command in commands()][-2:] == ["evaluate", "evaluate"]
    monkeypatch.setattr(tables, "flowprep_command", run)
    first = tables.main(paper, arguments)
    # One of the two tests of the last layer was done, and those of the first run are.
    assert [one[0] for one in commands() if one[0] in ("evaluate", "fuse")] == ["evaluate", "fuse"]
    checkpoints = [path.stat().st_mtime_ns for path in work.glob("*/last.pt")]
    assert tables.main(paper, arguments) == first
    assert {one[0] for one in commands()} == {"extract", "train"}
    assert [path.stat().st_mtime_ns for path in work.glob("*/last.pt")] == checkpoints
    assert set(first) == set(rows)


def test_small_clips_stand_for_every_data_set(
    scripts: Mapping[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --small, the clips are made once, and a small network stands for ImageNet's."""
    tables = scripts["tables"]
    few = {
        name: options.replace("--videos-per-class 16", "").replace("--videos-per-class 8", "")
        + " --videos-per-class 2"
        for name, options in tables.SMALL_CLIPS.items()
    }
    monkeypatch.setattr(tables, "SMALL_CLIPS", few)
    row = "RGB, fine-tuned"
    arguments = [str(tmp_path), "--small", "--row", row, "--train", "--steps 1 --width .03"]
    for made in (["synthetic", "extract", "synthetic", "extract"], ["extract", "extract"]):
        measured = tables.main(scripts["two_stream"].PAPER, arguments)
        assert list(measured) == [row]
        out = capsys.readouterr().out
        assert "Chance is 25.0 %" in out
        assert f"| {row} | {measured[row]:.1f} |" in out
        ran = [shlex.split(line)[2] for line in out.splitlines() if line.startswith("$ ")]
        assert [one for one in ran if one in ("synthetic", "extract")] == made
        assert ran.count("train") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["WORK"], "give WORK alone with --small, and VIDEOS ANNOTATIONS WORK without; got 1"),
        (["WORK", "--small", "--row", "none"], "--row must be a label of the table, got 'none'"),
        (["WORK", "--small", "--weights", "x=y"], "--weights must be cnn-m-2048=FILE, got 'x'"),
    ],
)
def test_wrong_arguments_are_told(
    scripts: Mapping[str, ModuleType],
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        scripts["tables"].main(scripts["two_stream"].PAPER, arguments)
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
