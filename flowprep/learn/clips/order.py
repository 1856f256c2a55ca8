"""Which training video is at which position of the endless stream.

    EpochOrder      every video once in each epoch, in the epoch's own order
    BalancedOrder   every class equally often (`--balance`)

The seed and the position alone decide it. So a killed run, and any number of processes, go on with
the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BalancedOrder", "EpochOrder", "VideoOrder"]

# The second number of a random generator's seed names its purpose. Samples have 1, dropout has 2.
_ORDER, _CLASSES, _CYCLE = 0, 3, 4


class VideoOrder(Protocol):
    """Says which video is at a position."""

    def find(self, position: int) -> int:
        """Returns the number of the video, counted from 0."""


class EpochOrder:
    """Every video once in each epoch of `num_videos` positions, in the epoch's own order."""

    def __init__(self, num_videos: int, seed: int) -> None:
        self._num_videos = num_videos
        self._seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def find(self, position: int) -> int:
        """Returns the number of the video at a position."""
        epoch, place = divmod(position, self._num_videos)
        order = self._orders.get(epoch)
        if order is None:
            if len(self._orders) > 1:
                self._orders.clear()
            rng = np.random.default_rng((self._seed, _ORDER, epoch))
            order = self._orders[epoch] = rng.permutation(self._num_videos)
        return int(order[place])


class BalancedOrder:
    """Every class once in each round of as many positions as there are classes.

    A round has its own order of the classes. A class shows each of its videos once before it shows
    one again, each time in another order. This is the class-aware sampling of Shen et al., Relay
    Backpropagation (ECCV 2016): a list of the classes, and a list of the videos of each class.
    """

    def __init__(self, classes: Sequence[tuple[int, int]], seed: int) -> None:
        """Takes the class of each video: the number of its data set, and its label there."""
        videos: dict[tuple[int, int], list[int]] = {}
        for video, one in enumerate(classes):
            videos.setdefault(one, []).append(video)
        self._videos = [np.array(videos[one], np.int64) for one in sorted(videos)]
        self._seed = seed
        self._rounds: dict[int, NDArray[np.int64]] = {}
        self._cycles: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def find(self, position: int) -> int:
        """Returns the number of the video at a position."""
        round_, place = divmod(position, len(self._videos))
        order = self._rounds.get(round_)
        if order is None:
            if len(self._rounds) > 1:
                self._rounds.clear()
            rng = np.random.default_rng((self._seed, _CLASSES, round_))
            order = self._rounds[round_] = rng.permutation(len(self._videos))
        number = int(order[place])
        own = self._videos[number]
        cycle, step = divmod(round_, len(own))
        kept = self._cycles.get(number)
        if kept is None or kept[0] != cycle:
            rng = np.random.default_rng((self._seed, _CYCLE, number, cycle))
            kept = self._cycles[number] = (cycle, rng.permutation(own))
        return int(kept[1][step])
