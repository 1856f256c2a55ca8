"""Weights of others through evaluate, predict and features: only data as in their recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.learn.create import create_model
from flowprep.learn.features_files import open_features
from flowprep.learn.scores import Scores
from flowprep.learn.weights.files import save_weights
from tests.cli.conftest import Command, Result

HERE = ("--device", "cpu")
QUICK = (*HERE, "--loaders", 0, "--no-progress", "--split", "all")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network of two classes, in a file that no format's names are in."""
    path = tmp_path_factory.mktemp("weights") / "others.safetensors"
    save_weights(create_model("tsn-resnet18", stream="flow", num_classes=2), path)
    return path


@pytest.fixture(scope="module")
def flow(flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small videos, which are not as recipe tsn says."""
    out = tmp_path_factory.mktemp("small") / "flow"
    options = ("--algorithm", "dis", "--quantizer", "floor", "--resize", "short:224", "--upscale")
    assert flowprep("extract", clips, out, *options, "--executor", "inline").code == 0
    return out


@pytest.fixture
def foreign(weights: Path) -> tuple[object, ...]:
    return ("--weights", weights, "--model", "tsn-resnet18")


DIFFERENCES = [
    "  decode.resize: short:224 here, 340x256 in the recipe",
    "  decode.interpolation: area here, bilinear in the recipe",
    "  flow.algorithm: dis here, tvl1 in the recipe (and with it 13 parameters)",
    "  flow.quantizer: floor here, round in the recipe",
]
REMEDY = (
    "Extract the videos with --preset tsn, name another recipe with --recipe, or add --force to go "
    "on all the same."
)


def test_other_data_is_refused_and_taken_by_force(
    flowprep: Command, flow: Path, foreign: tuple[object, ...], tmp_path: Path
) -> None:
    given = (flow, *foreign, "--recipe", "tsn", *QUICK, "--clips", 1, "--crops", 1)
    refused = flowprep("evaluate", *given, "--to", tmp_path / "scores")
    assert refused.code == 1
    assert refused.error.splitlines() == [
        f"Error: {flow} is not like the data of recipe tsn, by which the weights were trained:",
        *DIFFERENCES,
        REMEDY,
    ]
    assert not (tmp_path / "scores").exists()
    forced = flowprep("evaluate", *given, "--to", tmp_path / "scores", "--force")
    assert forced.code == 0, forced.stderr
    for line in DIFFERENCES:
        assert f"note: not as in recipe tsn: {line.strip()}" in forced.stderr
    assert "taken to be those of" in forced.stderr
    scores = Scores.load(tmp_path / "scores")
    assert scores.class_names == ("move_left", "zoom_in")
    assert scores.logits.shape == (2, 2)

    # Features of a data set are refused alike.
    wanted = ("--stream", "flow", "--recipe", "tsn", *HERE, "--loaders", 0)
    refused = flowprep("features", flow, *foreign, *wanted, "--to", tmp_path / "features")
    assert refused.code == 1
    assert refused.error.splitlines()[1:] == [*DIFFERENCES, REMEDY]


def test_the_recipe_s_own_test_and_data(
    flowprep: Command, clips: Path, foreign: tuple[object, ...], tmp_path: Path
) -> None:
    """Raw videos are extracted as the recipe says, so that nothing differs."""
    out = tmp_path / "tsn"
    assert flowprep("extract", clips, out, "--preset", "tsn", "--executor", "inline").code == 0
    (tmp_path / "classes.txt").write_text("zoom_in\nmove_left\n")
    recipe = (*foreign, "--recipe", "tsn")
    # Classes in another order are refused, also by force.
    other = flowprep(
        *("evaluate", out, *recipe, *QUICK, "--classes", tmp_path / "classes.txt", "--force"),
        *("--clips", 1, "--crops", 1),
    )
    assert other.code == 1
    assert "has other classes than the network" in other.error
    tested = flowprep("evaluate", out, *recipe, *QUICK, "--clips", 2, "--to", tmp_path / "scores")
    assert tested.code == 0, tested.stderr
    # 10 crops, as the published test has them; the number of clips was given.
    assert "2 clips x 10 crops per video" in tested.stdout
    assert "not as in recipe" not in tested.stderr

    predicted = flowprep(
        *("predict", clips / "move_left/a.mp4", *recipe, *HERE, "--json", "--views", "center"),
        *("--classes", tmp_path / "classes.txt"),
    )
    assert predicted.code == 0, predicted.stderr
    assert "not as in recipe" not in predicted.stderr
    (found,) = json.loads(predicted.stdout)
    assert {one["name"] for one in found["classes"]} == {"zoom_in", "move_left"}

    made = flowprep(
        *("features", clips / "move_left/a.mp4", *recipe, "--stream", "flow", *HERE),
        *("--to", tmp_path / "features", "--executor", "inline"),
    )
    assert made.code == 0, made.stderr
    stored = json.loads((tmp_path / "features/features.json").read_text())["config"]["extract"]
    assert (stored["decode"]["resize"], stored["flow"]["algorithm"]) == ("340x256", "tvl1")
    (array,) = (np.load(path) for path in (tmp_path / "features").rglob("*_flow.npy"))
    assert array.shape == (1, 512)

    # An option of the extraction begins from the recipe's, and counts as a difference.
    refused = flowprep(
        *("features", clips, *recipe, "--stream", "flow", *HERE, "--bound", 10),
        *("--to", tmp_path / "others", "--executor", "inline"),
    )
    assert refused.code == 1
    assert refused.error.splitlines()[1:-1] == ["  flow.bound_px: 10.0 here, 20.0 in the recipe"]


def test_a_recipe_that_is_not_known_is_said(
    flowprep: Command, flow: Path, clips: Path, foreign: tuple[object, ...], tmp_path: Path
) -> None:
    center = ("--views", "center", "--to", tmp_path / "scores")
    result = flowprep("evaluate", flow, *foreign, *QUICK, *center)
    assert result.code == 0, result.stderr
    assert "so nothing is compared with how the weights were trained" in result.stderr
    # Nobody says how a raw video is to be extracted.
    result = flowprep("predict", clips / "move_left/a.mp4", *foreign, *HERE)
    assert result.code == 2
    assert "--recipe must be given for " in result.error


def test_weights_are_tested_as_their_recipe_says(
    flowprep: Command, flow: Path, tmp_path: Path
) -> None:
    path = tmp_path / "others.safetensors"
    save_weights(create_model("tsm-resnet18", stream="flow", num_classes=2), path)
    given = ("--weights", path, "--model", "tsm-resnet18", "--recipe", "tsm", "--force")
    result = flowprep("evaluate", flow, *given, *QUICK)
    assert result.code == 0, result.stderr
    # One clip of each of 8 segments, in the center.
    assert f"{path} on {flow}, all: 8 clips x 1 crop per video" in result.stdout
    assert (tmp_path / "others-all-8x1/scores.npz").exists()


def test_a_mean_file_is_subtracted_by_every_command(
    flowprep: Command, flow: Path, clips: Path, tmp_path: Path
) -> None:
    path = tmp_path / "others.safetensors"
    save_weights(create_model("tsn-resnet18", stream="rgb", num_classes=2), path)
    np.save(tmp_path / "mean.npy", np.full((3, 12, 17), 60.0, np.float32))
    given = ("--weights", path, "--model", "tsn-resnet18", "--recipe", "tsn")
    clip = next(clips.glob("*/*.mp4"))

    def found(name: str, *mean: object) -> list[NDArray[np.float32]]:
        quick = (*QUICK, "--clips", 1, "--crops", 1, "--to", tmp_path / name)
        run("evaluate", flow, *given, *mean, "--force", *quick)
        features = tmp_path / f"{name}-features"
        wanted = ("--to", features, "--stream", "rgb", "--executor", "inline")
        run("features", clip, *given, *mean, *wanted)
        told = run("predict", clip, *given, *mean, *HERE, "--views", "center", "--json")
        top = json.loads(told.stdout)[0]["classes"]
        return [
            Scores.load(tmp_path / name / "scores.npz").logits,
            *next(iter(open_features(features))).features.values(),
            np.array([one["probability"] for one in top]),
        ]

    def run(*arguments: object) -> Result:
        result = flowprep(*arguments)
        assert result.code == 0, result.stderr
        return result

    for plain, minus in zip(
        found("plain"), found("minus", "--mean-file", tmp_path / "mean.npy"), strict=True
    ):
        assert plain.shape == minus.shape
        assert not np.allclose(plain, minus, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "x.pth"], "--weights need --model NAME, got x.pth alone; "),
        (["--checkpoint", "x", "--recipe", "tsn"], "--recipe is for foreign weights, because a "),
        (["--weights", "x.pth", "--checkpoint", "x", "--model", "i3d"], "replace a checkpoint"),
        (["--weights", "no.pth", "--model", "i3d"], "no.pth"),
        ([], "--checkpoint must be given, or a model with its weights, got neither; "),
    ],
)
def test_options_that_do_not_fit(
    flowprep: Command, flow: Path, options: list[str], message: str
) -> None:
    result = flowprep("evaluate", flow, *options)
    assert result.code in (1, 2)
    assert message in result.error


def test_weights_of_another_network_and_other_classes_are_refused(
    flowprep: Command, flow: Path, weights: Path, tmp_path: Path
) -> None:
    result = flowprep("evaluate", flow, "--weights", weights, "--model", "tsn-resnet50")
    assert result.code == 1
    assert "of the model's" in result.error
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    result = flowprep(
        *("evaluate", flow, "--weights", weights, "--model", "tsn-resnet18"),
        *("--classes", tmp_path / "classes.txt"),
    )
    assert result.code == 2
    assert f"--classes must be 2, as {weights} has them, got 3; " in result.error


def test_predict_takes_numbers_and_files_as_weights(
    flowprep: Command, clips: Path, weights: Path
) -> None:
    model = ("--model", "tsn-resnet18", "--recipe", "tsn")
    video = clips / "move_left/a.mp4"
    result = flowprep("predict", video, "--weights", weights, *model, "--weights", "1,2", *HERE)
    assert result.code == 2
    assert "are for several checkpoints, got one" in result.error
    result = flowprep("predict", video, "--weights", "1,2", "--weights", "1,2", *HERE)
    assert result.code == 2
    assert "must be given once, got 2 times" in result.error
