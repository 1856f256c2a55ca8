"""The trees of images that other projects write and read: file names, first numbers and sources.

A layout says how the files of one video are named. `export.py` writes such trees and
`import_tree.py` reads them. `safe_component` makes paths from keys and class names. So nothing is
written outside the target folder, even if a data set has hostile names.
"""

from __future__ import annotations

import hashlib
import re
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowprep.config import Direction, FlowSpec
from flowprep.inputs.keys import unescape_key

if TYPE_CHECKING:
    from flowprep.dataset.video_list import StoredVideo

__all__ = [
    "EXPORT_FILE",
    "IMPORTABLE_LAYOUTS",
    "LAYOUTS",
    "LISTS_FOLDER",
    "RGB_FORMATS",
    "VIDEOS_FILE",
    "FileKind",
    "FormatName",
    "ParsedName",
    "Stream",
    "TreeLayout",
    "Values",
    "safe_component",
    "video_paths",
]

FormatName = Literal["jpg", "zip", "flo", "npy", "npz", "hdf5", "webdataset"]
Values = Literal["px", "levels"]
Axis = Literal["x", "y"]
Stream = Literal[Axis, "rgb"]

EXPORT_FILE = "flowprep.json"
"""Says what an export of flowprep holds, and how its levels become px."""
VIDEOS_FILE = "flowprep-videos.jsonl"
"""Lists the videos of an export, one per line."""
LISTS_FOLDER = "lists"
"""The folder of an export that holds its frame lists."""

RGB_FORMATS: frozenset[FormatName] = frozenset({"jpg", "zip", "webdataset"})
"""The file formats that have a place for RGB frames."""

_FLOW_FORMATS: tuple[FormatName, ...] = ("jpg", "flo", "npy", "npz", "hdf5", "webdataset")

# A file name can have 255 bytes. A layout adds a number and an extension to the component.
_MAX_COMPONENT_BYTES = 200
# Blanks end a path in a frame list. The others have a meaning in a shell, a file system or a URL.
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\u2028-\u202f\ufeff%/\\:*?\"'<>|`$#;&]|\s")
_UNSAFE_BEGIN = frozenset(".-~")
_OWN_NAMES = frozenset({LISTS_FOLDER, EXPORT_FILE, VIDEOS_FILE})


@dataclass(frozen=True, slots=True)
class FileKind:
    """The content of one file of a video."""

    stream: Stream
    direction: Direction = "forward"
    step: int = 1


@dataclass(frozen=True, slots=True)
class ParsedName:
    """The parts of a file name in a tree."""

    kind: FileKind
    number: int
    """The number in the name, which counts from the layout's first number."""


class TreeLayout(ABC):
    """How one project names the files of a video."""

    formats: tuple[FormatName, ...] = _FLOW_FORMATS
    """File formats that an export may have. The first is the project's own format."""
    first_number = 1
    """The number of the first flow and of the first frame."""
    accepted_first_numbers: tuple[int, ...] = (1,)
    """The first numbers that an import accepts."""
    leaves_out_first_frame = False
    """Whether such trees may come from dense_flow, which stores no image of the first frame."""
    num_digits = 5
    is_flat = False
    """Whether videos have no class folders."""
    has_flow = True
    assumed_bound_px: float | None = 20.0
    """The flow in px that level 255 means to the project. None if its user chooses the bound."""
    assumed_zero = "128"
    """The level that the project reads as 0 px."""
    path_prefix_is_absolute = False
    """Whether lists name absolute paths, because the reader puts no folder before them."""
    names_direction_and_step = False
    """Whether file names mark backward flow and longer steps."""
    reads_every_label = False
    """Whether the project reads all labels of a line in a frame list, not only the first."""
    list_kind: Literal["lines", "charades"] = "lines"
    """The form of its frame lists: `PATH COUNT LABEL` lines, or Charades' JSON."""

    @abstractmethod
    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        """Returns the path of a flow image below the tree. `index` is 0-based."""

    @abstractmethod
    def frame_file(self, path: str, index: int) -> str:
        """Returns the path of an RGB frame below the tree. `index` is 0-based."""

    @abstractmethod
    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        """Returns the path of the video, and what the file holds. None for any other file."""

    def folders(self, path: str) -> tuple[str, ...]:
        """Returns the folders below the tree that may hold the files of a video."""
        return (path,)

    def extra_files(self, path: str, video: StoredVideo, spec: FlowSpec) -> dict[str, bytes]:
        """Returns the other files that the project writes for a video."""
        return {}

    def zip_member(self, stream: Stream, index: int) -> str:
        """Returns the name in `flow_x.zip`, `flow_y.zip` or `img.zip`.

        The names are `x_%05d.jpg`, `y_%05d.jpg` and `img_%05d.jpg`, from 1 on (yjxiong/dense_flow,
        tools/extract_flow_gpu.cpp).
        """
        return f"{'img' if stream == 'rgb' else stream}_{index + 1:05d}.jpg"


