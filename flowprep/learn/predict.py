"""From a raw video to its classes: extract as in training, score with each network, fuse."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from flowprep.config import DIRECTIONS, ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.layout import read_failures
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import VIDEO_NOTES, ConfigError, DatasetError, InputError, VideoError
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.inputs.video import Video
from flowprep.learn.checkpoint import Checkpoint, Task, average_note, check_data, restore_model
from flowprep.learn.clip_inputs import StreamName, sees_flow, sees_frames
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.window_spans import WindowSpans, cut_windows, frame_borders, num_positions
from flowprep.learn.clips.window_views import WindowViews, check_window
from flowprep.learn.config import FusionMethod, StackName, ViewSpec
from flowprep.learn.evaluate import Head, clips_notes, score_heads
from flowprep.learn.forward import group_size
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.heads import heads_of
from flowprep.learn.placement import place_model, resolve_device
from flowprep.learn.scores import Scores
from flowprep.learn.timeline import Timeline
from flowprep.learn.timeline_spec import TimelineSpec
from flowprep.learn.training_specs import PrecisionName
from flowprep.run.driver import run_extract
from flowprep.storage import Storage
from flowprep.video.frame_times import read_frame_times
from flowprep.words import format_count

__all__ = ["Prediction", "Predictor", "plan_extractions"]


@dataclass(frozen=True)
class Prediction:
    """The result for one video: its scores, or why there are none."""

    video: str
    """The name that the user gave, or the path of a video in a folder or list."""
    scores: Scores | None = None
    """Scores of this video alone, fused if there are several networks; of the first label set."""
    error: str | None = None
    """Why the video could not be read."""
    heads: Mapping[str, Scores] = field(default_factory=dict)
    """The scores of every label set by name, for networks of several, such as verb and noun."""

    def top(
        self,
        number: int,
        *,
        head: str | None = None,
        thresholds: Mapping[int, float] | None = None,
    ) -> list[tuple[str, float]]:
        """Returns the most probable classes and their probabilities, the highest first.

        `head` names a label set. With `thresholds`, by class number, only classes that reach theirs
        are returned.
        """
        scores = self.scores if head is None else self.heads.get(head)
        if scores is None:
            return []
        (row,) = scores.probabilities
        order = np.argsort(-row, kind="stable").tolist()
        if thresholds is not None:
            order = [label for label in order if row[label] >= thresholds.get(label, np.inf)]
        return [(scores.names[label], float(row[label])) for label in order[:number]]


class Predictor:
    """Networks that were trained with flowprep, ready to classify raw videos."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        views: ViewSpec,
        *,
        task: str | None = None,
        method: FusionMethod = "mean",
        weights: Sequence[float] | None = None,
        device: str = "auto",
        precision: PrecisionName = "fp32",
        urls: bool = True,
        follow_links: bool = True,
        keep_frames: bool = False,
    ) -> None:
        """Raises ConfigError for options that do not fit, DatasetError for other classes.

        For checkpoints of several data sets, `task` names the data set whose classes to use. For
        those of several label sets, it may name one of them; by default all are predicted. `urls`
        and `follow_links` are those of `collect_videos`. `keep_frames` extracts the frames also for
        networks that see flow alone.
        """
        if not checkpoints:
            raise ConfigError("checkpoint must be given once or more")
        if method == "svm":
            raise ConfigError("method svm needs scores of training videos: use `flowprep fuse`")
        if len(checkpoints) == 1 and (weights is not None or method != "mean"):
            raise ConfigError(
                "method and weights are for several checkpoints, got one; leave them out"
            )
        self.checkpoints = checkpoints
        self.views = views
        self.method: FusionMethod = method
        self.weights = weights
        self.device = resolve_device(device)
        self.precision: PrecisionName = precision
        self._urls, self._follow_links = urls, follow_links
        self.heads = [
            [
                checkpoint.tasks[place]
                for place in heads_of(checkpoint, task if len(checkpoint.tasks) > 1 else None)
            ]
            for checkpoint in checkpoints
        ]
        """The label sets that each network predicts, one for most networks."""
        self.tasks = [heads[0] for heads in self.heads]
        self._check_classes()
        self.notes: list[str] = []
        """Sentences for the user, for example about a different flow implementation."""
        clips = [checkpoint.config.clip for checkpoint in checkpoints]
        self.extractions, self.extraction_of = plan_extractions(
            [
                (task.config, clip.stream, clip.stack)
                for task, clip in zip(self.tasks, clips, strict=True)
            ]
        )
        if keep_frames:
            self.extractions = [
                dataclasses.replace(one, encode=dataclasses.replace(one.encode, keep_rgb=True))
                for one in self.extractions
            ]
        models = [restore_model(checkpoint) for checkpoint in checkpoints]
        for model in models:
            place_model(model, self.device)
        self.models = models
        # Finds wrong weights before any work starts.
        self._fuse(
            [_no_scores(task, clip.stream) for task, clip in zip(self.tasks, clips, strict=True)]
        )
        for checkpoint in checkpoints:
            self.note(average_note(checkpoint))

    def predict(self, video: str | os.PathLike[str]) -> Iterator[Prediction]:
        """Predicts a video file, a folder of images, or each video in a folder or list.

        A video that cannot be read becomes a Prediction with an error. The others continue.
        """
        name = os.fspath(video)
        try:
            manifest = self.collect(name)
        except InputError as error:
            yield Prediction(name, error=str(error).removeprefix("VIDEO "))
            return
        for found in manifest.videos:
            yield self._predict(name if len(manifest.videos) == 1 else found.source, found)

    def collect(self, name: str) -> Manifest:
        try:
            found = collect_videos(name, urls=self._urls, follow_links=self._follow_links)
        except InputError as error:
            raise InputError(f"VIDEO {str(error).removeprefix('VIDEOS ')}") from error
        self.note(found.notes)
        return found

    def timeline(self, video: str | os.PathLike[str], spec: TimelineSpec) -> Timeline:
        """Scores each window of one video, a video file or a folder of images.

        The flow of the whole video is stored in a temporary folder first, and each window is read
        from there, so the video is never whole in memory. Raises ConfigError for windows that do
        not suit the networks, InputError unless `video` is one video, and VideoError if it cannot
        be read.
        """
        if len(self.heads[0]) > 1:
            names = ", ".join(task.name for task in self.heads[0])
            raise ConfigError(f"task must name one of {names} for a timeline, got none")
        for model in self.models:
            check_window(model.inputs, spec.window)
        rates = [_rate(task.config.decode.fps) for task in self.tasks]
        if other := next((rate for rate in rates if rate != rates[0]), None):
            raise ConfigError(
                "checkpoint must be of networks that see the same frames for a timeline, got one "
                f"for {rates[0]} and one for {other}; make a timeline of each alone"
            )
        name = os.fspath(video)
        manifest = self.collect(name)
        if len(manifest.videos) != 1:
            raise InputError(
                f"VIDEO must be one video for a timeline, but {name} holds "
                f"{len(manifest.videos):,}; name one of them"
            )
        (found,) = manifest.videos
        with self.extracted(name, found) as datasets:
            stored = [dataset.videos[0] for dataset in datasets]
            streams = {checkpoint.config.clip.stream for checkpoint in self.checkpoints}
            count = min(num_positions(one.num_frames, one.num_flows, streams) for one in stored)
            windows = cut_windows(count, length=spec.window, stride=spec.stride, tail=spec.tail)
            if windows.is_short:
                self.note(
                    [
                        f"{name} has {count} frames, fewer than a window of {spec.window}; it is "
                        "one window"
                    ]
                )
            (scores,) = self._score_all(datasets, windows)
            metadata = datasets[0].metadata(stored[0].key)
        times = read_frame_times(found, self.extractions[0].decode, stored[0].num_frames)
        return Timeline(
            name,
            spec,
            windows,
            scores,
            frame_borders(count, fps=stored[0].fps, frame_seconds=times),
            stored[0].fps,
            metadata.damage or None,
        )

    def _predict(self, name: str, video: Video) -> Prediction:
        try:
            with self.extracted(name, video) as datasets:
                fused = self._score_all(datasets)
        except VideoError as error:
            return Prediction(name, error=f"{error.reason}: {error.message}")
        names = [task.name for task in self.heads[0]]
        heads = dict(zip(names, fused, strict=True)) if len(names) > 1 else {}
        return Prediction(name, fused[0], heads=heads)

    @contextmanager
    def extracted(self, name: str, video: Video) -> Iterator[list[FlowDataset]]:
        """Yields a data set of one video for each extraction, in a temporary folder.

        Raises VideoError if the video gives nothing.
        """
        video = dataclasses.replace(video, labels=(), split=None)
        with tempfile.TemporaryDirectory(prefix="flowprep-") as folder:
            datasets = []
            for number, config in enumerate(self.extractions):
                out = os.path.join(folder, str(number))
                # If the network runs on the CPU, its flow is computed there too.
                device = "cpu" if self.device.type == "cpu" else "auto"
                options = RunOptions(executor="inline", device=device, progress=False)
                report = run_extract(Manifest((video,), (), 0, ()), out, config, options)
                self.note(
                    f"{name}: {VIDEO_NOTES[code]} ({note.first_text})"
                    for code, note in report.video_notes.items()
                )
                if report.num_partial:
                    self.note([f"{name} is damaged; only what came before the damage was seen"])
                for failure in read_failures(Storage(out)).values():
                    raise VideoError(failure.reason, failure.message)
                datasets.append(open_dataset(out))
            yield datasets

    def _score_all(
        self, datasets: Sequence[FlowDataset], windows: WindowSpans | None = None
    ) -> list[Scores]:
        """Returns the fused scores of each label set, of each window if there are any."""
        streams = [
            self._score(number, datasets[self.extraction_of[number]], windows)
            for number in range(len(self.checkpoints))
        ]
        return [self._fuse(own) for own in zip(*streams, strict=True)]

    def _score(
        self, number: int, dataset: FlowDataset, windows: WindowSpans | None
    ) -> list[Scores]:
        """Returns the scores of one network for each of its label sets."""
        checkpoint = self.checkpoints[number]
        clip, heads, task = checkpoint.config.clip, self.heads[number], self.tasks[number]
        for note in check_data(task, dataset, stream=clip.stream, labels=False):
            # The data set is temporary, so its path would tell the user nothing.
            self.note([note.replace(dataset.location, "these videos")])
        model = self.models[number]
        size = group_size(model)
        tested: TestViews
        if windows is None:
            tested = TestViews(
                dataset, clip, model.inputs, self.views, split="all", group_size=size
            )
        else:
            key = dataset.videos[0].key
            tested = WindowViews(
                dataset, key, windows, clip, model.inputs, self.views, group_size=size
            )
        self.note(clips_notes(tested))
        scores = score_heads(
            model,
            tested,
            [Head(checkpoint.tasks.index(head), head.loss) for head in heads],
            device=self.device,
            precision=self.precision,
        )
        return [
            dataclasses.replace(own, class_names=head.class_names)
            for own, head in zip(scores, heads, strict=True)
        ]

    def note(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]

    def _fuse(self, streams: Sequence[Scores]) -> Scores:
        if len(streams) == 1:
            return streams[0]
        return fuse_scores(streams, self.method, weights=self.weights)

    def _check_classes(self) -> None:
        first, count = self.heads[0], len(self.heads[0])
        for number, heads in enumerate(self.heads):
            if len(heads) != count:
                raise ConfigError(
                    f"checkpoint {number + 1} has {format_count(len(heads), 'label set')}, and "
                    f"checkpoint 1 has {count}; predict one label set with --task, or with each "
                    "alone"
                )
            for task, wanted in zip(heads, first, strict=True):
                if task.class_names == wanted.class_names:
                    continue
                raise DatasetError(
                    f"checkpoint {number + 1} ({task.name}) has other classes, or another order of "
                    f"them, than checkpoint 1 ({wanted.name}): {', '.join(task.class_names)}"
                    f" instead of {', '.join(wanted.class_names)}; predict with each alone"
                )


