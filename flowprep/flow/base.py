"""The interface of every flow estimator: one pair in, one field out; also whole videos."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.devices import DeviceKind
from flowprep.flow.parameters import DIRECTIONS, Direction

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FlowEstimator", "FlowPair", "FrameKind", "ReducedPair", "Reduction", "VideoEstimator"]

FrameKind = Literal["gray", "rgb"]
Reduction = Callable[["Tensor"], Sequence["Tensor"]]
"""Takes B fields on a device, (B, H, W, 2) px. Returns tensors of B entries on the same device."""


@dataclass(frozen=True, slots=True)
class FlowPair:
    """The flow between frame `index` and frame `index + step`.

    Each field is (H, W, 2) float32, (u right, v down) in px. Fields not requested are None.
    """

    index: int
    forward: NDArray[np.float32] | None
    """From frame `index` to `index + step`, on the grid of frame `index`."""
    backward: NDArray[np.float32] | None
    """From frame `index + step` to `index`, on the grid of frame `index + step`."""


@dataclass(frozen=True, slots=True)
class ReducedPair:
    """What a reduction makes of the two fields of a `FlowPair`.

    There is one array for each tensor of the reduction: this field's entry. Directions not
    requested are None.
    """

    index: int
    forward: tuple[NDArray[Any], ...] | None
    backward: tuple[NDArray[Any], ...] | None


class FlowEstimator(ABC):
    """Computes dense optical flow between 8-bit frames of one size, gray or RGB."""

    frames: ClassVar[FrameKind] = "gray"
    """What a frame is: `gray`, (H, W) uint8, or `rgb`, (H, W, 3) uint8."""

    implementation: str
    """The library, and the part of its version that changes the numbers, such as `opencv-5`.

    It is stored with the data. One data set never mixes two implementations.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions are stored with the data, besides those that every data set names."""

    device_kinds: ClassVar[tuple[DeviceKind, ...]] = ("cpu",)
    """Kinds of device on which the class computes. Read only for a class that `--estimator` names.
    For flowprep's own algorithms, see `flowprep.flow.estimators.ESTIMATORS`."""

    parameters_class: ClassVar[type[Any] | None] = None
    """The frozen dataclass that `__init__` takes; None for a class without parameters. Read only
    for a class that `--estimator` names. flowprep's own are in `flowprep.flow.parameters`."""

    device_name: str = "cpu"
    """The device's name as stored with each video: `cpu`, `cuda:NVIDIA H100 80GB HBM3`."""

    reduces_fields: bool = False
    """Whether fields are far from the host, so that `reduced_pairs` copies less than `pairs`."""

    batch_pixels: int = 1
    """Pixels of all fields that it computes at once, if its fields are far from the host."""

    min_side_px: int = 16
    """Smaller frames are refused: no pyramid, patch or filter window fits into them."""

    @classmethod
    def create(cls, parameters: Any, device: str) -> FlowEstimator:
        """Makes the estimator. A class for several devices gets PyTorch's name of the device."""
        return cls() if parameters is None else cls(parameters)  # type: ignore[call-arg]

    @classmethod
    def weights(cls, parameters: Any) -> str | None:
        """Returns the name or SHA-256 of the weights that `parameters` select; None if none."""
        return None

    @classmethod
    def implementation_with(cls, parameters: Any) -> str:
        """Returns the text stored with the data: the implementation, and the weights if any."""
        weights = cls.weights(parameters)
        return cls.implementation if weights is None else f"{cls.implementation}, {weights}"

    @abstractmethod
    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the flow from `prev` to `next`, on the grid of `prev`.

        Both are uint8, (H, W) or (H, W, 3) depending on `frames`. The result is (H, W, 2) float32:
        u right and v down, in px.
        """

    def pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Yields the N - step pairs of a video of N frames, in order, as the frames arrive.

        `frames` are uint8 of one size, gray or RGB as the class requires. Only step + 1 frames are
        held in memory. An estimator overrides this if it can share a frame's preparation between
        pairs, or process several pairs at once.
        """
        window: deque[NDArray[np.uint8]] = deque(maxlen=step + 1)
        for number, frame in enumerate(frames):
            window.append(frame)
            if number >= step:
                first, last = window[0], window[-1]
                yield FlowPair(
                    index=number - step,
                    forward=self(first, last) if "forward" in directions else None,
                    backward=self(last, first) if "backward" in directions else None,
                )

    def reduced_pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        reduce: Reduction,
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[ReducedPair]:
        """Like `pairs`, but copies to the host only what `reduce` makes of the fields.

        An estimator overrides this if its fields are on a torch device.
        """
        raise NotImplementedError(f"the fields of {type(self).__name__} are on the host")


class VideoEstimator(FlowEstimator):
    """An estimator that computes the pairs of a video together. One pair is a video of two frames.

    A subclass overrides `pairs`.
    """

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        pair = builtins.next(self.pairs([prev, next], directions=("forward",)))
        assert pair.forward is not None
        return pair.forward
