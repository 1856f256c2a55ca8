"""`flowprep train`: what options become, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowprep.config import ExtractConfig, FlowSpec, RunOptions
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.config import TrainConfig
from flowprep.learn.network_options import TSNOptions
from flowprep.learn.recipes import default_config
from flowprep.learn.trainings import TRAININGS
from flowprep.run.driver import run_extract
from flowprep.synthetic import action_scene, write_video
from tests.cli.conftest import Command, Result

QUICK = ("--steps", 1, "--width", 0.05, "--batch-size", 2, "--frames", 3, "--crop", 48)
HERE = ("--device", "cpu", "--loaders", 0, "--no-tensorboard")


@pytest.fixture(scope="session")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with a training and a test video each, 64x48 px."""
    root = tmp_path_factory.mktemp("flow")
    lines = {"train": "", "test": ""}
    for label, action in enumerate(("move_left", "zoom_in")):
        (root / "videos" / action).mkdir(parents=True)
        for seed, split in enumerate(lines):
            scene = action_scene(action, num_frames=6, width=64, height=48, seed=seed)
            frames = (scene.frame(t) for t in range(6))
            write_video(root / f"videos/{action}/{split}.mp4", frames)
            lines[split] += f"{action}/{split}.mp4 {label + 1}\n"
    (root / "lists").mkdir()
    (root / "lists/classInd.txt").write_text("1 move_left\n2 zoom_in\n", encoding="utf-8")
    for split, text in lines.items():
        (root / f"lists/{split}list01.txt").write_text(text, encoding="utf-8")
    manifest = collect_videos(root / "videos", annotations=root / "lists")
    config = ExtractConfig(flow=FlowSpec("dis"))
    assert run_extract(
        manifest, str(root / "flow"), config, RunOptions(executor="inline")
    ).is_complete
    return root / "flow"


@pytest.fixture
def train(flowprep: Command, flow: Path, tmp_path: Path) -> Command:
    """Runs `flowprep train FLOW --run tmp_path/run OPTIONS...` for one quick step."""

    def run(*options: object) -> Result:
        return flowprep("train", flow, "--run", tmp_path / "run", *HERE, *QUICK, *options)

    return run


def stored_config(run: Path) -> TrainConfig:
    values = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return TrainConfig.from_dict(values["config"])


def test_a_training_and_the_same_command_again(train: Command, tmp_path: Path) -> None:
    result = train()
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"trained: 1 step in {tmp_path}/run\n")
    assert (tmp_path / "run/best.pt").exists()
    again = train()
    assert (again.code, again.stderr) == (0, "")
    assert again.stdout.startswith(f"trained: 1 step in {tmp_path}/run, before this run\n")
    other = train("--learning-rate", 0.5)
    assert other.code == 1
    assert "optimization.learning_rate: 0.01 so far, 0.5 now" in other.error


