"""How fast shards give clips, compared with loose files, Pillow and webdataset.

UCF101's clips (in FLOWPREP_TEST_DATA; synthetic without it) become a data set of TV-L1 flow at
340x256, which stays in a temporary folder for the next time. The same JPEGs are also written as
loose files. One core, OpenCV on one thread, everything in the page cache. All loaders get the same
random clips and crops in turns, and must return the same numbers: float32, 224x224, mirrored with u
negated, normalized. For all loaders, the process keeps freed memory (`keep_memory`).

  decoders   one JPEG of flow, 340x256
  stacks     clips of 10 fields: 20 JPEGs
  volumes    clips of 64 fields: 128 JPEGs
  samples    samples for training (drawn, of three segments, or resampled) and tests of ten crops
  processes  the same samples from loader processes
  size       the memory of 100,000 videos in a process

Rates are first per second of processor time, which other processes on the machine affect least, and
then per second of wall time.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import json
import os
import pickle
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from PIL import Image
from processes import machine

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset import jpeg
from flowprep.dataset.layout import FLOW_STREAMS, shard_name
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo, VideoList
from flowprep.learn.clip_inputs import ClipForm, ClipInput
from flowprep.learn.clips import levels
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.indices import training_indices
from flowprep.learn.clips.loader import keep_memory
from flowprep.learn.clips.testing import TestViews, test_loader
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.clips.transforms import Crop, training_crop
from flowprep.learn.config import ClipSpec, TrainConfig
from flowprep.learn.recipes import VIEWS
from flowprep.learn.training_specs import AugmentSpec
from flowprep.synthetic import write_action_dataset

Gray = NDArray[np.uint8]
Numbers = NDArray[np.float32]

DATA = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"))
CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("340x256"), allow_upscale=True),
    FlowSpec("tvl1"),
    EncodeSpec(directions=("forward",), keep_rgb=False, videos_per_shard=10),
)
SIZE = (340, 256)
STACK = ClipSpec("flow", 10)
VOLUME = ClipSpec("flow", 64)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One clip that every loader must return."""

    video: StoredVideo
    indices: NDArray[np.int64]
    crop: Crop


def main() -> None:
    """Runs the requested parts and prints their tables."""
    parts: dict[str, Callable[[Bench], None]] = {
        "decoders": show_decoders,
        "stacks": show_stacks,
        "volumes": show_volumes,
        "samples": show_samples,
        "processes": show_processes,
        "size": show_size,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; or all")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each loader (default 15)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / f"flowprep-bench-loader-{os.geteuid()}",
        help="where the data set is kept",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in parts]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(parts)}")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_memory()
    jpeg.prepare()
    levels.prepare()
    bench = Bench(options.folder, options.rounds)
    dataset = bench.dataset
    num_fields = sum(video.num_flows for video in dataset.videos)
    print(
        f"{machine()}; one of them\nOpenCV {cv2.__version__}, torch {torch.__version__}, "
        f"webdataset {webdataset.__version__}\n{len(dataset.videos)} videos, {num_fields} fields, "
        f"{bench.mean_jpeg_bytes:.0f} bytes a JPEG; {options.rounds} rounds"
    )
    for name in options.parts or parts:
        print(f"\n{name}", flush=True)
        parts[name](bench)


# ---- the data, three times


