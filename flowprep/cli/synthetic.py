"""`flowprep synthetic`: small clips to try everything with."""

from __future__ import annotations

from pathlib import Path

import click

from flowprep.cli.options import NamesType, options_named
from flowprep.cli.output import echo_line

__all__ = ["synthetic"]


@click.command
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--videos-per-class", default=4, metavar="N", show_default=True, help="Clips in each class."
)
@click.option("--frames", default=24, metavar="N", show_default=True, help="Frames in each clip.")
@click.option("--width", default=128, metavar="PX", show_default=True, help="Width. Must be even.")
@click.option("--height", default=96, metavar="PX", show_default=True, help="Height. Must be even.")
@click.option(
    "--fps", default=25, type=float, metavar="NUMBER", show_default=True, help="Frames per second."
)
@click.option(
    "--seed", default=0, metavar="N", show_default=True, help="The same seed makes the same clips."
)
@click.option(
    "--actions",
    type=NamesType(),
    metavar="NAME,NAME,...",
    help="Make only these actions, such as move_left,move_right.",
)
@click.option(
    "--looks",
    type=NamesType(),
    metavar="NAME,NAME,...",
    help="Give each clip one color: red, blue, green or yellow. Each look of each action is a "
    "class, such as red_move_left. A frame tells the look, and flow the action.",
)
def synthetic(
    folder: Path,
    videos_per_class: int,
    frames: int,
    width: int,
    height: int,
    fps: float,
    seed: int,
    actions: tuple[str, ...] | None,
    looks: tuple[str, ...] | None,
) -> None:
    """Make a few small action clips in FOLDER. Only their motion tells the classes apart.

    The clips are FOLDER/videos/CLASS/*.mp4. FOLDER/annotations holds their splits, in the file
    format of UCF101.

    \b
    flowprep synthetic demo
    flowprep extract demo/videos demo-flow --annotations demo/annotations --algorithm dis
    flowprep synthetic both --actions move_left,move_right --looks red,blue
    """
    from flowprep.storage_errors import translated_errors
    from flowprep.synthetic import ACTIONS, write_action_dataset

    if width % 2 or height % 2:
        raise click.UsageError(f"--width and --height must be even, got {width}x{height}.")
    with translated_errors("write", str(folder)), options_named(click.get_current_context()):
        paths = write_action_dataset(
            folder,
            num_videos_per_class=videos_per_class,
            num_frames=frames,
            width=width,
            height=height,
            fps=fps,
            seed=seed,
            actions=tuple(ACTIONS) if actions is None else actions,
            looks=looks or (),
        )
    echo_line(f"wrote {len(paths)} clips to {folder}/videos, their splits to {folder}/annotations")
