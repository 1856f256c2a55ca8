"""What networks learn: blindness is found by trying, pairs are counted, and one network learns."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowprep.learn.scores import Scores
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

FOLDER = Path(__file__).resolve().parents[2] / "scripts/bench"


@pytest.fixture(scope="module")
def learn() -> ModuleType:
    """scripts/bench/learn.py, which is in no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("bench_learn", FOLDER / "learn.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.mark.parametrize(
    ("model", "stream", "expected"),
    [
        ("resnet18", "rgb", True),
        ("tsn-resnet18", "rgb", True),
        ("tsm-mobilenet-v2", "rgb", False),
        ("r3d-18", "rgb", False),
        ("r2d-18", "rgb", False),
        ("slow-4x16", "rgb", False),
        ("resnet18", "flow", False),
        ("resnet18", "rgb-difference", False),
    ],
)
def test_a_network_is_blind_to_order_or_not(
    learn: ModuleType, model: str, stream: str, expected: bool
) -> None:
    assert learn.is_blind(learn.small_config(model, stream, 1, 0.1)) is expected


def test_pairs_are_counted(learn: ModuleType) -> None:
    # Classes 0 and 1 are a pair. The first video is right in its pair, though not over all; the
    # second is wrong; the third is a tie.
    logits = np.array([[2.0, 1.0, 9.0, 0.0], [0.0, 1.0, 5.0, 7.0], [4.0, 4.0, 0.0, 0.0]])
    scores = Scores(("a", "b", "c"), np.array([0, 2, 1]), logits, logits, (), "flow")
    assert learn.within_pairs(scores) == 0.5


def test_the_table_says_who_misses_a_bar(
    learn: ModuleType, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(motion), "--stream", "flow"]
    learn.CROP_PX, learn.DEFAULT_WIDTH, learn.ATTEMPTS = 40, 0.0625, ((2, 0.004),)
    assert learn.main(["resnet18", *options]) == 1
    header, _, row = capsys.readouterr().out.splitlines()[1:]
    assert header.startswith("| network | stream | sees the order | top-1 |")
    assert row.startswith("| `resnet18` | flow | yes |")
    assert row.endswith(" | missed |")


def test_a_bar_is_of_what_the_network_sees(learn: ModuleType) -> None:
    def result(is_blind: bool, top1: float, within_pairs: float) -> bool:
        one = learn.Result("resnet18", "rgb", is_blind, top1, within_pairs, 10, 0.1, None)
        return bool(one.is_as_expected)

    assert result(False, 0.95, 0.95)
    assert not result(False, 0.94, 1.0)
    assert result(True, 0.4, 0.6)
    assert not result(True, 0.4, 0.61)