class Bench:
    """The data set, the same JPEGs as loose files, and how often to measure."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.rounds = rounds
        self.folder = folder
        out = folder / "shards"
        if not (folder / "complete").exists():
            print(f"extracting into {folder}, some minutes ...", file=sys.stderr, flush=True)
            flowprep.extract(videos(folder), out, CONFIG, executor="inline")
        self.dataset = flowprep.open_dataset(out)
        self.loose = folder / "loose"
        if not (folder / "complete").exists():
            write_loose(self.dataset, self.loose)
            (folder / "complete").touch()
        # Each loader opens its own data set, so that none profits from the caches of another.
        self.mean_jpeg_bytes = statistics.mean(
            path.stat().st_size for path in sorted(self.loose.rglob("*.jpg"))[::7]
        )

    def wanted(self, clip: ClipSpec, count: int, seed: int = 0) -> list[Wanted]:
        """Draws clips and crops, as training does."""
        rng = np.random.default_rng(seed)
        drawn = []
        for _ in range(count):
            video = self.dataset.videos[int(rng.integers(len(self.dataset.videos)))]
            ((indices,),) = training_indices(
                video.num_frames, video.num_flows, [flow_input(clip)], clip, rng
            )
            crop = training_crop(video.width, video.height, clip, AugmentSpec(), rng)
            drawn.append(Wanted(video, indices, crop))
        return drawn


def flow_input(clip: ClipSpec, form: ClipForm = "stack") -> ClipInput:
    """Returns the input of a network that uses only flow."""
    return ClipInput("flow", "flow", form, clip.num_frames, clip.frame_stride)


def videos(folder: Path) -> Path:
    """Returns the folder of the videos: UCF101's videos or synthetic videos."""
    found = DATA / "ucf101" / "videos"
    if found.is_dir():
        return found
    print(f"no clips in {found}; FLOWPREP_TEST_DATA says where UCF101 is", file=sys.stderr)
    write_action_dataset(
        folder / "synthetic", num_videos_per_class=3, num_frames=150, width=340, height=256
    )
    return folder / "synthetic" / "videos"


def loose_path(folder: Path, key: str, stream: str, index: int) -> str:
    return f"{folder}/{key}/{stream}_{index:05d}.jpg"


def write_loose(dataset: FlowDataset, folder: Path) -> None:
    """Writes every JPEG of a data set to its own file, with denseflow's file names."""
    for video in dataset.videos:
        (folder / video.key).mkdir(parents=True, exist_ok=True)
        for stream in FLOW_STREAMS["forward"]:
            data, offsets = dataset._stream(video, stream, 0, video.num_flows)
            for index in range(video.num_flows):
                path = Path(loose_path(folder, video.key, stream, index))
                path.write_bytes(data[offsets[index] : offsets[index + 1]])


# ---- loaders: Wanted -> (2L, 224, 224) or (2, L, 224, 224) float32


class Shards:
    """flowprep's shards."""

    def __init__(self, bench: Bench, form: ClipForm) -> None:
        self._dataset = flowprep.open_dataset(bench.dataset.location)
        self._form = form

    def __call__(self, wanted: Wanted, clip: ClipSpec) -> Numbers:
        return load_clip(
            self._dataset,
            wanted.video,
            wanted.indices,
            wanted.crop,
            clip,
            flow_input(clip, self._form),
        )


class FirstVisits(Shards):
    """flowprep's shards, if every video is new and its `KEY.json` must be read."""

    def __call__(self, wanted: Wanted, clip: ClipSpec) -> Numbers:
        self._dataset._offsets.clear()
        self._dataset._metadata.clear()
        return super().__call__(wanted, clip)


class Loose:
    """Loose files with the rest from flowprep: its decoder, only for the crop, and its one pass."""

    def __init__(self, bench: Bench, form: ClipForm) -> None:
        self._folder, self._form = bench.loose, form

    def _read(self, wanted: Wanted) -> list[bytes]:
        files = []
        for index in wanted.indices.tolist():
            for stream in FLOW_STREAMS["forward"]:
                with open(loose_path(self._folder, wanted.video.key, stream, index), "rb") as file:
                    files.append(file.read())
        return files

    def __call__(self, wanted: Wanted, clip: ClipSpec) -> Numbers:
        return finish(decode(self._read(wanted), wanted.crop), wanted, clip, self._form)


