"""What consumers of exports should read, and the few stand-ins that let their code run here."""

from __future__ import annotations

import ast
import sys
import types
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset

Image = NDArray[np.uint8]


class Truth:
    """What the data set holds, by the last part of a video's path."""

    def __init__(self, dataset: FlowDataset) -> None:
        self.dataset = dataset
        self.videos = {
            video.key.rpartition("/")[2].replace("%23", "#").lower(): video
            for video in dataset.videos
        }
        self._flow: dict[str, Image] = {}
        self._frames: dict[str, list[Image]] = {}
        self.counts: Counter[str] = Counter()

    def video(self, name: str) -> Any:
        """Returns the stored video of a name or a path that ends in it."""
        return self.videos[name.rstrip("/").rpartition("/")[2].lower()]

    def flow(self, name: str) -> Image:
        """Returns the levels (N - 1, H, W, 2)."""
        video = self.video(name)
        if video.key not in self._flow:
            self._flow[video.key] = self.dataset.quantized(video.key, 0, video.num_flows)
        return self._flow[video.key]

    def frame(self, name: str, index: int) -> Image:
        """Returns a frame (H, W, 3) in RGB, as OpenCV decodes it."""
        video = self.video(name)
        if video.key not in self._frames:
            jpegs = self.dataset.jpegs(video.key, "rgb", 0, video.num_frames)
            images = [cv2.imdecode(np.frombuffer(one, np.uint8), 1) for one in jpegs]
            self._frames[video.key] = [cv2.cvtColor(one, cv2.COLOR_BGR2RGB) for one in images]
        return self._frames[video.key][index]

    def check_flow(self, name: str, index: int, axis: str, image: Any) -> None:
        """Compares one image of flow; `index` counts from 0."""
        wanted = self.flow(name)[index, ..., "xy".index(axis)]
        assert np.array_equal(np.asarray(image), wanted), (name, index, axis)
        self.counts["images of flow"] += 1

    def check_frame(self, name: str, index: int, image: Any, tolerance: int = 0) -> None:
        """Compares a frame in RGB. Decoders of JPEG other than OpenCV's differ by some levels."""
        difference = np.abs(np.asarray(image, np.int16) - self.frame(name, index))
        assert difference.max() <= tolerance, (name, index, difference.max())
        self.counts["frames"] += 1

    def check_label(self, name: str, label: int) -> None:
        """Compares a label, which counts from 0."""
        assert self.video(name).label == int(label), (name, label)
        self.counts["labels"] += 1

    def summary(self, *more: str) -> str:
        """Returns what was compared."""
        return ", ".join([*(f"{count} {what}" for what, count in self.counts.items()), *more])


# ---- stand-ins


def declare_torchvision_operators() -> object:
    """Lets torchvision be imported where its compiled part does not fit PyTorch's build.

    The declarations last as long as the result.
    """
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def python_3(source: Path) -> types.ModuleType:
    """Imports a module that was written for Python 2."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lib2to3 import refactor  # gone in Python 3.13

    fixers = [f"lib2to3.fixes.fix_{name}" for name in ("print", "dict", "xrange")]
    tool = refactor.RefactoringTool(fixers)
    text = str(tool.refactor_string(source.read_text(encoding="utf-8") + "\n", source.name))
    module = types.ModuleType(source.stem)
    sys.modules[source.stem] = module
    exec(compile(text, str(source), "exec"), module.__dict__)
    return module


def functions_of(source: Path, names: Iterable[str], given: dict[str, Any]) -> dict[str, Any]:
    """Runs the definitions of some functions of a module, without its imports."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    wanted = set(names)
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted
    ]
    exec(compile(tree, str(source), "exec"), given)
    return given
