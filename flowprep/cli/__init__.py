"""The command line: `flowprep COMMAND`. Each command ends in one library call."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from flowprep._version import __version__
from flowprep.cli.browse import browse
from flowprep.cli.compare import compare
from flowprep.cli.dataset import info, status, verify
from flowprep.cli.doctor import doctor
from flowprep.cli.evaluate import evaluate
from flowprep.cli.export import export
from flowprep.cli.extract import extract
from flowprep.cli.fuse import fuse
from flowprep.cli.import_ import import_
from flowprep.cli.label import label
from flowprep.cli.metrics import metrics
from flowprep.cli.plan import plan
from flowprep.cli.predict import predict
from flowprep.cli.report import report
from flowprep.cli.synthetic import synthetic
from flowprep.cli.train import train
from flowprep.cli.view import view
from flowprep.errors import FlowprepError

__all__ = ["cli", "main"]


class _OrderedGroup(click.Group):
    """A group whose help lists the commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order in which they were added."""
        return list(self.commands)


@click.group(
    cls=_OrderedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="flowprep")
def cli() -> None:
    """Turn video collections into optical-flow data sets that train.

    \b
    flowprep synthetic demo                 make a few clips to try it on
    flowprep extract demo/videos demo-flow  compute their flow, store it in shards
    flowprep verify demo-flow               prove that nothing is missing
    flowprep info demo-flow                 say what is there
    flowprep view demo-flow --to flow.mp4   look at it
    flowprep report demo-flow               find what is wrong before training does
    flowprep browse demo-flow               walk through it in a web browser

    Exit codes: 0 complete, 1 incomplete or failed, 2 wrong usage.
    """


cli.add_command(plan)
cli.add_command(extract)
cli.add_command(status)
cli.add_command(verify)
cli.add_command(info)
cli.add_command(view)
cli.add_command(report)
cli.add_command(browse)
cli.add_command(compare)
cli.add_command(metrics)
cli.add_command(export)
cli.add_command(import_)
cli.add_command(label)
cli.add_command(train)
cli.add_command(evaluate)
cli.add_command(fuse)
cli.add_command(predict)
cli.add_command(synthetic)
cli.add_command(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    # File names, and what data sets say, may hold what no terminal shows.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(arguments, prog_name="flowprep", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FlowprepError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted.", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
