"""`flowprep fuse`: one score from the scores of several networks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from flowprep.cli.options import ChoiceType, NumbersType, options_named
from flowprep.cli.output import echo_line
from flowprep.errors import ConfigError
from flowprep.extras import extra_needed
from flowprep.learn.config import FUSION_METHODS
from flowprep.printable import join_lines

if TYPE_CHECKING:
    from flowprep.learn.scores import Scores

__all__ = ["fuse"]


@click.command
@click.argument("scores", nargs=-1, required=True, metavar="SCORES...")
@click.option(
    "--method",
    type=ChoiceType((*FUSION_METHODS, "all")),
    default="mean",
    show_default=True,
    help="; ".join(f"{name}: {words}" for name, words in FUSION_METHODS.items())
    + "; all: each of these methods.",
)
@click.option(
    "--weights",
    type=NumbersType(),
    metavar="W,W,...",
    help="The weight of each of SCORES, for methods mean and weighted. By default weighted uses "
    "TSN's weights: 1 for rgb and 1.5 for flow.",
)
@click.option(
    "--train-scores",
    multiple=True,
    metavar="SCORES",
    help="Scores of the training videos, on which the SVM is trained. Give them once for each of "
    "SCORES, in the same order.",
)
@click.option(
    "--to", metavar="FOLDER", help="Write the fused scores and confusions to this folder."
)
@click.pass_context
def fuse(
    ctx: click.Context,
    scores: tuple[str, ...],
    method: str,
    weights: tuple[float, ...] | None,
    train_scores: tuple[str, ...],
    to: str | None,
) -> None:
    """Fuse the scores that several networks gave the same videos, and measure the accuracy.

    SCORES are folders that evaluate wrote, or the files scores.npz in them. The command prints the
    accuracy of each network and of the fusion, or the mAP where videos have several labels. With
    --method all, --to gets one folder for each method.

    \b
    flowprep fuse runs/rgb/test-250 runs/flow/test-250
    flowprep fuse runs/rgb/test-250 runs/flow/test-250 --method weighted --weights 1,1.5
    flowprep fuse runs/rgb/test-250 runs/flow/test-250 --method svm \\
        --train-scores runs/rgb/train-30 --train-scores runs/flow/train-30
    """
    from flowprep.learn.fuse import align_scores, fuse_scores
    from flowprep.learn.scores import write_scores

    with extra_needed("`flowprep fuse`", "train"), options_named(ctx):
        streams = align_scores([_load(path) for path in scores])
        train = [_load(path) for path in train_scores]
        fused: dict[str, Scores] = {}
        for name in FUSION_METHODS if method == "all" else [method]:
            own = weights if method != "all" or name in ("mean", "weighted") else None
            try:
                fused[name] = fuse_scores(streams, name, weights=own, train=train)  # type: ignore[arg-type]
            except ConfigError as error:
                # `all` leaves out a method if its weights or training scores are missing.
                if method != "all":
                    raise
                echo_line(f"note: {name} is left out: --{error}", err=True)
        rows = [(one.stream, path, one) for path, one in zip(scores, streams, strict=True)]
        rows += [(name, FUSION_METHODS[name], one) for name, one in fused.items()]  # type: ignore[index]
        click.echo(_table(rows))
        for name, one in fused.items() if to is not None else ():
            folder = os.path.join(to or "", name) if method == "all" else to or ""
            write_scores(one, folder)
            echo_line(f"{name} written to {folder}")


def _load(path: str) -> Scores:
    from flowprep.learn.scores import Scores

    scores = Scores.load(path)
    return dataclasses.replace(scores, source={**scores.source, "file": path})


def _table(rows: Sequence[tuple[str, str, Scores]]) -> str:
    """Returns a table with one line of measures for each row. All scores are of the same videos."""
    first = rows[0][2]
    num_known = int(first.is_labelled.sum())
    if not num_known:
        return f"{len(first.keys)} videos, none of them with a label: nothing can be measured"
    left, right = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    if first.is_multilabel:
        lines = [f"{f'{num_known} videos':{left + 2 + right}}      mAP  weighted mAP"]
        for name, words, scores in rows:
            mean, weighted = (
                scores.metrics()[f"{kind}_average_precision"] for kind in ("mean", "weighted")
            )
            lines.append(
                f"{name:{left}}  {words:{right}}  {100 * mean:5.1f} %       {100 * weighted:5.1f} %"
            )
        return join_lines(lines)
    lines = [f"{f'{num_known} videos':{left + 2 + right}}    top-1    top-5  mean class"]
    for name, words, scores in rows:
        measures = scores.metrics()
        lines.append(
            f"{name:{left}}  {words:{right}}  {100 * measures['top1']:5.1f} %"
            f"  {100 * measures['top5']:5.1f} %     {100 * measures['mean_class_accuracy']:5.1f} %"
        )
    return join_lines(lines)