class _OneFolder(TreeLayout):
    """All images of a video in one folder: `flow_x_00001.jpg`, `flow_y_00001.jpg`, `img_...`."""

    _flow = re.compile(r"flow_([xy])_([0-9]{5,})\.jpe?g")
    _frame = re.compile(r"img_([0-9]{5,})\.jpe?g")

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        return f"{path}/flow_{axis}_{index + self.first_number:0{self.num_digits}d}.jpg"

    def frame_file(self, path: str, index: int) -> str:
        return f"{path}/img_{index + self.first_number:0{self.num_digits}d}.jpg"

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        path, _, name = file.rpartition("/")
        if match := self._frame.fullmatch(name):
            return path, ParsedName(FileKind("rgb"), int(match[1]))
        if match := self._flow.fullmatch(name):
            stream: Stream = "x" if match[1] == "x" else "y"
            return path, ParsedName(FileKind(stream), int(match[2]))
        return None


class MMAction2(_OneFolder):
    """mmaction2's rawframes: `CLASS/VIDEO/flow_x_00001.jpg`.

    Frames and lists follow mmaction/datasets/rawframe_dataset.py (`filename_tmpl='img_{:05}.jpg'`,
    `start_index=1`, lists `DIR TOTAL_FRAMES LABEL ...`). Flow is `flow_{}_{:05d}.jpg`. SampleFrames
    in transforms/loading.py reads the numbers `start_index` to `start_index + total_frames - 1`.
    Therefore a list of flow gives the number of flows (tools/data/build_file_list.py counts the
    files). Flow configurations also read `x_00001.jpg`. tools/data/build_rawframes.py calls
    denseflow, whose trees begin at 0. An import accepts both.
    """

    formats = ("jpg", "zip", *_FLOW_FORMATS[1:])
    accepted_first_numbers = (0, 1)
    leaves_out_first_frame = True
    reads_every_label = True
    _flow = re.compile(r"(?:flow_)?([xy])_([0-9]{5,})\.jpe?g")


class TSN(_OneFolder):
    """Temporal segment networks: `VIDEO/flow_x_00001.jpg`.

    Sources in yjxiong/temporal-segment-networks: tools/build_of.py calls dense_flow
    (`OUT/VIDEO/{flow_x,flow_y,img}` with `_%05d.jpg` from 1 on), and tools/build_file_list.py
    writes `PATH NUM LABEL`, with labels from 0 and the number of flows in a list of flow.
    dataset.py of yjxiong/tsn-pytorch opens the listed path unchanged. TSN's own extraction leaves
    out the image of the first frame. This export does not.
    """

    formats = ("jpg", "zip", *_FLOW_FORMATS[1:])
    is_flat = True
    leaves_out_first_frame = True
    path_prefix_is_absolute = True


class TSM(_OneFolder):
    """Temporal shift module: `CLASS/VIDEO/flow_x_00001.jpg`.

    Sources are ops/dataset.py and ops/dataset_config.py in mit-han-lab/temporal-shift-module. The
    template for UCF101 and HMDB51 is `flow_{}_{:05d}.jpg`. Lists are `PATH NUM LABEL` below
    `root_path`, with the numbers 1 to NUM. TSM skips videos with NUM below 3. This export does not
    write the template of Something-Something, `{:06d}-{}_{:05d}.jpg`, because the names of its
    folders must be numbers.
    """

    formats = ("jpg", "zip", *_FLOW_FORMATS[1:])
    leaves_out_first_frame = True
    assumed_zero = "127.5"


