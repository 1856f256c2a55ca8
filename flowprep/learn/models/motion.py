"""Any network over flow, with TV-L1 in front: it computes its flow from frames by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from flowprep.learn.clip_inputs import ClipInput, NormalizationName
from flowprep.learn.layers.tvl1 import TVL1Layer, gray_levels
from flowprep.learn.layers.tvl1_steps import ROOT_EPSILON
from flowprep.learn.models.base import ClipModel
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.normalizations import find_normalization

__all__ = ["MotionNetwork"]


class MotionNetwork(ClipModel):
    """A network `base` over flow, and the layer that computes this flow.

    In the place of each flow input it takes the two frames of each field, `rgb-pair`, as levels.
    What the base gets is as if the fields were stored: within the bound, mirrored as its frames
    are, in the numbers of the normalization. So weights for stored flow fit. Here the flow is that
    of the crop, not of the whole frame, and it is not rounded to levels.
    """

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        base: ClipModel,
        spec: MotionSpec,
        normalization: NormalizationName,
    ) -> None:
        super().__init__(inputs)
        # Every process of a training must use all weights in every step, so no field stops early.
        self.motion = TVL1Layer(spec.parameters, learns=spec.motion_learns, stops=False)
        self.base = base
        self.bound_px = spec.motion_bound_px
        numbers = find_normalization(normalization)
        self._line = (
            ((1.0, 1.0), (0.0, 0.0)) if numbers is None else numbers.flow_line(self.bound_px)
        )
        for name in (
            "joins_segments",
            "num_segments",
            "mixes_segments",
            "has_one_loss",
            "excludes_classes",
            "min_side_px",
            "frozen_norms",
        ):
            setattr(self, name, getattr(base, name))
        first, *others = [tuple(f"base.{name}" for name in stage) for stage in base.stages] or [()]
        self.stages = (("motion", *first), *others) if first else ()
        self.new_layers = tuple(f"base.{name}" for name in base.new_layers)

    @property
    def whole_towers(self) -> Mapping[str, Callable[[], ClipModel]]:  # type: ignore[override]
        """The towers of the base."""
        return {f"base.{name}": build for name, build in self.base.whole_towers.items()}

    @property
    def input_channels(self) -> tuple[int, ...]:
        """The channels that the base's first convolutions see."""
        return self.base.input_channels

    def extract_features(self, *clips: torch.Tensor) -> torch.Tensor:
        """Returns the base's features."""
        return self.base.extract_features(*self.see(*clips))

    def see(self, *clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns what the base gets: the flow of each pair of frames, in place of the pairs."""
        return tuple(
            self._flow(clip, one) if one.stream == "rgb-pair" else clip
            for clip, one in zip(clips, self.inputs, strict=True)
        )

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        return self.base.classify(features)

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the base's classifier."""
        self.base.replace_classifier(num_classes)

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """Returns what the loss sees, as the base says."""
        return self.base.answer(features)

    def answer_weights(self, num_answers: int) -> torch.Tensor:
        """Returns what the loss of each answer is multiplied by, as the base says."""
        return self.base.answer_weights(num_answers)

    def join_answers(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits of several answers, as the base says."""
        return self.base.join_answers(logits)

    def _flow(self, clip: torch.Tensor, one: ClipInput) -> torch.Tensor:
        """Returns fields (..., C L, H, W) or (..., C, L, H, W) from pairs of the same form."""
        # Each pair's six channels beside each other, whatever else is in the channels.
        places = clip if one.form == "stack" else clip.transpose(-4, -3)
        lead, (height, width) = places.shape[:-3], places.shape[-2:]
        levels = places.reshape(-1, 6, height, width)
        flow = self.motion(gray_levels(levels[:, :3]), gray_levels(levels[:, 3:]))
        fields = self._normalized(flow.clamp(-self.bound_px, self.bound_px), one)
        stacks = fields.reshape(*lead, -1, height, width)
        return stacks if one.form == "stack" else stacks.transpose(-4, -3)

    def _normalized(self, flow: torch.Tensor, one: ClipInput) -> torch.Tensor:
        """Returns flow (M, 2, H, W) in px as the base's numbers, (M, 2 or 3, H, W)."""
        planes = list(flow.unbind(1))
        if one.has_magnitude:
            length = (flow * flow).sum(1).add(ROOT_EPSILON).sqrt()
            planes.append(length.clamp(max=self.bound_px))
        # A magnitude has the numbers of x, which are those of y.
        scales, offsets = ((*numbers, numbers[0]) for numbers in self._line)
        return torch.stack([plane * scales[k] + offsets[k] for k, plane in enumerate(planes)], 1)
