"""`flowprep label`: other labels, splits or class names for a finished data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import click

from flowprep.cli.input_options import share_options
from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    check_exists,
    options_named,
)
from flowprep.cli.output import echo_notes
from flowprep.dataset.label_sources import LabelFormat
from flowprep.errors import ConfigError

__all__ = ["label"]


def _with_share_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(share_options("Labels")):
        command = option(command)
    return command


@click.command(cls=GroupedCommand)
@click.argument("out")
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    cls=GroupedOption,
    group="Labels",
    help="The name of the new labels. Give it as --labels to train, evaluate, export, report and "
    "info.",
)
@click.option(
    "--annotations",
    metavar="PATH",
    cls=GroupedOption,
    group="Labels",
    help="Where the labels come from: UCF101's or HMDB51's folder of split files, Kinetics' CSV, a "
    "list of paths with labels, or a CSV. The CSV needs a column key or path, and a column label "
    "or split.",
)
@click.option(
    "--split",
    type=int,
    metavar="1|2|3",
    cls=GroupedOption,
    group="Labels",
    help="Which of the three splits of UCF101 or HMDB51. The default is 1.",
)
@click.option(
    "--list",
    "lists",
    multiple=True,
    metavar="[SPLIT=]FILE",
    cls=GroupedOption,
    group="Labels",
    help="A list with PATH LABEL on each line, such as train=train.txt. May be given several "
    "times.",
)
@click.option(
    "--format",
    type=ChoiceType(get_args(LabelFormat)),
    default="auto",
    show_default=True,
    metavar="FORMAT",
    cls=GroupedOption,
    group="Labels",
    help=f"What the annotations or lists are: {', '.join(get_args(LabelFormat))}. "
    "tsn: each line is PATH NUM_FRAMES LABEL. labels: a line may have several labels. "
    "auto recognizes all others.",
)
@click.option(
    "--class-names",
    metavar="FILE",
    cls=GroupedOption,
    group="Labels",
    help="The names of the classes: one per line, in the order of their numbers, or UCF101's "
    "classInd.txt. Without --annotations and --list, the data set's classes get these names.",
)
@click.option(
    "--rename",
    multiple=True,
    metavar="OLD=NEW",
    cls=GroupedOption,
    group="Labels",
    help="Give a class another name. Classes that get the same name become one class. May be "
    "given several times.",
)
@click.option(
    "--labels",
    metavar="NAME",
    cls=GroupedOption,
    group="Labels",
    help="Start from the labels of this name instead of the data set's own.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    cls=GroupedOption,
    group="Labels",
    help="Go on when the data set has no video of a whole class of the annotations.",
)
@click.option(
    "--replace",
    is_flag=True,
    cls=GroupedOption,
    group="Labels",
    help="Replace existing labels of the same name.",
)
@_with_share_options
@click.pass_context
def label(
    ctx: click.Context,
    /,
    out: str,
    name: str,
    annotations: str | None,
    split: int | None,
    lists: tuple[str, ...],
    format: LabelFormat,
    class_names: str | None,
    rename: tuple[str, ...],
    labels: str | None,
    allow_missing: bool,
    replace: bool,
    test_share: float | None,
    group_by: str | None,
) -> int:
    """Give the data set OUT other labels, splits or class names, under a NAME.

    The new labels are written to OUT/labels/NAME.jsonl. The shards and the data set's own labels do
    not change. The videos need not be on disk: the annotations are matched with the keys and paths
    in the data set. If the annotations have no labels or no splits, the old ones stay. Videos that
    the annotations do not name have no label under NAME, and so do videos that are extracted later.
    flowprep info OUT lists the names. To remove a name, delete its file.

    \b
    flowprep label ucf --name split2 --annotations ucfTrainTestlist --split 2
    flowprep label flow --name mine --list train=train.txt --list val=val.txt
    flowprep label flow --name coarse --rename walk=move --rename run=move
    flowprep label flow --name mine --test-share 0.2 --group-by 'subject[0-9]+'
    flowprep train ucf --labels split2
    """
    from flowprep.dataset.relabel import label_dataset

    check_exists(out)
    with options_named(ctx):
        report = label_dataset(
            out,
            name,
            annotations=annotations,
            lists=lists,
            format=format,
            split=split,
            class_names=class_names,
            rename=_pairs(rename),
            labels=labels,
            allow_missing=allow_missing,
            replace=replace,
            test_share=test_share,
            group_by=group_by,
        )
    echo_notes(report.notes)
    click.echo(report.summary())
    return report.exit_code


def _pairs(rename: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in rename:
        old, sign, new = item.partition("=")
        if not sign or not old or not new:
            raise ConfigError(f"rename must be OLD=NEW, got {item!r}")
        if pairs.setdefault(old, new) != new:
            raise ConfigError(f"rename gives {old!r} two names, {pairs[old]!r} and {new!r}")
    return pairs
