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
    "--flat/--class-folders",
    default=_DEFAULT.flat,
    show_default=True,
    help="Leave out the class folders. gpu-flow gets the lists of jeffreyyihuang's "
    "two-stream-action-recognition with it.",
)
@click.option(
    "--lists",
    metavar="DIR",
    help="The folder for the frame lists and flowprep.json. The default is DEST-lists, beside "
    "DEST. Several exports may share a folder.",
)
@click.option(
    "--list-names",
    metavar="TEMPLATE",
    help="The names of the frame lists, with {split} and {stream} (flow or rgb), such as "
    "'kinetics400_{split}_list_{stream}.txt'. The default is '{stream}_{split}.txt'.",
)
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
@click.option(
    "--clip-length",
    type=int,
    metavar="N",
    help="Make each sample of webdataset a clip of N flows, so that all samples have the same "
    "members. Hugging Face's datasets needs this. The default is a sample for each video.",
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

    DEST gets the videos alone. The frame lists are in DEST-lists or in --lists, and give the
    numbers of files that really exist: N frames have N - step flows. flowprep.json beside them says
    how to turn levels into pixels. To go on after a stop, run the same command again. You can give
    --keys, --split and --class several times.

    \b
    flowprep export OUT rawframes --layout mmaction2
    flowprep export OUT tsn --layout tsn --list-root /data/tsn
    flowprep export OUT ucf101 --layout gpu-flow --flat
    flowprep export OUT tars --layout mmaction2 --format webdataset --clip-length 16
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
