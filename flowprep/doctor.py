"""What a machine can do: versions, devices, decoders, folders, and how fast each backend is.

Nothing here may fail. If a probe raises an error, the error becomes a line of the output.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import statistics
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowprep._version import __version__
from flowprep.extras import install_command
from flowprep.printable import join_lines

if TYPE_CHECKING:
    from flowprep.synthetic import Scene

__all__ = ["Fact", "Section", "examine", "exit_code", "verdict"]

Status = Literal["ok", "absent", "unsupported", "broken"]

WIDTH_PX, HEIGHT_PX = 340, 256
MOTION_PX = 3.0
"""Motion of the timed pair, in px to the left."""
MAX_ERROR_PX = 0.5
"""Largest median endpoint error in px. Above it, an estimator counts as broken. Working estimators
have about 0.05."""
NUM_WARM_SECONDS = 1.0
"""How long a backend is timed. At least one pair is timed. The first pair is not timed."""
NUM_GPU_PAIRS = 48
"""Number of pairs that are timed together on a GPU, because a GPU computes them in batches."""
_NAME_COLUMNS = 16
_TEXT_COLUMNS = 80


@dataclass(frozen=True)
class Fact:
    """One thing that was examined."""

    name: str
    text: str
    """What was found, or what is wrong and how to correct it."""
    status: Status = "ok"
    """`absent`: something that extraction does not need. `unsupported`: a version of a package that
    flowprep was not made for. It may work or not."""
    values: dict[str, Any] = field(default_factory=dict)
    """Numbers for `--json`."""

    def lines(self) -> list[str]:
        """Returns the fact as lines for a terminal of 80 columns."""
        mark = {"ok": "", "absent": "- ", "unsupported": "NOT SUPPORTED: ", "broken": "BROKEN: "}
        return textwrap.wrap(
            mark[self.status] + self.text,
            _TEXT_COLUMNS,
            initial_indent=f"  {self.name:{_NAME_COLUMNS}} ",
            subsequent_indent=" " * (_NAME_COLUMNS + 3),
            break_on_hyphens=False,
        )


@dataclass(frozen=True)
class Section:
    """The facts of one kind."""

    title: str
    facts: tuple[Fact, ...]

    def summary(self) -> str:
        """Returns the section as lines of text."""
        return join_lines([self.title, *(line for one in self.facts for line in one.lines())])

    def to_dict(self) -> dict[str, Any]:
        """Returns the section as JSON values."""
        return {
            "title": self.title,
            "findings": [
                {"name": one.name, "status": one.status, "text": one.text, **one.values}
                for one in self.facts
            ],
        }


def examine() -> Iterator[Section]:
    """Examines this machine section by section. The last section takes some seconds."""
    for title, probe in (
        ("Versions", _versions),
        ("Machine", _machine),
        ("GPUs", _gpus),
        ("Decoders", _decoders),
        ("Extraction", _extraction),
        ("Folders", _folders),
        ("Extras", _extras),
        (f"Frame pairs at {WIDTH_PX}x{HEIGHT_PX}, forward and backward", _backends),
    ):
        yield Section(title, tuple(_guarded(title, probe)))


def exit_code(sections: Sequence[Section]) -> int:
    """Returns 0 if extraction works, 1 if something that extraction needs is broken."""
    return int(any(one.status == "broken" for section in sections for one in section.facts))


def verdict(sections: Sequence[Section]) -> str:
    """Returns a sentence on whether extraction works."""
    broken, unsupported = _names(sections, "broken"), _names(sections, "unsupported")
    if broken:
        return f"EXTRACTION DOES NOT WORK HERE: {broken}; see what is BROKEN above"
    if unsupported:
        return f"extraction works here, with versions that are not supported: {unsupported}"
    return "extraction works on this machine"


def _names(sections: Sequence[Section], status: Status) -> str:
    return ", ".join(
        one.name for section in sections for one in section.facts if one.status == status
    )


def _guarded(name: str, probe: Callable[[], Iterator[Fact]]) -> Iterator[Fact]:
    """Yields a probe's facts. If an error ends the probe, the error is yielded as one more fact."""
    try:
        yield from probe()
    except Exception as error:
        yield Fact(name.lower(), f"cannot be found out: {_words(error)}", "absent")


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text if name == "ConfigError" else f"{name}: {text}" if text else name


# ---- versions


_NEEDED = {
    "numpy": "numpy",
    "numba": "numba",
    "OpenCV": "cv2",
    "PyAV": "av",
    "Pillow": "PIL",
    "Ray": "ray",
    "fsspec": "fsspec",
}


