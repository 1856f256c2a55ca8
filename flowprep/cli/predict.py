"""`flowprep predict`: the action in a video."""

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
    reach_options,
)
from flowprep.cli.output import echo_line, echo_notes
from flowprep.extras import extra_needed
from flowprep.learn.config import FusionMethod, PrecisionName
from flowprep.learn.recipes import VIEWS

__all__ = ["predict"]

urls_option, links_option = reach_options("Input")


@click.command(cls=GroupedCommand)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--checkpoint",
    multiple=True,
    required=True,
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Networks",
    help="A checkpoint file, or a folder that train wrote. From a folder, best.pt is taken, "
    "or last.pt if there is no best.pt. Give several, such as one for flow "
    "and one for RGB, to fuse their scores.",
)
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Networks",
    help="For networks that were trained on several data sets: the name of the data set whose "
    "classes to predict.",
)
@click.option(
    "--views",
    type=ChoiceType(tuple(VIEWS)),
    default="30",
    show_default=True,
    cls=GroupedOption,
    group="Networks",
    help="The views of each video whose scores are averaged. center: the center crop of the middle "
    "clip. 30: 10 clips with 3 crops each. 250: 25 clips with 10 crops each.",
)
@click.option(
    "--method",
    type=ChoiceType([name for name in get_args(FusionMethod) if name != "svm"]),
    default="mean",
    show_default=True,
    cls=GroupedOption,
    group="Networks",
    help="How to fuse the scores of several networks. flowprep fuse --help explains the methods.",
)
@click.option(
    "--weights",
    type=NumbersType(),
    metavar="W,W,...",
    cls=GroupedOption,
    group="Networks",
    help="The weight of each network, for methods mean and weighted.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
    show_default=True,
    cls=GroupedOption,
    group="Output",
    help="Number of classes to name for each video.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    cls=GroupedOption,
    group="Output",
    help="Print the classes as JSON.",
)
@urls_option
@links_option
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
    urls: bool,
    follow_links: bool,
) -> int:
    """Name the most probable classes of each VIDEO, a video file.

    The command extracts flow with the options of the training data, and does not store it. For many
    videos, use extract and evaluate instead: they use all cores and keep the flow. The exit code is
    1 when a video cannot be read.

    \b
    flowprep predict clip.mp4 --checkpoint runs/flow
    flowprep predict *.mp4 --checkpoint runs/rgb --checkpoint runs/flow --method weighted
    """
    with extra_needed("`flowprep predict`", "train"), options_named(ctx):
        from flowprep.learn.checkpoint import load_checkpoint
        from flowprep.learn.evaluate import checkpoint_file, checkpoint_notes
        from flowprep.learn.predict import Predictor

        predictor = Predictor(
            [load_checkpoint(checkpoint_file(path)) for path in checkpoint],
            VIEWS[views],
            task=task,
            method=method,
            weights=weights,
            device=device,
            precision=precision,
            urls=urls,
            follow_links=follow_links,
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
                    echo_line(f"{prediction.video}: {prediction.error}", err=True)
                else:
                    echo_line(prediction.video)
                    for name, probability in classes:
                        echo_line(f"  {100 * probability:5.1f} %  {name}")
    notes = [note for path in checkpoint for note in checkpoint_notes(path)]
    echo_notes([*notes, *predictor.notes])
    if as_json:
        click.echo(json.dumps(found, indent=2))
    return 1 if num_bad else 0
