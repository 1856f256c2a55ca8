"""TV-L1's CUDA kernels: the numbers of a plain reference, whatever the tiles and the order.

Without a GPU the kernels run on the CPU, by `cuda_on_cpu.h`, launched by the code that launches
them on a GPU (tests/flow/simulator.py).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_size_t, c_void_p
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprep.config import FlowSpec
from flowprep.dataset.quantize import quantize
from flowprep.flow import create_estimator
from flowprep.flow.nvrtc import compile_source
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.pyramid_torch import Resize
from flowprep.flow.tvl1 import TVL1
from flowprep.flow.tvl1_cuda import (
    MAX_SLOTS,
    MAX_THREADS,
    PATCH,
    SOURCE,
    EnlargeArguments,
    Kernels,
    LinearizeArguments,
    SolveArguments,
    TVL1Cuda,
    make_tiling,
    padded_width,
    shared_bytes,
    solve_warp,
)
from flowprep.flow.tvl1_torch import linearize
from flowprep.flow.warp_torch import pack_frames
from flowprep.synthetic import Layer, Motion, Scene
from tests.flow.simulator import build, installed_nvrtc, simulated

Array = NDArray[np.float32]
MARGIN = 64
"""Numbers before and behind each tensor that a kernel gets; they are NaN and stay so."""


# ---- a plain reference


@dataclasses.dataclass
class Warp:
    """What a warp begins with, of B fields, and in `solve`'s place what it ends with."""

    flow: Array
    dual: Array
    gradient: Array
    residual: Array

    @property
    def num_fields(self) -> int:
        return len(self.flow)

    def field(self, number: int) -> Warp:
        parts = (getattr(self, x.name)[number : number + 1] for x in dataclasses.fields(self))
        return Warp(*(part.copy() for part in parts))


