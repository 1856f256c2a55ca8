"""Small networks that learn in seconds from flow that is known exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.learn.checkpoint import Checkpoint, Task, build_model
from flowprep.learn.config import TrainConfig
from flowprep.learn.seeing.video_inputs import VideoInputs
from flowprep.synthetic import Scene

EXTRACT = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))


def learned(
    config: TrainConfig, class_names: Sequence[str], scenes: Sequence[Sequence[Scene]], steps: int
) -> Checkpoint:
    """Trains a network on the flow of scenes, as many for each class; all have the crop's size."""
    torch.manual_seed(0)
    model = build_model(config, [len(class_names)])
    inputs = VideoInputs(model.inputs, config.clip, EXTRACT.flow)
    videos, labels = [], []
    for label, own in enumerate(scenes):
        for scene in own:
            fields = [torch.from_numpy(scene.flow(t).copy()) for t in inputs.fields]
            videos.append(torch.stack(fields).movedim(-1, 1) / EXTRACT.flow.bound_px)
            labels.append(label)
    clips = torch.cat([inputs.clips({"flow": one[None]})[0][0] for one in videos])
    wanted = torch.tensor(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.randperm(len(clips))[:16]
        loss = torch.nn.functional.cross_entropy(model(clips[chosen]), wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # So few steps leave the statistics of the batch norms behind the weights.
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model(clips)
        model.eval()
        assert (model(clips).argmax(1) == wanted).float().mean() > 0.9
    task = Task("scenes", tuple(class_names), EXTRACT.to_dict(), "opencv-5")
    return Checkpoint(config, (task,), steps, model.state_dict())
