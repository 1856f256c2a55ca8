"""`flowprep synthetic`: clips to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["synthetic"]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--videos-per-class", default=4, show_default=True, help="Clips of each class.")
@click.option("--frames", default=24, show_default=True, help="Frames of each clip.")
@click.option("--width", default=128, show_default=True, help="In px, even.")
@click.option("--height", default=96, show_default=True, help="In px, even.")
@click.option("--fps", default=25.0, show_default=True, help="Frames per second.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same clips.")
def synthetic(
    folder: Path,
    videos_per_class: int,
    frames: int,
    width: int,
    height: int,
    fps: float,
    seed: int,
) -> None:
    """Make a small set of action clips in FOLDER, in classes that only motion tells apart.

    FOLDER/videos/CLASS/*.mp4 with UCF101's kind of split files in FOLDER/annotations.
    """
    from flowprep.synthetic import write_action_dataset

    paths = write_action_dataset(
        folder,
        num_videos_per_class=videos_per_class,
        num_frames=frames,
        width=width,
        height=height,
        fps=fps,
        seed=seed,
    )
    click.echo(f"{len(paths)} clips in {folder}/videos, their splits in {folder}/annotations")