class LooseOpenCV(Loose):
    """Loose files decoded by OpenCV. The crop and the rest are flowprep's one pass."""

    def __call__(self, wanted: Wanted, clip: ClipSpec) -> Numbers:
        x, y = int(wanted.crop.x), int(wanted.crop.y)
        files = self._read(wanted)
        planes = np.empty((len(files), 224, 224), np.uint8)
        for plane, data in zip(planes, files, strict=True):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
            plane[:] = image[y : y + 224, x : x + 224]  # type: ignore[index]
        return finish(planes, wanted, clip, self._form)


class LoosePillow(Loose):
    """A loader as users write it: Pillow, then numpy."""

    def __call__(self, wanted: Wanted, clip: ClipSpec) -> Numbers:
        crop = wanted.crop
        box = (int(crop.x), int(crop.y), int(crop.x) + 224, int(crop.y) + 224)
        images = []
        for index in wanted.indices.tolist():
            for stream in FLOW_STREAMS["forward"]:
                path = loose_path(self._folder, wanted.video.key, stream, index)
                with Image.open(path) as image:
                    images.append(np.asarray(image.crop(box)))
        # Level 127.5 is 0 px and becomes 0; levels 0 and 255 become -1 and 1.
        x = np.stack(images).astype(np.float32)
        x -= 127.5
        x *= 1 / 127.5
        if crop.flip:
            x = np.ascontiguousarray(x[..., ::-1])
            np.negative(x[::2], out=x[::2])
        if self._form == "volume":
            x = np.ascontiguousarray(x.reshape(-1, 2, 224, 224).swapaxes(0, 1))
        return x


class WholeVideos:
    """webdataset directly on the shards. A sample is a video, and one clip of it is decoded."""

    def __init__(self, bench: Bench, form: ClipForm) -> None:
        storage = Path(bench.dataset.location)
        shards = sorted({shard_name(video.shard) for video in bench.dataset.videos})
        self._urls = [str(storage / name) for name in shards]
        self._form = form

    def clips(self, clip: ClipSpec, wanted: list[Wanted]) -> Iterator[Numbers]:
        """Yields a clip of each video, in the order of the shards."""
        by_key = {one.video.key: one for one in wanted}
        options: dict[str, Any] = {"shardshuffle": False, "empty_check": False}
        for sample in webdataset.WebDataset(self._urls, **options):
            one = by_key[sample["__key__"]]
            sizes = json.loads(sample["json"])["sizes"]
            offsets = {
                stream: np.concatenate(([0], np.cumsum(sizes[stream])))
                for stream in FLOW_STREAMS["forward"]
            }
            files = [
                sample[f"{stream}.mjpg"][offsets[stream][index] : offsets[stream][index + 1]]
                for index in one.indices.tolist()
                for stream in FLOW_STREAMS["forward"]
            ]
            yield finish(decode(files, one.crop), one, clip, self._form)


class Members:
    """webdataset at its best: clips chosen in advance, with their JPEGs as members in order.

    It cannot choose clips any more, and the tar holds a field once for each clip with this field.
    """

    def __init__(self, bench: Bench, form: ClipForm) -> None:
        self._bench, self._form = bench, form

    def clips(self, clip: ClipSpec, wanted: list[Wanted]) -> Iterator[Numbers]:
        """Yields the clips in their order."""
        path = self._write(wanted)
        options: dict[str, Any] = {"shardshuffle": False, "empty_check": False}
        for one, sample in zip(wanted, webdataset.WebDataset(str(path), **options), strict=True):
            files = [
                sample[f"{stream}_{place:02d}.jpg"]
                for place in range(len(one.indices))
                for stream in FLOW_STREAMS["forward"]
            ]
            yield finish(decode(files, one.crop), one, clip, self._form)

    def _write(self, wanted: list[Wanted]) -> Path:
        path = self._bench.folder / f"members-{len(wanted)}-{len(wanted[0].indices)}.tar"
        if path.exists():
            return path
        with tarfile.open(path, "w") as tar:
            for number, one in enumerate(wanted):
                for place, index in enumerate(one.indices.tolist()):
                    for stream in FLOW_STREAMS["forward"]:
                        source = loose_path(self._bench.loose, one.video.key, stream, index)
                        tar.add(source, f"{number:06d}.{stream}_{place:02d}.jpg")
        return path


