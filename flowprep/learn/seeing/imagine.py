"""Inputs that please a class: gradient ascent on a video, with total variation in space and time.

    x* = argmax_x  a_c(x) - sum of kappa ((dx/dx)^2 + (dx/dy)^2) + chi (dx/dt)^2

a_c is the class's score: its log-odds against all other classes, or its logit where a video may
have several classes. kappa is the weight of changes in space, chi of those in time: a high chi
gives slow motion, and a low one gives fast motion. |x| is at most the limit of data. Source:
Feichtenhofer, Pinz, Wildes and Zisserman, What Have We Learned from Deep Representations for Action
Recognition? (CVPR 2018), section 3.

The paper takes the logit alone, which other classes may well exceed, and divides it by its largest
value over a data set. Here no data set is needed: the gradient of a_c is divided by its root mean
square at every step, so that the weights mean the same for every network. A video is a sum of
pictures of all sizes, each half as large as the next: all are climbed together, so that motion of
the whole is found as well as detail. The weights, this sum, the optimizer and the small shifts
before each step are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import Checkpoint, Task, restore_model
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.evaluate import task_place
from flowprep.learn.forward import forward_clips
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.placement import place_model, resolve_device
from flowprep.learn.seeing.last_maps import traceable
from flowprep.learn.seeing.specs import ImagineSpec, MotionName
from flowprep.learn.seeing.video_inputs import VideoInputs

__all__ = [
    "ImaginedVideo",
    "find_class",
    "imagine",
    "imagined_notes",
    "variation_gradient",
]

_SPACE_WEIGHT = 100.0
_TIME_WEIGHTS: dict[MotionName, float] = {"slow": 20.0, "fast": 1.0}
_LEARNING_RATE = 0.005
# Of the noise from which a video begins, and the largest shift, as a share of its side.
_NOISE = 0.002
_SHIFT = 1 / 16


@dataclass(frozen=True)
class ImaginedVideo:
    """A video that pleases a class of a network."""

    class_name: str
    motion: MotionName
    stream: StreamName
    """What the network sees."""
    probability: float
    """What the network gives the class for this video."""
    flow: NDArray[np.float32] | None
    """(T, H, W, 2) px, x right and y down; None if the network sees no flow. The parts of a network
    that joins segments follow each other."""
    frames: NDArray[np.uint8] | None
    """(T, H, W, 3) RGB levels; None if the network sees no frames."""


def imagine(
    checkpoint: Checkpoint,
    class_names: Sequence[str],
    spec: ImagineSpec,
    *,
    task: str | None = None,
    device: str = "auto",
) -> list[ImaginedVideo]:
    """Finds videos that please each class, of each kind of motion.

    `task` names the label set of a network of several. Equal arguments give equal videos on one
    machine. Raises ConfigError for an unknown class or task.
    """
    place = task_place(checkpoint, task)
    head = checkpoint.tasks[place]
    labels = [find_class(head, name) for name in class_names]
    target = resolve_device(device)
    model = restore_model(checkpoint)
    place_model(model, target)
    model.requires_grad_(False)
    inputs = _video_inputs(checkpoint, model, head)
    has_time = max(shape[0] * shape[1] for shape in inputs.shapes.values()) > 1
    motions = spec.motions if has_time else spec.motions[:1]
    ascent = _Ascent(model, inputs, place, spec, target, is_multilabel=head.is_multilabel)
    found = []
    for (label, name), motion in itertools.product(zip(labels, class_names, strict=True), motions):
        video, logits = ascent.climb(label, _TIME_WEIGHTS[motion])
        chances = logits.sigmoid() if head.is_multilabel else logits.softmax(0)
        found.append(
            ImaginedVideo(
                name,
                motion,
                checkpoint.config.clip.stream,
                float(chances[label]),
                inputs.to_px(video["flow"].flatten(0, 1)) if "flow" in video else None,
                inputs.to_levels(video["rgb"].flatten(0, 1)) if "rgb" in video else None,
            )
        )
    return found


def imagined_notes(checkpoint: Checkpoint) -> list[str]:
    """Returns what a user should know of the pictures of this network."""
    clip = checkpoint.config.clip
    if not clip.subtract_mean_flow:
        return []
    return [
        f"{checkpoint.config.model.model} sees flow minus the mean of its field, so it imagines "
        "motion against the rest of the picture; train with --no-subtract-mean-flow to see motion "
        "as a whole"
    ]


def find_class(task: Task, name: str) -> int:
    """Returns the label of a class. Raises ConfigError for a name that the task does not have."""
    if name not in task.class_names:
        known = ", ".join(task.class_names[:20])
        more = ", ..." if len(task.class_names) > 20 else ""
        raise ConfigError(f"class must be one of {known}{more}, got {name!r}")
    return task.class_names.index(name)


def _video_inputs(checkpoint: Checkpoint, model: ClipModel | MultiTask, task: Task) -> VideoInputs:
    clip = checkpoint.config.clip
    parts = (model.num_segments or clip.num_segments) if model.joins_segments else 1
    return VideoInputs(model.inputs, clip, task.config.flow, num_segments=parts)


class _Ascent:
    """Climbs from noise to a video that a network takes for a class."""

    def __init__(
        self,
        model: ClipModel | MultiTask,
        inputs: VideoInputs,
        head: int,
        spec: ImagineSpec,
        device: torch.device,
        *,
        is_multilabel: bool,
    ) -> None:
        self._model, self._inputs, self._head = model, inputs, head
        self._is_multilabel = is_multilabel
        self._spec, self._device = spec, device

    def climb(self, label: int, time_weight: float) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Returns a video of the shapes of the inputs, and the network's logits (K,) for it."""
        # Drawn on the CPU, so that every device begins with the same noise.
        random = torch.Generator().manual_seed(self._spec.seed)
        layers = {
            stream: [
                (torch.randn((*shape[:3], side, side), generator=random) * _NOISE)
                .to(self._device)
                .requires_grad_(True)
                for side in _sides(shape[-1])
            ]
            for stream, shape in self._inputs.shapes.items()
        }
        optimizer = torch.optim.Adam(itertools.chain(*layers.values()), lr=_LEARNING_RATE)
        most = round(self._inputs.clip.crop_px * _SHIFT)
        for _ in range(self._spec.steps):
            shift = torch.randint(-most, most + 1, (2,), generator=random).tolist()
            sums = {stream: _sum(own).clamp(-1, 1) for stream, own in layers.items()}
            video = {
                stream: values.detach().requires_grad_(True) for stream, values in sums.items()
            }
            logits = self._logits(
                {stream: values.roll(shift, (-2, -1)) for stream, values in video.items()}
            )
            score = logits[label]
            if not self._is_multilabel:
                score = score - _without(logits, label).logsumexp(0)
            gradients = torch.autograd.grad(score, list(video.values()))
            optimizer.zero_grad()
            for values, gradient in zip(sums.values(), gradients, strict=True):
                size = gradient.square().mean().sqrt().clamp(min=1e-20)
                cost = variation_gradient(
                    values.detach(), _SPACE_WEIGHT * self._spec.smoothness, time_weight
                )
                # On to the pictures that these values are the sum of.
                torch.autograd.backward(values, cost - gradient / size)
            optimizer.step()
        found = {stream: _sum(own).detach().clamp(-1, 1) for stream, own in layers.items()}
        return found, self._logits(found).detach().float().cpu()

    def _logits(self, video: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with traceable(self._model):
            return forward_clips(self._model, self._model, self._inputs.clips(video))[self._head][0]


def _without(logits: torch.Tensor, label: int) -> torch.Tensor:
    """Returns the logits (K - 1,) of the other classes; a single class is against a logit of 0."""
    others = torch.cat([logits[:label], logits[label + 1 :]])
    return others if len(others) else logits.new_zeros(1)


def _sides(side: int) -> list[int]:
    """Returns the sides of the pictures of which a picture is the sum: 1, 2, 4, ... for 64."""
    return [side >> halvings for halvings in reversed(range(side.bit_length()))]


def _sum(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the sum of videos (S, T, C, h, w), each enlarged to the size of the last."""
    size = layers[-1].shape[-2:]
    total = layers[-1]
    for one in layers[:-1]:
        large = F.interpolate(one.flatten(0, 1), size, mode="bilinear", align_corners=False)
        total = total + large.view(layers[-1].shape)
    return total


def variation_gradient(
    video: torch.Tensor, space_weight: float, time_weight: float
) -> torch.Tensor:
    """Returns the gradient of the weighted squared differences of neighbors, of the same shape.

    `video` is (S, T, C, H, W). The S parts follow each other in time.
    """
    x = video.flatten(0, 1)  # (S T, C, H, W)
    gradient = torch.zeros_like(x)
    for axis, weight in ((-2, space_weight), (-1, space_weight), (0, time_weight)):
        if not weight or x.shape[axis] == 1:
            continue
        steps = 2 * weight * x.diff(dim=axis)
        pads = [0, 0] * (x.dim() - axis % x.dim() - 1)
        gradient += F.pad(steps, [*pads, 1, 0]) - F.pad(steps, [*pads, 0, 1])
    return gradient.view(video.shape)
