"""How training clips are varied, and how the weights are changed: two parts of a TrainConfig."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from flowprep.config import check_at_least, check_choice
from flowprep.errors import ConfigError

__all__ = [
    "HIGHEST_MAGNITUDE",
    "TRUNK",
    "AugmentSpec",
    "CropName",
    "LossName",
    "OptimizationSpec",
]

CropName = Literal["random", "center", "corners", "corners-13"]
LossName = Literal["cross-entropy", "bce"]
OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["constant", "step", "cosine"]
PrecisionName = Literal["fp32", "bf16", "fp16"]


TRUNK = "trunk"
"""The value of `OptimizationSpec.freeze` for all of a network but its classifier."""

HIGHEST_MAGNITUDE = 30
"""Of RandAugment's operations (Cubuk et al. 2020; torchvision counts so too)."""


@dataclass(frozen=True)
class AugmentSpec:
    """How training clips are varied. All fields and frames of a clip are varied in the same way."""

    crop: CropName = "random"
    """Where crops lie. `random`: anywhere. `center`: in the center. `corners`: in the four corners
    and the center. `corners-13`: at TSN's 13 places. The default is random, except for the tsn
    recipe."""
    scales: tuple[float, ...] = (1.0,)
    """Sides of crops, as shares of the short side of the frame, such as 1,.875,.75 (tsn). One is
    drawn for the width and one for the height, at most one step apart in this list. Then the crop
    is resized. 1 alone cuts crops of the network's size and does not resize them."""
    flip: bool = True
    """Mirror half of the clips, and negate their x flow."""
    random_strides: tuple[int, ...] = ()
    """Smallest and largest distance between neighboring fields or frames, such as 5,15. Each
    training clip draws one. It is made smaller for a video that is too short. By default it is the
    frame stride."""
    rand_augment: tuple[float, ...] = ()
    """RandAugment of RGB frames: how many operations each clip draws, and their magnitude from 0 to
    30, such as 2,9. All frames of a clip get the same. Beside flow, only colors are changed."""
    random_erasing: float = 0.0
    """Share of the training clips in which one box is erased, such as .25. The box is the same in
    all frames and fields."""
    mixup: float = 0.0
    """Mix each training clip with another one, and their labels alike. The number is alpha of the
    beta distribution of the shares, such as .8. 0 mixes nothing."""
    cutmix: float = 0.0
    """Put a box of another training clip into each one, in all frames and fields. The labels are
    mixed by the area. The number is alpha, such as 1. With mixup too, each clip draws one of the
    two."""

    def __post_init__(self) -> None:
        check_choice("crop", self.crop, CropName)
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ConfigError(f"scales must be one or more numbers in (0, 1], got {self.scales}")
        if list(self.scales) != sorted(set(self.scales), reverse=True):
            raise ConfigError(f"scales must fall from large to small, got {self.scales}")
        strides = self.random_strides
        if strides and not (
            len(strides) == 2
            and all(stride == int(stride) for stride in strides)
            and 1 <= strides[0] <= strides[1]
        ):
            raise ConfigError(
                "random_strides must be two whole numbers from 1 on, the smallest and the largest, "
                f"got {strides}"
            )
        object.__setattr__(self, "random_strides", tuple(int(stride) for stride in strides))
        self._check_changes()

    def _check_changes(self) -> None:
        drawn = self.rand_augment
        if drawn and not (
            len(drawn) == 2
            and 1 <= drawn[0] == int(drawn[0])
            and 0 <= drawn[1] <= HIGHEST_MAGNITUDE
        ):
            raise ConfigError(
                "rand_augment must be two numbers, how many operations, from 1 on, and their "
                f"magnitude, from 0 to {HIGHEST_MAGNITUDE}, got {drawn}"
            )
        object.__setattr__(self, "rand_augment", tuple(float(number) for number in drawn))
        if not 0 <= self.random_erasing <= 1:
            raise ConfigError(f"random_erasing must be from 0 to 1, got {self.random_erasing:g}")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a number >= 0, got {getattr(self, name):g}")

    @property
    def mixes_videos(self) -> bool:
        """Whether a training sample is made of two videos."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True)
class OptimizationSpec:
    """How the weights are changed."""

    batch_size: int = 32
    """Videos per step, over all processes together."""
    accumulate: int = 1
    """Number of parts that each batch is split into. The parts run one after the other, which saves
    memory."""
    num_epochs: float = 40.0
    """How often the network sees every training video. The schedule is spread over this time."""
    num_steps: int | None = None
    """Total number of steps. Overrides the epochs."""
    optimizer: OptimizerName = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = 0.01
    """The highest learning rate: after the warm-up, before the schedule lowers it."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's momentum in SGD."""
    weight_decay: float = 5e-4
    """Weight decay. It is an L2 penalty with SGD. With AdamW it is decoupled, and leaves out biases
    and norms."""
    schedule: ScheduleName = "cosine"
    """How the learning rate falls. `constant`: not at all. `step`: at each milestone. `cosine`: as
    half a cosine."""
    milestones: tuple[float, ...] = ()
    """Shares of the training, such as .5,.8. At each of them, schedule step multiplies the learning
    rate by decay."""
    decay: float = 0.1
    """The factor at each milestone."""
    warmup: float = 0.0
    """Share of the training in which the learning rate rises from a tenth to its full height."""
    clip_gradient_norm: float | None = None
    """Longest gradient, as a norm over all weights. By default gradients are not clipped."""
    loss: LossName | None = None
    """What each video is: `cross-entropy`: of one class. `bce`: of any number of classes, each with
    a sigmoid and a binary cross-entropy. By default bce where a training video has several
    labels."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes, from 0 to 1. With bce,
    over yes and no."""
    class_weights: str | None = None
    """Weights of the classes in the loss. `inverse`: N / (K n) for a class of n videos, with N
    videos in K classes. Or a CSV file with the columns class and weight."""
    freeze: str | None = None
    """Keep the first weights of a part of the network, and the statistics of its batch norms.
    `trunk`: all but the classifier. A number: so many stages, counted from the input."""
    unfreeze_at: float | None = None
    """Share of the training, such as .5, after which the frozen part learns too. The learning rate
    follows the same schedule. By default the part stays frozen."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each stage of the network to the stage before it, such as
    .75. The classifier has the whole rate. The stages are those of freeze."""
    classifier_rate: float = 1.0
    """Factor of the learning rate of the classifier, such as 10."""
    drop_path: float | None = None
    """How often a clip skips the last residual block, such as .1. The rate rises to it evenly from
    0 at the first block. The default is the network's own: .1 for timesformer, 0 for others with
    residual blocks."""
    ema_decay: float | None = None
    """Average the weights over the steps: the share of the average that stays at each step, such as
    .999. At first it is lower. Tests, best.pt and later commands take the average. By default
    nothing is averaged."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the network. bf16 and fp16 save time and memory. fp16 needs a GPU."""

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OptimizerName)
        check_choice("schedule", self.schedule, ScheduleName)
        check_choice("precision", self.precision, PrecisionName)
        if self.loss is not None:
            check_choice("loss", self.loss, LossName)
        check_at_least(self, 1, "batch_size", "accumulate", "num_steps")
        check_at_least(self, 0, "momentum", "weight_decay")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"batch_size must be a multiple of accumulate, got {self.batch_size} "
                f"and {self.accumulate}"
            )
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs a momentum above 0, got 0")
        for name in ("num_epochs", "learning_rate", "decay", "classifier_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name):g}")
        if self.clip_gradient_norm is not None and not self.clip_gradient_norm > 0:
            raise ConfigError(f"clip_gradient_norm must be > 0, got {self.clip_gradient_norm:g}")
        self._check_freeze()
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay must be > 0 and <= 1, got {self.layer_decay:g}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be > 0 and < 1, got {self.ema_decay:g}")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path must be >= 0 and < 1, got {self.drop_path:g}")
        for name in ("label_smoothing", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 0 and < 1, got {getattr(self, name):g}")
        object.__setattr__(self, "milestones", tuple(float(share) for share in self.milestones))
        if not all(0 < share < 1 for share in self.milestones):
            raise ConfigError(f"milestones must lie between 0 and 1, got {self.milestones}")
        if self.milestones and self.schedule != "step":
            raise ConfigError(
                f"milestones are for schedule step, and it is {self.schedule}; add --schedule step"
            )

    def _check_freeze(self) -> None:
        if self.freeze not in (None, TRUNK) and not _is_count(self.freeze):
            raise ConfigError(
                f"freeze must be {TRUNK} or a number of stages from 1 on, got {self.freeze}"
            )
        if self.unfreeze_at is None:
            return
        if self.freeze is None:
            raise ConfigError(
                f"unfreeze_at needs a frozen part, got {self.unfreeze_at:g} and none; add --freeze "
                "trunk or a number"
            )
        if not 0 < self.unfreeze_at < 1:
            raise ConfigError(f"unfreeze_at must be > 0 and < 1, got {self.unfreeze_at:g}")


def _is_count(text: str | None) -> bool:
    return text is not None and re.fullmatch("[1-9][0-9]{0,5}", text) is not None
