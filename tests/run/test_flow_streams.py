"""Frames to streams: what an estimator is given, and what of its fields is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import flowprep
from flowprep import EncodeSpec, FlowEstimator, FlowSpec, VideoError, create_estimator
from flowprep.config import DecodeSpec, ExtractConfig, Quantizer, Resize, RunOptions
from flowprep.flow.base import FlowPair, FrameKind
from flowprep.flow.parameters import TVL1Parameters
from flowprep.run import run_job
from flowprep.run.flow_streams import FlowStreams, flow_between
from flowprep.synthetic import action_scene, write_video
from flowprep.video.types import Frame
from tests.own_estimators import CHANNEL_MOTIONS_PX, channel_frames

OWN = FlowSpec("my_flow:MyFlow")
"""Of this spec nothing is imported: the estimator is given."""
FORWARD = EncodeSpec(directions=("forward",), keep_rgb=False)


def frames(num_frames: int, **size: int) -> list[Frame]:
    pictures = channel_frames(num_frames, **size)
    return [Frame(rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 0.0) for rgb in pictures]


class Own(FlowEstimator):
    """Notes what it gets, and gives fields that are zero but for what a test changes."""

    def __init__(self, kind: FrameKind = "gray") -> None:
        self.frames = kind  # type: ignore[misc]
        self.given: list[NDArray[np.uint8]] = []

    def field(self, height: int, width: int) -> Any:
        return np.zeros((height, width, 2), np.float32)

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.given += [prev, next]
        field: NDArray[np.float32] = self.field(*prev.shape[:2])
        return field


def error_of(estimator: FlowEstimator, spec: FlowSpec = OWN, num_frames: int = 4) -> VideoError:
    streams = FlowStreams(spec, FORWARD, estimator)
    with pytest.raises(VideoError) as caught:
        streams.compute(frames(num_frames))
    streams.close()
    return caught.value


# ---- what it is given


@pytest.mark.parametrize("kind", ["gray", "rgb"])
@pytest.mark.parametrize("step", [1, 2])
def test_an_estimator_gets_the_frames_that_it_asks_for(kind: FrameKind, step: int) -> None:
    estimator, given = Own(kind), frames(4)
    streams = FlowStreams(FlowSpec("dis", step=step), FORWARD, estimator)
    streams.compute(given)
    images = [one.gray if kind == "gray" else one.rgb for one in given]
    wanted = [images[t + k] for t in range(4 - step) for k in (0, step)]
    assert all(map(np.array_equal, estimator.given, wanted))
    assert estimator.given[0].shape == ((64, 96) if kind == "gray" else (64, 96, 3))
    assert (streams.num_frames, streams.num_flows) == (4, 4 - step)
    assert streams.size == (96, 64)
    streams.close()


def test_the_base_class_for_gpus_takes_rgb_too() -> None:
    torch = pytest.importorskip("torch")
    from flowprep.flow.base_torch import TorchEstimator

    class ChannelSums(TorchEstimator[None]):
        """Flow that is the mean of the second frame's red, and of the first frame's blue."""

        frames = "rgb"
        implementation = "test"
        bytes_per_pixel = 100

        def _make_plan(self, height: int, width: int) -> None:
            return None

        def _prepare(self, plan: None, frames: Any) -> list[Any]:
            assert frames.shape[1:] == (64, 96, 3)
            return [frames.to(torch.float32)]

        def _estimate(self, plan: None, prepared: list[Any], first: Any, second: Any) -> Any:
            (images,) = prepared
            red, blue = images[second][..., 0], images[first][..., 2]
            return torch.stack([red, blue], dim=-1)

    given = frames(5)
    for batch_pairs in (1, 2, 8):
        estimator = ChannelSums(device="cpu", batch_pairs=batch_pairs)
        for pair in estimator.pairs([one.rgb for one in given], step=2):
            first, second = given[pair.index].rgb, given[pair.index + 2].rgb
            assert pair.forward is not None
            assert pair.backward is not None
            np.testing.assert_array_equal(
                pair.forward, np.stack([second[..., 0], first[..., 2]], -1)
            )
            np.testing.assert_array_equal(
                pair.backward, np.stack([first[..., 0], second[..., 2]], -1)
            )
    with pytest.raises(ValueError, match="all frames must be of one size"):
        list(estimator.pairs([given[0].rgb, given[0].rgb[:, 1:]]))


def test_one_field_of_two_frames_is_that_of_the_streams() -> None:
    first, last = frames(2)
    estimator = create_estimator("farneback-opencv")
    forward = flow_between(estimator, FlowSpec("farneback-opencv"), first, last)
    np.testing.assert_array_equal(forward, estimator(first.gray, last.gray))
    green = CHANNEL_MOTIONS_PX[1][0]
    assert np.sign(np.median(forward[16:-16, 16:-16, 0])) == np.sign(green)


# ---- what it gives


@pytest.mark.parametrize(
    ("field", "got"),
    [
        (lambda h, w: np.zeros((h, w, 3), np.float32), "float32 of shape (64, 96, 3)"),
        (lambda h, w: np.zeros((2, h, w), np.float32), "float32 of shape (2, 64, 96)"),
        (lambda h, w: np.zeros((h // 8, w // 8, 2), np.float32), "float32 of shape (8, 12, 2)"),
        (lambda h, w: np.zeros((h, w, 2)), "float64 of shape (64, 96, 2)"),
        (lambda h, w: None, "NoneType"),
        (lambda h, w: [[0.0]], "list"),
        (lambda h, w: np.full((h, w, 2), np.nan, np.float32), "12288 values that are not finite"),
    ],
)
def test_a_field_of_another_kind_is_named_and_nothing_is_stored(field: Any, got: str) -> None:
    estimator = Own()
    estimator.field = field  # type: ignore[method-assign]
    error = error_of(estimator)
    assert error.reason == "estimator-error"
    assert error.message == (
        "my_flow:MyFlow gave a wrong field: it must be finite float32 of shape (64, 96, 2) for "
        f"frames of 96x64 px, got {got}"
    )
    with pytest.raises(VideoError, match=r"my_flow:MyFlow gave a wrong field"):
        flow_between(estimator, OWN, *frames(2))


def test_a_later_field_of_another_size_is_refused_too() -> None:
    class Shrinking(Own):
        def field(self, height: int, width: int) -> Any:
            return np.zeros((height - len(self.given) // 4, width, 2), np.float32)

    error = error_of(Shrinking())
    assert "got float32 of shape (63, 96, 2)" in error.message


def test_flowprep_s_own_algorithms_may_give_values_that_are_not_finite() -> None:
    estimator = Own()
    estimator.field = lambda h, w: np.full((h, w, 2), np.inf, np.float32)  # type: ignore[method-assign]
    streams = FlowStreams(FlowSpec("dis"), FORWARD, estimator)
    streams.compute(frames(3))
    assert streams.statistics["forward"].num_invalid == 2 * 2 * 64 * 96
    streams.close()


def test_an_error_of_the_user_s_class_is_said_to_be_its_own() -> None:
    class Broken(Own):
        def field(self, height: int, width: int) -> Any:
            raise KeyError("weights")

    error = error_of(Broken())
    assert error.reason == "estimator-error"
    assert error.message.startswith("my_flow:MyFlow raised KeyError at test_flow_streams.py:")
    assert isinstance(error.__cause__, KeyError)
    # In flowprep's own estimators it is an internal error.
    with pytest.raises(KeyError):
        FlowStreams(FlowSpec("dis"), FORWARD, Broken()).compute(frames(3))


class Swallowing(Own):
    """Takes any error for the end of the video."""

    def pairs(
        self, frames: Iterable[NDArray[np.uint8]], *, step: int = 1, directions: Sequence[str] = ()
    ) -> Iterator[FlowPair]:
        try:
            yield from super().pairs(frames, step=step, directions=("forward",))
        except Exception:
            return


@pytest.mark.parametrize("kind", [Own, Swallowing])
@pytest.mark.parametrize("error", [VideoError("damaged", "at frame 2"), OSError("disk full")])
def test_an_error_of_the_frames_passes_through_the_estimator(
    kind: type[Own], error: Exception
) -> None:
    def broken() -> Iterator[Frame]:
        yield from frames(3)
        raise error

    with pytest.raises(type(error)) as caught:
        FlowStreams(OWN, FORWARD, kind()).compute(broken())
    assert caught.value is error


def test_pairs_that_are_missing_are_noticed() -> None:
    class Lazy(Own):
        def pairs(
            self,
            frames: Iterable[NDArray[np.uint8]],
            *,
            step: int = 1,
            directions: Sequence[str] = (),
        ) -> Iterator[FlowPair]:
            for pair in super().pairs(frames, step=step, directions=("forward",)):
                if pair.index % 2 == 0:
                    yield pair

    assert error_of(Lazy()).message == "my_flow:MyFlow gave 2 pairs of 4 frames at step 1"


def test_frames_that_are_too_small_are_refused() -> None:
    estimator = Own("rgb")
    estimator.min_side_px = 65
    error = error_of(estimator)
    assert error.reason == "too-small"
    assert "frames of 96x64 px are too small for flow; each side needs at least 65 px" in str(error)


# ---- fields on a GPU: here those on the CPU are taken for such


@pytest.fixture
def quantized_batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the batches that are quantized on the device, which is the CPU."""
    pytest.importorskip("torch")
    from flowprep.dataset.quantize_torch import DeviceQuantizer
    from flowprep.flow import base_torch

    shapes: list[tuple[int, ...]] = []
    quantize = DeviceQuantizer.__call__

    def noted(self: Any, fields: Any) -> Any:
        shapes.append(tuple(fields.shape))
        return quantize(self, fields)

    monkeypatch.setattr(DeviceQuantizer, "__call__", noted)
    monkeypatch.setattr(base_torch, "REDUCING_DEVICES", ("cpu",))
    return shapes


