"""`flowprep import`: flow images of another project become a data set."""

from __future__ import annotations

from typing import Any, get_args

import click

from flowprep.cli.options import ChoiceType, DirectionsType, options_named, workers_option
from flowprep.cli.output import echo_notes
from flowprep.config import Quantizer, RunOptions
from flowprep.exchange.import_spec import Unit
from flowprep.exchange.layouts import IMPORTABLE_LAYOUTS, FormatName
from flowprep.flow.parameters import PARAMETERS

__all__ = ["import_"]


@click.command("import")
@click.argument("tree")
@click.argument("out")
@click.option(
    "--layout",
    type=ChoiceType(IMPORTABLE_LAYOUTS),
    required=True,
    metavar="NAME",
    help=f"The project whose file layout TREE has: {', '.join(IMPORTABLE_LAYOUTS)}.",
)
@click.option(
    "--format",
    type=ChoiceType(get_args(FormatName)),
    metavar="NAME",
    help="What TREE holds: jpg, zip (flow_x.zip and flow_y.zip in a folder for each video, or one "
    "VIDEO.zip), flo, npy, npz or hdf5 (one file for each video) or webdataset (tar files of "
    "JPEGs). The default is what is found.",
)
@click.option(
    "--unit",
    type=ChoiceType(get_args(Unit)),
    default="px",
    show_default=True,
    help="What 1 means in arrays of floats: a pixel, or the bound (as in kinetics-i3d's .npy).",
)
@click.option(
    "--bound",
    "bound_px",
    type=float,
    metavar="PX",
    help="The flow that level 255 stands for, in pixels. The images do not contain this number. It "
    "is 20 for TSN and mmaction2; denseflow took it as -b.",
)
@click.option(
    "--quantizer",
    type=ChoiceType(get_args(Quantizer)),
    help="How pixels became levels. The default is round (denseflow, dense_flow, gpu_flow).",
)
@click.option(
    "--step",
    type=int,
    metavar="N",
    help="Flow goes from frame t to frame t + step. The default is 1.",
)
@click.option(
    "--directions",
    type=DirectionsType(),
    help="The directions of the flow in TREE. The default is forward. Only denseflow's file names "
    "mark backward flow.",
)
@click.option(
    "--algorithm",
    type=ChoiceType(tuple(PARAMETERS)),
    metavar="NAME",
    help=f"The algorithm that computed the flow, if you know it: {', '.join(PARAMETERS)}.",
)
@click.option(
    "--rgb/--no-rgb",
    "keep_rgb",
    default=None,
    help="Import the RGB frames too. The default is to import them if the first video has them.",
)
@click.option(
    "--list",
    "lists",
    multiple=True,
    metavar="[SPLIT=]FILE",
    help="A frame list with PATH COUNT LABEL on each line, such as train=train.txt. May be given "
    "several times. Without a list, class folders give the labels.",
)
@click.option(
    "--lists",
    "export_lists",
    metavar="DIR",
    help="For a tree that flowprep exported with --lists DIR: this folder.",
)
@click.option(
    "--shard-size",
    "videos_per_shard",
    type=int,
    default=100,
    show_default=True,
    metavar="N",
    help="Videos per tar file.",
)
@workers_option
@click.pass_context
def import_(
    ctx: click.Context, /, tree: str, out: str, num_workers: int | None, **given: Any
) -> int:
    """Make the data set OUT from TREE, a folder of flow images that another project wrote.

    The command computes no flow and copies JPEGs unchanged. Flow in .flo, .npy, .npz or HDF5 is
    clipped to --bound and stored as JPEGs. Each x image needs its y image, the numbers may have no
    gap, sizes must agree, and every image must decode. If a video breaks one of these rules,
    failures.jsonl gives the reason, and the exit code is 1. A tree that flowprep exported needs no
    --bound.

    \b
    flowprep import rawframes OUT --layout mmaction2 --bound 20 --list train=train.txt
    flowprep import flows OUT --layout denseflow --bound 32 --directions both
    flowprep import arrays OUT --layout mmaction2 --format npy --unit bound --bound 20
    """
    from flowprep.exchange.import_tree import ImportSpec, import_tree

    with options_named(ctx):
        RunOptions(num_workers=num_workers)
        spec = ImportSpec(**given)
        report = import_tree(tree, out, spec, num_workers=num_workers, progress=None)
    echo_notes(report.notes)
    click.echo(report.summary())
    return report.exit_code
