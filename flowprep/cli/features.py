"""`flowprep features`: the numbers of a network for each window of whole videos."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from flowprep.cli.extract import (
    config_options_with,
    format_option,
    given_config,
    given_videos,
    list_options,
    run_options,
)
from flowprep.cli.foreign_options import recipe_option
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    dataclass_options,
    given_values,
    labels_option,
    options_named,
)
from flowprep.cli.output import echo_notes
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.errors import ConfigError
from flowprep.extras import extra_needed
from flowprep.flow.parameters import PARAMETERS
from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.config import ClipSpec
from flowprep.learn.features_config import CLIP_OPTIONS, DECODE_OPTIONS, FeatureSpec
from flowprep.learn.networks import NETWORKS
from flowprep.learn.recipes import RECIPES
from flowprep.presets import PRESETS

__all__ = ["features"]


@click.command(cls=GroupedCommand)
@click.argument("videos", nargs=-1, required=True, metavar="OUT|VIDEOS...")
@click.option(
    "--to",
    required=True,
    metavar="FOLDER",
    cls=GroupedOption,
    group="Features",
    help="The folder or URL for the features.",
)
@click.option(
    "--checkpoint",
    multiple=True,
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Features",
    help="A checkpoint file, or a folder that train wrote. From a folder, best.pt is taken. Give "
    "two, one for flow and one for RGB, to have the features of both.",
)
@click.option(
    "--model",
    type=ChoiceType(tuple(NETWORKS)),
    metavar="NAME",
    cls=GroupedOption,
    group="Features",
    help=f"The network of foreign weights: {', '.join(NETWORKS)}.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="FILE",
    cls=GroupedOption,
    group="Features",
    help="Foreign weights for --model: .safetensors, .pth, .caffemodel, a .pkl of Caffe2, or a "
    "checkpoint of TensorFlow. For stream both, give two files, one for flow and one for RGB, in "
    "any order.",
)
@click.option(
    "--stream",
    type=ChoiceType(("flow", "rgb", "both")),
    cls=GroupedOption,
    group="Features",
    metavar="flow|rgb|both",
    help="What the network sees. It is needed for weights. Checkpoints know their own, so that it "
    "chooses among several.",
)
@recipe_option("Features")
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Features",
    help="For a network that was trained on several data sets: the name of the data set whose "
    "extraction to take for raw videos.",
)
@dataclass_options(
    FeatureSpec,
    "Features",
    skip=("maps",),
    varying=("window", "stride"),
    metavars={"layer": "pool|NAME", "window": "FRAMES", "stride": "FRAMES"},
    switches=("joined",),
)
@click.option(
    "--maps/--pool",
    default=False,
    cls=GroupedOption,
    group="Features",
    help="Store the maps over time and space as they are, or their average. The default is the "
    "average.",
)
@labels_option("Features")
@click.option(
    "--force",
    is_flag=True,
    cls=GroupedOption,
    group="Features",
    help="Take data that was extracted with other options than the training data, or than the "
    "recipe of foreign weights says.",
)
@dataclass_options(
    ClipSpec,
    "Clips of foreign weights",
    names={"resize_short_px": "resize-short", "crop_px": "crop"},
    skip=tuple(item.name for item in dataclasses.fields(ClipSpec) if item.name not in CLIP_OPTIONS),
    varying=("frame_stride", "subtract_mean_flow", "normalization"),
    metavars={"resize_short_px": "PX", "crop_px": "PX", "normalization": "NAME"},
)
@click.option(
    "--keep-dataset",
    metavar="OUT",
    cls=GroupedOption,
    group="Raw videos",
    help="Store the flow of raw videos too, as the data set OUT.",
)
@format_option("--input-format")
@list_options
@config_options_with(crop="crop-before-flow")
@run_options("segment_frames", "redo_changed")
@click.option(
    "--loaders",
    "num_loaders",
    type=click.IntRange(min=0),
    metavar="N",
    cls=GroupedOption,
    group="Running",
    help="Processes that read a data set. The default is all cores except one. 0 reads in this "
    "process.",
)
@click.pass_context
def features(
    ctx: click.Context,
    /,
    videos: tuple[str, ...],
    to: str,
    checkpoint: tuple[str, ...],
    model: str | None,
    weights: tuple[str, ...],
    stream: StreamName | None,
    recipe: RecipeName | None,
    task: str | None,
    labels: str | None,
    force: bool,
    keep_dataset: str | None,
    preset: str | None,
    num_loaders: int | None,
    **_: Any,
) -> int:
    """Write the features of each window of whole videos to the folder --to.

    OUT is a data set of flowprep, a folder or a URL. VIDEOS are raw videos, as extract takes them.
    Raw videos go from file to features in one pass, on all cores, and their flow is not stored. It
    is computed as the training data of the checkpoint was, or as the recipe of foreign weights
    says. For foreign weights without a recipe, --preset and the options of extract say how.

    To go on after a stop or a crash, run the same command again. A video that fails is listed in
    failures.jsonl, and the exit code is 1.

    \b
    flowprep features flow --checkpoint runs/flow --to features
    flowprep features 'videos/*.mp4' --checkpoint runs/rgb --checkpoint runs/flow --to features
    flowprep features videos --model i3d --weights flow.pt --stream flow --preset i3d --stride 16 \\
        --to features
    """
    with extra_needed("`flowprep features`", "train"), options_named(ctx):
        from flowprep.learn.features import extract_features, is_dataset

        given = _given_extraction(ctx, _base(preset, recipe, stream), bool(checkpoint))
        decode = given_values(ctx, DECODE_OPTIONS)
        options = given_values(ctx, [item.name for item in dataclasses.fields(RunOptions)])
        names = [item.name for item in dataclasses.fields(FeatureSpec)]
        is_data = is_dataset(videos)
        inputs: Any = videos
        if not is_data:
            config = given or _base(preset, recipe, stream)
            if "image_fps" in decode:
                config = dataclasses.replace(
                    config, decode=dataclasses.replace(config.decode, image_fps=decode["image_fps"])
                )
            inputs = given_videos(ctx, config, to)
            echo_notes(inputs.notes)
            inputs = dataclasses.replace(inputs, notes=())
        try:
            report = extract_features(
                inputs,
                to,
                FeatureSpec(**{name: ctx.params[name] for name in names}),
                checkpoint=checkpoint,
                model=model,
                weights=weights,
                stream=stream,
                recipe=recipe,
                clip=given_values(ctx, CLIP_OPTIONS),
                task=task,
                config=given,
                decode=decode if checkpoint else {},
                labels=labels,
                keep_dataset=keep_dataset,
                force=force,
                executor=ctx.params["executor"],
                options=RunOptions(**options),
                num_loaders=num_loaders,
            )
        except KeyboardInterrupt:
            click.echo("\nInterrupted; the same command goes on where this one stopped.", err=True)
            return 1
    click.echo(report.summary())
    return report.exit_code


def _base(
    preset: str | None, recipe: RecipeName | None, stream: StreamName | None
) -> ExtractConfig:
    """Returns the extraction that the user's options change: a preset, or that of a recipe."""
    if preset is not None:
        return PRESETS[preset]
    if recipe is None:
        return ExtractConfig()
    streams = RECIPES[recipe].streams
    return streams.get(stream or "flow", streams[RECIPES[recipe].first_stream]).extract


def _given_extraction(
    ctx: click.Context, base: ExtractConfig, has_checkpoint: bool
) -> ExtractConfig | None:
    """Returns the extraction that the user asks for, or None without any option for it.

    Raises ConfigError for one beside a checkpoint, which knows its own.
    """
    kinds: list[type[Any]] = [DecodeSpec, FlowSpec, EncodeSpec, *PARAMETERS.values()]
    names = {item.name for kind in kinds for item in dataclasses.fields(kind)}
    names |= {"preset", "estimator", "estimator_options"}
    given = list(given_values(ctx, sorted(names & ctx.params.keys())))
    if has_checkpoint:
        for name in given:
            if name not in DECODE_OPTIONS:
                raise ConfigError(
                    f"{name} is for foreign weights, because a checkpoint says how its videos are "
                    "extracted; leave it out"
                )
        return None
    if not given:
        return None
    return given_config(ctx, base)