def plan_extractions(
    wanted: Sequence[tuple[ExtractConfig, StreamName, StackName]],
) -> tuple[list[ExtractConfig], list[int]]:
    """Returns the extractions that serve all networks, and the index of each network's extraction.

    `wanted` says for each network how its training data was extracted and what it sees. Only the
    streams that a network sees are made. Networks share an extraction if all options that decide
    their numbers are equal. For RGB alone, the flow is DIS, which is the fastest; nothing reads it.
    """
    configs: list[ExtractConfig] = []
    places = [-1] * len(wanted)
    # Those that see flow first: the frames of the others may come with it.
    for stream in sorted(get_args(StreamName), key=sees_flow, reverse=True):
        for number, (config, own, stack) in enumerate(wanted):
            if own != stream:
                continue
            needed = _needed(config, own, stack)
            for place, other in enumerate(configs):
                if (joined := _join(other, needed, own)) is not None:
                    configs[place], places[number] = joined, place
                    break
            else:
                configs.append(needed)
                places[number] = len(configs) - 1
    return configs, places


def _needed(config: ExtractConfig, stream: StreamName, stack: StackName) -> ExtractConfig:
    encode = dataclasses.replace(
        config.encode,
        directions=DIRECTIONS if stack == "bidirectional" else ("forward",),
        keep_rgb=sees_frames(stream),
    )
    flow = config.flow if sees_flow(stream) else FlowSpec("dis", step=config.flow.step)
    return ExtractConfig(config.decode, flow, encode)


