"""What in a video speaks for a class: where networks look, and which moments count.

Explainer(checkpoints, spec)  ->  with explainer.explained(source, key) as explanation
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from flowprep.dataset.layout import DATASET_FILE
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError, InputError
from flowprep.learn.checkpoint import Checkpoint, check_data
from flowprep.learn.clip_inputs import InputStream, StreamName
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.transforms import Crop, test_crops
from flowprep.learn.config import ViewSpec
from flowprep.learn.evaluate import clips_notes
from flowprep.learn.forward import arrange_clips, group_size
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.placement import place_model
from flowprep.learn.predict import Predictor
from flowprep.learn.seeing.grad_cam import grad_cam
from flowprep.learn.seeing.imagine import find_class
from flowprep.learn.seeing.moments import blank_clips, time_weights, times_of
from flowprep.learn.seeing.specs import ExplainSpec

__all__ = ["Explained", "Explainer", "Explanation", "Heat", "Moment"]

_MAX_GRID = 96
"""The longer side of the grid of a heat; maps of networks have at most about half of it."""


@dataclass(frozen=True)
class Moment:
    """A part of the video, and how much it counts for the class."""

    first_frame: int
    stop_frame: int
    """The frame after its last."""
    weight: float | None
    """The mean of its frames' weights, in logits a frame; below 0 it speaks against the class. None
    for a part that the network did not see."""
    share: float
    """Its part of all that speaks for the class, 0 to 1; 0 where it speaks against it."""


@dataclass(frozen=True)
class Heat:
    """Where a tower of a network looks."""

    streams: tuple[InputStream, ...]
    """What the tower sees: flow, frames, or both."""
    values: NDArray[np.float32]
    """(T, h, w) from 0 to 1 on a coarse grid over whole frames, for each frame of the video. NaN
    outside of the crops that the network saw."""


@dataclass(frozen=True)
class Explained:
    """What one network sees in the video."""

    model: str
    stream: StreamName
    dataset: FlowDataset
    """The data set that holds the video as the network needs it."""
    video: StoredVideo
    probability: float
    """What the network gives the class."""
    heats: tuple[Heat, ...]
    weights: dict[InputStream, NDArray[np.float64]]
    """The weight of each frame of the video, by what the network sees; NaN where it saw nothing."""
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class Explanation:
    """What in a video speaks for a class."""

    video: str
    class_name: str
    is_predicted: bool
    """Whether it is the class that the networks give the highest probability together."""
    networks: tuple[Explained, ...]

    @property
    def num_frames(self) -> int:
        """The number of frames that all networks know."""
        return min(one.video.num_frames for one in self.networks)


class Explainer:
    """Networks that were trained with flowprep, ready to explain what they see in videos."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        spec: ExplainSpec,
        *,
        class_name: str | None = None,
        task: str | None = None,
        device: str = "auto",
        urls: bool = True,
        follow_links: bool = True,
    ) -> None:
        """Without `class_name`, the class with the highest probability is explained.

        Raises ConfigError for an unknown class or task, and for networks that do not fit together.
        """
        self.spec, self.class_name = spec, class_name
        self._views = ViewSpec(spec.num_clips, spec.num_crops)
        self._predictor = Predictor(
            checkpoints,
            self._views,
            task=task,
            device=device,
            urls=urls,
            follow_links=follow_links,
            keep_frames=True,
        )
        if len(self._predictor.heads[0]) > 1:
            names = ", ".join(one.name for one in self._predictor.heads[0])
            raise ConfigError(f"task must name one of {names} to explain a class, got none")
        self._label = None
        if class_name is not None:
            self._label = find_class(self._predictor.tasks[0], class_name)
        rates = {one.config.decode.fps for one in self._predictor.tasks}
        if len(rates) > 1:
            raise ConfigError(
                "checkpoint must be of networks that see the same frames to stand side by side, "
                "got several frame rates; explain each alone"
            )
        for model in self._predictor.models:
            model.requires_grad_(False)

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        return self._predictor.notes

    @contextmanager
    def explained(
        self, source: str | os.PathLike[str], key: str | None = None
    ) -> Iterator[Explanation]:
        """Yields what the networks see in a video file, or in the video `key` of a data set.

        The flow of a file is computed and is there until the end of the context. Raises InputError
        for another source, VideoError if the video cannot be read, and ConfigMismatchError for a
        data set that is not like that of the training.
        """
        name = os.fspath(source)
        if key is not None:
            with closing(open_dataset(name)) as dataset:
                self._check(dataset)
                datasets = [dataset] * len(self._predictor.checkpoints)
                yield self._explain(f"{name} {key}", datasets, key)
            return
        if os.path.isfile(os.path.join(name, DATASET_FILE)):
            raise InputError(
                f"KEY must name a video of the data set {name}, got none; choose one that "
                f"`flowprep info {name} --videos` lists"
            )
        manifest = self._predictor.collect(name)
        if len(manifest.videos) != 1:
            raise InputError(
                f"VIDEO must be one video, but {name} holds {len(manifest.videos):,}; name one of "
                "them"
            )
        with self._predictor.extracted(name, manifest.videos[0]) as made:
            datasets = [made[place] for place in self._predictor.extraction_of]
            yield self._explain(name, datasets, None)

    def _check(self, dataset: FlowDataset) -> None:
        for checkpoint, task in zip(
            self._predictor.checkpoints, self._predictor.tasks, strict=True
        ):
            stream = checkpoint.config.clip.stream
            self._predictor.note(check_data(task, dataset, stream=stream, labels=False))

    def _explain(self, name: str, datasets: Sequence[FlowDataset], key: str | None) -> Explanation:
        predictor = self._predictor
        passes = []
        for number, dataset in enumerate(datasets):
            video = dataset.videos[0] if key is None else dataset.videos.find(key)
            checkpoint, model = predictor.checkpoints[number], predictor.models[number]
            place_model(model, predictor.device)
            views = TestViews(
                dataset,
                checkpoint.config.clip,
                model.inputs,
                self._views,
                videos=[video.key],
                group_size=group_size(model),
            )
            predictor.note(clips_notes(views))
            head = checkpoint.tasks.index(predictor.tasks[number])
            passes.append(_Pass(model, views, video, head, predictor.tasks[number].is_multilabel))
        chances = [one.probabilities(predictor.device) for one in passes]
        highest = int(np.mean(chances, axis=0).argmax())
        label = highest if self._label is None else self._label
        networks = tuple(
            Explained(
                checkpoint.config.model.model,
                checkpoint.config.clip.stream,
                one.views.dataset,
                one.video,
                float(chance[label]),
                *one.see(label, self.spec, predictor.device),
            )
            for checkpoint, one, chance in zip(predictor.checkpoints, passes, chances, strict=True)
        )
        return Explanation(name, predictor.tasks[0].class_names[label], label == highest, networks)


