"""`flowprep extract`: every option reaches the data set, recipes and files rank as documented."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from flowprep import open_dataset
from flowprep.cli.extract import extract as command
from flowprep.cli.options import GroupedOption
from flowprep.dataset.layout import flatten
from flowprep.errors import FAILURE_REASONS
from flowprep.presets import PRESETS
from tests.cli.conftest import Command

# fmt: off
OPTIONS: list[tuple[str, str, str, Any]] = [
    # algorithm, option and value, field of dataset.json, value there
    ("dis", "--decoder decord", "decode.decoder", "decord"),
    ("dis", "--fps 12.5", "decode.fps", 12.5),
    ("dis", "--fps source", "decode.fps", None),
    ("dis", "--resize short:32", "decode.resize", "short:32"),
    ("dis", "--resize height:32", "decode.resize", "height:32"),
    ("dis", "--resize 40x32", "decode.resize", "40x32"),
    ("dis", "--resize none", "decode.resize", "none"),
    ("dis", "--interpolation bicubic", "decode.interpolation", "bicubic"),
    ("dis", "--upscale --resize short:64", "decode.allow_upscale", True),
    ("dis", "--no-upscale", "decode.allow_upscale", False),
    ("dis", "--crop 32", "decode.crop", "32"),
    ("dis", "--crop 40x20", "decode.crop", "40x20"),
    ("dis", "--on-damage cut", "decode.on_damage", "cut"),
    ("dis", "--video-stream 0", "decode.video_stream", 0),
    ("dis", "--square-pixels", "decode.square_pixels", True),
    ("dis", "--image-fps 30", "decode.image_fps", 30.0),
    ("dis", "--on-gaps ignore", "decode.on_gaps", "ignore"),
    ("farneback", "", "flow.algorithm", "farneback"),
    ("dis", "--step 2", "flow.step", 2),
    ("dis", "--bound 12.5", "flow.bound_px", 12.5),
    ("dis", "--quantizer floor", "flow.quantizer", "floor"),
    ("dis", "--camera-motion homography", "flow.camera_motion", "homography"),
    ("tvl1", "--tau 0.2", "flow.parameters.tau", 0.2),
    ("tvl1", "--lambda 0.1", "flow.parameters.lambda_", 0.1),
    ("tvl1", "--theta 0.2", "flow.parameters.theta", 0.2),
    ("tvl1", "--nscales 2", "flow.parameters.nscales", 2),
    ("tvl1", "--warps 2", "flow.parameters.warps", 2),
    ("tvl1", "--epsilon 0.02", "flow.parameters.epsilon", 0.02),
    ("tvl1", "--inner-iterations 3", "flow.parameters.inner_iterations", 3),
    ("tvl1", "--outer-iterations 3", "flow.parameters.outer_iterations", 3),
    ("tvl1", "--scale-step 0.5", "flow.parameters.scale_step", 0.5),
    ("tvl1-opencv", "--gamma 0.1", "flow.parameters.gamma", 0.1),
    ("tvl1", "--stop exact", "flow.parameters.stop", "exact"),
    ("tvl1", "--median-filtering 1", "flow.parameters.median_filtering", 1),
    ("farneback", "--pyr-scale 0.6", "flow.parameters.pyr_scale", 0.6),
    ("farneback", "--levels 2", "flow.parameters.levels", 2),
    ("farneback", "--winsize 9", "flow.parameters.winsize", 9),
    ("farneback", "--iterations 2", "flow.parameters.iterations", 2),
    ("farneback", "--poly-n 7", "flow.parameters.poly_n", 7),
    ("farneback", "--poly-sigma 1.5", "flow.parameters.poly_sigma", 1.5),
    ("farneback", "--gaussian", "flow.parameters.gaussian", True),
    ("brox", "--alpha 0.3", "flow.parameters.alpha", 0.3),
    ("brox", "--gamma 40", "flow.parameters.gamma", 40.0),
    ("brox", "--scale-factor 0.7", "flow.parameters.scale_factor", 0.7),
    ("brox", "--inner-iterations 2", "flow.parameters.inner_iterations", 2),
    ("brox", "--outer-iterations 4", "flow.parameters.outer_iterations", 4),
    ("brox", "--solver-iterations 6", "flow.parameters.solver_iterations", 6),
    ("brox", "--pyramid-filter area", "flow.parameters.pyramid_filter", "area"),
    ("dis", "--dis-preset fast", "flow.parameters.dis_preset", "fast"),
    ("dis", "--finest-scale 0", "flow.parameters.finest_scale", 0),
    ("dis", "--patch-size 6", "flow.parameters.patch_size", 6),
    ("dis", "--patch-stride 3", "flow.parameters.patch_stride", 3),
    ("dis", "--gradient-descent-iterations 5", "flow.parameters.gradient_descent_iterations", 5),
    ("dis", "--variational-refinement-iterations 0",
     "flow.parameters.variational_refinement_iterations", 0),
    ("dis", "--directions forward", "encode.directions", ["forward"]),
    ("dis", "--directions backward", "encode.directions", ["backward"]),
    ("dis", "--directions both", "encode.directions", ["forward", "backward"]),
    ("dis", "--no-rgb", "encode.keep_rgb", False),
    ("dis", "--jpeg-quality 80", "encode.jpeg_quality", 80),
    ("dis", "--rgb-jpeg-quality 70", "encode.rgb_jpeg_quality", 70),
    ("dis", "--shard-size 1", "encode.videos_per_shard", 1),
]

RUN_OPTIONS = [
    # option and value, what the run's log says
    ("--workers 3", "num_workers=3"),
    ("--device cpu", "device='cpu'"),
    ("--workers-per-gpu 3", "workers_per_gpu=3"),
    ("--executor inline", "executor='inline'"),
    ("--address somewhere:1", "address='somewhere:1'"),  # which inline does not go to
    ("--no-ship-code", "ship_code=False"),
    ("--max-attempts 2", "max_attempts=2"),
    ("--stall-timeout 7.5", "stall_timeout_seconds=7.5"),
    ("--worker-memory 2GB", "worker_memory='2GB'"),
    ("--segment-frames 50", "segment_frames=50"),
    ("--retry-failed", "retry_failed=True"),
    ("--redo-changed", "redo_changed=True"),
    ("--no-progress", "progress=False"),
]
# fmt: on


def stored(out: Path) -> dict[str, Any]:
    """The configuration in dataset.json, flat."""
    return flatten(json.loads((out / "dataset.json").read_text())["config"])


@pytest.mark.parametrize(("algorithm", "option", "field", "value"), OPTIONS)
def test_option_reaches_the_data_set(
    extract: Command, tmp_path: Path, algorithm: str, option: str, field: str, value: object
) -> None:
    result = extract("--algorithm", algorithm, *option.split())
    assert (result.code, result.stderr) == (0, "")
    assert stored(tmp_path / "out")[field] == value


def test_every_configuration_option_is_tested() -> None:
    tested = {word for _, option, *_ in OPTIONS for word in option.split() if word[:2] == "--"}
    run_tested = {option.split()[0] for option, _ in RUN_OPTIONS}
    elsewhere = {"--preset", "--config", "--algorithm", "--dry-run", "--runtime-env"}
    elsewhere |= {"--estimator", "--estimator-options"}
    # tests/run/test_raft_runs.py
    elsewhere |= {"--raft-model", "--raft-weights", "--num-flow-updates"}
    for item in command.params:
        if isinstance(item, GroupedOption) and item.group != "Input":
            flags = {*item.opts, *item.secondary_opts}
            assert flags & (tested | run_tested | elsewhere), f"{flags} are not tested"


def test_a_runtime_environment_is_not_logged(extract: Command, tmp_path: Path) -> None:
    secret = '{"env_vars": {"AWS_SECRET_ACCESS_KEY": "hidden"}}'
    assert extract("--runtime-env", secret).code == 0
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not any(b"hidden" in data for data in written)


@pytest.mark.parametrize(("option", "logged"), RUN_OPTIONS)
def test_run_option_reaches_the_run(
    extract: Command, tmp_path: Path, option: str, logged: str
) -> None:
    assert extract(*option.split()).code == 0
    (log,) = (tmp_path / "out/logs").glob("*.log")
    assert logged in log.read_text().splitlines()[0]


def test_defaults_of_the_help_are_those_of_the_configuration(
    flowprep: Command, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert flowprep("extract", clips, out, "--executor", "inline", "--resize", "32x32").code == 0
    context = click.Context(command)
    values = {item.name: item.get_default(context) for item in command.params}
    config = stored(out)
    for name in ("algorithm", "step", "bound_px", "quantizer", "jpeg_quality", "tau", "warps"):
        (found,) = [config[field] for field in config if field.split(".")[-1] == name]
        assert found == values[name]


# tests/flow/test_raft.py has the preset that needs weights.
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "i3d-raft"])
def test_preset(extract: Command, tmp_path: Path, preset: str) -> None:
    # The largest recipe is slow with TV-L1, so a smaller picture is given beside it.
    options = ["--algorithm", "tvl1", "--resize", "40x32", "--warps", 1]
    options += ["--outer-iterations", 1]
    changed: dict[str, Any] = {"decode.resize": "40x32", "flow.parameters.outer_iterations": 1}
    changed["flow.parameters.warps"] = 1
    if PRESETS[preset].flow.algorithm not in ("tvl1", "brox"):
        options = ["--algorithm", PRESETS[preset].flow.algorithm, "--resize", "40x32", "--crop", 30]
        changed = {"decode.resize": "40x32", "decode.crop": "30"}
    if PRESETS[preset].flow.algorithm == "brox":
        options = ["--algorithm", "brox", "--resize", "40x32", "--outer-iterations", 1]
        del changed["flow.parameters.warps"]
    assert extract("--preset", preset, *options).code == 0
    wanted = flatten(PRESETS[preset].to_dict()) | changed
    assert stored(tmp_path / "out") == flatten(json.loads(json.dumps(wanted)))


def test_another_algorithm_than_the_preset_s_takes_its_own_defaults(
    extract: Command, tmp_path: Path
) -> None:
    assert extract("--preset", "i3d", "--algorithm", "dis", "--resize", "none").code == 0
    config = stored(tmp_path / "out")
    assert config["flow.quantizer"] == "floor"
    assert config["flow.parameters.dis_preset"] == "medium"
    assert "flow.parameters.tau" not in config


def test_file_counts_more_than_preset_and_command_line_more_than_file(
    extract: Command, tmp_path: Path
) -> None:
    file = tmp_path / "options.toml"
    file.write_text(
        'preset = "i3d"\nalgorithm = "dis"\nresize = "none"\nbound = 10\n'
        "jpeg_quality = 80\nrgb-jpeg-quality = 70\nrgb = true\ndirections = 'forward'\n"
    )
    # The fixture gives no --algorithm where the options name one, and the file must.
    result = extract("--config", file, "--algorithm", "dis", "--jpeg-quality", 60)
    assert (result.code, result.stderr) == (0, "")
    config = stored(tmp_path / "out")
    assert config["encode.jpeg_quality"] == 60  # command line > file
    assert config["encode.rgb_jpeg_quality"] == 70  # file > preset
    assert config["flow.bound_px"] == 10
    assert config["decode.resize"] == "none"
    assert config["encode.directions"] == ["forward"]
    assert config["decode.fps"] == 25.0  # preset > default
    assert config["flow.quantizer"] == "floor"
    assert config["encode.videos_per_shard"] == 100  # default


def test_run_options_and_algorithm_in_a_file(
    flowprep: Command, clips: Path, tmp_path: Path
) -> None:
    file = tmp_path / "options.toml"
    file.write_text(
        'algorithm = "farneback"\nwinsize = 9\nexecutor = "inline"\nretry_failed = true\n'
        'fps = "source"\nlevels = 2\n'
    )
    assert flowprep("extract", "--config", file, clips, tmp_path / "out").code == 0
    config = stored(tmp_path / "out")
    assert config["flow.algorithm"] == "farneback"
    assert config["flow.parameters.winsize"] == 9
    assert config["decode.fps"] is None
    (log,) = (tmp_path / "out/logs").glob("*.log")
    assert "retry_failed=True" in log.read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("boundd = 3", "no option is called boundd; did you mean bound?"),
        ("bound_px = 3", "no option is called bound_px; did you mean bound?"),
        ("xyzzy = 3", "no option is called xyzzy; correct the name, or remove the line"),
        ("no-rgb = true", "no option is called no-rgb; write rgb = false"),
        (
            "[flow]\nstep = 1",
            "no option is called flow; options stand at the top of the file, not in tables",
        ),
        ("step = 1.5", "step must be an integer, got 1.5"),
        ("step = true", "step must be an integer, got true"),
        ("bound = '3'", 'bound must be a number, got "3"'),
        ("bound = [3]", "bound must be a number, got [3]"),
        ("rgb = 'no'", 'rgb must be true or false, got "no"'),
        ("fps = true", 'fps must be a number or "source", got true'),
        (
            "fps = 'native'",
            "fps: 'native' is neither a number nor 'source'.",
        ),
        ("resize = 256", "resize must be a text in quotes, got 256"),
        (
            "algorithm = 'disk'",
            "algorithm: 'disk' is not one of tvl1, tvl1-opencv, farneback, farneback-opencv, brox, "
            "dis, raft; did you mean dis?",
        ),
        ("directions = ['both']", 'directions must be a text in quotes, got ["both"]'),
    ],
)
def test_wrong_line_in_a_file(extract: Command, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "options.toml"
    file.write_text(line)
    result = extract("--config", file)
    assert result.code == 2
    assert result.error == f"Error: Invalid value for '--config': {file}: {message}\n"
    assert not (tmp_path / "out").exists()


def test_wrong_size_in_a_file(extract: Command, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text("resize = '256'")
    result = extract("--config", file)
    assert result.code == 2
    assert result.stderr == (
        f"Error: {file}: resize must be none, short:PX, height:PX or WIDTHxHEIGHT (such as "
        "short:256 or 340x256), got '256'\n"
    )


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "{a = " * 5000])
def test_toml_that_is_nested_too_deeply(extract: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "options.toml").write_text(text)
    result = extract("--config", tmp_path / "options.toml")
    assert result.code == 2
    assert "lists or tables are nested too deeply" in result.stderr


def test_file_that_is_no_toml(extract: Command, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text("bound = ")
    result = extract("--config", file)
    assert result.code == 2
    assert result.error.startswith(f"Error: Invalid value for '--config': {file}: Invalid value")


def test_file_whose_name_begins_with_a_dash(
    flowprep: Command, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(clips / "zoom_in/a.mp4", tmp_path / "-a.mp4")
    monkeypatch.chdir(tmp_path)
    quick = ("--algorithm", "dis", "--executor", "inline")
    assert flowprep("extract", *quick, "--", "-a.mp4", "out").code == 0
    assert json.loads((tmp_path / "out/manifest.jsonl").read_text())["key"] == "%2Da"


def test_input_options(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    quick = ("--algorithm", "dis", "--executor", "inline")
    (tmp_path / "list.csv").write_text("zoom_in/a.mp4 7\n")
    out = tmp_path / "out"
    listed = ("extract", tmp_path / "list.csv", out, "--format", "list", "--root", clips, *quick)
    assert flowprep(*listed).code == 0
    entry = json.loads((out / "manifest.jsonl").read_text())
    assert (entry["key"], entry["labels"]) == ("zoom_in/a", [7])


def test_annotations_and_split(flowprep: Command, tmp_path: Path) -> None:
    made = flowprep("synthetic", tmp_path, "--frames", 2, "--width", 32, "--height", 32)
    assert made.code == 0
    lists = tmp_path / "annotations"
    for part in ("train", "test"):
        shutil.copy(lists / f"{part}list01.txt", lists / f"{part}list02.txt")
    (lists / "testlist02.txt").write_text("zoom_in/zoom_in_g01_c01.mp4\n")
    (lists / "trainlist02.txt").write_text("zoom_in/zoom_in_g02_c01.mp4 7\n")
    out = tmp_path / "out"
    options = ("--annotations", lists, "--split", 2, "--algorithm", "dis", "--executor", "inline")
    result = flowprep("extract", tmp_path / "videos", out, *options)
    assert result.code == 0
    assert result.stderr == (
        f"note: ignored 30 videos under {tmp_path}/videos that {lists} does not name; add lines "
        "for them if they should be used\n"
    )
    entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert sorted((entry["key"], entry["split"]) for entry in entries) == [
        ("zoom_in/zoom_in_g01_c01", "test"),
        ("zoom_in/zoom_in_g02_c01", "train"),
    ]


def test_lists_with_splits(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    quick = ("--algorithm", "dis", "--executor", "inline")
    (tmp_path / "train.txt").write_text("zoom_in/a.mp4 zoom\n")
    (tmp_path / "val.txt").write_text("zoom_in/a.mp4 1\n")
    out = tmp_path / "out"
    lists = ("--list", f"train={tmp_path}/train.txt")
    result = flowprep("extract", clips, out, *lists, *quick)
    assert result.code == 0
    assert "note: labels are names of classes" in result.stderr
    entry = json.loads((out / "manifest.jsonl").read_text())
    assert (entry["key"], entry["labels"], entry["split"]) == ("zoom_in/a", [0], "train")
    mixed = flowprep("extract", clips, out, *lists, "--list", f"val={tmp_path}/val.txt", *quick)
    assert mixed.code == 2
    assert "labels must be all integers >= 0 or all names of classes" in mixed.stderr
    gone = flowprep("extract", clips, out, "--list", "train=trian.txt", *quick)
    assert (gone.code, gone.stderr.partition(":")[0]) == (2, "Error")
    assert "--list does not exist: trian.txt" in gone.stderr


def test_a_class_that_is_missing(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    quick = ("--algorithm", "dis", "--executor", "inline")
    (tmp_path / "k.csv").write_text(
        "label,youtube_id,time_start,time_end\nzoom,a,0,1\nrun,gone,0,1\n"
    )
    given = ("extract", clips / "zoom_in", tmp_path / "out", "--annotations", tmp_path / "k.csv")
    refused = flowprep(*given, *quick)
    assert refused.code == 2
    assert "1 of 2 classes" in refused.stderr
    assert "give --allow-missing" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert "1 of 2 listed videos" in flowprep(*given, "--allow-missing", "--dry-run", *quick).stderr


def test_summary_of_a_run(extract: Command, tmp_path: Path) -> None:
    lines = extract().stdout.splitlines()
    assert lines[0] == f"complete: 2 of 2 videos in {tmp_path / 'out'}"
    assert lines[1].startswith("  this run      2 videos, 10 frame pairs in ")
    again = extract().stdout.splitlines()
    assert again[1:3] == ["  done before   2 videos", again[2]]
    assert again[2].startswith("  this run      0 videos, 0 frame pairs in ")


def test_failed_video_makes_exit_code_1(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(clips, videos)
    (videos / "zoom_in/b.mp4").write_text("")
    quick = ("--algorithm", "dis", "--executor", "inline")
    result = flowprep("extract", videos, tmp_path / "out", *quick)
    assert result.code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"INCOMPLETE: 2 of 3 videos in {tmp_path / 'out'}"
    assert (
        "  failed        1 video, listed in failures.jsonl; --retry-failed tries it again:" in lines
    )
    assert f"         1  unreadable: {FAILURE_REASONS['unreadable']}" in lines


def test_dry_run_writes_nothing(extract: Command, tmp_path: Path) -> None:
    result = extract("--dry-run", "--workers", 1)
    assert (result.code, result.stderr) == (0, "")
    assert not (tmp_path / "out").exists()
    lines = result.stdout.splitlines()
    assert lines[:8] == [
        f"dry run: 2 of 2 videos to do in {tmp_path / 'out'}, 1 shard",
        "  frames      short:256, area, source frame rate, by pyav",
        "  flow        dis, step 1, forward and backward",
        "  parameters  dis_preset medium",
        "  quantized   round, bound 20 px",
        "  stored      JPEG quality 95, RGB frames at 90",
        "  classes     2: move_left, zoom_in",
        lines[7],
    ]
    assert lines[7].startswith("  estimate    10 frame pairs at ")
    assert " with 1 worker, " in lines[7]
    assert lines[7].endswith(" kB")
    assert lines[8:] == [
        "    class      videos",
        "    move_left       1",
        "    zoom_in         1",
        "nothing was written",
    ]


def test_a_crop_is_stored_shown_and_held_to(
    extract: Command, flowprep: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # `none` takes the crop of a preset away.
    whole = ("--preset", "vmz", "--crop", "none", "--resize", "57x43", "--dry-run")
    assert "  frames      57x43, bilinear, " in extract(*whole).stdout
    cropped = ("--preset", "vmz", "--resize", "57x43", "--crop", "37x30")
    assert "  frames      57x43, crop 37x30, bilinear, " in extract(*cropped, "--dry-run").stdout
    result = extract(*cropped)
    assert (result.code, result.stderr) == (0, "")
    assert "  clipped       0.000 % of the flow components" in result.stdout
    dataset = open_dataset(out)
    for video in dataset.videos:
        assert (video.width, video.height) == (37, 30)
        assert dataset.frames(video.key, [0]).shape == (1, 30, 37, 3)
        assert dataset.flow(video.key, 0, 2).shape == (2, 30, 37, 2)
    page = flowprep("info", out).stdout
    assert "  frames      57x43, crop 37x30, bilinear, source frame rate" in page
    # The same command goes on; one without the crop does not.
    assert "2 videos" in extract(*cropped).stdout
    other = extract("--preset", "vmz", "--resize", "57x43", "--crop", "none")
    assert other.code == 1
    assert "  decode.crop: 37x30 in the data set, nothing in this run" in other.stderr


def test_a_crop_from_a_file_may_be_a_number(extract: Command, tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text("crop = 32\n")
    assert extract("--config", tmp_path / "options.toml").code == 0
    assert stored(tmp_path / "out")["decode.crop"] == "32"


def test_a_crop_beyond_the_frames_fails_the_video_or_the_command(
    extract: Command, tmp_path: Path
) -> None:
    result = extract("--resize", "none", "--crop", 300)
    assert result.code == 1
    assert f"         2  too-small: {FAILURE_REASONS['too-small']}" in result.stdout
    result = extract("--resize", "171x128", "--crop", 130)
    assert result.code == 2
    assert result.error == (
        "Error: --crop must lie within the resized frames, got 130 with resize 171x128; take a "
        "smaller crop or a larger resize\n"
    )


def test_dry_run_says_that_all_is_done(extract: Command, tmp_path: Path) -> None:
    assert extract().code == 0
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    lines = extract("--dry-run").stdout.splitlines()
    assert lines[0] == f"dry run: 0 of 2 videos to do in {tmp_path / 'out'}, 1 shard"
    assert "  estimate    nothing to do: every video is finished or has failed" in lines
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before


def test_python_dash_m(clips: Path, tmp_path: Path) -> None:
    quick = ["--algorithm", "dis", "--executor", "inline"]
    run = subprocess.run(
        [sys.executable, "-m", "flowprep", "extract", str(clips), str(tmp_path / "out"), *quick],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("complete: 2 of 2 videos")
