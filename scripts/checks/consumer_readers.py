"""The consumers of exports: each reads one with its own code, and every image is compared.

`consumers.py` runs a function of this file in a process of its own. A function raises an
AssertionError where the consumer gets other pixels or labels than the data set holds.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import re
import shutil
import sys
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from consumer_truth import Truth, declare_torchvision_operators, functions_of, python_3

from flowprep.dataset.read import open_dataset


@dataclass(frozen=True)
class Consumer:
    """One who reads exports."""

    read: Callable[[Path, Path, Truth], str]
    """Takes the checkout, the folder of the exports and the truth; says what it compared."""
    code: str
    export: str
    packages: tuple[str, ...] = ()
    has_checkout: bool = True
    stood_in: str = ""

    def missing(self, checkout: Path) -> str:
        """Says what is missing, or nothing."""
        if self.has_checkout and not checkout.is_dir():
            return f"no folder {checkout.name}"
        names = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"{', '.join(names)} is not installed" if names else ""


# ---- consumers


def _segments(dataset: Any, truth: Truth, modality: str) -> None:
    """Reads a TSNDataSet (TSN's or TSM's) at random, for validation, and in whole."""
    seen: list[tuple[str, int, Any]] = []
    load = dataset._load_image

    def recorded(directory: str, index: int) -> Any:
        images = load(directory, index)
        seen.append((directory, index, images))
        return images

    dataset._load_image = recorded
    for index, record in enumerate(dataset.video_list):
        for random_shift in (True, True, False):
            dataset.random_shift = random_shift
            _, label = dataset[index]
            truth.check_label(record.path, label)
        dataset.get(record, np.arange(1, record.num_frames + 1))
        video = truth.video(record.path)
        wanted = video.num_flows if modality == "Flow" else video.num_frames
        assert record.num_frames == wanted, (record.path, record.num_frames)
    for directory, number, images in seen:
        if modality == "Flow":
            for axis, image in zip("xy", images, strict=True):
                truth.check_flow(directory, number - 1, axis, image)
        else:
            truth.check_frame(directory, number - 1, images[0], tolerance=4)


def read_tsn_pytorch(checkout: Path, top: Path, truth: Truth) -> str:
    """main.py of tsn-pytorch: TSNDataSet("", list, new_length 5 for flow, flow_prefix flow_)."""
    sys.path.insert(0, str(checkout))
    dataset = importlib.import_module("dataset")
    for modality, length, template, stream in (
        ("Flow", 5, "flow_{}_{:05d}.jpg", "flow"),
        ("RGB", 1, "img_{:05d}.jpg", "rgb"),
    ):
        for split in ("train", "val"):
            made = dataset.TSNDataSet(
                "",
                str(top / f"tsn-lists/{split}_{stream}_split1.txt"),
                num_segments=3,
                new_length=length,
                modality=modality,
                image_tmpl=template,
                transform=list,
            )
            _segments(made, truth, modality)
    return truth.summary()


def read_tsm(checkout: Path, top: Path, truth: Truth) -> str:
    """The shipped entry ucf101 of TSM's ops/dataset_config.py, below its ROOT_DATASET."""
    sys.path.insert(0, str(checkout))
    config = importlib.import_module("ops.dataset_config")
    dataset = importlib.import_module("ops.dataset")
    config.ROOT_DATASET = f"{top}/tsm/"
    labels = top / "tsm/UCF101/labels"
    labels.mkdir(exist_ok=True)
    shutil.copy(top / "tsm/UCF101/file_list/classInd.txt", labels)
    for modality in ("Flow", "RGB"):
        num_classes, train, val, root, template = config.return_dataset("ucf101", modality)
        assert num_classes == len(truth.dataset.class_names)
        for listed in (train, val):
            made = dataset.TSNDataSet(
                root,
                listed,
                num_segments=8,
                new_length=5 if modality == "Flow" else 1,
                modality=modality,
                image_tmpl=template,
                transform=list,
            )
            _segments(made, truth, modality)
    return truth.summary()


