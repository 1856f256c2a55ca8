"""Frames of one video -> flow -> levels -> JPEG: the part that extract, view and compare share.

    FlowStreams.compute   frames -> images -> estimator.pairs -> quantize -> JPEG streams
                          (with --camera-motion, StabilizedPairs stands before the estimator)
    flow_between          one field of two frames

Fields that are on a GPU are quantized there, and only levels and counts are copied to the host.

The image of a frame is the input that the estimator takes, gray or RGB. Memory use does not grow
with the length of the video.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, EncodeSpec, FlowSpec
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM, stream_names
from flowprep.dataset.quantize import FieldQuantizer, FlowStatistics
from flowprep.dataset.write import JpegStream
from flowprep.errors import FlowprepError, VideoError
from flowprep.flow.base import FlowEstimator, FlowPair, ReducedPair
from flowprep.flow.devices import is_device_failure
from flowprep.flow.parameters import is_own
from flowprep.video.types import Frame
from flowprep.words import format_count

if TYPE_CHECKING:
    from torch import Tensor

    from flowprep.flow.homography import Homography
    from flowprep.flow.stabilized import StabilizedPairs

__all__ = ["FlowStreams", "flow_between", "no_progress"]


def no_progress() -> None:
    """Does nothing. It stands for a progress callback if nobody follows the progress."""


class FlowStreams:
    """The streams of one video as JPEGs, which `close` frees."""

    def __init__(
        self,
        flow: FlowSpec,
        encode: EncodeSpec,
        estimator: FlowEstimator | None,
        *,
        make_stream: Callable[[int], JpegStream] = JpegStream,
    ) -> None:
        """Without an estimator there is no flow, only the frames. `make_stream` takes a quality."""
        self.streams = {
            name: make_stream(
                encode.rgb_jpeg_quality if name == RGB_STREAM else encode.jpeg_quality
            )
            for name in stream_names(encode)
        }
        """Those of `flow_x`, `flow_y`, `back_x`, `back_y` and `rgb` that `encode` asks for."""
        self.clock = _Clock()
        self.num_frames = 0
        self.num_flows = 0
        self._flow = flow
        self._encode = encode
        self._estimator = estimator
        self._quantizers = {direction: FieldQuantizer(flow) for direction in encode.directions}
        self._stabilized: StabilizedPairs | None = None
        self._shape: tuple[int, ...] = ()
        self._frame_error: Exception | None = None

    def compute(
        self,
        frames: Iterable[Frame],
        *,
        keeps_frame: Callable[[int], bool] | None = None,
        on_progress: Callable[[], None] = no_progress,
        on_stored: Callable[[], None] = no_progress,
    ) -> None:
        """Adds the flow of all `frames`, and the frames themselves if `encode` keeps RGB.

        `keeps_frame` takes the number of a frame, from 0, and says whether to keep that frame. The
        default keeps all frames. `on_progress` is called for every frame and pair, `on_stored` when
        a pair is in the streams, or a frame if there is no flow. Raises what reading the frames
        raises, and VideoError for frames that are too small and for fields that cannot be stored.
        """
        images = self._images(iter(frames), keeps_frame, on_progress)
        if self._estimator is None:
            for _ in images:
                on_stored()
            return
        pairs = self._pairs(self._estimator, images)
        while True:
            with self.clock.spent("flow"):
                pair = self._next(pairs)
            if pair is None:
                break
            with self.clock.spent("encode"):
                self._store(pair)
            self.num_flows += 1
            on_progress()
            on_stored()
        if self._frame_error is not None:
            # An estimator may have swallowed the error and ended as if the video were over.
            raise self._frame_error
        if self.num_flows != max(0, self.num_frames - self._flow.step):
            raise VideoError(
                "estimator-error",
                f"{self._flow.algorithm} gave {format_count(self.num_flows, 'pair')} of "
                f"{format_count(self.num_frames, 'frame')} at step {self._flow.step}",
            )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames, px."""
        height, width = self._shape
        return width, height

    @property
    def statistics(self) -> dict[Direction, FlowStatistics]:
        """Statistics of the fields of each direction, before quantization."""
        return {name: one.statistics for name, one in self._quantizers.items()}

    @property
    def homographies(self) -> list[Homography | None] | None:
        """The camera's motion in each pair. None if the flow is not freed of it."""
        return None if self._stabilized is None else self._stabilized.homographies

    def close(self) -> None:
        """Frees memory and temporary files."""
        for stream in self.streams.values():
            stream.close()

    def _images(
        self,
        source: Iterator[Frame],
        keeps_frame: Callable[[int], bool] | None,
        on_progress: Callable[[], None],
    ) -> Iterator[NDArray[np.uint8]]:
        """Gives the estimator its images, and stores the RGB frames on the way."""
        try:
            while True:
                with self.clock.spent("decode"):
                    frame = next(source, None)
                if frame is None:
                    return
                image = _image_of(frame, self._estimator)
                self._shape = frame.gray.shape
                if self._encode.keep_rgb and (keeps_frame is None or keeps_frame(self.num_frames)):
                    with self.clock.spent("encode"):
                        self.streams[RGB_STREAM].append(frame.rgb)
                self.num_frames += 1
                on_progress()
                yield image
        except Exception as error:
            # This error passes through the estimator, but is not the estimator's fault.
            self._frame_error = error
            raise

    def _pairs(
        self, estimator: FlowEstimator, images: Iterator[NDArray[np.uint8]]
    ) -> Iterator[FlowPair | ReducedPair]:
        """Starts the estimator. Its fields come whole, or quantized if they are on a GPU.

        A user's own estimator is left as it is: its fields are looked at on the host.
        """
        flow, directions = self._flow, self._encode.directions
        if flow.camera_motion == "homography":
            # Imported here, because only this needs it.
            from flowprep.flow.stabilized import StabilizedPairs

            self._stabilized = StabilizedPairs(step=flow.step, directions=directions)
        if not estimator.reduces_fields or is_own(flow.algorithm):
            if self._stabilized is not None:
                return self._stabilized.pairs(estimator, images)
            return estimator.pairs(images, step=flow.step, directions=directions)
        # Only an estimator of PyTorch comes here, so PyTorch is loaded already.
        from flowprep.dataset.quantize_torch import DeviceQuantizer

        quantizer = DeviceQuantizer(flow)

        def reduce(fields: Tensor) -> list[Tensor]:
            dtype, shape = str(fields.dtype).removeprefix("torch."), tuple(fields.shape[1:])
            if (dtype, shape) != ("float32", (*self._shape, 2)):
                raise _wrong_field(flow.algorithm, self._shape, f"{dtype} of shape {shape}")
            return quantizer(fields)

        if self._stabilized is not None:
            return self._stabilized.reduced_pairs(estimator, images, reduce)
        return estimator.reduced_pairs(images, reduce, step=flow.step, directions=directions)

    def _next(self, pairs: Iterator[FlowPair | ReducedPair]) -> FlowPair | ReducedPair | None:
        try:
            return next(pairs, None)
        except Exception as error:
            if error is self._frame_error:
                raise
            _raise_as_own(error, self._flow.algorithm)
            raise

    def _store(self, pair: FlowPair | ReducedPair) -> None:
        for direction in self._encode.directions:
            found = pair.forward if direction == "forward" else pair.backward
            quantizer = self._quantizers[direction]
            if isinstance(found, tuple):
                planes = quantizer.add(*found)
            else:
                is_first = self.num_flows == 0
                field = _checked(found, self._shape, self._flow.algorithm, is_first=is_first)
                planes = quantizer.quantize(field)
            for name, plane in zip(FLOW_STREAMS[direction], planes, strict=True):
                self.streams[name].append(plane)


