"""`flowprep export`: a data set as the trees that other projects read."""

from __future__ import annotations

from typing import Any, get_args

import click

from flowprep.cli.options import ChoiceType, labels_option, options_named, workers_option
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
    help=f"Whose names, bases and frame lists: {', '.join(LAYOUTS)}.",
)
@click.option(
    "--format",
    type=ChoiceType(get_args(FormatName)),
    default=_DEFAULT.format,
    show_default=True,
    metavar="NAME",
    help="jpg, zip (flow_x.zip, flow_y.zip, img.zip a video), flo, npy, npz, hdf5 (one file a "
    "video) or webdataset (tars, one JPEG a member). JPEGs are the stored bytes.",
)
@click.option(
    "--direction",
    type=ChoiceType(get_args(Direction)),
    default=_DEFAULT.direction,
    show_default=True,
    help="backward exports the flow from frame t + step to t; only denseflow's names say so.",
)
@click.option(
    "--rgb/--no-rgb",
    "keep_rgb",
    default=None,
    help="Export the RGB frames too; where both the data set and the format hold them if not "
    "given.",
)
@click.option(
    "--values",
    type=ChoiceType(get_args(Values)),
    default=_DEFAULT.values,
    show_default=True,
    help="What npy, npz and hdf5 hold: float32 px, or the uint8 levels as stored.",
)
@click.option("--keys", multiple=True, metavar="PATTERN", help="Only videos such as 'walk/*'.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only videos of a split.")
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Only videos of a class, or a label."
)
@labels_option()
@click.option(
    "--list-root",
    metavar="PATH",
    help="What stands before the paths in the frame lists; DEST for tsn, nothing for the others.",
)
@click.option(
    "--shard-size",
    "videos_per_shard",
    type=int,
    default=_DEFAULT.videos_per_shard,
    show_default=True,
    metavar="N",
    help="How many videos one tar of webdataset's holds.",
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
    """Write the data set OUT as the tree that another project reads, into the folder DEST.

    N frames give N - step flows; the lists in DEST/lists count what is there, DEST/flowprep.json
    says what a level means. The same command again goes on where it left off. Three options may be
    given several times: --keys, --split and --class.

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
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(report.summary())
    return report.exit_code