def read_mmaction2(checkout: Path, top: Path, truth: Truth) -> str:
    """The two shipped configurations of flow, from the folder that holds `data/kinetics400`."""
    sys.path.insert(0, str(checkout))
    from mmengine import Config

    importlib.import_module("mmaction.datasets")
    registry = importlib.import_module("mmaction.registry")
    os.chdir(top / "mmaction2")
    names = []
    for path in sorted((checkout / "configs/recognition").rglob("*flow.py")):
        names.append(path.parent.name)
        config = Config.fromfile(str(path))
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
            made = registry.DATASETS.build({"_scope_": "mmaction", **config[loader].dataset})
            for index in range(len(made)):
                results = made.get_data_info(index)
                truth.check_label(results["frame_dir"], results["label"])
                for transform in made.pipeline.transforms[:2]:  # SampleFrames, RawFrameDecode
                    results = transform(results)
                numbers = np.asarray(results["frame_inds"]).ravel()
                for number, image in zip(numbers, results["imgs"], strict=True):
                    for axis in "xy":
                        found = image[..., "xy".index(axis)]
                        truth.check_flow(results["frame_dir"], int(number) - 1, axis, found)
            if loader == "val_dataloader":  # the whole pipeline
                assert made[0]["inputs"].ndim >= 4
    prefix = {"img": "data/kinetics400/rawframes_val"}
    pipeline = [
        {"type": "SampleFrames", "clip_len": 1, "num_clips": 25, "test_mode": True},
        {"type": "RawFrameDecode"},
    ]
    made = registry.DATASETS.build(
        {
            "_scope_": "mmaction",
            "type": "RawframeDataset",
            "ann_file": "data/kinetics400/kinetics400_val_list_rgb.txt",
            "data_prefix": prefix,
            "pipeline": pipeline,
            "test_mode": True,
        }
    )
    for index in range(len(made)):
        results = made[index]
        for number, image in zip(results["frame_inds"], results["imgs"], strict=True):
            truth.check_frame(results["frame_dir"], int(number) - 1, image)
    return truth.summary(f"configurations of {' and '.join(names)}")


def read_pytorch_i3d(checkout: Path, top: Path, truth: Truth) -> str:
    """charades_dataset.py as train_i3d.py calls it: the subsets `training` and `testing`."""
    sys.path.insert(0, str(checkout))
    module = importlib.import_module("charades_dataset")
    load = {"flow": module.load_flow_frames, "rgb": module.load_rgb_frames}
    called: list[tuple[str, int, int]] = []

    def recorded(mode: str) -> Callable[..., Any]:
        def call(root: str, vid: str, start: int, num: int) -> Any:
            called.append((vid, start, num))
            return load[mode](root, vid, start, num)

        return call

    module.load_flow_frames, module.load_rgb_frames = recorded("flow"), recorded("rgb")
    num_videos = 0
    for mode in ("flow", "rgb"):
        for subset in ("training", "testing"):
            made = module.Charades(
                str(top / "i3d-lists/charades.json"),
                subset,
                str(top / "i3d" / mode),
                mode,
                np.array,
            )
            num_videos += len(made)
            for index in range(len(made)):
                images, labels = made[index]
                vid, start, num = called[-1]
                found = np.moveaxis(images.numpy(), 0, -1)
                for t in range(num):
                    if mode == "flow":
                        wanted = truth.flow(vid)[start - 1 + t].astype(np.float64)
                    else:
                        wanted = truth.frame(vid, start - 1 + t).astype(np.float64)
                    np.testing.assert_array_equal(
                        found[t], ((wanted / 255.0) * 2 - 1).astype(np.float32)
                    )
                truth.counts["images of flow" if mode == "flow" else "frames"] += num
                truth.check_label(vid, int(labels[:, 1].argmax()))
    assert num_videos == 2 * len(truth.videos)
    return truth.summary()


