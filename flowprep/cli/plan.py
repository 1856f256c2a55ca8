"""`flowprep plan`: what large collections will cost."""

from __future__ import annotations

import json
from typing import Any

import click

from flowprep.cli.extract import config_options, given_config, given_videos, input_options
from flowprep.cli.options import GroupedCommand, GroupedOption, options_named
from flowprep.cli.output import echo_notes
from flowprep.config import ExtractConfig
from flowprep.machine import usable_cores
from flowprep.presets import PRESETS

__all__ = ["plan"]


@click.command(cls=GroupedCommand)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEOS...")
@click.option(
    "--nodes",
    "num_nodes",
    type=int,
    default=1,
    show_default=True,
    cls=GroupedOption,
    group="Cluster",
    metavar="NUMBER",
    help="Machines that work at the same time.",
)
@click.option(
    "--workers-per-node",
    "num_workers_per_node",
    type=int,
    cls=GroupedOption,
    group="Cluster",
    metavar="NUMBER",
    help="Cores per node, each as fast as a core of this machine. The default is the number of "
    "cores of this machine.",
)
@click.option(
    "--pairs-per-second",
    type=float,
    cls=GroupedOption,
    group="Cluster",
    metavar="NUMBER",
    help="Frame pairs per second of one node at 340x256, if you have measured it. It replaces the "
    "rate of the probe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as JSON.")
@input_options
@config_options
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    videos: tuple[str, ...],
    num_nodes: int,
    num_workers_per_node: int | None,
    pairs_per_second: float | None,
    as_json: bool,
    preset: str | None,
    **_: Any,
) -> None:
    """Estimate the cost of VIDEOS, and of UCF101, Kinetics-400, Kinetics-700 and Sports-1M.

    flowprep extracts some of VIDEOS on this machine for a short time, then scales time and bytes
    to the whole collection. VIDEOS and the options are the same as for extract. Nothing is written.

    \b
    flowprep plan clips/ --nodes 20 --workers-per-node 64
    flowprep plan k400-sample/ --preset i3d --nodes 8 --pairs-per-second 2000
    """
    from flowprep.run.plan_cost import estimate_cost

    with options_named(ctx):
        config = given_config(ctx, PRESETS[preset] if preset else ExtractConfig())
        manifest = given_videos(ctx, config)
        if num_workers_per_node is None:
            num_workers_per_node = usable_cores()
        estimate = estimate_cost(
            manifest,
            config,
            num_nodes=num_nodes,
            num_workers_per_node=num_workers_per_node,
            pairs_per_second_per_node=pairs_per_second,
        )
    echo_notes(manifest.notes)
    if as_json:
        click.echo(json.dumps(estimate.to_dict(), indent=2))
    else:
        click.echo(estimate.summary())
