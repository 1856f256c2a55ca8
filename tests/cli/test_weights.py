"""`flowprep weights`: what is printed, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Command
from tests.learn.test_describe import empty, save
from tests.learn.weights import references
from tests.learn.weights.references import resnet_shapes


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = resnet_shapes(references.mmaction2_naming(), 2, 400, 64, references.SLOW_TIME)
    return save(empty(shapes), tmp_path_factory.mktemp("weights") / "x.pth", "")


def test_a_known_file(flowprep: Command, slow: Path) -> None:
    result = flowprep("weights", slow)
    assert (result.code, result.stderr) == (0, "")
    first, second, *rest = result.stdout.splitlines()
    assert first == f"{slow}: PyTorch, 320 tensors"
    assert second.endswith("(open-mmlab/mmaction2; format mmaction2-3d)")
    assert any("--model slow-4x16 --stream flow" in line for line in rest)
    assert any("--recipe mmaction2-slow-8x8" in line for line in rest)
    values = json.loads(flowprep("weights", slow, "--json").stdout)
    assert (values["format"], values["is_known"]) == ("mmaction2-3d", True)


def test_loading_into_a_network(flowprep: Command, slow: Path) -> None:
    short = flowprep("weights", slow, "--model", "slow-4x16")
    every = flowprep("weights", slow, "--model", "slow-4x16", "--all")
    assert (short.code, every.code) == (0, 0)
    assert "  renamed: and 315 more" in short.stdout
    assert "  renamed: fc.bias from cls_head.fc_cls.bias" in every.stdout
    assert len(every.stdout.splitlines()) == 2 + 320
    wrong = flowprep("weights", slow, "--model", "resnet50")
    assert wrong.code == 1
    assert "for slow-4x16, slow-8x8: the model is ResNet" in wrong.error


def test_unknown_and_unreadable_files(flowprep: Command, tmp_path: Path) -> None:
    torch.save({"a\x1b[2J": torch.zeros(3)}, tmp_path / "x.pth")
    result = flowprep("weights", tmp_path / "x.pth")
    assert (result.code, result.stderr) == (1, "")
    assert "unknown: neither flowprep's nor of a project that flowprep knows" in result.stdout
    assert "a\\x1b[2J" in result.stdout
    (tmp_path / "y.pth").write_bytes(b"\x80\x02cos\nsystem\n(S'touch owned'\ntR.")
    result = flowprep("weights", tmp_path / "y.pth")
    assert result.code == 1
    assert "must hold only tensors" in result.error
    assert flowprep("weights", tmp_path / "none.pth").code == 1


@pytest.mark.parametrize(
    "options", [["--all"], ["--stream", "flow"], ["--model", "i3d", "--json"], ["--model", "i3e"]]
)
def test_wrong_usage(flowprep: Command, slow: Path, options: list[str]) -> None:
    assert flowprep("weights", slow, *options).code == 2