@dataclass(frozen=True)
class _Pass:
    """The clips of one video for one network."""

    model: ClipModel | MultiTask
    views: TestViews
    video: StoredVideo
    head: int
    is_multilabel: bool

    def groups(self, device: torch.device) -> Iterator[tuple[list[int], int, list[torch.Tensor]]]:
        """Yields the items that the network sees together, the number of the crop, and the clips.

        The clips are (1, S, C, ...), one tensor for each input.
        """
        size = self.views.num_clips // self.views.num_groups
        for first in range(0, self.views.num_clips, size):
            items = list(range(first, first + size))
            read = [self.views.read(item)["views"] for item in items]
            for crop in range(self.views.views.num_crops):
                yield (
                    items,
                    crop,
                    [
                        torch.stack([one[own.name][crop] for one in read]).unsqueeze(0).to(device)
                        for own in self.views.inputs
                    ],
                )

    def logits(self, output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Returns (N, K) from what the network gives."""
        return output[self.head] if isinstance(output, tuple) else output

    def probabilities(self, device: torch.device) -> NDArray[np.float64]:
        """Returns the probability of each class, (K,): the mean of all clips and crops."""
        rows = []
        with torch.no_grad():
            for _, _, clips in self.groups(device):
                logits = self.logits(self.model(*arrange_clips(self.model, clips))).double()
                rows.append(logits.sigmoid() if self.is_multilabel else logits.softmax(-1))
        return np.asarray(torch.cat(rows).mean(0).cpu().numpy())

    def see(
        self, label: int, spec: ExplainSpec, device: torch.device
    ) -> tuple[tuple[Heat, ...], dict[InputStream, NDArray[np.float64]], tuple[Moment, ...]]:
        """Returns where the network looks for a class, and which frames and moments count."""
        clip, inputs = self.views.clip, self.views.inputs
        crops = test_crops(self.video.width, self.video.height, clip, self.views.views.num_crops)
        bound_px = self.views.dataset.config.flow.bound_px
        heats: dict[tuple[int, ...], _HeatSum] = {}
        weights = {one.stream: _Mean(self.video.num_frames) for one in inputs}

        def score(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
            return self.logits(output)[:, label]

        def margin(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
            logits = self.logits(output)
            return logits[:, label] - (0 if self.is_multilabel else logits.mean(-1))

        for items, crop, clips in self.groups(device):
            places = list(zip(*(self.views.indices(item) for item in items), strict=True))
            times = [
                times_of(one, np.stack(rows), clip, self.video.num_flows)
                for one, rows in zip(inputs, places, strict=True)
            ]
            for found in grad_cam(self.model, clips, score):
                longest = max(found.inputs, key=lambda number: times[number].shape[1])
                total = heats.setdefault(found.inputs, _HeatSum(self.video))
                box = _shown(crops[crop], self.views, longest)
                for heat, when in zip(found.heat[0], times[longest], strict=True):
                    total.add(heat, when, box)
            blanks = blank_clips(clips, inputs, clip, bound_px)
            own = time_weights(self.model, clips, blanks, inputs, clip, margin, steps=spec.steps)
            for one, when, values in zip(inputs, times, own, strict=True):
                weights[one.stream].add(when.ravel(), values[0].ravel())
        by_frame = {stream: one.mean() for stream, one in weights.items()}
        return (
            tuple(
                Heat(tuple(dict.fromkeys(inputs[n].stream for n in numbers)), total.mean())
                for numbers, total in heats.items()
            ),
            by_frame,
            _moments(list(by_frame.values()), spec.num_moments),
        )


def _shown(crop: Crop, views: TestViews, number: int) -> Crop:
    """Returns the part of the frame that an input shows of a crop."""
    one, whole = views.inputs[number], views.clip.crop_px
    return crop.center(whole, one.side_px(whole)) if one.view == "fovea" else crop


class _Mean:
    """The mean of values for each frame."""

    def __init__(self, num_frames: int) -> None:
        self._sum, self._count = np.zeros(num_frames), np.zeros(num_frames)

    def add(self, frames: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        np.add.at(self._sum, frames, values)
        np.add.at(self._count, frames, 1)

    def mean(self) -> NDArray[np.float64]:
        """Returns the means; NaN for frames without a value."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._sum / self._count)


class _HeatSum:
    """The mean heat of each frame on a coarse grid."""

    def __init__(self, video: StoredVideo) -> None:
        self._scale = min(1.0, _MAX_GRID / max(video.width, video.height))
        size = (round(video.height * self._scale), round(video.width * self._scale))
        self._sum = np.zeros((video.num_frames, *size), np.float32)
        self._count = np.zeros((video.num_frames, *size), np.uint16)

    def add(self, heat: torch.Tensor, when: NDArray[np.int64], box: Crop) -> None:
        """Adds the heat of a clip, (T, h, w), whose fields or frames are at `when`, (L,)."""
        left, top, right, bottom = (
            round(edge * self._scale)
            for edge in (box.x, box.y, box.x + box.width, box.y + box.height)
        )
        size = (len(when), bottom - top, right - left)
        large = F.interpolate(heat[None, None], size, mode="trilinear", align_corners=False)
        place: Any = (when, slice(top, bottom), slice(left, right))
        np.add.at(self._sum, place, large[0, 0].numpy())
        np.add.at(self._count, place, 1)

    def mean(self) -> NDArray[np.float32]:
        """Returns (T, h, w), the highest value as 1. Frames between those seen are as the nearest.

        NaN stands where no crop was.
        """
        seen = np.flatnonzero(self._count.any(axis=(1, 2)))
        ranks = np.interp(np.arange(len(self._count)), seen, np.arange(len(seen)))
        nearest = seen[np.rint(ranks).astype(int)]
        with np.errstate(invalid="ignore"):
            mean = (self._sum / self._count)[nearest]
        highest = float(np.nanmax(mean))
        return np.asarray(mean / highest if highest > 0 else mean, np.float32)


def _moments(weights: Sequence[NDArray[np.float64]], number: int) -> tuple[Moment, ...]:
    """Returns equal parts of a video; `weights` are those of its frames, for each stream."""
    num_frames = len(weights[0])
    borders = np.unique(np.rint(np.linspace(0, num_frames, number + 1)).astype(int)).tolist()
    values: list[float | None] = []
    for first, stop in itertools.pairwise(borders):
        seen = [part[~np.isnan(part)] for part in (one[first:stop] for one in weights)]
        means = [part.mean() for part in seen if part.size]
        values.append(float(sum(means)) if means else None)
    lengths = np.diff(borders).tolist()
    speaking = [max(0.0, value or 0.0) * n for value, n in zip(values, lengths, strict=True)]
    total = sum(speaking) or 1.0
    spans = zip(itertools.pairwise(borders), values, speaking, strict=True)
    return tuple(Moment(first, stop, value, part / total) for (first, stop), value, part in spans)
