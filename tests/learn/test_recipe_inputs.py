"""The input of each published recipe, from the video file to the tensor that the network gets.

What is expected is computed here from the page of each project: frames by OpenCV's resize, flow by
OpenCV's algorithms, levels and numbers by the formulas. The stored JPEGs are read from the tar file
by OpenCV.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flowprep import FlowDataset, RunOptions, extract, open_dataset
from flowprep.learn.clip_inputs import ClipInput, InputStream, RecipeName, StreamName
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.config import ViewSpec
from flowprep.learn.networks import clip_inputs
from flowprep.learn.recipes import RECIPES, StreamRecipe
from flowprep.presets import PRESETS
from flowprep.synthetic import write_video

Array = NDArray[Any]

NUM_FRAMES = 3
WIDTH, HEIGHT = 160, 120


@dataclass(frozen=True)
class Extraction:
    """How a project makes its data, as its page says."""

    size: tuple[int, int]
    """Of this source video."""
    interpolation: int = cv2.INTER_LINEAR
    flow: str | None = None
    quantizer: str = "round"
    fps: int | None = None
    crop: int | None = None


EXTRACTIONS = {
    "tsn": Extraction((340, 256), flow="tvl1-cuda"),
    # Smaller videos keep their size.
    "mmaction2": Extraction((160, 120), flow="tvl1-cuda"),
    "mmaction2-320p": Extraction((160, 120), flow="tvl1-cuda"),
    "feichtenhofer": Extraction((341, 256), flow="tvl1-cuda"),
    "i3d": Extraction((341, 256), flow="tvl1", quantizer="floor", fps=25),
    # Flow of these two needs weights, or is in no OpenCV for the CPU.
    "i3d-raft": Extraction((341, 256), cv2.INTER_LINEAR, quantizer="floor"),
    "two-stream-2014": Extraction((341, 256)),
    "mars": Extraction((341, 256), cv2.INTER_CUBIC, "tvl1-cuda", "floor", 25),
    "vmz": Extraction((171, 128), flow="vmz", crop=112),
    "vmz-rgb": Extraction((171, 128)),
    "torchvision-video": Extraction((171, 128), fps=15),
    "lrcn": Extraction((320, 240)),
    "deepvideo": Extraction((267, 200), crop=200),
}

TVL1_CUDA = {"innerIterations": 30, "outerIterations": 10, "medianFiltering": 1}


def compute_flow(name: str, first: Array, second: Array) -> Array:
    """Returns the flow of two gray frames, (2, H, W) px, by OpenCV."""
    if name == "vmz":
        # models-wave2: the nine numbers of caffe2/video/optical_flow.cc.
        flow = cv2.calcOpticalFlowFarneback(
            first, second, None, 2**0.5 / 2, 5, 10, 2, 7, 1.5, cv2.OPTFLOW_FARNEBACK_GAUSSIAN
        )  # type: ignore[call-overload]
    else:
        options = TVL1_CUDA if name == "tvl1-cuda" else {}
        flow = cv2.optflow.createOptFlow_DualTVL1()
        for key, value in options.items():
            getattr(flow, f"set{key[0].upper()}{key[1:]}")(value)
        flow = flow.calc(first, second, None)
    return np.ascontiguousarray(np.asarray(flow).transpose(2, 0, 1))


def source_frames(rate: int) -> list[Array]:
    """Returns colored texture that moves by (2, 1) px each frame, shown `rate` times."""
    noise = np.random.default_rng(3).normal(size=(HEIGHT, WIDTH, 3))
    smooth = np.stack([cv2.GaussianBlur(noise[..., c], (0, 0), 4) for c in range(3)], -1)
    image = np.clip(110 + 300 * smooth + [10, 0, 30], 0, 255).astype(np.uint8)
    moved = [np.roll(image, (n, 2 * n), (0, 1)) for n in range(NUM_FRAMES)]
    return [frame for frame in moved for _ in range(rate)]


def defined_frames(wanted: Extraction) -> list[Array]:
    frames = [
        cv2.resize(frame, wanted.size, interpolation=wanted.interpolation)
        for frame in source_frames(1)
    ]
    if wanted.crop is None:
        return frames
    left, upper = ((side - wanted.crop) // 2 for side in wanted.size)
    return [f[upper : upper + wanted.crop, left : left + wanted.crop] for f in frames]


def defined_flow(wanted: Extraction) -> list[Array]:
    assert wanted.flow is not None
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in defined_frames(wanted)]
    return [
        compute_flow(wanted.flow, np.ascontiguousarray(one), np.ascontiguousarray(other))
        for one, other in itertools.pairwise(gray)
    ]


@dataclass(frozen=True)
class Made:
    """A data set of one video, and its pictures as OpenCV reads them from the tar file."""

    dataset: FlowDataset
    flow: Array
    """(fields, 2, H, W) levels."""
    rgb: Array
    """(frames, H, W, 3), as RGB."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Extracts a video by a preset, each once."""

    @cache
    def make(preset: str) -> Made:
        folder = tmp_path_factory.mktemp(preset)
        wanted = EXTRACTIONS[preset]
        # At twice the rate: every second frame is taken.
        repeated, rate = (1, 30) if wanted.fps is None else (2, 2 * wanted.fps)
        write_video(
            folder / "clip.mkv", source_frames(repeated), rate, codec="ffv1", pixel_format="bgr0"
        )
        config = PRESETS[preset]
        if wanted.flow is None:
            flow = dataclasses.replace(config.flow, algorithm="farneback", parameters=None)
            config = dataclasses.replace(config, flow=flow)
        encode = dataclasses.replace(config.encode, directions=("forward",))
        config = dataclasses.replace(config, encode=encode)
        out = folder / "flow"
        report = extract(
            [folder / "clip.mkv"],
            out,
            config,
            executor="inline",
            options=RunOptions(device="cpu", progress=False),
        )
        assert report.exit_code == 0
        return Made(open_dataset(out), *_read_tar(next((out / "shards").glob("*.tar"))))

    return make


