"""`flowprep weights`: what a file of weights is, and what takes it."""

from __future__ import annotations

import json
from typing import get_args

import click

from flowprep.cli.options import ChoiceType, options_named
from flowprep.extras import extra_needed
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.networks import NETWORKS

__all__ = ["weights"]


@click.command
@click.argument("file", metavar="FILE|RUN")
@click.option(
    "--model",
    type=ChoiceType(tuple(NETWORKS)),
    metavar="NAME",
    help=f"Say what would become of each tensor in this network: {', '.join(NETWORKS)}.",
)
@click.option(
    "--stream",
    type=ChoiceType(get_args(StreamName)),
    metavar="|".join(get_args(StreamName)),
    help="What the network of --model sees. The default is what the weights saw.",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Name every tensor that is taken, renamed, converted, left or not used by --model.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_context
def weights(
    ctx: click.Context,
    /,
    file: str,
    model: str | None,
    stream: StreamName | None,
    every: bool,
    as_json: bool,
) -> int:
    """Say what FILE is, and which network, recipe and classes fit it.

    FILE holds weights: .safetensors, .pth, .caffemodel, a .pkl of Caffe2, a checkpoint of
    TensorFlow, or a checkpoint of flowprep.
    RUN is a folder that train wrote. The project is recognized by the names and shapes of the
    tensors, never by the name of the file. Nothing in the file is executed.

    The exit code is 0 when the file is known, and 1 when it is unknown or cannot be read. With
    --model, it is 1 when the weights do not fit the network.

    \b
    flowprep weights TSM_kinetics_Flow_resnet50.pth
    flowprep weights TSM_kinetics_Flow_resnet50.pth --model tsm-resnet50 --all
    flowprep weights runs/flow
    """
    if model is None and (stream is not None or every):
        raise click.UsageError("--stream and --all are for --model; name a network, too.")
    if model is not None and as_json:
        raise click.UsageError("--json and --model cannot be given together; leave one out.")
    with extra_needed("`flowprep weights`", "train"), options_named(ctx):
        from flowprep.learn.describe import describe_loading, describe_weights

        if model is not None:
            click.echo(describe_loading(file, model, stream).summary(every=every))
            return 0
        description = describe_weights(file)
    if as_json:
        click.echo(json.dumps(description.to_dict(), indent=2))
    else:
        click.echo(description.summary())
    return description.exit_code
