"""`flowprep probe`: a linear classifier on features."""

from __future__ import annotations

from typing import Any

import click

from flowprep.cli.options import (
    GroupedCommand,
    GroupedOption,
    dataclass_options,
    labels_option,
    options_named,
)
from flowprep.cli.output import echo_line, echo_notes
from flowprep.extras import extra_needed
from flowprep.learn.probe_spec import ProbeSpec

__all__ = ["probe"]


class _NumberOrCV(click.ParamType):  # type: ignore[type-arg]
    """A number, or `cv` for None."""

    name = "NUMBER|cv"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Reads a number or `cv`."""
        if value in (None, "cv"):
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'cv'.", param, ctx)


@click.command(cls=GroupedCommand)
@click.argument("features")
@dataclass_options(ProbeSpec, "Classifier", skip=("c", "train_split", "test_split", "seed"))
@click.option(
    "--c",
    type=_NumberOrCV(),
    default="1",
    show_default=True,
    metavar="NUMBER|cv",
    cls=GroupedOption,
    group="Classifier",
    help="The inverse of the regularization. A smaller number is a stronger one. cv: the best of "
    ".001 to 1000 in a cross validation on the training videos.",
)
@dataclass_options(
    ProbeSpec,
    "Classifier",
    skip=("classifier", "normalize", "c", "train_split", "test_split"),
)
@click.option(
    "--stream",
    metavar="flow|rgb|both",
    cls=GroupedOption,
    group="Data",
    help="The stream of the features to take. both concatenates the vectors of all streams, and is "
    "the default. To fuse the scores of streams, probe each one and run flowprep fuse.",
)
@click.option(
    "--dataset",
    metavar="OUT",
    cls=GroupedOption,
    group="Data",
    help="The data set whose labels and splits to take. The default is the labels that the "
    "features were stored with.",
)
@labels_option("Data")
@dataclass_options(ProbeSpec, "Data", skip=("classifier", "normalize", "c", "seed"))
@click.option(
    "--to",
    metavar="FOLDER",
    cls=GroupedOption,
    group="Output",
    help="The folder for the scores and results.json. The default is a folder in that of the "
    "features, such as FEATURES/probe-svm-flow.",
)
@click.pass_context
def probe(
    ctx: click.Context,
    /,
    features: str,
    stream: str | None,
    dataset: str | None,
    labels: str | None,
    to: str | None,
    **spec: Any,
) -> None:
    """Train a linear classifier on FEATURES, a folder that flowprep features wrote, and test it.

    Each video is one vector: the mean over its windows. The command prints top-1, top-5 and mean
    class accuracy, the worst classes and the most frequent confusions. If videos have several
    labels, it trains one classifier for each class, and prints the mean average precision. It
    writes results.json, scores.npz (for fuse), scores.csv, confusion.csv and confusion.png.

    \b
    flowprep probe features
    flowprep probe features --stream flow --classifier logistic --c cv
    flowprep probe features --dataset ucf --labels split2
    """
    with extra_needed("`flowprep probe`", "train"), options_named(ctx):
        from flowprep.learn import probe as library

        result = library.probe(
            features, ProbeSpec(**spec), stream=stream, dataset=dataset, labels=labels
        )
        folder = to or library.default_probe_folder(result)
        echo_notes(result.notes)
        echo_line(f"{features} on {result.scores.source['test_split']}")
        click.echo(result.summary())
        library.write_probe(result, folder)
        echo_line(f"  written to           {folder}")