_NONFREE = b"nonfree and unredistributable"


def _versions() -> Iterator[Fact]:
    yield Fact("flowprep", f"{__version__} in {Path(__file__).parent}")
    yield Fact("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, module in _NEEDED.items():
        try:
            imported: Any = importlib.import_module(module)
            text = str(imported.__version__)
            if module == "av":
                ffmpeg = getattr(imported, "ffmpeg_version_info", None)
                text += "" if ffmpeg is None else f" with FFmpeg {ffmpeg}"
            wanted = _supported(_package(module), str(imported.__version__))
            if wanted is not None:
                text += f"; flowprep needs {wanted}: run `pip install '{wanted}'`"
            status: Status = "ok" if wanted is None else "unsupported"
            yield Fact(name, text, status, {"version": str(imported.__version__)})
        except Exception as error:
            remedy = f"install it again with `pip install --force-reinstall {_package(module)}`"
            yield Fact(name, f"cannot be imported ({_words(error)}); {remedy}", "broken")
    for name, package in (("decord", "decord"), ("PyTorch", "torch")):
        try:
            text = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Fact(name, "not installed", "absent")
            continue
        yield Fact(name, text + (_decord_remark() if package == "decord" else ""))


def _decord_remark() -> str:
    """Returns where decord is, and the license that the FFmpeg in its wheel reports."""
    distribution = importlib.metadata.distribution("decord")
    text = f" in {distribution.locate_file('decord')}"
    for file in distribution.files or ():
        # FFmpeg's av_license returns a text of libavutil/version.h.
        if file.name.startswith("libavutil") and _NONFREE in Path(str(file.locate())).read_bytes():
            return (
                f"{text}; its FFmpeg reports the license {_NONFREE.decode()!r}: run `pip uninstall "
                "decord` before you pass on this environment"
            )
    return text


def _supported(package: str, version: str) -> str | None:
    """Returns flowprep's requirement for a package if `version` does not meet it, else None."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("flowprep") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        if requirement.name == package and not fits:
            return f"{package}{requirement.specifier}"
    return None


def _package(module: str) -> str:
    return {"cv2": "opencv-contrib-python-headless", "PIL": "pillow"}.get(module, module)


# ---- machine


def _machine() -> Iterator[Fact]:
    from flowprep.machine import cpu_model, cpu_vectors, usable_cores, usable_memory_bytes
    from flowprep.words import format_bytes

    cores, there = usable_cores(), os.cpu_count() or 1
    yield Fact("host", socket.gethostname())
    yield Fact("processor", cpu_model())
    yield Fact("cores", f"{cores} usable of {there}", values={"usable": cores, "cores": there})
    yield Fact("vectors", f"{cpu_vectors()}, for the native estimators")
    memory = usable_memory_bytes()
    text = "unknown" if memory is None else format_bytes(memory)
    yield Fact("memory", text, values={"bytes": memory})


def _gpus() -> Iterator[Fact]:
    from flowprep.flow.devices import cuda_state, driver_release, why_no_cuda
    from flowprep.words import format_bytes

    state = cuda_state()
    if state.driver is not None:
        version = ".".join(map(str, state.driver.cuda_version))
        release = f", release {driver_release()}" if driver_release() else ""
        yield Fact("NVIDIA's driver", f"supports CUDA up to {version}{release}")
    if state.torch_cuda or state.torch_hip:
        built = f"CUDA {state.torch_cuda}" if state.torch_cuda else f"ROCm {state.torch_hip}"
        yield Fact("PyTorch", f"{state.torch_version}, built for {built}")
    gpus = state.gpus or (() if state.driver is None else state.driver.gpus)
    for index, gpu in enumerate(gpus):
        capability = gpu.compute_capability
        generation = "" if capability is None else ", compute capability {}.{}".format(*capability)
        text = f"{gpu.name}, {format_bytes(gpu.memory_bytes)}{generation}"
        reason = why_no_cuda(state, index)
        remark = "" if reason is None else f"; not usable: {reason}"
        values = {"gpu": gpu.name, "memory_bytes": gpu.memory_bytes}
        yield Fact(f"cuda:{index}", text + remark, "absent" if reason else "ok", values)
        if reason is None and state.torch_cuda:
            yield from _guarded("CUDA kernel", partial(_kernel_trial, index))
    if not gpus:
        yield Fact("none", str(why_no_cuda(state)), "absent")


def _kernel_trial(index: int) -> Iterator[Fact]:
    """Says whether TV-L1's CUDA kernel is used on a card. Its trial takes seconds once."""
    from flowprep.flow.trust import kernel_verdict

    found = kernel_verdict(index)
    text, values = f"of TV-L1 on cuda:{index}, {found.use}", {"is_trusted": found.is_trusted}
    yield Fact("CUDA kernel", text, "ok" if found.is_trusted else "absent", values)


# ---- decoders


_NUM_FRAMES = 8


@contextmanager
def _test_clip() -> Iterator[tuple[Path, Scene]]:
    """Yields a small video and its known scene. The folder of the video is removed at the end."""
    from flowprep.synthetic import action_scene, write_video

    with tempfile.TemporaryDirectory(prefix="flowprep-") as folder:
        path = Path(folder, "clip.mp4")
        scene = action_scene("move_left", num_frames=_NUM_FRAMES, width=64, height=48, seed=0)
        write_video(path, (scene.frame(t) for t in range(_NUM_FRAMES)))
        yield path, scene


def _decoders() -> Iterator[Fact]:
    from flowprep.config import DecodeSpec, Resize
    from flowprep.inputs.video import Video
    from flowprep.video.decode import DECODERS, open_video

    with _test_clip() as (path, scene):
        for name in DECODERS:
            # PyAV is the default decoder, and gives the number of frames for the others.
            status: Status = "broken" if name == "pyav" else "absent"
            try:
                spec = DecodeSpec(decoder=name, resize=Resize.parse("none"))  # type: ignore[arg-type]
                with open_video(Video("clip", str(path)), spec) as reader:
                    frames = [frame.rgb for frame in reader]
                error_levels = max(
                    float(np.abs(frame.astype(int) - scene.frame(t)).mean())
                    for t, frame in enumerate(frames)
                )
                if len(frames) != _NUM_FRAMES or error_levels > 16:
                    yield Fact(name, f"decodes {_NUM_FRAMES} frames wrongly", status)
                else:
                    yield Fact(name, f"decodes H.264 ({_NUM_FRAMES} frames of a test clip)")
            except Exception as error:
                yield Fact(name, _words(error), status)


def _extraction() -> Iterator[Fact]:
    """Does the work of an extraction: a clip becomes a part, and the part becomes a shard."""
    import cv2

    from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize
    from flowprep.dataset.layout import read_sidecar
    from flowprep.inputs.video import Video
    from flowprep.run.job import ExtractJob, JobResult, PublishJob
    from flowprep.run.run_job import run_job
    from flowprep.storage import Storage
    from flowprep.words import format_bytes

    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    num_threads = cv2.getNumThreads()
    try:
        with _test_clip() as (path, _):
            storage = Storage(path.parent / "out")
            done = run_job(
                ExtractJob(
                    storage=storage,
                    config=config,
                    video=Video("clip", str(path)),
                    shard=0,
                    index=0,
                    attempt=1,
                    stall_timeout_seconds=None,
                )
            )
            assert isinstance(done, JobResult)
            if done.record is None or done.record.status == "failed":
                why = done.error if done.record is None else done.record.message
                yield Fact("clip", f"cannot be extracted: {why}", "broken")
                return
            joined = run_job(PublishJob(storage, 0, (0,)))
            if isinstance(joined, JobResult) and joined.error is not None:
                raise joined.error
            num_bytes = read_sidecar(storage, 0).size
            yield Fact(
                "clip",
                f"{done.record.num_frames} frames gave {done.record.num_flows} flows per direction "
                f"and a shard of {format_bytes(num_bytes)}",
            )
    except Exception as error:
        yield Fact("clip", f"cannot be extracted: {_words(error)}", "broken")
    finally:
        cv2.setNumThreads(num_threads)


# ---- folders and extras


def _folders() -> Iterator[Fact]:
    from flowprep.flow.cache import CACHE_VARIABLE
    from flowprep.flow.kernel import cache_folder
    from flowprep.words import format_bytes

    folder = cache_folder()
    if folder is None:
        text = (
            "no folder can be written to, so every process compiles for half a minute; name a "
            f"folder in {CACHE_VARIABLE}"
        )
        yield Fact("kernels", text, "absent")
    else:
        count = sum(1 for _ in folder.glob("*.nb*"))
        yield Fact("kernels", f"{folder} ({count} files, writable)")
    temporary = tempfile.gettempdir()
    free = shutil.disk_usage(temporary).free
    try:
        with tempfile.TemporaryFile(dir=temporary) as file:
            file.write(b"x" * 4096)
        yield Fact("temporary", f"{temporary} ({format_bytes(free)} free, writable)")
    except OSError as error:
        text = f"{temporary} cannot be written to ({_words(error)}); name another in TMPDIR"
        yield Fact("temporary", text, "broken")


def _extras() -> Iterator[Fact]:
    needed: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("flowprep") or ():
        requirement, _, marker = line.partition(";")
        if match := re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker):
            name = re.match(r"[\w.-]+", requirement.strip())
            needed.setdefault(match[1], []).append(name[0] if name else requirement)
    for extra, packages in sorted(needed.items()):
        missing = [package for package in dict.fromkeys(packages) if not _is_installed(package)]
        if missing:
            text = f"missing: {', '.join(missing)}; run {install_command(extra)}"
            yield Fact(extra, text, "absent", {"missing": missing})
        else:
            yield Fact(extra, "installed")


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# ---- backends


