"""Warped flow: the camera's motion is taken out of each pair before an estimator sees it.

    frames -> camera_homography -> second frame warped back -> any estimator -> flow of the actors

The warp stands in front of the estimator, so every estimator can be used, and flow is computed once
for each direction. Forward flow sees frame t + step as the camera of frame t would. Backward flow
sees frame t as the camera of frame t + step would, by the inverse of the same homography.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.base import FlowEstimator, FlowPair, ReducedPair, Reduction
from flowprep.flow.camera import TrackedFrame, camera_homography, track_frame
from flowprep.flow.homography import IDENTITY, Homography, inverse
from flowprep.flow.parameters import DIRECTIONS, Direction
from flowprep.flow.warp_back import warp_back

__all__ = ["StabilizedPairs", "prepare"]

Image: TypeAlias = NDArray[np.uint8]  # (H, W) gray or (H, W, 3) RGB, as the estimator takes it
Sides: TypeAlias = dict[Direction, tuple[Image, Image]]
"""The first and the warped second image of each wanted direction."""


def prepare() -> None:
    """Compiles the warp, or reads it from the disk cache."""
    blank = np.zeros((16, 16), np.uint8)
    warp_back(blank, blank, IDENTITY, (0, 0, 16, 16))


class StabilizedPairs:
    """The pairs of one video, freed of the camera's motion."""

    def __init__(self, *, step: int, directions: Sequence[Direction]) -> None:
        self.homographies: list[Homography | None] = []
        """That of each pair so far, from frame t to frame t + step. None: the pair is plain."""
        self._step = step
        self._directions = [name for name in DIRECTIONS if name in directions]

    def pairs(self, estimator: FlowEstimator, images: Iterable[Image]) -> Iterator[FlowPair]:
        """Yields the pairs of a video like `FlowEstimator.pairs`."""
        for index, sides in enumerate(self._sides(images)):
            fields = {name: estimator(*sides[name]) for name in self._directions}
            yield FlowPair(index, fields.get("forward"), fields.get("backward"))

    def reduced_pairs(
        self, estimator: FlowEstimator, images: Iterable[Image], reduce: Reduction
    ) -> Iterator[ReducedPair]:
        """Yields the pairs of a video like `FlowEstimator.reduced_pairs`.

        Several pairs are given to the estimator as one video: all their first images, then all
        their warped second images. With a step of as many frames, these are its pairs.
        """
        block: list[Sides] = []
        index = 0
        for sides in self._sides(images):
            block.append(sides)
            height, width = sides[self._directions[0]][0].shape[:2]
            num_pixels = len(block) * len(self._directions) * height * width
            if num_pixels >= estimator.batch_pixels:
                yield from self._reduced(estimator, block, index, reduce)
                index, block = index + len(block), []
        if block:
            yield from self._reduced(estimator, block, index, reduce)

    def _reduced(
        self, estimator: FlowEstimator, block: Sequence[Sides], index: int, reduce: Reduction
    ) -> Iterator[ReducedPair]:
        pairs = [sides[name] for sides in block for name in self._directions]
        frames = [first for first, _ in pairs] + [second for _, second in pairs]
        found = estimator.reduced_pairs(frames, reduce, step=len(pairs), directions=("forward",))
        fields = iter([pair.forward for pair in found])
        for number in range(len(block)):
            one = {name: next(fields) for name in self._directions}
            yield ReducedPair(index + number, one.get("forward"), one.get("backward"))

    def sides_of(self, first: Image, last: Image) -> Sides:
        """Returns what an estimator is to see of a single pair."""
        return self._sides_of((first, _tracked(first)), (last, _tracked(last)))

    def _sides(self, images: Iterable[Image]) -> Iterator[Sides]:
        window: deque[tuple[Image, TrackedFrame]] = deque(maxlen=self._step + 1)
        for number, image in enumerate(images):
            window.append((image, _tracked(image)))
            if number >= self._step:
                yield self._sides_of(window[0], window[-1])

    def _sides_of(
        self, first: tuple[Image, TrackedFrame], last: tuple[Image, TrackedFrame]
    ) -> Sides:
        homography = camera_homography(first[1], last[1])
        self.homographies.append(homography)
        sides: Sides = {"forward": (first[0], last[0]), "backward": (last[0], first[0])}
        if homography is not None and homography != IDENTITY:
            ways = {
                "forward": (homography, first[1].picture),
                "backward": (inverse(homography), last[1].picture),
            }
            for name in self._directions:
                one, other = sides[name]
                sides[name] = one, warp_back(one, other, *ways[name])
        return {name: sides[name] for name in self._directions}


def _tracked(image: Image) -> TrackedFrame:
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return track_frame(np.ascontiguousarray(gray, np.uint8))