def _join(old: ExtractConfig, new: ExtractConfig, stream: StreamName) -> ExtractConfig | None:
    """Returns an extraction that serves as both, or None if any number would differ.

    `old` may hold both streams and belongs to networks that see flow first; `new` is for `stream`.
    """
    if old.decode != new.decode:
        return None
    encode = old.encode
    if sees_flow(stream):
        if old.flow != new.flow or encode.jpeg_quality != new.encode.jpeg_quality:
            return None
        directions = (*encode.directions, *new.encode.directions)
        encode = dataclasses.replace(encode, directions=directions)
    elif old.flow.step > new.flow.step:
        # A video may be too short for the flow but long enough for the frames.
        return None
    if sees_frames(stream):
        quality = new.encode.rgb_jpeg_quality
        if encode.keep_rgb and encode.rgb_jpeg_quality != quality:
            return None
        encode = dataclasses.replace(encode, keep_rgb=True, rgb_jpeg_quality=quality)
    return dataclasses.replace(old, encode=encode)


def _rate(fps: float | None) -> str:
    return "the source's rate" if fps is None else f"{fps:g} fps"


def _no_scores(task: Task, stream: StreamName) -> Scores:
    none = np.zeros((0, len(task.class_names)))
    targets = none.astype(np.bool_) if task.is_multilabel else None
    keys, labels = (), np.zeros(0, np.int64)
    return Scores(keys, labels, none, none, task.class_names, stream, targets=targets)
