"""`flowprep imagine`: what a network takes for a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowprep.cli.evaluate import device_option
from flowprep.cli.options import GroupedCommand, GroupedOption, dataclass_options, options_named
from flowprep.cli.output import echo_line, echo_notes
from flowprep.cli.seeing_options import seeing_output_options
from flowprep.extras import extra_needed
from flowprep.learn.seeing.specs import FilmName, ImagineSpec

__all__ = ["imagine"]


@click.command(cls=GroupedCommand)
@click.option(
    "--checkpoint",
    required=True,
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Network",
    help="A checkpoint file, or a folder that train wrote. From a folder, best.pt is taken, "
    "or last.pt if there is no best.pt.",
)
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Network",
    help="For networks of several label sets or data sets: the name of the one whose classes are "
    "meant.",
)
@click.option(
    "--class",
    "class_names",
    multiple=True,
    required=True,
    metavar="NAME",
    cls=GroupedOption,
    group="What to imagine",
    help="The class. May be given several times.",
)
@dataclass_options(ImagineSpec, "What to imagine")
@seeing_output_options
@device_option
@click.pass_context
def imagine(
    ctx: click.Context,
    /,
    checkpoint: str,
    task: str | None,
    class_names: tuple[str, ...],
    out: str,
    film: FilmName,
    device: str,
    **spec: Any,
) -> int:
    """Find the flow or frames that a network takes for a class with the most certainty.

    The search begins with noise and climbs. Changes from pixel to pixel cost something, so that the
    result is a picture. Changes over time cost much for slow motion, and little for fast motion.
    No data set is needed.

    \b
    flowprep imagine --checkpoint runs/flow --class move_left --class zoom_in --out imagined
    flowprep imagine --checkpoint runs/rgb --class Archery --motion slow --steps 400 --out archery
    """
    with extra_needed("`flowprep imagine`", "train"), options_named(ctx):
        from flowprep.learn.checkpoint import load_checkpoint
        from flowprep.learn.evaluate import checkpoint_file, checkpoint_notes
        from flowprep.learn.seeing.imagine import imagine as find_videos
        from flowprep.learn.seeing.imagine import imagined_notes
        from flowprep.look.imagined import write_imagined

        network = load_checkpoint(checkpoint_file(checkpoint))
        videos = find_videos(network, class_names, ImagineSpec(**spec), task=task, device=device)
        for path in write_imagined(videos, Path(out), film):
            echo_line(f"written to {path}")
        for video in videos:
            echo_line(f"  {100 * video.probability:5.1f} %  {video.class_name}, {video.motion}")
        echo_notes([*checkpoint_notes(checkpoint), *imagined_notes(network)])
        return 0
