"""TSM of Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding" (ICCV
2019).

A 2D network looks at the segments of a video side by side. Inside it, some channels come from
neighboring segments (`flowprep.learn.layers.temporal_shift`). The logits of the segments are
averaged. Places and shares are those of the release (mit-han-lab/temporal-shift-module). Tensors
have the names of the 2D network, so its weights and TSN's load.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.non_local import NonLocal, add_non_local
from flowprep.learn.layers.temporal_shift import TemporalShift
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.tsn import TSN
from flowprep.learn.network_options import NonLocalOptions

__all__ = ["TSM", "TSMStream", "tsm_over"]


class TSM(TSN):
    """Applies one 2D network to the S segments of a video, and shifts channels between them.

    It takes (N, S, C, H, W) with S = `num_segments`: 8 as published, or 16. `base` must have
    `insert_shifts`, which takes `own`, its options: `shift_place` and `temporal_pool` of a ResNet.
    With `temporal_pool`, features are (N, S / 2, F).
    `uni_directional` shifts from the past only, so that `TSMStream` can follow a stream.
    """

    mixes_segments = True

    def __init__(
        self,
        base: ClipModel,
        *,
        num_segments: int = 8,
        shift_div: int = 8,
        uni_directional: bool = False,
        partial_bn: bool = False,
        non_local: NonLocalOptions | None = None,
        **own: Any,
    ) -> None:
        super().__init__(base, num_segments=num_segments, partial_bn=partial_bn)
        self.num_segments: int = num_segments
        if own.get("temporal_pool") and num_segments % 2:
            raise ConfigError(f"temporal_pool needs an even num_segments, got {num_segments}")
        make_shift = functools.partial(
            TemporalShift, shift_div=shift_div, uni_directional=uni_directional
        )
        base.insert_shifts(num_segments, make_shift, **own)

        def num_frames(place: str) -> int:
            is_halved = own.get("temporal_pool") and not place.startswith("layer1.")
            return num_segments // 2 if is_halved else num_segments

        # After partial_bn, which leaves the batch norms of non-local blocks free as in the release.
        add_non_local(base, base.block_stages, non_local, style="tsm", num_frames=num_frames)


class TSMStream:
    """Follows a stream with a uni-directional TSM, one segment after the other.

    Each shift remembers its channels of the segment before, so a segment costs one pass of the 2D
    network. The logits equal those of that segment in a video of any number of segments.
    """

    def __init__(self, model: TSM) -> None:
        """`model` stays as it is. Raises ConfigError if its shifts also look ahead."""
        self._model = model
        self._shifts = [one for one in model.modules() if isinstance(one, TemporalShift)]
        if not all(one.uni_directional for one in self._shifts):
            raise ConfigError("a stream needs a network with uni_directional, got one without")
        if len({one.num_segments for one in self._shifts}) > 1:
            raise ConfigError("a stream needs a network without temporal_pool, got one with it")
        if any(isinstance(one, NonLocal) for one in model.modules()):
            raise ConfigError("a stream needs a network without non_local, got one with it")
        self._past: list[list[torch.Tensor]] = [[] for _ in self._shifts]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits (N, K) of the next segment (N, C, H, W) of each of N streams."""
        try:
            for shift, past in zip(self._shifts, self._past, strict=True):
                shift.past = past
            features = self._model.base.extract_features(x)  # (N, F)
        finally:
            for shift in self._shifts:
                shift.past = None
        return self._model.base.classify(features)  # (N, K)


def tsm_over(base: Callable[..., ClipModel]) -> Callable[..., TSM]:
    """Returns a function that makes a TSM over the network that `base` makes.

    Dropout is .5, as in the release's training on Kinetics (scripts/train_tsm_kinetics_rgb_8f.sh).
    """

    def build(
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        num_segments: int = 8,
        **options: Any,
    ) -> TSM:
        network = base(inputs, num_classes, dropout=dropout, width=width)
        return TSM(network, num_segments=num_segments, **options)

    return build
