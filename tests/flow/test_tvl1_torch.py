"""TV-L1 in PyTorch: the native estimator's numbers, in batches of any size and without waiting."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction, FlowSpec
from flowprep.dataset.quantize import quantize
from flowprep.errors import ConfigError, VideoError
from flowprep.flow.base import FlowPair
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.tvl1 import TVL1
from tests.flow.scenes import Flow, Gray, endpoint_error, frames, moving

if os.environ.get("FLOWPREP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from flowprep.flow import tvl1_torch
from flowprep.flow.base_torch import Arrival
from flowprep.flow.median_torch import median_filter
from flowprep.flow.pyramid_torch import Resize
from flowprep.flow.tvl1_torch import TVL1Torch, solve_warp
from flowprep.flow.warp_torch import pack_frames, read_at
from tests.torch_devices import devices, needs_cuda, one_thread

__all__ = ["one_thread"]

Array = NDArray[np.float32]

CPU = torch.device("cpu")
CUDA_SET = {"inner_iterations": 300, "outer_iterations": 1, "median_filtering": 1}
"""What denseflow and TSN compute: the defaults of OpenCV's CUDA version."""
ONE_WARP = {"epsilon": 1e-6, "outer_iterations": 2, "inner_iterations": 5, "warps": 1, "nscales": 1}
"""A number of iterations that does not depend on rounding."""

# ---- scenes


def on(device: str = "cpu", batch_pairs: int | None = None, **parameters: Any) -> TVL1Torch:
    return TVL1Torch(TVL1Parameters(**parameters), device=device, batch_pairs=batch_pairs)


def native(**parameters: Any) -> TVL1:
    return TVL1(TVL1Parameters(**parameters))


def clip_frames(path: Path, num_frames: int, first: int = 10) -> list[Gray]:
    """Frames of a clip at its full size."""
    capture = cv2.VideoCapture(str(path))
    read = [capture.read() for _ in range(first + num_frames)]
    assert all(found for found, _ in read), path
    return [np.asarray(cv2.cvtColor(x, cv2.COLOR_BGR2GRAY), np.uint8) for _, x in read[first:]]


def near_levels(flow: Flow, other: Flow) -> float:
    """The share of 8-bit values that differ by at most 1."""
    one, two = (quantize(x, FlowSpec("tvl1")).astype(int) for x in (flow, other))
    return float((np.abs(one - two) <= 1).mean())


# ---- the native estimator's numbers

CLIPS = (
    ("Biking/v_Biking_g19_c01.avi", {}),
    ("LongJump/v_LongJump_g15_c03.avi", {"stop": "exact"}),
    ("JavelinThrow/v_JavelinThrow_g21_c03.avi", CUDA_SET),
    ("RockClimbingIndoor/v_RockClimbingIndoor_g11_c02.avi", {**CUDA_SET, "stop": "exact"}),
)


@devices
@pytest.mark.parametrize(("name", "parameters"), CLIPS)
def test_real_videos_of_full_size_have_the_native_flow(
    name: str, parameters: dict[str, Any], device: str, test_data: Path
) -> None:
    video = clip_frames(test_data / "ucf101" / "videos" / name, 2)
    assert video[0].shape == (240, 320)
    (pair,) = on(device, **parameters).pairs(video)
    expected = native(**parameters)
    for flow, ends in ((pair.forward, video), (pair.backward, video[::-1])):
        assert flow is not None
        truth = expected(*ends)
        assert endpoint_error(flow, truth).mean() <= 0.02
        assert near_levels(flow, truth) >= 0.995


def test_a_large_frame_has_the_native_flow(test_data: Path) -> None:
    video = clip_frames(sorted((test_data / "asl").glob("*.mkv"))[0], 2)
    assert video[0].shape == (480, 640)
    flow, expected = on()(*video), native()(*video)
    assert endpoint_error(flow, expected).mean() <= 0.02
    assert near_levels(flow, expected) >= 0.995


