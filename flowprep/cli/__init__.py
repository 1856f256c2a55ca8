"""The command line: `flowprep COMMAND`. Each command ends in one library call."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from flowprep._version import __version__
from flowprep.errors import FlowprepError
from flowprep.lazy import imported

__all__ = ["cli", "main"]

_COMMANDS = {
    "plan": ("flowprep.cli.plan:plan", "Estimate hours, bytes and shards of large collections."),
    "extract": (
        "flowprep.cli.extract:extract",
        "Extract optical flow from videos into a data set.",
    ),
    "status": ("flowprep.cli.dataset:status", "Say how far a run is, from any machine."),
    "verify": ("flowprep.cli.dataset:verify", "Prove that a data set is complete and undamaged."),
    "info": ("flowprep.cli.dataset:info", "Print what a data set holds."),
    "view": ("flowprep.cli.view:view", "Draw flow beside its frames: film or sheet."),
    "report": (
        "flowprep.cli.report:report",
        "Make a page that says what is wrong with a data set.",
    ),
    "browse": ("flowprep.cli.browse:browse", "Walk through a data set in a web browser."),
    "compare": ("flowprep.cli.compare:compare", "Measure how far two data sets' flows are apart."),
    "metrics": (
        "flowprep.cli.metrics:metrics",
        "Score flow files against the truth: EPE, angle, outliers.",
    ),
    "export": (
        "flowprep.cli.export:export",
        "Write a data set as the tree that another project reads.",
    ),
    "import": (
        "flowprep.cli.import_:import_",
        "Make a data set of a tree that another project wrote.",
    ),
    "label": (
        "flowprep.cli.label:label",
        "Give a finished data set other labels, splits or class names.",
    ),
    "train": ("flowprep.cli.train:train", "Train a network on data sets."),
    "evaluate": ("flowprep.cli.evaluate:evaluate", "Test a network on the videos of a data set."),
    "fuse": (
        "flowprep.cli.fuse:fuse",
        "Join the scores of several networks, such as flow and RGB.",
    ),
    "predict": ("flowprep.cli.predict:predict", "Name what happens in raw videos."),
    "synthetic": (
        "flowprep.cli.synthetic:synthetic",
        "Make a few small clips to try everything on.",
    ),
    "doctor": ("flowprep.cli.doctor:doctor", "Say what this machine can do, and how fast."),
}
"""Where each command is and its line in the help, in the order in which they are used."""


class _LazyGroup(click.Group):
    """A group that imports a command when it is called: no help waits for what it does not show."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (_, words) in _COMMANDS.items():
            self.add_command(click.Command(name, short_help=words))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order in which they were added."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; None where there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = imported(_COMMANDS[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands and their lines, and imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
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
