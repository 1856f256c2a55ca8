"""The trees of images that other projects write and read: file names, first numbers and sources.

A layout says how the files of one video are named. `export.py` writes such trees and
`import_tree.py` reads them.
"""

from __future__ import annotations

import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowprep.config import Direction, FlowSpec

if TYPE_CHECKING:
    from flowprep.dataset.video_list import StoredVideo

__all__ = [
    "EXPORT_FILE",
    "IMPORTABLE_LAYOUTS",
    "LAYOUTS",
    "RGB_FORMATS",
    "VIDEOS_FILE",
    "FileKind",
    "FormatName",
    "ParsedName",
    "Stream",
    "TreeLayout",
    "Values",
    "layout_of",
]

FormatName = Literal["jpg", "zip", "flo", "npy", "npz", "hdf5", "webdataset"]
Values = Literal["px", "levels"]
Axis = Literal["x", "y"]
Stream = Literal[Axis, "rgb"]
FlatLists = Literal["ucf101"]
ListKind = Literal["lines", "charades", "slowfast"]

EXPORT_FILE = "flowprep.json"
"""Says what an export of flowprep holds, and how its levels become px (`export_state.py`)."""
VIDEOS_FILE = "flowprep-videos.jsonl"
"""Lists the videos of an export, one per line."""

RGB_FORMATS: frozenset[FormatName] = frozenset({"jpg", "zip", "webdataset"})
"""The file formats that have a place for RGB frames."""

_FLOW_FORMATS: tuple[FormatName, ...] = ("jpg", "flo", "npy", "npz", "hdf5", "webdataset")


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
    """Whether all videos are in one folder, by the last part of their keys."""
    has_class_folders = True
    """Whether a class folder comes before a key that names no class."""
    keeps_blanks = False
    """Whether names keep their blanks. Readers that split lists at blanks do not allow them."""
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
    list_kind: ListKind = "lines"
    """The form of its frame lists: `PATH COUNT LABEL` lines, Charades' JSON, or SlowFast's CSV."""
    flat_lists: FlatLists | None = None
    """The further lists of a flat export, which another project reads."""

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
        """Returns the other files that the project writes for a video, below the tree."""
        return {}

    def done_file(self, path: str) -> str | None:
        """Returns the mark of a finished video. An export writes it beside its lists."""
        return None

    def flat_path(self, path: str) -> str:
        """Returns the name of a video in a flat export."""
        return path

    def member(self, path: str, stream: Stream, index: int, kind: FileKind) -> str:
        """Returns the extension of an image in a tar of WebDataset."""
        file = (
            self.frame_file(path, index)
            if stream == "rgb"
            else self.flow_file(path, stream, index, kind)
        )
        return file.rpartition("/")[2]

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


class _MMAction2Before(_OneFolder):
    """mmaction2's rawframes as flowprep 0.1.0 exported them: `CLASS/VIDEO/flow_x_00001.jpg`."""

    formats = ("jpg", "zip", *_FLOW_FORMATS[1:])
    accepted_first_numbers = (0, 1)
    leaves_out_first_frame = True
    reads_every_label = True
    _flow = re.compile(r"(?:flow_)?([xy])_([0-9]{5,})\.jpe?g")


class MMAction2(_MMAction2Before):
    """mmaction2's rawframes: `CLASS/VIDEO/x_00001.jpg`, `CLASS/VIDEO/img_00001.jpg`.

    The two configurations of flow that mmaction2 ships (configs/recognition/{tsn,slowonly}/
    *-flow.py) have `filename_tmpl='{}_{:05d}.jpg'`. Frames and lists follow
    mmaction/datasets/rawframe_dataset.py (`filename_tmpl='img_{:05}.jpg'`, `start_index=1`, lists
    `DIR TOTAL_FRAMES LABEL ...`). SampleFrames in transforms/loading.py reads the numbers
    `start_index` to `start_index + total_frames - 1`. Therefore a list of flow gives the number of
    flows (tools/data/build_file_list.py counts the files). tools/data/build_rawframes.py calls
    denseflow, whose trees begin at 0. An import accepts both, and `flow_x_00001.jpg` too.
    """

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        return f"{path}/{axis}_{index + 1:05d}.jpg"

    def member(self, path: str, stream: Stream, index: int, kind: FileKind) -> str:
        # `x_00001.jpg` says too little where it is the name of a column.
        return f"{'img' if stream == 'rgb' else f'flow_{stream}'}_{index + 1:05d}.jpg"


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
    option `-b` is the bound. mmaction2 reads such trees with `start_index=0`.
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

    def done_file(self, path: str) -> str | None:
        return f".done/{path}"