def _backends() -> Iterator[Fact]:
    import cv2

    from flowprep.flow.devices import cuda_state, why_no_cuda
    from flowprep.flow.estimators import device_kinds, resolve_device
    from flowprep.flow.parameters import PARAMETERS
    from flowprep.synthetic import textured_image

    wide = textured_image(HEIGHT_PX, WIDTH_PX + int(MOTION_PX), 0)
    images = {"rgb": wide, "gray": np.asarray(cv2.cvtColor(wide, cv2.COLOR_RGB2GRAY), np.uint8)}
    gpus = [f"cuda:{index}" for index in range(len(cuda_state().gpus))]
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for algorithm in (name for name, kind in PARAMETERS.items() if not kind.takes_weights):
            kinds = device_kinds(algorithm)
            devices = ["cpu"]
            if "cuda" in kinds:
                devices += [name for name in gpus if why_no_cuda(cuda_state()) is None]
            if "mps" in kinds:
                with contextlib.suppress(Exception):
                    devices.append(str(resolve_device("mps", algorithm)))
            if "torch-cpu" in kinds and _is_installed("torch"):
                devices.append("torch-cpu")
            for device in devices:
                yield _time_backend(algorithm, device, images)
    finally:
        cv2.setNumThreads(num_threads)


def _time_backend(algorithm: str, device: str, images: Mapping[str, NDArray[np.uint8]]) -> Fact:
    """Times one backend on a picture that moves.

    `images` has this picture in gray and in RGB. It is wider than a frame by the motion.
    """
    from flowprep.flow import build_estimator
    from flowprep.flow.parameters import PARAMETERS

    # Every run needs the native and the OpenCV estimators, which work on the CPU.
    failed: Status = "broken" if device == "cpu" else "absent"
    try:
        estimator = build_estimator(algorithm, PARAMETERS[algorithm](), device)
        num_pairs = 1 if device in ("cpu", "torch-cpu") else NUM_GPU_PAIRS
        image = images[estimator.frames]
        frames = [
            np.ascontiguousarray(image[:, int(MOTION_PX) * (t % 2) :][:, :WIDTH_PX])
            for t in range(num_pairs + 1)
        ]
        first = next(iter(estimator.pairs(frames)))
        assert first.forward is not None
        assert first.backward is not None
        motion = np.array([-MOTION_PX, 0], np.float32)
        errors_px = [
            float(np.median(np.linalg.norm(field - truth, axis=-1)))
            for field, truth in ((first.forward, motion), (first.backward, -motion))
        ]
        if not max(errors_px) <= MAX_ERROR_PX:
            text = f"wrong by {max(errors_px):.2f} px on a picture that moves {MOTION_PX:g} px"
            return Fact(f"{algorithm}", f"{device}: {text}", failed)
        seconds: list[float] = []
        while not seconds or (sum(seconds) < NUM_WARM_SECONDS and len(seconds) < 20):
            began = time.perf_counter()
            for _ in estimator.pairs(frames):
                pass
            seconds.append(time.perf_counter() - began)
        rate = num_pairs / statistics.median(seconds)
    except Exception as error:
        return Fact(algorithm, f"{device}: {_words(error)}", failed, {"device": device})
    name = type(estimator).__name__
    unit = "a core" if device == "cpu" else ""
    text = f"{rate:9.{1 if rate >= 1 else 3}f} pairs/s {unit:7} {device:9}  {name}"
    values = {"device": device, "estimator": name, "pairs_per_second": round(rate, 2)}
    return Fact(algorithm, text, values=values)
