"""Small untrained networks, for tests of testing."""

from __future__ import annotations

from pathlib import Path

import torch

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import Checkpoint, build_model, describe_task
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.run.driver import run_extract

FLOW = ClipSpec("flow", 3, crop_px=32)
RGB = ClipSpec("rgb", 1, crop_px=32)


def extract_clips(root: Path, out: Path, config: ExtractConfig) -> FlowDataset:
    """Extracts the clips of the fixture `motion`, whose folder is `root / "motion"`, otherwise."""
    manifest = collect_videos(root / "videos", annotations=root / "annotations", split=1)
    options = RunOptions(executor="inline", progress=False)
    assert run_extract(manifest, str(out), config, options).is_complete
    return open_dataset(out)


def make_checkpoint(
    *datasets: FlowDataset, clip: ClipSpec = FLOW, model: str = "resnet18", seed: int = 0
) -> Checkpoint:
    """An untrained network of 1/16 of the width, whose scores differ from video to video."""
    config = TrainConfig(ModelSpec(model, width=0.0625), clip)
    tasks = tuple(describe_task(dataset) for dataset in datasets)
    torch.manual_seed(seed)
    network = build_model(config, [len(task.class_names) for task in tasks])
    # Without statistics the signal of an untrained network dies away from layer to layer.
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.momentum = None
    noise = [torch.randn(8, *one.shape(clip.crop_px)) for one in network.inputs]
    if network.joins_segments:
        noise = [clips.unsqueeze(1) for clips in noise]
    with torch.no_grad():
        network.train()(*noise)
    return Checkpoint(config, tasks, 0, network.state_dict())