class GpuFlow(TreeLayout):
    """gpu_flow: `u/VIDEO/frame000001.jpg`, `v/VIDEO/frame000001.jpg`, frames in `jpegs_256`.

    compute_flow.cpp in feichtenhofer/gpu_flow writes `frame%06d.jpg` from 1 on, N frames and N - 1
    flows, with VIDEO in its folders. It also writes `u/VIDEO.bin` with the range of each flow as
    four float32: the minimum and maximum of u, then of v (in gpu_flow always -20, 20, -20, 20).
    gpu_flow has no lists, so this export writes them in TSN's form.

    dataloader/motion_dataloader.py in jeffreyyihuang/two-stream-action-recognition reads this tree
    without class folders: `u/v_NAME_g01_c01/frame000001.jpg`. It spells UCF101's class
    `HandstandPushups` in file names too. Its lists are UCF101's and a pickle of counts.
    """

    formats = ("jpg",)
    num_digits = 6
    keeps_blanks = True
    flat_lists: FlatLists | None = "ucf101"
    _roots: Mapping[Stream, str] = {"x": "u", "y": "v", "rgb": "jpegs_256"}

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        return f"{self._roots[axis]}/{path}/frame{index + 1:06d}.jpg"

    def folders(self, path: str) -> tuple[str, ...]:
        return tuple(f"{root}/{path}" for root in self._roots.values())

    def frame_file(self, path: str, index: int) -> str:
        return f"{self._roots['rgb']}/{path}/frame{index + 1:06d}.jpg"

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        match = re.fullmatch(r"([a-z_0-9]+)/(.+)/frame([0-9]{6,})\.jpe?g", file, re.DOTALL)
        streams = {root: stream for stream, root in self._roots.items()}
        if match is None or match[1] not in streams:
            return None
        return match[2], ParsedName(FileKind(streams[match[1]]), int(match[3]))

    def extra_files(self, path: str, video: StoredVideo, spec: FlowSpec) -> dict[str, bytes]:
        bound = spec.bound_px
        one = struct.pack("<4f", -bound, bound, -bound, bound)
        return {f"u/{path}.bin": one * video.num_flows}

    def flat_path(self, path: str) -> str:
        return path.replace("_HandStandPushups_", "_HandstandPushups_")


class GpuFlowXY(GpuFlow):
    """gpu_flow as it is since 2018: `x/VIDEO/frame000001.jpg`, `y/VIDEO/...`, `rgb/VIDEO/...`.

    compute_flow.cpp in feichtenhofer/gpu_flow writes the ranges to `bins` only if it is compiled
    so. This export does not.
    """

    flat_lists = None
    _roots: Mapping[Stream, str] = {"x": "x", "y": "y", "rgb": "rgb"}

    def extra_files(self, path: str, video: StoredVideo, spec: FlowSpec) -> dict[str, bytes]:
        return {}


class EpicKitchens(TreeLayout):
    """EPIC-Kitchens: `flow/P01/P01_01/u/frame_0000000001.jpg`, `rgb/P01/P01_01/frame_...`.

    The archives of EPIC-KITCHENS-55 and -100 have `u` and `v` inside the folder of each video, and
    numbers of ten digits, from 1 on. The folders before it are those of the key, such as the
    participant. Annotations have class numbers, so there are no class folders.
    """

    formats = ("jpg",)
    num_digits = 10
    has_class_folders = False
    keeps_blanks = True
    _file = re.compile(
        r"(?:(?:flow/)?(?P<flow>.+)/(?P<axis>[uv])|(?:rgb/)?(?P<rgb>.+))"
        r"/frame_(?P<number>[0-9]{10,})\.jpe?g",
        re.DOTALL,
    )

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        return f"flow/{path}/{'u' if axis == 'x' else 'v'}/frame_{index + 1:010d}.jpg"

    def frame_file(self, path: str, index: int) -> str:
        return f"rgb/{path}/frame_{index + 1:010d}.jpg"

    def folders(self, path: str) -> tuple[str, ...]:
        return (f"flow/{path}/u", f"flow/{path}/v", f"rgb/{path}", f"{path}/u", f"{path}/v", path)

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        if (match := self._file.fullmatch(file)) is None:
            return None
        if match["rgb"] is not None:
            return match["rgb"], ParsedName(FileKind("rgb"), int(match["number"]))
        stream: Stream = "x" if match["axis"] == "u" else "y"
        return match["flow"], ParsedName(FileKind(stream), int(match["number"]))


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
    keeps_blanks = True
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


class SlowFast(TreeLayout):
    """SlowFast's Charades: RGB frames `VIDEO/VIDEO-000001.jpg`, and `train.csv` with every frame.

    slowfast/datasets/charades.py in facebookresearch/SlowFast reads `train.csv` and `val.csv` from
    DATA.PATH_TO_DATA_DIR, and the files that they name below DATA.PATH_PREFIX. load_image_lists in
    slowfast/datasets/utils.py splits the lines at blanks. SlowFast reads no flow.
    """

    formats = ("jpg",)
    num_digits = 6
    is_flat = True
    has_flow = False
    reads_every_label = True
    list_kind = "slowfast"

    def flow_file(self, path: str, axis: Axis, index: int, kind: FileKind) -> str:
        raise NotImplementedError("SlowFast reads no flow")

    def frame_file(self, path: str, index: int) -> str:
        return f"{path}/{path}-{index + 1:06d}.jpg"

    def parse(self, file: str) -> tuple[str, ParsedName] | None:
        match = re.fullmatch(r"([^/]+)/\1-([0-9]{6,})\.jpe?g", file, re.DOTALL)
        return None if match is None else (match[1], ParsedName(FileKind("rgb"), int(match[2])))


LAYOUTS: dict[str, TreeLayout] = {
    "mmaction2": MMAction2(),
    "tsn": TSN(),
    "tsm": TSM(),
    "gpu-flow": GpuFlow(),
    "gpu-flow-xy": GpuFlowXY(),
    "epic-kitchens": EpicKitchens(),
    "pytorch-i3d": PytorchI3D(),
    "denseflow": DenseFlow(),
    "frames": Frames(),
    "slowfast": SlowFast(),
}
"""The layouts by name."""

IMPORTABLE_LAYOUTS = tuple(name for name, layout in LAYOUTS.items() if layout.has_flow)
"""The layouts that `flowprep import` reads."""

_LAYOUTS_BEFORE: dict[str, TreeLayout] = {"mmaction2": _MMAction2Before()}


def layout_of(name: str, version: int) -> TreeLayout:
    """Returns a layout as exports of a format version have it. flowprep 0.1.0 wrote version 1."""
    return _LAYOUTS_BEFORE.get(name, LAYOUTS[name]) if version == 1 else LAYOUTS[name]