def decode(files: list[bytes], crop: Crop) -> Gray:
    """Decodes the crop of JPEGs that are separate bytes objects: (n, 224, 224) uint8."""
    ends = np.cumsum([len(data) for data in files])
    starts = np.concatenate(([0], ends[:-1]))
    planes = np.empty((len(files), 224, 224), np.uint8)
    targets = np.arange(len(files)) * (224 * 224)
    box = (int(crop.x), int(crop.y), 224, 224)
    done = jpeg.decode_planes(b"".join(files), starts, ends, planes, targets, SIZE, box)
    assert done == len(files)
    return planes


def finish(planes: Gray, wanted: Wanted, clip: ClipSpec, form: ClipForm) -> Numbers:
    """Makes a clip of (2L, 224, 224) uint8, as flowprep does."""
    length = len(wanted.indices)
    shape = (2, length, 224, 224) if form == "volume" else (2 * length, 224, 224)
    out = np.empty(shape, np.float32)
    levels.fill_crop(
        planes.reshape(length, 2, 224, 224),
        (0, 0),
        CONFIG.flow,
        out,
        form=form,
        normalization=clip.normalization,
        flip=wanted.crop.flip,
    )
    return out


LOADERS: dict[str, Any] = {
    "shards": Shards,
    "shards, first visit of each video": FirstVisits,
    "loose files, flowprep's decoder": Loose,
    "loose files, cv2.imdecode": LooseOpenCV,
    "loose files, Pillow and numpy": LoosePillow,
    "webdataset, the shards": WholeVideos,
    "webdataset, a member a JPEG": Members,
}


# ---- parts


def show_decoders(bench: Bench) -> None:
    """Prints microseconds per JPEG for each installed decoder."""
    files = [
        one for wanted in bench.wanted(STACK, 10) for one in Loose(bench, "stack")._read(wanted)
    ]
    ends = np.cumsum([len(data) for data in files])
    starts = np.concatenate(([0], ends[:-1]))
    joined = b"".join(files)
    codec = av.CodecContext.create("mjpeg", "r")
    codec.thread_count = 1
    everything = (0, 0, *SIZE)
    crop = (58, 16, 224, 224)
    outs = {box: np.empty((len(files), box[3], box[2]), np.uint8) for box in (everything, crop)}

    def ours(box: tuple[int, int, int, int]) -> Gray:
        targets = np.arange(len(files)) * (box[2] * box[3])
        assert jpeg.decode_planes(joined, starts, ends, outs[box], targets, SIZE, box)
        return outs[box]

    def opencv() -> Any:
        return [cv2.imdecode(np.frombuffer(data, np.uint8), 0) for data in files]

    decoders: dict[str, Callable[[], Any]] = {
        "flowprep, a crop of 224x224": lambda: ours(crop),
        "flowprep": lambda: ours(everything),
        "cv2.imdecode": opencv,
        "Pillow": lambda: [np.asarray(Image.open(io.BytesIO(data))) for data in files],
        "PyAV, mjpeg": lambda: [
            frame.to_ndarray(format="gray")
            for data in files
            for frame in codec.decode(av.Packet(data))
        ],
    }
    try:
        import simplejpeg

        buffer = np.empty((SIZE[1], SIZE[0], 1), np.uint8)
        decoders["simplejpeg, into a buffer"] = lambda: [
            simplejpeg.decode_jpeg(data, "GRAY", buffer=buffer) for data in files
        ]
    except ImportError:
        print("(simplejpeg is not installed)")
    assert np.array_equal(ours(everything), np.stack(opencv()))
    timings = by_turns(decoders, bench.rounds)
    print("| decoder | us a JPEG | best | cv2.imdecode : it |\n|---|---|---|---|")
    for name, seconds in timings.items():
        each = [1e6 * cpu / len(files) for cpu, _ in seconds]
        ratio = ratios(timings["cv2.imdecode"], seconds)
        print(f"| {name} | {statistics.median(each):.1f} | {min(each):.1f} | {ratio:.2f} |")


