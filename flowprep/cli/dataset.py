"""`flowprep status`, `verify` and `info`: is a data set finished and whole, and what is in it?"""

from __future__ import annotations

import json
import time

import click

from flowprep.cli.options import check_exists, labels_option
from flowprep.cli.output import echo_line, echo_notes
from flowprep.errors import DatasetError
from flowprep.printable import one_line
from flowprep.words import format_bytes

__all__ = ["info", "status", "verify"]

_MAX_SHOWN_PROBLEMS = 50


@click.command
@click.argument("out")
@click.option("--deep", is_flag=True, help="Decode every JPEG too. This is slower.")
@click.option(
    "--repair",
    is_flag=True,
    help="Make anew what is lost or damaged of the index files (shards/NNNNNN.json), from the tar "
    "files, and failures.jsonl, from the index files. No run may write to OUT meanwhile.",
)
@click.option(
    "--sources",
    is_flag=True,
    help="Look whether the sources are still the files that were extracted: compare their sizes "
    "and times.",
)
@click.option(
    "--hash",
    "hash_sources",
    is_flag=True,
    help="With --sources: read the sources too, and compare their checksums.",
)
def verify(out: str, deep: bool, repair: bool, sources: bool, hash_sources: bool) -> int:
    """Prove that the data set OUT is complete and undamaged.

    The command checks that every video of the manifest is in exactly one shard or in
    failures.jsonl, that N frames have N - step flows per direction, each with x and y, that every
    JPEG is whole, that all checksums match, and that no other files are there. (Files that
    flowprep did not write are only noted if they lie among the shards or the parts.) A video in
    failures.jsonl is no problem, unless flowprep itself caused the error. A data set without any
    stored video is not complete. The exit code is 1 when a check fails.
    """
    from flowprep.dataset.verify import verify_dataset

    if hash_sources and not sources:
        raise click.UsageError("--hash compares sources; give --sources too.")
    check_exists(out)
    report = verify_dataset(
        out,
        deep=deep,
        repair=repair,
        sources=sources,
        hash_sources=hash_sources,
        progress=None,
    )
    for name in report.repaired:
        echo_line(f"rebuilt {name}")
    echo_notes(report.notes)
    groups = report.summed_up()
    for group in groups[:_MAX_SHOWN_PROBLEMS]:
        first, *more = group.lines()
        echo_line(f"problem: {first}")
        for line in more:
            echo_line(line)
    if hidden := sum(1 + len(group.names) for group in groups[_MAX_SHOWN_PROBLEMS:]):
        echo_line(f"... and {hidden:,} more of other kinds")
    counts = (
        f"{report.num_stored} of {report.num_videos} videos stored, {report.num_failed} failed, "
        f"{f'{report.num_concealed} with concealed damage, ' if report.num_concealed else ''}"
        f"{report.num_flows} flows per direction, {report.num_jpegs} JPEGs"
        f"{' decoded' if deep else ''}, {format_bytes(report.num_bytes)}"
    )
    if report.is_whole:
        echo_line(f"whole: {counts}")
        return 0
    echo_line(f"NOT WHOLE: {len(report.problems)} problems; {counts}")
    return 1


@click.command
@click.argument("out")
@click.option(
    "--videos",
    "list_videos",
    is_flag=True,
    help="List the videos instead: one per line, in columns separated by tabs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@labels_option()
def info(out: str, list_videos: bool, as_json: bool, labels: str | None) -> None:
    """Print what the data set OUT holds: the number, kind and size of its videos and flows.

    The command also lists the names of labels that flowprep label wrote.
    """
    from flowprep.dataset.describe import describe_dataset
    from flowprep.dataset.read import open_dataset

    if list_videos and as_json:
        raise click.UsageError("--videos and --json cannot be given together; leave one out.")
    check_exists(out)
    if list_videos:
        dataset = open_dataset(out, labels=labels)
        echo_notes(dataset.notes)
        click.echo("key\tlabels\tsplit\tframes\tflows\twidth\theight\tfps\tstatus")
        for video in dataset.videos:
            numbers = ",".join(map(str, video.labels))
            status = "partial" if video.is_partial else "complete"
            fps = "" if video.fps is None else f"{video.fps:.3f}"
            click.echo(
                f"{video.key}\t{numbers}\t{one_line(video.split or '')}\t{video.num_frames}\t"
                f"{video.num_flows}\t{video.width}\t{video.height}\t{fps}\t{status}"
            )
        return
    description = describe_dataset(out, labels_name=labels)
    echo_notes(description.notes)
    if as_json:
        click.echo(json.dumps(description.to_dict(), indent=2))
    else:
        click.echo(description.summary())


@click.command
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.option(
    "--prometheus",
    is_flag=True,
    help="Print the last run's numbers in Prometheus' text format.",
)
@click.option(
    "--watch",
    "watch_seconds",
    type=click.FloatRange(min=1.0),
    metavar="SECONDS",
    help="Print the status again every so many seconds, until the run has ended.",
)
def status(out: str, as_json: bool, prometheus: bool, watch_seconds: float | None) -> int:
    """Show how far the run into the data set OUT has got.

    The command reads only the files in OUT, which may be the URL of an object store. So it works
    from any machine. The exit code is 0 while a run is at work, and when all videos have flow. It
    is 1 when the last run ended before that, and when its driver has stopped writing.
    """
    from flowprep.run.counters import counter_samples, prometheus_text
    from flowprep.run.status import read_status

    if as_json and prometheus:
        raise click.UsageError("--json and --prometheus cannot be given together; leave one out.")
    check_exists(out)
    while True:
        found = read_status(out)
        if as_json:
            click.echo(json.dumps(found.to_dict(), indent=2))
        elif not prometheus:
            click.echo(found.summary())
            echo_notes(found.notes)
        elif found.progress is None:
            raise DatasetError(f"{out} has no record of a run; name a data set of extract")
        else:
            click.echo(prometheus_text(counter_samples(found.progress)), nl=False)
        if watch_seconds is None or found.state != "running":
            return 0 if found.state in ("running", "complete") else 1
        time.sleep(watch_seconds)
