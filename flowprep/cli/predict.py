"""`flowprep predict`: what happens in a video."""

from __future__ import annotations

import json
from typing import Any, get_args

import click

from flowprep.cli.evaluate import running_options
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    NumbersType,
    options_named,
)
from flowprep.extras import extra_needed
from flowprep.learn.config import FusionMethod, PrecisionName
from flowprep.learn.recipes import VIEWS

__all__ = ["predict"]


@click.command(cls=GroupedCommand)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--checkpoint",
    multiple=True,
    required=True,
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Networks",
    help="A folder that train wrote, which means its best.pt, or a checkpoint. Given several "
    "times, such as once for flow and once for RGB, their scores are fused.",
)
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Networks",
    help="For networks that were trained on several data sets: the one whose classes are meant.",
)
@click.option(
    "--views",
    type=ChoiceType(("center", "30", "250")),
    default="30",
    show_default=True,
    cls=GroupedOption,
    group="Networks",
    help="Views of each video that are averaged: center is the middle of the middle, 30 are 10 "
    "clips x 3 crops, 250 are 25 x 10.",
)
@click.option(
    "--method",
    type=ChoiceType([name for name in get_args(FusionMethod) if name != "svm"]),
    default="mean",
    show_default=True,
    cls=GroupedOption,
    group="Networks",
    help="How several networks are fused, as in fuse.",
)
@click.option(
    "--weights",
    type=NumbersType(),
    metavar="W,W,...",
    cls=GroupedOption,
    group="Networks",
    help="Of the networks, for methods mean and weighted.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
    show_default=True,
    cls=GroupedOption,
    group="Output",
    help="Classes to name of each video.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    cls=GroupedOption,
    group="Output",
    help="Print JSON.",
)
@running_options
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    videos: tuple[str, ...],
    checkpoint: tuple[str, ...],
    task: str | None,
    views: str,
    method: FusionMethod,
    weights: tuple[float, ...] | None,
    top: int,
    as_json: bool,
    device: str,
    precision: PrecisionName,
) -> int:
    """Name the most probable classes of each VIDEO, a raw file.

    Flow is extracted as it was for the training, and thrown away afterwards; for many videos,
    extract and evaluate work on all cores and keep it. Exit code 1 when a video cannot be read.

    \b
    flowprep predict clip.mp4 --checkpoint runs/flow
    flowprep predict *.mp4 --checkpoint runs/rgb --checkpoint runs/flow --method weighted
    """
    with extra_needed("`flowprep predict`", "train"), options_named(ctx):
        from flowprep.learn.checkpoint import load_checkpoint
        from flowprep.learn.evaluate import checkpoint_file
        from flowprep.learn.predict import Predictor

        predictor = Predictor(
            [load_checkpoint(checkpoint_file(path)) for path in checkpoint],
            VIEWS[views],
            task=task,
            method=method,
            weights=weights,
            device=device,
            precision=precision,
        )
        found: list[dict[str, Any]] = []
        num_bad = 0
        for video in videos:
            for prediction in predictor.predict(video):
                classes = prediction.top(top)
                num_bad += prediction.error is not None
                if as_json:
                    found.append(
                        {"video": prediction.video, "error": prediction.error}
                        if prediction.error is not None
                        else {
                            "video": prediction.video,
                            "classes": [
                                {"name": name, "probability": probability}
                                for name, probability in classes
                            ],
                        }
                    )
                elif prediction.error is not None:
                    click.echo(f"{prediction.video}: {prediction.error}", err=True)
                else:
                    click.echo(prediction.video)
                    for name, probability in classes:
                        click.echo(f"  {100 * probability:5.1f} %  {name}")
    for note in predictor.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    return 1 if num_bad else 0