class DenseFlow(_OneFolder):
    """denseflow: `CLASS/VIDEO/flow_x_00000.jpg`, from 0 on, N frames and N - step flows.

    Sources in open-mmlab/denseflow: writeFlowImages in src/utils.cpp writes `_%05d`, `_p2_%05d` for
    step 2, and `_m1_%05d` for backward flow, numbered by the frame where the flow starts.
    src/denseflow_gpu.cpp writes `.done/CLASS/VIDEO`, an empty file for each finished video. The
    option `-b` is the bound.
    """

    first_number = 0
    accepted_first_numbers = (0,)
    assumed_bound_px = None
    names_direction_and_step = True
    _flow = re.compile(r"flow_([xy])(?:_([pm])([0-9]{1,4}))?_([0-9]{5,})\.jpe?g")

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        if kind.direction == "backward":
            return f"{path}/flow_{axis}_m{kind.step}_{index + kind.step:05d}.jpg"
        middle = f"p{kind.step}_" if kind.step > 1 else ""
        return f"{path}/flow_{axis}_{middle}{index:05d}.jpg"

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        path, _, name = file.rpartition("/")
        if (match := self._flow.fullmatch(name)) is None:
            return super().parse(file) if name.startswith("img_") else None
        stream: Stream = "x" if match[1] == "x" else "y"
        step = int(match[3] or 1)
        number = int(match[4])
        if match[2] != "m":
            return path, ParsedName(FileKind(stream, "forward", step), number)
        return path, ParsedName(FileKind(stream, "backward", step), number - step)

    def extra_files(self, path: str, video: StoredVideo, spec: FlowSpec) -> dict[str, bytes]:
        return {f".done/{path}": b""}


class GpuFlow(TreeLayout):
    """gpu_flow: `u/VIDEO/frame000001.jpg`, `v/VIDEO/frame000001.jpg`, frames in `jpegs_256`.

    compute_flow.cpp in feichtenhofer/gpu_flow writes `frame%06d.jpg` from 1 on, N frames and N - 1
    flows, with VIDEO in its folders. It also writes `u/VIDEO.bin` with the range of each flow as
    four float32: the minimum and maximum of u, then of v (in gpu_flow always -20, 20, -20, 20).
    gpu_flow has no lists, so this export writes them in TSN's form.
    """

    formats = ("jpg",)
    num_digits = 6

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        return f"{'u' if axis == 'x' else 'v'}/{path}/frame{index + 1:06d}.jpg"

    def folders(self, path: str) -> tuple[str, ...]:
        return (f"u/{path}", f"v/{path}", f"jpegs_256/{path}")

    def frame_file(self, path: str, index: int) -> str:
        return f"jpegs_256/{path}/frame{index + 1:06d}.jpg"

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        match = re.fullmatch(r"(u|v|jpegs_256)/(.+)/frame([0-9]{6,})\.jpe?g", file, re.DOTALL)
        if match is None:
            return None
        streams: dict[str, Stream] = {"u": "x", "v": "y", "jpegs_256": "rgb"}
        return match[2], ParsedName(FileKind(streams[match[1]]), int(match[3]))

    def extra_files(self, path: str, video: StoredVideo, spec: FlowSpec) -> dict[str, bytes]:
        bound = spec.bound_px
        one = struct.pack("<4f", -bound, bound, -bound, bound)
        return {f"u/{path}.bin": one * video.num_flows}


class PytorchI3D(TreeLayout):
    """pytorch-i3d's Charades: `flow/VID/VID-000001x.jpg`, `rgb/VID/VID-000001.jpg`.

    charades_dataset.py in piergiaj/pytorch-i3d reads numbers of six digits, from 1 on. It takes
    half the number of files in VID as the number of flows, so frames need their own root. It reads
    a JSON file with `subset`, `duration` and `actions` ([class, start, end] in seconds), and skips
    videos with fewer than 66 flows. train_i3d.py reads only the subsets `training` and `testing`.
    """

    list_kind = "charades"
    formats = ("jpg",)
    num_digits = 6
    is_flat = True
    assumed_zero = "127.5"

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        return f"flow/{path}/{path}-{index + 1:06d}{axis}.jpg"

    def folders(self, path: str) -> tuple[str, ...]:
        return (f"flow/{path}", f"rgb/{path}", path)

    def frame_file(self, path: str, index: int) -> str:
        return f"rgb/{path}/{path}-{index + 1:06d}.jpg"

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        match = re.fullmatch(
            r"(?:(?:flow|rgb)/)?([^/]+)/\1-([0-9]{6,})([xy]?)\.jpe?g", file, re.DOTALL
        )
        if match is None:
            return None
        streams: dict[str, Stream] = {"x": "x", "y": "y", "": "rgb"}
        return match[1], ParsedName(FileKind(streams[match[3]]), int(match[2]))


