"""`flowprep browse`: a local web page to walk through a data set."""

from __future__ import annotations

import click

from flowprep.cli.options import (
    GroupedCommand,
    GroupedOption,
    check_exists,
    options_named,
    sample_option,
)
from flowprep.extras import extra_needed

__all__ = ["browse"]


@click.command(cls=GroupedCommand)
@click.argument("out")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    cls=GroupedOption,
    group="Server",
    help="The address to listen on. Any other than this machine's own loopback needs a token, "
    "which the printed URL holds.",
)
@click.option(
    "--port",
    type=int,
    default=8765,
    show_default=True,
    metavar="N",
    cls=GroupedOption,
    group="Server",
    help="The port; 0 takes a free one.",
)
@click.option(
    "--token",
    is_flag=True,
    cls=GroupedOption,
    group="Server",
    help="Ask for a token on loopback too, as on a machine with other users.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME[:PORT]",
    cls=GroupedOption,
    group="Server",
    help="One more name of this server, as the browser's address bar shows it: for a tunnel that "
    "ends on another port, or a proxy. May be repeated.",
)
@click.option(
    "--open/--no-open",
    "open_browser",
    default=False,
    show_default=True,
    cls=GroupedOption,
    group="Server",
    help="Open the page in this machine's browser.",
)
@click.option(
    "--findings/--no-findings",
    default=True,
    show_default=True,
    cls=GroupedOption,
    group="Findings",
    help="Search for what is wrong in the background, as flowprep report does.",
)
@sample_option("Findings")
@click.pass_context
def browse(
    ctx: click.Context,
    /,
    out: str,
    host: str,
    port: int,
    token: bool,
    allow_host: tuple[str, ...],
    open_browser: bool,
    findings: bool,
    sample: int,
) -> None:
    """Serve a page to walk through the data set OUT, until Ctrl-C.

    Filter and sort the videos; play frames, flow, colours and arrows in step, two videos side by
    side, with px under the pointer. Pictures stream from the shards as they lie, and nothing is
    written. Only this machine can open the page, unless --host says otherwise.

    \b
    flowprep browse flow
    flowprep browse s3://bucket/flow --port 0 --open
    ssh -L 8765:localhost:8765 server flowprep browse flow
    """
    check_exists(out)
    with extra_needed("`flowprep browse`", "browse"):
        # Imported here: an extra.
        from flowprep.look.browse.server import BrowseSpec, serve
    with options_named(ctx):
        spec = BrowseSpec(host, port, token, allow_host, sample, findings)
    serve(out, spec, announce=click.echo, open_browser=open_browser)
