"""Which networks give features, what each sees of a window, and how raw videos are extracted."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from flowprep.config import ExtractConfig
from flowprep.dataset.metadata import stored_config
from flowprep.errors import ConfigError, FlowprepError
from flowprep.learn.checkpoint import Checkpoint, Task, load_checkpoint
from flowprep.learn.clip_inputs import RecipeName, StreamName, sees_flow
from flowprep.learn.clips.mean_image import check_mean
from flowprep.learn.evaluate import checkpoint_file, task_place
from flowprep.learn.features_config import DECODE_OPTIONS
from flowprep.learn.features_network import NetworkSource, file_sha256
from flowprep.learn.foreign import find_recipe
from flowprep.learn.networks import find_network, make_options
from flowprep.learn.predict import plan_extractions
from flowprep.learn.recipes import default_config, recipe_clip, stream_recipe
from flowprep.learn.weights.files import read_file
from flowprep.learn.weights.fits import hinted_options

__all__ = [
    "checkpoint_sources",
    "extraction",
    "shared_task",
    "stored_extraction",
    "weights_sources",
    "with_window",
]

_ORDER: list[StreamName] = sorted(get_args(StreamName), key=sees_flow)

Trained = tuple[Checkpoint, Task]
"""A checkpoint, and the one of its tasks whose extraction is taken."""


def checkpoint_sources(
    paths: Sequence[str | os.PathLike[str]], stream: StreamName | None, task: str | None
) -> tuple[list[NetworkSource], list[Trained]]:
    """Reads checkpoints of flowprep, RGB first, and says how the data of each was extracted.

    `stream` chooses among them; `both` and None take all. Raises ConfigError for checkpoints of the
    same stream, and if none is of the stream.
    """
    found: list[tuple[NetworkSource, Trained]] = []
    for path in paths:
        file = os.path.abspath(checkpoint_file(path))
        checkpoint = load_checkpoint(file)
        spec, clip = checkpoint.config.model, checkpoint.config.clip
        source = NetworkSource(
            spec.model, file, file_sha256(file), True, clip, options=spec.options
        )
        found.append((source, (checkpoint, shared_task(checkpoint, task))))
    streams = [source.stream for source, _ in found]
    if len(set(streams)) < len(streams):
        raise ConfigError(
            f"checkpoint must be one for each stream, got {', '.join(streams)}; give the features "
            "of networks of the same stream folders of their own"
        )
    if stream == "both" and not (set(streams) >= {"flow", "rgb"} or "both" in streams):
        raise ConfigError(
            f"stream both needs checkpoints of flow and of rgb, got {', '.join(streams)}; add the "
            "other one"
        )
    if stream in ("flow", "rgb"):
        found = [one for one in found if one[0].stream == stream]
        if not found:
            raise ConfigError(
                f"stream must be that of a checkpoint, {' or '.join(streams)}, got {stream}"
            )
    found.sort(key=lambda one: _ORDER.index(one[0].stream))
    return [source for source, _ in found], [trained for _, trained in found]


def shared_task(checkpoint: Checkpoint, name: str | None) -> Task:
    """Returns the task whose extraction to take. Without a name, all must have the same one."""
    first, *others = checkpoint.tasks
    if name is None and all(task.extract == first.extract for task in others):
        return first
    return checkpoint.tasks[task_place(checkpoint, name)]


def weights_sources(
    model: str,
    files: Sequence[str | os.PathLike[str]],
    stream: StreamName | None,
    options: Mapping[str, Any],
    recipe: RecipeName | None = None,
) -> tuple[list[NetworkSource], list[str]]:
    """Finds which foreign weights are for which stream, RGB first. Returns notes for the user too.

    `options` are fields of ClipSpec, those of CLIP_OPTIONS. They override what `recipe` says, or
    the recipe that the names in a file tell. Raises ConfigError if there are not as
    many files as streams, WeightsError if weights do not fit.
    """
    network = find_network(model)
    if stream is None:
        raise ConfigError("stream must be given for weights: flow, rgb or both; got none")
    is_joint = stream in network.inputs
    streams: list[StreamName] = [stream] if is_joint else ["rgb", "flow"]
    if not is_joint and stream != "both":
        raise ConfigError(
            f"stream must be {', '.join(network.inputs)} or both for {model}, got {stream}"
        )
    if recipe is not None:
        for one in streams:
            stream_recipe(recipe, one)
    if len(files) != len(streams):
        raise ConfigError(
            f"weights must be {len(streams)} file{'s' * (len(streams) > 1)} for stream {stream}, "
            f"one for each network; got {len(files)}"
        )
    paths = [os.path.abspath(file) for file in files]
    failed: FlowprepError | None = None
    for order in (paths, paths[::-1]):
        try:
            found = [
                _weights_source(model, file, one, options, recipe)
                for file, one in zip(order, streams, strict=True)
            ]
            notes = [note for source, own in found for note in (*_notes(source), *own)]
            return [source for source, _ in found], notes
        except FlowprepError as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _weights_source(
    model: str,
    file: str,
    stream: StreamName,
    options: Mapping[str, Any],
    recipe: RecipeName | None,
) -> tuple[NetworkSource, list[str]]:
    """Returns a network of foreign weights, and notes on the recipe that was taken for it."""
    notes: list[str] = []
    if recipe is None:
        recipe, notes = find_recipe(file, model, stream)
    hinted = make_options(model, hinted_options(read_file(file), model))
    if recipe is None:
        clip = default_config(model, stream, hinted).clip
    else:
        clip = recipe_clip(recipe, stream, model, hinted)
    own = dict(options)
    if stream == "rgb":
        own["subtract_mean_flow"] = False
    clip = dataclasses.replace(clip, **own)
    source = NetworkSource(model, file, file_sha256(file), False, clip, recipe, hinted)
    for one in source.inputs:
        check_mean(clip, one)
    return source, notes


def _notes(source: NetworkSource) -> list[str]:
    """Loads foreign weights once before any work. Returns what the user must know of them."""
    _, report = source.load()
    assert report is not None
    inflated = [how for how in report.converted.values() if "inflated" in how]
    if not inflated:
        return []
    return [
        f"{source.file} holds weights for pictures, which were inflated over time, and "
        f"{source.model} was not trained with them; give weights of {source.model} for features "
        "of motion"
    ]


def with_window(sources: Sequence[NetworkSource], window: int | None) -> list[NetworkSource]:
    """Returns the networks with clips of `window` frames, where networks take any length.

    Raises ConfigError if no network does.
    """
    if window is None:
        return list(sources)
    changed = []
    lengths = []
    for source in sources:
        clip = source.clip
        inputs = source.inputs
        lengths.append(max(one.extent for one in inputs))
        if all(one.form == "volume" for one in inputs):
            num_frames, rest = divmod(window, clip.frame_stride)
            if rest or not num_frames:
                raise ConfigError(
                    f"window must be a multiple of {clip.frame_stride}, because {source.model} "
                    f"takes every {clip.frame_stride}th frame; got {window}"
                )
            source = dataclasses.replace(
                source, clip=dataclasses.replace(clip, num_frames=num_frames)
            )
            lengths[-1] = window
        changed.append(source)
    if max(lengths) != window:
        names = ", ".join(f"{one.model} takes {n}" for one, n in zip(sources, lengths, strict=True))
        raise ConfigError(
            f"window must be the length of the networks' clips, because stacks have one length: "
            f"{names}; got {window}. Leave --window out, and set --stride"
        )
    return changed


def extraction(
    sources: Sequence[NetworkSource],
    trained: Sequence[Trained],
    config: ExtractConfig | None,
    decode: Mapping[str, Any],
) -> ExtractConfig:
    """Returns how raw videos are extracted for all networks: what each was trained on, or `config`.

    `decode` are fields of DECODE_OPTIONS that override. Raises ConfigError if the networks need
    different extractions, and for a `config` beside checkpoints.
    """
    if trained and config is not None:
        raise ConfigError(
            "config is for foreign weights, because a checkpoint says how its videos were "
            f"extracted; leave out all options of the extraction but "
            f"{', '.join('--' + name.replace('_', '-') for name in DECODE_OPTIONS)}"
        )
    own = [task.config for _, task in trained] or [
        config or (recipe_extraction(source) or ExtractConfig()) for source in sources
    ]
    wanted = [
        (
            dataclasses.replace(one, decode=dataclasses.replace(one.decode, **decode)),
            source.clip.stream,
            source.clip.stack,
        )
        for one, source in zip(own, sources, strict=True)
    ]
    configs, _ = plan_extractions(wanted)
    if len(configs) > 1:
        raise ConfigError(
            f"checkpoint: the networks of {' and '.join(one.stream for one in sources)} were "
            "trained on videos that were extracted in different ways; make the features of each "
            "alone, with --stream"
        )
    return configs[0]


def recipe_extraction(source: NetworkSource) -> ExtractConfig | None:
    """Returns how the data of foreign weights was extracted; None if their recipe is not known."""
    if source.recipe is None:
        return None
    return stream_recipe(source.recipe, source.stream).extract


def stored_extraction(config: ExtractConfig, streams: Sequence[str]) -> dict[str, Any]:
    """Returns what of an extraction decides the features of networks that see `streams`."""
    stored = stored_config(config)
    found = {"decode": stored["decode"], "step": config.flow.step}
    if set(streams) & {"flow", "both"}:
        found["flow"] = stored["flow"]
        found["jpeg_quality"] = config.encode.jpeg_quality
    if set(streams) & {"rgb", "both"}:
        found["rgb_jpeg_quality"] = config.encode.rgb_jpeg_quality
    return found
