"""Small data sets, made once by real runs; tests that damage one get a copy."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.flow import create_estimator
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.synthetic import Layer, Motion, Scene, write_video
from flowprep.video.decode import open_video

WIDTH, HEIGHT = 56, 40
KEPT = Resize("none", short_px=None)

CONFIG = ExtractConfig(
    DecodeSpec(resize=KEPT), FlowSpec("farneback"), EncodeSpec(videos_per_shard=2)
)
"""Both directions and RGB; two videos a shard."""

FORWARD_ONLY = ExtractConfig(
    DecodeSpec(resize=KEPT),
    FlowSpec("dis", step=2, bound_px=8.0, quantizer="centered"),
    EncodeSpec(directions=("forward",), keep_rgb=False, jpeg_quality=90),
)


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a data set must give back for one video, computed without it."""

    rgb: NDArray[np.uint8]  # (N, H, W, 3), as stored: through JPEG
    flow: dict[str, NDArray[np.float32]]  # (N - step, H, W, 2), px, as estimated
    levels: dict[str, NDArray[np.uint8]]  # (N - step, H, W, 2), quantised
    stored: dict[str, NDArray[np.uint8]]  # the same, through JPEG


def through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED), np.uint8)


def compute(video: Video, config: ExtractConfig) -> Truth:
    """Decodes, estimates, quantises and encodes one video step by step."""
    cv2.setNumThreads(1)
    with open_video(video, config.decode) as reader:
        frames = list(reader)
    assert config.flow.parameters is not None
    parameters = dataclasses.asdict(config.flow.parameters)
    estimator = create_estimator(config.flow.algorithm, **parameters)
    gray = [frame.gray for frame in frames]
    pairs = list(zip(gray, gray[config.flow.step :], strict=False))
    flow = {
        "forward": np.stack([estimator(first, last) for first, last in pairs]),
        "backward": np.stack([estimator(last, first) for first, last in pairs]),
    }
    levels = {name: flowprep.quantize(field, config.flow) for name, field in flow.items()}
    stored = {}
    for name, fields in levels.items():
        stored[name] = np.empty_like(fields)
        for t, axis in np.ndindex(len(fields), 2):
            image = np.ascontiguousarray(fields[t, ..., axis])
            stored[name][t, ..., axis] = through_jpeg(image, config.encode.jpeg_quality)
    quality = config.encode.rgb_jpeg_quality
    rgb = [through_jpeg(frame.rgb[..., ::-1], quality)[..., ::-1] for frame in frames]
    return Truth(np.stack(rgb), flow, levels, stored)


def write_clip(path: Path, seed: int, num_frames: int) -> None:
    scene = Scene(WIDTH, HEIGHT, (Layer(seed, (Motion(velocity_px=(1.6, -0.9)),)),))
    write_video(path, (scene.frame(t) for t in range(num_frames)))


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Five videos of two classes: one is no video, one has two labels, one an odd and long name."""
    folder = tmp_path_factory.mktemp("videos")
    for name, seed, num_frames in (("a", 1, 6), ("b", 2, 5), ("c", 3, 7), ("d", 4, 4)):
        write_clip(folder / f"{name}.mp4", seed, num_frames)
    (folder / "broken.mp4").write_bytes(b"this is not a video" * 100)
    long_key = f"Dr%2E%20No/{'x' * 120}"
    return Manifest(
        videos=(
            Video("jump/a", str(folder / "a.mp4"), (0,), "train"),
            Video("jump/broken", str(folder / "broken.mp4"), (0,), "test"),
            Video("walk/b", str(folder / "b.mp4"), (1,), "test"),
            Video(long_key, str(folder / "c.mp4"), (0, 1), None),
            Video("walk/d", str(folder / "d.mp4"), (1,), "train"),
        ),
        class_names=("jump", "walk"),
        num_ignored_files=0,
        notes=(),
    )


@pytest.fixture(scope="session")
def made_once(videos: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `videos` under CONFIG; never to be changed."""
    out = tmp_path_factory.mktemp("made") / "out"
    report = flowprep.extract(videos, out, CONFIG, executor="inline")
    assert (report.num_complete, report.num_failed) == (4, 1)
    return out


@pytest.fixture(scope="session")
def forward_only(videos: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `videos` under FORWARD_ONLY; never to be changed."""
    out = tmp_path_factory.mktemp("made") / "forward-only"
    flowprep.extract(videos, out, FORWARD_ONLY, executor="inline")
    return out


@pytest.fixture
def copied(made_once: Path, tmp_path: Path) -> Path:
    """A copy of `made_once`, free to be damaged."""
    out = tmp_path / "out"
    shutil.copytree(made_once, out)
    return out


@pytest.fixture(scope="session")
def truth(videos: Manifest) -> Callable[[str, ExtractConfig], Truth]:
    """(key, config) -> what the data set must give back."""
    by_key = {video.key: video for video in videos.videos}
    known: dict[tuple[str, ExtractConfig], Truth] = {}

    def find(key: str, config: ExtractConfig) -> Truth:
        if (key, config) not in known:
            known[key, config] = compute(by_key[key], config)
        return known[key, config]

    return find
