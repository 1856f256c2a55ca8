"""`--estimator`: a user's own class of the current folder in extract, plan, view and compare."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from numpy.typing import NDArray

import flowprep as package
from flowprep.cli import extract as extract_module
from flowprep.config import Direction
from flowprep.dataset.layout import _header_digest
from flowprep.dataset.verify import verify_dataset
from flowprep.flow.parameters import PARAMETERS
from flowprep.synthetic import write_video
from tests.cli.conftest import Command, Result
from tests.own_estimators import (
    CHANNEL_MOTIONS_PX,
    GRAY_MODULE,
    RGB_MODULE,
    channel_frames,
    forget_modules,
    write_images,
)

RGB = ("--estimator", "my_flow:ChannelFlow")
EXACT = ("--resize", "none", "--jpeg-quality", "100")
# As the program `flowprep` does it: the current folder is not on Python's path.
PROGRAM = "import sys; sys.path.remove(''); from flowprep.cli import main; main()"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the module `my_flow` and the folder `videos` of one clip."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    (tmp_path / "my_flow.py").write_text(RGB_MODULE)
    write_images(tmp_path / "videos" / "clip", channel_frames(7))
    forget_modules(tmp_path)
    yield tmp_path
    forget_modules(tmp_path)


@pytest.fixture
def extract_inline(flowprep: Command) -> Command:
    def run(*options: object) -> Result:
        return flowprep("extract", "videos", "out", "--executor", "inline", *EXACT, *options)

    return run


def run_program(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def motion_px(out: Path, direction: Direction = "forward") -> NDArray[np.float32]:
    """Returns the median flow of the middle of all fields, (u, v)."""
    dataset = package.open_dataset(out)
    (video,) = dataset.videos
    flow = dataset.flow(video.key, 0, video.num_flows, direction)
    return np.asarray(np.median(flow[:, 16:-16, 16:-16], axis=(0, 1, 2)))


# ---- extract


def test_an_rgb_estimator_fills_a_data_set(here: Path, extract_inline: Command) -> None:
    result = extract_inline(*RGB, "--estimator-options", "channel=2")
    assert result.code == 0, result.stderr
    assert verify_dataset(here / "out", deep=True).problems == []
    np.testing.assert_allclose(motion_px(here / "out"), CHANNEL_MOTIONS_PX[2], atol=0.2)
    backward = -np.array(CHANNEL_MOTIONS_PX[2])
    np.testing.assert_allclose(motion_px(here / "out", "backward"), backward, atol=0.2)
    header = json.loads((here / "out" / "dataset.json").read_text())
    assert header["config"]["flow"]["algorithm"] == "my_flow:ChannelFlow"
    parameters = header["config"]["flow"]["parameters"]
    assert parameters == {"channel": 2, "winsize": 15, "gains": [1.0]}
    assert header["implementation"].startswith("my_flow:ChannelFlow 1.0, source ")
    assert header["versions"]["estimator"] == header["implementation"]


@pytest.mark.parametrize("executor", ["ray", "process"])
def test_workers_import_the_class_from_the_current_folder(here: Path, executor: str) -> None:
    write_images(here / "videos" / "other", channel_frames(5))
    options = ["--executor", executor, "--workers", "1", *EXACT, *RGB]
    run_program(here, "extract", "videos", "out", *options, "--estimator-options", "channel=1")
    assert verify_dataset(here / "out", deep=True).problems == []
    flow = package.open_dataset(here / "out").flow("other", 0, 4)
    found = np.median(flow[:, 16:-16, 16:-16], axis=(0, 1, 2))
    np.testing.assert_allclose(found, CHANNEL_MOTIONS_PX[1], atol=0.2)


def test_workers_find_what_only_the_program_finds(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A package that is no file of the current folder, whose modules import one another.
    elsewhere = tmp_path_factory.mktemp("site")
    (elsewhere / "flows").mkdir()
    (elsewhere / "flows" / "__init__.py").write_text('__version__ = "7"\n')
    (elsewhere / "flows" / "names.py").write_text('NAME = "gray"\n')
    module = GRAY_MODULE.replace('    version = "1.0"\n', "    frames = NAME\n")
    (elsewhere / "flows" / "gray.py").write_text(f"from flows.names import NAME\n{module}")
    code = (
        f"import sys; sys.path.append({str(elsewhere)!r}); import flowprep\n"
        "config = flowprep.ExtractConfig(flow=flowprep.FlowSpec('flows.gray:GrayFlow'))\n"
        "flowprep.extract('videos', 'out', config, executor='ray')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True)
    header = package.open_dataset(here / "out").header
    assert header.implementation.startswith("flows.gray:GrayFlow 7, source ")
    assert verify_dataset(here / "out", deep=True).problems == []


def test_segments_of_an_rgb_estimator_join_to_the_uncut_video(
    here: Path, flowprep: Command
) -> None:
    scene = channel_frames(31)
    write_video(here / "long.mp4", iter(scene))
    base = ("extract", "long.mp4", *RGB, *EXACT, "--executor", "inline")
    for out, frames in (("uncut", 0), ("cut", 8)):
        result = flowprep(*base[:2], out, *base[2:], "--segment-frames", frames)
        assert result.code == 0, result.stderr
    assert "cut into 4 segments" in next((here / "cut" / "logs").glob("*.log")).read_text()
    shards = [(here / name / "shards" / "000000.tar").read_bytes() for name in ("uncut", "cut")]
    assert shards[0] == shards[1]


def test_it_goes_on_with_the_same_version_alone(here: Path, extract_inline: Command) -> None:
    assert extract_inline(*RGB).code == 0
    write_images(here / "videos" / "new", channel_frames(4))
    assert extract_inline(*RGB).code == 0
    stored = package.open_dataset(here / "out").header.implementation
    assert len(package.open_dataset(here / "out").videos) == 2

    forget_modules(here)
    (here / "my_flow.py").write_text(RGB_MODULE.replace('"1.0"', '"1.1.0"'))
    result = extract_inline(*RGB)
    assert result.code == 1
    assert f"implementation: {stored} in the data set, my_flow:ChannelFlow 1.1.0," in result.stderr

    result = extract_inline(*RGB, "--estimator-options", "winsize=9")
    assert "flow.parameters.winsize: 15 in the data set, 9 in this run" in result.stderr


def test_reading_imports_nothing_and_needs_no_module(
    here: Path, extract_inline: Command, flowprep: Command
) -> None:
    assert extract_inline(*RGB).code == 0
    forget_modules(here)
    (here / "my_flow.py").write_text("raise SystemExit('imported')\n")
    commands = (
        ["info", "out"],
        ["verify", "out"],
        ["view", "out", "--to", "sheet.png"],
        ["report", "out", "--to", "report.html"],
        ["export", "out", "tree", "--layout", "mmaction2"],
        ["import", "tree", "again", "--layout", "mmaction2"],
        ["compare", "out", "again"],
    )
    # One after the other in one process: none of them has imported it before the next.
    for arguments in commands:
        result = flowprep(*arguments)
        assert result.code == 0, result.stderr
    assert "my_flow" not in sys.modules
    assert "my_flow:ChannelFlow" in run_program(here, "info", "out")


def test_parameters_that_are_stored_wrongly_are_damage_and_no_import(
    here: Path, extract_inline: Command, flowprep: Command
) -> None:
    assert extract_inline(*RGB).code == 0
    path = here / "out" / "dataset.json"
    values = json.loads(path.read_text())
    values["config"]["flow"]["parameters"] = None
    values["sha256"] = _header_digest(
        {name: one for name, one in values.items() if name != "sha256"}
    )
    path.write_text(json.dumps(values))
    result = flowprep("info", "out")
    assert result.code == 1
    assert "dataset.json is damaged: parameters must be an object, got None" in result.stderr


def test_a_config_file_may_name_it(here: Path, extract_inline: Command) -> None:
    (here / "run.toml").write_text(
        'estimator = "my_flow:ChannelFlow"\nestimator-options = {channel = 1, gains = [2]}\n'
    )
    assert extract_inline("--config", "run.toml").code == 0
    parameters = package.open_dataset(here / "out").config.to_dict()["flow"]["parameters"]
    assert parameters == {"channel": 1, "winsize": 15, "gains": [2.0]}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("estimator-options = 3", "estimator-options must be a table such as {radius = 4}, got 3"),
        ('estimator-options = ["channel"]', "'channel' is not KEY=VALUE"),
        ("list = [1]", "list must be a list of texts in quotes, got [1]"),
    ],
)
def test_a_config_file_that_is_wrong(
    here: Path, extract_inline: Command, lines: str, words: str
) -> None:
    (here / "run.toml").write_text(lines)
    result = extract_inline("--config", "run.toml", *RGB)
    assert result.code == 2
    assert words in result.stderr


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            [*RGB, "--algorithm", "dis"],
            "--estimator replaces --algorithm, got both my_flow:ChannelF",
        ),
        (["--estimator-options", "channel=1"], "got channel=1 alone; add it, or leave them out"),
        ([*RGB, "--warps", "2"], "--warps is a parameter of tvl1, but the algorithm is my_flow:Ch"),
        (["--estimator", "my_flow"], "--algorithm must be one of tvl1,"),
        (["--estimator", "my_flow:None_"], "--estimator my_flow:None_: the module my_flow has no"),
        (["--estimator", "no_flow:A"], "--estimator no_flow:A: Python finds no module no_flow, ne"),
        ([*RGB, "--estimator-options", "chan=1"], "has no option chan; it takes channel, winsize"),
        ([*RGB, "--estimator-options", "channel"], "'channel' is not KEY=VALUE"),
        ([*RGB, "--device", "cuda"], "--device of my_flow:ChannelFlow must be cpu, got 'cuda'"),
    ],
)
def test_mistakes_are_usage_errors(
    here: Path, extract_inline: Command, options: list[str], words: str
) -> None:
    result = extract_inline(*options)
    assert result.code == 2
    assert words in result.error
    assert not (here / "out").exists()


def test_a_field_that_cannot_be_stored_costs_its_video(here: Path, extract_inline: Command) -> None:
    write_images(here / "videos" / "wide", channel_frames(4, width=128))
    lines = "        field = cv2.calcOpticalFlowFarneback"
    source = GRAY_MODULE.replace("        return cv2.calcOpticalFlowFarneback", lines)
    (here / "my_flow.py").write_text(f"{source}        return field[:, :96]\n")
    result = extract_inline("--estimator", "my_flow:GrayFlow")
    assert result.code == 1
    failure = json.loads((here / "out" / "failures.jsonl").read_text())
    assert (failure["key"], failure["reason"]) == ("wide", "estimator-error")
    assert failure["message"] == (
        "my_flow:GrayFlow gave a wrong field: it must be finite float32 of shape (64, 128, 2) for "
        "frames of 128x64 px, got float32 of shape (64, 96, 2)"
    )
    assert [video.key for video in package.open_dataset(here / "out").videos] == ["clip"]


def test_a_class_that_fails_with_every_video_stops_the_run(
    here: Path, extract_inline: Command
) -> None:
    source = GRAY_MODULE.replace("        return", "        1 / 0\n        return")
    (here / "my_flow.py").write_text(source)
    result = extract_inline("--estimator", "my_flow:GrayFlow")
    assert result.code == 1
    words = "my_flow:GrayFlow raised ZeroDivisionError at my_flow.py:12: division by zero"
    assert f"error of the estimator, and no video gave flow: {words}. The cause" in result.error
    assert not list((here / "out").glob("shards/*"))
    (log,) = (here / "out" / "logs").glob("*.log")
    assert "clip: estimator error" in log.read_text()
    assert "    1 / 0" in log.read_text()


# ---- the other commands


def test_plan_and_dry_run_probe_it(here: Path, flowprep: Command, extract_inline: Command) -> None:
    result = extract_inline(*RGB, "--dry-run", "--image-fps", "25")
    assert result.code == 0, result.stderr
    assert "flow        my_flow:ChannelFlow, step 1" in result.stdout
    assert "parameters  channel 0, winsize 15, gains" in result.stdout
    assert not (here / "out").exists()
    result = flowprep("plan", "videos", *RGB, "--image-fps", "25")
    assert result.code == 0, result.stderr


def test_view_draws_it(here: Path, flowprep: Command) -> None:
    result = flowprep("view", "videos/clip", "--to", "sheet.png", *RGB, "--resize", "none")
    assert result.code == 0, result.stderr
    assert (here / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "options",
    [
        ["--algorithms", "farneback-opencv,my_flow:ChannelFlow"],
        ["--algorithms", "farneback-opencv", *RGB],
    ],
)
def test_compare_takes_it_beside_an_algorithm(
    here: Path, flowprep: Command, options: list[str]
) -> None:
    more = ["--estimator-options", "channel=0", "--resize", "none", "--json"]
    result = flowprep("compare", "videos/clip", *options, *more)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["differing"]["flow.algorithm"] == ["farneback-opencv", "my_flow:ChannelFlow"]


def test_compare_needs_two_and_an_estimator_for_its_options(here: Path, flowprep: Command) -> None:
    result = flowprep("compare", "videos/clip", *RGB)
    assert result.code == 2
    assert "--algorithms must name two, got my_flow:ChannelFlow" in result.error
    options = ["--algorithms", "dis,tvl1", "--estimator-options", "a=1"]
    result = flowprep("compare", "videos/clip", *options)
    assert result.code == 2
    assert "--estimator-options need --estimator, got a=1 alone" in result.error


# ---- options of flowprep's own algorithms


@dataclass(frozen=True)
class PatchParameters:
    winsize: int = 9
    """Side of a patch."""
    patches: int = 3
    """How many patches."""


def test_two_algorithms_may_call_a_parameter_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def options() -> dict[str, click.Option]:
        decorate: Callable[..., click.Command] = extract_module._parameter_options
        command = decorate(click.command()(lambda **_: None))
        found = [one for one in command.params if isinstance(one, click.Option)]
        assert len(found) == len({one.name for one in found})
        return {one.opts[0]: one for one in found}

    before = options()
    monkeypatch.setitem(PARAMETERS, "patch", PatchParameters)
    after = options()
    assert set(after) - set(before) == {"--patches"}
    assert after["--patches"].help == "How many patches."
    assert after["--winsize"].help == (
        "Side of the averaging window, in pixels. For farneback, farneback-opencv (default 15). "
        "Side of a patch. For patch (default 9)."
    )
    assert not after["--winsize"].show_default
    unchanged = [name for name in before if name != "--winsize"]
    assert [after[name].help for name in unchanged] == [before[name].help for name in unchanged]