def test_without_a_recipe_clips_suit_the_model(
    flowprep: Command, flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = flowprep("train", flow, "--model", "tsn-resnet18", *HERE, *QUICK)
    assert result.code == 0, result.stderr
    config = stored_config(tmp_path / "runs/tsn-resnet18-flow")
    usual = default_config("tsn-resnet18", "flow")
    assert config.clip.num_segments == usual.clip.num_segments == 3
    assert config.clip.normalization == usual.clip.normalization
    assert config.augment == usual.augment
    assert (config.clip.num_frames, config.clip.crop_px) == (3, 48)


def test_options_count_more_than_the_recipe(train: Command, tmp_path: Path) -> None:
    result = train(
        *("--recipe", "tsn", "--model", "tsn-resnet18", "--stream", "rgb", "--frames", 1),
        *("--resize-short", 48, "--scales", "1,.5", "--crop-place", "corners"),
        *("--milestones", ".25,.5", "--no-partial-bn", "--epochs", 0.5, "--seed", 3),
    )
    assert result.code == 0, result.stderr
    config = stored_config(tmp_path / "run")
    recipe = TRAININGS["tsn"]["rgb"]
    assert config.model.model == "tsn-resnet18"
    assert config.model.options == TSNOptions(partial_bn=False)
    assert config.clip.stream == "rgb"
    assert config.clip.normalization == recipe.clip.normalization
    assert (config.augment.scales, config.augment.crop) == ((1.0, 0.5), "corners")
    assert config.optimization.milestones == (0.25, 0.5)
    assert config.optimization.learning_rate == recipe.optimization.learning_rate
    assert config.optimization.clip_gradient_norm == 20
    # Parts no larger than the recipe's 16 of 256.
    assert (config.optimization.batch_size, config.optimization.accumulate) == (2, 1)
    assert config.seed == 3


def test_what_is_not_as_in_the_recipe_is_noted_and_goes_on(
    train: Command, flow: Path, tmp_path: Path
) -> None:
    result = train("--recipe", "tsn", "--model", "tsn-resnet18", "--resize-short", 48)
    assert result.code == 0, result.stderr
    begin = "note: not as in recipe tsn: "
    assert [line for line in result.stderr.splitlines() if line.startswith(begin)] == [
        f"{begin}num_frames: 3 here, 5 in the recipe",
        f"{begin}resize_short_px: 48 here, 256 in the recipe",
        f"{begin}crop_px: 48 here, 224 in the recipe",
        f"{begin}decode.resize: short:256 in {flow}, 340x256 in the recipe",
        f"{begin}decode.interpolation: area in {flow}, bilinear in the recipe",
        f"{begin}flow.algorithm: dis in {flow}, tvl1 in the recipe (and with it 13 parameters)",
    ]


def test_a_recipe_without_a_published_training_has_clips_of_its_own(
    flow: Path, flowprep: Command, tmp_path: Path
) -> None:
    options = ("--steps", 1, "--width", 0.05, "--batch-size", 2, "--crop", 32, "--frames", 4)
    run = ("--run", tmp_path / "run", *HERE, *options)
    result = flowprep("train", flow, "--recipe", "torchvision-video", "--model", "mc3-18", *run)
    assert result.code == 0, result.stderr
    config = stored_config(tmp_path / "run")
    assert (config.model.model, config.clip.stream) == ("mc3-18", "rgb")
    assert config.clip.normalization == "torchvision-video"
    other = flowprep("train", flow, "--recipe", "torchvision-video", "--stream", "flow", *run)
    assert other.code == 2
    assert "stream must be rgb for recipe torchvision-video, got 'flow'" in other.error


def test_differences_and_a_part_that_learns_later_through_all_commands(
    flowprep: Command, train: Command, flow: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.csv").write_text("class,weight\nmove_left,2\nzoom_in,1\n")
    result = train(
        *("--stream", "rgb-difference", "--balance", "--class-weights", tmp_path / "weights.csv"),
        *("--freeze", "trunk", "--unfreeze-at", ".5", "--steps", 2),
    )
    assert (result.code, result.stdout[:16]) == (0, "trained: 2 steps"), result.stderr
    config = stored_config(tmp_path / "run")
    assert (config.clip.stream, config.balance) == ("rgb-difference", True)
    assert (config.optimization.freeze, config.optimization.unfreeze_at) == ("trunk", 0.5)
    views = ("--checkpoint", tmp_path / "run", "--device", "cpu")
    for name in ("one", "two"):
        result = flowprep(
            *("evaluate", flow, *views, "--clips", 1, "--crops", 1, "--loaders", 0),
            *("--to", tmp_path / name),
        )
        assert result.code == 0, result.stderr
    result = flowprep("fuse", tmp_path / "one", tmp_path / "two")
    assert result.code == 0, result.stderr
    assert "rgb-difference" in result.stdout
    video = flow.parent / "videos/zoom_in/test.mp4"
    result = flowprep("predict", video, *views, "--views", "center")
    assert (result.code, result.stderr) == (0, "")
    assert "zoom_in" in result.stdout
    refused = train("--model", "i3d", "--stream", "rgb-difference")
    assert refused.code == 2
    assert "stream must be flow or rgb or motion for i3d" in refused.error


def test_epochs_count_where_the_recipe_has_steps(
    flowprep: Command, flow: Path, tmp_path: Path
) -> None:
    options = [option for pair in zip(QUICK[2::2], QUICK[3::2], strict=True) for option in pair]
    result = flowprep(
        *("train", flow, "--run", tmp_path / "run", "--recipe", "two-stream", "--epochs", 2),
        *("--resize-short", 48, *HERE, *options),
    )
    assert result.code == 0, result.stderr
    assert result.stdout.startswith("trained: 2 steps")
    assert stored_config(tmp_path / "run").optimization.num_steps is None


def test_a_file_of_options(train: Command, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(
        'model = "resnet34"\nscales = [1, 0.75]\nschedule = "step"\nmilestones = 0.5\n'
        "flip = false\n",
        encoding="utf-8",
    )
    assert train("--config", path).code == 0
    config = stored_config(tmp_path / "run")
    assert config.model.model == "resnet34"
    assert (config.augment.scales, config.augment.flip) == ((1.0, 0.75), False)
    assert config.optimization.milestones == (0.5,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batchsize = 3", "no option is called batchsize; did you mean batch-size?"),
        ('scales = "1,2"', 'scales must be a list of numbers, got "1,2"'),
        ("scales = [true]", "scales must be a list of numbers, got [true]"),
        ('model = "resnet19"', "'resnet19' is not one of .*did you mean resnet"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    train: Command, tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "train.toml"
    path.write_text(line, encoding="utf-8")
    result = train("--config", path)
    assert result.code == 2
    assert message in result.error or re.search(message, result.error)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--model", "i4d"), 2, "'i4d' is not one of cnn-m-2048, .*; did you mean i3d"),
        (("--crop", 224), 2, "--crop"),
        (("--resize-short", 32), 2, "--resize-short must be >= crop_px, got 32 < 48"),
        (("--frames", 0), 2, "--frames must be >= 1, got 0"),
        (("--scales", "1,a"), 2, "'1,a' is not numbers with commas between them"),
        (("--scales", "2"), 2, r"--scales must be one or more numbers in \(0, 1\], got \(2"),
        (("--accumulate", 4), 2, "--batch-size must be a multiple of accumulate, got 2 and 4"),
        (("--precision", "fp16"), 2, "--precision fp16 needs a GPU"),
        (("--device", "cuda:77"), 2, "--device must be"),
        (("--partial-bn",), 2, "--partial-bn does not apply to resnet18"),
        (
            ("--non-local",),
            2,
            "--non-local does not apply to resnet18, got True; leave it out, or choose "
            "tsm-resnet18 or tsm-resnet50 or",
        ),
        (
            ("--recipe", "tsn", "--model", "i3d"),
            2,
            "--partial-bn does not apply to i3d, got True; .*, or choose tsn-resnet18 or",
        ),
        (
            ("--stream", "both"),
            2,
            "--stream must be flow or rgb or rgb-difference or motion for resnet18, got 'both'",
        ),
        (
            ("--stream", "both", "--recipe", "i3d"),
            2,
            "--stream must be flow or rgb for recipe i3d, got 'both'",
        ),
        (("--weights", "none.pth"), 1, "none.pth"),
        (("--train-split", "val"), 1, "holds no video of split val"),
        (("--run", "s3://bucket/run"), 2, "--run must be a folder of this machine"),
        (("--workers", 3), 2, "--batch-size must be a multiple of workers times accumulate"),
    ],
)
def test_a_mistake_is_named(
    train: Command, options: tuple[object, ...], code: int, message: str
) -> None:
    result = train(*options)
    assert (result.code, result.stdout) == (code, "")
    assert re.search(message, result.error), result.error
    assert "Traceback" not in result.stderr


def test_a_data_set_must_be_there(flowprep: Command, tmp_path: Path) -> None:
    assert "Missing argument 'OUT...'" in flowprep("train").error
    result = flowprep("train", tmp_path / "none", "--run", tmp_path / "run")
    assert result.code == 1
    assert "is not a flowprep data set" in result.error
    assert not (tmp_path / "run").exists()


def test_without_torch_the_extra_is_named(flow: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from flowprep.cli import main; "
        f"main(['train', {str(flow)!r}, '--run', {str(tmp_path / 'run')!r}])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "pip install 'flowprep[train]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_does_without_torch() -> None:
    code = (
        "import sys; from flowprep.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 0


def test_every_option_has_words(flowprep: Command) -> None:
    page = flowprep("train", "--help").stdout
    options = re.split(r"\n +(?=-)", page)[1:]
    assert len(options) > 40
    for option in options:
        assert re.search(r"[a-z].*\.", option.partition("  ")[2], re.DOTALL), option


def test_ctrl_c_and_the_same_command_again(flow: Path, tmp_path: Path) -> None:
    quick: list[Any] = ["--steps", 200, *QUICK[2:], *HERE, "--log-every", 1]
    command = [sys.executable, "-m", "flowprep", "train", str(flow), "--run", str(tmp_path)]
    command += [*map(str, quick), "--test-split", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What was started in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            metrics = tmp_path / "metrics.csv"
            while not (metrics.exists() and "\n3," in metrics.read_text(encoding="utf-8")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            # A terminal sends it to the whole group.
            os.killpg(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate()
        finally:
            process.kill()
    assert (process.returncode, stdout) == (1, "")
    assert stderr == (
        "\nFinishing this step; press Ctrl-C again to stop at once.\n"
        "\nInterrupted; the same command goes on where this one stopped.\n"
    )
    assert (tmp_path / "last.pt").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    done = re.search(r"this run +(\d+) steps?", again.stdout)
    assert done is not None
    assert 0 < int(done[1]) < 200
    numbers = [line.partition(",")[0] for line in metrics.read_text().splitlines()[1:]]
    assert numbers == [str(number) for number in range(1, 201)]