def read_two_stream_pytorch(checkout: Path, top: Path, truth: Truth) -> str:
    """datasets/ucf101.py as main_single_gpu.py calls it, without a change of size."""
    sys.path.insert(0, str(checkout / "datasets"))
    module = importlib.import_module("ucf101")
    called: list[tuple[str, list[int]]] = []
    for name in ("ReadSegmentFlow", "ReadSegmentRGB"):

        def recorded(path: str, offsets: list[int], *rest: Any, read: Any) -> Any:
            called.append((path, list(offsets)))
            return read(path, offsets, *rest)

        read = getattr(module, name)
        setattr(module, name, lambda *given, read=read: recorded(*given, read=read))
    for modality, length in (("flow", 10), ("rgb", 1)):
        for phase in ("train", "val"):
            made = module.ucf101(
                root=str(top / "tsn"),
                source=str(top / f"tsn-lists/{phase}_{modality}_split1.txt"),
                phase=phase,
                modality=modality,
                is_color=modality == "rgb",
                num_segments=3,
                new_length=length,
            )
            for index in list(range(len(made))) * 4:
                clip, label = made[index]
                path, offsets = called[-1]
                truth.check_label(path, label)
                channels = np.moveaxis(clip, -1, 0)
                numbers = [offset + t for offset in offsets for t in range(length)]
                for place, number in enumerate(numbers):
                    if modality == "flow":
                        for axis in range(2):
                            image = channels[2 * place + axis]
                            truth.check_flow(path, number, "xy"[axis], image)
                    else:
                        image = np.moveaxis(channels[3 * place : 3 * place + 3], 0, -1)
                        truth.check_frame(path, number, image)
    return truth.summary()


def read_two_stream_action_recognition(checkout: Path, top: Path, truth: Truth) -> str:
    """dataloader/motion_dataloader.py, with its lists, pickle and stacks of 10."""
    declared = declare_torchvision_operators()
    from PIL import Image as PillowImage
    from torchvision import transforms

    assert declared is not None
    transforms.Scale = transforms.Resize
    python_3(checkout / "dataloader/split_train_test_video.py")
    module = python_3(checkout / "dataloader/motion_dataloader.py")
    (top / "work/dic").mkdir(parents=True)
    shutil.copy(top / "gpu-flow-lists/frame_count.pickle", top / "work/dic")
    os.chdir(top / "work")
    loader = module.Motion_DataLoader(
        BATCH_SIZE=1,
        num_workers=0,
        in_channel=10,
        path=f"{top}/gpu-flow/",
        ucf_list=f"{top}/gpu-flow-lists/",
        ucf_split="01",
    )
    train, val, _ = loader.run()
    for dataset in (train.dataset, val.dataset):
        for index in list(range(len(dataset))) * (5 if dataset is train.dataset else 1):
            *_, data, label = dataset[index]
            name, start = f"v_{dataset.video}", int(dataset.clips_idx)
            truth.check_label(name, label)
            for j in range(10):
                for axis in range(2):
                    wanted = truth.flow(name)[start - 1 + j, ..., axis]
                    image = dataset.transform(PillowImage.fromarray(wanted))
                    # Its stack begins with the last pair: flow[2 * (j - 1)].
                    assert bool((data[2 * (j - 1) + axis] == image[0]).all()), (name, start, j)
                    truth.counts["images of flow"] += 1
    return truth.summary()


def read_gpu_flow(checkout: Path, top: Path, truth: Truth) -> str:
    """gpu_flow only writes: the names in compute_flow.cpp are those of the export."""
    text = (checkout / "compute_flow.cpp").read_text(encoding="utf-8")
    roots = re.findall(r'out_folder_[uv] = QString::fromStdString\(out_path \+ "(\w+)/"', text)
    (rgb,) = re.findall(r'out_path_jpeg = out_path \+ "/(\w+)/"', text)
    (name,) = re.findall(r'sprintf\(cad,"(/\w+%06d\.jpg)",nframes\)', text)
    (frame,) = re.findall(r'sprintf\(cad,"(/\w+%06d\.jpg)",nframes \+ 1\)', text)
    assert len(roots) == 2
    for video in truth.dataset.videos:
        path = video.key.replace("%23", "#")
        for index in range(video.num_flows):
            for root, axis in zip(roots, "xy", strict=True):
                file = f"{top}/gpu-flow-xy/{root}/{path}{name % (index + 1)}"
                truth.check_flow(path, index, axis, cv2.imread(file, cv2.IMREAD_GRAYSCALE))
        for index in range(video.num_frames):
            file = f"{top}/gpu-flow-xy/{rgb}/{path}{frame % (index + 1)}"
            truth.check_frame(path, index, cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB))
    return truth.summary()


