"""`flowprep explain`: what in a video speaks for a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowprep.cli.evaluate import device_option
from flowprep.cli.input_options import reach_options
from flowprep.cli.options import GroupedCommand, GroupedOption, dataclass_options, options_named
from flowprep.cli.output import echo_line, echo_notes
from flowprep.cli.seeing_options import seeing_output_options
from flowprep.errors import VideoError
from flowprep.extras import extra_needed
from flowprep.learn.seeing.specs import ExplainSpec, FilmName

__all__ = ["explain"]

urls_option, links_option = reach_options("Input")


@click.command(cls=GroupedCommand)
@click.argument("video")
@click.argument("key", required=False)
@click.option(
    "--checkpoint",
    multiple=True,
    required=True,
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Networks",
    help="A checkpoint file, or a folder that train wrote. Give several, such as one for flow and "
    "one for RGB, to see them side by side.",
)
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Networks",
    help="For networks of several label sets or data sets: the name of the one whose classes are "
    "meant.",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    cls=GroupedOption,
    group="What to explain",
    help="The class. By default it is the one that the networks find most probable.",
)
@dataclass_options(
    ExplainSpec,
    "What to explain",
    names={"num_clips": "clips", "num_crops": "crops", "num_moments": "moments"},
)
@seeing_output_options
@urls_option
@links_option
@device_option
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    video: str,
    key: str | None,
    checkpoint: tuple[str, ...],
    task: str | None,
    class_name: str | None,
    out: str,
    film: FilmName,
    urls: bool,
    follow_links: bool,
    device: str,
    **spec: Any,
) -> int:
    """Show where networks look in a VIDEO, and which moments count, for one class.

    VIDEO is a video file, whose flow is extracted with the options of the training data, or a data
    set, of which KEY names a video. The heat over frames and flow is Grad-CAM. The weight of a
    moment says how much it adds to the score of the class, from a video in which nothing moves.

    \b
    flowprep explain clip.mp4 --checkpoint runs/rgb --checkpoint runs/flow --out why
    flowprep explain flow/ walk/clip1 --checkpoint runs/flow --class run --out why-run
    """
    with extra_needed("`flowprep explain`", "train"), options_named(ctx):
        from flowprep.learn.checkpoint import load_checkpoint
        from flowprep.learn.evaluate import checkpoint_file, checkpoint_notes
        from flowprep.learn.seeing.explain import Explainer
        from flowprep.look.explained import share_bars, write_explanation

        explainer = Explainer(
            [load_checkpoint(checkpoint_file(path)) for path in checkpoint],
            ExplainSpec(**spec),
            class_name=class_name,
            task=task,
            device=device,
            urls=urls,
            follow_links=follow_links,
        )
        notes = [note for path in checkpoint for note in checkpoint_notes(path)]
        try:
            with explainer.explained(video, key) as found:
                written = write_explanation(found, Path(out), film)
        except VideoError as error:
            echo_line(f"{video}: {error.reason}: {error.message}", err=True)
            echo_notes([*notes, *explainer.notes])
            return 1
        chosen = "the most probable class" if found.is_predicted else "not the most probable class"
        echo_line(f"{found.video}: {found.class_name}, {chosen}")
        for line in share_bars(found.networks):
            echo_line(line)
        for path in written:
            echo_line(f"  written to {path}")
        echo_notes([*notes, *explainer.notes])
        return 0
