"""`flowprep label`: other labels, splits or class names for a finished data set."""

from __future__ import annotations

import click

from flowprep.cli.options import (
    ChoiceType,
    GroupedCommand,
    GroupedOption,
    check_exists,
    options_named,
)
from flowprep.dataset.label_sources import LabelFormat
from flowprep.dataset.relabel import LABEL_FORMATS
from flowprep.errors import ConfigError

__all__ = ["label"]


@click.command(
    cls=GroupedCommand, short_help="Give a finished data set other labels, splits or class names."
)
@click.argument("out")
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    cls=GroupedOption,
    group="Labels",
    help="What --labels of train, evaluate, export, report and info will call them.",
)
@click.option(
    "--annotations",
    metavar="PATH",
    cls=GroupedOption,
    group="Labels",
    help="UCF101's or HMDB51's folder of split files, Kinetics' CSV, a CSV with the columns key or "
    "path, and label or split, or a list of paths with labels.",
)
@click.option(
    "--split",
    type=int,
    metavar="1|2|3",
    cls=GroupedOption,
    group="Labels",
    help="Which split of UCF101 or HMDB51; 1 where it is not given.",
)
@click.option(
    "--list",
    "lists",
    multiple=True,
    metavar="[SPLIT=]FILE",
    cls=GroupedOption,
    group="Labels",
    help="A list, PATH LABEL a line, such as train=train.txt; several are welcome.",
)
@click.option(
    "--format",
    type=ChoiceType(LABEL_FORMATS),
    default="auto",
    show_default=True,
    metavar="FORMAT",
    cls=GroupedOption,
    group="Labels",
    help=f"What the annotations or lists are: {', '.join(LABEL_FORMATS)}. tsn has a count of "
    "frames before the label, labels several labels a line; auto finds out the others.",
)
@click.option(
    "--class-names",
    metavar="FILE",
    cls=GroupedOption,
    group="Labels",
    help="The names of the classes in the order of their numbers, one a line, or UCF101's "
    "classInd.txt. Without annotations and lists these become the names of the classes there are.",
)
@click.option(
    "--rename",
    multiple=True,
    metavar="OLD=NEW",
    cls=GroupedOption,
    group="Labels",
    help="Another name for a class; classes that get one name become one. May be given several "
    "times.",
)
@click.option(
    "--labels",
    metavar="NAME",
    cls=GroupedOption,
    group="Labels",
    help="Begin with the labels of this name, and not with the data set's own.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    cls=GroupedOption,
    group="Labels",
    help="Go on where the data set holds no video of a class that the annotations name.",
)
@click.option(
    "--replace",
    is_flag=True,
    cls=GroupedOption,
    group="Labels",
    help="Take the place of other labels of the same name.",
)
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
) -> int:
    """Give the data set OUT other labels, splits or class names, under a NAME.

    They are written to OUT/labels/NAME.jsonl; shards, and what the data set says without --labels,
    stay as they are. The videos need not be on disk: what the annotations name is found by the keys
    and paths in the data set. What the annotations do not say, labels or splits, stays as it was.
    Videos that they do not name are unlabelled under NAME, those that are extracted later too.
    flowprep info OUT lists the names; to remove one, delete its file.

    \b
    flowprep label ucf --name split2 --annotations ucfTrainTestlist --split 2
    flowprep label flow --name mine --list train=train.txt --list val=val.txt
    flowprep label flow --name coarse --rename walk=move --rename run=move
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
        )
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
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
