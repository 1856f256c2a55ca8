"""A small data set with ten known faults among sound videos, for the report to find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

import flowprep
from flowprep.config import DecodeSpec, Direction, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM, read_sidecar
from flowprep.dataset.parts import part_name
from flowprep.dataset.write import JpegStream, publish_shard, write_sample
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from flowprep.synthetic import Layer, Motion, Scene, Shape, Sway, action_scene, write_video

WIDTH, HEIGHT, NUM_FRAMES = 96, 72, 12
CLASSES = ("move_left", "move_down", "rotate_clockwise", "studio")
PER_CLASS = 8
CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize("none", short_px=None)),
    FlowSpec("farneback"),
    EncodeSpec(videos_per_shard=1),
)

SEEDED = {
    "move_left/zero": "zero-flow",
    "move_left/swapped": "swapped",
    "rotate_clockwise/reversed": "reversed",
    "move_down/clipped": "clipped",
    "move_down/cut": "cut",
    "rotate_clockwise/repeated": "duplicates",
    "move_left/black": "black",
    "move_down/mislabelled": "wrong-label",
    "rotate_clockwise/truncated": "failed",
    "studio/upside_down": "upside-down",
}
"""Key and the kind of finding that names the fault."""

Planes = dict[Direction, NDArray[np.uint8]]  # (N, H, W, 2) levels


def studio_scene(seed: int) -> Scene:
    """The same room each time, and somebody in it who waves."""
    rng = np.random.default_rng(seed)
    wave = Sway(amplitude_px=(9, 4), period_frames=rng.uniform(7, 11), phase=rng.uniform(0, 6))
    place = Motion(offset_px=(rng.uniform(30, 66), rng.uniform(25, 50)))
    person = Layer(seed, (place, wave), Shape(4, 8, 5), brightness=1.2)
    return Scene(WIDTH, HEIGHT, (Layer(77, (Motion(scale=3.0),)), person), noise=1.0, seed=seed)


def frames_of(action: str, seed: int, speed: float = 1.0) -> list[NDArray[np.uint8]]:
    if action == "studio":
        scene = studio_scene(seed)
    else:
        scene = action_scene(
            action, num_frames=NUM_FRAMES, width=WIDTH, height=HEIGHT, seed=(3, seed)
        )
    return [scene.frame(speed * t) for t in range(NUM_FRAMES)]


def make_data_set(folder: Path) -> Path:
    """Makes the data set in `folder/out`."""
    videos: list[Video] = []

    def add(key: str, frames: Iterable[NDArray[np.uint8]]) -> Path:
        path = folder / f"{key}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames)
        videos.append(Video(key, str(path), (CLASSES.index(key.split("/")[0]),), "train"))
        return path

    for number, action in enumerate(CLASSES):
        for video in range(PER_CLASS):
            add(f"{action}/sound{video}", frames_of(action, 100 * number + video))
    for number, key in enumerate(SEEDED):
        action, name = key.split("/")
        frames = frames_of(action, 1000 + number)
        half = NUM_FRAMES // 2
        if name == "cut":
            frames = frames[:half] + frames_of(action, 2000)[half:]
        elif name == "clipped":
            frames = frames_of(action, 1000 + number, speed=3.0)
        elif name == "repeated":
            frames = [frames[t // 2] for t in range(NUM_FRAMES)]
        elif name == "black":
            frames = [np.zeros_like(frame) for frame in frames]
        elif name == "mislabelled":
            frames = frames_of("move_left", 3000)
        elif name == "upside_down":
            frames = [np.ascontiguousarray(frame[::-1, ::-1]) for frame in frames]
        path = add(key, frames)
        if name == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    out = folder / "out"
    manifest = Manifest(videos=tuple(videos), class_names=CLASSES, num_ignored_files=0, notes=())
    flowprep.extract(manifest, out, CONFIG, executor="inline")
    rewrite(
        out, "move_left/zero", lambda planes: {d: np.full_like(p, 128) for d, p in planes.items()}
    )
    rewrite(out, "move_left/swapped", lambda planes: {d: p[..., ::-1] for d, p in planes.items()})
    rewrite(
        out,
        "rotate_clockwise/reversed",
        lambda planes: {"forward": planes["backward"], "backward": planes["forward"]},
    )
    reach = round(2.0 / CONFIG.flow.px_per_level)
    rewrite(
        out,
        "move_down/clipped",
        lambda planes: {d: np.clip(p, 128 - reach, 127 + reach) for d, p in planes.items()},
    )
    return out


def rewrite(out: Path, key: str, change: Callable[[Planes], Planes]) -> None:
    """Puts other flow in the place of a video's, through the library's own writer.

    Its statistics stay as they were, as they would after a mistake of a later tool.
    """
    dataset = flowprep.open_dataset(out)
    video = dataset.videos[key]
    config = dataset.config
    planes = change({d: dataset.quantized(key, 0, video.num_flows, d) for d in FLOW_STREAMS})
    metadata = dataset.metadata(key)
    rgb = dataset.frames(key, range(video.num_frames))
    dataset.close()
    streams = {}
    for direction, names in FLOW_STREAMS.items():
        for axis, name in enumerate(names):
            streams[name] = JpegStream(config.encode.jpeg_quality)
            for plane in planes[direction][..., axis]:
                streams[name].append(np.ascontiguousarray(plane))
    streams[RGB_STREAM] = JpegStream(config.encode.rgb_jpeg_quality)
    for frame in rgb:
        streams[RGB_STREAM].append(np.ascontiguousarray(frame[..., ::-1]))
    sizes = {name: stream.sizes for name, stream in streams.items()}
    metadata = msgspec.structs.replace(metadata, sizes=sizes)
    storage = Storage(out)
    record = read_sidecar(storage, video.shard).videos[0]
    with storage.atomic_file(part_name(video.shard, 0, "tar")) as file:
        members = write_sample(file, metadata, streams)
    for stream in streams.values():
        stream.close()
    publish_shard(storage, video.shard, [0], [msgspec.structs.replace(record, members=members)])
    (out / part_name(video.shard, 0, "tar")).unlink()