def show_stacks(bench: Bench) -> None:
    """Prints all loaders on clips of 10 fields."""
    compare(bench, STACK, "stack", 40)


def show_volumes(bench: Bench) -> None:
    """Prints all loaders on clips of 64 fields."""
    compare(bench, VOLUME, "volume", 8)


def compare(bench: Bench, clip: ClipSpec, form: ClipForm, count: int) -> None:
    """Prints the rates of all loaders on the same clips."""
    drawn = bench.wanted(clip, count)
    # For webdataset on the shards, a sample is a video. So each video is wanted once.
    once = list({one.video.key: one for one in bench.wanted(clip, 400, seed=1)}.values())
    loaders = {name: kind(bench, form) for name, kind in LOADERS.items()}
    runs: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int] = {}
    for name, loader in loaders.items():
        if isinstance(loader, (WholeVideos, Members)):
            own = once if isinstance(loader, WholeVideos) else drawn
            found = list(loader.clips(clip, own))
            if isinstance(loader, WholeVideos):
                position = {v.key: n for n, v in enumerate(bench.dataset.videos)}
                own = sorted(own, key=lambda one: position[one.video.key])
            runs[name] = functools.partial(exhaust, loader, clip, own)
        else:
            own = drawn
            found = [loader(one, clip) for one in own]
            runs[name] = functools.partial(call_all, loader, clip, own)
        counts[name] = len(own)
        for one, numbers in zip(own, found, strict=True):
            expected = loaders["shards"](one, clip)
            np.testing.assert_allclose(numbers, expected, atol=1e-5, rtol=0)
    timings = by_turns(runs, bench.rounds)
    print("| loader | clips/s of a core | best | clips/s on the clock | shards : it |")
    print("|---|---|---|---|---|")
    ours = [(cpu / counts["shards"], wall) for cpu, wall in timings["shards"]]
    for name, seconds in timings.items():
        each = [(cpu / counts[name], wall / counts[name]) for cpu, wall in seconds]
        rates = [1 / cpu for cpu, _ in each]
        on_clock = statistics.median(1 / wall for _, wall in each)
        print(
            f"| {name} | {statistics.median(rates):.0f} | {max(rates):.0f} | {on_clock:.0f} "
            f"| {ratios(each, ours):.2f} |"
        )


def show_samples(bench: Bench) -> None:
    """Prints whole samples, as training and tests use them."""
    jitter = AugmentSpec("corners-13", (1.0, 0.875, 0.75))
    segments = ClipSpec("flow", 5, num_segments=3, normalization="tsn-resnet")
    cases: dict[str, tuple[ClipSpec, AugmentSpec, ClipForm]] = {
        "10 fields": (STACK, AugmentSpec(), "stack"),
        "10 fields, mean subtracted": (
            dataclasses.replace(STACK, subtract_mean_flow=True),
            AugmentSpec(),
            "stack",
        ),
        "10 fields, trajectories": (
            dataclasses.replace(STACK, stack="trajectory"),
            AugmentSpec(),
            "stack",
        ),
        "3 segments of 5 fields, resampled (TSN)": (segments, jitter, "stack"),
        "64 fields": (VOLUME, AugmentSpec(), "volume"),
    }
    runs: dict[str, Callable[[], Any]] = {}
    for name, (clip, augment, form) in cases.items():
        config = TrainConfig(clip=clip, augment=augment, train_split="all")
        samples = TrainingClips([bench.dataset], config, [flow_input(clip, form)])
        runs[name] = functools.partial(call_positions, samples, range(8))
    views = TestViews(bench.dataset, STACK, [flow_input(STACK)], VIEWS["250"], split="all")
    runs["10 crops of 10 fields (250 views)"] = functools.partial(call_positions, views, range(8))
    timings = by_turns(runs, bench.rounds)
    print("| sample | samples/s of a core | best |\n|---|---|---|")
    for name, seconds in timings.items():
        rates = [8 / cpu for cpu, _ in seconds]
        print(f"| {name} | {statistics.median(rates):.0f} | {max(rates):.0f} |")