def _read_tar(path: Path) -> tuple[Array, Array]:
    with tarfile.open(path) as tar:
        content = {m.name.partition(".")[2]: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    sizes = json.loads(content["json"])["sizes"]

    def pictures(stream: str, flags: int) -> list[Array]:
        data, begin, found = content[f"{stream}.mjpg"], 0, []
        for size in sizes[stream]:
            found.append(
                np.asarray(cv2.imdecode(np.frombuffer(data[begin : begin + size], np.uint8), flags))
            )
            begin += size
        return found

    x, y = (pictures(name, cv2.IMREAD_GRAYSCALE) for name in ("flow_x", "flow_y"))
    rgb = [frame[..., ::-1] for frame in pictures("rgb", cv2.IMREAD_COLOR)]
    return np.stack([np.stack(pair) for pair in zip(x, y, strict=True)]), np.stack(rgb)


# ---- from the video to the stored levels


@pytest.mark.parametrize("preset", EXTRACTIONS)
def test_stored_frames_are_those_of_the_definition(
    preset: str, made: Callable[[str], Made]
) -> None:
    found = made(preset).rgb
    expected = np.stack(defined_frames(EXTRACTIONS[preset]))
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    # What JPEG changes; a frame beside it, another place or BGR would be ten times as much.
    assert difference.mean() < 3


@pytest.mark.parametrize("preset", [name for name, one in EXTRACTIONS.items() if one.flow])
def test_stored_levels_are_those_of_the_definition(
    preset: str, made: Callable[[str], Made]
) -> None:
    wanted = EXTRACTIONS[preset]
    levels = (np.clip(np.stack(defined_flow(wanted)), -20, 20) + 20) / 40 * 255
    levels = np.rint(levels) if wanted.quantizer == "round" else np.floor(levels)
    difference = made(preset).flow - levels
    assert difference.shape == (NUM_FRAMES - 1, 2, *np.shape(levels)[2:])
    # JPEG's own error, without bias; `floor` would be half a level from `round`.
    assert abs(difference.mean()) < 0.1
    assert np.abs(difference).mean() < 0.6
    assert (np.abs(difference) <= 2).mean() > 0.99


def test_vmz_gets_the_flow_of_the_crop_to_half_a_level(made: Callable[[str], Made]) -> None:
    found = view(RECIPES["vmz"].streams["flow"], made("vmz"))["flow"]
    flow = np.stack(defined_flow(EXTRACTIONS["vmz"]))  # (2, 2, 112, 112)
    means = np.array([0.0046635, 0.0046261])[:, None, None]
    stds = np.array([0.972347, 0.755146])[:, None, None]
    half_level = 20 / 255 / stds.ravel()
    fields = np.stack([flow[time % 2] for time in range(32)], 1)
    error = np.abs(found - (fields - means[:, None]) / stds[:, None]).reshape(2, -1)
    assert (error.mean(1) < half_level).all()
    # JPEG at quality 100 adds a level here and there, and never more.
    assert (np.quantile(error, 0.9, axis=1) < half_level).all()
    assert (error.max(1) < 3.01 * half_level).all()


# ---- from the stored levels to the tensor


def view(recipe: StreamRecipe, data: Made) -> dict[str, Array]:
    """Returns the center crop of the middle clip, as a test gives it to the network."""
    clip = recipe.clip
    stream: Any = clip.stream
    one = ClipInput(
        *(stream, stream, recipe.form, clip.num_frames, clip.frame_stride),
        has_magnitude=(recipe.preset, stream) == ("lrcn", "flow"),
    )
    tested = TestViews(data.dataset, clip, (one,), ViewSpec(1, 1), split="all")
    (views,) = (tested[0]["views"],)
    return {name: np.asarray(value)[0] for name, value in views.items()}


def by_levels(scale: Callable[[Array], Array]) -> Callable[[Made], Array]:
    """Returns what makes (fields, 2, H, W) numbers of the stored levels."""
    return lambda made: scale(made.flow.astype(np.float64))


def by_colors(
    mean: tuple[float, float, float], std: tuple[float, float, float] = (1, 1, 1)
) -> Callable[[Made], Array]:
    """Returns what makes (frames, 3, H, W) numbers of the stored frames, in the order RGB."""
    return lambda made: ((made.rgb - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)


def without_mean(made: Made) -> Array:
    levels = made.flow.astype(np.float64)
    return np.asarray(levels - levels.mean((2, 3), keepdims=True) - 0.5)


def vmz_numbers(made: Made) -> Array:
    px = (made.flow / 255 - 0.5) * 40
    means, stds = np.array([0.0046635, 0.0046261]), np.array([0.972347, 0.755146])
    return np.asarray((px - means[:, None, None]) / stds[:, None, None])


def lrcn_numbers(made: Made) -> Array:
    """16 px of a bound of 8, and the same of the magnitude (create_flow_images_LRCN.m)."""
    fields = made.flow - 128.0
    lengths = np.minimum(np.hypot(fields[:, 0], fields[:, 1]), 128)
    return np.concatenate([fields, lengths[:, None]], 1)


def bgr(made: Made) -> Array:
    return by_colors((123, 117, 104))(made)[:, ::-1]


def differences(made: Made) -> Array:
    return np.diff(made.rgb / 255.0, axis=0).transpose(0, 3, 1, 2)


IMAGENET = by_colors((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
KINETICS = by_colors(
    (0.43216 * 255, 0.394666 * 255, 0.37645 * 255), (0.22803 * 255, 0.22145 * 255, 0.216989 * 255)
)
UNIT_RANGE = by_colors((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
MINUS_128 = by_levels(lambda v: v - 128)
TSN_RESNET = by_levels(lambda v: (v / 255 - 0.5) / 0.226)
MMACTION2 = by_levels(lambda v: (v - 128) / 128)
# Level 127 is 0 px where levels are truncated, and 127.5 where they are rounded.
SLOWFAST = by_colors((0.45 * 255,) * 3, (0.225 * 255,) * 3)
I3D = by_levels(lambda v: np.minimum(v - 127, 127.5) / 127.5)

INPUTS: dict[tuple[RecipeName, StreamName], tuple[Callable[[Made], Array], int, int, int, str]] = {
    # numbers, fields or frames, stride, side of the crop, form
    ("two-stream", "flow"): (without_mean, 10, 1, 224, "stack"),
    ("two-stream", "rgb"): (bgr, 1, 1, 224, "stack"),
    ("tsn", "flow"): (TSN_RESNET, 5, 1, 224, "stack"),
    ("tsn", "rgb"): (by_colors((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), 1, 1, 224,
                     "stack"),
    ("tsn", "rgb-difference"): (differences, 5, 1, 224, "stack"),
    ("i3d", "flow"): (I3D, 64, 1, 224, "volume"),
    ("i3d", "rgb"): (UNIT_RANGE, 64, 1, 224, "volume"),
    ("i3d-raft", "flow"): (I3D, 64, 1, 224, "volume"),
    ("tsm", "flow"): (TSN_RESNET, 5, 1, 224, "stack"),
    ("tsm", "rgb"): (IMAGENET, 1, 1, 224, "stack"),
    ("mmaction2-tsn", "flow"): (MMACTION2, 5, 1, 224, "stack"),
    ("mmaction2-tsn", "rgb"): (IMAGENET, 1, 1, 224, "stack"),
    ("mmaction2-slow-4x16", "flow"): (MMACTION2, 4, 16, 256, "volume"),
    ("mmaction2-slow-4x16", "rgb"): (IMAGENET, 4, 16, 256, "volume"),
    ("mmaction2-slow-8x8", "flow"): (MMACTION2, 8, 8, 256, "volume"),
    ("mmaction2-slow-8x8", "rgb"): (IMAGENET, 8, 8, 256, "volume"),
    ("mmaction-tsn", "flow"): (MINUS_128, 5, 1, 224, "stack"),
    ("mmaction-i3d", "flow"): (by_levels(lambda v: v / 127.5 - 1), 64, 1, 224, "volume"),
    # RGB, because the first convolution of these weights is turned when they are loaded.
    ("yjxiong-tsn", "flow"): (MINUS_128, 5, 1, 224, "stack"),
    ("yjxiong-tsn", "rgb"): (by_colors((123, 117, 104)), 1, 1, 224, "stack"),
    ("tsn-pytorch", "flow"): (MINUS_128, 5, 1, 224, "stack"),
    ("tsn-pytorch", "rgb"): (by_colors((128, 117, 104)), 1, 1, 224, "stack"),
    ("yjxiong-two-stream", "flow"): (MINUS_128, 10, 1, 224, "stack"),
    ("vmz", "flow"): (vmz_numbers, 32, 1, 112, "volume"),
    ("vmz-rgb", "rgb"): (
        by_colors((110.201, 100.64, 95.9966), (58.1489, 56.4701, 55.3324)), 8, 1, 112, "volume"),
    ("ig65m", "rgb"): (KINETICS, 32, 1, 112, "volume"),
    ("mars", "flow"): (by_levels(lambda v: v - 127.5), 16, 1, 112, "volume"),
    ("mars", "rgb"): (by_colors((114.7748, 107.7354, 99.475)), 16, 1, 112, "volume"),
    ("torchvision-video", "rgb"): (KINETICS, 16, 1, 112, "volume"),
    ("slow-4x16", "rgb"): (
        by_colors((0.45 * 255,) * 3, (0.225 * 255,) * 3), 4, 16, 256, "volume"),
    ("slow-8x8", "rgb"): (by_colors((0.45 * 255,) * 3, (0.225 * 255,) * 3), 8, 8, 256, "volume"),
    ("i3d-lstm", "rgb"): (UNIT_RANGE, 25, 5, 224, "volume"),
    ("gru-rcn", "rgb"): (by_colors((123, 117, 104)), 10, 1, 224, "volume"),
    ("lrcn", "flow"): (lrcn_numbers, 16, 1, 227, "volume"),
    ("lrcn", "rgb"): (by_colors((128.68, 116.779, 103.939)), 16, 1, 227, "volume"),
    # jfzhang95/pytorch-video-recognition: 90, 98, 102 of OpenCV's BGR.
    ("c3d", "rgb"): (lambda made: by_colors((102, 98, 90))(made)[:, ::-1], 16, 1, 112, "volume"),
    ("mmaction2-c3d", "rgb"): (by_colors((104, 117, 128)), 16, 1, 112, "volume"),
    ("gsm", "rgb"): (by_colors((128, 117, 104)), 1, 1, 224, "stack"),
    ("gsm-inception-v3", "rgb"): (by_colors((128, 117, 104)), 1, 1, 229, "stack"),
    ("timesformer", "rgb"): (SLOWFAST, 8, 32, 224, "volume"),
    ("timesformer-hr", "rgb"): (SLOWFAST, 16, 16, 448, "volume"),
    ("timesformer-long", "rgb"): (SLOWFAST, 96, 4, 224, "volume"),
    ("mmaction2-timesformer", "rgb"): (UNIT_RANGE, 8, 32, 224, "volume"),
    ("deepvideo", "rgb"): (by_colors((117, 117, 117)), 1, 1, 170, "stack"),
}  # fmt: skip

ELSEWHERE: set[tuple[RecipeName, StreamName]] = {
    # Stacks along time, below.
    *(("two-stream-fusion", "both"), ("i3d-fused", "both"), ("gru-rcn", "flow")),
    # Two rates of one clip: tests/learn/clips/test_two_rates.py.
    *((name, "rgb") for name in RECIPES if "slowfast-" in name),
    # Frames over the whole video: tests/learn/clips/test_indices.py.
    *((name, "rgb") for name in RECIPES if "ssv2" in name),
}  # fmt: skip


def resized(stored: tuple[int, int], short_px: int | None) -> tuple[int, int] | None:
    """Returns the size of the pictures that the network sees; None if it is the stored one."""
    width, height = stored
    return None if short_px in (None, height) else (round(width * short_px / height), short_px)


def test_every_stream_of_every_recipe_is_here() -> None:
    assert {*INPUTS, *ELSEWHERE} == {
        (name, one) for name in RECIPES for one in RECIPES[name].streams
    }
    assert set(EXTRACTIONS) == {
        one.preset for recipe in RECIPES.values() for one in recipe.streams.values()
    }


@pytest.mark.parametrize(("name", "stream"), INPUTS)
def test_the_tensor_is_that_of_the_definition(
    name: RecipeName, stream: InputStream, made: Callable[[str], Made]
) -> None:
    numbers, count, stride, crop, form = INPUTS[name, stream]
    recipe = RECIPES[name].streams[stream]
    data = made(recipe.preset)
    pictures = numbers(data)
    size = resized(EXTRACTIONS[recipe.preset].size, recipe.clip.resize_short_px)
    if size is not None:
        pictures = np.stack([[_resized(plane, size) for plane in one] for one in pictures])
    # A short video is repeated. A single frame is its middle one.
    times = np.arange(count) * stride % len(pictures) if count > 1 else [len(pictures) // 2]
    left, upper = (pictures.shape[3] - crop) // 2, (pictures.shape[2] - crop) // 2
    clip = pictures[times][..., upper : upper + crop, left : left + crop]
    expected = clip.reshape(-1, crop, crop) if form == "stack" else clip.swapaxes(0, 1)
    found = view(recipe, data)[stream]
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    scale = np.ptp(expected)
    if size is None:
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * max(scale, 1))
    else:
        # Other libraries weigh the pixels of a smaller picture otherwise, and round it to levels.
        assert np.abs(found - expected).mean() < 0.005 * scale
        assert abs((found - expected).mean()) < 0.001 * scale


@pytest.mark.parametrize(
    ("name", "stream", "num_places", "stride", "colors", "levels"),
    [
        ("two-stream-fusion", "both", 5, 15, by_colors((123, 117, 104)), MINUS_128),
        ("i3d-fused", "both", 5, 10, UNIT_RANGE, I3D),
        ("gru-rcn", "flow", 10, 1, None, MINUS_128),
    ],
)
def test_stacks_along_time_are_the_fields_around_each_frame(
    name: RecipeName,
    stream: StreamName,
    num_places: int,
    stride: int,
    colors: Callable[[Made], Array] | None,
    levels: Callable[[Made], Array],
    made: Callable[[str], Made],
) -> None:
    recipe = RECIPES[name].streams[stream]
    clip, data = recipe.clip, made(recipe.preset)
    inputs = clip_inputs(RECIPES[name].networks[0], stream, clip.num_frames, clip.frame_stride)
    tested = TestViews(data.dataset, clip, inputs, ViewSpec(1, 1), split="all")
    found = {one: np.asarray(value)[0] for one, value in tested[0]["views"].items()}

    def cropped(pictures: Array) -> Array:
        left, upper = (pictures.shape[3] - 224) // 2, (pictures.shape[2] - 224) // 2
        return pictures[..., upper : upper + 224, left : left + 224]

    fields = cropped(levels(data))
    scale = np.ptp(fields)
    # The video has two fields, and is repeated.
    for place in range(num_places):
        first = stride * place
        stack = np.concatenate([fields[(first + step) % 2] for step in range(10)])
        np.testing.assert_allclose(found["flow"][:, place], stack, rtol=0, atol=1e-5 * scale)
        if colors is not None:
            frame = cropped(colors(data))[(first + 5) % 2]
            np.testing.assert_allclose(found["rgb"][:, place], frame, atol=1e-3)
    assert found["flow"].shape == (20, num_places, 224, 224)
    assert colors is None or found["rgb"].shape == (3, num_places, 224, 224)


def _resized(plane: Array, size: tuple[int, int]) -> Array:
    """Resizes as Pillow does: bilinear, over the area of a pixel where it shrinks."""
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
