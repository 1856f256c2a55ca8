"""Drop path in whole networks: what has it, at which rates, and that it is off unless wanted."""

from __future__ import annotations

import pytest
import torch

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.create import create_model
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.resnet import BasicBlock
from flowprep.learn.train_setup import set_drop_path


def rates(network: torch.nn.Module) -> list[float]:
    return [one.rate for one in network.modules() if isinstance(one, DropPath)]


def small(name: str, stream: StreamName = "flow", **options: object) -> ClipModel:
    return create_model(name, stream=stream, num_classes=3, width=0.0625, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "num_blocks"),
    [
        ("resnet18", 8),
        ("tsn-resnet50", 16),
        ("tsm-resnet18", 8),
        ("i3d-resnet50", 16),
        ("slow-4x16", 16),
        ("r2plus1d-18", 8),
        ("r3d-18", 8),
        ("resnext101-3d", 33),
        ("mobilenet-v2", 10),
        ("representation-flow", 16),
    ],
)
def test_residual_networks_rise_to_the_rate(name: str, num_blocks: int) -> None:
    with torch.device("meta"):
        stream: StreamName = "rgb" if name == "representation-flow" else "flow"
        network = create_model(name, stream=stream, num_classes=3)
    assert rates(network) == [0] * num_blocks
    assert not any("drop_path" in key for key in network.state_dict())
    set_drop_path(network, None)
    assert rates(network) == [0] * num_blocks
    set_drop_path(MultiTask(network, [3, 2]), 0.2)
    assert rates(network) == pytest.approx(torch.linspace(0, 0.2, num_blocks).tolist())


def test_towers_rise_by_themselves_own_rates_stay_and_others_are_refused() -> None:
    with torch.device("meta"):
        towers = small("two-stream-fusion", "both", backbone="resnet50")
        paths = small("slowfast-4x16", "rgb")
        plain = small("cnn-m-2048")
        timesformer = small("timesformer")
    published = torch.linspace(0, 0.1, 12).tolist()
    for rate, expected in ((None, published), (0.0, [0.0] * 12)):
        set_drop_path(timesformer, rate)
        assert rates(timesformer) == pytest.approx(expected)
    for network in (towers, paths):
        set_drop_path(network, 0.3)
        expected = torch.linspace(0, 0.3, 16).tolist()
        assert rates(network) == pytest.approx([*expected, *expected])
    with pytest.raises(ConfigError, match="drop_path is for networks with residual blocks, got"):
        set_drop_path(plain, 0.1)


def test_branches_are_left_out_in_training_and_their_mean_stays() -> None:
    torch.manual_seed(0)
    network = small("resnet18")
    block = network.get_submodule("layer1.1")
    assert isinstance(block, BasicBlock)
    x = torch.rand(1, 4, 6, 6) + 10
    for norm in (block.bn1, block.bn2):
        norm.eval()
    with torch.no_grad():
        block.bn2.weight.fill_(0.05)
    plain = block(x)
    block.drop_path.rate = 0.25
    with torch.no_grad():
        several = block(x.expand(4000, -1, -1, -1))
    # The sum stays above 0, where ReLU is the identity, so the mean is that of the plain block.
    assert several.min() > 0
    left_out = (several == x).flatten(1).all(1).float().mean().item()
    assert left_out == pytest.approx(0.25, abs=0.035)
    branch = (plain - x).abs().max().item()
    assert (several.mean(0) - plain[0]).abs().max().item() < 0.05 * branch
    assert torch.equal(block.eval()(x), plain)