def flow_between(
    estimator: FlowEstimator,
    flow: FlowSpec,
    first: Frame,
    last: Frame,
    direction: Direction = "forward",
) -> NDArray[np.float32]:
    """Returns the flow of a pair of frames, (H, W, 2) float32 px, as a run would compute it.

    `backward` flow goes from `last` to `first`, on the grid of `last`. Raises VideoError as
    `FlowStreams.compute` does.
    """
    pair = _image_of(first, estimator), _image_of(last, estimator)
    try:
        if flow.camera_motion == "homography":
            from flowprep.flow.stabilized import StabilizedPairs

            pair = StabilizedPairs(step=1, directions=(direction,)).sides_of(*pair)[direction]
        elif direction == "backward":
            pair = pair[::-1]
        field = estimator(*pair)
    except Exception as error:
        _raise_as_own(error, flow.algorithm)
        raise
    return _checked(field, first.gray.shape, flow.algorithm, is_first=True)


def _image_of(frame: Frame, estimator: FlowEstimator | None) -> NDArray[np.uint8]:
    """Returns the image of a frame that an estimator takes: (H, W), or (H, W, 3) RGB.

    Raises VideoError for a frame that is too small.
    """
    if estimator is None:
        return frame.rgb
    height, width = frame.gray.shape
    if min(height, width) < estimator.min_side_px:
        raise VideoError(
            "too-small",
            f"frames of {width}x{height} px are too small for flow; "
            f"each side needs at least {estimator.min_side_px} px",
        )
    return frame.rgb if estimator.frames == "rgb" else frame.gray


