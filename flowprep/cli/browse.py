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
from flowprep.cli.output import echo_line
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
    help="The address to listen on. For any address other than this machine's loopback, the page "
    "asks for a token. The printed URL contains the token.",
)
@click.option(
    "--port",
    type=int,
    default=8765,
    show_default=True,
    metavar="N",
    cls=GroupedOption,
    group="Server",
    help="The port. 0 takes a free port.",
)
@click.option(
    "--token",
    is_flag=True,
    cls=GroupedOption,
    group="Server",
    help="Ask for a token on loopback too. Use this on a machine that you share with other users.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME[:PORT]",
    cls=GroupedOption,
    group="Server",
    help="Another name of this server, as the browser's address bar shows it. Needed behind a "
    "proxy, or for a tunnel that ends on another port. May be given several times.",
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
    help="Search for problems in the background, as flowprep report does.",
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
    """Serve a web page to look through the data set OUT, until Ctrl-C.

    The page lists the videos, with filters and sorting. It plays frames, flow colors and arrows in
    step, also for two videos side by side, and shows the flow under the pointer in pixels. The
    pictures come directly from the shards, and nothing is written. Only this machine can open the
    page, unless you give --host.

    \b
    flowprep browse flow
    flowprep browse s3://bucket/flow --port 0 --open
    ssh -L 8765:localhost:8765 server flowprep browse flow
    """
    check_exists(out)
    with extra_needed("`flowprep browse`", "browse"):
        # Imported here, because the extra may not be installed.
        from flowprep.look.browse.server import BrowseSpec, serve
    with options_named(ctx):
        spec = BrowseSpec(host, port, token, allow_host, sample, findings)
    serve(out, spec, announce=echo_line, open_browser=open_browser)
