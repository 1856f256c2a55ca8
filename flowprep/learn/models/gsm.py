"""GSM of Sudhakaran, Escalera and Lanz, "Gate-Shift Networks for Video Action Recognition" (CVPR
2020).

A 2D network looks at the segments of a video side by side. In each of its blocks but some, one
layer's channels are moved between neighboring segments, as far as learned gates let them through
(`flowprep.learn.layers.gate_shift`). The logits of the segments are averaged. Places are those of
the release (swathikirans/GSM, model_zoo/bninception/*_gsm.yaml).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.bn_inception import GatedNetwork
from flowprep.learn.models.tsn import TSN

__all__ = ["GSM", "gsm_over"]


class GSM(TSN):
    """Applies one 2D network to the S segments of a video, with gates between its layers.

    It takes (N, S, C, H, W) with S = `num_segments`: 8, 12, 16 or 24 as published.
    """

    mixes_segments = True

    def __init__(
        self, base: GatedNetwork, *, num_segments: int = 8, partial_bn: bool = False
    ) -> None:
        super().__init__(base, num_segments=num_segments, partial_bn=partial_bn)
        self.num_segments: int = num_segments
        # After partial_bn, which leaves the gates' batch norms free as in the release.
        base.insert_gates(num_segments)
        self.name_stages()


def gsm_over(base: Callable[..., GatedNetwork]) -> Callable[..., GSM]:
    """Returns a function that makes a GSM over the network that `base` makes.

    Dropout is .5, as in the release's training (README.md).
    """

    def build(
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        num_segments: int = 8,
        partial_bn: bool = False,
    ) -> GSM:
        network = base(inputs, num_classes, dropout=dropout, width=width, is_gated=True)
        return GSM(network, num_segments=num_segments, partial_bn=partial_bn)

    return build
