"""`flowprep evaluate`: how good a network is on videos that it was not trained on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowprep.cli.foreign_options import (
    check_foreign_options,
    foreign_options,
    given_classes,
    given_foreign,
)
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    given_values,
    labels_option,
    options_named,
)
from flowprep.cli.output import echo_line, echo_notes
from flowprep.extras import extra_needed
from flowprep.learn.config import ViewSpec
from flowprep.learn.recipes import VIEWS
from flowprep.learn.training_specs import PrecisionName

if TYPE_CHECKING:
    from flowprep.dataset.read import FlowDataset
    from flowprep.learn.checkpoint import Checkpoint

__all__ = ["device_option", "evaluate", "running_options"]


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    cls=GroupedOption,
    group="Running",
    help="cpu, cuda, cuda:1, ... auto uses a GPU if there is one, otherwise the CPU.",
)
"""Decorates a command with the device that a network runs on."""


def running_options(command: Any) -> Any:
    """Decorates a command with the options that say how to run a network."""
    precision = click.option(
        "--precision",
        type=ChoiceType(get_args(PrecisionName)),
        default="fp32",
        show_default=True,
        cls=GroupedOption,
        group="Running",
        help="Arithmetic of the network. bf16 and fp16 save time and memory.",
    )
    return device_option(precision(command))


@click.command(cls=GroupedCommand)
@click.argument("out")
@click.option(
    "--checkpoint",
    metavar="RUN|FILE",
    cls=GroupedOption,
    group="Test",
    help="A checkpoint file, or a folder that train wrote. From a folder, best.pt is taken, "
    "or last.pt if there is no best.pt.",
)
@click.option(
    "--weights",
    metavar="FILE",
    cls=GroupedOption,
    group="Weights of others",
    help="Weights of another project, in place of a checkpoint. --model names their network.",
)
@foreign_options("Weights of others")
@click.option(
    "--split",
    default="test",
    show_default=True,
    metavar="NAME",
    cls=GroupedOption,
    group="Test",
    help="The split to test on: test, train, val, ..., or all for all videos.",
)
@labels_option("Test", several=True)
@click.option(
    "--task",
    metavar="NAME",
    cls=GroupedOption,
    group="Test",
    help="For a network that was trained on several data sets: the name of the data set whose "
    "classes to test. For a network of several label sets: the name of one of them, to test it "
    "alone.",
)
@click.option(
    "--views",
    type=ChoiceType(tuple(VIEWS)),
    default="250",
    show_default=True,
    cls=GroupedOption,
    group="Test",
    help="The views of each video whose scores are averaged. 250: 25 clips with 10 crops each. 30: "
    "10 clips with 3 crops each. center: the center crop of the middle clip. Foreign weights are "
    "tested as their recipe says, unless you give --views, --clips or --crops.",
)
@click.option(
    "--clips",
    type=int,
    metavar="N",
    cls=GroupedOption,
    group="Test",
    help="Number of clips in each video, evenly spaced. Overrides --views.",
)
@click.option(
    "--crops",
    type=ChoiceType(("1", "3", "5", "10")),
    metavar="1|3|5|10",
    cls=GroupedOption,
    group="Test",
    help="Number of crops in each clip. 1: center. 3: left, center and right. 5: corners and "
    "center. 10: the same five, and the same mirrored. Overrides --views.",
)
@click.option(
    "--to",
    metavar="FOLDER",
    cls=GroupedOption,
    group="Test",
    help="The folder for the scores. The default is a folder beside the checkpoint, such as "
    "RUN/test-250.",
)
@click.option(
    "--force",
    is_flag=True,
    cls=GroupedOption,
    group="Test",
    help="Test even if this data set was extracted with other options than the training data, or "
    "than the recipe of foreign weights says.",
)
@running_options
@click.option(
    "--loaders",
    type=click.IntRange(min=0),
    metavar="N",
    cls=GroupedOption,
    group="Running",
    help="Processes that read and prepare clips. The default is all cores except one. 0 reads in "
    "this process.",
)
@click.option(
    "--progress/--no-progress",
    default=None,
    cls=GroupedOption,
    group="Running",
    help="Draw a progress bar on stderr. By default only on a terminal.",
)
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    out: str,
    split: str,
    labels: tuple[str, ...] | None,
    task: str | None,
    views: str,
    clips: int | None,
    crops: str | None,
    to: str | None,
    force: bool,
    device: str,
    precision: PrecisionName,
    loaders: int | None,
    progress: bool | None,
    **_: Any,
) -> None:
    """Test a network on the videos of the data set OUT.

    The command prints top-1, top-5 and mean class accuracy, the worst classes and the most frequent
    confusions. It writes scores.npz (for fuse), scores.csv, confusion.csv and confusion.png. Where
    videos have several labels, it prints the mean average precision (mAP) and writes
    average_precision.csv. For a network of several label sets, such as verb and noun, it measures
    each of them, and how many videos are right in all; each gets a folder.

    \b
    flowprep evaluate flow --checkpoint runs/flow
    flowprep evaluate flow --checkpoint runs/flow --views 30 --precision bf16
    flowprep evaluate flow --checkpoint runs/flow/last.pt --clips 5 --crops 1 --to scores
    flowprep evaluate kinetics --weights TSM_kinetics_Flow.pth --model tsm-resnet50 --to scores
    """
    from flowprep.dataset.read import open_dataset

    with extra_needed("`flowprep evaluate`", "train"), options_named(ctx):
        from flowprep.learn import evaluate as library
        from flowprep.learn.head_scores import write_heads
        from flowprep.learn.heads import head_labels, heads_of
        from flowprep.learn.scores import write_scores

        check_foreign_options(ctx, ctx.params["checkpoint"], ctx.params["weights"])
        first = open_dataset(out, labels=labels[0] if labels else None)
        spec = VIEWS[views]
        file, loaded, own_views, file_notes = _given_network(ctx, first)
        if own_views and not given_values(ctx, ["views", "clips", "crops"]):
            spec = own_views
        spec = ViewSpec(
            spec.num_clips if clips is None else clips,
            spec.num_crops if crops is None else int(crops),  # type: ignore[arg-type]
        )
        places = heads_of(loaded, task)
        names = head_labels(loaded, places, labels)
        scores, notes = library.evaluate_heads(
            [
                first if name == first.labels_name else open_dataset(out, labels=name)
                for name in names
            ],
            loaded,
            spec,
            places=places,
            split=split,
            device=device,
            precision=precision,
            num_loaders=loaders,
            force=force,
            progress=progress,
            origin=os.fspath(file),
        )
        folder = to or os.fspath(library.default_folder(file, spec, split, task, labels))
        echo_notes([*file_notes, *notes])
        named = f" of labels {' and '.join(labels)}" if labels is not None else ""
        echo_line(
            f"{file} on {out}, {split}{named}: {spec.num_clips} clip{'s' * (spec.num_clips > 1)} "
            f"x {spec.num_crops} crop{'s' * (spec.num_crops > 1)} per video"
        )
        heads = {loaded.tasks[place].name: own for place, own in zip(places, scores, strict=True)}
        for name, own in heads.items():
            if len(heads) > 1:
                echo_line(name)
            click.echo(own.summary())
        if len(heads) == 1:
            write_scores(scores[0], folder)
        else:
            for line in write_heads(heads, folder):
                echo_line(line)
        echo_line(f"  written to           {folder}")


def _given_network(
    ctx: click.Context, dataset: FlowDataset
) -> tuple[Path, Checkpoint, ViewSpec | None, list[str]]:
    """Returns the file that the options name, its network, its published test, and notes."""
    from flowprep.learn.checkpoint import load_checkpoint
    from flowprep.learn.evaluate import checkpoint_file, checkpoint_notes
    from flowprep.learn.foreign import checkpoint_for_dataset

    checkpoint, weights = ctx.params["checkpoint"], ctx.params["weights"]
    if checkpoint:
        file = checkpoint_file(checkpoint)
        return file, load_checkpoint(file), None, checkpoint_notes(checkpoint)
    network = given_foreign(ctx, weights)
    loaded, notes = checkpoint_for_dataset(network, dataset, given_classes(ctx))
    return Path(weights), loaded, network.views, notes
