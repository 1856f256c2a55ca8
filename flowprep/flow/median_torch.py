"""The median filter of float32 planes on a torch device, by sorting networks of whole planes.

Each minimum or maximum of a network is one operation on all windows of all planes. So the filter
runs on any device without branches. What neighboring windows share is sorted once: the pixels of a
column, for all windows of a row that contain the column; for 5 x 5 px also two merged columns, for
the two windows that contain both. The median of 25 has 12 pixels below it and 12 above it. So after
each merge, only some ranks (from 0) can still be the median:

    two columns   0..9
    four columns  7..12
    all five      12

The median of a 3 x 3 window is the median of three values: the largest minimum of a column, the
median of the columns' medians, and the smallest maximum of a column.

Source: Batcher, "Sorting networks and their applications", 1968 (the merge). `flowprep.flow.median`
does the same with vectors on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["median_filter"]


def median_filter(planes: Tensor, side: int) -> Tensor:
    """Returns the medians of the `side` x `side` windows; the border is replicated.

    `planes` and the result are (B, C, H, W) float32 and finite. `side` is 3 or 5.
    """
    height, width = planes.shape[-2:]
    reach = side // 2
    padded = torch.nn.functional.pad(planes, (reach,) * 4, mode="replicate")
    columns = _sort(side).run([padded[..., y : y + height, :] for y in range(side)])
    if side == 3:
        low, middle, high = ([x[..., k : k + width] for k in range(3)] for x in columns)
        lowest = torch.maximum(torch.maximum(low[0], low[1]), low[2])
        highest = torch.minimum(torch.minimum(high[0], high[1]), high[2])
        (median,) = _merge(2, 1, 1, 2).run([*_sort(2).run(middle[:2]), middle[2]])
        (median,) = _merge(2, 1, 1, 2).run([*_sort(2).run([lowest, highest]), median])
        return median
    pairs = _merge(5, 5, 0, 10).run([x[..., :-1] for x in columns] + [x[..., 1:] for x in columns])
    columns = [x[..., 4:] for x in columns]
    left, right = ([x[..., k : k + width] for x in pairs] for k in (0, 2))
    del pairs
    four = _merge(10, 10, 7, 13).run(left + right)
    del left, right
    (median,) = _merge(6, 5, 5, 6).run(four + columns)
    return median


class _Network:
    """Minima and maxima of values. Only those that the results depend on are computed."""

    def __init__(self, num_inputs: int) -> None:
        self._num_inputs = num_inputs
        # Value number `_num_inputs` + k is the minimum (k even) or maximum of these two values.
        self._operands: list[tuple[int, int]] = []
        self._results: list[int] = []
        self._last_uses: dict[int, list[int]] = {}

    def exchange(self, a: int, b: int) -> list[int]:
        """Returns the numbers of the smaller and the larger of two values."""
        self._operands += [(a, b), (a, b)]
        number = self._num_inputs + len(self._operands)
        return [number - 2, number - 1]

    def merge(self, a: Sequence[int], b: Sequence[int], crossed: bool) -> list[int]:
        """Merges two sorted sequences by Batcher's odd-even merge, like `flowprep.flow.median`.

        Every other element of `a` is merged with every other element of `b`, and the remaining
        elements are merged too. Exchanges of neighbors complete the order. Normally they are
        between ranks 1 and 2, 3 and 4, ... If `crossed`, even elements of `a` are merged with odd
        elements of `b`, and the exchanges are between ranks 0 and 1, ...
        """
        if not a or not b:
            return [*a, *b]
        if len(a) == len(b) == 1:
            return self.exchange(a[0], b[0])
        x = self.merge(a[0::2], b[int(crossed) :: 2], False)
        y = self.merge(a[1::2], b[int(not crossed) :: 2], False)
        merged = [] if crossed else [x.pop(0)]
        for pair in zip(x, y, strict=False):
            merged += self.exchange(*pair)
        return merged + x[len(y) :] + y[len(x) :]

    def sort(self, values: Sequence[int]) -> list[int]:
        if len(values) == 1:
            return list(values)
        half = len(values) // 2
        return self.merge(self.sort(values[:half]), self.sort(values[half:]), False)

    def keep(self, results: list[int]) -> _Network:
        """Makes these values the results, and notes after which operation each value is freed."""
        self._results, needed = results, set(results)
        for number in reversed(range(self._num_inputs, self._num_inputs + len(self._operands))):
            if number in needed:
                operands = set(self._operands[number - self._num_inputs])
                self._last_uses[number] = sorted(operands - needed)
                needed |= operands
        return self

    @property
    def num_operations(self) -> int:
        return len(self._last_uses)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns the results for tensors of one shape."""
        values = dict(enumerate(inputs))
        for number in sorted(self._last_uses):
            a, b = self._operands[number - self._num_inputs]
            choose = torch.maximum if (number - self._num_inputs) % 2 else torch.minimum
            values[number] = choose(values[a], values[b])
            for ended in self._last_uses[number]:
                del values[ended]
        return [values[number] for number in self._results]


@functools.cache
def _sort(num_values: int) -> _Network:
    network = _Network(num_values)
    return network.keep(network.sort(range(num_values)))


@functools.cache
def _merge(num_a: int, num_b: int, first: int, end: int) -> _Network:
    """Ranks `first` ... `end` - 1 of two merged sequences, by the merge with fewer operations."""
    networks = []
    for crossed in (False, True):
        network = _Network(num_a + num_b)
        a, b = range(num_a), range(num_a, num_a + num_b)
        networks.append(network.keep(network.merge(a, b, crossed)[first:end]))
    return min(networks, key=lambda network: network.num_operations)
