"""TV-L1 on NVIDIA GPUs: the kernels of tvl1.cu, compiled on the user's machine and launched here.

One launch does all iterations of a warp of all fields. It is a cooperative launch: all its blocks
run at the same time, so they may wait for each other. Only the blocks that work on a field decide
when the field stops. The host never waits, and never launches work that is not needed.

**Tiles.** A field is cut into tiles, one block per tile. Each thread keeps a patch of 4 x 4 px in
registers: u and p, 96 registers, from the beginning of a warp to its end. Between two exchanges
with the neighbors, four iterations run on a tile with a halo of one patch. Then the blocks of the
field write the patches next to other tiles' halos, wait for each other, and read their own halos.
Shared memory carries the borders of the patches (two barriers per iteration, 16 bytes per pixel)
and the data term, of which a thread reads only what it wrote itself (16 bytes per pixel). All
shared memory is read and written 16 bytes at a time by neighboring threads, without bank conflicts.

**Sizes.** A block has at most 192 threads, 3072 px. With two blocks on a multiprocessor, a thread
may have 168 registers (65536 / 384 = 170, in steps of 8). The kernel uses exactly that many, and
the iterations spill none of them. Its shared memory is

    data term           16 x 16 bytes of 192 threads                49152 bytes
    borders of patches   8 x 16 bytes of at most 239 slots          30592 bytes
    sums of errors       4 x 4 bytes of 192 threads, and 32          3104 bytes

in total 82848 bytes, and 1024 bytes for the system. Two blocks fit into the 164 KiB of an A100 (an
H100 has 228 KiB). The second block works while the first waits, for its neighbors or at a barrier.
GPUs with 100 KiB (from the RTX 30 on) run one block at a time. GPUs with 64 KiB (Turing) are
refused. In a tile of 192 patches, about 70 % of the pixels are its own, and the others are halo.
With 384 patches it would be 79 %, but only one block would fit.

**Instructions.** An iteration of a patch takes 730 machine instructions for compute capability 9.0,
45.6 per pixel: 39 are arithmetic (including 4 square roots and reciprocals, of which a
multiprocessor does 16 per cycle), 2.3 are accesses to shared memory, and the others move values to
gather columns. At 128 instructions per cycle, this is 2.8 px per cycle and multiprocessor. The
5 x 5 median of u takes 64 minima and maxima per pixel and component.

**Numbers.** They equal those of `flowprep.flow.tvl1_level`, with two differences. Square root and
reciprocal are the hardware's (at most 2 units in the last place off). Under `stop="predicted"`, up
to 4 iterations run at once instead of 12. `exact` exchanges halos after every iteration, which is
much slower. Errors are summed without atomic sums, in an order that depends only on the frame's
size. So a field is the same, bit for bit, whatever else is in its batch, and on all GPUs for which
the compiler makes the same code.

Why CUDA C++ through NVRTC: registers, barriers and the placement of data decide the speed here.
Triton does not let us control them. With CuPy or Warp we would write CUDA C++ too, and need one
more package. NVRTC comes with PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from ctypes import c_float, c_int, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowprep.flow.base import FlowEstimator
from flowprep.flow.nvrtc import (
    CudaError,
    Driver,
    Function,
    compile_source,
    find_nvrtc,
    load_driver,
)
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.trust import kernel_verdict
from flowprep.flow.tvl1_torch import Level, TVL1Torch

__all__ = ["SOURCE", "Kernels", "TVL1Cuda", "Tiling", "make_tiling", "solve_warp"]

log = logging.getLogger("flowprep.flow")

SOURCE = Path(__file__).with_name("tvl1.cu")


PATCH = 4
"""Side of a patch, px. Also the iterations between two exchanges, and the alignment of rows."""
MAX_THREADS = 192
MAX_SLOTS = 239
"""Most slots for which two blocks fit on a multiprocessor of an A100; see above."""
NUM_STATE_PLANES = 6
COUNTER_STRIDE = 32
"""Numbers between two groups' counters: a cache line, so that groups do not delay each other."""
WARP_SIZE = 32
TOO_MANY_BLOCKS = 720
"""CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE of cuda.h. Nothing has run then."""
PIXEL_BLOCK = 32, 8
"""Width and height, px, of the area of one block of the other kernels."""


# ---- the layout of the work; tests run the kernels on the CPU with the same layout


