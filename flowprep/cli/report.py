"""`flowprep report`: a page that shows the problems of a data set before you train on it."""

from __future__ import annotations

import sys

import click

from flowprep.cli.options import (
    GroupedCommand,
    GroupedOption,
    check_exists,
    labels_option,
    options_named,
    sample_option,
)
from flowprep.extras import extra_needed
from flowprep.urls import is_url

__all__ = ["report"]


@click.command(cls=GroupedCommand)
@click.argument("out")
@click.option(
    "--to",
    metavar="FILE",
    cls=GroupedOption,
    group="Report",
    help="The HTML file. The default is OUT-report.html beside OUT.",
)
@labels_option("Report")
@sample_option("Report")
@click.option(
    "--clipped-share",
    type=float,
    default=0.01,
    show_default=True,
    metavar="SHARE",
    cls=GroupedOption,
    group="Report",
    help="Share of the x and y components that the recommended bound may clip.",
)
@click.option(
    "--progress/--no-progress",
    default=None,
    cls=GroupedOption,
    group="Report",
    help="Draw a progress bar on stderr. By default only on a terminal.",
)
@click.pass_context
def report(
    ctx: click.Context,
    /,
    out: str,
    to: str | None,
    labels: str | None,
    sample: int,
    clipped_share: float,
    progress: bool | None,
) -> None:
    """Write one HTML page about the data set OUT: what it holds, and what is wrong with it.

    The page names the videos whose flow is empty, swapped, reversed or clipped. It also names scene
    cuts, repeated frames and more. Each problem has pictures and a remedy. The page recommends a
    bound, compares the classes and lists all videos. It is a single file that needs no network.

    \b
    flowprep report flow
    flowprep report flow --sample 2000 --to flow.html
    """
    check_exists(out)
    target = to or default_file(out)
    with extra_needed("`flowprep report`", "report"):
        # Check this before reading, which may take a minute.
        import matplotlib  # noqa: F401
    from tqdm import tqdm

    from flowprep.look.findings.kinds import KINDS
    from flowprep.look.report.page import write_report
    from flowprep.look.report.report import make_report

    is_drawn = sys.stderr.isatty() if progress is None else progress
    with options_named(ctx), tqdm(unit=" steps", disable=not is_drawn, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = make_report(
            out, num_sampled=sample, clipped_share=clipped_share, labels=labels, on_progress=show
        )
    write_report(made, target)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    counts = dict.fromkeys(KINDS, 0)
    for finding in made.findings:
        counts[finding.kind] += 1
    for kind, number in counts.items():
        if number:
            click.echo(f"{number:6d}  {KINDS[kind].severity:9}  {KINDS[kind].title}")
    bound = made.total.bound
    click.echo(
        f"{len(made.rows)} videos, pixels of {made.num_sampled}; bound {bound.current_px:g} px "
        f"clips {100 * bound.current_share:.3f} %, recommended {bound.recommended_px:g} px"
    )
    click.echo(f"written to {target}")


def default_file(out: str) -> str:
    """Returns the path of the page: beside the data set, or in the current folder for a URL."""
    name = out.rstrip("/")
    return (name.rsplit("/", 1)[-1] if is_url(name) else name) + "-report.html"