def read_slowfast(checkout: Path, top: Path, truth: Truth) -> str:
    """load_image_lists and retry_load_images of slowfast/datasets/utils.py."""
    from collections import defaultdict

    manager = types.SimpleNamespace(open=open)
    code = functions_of(
        checkout / "slowfast/datasets/utils.py",
        ("load_image_lists", "retry_load_images"),
        {"pathmgr": manager, "defaultdict": defaultdict, "os": os, "np": np, "cv2": cv2},
    )
    for split in ("train", "val"):
        listed = str(top / f"slowfast-lists/{split}.csv")
        paths, labels = code["load_image_lists"](listed, str(top / "slowfast"), return_list=True)
        for some, given in zip(paths, labels, strict=True):
            name = Path(some[0]).parent.name
            images = code["retry_load_images"](some, backend="cv2")
            assert len(images) == truth.video(name).num_frames
            for index, image in enumerate(images):
                truth.check_frame(name, index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                (label,) = given[index]
                truth.check_label(name, label)
    return truth.summary()


def _members(truth: Truth, key: str, start: int, images: dict[str, Any]) -> None:
    for name, image in images.items():
        stream, _, number = name.removesuffix(".jpg").rpartition("_")
        index = start + int(number) - 1
        if stream == "img":
            truth.check_frame(key.replace("%23", "#"), index, image, tolerance=4)
        else:
            truth.check_flow(key.replace("%23", "#"), index, stream[-1], image.convert("L"))


def read_webdataset(checkout: Path, top: Path, truth: Truth) -> str:
    """webdataset.WebDataset(tars).decode("pil"), a video a sample and a clip a sample."""
    import webdataset

    for folder in ("tars", "clips"):
        urls = [f"file:{path}" for path in sorted((top / folder).iterdir())]
        for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("pil"):
            described = sample["json"]
            truth.check_label(described["key"].replace("%23", "#"), sample["cls"])
            images = {name: image for name, image in sample.items() if name.endswith(".jpg")}
            _members(truth, described["key"], described.get("start", 0), images)
    return truth.summary()


def read_datasets(checkout: Path, top: Path, truth: Truth) -> str:
    """load_dataset("webdataset") on clips, load_dataset("imagefolder") on class folders."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(top / "hf")}
    import datasets

    found = datasets.load_dataset("webdataset", data_dir=str(top / "clips"))
    assert set(found) == {"train", "validation"}
    for split in found.values():
        for sample in split:
            described = sample["json"]
            truth.check_label(described["key"].replace("%23", "#"), sample["cls"])
            images = {name: image for name, image in sample.items() if name.endswith(".jpg")}
            assert len(images) == 3 * 16
            _members(truth, described["key"], described["start"], images)
    folders = datasets.load_dataset("imagefolder", data_dir=str(top / "folders"))
    (split,) = folders.values()
    wanted = sum(2 * video.num_flows + video.num_frames for video in truth.dataset.videos)
    images = [np.asarray(sample["image"]) for sample in split]
    gray = Counter(image.tobytes() for image in images if image.ndim == 2)
    flows = [truth.flow(video.key.replace("%23", "#")) for video in truth.dataset.videos]
    levels = Counter(
        one[t, ..., a].tobytes() for one in flows for t in range(len(one)) for a in (0, 1)
    )
    assert (len(images), gray) == (wanted, levels)
    return truth.summary(f"imagefolder: {wanted} images")


def read_torchvision(checkout: Path, top: Path, truth: Truth) -> str:
    """torchvision.datasets.ImageFolder on DEST: classes, labels and pixels."""
    declared = declare_torchvision_operators()
    from torchvision.datasets import ImageFolder

    assert declared is not None
    made = ImageFolder(str(top / "folders"))
    assert tuple(made.classes) == tuple(truth.dataset.class_names)
    for index, (path, label) in enumerate(made.samples):
        image, _ = made[index]
        name = Path(path).parent.name
        truth.check_label(name, label)
        stream, _, number = Path(path).stem.rpartition("_")
        if stream == "img":
            truth.check_frame(name, int(number) - 1, image, tolerance=4)
        else:
            truth.check_flow(name, int(number) - 1, stream, image.convert("L"))
    return truth.summary()


_OPERATORS = "declarations of torchvision's compiled operators"

CONSUMERS = {
    "tsn-pytorch": Consumer(
        read_tsn_pytorch,
        "TSNDataSet of `tsn-pytorch/dataset.py`",
        "`--layout tsn`",
        ("torch", "PIL"),
    ),
    "temporal-shift-module": Consumer(
        read_tsm,
        "ucf101 of `temporal-shift-module/ops/dataset_config.py`, TSNDataSet",
        "`--layout tsm --lists DIR --list-names ucf101_{stream}_{split}_split_1.txt`",
        ("torch", "PIL"),
        stood_in="nothing; its root folder is set, and classInd.txt copied to `labels/`",
    ),
    "mmaction2": Consumer(
        read_mmaction2,
        "both configurations `*-flow.py`; RawframeDataset for RGB",
        "`--layout mmaction2 --split S --lists DIR "
        "--list-names kinetics400_{split}_list_{stream}.txt`",
        ("torch", "mmengine", "mmcv"),
    ),
    "pytorch-i3d": Consumer(
        read_pytorch_i3d,
        "Charades of `pytorch-i3d/charades_dataset.py`, training and testing",
        "`--layout pytorch-i3d`",
        ("torch", "h5py"),
        stood_in="no random crop",
    ),
    "two-stream-pytorch": Consumer(
        read_two_stream_pytorch,
        "`two-stream-pytorch/datasets/ucf101.py`",
        "`--layout tsn --list-names {split}_{stream}_split1.txt`",
        ("torch",),
        stood_in="no change of size",
    ),
    "two-stream-action-recognition": Consumer(
        read_two_stream_action_recognition,
        "Motion_DataLoader of `motion_dataloader`",
        "`--layout gpu-flow --flat`",
        ("torch", "torchvision", "PIL"),
        stood_in=f"Python 2 converted by lib2to3, `transforms.Scale` by Resize, {_OPERATORS}",
    ),
    "gpu_flow": Consumer(
        read_gpu_flow,
        "the names that `compute_flow.cpp` writes",
        "`--layout gpu-flow-xy`",
        stood_in="it has no reader: OpenCV reads those names",
    ),
    "SlowFast": Consumer(
        read_slowfast,
        "`load_image_lists` and `retry_load_images` of slowfast.datasets.utils",
        "`--layout slowfast`",
        stood_in="iopath's file manager by `open`",
    ),
    "webdataset": Consumer(
        read_webdataset,
        "WebDataset(...).decode",
        "`--format webdataset`, with and without `--clip-length`",
        ("webdataset",),
        has_checkout=False,
    ),
    "datasets": Consumer(
        read_datasets,
        'load_dataset("webdataset") and ("imagefolder")',
        "`--format webdataset --clip-length 16`; `--layout mmaction2`",
        ("datasets", "PIL"),
        has_checkout=False,
    ),
    "torchvision": Consumer(
        read_torchvision,
        "ImageFolder",
        "`--layout mmaction2`",
        ("torchvision",),
        has_checkout=False,
        stood_in=_OPERATORS,
    ),
}
"""The consumers, by the names of their checkouts or packages."""


def main(name: str, checkout: str, out: str, top: str) -> None:
    """Runs one consumer; the last line that it prints is JSON, what it compared."""
    random.seed(0)
    np.random.seed(0)
    truth = Truth(open_dataset(out))
    said = CONSUMERS[name].read(Path(checkout), Path(top), truth)
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