def _checked(
    field: object, size: tuple[int, ...], algorithm: str, *, is_first: bool
) -> NDArray[np.float32]:
    """Returns the field that an estimator gave, if it fits frames of `size`, (H, W).

    With a user's own estimator, the first field of each video must also be finite. Raises
    VideoError for anything else.
    """
    wanted = (*size, 2)
    if not isinstance(field, np.ndarray):
        got = f"{type(field).__name__}"
    elif field.shape != wanted or field.dtype != np.float32:
        got = f"{field.dtype} of shape {field.shape}"
    elif is_first and is_own(algorithm) and not np.isfinite(field).all():
        got = f"{np.count_nonzero(~np.isfinite(field))} values that are not finite"
    else:
        return field
    raise _wrong_field(algorithm, size, got)


def _wrong_field(algorithm: str, size: tuple[int, ...], got: str) -> VideoError:
    return VideoError(
        "estimator-error",
        f"{algorithm} gave a wrong field: it must be finite float32 of shape {(*size, 2)} for "
        f"frames of {size[1]}x{size[0]} px, got {got}",
    )


def _raise_as_own(error: Exception, algorithm: str) -> None:
    """Raises VideoError if an error comes from a user's own estimator; otherwise returns."""
    passes = isinstance(error, (FlowprepError, MemoryError)) or is_device_failure(error)
    if is_own(algorithm) and not passes:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        raise VideoError(
            "estimator-error", f"{algorithm} raised {type(error).__name__} at {place}: {error}"
        ) from error


class _Clock:
    """Sums up seconds by stage. The time of a nested stage is not counted in the outer stage."""

    def __init__(self) -> None:
        self.seconds = {"decode": 0.0, "flow": 0.0, "encode": 0.0}
        self._stack: list[str] = []
        self._since = 0.0

    def spent(self, stage: str) -> _Stage:
        return _Stage(self, stage)

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def enter(self, stage: str) -> None:
        self._switch()
        self._stack.append(stage)

    def leave(self) -> None:
        self._switch()
        self._stack.pop()


@dataclass(slots=True)
class _Stage:
    clock: _Clock
    name: str

    def __enter__(self) -> None:
        self.clock.enter(self.name)

    def __exit__(self, *exception: object) -> None:
        self.clock.leave()
