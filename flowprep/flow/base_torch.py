"""Shared code of the PyTorch estimators: the pairs of a video go to a torch device in batches.

Importing this module imports torch, so it is imported only when such an estimator is made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprep.errors import ConfigError, VideoError
from flowprep.flow.base import FlowEstimator, FlowPair, ReducedPair, Reduction, VideoEstimator
from flowprep.flow.devices import DEVICE_KINDS
from flowprep.flow.parameters import DIRECTIONS, Direction

__all__ = ["Arrival", "TorchEstimator", "download", "upload"]

FREE_MEMORY_SHARE = 0.5
"""Largest share of a device's free memory that a batch may take."""

REDUCING_DEVICES: tuple[str, ...] = ("cuda",)
"""Types of torch device (ROCm's is `cuda` too) whose fields are reduced before the copy. On the CPU
nothing is copied, and compiled code reduces faster. On `mps` this has not been tried."""

Plan = TypeVar("Plan")
"""What an estimator computes once for a frame size: sizes, sample positions, weights."""


class TorchEstimator(VideoEstimator, Generic[Plan]):
    """Computes the flow of many pairs at once on a torch device.

    Frames go to the device as they arrive. Each frame is prepared once for its up to four pairs. On
    CUDA and ROCm, the device never waits for the host within a batch. The fields, or what a
    reduction makes of them, are copied to the host after the batch, and the host waits for them
    only after it has launched the next batch.

    If `batch_pairs` is None, a batch has `batch_pixels`, or as many pairs as fit into
    `FREE_MEMORY_SHARE` of the device's free memory, but at least one. On the CPU, whose cache is
    small, a batch is one pair. If a batch does not fit into memory after all, it is split into
    halves, and so are later batches.
    """

    device_kinds = DEVICE_KINDS

    batch_pixels = 2**22
    """Pixels of all fields of a batch: 24 pairs of 340x256 px in both directions. At this size, the
    kernels of an iteration take longer than launching them."""
    bytes_per_pixel: int
    """Peak memory of a batch, per pixel of each of its fields."""

    def __init__(self, *, device: str, batch_pairs: int | None = None) -> None:
        if batch_pairs is not None and batch_pairs < 1:
            raise ConfigError(f"batch_pairs must be >= 1, got {batch_pairs}")
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        # The exception for a missing device depends on the kind of device.
        except (RuntimeError, AssertionError) as error:
            if _is_out_of_memory(error):
                raise
            raise ConfigError(
                f"device must be one that torch {torch.__version__} can use here, got {device!r} "
                f"({str(error).partition(chr(10))[0]})"
            ) from error
        self.reduces_fields = self._device.type in REDUCING_DEVICES
        self._batch_pairs = batch_pairs
        self._plan: tuple[tuple[int, int], Plan] | None = None
        self._batch_limits: dict[tuple[tuple[int, int], int], int] = {}

    @classmethod
    def create(cls, parameters: Any, device: str) -> FlowEstimator:
        """Makes the estimator on a PyTorch device."""
        given = () if parameters is None else (parameters,)
        return cls(*given, device=device)

    @abstractmethod
    def _make_plan(self, height: int, width: int) -> Plan:
        """Returns the data that all frames of one size share. Its tensors are on the device."""

    @abstractmethod
    def _prepare(self, plan: Plan, frames: Tensor) -> list[Tensor]:
        """Returns the data that pairs need from N uint8 frames: tensors of N entries.

        `frames` are (N, H, W), or (N, H, W, 3) if the class's `frames` is `rgb`.
        """

    @abstractmethod
    def _estimate(
        self, plan: Plan, prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        """Returns the flow of B pairs, (B, H, W, 2) float32 px, without waiting for it.

        `first` and `second`, (B,) int64, are the indices in `prepared` of each pair's frames.
        """

    def pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Like the base class, but holds up to two batches of frames and their fields.

        Raises VideoError with the reason `out-of-memory` if a single pair does not fit.
        """
        for pair in self.reduced_pairs(frames, _whole, step=step, directions=directions):
            forward, backward = (
                None if results is None else results[0] for results in (pair.forward, pair.backward)
            )
            yield FlowPair(pair.index, forward, backward)

    def reduced_pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        reduce: Reduction,
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[ReducedPair]:
        """Like the base class. `reduce` gets the fields of a batch, and must not wait for them.

        Its own memory should not exceed that of computing the fields, which is free by then. Raises
        VideoError as `pairs` does.
        """
        video = _Video(self, reduce, step, directions)
        for frame in frames:
            yield from video.add(frame)
        yield from video.finish()

    def _plan_of(self, size: tuple[int, int]) -> Plan:
        if self._plan is None or self._plan[0] != size:
            self._plan = size, self._make_plan(*size)
        return self._plan[1]

    def _batch_limit(self, size: tuple[int, int], num_directions: int) -> int:
        """Returns the number of pairs in a batch of frames (H, W), in one or both directions."""
        key = size, num_directions
        if key not in self._batch_limits:
            pair_pixels = size[0] * size[1] * num_directions
            limit = self._batch_pairs
            if limit is None:
                limit = 1 if self._device.type == "cpu" else self.batch_pixels // pair_pixels
                free = _free_memory(self._device)
                if free is not None:
                    limit = min(
                        limit,
                        int(free * FREE_MEMORY_SHARE)
                        // (pair_pixels * self._bytes_per_pixel_of(*size)),
                    )
            self._batch_limits[key] = max(limit, 1)
        return self._batch_limits[key]

    def _bytes_per_pixel_of(self, height: int, width: int) -> int:
        """Returns `bytes_per_pixel`; for an estimator whose memory grows faster, that of a size."""
        return self.bytes_per_pixel

    def _halve_batch(self, size: tuple[int, int], num_directions: int, num_pairs: int) -> None:
        self._batch_limits[size, num_directions] = num_pairs // 2


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Returns `array` on the device; the host does not wait for the copy."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # torch keeps the pinned copy until the device has read it.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def download(tensor: Tensor) -> Tensor:
    """Returns `tensor` on the host. From CUDA it arrives later: see `Arrival`."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    on_host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return on_host.copy_(tensor, non_blocking=True)


class Arrival:
    """Tells when a device has finished all the work that it has been given so far.

    Devices other than CUDA's have finished as soon as this object exists.
    """

    def __init__(self, device: torch.device) -> None:
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Waits, and leaves the processor and the interpreter to other threads meanwhile."""
        if self._event is not None:
            self._event.synchronize()


@dataclass
class _Batch:
    """What is left of the fields of consecutive pairs, on its way to the host."""

    first_index: int
    num_pairs: int
    results: list[Tensor]
    """(pairs of each direction, ...), in pinned memory if the device is CUDA's."""
    arrival: Arrival

    def read(self, directions: Sequence[Direction]) -> Iterator[ReducedPair]:
        self.arrival.wait()
        results = [result.numpy() for result in self.results]
        for number in range(self.num_pairs):
            # Copies, so that one field that is kept does not keep the whole batch in memory.
            one = {
                name: tuple(result[k * self.num_pairs + number].copy() for result in results)
                for k, name in enumerate(directions)
            }
            yield ReducedPair(self.first_index + number, one.get("forward"), one.get("backward"))


def _whole(fields: Tensor) -> Sequence[Tensor]:
    """The reduction that leaves the fields as they are."""
    return (fields,)


class _Video(Generic[Plan]):
    """A video that an estimator is processing."""

    def __init__(
        self,
        estimator: TorchEstimator[Plan],
        reduce: Reduction,
        step: int,
        directions: Sequence[Direction],
    ) -> None:
        self._estimator = estimator
        self._device = estimator._device
        self._reduce = reduce
        self._step = step
        self._directions = [name for name in DIRECTIONS if name in directions]
        self._size: tuple[int, int] | None = None
        self._shape: tuple[int, ...] = ()
        self._index = 0
        """Index of the first pair that is not launched yet."""
        self._frames: deque[NDArray[np.uint8]] = deque()
        """All frames that have arrived, from frame `_index` on."""
        self._prepared: list[Tensor] | None = None
        """The prepared first `_step` frames, if earlier pairs already needed them."""
        self._launched: deque[_Batch] = deque()

    def add(self, frame: NDArray[np.uint8]) -> Iterator[ReducedPair]:
        """Takes a frame, and yields the pairs that are now ready."""
        if self._size is None:
            self._size, self._shape = (frame.shape[0], frame.shape[1]), frame.shape
        if frame.shape != self._shape:
            raise ValueError(f"all frames must be of one size, {self._shape}, got {frame.shape}")
        self._frames.append(frame)
        if not self._directions:
            if len(self._frames) > self._step:
                self._frames.popleft()
                yield ReducedPair(self._index, None, None)
                self._index += 1
        elif len(self._frames) - self._step >= self._limit():
            yield from self._launch_all()

    def finish(self) -> Iterator[ReducedPair]:
        """Yields the remaining pairs after the last frame has been added."""
        if self._directions:
            yield from self._launch_all()
        yield from self._read_launched(0)

    def _limit(self) -> int:
        assert self._size is not None
        return self._estimator._batch_limit(self._size, len(self._directions))

    def _launch_all(self) -> Iterator[ReducedPair]:
        while (num_pairs := len(self._frames) - self._step) > 0:
            num_pairs = min(num_pairs, self._limit())
            if self._try_to_launch(num_pairs):
                # One more batch may be in progress besides the batch that was just launched.
                yield from self._read_launched(1)
                continue
            yield from self._read_launched(0)
            assert self._size is not None
            height, width = self._size
            if num_pairs == 1:
                raise VideoError(
                    "out-of-memory",
                    f"{self._device} must have memory for one pair of frames of {width}x{height} "
                    f"px in {len(self._directions)} direction(s), and has not; resize the frames, "
                    "or take a device with more memory",
                )
            self._estimator._halve_batch(self._size, len(self._directions), num_pairs)

    def _read_launched(self, num_left: int) -> Iterator[ReducedPair]:
        # On the CPU there is nothing to wait for.
        while len(self._launched) > (num_left if self._device.type == "cuda" else 0):
            yield from self._launched.popleft().read(self._directions)

    def _try_to_launch(self, num_pairs: int) -> bool:
        """Launches the next pairs, or returns False if there is not enough memory."""
        try:
            with torch.inference_mode():
                self._launch(num_pairs)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return False
        return True

    def _launch(self, num_pairs: int) -> None:
        estimator = self._estimator
        assert self._size is not None
        plan = estimator._plan_of(self._size)
        num_frames = num_pairs + self._step
        frames = [self._frames[k] for k in range(num_frames)]
        if self._prepared is None:
            prepared = estimator._prepare(plan, upload(np.stack(frames), self._device))
        else:
            new = estimator._prepare(plan, upload(np.stack(frames[self._step :]), self._device))
            prepared = [torch.cat(parts) for parts in zip(self._prepared, new, strict=True)]
        numbers = np.arange(num_pairs)
        ends = {"forward": (numbers, numbers + self._step)}
        ends["backward"] = ends["forward"][::-1]
        first, second = (
            upload(np.concatenate([ends[name][k] for name in self._directions]), self._device)
            for k in range(2)
        )
        fields = estimator._estimate(plan, prepared, first, second)
        results = [download(result) for result in self._reduce(fields)]
        batch = _Batch(self._index, num_pairs, results, Arrival(self._device))
        # A copy, so that the memory of the other frames can be reused.
        self._prepared = [part[num_pairs:].clone() for part in prepared]
        self._launched.append(batch)
        self._index += num_pairs
        for _ in range(num_pairs):
            self._frames.popleft()


def _free_memory(device: torch.device) -> int | None:
    """Returns a device's free memory in bytes, or None if it is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that torch holds in reserve is free too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def _is_out_of_memory(error: Exception) -> bool:
    # Not every device has its own exception for this.
    text = str(error).lower()
    return (
        isinstance(error, torch.cuda.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )
