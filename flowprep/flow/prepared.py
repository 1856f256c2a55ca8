"""The frame loop of the native estimators: each frame is prepared once, and memory is kept."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.base import FlowEstimator, FlowPair
from flowprep.flow.parameters import DIRECTIONS, Direction

__all__ = ["PreparedEstimator"]

Prepared = TypeVar("Prepared")
"""What an estimator computes of a single frame, and the memory for it."""


class PreparedEstimator(FlowEstimator, Generic[Prepared]):
    """An estimator that prepares each frame once for its up to four pairs.

    The memory of frames is kept from call to call: to request it from the system afresh takes as
    long as much of the arithmetic. A single call whose first frame was the second frame of the call
    before finds it prepared.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        """Height and width of the frames that the memory is for."""
        self._spare: list[Prepared] = []
        """Memory of frames that no video holds."""
        self._last: tuple[NDArray[Any], Prepared] | None = None
        """The second frame of the last single call."""

    @abstractmethod
    def _set_size(self, width: int, height: int) -> None:
        """Makes all that depends on the size of the frames but not on the frames."""

    @abstractmethod
    def _new_frame(self) -> Prepared:
        """Allocates the memory of a frame of that size."""

    @abstractmethod
    def _prepare(self, frame: NDArray[Any], memory: Prepared) -> None:
        """Writes into `memory` all that pairs need of the frame alone."""

    @abstractmethod
    def _flow(self, prev: Prepared, next: Prepared) -> NDArray[np.float32]:
        """Returns the flow from one prepared frame to another."""

    def __call__(self, prev: NDArray[Any], next: NDArray[Any]) -> NDArray[np.float32]:
        """Like the base class."""
        _check_shape(next, prev.shape)
        self._begin(prev.shape)
        last, self._last = self._last, None
        if last is not None and last[0].dtype == prev.dtype and np.array_equal(last[0], prev):
            first = last[1]
        else:
            # The memory of the last frame serves a new one.
            first = self._take_frame() if last is None else last[1]
            self._prepare(prev, first)
        second = self._take_frame()
        self._prepare(next, second)
        flow = self._flow(first, second)
        self._spare.append(first)
        self._last = next.copy(), second
        return flow

    def pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Like the base class; each frame is prepared once for its up to four pairs."""
        window: deque[Prepared] = deque()
        shape: tuple[int, ...] = ()
        try:
            for number, frame in enumerate(frames):
                shape = shape or frame.shape
                _check_shape(frame, shape)
                # For every frame, because other videos may have used the estimator in between.
                self._begin(shape)
                # A frame that has met all its partners gives its memory to the new frame.
                memory = window.popleft() if len(window) > step else self._take_frame()
                self._prepare(frame, memory)
                window.append(memory)
                if number >= step:
                    first, last = window[0], window[-1]
                    yield FlowPair(
                        index=number - step,
                        forward=self._flow(first, last) if "forward" in directions else None,
                        backward=self._flow(last, first) if "backward" in directions else None,
                    )
        finally:
            if shape == self._shape:
                self._spare += window

    def _begin(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            self._spare, self._last = [], None
            self._set_size(shape[1], shape[0])
            self._shape = shape

    def _take_frame(self) -> Prepared:
        return self._spare.pop() if self._spare else self._new_frame()


def _check_shape(frame: NDArray[Any], shape: tuple[int, ...]) -> None:
    if frame.shape != shape:
        raise ValueError(f"all frames must be of one size, {shape}, got {frame.shape}")
