"""`flowprep probe`: from features on disk to scores on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from flowprep.dataset.read import open_dataset
from flowprep.learn.checkpoint import save_checkpoint
from flowprep.learn.features import extract_features
from flowprep.learn.scores import Scores
from tests.cli.conftest import Command
from tests.learn.conftest import motion
from tests.learn.small import RGB, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["motion", "one_thread"]


@pytest.fixture(scope="module")
def features(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both streams by untrained networks."""
    root = tmp_path_factory.mktemp("probe")
    dataset = open_dataset(motion)
    save_checkpoint(root / "flow.pt", make_checkpoint(dataset))
    save_checkpoint(root / "rgb.pt", make_checkpoint(dataset, clip=RGB))
    networks = [root / "flow.pt", root / "rgb.pt"]
    assert extract_features(
        dataset, root / "features", checkpoint=networks, num_loaders=0
    ).is_complete
    return root / "features"


def test_scores_of_each_stream_are_written_and_fused(flowprep: Command, features: Path) -> None:
    for stream, classifier in (("flow", "svm"), ("rgb", "logistic")):
        options = ("--stream", stream, "--classifier", classifier)
        with threadpool_limits(1):
            result = flowprep("probe", features, *options)
        assert (result.code, result.stderr) == (0, "")
        folder = features / f"probe-{classifier}-{stream}"
        assert result.stdout.splitlines()[0] == f"{features} on test"
        assert result.stdout.splitlines()[-1] == f"  written to           {folder}"
        scores = Scores.load(folder)
        assert (len(scores.keys), scores.stream) == (8, stream)
        values = json.loads((folder / "results.json").read_text())
        assert values["metrics"] == scores.metrics()
        assert f"top-1                {100 * scores.metrics()['top1']:.1f} %" in result.stdout
    fused = flowprep(
        "fuse", *(features / name for name in ("probe-svm-flow", "probe-logistic-rgb"))
    )
    assert (fused.code, fused.stderr) == (0, "")
    # The folders among the features are no features.
    again = flowprep("probe", features, "--to", features.parent / "both", "--c", ".1")
    assert again.code == 0
    assert Scores.load(features.parent / "both").stream == "rgb+flow"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--c", "x"), 2, "'x' is neither a number nor 'cv'"),
        (("--c", "0"), 2, "--c must be > 0, or cv"),
        (("--stream", "audio"), 2, "--stream must be of rgb, flow, which"),
        (("--test-split", "val"), 1, "has no video of split val, it has 16 of train, 8 of test"),
        (("--test-split", "all"), 2, "--test-split must hold other videos"),
        (("--labels", "no"), 1, "has no labels no"),
        (("--dataset", "no"), 1, "Error: no"),
    ],
)
def test_mistakes(
    flowprep: Command, features: Path, options: tuple[object, ...], code: int, message: str
) -> None:
    result = flowprep("probe", features, *options)
    assert (result.code, result.stdout) == (code, "")
    assert message in result.stderr


def test_a_folder_without_features(flowprep: Command, tmp_path: Path) -> None:
    result = flowprep("probe", tmp_path)
    assert result.code == 1
    assert result.error.startswith(f"Error: no features at {tmp_path}")