class Frames(_OneFolder):
    """Only RGB frames: `CLASS/VIDEO/img_00001.jpg`, as mmaction2, TSN and TSM read them."""

    formats = ("jpg", "zip", "webdataset")
    has_flow = False
    reads_every_label = True


LAYOUTS: dict[str, TreeLayout] = {
    "mmaction2": MMAction2(),
    "tsn": TSN(),
    "tsm": TSM(),
    "gpu-flow": GpuFlow(),
    "pytorch-i3d": PytorchI3D(),
    "denseflow": DenseFlow(),
    "frames": Frames(),
}
"""The layouts by name."""

IMPORTABLE_LAYOUTS = tuple(name for name, layout in LAYOUTS.items() if layout.has_flow)
"""The layouts that `flowprep import` reads."""


# ---- paths


def safe_component(name: str) -> str:
    """Returns a name as a safe path component: unsafe characters become %XX, long names are cut.

    The result is never empty, `.` or `..`. It has no slash, blank or control character, does not
    begin with `.` or `-`, and takes at most 200 bytes. Two names never give the same result, unless
    the results have to be cut to 200 bytes. A cut result ends in 64 bits of its BLAKE2 hash.
    """
    escaped = _UNSAFE.sub(lambda match: _percent(match[0]), name)
    if not escaped:
        return "%"
    if escaped[0] in _UNSAFE_BEGIN:
        escaped = _percent(escaped[0]) + escaped[1:]
    if escaped.endswith("."):  # some file systems drop a dot at the end
        escaped = escaped[:-1] + "%2E"
    return _cut(escaped)


def video_paths(
    videos: Sequence[StoredVideo], class_names: Sequence[str], layout: TreeLayout
) -> list[str]:
    """Returns the path of each video in a tree.

    `videos` are all videos of the data set, so a path does not depend on which videos are exported.
    The path is the key, preceded by the class name if no folder in the key has this name. In a flat
    layout the path is only the last part of the key. If two videos would get the same path, the
    paths of all videos are whole keys.
    """
    name: Callable[[StoredVideo], str]
    choices: list[Callable[[StoredVideo], str]] = [_joined_key if layout.is_flat else _key_path]
    if layout.is_flat:
        choices.insert(0, _last_part)
    elif class_names:
        choices.insert(0, lambda video: _class_path(video, class_names))
    for name in choices:
        paths = [name(video) for video in videos]
        counts = Counter(path.casefold() for path in paths)
        if len(counts) == len(paths):
            break
    return paths


def _percent(text: str) -> str:
    # A surrogate that represents no byte can only come from a forged class name.
    is_byte = "\udc80" <= text <= "\udcff"
    data = text.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)


def _cut(component: str) -> str:
    data = component.encode()
    if len(data) <= _MAX_COMPONENT_BYTES:
        return component
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: _MAX_COMPONENT_BYTES - 17].decode(errors='ignore')}~{digest}"


def _parts(key: str) -> list[str]:
    parts = [safe_component(part) for part in unescape_key(key).split("/")]
    if parts[0].casefold() in _OWN_NAMES:
        parts[0] = _percent(parts[0][0]) + parts[0][1:]
    return parts


def _key_path(video: StoredVideo) -> str:
    return "/".join(_parts(video.key))


def _last_part(video: StoredVideo) -> str:
    return _parts(video.key.rpartition("/")[2])[0]


def _joined_key(video: StoredVideo) -> str:
    return _cut("%2F".join(_parts(video.key)))


def _class_path(video: StoredVideo, class_names: Sequence[str]) -> str:
    path = _key_path(video)
    label = video.label
    if label is None or not 0 <= label < len(class_names):
        return path
    folder = safe_component(str(class_names[label]))
    if folder.casefold() in _OWN_NAMES:
        folder = _percent(folder[0]) + folder[1:]
    return path if folder in path.split("/")[:-1] else f"{folder}/{path}"