@dataclass(frozen=True)
class Tiling:
    """How fields of one size are cut into tiles."""

    height: int
    width: int
    tile_columns: int
    """Width of a tile including its halo, in patches."""
    tile_rows: int
    tiles_x: int
    tiles_y: int

    @property
    def pitch(self) -> int:
        """Numbers per row in memory."""
        return padded_width(self.width)

    @property
    def num_tiles(self) -> int:
        return self.tiles_x * self.tiles_y

    @property
    def num_threads(self) -> int:
        """Threads of a block."""
        return -(-self.tile_columns * self.tile_rows // WARP_SIZE) * WARP_SIZE

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return shared_bytes((self.tile_columns + 1) * (self.tile_rows + 1))

    def group(self, num_fields: int, num_resident_blocks: int) -> tuple[int, int]:
        """Returns how many fields are processed at a time, and the number of blocks for each.

        A field has one block per tile. If the GPU cannot run that many blocks at a time, the field
        gets all blocks of the GPU, and each block processes several tiles.
        """
        blocks = min(self.num_tiles, num_resident_blocks)
        return min(num_fields, num_resident_blocks // blocks), blocks


@functools.cache
def make_tiling(height: int, width: int) -> Tiling:
    """Cuts fields of a size into as few tiles as possible, and makes them as small as possible."""
    num_columns, num_rows = -(-width // PATCH), -(-height // PATCH)
    best: tuple[int, int, Tiling] | None = None
    for most_columns in range(3, 64):
        tiles_x, columns = _divide(num_columns, most_columns)
        most_rows = min(MAX_THREADS // columns, MAX_SLOTS // (columns + 1) - 1)
        if most_rows < 3:
            break
        tiles_y, rows = _divide(num_rows, most_rows)
        tiling = Tiling(height, width, columns, rows, tiles_x, tiles_y)
        if best is None or (tiling.num_tiles, columns * rows) < best[:2]:
            best = tiling.num_tiles, columns * rows, tiling
    assert best is not None
    return best[2]


def _divide(num_patches: int, most: int) -> tuple[int, int]:
    """Returns the number of tiles of at most `most` patches along a line, and their length.

    Neighboring tiles overlap by two patches: the halos of both tiles.
    """
    if num_patches <= most:
        return 1, num_patches
    num_tiles = -(-(num_patches - 2) // (most - 2))
    return num_tiles, -(-(num_patches - 2) // num_tiles) + 2


def shared_bytes(num_slots: int) -> int:
    """Returns the shared bytes of a block with this many slots (tvl1.cu: place_slots)."""
    return 16 * (8 * num_slots + 4 * PATCH * MAX_THREADS + MAX_THREADS * PATCH // 4 + 2)


def padded_width(width: int) -> int:
    """Returns the numbers per row in memory: rows begin at multiples of 16 bytes."""
    return -(-width // PATCH) * PATCH


class SolveArguments(ctypes.Structure):
    """As in tvl1.cu, which explains each field."""

    _fields_ = [
        *((name, c_void_p) for name in ("flow", "dual", "gradient", "residual")),
        *((name, c_void_p) for name in ("exchange", "errors", "counters", "num_iterations")),
        *((name, c_int) for name in ("num_fields", "width", "height", "pitch")),
        *((name, c_int) for name in ("tile_columns", "tile_rows", "tiles_x", "tiles_y")),
        ("blocks_per_group", c_int),
        *((name, c_int) for name in ("median", "inner_iterations", "outer_iterations")),
        ("is_exact", c_int),
        *((name, c_float) for name in ("unit_px", "tau", "limit", "stop_error")),
    ]


class LinearizeArguments(ctypes.Structure):
    """As in tvl1.cu, which explains each field."""

    _fields_ = [
        *((name, c_void_p) for name in ("images", "first", "second", "flow")),
        *((name, c_void_p) for name in ("gradient", "residual")),
        *((name, c_int) for name in ("num_fields", "width", "height", "pitch")),
    ]


class EnlargeArguments(ctypes.Structure):
    """As in tvl1.cu, which explains each field."""

    _fields_ = [
        ("coarse", c_void_p),
        ("fine", c_void_p),
        *((name, c_int) for name in ("coarse_width", "coarse_height", "coarse_pitch")),
        *((name, c_int) for name in ("num_planes", "width", "height", "pitch")),
        ("factor", c_float),
    ]


def solve_arguments(
    tiling: Tiling, parameters: TVL1Parameters, num_fields: int, blocks_per_group: int
) -> SolveArguments:
    """Returns the arguments of `solve`, without its memory."""
    unit_px = parameters.theta / parameters.tau
    return SolveArguments(
        num_fields=num_fields,
        width=tiling.width,
        height=tiling.height,
        pitch=tiling.pitch,
        tile_columns=tiling.tile_columns,
        tile_rows=tiling.tile_rows,
        tiles_x=tiling.tiles_x,
        tiles_y=tiling.tiles_y,
        blocks_per_group=blocks_per_group,
        median=parameters.median_filtering,
        inner_iterations=parameters.inner_iterations,
        outer_iterations=parameters.outer_iterations,
        is_exact=parameters.stop == "exact",
        unit_px=unit_px,
        tau=parameters.tau,
        limit=parameters.lambda_ * parameters.theta / unit_px**2,
        stop_error=parameters.epsilon**2 * tiling.width * tiling.height / unit_px**2,
    )


def scratch_sizes(tiling: Tiling, num_groups: int) -> tuple[int, int, int]:
    """Returns the lengths of `exchange`, `errors` and `counters`. `counters` must begin as 0."""
    return (
        num_groups * 2 * NUM_STATE_PLANES * tiling.height * tiling.pitch,
        num_groups * 2 * tiling.num_tiles * PATCH,
        (1 + num_groups) * COUNTER_STRIDE,
    )


def num_pixel_blocks(num_planes: int, height: int, width: int) -> int:
    """Returns the number of blocks of `linearize` and `enlarge`."""
    return num_planes * -(-width // PIXEL_BLOCK[0]) * -(-height // PIXEL_BLOCK[1])


# ---- on the GPU


class Kernels:
    """The kernels of tvl1.cu on one GPU.

    Fields and planes have the memory layout of tvl1.cu: the last axis of a tensor is `padded_width`
    long, and the pixels are at its end. All work goes to PyTorch's current stream.
    """

    def __init__(self, solve: Function, linearize: Function, enlarge: Function) -> None:
        self._solve, self._linearize, self._enlarge = solve, linearize, enlarge
        self._most_blocks: int | None = None
        """Most blocks at a time, if the driver allows fewer than the occupancy promises."""

    def solve(
        self,
        flow: Tensor,
        dual: Tensor,
        gradient: Tensor,
        residual: Tensor,
        width: int,
        parameters: TVL1Parameters,
        num_iterations: Tensor,
    ) -> None:
        """Does all iterations of one warp, like `flowprep.flow.tvl1_torch.solve_warp`."""
        num_fields, _, height, pitch = flow.shape
        device = flow.device
        tiling = make_tiling(height, width)
        for tensor, num_planes in ((flow, 2), (dual, 4), (gradient, 2), (residual, 1)):
            _check(tensor, flow.device, num_fields * num_planes * height * pitch, alignment=16)
        if pitch != tiling.pitch or num_iterations.dtype != torch.int32:
            raise ValueError(f"rows must have {tiling.pitch} numbers and counts be int32")
        num_resident = self._solve.num_resident_blocks(tiling.num_threads, tiling.shared_bytes)
        if num_resident == 0:
            raise RuntimeError("CUDA: a multiprocessor of this GPU has no place for a block")
        counts = num_iterations.contiguous()
        while True:
            num_blocks = min(num_resident, self._most_blocks or num_resident)
            num_groups, blocks_per_group = tiling.group(num_fields, num_blocks)
            sizes = scratch_sizes(tiling, num_groups)
            # At the end of this function, PyTorch reuses this memory for later work on this stream.
            exchange, errors = (torch.empty(size, device=device) for size in sizes[:2])
            counters = torch.zeros(sizes[2], dtype=torch.int32, device=device)
            arguments = solve_arguments(tiling, parameters, num_fields, blocks_per_group)
            for name, tensor in (
                ("flow", flow),
                ("dual", dual),
                ("gradient", gradient),
                ("residual", residual),
                ("exchange", exchange),
                ("errors", errors),
                ("counters", counters),
                ("num_iterations", counts),
            ):
                setattr(arguments, name, tensor.data_ptr())
            try:
                self._solve.launch(
                    arguments,
                    _current_stream(device),
                    num_blocks=num_groups * blocks_per_group,
                    num_threads=tiling.num_threads,
                    shared_bytes=tiling.shared_bytes,
                    is_cooperative=True,
                )
                break
            except CudaError as error:
                # The occupancy counts the whole GPU. Under MPS a process may have only a part.
                if error.code != TOO_MANY_BLOCKS or num_groups * blocks_per_group == 1:
                    raise
                self._most_blocks = num_groups * blocks_per_group // 2
        if counts is not num_iterations:
            num_iterations.copy_(counts)

    def linearize(
        self,
        images: Tensor,
        first: Tensor,
        second: Tensor,
        flow: Tensor,
        gradient: Tensor,
        residual: Tensor,
    ) -> None:
        """Warps by the flow so far, and writes the gradient and the part of rho without the flow.

        `images` are (N, H, W) float32, contiguous. `first` and `second`, (B,) int64, are the
        indices in `images` of each field's frames.
        """
        _, height, width = images.shape
        num_fields, pitch = len(flow), flow.shape[3]
        for tensor, num_planes in ((flow, 2), (gradient, 2), (residual, 1)):
            num_elements = num_fields * num_planes * height * padded_width(width)
            _check(tensor, flow.device, num_elements)
        _check(images, flow.device, images.numel())
        if first.dtype != torch.int64 or second.dtype != torch.int64:
            raise ValueError("the numbers of frames must be int64")
        first, second = first.contiguous(), second.contiguous()
        arguments = LinearizeArguments(
            images=images.data_ptr(),
            first=first.data_ptr(),
            second=second.data_ptr(),
            flow=flow.data_ptr(),
            gradient=gradient.data_ptr(),
            residual=residual.data_ptr(),
            num_fields=num_fields,
            width=width,
            height=height,
            pitch=pitch,
        )
        self._linearize.launch(
            arguments,
            _current_stream(flow.device),
            num_blocks=num_pixel_blocks(num_fields, height, width),
            num_threads=PIXEL_BLOCK[0] * PIXEL_BLOCK[1],
        )

    def enlarge(
        self, coarse: Tensor, coarse_width: int, fine: Tensor, width: int, factor: float
    ) -> None:
        """Writes `coarse` times `factor`, resized bilinearly, to `fine`; both (B, 2, H, pitch)."""
        num_fields, num_planes, height, pitch = fine.shape
        for tensor in (coarse, fine):
            _check(tensor, fine.device, tensor.numel())
        arguments = EnlargeArguments(
            coarse=coarse.data_ptr(),
            fine=fine.data_ptr(),
            coarse_width=coarse_width,
            coarse_height=coarse.shape[2],
            coarse_pitch=coarse.shape[3],
            num_planes=num_fields * num_planes,
            width=width,
            height=height,
            pitch=pitch,
            factor=factor,
        )
        self._enlarge.launch(
            arguments,
            _current_stream(fine.device),
            num_blocks=num_pixel_blocks(num_fields * num_planes, height, width),
            num_threads=PIXEL_BLOCK[0] * PIXEL_BLOCK[1],
        )


def _current_stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def _check(tensor: Tensor, device: torch.device, num_elements: int, alignment: int = 4) -> None:
    """Refuses tensors that a kernel would read wrongly, or beyond their end."""
    if (
        tensor.dtype != torch.float32
        or tensor.device != device
        or not tensor.is_contiguous()
        or tensor.numel() != num_elements
        or tensor.data_ptr() % alignment != 0
    ):
        raise ValueError(
            f"a tensor must be contiguous float32 on {device} with {num_elements} elements from a "
            f"multiple of {alignment} bytes on, got {tensor.dtype} {tuple(tensor.shape)} on "
            f"{tensor.device}"
        )


@functools.cache
def load_kernels(device_index: int) -> Kernels:
    """Compiles the kernels for a GPU, which takes two seconds, and loads them, once per process.

    Raises OSError or RuntimeError, naming what is missing, if this is impossible.
    """
    if torch.version.cuda is None:
        raise RuntimeError(f"PyTorch {torch.__version__} must be built with CUDA, and is not")
    library = find_nvrtc(int(torch.version.cuda.split(".")[0]))
    capability = torch.cuda.get_device_capability(device_index)
    module = compile_source(library, SOURCE.read_text(), SOURCE.name, capability)
    return link_kernels(load_driver(device_index), module)


def link_kernels(driver: Driver, module: bytes) -> Kernels:
    """Loads the compiled kernels; raises RuntimeError if the GPU lacks a resource."""
    if not driver.has_cooperative_launch:
        raise RuntimeError(
            "CUDA: TV-L1's blocks wait for each other, and this GPU allows no cooperative launch "
            "(a virtual GPU may lack it)"
        )
    needed = shared_bytes(MAX_SLOTS)
    if driver.shared_bytes_per_block < needed:
        raise RuntimeError(
            f"CUDA: a block of TV-L1's kernel needs {-(-needed // 1024)} KiB of shared memory, and "
            f"this GPU has {driver.shared_bytes_per_block // 1024} KiB (Turing, the RTX 20 and T4, "
            "has too little)"
        )
    solve, linearize, enlarge = driver.load(module, ("solve", "linearize", "enlarge"))
    # Here and not at the first launch, so that a failure is known at once.
    solve.allow_shared_bytes(needed)
    return Kernels(solve, linearize, enlarge)


def solve_warp(
    u: Tensor,
    p: Tensor,
    gradient: Tensor,
    residual: Tensor,
    parameters: TVL1Parameters,
    num_iterations: Tensor,
    *,
    kernels: Kernels | None = None,
) -> None:
    """Like `flowprep.flow.tvl1_torch.solve_warp`, on an NVIDIA GPU; the host does not wait.

    Tensors whose width is not a multiple of 4 are copied to padded memory and back. `TVL1Cuda`
    never has such tensors.
    """
    width = u.shape[3]
    kernels = kernels or load_kernels(_device_index(u.device))
    num_pads = padded_width(width) - width
    flow, dual, slope, rest = (
        torch.nn.functional.pad(x, (num_pads, 0)) if num_pads or x.data_ptr() % 16 else x
        for x in (u, p, gradient, residual)
    )
    kernels.solve(flow, dual, slope, rest, width, parameters, num_iterations)
    for original, result in ((u, flow), (p, dual)):
        if result is not original:
            original.copy_(result[..., num_pads:])


def _device_index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class TVL1Cuda(TVL1Torch):
    """TV-L1 on an NVIDIA GPU: the fields of `flowprep.flow.tvl1.TVL1` to within about .01 px."""

    batch_pixels = 2**23
    """48 pairs of 340x256 px in both directions. With half as many, a third of an H200's
    multiprocessors would be idle at the coarse levels."""
    bytes_per_pixel = 160

    def __init__(
        self,
        parameters: TVL1Parameters,
        *,
        device: str = "cuda",
        batch_pairs: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__(parameters, device=device, batch_pairs=batch_pairs)
        self._kernels = kernels or load_kernels(_device_index(self._device))

    @classmethod
    def create(cls, parameters: Any, device: str) -> FlowEstimator:
        """Makes the estimator. If its kernels cannot be trusted here, makes PyTorch's instead.

        The trial of flowprep/flow/trust.py says whether they can. PyTorch's estimator computes the
        same. A warning says that it is used, and why.
        """
        verdict = kernel_verdict(_device_index(torch.device(device)))
        reason = verdict.text
        if verdict.is_trusted:
            try:
                return cls(parameters, device=device)
            except (ImportError, OSError, RuntimeError) as error:
                if "out of memory" in str(error).lower():
                    raise
                reason = f"{type(error).__name__}: {str(error).strip()}"
        log.warning(
            "TV-L1's CUDA kernel is not used on %s: %s. PyTorch computes there, slower",
            device,
            reason,
        )
        return TVL1Torch(parameters, device=device)

    def _prepare(self, plan: list[Level], frames: Tensor) -> list[Tensor]:
        """Returns the image of each level, finest first."""
        image = frames.to(torch.float32)
        prepared = []
        for level in plan:
            if level.shrink is not None:
                image = level.shrink(image)
            prepared.append(image.contiguous())
        return prepared

    def _estimate(
        self, plan: list[Level], prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        """Works from coarse to fine (IPOL 2013, algorithm 2)."""
        p = self._parameters
        num_fields, device = len(first), self._device
        counts = torch.zeros((len(plan), p.warps, num_fields), dtype=torch.int32, device=device)
        coarsest = plan[-1]
        flow = torch.zeros(
            (num_fields, 2, coarsest.height, padded_width(coarsest.width)), device=device
        )
        for number in reversed(range(len(plan))):
            level = plan[number]
            plane = level.height, padded_width(level.width)
            if number + 1 < len(plan):
                coarse, flow = flow, torch.empty((num_fields, 2, *plane), device=device)
                self._kernels.enlarge(
                    coarse, plan[number + 1].width, flow, level.width, 1 / p.scale_step
                )
                del coarse
            dual = torch.zeros((num_fields, 4, *plane), device=device)
            gradient = torch.empty((num_fields, 2, *plane), device=device)
            residual = torch.empty((num_fields, *plane), device=device)
            for warp in range(p.warps):
                self._kernels.linearize(prepared[number], first, second, flow, gradient, residual)
                self._kernels.solve(
                    flow, dual, gradient, residual, level.width, p, counts[number, warp]
                )
        self._num_iterations = counts
        return flow[..., -plan[0].width :].permute(0, 2, 3, 1).contiguous()
