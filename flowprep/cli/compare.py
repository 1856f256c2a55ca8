"""`flowprep compare`: how much two flows of the same videos differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from flowprep.cli.extract import given_config
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    given_values,
    options_named,
)
from flowprep.cli.output import echo_line
from flowprep.cli.view import NamesType, computing_options
from flowprep.config import DIRECTIONS, DecodeSpec, Direction, ExtractConfig, FlowSpec
from flowprep.errors import InputError
from flowprep.flow.parameters import is_own

__all__ = ["compare"]

F = TypeVar("F", bound=Callable[..., Any])


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=GroupedOption, group="Comparison", **settings)


@click.command(cls=GroupedCommand)
@click.argument("a")
@click.argument("b", required=False)
@_option(
    "--algorithms",
    type=NamesType(),
    metavar="NAME,NAME",
    help="Compute the flow of the video A with two algorithms, such as tvl1,farneback, and compare "
    "the results. MODULE:CLASS names an estimator of your own.",
)
@_option(
    "--sample",
    type=int,
    default=10,
    show_default=True,
    metavar="N",
    help="Number of fields to compare in each video, spread evenly. 0 compares all fields.",
)
@_option(
    "--direction",
    type=ChoiceType(DIRECTIONS),
    default="forward",
    show_default=True,
    help="Compare the flow from frame t to t + step (forward) or from t + step to t (backward).",
)
@_option("--to", metavar="FOLDER", help="Draw the fields that differ most as PNGs in this folder.")
@_option(
    "--worst",
    type=int,
    default=8,
    show_default=True,
    metavar="N",
    help="Number of fields that --to draws.",
)
@_option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@computing_options(algorithm=False)
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    a: str,
    b: str | None,
    algorithms: tuple[str, ...] | None,
    estimator: str | None,
    sample: int,
    direction: Direction,
    to: str | None,
    worst: int,
    as_json: bool,
    device: str,
    **_: Any,
) -> None:
    """Compare the data sets A and B video by video, or two algorithms on the video A.

    The command matches videos by key. It prints how long the difference vectors are, in pixels,
    and lists the options that differ between the two data sets. If bound and quantizer are the
    same, it also prints the share of 8-bit levels that are equal, and that differ by at most one.
    Step and frame sizes must be the same.

    \b
    flowprep compare flow-tvl1 flow-dis --to worst
    flowprep compare clip.mp4 --algorithms tvl1,farneback
    flowprep compare clip.mp4 --algorithms tvl1 --estimator my_flow:MyFlow
    """
    from flowprep.look.compare import compare_algorithms, compare_datasets
    from flowprep.look.sources import is_dataset

    if estimator is not None:
        algorithms = (*(algorithms or ()), estimator)
    computing = given_values(
        ctx,
        [
            "device",
            "estimator_options",
            *DecodeSpec.__dataclass_fields__,
            *FlowSpec.__dataclass_fields__,
        ],
    )
    if (b is None) == (algorithms is None):
        raise click.UsageError("Give two data sets A and B, or one video A and --algorithms.")
    if b is not None and computing:
        raise click.UsageError(
            "The options for decoding and flow need --algorithms; leave them out for A and B."
        )
    if sample < 0:
        raise click.UsageError(f"--sample must be >= 0, got {sample}.")
    with options_named(ctx):
        for name in (a, b):
            if name is not None and algorithms is None and not is_dataset(name):
                raise InputError(
                    f"{name} is not a flowprep data set; name a folder that extract wrote"
                )
        if algorithms is None:
            assert b is not None
            found = compare_datasets(
                a, b, direction=direction, num_sampled=sample or None, num_worst=worst
            )
        else:
            if len(algorithms) != 2:
                raise InputError(f"algorithms must name two, got {','.join(algorithms)}")
            if ctx.params["estimator_options"] and not any(map(is_own, algorithms)):
                key, value = ctx.params["estimator_options"][0]
                raise InputError(
                    f"estimator_options need --estimator, got {key}={value} alone; add it, or "
                    "leave them out"
                )
            if is_dataset(a):
                raise InputError(f"{a} is a data set; give --algorithms with a video file instead")
            configs = [given_config(ctx, ExtractConfig(), name) for name in algorithms]
            found = compare_algorithms(
                a,
                (configs[0], configs[1]),
                direction=direction,
                num_sampled=sample or None,
                num_worst=worst,
                device=device,
            )
        paths = found.write_pictures(to) if to is not None else []
    if as_json:
        values = found.to_dict() | ({"pictures": list(map(str, paths))} if paths else {})
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(found.summary())
    if to is not None:
        click.echo()
        echo_line(f"drew the {len(paths)} fields that differ most in {to}")