def random_warp(num_fields: int, height: int, width: int, seed: int = 0) -> Warp:
    """A warp like those in the middle of a level: of smooth and of rough parts, flat ones as well.

    Later fields have less to do than earlier ones.
    """
    random = np.random.default_rng(seed)

    def smooth(*shape: int) -> Array:
        noise = random.normal(size=(*shape, height, width)).astype(np.float32)
        planes = noise.reshape(-1, height, width)
        return np.stack([cv2.GaussianBlur(x, (0, 0), 2) for x in planes]).reshape(noise.shape)

    strength = np.float32(0.5) ** np.arange(num_fields, dtype=np.float32).reshape(-1, 1, 1, 1)
    gradient = 40 * smooth(num_fields, 2)
    gradient[:, :, : height // 3, : width // 3] = 0
    dual = 0.3 * strength * random.normal(size=(num_fields, 4, height, width)).astype(np.float32)
    # As it always is, because p moves along the slope.
    dual[:, [0, 2], :, -1] = 0
    dual[:, [1, 3], -1] = 0
    flow = 4 * strength * smooth(num_fields, 2)
    residual = 30 * strength[:, 0] * smooth(num_fields) - (gradient * flow).sum(axis=1)
    return Warp(flow, np.asarray(dual, np.float32), gradient, np.asarray(residual, np.float32))


def next_batch(errors: list[float], stop_error: float, stop: str) -> int:
    """How many iterations are run at once after those of a round with these errors."""
    if stop == "exact":
        return 1
    if not errors:
        return 3
    batch = 4.0
    if len(errors) > 1:
        span = min(3, len(errors) - 1)
        decay = max(math.log(errors[-1 - span] / errors[-1]) / span, 0.005)
        batch = 1 + min(math.log(errors[-1] / stop_error) / decay / 2, 3)
    return int(batch)


def reference_warp(warp: Warp, p: TVL1Parameters) -> tuple[list[int], list[list[float]]]:
    """Solves the fields of a warp in place, step by step as OpenCV's procOneScale.

    Returns the iterations of each field, and after each of these the ratio of the error to that
    which stops it.
    """
    counts, ratios = [], []
    for number in range(warp.num_fields):
        gradient, residual = warp.gradient[number], warp.residual[number]
        flow = warp.flow[number].astype(np.float64)
        dual = warp.dual[number].astype(np.float64).reshape(2, 2, *residual.shape)
        squared_norm = np.maximum((gradient.astype(np.float64) ** 2).sum(axis=0), 1.1920929e-07)
        stop_error = p.epsilon**2 * residual.size
        limit = p.lambda_ * p.theta
        error = math.inf
        ratios.append([])
        for _ in range(p.outer_iterations):
            if error <= stop_error:
                break
            if p.median_filtering > 1:
                flow = np.stack(
                    [cv2.medianBlur(u.astype(np.float32), p.median_filtering) for u in flow]
                )
                flow = flow.astype(np.float64)
            errors: list[float] = []
            while len(errors) < p.inner_iterations and error > stop_error:
                batch = next_batch(errors, stop_error, p.stop)
                for _ in range(min(batch, p.inner_iterations - len(errors))):
                    rho = residual + (gradient * flow).sum(axis=0)
                    shift = np.clip(-rho / squared_norm, -limit, limit)
                    divergence = dual[:, 0] + dual[:, 1]
                    divergence[:, :, 1:] -= dual[:, 0, :, :-1]
                    divergence[:, 1:] -= dual[:, 1, :-1]
                    change = shift * gradient + p.theta * divergence
                    flow = flow + change
                    slope = np.zeros_like(dual)
                    slope[:, 0, :, :-1] = flow[:, :, 1:] - flow[:, :, :-1]
                    slope[:, 1, :-1] = flow[:, 1:] - flow[:, :-1]
                    slope *= p.tau / p.theta
                    dual = (dual + slope) / (1 + np.sqrt((slope**2).sum(axis=1, keepdims=True)))
                    error = float((change**2).sum())
                    errors.append(error)
            ratios[-1] += [x / stop_error for x in errors]
        counts.append(len(ratios[-1]))
        warp.flow[number] = flow
        warp.dual[number] = dual.reshape(4, *residual.shape)
    return counts, ratios


# ---- running the kernels on arrays


class Memory:
    """Tensors on the CPU with NaN around them: what reads or writes there is seen."""

    def __init__(self) -> None:
        self._all: list[tuple[Tensor, int]] = []

    def place(self, array: Array, width: int) -> Tensor:
        """Copies an array into rows of `padded_width`; what is left of the pixels is NaN."""
        num_pads = padded_width(width) - width
        padded = np.pad(
            array, [(0, 0)] * (array.ndim - 1) + [(num_pads, 0)], constant_values=np.nan
        )
        memory = torch.full((padded.size + 2 * MARGIN,), math.nan)
        self._all.append((memory, padded.size))
        inside = memory[MARGIN : MARGIN + padded.size].view(padded.shape)
        inside.copy_(torch.from_numpy(padded))
        return inside

    def check(self) -> None:
        for memory, size in self._all:
            assert memory[:MARGIN].isnan().all()
            assert memory[MARGIN + size :].isnan().all()


def run(kernels: Kernels, warp: Warp, p: TVL1Parameters) -> tuple[Warp, list[int]]:
    """Solves a warp by the kernels, and returns the result and the iterations of each field."""
    width = warp.flow.shape[3]
    memory = Memory()
    tensors = [memory.place(getattr(warp, x.name), width) for x in dataclasses.fields(warp)]
    counts = torch.full((warp.num_fields,), -1, dtype=torch.int32)
    kernels.solve(*tensors, width, p, counts)
    memory.check()
    arrays = (np.array(x.numpy()[..., -width:]) for x in tensors)
    result = Warp(*arrays)
    np.testing.assert_array_equal(result.gradient, warp.gradient)
    np.testing.assert_array_equal(result.residual, warp.residual)
    return result, counts.tolist()


def assert_is_reference(kernels: Kernels, warp: Warp, p: TVL1Parameters) -> list[int]:
    result, counts = run(kernels, warp, p)
    expected = Warp(warp.flow.copy(), warp.dual.copy(), warp.gradient, warp.residual)
    expected_counts, ratios = reference_warp(expected, p)
    # Or else rounding could decide where a field stops.
    assert all(abs(math.log(x)) > 1e-4 for field in ratios for x in field)
    assert counts == expected_counts
    # What single precision leaves of a flow of up to 10 px.
    np.testing.assert_allclose(result.flow, expected.flow, rtol=0, atol=3e-5)
    np.testing.assert_allclose(result.dual, expected.dual, rtol=0, atol=3e-5)
    return counts


def assert_same(one: tuple[Warp, list[int]], other: tuple[Warp, list[int]]) -> None:
    np.testing.assert_array_equal(one[0].flow, other[0].flow)
    np.testing.assert_array_equal(one[0].dual, other[0].dual)
    assert one[1] == other[1]


FIXED = TVL1Parameters(epsilon=1e-6, outer_iterations=2, inner_iterations=5)
"""A number of iterations that does not depend on rounding; batches of 3 and 2."""
# Every remainder by 4, alone and beside a full patch more; one tile, and several in either
# direction.
SIZES = (
    *((16 + k, 16 + (k + 1) % 4) for k in range(4)),
    *((19 - k, 60 + k) for k in range(4)),
    (53, 52),
    (57, 66),
    (16, 130),
    (131, 17),
    (90, 101),
    (87, 88),
)


@pytest.mark.parametrize("median_filtering", [1, 3, 5])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_warp_is_that_of_the_reference(
    library: ctypes.CDLL, height: int, width: int, median_filtering: int
) -> None:
    p = dataclasses.replace(FIXED, median_filtering=median_filtering)
    counts = assert_is_reference(simulated(library, 24), random_warp(1, height, width), p)
    assert counts == [10]


# ---- where fields stop, and what else must not matter

STOPS = {
    # Within a round, in the first passes or after many.
    "first-round": (TVL1Parameters(epsilon=0.05), 5),
    # After a median filter or two; rounds of 3 and 3, and of 3, 3 and 1 iterations.
    "later-round": (TVL1Parameters(epsilon=0.03, inner_iterations=7), 4),
    "no-median": (TVL1Parameters(epsilon=0.03, inner_iterations=6, median_filtering=1), 4),
    # Not before the end.
    "never": (TVL1Parameters(epsilon=1e-3, inner_iterations=4, outer_iterations=3), 1),
}


@pytest.mark.parametrize("stop", ["predicted", "exact"])
@pytest.mark.parametrize("case", STOPS)
def test_each_field_stops_where_the_reference_does(
    library: ctypes.CDLL, case: str, stop: Any
) -> None:
    p, num_fields = STOPS[case]
    p = dataclasses.replace(p, stop=stop)
    # Two groups of four blocks each: they take fields in turns.
    assert make_tiling(90, 90).group(num_fields, 9) == (min(num_fields, 2), 4)
    counts = assert_is_reference(simulated(library, 9), random_warp(num_fields, 90, 90), p)
    assert len(set(counts)) >= min(num_fields, 3)


def test_a_field_does_not_depend_on_its_batch_nor_on_the_gpu(library: ctypes.CDLL) -> None:
    p = TVL1Parameters(epsilon=0.04, inner_iterations=8)
    warp = random_warp(4, 89, 90, seed=1)
    num_tiles = make_tiling(89, 90).num_tiles
    assert num_tiles == 4
    result, counts = run(simulated(library, 4 * num_tiles), warp, p)
    assert len(set(counts)) > 1
    for number in range(4):
        alone = run(simulated(library, num_tiles), warp.field(number), p)
        assert_same(alone, (result.field(number), counts[number : number + 1]))
    # Down to GPUs that cannot run a field's tiles at once: each block does several of them.
    for num_blocks in (num_tiles + 1, num_tiles - 1, 2, 1):
        assert_same(run(simulated(library, num_blocks), warp, p), (result, counts))


def test_the_order_of_the_threads_does_not_matter(library: ctypes.CDLL) -> None:
    p = TVL1Parameters(epsilon=0.04, inner_iterations=8)
    warp = random_warp(3, 87, 88, seed=2)
    expected = run(simulated(library, 8), warp, p)
    for seed in range(1, 4):
        assert_same(run(simulated(library, 8, seed), warp, p), expected)
        assert_same(run(simulated(library, 3, seed), warp, p), expected)


MUTANTS = {
    "no barrier between the flow and p": (
        "place.is_owned ? error : 0.0f;\n        __syncthreads();",
        "place.is_owned ? error : 0.0f;",
    ),
    "no barrier between p and the flow": (
        "publish_dual(patch, s, place.slot, slot_below);\n        }\n        __syncthreads();",
        "publish_dual(patch, s, place.slot, slot_below);\n        }",
    ),
    "a halo that is not renewed": ("from_left = column - (tile_x > 0)", "from_left = column"),
    "no wait for the other blocks": ("(arrivals) < expected) {", "(arrivals) < 1) {"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_kernel_is_noticed(name: str, tmp_path: Path) -> None:
    text = SOURCE.read_text()
    before, after = MUTANTS[name]
    assert text.count(before) == 1
    (tmp_path / "mutant.cu").write_text(text.replace(before, after))
    library = build(tmp_path / "mutant.cu", tmp_path)
    p = TVL1Parameters(epsilon=0.04, inner_iterations=8)
    warp = random_warp(3, 87, 88, seed=2)
    expected = Warp(warp.flow.copy(), warp.dual.copy(), warp.gradient, warp.residual)
    reference_warp(expected, p)

    def is_noticed(seed: int) -> bool:
        try:
            result, _ = run(simulated(library, 8, seed), warp, p)
            np.testing.assert_allclose(result.flow, expected.flow, rtol=0, atol=3e-5)
        except (AssertionError, RuntimeError):
            return True
        return False

    assert any(map(is_noticed, range(5)))


def test_a_barrier_that_some_threads_miss_is_noticed(tmp_path: Path) -> None:
    text = SOURCE.read_text()
    before = (
        "if (place.is_live) publish_dual(patch, s, place.slot, slot_below);\n    __syncthreads();"
    )
    assert text.count(before) == 1
    after = before.replace("__syncthreads", "if (place.is_live) __syncthreads")
    (tmp_path / "mutant.cu").write_text(text.replace(before, after))
    library = build(tmp_path / "mutant.cu", tmp_path)
    with pytest.raises(RuntimeError, match=r"all threads wait|barrier|wait without end"):
        run(simulated(library, 8), random_warp(1, 87, 88), FIXED)


# ---- memory


def guarded(library: ctypes.CDLL, array: Array, at_end: bool) -> Tensor:
    """Copies an array to where one more number, before or behind it, ends the process."""
    library.guarded_memory.restype = c_void_p
    size = array.nbytes
    address = library.guarded_memory(c_size_t(size), int(at_end))
    memory = (ctypes.c_char * size).from_address(address)
    tensor = torch.frombuffer(memory, dtype=torch.from_numpy(array).dtype).view(array.shape)
    return tensor.copy_(torch.from_numpy(array))


def run_guarded(library_path: str) -> None:
    """Runs all kernels on memory with guards; called in a process of its own."""
    library = ctypes.CDLL(library_path)
    for height, width, num_blocks in ((16, 16, 2), (87, 90, 8), (87, 90, 3)):
        kernels = simulated(library, num_blocks)
        warp = random_warp(2, height, width)
        width_px, num_pads = padded_width(width), padded_width(width) - width
        for at_end in (False, True):
            tensors = [
                guarded(
                    library,
                    np.pad(part, [(0, 0)] * (part.ndim - 1) + [(num_pads, 0)]),
                    at_end,
                )
                for part in (warp.flow, warp.dual, warp.gradient, warp.residual)
            ]
            counts = guarded(library, np.zeros(2, np.int32), at_end)
            # What `solve` allocates too.
            original = torch.empty, torch.zeros
            place = functools.partial(guarded, library, at_end=at_end)
            torch.empty = lambda n, place=place, **_: place(np.full(n, np.nan, np.float32))
            torch.zeros = lambda n, place=place, **_: place(np.zeros(n, np.int32))
            try:
                kernels.solve(*tensors, width, FIXED, counts)
            finally:
                torch.empty, torch.zeros = original
            images = guarded(library, np.ones((3, height, width), np.float32), at_end)
            numbers = [guarded(library, np.array(x), at_end) for x in ([0, 1], [1, 2])]
            tensors[0] *= 100  # far outside
            kernels.linearize(images, *numbers, tensors[0], *tensors[2:])
            fine = guarded(library, np.zeros((2, 2, height + 9, width_px + 12), np.float32), at_end)
            kernels.enlarge(tensors[0], width, fine, width_px + 9, 1.25)
    print("inside")


def test_nothing_outside_its_memory_is_touched(library: ctypes.CDLL) -> None:
    script = f"from tests.flow.test_tvl1_cuda import run_guarded; run_guarded({library._name!r})"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout.strip()) == (0, "inside"), result.stderr


def test_structures_and_constants_are_those_of_the_source(library: ctypes.CDLL) -> None:
    for name, kind in (
        ("solve", SolveArguments),
        ("linearize", LinearizeArguments),
        ("enlarge", EnlargeArguments),
    ):
        function = getattr(library, f"{name}_argument_bytes")
        function.restype = c_size_t
        assert function() == ctypes.sizeof(kind)
    text = SOURCE.read_text()
    for name, value in (("PATCH", PATCH), ("MAX_THREADS", MAX_THREADS)):
        assert f"constexpr int {name} = {value};" in text


def test_a_tensor_that_a_kernel_would_read_wrongly_is_refused(library: ctypes.CDLL) -> None:
    kernels = simulated(library)
    flow, dual = torch.zeros(1, 2, 16, 16), torch.zeros(1, 4, 16, 16)
    rest = torch.zeros(1, 2, 16, 16), torch.zeros(1, 16, 16)
    counts = torch.zeros(1, dtype=torch.int32)
    wrong: list[Callable[[], Tensor]] = [
        lambda: dual.double(),
        lambda: dual[:, :3],
        lambda: dual.transpose(2, 3),
        lambda: torch.zeros(4 * 256 + 1)[1:].view(1, 4, 16, 16),
    ]
    for make in wrong:
        with pytest.raises(ValueError, match="a tensor must be contiguous float32"):
            kernels.solve(flow, make(), *rest, 16, FIXED, counts)
    with pytest.raises(ValueError, match="rows must have 12 numbers"):
        kernels.solve(flow, dual, *rest, 12, FIXED, counts)


# ---- tiles


def test_tiles_cover_every_size_and_fit_into_a_block() -> None:
    for height in (*range(16, 80), 256, 480, 1080):
        for width in (*range(16, 80), 340, 640, 1920):
            tiling = make_tiling(height, width)
            assert tiling.num_threads <= MAX_THREADS
            assert tiling.shared_bytes <= shared_bytes(MAX_SLOTS)
            for length, num_tiles, of_tile in (
                (width, tiling.tiles_x, tiling.tile_columns),
                (height, tiling.tiles_y, tiling.tile_rows),
            ):
                num_patches = -(-length // PATCH)
                covered = num_tiles * (of_tile - 2) + 2
                assert covered >= num_patches
                # Each tile has a patch of its own, and a halo is within the next tile's own.
                assert num_tiles == 1 or covered - num_patches < of_tile - 2


def test_shared_memory_is_what_the_documentation_says() -> None:
    assert shared_bytes(MAX_SLOTS) == 49152 + 30592 + 3104
    assert 2 * (shared_bytes(MAX_SLOTS) + 1024) <= 164 * 1024
    assert make_tiling(256, 340).num_tiles == 40


# ---- the other kernels, and all of them together


@pytest.mark.parametrize(("height", "width"), [(16, 17), (41, 66)])
def test_the_warp_is_that_of_the_portable_version(
    library: ctypes.CDLL, height: int, width: int
) -> None:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.uniform(0, 255, (3, height, width)).astype(np.float32))
    flow = random.normal(0, 6, (4, 2, height, width)).astype(np.float32)
    flow[3] *= 100
    flow[2] = np.rint(flow[2])
    first, second = torch.tensor([0, 1, 2, 1]), torch.tensor([1, 2, 0, 0])
    memory = Memory()
    blank = np.zeros((4, 3, height, width), np.float32)
    tensors = [memory.place(x, width) for x in (flow, blank[:, :2], blank[:, 2])]
    simulated(library).linearize(images, first, second, *tensors)
    memory.check()
    expected = linearize(
        torch.from_numpy(flow), images.index_select(0, first), pack_frames(images), second
    )
    # Single precision, of values up to 255, and of sums with a flow of some px; and of 600 px.
    for found, value in zip(tensors[1:], expected, strict=True):
        found = found[..., -width:]
        np.testing.assert_allclose(found[:3], value[:3], rtol=0, atol=0.01)
        np.testing.assert_allclose(found[3], value[3], rtol=0, atol=0.1)


@pytest.mark.parametrize("sizes", [((17, 18), (21, 22)), ((105, 139), (131, 174))])
def test_enlarging_is_that_of_the_portable_version(
    library: ctypes.CDLL, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    (coarse_height, coarse_width), (height, width) = sizes
    random = np.random.default_rng(0)
    coarse = random.normal(size=(2, 2, coarse_height, coarse_width)).astype(np.float32)
    memory = Memory()
    fine = memory.place(np.zeros((2, 2, height, width), np.float32), width)
    padded = memory.place(coarse, coarse_width)
    simulated(library).enlarge(padded, coarse_width, fine, width, 1.25)
    memory.check()
    expected = Resize(*sizes, torch.device("cpu"))(torch.from_numpy(coarse)) * 1.25
    np.testing.assert_allclose(fine[..., -width:], expected, rtol=0, atol=2e-6)


def pair_of_frames(height: int = 60, width: int = 75) -> list[NDArray[np.uint8]]:
    scene = Scene(width, height, (Layer(3, (Motion(velocity_px=(1.7, -0.9)),)),))
    return [
        np.asarray(cv2.cvtColor(scene.frame(t), cv2.COLOR_RGB2GRAY), np.uint8) for t in range(3)
    ]


def assert_agrees(found: Array, expected: Array) -> None:
    assert np.hypot(*np.moveaxis(found - expected, -1, 0)).mean() <= 0.02
    levels = [quantize(x, FlowSpec("tvl1")).astype(int) for x in (found, expected)]
    assert (np.abs(levels[0] - levels[1]) <= 1).mean() >= 0.995


@pytest.fixture(scope="module")
def exact() -> TVL1:
    estimator = create_estimator("tvl1", stop="exact")
    assert isinstance(estimator, TVL1)
    return estimator


def test_the_estimator_is_the_native_one_with_exact_stops(
    library: ctypes.CDLL, exact: TVL1
) -> None:
    frames = pair_of_frames()
    estimator = TVL1Cuda(
        TVL1Parameters(stop="exact"), device="cpu", batch_pairs=2, kernels=simulated(library)
    )
    pairs = list(estimator.pairs(frames, directions=("forward",)))
    for found, expected in zip(pairs, exact.pairs(frames, directions=("forward",)), strict=True):
        assert found.forward is not None
        assert expected.forward is not None
        assert_agrees(found.forward, expected.forward)
        # Rounding may move a stop by one.
        assert np.median(np.abs(found.forward - expected.forward)) < 1e-4


def test_predicted_stops_change_little(library: ctypes.CDLL, exact: TVL1) -> None:
    frames = pair_of_frames()[:2]
    estimator = TVL1Cuda(TVL1Parameters(), device="cpu", kernels=simulated(library))
    (pair,) = estimator.pairs(frames)
    for found, order in ((pair.forward, frames), (pair.backward, frames[::-1])):
        assert found is not None
        assert_agrees(found, exact(*order))
        # A prediction takes up to three iterations too many in each of 25 warps.
    counts = [np.array(x.num_iterations) for x in (estimator, exact)]
    assert 0 <= (counts[0] - counts[1]).mean() <= 10


def test_solving_a_warp_of_any_width_has_one_signature(library: ctypes.CDLL) -> None:
    kernels = simulated(library, 24)
    for width in (17, 20):
        warp = random_warp(2, 19, width)
        tensors = [torch.from_numpy(getattr(warp, x.name).copy()) for x in dataclasses.fields(warp)]
        counts = torch.zeros(4, dtype=torch.int32)[::2]
        solve_warp(*tensors, FIXED, counts, kernels=kernels)
        expected, expected_counts = run(kernels, warp, FIXED)
        np.testing.assert_array_equal(tensors[0], expected.flow)
        np.testing.assert_array_equal(tensors[1], expected.dual)
        assert counts.tolist() == expected_counts


# ---- the compiler


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
def test_the_source_compiles_for_a_gpu(capability: tuple[int, int]) -> None:
    module = compile_source(installed_nvrtc(), SOURCE.read_text(), SOURCE.name, capability)
    assert module[:4] == b"\x7fELF" or b".version" in module
    for name in ("solve", "linearize", "enlarge"):
        assert name.encode() in module


# ---- on a GPU

needs_gpu = pytest.mark.skipif(
    (not torch.cuda.is_available() or torch.version.cuda is None)
    and os.environ.get("FLOWPREP_REQUIRE_GPU") != "1",
    reason="no NVIDIA GPU",
)


def run_on_gpu(warp: Warp, p: TVL1Parameters) -> tuple[Warp, list[int]]:
    tensors = [
        torch.from_numpy(getattr(warp, x.name).copy()).cuda() for x in dataclasses.fields(warp)
    ]
    counts = torch.full((warp.num_fields,), -1, dtype=torch.int32, device="cuda")
    solve_warp(*tensors, p, counts)
    return Warp(*(x.cpu().numpy() for x in tensors)), counts.tolist()


@needs_gpu
@pytest.mark.parametrize("median_filtering", [1, 3, 5])
@pytest.mark.parametrize(("height", "width"), [*SIZES, (256, 340), (480, 640)])
def test_a_warp_on_a_gpu_is_that_of_the_reference(
    height: int, width: int, median_filtering: int
) -> None:
    p = dataclasses.replace(FIXED, median_filtering=median_filtering)
    warp = random_warp(2, height, width)
    result, counts = run_on_gpu(warp, p)
    expected = Warp(warp.flow.copy(), warp.dual.copy(), warp.gradient, warp.residual)
    assert reference_warp(expected, p)[0] == counts
    np.testing.assert_allclose(result.flow, expected.flow, rtol=0, atol=5e-5)
    np.testing.assert_allclose(result.dual, expected.dual, rtol=0, atol=5e-5)


@needs_gpu
def test_fields_on_a_gpu_stop_each_by_itself_and_always_alike() -> None:
    p = TVL1Parameters(epsilon=0.04, inner_iterations=8)
    warp = random_warp(40, 53, 90, seed=1)
    result, counts = run_on_gpu(warp, p)
    assert len(set(counts)) > 1
    for _ in range(5):
        assert_same(run_on_gpu(warp, p), (result, counts))
    for number in (0, 17, 39):
        alone = run_on_gpu(warp.field(number), p)
        assert_same(alone, (result.field(number), counts[number : number + 1]))
    # Frames whose tiles do not all run at once.
    large = random_warp(1, 1080, 1920)
    found, counts = run_on_gpu(large, FIXED)
    expected = Warp(large.flow.copy(), large.dual.copy(), large.gradient, large.residual)
    assert reference_warp(expected, FIXED)[0] == counts
    np.testing.assert_allclose(found.flow, expected.flow, rtol=0, atol=5e-5)


@needs_gpu
@pytest.mark.parametrize("stop", ["predicted", "exact"])
def test_the_estimator_on_a_gpu_agrees_with_the_native_one(
    stop: Any, exact: TVL1, test_data: Path
) -> None:
    estimator = TVL1Cuda(TVL1Parameters(stop=stop))
    videos = [pair_of_frames(256, 340)]
    for name in ("Biking/v_Biking_g19_c01.avi", "JavelinThrow/v_JavelinThrow_g21_c03.avi"):
        capture = cv2.VideoCapture(str(test_data / "ucf101" / "videos" / name))
        read = [capture.read()[1] for _ in range(12)]
        videos.append([np.asarray(cv2.cvtColor(x, cv2.COLOR_BGR2GRAY), np.uint8) for x in read])
    for frames in videos:
        for found, expected in zip(estimator.pairs(frames), exact.pairs(frames), strict=True):
            for name in ("forward", "backward"):
                assert_agrees(getattr(found, name), getattr(expected, name))


@needs_gpu
def test_the_kernels_work_in_any_thread_and_on_any_stream() -> None:
    warp = random_warp(3, 40, 44)
    expected = run_on_gpu(warp, FIXED)

    def on_own_stream() -> tuple[Warp, list[int]]:
        with torch.cuda.stream(torch.cuda.Stream()):
            return run_on_gpu(warp, FIXED)

    with ThreadPoolExecutor(1) as pool:
        assert_same(pool.submit(on_own_stream).result(), expected)