def test_warps_take_the_native_iterations(test_data: Path) -> None:
    num_equal = num_warps = 0
    for name, _ in CLIPS[:2]:
        video = clip_frames(test_data / "ucf101" / "videos" / name, 2)
        small = [np.asarray(cv2.resize(x, (160, 120)), np.uint8) for x in video]
        # Whatever `stop` says.
        ours, expected = on(), native(stop="exact")
        ours(*small)
        expected(*small)
        counts = [np.array(x.num_iterations) for x in (ours, expected)]
        assert counts[0].shape == counts[1].shape == (5, 5)
        num_equal += int((counts[0] == counts[1]).sum())
        num_warps += counts[0].size
    # A stop that hangs on rounding also moves those behind it.
    assert num_equal >= 0.8 * num_warps


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "denseflow": CUDA_SET,
    "half size": {"scale_step": 0.5},
    "odd step": {"scale_step": 0.7},
    "one level": {"nscales": 1},
    "median 3": {"median_filtering": 3},
    "no median": {"median_filtering": 1},
    "few iterations": {"inner_iterations": 1, "outer_iterations": 3},
    "smooth": {"lambda_": 0.05},
    "loose": {"theta": 0.2, "tau": 0.2},
    "one warp": {"warps": 1},
    "early stop": {"epsilon": 0.03},
}


@devices
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_means_what_it_does_natively(variant: str, device: str) -> None:
    pair = frames(moving(64, 48))
    expected = native(**VARIANTS[variant], stop="exact")(*pair)
    assert endpoint_error(on(device, **VARIANTS[variant])(*pair), expected).mean() < 0.01


@devices
@pytest.mark.parametrize("median_filtering", [1, 3, 5])
@pytest.mark.parametrize(
    ("width", "height"), [(16, 16), (17, 16), (16, 17), (33, 47), (200, 16), (341, 255)]
)
def test_one_warp_differs_by_rounding_alone(
    width: int, height: int, median_filtering: int, device: str
) -> None:
    pair = frames(moving(width, height))
    parameters = {**ONE_WARP, "median_filtering": median_filtering}
    np.testing.assert_allclose(
        on(device, **parameters)(*pair), native(**parameters)(*pair), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (40, 23)])
def test_medians_are_exact(side: int, height: int, width: int) -> None:
    rng = np.random.default_rng(side)
    planes = rng.standard_normal((2, 2, height, width), np.float32)
    planes[1] = rng.integers(-1, 2, planes[1].shape)  # many are equal
    found = median_filter(torch.from_numpy(planes), side).numpy()
    expected = [[cv2.medianBlur(plane, side) for plane in field] for field in planes]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(17, 16), (255, 341), (480, 641)])
@pytest.mark.parametrize("factor", [0.3, 0.5, 0.7, 0.8, 0.95])
def test_images_are_resized_as_by_opencv(height: int, width: int, factor: float) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (height, width)).astype(np.float32)
    smaller = np.asarray(cv2.resize(image, None, fx=factor, fy=factor), np.float32)
    shrink = Resize(image.shape, smaller.shape, CPU, factor)
    np.testing.assert_allclose(shrink(torch.from_numpy(image)), smaller, rtol=0, atol=1e-4)
    enlarge = Resize(smaller.shape, image.shape, CPU)
    larger = cv2.resize(smaller, (width, height))
    np.testing.assert_allclose(enlarge(torch.from_numpy(smaller)), larger, rtol=0, atol=1e-4)


@pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5,
    reason="before OpenCV 5, cv2.remap rounds positions to 1/32 px",
)
def test_frames_are_warped_as_by_opencv_wherever_the_flow_points() -> None:
    height, width = 30, 41
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (3, height, width)).astype(np.float32)
    flow = rng.uniform(-60, 60, (4, 2, height, width)).astype(np.float32)
    flow[0] = 0
    flow[1] = np.rint(flow[1] / 10)
    flow[2] *= 1e6
    frame = [2, 0, 1, 1]
    found = read_at(
        pack_frames(torch.from_numpy(images)), torch.from_numpy(flow), torch.tensor(frame)
    )
    y, x = np.indices((height, width), np.float32)
    for number, of_frame in enumerate(frame):
        image = images[of_frame]
        padded = np.pad(image, 1, mode="edge")
        planes = (
            image,
            (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2,
            (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2,
        )
        u, v = np.clip(flow[number], -1000, 1000)
        for plane, warped in zip(planes, found[number], strict=True):
            expected = cv2.remap(plane, x + u, y + v, cv2.INTER_CUBIC)
            np.testing.assert_allclose(warped, expected, rtol=0, atol=2e-3)


# ---- the truth


@devices
@pytest.mark.parametrize("velocity_px", [(2.3, -1.4), (-4.0, 2.5), (0.0, 0.4)])
def test_a_translation_is_found_both_ways(velocity_px: tuple[float, float], device: str) -> None:
    scene = moving(96, 64, velocity_px)
    (pair,) = on(device).pairs(frames(scene))
    assert pair.forward is not None
    assert pair.backward is not None
    assert endpoint_error(pair.forward, scene.flow(0))[scene.valid(0)].mean() < 0.15
    backward = endpoint_error(pair.backward, scene.backward_flow(0))
    assert backward[scene.valid(1, -1)].mean() < 0.15


def changed(pair: list[Gray], change: Callable[[Gray], Gray]) -> list[Gray]:
    return [np.ascontiguousarray(change(frame)) for frame in pair]


@pytest.mark.parametrize(("width", "height"), [(80, 64), (65, 47)])
def test_mirrored_frames_have_mirrored_flow(width: int, height: int) -> None:
    pair = frames(moving(width, height))
    estimator = on()
    flow = estimator(*pair)
    left_right = estimator(*changed(pair, np.fliplr))[:, ::-1] * np.float32([-1, 1])
    up_down = estimator(*changed(pair, np.flipud))[::-1] * np.float32([1, -1])
    # Divergences look to one side only, and the pyramid's pixels do not lie in the middle.
    assert endpoint_error(left_right, flow).mean() < 0.06
    assert endpoint_error(up_down, flow).mean() < 0.06


def test_transposed_frames_have_transposed_flow() -> None:
    pair = frames(moving(80, 64))

    def transposed(**parameters: Any) -> Flow:
        flow = on(**parameters)(*changed(pair, np.transpose))
        return flow.transpose(1, 0, 2)[:, :, ::-1]

    np.testing.assert_allclose(transposed(**ONE_WARP), on(**ONE_WARP)(*pair), rtol=0, atol=1e-4)
    assert endpoint_error(transposed(), on()(*pair)).mean() < 0.03


@devices
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_constant_frames_do_not_move_at_all(value: int, device: str) -> None:
    for width, height in ((16, 16), (50, 33), (97, 64)):
        frame = np.full((height, width), value, np.uint8)
        np.testing.assert_array_equal(on(device)(frame, frame), 0)
        np.testing.assert_array_equal(on(device)(np.zeros_like(frame), frame), 0)


NOISE = np.random.default_rng(0).integers(0, 256, (2, 40, 56), dtype=np.uint8)
BOARD = np.asarray(np.indices((40, 56)).sum(axis=0) % 2 * 255, np.uint8)


@pytest.mark.parametrize("median_filtering", [1, 3, 5])
@pytest.mark.parametrize("pair", [NOISE, (BOARD, 255 - BOARD), (BOARD, NOISE[0])])
def test_frames_that_do_not_belong_together_give_plausible_flow(
    pair: tuple[Gray, Gray], median_filtering: int
) -> None:
    flow = on(median_filtering=median_filtering)(*pair)
    assert np.isfinite(flow).all()
    assert np.abs(flow).max() <= 3 * 56


@pytest.mark.parametrize("parameters", [{"tau": 1e30}, {"lambda_": 1e30}, {"theta": 1e-30}])
def test_outlandish_parameters_end(parameters: dict[str, float]) -> None:
    estimator = on(**parameters)
    estimator(*frames(moving(40, 30)))
    assert max(map(max, estimator.num_iterations)) <= 300


def test_what_is_no_number_points_nowhere() -> None:
    flow = torch.full((1, 2, 20, 30), float("nan"))
    flow[:, :, 5, 7] = 0
    images = torch.rand(2, 20, 30)
    found = read_at(pack_frames(images), flow, torch.tensor([1]))
    assert found[0, 0, 5, 7] == images[1, 5, 7]
    assert found.isnan().sum() == 3 * (20 * 30 - 1)


# ---- fields that stop


def drawn_warp(num_fields: int, height: int = 24, width: int = 33) -> list[torch.Tensor]:
    """The inputs of `solve_warp` for fields of which each stops elsewhere."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, height, width, generator=generator) * 2 - 1

    strength = torch.linspace(0, 1, num_fields).view(-1, 1, 1, 1)
    u, p = draw(num_fields, 2), draw(num_fields, 4) * 0.1
    p[:, ::2, :, -1] = 0  # as from a start of 0
    p[:, 1::2, -1] = 0
    return [
        u * strength,
        p * strength,
        draw(num_fields, 2) * 20 * strength,
        draw(num_fields) * 30,
    ]


class Blind:
    """Sees no end, as a device whose answers take for ever."""

    def sees_end(self, active: torch.Tensor, ends_round: bool) -> bool:
        return False


@pytest.mark.parametrize("median_filtering", [1, 5])
def test_a_field_that_has_stopped_does_not_change(median_filtering: int) -> None:
    parameters = TVL1Parameters(
        epsilon=0.02, inner_iterations=9, outer_iterations=8, median_filtering=median_filtering
    )
    num_fields = 6
    counts = [torch.full((num_fields,), -1, dtype=torch.int32) for _ in range(2)]
    one_by_one, together = drawn_warp(num_fields), drawn_warp(num_fields)
    solve_warp(*one_by_one, parameters, counts[0])
    tvl1_torch._iterate(*together, parameters, counts[1], Blind())
    for one, other in zip(one_by_one, together, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert counts[0].tolist() == counts[1].tolist()
    # Some stop early, and some never.
    assert min(counts[0]) < 9
    assert max(counts[0]) > 18


@pytest.mark.parametrize(("kind", "interval"), [("delayed", 4), ("by round", 9)])
@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_whoever_looks_now_and_then_ends_soon_after(
    kind: str, interval: int, epsilon: float
) -> None:
    watch: Any = tvl1_torch._Delayed(CPU) if kind == "delayed" else tvl1_torch._ByRound()
    num_looks = 0

    class Counted:
        def sees_end(self, active: torch.Tensor, ends_round: bool) -> bool:
            nonlocal num_looks
            num_looks += 1
            return bool(watch.sees_end(active, ends_round))

    parameters = TVL1Parameters(
        epsilon=epsilon, inner_iterations=9, outer_iterations=40, median_filtering=1
    )
    counts = [torch.zeros(6, dtype=torch.int32) for _ in range(2)]
    expected, found = drawn_warp(6), drawn_warp(6)
    solve_warp(*expected, parameters, counts[0])
    tvl1_torch._iterate(*found, parameters, counts[1], Counted())
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert counts[0].tolist() == counts[1].tolist()
    # At the next look after the last field has stopped.
    assert num_looks == math.ceil(int(counts[0].max()) / interval) * interval


def test_the_host_stays_a_few_looks_ahead_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most_under_way = 0

    class Counted(Arrival):
        def __init__(self, device: torch.device) -> None:
            nonlocal under_way, most_under_way
            super().__init__(device)
            under_way += 1
            most_under_way = max(most_under_way, under_way)

        def wait(self) -> None:
            nonlocal under_way
            under_way -= 1

    monkeypatch.setattr(tvl1_torch, "Arrival", Counted)
    parameters = TVL1Parameters(epsilon=1e-9, median_filtering=1)
    count = torch.zeros(2, dtype=torch.int32)
    tvl1_torch._iterate(*drawn_warp(2), parameters, count, tvl1_torch._Delayed(CPU))
    assert most_under_way == tvl1_torch.MAX_POLLS_UNDER_WAY + 1


def test_the_threshold_is_that_of_the_paper() -> None:
    # Equation 12, and no step where the squared gradient is below FLT_EPSILON.
    slopes = [0.0, 1e-4, 1e-3, 0.02, 0.5, 8.0]
    gradient, residual = (
        torch.zeros(len(slopes), 2, 16, 16),
        torch.full((len(slopes), 16, 16), 1e-5),
    )
    gradient[:, 1] = torch.tensor(slopes).view(-1, 1, 1)
    u, p = torch.zeros(len(slopes), 2, 16, 16), torch.zeros(len(slopes), 4, 16, 16)
    parameters = TVL1Parameters(inner_iterations=1, outer_iterations=1, median_filtering=1)
    solve_warp(u, p, gradient, residual, parameters, torch.zeros(len(slopes), dtype=torch.int32))
    for slope, flow in zip(slopes, u, strict=True):
        step = min(1e-5 / max(slope**2, 2**-23), 0.15 * 0.3) * slope
        torch.testing.assert_close(flow[1], torch.full((16, 16), -step), rtol=1e-5, atol=1e-9)
        assert not flow[0].any()


def test_iterations_end_at_their_number() -> None:
    inputs = drawn_warp(4)
    count = torch.zeros(4, dtype=torch.int32)
    parameters = TVL1Parameters(epsilon=1e-9, inner_iterations=3, outer_iterations=2)
    solve_warp(*inputs, parameters, count)
    # The first has nothing that moves it.
    assert count.tolist() == [1, 6, 6, 6]


# ---- batches

VIDEO = frames(moving(50, 40), 9)
QUICK: dict[str, Any] = {"nscales": 2, "warps": 2, "epsilon": 0.03}
OTHER_VIDEO = frames(moving(64, 18, (0.5, 0.9), 5), 6)


def same_pairs(found: list[FlowPair], expected: list[FlowPair], atol: float = 1e-6) -> None:
    assert [pair.index for pair in found] == [pair.index for pair in expected]
    for one, other in zip(found, expected, strict=True):
        for direction in DIRECTIONS:
            field, wanted = getattr(one, direction), getattr(other, direction)
            assert (field is None) == (wanted is None)
            if field is not None:
                assert field.dtype == np.float32
                np.testing.assert_allclose(field, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("batch_pairs", [None, 1, 3, 8])
def test_batches_of_any_size_give_the_single_calls(batch_pairs: int | None, step: int) -> None:
    estimator = on(**QUICK)
    expected = [
        FlowPair(t, estimator(VIDEO[t], VIDEO[t + step]), estimator(VIDEO[t + step], VIDEO[t]))
        for t in range(len(VIDEO) - step)
    ]
    same_pairs(list(on(batch_pairs=batch_pairs, **QUICK).pairs(iter(VIDEO), step=step)), expected)


@pytest.mark.parametrize("directions", [("forward",), ("backward",), DIRECTIONS[::-1], ()])
def test_only_the_directions_that_are_asked_for_are_computed(
    directions: tuple[Direction, ...],
) -> None:
    expected = [
        FlowPair(
            pair.index,
            pair.forward if "forward" in directions else None,
            pair.backward if "backward" in directions else None,
        )
        for pair in on(**QUICK).pairs(VIDEO[:4])
    ]
    same_pairs(list(on(batch_pairs=2, **QUICK).pairs(VIDEO[:4], directions=directions)), expected)


@pytest.mark.parametrize(("num_frames", "step"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_too_few_frames_give_no_pair(num_frames: int, step: int) -> None:
    assert list(on(batch_pairs=4).pairs(VIDEO[:num_frames], step=step)) == []


def test_sizes_may_change_from_video_to_video() -> None:
    shared = on(batch_pairs=2, **QUICK)
    for video in (VIDEO[:4], OTHER_VIDEO[:4], VIDEO[:4]):
        same_pairs(list(shared.pairs(video)), list(on(**QUICK).pairs(video)), atol=0)
    streams = list(zip(shared.pairs(VIDEO[:6]), shared.pairs(OTHER_VIDEO), strict=True))
    for found, video in zip(zip(*streams, strict=True), (VIDEO[:6], OTHER_VIDEO), strict=True):
        same_pairs(list(found), list(on(**QUICK).pairs(video)), atol=0)


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of one size, \(40, 50\), got \(18, 64\)"):
        on()(VIDEO[0], OTHER_VIDEO[0])


def test_frames_may_lie_in_memory_as_they_like() -> None:
    first, second = VIDEO[:2]
    every_second = [np.repeat(frame, 2, axis=1)[:, ::2] for frame in (first, second)]
    for frame in every_second:
        frame.flags.writeable = False
    np.testing.assert_array_equal(on()(*every_second), on()(first, second))


def test_each_frame_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []
    original = TVL1Torch._prepare

    def counted(self: TVL1Torch, plan: Any, images: torch.Tensor) -> list[torch.Tensor]:
        prepared.append(len(images))
        return original(self, plan, images)

    monkeypatch.setattr(TVL1Torch, "_prepare", counted)
    assert len(list(on(batch_pairs=3, **QUICK).pairs(VIDEO, step=2))) == 7
    assert prepared == [5, 3, 1]


def test_a_pair_is_there_as_soon_as_its_batch_is() -> None:
    taken = 0

    def stream() -> Iterator[Gray]:
        nonlocal taken
        for frame in VIDEO:
            taken += 1
            yield frame

    pairs = on(batch_pairs=2, **QUICK).pairs(stream())
    assert next(pairs).index == 0
    assert taken == 3


def test_a_batch_is_as_large_as_the_device_likes() -> None:
    assert on()._batch_limit((240, 320), 2) == 1
    assert on(batch_pairs=7)._batch_limit((240, 320), 2) == 7


# ---- memory


class SmallMemory:
    """Solves as `solve_warp` does, on a device with memory for some fields only."""

    def __init__(self, max_fields: int) -> None:
        self.max_fields = max_fields
        self.num_fields: list[int] = []

    def __call__(self, u: torch.Tensor, *others: Any) -> None:
        if len(u) > self.max_fields:
            raise torch.cuda.OutOfMemoryError(f"tried to allocate {u.nbytes} bytes")
        self.num_fields.append(len(u))
        solve_warp(u, *others)


@pytest.mark.parametrize(("max_fields", "sizes"), [(7, [4, 4, 4, 4]), (2, [2] * 8), (16, [16])])
def test_memory_that_does_not_suffice_halves_the_batch(max_fields: int, sizes: list[int]) -> None:
    parameters = ONE_WARP
    memory = SmallMemory(max_fields)
    estimator = TVL1Torch(TVL1Parameters(**parameters), batch_pairs=8, warp_solver=memory)
    expected = list(on(**parameters).pairs(VIDEO))
    same_pairs(list(estimator.pairs(VIDEO)), expected)
    assert memory.num_fields == sizes
    # The next video does not try again what did not go.
    same_pairs(list(estimator.pairs(VIDEO)), expected)
    assert memory.num_fields == 2 * sizes


def test_memory_may_run_out_in_the_middle_of_a_video() -> None:
    parameters = ONE_WARP
    memory = SmallMemory(6)
    estimator = TVL1Torch(TVL1Parameters(**parameters), batch_pairs=3, warp_solver=memory)
    found = []
    for pair in estimator.pairs(VIDEO, step=2):
        found.append(pair)
        memory.max_fields = 3
    same_pairs(found, list(on(**parameters).pairs(VIDEO, step=2)))
    assert memory.num_fields == [6, 2, 2, 2, 2]


def test_a_pair_that_does_not_fit_is_an_error_that_says_so() -> None:
    estimator = TVL1Torch(TVL1Parameters(), batch_pairs=4, warp_solver=SmallMemory(1))
    with pytest.raises(
        VideoError, match=r"cpu must have memory for one pair .* 50x40 px"
    ) as raised:
        list(estimator.pairs(VIDEO))
    assert raised.value.reason == "out-of-memory"
    # In one direction it does.
    assert len(list(estimator.pairs(VIDEO[:3], directions=["forward"]))) == 2


def test_other_errors_are_not_taken_for_it() -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("launch failed")

    estimator = TVL1Torch(TVL1Parameters(), batch_pairs=4, warp_solver=broken)
    with pytest.raises(RuntimeError, match="launch failed"):
        list(estimator.pairs(VIDEO))


@pytest.mark.parametrize("device", ["cuda:99", "no-such-device"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device must be .* got '{device}'"):
        on(device)


def test_a_batch_has_at_least_one_pair() -> None:
    with pytest.raises(ConfigError, match="batch_pairs must be >= 1, got 0"):
        on(batch_pairs=0)


def test_only_an_estimator_on_a_device_imports_torch() -> None:
    script = "import sys, flowprep, flowprep.flow; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


# ---- GPUs


@needs_cuda
@pytest.mark.parametrize("parameters", [{}, CUDA_SET])
def test_nothing_waits_for_the_device_inside_a_batch(parameters: dict[str, Any]) -> None:
    expected = list(native(**parameters, stop="exact").pairs(VIDEO))
    estimator = on("cuda", 3, **parameters)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(estimator.pairs(VIDEO))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        assert one.forward is not None
        assert other.forward is not None
        assert endpoint_error(one.forward, other.forward).mean() < 0.01


@needs_cuda
def test_on_a_gpu_a_batch_is_launched_before_the_one_before_it_is_read() -> None:
    taken = 0

    def stream() -> Iterator[Gray]:
        nonlocal taken
        for frame in VIDEO:
            taken += 1
            yield frame

    pairs = on("cuda", 2).pairs(stream())
    assert next(pairs).index == 0
    assert taken == 5
    assert [pair.index for pair in pairs] == list(range(1, 8))


@needs_cuda
def test_iterations_end_soon_after_the_last_field_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    original = tvl1_torch._Delayed.sees_end

    def counted(self: Any, active: torch.Tensor, ends_round: bool) -> bool:
        nonlocal looks
        looks += 1
        return original(self, active, ends_round)

    monkeypatch.setattr(tvl1_torch._Delayed, "sees_end", counted)
    estimator = on("cuda", **{**CUDA_SET, "nscales": 1, "warps": 1})
    estimator(*VIDEO[:2])
    ((count,),) = estimator.num_iterations
    assert count <= looks < count + 12


@needs_cuda
def test_a_batch_on_a_gpu_is_a_large_one() -> None:
    free, _ = torch.cuda.mem_get_info()
    limit = on("cuda")._batch_limit((256, 340), 2)
    assert 1 <= limit <= math.ceil(TVL1Torch.batch_pixels / (256 * 340 * 2))
    assert limit * 256 * 340 * 2 * TVL1Torch.bytes_per_pixel <= free