def show_processes(bench: Bench) -> None:
    """Prints batches of 16 from loader processes, in wall time, on all cores."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    config = TrainConfig(clip=STACK, train_split="all")
    samples = TrainingClips([bench.dataset], config, config.inputs)
    print("| loader processes | clips/s, 10 fields | seconds to the first batch |\n|---|---|---|")
    for num_loaders in (0, 1, 2):
        began = time.perf_counter()
        loader = iter(
            training_loader(
                samples, batch_size=16, first_step=0, num_steps=60, num_loaders=num_loaders
            )
        )
        next(loader)
        first = time.perf_counter() - began
        for _ in range(9):
            next(loader)
        began = time.perf_counter()
        number = sum(len(batch["label"]) for batch in loader)
        rate = number / (time.perf_counter() - began)
        print(f"| {num_loaders} | {rate:.0f} | {first:.1f} |", flush=True)
    views = TestViews(bench.dataset, STACK, [flow_input(STACK)], VIEWS["250"], split="all")
    began = time.perf_counter()
    items = list(zip(range(50), test_loader(views, num_loaders=2), strict=False))
    rate = len(items) / (time.perf_counter() - began)
    print(f"250 views, 2 processes: {10 * rate:.0f} views/s, the start included")


def show_size(bench: Bench) -> None:
    """Prints the memory of a large list of videos, in this process and as sent to others."""
    code = (
        "import sys, pickle; from processes import *; sys.path.insert(0, sys.argv[1]);"
        "from loader import large_list, resident_mb; before = resident_mb();"
        "videos = large_list(sys.argv[2], 100_000); size = resident_mb() - before;"
        "print(f'{size:.0f} MB resident, {len(pickle.dumps(videos)) / 1e6:.0f} MB sent')"
    )
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, folder, bench.dataset.location]
    environment = os.environ | {"PYTHONPATH": folder}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    print(f"100,000 videos: {result.stdout.strip()}")
    config = TrainConfig(clip=STACK, train_split="all")
    samples = TrainingClips([bench.dataset], config, config.inputs)
    print(f"training samples of {samples.num_videos} videos: {len(pickle.dumps(samples))} bytes")


def large_list(location: str, count: int) -> VideoList:
    """Returns a list of this many videos, made from the videos of a data set."""
    known = list(flowprep.open_dataset(location).videos)
    return VideoList(
        dataclasses.replace(known[n % len(known)], key=f"class_{n % 400}/v_{n:011d}_000010_000020")
        for n in range(count)
    )


def resident_mb() -> float:
    """Returns the resident memory of this process in MB."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if "VmRSS" in line) / 1000


# ---- measuring


def call_all(loader: Any, clip: ClipSpec, wanted: list[Wanted]) -> None:
    for one in wanted:
        loader(one, clip)


def exhaust(loader: Any, clip: ClipSpec, wanted: list[Wanted]) -> None:
    for _ in loader.clips(clip, wanted):
        pass


def call_positions(samples: Any, positions: range) -> None:
    for position in positions:
        samples[position]


def by_turns(
    runs: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Returns the processor and wall seconds of each run. Every run runs once per round."""
    timings: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            if number:  # The first round only fills caches.
                timings[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return timings


def ratios(theirs: list[tuple[float, float]], ours: list[tuple[float, float]]) -> float:
    """Returns the median of the rounds' ratios of processor time."""
    return statistics.median(a / b for (a, _), (b, _) in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