def estimator_of(field: Any, batch_pairs: int = 3) -> FlowEstimator:
    """An estimator in PyTorch that gives B times a field that `field` makes of H and W."""
    from flowprep.flow.base_torch import TorchEstimator

    class Fixed(TorchEstimator[tuple[int, int]]):
        implementation = "test"
        bytes_per_pixel = 100

        def _make_plan(self, height: int, width: int) -> tuple[int, int]:
            return height, width

        def _prepare(self, plan: tuple[int, int], frames: Any) -> list[Any]:
            return [frames]

        def _estimate(
            self, plan: tuple[int, int], prepared: list[Any], first: Any, second: Any
        ) -> Any:
            one = field(*plan)
            return one.expand(len(first), *one.shape)

    return Fixed(device="cpu", batch_pairs=batch_pairs)


@pytest.mark.parametrize("quantizer", ["round", "floor", "centered"])
def test_a_data_set_has_the_bytes_that_it_has_without_quantizing_on_the_device(
    quantized_batches: list[tuple[int, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantizer: Quantizer,
) -> None:
    scene = action_scene("zoom_in", num_frames=4, width=64, height=48, seed=3)
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.mp4", map(scene.frame, range(4)))
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")),
        # Some values are clipped.
        FlowSpec("tvl1", TVL1Parameters(nscales=2, warps=2), bound_px=1.5, quantizer=quantizer),
    )
    options = RunOptions(device="torch-cpu", progress=False)
    stored = []
    for devices in (("cpu",), ("cuda",)):
        monkeypatch.setattr("flowprep.flow.base_torch.REDUCING_DEVICES", devices)
        # A worker keeps its estimator for all videos, and this process is the worker.
        run_job._estimator.cache_clear()
        out = tmp_path / f"on {devices[0]}"
        report = flowprep.extract(
            tmp_path / "clips", out, config, executor="inline", options=options
        )
        assert report.is_complete
        stored.append({path.name: path.read_bytes() for path in out.glob("shards/*.tar")})
        assert quantized_batches == 3 * [(2, 48, 64, 2)]
    run_job._estimator.cache_clear()
    assert list(stored[0]) == ["000000.tar"]
    assert stored[0] == stored[1]
    (video,) = flowprep.open_dataset(out).videos
    summary = flowprep.open_dataset(out).metadata(video.key).flow["forward"]
    assert summary.num_clipped > 0


@pytest.mark.usefixtures("quantized_batches")
@pytest.mark.parametrize(
    ("field", "got"),
    [
        (lambda torch, h, w: torch.zeros(h, w, 3), "float32 of shape (64, 96, 3)"),
        (lambda torch, h, w: torch.zeros(2, h, w), "float32 of shape (2, 64, 96)"),
        (lambda torch, h, w: torch.zeros(h // 8, w, 2), "float32 of shape (8, 96, 2)"),
        (
            lambda torch, h, w: torch.zeros(h, w, 2, dtype=torch.float64),
            "float64 of shape (64, 96, 2)",
        ),
    ],
)
def test_a_field_of_another_kind_is_refused_on_the_device_as_on_the_host(
    monkeypatch: pytest.MonkeyPatch, field: Any, got: str
) -> None:
    import torch

    there = error_of(estimator_of(lambda h, w: field(torch, h, w)), FlowSpec("dis"))
    monkeypatch.setattr("flowprep.flow.base_torch.REDUCING_DEVICES", ())
    here = error_of(estimator_of(lambda h, w: field(torch, h, w)), FlowSpec("dis"))
    assert (there.reason, there.message) == (here.reason, here.message)
    assert there.message.endswith(f"got {got}")


def test_values_that_are_not_finite_are_counted_on_the_device(
    quantized_batches: list[tuple[int, ...]],
) -> None:
    import torch

    streams = FlowStreams(
        FlowSpec("dis"),
        EncodeSpec(keep_rgb=False),
        estimator_of(lambda h, w: torch.full((h, w, 2), torch.nan)),
    )
    streams.compute(frames(6))
    assert quantized_batches == [(6, 64, 96, 2), (4, 64, 96, 2)]
    for direction in flowprep.config.DIRECTIONS:
        statistics = streams.statistics[direction]
        assert statistics.num_invalid == statistics.num_values == 5 * 2 * 64 * 96
        assert statistics.num_zero_fields == statistics.num_fields == 5
    streams.close()


def test_a_batch_whose_quantizing_does_not_fit_into_memory_is_halved(
    quantized_batches: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from flowprep.dataset.quantize_torch import DeviceQuantizer

    quantize = DeviceQuantizer.__call__

    def full(self: Any, fields: Any) -> Any:
        if len(fields) > 4:
            quantized_batches.append(())
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return quantize(self, fields)

    monkeypatch.setattr(DeviceQuantizer, "__call__", full)
    estimator = estimator_of(lambda h, w: torch.ones(h, w, 2), batch_pairs=4)
    streams = FlowStreams(FlowSpec("dis"), EncodeSpec(keep_rgb=False), estimator)
    streams.compute(frames(6))
    assert quantized_batches == [(), (4, 64, 96, 2), (4, 64, 96, 2), (2, 64, 96, 2)]
    assert streams.statistics["backward"].num_fields == streams.num_flows == 5
    streams.close()


def test_a_user_s_own_estimator_has_its_fields_looked_at_on_the_host(
    quantized_batches: list[tuple[int, ...]],
) -> None:
    import torch

    estimator = estimator_of(lambda h, w: torch.full((h, w, 2), torch.inf))
    assert estimator.reduces_fields
    assert error_of(estimator).message.endswith("got 12288 values that are not finite")
    assert not quantized_batches
    with pytest.raises(NotImplementedError, match="the fields of Own are on the host"):
        Own().reduced_pairs([], lambda fields: [fields])
