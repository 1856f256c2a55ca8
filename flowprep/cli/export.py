"""`flowprep export`: a data set in the file layout of another project."""

from __future__ import annotations

from typing import Any, get_args

import click

from flowprep.cli.options import ChoiceType, labels_option, options_named, workers_option
from flowprep.cli.output import echo_notes
from flowprep.config import Direction, RunOptions
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.layouts import LAYOUTS, FormatName, Values

__all__ = ["export"]

_DEFAULT = ExportSpec()


@click.command
@click.argument("out")
@click.argument("dest")
@click.option(
    "--layout",
    type=ChoiceType(tuple(LAYOUTS)),
    required=True,
    metavar="NAME",
    help="The project whose file names, first frame numbers and frame lists to follow: "
    f"{', '.join(LAYOUTS)}.",
)
@click.option(
    "--format",
    type=ChoiceType(get_args(FormatName)),
    default=_DEFAULT.format,
    show_default=True,
    metavar="NAME",
    help="jpg, zip (flow_x.zip, flow_y.zip and img.zip for each video), flo, npy, npz, hdf5 (one "
    "file for each video) or webdataset (tar files of JPEGs). The JPEGs of jpg, zip and webdataset "
    "are the stored bytes.",
)
@click.option(
    "--direction",
    type=ChoiceType(get_args(Direction)),
    default=_DEFAULT.direction,
    show_default=True,
    help="Export the flow from frame t to t + step (forward) or from t + step to t (backward). "
    "Only denseflow's file names tell the two apart.",
)
@click.option(
    "--rgb/--no-rgb",
    "keep_rgb",
    default=None,
    help="Export the RGB frames too. The default is to export them if the data set has them and "
    "the format has a place for them.",
)
@click.option(
    "--values",
    type=ChoiceType(get_args(Values)),
    default=_DEFAULT.values,
    show_default=True,
    help="The values in npy, npz and hdf5: float32 pixels, or the stored uint8 levels.",
)
@click.option(
    "--keys",
    multiple=True,
    metavar="PATTERN",
    help="Export only videos whose key matches, such as 'walk/*'.",
)
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Export only videos of this split."
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Export only videos of this class, given by name or number.",
)
@labels_option()
@click.option(
    "--list-root",
    metavar="PATH",
    help="The path to put before the paths in the frame lists. The default is DEST for tsn, and "
    "nothing for the other layouts.",
)
@click.option(
    "--shard-size",
    "videos_per_shard",
    type=int,
    default=_DEFAULT.videos_per_shard,
    show_default=True,
    metavar="N",
    help="Videos per tar file of webdataset.",
)
@workers_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    out: str,
    dest: str,
    labels: str | None,
    num_workers: int | None,
    **given: Any,
) -> int:
    """Export the data set OUT to the folder DEST, in the file layout of another project.

    N frames have N - step flows, and the frame lists in DEST/lists give the numbers of files that
    really exist. DEST/flowprep.json says how to turn levels into pixels. To go on after a stop, run
    the same command again. You can give --keys, --split and --class several times.

    \b
    flowprep export OUT rawframes --layout mmaction2
    flowprep export OUT tsn --layout tsn --list-root /data/tsn
    flowprep export OUT tars --layout mmaction2 --format webdataset --split train
    flowprep export OUT arrays --layout denseflow --format hdf5 --values levels
    flowprep export OUT split2 --layout mmaction2 --labels split2
    """
    from flowprep.dataset.read import open_dataset
    from flowprep.exchange.export import export_dataset

    with options_named(ctx):
        RunOptions(num_workers=num_workers)
        spec = ExportSpec(**given)
        dataset = open_dataset(out, labels=labels)
        report = export_dataset(dataset, dest, spec, num_workers=num_workers, progress=None)
    echo_notes(report.notes)
    click.echo(report.summary())
    return report.exit_code
